"""Clients that mean harm, against a whole node: they cost themselves, and everybody else chats on."""

from __future__ import annotations

import gc
import json
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, open_websocket_url

from edge_config.load import load
from node import app
from tests.harness.certificates import make_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from node.endpoints import Endpoints


# trio-websocket leaves the socket of a connection that the server has closed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect that socket here, where it is forgiven, and not in another test."""
    yield
    gc.collect()


@asynccontextmanager
async def node(data_dir: Path, **flags: object) -> AsyncIterator[Endpoints]:
    """A node in this process, chatting with guests."""
    given = {"listen.port": 0, "listen.internal_port": 0, "node.data_dir": str(data_dir), "node.dev": True}
    config = load(None, {}, given | {key.replace("__", "."): value for key, value in flags.items()})
    async with trio.open_nursery() as nursery:
        where: Endpoints = await nursery.start(partial(app.run, config))
        with trio.fail_after(30):
            yield where
        nursery.cancel_scope.cancel()


def clients_url(where: Endpoints) -> str:
    return where.public.replace("http", "ws", 1) + "/connection/websocket"


async def say(client: WebSocketConnection, *commands: dict[str, Any]) -> None:
    await client.send_message("\n".join(json.dumps(command) for command in commands))


async def hear(client: WebSocketConnection) -> dict[str, Any]:
    while True:
        message = json.loads(await client.get_message())
        if message:
            return dict(message)


async def chats(where: Endpoints, context: ssl.SSLContext | None = None) -> bool:
    """Whether a well-behaved client can connect, subscribe, publish and read its own message."""
    async with open_websocket_url(clients_url(where), ssl_context=context) as client:
        message = {"id": "m1", "content": "anybody here?"}
        await say(
            client,
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": "lobby"}},
            {"id": 3, "publish": {"channel": "lobby", "data": message}},
        )
        while True:
            heard = await hear(client)
            if "error" in heard:
                return False
            if heard.get("push", {}).get("pub", {}).get("data", {}).get("content") == message["content"]:
                return True


async def closed_with(client: WebSocketConnection) -> int:
    async def read_on() -> None:
        while True:
            await client.get_message()

    with pytest.raises(ConnectionClosed) as closed:
        await read_on()
    reason = closed.value.reason
    assert reason is not None
    return int(reason.code)


async def test_bad_json_ends_with_3501_and_others_chat_on(tmp_path: Path) -> None:
    async with node(tmp_path) as where, open_websocket_url(clients_url(where)) as client:
        await client.send_message('{"id":1,"connect":')
        assert await closed_with(client) == 3501
        assert await chats(where)


async def test_bad_utf8_ends_with_1007_and_others_chat_on(tmp_path: Path) -> None:
    async with node(tmp_path) as where:
        address = urlsplit(where.public)
        stream = await trio.open_tcp_stream(address.hostname or "", address.port or 0)
        await stream.send_all(
            b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            b"\x81\x82\0\0\0\0\xc3\x28"
        )
        data = b""
        while more := await stream.receive_some(4096):
            data += more
        assert data.partition(b"\r\n\r\n")[2][:4] == b"\x88" + data.partition(b"\r\n\r\n")[2][1:2] + (1007).to_bytes(2)
        await stream.aclose()
        assert await chats(where)


async def test_ten_thousand_subscriptions_stop_at_the_limit(tmp_path: Path) -> None:
    async with node(tmp_path) as where, open_websocket_url(clients_url(where)) as client:
        await say(client, {"id": 1, "connect": {}})
        await hear(client)
        codes: Counter[int] = Counter()
        waiting = list(range(2, 10_002))
        while waiting:
            asked, waiting = waiting[:1000], waiting[1000:]
            await say(client, *({"id": number, "subscribe": {"channel": f"r{number}"}} for number in asked))
            for _ in asked:
                heard = await hear(client)
                code = heard.get("error", {}).get("code", 0)
                if code == 100:  # on a busy machine it took too long, and a client asks again
                    waiting.append(heard["id"])
                else:
                    codes[code] += 1
        assert codes == {0: 500, 106: 10_000 - 500}
        assert await chats(where)


async def test_a_thousand_connections_of_one_address_get_a_hundred(tmp_path: Path) -> None:
    async with node(tmp_path, limits__connections_per_ip=100) as where:
        address = urlsplit(where.public)
        kept = [await trio.open_tcp_stream(address.hostname or "", address.port or 0) for _ in range(100)]
        refused = 0
        for _ in range(900):
            stream = await trio.open_tcp_stream(address.hostname or "", address.port or 0)
            answer = await stream.receive_some(100)
            refused += answer.startswith(b"HTTP/1.1 429")
            await stream.aclose()
        assert refused == 900
        for stream in kept:
            await stream.aclose()


async def test_a_flood_of_publications_is_read_no_faster_than_it_is_written(tmp_path: Path) -> None:
    async with node(tmp_path) as where, open_websocket_url(clients_url(where)) as client:
        await say(client, {"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "flood"}})
        count = 5000
        acknowledged = 0
        sequences: list[int] = []

        async def read() -> None:
            nonlocal acknowledged
            while acknowledged < count or len(sequences) < count:
                heard = await hear(client)
                acknowledged += "publish" in heard
                if "push" in heard:
                    sequences.append(heard["push"]["pub"]["offset"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for start in range(0, count, 100):
                await say(
                    client,
                    *(
                        {"id": 3 + n, "publish": {"channel": "flood", "data": {"id": f"f{n}", "content": "x"}}}
                        for n in range(start, start + 100)
                    ),
                )
        assert sequences == list(range(1, count + 1))
        assert await chats(where)


async def test_a_foreign_origin_is_refused_where_the_node_says_who_may_come(tmp_path: Path) -> None:
    async with node(tmp_path, auth__allowed_origins=["https://shop.example"]) as where:
        with pytest.raises(ConnectionRejected) as rejected:
            async with open_websocket_url(clients_url(where), extra_headers=[(b"Origin", b"https://evil.example")]):
                pass
        assert rejected.value.status_code == 403


async def test_clients_chat_over_tls(tmp_path: Path) -> None:
    identity = make_identity(tmp_path, "node")
    flags = {"listen__tls_certificate": str(identity.certificate), "listen__tls_key": str(identity.key)}
    async with node(tmp_path / "data", **flags) as where:
        assert where.public.startswith("https://")
        assert await chats(where, ssl.create_default_context(cafile=identity.certificate))

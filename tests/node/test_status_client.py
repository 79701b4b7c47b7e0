"""Asking nodes how they are, over real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import pytest
import trio

from edge_config.secret import Secret
from node.http import internal_app
from node.http_server import HttpServer
from node.metrics import Build, Metrics, scraper
from node.status import NodeStatus, Unreachable
from node.status_client import ANSWER_BYTES, NOT_A_NODE, Target, ask_cluster, ask_node
from tests.harness.status import WELL, FakeNode

TOKEN = Secret("s3cret")


@asynccontextmanager
async def listening(handler: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def node(token: Secret | None = None) -> AsyncIterator[str]:
    metrics = Metrics()
    app = internal_app(FakeNode(), metrics, scraper(metrics, Build("1", "3", "n1", "eu")), token)
    server = HttpServer(app, metrics, header_bytes=8192, head_seconds=10)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listen, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[str]:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(response)
        await stream.send_eof()
        await stream.receive_some()

    async with listening(answer) as url:
        yield url


def reason(found: NodeStatus | Unreachable) -> str:
    assert isinstance(found, Unreachable)
    return found.reason


async def test_a_node_tells_its_status() -> None:
    async with node() as url:
        assert await ask_node(Target(url), 5) == WELL


async def test_the_token_is_shown() -> None:
    async with node(TOKEN) as url:
        assert await ask_node(Target(url, TOKEN), 5) == WELL
        assert "listen.internal_token" in reason(await ask_node(Target(url), 5))


async def test_a_node_asked_by_a_name_that_is_not_of_loopback_says_what_to_do() -> None:
    async with node() as url:
        target = Target(url.replace("127.0.0.1", "127.1"))  # the same to the resolver, another name to the node
        assert "names of loopback only" in reason(await ask_node(target, 5))


async def test_nobody_listens() -> None:
    async with listening(trio.aclose_forcefully) as url:
        pass
    found = await ask_node(Target(url), 5)
    assert reason(found) == "Connection refused"


async def test_who_accepts_and_says_nothing_is_not_waited_for() -> None:
    async def keep_silent(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(keep_silent) as url:
        assert reason(await ask_node(Target(url), 0.05)) == "no answer within 0.05 s"


async def test_who_sends_a_byte_at_a_time_is_not_waited_for() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b" ")
                await trio.sleep(0.01)

    async with listening(drip) as url:
        assert "no answer" in reason(await ask_node(Target(url), 0.1))


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", NOT_A_NODE),
        (b"", NOT_A_NODE),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", NOT_A_NODE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", NOT_A_NODE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xff", NOT_A_NODE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", NOT_A_NODE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + b" " * (ANSWER_BYTES + 1), NOT_A_NODE),
    ],
)
async def test_what_is_no_node_is_told_so(response: bytes, words: str) -> None:
    async with answering(response) as url:
        assert words in reason(await ask_node(Target(url), 5))


async def test_an_interim_response_is_skipped() -> None:
    body = msgspec.json.encode(WELL)
    async with answering(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + body) as url:
        assert await ask_node(Target(url), 5) == WELL


async def test_all_nodes_are_asked_at_once_and_told_in_order() -> None:
    async with node() as well, answering(b"nonsense\r\n\r\n") as broken:
        found = await ask_cluster([Target(broken), Target(well)], 5)
    assert found.expected == 2
    assert found.nodes == [WELL]
    assert [gone.address for gone in found.unreachable] == [broken]

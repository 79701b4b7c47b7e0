"""Streams and emulation over real sockets: what pages and networks do, and clients that mean harm."""

from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.admission import Admission
from node.codes import DisconnectCode
from node.connection import Connection
from node.echo import Idle
from node.fallbacks import EMULATION_PATH, HTTP_STREAM_PATH, SSE_PATH, Fallbacks
from node.framing import WEB_SOCKET_TEXT, Wire
from node.hub import Hub, HubOptions
from node.listening import open_listeners
from node.metrics import Metrics
from node.origins import Pages
from node.protobuf import ProtobufCodec
from node.protocol import JsonCodec
from node.sites import Site, Sites
from node.tls import Certificates
from tests.harness.certificates import make_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from node.connection import Session

OURS, FOREIGN = "https://ours.example", "https://foreign.example"
SECRET = "secret"
BINARY = "Content-Type: application/octet-stream"
OPENED: list[trio.SocketStream] = []
"""Clients' sockets, closed at the end of `serving`."""


class Mirror:
    """A session that answers each batch of commands by its text; `wait` pauses it, `fail` is a fault."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.deadline, self.ended = connection, inf, False

    def receive(self, payload: bytes, now: float) -> None:
        if payload == b"fail":
            raise RuntimeError("a fault of ours")
        if payload == b"wait":
            self.connection.pause()
        if payload == b"soon":
            self.deadline = now + 0.1
        size = int(payload.partition(b"*")[2] or 1)
        self.connection.send(msgspec.json.encode({"got": payload.decode() * size}))

    def on_time(self, now: float) -> None:  # noqa: ARG002 - the hub's signature
        self.connection.close(DisconnectCode.NO_PONG, "no pong")

    def closed(self) -> None:
        self.ended = True


@asynccontextmanager
async def serving(
    options: HubOptions | None = None, *, sse: bool = True, http_stream: bool = True,
    certificates: Certificates | None = None,
) -> AsyncIterator[tuple[Hub, int, list[Mirror]]]:  # fmt: skip
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    listeners = open_listeners("127.0.0.1", 0, 128, "port")
    made: list[Mirror] = []

    def open_session(connection: Connection, _: object) -> Session:
        made.append(Mirror(connection))
        return made[-1]

    codec = JsonCodec(10)
    site = Site("default", (), (), (OURS,), guests=True, webhooks=())
    hub = Hub(
        listeners, options or HubOptions(), metrics=Metrics(), admission=Admission(100, 0), pages=Pages(Sites((site,))),
        wire=Wire(codec, WEB_SOCKET_TEXT), open_session=open_session, work=Idle(wake), wake=wake,
        certificates=certificates,
        fallbacks=Fallbacks(
            codec, ProtobufCodec(10), lambda _: f"{SECRET}{len(made)}", sse=sse, http_stream=http_stream
        ),
    )  # fmt: skip
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            with trio.fail_after(20):
                yield hub, listeners[0].getsockname()[1], made
            while OPENED:
                await trio.aclose_forcefully(OPENED.pop())
            nursery.cancel_scope.cancel()
    finally:
        os.close(wake)


class Client:
    """A client of HTTP that reads as much as a test asks for."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.data = b""

    async def until(self, mark: bytes) -> bytes:
        """What comes up to a mark, which is left out."""
        while mark not in self.data:
            more = await self.stream.receive_some(65536)
            assert more, f"the end came before {mark!r}: {self.data[:500]!r}"
            self.data += more
        found, _, self.data = self.data.partition(mark)
        return found

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and fields of a response."""
        line, *fields = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        return int(line.split(" ")[1]), {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}

    async def rest(self) -> bytes:
        """All to the end."""
        while more := await self.stream.receive_some(65536):
            self.data += more
        return self.data

    async def send(self, data: bytes) -> Client:
        await self.stream.send_all(data)
        return self


def asking(method: str, path: str, body: bytes = b"", *fields: str, length: int | None = None) -> bytes:
    sized = [f"Content-Length: {len(body) if length is None else length}"] if method == "POST" else []
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: node.example", *sized, *fields, "", "")).encode() + body


async def connect(port: int) -> Client:
    return Client(await opened(port))


async def opened(port: int) -> trio.SocketStream:
    OPENED.append(await trio.open_tcp_stream("127.0.0.1", port))
    return OPENED[-1]


async def ask(port: int, method: str, path: str, body: bytes = b"", *fields: str) -> Client:
    return await (await connect(port)).send(asking(method, path, body, *fields))


def emulated(data: str, session: str = f"{SECRET}1") -> bytes:
    return msgspec.json.encode({"session": session, "node": "n", "data": data})


async def test_a_stream_of_lines_carries_what_is_sent_by_emulation() -> None:
    async with serving() as (hub, port, made):
        stream = await ask(port, "POST", HTTP_STREAM_PATH, b"hello", f"Origin: {OURS}")
        status, fields = await stream.head()
        assert (status, fields["access-control-allow-origin"], fields["vary"]) == (200, OURS, "Origin")
        assert await stream.until(b"\n") == b'{"got":"hello"}'
        upwards = await connect(port)
        for text in ("one", "two"):  # on one connection
            await upwards.send(asking("POST", EMULATION_PATH, emulated(text), f"Origin: {OURS}"))
            status, fields = await upwards.head()
            assert (status, fields["connection"], fields["access-control-allow-origin"]) == (204, "keep-alive", OURS)
            assert await stream.until(b"\n") == b'{"got":"%b"}' % text.encode()
        assert (hub.metrics.opened["http_stream"], hub.metrics.emulations, hub.metrics.fallback_connections) == (
            1,
            2,
            1,
        )
        await stream.stream.aclose()
        while not made[0].ended:
            await trio.lowlevel.checkpoint()
        assert hub.metrics.fallback_connections == 0
        await upwards.send(asking("POST", EMULATION_PATH, emulated("late"), f"Origin: {OURS}"))
        status, fields = await upwards.head()
        assert (status, fields["access-control-allow-origin"]) == (404, OURS)
        assert hub.metrics.refused["emulation_session"] == 1


async def test_events_carry_the_same_payloads() -> None:
    async with serving() as (_, port, made):
        stream = await ask(port, "GET", f"{SSE_PATH}?cf_connect=%7B%22id%22%3A1%7D+x")
        status, fields = await stream.head()
        assert (status, fields["content-type"]) == (200, "text/event-stream")
        assert await stream.until(b"\n\n") == b'data: {"got":"{\\"id\\":1} x"}'
        made[0].connection.close(DisconnectCode.SHUTDOWN, "shutdown")
        made[0].connection.hub.ring()
        end = b'data: {"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}\n\n'
        assert await stream.rest() == end


async def test_a_stream_over_tls(tmp_path: Path) -> None:
    identity = make_identity(tmp_path, "node")
    async with serving(certificates=Certificates(*identity)) as (_, port, _made):
        trust = ssl.create_default_context(cafile=str(identity[0]))
        trust.check_hostname = False
        stream = Client(trio.SSLStream(await opened(port), trust))
        await stream.send(asking("POST", HTTP_STREAM_PATH, b"hello"))
        assert (await stream.head())[0] == 200
        assert await stream.until(b"\n") == b'{"got":"hello"}'


@pytest.mark.parametrize("field", ["Content-Length: 40", "Transfer-Encoding: chunked"])
async def test_what_may_be_the_body_of_a_preflight_is_no_next_request(field: str) -> None:
    async with serving() as (_, port, _made):
        client = await connect(port)
        await client.send(asking("OPTIONS", EMULATION_PATH, b"", f"Origin: {OURS}", field))
        status, fields = await client.head()
        assert (status, fields["connection"]) == (204, "close")
        await client.send(asking("OPTIONS", EMULATION_PATH, b"", f"Origin: {OURS}"))
        assert await client.rest() == b""


async def test_who_has_not_taken_the_last_answer_is_given_one_more_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (_, port, _made):
        client, request = await connect(port), asking("OPTIONS", EMULATION_PATH, b"", f"Origin: {OURS}")
        await client.send(request)
        assert (await client.head())[1]["connection"] == "keep-alive"
        monkeypatch.setattr(Connection, "behind", True)
        await client.send(request)
        assert (await client.head())[1]["connection"] == "close"
        assert await client.rest() == b""


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut_at=st.lists(st.integers(1, 200), max_size=4))
async def test_a_request_may_come_in_pieces(cut_at: list[int]) -> None:
    async with serving() as (_, port, _made):
        stream, data = await connect(port), asking("POST", HTTP_STREAM_PATH, b"in pieces")
        bounds = sorted({0, len(data), *(cut for cut in cut_at if cut < len(data))})
        for start, end in pairwise(bounds):
            await stream.send(data[start:end])
            await trio.sleep(0.005)
        assert (await stream.head())[0] == 200
        assert await stream.until(b"\n") == b'{"got":"in pieces"}'


@pytest.mark.parametrize(
    ("method", "path", "body", "fields", "status", "counted"),
    [
        ("POST", HTTP_STREAM_PATH, b"x", (f"Origin: {FOREIGN}",), 403, "http_stream_origin"),
        ("GET", f"{SSE_PATH}?cf_connect=x", b"", (f"Origin: {FOREIGN}",), 403, "sse_origin"),
        ("POST", EMULATION_PATH, b"x", (f"Origin: {FOREIGN}",), 403, "emulation_origin"),
        ("OPTIONS", EMULATION_PATH, b"", (f"Origin: {FOREIGN}",), 403, "emulation_origin"),
        ("GET", HTTP_STREAM_PATH, b"", (), 405, "http_stream_method"),
        ("POST", SSE_PATH, b"x", (), 405, "sse_method"),
        ("GET", SSE_PATH, b"", (), 400, "sse_body"),
        ("POST", HTTP_STREAM_PATH, b"x" * 2000, (), 413, "http_stream_body"),
        ("POST", EMULATION_PATH, b"\x1a\x05x", (BINARY,), 400, "emulation_body"),
        ("POST", EMULATION_PATH, b"\x12\x01x\x1a\x01x", (BINARY,), 404, "emulation_session"),
        ("POST", EMULATION_PATH, b"{", (), 400, "emulation_body"),
        ("POST", EMULATION_PATH, b'{"session":"x","data":{}}', (), 400, "emulation_body"),
        ("POST", EMULATION_PATH, emulated("x" * 1500), (), 413, "emulation_body"),
        ("POST", EMULATION_PATH, emulated("x", "guessed"), (), 404, "emulation_session"),
    ],
)
async def test_a_bad_request_is_refused_and_counted(  # noqa: PLR0917 - a table's columns
    method: str, path: str, body: bytes, fields: tuple[str, ...], status: int, counted: str
) -> None:
    async with serving(HubOptions(message_bytes=1024)) as (hub, port, made):
        client = await ask(port, method, path, body, *fields)
        found, told = await client.head()
        assert (found, hub.metrics.refused[counted], made) == (status, 1, [])
        assert "access-control-allow-origin" not in told  # a foreign page may not even read why
        assert await client.rest()


async def test_a_preflight_allows_what_the_sdk_sends_and_no_other_origin() -> None:
    async with serving() as (_, port, _made):
        asked = (
            f"Origin: {OURS}",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type",
        )
        status, fields = await (await ask(port, "OPTIONS", EMULATION_PATH, b"", *asked)).head()
        assert (status, fields["access-control-allow-origin"]) == (204, OURS)
        assert (fields["access-control-allow-methods"], fields["access-control-allow-headers"]) == (
            "POST",
            "content-type",
        )
        assert "access-control-allow-credentials" not in fields


@pytest.mark.parametrize("sent", [asking("POST", EMULATION_PATH, b"{", length=500), b"POST /emul"])
async def test_a_slow_head_or_body_is_dropped_after_its_time(sent: bytes) -> None:
    async with serving(HubOptions(upgrade_seconds=0.3)) as (hub, port, _made):
        client = await (await connect(port)).send(sent)
        assert await client.rest() == b""
        assert hub.metrics.refused["timeout"] == 1


async def test_a_half_open_client_is_timed_out_by_its_session() -> None:
    async with serving() as (hub, port, made):
        stream = await ask(port, "POST", HTTP_STREAM_PATH, b"soon")
        await stream.head()
        assert b'"code":3012' in await stream.rest()
        assert made[0].ended
        assert hub.metrics.closed[3012] == 1


async def test_a_client_that_does_not_read_is_closed_as_slow_at_a_frame_boundary() -> None:
    async with serving(HubOptions(output_bytes=200_000)) as (hub, port, _made):
        stream = await ask(port, "POST", HTTP_STREAM_PATH, b"x*3000")
        upwards = await connect(port)
        while not hub.metrics.slow_closes:
            await upwards.send(asking("POST", EMULATION_PATH, emulated("y*30000")))
            if (await upwards.head())[0] != 204:
                break
        assert (await stream.head())[0] == 200
        *lines, after = (await stream.rest()).split(b"\n")
        assert after == b""
        told = [msgspec.json.decode(line) for line in lines]
        assert told[-1]["push"]["disconnect"]["code"] == 3008
        assert all("got" in line for line in told[:-1])


async def test_a_session_with_too_much_to_do_is_sent_no_more() -> None:
    async with serving() as (hub, port, _made):
        stream = await ask(port, "POST", HTTP_STREAM_PATH, b"wait")
        await stream.head()
        assert (await (await ask(port, "POST", EMULATION_PATH, emulated("more"))).head())[0] == 429
        assert hub.metrics.refused["emulation_rate"] == 1


async def test_a_fault_in_a_session_ends_its_stream_and_not_the_one_who_sent() -> None:
    async with serving() as (_, port, _made):
        stream, other = [await ask(port, "POST", HTTP_STREAM_PATH, b"x") for _ in range(2)]
        assert (await (await ask(port, "POST", EMULATION_PATH, emulated("fail"))).head())[0] == 204
        await stream.head()
        assert b'"code":3004' in await stream.rest()
        assert (await (await ask(port, "POST", EMULATION_PATH, emulated("on", f"{SECRET}2"))).head())[0] == 204
        await other.head()
        await other.until(b'{"got":"on"}\n')


async def test_a_drain_tells_streams_to_come_back_and_ends_them() -> None:
    async with serving() as (hub, port, made):
        streams = [await ask(port, "POST", HTTP_STREAM_PATH, b"x"), await ask(port, "GET", f"{SSE_PATH}?cf_connect=x")]
        for stream in streams:
            await stream.head()
        ends: list[bytes] = []

        async def read(stream: Client) -> None:
            ends.append(await stream.rest())
            await stream.stream.aclose()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read, stream)
            await hub.drain(5, 1)
        assert len(ends) == 2
        assert all(b'"code":3001' in end for end in ends)
        assert all(session.ended for session in made)


@pytest.mark.parametrize("path", [HTTP_STREAM_PATH, SSE_PATH, EMULATION_PATH])
async def test_what_is_switched_off_is_not_there(path: str) -> None:
    async with serving(sse=False, http_stream=False) as (_, port, made):
        assert (await (await ask(port, "POST", path, b"x")).head())[0] == 404
        assert made == []


json_values = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
bodies = st.binary(max_size=200) | st.dictionaries(st.sampled_from(["session", "node", "data", "x"]), json_values).map(
    msgspec.json.encode
)


@given(binary=st.booleans(), body=bodies | st.just(b"[" * 5000) | st.just(b'{"session":"a","data":"\\ud800"}'))
def test_any_body_of_emulation_is_refused_by_its_form_or_for_its_session(body: bytes, *, binary: bool) -> None:
    fallbacks = Fallbacks(JsonCodec(10), ProtobufCodec(10), lambda _: SECRET, sse=True, http_stream=True)
    hub = SimpleNamespace(options=HubOptions())
    refusal = fallbacks._deliver(hub, body, binary=binary)  # type: ignore[arg-type]
    assert refusal is not None
    assert refusal.status in (400, 404)

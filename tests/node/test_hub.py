"""The hub over real sockets: echoes, close handshakes, and clients that mean harm."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
from typing_extensions import override
from websockets.frames import Frame, Opcode
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

from node import hub as hub_module
from node.admission import Admission
from node.echo import EchoSession, Idle, serve
from node.framing import WEB_SOCKET_TEXT, Wire
from node.hub import Hub, HubOptions
from node.listening import open_listeners
from node.metrics import Metrics
from node.origins import Pages
from node.protocol import JsonCodec
from node.sites import Sites

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wsproto.events import Event

    from node.connection import Connection

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@asynccontextmanager
async def hub_with(
    options: HubOptions | None = None, *, most: int = 100, per_address: int = 0,
    open_session: Callable[[Connection], EchoSession] = EchoSession,
) -> AsyncIterator[tuple[Hub, int]]:  # fmt: skip
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    listeners = open_listeners("127.0.0.1", 0, 128, "port")
    hub = Hub(
        listeners, options or HubOptions(websocket_path="/"), metrics=Metrics(), admission=Admission(most, per_address),
        pages=Pages(Sites(())), wire=Wire(JsonCodec(1), WEB_SOCKET_TEXT),
        open_session=lambda connection, _: open_session(connection),
        work=Idle(wake), wake=wake,
    )  # fmt: skip
    port = listeners[0].getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            with trio.fail_after(20):
                yield hub, port
            nursery.cancel_scope.cancel()
    finally:
        os.close(wake)


async def upgraded(port: int) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(UPGRADE)
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some(4096)
    assert head.startswith(b"HTTP/1.1 101")
    return stream


async def until_end(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some(65536):
            data += more
    except trio.BrokenResourceError:
        pass
    return data


def masked(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


async def test_an_independent_client_gets_its_messages_back() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0)
        client = WSConnection(ConnectionType.CLIENT)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        got: list[Event] = []

        async def until(kind: type[Event]) -> Event:
            while True:
                for event in got:
                    if isinstance(event, kind):
                        got.remove(event)
                        return event
                client.receive_data(await stream.receive_some(1 << 20) or None)
                got.extend(client.events())

        with trio.fail_after(20):
            await stream.send_all(client.send(Request(host="x", target="/")))
            await until(AcceptConnection)
            await stream.send_all(client.send(TextMessage("grüß dich")) + client.send(BytesMessage(b"\0\xff")))
            await stream.send_all(client.send(Ping(b"p")))
            text, binary, pong = await until(TextMessage), await until(BytesMessage), await until(Pong)
            await stream.send_all(client.send(CloseConnection(1000, "bye")))
            closed = await until(CloseConnection)
        assert isinstance(text, TextMessage)
        assert isinstance(binary, BytesMessage)
        assert isinstance(pong, Pong)
        assert isinstance(closed, CloseConnection)
        assert (text.data, bytes(binary.data), bytes(pong.payload), closed.code) == ("grüß dich", b"\0\xff", b"p", 1000)
        await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (b"\x81\x01a", 1002),
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b"x" * 70_000), 1009),
        (b"\xc1\x80\0\0\0\0", 1002),
    ],
)
async def test_a_violation_closes_with_its_code_and_costs_nobody_else(bytes_sent: bytes, code: int) -> None:
    async with hub_with() as (_, port):
        good, bad = await upgraded(port), await upgraded(port)
        await bad.send_all(bytes_sent)
        end = await until_end(bad)
        assert end[:1] == b"\x88"
        assert int.from_bytes(end[2:4], "big") == code
        await good.send_all(masked(Opcode.TEXT, b"still here"))
        assert await good.receive_some(100) == b"\x81\x0astill here"
        await good.aclose()
        await bad.aclose()


async def test_one_address_gets_no_more_than_its_share() -> None:
    async with hub_with(per_address=3) as (hub, port):
        kept = [await upgraded(port) for _ in range(3)]
        refused = await trio.open_tcp_stream("127.0.0.1", port)
        assert (await until_end(refused)).startswith(b"HTTP/1.1 429")
        assert hub.metrics.refused["address"] == 1
        await kept.pop().aclose()
        while hub.connections > 2:
            await trio.lowlevel.checkpoint()
        again = await upgraded(port)
        for stream in (*kept, again, refused):
            await stream.aclose()


async def test_a_head_that_never_ends_is_dropped_after_its_time() -> None:
    async with hub_with(HubOptions(websocket_path="/", upgrade_seconds=0.3)) as (hub, port):
        slow = await trio.open_tcp_stream("127.0.0.1", port)
        await slow.send_all(b"GET / HTTP/1.1\r\nHost: ")
        assert await until_end(slow) == b""
        assert hub.metrics.refused["timeout"] == 1
        assert hub.connections == 0
        await slow.aclose()


async def test_a_client_that_does_not_read_is_closed_as_slow_at_a_frame_boundary() -> None:
    async with hub_with(HubOptions(websocket_path="/", output_bytes=200_000)) as (hub, port):
        stream = await upgraded(port)
        message = masked(Opcode.BINARY, b"m" * 60_000)
        while not hub.metrics.slow_closes:
            await stream.send_all(message)
        data = await until_end(stream)
        at, last = 0, b""
        while at < len(data):
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            last = data[at : at + head + length]
            at += head + length
        assert at == len(data)
        assert last[:1] == b"\x88"
        assert int.from_bytes(last[2:4], "big") == 3008
        await stream.aclose()


async def test_another_origin_is_refused_and_told_the_mend() -> None:
    async with hub_with() as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\nOrigin: https://evil.example\r\n"))
        answer = await until_end(stream)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"auth.allowed_origins" in answer
        await stream.aclose()


async def test_a_drain_sends_everybody_away_with_3001_and_accepts_nobody() -> None:
    async with hub_with() as (hub, port):
        streams = [await upgraded(port) for _ in range(5)]
        ends: list[bytes] = []

        async def read(stream: trio.SocketStream) -> None:
            frame = await stream.receive_some(100)
            ends.append(frame)
            await stream.send_all(masked(Opcode.CLOSE, frame[2:4]))
            await until_end(stream)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read, stream)
            await hub.drain(5, 2)
        assert [int.from_bytes(end[2:4], "big") for end in ends] == [3001] * 5
        with pytest.raises(OSError, match=r"refused|connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_what_is_more_than_a_turn_reads_arrives_in_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clients, size, bound = 12, 1000, 2500
    monkeypatch.setattr(hub_module, "BYTES_PER_TURN", bound)
    turns: list[int] = []
    take_all = Hub._take_all

    def take_and_note(self: Hub, arrived: list[tuple[Connection, bytes]]) -> None:
        turns.append(sum(len(data) for _, data in arrived))
        take_all(self, arrived)

    monkeypatch.setattr(Hub, "_take_all", take_and_note)
    async with hub_with() as (hub, port):
        streams = [await upgraded(port) for _ in range(clients)]
        before = hub.metrics.bytes_received
        turns.clear()
        payloads = [bytes([n]) * size for n in range(clients)]
        frames = [masked(Opcode.BINARY, payload) for payload in payloads]
        for stream, frame in zip(streams, frames, strict=True):  # all is there before the hub turns
            assert os.write(stream.socket.fileno(), frame) == len(frame)
        for stream, payload in zip(streams, payloads, strict=True):
            echo = b""
            while len(echo) < 4 + size:
                echo += await stream.receive_some(4096)
            assert echo == b"\x82\x7e" + size.to_bytes(2, "big") + payload
            await stream.aclose()
        assert hub.metrics.bytes_received - before == sum(map(len, frames))
        assert bound < max(turns) <= bound + len(frames[0])


class Unclosable(EchoSession):
    """A session with a fault that shows when its connection has gone."""

    @override
    def closed(self) -> None:
        raise RuntimeError("not closed")


async def test_a_session_that_fails_when_it_is_closed_ends_alone() -> None:
    async with hub_with(open_session=Unclosable) as (hub, port):
        gone, dropped, good = [await upgraded(port) for _ in range(3)]
        await gone.aclose()
        await dropped.send_all(masked(Opcode.CLOSE, b"\x03\xe8"))
        assert (await until_end(dropped))[:1] == b"\x88"
        await dropped.aclose()
        while hub.connections > 1:
            await trio.lowlevel.checkpoint()
        await good.send_all(masked(Opcode.TEXT, b"still here"))
        assert await good.receive_some(100) == b"\x81\x0astill here"
    assert hub.connections == 0  # the one that was left when the hub ended
    await good.aclose()


class Committed:
    """Work that has something for a connection when the bell is rung."""

    def __init__(self) -> None:
        self.due: list[tuple[Connection, bytes]] = []
        self.turns = 0
        self.turned = trio.Event()

    def turn(self) -> None:
        self.turns += 1
        self.turned.set()

    def drain(self) -> None:
        while self.due:
            connection, sent = self.due.pop()
            connection.put(sent)

    def distribute(self) -> None:
        pass


@asynccontextmanager
async def resting(seconds: float) -> AsyncIterator[tuple[Hub, Committed, Connection, trio.SocketStream]]:
    """A hub that has just begun to rest."""
    sessions: list[Connection] = []

    def open_session(connection: Connection) -> EchoSession:
        sessions.append(connection)
        return EchoSession(connection)

    options = HubOptions(websocket_path="/", flush_window=seconds)
    async with hub_with(options, open_session=open_session) as (hub, port):
        hub._work = work = Committed()
        stream = await upgraded(port)
        hub._pace.period, hub._pace.load = seconds, 0.7
        await stream.send_all(masked(Opcode.TEXT, b"hello"))
        assert b"hello" in await stream.receive_some(4096)
        async with stream:
            yield hub, work, sessions[0], stream


async def test_a_resting_hub_sends_at_once_what_was_committed() -> None:
    async with resting(3600.0) as (hub, work, connection, stream):
        turns = work.turns
        for text in (b"one", b"two"):
            work.due.append((connection, b"\x81\x03" + text))
            hub.ring()
            assert await stream.receive_some(4096) == b"\x81\x03" + text
        assert work.turns == turns, "it did not rest"


async def test_a_bell_rung_in_a_rest_is_followed_by_a_turn() -> None:
    async with resting(0.3) as (hub, work, _, _):
        work.turned = trio.Event()
        hub.ring()
        with trio.fail_after(5):  # the next time-out is due after ten
            await work.turned.wait()

"""A TCP proxy between clients and a node, which delays, reorders between connections, stalls and resets."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    SocketMaker = Callable[[], trio.socket.SocketType]
    """Makes TCP sockets on some host."""
    Dial = Callable[[], Awaitable[trio.SocketStream]]
    """Connects to where a connection goes on.

    Raises:
        OSError: Nobody is there.
    """

CHUNK_BYTES: Final = 65_536
CHUNKS_UNDER_WAY: Final = 64  # of a direction; then what is behind waits at the sender
BACKLOG: Final = 256
DIAL_SECONDS: Final = 5.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST

Address = tuple[str, int]


@dataclass(slots=True)
class Pair:
    """A connection, and how it goes on.

    Attributes:
        lateness: Seconds by which what goes through it is late; of each connection its own.
    """

    client: trio.SocketStream
    server: trio.SocketStream
    lateness: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class TcpProxy:
    """What a path does to those who use it.

    Args:
        dial: Where connections go on.
        drawn: Decides each connection's part of the jitter.

    Attributes:
        address: Where it listens.
        accepted: So many connections so far.
    """

    def __init__(self, dial: Dial, drawn: random.Random) -> None:
        self.address: Address = ("", 0)
        self.accepted = 0
        self._dial, self._drawn = dial, drawn
        self._delay = self._jitter = 0.0
        self._flows = trio.Event()
        self._flows.set()
        self._pairs: list[Pair] = []

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._pairs)

    def delay(self, seconds: float, jitter: float = 0.0) -> None:
        """Connections made from now on are late by so much each way, each by its own part of the jitter more.

        Within a connection order stays; between connections it does not.
        """
        self._delay, self._jitter = seconds, jitter

    def stall(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._flows = trio.Event()

    def flow(self) -> None:
        """What waits comes through, and all that follows."""
        self._flows.set()

    def reset(self) -> int:
        """Break all connections; gives how many."""
        pairs = list(self._pairs)
        for pair in pairs:
            for stream in (pair.client, pair.server):
                with suppress(OSError):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            pair.scope.cancel()
        return len(pairs)

    async def serve(
        self, listening: trio.SocketListener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take connections, without end."""
        self.address = listening.socket.getsockname()[:2]
        await trio.serve_listeners(self._serve, [listening], task_status=_Started(task_status))

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        server: trio.SocketStream | None = None
        try:
            with suppress(OSError), trio.move_on_after(DIAL_SECONDS):
                server = await self._dial()
            if server is not None:
                await self._pass_on(Pair(client, server, self._delay + self._jitter * self._drawn.random()))
        finally:
            for stream in (client, server):
                if stream is not None:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(stream)

    async def _pass_on(self, pair: Pair) -> None:
        self._pairs.append(pair)
        try:
            with pair.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, pair, pair.client, pair.server)
                    nursery.start_soon(self._carry, pair, pair.server, pair.client)
        finally:
            self._pairs.remove(pair)

    async def _carry(self, pair: Pair, source: trio.SocketStream, target: trio.SocketStream) -> None:
        """One direction, up to its end, which is passed on too."""
        put, take = trio.open_memory_channel[tuple[float, bytes]](CHUNKS_UNDER_WAY)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, source, put, pair.lateness)
                async with take:
                    async for due, chunk in take:
                        await trio.sleep_until(due)
                        await self._flows.wait()
                        await target.send_all(chunk)
                await target.send_eof()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pair.scope.cancel()


async def _read(source: trio.SocketStream, put: trio.MemorySendChannel[tuple[float, bytes]], lateness: float) -> None:
    async with put:
        while chunk := await source.receive_some(CHUNK_BYTES):
            await put.send((trio.current_time() + lateness, chunk))


class _Started:
    """Tells who waits for `serve` that it listens, without the listeners."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status

    def started(self, _value: object = None) -> None:
        self._status.started()


async def connect(address: Address, make_socket: SocketMaker | None = None) -> trio.SocketStream:
    """A connection to an IPv4 address, made on the host whose sockets are given; None: on this machine.

    Raises:
        OSError: There is none.
    """
    opened = (make_socket or trio.socket.socket)()
    try:
        await opened.connect(address)
    except BaseException:
        opened.close()
        raise
    return trio.SocketStream(opened)


async def listen(host: str, make_socket: SocketMaker | None = None, port: int = 0) -> trio.SocketListener:
    """Listen at an IPv4 address; port 0: any free one."""
    opened = (make_socket or trio.socket.socket)()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await opened.bind((host, port))
    opened.listen(BACKLOG)
    return trio.SocketListener(opened)


@asynccontextmanager
async def open_proxy(target: Address, drawn: random.Random) -> AsyncIterator[TcpProxy]:
    """A proxy on loopback, to one address there."""

    async def dial() -> trio.SocketStream:
        return await connect(target)

    proxy = TcpProxy(dial, drawn)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, await listen("127.0.0.1"))
        yield proxy
        nursery.cancel_scope.cancel()

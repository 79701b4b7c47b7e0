"""One task that serves all client sockets, from a private epoll that Trio waits for.

A turn: sockets are read; what the log has committed meanwhile goes out; what was read is handled (bytes become
commands, commands become work for the router), the router's effects are performed, timers are looked at, and what
gathered for each connection leaves in one `send`. Nothing here waits for anybody; whatever can wait is handed to
ordinary tasks. A fault in serving one connection ends that connection alone.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from dataclasses import dataclass
from math import inf
from select import EPOLLIN, EPOLLOUT, epoll
from typing import TYPE_CHECKING, Final, Protocol

import trio

from node import websocket
from node.connection import CLOSE_SECONDS, CLOSING, GONE, HANDSHAKE, HEAD, KEPT, OPEN, WOULD_BLOCK, Connection, Session
from node.logs import events
from node.origins import arrival, foreign_page
from node.pace import Pace
from node.upgrade import HeadReader, Refusal, Request, accept, is_upgrade, wanted_format
from node.wheel import TimerWheel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from node.admission import Admission, Refused
    from node.fallbacks import Fallbacks
    from node.framing import Wire
    from node.metrics import Metrics
    from node.origins import Arrival, Pages
    from node.tls import Certificates

ACCEPTS_PER_TURN: Final = 128  # a reconnecting crowd must not starve who is there
SENDS_PER_CHECKPOINT: Final = 256  # about two milliseconds, then other tasks run
BYTES_PER_TURN: Final = 8 << 20  # read before they are handled
LONG_TURN: Final = 0.005  # seconds
CROWD: Final = 8  # a turn is a crowd's if one in so many that sent something is new
TICK_SECONDS: Final = 0.25  # grain of all time-outs of connections
EMFILE_SECONDS: Final = 1.0  # how long nothing is accepted when there are no file descriptors left
COHORT_SECONDS: Final = 0.5  # between two groups of clients that a drain sends away
GRANULARITY: Final = 0.0005  # seconds; a shorter rest is none
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SHUTDOWN: Final = (3001, "shutdown")
SERVER_ERROR: Final = (3004, "internal server error")

log = events(__name__)


class Work(Protocol):
    """What the hub drives besides sockets."""

    def turn(self) -> None:
        """Perform what came up in this turn."""

    def drain(self) -> None:
        """Fetch the answers that have come, and perform what they bring about."""

    def distribute(self) -> None:
        """Hand what rooms have for their members to the connections."""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Bounds of the hub; see `edge_config.limits` for their reasons.

    Attributes:
        websocket_path: Where upgrades are taken.
        flush_window: Seconds; the longest period of turns.
    """

    websocket_path: str = "/connection/websocket"
    header_bytes: int = 8192
    message_bytes: int = 65_536
    output_bytes: int = 1_048_576
    upgrade_seconds: float = 10.0
    flush_window: float = 0.02
    events_per_turn: int = 2048
    turn_warn_seconds: float = 0.1


class Hub:
    """Serves the sockets.

    Args:
        listeners: Non-blocking, listening.
        options: Bounds.
        metrics: What is counted.
        admission: Who may connect.
        pages: Web pages that may connect, to any site or to the one that they ask for.
        wire: Of WebSocket clients without a sub-protocol.
        subprotocols: Of those that ask for one, by its name.
        open_session: Makes the session of a client whose upgrade was accepted.
        work: What is driven at each turn.
        wake: An eventfd; whoever writes to it makes the hub call `work.drain`.
        certificates: TLS; None: plain.
        fallbacks: Transports beside WebSocket; None: there are none.
        serve_http: Takes over a socket that asked for something else, with the bytes read so far; None: 404.

    Attributes:
        dirty: Connections for which something is to be sent.
        now: Monotonic seconds at the start of this turn.
    """

    def __init__(  # noqa: PLR0913 - its surroundings, composed in one place
        self, listeners: Sequence[socket.socket], options: HubOptions, *, metrics: Metrics, admission: Admission,
        pages: Pages, wire: Wire, open_session: Callable[[Connection, Arrival], Session], work: Work,
        wake: int, certificates: Certificates | None = None, fallbacks: Fallbacks | None = None,
        subprotocols: Mapping[str, Wire] | None = None,
        serve_http: Callable[[socket.socket, bytes, str], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self.options, self.metrics, self.admission, self.output_bytes = (
            options, metrics, admission, options.output_bytes,
        )  # fmt: skip
        self.dirty: list[Connection] = []
        self.wake = wake
        self._listeners = {sock.fileno(): sock for sock in listeners}
        self._subprotocols: Mapping[str, Wire] = subprotocols or {}
        self._pages, self._wire, self._open_session, self._work = pages, wire, open_session, work
        self._certificates, self._fallbacks, self._serve_http = certificates, fallbacks, serve_http
        self._connections: dict[int, Connection] = {}
        self._wheel: TimerWheel[Connection] = TimerWheel(TICK_SECONDS, 256)
        self._pace = Pace(options.flush_window)
        self._epoll = epoll()
        self._epoll.register(self.wake, EPOLLIN)
        self._accept_again = inf
        self._exhausted = False  # whether the last attempt to accept found no descriptor
        self._newcomers = 0  # connections accepted or upgraded in this turn
        self._early = 0.0  # seconds of the last rest that went into sending what was committed
        self._rung = False  # whether the bell was taken during the last rest: what it was rung for needs a turn
        self._nursery: trio.Nursery | None = None
        self.now = time.monotonic()
        for fd in self._listeners:
            self._epoll.register(fd, EPOLLIN)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def ring(self) -> None:
        """Make the hub turn; may be called from any thread."""
        os.eventfd_write(self.wake, 1)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._loop()
        finally:
            self._close()

    async def drain(self, seconds: float, cohort: int) -> None:
        """Stop accepting, and send all clients away in groups, with time to go elsewhere; then wait for them.

        Args:
            seconds: For all of it.
            cohort: Connections closed at once; more when there is not time enough for all.
        """
        self.admission.draining = True
        self._stop_accepting()
        await self.send_away(SHUTDOWN, seconds, cohort)

    async def send_away(self, close: tuple[int, str], seconds: float, cohort: int) -> None:
        """Close all clients in groups, and wait for them; who comes meanwhile stays."""
        with trio.move_on_after(seconds):
            pause = min(COHORT_SECONDS, seconds / 20)
            rounds = max(1, int(seconds * 0.8 / pause)) if pause else 1
            clients = [c for c in self._connections.values() if c.session is not None]
            size = max(cohort, -(-len(clients) // rounds))
            for start in range(0, len(clients), size):
                for connection in clients[start : start + size]:
                    connection.close(*close)
                self.ring()
                await trio.sleep(pause)
            while any(c.state is CLOSING for c in self._connections.values()):  # noqa: ASYNC110 - a tick is fine
                await trio.sleep(TICK_SECONDS / 5)

    # -- for connections -----------------------------------------------------------------------------------------

    def watch(self, connection: Connection, *, reading: bool, writing: bool) -> None:
        """Change what a connection's socket is watched for."""
        if connection.fd in self._connections:
            self._epoll.modify(connection.fd, (EPOLLIN if reading else 0) | (EPOLLOUT if writing else 0))

    def closing(self, connection: Connection, code: int) -> None:
        """What ends the connection was queued; the client has a moment to answer it."""
        self.metrics.closed[code] += 1
        self.time(connection, self.now + CLOSE_SECONDS)
        self._end_session(connection)
        if connection.wire.framing.half_closes:
            connection.shut()

    def slow(self, connection: Connection) -> None:
        """A client did not take its output."""
        self.metrics.slow_closes += 1
        log.info("slow client closed", client=connection.remote, limit_bytes=self.output_bytes)
        self.closing(connection, 3008)

    def drop(self, connection: Connection) -> None:
        """Forget a connection at once."""
        if connection.state is GONE:
            return
        connection.state = GONE
        self._forget(connection)
        self.metrics.output_bytes -= connection.pending
        try:
            connection.sock.close()
        except OSError as error:
            log.debug("socket close failed", error=error)
        self._end_session(connection)
        if self._accept_again < inf:
            self._accept_again = self.now  # a descriptor is free again

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        pace, work, metrics = self._pace, self._work, self.metrics
        ended = time.monotonic()
        while True:
            await self._wait(ended)
            started = self.now = time.monotonic()
            arrived = self._read_sockets()
            work.drain()
            await self._flush()  # what was committed goes out before new work begins
            self._take_all(arrived)
            await self._breathe(started)
            work.turn()
            self._sweep()
            await self._breathe(started)
            work.drain()
            await self._flush()
            work.turn()  # closing slow clients made work
            before, ended = ended, time.monotonic()
            busy = ended - started + self._early
            metrics.turn_seconds.observe(busy)
            if busy > self.options.turn_warn_seconds:
                log.warning("slow turn", seconds=round(busy, 3), connections=len(self._connections))
            rest = pace.rest(busy, ended - before)
            # A crowd that connects sends little at a time and waits for each answer: a rest would only be lost.
            self._early, self._rung = 0.0, False
            if rest > GRANULARITY and self._newcomers * CROWD <= len(arrived):
                if pace.full:
                    await trio.sleep(rest)
                else:
                    await self._rest(ended + rest)
            self._newcomers = 0

    async def _rest(self, until: float) -> None:
        """Let what clients send gather for the next turn; what is committed meanwhile goes out at once."""
        while (now := time.monotonic()) < until - GRANULARITY:
            with trio.move_on_after(until - now) as scope:  # around the wait alone: a flush is never cut short
                await trio.lowlevel.wait_readable(self.wake)
            if scope.cancelled_caught:
                return
            started = time.monotonic()
            os.eventfd_read(self.wake)
            self._rung = True
            self._work.drain()
            await self._flush()
            self._early += time.monotonic() - started

    async def _breathe(self, started: float) -> None:
        """Let other tasks run in the midst of a long turn."""
        if time.monotonic() - started > LONG_TURN:
            await trio.lowlevel.checkpoint()

    async def _wait(self, now: float) -> None:
        if self.dirty or self._rung:
            await trio.lowlevel.checkpoint()
            return
        due = min(self._wheel.next_deadline, self._accept_again)
        if due == inf:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            return
        with trio.move_on_after(max(0.0, due - now)):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    def _read_sockets(self) -> list[tuple[Connection, bytes]]:
        """Read all that is ready; what came is handled later, as a step for many is cheaper than many steps."""
        connections = self._connections
        arrived: list[tuple[Connection, bytes]] = []
        size = 0
        for fd, event in self._epoll.poll(0, self.options.events_per_turn):
            connection = connections.get(fd)
            if connection is None:
                self._handle_own(fd)
                continue
            try:
                if connection.state is HANDSHAKE:
                    self._shake(connection)
                if event & EPOLLOUT:
                    connection.write_backlog()
                if event & ~EPOLLOUT and (data := connection.read()):
                    arrived.append((connection, data))
                    size += len(data)
                    if size > BYTES_PER_TURN:  # what is not read yet is reported again in the next turn
                        break
            except Exception as error:  # noqa: BLE001 - the boundary: it ends this connection, not the node
                self.fail(connection, error)
        self.metrics.bytes_received += size
        return arrived

    def _take_all(self, arrived: list[tuple[Connection, bytes]]) -> None:
        for connection, data in arrived:
            try:
                if connection.state is not GONE:
                    self._take(connection, data)
            except Exception as error:  # noqa: BLE001 - as above
                self.fail(connection, error)

    def _handle_own(self, fd: int) -> None:
        if fd == self.wake:
            os.eventfd_read(fd)
        elif fd in self._listeners:
            self._accept(self._listeners[fd])

    def _sweep(self) -> None:
        now = self.now
        if now >= self._accept_again:
            self._accept_again = inf
            for fd in self._listeners:
                self._epoll.modify(fd, EPOLLIN)
        for connection in self._wheel.advance(now):
            try:
                self._time_out(connection)
            except Exception as error:  # noqa: BLE001 - as above
                self.fail(connection, error)

    async def _flush(self) -> None:
        self._work.distribute()
        while dirty := self.dirty:
            self.dirty = []
            for start in range(0, len(dirty), SENDS_PER_CHECKPOINT):
                if start:
                    await trio.lowlevel.checkpoint()
                sent = [connection.flush() for connection in dirty[start : start + SENDS_PER_CHECKPOINT]]
                self.metrics.bytes_sent += sum(sent)

    # -- a connection's life -------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except WOULD_BLOCK:
                self._exhausted = False
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTOR:
                    self._rest_accepting(error)
                    return
                continue  # that client is gone already
            refused = self.admission.enter(address[0])
            if refused is not None:
                self._refuse(sock, refused)
                continue
            try:
                self._admit(sock, address[0])
            except OSError:
                self.admission.leave(address[0])
                sock.close()

    def _admit(self, sock: socket.socket, remote: str) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = HEAD
        if self._certificates is not None:
            sock = self._certificates.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            state = HANDSHAKE
        self.metrics.accepted += 1
        self._newcomers += 1
        connection = Connection(self, sock, remote, state, HeadReader(self.options.header_bytes), self._wire)
        self._connections[connection.fd] = connection
        self.metrics.connections += 1
        self._epoll.register(connection.fd, EPOLLIN)
        self.time(connection, self.now + self.options.upgrade_seconds)

    def _refuse(self, sock: socket.socket, refused: Refused) -> None:
        self.metrics.refused[refused.name.lower()] += 1
        text = f"{refused.value}; try again later.\n".encode()
        head = b"HTTP/1.1 %s\r\nconnection: close\r\nretry-after: 5\r\ncontent-type: text/plain\r\n" % refused.status
        try:
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            if self._certificates is None:
                sock.send(head + b"content-length: %d\r\n\r\n" % len(text) + text)
        except OSError as error:
            log.debug("refusal not sent", error=error)
        sock.close()

    def _shake(self, connection: Connection) -> None:
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            raise TypeError(f"{connection.remote} shakes hands on {sock!r}")
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self.watch(connection, reading=True, writing=False)
        except ssl.SSLWantWriteError:
            self.watch(connection, reading=True, writing=True)
        except OSError:
            self.metrics.refused["tls"] += 1
            self.drop(connection)
        else:
            connection.state = HEAD
            self.watch(connection, reading=True, writing=False)

    def _take(self, connection: Connection, data: bytes) -> None:
        """Bytes of a client."""
        parser = connection.parser
        if not isinstance(parser, websocket.Parser):
            if isinstance(parser, HeadReader):
                self._take_head(connection, parser, data)
            else:
                parser.receive(data)
            return
        session = connection.session
        if session is None:
            if connection.state is CLOSING:
                self._finish(connection, parser, data)
            return
        for opcode, payload in parser.receive(data):
            if connection.state is not OPEN:
                return
            if opcode <= websocket.BINARY and isinstance(payload, bytes):
                connection.opcode = opcode
                session.receive(payload, self.now)
            else:
                self._control(connection, opcode, payload)
        if session.deadline < connection.deadline:
            self.time(connection, session.deadline)

    def _control(self, connection: Connection, opcode: int, payload: bytes | websocket.CloseReason) -> None:
        if opcode == websocket.PING and isinstance(payload, bytes):
            connection.put(websocket.pong_frame(payload))
        elif isinstance(payload, websocket.CloseReason):
            if opcode == websocket.FAILED:
                self.metrics.refused["protocol"] += 1
            connection.put(websocket.close_frame(payload.code, payload.reason if opcode == websocket.FAILED else ""))
            connection.state = CLOSING
            self.closing(connection, payload.code)
            connection.shut()

    def _finish(self, connection: Connection, parser: websocket.Parser, data: bytes) -> None:
        """Our close frame is out: the client's own ends the connection."""
        for opcode, _ in parser.receive(data):
            if opcode in (websocket.CLOSE, websocket.FAILED):
                connection.shut()
                self.drop(connection)
                return

    def _take_head(self, connection: Connection, reader: HeadReader, data: bytes) -> None:
        if connection.state is KEPT:
            connection.state = HEAD
            self.time(connection, self.now + self.options.upgrade_seconds)
        head = reader.receive(data)
        if head is None:
            return
        if isinstance(head, Refusal):
            self.answer(connection, head, "head")
        elif head.path == self.options.websocket_path:
            self._upgrade(connection, head)
        elif is_upgrade(head):
            self.answer(connection, Refusal(404, "Not Found", f"No WebSocket is served at {head.path}.\n"), "path")
        elif self._fallbacks is not None and self._fallbacks.serves(head.path):
            self._fallbacks.begin(self, connection, head)
        else:
            self._hand_over(connection, head)

    def _upgrade(self, connection: Connection, request: Request) -> None:
        if not self.admits(request):
            self.answer(connection, foreign_page(request), "origin")
            return
        answer = accept(request, self._subprotocols)
        if isinstance(answer, Refusal):
            self.answer(connection, answer, "upgrade")
            return
        connection.parser = websocket.Parser(self.options.message_bytes)
        connection.speak(self._subprotocols.get(wanted_format(request, self._subprotocols), self._wire))
        connection.state = OPEN
        connection.put(answer)
        self.open(connection, request)
        if request.rest:
            self._take(connection, request.rest)

    def admits(self, request: Request) -> bool:
        """Whether the page that sends a request may connect, as far as is known before its client shows a token."""
        return self._pages.admit(arrival(request))

    def open(self, connection: Connection, request: Request) -> Session:
        """Give a connection its session, now that the request has shown how its client talks."""
        self._newcomers += 1
        self.metrics.opened[connection.wire.framing.name] += 1
        session = connection.session = self._open_session(connection, arrival(request))
        self.time(connection, session.deadline)
        return session

    def answer(self, connection: Connection, refusal: Refusal, why: str) -> None:
        """Refuse a request, and end the connection."""
        self.metrics.refused[why] += 1
        connection.state = OPEN  # so that the answer is queued
        connection.put(refusal.response())
        connection.state = CLOSING
        connection.parser = websocket.Parser(0)
        self.time(connection, self.now + CLOSE_SECONDS)
        connection.shut()

    def _hand_over(self, connection: Connection, request: Request) -> None:
        if self._serve_http is None or self._nursery is None:
            self.answer(connection, Refusal(404, "Not Found", f"Nothing is served at {request.path}.\n"), "path")
            return
        connection.state = GONE
        self._forget(connection, leave=False)
        self._nursery.start_soon(self._serve_elsewhere, connection, request.raw)

    async def _serve_elsewhere(self, connection: Connection, head: bytes) -> None:
        try:
            if self._serve_http is not None:
                await self._serve_http(connection.sock, head, connection.remote)
        except Exception as error:  # noqa: BLE001 - one exchange's fault is not the node's
            log.fault("http exchange failed", error, client=connection.remote)
        finally:
            connection.sock.close()
            self.admission.leave(connection.remote)

    def _time_out(self, connection: Connection) -> None:
        session = connection.session
        if session is None or connection.state is not OPEN:
            if connection.state is HEAD or connection.state is HANDSHAKE:
                self.metrics.refused["timeout"] += 1
            self.drop(connection)
            return
        session.on_time(self.now)
        if connection.state is OPEN:
            self.time(connection, session.deadline)

    def time(self, connection: Connection, deadline: float) -> None:
        """Set a connection's time-out."""
        connection.deadline = deadline
        self._wheel.schedule(connection, deadline)

    def fail(self, connection: Connection, error: Exception) -> None:
        """End a connection that could not be served because of a fault of ours."""
        log.fault("connection failed", error, client=connection.remote)
        connection.close(*SERVER_ERROR)
        if connection.state is not CLOSING:
            self.drop(connection)

    def _end_session(self, connection: Connection) -> None:
        session, connection.session = connection.session, None
        if self._fallbacks is not None:
            self._fallbacks.forget(self, connection)
        if session is not None:
            try:
                session.closed()
            except Exception as error:  # noqa: BLE001 - the boundary, as above
                log.fault("session not closed", error, client=connection.remote)

    def _forget(self, connection: Connection, *, leave: bool = True) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self._epoll.unregister(connection.fd)
            self.metrics.connections -= 1
            if leave:
                self.admission.leave(connection.remote)
        self._wheel.cancel(connection)

    def _rest_accepting(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            log.error("no more sockets", error=error, open=len(self._connections), mend="raise the limit of open files")
        self.metrics.refused["descriptors"] += 1
        for fd in self._listeners:
            self._epoll.modify(fd, 0)
        self._accept_again = self.now + EMFILE_SECONDS

    def _stop_accepting(self) -> None:
        for fd, sock in self._listeners.items():
            self._epoll.unregister(fd)
            sock.close()
        self._listeners.clear()
        self._accept_again = inf

    def _close(self) -> None:
        self._stop_accepting()
        for connection in list(self._connections.values()):
            self.drop(connection)
        self._epoll.close()

"""One client's socket: framing, state, and what still has to be sent.

A connection is a small object without a task or timer of its own; the hub reads, writes and times it. What is to be
sent gathers while the hub works through one batch of events and leaves in one `send` at its end. What the socket does
not take stays here, bounded in bytes: past the bound the client is closed as slow and comes back through the log.
"""

from __future__ import annotations

import socket
import ssl
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from node import websocket
from node.wheel import NOT_SCHEDULED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from node.framing import Wire
    from node.hub import Hub
    from node.protocol import Codec
    from node.upgrade import HeadReader

WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
CLOSE_SECONDS: Final = 5.0  # how long the other side may take over the close handshake
READ_BYTES: Final = 65_536  # of one read: what a client gets of a turn, however much it sends
SLOW: Final = (3008, "slow")


class State(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "TLS handshake"
    HEAD = "reading the request's head"
    OPEN = "open"
    KEPT = "between two requests of a fallback transport"
    CLOSING = "close frame sent"
    GONE = "gone"


# Under names of their own: an attribute of an Enum costs a tenth of a microsecond each time in Python 3.11.
HANDSHAKE, HEAD, OPEN, KEPT, CLOSING, GONE = State


class Reader(Protocol):
    """Takes what a client sends that is neither a request's head nor WebSocket frames: see node/fallbacks.py."""

    def receive(self, data: bytes) -> None:
        """Bytes came."""


class Session(Protocol):
    """What a connection talks to; `node.session.Session`, or an echo."""

    deadline: float

    def receive(self, payload: bytes, now: float) -> None:
        """A whole message came."""

    def on_time(self, now: float) -> None:
        """`deadline` has passed."""

    def closed(self) -> None:
        """The connection is gone."""


class Connection:
    """A client's connection; the `Transport` of its session.

    Attributes:
        remote: The client's IP address.
        deadline: Monotonic seconds of the next time-out; read by the timer wheel.
        opcode: Of the message that the session is given at the moment.
        codec: How replies and pushes are encoded: `wire`'s.
        wire: How they are encoded and framed; set by `speak`.
        pending: Bytes that the socket has not taken.
    """

    __slots__ = (
        "_backlog", "_out", "_paused", "_sent", "_shutting", "codec", "deadline", "fd", "hub", "opcode", "parser",
        "pending", "remote", "session", "sock", "state", "wheel_slot", "wire",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - made in one place, by the hub
        self, hub: Hub, sock: socket.socket, remote: str, state: State, parser: HeadReader, wire: Wire
    ) -> None:  # fmt: skip
        self.hub, self.sock, self.fd, self.remote, self.state = hub, sock, sock.fileno(), remote, state
        self.parser: HeadReader | websocket.Parser | Reader = parser
        self.speak(wire)
        self.session: Session | None = None
        self.deadline = 0.0
        self.wheel_slot = NOT_SCHEDULED
        self.opcode = websocket.TEXT
        self.pending = 0
        self._out: list[bytes] | None = None
        self._backlog: list[bytes] | None = None
        self._sent = 0  # bytes of the backlog's first run that the socket has taken
        self._paused = self._shutting = False

    def speak(self, wire: Wire) -> None:
        """Write to the client in this way from now on; before it has a session."""
        self.wire: Wire = wire
        self.codec: Codec = wire.codec

    # -- the session's way out -----------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Queue one encoded reply or push; it leaves at the end of the hub's turn."""
        self.put(self.wire.frame(payload))

    def send_ephemeral(self, payload: bytes) -> None:
        """Queue what may be lost; a connection that is behind does not get it."""
        if self._backlog is None:
            self.put(self.wire.frame(payload))
        else:
            self.hub.metrics.ephemeral_dropped += 1

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then why it ends; the connection is over when the client agrees or does not."""
        if self.state is not OPEN:
            return
        self.put(self.wire.framing.end(self.codec, code, reason))
        self.state = CLOSING
        self.hub.closing(self, code)

    def pause(self) -> None:
        """Stop reading this client; TCP makes it wait."""
        if not self._paused:
            self._paused = True
            self._watch()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self._watch()

    # -- the hub's side ------------------------------------------------------------------------------------------

    def put(self, frames: bytes) -> None:
        """Queue whole frames."""
        out = self._out
        if out is not None:
            out.append(frames)
        elif self.state is OPEN:
            self._out = [frames]
            self.hub.dirty.append(self)

    @property
    def paused(self) -> bool:
        """Whether the session has too much to do to be sent more."""
        return self._paused

    @property
    def behind(self) -> bool:
        """Whether the socket did not take everything."""
        return self._backlog is not None

    def flush(self) -> int:
        """Hand what gathered to the socket, keep what it does not take; how many bytes it took."""
        out, self._out = self._out, None
        if out is None or self.state is GONE:
            return 0
        data = out[0] if len(out) == 1 else b"".join(out)
        if self._backlog is not None:
            self._backlog.append(data)
            self._owe(len(data))
            return 0
        try:
            sent = self.sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.hub.drop(self)
            return 0
        if sent != len(data):
            # What is kept begins at a frame's start or within one: `_sent` tells how much of its first frames is gone.
            self._backlog = [data]
            self._sent = sent
            self._watch()
            self._owe(len(data) - sent)
        return sent

    def write_backlog(self) -> None:
        """The socket takes bytes again."""
        backlog = self._backlog
        if backlog is None:
            return
        data = backlog[0] if len(backlog) == 1 else b"".join(backlog)
        try:
            sent = self.sock.send(memoryview(data)[self._sent :])
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.hub.drop(self)
            return
        self.hub.metrics.bytes_sent += sent
        self._owe(-sent)
        self._sent += sent
        if self._sent < len(data):
            kept = self.wire.framing.last_start(data, self._sent)
            self._backlog = [data[kept:]]
            self._sent -= kept
            return
        self._backlog, self._sent = None, 0
        self._watch()
        if self._shutting:
            self.shut()

    def read(self) -> bytes:
        """What came, about `READ_BYTES` at most; empty: nothing, or the client is gone."""
        if self.state is GONE or self.state is HANDSHAKE:
            return b""
        try:
            data = self.sock.recv(READ_BYTES)
            if isinstance(self.sock, ssl.SSLSocket):
                while size := self.sock.pending():  # decrypted bytes that epoll knows nothing of
                    data += self.sock.recv(size)
        except WOULD_BLOCK:
            return b""
        except OSError:
            self.hub.drop(self)
            return b""
        if not data:
            self.hub.drop(self)
        return data

    def shut(self) -> None:
        """After the close frame of a failed connection: no more from our side; the client's rest is discarded."""
        self.hub.metrics.bytes_sent += self.flush()
        self._shutting = True
        if self.state is not GONE and self._backlog is None:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.hub.drop(self)

    def _watch(self) -> None:
        self.hub.watch(self, reading=not self._paused, writing=self._backlog is not None)

    def _owe(self, change: int) -> None:
        self.pending += change
        self.hub.metrics.output_bytes += change
        if self.pending > self.hub.output_bytes and self.state is OPEN:
            self._give_up()

    def _give_up(self) -> None:
        """Too much is pending: finish the frame that is under way, say why, and end."""
        first = self._backlog[0] if self._backlog else b""
        framing = self.wire.framing
        begun = framing.last_start(first, self._sent)
        rest = first[begun : framing.frame_end(first, self._sent)] if begun < self._sent else b""
        self._backlog = [rest + framing.end(self.codec, *SLOW)]
        self._sent -= begun
        change = len(self._backlog[0]) - self._sent - self.pending
        self.pending += change
        self.hub.metrics.output_bytes += change
        self._out = None
        self.state = CLOSING
        self.hub.slow(self)


def put_all(connections: Iterable[Connection], frames: bytes) -> None:
    """`Connection.put` for many, without a call for each."""
    for connection in connections:
        out = connection._out  # noqa: SLF001 - its own module
        if out is not None:
            out.append(frames)
        elif connection.state is OPEN:
            connection._out = [frames]  # noqa: SLF001 - as above
            connection.hub.dirty.append(connection)

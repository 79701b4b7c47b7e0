"""ZeroMQ sockets behind one file descriptor; the only import of zmq.

A ZeroMQ socket's own descriptor is edge-triggered, and any operation on the socket can swallow the edge. So a socket on
which something was done is *touched*, and its state is read again before anybody waits (`Sockets.changed`). All of
them, and the bell that a touch rings while somebody waits, are in one epoll: readable means call `changed`.
"""

from __future__ import annotations

import os
import select
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from router.errors import TransportFault
from router.link import MAX_BODY, MAX_TOPIC
from router.zap import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edge_config.keys import KeyPair

MAX_SOCKETS: Final = 4096  # two for each of 1,024 nodes, and some; ZeroMQ's default is 1,023
OVERHEAD: Final = 512  # bytes of a frame beside its body: channel or topic, and what CURVE adds
SEND_QUEUE: Final = 64  # messages inside ZeroMQ for one peer, which no outbox bounds: at most 64 x MAX_BODY
RECEIVE_QUEUE: Final = 65_536
"""Messages of one peer that wait to be read; then TCP holds it back.

More than a peer sends before it gives up on a node that sleeps: ZeroMQ 4.3.5 can end the process when a peer whose
queue is full goes away (libzmq #4841).
"""
PUBLICATION_QUEUE: Final = 4096  # for one subscriber; beyond it publications are dropped, and it reads the log
SUBSCRIPTIONS_QUEUE: Final = 0  # unlimited: what does not fit is dropped silently, at each reconnection again
HEARTBEAT_MS: Final = 1000
DEAD_MS: Final = 4000  # without an answer to a heartbeat a connection is closed
RECONNECT_MS: Final = 200
MAX_RECONNECT_MS: Final = 5000
DEALER_LINGER_MS: Final = 500  # that a node leaves should still be said
REFUSED_BYTES: Final = 256  # of a frame where none is expected
_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"


class Fate(Enum):
    """What became of a connection that somebody opened."""

    ACCEPTED = auto()
    LET_IN = auto()
    FAILED = auto()  # it spoke wrongly, too slowly or with a wrong key
    ENDED = auto()


_FATES: Final[Mapping[int, Fate]] = {
    zmq.EVENT_ACCEPTED: Fate.ACCEPTED,
    zmq.EVENT_HANDSHAKE_SUCCEEDED: Fate.LET_IN,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Fate.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: Fate.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: Fate.FAILED,
    zmq.EVENT_DISCONNECTED: Fate.ENDED,
}


class Part(NamedTuple):
    """A part of a message.

    Attributes:
        content: Its bytes.
        more: Whether the message goes on.
    """

    content: memoryview
    more: bool


class Routed(NamedTuple):
    """A message that came into an inbox.

    Attributes:
        sender: The connection's routing id.
        user: Its user id; empty without keys.
        content: Its first part.
        whole: Whether that was all of it; the rest is thrown away.
    """

    sender: bytes
    user: str
    content: memoryview
    whole: bool


class Security(NamedTuple):
    """How connections are protected.

    Attributes:
        keys: This node's; None: not at all.
        handshake_ms: Who has not been let in after so long is closed.
    """

    keys: KeyPair | None
    handshake_ms: int


class Sockets:
    """All sockets of a transport. One thread uses them, and closes them at the end.

    Attributes:
        fetchable: Those on which something waits to be received, as far as was looked (`Socket.look`).
    """

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._by_fd: dict[int, Socket] = {}
        self._touched: dict[Socket, None] = {}
        self.fetchable: dict[Socket, None] = {}
        self._monitors = 0
        self._is_waiting = False

    def fileno(self) -> int:
        """Readable, level-triggered, when `changed` is to be called."""
        return self._epoll.fileno()

    def changed(self) -> Sequence[Socket]:
        """Sockets whose state is to be read; after this, that of none can change unnoticed.

        Whoever is given one must read its state (`readable`, `writable`), and `touch` it if there is more to do.
        """
        self._is_waiting = False
        for fd, _ in self._epoll.poll(0):
            if fd == self._bell:
                os.eventfd_read(self._bell)
            elif (socket := self._by_fd.get(fd)) is not None:
                self._touched[socket] = None
        found = list(self._touched)
        self._touched.clear()
        return found

    def will_wait(self) -> None:
        """From now on a touch makes the descriptor readable."""
        self._is_waiting = True
        if self._touched:
            self._ring()

    def touch(self, socket: Socket) -> None:
        """Have its state read again."""
        self._touched[socket] = None
        if self._is_waiting:
            self._ring()

    def _ring(self) -> None:
        self._is_waiting = False
        os.eventfd_write(self._bell, 1)

    # -- the kinds of sockets ------------------------------------------------------------------------------------

    def open_zap(self, serve: Callable[[], None]) -> Socket:
        """Where ZeroMQ asks who may connect; must be open before anything listens."""
        raw = self._context.socket(zmq.REP)
        raw.set(zmq.LINGER, 0)
        raw.bind(_ZAP_ADDRESS)
        return self._adopt(raw, serve)

    def open_inbox(self, security: Security) -> Socket:
        """A ROUTER, which never sends."""
        raw = self._context.socket(zmq.ROUTER)
        _protect_listener(raw, security)
        raw.set(zmq.ROUTER_HANDOVER, 1)  # a peer's new connection, while its old one is dead and not yet given up
        raw.set(zmq.MAXMSGSIZE, MAX_BODY + OVERHEAD)
        raw.set(zmq.RCVHWM, RECEIVE_QUEUE)
        return self._adopt(raw)

    def open_publisher(self, security: Security) -> Socket:
        """An XPUB; it tells of every subscription, and of the last one that ended."""
        raw = self._context.socket(zmq.XPUB)
        _protect_listener(raw, security)
        raw.set(zmq.XPUB_VERBOSE, 1)
        raw.set(zmq.MAXMSGSIZE, MAX_TOPIC + OVERHEAD)
        raw.set(zmq.SNDHWM, PUBLICATION_QUEUE)
        raw.set(zmq.RCVHWM, RECEIVE_QUEUE)  # of subscriptions
        return self._adopt(raw)

    def open_dealer(
        self, address: str, hello: bytes, key: bytes, security: Security, serve: Callable[[], None]
    ) -> Socket:
        """A DEALER to a peer's inbox. It queues nothing for a peer that is away, nor when its connection breaks."""
        raw = self._context.socket(zmq.DEALER)
        _protect_client(raw, key, security)
        raw.set(zmq.ROUTING_ID, hello)
        raw.set(zmq.PROBE_ROUTER, 1)  # an empty message after each connection: the peer learns of it
        raw.set(zmq.IMMEDIATE, 1)
        raw.set(zmq.SNDHWM, SEND_QUEUE)
        raw.set(zmq.RCVHWM, 1)
        raw.set(zmq.MAXMSGSIZE, REFUSED_BYTES)
        raw.set(zmq.LINGER, DEALER_LINGER_MS)
        return self._connected(raw, address, serve)

    def open_subscriber(self, address: str, key: bytes, security: Security) -> Socket:
        """A SUB for one publisher."""
        raw = self._context.socket(zmq.SUB)
        _protect_client(raw, key, security)
        raw.set(zmq.SNDHWM, SUBSCRIPTIONS_QUEUE)
        raw.set(zmq.RCVHWM, RECEIVE_QUEUE)
        raw.set(zmq.MAXMSGSIZE, MAX_BODY + OVERHEAD)
        raw.set(zmq.LINGER, 0)
        return self._connected(raw, address)

    def open_monitor(self, watched: Socket, serve: Callable[[], None]) -> Socket:
        """What becomes of the connections of a socket that listens; must be closed after it."""
        self._monitors += 1
        address = f"inproc://monitor-{self._monitors}"
        watched.raw.monitor(address, sum(_FATES))
        raw = self._context.socket(zmq.PAIR)
        raw.set(zmq.RCVHWM, 0)  # unlimited: ZeroMQ's thread would block when it is full
        raw.set(zmq.LINGER, 0)
        raw.connect(address)
        return self._adopt(raw, serve)

    def _connected(self, raw: zmq.Socket[bytes], address: str, serve: Callable[[], None] | None = None) -> Socket:
        if "[" in address:
            raw.set(zmq.IPV6, 1)
        try:
            raw.connect(address)
        except zmq.ZMQError as error:
            raw.close()
            raise ValueError(f"{address} is no address of a node. Give tcp://HOST:PORT.") from error
        return self._adopt(raw, serve)

    def _adopt(self, raw: zmq.Socket[bytes], serve: Callable[[], None] | None = None) -> Socket:
        socket = Socket(self, raw, serve)
        self._by_fd[socket.fd] = socket
        self._epoll.register(socket.fd, select.EPOLLIN)
        self.touch(socket)
        return socket

    def forget(self, socket: Socket) -> None:
        """A socket is about to be closed."""
        self._epoll.unregister(socket.fd)
        del self._by_fd[socket.fd]
        self._touched.pop(socket, None)
        self.fetchable.pop(socket, None)

    def close(self) -> None:
        """Close all sockets, and the descriptor; what lingers is still sent until `end` returns."""
        for socket in list(self._by_fd.values()):
            socket.close()
        self._epoll.close()
        os.close(self._bell)

    def end(self) -> None:
        """Wait until all is sent, or has lingered for its time; blocks."""
        self._context.term()


class Socket:
    """A socket.

    Args:
        sockets: Where it belongs.
        raw: ZeroMQ's.
        serve: To be called when its state is to be read; None: it is `look`.
    """

    __slots__ = ("_is_amid", "_sockets", "fd", "raw", "serve")

    def __init__(self, sockets: Sockets, raw: zmq.Socket[bytes], serve: Callable[[], None] | None) -> None:
        self._sockets = sockets
        self.raw = raw
        self.serve = serve or self.look
        self.fd = raw.fileno()
        self._is_amid = False  # the rest of a message is to be thrown away

    def readable(self) -> bool:
        """Whether something can be received."""
        return bool(int(self.raw.get(zmq.EVENTS)) & zmq.POLLIN)

    def writable(self) -> bool:
        """Whether something can be sent."""
        return bool(int(self.raw.get(zmq.EVENTS)) & zmq.POLLOUT)

    def listen(self, host: str, port: int) -> int:
        """Listen at an address; gives the port, which ZeroMQ chooses for 0.

        Raises:
            TransportFault: It can't.
        """
        where = f"[{host}]" if ":" in host else host
        if ":" in host:
            self.raw.set(zmq.IPV6, 1)
        try:
            self.raw.bind(f"tcp://{where}:{port or '*'}")
        except zmq.ZMQError as error:
            raise TransportFault(
                f"Other nodes can't be listened for at {where}:{port}: {error.strerror or error}. Give cluster.listen"
                " an address of this machine and a free port, or stop what has it."
            ) from error
        return int(self.raw.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def send(self, frame: bytes) -> bool:
        """Send a message of one part; False: not now. The caller reads its state again, or touches it."""
        try:
            self.raw.send(frame, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def subscribe(self, prefix: bytes) -> None:
        """Want what begins so. The caller touches it."""
        self.raw.set(zmq.SUBSCRIBE, prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """Want it no longer. The caller touches it."""
        self.raw.set(zmq.UNSUBSCRIBE, prefix)

    def routed(self, limit: int) -> Iterator[Routed]:
        """Messages of an inbox, at most `limit` parts of them."""
        for _ in range(limit):
            if self._is_amid:
                self._is_amid = self._part().more
                continue
            try:
                sender = self.raw.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            frame = self.raw.recv(zmq.DONTWAIT, copy=False)
            self._is_amid = frame.more
            yield Routed(sender, _user(frame), frame.buffer, not frame.more)

    def messages(self, limit: int) -> Iterator[Part]:
        """First parts of messages, at most `limit` parts; the others are thrown away."""
        for _ in range(limit):
            if self._is_amid:
                self._is_amid = self._part().more
                continue
            try:
                part = self._part()
            except zmq.Again:
                return
            self._is_amid = part.more
            yield part

    def requests(self, limit: int) -> Iterator[list[bytes]]:
        """Messages with all their parts; each must be answered before the next is taken."""
        for _ in range(limit):
            try:
                yield self.raw.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return

    def answer(self, frames: Sequence[bytes]) -> None:
        """Answer the request that was taken."""
        self.raw.send_multipart(frames, zmq.DONTWAIT)

    def fates(self, limit: int) -> Iterator[Fate]:
        """What became of connections."""
        for frames in self.requests(limit):
            fate = _FATES.get(parse_monitor_message(frames)["event"])
            if fate is not None:
                yield fate

    def touch(self) -> None:
        """Have its state read again."""
        self._sockets.touch(self)

    def look(self) -> None:
        """Note whether something waits to be received, for who fetches it."""
        if self.readable():
            self._sockets.fetchable[self] = None
        else:
            self._sockets.fetchable.pop(self, None)

    def serve_rest(self) -> None:
        """If something waits to be received, have it served again."""
        if self.readable():
            self._sockets.touch(self)

    def close(self) -> None:
        """Close it; twice is the same as once."""
        if not self.raw.closed:
            self._sockets.forget(self)
            self.raw.disable_monitor()
            self.raw.close()

    def _part(self) -> Part:
        frame = self.raw.recv(zmq.DONTWAIT, copy=False)
        return Part(frame.buffer, frame.more)


def _user(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""  # without keys


def _protect_listener(raw: zmq.Socket[bytes], security: Security) -> None:
    if security.keys is not None:
        raw.set(zmq.CURVE_SERVER, 1)
        _own_keys(raw, security.keys)
    raw.set(zmq.ZAP_DOMAIN, DOMAIN)
    raw.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    raw.set(zmq.LINGER, 0)
    _common(raw, security)


def _protect_client(raw: zmq.Socket[bytes], key: bytes, security: Security) -> None:
    if security.keys is not None:
        _own_keys(raw, security.keys)
        raw.set(zmq.CURVE_SERVERKEY, key)
    raw.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    raw.set(zmq.RECONNECT_IVL_MAX, MAX_RECONNECT_MS)
    _common(raw, security)


def _own_keys(raw: zmq.Socket[bytes], keys: KeyPair) -> None:
    raw.set(zmq.CURVE_PUBLICKEY, keys.public)
    raw.set(zmq.CURVE_SECRETKEY, keys.secret.reveal().encode())


def _common(raw: zmq.Socket[bytes], security: Security) -> None:
    raw.set(zmq.HANDSHAKE_IVL, security.handshake_ms)
    raw.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    raw.set(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
    raw.set(zmq.HEARTBEAT_TTL, DEAD_MS)

"""A node's connections to its peers over ZeroMQ.

A ROUTER is its inbox and never sends; a DEALER to each peer sends there; publications go their own way
(`router/publications.py`). Nothing here waits but `Transport.wait`. One thread uses all of it, and one task owns it.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

from edge_config.address import is_loopback, read_address
from edge_config.keys import decode_key
from router.errors import TransportFault
from router.hello import FEATURES, NONCE_BYTES, PROTOCOL, Hello, Versions
from router.inbox import Inbox
from router.link import MAX_BODY, Link, Publication, Received
from router.outbox import Outbox
from router.publications import Publications
from router.transport_statistics import Drop, PeerStatistics, Refusals, TransportStatistics
from router.zap import Zap, users_of
from router.zmq_socket import Fate, Security, Socket, Sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from edge_config.keys import KeyPair
    from router.channels import Channel

BATCH: Final = 256  # messages taken from a socket, or given to it, at a time: the loop has other things to do
ROUNDS: Final = 4  # looks at what has changed in a turn; who keeps it busy is looked at again in the next
MAX_HELLOS: Final = 4096  # nodes remembered that are no peers yet; without keys anybody can make up names
REOPEN_MS: Final = 10_000  # ZeroMQ tries every 5 s; but never again after what it takes for another protocol
REBIND_SECONDS: Final = 0.02  # between attempts, while the port of a publisher that was closed is not free yet
SCHEME: Final = "tcp://"


@dataclass(slots=True, frozen=True, kw_only=True)
class TransportOptions:
    """How a node meets the others.

    Attributes:
        node: This node's name.
        boot: A name of this life of it, never used before: letters, digits, _ . and -, 64 at most.
        host: Where it listens: an address of this machine.
        port: Of its inbox; 0: any free one.
        publish_port: Where it publishes; 0: any free one.
        keys: Its own; None: no encryption, and whoever connects is believed.
        allowed: The public key (Z85) of each node that may connect; of no meaning without keys.
        plain: Whether, without keys, others than this machine may connect.
        versions, features: See `Hello`.
        outbox_bytes: What may wait for a peer, beside 1 MiB of urgent messages. A PREP carries up to 1 MiB.
        patience_ms: How long it may wait.
        handshake_ms: Who has not shown its key after so long is closed.
    """

    node: str
    boot: str
    host: str
    port: int = 0
    publish_port: int = 0
    keys: KeyPair | None = None
    allowed: Mapping[str, bytes] = field(default_factory=dict)
    plain: bool = False
    versions: Versions = PROTOCOL
    features: int = FEATURES
    outbox_bytes: int = 8 << 20
    patience_ms: int = 3000
    handshake_ms: int = 5000


@asynccontextmanager
async def open_transport(options: TransportOptions) -> AsyncIterator[Transport]:
    """A transport that listens; at the end its sockets are closed, and what was sent lingers for half a second.

    Raises:
        TransportFault: It can't listen there, or would without encryption where others than this machine reach it.
        ValueError: The node's name or boot is none.
    """
    transport = Transport(options)
    try:
        transport.listen()
        yield transport
    finally:
        transport.close()
        with trio.CancelScope(shield=True):  # bounded: nothing lingers for longer
            await trio.to_thread.run_sync(transport.end)


class Transport(Link):
    """The connections; see `open_transport`.

    Attributes:
        port: Of the inbox.
    """

    def __init__(self, options: TransportOptions) -> None:
        if options.keys is None and not options.plain and not is_loopback(options.host):
            raise TransportFault(
                f"Without keys only loopback is safe, and cluster.listen is at {options.host}. Make keys (chat-node"
                ' keys new) and give cluster.plain = "never", or "anywhere" in a network that you trust.'
            )
        self._options = options
        self._hello(0)  # its parts are as they have to be
        self.port = 0
        self._refusals = Refusals()
        self._dropped: Counter[Drop] = Counter()
        self._counted: Counter[str] = Counter()
        self._fates: Counter[Fate] = Counter()
        self._allowed = dict(options.allowed) if options.keys is not None else None
        self._users = users_of(self._allowed) if self._allowed is not None else None
        self._zap = Zap(self._allowed, self._refusals, anywhere=options.plain)
        self._inbox = Inbox(options.node, options.versions, self._users, self._refusals)
        self._peers: dict[str, _Peer] = {}
        self._hellos: dict[str, Hello] = {}
        self._security = Security(options.keys, options.handshake_ms)
        self._sockets = Sockets()
        self._publications = Publications(
            self._sockets, self._security, options.host, options.publish_port, self._refusals, self._dropped
        )
        self._zap_socket = self._sockets.open_zap(self._serve_zap)
        self._inbox_socket = self._sockets.open_inbox(self._security)
        self._monitor = self._sockets.open_monitor(self._inbox_socket, self._serve_monitor)

    @property
    def publish_port(self) -> int:
        """The port of the publications."""
        return self._publications.port

    # -- its life ------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Open the ports.

        Raises:
            TransportFault: It can't.
        """
        self.port = self._inbox_socket.listen(self._options.host, self._options.port)
        self._publications.listen()

    def close(self) -> None:
        """Close all sockets, at once; `end` waits until what was sent has gone."""
        trio.lowlevel.notify_closing(self._sockets.fileno())
        self._sockets.close()

    def end(self) -> None:
        """Wait until what was sent has gone, or has lingered for its time; blocks."""
        self._sockets.end()

    def allow(self, allowed: Mapping[str, bytes]) -> None:
        """Let in the nodes with these keys from now on, and no others.

        What others send that are connected already is refused, and they hear no publications any more.

        Args:
            allowed: The public key (Z85) of each. Of no meaning without keys.
        """
        if self._allowed is None:
            return
        withdrawn = any(allowed.get(node) != key for node, key in self._allowed.items())
        self._allowed = dict(allowed)
        self._zap.allow(self._allowed)
        self._inbox.allow(users_of(self._allowed))
        if withdrawn:
            self._publications.start_again()

    # -- waiting -------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable, level-triggered, when `turn` is to be called: for who waits for other things too.

        That holds once `turn` has said False.
        """
        return self._sockets.fileno()

    def turn(self) -> bool:
        """Do what is due: let in who may come, send what waits. True: there may be something to receive."""
        self._publications.listen_again()
        for _ in range(ROUNDS):
            changed = self._sockets.changed()
            if not changed:
                break
            for socket in changed:
                socket.serve()
        if self._sockets.fetchable or self._publications.has_ended:
            return True
        self._sockets.will_wait()
        return False

    @override
    async def wait(self) -> None:
        while not self.turn():
            patience = float("inf") if self._publications.is_listening else REBIND_SECONDS
            with trio.move_on_after(patience):
                await trio.lowlevel.wait_readable(self._sockets.fileno())
        await trio.lowlevel.checkpoint()

    def _serve_zap(self) -> None:
        for request in self._zap_socket.requests(BATCH):
            self._zap_socket.answer(self._zap.answer(request))
        self._zap_socket.serve_rest()

    def _serve_monitor(self) -> None:
        self._fates.update(self._monitor.fates(BATCH))
        self._monitor.serve_rest()

    # -- messages ------------------------------------------------------------------------------------------------

    @override
    def connect(self, node: str, address: str, key: bytes) -> None:
        if node == self._options.node:
            raise ValueError(f"{node} is this node: it has no connection to itself")
        where = read_address(address.removeprefix(SCHEME))
        if where is None or not where.port or not address.startswith(SCHEME):
            raise ValueError(f"{address!r} is no address of a node: give tcp://HOST:PORT")
        if self._allowed is not None:
            decode_key(key)
        peer = self._peers.get(node)
        if peer is not None:
            if (peer.address, peer.key) == (address, key):
                return
            self._give_up(peer)
        outbox = Outbox(self._options.outbox_bytes, self._options.patience_ms)
        self._peers[node] = _Peer(node, where.host, address, key, outbox)
        self._open_dealer(self._peers[node])
        self._follow(self._peers[node])

    @override
    def disconnect(self, node: str) -> None:
        peer = self._peers.get(node)
        if peer is not None:
            self._give_up(peer)
        self._publications.forget(node)

    @override
    def send(self, node: str, channel: Channel, body: bytes) -> bool:
        if len(body) > MAX_BODY:
            raise ValueError(f"a message of {len(body)} bytes for {node}; at most {MAX_BODY} are sent")
        peer = self._peers.get(node)
        if peer is None:
            self._dropped[Drop.UNKNOWN] += 1
            return False
        frame, now = bytes((channel,)) + body, _now_ms()
        is_sent = not peer.outbox and peer.dealer.send(frame)
        peer.dealer.touch()
        if is_sent:
            peer.has_connected, peer.alive_ms = True, now
            self._sent(frame)
            return True
        if now - peer.alive_ms > REOPEN_MS:
            self._reopen_dealer(peer)
        self._dropped[Drop.STALE] += peer.outbox.expire(now)
        if not peer.outbox.push(channel, frame, now):
            self._dropped[Drop.FULL] += 1
            return False
        return True

    @override
    def receive(self) -> Sequence[Received]:
        received: list[Received] = []
        speakers: dict[str, Hello] = {}
        for sender, user, content, is_whole in self._inbox_socket.routed(BATCH):
            if not is_whole:
                self._inbox.refuse_frames(sender)
                continue
            said = self._inbox.receive(sender, user, content)
            if said is None:
                continue
            if isinstance(said, Received):
                received.append(said)
                self._counted["received_bytes"] += len(said.body)
            hello = self._inbox.hello_of(sender)
            speakers[hello.node] = hello
        self._counted["received"] += len(received)
        self._inbox_socket.look()
        for node, hello in speakers.items():
            if self._hellos.get(node) != hello:
                self._meet(hello)
        return received

    def _meet(self, hello: Hello) -> None:
        """A node has connected for the first time, again, or in another life."""
        before = self._hellos.get(hello.node)
        if len(self._hellos) >= MAX_HELLOS:
            self._hellos = {node: known for node, known in self._hellos.items() if node in self._peers}
        self._hellos[hello.node] = hello
        peer = self._peers.get(hello.node)
        if peer is None:
            return
        is_new_life = before is None or before.boot != hello.boot
        if is_new_life and not (before is None and peer.has_connected):
            self._hurry(peer)
        if before is None or (before.boot, before.publish_port) != (hello.boot, hello.publish_port):
            self._follow(peer)

    def _hurry(self, peer: _Peer) -> None:
        """Connect anew to a node that has just started, rather than when ZeroMQ tries again."""
        if peer.dealer.writable():
            peer.dealer.touch()
        else:
            self._reopen_dealer(peer)

    def _follow(self, peer: _Peer) -> None:
        """Have its publications come from where its hello says; nothing yet if it has said none."""
        hello = self._hellos.get(peer.node)
        if hello is not None and hello.publish_port:
            where = f"[{peer.host}]" if ":" in peer.host else peer.host
            self._publications.follow(peer.node, f"{SCHEME}{where}:{hello.publish_port}", peer.key)

    def _reopen_dealer(self, peer: _Peer) -> None:
        peer.dealer.close()
        self._open_dealer(peer)

    def _open_dealer(self, peer: _Peer) -> None:
        peer.alive_ms = _now_ms()
        peer.is_writable = False
        hello = self._hello(self.publish_port)
        peer.dealer = self._sockets.open_dealer(
            peer.address, hello, peer.key, self._security, lambda: self._flush(peer)
        )

    def _hello(self, publish_port: int) -> bytes:
        options = self._options
        secret = secrets.token_urlsafe(NONCE_BYTES)
        return Hello(options.versions, options.features, publish_port, options.node, options.boot, secret).encoded()

    def _flush(self, peer: _Peer) -> None:
        """Send what waits, as far as the connection takes it."""
        if peer.outbox:
            self._dropped[Drop.STALE] += peer.outbox.expire(_now_ms())
        for _ in range(BATCH):
            frame = peer.outbox.first()
            if frame is None or not peer.dealer.send(frame):
                break
            peer.outbox.pop()
            self._sent(frame)
        was_writable, peer.is_writable = peer.is_writable, peer.dealer.writable()
        peer.has_connected |= peer.is_writable
        if was_writable or peer.is_writable:
            peer.alive_ms = _now_ms()
        if peer.is_writable and peer.outbox:
            peer.dealer.touch()

    def _sent(self, frame: bytes) -> None:
        self._counted["sent"] += 1
        self._counted["sent_bytes"] += len(frame) - 1

    def _give_up(self, peer: _Peer) -> None:
        self._dropped[Drop.DISCONNECTED] += peer.outbox.clear()
        self._publications.unfollow(peer.node)
        peer.dealer.close()
        del self._peers[peer.node]

    # -- publications --------------------------------------------------------------------------------------------

    @override
    def publish(self, topic: bytes, body: bytes) -> None:
        self._publications.publish(topic, body)

    @override
    def subscribe(self, node: str, topic: bytes) -> None:
        self._publications.subscribe(node, topic)

    @override
    def unsubscribe(self, node: str, topic: bytes) -> None:
        self._publications.unsubscribe(node, topic)

    @override
    def received_publications(self) -> Sequence[Publication]:
        return self._publications.receive(BATCH)

    @override
    def subscription_events(self) -> Sequence[tuple[bytes, bool]]:
        return self._publications.events(BATCH)

    # -- what it has done ----------------------------------------------------------------------------------------

    def statistics(self) -> TransportStatistics:
        """What it has carried, refused and dropped so far, and how its peers are."""
        counted, publications = self._counted, self._publications
        fates = self._fates + publications.fates
        return TransportStatistics(
            sent=counted["sent"],
            sent_bytes=counted["sent_bytes"],
            received=counted["received"],
            received_bytes=counted["received_bytes"],
            published=publications.published,
            published_bytes=publications.published_bytes,
            publications=publications.received,
            publications_bytes=publications.received_bytes,
            refused=dict(self._refusals.counts),
            reasons=dict(self._refusals.reasons),
            dropped={drop: count for drop, count in self._dropped.items() if count},
            accepted=fates[Fate.ACCEPTED],
            handshakes=fates[Fate.LET_IN],
            failed_handshakes=fates[Fate.FAILED],
            disconnected=fates[Fate.ENDED],
            wanted=publications.wanted,
            peers=tuple(self._described(peer) for peer in self._peers.values()),
        )

    def _described(self, peer: _Peer) -> PeerStatistics:
        hello = self._hellos.get(peer.node)
        return PeerStatistics(
            node=peer.node,
            address=peer.address,
            boot=hello.boot if hello is not None else "",
            features=hello.features if hello is not None else 0,
            writable=peer.is_writable,
            waiting=peer.outbox.waiting,
            topics=self._publications.topics_at(peer.node),
        )


@dataclass(slots=True, eq=False)
class _Peer:
    """A node that this one sends to."""

    node: str
    host: str
    address: str
    key: bytes
    outbox: Outbox
    dealer: Socket = field(init=False)
    alive_ms: int = 0  # when something was last seen to be sent, or the connection was opened
    is_writable: bool = False
    has_connected: bool = False


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000

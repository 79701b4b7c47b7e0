"""Links between nodes of one process, without sockets: what they carry arrives at once, unless they are cut."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, TypeVar

import trio
from typing_extensions import override

from router.link import MAX_BODY, MAX_TOPIC, Link, Publication, Received

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from router.channels import Channel

BATCH = 256
NONE: frozenset[bytes] = frozenset()

T = TypeVar("T")


class Wires:
    """What connects the links: nodes that are there, by address, and links that are cut."""

    def __init__(self) -> None:
        self.links: dict[str, SimulatedLink] = {}
        self.cut: set[tuple[str, str]] = set()

    def open(self, node: str, boot: str, outbox_bytes: int) -> SimulatedLink:
        """A link of a node that starts."""
        link = SimulatedLink(self, node, boot, outbox_bytes)
        self.links[link.address] = link
        self.carry()
        return link

    def carry(self) -> None:
        """Carry all that waits and can go."""
        for link in [*self.links.values()]:
            link.carry()

    def partition(self, node: str, other: str) -> None:
        """Let nothing pass from one node to another until `heal`."""
        self.cut.add((node, other))

    def heal(self) -> None:
        """Let everything pass again."""
        self.cut.clear()
        self.carry()


class SimulatedLink(Link):
    """One node's."""

    def __init__(self, wires: Wires, node: str, boot: str, outbox_bytes: int) -> None:
        self.wires, self.node, self.boot, self.address = wires, node, boot, f"tcp://{node}:1"
        self.outbox_bytes = outbox_bytes
        self.dropped = 0
        self._peers: dict[str, str] = {}
        self._outboxes: defaultdict[str, deque[tuple[Channel, bytes]]] = defaultdict(deque)
        self._topics: defaultdict[str, set[bytes]] = defaultdict(set)
        self._told: dict[str, SimulatedLink] = {}  # who knows of our subscriptions
        self._subscribers: defaultdict[bytes, set[SimulatedLink]] = defaultdict(set)
        self._received: deque[Received] = deque()
        self._publications: deque[Publication] = deque()
        self._events: deque[tuple[bytes, bool]] = deque()
        self._woken = trio.Event()

    @override
    def connect(self, node: str, address: str, key: bytes) -> None:
        if node == self.node or not address.startswith("tcp://"):
            raise ValueError(f"{node} at {address}")
        if self._peers.get(node) != address:
            self._outboxes.pop(node, None)
            self._leave(node)
            self._peers[node] = address
        self.wires.carry()

    @override
    def disconnect(self, node: str) -> None:
        self._peers.pop(node, None)
        self._outboxes.pop(node, None)
        self._leave(node)
        self._topics.pop(node, None)

    @override
    def send(self, node: str, channel: Channel, body: bytes) -> bool:
        if len(body) > MAX_BODY:
            raise ValueError(f"{len(body)} bytes")
        outbox = self._outboxes[node]
        waiting = sum(len(frame) for _, frame in outbox)
        if node not in self._peers or (outbox and waiting + len(body) > self.outbox_bytes):
            self.dropped += 1
            return False
        outbox.append((channel, body))
        self.carry()
        return True

    @override
    def publish(self, topic: bytes, body: bytes) -> None:
        if len(topic) > MAX_TOPIC or len(body) > MAX_BODY:
            raise ValueError(f"{len(topic)} and {len(body)} bytes")
        for link in self._subscribers.get(topic, ()):
            if (self.node, link.node) not in self.wires.cut:
                link._publications.append(Publication(self.node, topic, body))
                link._wake()

    @override
    def subscribe(self, node: str, topic: bytes) -> None:
        if len(topic) > MAX_TOPIC:
            raise ValueError(f"{len(topic)} bytes")
        if topic not in self._topics[node]:
            self._topics[node].add(topic)
            self._tell(node, more={topic})

    @override
    def unsubscribe(self, node: str, topic: bytes) -> None:
        if topic in self._topics[node]:
            self._topics[node].discard(topic)
            self._tell(node, fewer={topic})

    @override
    def receive(self) -> Sequence[Received]:
        return _some(self._received)

    @override
    def received_publications(self) -> Sequence[Publication]:
        return [found for found in _some(self._publications) if found.topic in self._topics[found.node]]

    @override
    def subscription_events(self) -> Sequence[tuple[bytes, bool]]:
        return _some(self._events)

    @override
    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not (self._received or self._publications or self._events):
            self._woken = trio.Event()
            await self._woken.wait()

    def close(self) -> None:
        """The node's process ends."""
        del self.wires.links[self.address]
        for node in list(self._told):
            self._leave(node)

    def carry(self) -> None:
        """Carry what waits here, and what is subscribed, to the peers that are there."""
        for node, address in self._peers.items():
            peer = self.wires.links.get(address)
            if peer is None or (self.node, node) in self.wires.cut:
                continue
            self._tell(node)
            outbox = self._outboxes[node]
            while outbox:
                channel, body = outbox.popleft()
                peer._received.append(Received(self.node, self.boot, channel, body))
                peer._wake()

    def _tell(self, node: str, more: AbstractSet[bytes] = NONE, fewer: AbstractSet[bytes] = NONE) -> None:
        """Have a publisher know what is subscribed there: all of it if it is another than before, else the changes."""
        peer = self.wires.links.get(self._peers.get(node, ""))
        if peer is not None and self._told.get(node) is not peer:
            self._told[node] = peer
            more, fewer = self._topics[node], NONE
        if peer is not None:
            peer._take(self, more, fewer)

    def _leave(self, node: str) -> None:
        if (peer := self._told.pop(node, None)) is not None:
            peer._take(self, NONE, self._topics[node])

    def _take(self, link: SimulatedLink, more: AbstractSet[bytes], fewer: AbstractSet[bytes]) -> None:
        for topic in more:
            self._subscribers[topic].add(link)
            self._events.append((topic, True))
        for topic in fewer:
            self._subscribers[topic].discard(link)
            if not self._subscribers[topic]:
                del self._subscribers[topic]
                self._events.append((topic, False))
        if more or fewer:
            self._wake()

    def _wake(self) -> None:
        self._woken.set()


def _some(queue: deque[T]) -> list[T]:
    return [queue.popleft() for _ in range(min(BATCH, len(queue)))]

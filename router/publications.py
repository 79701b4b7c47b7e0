"""Publications: an XPUB for this node's, and a SUB for each node that it hears.

On the wire a publication is one part: the topic's length (one byte), the topic, the body. ZeroMQ compares beginnings;
with the length before it, no topic is the beginning of another. A subscription there is the length and the topic.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from router.errors import TransportFault
from router.link import MAX_BODY, MAX_TOPIC, Publication
from router.transport_statistics import Drop, Refusal

if TYPE_CHECKING:
    from router.transport_statistics import Refusals
    from router.zmq_socket import Fate, Security, Socket, Sockets

MONITOR_BATCH: Final = 256
_SUBSCRIBED: Final = 1  # first byte of what a SUB tells an XPUB (ZMTP 3.0)
_UNSUBSCRIBED: Final = 0


def prefix_of(topic: bytes) -> bytes:
    """How a topic's publications begin.

    Raises:
        ValueError: The topic is too long.
    """
    if len(topic) > MAX_TOPIC:
        raise ValueError(f"a topic of {len(topic)} bytes; at most {MAX_TOPIC} are taken")
    return bytes((len(topic),)) + topic


class Publications:
    """What this node publishes, and what it hears of others.

    Args:
        sockets: Where its sockets belong.
        security: How they are protected.
        host: Where it listens.
        port: Where it listens; 0: any free one.
        refusals: Counts what changes nothing.
        dropped: Counts what is of no use.

    Attributes:
        port: Where it listens, once it does.
        fates: What became of connections to it.
        published, published_bytes, received, received_bytes: See `TransportStatistics`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (one caller)
        self, sockets: Sockets, security: Security, host: str, port: int, refusals: Refusals, dropped: Counter[Drop]
    ) -> None:
        self._sockets = sockets
        self._security = security
        self._host = host
        self.port = port
        self._refusals = refusals
        self._dropped = dropped
        self._publisher: Socket | None = None
        self._monitor: Socket | None = None
        self._wanted: set[bytes] = set()
        self._ended: deque[bytes] = deque()
        self._topics: dict[str, set[bytes]] = {}
        self._sources: dict[str, Socket] = {}
        self.fates: Counter[Fate] = Counter()
        self.published = self.published_bytes = self.received = self.received_bytes = 0

    # -- publishing ----------------------------------------------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Whether others can subscribe."""
        return self._publisher is not None

    @property
    def wanted(self) -> int:
        """How many topics somebody subscribes to."""
        return len(self._wanted)

    @property
    def has_ended(self) -> bool:
        """Whether there are events that no socket tells of."""
        return bool(self._ended)

    def listen(self) -> None:
        """Open the port.

        Raises:
            TransportFault: It can't.
        """
        publisher = self._sockets.open_publisher(self._security)
        monitor = self._sockets.open_monitor(publisher, self._serve_monitor)
        try:
            self.port = publisher.listen(self._host, self.port)
        except TransportFault:
            publisher.close()
            monitor.close()
            raise
        self._publisher, self._monitor = publisher, monitor

    def start_again(self) -> None:
        """Close all connections of subscribers; who may then subscribes again (see `listen_again`)."""
        if self._publisher is not None and self._monitor is not None:
            self._serve_monitor()
            self._publisher.close()
            self._monitor.close()
            self._publisher = self._monitor = None
            self._ended.extend(self._wanted)
            self._wanted.clear()

    def listen_again(self) -> None:
        """Open the port again if it was closed and is free by now."""
        if self._publisher is None:
            try:
                self.listen()
            except TransportFault:
                return  # the old socket is not closed yet: it is in a thread of ZeroMQ's

    def publish(self, topic: bytes, body: bytes) -> None:
        """See `Link.publish`."""
        frame = prefix_of(topic) + body
        if len(body) > MAX_BODY:
            raise ValueError(f"a publication of {len(body)} bytes; at most {MAX_BODY} are sent")
        self.published += 1
        self.published_bytes += len(body)
        if self._publisher is not None:
            self._publisher.send(frame)
            self._publisher.touch()

    def events(self, limit: int) -> list[tuple[bytes, bool]]:
        """See `Link.subscription_events`."""
        events = [(self._ended.popleft(), False) for _ in range(min(limit, len(self._ended)))]
        if self._publisher is None:
            return events
        for content, more in self._publisher.messages(limit - len(events)):
            told = bytes(content)
            event = None if more else _event(told)
            if event is None:
                reason = "What a subscriber sent is no subscription: see which node is of another version."
                self._refusals.count(Refusal.SUBSCRIPTION, reason)
                continue
            topic, is_wanted = event
            (self._wanted.add if is_wanted else self._wanted.discard)(topic)
            events.append(event)
        self._publisher.look()
        return events

    def _serve_monitor(self) -> None:
        if self._monitor is not None:
            self.fates.update(self._monitor.fates(MONITOR_BATCH))
            self._monitor.serve_rest()

    # -- hearing -------------------------------------------------------------------------------------------------

    def subscribe(self, node: str, topic: bytes) -> None:
        """See `Link.subscribe`."""
        prefix = prefix_of(topic)
        topics = self._topics.setdefault(node, set())
        if topic not in topics:
            topics.add(topic)
            if (source := self._sources.get(node)) is not None:
                source.subscribe(prefix)
                source.touch()

    def unsubscribe(self, node: str, topic: bytes) -> None:
        """See `Link.unsubscribe`."""
        topics = self._topics.get(node, set())
        if topic in topics:
            topics.discard(topic)
            if (source := self._sources.get(node)) is not None:
                source.unsubscribe(prefix_of(topic))
                source.touch()

    def topics_at(self, node: str) -> int:
        """How many topics of a node are wanted."""
        return len(self._topics.get(node, ()))

    def follow(self, node: str, address: str, key: bytes) -> None:
        """Hear a node's publications at an address from now on, and nowhere else."""
        self.unfollow(node)
        source = self._sources[node] = self._sockets.open_subscriber(address, key, self._security)
        for topic in self._topics.get(node, ()):
            source.subscribe(prefix_of(topic))

    def unfollow(self, node: str) -> None:
        """Hear a node's publications no longer; what is wanted of it is remembered."""
        source = self._sources.pop(node, None)
        if source is not None:
            source.close()

    def forget(self, node: str) -> None:
        """Want nothing of a node any more."""
        self.unfollow(node)
        self._topics.pop(node, None)

    def receive(self, limit: int) -> list[Publication]:
        """See `Link.received_publications`."""
        found: list[Publication] = []
        waiting = [(node, source) for node, source in self._sources.items() if source in self._sockets.fetchable]
        for node, source in waiting:
            topics = self._topics.get(node, set())
            for content, more in source.messages(max(1, limit // len(waiting))):
                publication = None if more else _publication(node, content)
                if publication is None:
                    reason = f"What {node} published is no publication: see whether it is of another version."
                    self._refusals.count(Refusal.PUBLICATION, reason)
                elif publication.topic not in topics:
                    self._dropped[Drop.UNWANTED] += 1
                else:
                    found.append(publication)
                    self.received_bytes += len(publication.body)
            source.look()
        self.received += len(found)
        return found


def _event(told: bytes) -> tuple[bytes, bool] | None:
    """What a subscriber told; None: nothing that a node says."""
    if len(told) < 2 or told[0] not in {_SUBSCRIBED, _UNSUBSCRIBED} or told[1] != len(told) - 2:
        return None
    return told[2:], told[0] == _SUBSCRIBED


def _publication(node: str, content: memoryview) -> Publication | None:
    """What a node published; None: nothing that a node says."""
    end = 1 + content[0] if content else 0
    if not 0 < end <= len(content) or len(content) - end > MAX_BODY:
        return None
    return Publication(node, bytes(content[1:end]), bytes(content[end:]))

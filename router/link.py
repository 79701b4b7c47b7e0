"""What the drivers of cores need of a transport: that over ZeroMQ (`router/transport.py`) and simulated ones have it.

A link may lose messages and publications, never changes or repeats them, and never says that they arrived: who must
know, asks for an answer. What one connection carries arrives in the order it was sent; around a reconnection, what was
still on its way may arrive after what was sent later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.channels import Channel

MAX_BODY: Final = (1 << 21) + (1 << 16)  # bytes: the longest peer message (router/wire.py) and room for a wrapper
MAX_TOPIC: Final = 255  # bytes: a topic's length is one byte on the wire


class Received(NamedTuple):
    """A message of a peer.

    Attributes:
        node: Whose it is: the node whose key the connection has proved, not what it says of itself.
        boot: The life of that node which sent it. A node that started again has another; messages of the former life
            may still arrive among those of the new one.
        channel: What it is about.
        body: Its bytes, as they were given to `send`. A peer may be of another version or mad: decode strictly.
    """

    node: str
    boot: str
    channel: Channel
    body: bytes


class Publication(NamedTuple):
    """What a node published under a topic that was subscribed there.

    Attributes:
        node: The publisher: whose key the connection has proved.
        topic: Exactly a topic that was subscribed (until just before, it may be no longer).
        body: Its bytes, as they were given to `publish`.
    """

    node: str
    topic: bytes
    body: bytes


class Link(Protocol):
    """A node's connections to its peers, owned by one task. Nothing but `wait` ever waits."""

    def connect(self, node: str, address: str, key: bytes) -> None:
        """Keep a connection to a node, however often it goes away and comes back.

        With the address and key that it has already, nothing happens; with others, the old connection is dropped.

        Args:
            node: Its name. A node has no connection to itself.
            address: Where its inbox is: ``tcp://host:port``.
            key: Its public key (Z85, 40 bytes); empty without encryption.

        Raises:
            ValueError: The address or key is none, or the name is this node's own.
        """

    def disconnect(self, node: str) -> None:
        """Drop the connection, what waits for it, and all subscriptions there. Unknown nodes are no error."""

    def send(self, node: str, channel: Channel, body: bytes) -> bool:
        """Send a message soon.

        Returns:
            False if the peer is unknown or its outbox is full (both are counted): it will not be sent. True promises
            nothing: the peer may be away.

        Raises:
            ValueError: It is longer than MAX_BODY.
        """

    def publish(self, topic: bytes, body: bytes) -> None:
        """Send to all nodes that have subscribed to the topic here; who is too slow for it misses it.

        Raises:
            ValueError: The topic is longer than MAX_TOPIC, or the body than MAX_BODY.
        """

    def subscribe(self, node: str, topic: bytes) -> None:
        """Want what a node publishes under exactly this topic, until `unsubscribe` or `disconnect`.

        It holds across reconnections and restarts of the publisher, and may be said before `connect`. The publisher
        learns of it some time later (see `subscription_events`); what it publishes before then is missed. Twice is
        the same as once.

        Raises:
            ValueError: The topic is longer than MAX_TOPIC.
        """

    def unsubscribe(self, node: str, topic: bytes) -> None:
        """Want it no longer; no error if it was not wanted."""

    def receive(self) -> Sequence[Received]:
        """Messages that have arrived, some of them: if there are more, `wait` returns at once."""

    def received_publications(self) -> Sequence[Publication]:
        """Publications that have arrived, some of them: if there are more, `wait` returns at once."""

    def subscription_events(self) -> Sequence[tuple[bytes, bool]]:
        """At the publisher: topics, each with whether anybody wants it now.

        True comes for each further node that subscribes (it wants to know the topic's head), and again after
        reconnections; False only when the last one is gone.
        """

    async def wait(self) -> None:
        """Wait until one of the three above may have something. It may turn out to be nothing."""

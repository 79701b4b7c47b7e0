"""What a transport has carried, refused and dropped, as plain numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(StrEnum):
    """Why something that came over the network changed nothing. The value is a label for metrics."""

    KEY = "key"  # a connection whose key is no node's on the allow list
    PLAIN = "plain"  # a connection without encryption, of another machine than this one
    HELLO = "hello"  # who speaks does not say who it is, as peers do
    VERSION = "version"  # who speaks has no version of the protocol in common with this node
    NAME = "name"  # who speaks says that it is another node than its key belongs to, or this very node
    WITHDRAWN = "withdrawn"  # its key was taken from the allow list after it had connected
    FRAMES = "frames"  # a message of more parts than one
    SIZE = "size"  # a message longer than any may be
    CHANNEL = "channel"  # a message about nothing that this version knows
    SUBSCRIPTION = "subscription"  # what came to the publisher is no subscription
    PUBLICATION = "publication"  # what came of a publisher is no publication


class Drop(StrEnum):
    """Why something that was to be sent was not, or what came was of no use. The value is a label for metrics."""

    UNKNOWN = "unknown"  # there is no connection to that node
    FULL = "full"  # its outbox was full
    STALE = "stale"  # it waited for so long that whoever sent it has long sent another
    DISCONNECTED = "disconnected"  # it waited when the connection was given up
    UNWANTED = "unwanted"  # a publication of a topic that is wanted no longer


@dataclass(slots=True, frozen=True)
class PeerStatistics:
    """A connection to a peer.

    Attributes:
        node: The peer.
        address: Where its inbox is.
        boot: The life of it that spoke last; empty: it has not spoken yet.
        features: The feature level of that life.
        writable: Whether something can be sent at this moment: it is connected and keeps up.
        waiting: Bytes in its outbox.
        topics: How many are subscribed there.
    """

    node: str
    address: str
    boot: str
    features: int
    writable: bool
    waiting: int
    topics: int


@dataclass(slots=True, frozen=True)
class TransportStatistics:
    """Sums since the transport was opened, except where it says otherwise.

    Attributes:
        sent, sent_bytes: Messages handed to connections.
        received, received_bytes: Messages of peers.
        published, published_bytes: Publications, each counted once, however many nodes subscribed.
        publications, publications_bytes: Publications of peers.
        refused: What changed nothing, by reason.
        reasons: For each of these reasons the latest case, in words for an operator.
        dropped: What was not sent or of no use, by reason.
        accepted: Connections that somebody opened to this node.
        handshakes: Connections that were then let in.
        failed_handshakes: Connections that spoke wrongly, too slowly or with a wrong key before they were let in; who
            did not even begin to speak ZeroMQ is not among them.
        disconnected: Connections to this node that ended.
        wanted: Topics that somebody subscribes to here, now.
        peers: The connections of this node to others, now.
    """

    sent: int
    sent_bytes: int
    received: int
    received_bytes: int
    published: int
    published_bytes: int
    publications: int
    publications_bytes: int
    refused: Mapping[Refusal, int]
    reasons: Mapping[Refusal, str]
    dropped: Mapping[Drop, int]
    accepted: int
    handshakes: int
    failed_handshakes: int
    disconnected: int
    wanted: int
    peers: tuple[PeerStatistics, ...]

    @property
    def strangers(self) -> int:
        """Connections that were never let in, including those that are still trying."""
        return self.accepted - self.handshakes


class Refusals:
    """Counts what is refused, and keeps the latest case of each reason.

    Attributes:
        counts: By reason.
        reasons: The latest case of each, in words.
    """

    __slots__ = ("counts", "reasons")

    def __init__(self) -> None:
        self.counts: Counter[Refusal] = Counter()
        self.reasons: dict[Refusal, str] = {}

    def count(self, refusal: Refusal, reason: str) -> None:
        """Something was refused.

        Args:
            refusal: Why.
            reason: The thing, the value and the mend, in words.
        """
        self.counts[refusal] += 1
        self.reasons[refusal] = reason

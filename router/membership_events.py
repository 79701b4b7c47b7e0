"""What comes out of the membership of a cluster: what is to be done, what has happened, and how things are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from router.membership_wire import Identity, Load, MembershipMessage, News, Standing


class State(Enum):
    """What a node is to this one."""

    UNSEEN = "unseen"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    LEFT = "left"


class Change(Enum):
    """What has happened to a node. RESTARTED and NEW_DISK come before the UP that they may bring with them."""

    LEARNED = "learned"
    UP = "up"
    RESTARTED = "restarted"
    NEW_DISK = "new disk"
    SUSPECT = "suspect"
    DOWN = "down"
    LEFT = "left"
    FORGOTTEN = "forgotten"


@dataclass(slots=True, frozen=True)
class Connect:
    """Effect: keep a connection to a node's inbox. Said again when its address changes.

    Attributes:
        node: Its name.
        address: ``tcp://host:port``.
        key: Its public key.
    """

    node: str
    address: str
    key: bytes


@dataclass(slots=True, frozen=True)
class Disconnect:
    """Effect: the node is forgotten."""

    node: str


@dataclass(slots=True, frozen=True)
class Send:
    """Effect: send a message to a node; it may get lost."""

    node: str
    message: MembershipMessage


@dataclass(slots=True, frozen=True)
class Changed:
    """Effect: tell who wants to know.

    Attributes:
        node: Whose state changed.
        change: How.
        before: Who it was; None: it was never heard.
        identity: Who it is now; None: it was never heard.
    """

    node: str
    change: Change
    before: Identity | None
    identity: Identity | None


@dataclass(slots=True, frozen=True)
class Heard:
    """Effect: a node has told where shards stand."""

    node: str
    news: list[News]


MembershipEffect: TypeAlias = Connect | Disconnect | Send | Changed | Heard


@dataclass(slots=True, frozen=True)
class PeerView:
    """A node as this one sees it.

    Attributes:
        node: Its name.
        state: What it is to this node.
        since: Since when, on the clock of this node.
        silence: Milliseconds since it was heard; None: never.
        rtt: Milliseconds there and back, smoothed; None: not measured yet in this life of both.
        hears: Whether it has told lately that it hears this node.
        seed: Whether it is configured, and so never forgotten.
        restarts: Its lives that this node has seen end.
        identity: What it says of itself.
        standing: What it takes, as it said last.
        load: How busy it is, as it said last.
    """

    node: str
    state: State
    since: int
    silence: int | None
    rtt: float | None
    hears: bool
    seed: bool
    restarts: int
    identity: Identity | None
    standing: Standing
    load: Load


@dataclass(slots=True, frozen=True)
class MembershipStatistics:
    """Counts since the node started; the first five are of now, without this node.

    Attributes:
        unseen: Nodes that were never heard.
        up: That are up.
        suspect: That are suspect.
        down: That are down.
        left: That have left.
        sent: Heartbeats sent.
        heard: Heartbeats that counted.
        stale: Messages of former lives, or older than one that came before.
        misnamed: Messages whose name is not that of the connection, or is this node's own, or whose address is none.
        strangers: Nodes heard or heard of that are not allowed.
        crowded: Nodes heard or heard of, and too many.
        suspicions: Nodes that became suspect.
        mistaken: Of these, those that were heard again in the same life.
        overslept: Ticks that came so late that all nodes were given another period.
    """

    unseen: int
    up: int
    suspect: int
    down: int
    left: int
    sent: int
    heard: int
    stale: int
    misnamed: int
    strangers: int
    crowded: int
    suspicions: int
    mistaken: int
    overslept: int

"""What the cores of a node want done, and what they need to know of the configuration.  Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from router.shard import ShardOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from router.entry import Entry
    from router.events import Away, Batch, Claim, Configuration, Outcome
    from router.ids import MemberId, RoomId, ShardId
    from router.replication import ReadLog
    from router.room import RoomState
    from router.shard import Confirmed
    from router.wire import PeerMessage

Opened: TypeAlias = "Callable[[RoomState | Away], None]"


@dataclass(slots=True, frozen=True)
class ClusterOptions:
    """What the cores need to know of the configuration.

    Attributes:
        shards: S; fixed when the cluster was born.
        cache_bytes: Bound of the newest entries kept in memory.
        cache_rooms: Rooms without members that are kept in memory.
        dedupe_capacity: Keys for which the filter of known message ids is made.
        max_waiting: Requests that may wait for a shard, a room, a key or the disk; more are answered OVERLOADED.
        shard: How each of them is kept: by one member, as by default, or by several.
    """

    shards: int = 128
    cache_bytes: int = 64 << 20
    cache_rooms: int = 10_000
    dedupe_capacity: int = 4_000_000
    max_waiting: int = 100_000
    shard: ShardOptions = field(default_factory=lambda: ShardOptions(copies=1, min_sync=1))


class Neighbourhood(Protocol):
    """Who else is there, as the cores see it."""

    @property
    def up(self) -> Collection[MemberId]:
        """Members that are up, this one among them."""

    def wanted(self, shard: ShardId) -> Sequence[MemberId]:
        """Where a shard should be, of all that are up, the best place first."""


@dataclass(slots=True, frozen=True)
class Alone:
    """The neighbourhood of a node without others."""

    me: MemberId

    @property
    def up(self) -> Collection[MemberId]:
        """Itself."""
        return (self.me,)

    def wanted(self, shard: ShardId) -> Sequence[MemberId]:  # noqa: ARG002 - all are at the one place there is
        """Here."""
        return (self.me,)


@dataclass(slots=True)
class Effects:
    """What the driver performs, in the order of the fields.

    Attributes:
        batch: Goes to disk; None: nothing to write.
        claims: Go to the register.
        sends: Go to members, in this order; what is lost is sent again.
        reads: Of the log for peers, answered by `Cluster.log_read`.
        teach: Learners to be given a snapshot: shard, member, and the epoch of this node's tenure.
        announced: Rows that all nodes are to hear of.
        load: Rooms to be read from disk, answered by `Cluster.loaded`.
        find: Dedupe keys to be looked up on disk, answered by `Cluster.found`.
        filing: Entries that are committed and may be filed, in this order.
        hurry: Whether these are to be filed at once: somebody waits for it.
        committed: Those of them to be answered (`entry.origin`) and published: this node is their shard's primary.
        outcomes: Submits that have an outcome without a new entry.
        opened: Rooms that were asked for and are ready, or the reason why they are not.
        moved: Rooms that were in memory, and whose primary this node is no longer.
        confirmed: Who asked whether this member is still the primary, and the answer.
    """

    batch: Batch | None = None
    claims: list[Claim] = field(default_factory=list)
    sends: list[tuple[MemberId, PeerMessage]] = field(default_factory=list)
    reads: list[ReadLog] = field(default_factory=list)
    teach: list[tuple[ShardId, MemberId, int]] = field(default_factory=list)
    announced: list[Configuration] = field(default_factory=list)
    load: list[RoomId] = field(default_factory=list)
    find: list[bytes] = field(default_factory=list)
    filing: list[Entry] = field(default_factory=list)
    hurry: bool = False
    committed: list[Entry] = field(default_factory=list)
    outcomes: list[tuple[Callable[[Outcome], None], Outcome]] = field(default_factory=list)
    opened: list[tuple[Opened, RoomState | Away]] = field(default_factory=list)
    moved: list[RoomState] = field(default_factory=list)
    confirmed: list[tuple[Confirmed, bool]] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to perform."""
        return not (
            self.committed or self.filing or self.outcomes or self.opened or self.load or self.find or self.sends
            or self.batch is not None or self.claims or self.reads or self.announced or self.hurry or self.moved
            or self.confirmed or self.teach
        )  # fmt: skip


@dataclass(slots=True, frozen=True)
class ClusterStatistics:
    """A moment of the cores."""

    rooms: int
    cached_bytes: int
    shards_serving: int
    waiting: int
    uncommitted: int
    recent_keys: int

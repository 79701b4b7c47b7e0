"""What the log's threads answer, in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.entry import Entry
    from router.errors import StorageFault
    from router.events import Configuration, KnownKey, RoomRecord, ShardTail
    from router.ids import RoomId
    from router.tail import Tail


@dataclass(slots=True, frozen=True)
class Persisted:
    """Every batch up to `ticket` is durable.

    Attributes:
        entries: In this commit.
        seconds: From the oldest batch's hand-over to now.
        fsync_seconds: Of the commit itself.
    """

    ticket: int
    entries: int
    seconds: float
    fsync_seconds: float


@dataclass(slots=True, frozen=True)
class Filed:
    """These entries can be read from the tables now, and their keys found there."""

    entries: Sequence[Entry]


@dataclass(slots=True, frozen=True)
class CasDone:
    """The register's row after a compare-and-set, whoever won it; None: there is none."""

    token: Any
    current: Configuration | None


@dataclass(slots=True, frozen=True)
class RoomLoaded:
    """A room as the tables know it."""

    record: RoomRecord


@dataclass(slots=True, frozen=True)
class KeysFound:
    """Those of the keys asked for that are known."""

    token: Any
    known: Sequence[KnownKey]


@dataclass(slots=True, frozen=True)
class KeysScanned:
    """Numbers of known keys.

    Attributes:
        numbers: As of `keyfilter.key_number`.
        end: Where this part ended; None: it was the last.
    """

    numbers: Sequence[int]
    end: int | None


@dataclass(slots=True, frozen=True)
class HistoryRead:
    """Entries of a room, or why they can't be read."""

    token: Any
    result: list[Entry] | StorageFault


@dataclass(slots=True, frozen=True)
class TailRead:
    """What follows a cursor in the log, or why it can't be read."""

    token: Any
    result: Tail | StorageFault


@dataclass(slots=True, frozen=True)
class ShardRun:
    """Committed entries of a shard that follow a place in its log.

    Attributes:
        chain: The chain up to the place; empty, and nothing follows, where the log does not go as far.
        wires: Canonical bytes, verified; those of erased entries are without their bodies.
    """

    chain: bytes
    wires: Sequence[bytes]


@dataclass(slots=True, frozen=True)
class Dropped:
    """Some of what was to be read is no longer here, as retention dropped it: only a snapshot can stand for it.

    Attributes:
        upto: The last lsn that is known to be affected; reading may go on behind it.
    """

    upto: int


@dataclass(slots=True, frozen=True)
class ShardRead:
    """What follows in a shard's log, or that some of it has gone, or why it can't be read."""

    token: Any
    result: ShardRun | Dropped | StorageFault


@dataclass(slots=True, frozen=True)
class SnapshotRead:
    """The next part of an export, nothing behind its last one; or why it can't be read."""

    token: Any
    result: bytes | StorageFault


@dataclass(slots=True, frozen=True)
class SnapshotTaken:
    """A part of a snapshot is on disk.

    Attributes:
        tail: With the last one, the end of the shard's log, which is there now.
        numbers: Of the dedupe keys in it, as of `keyfilter.key_number`.
    """

    token: Any
    tail: ShardTail | None
    numbers: Sequence[int] = ()


@dataclass(slots=True, frozen=True)
class SnapshotRefused:
    """A part of a snapshot is not what may come; of the import nothing stays, and the shard's log is empty.

    Only where it was refused at its beginning, all is as it was.
    """

    token: Any
    reason: str


@dataclass(slots=True, frozen=True)
class MetaRun:
    """META and MARKS entries of a room, by `meta_n`.

    Attributes:
        entries: Dense from where the reader was on, but for MARKS entries up to `floor`.
        floor: The `meta_n` up to which MARKS entries were dropped; tables have what they said.
    """

    entries: Sequence[Entry]
    floor: int


@dataclass(slots=True, frozen=True)
class MetaRead:
    """A room's META and MARKS entries, or why they can't be read."""

    token: Any
    result: MetaRun | StorageFault


@dataclass(slots=True, frozen=True)
class MarkRead:
    """How far a user has read, as the tables know it (0: they don't), or why they can't be read."""

    token: Any
    result: int | StorageFault


@dataclass(slots=True, frozen=True)
class Trimmed:
    """Retention dropped the oldest entries of these rooms, up to and including a sequence each."""

    floors: Sequence[tuple[RoomId, int]]


@dataclass(slots=True, frozen=True)
class Halted:
    """The log takes nothing more."""

    fault: StorageFault


Completion = (
    Persisted
    | Filed
    | CasDone
    | RoomLoaded
    | KeysFound
    | KeysScanned
    | HistoryRead
    | MarkRead
    | MetaRead
    | ShardRead
    | SnapshotRead
    | SnapshotRefused
    | SnapshotTaken
    | TailRead
    | Trimmed
    | Halted
)

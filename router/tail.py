"""The log's tail: what followers read of all rooms, behind a cursor of their own.  Sans-I/O.

A follower is told of everything that was committed at least once, in the order in which clients saw it in each room,
for as long as retention leaves it there: it keeps a cursor, reads on from there, and stores the cursor again when what
it was given is dealt with. Entries are given as clients are shown them at that moment, so a follower that reads again
gives on no text that was removed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.entry import Entry
    from router.events import Recovered
    from router.ids import ShardId


@dataclass(slots=True, frozen=True)
class TailQuery:
    """A read behind a cursor.

    Attributes:
        cursor: By shard, the last lsn that was read; of a shard that is not named, nothing was.
        limit: At most so many entries; 0: none, only the heads are wanted.
        max_bytes: Stop before the sum of their canonical bytes passes this; at least one is given.
        start: The shard to begin with; `Tail.start` of the answer before.
    """

    cursor: Mapping[ShardId, int]
    limit: int
    max_bytes: int
    start: ShardId = 0


class Lost(NamedTuple):
    """Entries that were dropped before the follower had read them: lsn `first` to `last` of a shard."""

    shard: ShardId
    first: int
    last: int


@dataclass(slots=True, frozen=True)
class Tail:
    """What followed a cursor.

    Attributes:
        entries: Committed ones, of one shard after the other, those of each by lsn: all that clients see, and META
            entries. What was removed is without its body, see `Entry.removal`.
        cursor: Behind them, for all shards that the log or the query knows.
        lost: What is missing among them.
        heads: By shard, the newest committed lsn of that moment.
        start: Where to begin with the next query, so that a busy shard does not keep others from their turn.
    """

    entries: Sequence[Entry]
    cursor: Mapping[ShardId, int]
    lost: Sequence[Lost]
    heads: Mapping[ShardId, int]
    start: ShardId

    @property
    def behind(self) -> int:
        """Entries that were committed and are not read yet."""
        return sum(max(0, head - self.cursor[shard]) for shard, head in self.heads.items())


@dataclass(slots=True, frozen=True)
class Hold:
    """What retention leaves for a follower.

    Attributes:
        cursor: Entries above it are held,
        from_ms: if they are not older than this, milliseconds since 1970.
    """

    cursor: Mapping[ShardId, int]
    from_ms: int

    def is_unread(self, entry: Entry) -> bool:
        """Whether the follower has not read an entry."""
        return entry.lsn > self.cursor.get(entry.shard, 0)


def first_cursor(recovered: Recovered) -> dict[ShardId, int]:
    """The cursor of a follower that begins with the start of this log: all that is committed from then on follows."""
    return {shard: tail.commit for shard, tail in recovered.shards.items()}


def fit_cursor(cursor: Mapping[ShardId, int], recovered: Recovered) -> dict[ShardId, int]:
    """A stored cursor, for a log that was opened again.

    Where it is beyond the log's end, an older copy of the log was put in its place: what comes next is new there, so
    the cursor goes back to the log's commit.
    """
    fitted = dict(cursor)
    for shard, lsn in cursor.items():
        tail = recovered.shards.get(shard)
        if tail is None or lsn > tail.lsn:
            fitted[shard] = tail.commit if tail else 0
    return fitted

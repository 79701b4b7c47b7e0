"""The primary of one shard: gives entries their place, and says when they are committed.  Sans-I/O.

An entry is committed when every member of the current configuration, and of a pending one, holds it on disk, and at
least `min_sync` do (rule 2). Entries inherited at a takeover are committed the same way, by the first EPOCH entry of
the new primary; until then it serves nobody (rule 7).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from router.entry import LAST_VISIBLE, Entry, Kind, make
from router.errors import BrokenInvariant
from router.ids import MemberId, RoomId, ShardId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.events import Configuration, ShardTail

NO_ROOM = RoomId("", "")


class RoomHead:
    """The end of a room, as its primary knows it.

    Attributes:
        room: (site, channel).
        generation: Part of the stream epoch.
        sequence: Of the newest visible entry that was given a place.
        meta_n: Of the newest META or MARKS entry that was given a place.
        ts: Of the newest entry, in milliseconds; a new entry's is never below it.
    """

    __slots__ = ("generation", "meta_n", "room", "sequence", "ts")

    def __init__(self, room: RoomId, generation: int, sequence: int, meta_n: int, ts: int) -> None:
        self.room, self.generation, self.sequence, self.meta_n, self.ts = (
            room,
            generation,
            sequence,
            meta_n,
            ts,
        )


class Sequencer:
    """Gives entries of a shard their lsn and sequence, and tracks what its members hold.

    Args:
        configuration: The row under which this member is the primary.
        tail: This member's log of the shard at the takeover.
        inherited: Entries of that log above its commit, oldest first.
        min_sync: Members that must hold an entry before it is committed.
    """

    __slots__ = (
        "_match",
        "_uncommitted",
        "chain",
        "commit",
        "configuration",
        "epoch",
        "inherited",
        "lsn",
        "min_sync",
        "shard",
    )

    def __init__(
        self, configuration: Configuration, tail: ShardTail, inherited: Iterable[Entry], min_sync: int
    ) -> None:
        self.configuration = configuration
        self.shard: ShardId = configuration.shard
        self.epoch = configuration.epoch
        self.lsn, self.chain, self.commit = tail.lsn, tail.chain, tail.commit
        self.inherited = tail.lsn
        self.min_sync = min_sync
        self._match: dict[MemberId, int] = dict.fromkeys(configuration.members, 0)
        self._uncommitted: deque[Entry] = deque(inherited)
        if len(self._uncommitted) != self.lsn - self.commit:
            raise BrokenInvariant(
                f"shard {self.shard}: {len(self._uncommitted)} entries inherited, from {self.commit} to {self.lsn}"
            )

    @property
    def serving(self) -> bool:
        """Whether everything inherited is committed, so that submits and questions for a head may be answered."""
        return self.commit > self.inherited

    @property
    def uncommitted(self) -> Iterable[Entry]:
        """What was given a place and is not committed, in order."""
        return self._uncommitted

    def begin(self, now_ms: int, salt: bytes) -> Entry:
        """The EPOCH entry that opens this primary's tenure; the first to be replicated."""
        head = RoomHead(NO_ROOM, 0, 0, -1, now_ms)  # it is of no room, and the first that does not count
        return self.append(head, Kind.EPOCH, b"", "", b"", b"", now_ms, salt, b"", None)

    def append(  # noqa: PLR0913, PLR0917 - hot path: a submit's values as they are
        self, head: RoomHead, kind: int, sender: bytes, cmid: str, data: bytes, info: bytes, now_ms: int, salt: bytes,
        key: bytes, origin: Callable[[Any], None] | None,
    ) -> Entry:  # fmt: skip
        """Give a room's next entry its place. It counts for nothing until it is committed."""
        if kind <= LAST_VISIBLE:
            head.sequence += 1
        else:
            head.meta_n += 1
        if now_ms > head.ts:  # noqa: PLR1730 - a call of max() costs three times as much
            head.ts = now_ms
        self.lsn = lsn = self.lsn + 1
        entry = make(
            self.shard, lsn, self.epoch, head.room, head.sequence, head.meta_n, kind, sender, cmid, head.ts, salt,
            data, info, self.chain, key, origin,
        )  # fmt: skip
        self.chain = entry.chain
        self._uncommitted.append(entry)
        return entry

    def acknowledge(self, member: MemberId, lsn: int) -> list[Entry]:
        """A member holds everything up to `lsn` on disk, in this epoch; gives what that commits, in order."""
        if lsn > self.lsn:
            raise BrokenInvariant(f"shard {self.shard}: {member} acknowledges {lsn}, the log ends at {self.lsn}")
        match = self._match
        if match.get(member, lsn) >= lsn:  # old news, or not of the commit set
            return []
        match[member] = lsn
        low = min(match.values())
        if low <= self.commit or len(match) < self.min_sync:
            return []
        count, self.commit = low - self.commit, low
        uncommitted = self._uncommitted
        if count == len(uncommitted):
            committed = list(uncommitted)
            uncommitted.clear()
            return committed
        return [uncommitted.popleft() for _ in range(count)]

"""The primary of one shard: gives entries their place, and says when they are committed.  Sans-I/O.

An entry is committed when every member of the current configuration, and of a pending one, holds it on disk, and at
least `min_sync` do (rule 2). Entries inherited at a takeover are committed the same way, by the first EPOCH entry of
the new primary; until then it serves nobody (rule 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from router.entry import LAST_VISIBLE, Entry, Kind, make
from router.errors import BrokenInvariant
from router.ids import MemberId, RoomId

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.events import Configuration
    from router.replica import Replica

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
        configuration: The row under which this member is the primary; its epoch is promised.
        replica: This member's log of the shard.
        min_sync: Members that must hold an entry before it is committed.

    Attributes:
        configuration: The newest row that is known to be in force.
        pending: Rows that may be in force, as the register has not answered: their members are in the commit set.
        epoch: Of the tenure.
        inherited: Up to here the log is of earlier tenures.
    """

    __slots__ = ("_match", "configuration", "epoch", "inherited", "min_sync", "pending", "replica")

    def __init__(self, configuration: Configuration, replica: Replica, min_sync: int) -> None:
        self.configuration = configuration
        self.replica = replica
        self.epoch = configuration.epoch
        self.inherited = replica.lsn
        self.min_sync = min_sync
        self.pending: list[Configuration] = []
        self._match: dict[MemberId, int] = dict.fromkeys(configuration.members, 0)

    @property
    def commit(self) -> int:
        """Up to here everything is committed."""
        return self.replica.commit

    @property
    def serving(self) -> bool:
        """Whether everything inherited is committed, so that submits and questions for a head may be answered."""
        return self.replica.commit > self.inherited

    @property
    def commit_set(self) -> frozenset[MemberId]:
        """Who must hold an entry before it is committed."""
        return frozenset(self._match)

    # -- places --------------------------------------------------------------------------------------------------

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
        replica = self.replica
        entry = make(
            replica.shard, replica.lsn + 1, self.epoch, head.room, head.sequence, head.meta_n, kind, sender, cmid,
            head.ts, salt, data, info, replica.chain, key, origin,
        )  # fmt: skip
        replica.append(entry)
        return entry

    # -- commits -------------------------------------------------------------------------------------------------

    def acknowledge(self, member: MemberId, lsn: int) -> list[Entry]:
        """A member holds everything up to `lsn` on disk, in this epoch; gives what that commits, in order."""
        replica = self.replica
        if lsn > replica.lsn:
            raise BrokenInvariant(f"shard {replica.shard}: {member} acknowledges {lsn}, the log ends at {replica.lsn}")
        match = self._match
        if match.get(member, lsn) >= lsn:  # old news, or not of the commit set
            return []
        match[member] = lsn
        return self._advance()

    def _advance(self) -> list[Entry]:
        low = self._lowest()
        if low <= self.replica.commit or len(self.configuration.members) < self.min_sync:
            return []
        return self.replica.committed(low)

    def _lowest(self) -> int:
        """Up to here everybody of the commit set holds the log."""
        return min(self._match.values())

    # -- configurations ------------------------------------------------------------------------------------------

    def propose(self, configuration: Configuration, held: int) -> None:
        """A row is on its way to the register: from now on its members count, too.

        Args:
            configuration: The row.
            held: Up to where its new member is known to hold the log in this epoch.
        """
        self.pending.append(configuration)
        for member in configuration.members:
            self._match.setdefault(member, held)

    def reconfigure(self, configuration: Configuration) -> None:
        """A row of this primary is in force: a new epoch, in which its members must acknowledge anew (rule 4)."""
        self.configuration, self.epoch = configuration, configuration.epoch
        self.pending.clear()
        self._match = dict.fromkeys(configuration.members, 0)

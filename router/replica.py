"""A member of one shard: what its disk holds, what it promised, what it may acknowledge.  Sans-I/O.

The primary is a member like the others: its own disk, too, acknowledges only after the fsync (rule 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.entry import GENESIS, Entry
from router.errors import BrokenInvariant
from router.events import Promise, ShardTail

if TYPE_CHECKING:
    from router.ids import ShardId


class Replica:
    """One shard's log on this disk.

    Attributes:
        shard: The shard.
        lsn: The last entry handed to the disk, durable or not yet.
        durable: The last entry known to be on disk; what may be acknowledged.
        chain: The chain up to `lsn`.
        promised: Messages of a lower shard epoch are answered STALE.
        commit: The highest lsn known here to be committed.
    """

    __slots__ = ("chain", "commit", "durable", "lsn", "promised", "shard")

    def __init__(self, shard: ShardId, tail: ShardTail | None) -> None:
        self.shard = shard
        tail = tail or ShardTail(shard, 0, GENESIS, 0, 0)
        self.lsn = self.durable = tail.lsn
        self.chain, self.promised, self.commit = tail.chain, tail.promised, tail.commit

    def tail(self) -> ShardTail:
        """The end of the log as a value."""
        return ShardTail(self.shard, self.lsn, self.chain, self.promised, self.commit)

    def promise(self, epoch: int) -> Promise:
        """Promise an epoch; what is returned must be durable before anything of that epoch is acknowledged (rule 4)."""
        if epoch <= self.promised:
            raise BrokenInvariant(f"shard {self.shard}: epoch {epoch} is not above the promised {self.promised}")
        self.promised = epoch
        return Promise(self.shard, epoch)

    def append(self, entry: Entry) -> None:
        """An entry follows the last one and is on its way to the disk."""
        if entry.lsn != self.lsn + 1 or entry.epoch != self.promised:
            raise BrokenInvariant(
                f"shard {self.shard}: {entry!r} of epoch {entry.epoch} after {self.lsn} in epoch {self.promised}"
            )
        self.lsn, self.chain = entry.lsn, entry.chain

    def persisted(self, lsn: int) -> None:
        """Everything up to `lsn` is durable."""
        if lsn > self.lsn:
            raise BrokenInvariant(f"shard {self.shard}: {lsn} is said to be durable, the log ends at {self.lsn}")
        self.durable = lsn

    def committed(self, lsn: int) -> None:
        """Everything up to `lsn` is committed; nothing of it may ever be truncated."""
        if lsn > self.durable:
            raise BrokenInvariant(f"shard {self.shard}: commit {lsn} is above what is durable here, {self.durable}")
        self.commit = max(self.commit, lsn)

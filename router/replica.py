"""A member of one shard: what its disk holds, what it promised, what it may acknowledge.  Sans-I/O.

The primary is a member like the others: its own disk, too, acknowledges only after the fsync (rule 3).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from router.entry import GENESIS, Entry, decode, link
from router.errors import BrokenInvariant, CorruptEntry
from router.events import Promise, ShardTail, Truncate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.events import Batch
    from router.ids import ShardId
    from router.wire import Prep


class Replica:
    """One shard's log on this disk.

    Args:
        shard: The shard.
        tail: What the disk held when it was opened; None: nothing.
        uncommitted: Entries of that log above its commit, oldest first.

    Attributes:
        shard: The shard.
        lsn: The last entry handed to the disk, durable or not yet.
        durable: The last entry known to be on disk; what may be acknowledged.
        chain: The chain up to `lsn`.
        promised: Messages of a lower shard epoch are answered STALE.
        durable_promise: The highest promise known to be on disk.
        commit: The highest lsn known here to be committed; never above `durable`.
        commit_chain: The chain up to it.
        agreed: Up to here the log is known to agree with that of the primary of `promised`; what is committed does as
            well, or that is none, so it counts only from there on.
        uncommitted: What lies above `commit`, oldest first.
    """

    __slots__ = (
        "_announced", "_flushed", "agreed", "chain", "commit", "commit_chain", "durable", "durable_promise", "lsn",
        "promised", "shard", "uncommitted",
    )  # fmt: skip

    def __init__(self, shard: ShardId, tail: ShardTail | None, uncommitted: Iterable[Entry] = ()) -> None:
        self.shard = shard
        tail = tail or ShardTail(shard, 0, GENESIS, 0, 0)
        self.lsn = self.durable = tail.lsn
        self.chain = tail.chain
        self.promised = self.durable_promise = tail.promised
        self.commit = self._announced = tail.commit
        self.agreed = 0
        self.commit_chain = tail.chain if tail.lsn == tail.commit else tail.commit_chain
        self.uncommitted: deque[Entry] = deque(uncommitted)
        if len(self.uncommitted) != self.lsn - self.commit:
            raise BrokenInvariant(
                f"shard {shard}: {len(self.uncommitted)} entries above the commit, from {self.commit} to {self.lsn}"
            )
        self._flushed: deque[list[int]] = deque()  # [ticket, lsn, promised] of batches on their way to the disk

    def tail(self) -> ShardTail:
        """The end of the log as a value."""
        return ShardTail(self.shard, self.lsn, self.chain, self.promised, self.commit, self.commit_chain)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way to the disk, and nothing waits for a commit."""
        return not self._flushed and not self.uncommitted and self.durable == self.lsn

    # -- what goes to the disk -----------------------------------------------------------------------------------

    def promise(self, epoch: int) -> Promise:
        """Promise an epoch; what is returned must be durable before anything of that epoch is acknowledged (rule 4)."""
        if epoch <= self.promised:
            raise BrokenInvariant(f"shard {self.shard}: epoch {epoch} is not above the promised {self.promised}")
        self.promised = epoch
        self.agreed = 0
        return Promise(self.shard, epoch)

    def append(self, entry: Entry) -> None:
        """An entry follows the last one and is on its way to the disk."""
        if entry.lsn != self.lsn + 1 or entry.epoch > self.promised:
            raise BrokenInvariant(
                f"shard {self.shard}: {entry!r} of epoch {entry.epoch} after {self.lsn} in epoch {self.promised}"
            )
        self.lsn, self.chain = entry.lsn, entry.chain
        self.uncommitted.append(entry)

    def truncate(self, lsn: int) -> list[Entry]:
        """Forget what lies above `lsn`, on disk too; gives what was forgotten."""
        if lsn < max(self.commit, self._announced):
            raise BrokenInvariant(
                f"shard {self.shard}: truncation to {lsn}, below the commit {max(self.commit, self._announced)}"
            )
        forgotten = [self.uncommitted.pop() for _ in range(self.lsn - lsn)]
        self.lsn = lsn
        self.chain = self.chain_at(lsn) if self.uncommitted else self.commit_chain
        self.durable = min(self.durable, lsn)
        for flushed in self._flushed:  # what they bring to disk above it is no longer of the log
            flushed[1] = min(flushed[1], lsn)
        return forgotten[::-1]

    def chain_at(self, lsn: int) -> bytes:
        """The chain up to a place that is not below the commit."""
        return self.commit_chain if lsn == self.commit else self.uncommitted[lsn - self.commit - 1].chain

    # -- what the disk answers -----------------------------------------------------------------------------------

    def flush(self, ticket: int) -> None:
        """All that was appended and promised is part of batches up to this one."""
        self._flushed.append([ticket, self.lsn, self.promised])

    def persisted(self, ticket: int) -> None:
        """Every batch up to `ticket` is durable."""
        flushed = self._flushed
        while flushed and flushed[0][0] <= ticket:
            _, self.durable, self.durable_promise = flushed.popleft()

    def committed(self, lsn: int) -> list[Entry]:
        """Everything up to `lsn` is committed, nothing of it may ever be truncated; gives what was not before."""
        if lsn > self.durable:
            raise BrokenInvariant(f"shard {self.shard}: commit {lsn} is above what is durable here, {self.durable}")
        count = lsn - self.commit
        if count <= 0:
            return []
        uncommitted = self.uncommitted
        if count == len(uncommitted):
            entries = list(uncommitted)
            uncommitted.clear()
        else:
            entries = [uncommitted.popleft() for _ in range(count)]
        self.commit, self.commit_chain = lsn, entries[-1].chain
        return entries

    # -- as a follower -------------------------------------------------------------------------------------------

    def fits(self, prep: Prep) -> bool:
        """Whether a PREP continues this log, or part of it (rule 5)."""
        if prep.previous < self.commit:
            return True  # what is committed is the same everywhere; `follow` makes sure
        if prep.previous > self.lsn:
            return False
        return bool(self._known(prep.previous, prep.chain))

    def follow(self, prep: Prep, open_batch: Callable[[], Batch]) -> list[Entry]:
        """Take over what a fitting PREP of the promised epoch brings; gives what it made this log forget.

        Raises:
            CorruptEntry: An entry is not what its bytes say, or not the next one.
            BrokenInvariant: It contradicts what is committed.
        """
        lsn, chain = prep.previous, prep.chain
        forgotten: list[Entry] = []
        for wire in prep.wires:
            lsn += 1
            if lsn <= self.lsn:
                chain = self._known(lsn, link(chain, wire))
                if chain:
                    continue
                forgotten = self.truncate(lsn - 1)
                _cut(open_batch(), Truncate(self.shard, lsn - 1))
                chain = self.chain
            entry = decode(wire, chain)
            if (entry.shard, entry.lsn) != (self.shard, lsn):
                raise CorruptEntry(f"a PREP has entry {entry.shard}/{entry.lsn} where {self.shard}/{lsn} is due")
            self.append(entry)
            open_batch().entries.append(entry)
            chain = entry.chain
        self.agreed = max(self.agreed, lsn)
        self._announced = max(self._announced, min(prep.commit, self.agreed))
        return forgotten

    def _known(self, lsn: int, chain: bytes) -> bytes:
        """The chain if this log has it there; nothing if it has another one."""
        if lsn < self.commit or chain == self.chain_at(lsn):
            return chain
        if lsn == self.commit:
            raise BrokenInvariant(f"shard {self.shard}: a primary's log differs from what is committed at {lsn}")
        return b""

    def learn_commit(self) -> list[Entry]:
        """What the primary has said is committed, and is durable here, is committed here too; gives those entries."""
        return self.committed(min(self._announced, self.durable))


def _cut(batch: Batch, truncation: Truncate) -> None:
    """Add a truncation to a batch; what it cuts of the batch itself is never written."""
    shard, lsn = truncation.shard, truncation.lsn
    batch.entries = [entry for entry in batch.entries if entry.shard != shard or entry.lsn <= lsn]
    lsn = min([lsn, *(t.lsn for t in batch.truncations if t.shard == shard)])
    batch.truncations = [t for t in batch.truncations if t.shard != shard]
    batch.truncations.append(Truncate(shard, lsn))

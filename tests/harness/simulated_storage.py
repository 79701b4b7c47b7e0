"""What nodes of a simulated mesh keep: a disk each, and the register of all; and what it means that they fail."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from router import journal
from router.entry import GENESIS, Entry, decode
from router.errors import CorruptEntry
from router.events import Claim, Configuration, ShardTail
from router.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.events import Batch, Truncate
    from router.ids import MemberId, ShardId


class Violation(AssertionError):
    """What was promised does not hold."""


class Disk:
    """The log of one node: what is on it.

    Attributes:
        member: The node with this disk.
        logs: What is durable of each shard, from lsn 1.
        used: Entries on it.
        capacity: Entries that fit on it; None: as many as there are.
        slow_until: Until then an fsync takes seconds.
        failing: The next fsync fails.
        given_up: Entries that were truncated.
    """

    def __init__(self, member: MemberId) -> None:
        self.member = member
        self.logs: dict[ShardId, list[Entry]] = defaultdict(list)
        self.promised: dict[ShardId, int] = defaultdict(int)
        self.commits: dict[ShardId, int] = defaultdict(int)
        self.used = 0
        self.capacity: int | None = None
        self.slow_until = 0
        self.failing = False
        self.given_up: list[Entry] = []

    def fits(self, batches: Sequence[Batch]) -> bool:
        """Whether there is room for them."""
        return self.capacity is None or self.used + sum(len(batch.entries) for batch in batches) <= self.capacity

    def nearly_full(self) -> bool:
        """Above the quota at which submits are refused: 85 %."""
        return self.capacity is not None and self.used * 100 >= self.capacity * 85

    def write(self, batch: Batch) -> None:
        """A transaction is durable."""
        for promise in batch.promises:
            self.promised[promise.shard] = max(self.promised[promise.shard], promise.epoch)
        for truncation in batch.truncations:
            self._truncate(truncation)
        for entry in batch.entries:
            log = self.logs[entry.shard]
            if entry.lsn != len(log) + 1:
                raise Violation(f"{self.member}: {entry} is written behind {len(log)}")
            before = log[-1].chain if log else GENESIS
            log.append(decode(entry.wire, before))
            if log[-1].chain != entry.chain:
                raise Violation(f"{self.member}: the chain breaks at {entry}")
        self.used += len(batch.entries)
        for shard, commit in batch.commits.items():
            self.commits[shard] = max(self.commits[shard], commit)

    def _truncate(self, truncation: Truncate) -> None:
        log = self.logs[truncation.shard]
        if truncation.lsn < self.commits[truncation.shard]:
            raise Violation(f"{self.member}: truncated to {truncation}, {self.commits[truncation.shard]} is committed")
        given_up = log[truncation.lsn :]
        del log[truncation.lsn :]
        self.given_up += given_up
        self.used -= len(given_up)

    def tear(self, batch: Batch, cut: float) -> None:
        """The power goes while the frame of a transaction is written: a part of it stands there, then zeros.

        That is found when the journal is read, so nothing of the transaction is there.
        """
        whole = journal.encode([batch])
        kept = int(len(whole) * cut)
        try:
            journal.decode(whole[:kept] + bytes(len(whole) - kept))
        except CorruptEntry:
            return
        raise Violation(f"{self.member}: {kept} bytes of a frame of {len(whole)} pass for all of it")

    def open(self, shard: ShardId) -> Replica:
        """The log as a node finds it when it starts."""
        log, commit = self.logs[shard], min(self.commits[shard], len(self.logs[shard]))
        chain = log[-1].chain if log else GENESIS
        commit_chain = log[commit - 1].chain if commit else GENESIS
        tail = ShardTail(shard, len(log), chain, self.promised[shard], commit, commit_chain)
        return Replica(shard, tail, log[commit:])

    def holds(self, entry: Entry) -> bool:
        """Whether this entry is durable, in its place."""
        log = self.logs[entry.shard]
        return len(log) >= entry.lsn and log[entry.lsn - 1].chain == entry.chain


class Register:
    """Rows, changed one at a time; what is asked may be lost, late, or carried out again."""

    def __init__(self) -> None:
        self.rows: dict[ShardId, Configuration] = {}
        self.history: list[Configuration] = []
        self.answered: dict[tuple[str, int, int], tuple[bool, Configuration]] = {}

    def cas(self, request: tuple[str, int, int], claim: Claim) -> tuple[bool, Configuration]:
        """Carry out a request, once; gives whether it was done, and the row in force."""
        if request in self.answered:
            return self.answered[request]
        shard = claim.new.shard
        row = self.rows.get(shard) or Configuration(shard, 0, 0, claim.new.primary, ())
        done = row.version == claim.expected_version
        if done:
            row = self.rows[shard] = claim.new
            self.history.append(row)
        self.answered[request] = (done, row)
        return done, row

    def restore(self, rows: Mapping[ShardId, Configuration]) -> None:
        """Go on with a backup: these rows, and no memory of what was asked since."""
        self.rows = dict(rows)
        self.answered.clear()

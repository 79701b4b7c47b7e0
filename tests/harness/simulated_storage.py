"""What nodes of a simulated mesh keep: a disk each, and the register of all; and what it means that they fail."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from router.entry import GENESIS, Entry, decode
from router.events import Claim, Configuration, ShardTail
from router.replica import Replica

if TYPE_CHECKING:
    from router.events import Batch
    from router.ids import MemberId, ShardId


class Violation(AssertionError):
    """What was promised does not hold."""


class Disk:
    """The log of one node: what is on it, and what is on its way.

    Attributes:
        member: The node with this disk.
        logs: What is durable of each shard, from lsn 1.
    """

    def __init__(self, member: MemberId) -> None:
        self.member = member
        self.logs: dict[ShardId, list[Entry]] = defaultdict(list)
        self.promised: dict[ShardId, int] = defaultdict(int)
        self.commits: dict[ShardId, int] = defaultdict(int)

    def write(self, batch: Batch) -> None:
        """A transaction is durable."""
        for promise in batch.promises:
            self.promised[promise.shard] = max(self.promised[promise.shard], promise.epoch)
        for truncation in batch.truncations:
            del self.logs[truncation.shard][truncation.lsn :]
        for entry in batch.entries:
            log = self.logs[entry.shard]
            if entry.lsn != len(log) + 1:
                raise Violation(f"{self.member}: {entry} is written behind {len(log)}")
            before = log[-1].chain if log else GENESIS
            log.append(decode(entry.wire, before))
            if log[-1].chain != entry.chain:
                raise Violation(f"{self.member}: the chain breaks at {entry}")
        for shard, commit in batch.commits.items():
            self.commits[shard] = max(self.commits[shard], commit)

    def open(self, shard: ShardId) -> Replica:
        """The log as a node finds it when it starts."""
        log, commit = self.logs[shard], min(self.commits[shard], len(self.logs[shard]))
        chain = log[-1].chain if log else GENESIS
        commit_chain = log[commit - 1].chain if commit else GENESIS
        tail = ShardTail(shard, len(log), chain, self.promised[shard], commit, commit_chain)
        return Replica(shard, tail, log[commit:])


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

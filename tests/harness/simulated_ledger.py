"""What must hold in a simulated mesh, and what is known to be committed and acknowledged in it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from router.entry import Entry, Kind
from tests.harness.simulated_storage import Disk, Violation

if TYPE_CHECKING:
    from router.events import Batch, Configuration
    from router.ids import MemberId, RoomId, ShardId
    from router.wire import Ack
    from tests.harness.simulated_member import Node
    from tests.harness.simulated_mesh import Mesh


class Ledger:
    """Sees everything, and compares.

    Attributes:
        truth: What is committed of each shard, in order.
        rooms: What is committed in each room, in order.
        acknowledged: Up to where, of each shard, clients were told that a message is accepted.
        newest: The same, of each room.
        lost_disks: Of nodes that have another one now.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.truth: dict[ShardId, list[Entry]] = defaultdict(list)
        self.rooms: dict[RoomId, list[Entry]] = defaultdict(list)
        self.acknowledged: dict[ShardId, int] = defaultdict(int)
        self.newest: dict[RoomId, int] = defaultdict(int)
        self.lost_disks: list[Disk] = []
        self._keys: set[tuple[RoomId, bytes, str]] = set()
        self._primaries: dict[tuple[ShardId, int], tuple[MemberId, int]] = {}

    def violation(self, node: Node, what: str) -> Violation:
        """It does not hold."""
        return Violation(f"at {self.mesh.now} {node.name}: {what}")

    # -- what happens --------------------------------------------------------------------------------------------

    def commit(self, node: Node, entry: Entry) -> None:
        """A member takes an entry for committed."""
        truth = self.truth[entry.shard]
        if entry.lsn <= len(truth):
            if truth[entry.lsn - 1].wire != entry.wire:
                raise self.violation(node, f"commits {entry}, where another entry was committed")
            return
        if entry.lsn != len(truth) + 1:
            raise self.violation(node, f"commits {entry}, with {len(truth)} before it")
        truth.append(entry)
        if entry.kind != Kind.EPOCH:
            self._place(node, entry)
        row = self.mesh.register.rows.get(entry.shard)
        if row is not None and not self.mesh.restored:
            self._check_members(node, row, entry)

    def _place(self, node: Node, entry: Entry) -> None:
        room = self.rooms[entry.room]
        last = room[-1] if room else entry
        if entry.sequence != len(room) + 1 or last.epoch > entry.epoch or last.ts > entry.ts:
            raise self.violation(
                node, f"commits {entry} of epoch {entry.epoch} at {entry.ts} after {last} of {last.epoch} at {last.ts}"
            )
        key = entry.room, entry.sender, entry.cmid
        if key in self._keys:
            raise self.violation(node, f"commits {entry}, whose id {entry.cmid} is committed already")
        self._keys.add(key)
        room.append(entry)

    def acknowledge(self, node: Node, entry: Entry) -> None:
        """A client is told that its message is accepted."""
        self.acknowledged[entry.shard] = max(self.acknowledged[entry.shard], entry.lsn)
        self.newest[entry.room] = max(self.newest[entry.room], entry.sequence)
        self.mesh.tally.acked += 1
        truth = self.truth[entry.shard]
        if entry.lsn > len(truth) or truth[entry.lsn - 1].wire != entry.wire:
            raise self.violation(node, f"acknowledges {entry}, which is not committed")
        if not self.mesh.thorough:
            return
        disks = [*(n.disk for n in self.mesh.nodes), *self.lost_disks]
        holders = [disk.member for disk in disks if disk.holds(entry)]
        if len(holders) < self.mesh.options.min_sync:
            raise self.violation(node, f"acknowledges {entry}, which is durable on {holders} only")

    def lead(self, node: Node, row: Configuration) -> None:
        """A member is primary by this row."""
        if self.mesh.restored:
            return  # it gives epochs a second time; what counts is that nothing is acknowledged in them
        place = row.shard, row.epoch
        leader = node.member, node.boot
        if row.primary != node.member or self._primaries.setdefault(place, leader) != leader:
            other = self._primaries.get(place)
            raise self.violation(node, f"is primary of epoch {row.epoch} of shard {row.shard}, and so is {other}")

    # -- what must hold ------------------------------------------------------------------------------------------

    def check_promise(self, node: Node, ack: Ack) -> None:
        """No member acknowledges what is not durable: neither entries nor the promise to take none of another."""
        disk = node.disk
        if disk.promised[ack.shard] < ack.epoch or len(disk.logs[ack.shard]) < ack.lsn:
            raise self.violation(
                node,
                f"acknowledges {ack}; on its disk are {len(disk.logs[ack.shard])} entries and a promise of epoch"
                f" {disk.promised[ack.shard]}",
            )

    def check_growth(self, node: Node, shard: ShardId, before: tuple[int, int, int], now: tuple[int, int, int]) -> None:
        """What a member has promised, learned and committed never falls."""
        if any(new < old for new, old in zip(now, before, strict=True)):
            raise self.violation(node, f"shard {shard}: promise, row and commit went from {before} to {now}")

    def check_truncations(self, node: Node, batch: Batch) -> None:
        """Nothing that is committed anywhere is ever truncated."""
        for truncation in batch.truncations:
            truth, log = self.truth[truncation.shard], node.disk.logs[truncation.shard]
            at = truncation.lsn
            if at < min(len(truth), len(log)) and truth[at].chain == log[at].chain:
                raise self.violation(node, f"gives up {log[at]}, which is committed")

    def check_row(self, row: Configuration) -> None:
        """Every member of a configuration in force, whose disk there is, holds all that is committed."""
        truth = self.truth[row.shard]
        if truth and row == self.mesh.register.rows.get(row.shard):
            self._check_members(self.mesh.nodes[0], row, truth[-1])

    def _check_members(self, node: Node, row: Configuration, entry: Entry) -> None:
        by_member = self.mesh.network.by_member
        for member in row.members:
            holder = by_member.get(member)
            if holder is not None and not holder.disk.holds(entry):
                raise self.violation(node, f"{member} is a member by {row}, and lacks {entry}, which is committed")

    def check_logs(self) -> None:
        """In the end all logs are alike: what a disk holds of what is committed is the same everywhere."""
        for node in self.mesh.nodes:
            for shard, log in node.disk.logs.items():
                truth = self.truth[shard]
                upto = min(node.disk.commits[shard], len(log))
                if [entry.chain for entry in log[:upto]] != [entry.chain for entry in truth[:upto]]:
                    raise self.violation(node, f"its log of shard {shard} differs from what is committed")

"""The cores of several nodes with a network, disks and a register between them, all driven by hand."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import pytest

from router.cluster import Cluster
from router.effects import ClusterOptions, Effects
from router.entry import GENESIS, Entry, Kind, decode
from router.events import (
    Away,
    Claim,
    Configuration,
    Duplicate,
    KnownKey,
    Outcome,
    Recovered,
    RoomRecord,
    ShardTail,
    Submit,
    fingerprint,
)
from router.ids import MemberId, RoomId, dedupe_key
from router.keyfilter import KeyFilter
from router.room import RoomState
from router.shard import ShardOptions
from router.wire import config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.events import Batch
    from router.ids import ShardId
    from router.replication import ReadLog
    from router.wire import PeerMessage

ROOM = RoomId("s", "lobby")
SENDER = b"s" * 12
OPTIONS = ClusterOptions(shards=1, shard=ShardOptions(copies=3, min_sync=2))
TICK = 50
SUSPECT = 1500


class Node:
    """One of them.

    Attributes:
        log: What is on its disk, from lsn 1.
        filed: How many of these are in its tables.
        committed: What it answered and published.
        moved: Rooms that left its memory.
        up: Whether it takes part.
    """

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh, self.me = mesh, MemberId(name, f"{name}-disk")
        self.log: list[Entry] = []
        self.filed = self.commit = self.promised = 0
        self.start()

    def start(self) -> None:
        """Begin a life with what is on the disk."""
        chain = self.log[-1].chain if self.log else GENESIS
        tail = ShardTail(0, len(self.log), chain, self.promised, self.commit)
        if self.commit < len(self.log):
            tail = ShardTail(
                0, len(self.log), chain, self.promised, self.commit, self.log[self.commit - 1].chain if self.commit
                else GENESIS,
            )  # fmt: skip
        recovered = Recovered({0: tail} if self.log or self.promised else {}, {}, tuple(self.log[self.commit :]))
        self.filed = self.commit
        self.cluster = Cluster(self.me, "birth", OPTIONS, recovered, bytes, self)
        self.cluster.now = self.mesh.now
        self.cluster.know_keys(KeyFilter(64))
        self.committed: list[Entry] = []
        self.filing: list[Entry] = []
        self.moved: list[RoomState] = []
        self.up_since = self.mesh.now
        self.is_up = True

    @property
    def up(self) -> Sequence[MemberId]:
        """Of `Neighbourhood`: who has not been away for long."""
        return [node.me for node in self.mesh.nodes if node.is_up or self.mesh.now - node.up_since < SUSPECT]

    def wanted(self, shard: ShardId) -> Sequence[MemberId]:
        """Of `Neighbourhood`."""
        assert shard == 0
        return [node.me for node in self.mesh.nodes if node.me in self.up]

    def crash(self) -> None:
        """Die; the disk stays."""
        self.is_up, self.up_since = False, self.mesh.now

    def submit(self, cmid: str, data: bytes = b"{}") -> list[Outcome]:
        """Ask for a message; gives where its outcome will be."""
        outcomes: list[Outcome] = []
        self.cluster.submit(Submit(ROOM, Kind.MESSAGE, SENDER, cmid, data, b"", outcomes.append), self.mesh.now)
        return outcomes

    def open(self) -> list[RoomState | Away]:
        """Ask for the room; gives where the answer will be."""
        answers: list[RoomState | Away] = []
        self.cluster.open(ROOM, answers.append, self.mesh.now)
        return answers

    def turn(self) -> None:
        """Perform what the cores want done; the disk answers in the next turn of the mesh."""
        while (effects := self.cluster.effects()) is not None:
            if effects.batch is not None:
                self.write(effects.batch)
            self.pass_on(effects)
            self.ask_disk(effects)
            for done, outcome in effects.outcomes:
                done(outcome)
            for opened, state in effects.opened:
                opened(state)
            for entry in effects.committed:
                if entry.origin is not None:
                    entry.origin(entry)
            for confirmed, answer in effects.confirmed:
                confirmed(answer)
            self.committed += effects.committed
            self.moved += effects.moved

    def write(self, batch: Batch) -> None:
        """Have a batch on disk."""
        for promise in batch.promises:
            self.promised = max(self.promised, promise.epoch)
        for truncation in batch.truncations:
            del self.log[truncation.lsn :]
        for entry in batch.entries:
            assert entry.lsn == len(self.log) + 1
            self.log.append(decode(entry.wire, self.log[-1].chain if self.log else GENESIS))
        self.commit = max(self.commit, batch.commits.get(0, 0))
        self.mesh.later(self, partial(self.cluster.persisted, batch.ticket))

    def pass_on(self, effects: Effects) -> None:
        """Ask the register, and send to others."""
        for claim in effects.claims:
            self.mesh.later(self, partial(self.claim, claim))
        for member, message in effects.sends:
            self.mesh.send(self, member, message)
        for row in effects.announced:
            for node in self.mesh.nodes:
                self.mesh.send(self, node.me, config_of(row))

    def ask_disk(self, effects: Effects) -> None:
        """Have the disk read, and file."""
        cluster, later = self.cluster, self.mesh.later
        for read in effects.reads:
            later(self, partial(self.read, read))
        for room in effects.load:
            visible = [entry.sequence for entry in self.log[: self.filed] if entry.visible]
            later(self, partial(cluster.loaded, RoomRecord(room, sequence=max(visible, default=0)), self.mesh.now))
        if effects.find:
            later(self, partial(cluster.found, effects.find, self.known(), self.mesh.now))
        self.filing += effects.filing
        if effects.hurry:
            later(self, self.file)

    def claim(self, claim: Claim) -> None:
        row = self.mesh.register or Configuration(0, 0, 0, self.me, ())
        done = row.version == claim.expected_version
        if done:
            row = self.mesh.register = claim.new
        self.cluster.claimed(claim, row, self.mesh.now, done=done)

    def read(self, read: ReadLog) -> None:
        chain = self.log[read.after - 1].chain if read.after else GENESIS
        wires = [entry.wire for entry in self.log[read.after : read.after + read.limit]]
        self.cluster.log_read(read, chain, wires)

    def known(self) -> list[KnownKey]:
        named = [entry for entry in self.log[: self.filed] if entry.cmid]
        return [KnownKey(dedupe_key(e.room, e.sender, e.cmid), e.sequence, fingerprint(e.data)) for e in named]

    def file(self) -> None:
        entries, self.filing = self.filing, []
        if entries:
            assert entries[0].lsn == self.filed + 1
            self.filed = entries[-1].lsn
            self.cluster.filed(entries)


class Mesh:
    """Time, and what lies between the nodes."""

    def __init__(self, count: int = 3) -> None:
        self.now = 1000
        self.register: Configuration | None = None
        self.cut: set[frozenset[str]] = set()
        self.nodes: list[Node] = []
        self._queue: deque[tuple[Node, Cluster, Callable[[], None]]] = deque()
        for number in range(count):
            self.nodes.append(Node(self, f"n{number}"))

    def later(self, node: Node, action: Callable[[], None]) -> None:
        """Do something at a node, in this life of it, in the next turn."""
        self._queue.append((node, node.cluster, action))

    def send(self, source: Node, target: MemberId, message: PeerMessage) -> None:
        """Deliver something unless the way is cut."""
        node = next(node for node in self.nodes if node.me == target)
        if node is not source and frozenset((source.me.node, node.me.node)) not in self.cut:
            self.later(node, lambda: node.cluster.receive(source.me, message))

    def settle(self) -> None:
        """Until nothing is left to do at this moment."""
        while True:
            for node in self.nodes:
                if node.is_up:
                    node.turn()
            if not self._queue:
                return
            for _ in range(len(self._queue)):
                node, life, action = self._queue.popleft()
                if node.is_up and node.cluster is life:
                    action()

    def run(self, milliseconds: int) -> None:
        """Let time pass."""
        for _ in range(milliseconds // TICK):
            self.now += TICK
            for node in self.nodes:
                if node.is_up:
                    node.cluster.now = self.now
                    node.cluster.tick()
            self.settle()


def served(mesh: Mesh) -> Node:
    """The primary, with a message `first` in the room."""
    outcomes = mesh.nodes[0].submit("first")
    mesh.settle()
    assert [type(outcome) for outcome in outcomes] == [Entry]
    mesh.run(500)
    return mesh.nodes[0]


def lsns(nodes: Sequence[Node]) -> list[list[bytes]]:
    return [[entry.wire for entry in node.log] for node in nodes]


def test_what_is_acknowledged_is_on_all_members_disks() -> None:
    mesh = Mesh()
    served(mesh)
    first, *others = lsns(mesh.nodes)
    assert len(first) == 2
    assert others == [first, first]


def test_a_backup_files_what_is_committed_and_publishes_nothing() -> None:
    mesh = Mesh()
    served(mesh)
    backup = mesh.nodes[1]
    assert [entry.lsn for entry in backup.filing] == [1, 2]
    assert backup.committed == []


def test_with_too_few_members_nothing_is_acknowledged() -> None:
    mesh = Mesh()
    mesh.nodes[1].crash()
    mesh.nodes[2].crash()
    mesh.run(2000)
    outcomes = mesh.nodes[0].submit("first")
    mesh.run(5000)
    assert outcomes == []
    mesh.nodes[1].start()
    mesh.run(8000)
    assert [type(outcome) for outcome in outcomes] == [Entry]


def test_who_is_not_the_primary_says_who_is() -> None:
    mesh = Mesh()
    primary = served(mesh)
    outcomes, answers = mesh.nodes[1].submit("second"), mesh.nodes[2].open()
    mesh.settle()
    assert (outcomes, answers) == ([Away.MOVED], [Away.MOVED])
    assert {row.primary for node in mesh.nodes if (row := node.cluster.row(0)) is not None} == {primary.me}


def test_after_the_primary_died_another_one_goes_on_and_knows_what_was_sent() -> None:
    mesh = Mesh()
    primary = served(mesh)
    primary.crash()
    mesh.run(4000)
    row = mesh.register
    assert row is not None
    assert row.primary != primary.me
    heir = next(node for node in mesh.nodes if node.me == row.primary)
    again, other, new = heir.submit("first"), heir.submit("first", b"[]"), heir.submit("second")
    mesh.run(3000)
    assert again == [Duplicate(1)]
    assert other != again
    assert [entry.sequence for entry in new if isinstance(entry, Entry)] == [2]
    assert [entry.wire for entry in heir.log][: len(primary.log)] == [entry.wire for entry in primary.log]


def test_a_message_that_no_backup_has_is_unknown_to_who_sent_it_and_gone() -> None:
    mesh = Mesh()
    primary = served(mesh)
    for node in mesh.nodes[1:]:
        mesh.cut.add(frozenset((primary.me.node, node.me.node)))
    outcomes = primary.submit("lost")
    repeated = primary.submit("lost")
    mesh.settle()
    assert outcomes == []
    primary.up_since, primary.is_up = mesh.now, False  # it sleeps; nobody takes its memory away
    mesh.run(4000)
    mesh.cut.clear()
    primary.is_up = True
    mesh.run(3000)
    assert (outcomes, repeated) == ([Away.MOVED], [Away.MOVED])
    assert [state.room for state in primary.moved] == [ROOM]
    assert primary.cluster.rooms.get(ROOM) is None
    heir = next(node for node in mesh.nodes if mesh.register is not None and node.me == mesh.register.primary)
    assert heir is not primary
    once_more = heir.submit("lost")
    mesh.run(4000)
    assert [entry.sequence for entry in once_more if isinstance(entry, Entry)] == [2]
    assert lsns(mesh.nodes)[0] == lsns(mesh.nodes)[1] == lsns(mesh.nodes)[2]


def test_who_was_primary_and_becomes_it_again_reads_its_rooms_anew() -> None:
    mesh = Mesh()
    first = served(mesh)
    first.crash()
    mesh.run(4000)
    heir = next(node for node in mesh.nodes if mesh.register is not None and node.me == mesh.register.primary)
    written = heir.submit("second")
    mesh.run(1000)
    assert [type(outcome) for outcome in written] == [Entry]
    first.start()
    mesh.run(8000)
    assert mesh.register is not None
    assert first.me in mesh.register.members
    for node in mesh.nodes:
        if node is not first:
            node.crash()
    mesh.nodes[3 - mesh.nodes.index(heir)].start()
    mesh.run(8000)
    row = mesh.register
    assert row is not None
    last = next(node for node in mesh.nodes if node.me == row.primary)
    assert last.is_up
    again, new = last.submit("second"), last.submit("third")
    mesh.run(3000)
    assert again == [Duplicate(2)]
    assert [entry.sequence for entry in new if isinstance(entry, Entry)] == [3]


def test_a_restarted_primary_takes_a_new_epoch_before_it_serves() -> None:
    mesh = Mesh()
    primary = served(mesh)
    before = mesh.register
    assert before is not None
    primary.crash()
    primary.start()
    primary.cluster.learn(before)
    answers = primary.open()
    mesh.run(3000)
    after = mesh.register
    assert after is not None
    assert after.epoch > before.epoch
    if after.primary == primary.me:
        assert isinstance(answers[0], RoomState)
        assert answers[0].committed == 1


@pytest.mark.parametrize("confirming", [True, False], ids=["with members that answer", "cut off"])
def test_a_primary_confirms_its_head_by_its_members_only(confirming: bool) -> None:
    mesh = Mesh()
    primary = served(mesh)
    if not confirming:
        for node in mesh.nodes[1:]:
            mesh.cut.add(frozenset((primary.me.node, node.me.node)))
    answers: list[bool] = []
    primary.cluster.confirm(0, answers.append)
    mesh.settle()
    assert answers == ([True] if confirming else [])

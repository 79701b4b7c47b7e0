"""Two nodes with their logs, of which one is taught a shard by the other, over a link in order."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from router.completions import SnapshotRead, SnapshotRefused, SnapshotTaken
from router.entry import Kind
from router.errors import CorruptEntry
from router.ids import MemberId, RoomId, dedupe_key
from router.keyfilter import key_number
from router.log import LogOptions
from router.log_tools import verify
from router.placement import shard_of
from router.school import School
from router.teaching import PATIENCE_MS
from tests.harness.log_writer import NOW_MS, WAIT_SECONDS, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from router.entry import Entry
    from router.events import ShardTail

ROOM = RoomId("default", "lobby")
SHARD = shard_of(ROOM, 128)
EPOCH = 4


class Node:
    """A log, its school, and what its shards were told."""

    def __init__(self, writer: LogWriter, name: str) -> None:
        self.writer, self.member = writer, MemberId(name, name)
        self.allowed = True
        self.outbox: list[tuple[MemberId, bytes]] = []
        self.told: list[tuple[str, object]] = []
        self.keys: set[int] = set()
        self.school = School(writer.log, self, lambda to, body: self.outbox.append((to, body)))

    def may_learn(self, shard: int, epoch: int) -> bool:
        return self.allowed and (shard, epoch) == (SHARD, EPOCH)

    def begun(self, shard: int) -> None:
        assert self.school.learns(shard)
        self.told.append(("begun", shard))

    def learned(self, tail: ShardTail, keys: Sequence[int]) -> None:
        assert not self.school.learns(tail.shard)
        self.told.append(("learned", (tail.lsn, tail.chain)))
        self.keys.update(keys)

    def taught(self, shard: int, member: MemberId, lsn: int) -> None:
        assert not self.school.teaches(shard, member)
        self.told.append(("taught", (shard, member, lsn)))

    def given_up(self, shard: int, member: MemberId) -> None:
        self.told.append(("given up", (shard, member)))

    def answer(self) -> bool:
        """The log answers what it was asked; whether it did."""
        completions = self.writer.log.completions
        answered = False
        while completions:
            done = completions.popleft()
            if isinstance(done, SnapshotRead | SnapshotTaken | SnapshotRefused):
                self.school.complete(done, 0)
                answered = True
        return answered

    def carry(self, target: Node) -> bool:
        """What it has sent arrives; whether it had."""
        sent, self.outbox = self.outbox, []
        for to, body in sent:
            assert to == target.member
            target.school.receive(self.member, body, 0)
        return bool(sent)


@pytest.fixture
def nodes(open_node: Callable[..., LogWriter], tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    learner = LogWriter(tmp_path / "learner", LogOptions(durable=False))
    yield Node(open_node(), "n1"), Node(learner, "n2")
    learner.log.close()


def run(first: Node, second: Node) -> None:
    """Until the teacher is told how it ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not first.told:
        assert time.monotonic() < deadline, "it does not end"
        moved = [first.answer(), second.answer(), first.carry(second), second.carry(first)]
        if not any(moved):
            second.writer.told.wait(0.001)
    second.answer()


def fill(node: Node) -> list[Entry]:
    entries: list[Entry] = []
    for _ in range(5):
        made = [node.writer.entry_of(ROOM, NOW_MS, Kind.MESSAGE, b"x" * 2000, SHARD) for _ in range(60)]
        node.writer.file(made)
        entries += made
    return entries


def test_a_learner_has_the_shard_and_both_are_told(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    first, second = nodes
    entries = fill(first)
    first.school.teach(SHARD, second.member, EPOCH, 0)
    first.school.tick(0)
    run(first, second)
    assert first.told == [("taught", (SHARD, second.member, 300))]
    assert second.told == [("begun", SHARD), ("learned", (300, entries[-1].chain))]
    assert second.keys == {key_number(dedupe_key(e.room, e.sender, e.cmid)) for e in entries}
    assert second.writer.sequences(ROOM) == list(range(1, 301))
    assert verify(tmp_path / "learner").findings == ()


def test_a_node_that_may_not_learn_is_given_up(nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture) -> None:
    first, second = nodes
    fill(first)
    second.allowed = False
    with caplog.at_level(logging.WARNING):
        first.school.teach(SHARD, second.member, EPOCH, 0)
        run(first, second)
    assert first.told == [("given up", (SHARD, second.member))]
    assert second.told == []
    assert "n2 can't be given a snapshot: it is not taken here" in caplog.text


def test_a_learner_that_is_silent_is_given_up_and_one_that_is_dropped_is_not_told_of(
    nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = nodes
    fill(first)
    first.school.teach(SHARD, second.member, EPOCH, 0)
    first.answer()  # or not yet
    first.school.drop(SHARD, second.member)
    first.school.tick(PATIENCE_MS)
    assert first.told == []
    first.school.teach(SHARD, second.member, EPOCH, 0)
    with caplog.at_level(logging.CRITICAL):
        first.school.tick(PATIENCE_MS)
    assert first.told == [("given up", (SHARD, second.member))]


def test_what_is_no_lesson_is_refused(nodes: tuple[Node, Node]) -> None:
    with pytest.raises(CorruptEntry, match="lesson"):
        nodes[0].school.receive(nodes[1].member, b"what", 0)

"""The log's tail against a model of the log: a follower is given all there is, once, and no text that was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from router.completions import TailRead
from router.entry import Entry, Kind
from router.removal import body_of, whole
from router.tail import Tail, TailQuery, fit_cursor
from tests.router.test_log_machine import ROOMS, SHARDS, Machine, small

if TYPE_CHECKING:
    from tests.router.test_log_machine import Shard

__all__ = ["small"]

EFFECTS: Final = [Kind.EDIT, Kind.EDIT, Kind.REMOVED, Kind.REMOVED, Kind.RESTORED]


class TailMachine(Machine):
    """Messages are edited and removed, too; one follower reads in parts, and begins again where it stored a cursor."""

    def __init__(self) -> None:
        super().__init__()
        self.cursor: dict[int, int] = {}
        self.stored: dict[int, int] = {}
        self.start = 0

    @rule(
        room=st.integers(0, 2), kind=st.sampled_from(EFFECTS), back=st.integers(0, 30),
        share=st.sampled_from([0.0, 1.0]),
    )  # fmt: skip
    def act(self, room: int, kind: Kind, back: int, share: float) -> None:
        """Edit, remove or restore a message that is still there."""
        shard = self.shards[SHARDS[room]]
        floor = self.floors[ROOMS[room]]
        there = [e.sequence for e in shard.entries if e.kind == Kind.MESSAGE and e.room == ROOMS[room]]
        there = [sequence for sequence in there if sequence > floor]
        if there:
            self.append_nowait(room, 1, b'{"target":%d}' % there[-1 - back % len(there)], kind)
            self.persist()
            self.commit(SHARDS[room], share)

    def hidden(self, shard: Shard) -> set[int]:
        """The lsn of entries whose text was removed."""
        removed: set[tuple[object, int]] = set()
        for entry in shard.entries[: shard.committed]:
            if entry.kind == Kind.REMOVED:
                removed.add((entry.room, target_of(entry)))
            elif entry.kind == Kind.RESTORED:
                removed.discard((entry.room, target_of(entry)))
        return {
            e.lsn
            for e in shard.entries[: shard.committed]
            if e.kind <= Kind.EDIT and (e.room, body_of(whole(e))) in removed
        }

    def follow(self, limit: int, max_bytes: int) -> Tail:
        token = object()
        self.log.tail(TailQuery(self.cursor, limit, max_bytes, self.start), token)
        result = self.wait(TailRead, lambda done: done.token is token).result
        assert isinstance(result, Tail)
        return result

    @rule(
        limit=st.sampled_from([1, 3, 50, 10_000]), max_bytes=st.sampled_from([1, 1000, 30_000, 1 << 30]),
        settled=st.booleans(),
    )  # fmt: skip
    def read_on(self, limit: int, max_bytes: int, *, settled: bool) -> None:
        if settled:
            self.file()
        tail = self.follow(limit, max_bytes)
        count = 0
        for number, shard in self.shards.items():
            if not shard.committed:
                continue
            assert tail.heads[number] == shard.committed
            before, end = self.cursor.get(number, 0), tail.cursor[number]
            assert before <= end <= max(before, shard.committed)
            passed = shard.entries[before:end]
            kept = [e for e in passed if e.sequence > self.floors[e.room]]
            given = [e for e in tail.entries if e.shard == number]
            assert [e.wire for e in given] == [e.wire for e in kept]
            hidden = self.hidden(shard)
            assert [e.lsn for e in given if e.removal is not None] == [e.lsn for e in kept if e.lsn in hidden]
            assert all(e.data == (b"" if e.removal else whole(e).data) for e in given)
            gone = [e.lsn for e in passed if e.sequence <= self.floors[e.room]]
            lost = [lsn for of, first, last in tail.lost if of == number for lsn in range(first, last + 1)]
            assert lost == gone
            count += len(given)
        assert len(tail.entries) == count <= limit
        assert len(tail.entries) <= 1 or sum(len(e.wire) for e in tail.entries) <= max_bytes
        assert tail.behind == 0 or tail.cursor != self.cursor, "it does not get on"
        self.cursor, self.start = dict(tail.cursor), tail.start

    @rule()
    def store(self) -> None:
        self.stored = dict(self.cursor)

    @rule()
    def begin_again(self) -> None:
        self.cursor = fit_cursor(self.stored, self.log.recovered) if self.stored else {}
        self.start = 0


def target_of(entry: Entry) -> int:
    return int(entry.data.split(b":")[1].rstrip(b"}"))


TestTailMachine = TailMachine.TestCase
TestTailMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

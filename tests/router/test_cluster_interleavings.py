"""The cores under every order in which a disk's writer and reader may answer."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cluster import Cluster, ClusterOptions
from router.entry import Entry, Kind
from router.events import (
    Configuration,
    Duplicate,
    KnownKey,
    Outcome,
    Recovered,
    Refusal,
    RoomRecord,
    Submit,
    fingerprint,
)
from router.ids import MemberId, RoomId
from router.keyfilter import KeyFilter

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMS = tuple(RoomId("default", name) for name in ("a", "b", "c"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
        st.sampled_from(["turn", "write", "read", "file", "deliver"]),
    ),
    max_size=80,
)


class Disk:
    """A writer, a reader, tables, and a queue of answers; each moves only when it is told to."""

    def __init__(self, *, filtered: bool) -> None:
        options = ClusterOptions(shards=2, cache_bytes=0, cache_rooms=0)
        self.cluster = Cluster(MemberId("n1", "disk"), "birth", options, Recovered({}, {}, ()), bytes)
        if filtered:
            self.cluster.know_keys(KeyFilter(1))
        self.answers: deque[Callable[[], None]] = deque()
        self.writes: deque[Callable[[], None]] = deque()
        self.reads: deque[Callable[[], None]] = deque()
        self.unfiled: deque[Entry] = deque()
        self.heads: dict[RoomId, RoomRecord] = {}
        self.keys: dict[bytes, KnownKey] = {}
        self.committed: list[Entry] = []
        self.asked: list[tuple[RoomId, str, bytes, list[Outcome]]] = []

    def submit(self, room: RoomId, cmid: str, data: bytes) -> None:
        outcomes: list[Outcome] = []
        self.asked.append((room, cmid, data, outcomes))
        self.cluster.submit(Submit(room, Kind.MESSAGE, b"s" * 12, cmid, data, b"", outcomes.append), 1)

    def turn(self) -> bool:
        cluster = self.cluster
        effects = cluster.effects()
        if effects is None:
            return False
        if effects.batch is not None:
            ticket = effects.batch.ticket
            self.writes.append(lambda: self.answers.append(lambda: cluster.persisted(ticket)))
        self.writes += [partial(self.claim, claim.new) for claim in effects.claims]
        self.reads += [partial(self.load, room) for room in effects.load]
        if effects.find:
            self.reads.append(lambda: self.find(effects.find))
        for done, outcome in effects.outcomes:
            done(outcome)
        for entry in effects.committed:
            if entry.origin is not None:
                entry.origin(entry)
        self.committed += effects.committed
        self.unfiled += effects.committed
        return True

    def claim(self, new: Configuration) -> None:
        self.answers.append(lambda: self.cluster.claimed(new.shard, new, 1))

    def load(self, room: RoomId) -> None:
        record = self.heads.get(room, RoomRecord(room))
        self.answers.append(lambda: self.cluster.loaded(record, 1))

    def find(self, keys: list[bytes]) -> None:
        known = [self.keys[key] for key in keys if key in self.keys]
        self.answers.append(lambda: self.cluster.found(keys, known, 1))

    def file(self) -> bool:
        """File the oldest entry."""
        if not self.unfiled:
            return False
        entry = self.unfiled.popleft()
        if entry.visible:
            self.heads[entry.room] = RoomRecord(entry.room, sequence=entry.sequence)
            self.keys[entry.key] = KnownKey(entry.key, entry.sequence, fingerprint(entry.data))
        self.answers.append(lambda: self.cluster.filed([entry]))
        return True

    def step(self, name: str) -> bool:
        """Do one thing; False when there was nothing of the kind to do."""
        if name == "turn":
            return self.turn()
        if name == "file":
            return self.file()
        queue = {"write": self.writes, "read": self.reads, "deliver": self.answers}[name]
        if not queue:
            return False
        queue.popleft()()
        return True

    def settle(self) -> None:
        names = ("turn", "write", "read", "file", "deliver")
        while sum(self.step(name) for name in names):
            pass


@pytest.mark.parametrize("filtered", [True, False], ids=["with filter", "before the filter is filled"])
@given(steps=STEPS)
def test_each_message_stands_once_in_a_dense_room_and_each_submit_is_answered_once(
    filtered: bool, steps: list[tuple[int, int, int] | str]
) -> None:
    disk = Disk(filtered=filtered)
    for step in steps:
        if isinstance(step, str):
            disk.step(step)
        else:
            where, number, variant = step
            disk.submit(ROOMS[where], f"id-{number}", b"%d" % (variant == 0))
    disk.settle()
    written = {(e.room, e.cmid): e for e in disk.committed if e.visible}
    for room in ROOMS:
        sequences = [e.sequence for e in disk.committed if e.visible and e.room == room]
        assert sequences == list(range(1, len(sequences) + 1))
    assert len(written) == sum(e.visible for e in disk.committed)
    for room, cmid, data, outcomes in disk.asked:
        entry = written[room, cmid]
        (outcome,) = outcomes
        if entry.data != data:
            assert outcome is Refusal.CONFLICT
        else:
            assert outcome is entry or outcome == Duplicate(entry.sequence)
    statistics = disk.cluster.statistics()
    assert (statistics.waiting, statistics.uncommitted, statistics.recent_keys) == (0, 0, 0)

"""The cores under every order in which a disk's writer and reader may answer."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cluster import Cluster
from router.dedupe import MAX_CMID
from router.effects import ClusterOptions
from router.entry import Entry, Kind
from router.events import (
    Away,
    Claim,
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
from router.keyfilter import KeyFilter, key_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.room import RoomState

Step = str | RoomId | tuple[RoomId, int, int, int, int]

ROOMS = tuple(RoomId("default", name) for name in ("a", "b", "c"))
SENDERS = (b"s" * 12, b"t" * 12)
IDS = ("", "id-0", "id-1", "id-2", "id-3", "x" * (MAX_CMID + 1))
MOVES = ("turn", "write", "look", "answer", "file", "deliver")
SUBMIT = st.tuples(st.sampled_from(ROOMS), st.integers(0, 9), st.integers(0, 5), st.integers(0, 7), st.integers(1, 3))
STEP = st.one_of(
    SUBMIT,
    st.sampled_from(MOVES),
    st.sampled_from(MOVES),
    st.sampled_from(("settle", "settle", "stall", "stall")),
    st.sampled_from((*ROOMS, *ROOMS, "know", "refuse", "take", "take")),
)
STEPS = st.integers(0, 120).flatmap(lambda most: st.lists(STEP, min_size=most, max_size=most))


class Disk:
    """A writer, a reader, tables, and a queue of answers; each moves only when it is told to.

    What the reader has seen at a `look` reaches the queue with its `answer`; by then the writer may have changed the
    tables, and have said so.
    """

    def __init__(self, *, filtered: bool, tight: bool) -> None:
        options = ClusterOptions(shards=2, cache_bytes=2000, cache_rooms=2)
        if tight:
            options = ClusterOptions(shards=2, cache_bytes=0, cache_rooms=0, max_waiting=4)
        self.cluster = Cluster(MemberId("n1", "disk"), "birth", options, Recovered({}, {}, ()), bytes)
        self.filtered = filtered
        if filtered:
            self.cluster.know_keys(KeyFilter(1))
        self.answers: deque[Callable[[], None]] = deque()
        self.writes: deque[Callable[[], None]] = deque()
        self.reads: deque[Callable[[], None]] = deque()
        self.seen: deque[Callable[[], None]] = deque()
        self.unfiled: deque[Entry] = deque()
        self.heads: dict[RoomId, RoomRecord] = {}
        self.keys: dict[bytes, KnownKey] = {}
        self.committed: list[Entry] = []
        self.asked: list[tuple[Submit, list[Outcome]]] = []
        self.opens: list[list[RoomState | Away]] = []
        self.excuses: set[Away] = {Away.OVERLOADED} if tight else set()

    def submit(self, room: RoomId, sender: bytes, cmid: str, data: bytes) -> None:
        outcomes: list[Outcome] = []
        submit = Submit(room, Kind.MESSAGE, sender, cmid, data, b"", outcomes.append)
        self.asked.append((submit, outcomes))
        self.cluster.submit(submit, 1)

    def open(self, room: RoomId) -> None:
        answers: list[RoomState | Away] = []
        self.opens.append(answers)

        def opened(state: RoomState | Away) -> None:
            assert state in self.excuses or state is self.cluster.rooms.get(room)
            answers.append(state)

        self.cluster.open(room, opened, 1)

    def know(self) -> None:
        """Have the reader list the ids for the filter."""
        if not self.filtered:
            self.filtered = True
            self.reads.append(self.scan)

    def refuse(self, why: Away | None) -> None:
        if why is not None:
            self.excuses.add(why)
        self.cluster.refuse(why)

    def turn(self) -> bool:
        cluster = self.cluster
        effects = cluster.effects()
        if effects is None:
            return False
        if effects.batch is not None:
            ticket = effects.batch.ticket
            self.writes.append(lambda: self.answers.append(lambda: cluster.persisted(ticket)))
        self.writes += [partial(self.claim, claim) for claim in effects.claims]
        self.reads += [partial(self.load, room) for room in effects.load]
        if effects.find:
            self.reads.append(lambda: self.find(effects.find))
        for done, outcome in effects.outcomes:
            done(outcome)
        for opened, state in effects.opened:
            opened(state)
        for entry in effects.committed:
            if entry.origin is not None:
                entry.origin(entry)
        self.committed += effects.committed
        self.unfiled += effects.filing
        return True

    def claim(self, claim: Claim) -> None:
        self.answers.append(lambda: self.cluster.claimed(claim, claim.new, 1, done=True))

    def load(self, room: RoomId) -> None:
        record = self.heads.get(room, RoomRecord(room))
        self.seen.append(lambda: self.cluster.loaded(record, 1))

    def find(self, keys: list[bytes]) -> None:
        known = [self.keys[key] for key in keys if key in self.keys]
        self.seen.append(lambda: self.cluster.found(keys, known, 1))

    def scan(self) -> None:
        keys = KeyFilter(1)
        for key in self.keys:
            keys.add(key_number(key))
        self.seen.append(lambda: self.cluster.know_keys(keys))

    def file(self) -> bool:
        """File the oldest entry."""
        if not self.unfiled:
            return False
        entry = self.unfiled.popleft()
        if entry.visible:
            self.heads[entry.room] = RoomRecord(entry.room, sequence=entry.sequence)
        if entry.key:
            self.keys[entry.key] = KnownKey(entry.key, entry.sequence, fingerprint(entry.data))
        self.answers.append(lambda: self.cluster.filed([entry]))
        return True

    def move(self, name: str) -> bool:
        """Do one thing; False when there was nothing of the kind to do."""
        if name == "turn":
            return self.turn()
        if name == "file":
            return self.file()
        if name == "answer":
            if self.seen:
                self.answers.append(self.seen.popleft())
                return True
            return False
        queue = {"write": self.writes, "look": () if self.seen else self.reads, "deliver": self.answers}[name]
        if not queue:
            return False
        queue.popleft()()
        return True

    def settle(self, moves: Iterable[str] = MOVES) -> None:
        while sum([self.move(name) for name in moves]):
            pass

    def step(self, step: Step) -> None:
        match step:
            case RoomId():
                self.open(step)
            case (room, sender, cmid, variant, times):
                for _ in range(times):
                    self.submit(room, SENDERS[sender == 0], IDS[cmid], b"%d" % (variant == 0))
            case "settle":
                self.settle()
            case "stall":  # the reader does not get to answer
                self.settle([name for name in MOVES if name != "answer"])
            case "know":
                self.know()
            case "refuse":
                self.refuse(Away.STORAGE_FULL)
            case "take":
                self.refuse(None)
            case str():
                self.move(step)

    def check(self) -> None:
        """Everything is answered once, and as the log has it."""
        entries = [entry for entry in self.committed if entry.visible]
        for room in ROOMS:
            given = [outcome for submit, (outcome,) in self.asked if submit.room == room and isinstance(outcome, Entry)]
            assert given == [entry for entry in entries if entry.room == room]
            assert [entry.sequence for entry in given] == list(range(1, len(given) + 1))
        named = [entry for entry in entries if entry.cmid]
        written = {(entry.room, entry.sender, entry.cmid): entry for entry in named}
        assert len(written) == len(named), "accepted twice"
        for submit, (outcome,) in self.asked:
            first = written.get((submit.room, submit.sender, submit.cmid))
            match outcome:
                case Entry():
                    assert (outcome.sender, outcome.cmid, outcome.data) == (submit.sender, submit.cmid, submit.data)
                case Duplicate():
                    assert first is not None
                    assert (outcome.sequence, submit.data) == (first.sequence, first.data)
                case Refusal.CONFLICT:
                    assert first is not None
                    assert submit.data != first.data
                case Refusal.BAD_ID:
                    assert len(submit.cmid) > MAX_CMID
                case _:
                    assert outcome in self.excuses
        assert all(len(answers) == 1 for answers in self.opens)
        states = [state for room in ROOMS if (state := self.cluster.rooms.get(room)) is not None]
        assert not any(state.pins for state in states)
        statistics = self.cluster.statistics()
        assert (statistics.waiting, statistics.uncommitted, statistics.recent_keys) == (0, 0, 0)


@pytest.mark.parametrize("tight", [False, True], ids=["roomy", "tight"])
@pytest.mark.parametrize("filtered", [True, False], ids=["with filter", "before the filter is filled"])
@settings(deadline=None, max_examples=150)
@given(steps=STEPS)
def test_each_message_stands_once_in_a_dense_room_and_each_submit_is_answered_once(
    filtered: bool, tight: bool, steps: list[Step]
) -> None:
    disk = Disk(filtered=filtered, tight=tight)
    for step in steps:
        disk.step(step)
    disk.refuse(None)
    disk.settle()
    disk.check()

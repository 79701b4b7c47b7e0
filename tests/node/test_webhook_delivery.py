"""One receiver's deliveries: a table of cases, and a machine that tries all ways in which it can go wrong."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from node.webhook_delivery import GRACE_MS, RETRY_AFTER_SECONDS, Batch, Delivery, Letter, Note, Outcome, Pace, Why

if TYPE_CHECKING:
    from collections.abc import Iterable

PACE = Pace(batch_events=3, batch_bytes=1000, linger=2.0, retry=1.0, retry_most=8.0, give_up_ms=7_200_000)
HOUR_MS = 3_600_000


def letter(shard: int, lsn: int, ts: int = 0, size: int = 10) -> Letter:
    return Letter(shard, lsn, "message", f"{shard}-{lsn}", ts, size)


def delivery(pace: Pace = PACE, letters: Iterable[Letter] = ()) -> Delivery:
    made = Delivery(pace, {1: 0, 2: 0}, lambda: 0.0)
    for item in letters:
        made.take(item.shard, item.lsn, [item], 0.0)
    return made


def begun(made: Delivery, now: float, wall_ms: int = 0) -> Batch:
    batch = made.next(now, wall_ms)
    assert batch is not None
    return batch


def test_an_event_waits_a_moment_for_others_to_be_sent_with() -> None:
    made = delivery()
    assert (made.next(inf, 0), made.deadline) == (None, inf)
    made.take(1, 1, [letter(1, 1)], 5.0)
    assert (made.next(6.9, 0), made.deadline) == (None, 7.0)
    assert begun(made, 7.0).ids == ["1-1"]
    assert (made.next(8.0, 0), made.deadline) == (None, inf), "one batch at a time"


def test_a_full_batch_waits_for_nothing() -> None:
    made = delivery(letters=[letter(1, 1), letter(2, 1), letter(1, 2), letter(1, 3)])
    assert begun(made, 0.0).ids == ["1-1", "2-1", "1-2"]
    made.answered(Outcome.DELIVERED, 0.5, 0)
    assert made.cursor == {1: 2, 2: 1}
    assert made.deadline == 2.5
    assert begun(made, 2.5).ids == ["1-3"]


def test_a_batch_ends_before_its_bytes_pass_the_bound_and_is_never_empty_for_it() -> None:
    made = delivery(letters=[letter(1, 1, size=2000), letter(1, 2, size=600), letter(1, 3, size=600)])
    sizes = []
    for now in (0.0, 2.0, 4.0):
        sizes.append(begun(made, now).ids)
        made.answered(Outcome.DELIVERED, now, 0)
    assert sizes == [["1-1"], ["1-2"], ["1-3"]]


def test_what_failed_is_sent_again_as_it_was_after_waits_that_double() -> None:
    made = delivery(letters=[letter(1, 1)])
    now, waits = 2.0, []
    for attempt in range(1, 7):
        batch = begun(made, now)
        assert (batch.ids, batch.attempt) == (["1-1"], attempt)
        made.answered(Outcome.FAILED, now, 0)
        made.take(1, made.read[1] + 1, [letter(1, made.read[1] + 1)], now)
        waits.append(made.deadline - now)
        assert made.cursor == {1: 0, 2: 0}
        now = made.deadline
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    begun(made, now)
    made.answered(Outcome.DELIVERED, now, 0)
    assert (made.failures, made.failing_since, made.cursor[1]) == (0, None, 1)


def test_jitter_shortens_a_wait_by_at_most_a_half() -> None:
    made = Delivery(PACE, {}, lambda: 0.999)
    made.take(1, 1, [letter(1, 1)], 0.0)
    begun(made, 2.0)
    made.answered(Outcome.FAILED, 2.0, 0)
    assert 2.5 < made.deadline < 2.501


@pytest.mark.parametrize(("asked", "wait"), [(0.5, 1.0), (30.0, 30.0), (1e9, RETRY_AFTER_SECONDS)])
def test_a_receiver_may_ask_to_be_left_alone_for_a_while(asked: float, wait: float) -> None:
    made = delivery(letters=[letter(1, 1)])
    begun(made, 2.0)
    made.answered(Outcome.FAILED, 2.0, 0, retry_after=asked)
    assert made.deadline == 2.0 + wait


def test_a_batch_that_is_refused_becomes_dead_letters_before_the_cursor_moves() -> None:
    made = delivery(letters=[letter(1, 1), letter(1, 2), letter(1, 3), letter(1, 4)])
    begun(made, 0.0)
    made.answered(Outcome.REFUSED, 0.0, 0)
    given_up = begun(made, 0.0)
    assert (given_up.ids, given_up.given_up, given_up.attempt) == (["1-1", "1-2", "1-3"], Why.REFUSED, 1)
    assert made.cursor[1] == 0
    made.buried(0.0)
    assert made.cursor[1] == 3
    assert begun(made, 2.0).given_up is None


def test_old_events_become_dead_letters_once_the_receiver_has_failed_for_an_hour() -> None:
    start = 100 * HOUR_MS
    old, young = start - 3 * HOUR_MS, start
    made = delivery(letters=[letter(1, 1, old), letter(1, 2, old), letter(1, 3, young)])
    assert begun(made, 0.0, start).given_up is None, "nobody has failed yet, however old it is"
    made.answered(Outcome.FAILED, 0.0, start)
    assert begun(made, 10.0, start + GRACE_MS - 1).attempt == 2
    made.answered(Outcome.FAILED, 10.0, start + GRACE_MS - 1)
    expired = begun(made, 20.0, start + GRACE_MS)
    assert (expired.ids, expired.given_up) == (["1-1", "1-2"], Why.EXPIRED)
    made.buried(20.0)
    assert made.cursor[1] == 2
    tried = begun(made, 20.0, start + GRACE_MS - 1)
    assert (tried.ids, tried.given_up) == (["1-3"], None)


def test_what_nothing_keeps_is_bounded_and_its_loss_is_told_until_it_got_through() -> None:
    made = delivery(replace(PACE, waiting_events=2))
    told = [made.tell(Note(f"n{number}", 0, b"{}"), 0.0) for number in range(5)]
    assert told == [True, True, False, False, False]
    made.drop(4)
    batch = begun(made, 2.0)
    assert (batch.ids, batch.dropped) == (["n0", "n1"], 7)
    made.tell(Note("n5", 0, b"{}"), 2.0)
    made.answered(Outcome.FAILED, 2.0, 0)
    assert begun(made, 3.0).dropped == 7
    made.answered(Outcome.DELIVERED, 3.0, 0)
    made.tell(Note("n6", 0, b"{}"), 3.0)
    again = begun(made, 5.0)
    assert (again.ids, again.dropped) == (["n6"], 1)


def test_entries_that_are_read_twice_are_sent_once() -> None:
    made = delivery(letters=[letter(1, 1), letter(1, 2)])
    made.take(1, 4, [letter(1, 1), letter(1, 2), letter(1, 4)], 0.0)
    made.take(1, 3, [letter(1, 3)], 0.0)
    assert begun(made, 0.0).ids == ["1-1", "1-2", "1-4"]
    assert made.read[1] == 4


def test_no_more_is_read_than_two_batches() -> None:
    made = delivery(letters=[letter(1, lsn) for lsn in range(1, 6)])
    assert made.wants
    made.take(1, 6, [letter(1, 6)], 0.0)
    assert not made.wants


def test_an_outcome_without_an_attempt_is_a_mistake() -> None:
    made = delivery(letters=[letter(1, 1)])
    with pytest.raises(RuntimeError, match="no attempt"):
        made.answered(Outcome.DELIVERED, 0.0, 0)


class Deliveries(RuleBasedStateMachine):
    """A log of two shards, a receiver that answers as it likes, and a node that dies at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[int, list[Letter | None]] = {1: [], 2: []}  # None: an entry that is no event of this receiver
        self.kept: dict[int, int] = {1: 0, 2: 0}  # the cursor on disk
        self.dead: dict[str, Letter] = {}  # dead letters on disk
        self.got: list[str] = []  # ids that the receiver has taken, with repetitions
        self.batch: Batch | None = None
        self.now, self.wall_ms = 0.0, 1_000_000_000_000
        self.may_repeat: set[str] = set()  # in flight when the node died

    @initialize()
    def start(self) -> None:
        pace = Pace(batch_events=3, batch_bytes=60, linger=1.0, retry=1.0, retry_most=60.0, give_up_ms=2 * HOUR_MS)
        self.delivery = Delivery(pace, self.kept, lambda: 0.5)
        self.batch = None

    @rule(shard=st.sampled_from([1, 2]), count=st.integers(1, 5), of_ours=st.booleans(), size=st.integers(5, 80))
    def write(self, shard: int, count: int, of_ours: bool, size: int) -> None:
        for _ in range(count):
            lsn = len(self.log[shard]) + 1
            self.log[shard].append(letter(shard, lsn, self.wall_ms, size) if of_ours else None)

    @rule(shard=st.sampled_from([1, 2]), most=st.integers(1, 6), back=st.integers(0, 2))
    def read(self, shard: int, most: int, back: int) -> None:
        if self.delivery.wants:
            start = max(0, self.delivery.read[shard] - back)
            page = self.log[shard][start : start + most]
            found = [item for item in page if item is not None]
            self.delivery.take(shard, start + len(page), found, self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 100.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.wall_ms += int(seconds * 1000)

    @precondition(lambda self: self.batch is None)
    @rule()
    def begin(self) -> None:
        is_due = self.now >= self.delivery.deadline
        self.batch = self.delivery.next(self.now, self.wall_ms)
        assert (self.batch is not None) is is_due

    @precondition(lambda self: self.batch is not None)
    @rule(outcome=st.sampled_from(Outcome), dies=st.booleans())
    def end(self, outcome: Outcome, dies: bool) -> None:
        batch = self.batch
        assert batch is not None
        if batch.given_up is not None:
            self.dead |= {item.id: item for item in batch.letters}
            if not dies:
                self.delivery.buried(self.now)
        else:
            if outcome is Outcome.DELIVERED:
                self.got += batch.ids
            if not dies:
                self.delivery.answered(outcome, self.now, self.wall_ms)
        if dies:
            self.may_repeat |= set(batch.ids)
            self.start()
        else:
            self.batch = None
            before, self.kept = self.kept, self.delivery.cursor
            assert all(self.kept[shard] >= before[shard] for shard in before), "the cursor went back"

    @rule()
    def die(self) -> None:
        if self.batch is not None:
            self.may_repeat |= set(self.batch.ids)
        self.start()

    @invariant()
    def nothing_is_missing(self) -> None:
        done = {*self.got, *self.dead}
        for shard, entries in self.log.items():
            for item in entries[: self.kept[shard]]:
                assert item is None or item.id in done, f"{item} is behind the cursor and nowhere"

    @invariant()
    def nothing_comes_twice_but_what_was_in_flight_when_the_node_died(self) -> None:
        seen: set[str] = set()
        for item in self.got:
            assert item not in seen or item in self.may_repeat
            seen.add(item)

    @invariant()
    def each_shard_comes_in_its_order(self) -> None:
        newest: dict[str, int] = {}
        for item in dict.fromkeys(self.got):
            shard, lsn = item.split("-")
            assert int(lsn) > newest.get(shard, 0), f"{item} came after {newest[shard]}"
            newest[shard] = int(lsn)

    @override
    def teardown(self) -> None:
        """In the end, with a receiver that takes everything, all has come."""
        if self.batch is not None:
            self.die()
        for _ in range(200):
            for shard in self.log:
                self.read(shard, 1000, 0)
            self.now = max(self.now, 0.0 if self.delivery.deadline == inf else self.delivery.deadline)
            self.begin()
            if self.batch is None and self.delivery.deadline == inf:
                break
            if self.batch is not None:
                self.end(Outcome.DELIVERED, dies=False)
        every = {item.id for entries in self.log.values() for item in entries if item is not None}
        assert every == {*self.got, *self.dead}
        assert self.delivery.cursor == {shard: len(entries) for shard, entries in self.log.items()}


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=150, stateful_step_count=40)

"""The timer wheel, beside a model that looks at every item at every tick."""

from __future__ import annotations

from math import ceil, floor, inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from node.wheel import NOT_SCHEDULED, TimerWheel

TICK = 0.25  # seconds; a power of two, so that the model's sums are exact
SLOTS = 8


class Item:
    """Something with a deadline; identical only to itself."""

    __slots__ = ("deadline", "wheel_slot")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.wheel_slot = NOT_SCHEDULED


def test_an_item_is_due_at_the_first_tick_that_is_not_before_its_deadline() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 0.6)
    assert wheel.next_deadline == 0.75
    assert wheel.advance(0.74) == []
    assert wheel.advance(0.75) == [item]


def test_a_due_item_is_no_longer_scheduled() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 0.5)
    assert (len(wheel), wheel.advance(10.0), len(wheel)) == (1, [item], 0)
    assert item.wheel_slot == NOT_SCHEDULED
    assert wheel.advance(20.0) == []
    assert wheel.next_deadline == inf


def test_a_due_item_can_be_scheduled_again() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 0.5)
    wheel.advance(0.5)
    wheel.schedule(item, 1.0)
    assert wheel.advance(1.0) == [item]


def test_a_deadline_that_has_passed_is_due_at_the_next_tick() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    wheel.advance(5.1)
    item = Item()
    wheel.schedule(item, 1.0)
    assert wheel.next_deadline == 5.25
    assert wheel.advance(5.25) == [item]


def test_writing_a_later_deadline_puts_an_item_off() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 1.0)
    item.deadline = 1.5
    assert wheel.advance(1.0) == []
    assert wheel.next_deadline == 1.5
    assert wheel.advance(1.5) == [item]


def test_an_item_can_be_put_off_for_ever() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 1.0)
    item.deadline = inf
    assert all(wheel.advance(float(now)) == [] for now in range(1000))
    assert len(wheel) == 1


def test_scheduling_for_an_earlier_time_takes_effect() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 1.5)
    wheel.schedule(item, 0.5)
    assert len(wheel) == 1
    assert wheel.advance(0.5) == [item]
    assert wheel.advance(2.0) == []


def test_an_item_comes_round_as_often_as_it_takes() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 100.0)
    early = [wheel.advance(tick * TICK) for tick in range(400)]
    assert not any(early)
    assert wheel.advance(100.0) == [item]


def test_a_cancelled_item_is_never_due() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item, other = Item(), Item()
    wheel.schedule(item, 0.5)
    wheel.schedule(other, 0.5)
    wheel.cancel(item)
    assert item.wheel_slot == NOT_SCHEDULED
    assert wheel.advance(1.0) == [other]


def test_cancelling_what_is_not_scheduled_does_nothing() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    wheel.cancel(Item())
    assert (len(wheel), wheel.next_deadline) == (0, inf)


def test_a_cancelled_item_is_forgotten_at_once() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 0.5)
    wheel.cancel(item)
    assert not any(wheel._slots)


def test_items_of_a_tick_are_due_in_the_order_in_which_they_came() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    items = [Item() for _ in range(100)]
    for item in items:
        wheel.schedule(item, 0.5)
    assert wheel.advance(0.5) == items


def test_time_that_goes_back_is_ignored() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    wheel.advance(10.0)
    item = Item()
    wheel.schedule(item, 10.5)
    assert wheel.advance(3.0) == []
    assert wheel.advance(10.5) == [item]


def test_a_leap_over_many_revolutions_misses_nothing() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    items = [Item() for _ in range(3 * SLOTS)]
    for index, item in enumerate(items):
        wheel.schedule(item, index * TICK)
    assert set(wheel.advance(1e9)) == set(items)


def test_a_clock_that_starts_late_makes_no_difference() -> None:
    wheel = TimerWheel[Item](TICK, SLOTS)
    item = Item()
    wheel.schedule(item, 1_000_000.5)
    assert wheel.advance(1_000_000.0) == []
    assert wheel.next_deadline == 1_000_000.5
    assert wheel.advance(1_000_000.5) == [item]


def test_a_wheel_can_have_one_slot() -> None:
    wheel = TimerWheel[Item](TICK, 1)
    item = Item()
    wheel.schedule(item, 1.0)
    assert [wheel.advance(tick * TICK) for tick in range(5)] == [[], [], [], [], [item]]


@pytest.mark.parametrize(("tick_seconds", "slots"), [(0.0, 8), (-1.0, 8), (inf, 8), (nan, 8), (0.25, 0), (0.25, -1)])
def test_a_wheel_that_could_not_turn_is_an_error(tick_seconds: float, slots: int) -> None:
    with pytest.raises(ValueError, match=f"timer wheel of {slots} slots"):
        TimerWheel[Item](tick_seconds, slots)


@settings(deadline=None)
@given(
    st.floats(0.001, 10.0),
    st.floats(0.0, 1e6),
    st.lists(st.floats(0.0, 1000.0), min_size=1),
)
def test_who_waits_for_the_next_deadline_gets_on(tick_seconds: float, start: float, delays: list[float]) -> None:
    """However ticks are rounded: a caller that sleeps until the next deadline finds it handled, and does not spin."""
    wheel = TimerWheel[Item](tick_seconds, 64)
    wheel.advance(start)
    items = [Item() for _ in delays]
    for item, delay in zip(items, delays, strict=True):
        wheel.schedule(item, start + delay)
    while (now := wheel.next_deadline) < inf:
        for item in wheel.advance(now):
            assert item.deadline <= now <= item.deadline + 2 * tick_seconds + start * 1e-12
            items.remove(item)
        assert wheel.next_deadline > now
    assert items == []


class WheelBesideAModel(RuleBasedStateMachine):
    """The model keeps the first tick at which each item may be due, and looks at all items every time."""

    items = Bundle("items")
    times = st.one_of(st.integers(0, 80).map(lambda n: n / 8), st.floats(0.0, 10.0), st.just(inf))

    def __init__(self) -> None:
        super().__init__()
        self.wheel = TimerWheel[Item](TICK, SLOTS)
        self.now = 0.0
        self.scheduled: dict[Item, int] = {}

    def tick(self) -> int:
        return floor(self.now / TICK)

    @rule(target=items, delay=times)
    def schedule_new(self, delay: float) -> Item:
        item = Item()
        self.schedule(item, delay)
        return item

    @rule(item=items, delay=times)
    def schedule(self, item: Item, delay: float) -> None:
        self.wheel.schedule(item, self.now + delay)
        self.scheduled[item] = self.tick() + 1

    @rule(item=items, delay=times)
    def schedule_for_the_past(self, item: Item, delay: float) -> None:
        self.wheel.schedule(item, self.now - min(delay, self.now))
        self.scheduled[item] = self.tick() + 1

    @rule(item=items, delay=times)
    def put_off(self, item: Item, delay: float) -> None:
        item.deadline += delay

    @rule(item=items)
    def cancel(self, item: Item) -> None:
        self.wheel.cancel(item)
        self.scheduled.pop(item, None)

    @rule(seconds=st.one_of(st.integers(0, 20).map(lambda n: n / 8), st.floats(0.0, 5.0)))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = self.wheel.advance(self.now)
        may_be_due = {
            item
            for item, first_tick in self.scheduled.items()
            if item.deadline <= self.now and first_tick <= self.tick()
        }
        must_be_due = {item for item in may_be_due if ceil(item.deadline / TICK) <= self.tick()}
        assert len(due) == len(set(due))
        assert must_be_due <= set(due) <= may_be_due
        for item in due:
            del self.scheduled[item]

    @invariant()
    def all_that_is_scheduled_is_held(self) -> None:
        assert len(self.wheel) == len(self.scheduled) == sum(map(len, self.wheel._slots))
        for item in self.scheduled:
            assert item in self.wheel._slots[item.wheel_slot]

    @invariant()
    def nothing_is_due_before_the_next_deadline(self) -> None:
        earliest = min((ceil(min(item.deadline, 1e9) / TICK) for item in self.scheduled), default=None)
        if earliest is None:
            assert self.wheel.next_deadline == inf
        else:
            assert self.now < self.wheel.next_deadline <= max(earliest, self.tick() + 1) * TICK


TestWheelBesideAModel = WheelBesideAModel.TestCase
TestWheelBesideAModel.settings = settings(deadline=None)

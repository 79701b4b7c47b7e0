"""The queue between HTTP tasks and the hub's task."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from node import api_desk
from node.api_desk import MOST_PER_TURN, Desk, Pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class FakeWork:
    def __init__(self) -> None:
        self.done: list[str] = []

    def turn(self) -> None:
        self.done.append("turn")

    def drain(self) -> None:
        self.done.append("drain")

    def distribute(self) -> None:
        self.done.append("distribute")


class Bell:
    rings = 0

    def __call__(self) -> None:
        self.rings += 1


def test_operations_are_carried_out_in_order_before_the_work_that_they_make() -> None:
    work, bell = FakeWork(), Bell()
    desk = Desk(work, 10, bell)
    assert desk.put(lambda: work.done.append("first"))
    assert desk.put(lambda: work.done.append("second"))
    assert bell.rings == 1
    desk.turn()
    desk.drain()
    desk.distribute()
    assert work.done == ["first", "second", "turn", "drain", "distribute"]
    desk.turn()
    assert bell.rings == 1


def test_a_full_desk_takes_nothing_until_the_hub_has_turned() -> None:
    desk = Desk(FakeWork(), 2, Bell())
    assert [desk.put(lambda: None) for _ in range(3)] == [True, True, False]
    desk.turn()
    assert desk.put(lambda: None)


def test_a_turn_has_an_end_and_the_rest_comes_in_the_next() -> None:
    work, bell = FakeWork(), Bell()
    desk = Desk(work, 10_000, bell)
    for _ in range(MOST_PER_TURN + 1):
        desk.put(lambda: work.done.append("x"))
    desk.turn()
    assert (work.done.count("x"), bell.rings) == (MOST_PER_TURN, 2)
    desk.turn()
    assert (work.done.count("x"), bell.rings) == (MOST_PER_TURN + 1, 2)


def test_a_turn_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_desk, "TURN_SECONDS", 0.0)
    work, bell = FakeWork(), Bell()
    desk = Desk(work, 10, bell)
    for name in "ab":
        desk.put(partial(work.done.append, name))
    desk.turn()
    assert (work.done, bell.rings) == (["a", "turn"], 2)


def test_a_fault_of_one_operation_is_not_the_others() -> None:
    work = FakeWork()
    desk = Desk(work, 10, Bell())
    desk.put(lambda: next(iter(())))
    desk.put(lambda: work.done.append("next"))
    desk.turn()
    assert work.done == ["next", "turn"]


async def test_the_first_answer_counts() -> None:
    pending: Pending[int] = Pending()
    assert pending.begin()
    pending(1)
    pending(2)
    assert await pending.wait(1) == 1


async def test_what_nobody_waits_for_any_more_is_not_begun(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    pending: Pending[int] = Pending()
    assert await pending.wait(4) is None
    assert trio.current_time() == 4
    assert not pending.begin()
    assert not pending.begun


def slices(work: FakeWork, name: str, count: int) -> Iterator[None]:
    for _ in range(count):
        work.done.append(name)
        yield


def test_a_long_operation_leaves_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_desk, "SLICES_SECONDS", 0.0)
    work, bell = FakeWork(), Bell()
    desk = Desk(work, 10, bell)
    desk.put(lambda: slices(work, "a", 2))
    desk.turn()
    desk.put(lambda: slices(work, "b", 1))
    for _ in range(4):
        desk.turn()
    assert work.done == ["a", "turn", "a", "turn", "b", "turn", "turn", "turn"]
    rings = bell.rings
    desk.turn()
    assert bell.rings == rings, "nothing is left"


def test_long_operations_take_turns_and_few_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_desk, "TAKING_TURNS", 2)
    work = FakeWork()
    desk = Desk(work, 10, Bell())
    for name in "abc":
        desk.put(partial(slices, work, name, 2))
    desk.turn()
    assert work.done == [*"ababcc", "turn"]


def test_an_operation_that_turns_out_long_is_gone_through_from_the_next_turn_on() -> None:
    work, bell = FakeWork(), Bell()
    desk = Desk(work, 10, bell)
    desk.put(lambda: None)
    desk.turn()
    desk.go_through(slices(work, "a", 2))
    assert bell.rings == 2
    desk.turn()
    assert work.done == ["turn", "a", "a", "turn"]


def test_a_fault_of_a_long_operation_is_not_the_others() -> None:
    def faulty() -> Iterator[None]:
        yield
        raise RuntimeError

    work = FakeWork()
    desk = Desk(work, 10, Bell())
    desk.put(faulty)
    desk.put(lambda: slices(work, "b", 2))
    desk.turn()
    assert work.done == ["b", "b", "turn"]


def test_long_operations_count_among_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_desk, "SLICES_SECONDS", 0.0)
    work = FakeWork()
    desk = Desk(work, 2, Bell())
    for _ in range(2):
        assert desk.put(lambda: slices(work, "a", 9))
    desk.turn()
    assert not desk.put(lambda: None)

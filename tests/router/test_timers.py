"""When things are due."""

from __future__ import annotations

from router.timers import Timers


def test_what_is_due_comes_once_and_in_order() -> None:
    timers: Timers[str] = Timers()
    timers.set("b", 20)
    timers.set("a", 10)
    timers.set("c", 30)
    assert timers.next == 10
    assert [timers.pop(25), timers.pop(25), timers.pop(25)] == ["a", "b", None]
    assert len(timers) == 1


def test_a_new_time_replaces_the_old_one() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.set("a", 30)
    assert timers.pop(20) is None
    timers.set("a", 15)
    assert timers.next == 15
    assert timers.pop(20) == "a"
    assert timers.pop(40) is None


def test_what_is_cancelled_never_comes() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.cancel("a")
    timers.cancel("b")
    assert timers.next is None
    assert timers.pop(20) is None

"""Comings and goings: what settles is told once, what flaps is not told at all."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from node import webhook_attendance
from node.webhook_attendance import Attendance, Subject
from router.ids import RoomId

if TYPE_CHECKING:
    import pytest

ANN = Subject("default", "", "ann")
ROOM = Subject.room(RoomId("default", "support"))


def test_a_change_is_told_when_it_has_settled_with_its_own_time() -> None:
    made = Attendance(5.0)
    assert made.deadline == inf
    made.note(ANN, 1.0, 1000, here=True)
    made.note(ROOM, 2.0, 2000, here=True)
    assert (made.settled(5.9), made.deadline) == ([], 6.0)
    assert [(change.subject, change.event, change.at_ms) for change in made.settled(6.0)] == [(ANN, "connected", 1000)]
    assert [change.event for change in made.settled(7.0)] == ["occupied"]
    assert len(made) == 0


def test_who_flaps_within_the_window_says_nothing() -> None:
    made = Attendance(5.0)
    for at in (1.0, 2.0, 3.0, 4.0):
        made.note(ANN, at, 0, here=at % 2 == 1)
    assert made.settled(6.0) == []


def test_who_flaps_and_stays_is_told_of_with_the_last_time() -> None:
    made = Attendance(5.0)
    for at in (1.0, 2.0, 3.0):
        made.note(ROOM, at, int(at * 1000), here=at % 2 == 0)
    (change,) = made.settled(6.0)
    assert (change.event, change.at_ms) == ("vacated", 3000)


def test_without_a_window_all_is_told_at_once() -> None:
    made = Attendance(0.0)
    made.note(ANN, 1.0, 0, here=True)
    assert [change.event for change in made.settled(1.0)] == ["connected"]
    made.note(ANN, 1.0, 0, here=False)
    assert [change.event for change in made.settled(1.0)] == ["disconnected"]


def test_a_flood_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_attendance, "MOST_UNSETTLED", 10)
    made = Attendance(5.0)
    for number in range(25):
        made.note(Subject("default", "", f"u{number}"), 1.0, 0, here=True)
    made.note(Subject("default", "", "u3"), 1.0, 0, here=False)
    assert (len(made), made.lost) == (10, 15)
    assert len(made.settled(inf)) == 9


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 4)), max_size=60))
def test_what_was_told_is_what_holds(moves: list[tuple[str, float]]) -> None:
    made, here, told, now = Attendance(5.0), dict.fromkeys("abc", False), dict.fromkeys("abc", False), 0.0

    def hear(until: float) -> None:
        for change in made.settled(until):
            assert change.here is not told[change.subject.user], "the same was told twice"
            told[change.subject.user] = change.here

    for user, pause in moves:
        now += pause
        here[user] = not here[user]
        made.note(Subject("default", "", user), now, 0, here=here[user])
        hear(now)
    hear(inf)
    assert told == here

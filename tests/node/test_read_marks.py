"""Marks on their way: one entry for many, none lost, none lower than before, everybody answered once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node import read_marks
from node.read_marks import ReadMarks, Waiter
from router.entry import SALT_BYTES, Kind, make
from router.events import Away
from router.ids import RoomId
from router.marks import marks_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.entry import Entry
    from router.events import Submit


@dataclass(eq=False)
class Place:
    """All that marks need of a room."""

    id: RoomId


class Driver:
    """What surrounds the marks: an order of commits, and a clock.

    Attributes:
        submitted: What waits for its outcome.
        written: Entries that were committed.
        told: Marks that members were told of, in order.
        answers: By waiter, what it was told.
        wanted: Whether the end of a period was asked for.
    """

    def __init__(self) -> None:
        self.marks = ReadMarks(self.submit, self.tell, self.want)
        self.submitted: list[Submit] = []
        self.written: list[Entry] = []
        self.told: list[tuple[str, str, int]] = []
        self.answers: dict[int, list[int | Away]] = {}
        self.wanted = False
        self.now = 0.0
        self.rooms = {name: Place(RoomId("default", name)) for name in "rs"}

    def submit(self, _: object, submit: Submit) -> None:
        assert submit.kind == Kind.MARKS
        self.submitted.append(submit)

    def tell(self, room: Any, marks: Mapping[str, int]) -> None:  # noqa: ANN401 - a room
        self.told += ((room.id.channel, user, sequence) for user, sequence in marks.items())

    def want(self) -> None:
        self.wanted = True

    def rise(self, room: str, user: str, sequence: int) -> int:
        number = len(self.answers)
        told = self.answers[number] = []
        self.marks.rise(self.rooms[room], user, sequence, Waiter(told.append, self.now + 4.0))  # type: ignore[arg-type]
        return number

    def turn(self) -> None:
        """A turn of the hub: at once where there is something to do."""
        while self.marks.pending:
            self.marks.turn(self.now)

    def pass_period(self) -> None:
        """A second passes."""
        self.now += 1.0
        if self.wanted:
            self.wanted = False
            self.marks.end_period()
            self.turn()

    def commit(self) -> Entry:
        """The oldest of what waits is on disk."""
        submit = self.submitted.pop(0)
        entry = make(
            0, len(self.written) + 1, 1, submit.room, 0, len(self.written) + 1, submit.kind, b"", "", 0,
            bytes(SALT_BYTES), submit.data, submit.info, b"",
        )  # fmt: skip
        self.written.append(entry)
        submit.done(entry)
        return entry


def test_whoever_reads_alone_does_not_wait_for_the_period() -> None:
    driver = Driver()
    first = driver.rise("r", "u1", 5)
    driver.turn()
    assert marks_of(driver.commit()) == {"u1": 5}
    assert driver.answers[first] == [5]
    assert driver.told == [("r", "u1", 5)]


def test_what_follows_within_the_period_leaves_together() -> None:
    driver = Driver()
    driver.rise("r", "u1", 1)
    driver.turn()
    driver.commit()
    waiting = [driver.rise("r", f"u{number % 3}", number) for number in range(2, 11)]
    driver.turn()
    assert driver.submitted == []
    driver.rise("s", "u1", 1)  # another room has its own
    driver.turn()
    assert marks_of(driver.commit()) == {"u1": 1}
    driver.pass_period()
    assert marks_of(driver.commit()) == {"u0": 9, "u1": 10, "u2": 8}
    assert [driver.answers[number] for number in waiting] == [[8], [9], [10], [8], [9], [10], [8], [9], [10]]
    driver.rise("r", "u1", 11)
    driver.turn()
    assert driver.submitted == []  # the room had its entry in this period
    driver.pass_period()
    assert marks_of(driver.commit()) == {"u1": 11}


def test_a_mark_below_one_on_its_way_waits_for_that() -> None:
    driver = Driver()
    driver.rise("r", "u1", 7)
    driver.turn()
    lower = driver.rise("r", "u1", 3)
    driver.pass_period()
    assert len(driver.submitted) == 1
    driver.commit()
    assert driver.answers[lower] == [7]


def test_periods_end_when_nothing_happens_any_more() -> None:
    driver = Driver()
    driver.rise("r", "u1", 1)
    driver.turn()
    driver.commit()
    for _ in range(7):
        driver.pass_period()
    assert not driver.wanted
    assert not driver.marks.pending


def test_a_disk_that_says_no_is_passed_on() -> None:
    driver = Driver()
    waiting = driver.rise("r", "u1", 1)
    driver.turn()
    driver.submitted.pop().done(Away.STORAGE_FULL)
    assert driver.answers[waiting] == [Away.STORAGE_FULL]
    assert driver.told == []


def test_a_disk_that_does_not_answer_is_not_waited_for() -> None:
    driver = Driver()
    waiting = driver.rise("r", "u1", 1)
    driver.turn()
    for _ in range(3):
        driver.pass_period()
    assert driver.answers[waiting] == []
    driver.pass_period()
    assert driver.answers[waiting] == [Away.OVERLOADED]
    driver.commit()  # late, but it counts
    assert driver.answers[waiting] == [Away.OVERLOADED]
    assert driver.told == [("r", "u1", 1)]


def test_what_has_gathered_leaves_at_the_end() -> None:
    driver = Driver()
    driver.rise("r", "u1", 1)
    driver.turn()
    driver.rise("r", "u2", 1)
    driver.marks.flush()
    assert [marks_of(driver.commit()), marks_of(driver.commit())] == [{"u1": 1}, {"u2": 1}]


def test_a_crowd_in_one_room_takes_several_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_marks, "MARKS_PER_ENTRY", 10)
    driver = Driver()
    for number in range(25):
        driver.rise("r", f"u{number}", number + 1)
    driver.turn()
    assert [len(marks_of(driver.commit())) for _ in range(3)] == [10, 10, 5]
    assert all(len(told) == 1 for told in driver.answers.values())


def test_many_rooms_take_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_marks, "ROOMS_PER_TURN", 1)
    driver = Driver()
    driver.rise("r", "u1", 1)
    driver.rise("s", "u1", 1)
    driver.marks.turn(0.0)
    assert (len(driver.submitted), driver.marks.pending) == (1, True)
    driver.marks.turn(0.0)
    assert (len(driver.submitted), driver.marks.pending) == (2, False)


@pytest.mark.parametrize(("bound", "users"), [("MOST_PER_USER", 1), ("MOST_WAITING", 3)])
def test_who_waits_is_bounded(bound: str, users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_marks, bound, 3)
    driver = Driver()
    waiting = [driver.rise("r", f"u{number % users}", number + 1) for number in range(5)]
    assert Counter(str(driver.answers[number]) for number in waiting)[str([Away.OVERLOADED])] == 2
    driver.turn()
    entry = driver.commit()
    assert sum(marks_of(entry).values()) >= 5  # the marks are kept, all the same
    assert all(len(driver.answers[number]) == 1 for number in waiting)


class Marking(RuleBasedStateMachine):
    """Users read, periods pass, the disk answers or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.asked: dict[int, tuple[str, str, int]] = {}
        self.on_disk: dict[tuple[str, str], int] = {}
        self.halted = False

    @rule(room=st.sampled_from("rs"), user=st.sampled_from(["u1", "u2", "u3"]), sequence=st.integers(1, 20))
    def rise(self, room: str, user: str, sequence: int) -> None:
        if sequence > self.on_disk.get((room, user), 0):  # what is not, the gateway answers by itself
            self.asked[self.driver.rise(room, user, sequence)] = (room, user, sequence)

    @rule()
    def turn(self) -> None:
        self.driver.turn()

    @rule()
    def pass_period(self) -> None:
        self.driver.pass_period()

    @rule()
    def commit(self) -> None:
        if self.driver.submitted:
            entry = self.driver.commit()
            for user, sequence in marks_of(entry).items():
                key = (entry.room.channel, user)
                assert sequence > self.on_disk.get(key, 0), "an entry that says nothing new"
                self.on_disk[key] = sequence

    @rule()
    def refuse(self) -> None:
        if self.driver.submitted:
            self.driver.submitted.pop(0).done(Away.STORAGE_FULL)

    @rule()
    def settle(self) -> None:
        """Everything comes to its end, and nobody was forgotten."""
        self.driver.turn()
        self.driver.pass_period()
        while self.driver.submitted:
            self.commit()
        assert all(len(told) == 1 for told in self.driver.answers.values())

    @invariant()
    def answers_are_true(self) -> None:
        for number, (room, user, sequence) in self.asked.items():
            told = self.driver.answers[number]
            assert len(told) <= 1
            for answer in told:
                if isinstance(answer, int):
                    assert sequence <= answer <= self.on_disk[room, user]

    @invariant()
    def members_are_told_what_is_on_disk(self) -> None:
        newest: dict[tuple[str, str], int] = {}
        for room, user, sequence in self.driver.told:
            assert sequence > newest.get((room, user), 0)
            newest[room, user] = sequence
        assert newest == self.on_disk


TestMarking = Marking.TestCase

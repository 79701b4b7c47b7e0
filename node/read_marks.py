"""How far users have read, on its way to the log: gathered, so that a room has few entries however many read it.

The first mark of a room leaves with the hub's turn, so that whoever reads alone waits for nothing but the disk. Those
that come after it wait for the end of the period, and leave together. Of a user in a room only the highest leaves.
Sans-I/O; whoever drives it times the periods.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from router.entry import Entry, Kind
from router.events import Away, Submit
from router.marks import Reader, marks_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from node.rooms import Room
    from router.events import Outcome

MARKS_PER_ENTRY: Final = 500  # with ids of 255 bytes still less than a chunk of the log should have
ROOMS_PER_TURN: Final = 256  # about 5 ms of work, while others wait for their messages
MOST_WAITING: Final = 50_000  # answers that are owed, in all
MOST_PER_USER: Final = 32  # and to one user for one room: more than an honest client has on its way


class Waiter(Struct, gc=False, eq=False):
    """Who waits for a mark; `told` is called once, with the mark that is on disk, or why it may not be.

    Attributes:
        told: Whom to tell; None: that has been done.
        deadline: Monotonic seconds until which it waits.
    """

    told: Callable[[int | Away], None] | None
    deadline: float

    def tell(self, outcome: int | Away) -> None:
        """Tell it, unless it was told before."""
        told, self.told = self.told, None
        if told is not None:
            told(outcome)


class _Rising(Struct, gc=False, eq=False):
    """A user's mark on its way."""

    sequence: int
    waiters: list[Waiter]


class _Flight:
    """Marks of a room that were submitted; told the outcome."""

    __slots__ = ("_marks", "_owner", "_room")

    def __init__(self, owner: ReadMarks, room: Room, marks: Mapping[str, _Rising]) -> None:
        self._owner, self._room, self._marks = owner, room, marks

    def __call__(self, outcome: Outcome) -> None:
        self._owner.land(self._room, self._marks, outcome)


class ReadMarks:
    """Marks that are not on disk yet, and who waits for them.

    Args:
        submit: Has an entry made.
        tell: Told of marks that are on disk, by user.
        time_period: Called when `end_period` is to be called some time later: a room has one entry in this time, and
            now and then a second.

    Attributes:
        pending: Whether `turn` has something to do.
    """

    def __init__(
        self, submit: Callable[[Room, Submit], None], tell: Callable[[Room, Mapping[str, int]], None],
        time_period: Callable[[], None],
    ) -> None:  # fmt: skip
        self.pending = False
        self._submit, self._tell, self._time_period = submit, tell, time_period
        self._gathered: dict[Room, dict[str, _Rising]] = {}
        self._flying: dict[Reader, _Rising] = {}  # the newest of each
        self._due: dict[Room, None] = {}
        self._served: set[Room] = set()  # rooms that have had an entry in this period
        self._waiters: deque[Waiter] = deque()  # some may have been told
        self._is_over = False  # whether the period is

    def rise(self, room: Room, user: str, sequence: int, waiter: Waiter) -> None:
        """Raise a mark; it is higher than what is on disk."""
        rising = self._flying.get(Reader(room.id, user))
        if rising is None or rising.sequence < sequence:
            gathered = self._gathered.setdefault(room, {})
            rising = gathered.setdefault(user, _Rising(sequence, []))
            rising.sequence = max(rising.sequence, sequence)
            if room not in self._served:
                self._due[room] = None
                self.pending = True
        if len(rising.waiters) >= MOST_PER_USER or len(self._waiters) >= MOST_WAITING:
            waiter.tell(Away.OVERLOADED)
            return
        rising.waiters.append(waiter)
        self._waiters.append(waiter)
        self._time_period()

    def turn(self, now: float) -> None:
        """Submit what is due; called on the hub's task."""
        if self._is_over:
            self._is_over = False
            self._served.clear()
            self._due = dict.fromkeys(self._gathered)
            self._forget_waiters(now)
        for room in list(self._due)[:ROOMS_PER_TURN]:
            del self._due[room]
            self._flush(room)
        self.pending = bool(self._due)
        if self._served or self._gathered or self._waiters:
            self._time_period()

    def flush(self) -> None:
        """Submit all that has gathered: nothing more will come."""
        for room in list(self._gathered):
            self._flush(room)

    def land(self, room: Room, marks: Mapping[str, _Rising], outcome: Outcome) -> None:
        """The outcome of what was submitted."""
        landed = isinstance(outcome, Entry)
        for user, rising in marks.items():
            reader = Reader(room.id, user)
            if self._flying.get(reader) is rising:
                del self._flying[reader]
            for waiter in rising.waiters:
                waiter.tell(rising.sequence if landed else outcome if isinstance(outcome, Away) else Away.OVERLOADED)
        if landed:
            self._tell(room, {user: rising.sequence for user, rising in marks.items()})

    def end_period(self) -> None:
        """A period is over: what has gathered is due now."""
        self._is_over = self.pending = True

    def _flush(self, room: Room) -> None:
        marks = list(self._gathered.pop(room, {}).items())
        self._served.add(room)
        for start in range(0, len(marks), MARKS_PER_ENTRY):
            part = dict(marks[start : start + MARKS_PER_ENTRY])
            for user, rising in part.items():
                self._flying[Reader(room.id, user)] = rising
            data = marks_data({user: rising.sequence for user, rising in part.items()})
            self._submit(room, Submit(room.id, Kind.MARKS, b"", "", data, b"", _Flight(self, room, part)))

    def _forget_waiters(self, now: float) -> None:
        """Tell those who have waited for too long, and forget those who were told."""
        waiters = self._waiters
        while waiters and (waiters[0].told is None or waiters[0].deadline <= now):
            waiters.popleft().tell(Away.OVERLOADED)

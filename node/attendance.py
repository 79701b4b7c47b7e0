"""Who has come and gone, and what rooms are told of it.  Sans-I/O.

Two things are told, where a kind of rooms asks for them: how many users are in a room (`presence_seconds`), and that a
user has come or gone (`system_messages`). A user is one, however many connections it has. What is told is late on
purpose, so that whoever loads a page again has neither gone nor come, and so that a crowd costs a message per period
and not one per head:

* A count is told when it has changed, at once after a quiet time, else when the period is over.
* An arrival is told `ARRIVAL_SECONDS` later if the user is still there, a departure `ABSENCE_SECONDS` later if it is
  still away. For the first `RETURN_SECONDS` of a node nobody arrives: all who come were there before it was restarted.
* Rooms of more users than `system_members` are told of neither, and none of more than a few of them at a time.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from node.ratelimit import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edge_config.kinds import RoomKind

ARRIVAL_SECONDS: Final = 1.0  # who looks in and leaves has not come
ABSENCE_SECONDS: Final = 15.0  # a page that is loaded again, a phone in a lift
RETURN_SECONDS: Final = 60.0  # SDKs wait up to 20 s between attempts to connect
TOLD_PER_SECOND: Final = 0.5  # arrivals and departures of a room, which all stay in its history
TOLD_AT_ONCE: Final = 30.0

JOINED: Final = "joined"
LEFT: Final = "left"
_COUNT: Final = ""  # in place of a user: the room's count is due


class Place(Protocol):
    """A room: `node.rooms.Room`."""

    @property
    def kind(self) -> RoomKind:
        """Its options."""

    @property
    def users(self) -> Mapping[str, int]:
        """Connections by user, of those who are there."""


P = TypeVar("P", bound=Place)


class Came(NamedTuple, Generic[P]):
    """A user has come or gone.

    Attributes:
        room: Where.
        event: `JOINED` or `LEFT`.
        user: Who.
    """

    room: P
    event: str
    user: str


class Counted(NamedTuple, Generic[P]):
    """So many users are in a room."""

    room: P
    users: int


class _Record(Generic[P]):
    """What a room has been told, and what it is to be told.

    Attributes:
        known: Users of whom it was told, or need not be told, that they are there.
        due: By user, when it is looked whether it is there, infinite: not at all; of `_COUNT`, when the count is told.
            Each has one place in the heap.
        counted: The last count that was told; -1: none.
        counted_at: When that was.
        crowded: Whether there are too many to tell of anybody.
    """

    __slots__ = ("bucket", "counted", "counted_at", "crowded", "due", "known", "room")

    def __init__(self, room: P, now: float) -> None:
        self.room = room
        self.known: set[str] = set()
        self.due: dict[str, float] = {}
        self.counted, self.counted_at = -1, -inf
        self.crowded = False
        self.bucket = Bucket(TOLD_PER_SECOND, TOLD_AT_ONCE, now)


class Attendance(Generic[P]):
    """Of all rooms of a node whose kinds ask for it.

    Args:
        now: Monotonic seconds, as everywhere here.
    """

    __slots__ = ("_heap", "_number", "_quiet_until", "_records", "_silent")

    def __init__(self, now: float) -> None:
        self._quiet_until = now + RETURN_SECONDS
        self._silent = False
        self._records: dict[P, _Record[P]] = {}
        self._heap: list[tuple[float, int, _Record[P], str]] = []
        self._number = count()

    def __len__(self) -> int:
        """How many rooms are remembered."""
        return len(self._records)

    @property
    def next_deadline(self) -> float:
        """When `tick` has something to do; infinite: not before a change."""
        return self._heap[0][0] if self._heap else inf

    def silence(self) -> None:
        """Tell nobody of anything any more: the node sends its clients away, who go on elsewhere."""
        self._silent = True
        self._records.clear()
        self._heap.clear()

    def changed(self, room: P, user: str, now: float) -> None:
        """A connection of a user has come into a room, or left it."""
        if self._silent:
            return
        record = self._records.get(room)
        if record is None:
            record = self._records[room] = _Record(room, now)
        if room.kind.presence_seconds and _COUNT not in record.due:
            self._schedule(record, _COUNT, max(now, record.counted_at + room.kind.presence_seconds))
        if room.kind.tells_arrivals:
            self._attend(record, user, now)
        self._forget(record)

    def tick(self, now: float) -> Iterator[Came[P] | Counted[P]]:
        """What rooms are to be told by now."""
        while self._heap and self._heap[0][0] <= now:
            _, _, record, user = heappop(self._heap)
            due = record.due.pop(user)
            if now < due < inf:
                self._schedule(record, user, due)
            elif due < inf:
                yield from self._count(record, now) if user == _COUNT else self._look(record, user, now)
            self._forget(record)

    def _attend(self, record: _Record[P], user: str, now: float) -> None:
        room = record.room
        if len(room.users) > room.kind.system_members:
            record.crowded = True
            record.known.clear()
            return
        if record.crowded:
            record.crowded = False
            record.known |= room.users.keys()
        is_there = user in room.users
        if is_there and now < self._quiet_until:
            record.known.add(user)
        if is_there is (user in record.known):
            if user in record.due:
                record.due[user] = inf
        elif record.due.get(user, inf) == inf:
            self._schedule(record, user, now + (ARRIVAL_SECONDS if is_there else ABSENCE_SECONDS))

    def _look(self, record: _Record[P], user: str, now: float) -> Iterator[Came[P]]:
        is_there = user in record.room.users
        if record.crowded or is_there is (user in record.known):
            return
        (record.known.add if is_there else record.known.discard)(user)
        event = JOINED if is_there else LEFT
        if event in record.room.kind.system_messages and not record.bucket.take(now):
            yield Came(record.room, event, user)

    @staticmethod
    def _count(record: _Record[P], now: float) -> Iterator[Counted[P]]:
        users = len(record.room.users)
        if users != record.counted:
            record.counted, record.counted_at = users, now
            yield Counted(record.room, users)

    def _schedule(self, record: _Record[P], user: str, due: float) -> None:
        if user not in record.due:
            heappush(self._heap, (due, next(self._number), record, user))
        record.due[user] = due

    def _forget(self, record: _Record[P]) -> None:
        """Drop a room where nobody is and nothing is due."""
        if not record.due and not record.known and not record.room.users:
            self._records.pop(record.room, None)

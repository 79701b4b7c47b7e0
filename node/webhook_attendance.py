"""Who comes and goes, told when it has settled: a user or room that flaps says nothing.  Sans-I/O.

What is told is what holds when the window is over, if it differs from what was told before. So a user whose phone
reconnects was never away, and a crowd that flaps costs nobody anything but the memory of its names, which is bounded.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from router.ids import RoomId

MOST_UNSETTLED: Final = 10_000  # users and rooms that came or went within the window, about 300 bytes each


class Subject(NamedTuple):
    """Who or what came or went.

    Attributes:
        site: The tenant.
        channel: The room that was occupied or vacated; empty: it is about a user.
        user: The user who connected or disconnected; empty: it is about a room.
    """

    site: str
    channel: str
    user: str

    @classmethod
    def room(cls, room: RoomId) -> Subject:
        """A room."""
        return cls(room.site, room.channel, "")


class Change(NamedTuple):
    """What has settled.

    Attributes:
        subject: Who or what.
        here: Whether it is there now.
        at_ms: Since when, in milliseconds since 1970.
    """

    subject: Subject
    here: bool
    at_ms: int

    @property
    def event(self) -> str:
        """Its name among `edge_config.webhooks.ATTENDANCE`."""
        if self.subject.user:
            return "connected" if self.here else "disconnected"
        return "occupied" if self.here else "vacated"


class _Unsettled:
    __slots__ = ("at_ms", "due", "here", "was_here")

    def __init__(self, due: float, *, was_here: bool) -> None:
        self.due, self.was_here, self.here, self.at_ms = due, was_here, was_here, 0


class Attendance:
    """Waits until comings and goings have settled.

    Args:
        settle_seconds: How long a subject is given; 0: none.

    Attributes:
        lost: Changes that are never told, as too many were unsettled.
    """

    __slots__ = ("_settle_seconds", "_unsettled", "lost")

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._unsettled: dict[Subject, _Unsettled] = {}  # in the order in which they are due
        self.lost = 0

    def __len__(self) -> int:
        return len(self._unsettled)

    @property
    def deadline(self) -> float:
        """When `settled` is due; `inf`: nothing is unsettled."""
        return next(iter(self._unsettled.values())).due if self._unsettled else inf

    def note(self, subject: Subject, now: float, at_ms: int, *, here: bool) -> None:
        """A subject came, or went.

        Args:
            subject: Who; each comes and goes in turn.
            now: Monotonic seconds, never less than before.
            at_ms: The same moment in milliseconds since 1970.
            here: Whether it came.
        """
        known = self._unsettled.get(subject)
        if known is None:
            if len(self._unsettled) >= MOST_UNSETTLED:
                self.lost += 1
                return
            known = self._unsettled[subject] = _Unsettled(now + self._settle_seconds, was_here=not here)
        known.here, known.at_ms = here, at_ms

    def settled(self, now: float) -> list[Change]:
        """What has settled by now and is to be told, oldest first; `inf`: all that there is."""
        changes = []
        unsettled = self._unsettled
        while unsettled:
            subject = next(iter(unsettled))
            state = unsettled[subject]
            if state.due > now:
                break
            del unsettled[subject]
            if state.here is not state.was_here:
                changes.append(Change(subject, state.here, state.at_ms))
        return changes

"""An edge's cursor in a room, and what a client that returns may be told.  Sans-I/O.

The edge hands on cursor + 1 and nothing else: what it saw already is dropped, what comes too early is a gap to be
fetched. A client's resume is exact or it is refused; it is never partial.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.ids import Position


class Arrival(Enum):
    """What an entry with a given sequence means to a cursor."""

    NEXT = "next"
    SEEN = "seen"
    GAP = "gap"


class Resume(Enum):
    """What can be said to a client that returns with a position."""

    NOTHING_MISSED = "it has everything"
    REPLAY = "what it missed can be given"
    AHEAD = "it knows more than we do: our head may be old"
    OTHER_STREAM = "its position is of another stream"
    FORGOTTEN = "what it missed is no longer visible"
    TOO_FAR = "it missed more than is replayed at once"


class Cursor:
    """How far an edge is in a room.

    Attributes:
        sequence: Of the last entry that was handed on.
    """

    __slots__ = ("sequence",)

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence

    def arrive(self, sequence: int) -> Arrival:
        """Classify an entry; the cursor moves on if it is the next one."""
        if sequence == self.sequence + 1:
            self.sequence = sequence
            return Arrival.NEXT
        return Arrival.SEEN if sequence <= self.sequence else Arrival.GAP


def resume(asked: Position, head: Position, floor: int, most: int) -> Resume:
    """Decide what a client that was at `asked` can be told.

    Args:
        asked: The client's position; an empty epoch stands for "the stream as it is".
        head: The room's present end.
        floor: Entries up to this sequence aren't visible any more.
        most: Entries that are replayed at once.
    """
    if asked.epoch and asked.epoch != head.epoch:
        return Resume.OTHER_STREAM
    if asked.offset > head.offset:
        return Resume.AHEAD
    if asked.offset == head.offset:
        return Resume.NOTHING_MISSED
    if asked.offset < floor:
        return Resume.FORGOTTEN
    return Resume.REPLAY if head.offset - asked.offset <= most else Resume.TOO_FAR

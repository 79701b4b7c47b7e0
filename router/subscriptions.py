"""An edge's cursor in a room.  Sans-I/O.

The edge hands on cursor + 1 and nothing else: what it saw already is dropped, what comes too early is a gap to be
fetched.
"""

from __future__ import annotations

from enum import Enum


class Arrival(Enum):
    """What an entry with a given sequence means to a cursor."""

    NEXT = "next"
    SEEN = "seen"
    GAP = "gap"


NEXT, SEEN, GAP = Arrival  # under names of their own: an attribute of an Enum costs more each time


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
            return NEXT
        return SEEN if sequence <= self.sequence else GAP

"""In which order the submits of an edge to a room are taken.  Sans-I/O.

What an edge sends to a room is numbered. When something is lost on the way, or the primary has changed, the edge begins
a new session, in which it sends again all that has no answer. So a message is never taken before one that the same
edge, and so the same client, sent before it: a gap, or an old session, is noticed by its number.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from router.ids import RoomId

MOST_SESSIONS: Final = 10_000  # remembered of a shard, about 300 bytes each; what is forgotten costs a new session

Peer: TypeAlias = "tuple[str, str]"
"""An edge in one life: its node and boot id."""


class Turn(Enum):
    """What becomes of a submit."""

    TAKEN = "it is the next"
    OLD = "it was taken before, or is of a session that is over"
    MISSING = "something before it did not come"


class Order:
    """Sessions of edges with the rooms of one shard, for as long as this node serves it."""

    __slots__ = ("_most", "_sessions")

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._sessions: OrderedDict[tuple[Peer, RoomId], tuple[int, int]] = OrderedDict()

    def take(self, peer: Peer, room: RoomId, session: int, number: int) -> Turn:
        """A submit came."""
        sessions, name = self._sessions, (peer, room)
        known, expected = sessions.get(name, (-1, 0))
        if session < known or (session == known and number < expected):
            return Turn.OLD
        if session > known:
            expected = 0
        if number > expected:
            return Turn.MISSING
        sessions[name] = (session, number + 1)
        sessions.move_to_end(name)
        if len(sessions) > self._most:
            sessions.popitem(last=False)
        return Turn.TAKEN

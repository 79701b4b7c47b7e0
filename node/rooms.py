"""A room as this node follows it: who is in it, and what they have not been handed yet."""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from edge_config.kinds import JoinLeave, Presence
from node.connection import put_all
from node.protocol import json_string
from router.subscriptions import Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_config.kinds import RoomKind
    from node.connection import Connection
    from node.seams import Member
    from router.ids import RoomId
    from router.room import RoomState

_ts = attrgetter("ts")


class Room:
    """One room.

    A publication is encoded and framed once; `frames` gathers what the members get at the end of the hub's turn.

    Attributes:
        id: Its full name.
        kind: Its options.
        state: Its head and newest entries, in the router.
        cursor: How far the members are.
        frames: Whole frames for every member, not handed to their connections yet.
        here: Presence: ClientInfo as JSON by client id.
        users: Presence: connections by user.
        watchers: Members that want joins and leaves.
    """

    __slots__ = (
        "__weakref__", "channel_json", "cursor", "epoch", "frames", "here", "id", "joined", "kind", "state",
        "users", "watchers",
    )  # fmt: skip

    def __init__(self, state: RoomState, kind: RoomKind, epoch: str) -> None:
        self.id: RoomId = state.room
        self.kind, self.state, self.epoch = kind, state, epoch
        self.channel_json = json_string(state.room.channel)
        self.cursor = Cursor(state.committed)
        self.joined: dict[Connection, Member] = {}
        self.frames: list[bytes] = []
        self.here: dict[str, bytes] = {}
        self.users: dict[str, int] = {}
        self.watchers = 0
        state.pins += 1  # as long as anybody refers to this room, its head stays in memory

    def __del__(self) -> None:
        self.state.pins -= 1

    @property
    def offset(self) -> int:
        """Sequence of the last entry handed to the members here."""
        return self.cursor.sequence

    @property
    def members(self) -> int:
        """How many subscriptions are joined here."""
        return len(self.joined)

    @property
    def floor(self) -> int:
        """Entries up to this sequence are not visible: dropped, beyond the kind's number, or older than its age."""
        kind, state = self.kind, self.state
        floor = state.floor
        if kind.history_entries:
            floor = max(floor, self.offset - kind.history_entries)
        if kind.history_seconds and state.entries:
            oldest = oldest_ms(kind)
            if state.entries[0].ts < oldest:
                floor = max(floor, state.cached_from - 1 + bisect_left(state.entries, oldest, key=_ts))
        return floor

    def distribute(self) -> None:
        """Hand the gathered frames to the members' connections."""
        frames = self.frames
        if not frames:
            return
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        self.frames = []
        put_all(self.joined, joined)

    def enter(self, connection: Connection, member: Member) -> bool:
        """Join; False if it had joined before."""
        if connection in self.joined:
            return False
        self.distribute()  # what was committed before belongs to those who were here
        self.joined[connection] = member
        self.watchers += member.wants_joins
        if self.kind.presence is not Presence.OFF:
            self.here[member.client] = member.info
            self.users[member.user] = self.users.get(member.user, 0) + 1
        return True

    def exit(self, connection: Connection, member: Member) -> bool:
        """Leave; False if it had not joined."""
        if self.joined.get(connection) is not member:
            return False
        self.distribute()
        del self.joined[connection]
        self.watchers -= member.wants_joins
        if self.here.pop(member.client, None) is not None:
            count = self.users[member.user] - 1
            if count:
                self.users[member.user] = count
            else:
                del self.users[member.user]
        return True

    @property
    def tells_joins(self) -> bool:
        """Whether somebody is to be told of joins and leaves."""
        return self.kind.join_leave is not JoinLeave.OFF and self.watchers > 0

    def tell(self, frame: bytes, about: Member) -> None:
        """Tell of a join or leave those who want to know, but the one whom it is about."""
        self.distribute()
        for connection, member in self.joined.items():
            if member.wants_joins and member is not about:
                connection.put(frame)

    def roster(self, most: int) -> Mapping[str, bytes]:
        """Who is here, at most so many."""
        if len(self.here) <= most:
            return self.here
        return dict(islice(self.here.items(), most))


def oldest_ms(kind: RoomKind) -> int:
    """The timestamp below which entries of rooms of a kind aren't visible any more."""
    return int(time.time() * 1000) - kind.history_seconds * 1000 if kind.history_seconds else 0

"""A room as this node follows it: who is in it, and what they have not been handed yet."""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from edge_config.kinds import JoinLeave, Presence
from node.chat_rules import Rules
from node.connection import put_all
from node.protocol import json_string
from router.subscriptions import Cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edge_config.kinds import RoomKind
    from node.connection import Connection
    from node.framing import Wire
    from node.protocol import Codec
    from node.seams import Member
    from router.ids import RoomId
    from router.room import RoomState

_ts = attrgetter("ts")


class Others:
    """Members of a room that are not written to in its usual way.

    Attributes:
        wire: How they are written to instead.
        joined: Who they are.
        frames: As `Room.frames`.
    """

    __slots__ = ("frames", "joined", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.joined: dict[Connection, Member] = {}
        self.frames: list[bytes] = []


class Room:
    """One room.

    A publication is encoded and framed once for each wire in use; `frames` gathers what the members get at the end of
    the hub's turn.

    Attributes:
        id: Its full name.
        kind: Its options.
        state: Its head and newest entries, in the router.
        cursor: How far the members are.
        wire: How nearly all members are written to: JSON over WebSocket.
        joined: Members by connection, those of `wire` only.
        frames: Whole frames for every one of `joined`, not handed to their connections yet.
        others: Members of other wires, by wire; a wire without members is not in it.
        here: Presence: ClientInfo as JSON by client id.
        users: Presence: connections by user.
        watchers: Members that want joins and leaves.
        rules: What its moderators have laid down; None: nothing.
    """

    __slots__ = (
        "__weakref__", "channel_json", "cursor", "epoch", "frames", "here", "id", "joined", "kind", "others", "rules",
        "state", "users", "watchers", "wire",
    )  # fmt: skip

    def __init__(self, state: RoomState, kind: RoomKind, epoch: str, wire: Wire) -> None:
        self.id: RoomId = state.room
        self.kind, self.state, self.epoch, self.wire = kind, state, epoch, wire
        self.channel_json = json_string(state.room.channel)
        self.cursor = Cursor(state.committed)
        self.joined: dict[Connection, Member] = {}
        self.frames: list[bytes] = []
        self.others: dict[Wire, Others] = {}
        self.here: dict[str, bytes] = {}
        self.users: dict[str, int] = {}
        self.watchers = 0
        self.rules = Rules.of(state.values)
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
        count = len(self.joined)
        for others in self.others.values():
            count += len(others.joined)
        return count

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
        if frames:
            joined = frames[0] if len(frames) == 1 else b"".join(frames)
            self.frames = []
            put_all(self.joined, joined)
        for others in self.others.values():
            if others.frames:
                put_all(others.joined, b"".join(others.frames))
                others.frames = []

    def members_of(self, connection: Connection) -> dict[Connection, Member]:
        """The members that are written to as this connection is; for a new wire, a dictionary that is not kept."""
        if connection.wire is self.wire:
            return self.joined
        others = self.others.get(connection.wire)
        return {} if others is None else others.joined

    def everybody(self) -> list[Member]:
        """All members."""
        return [*self.joined.values(), *(m for others in self.others.values() for m in others.joined.values())]

    def enter(self, connection: Connection, member: Member) -> bool:
        """Join; False if it had joined before."""
        if connection in self.members_of(connection):
            return False
        self.distribute()  # what was committed before belongs to those who were here
        if connection.wire is self.wire:
            self.joined[connection] = member
        else:
            self.others.setdefault(connection.wire, Others(connection.wire)).joined[connection] = member
        self.watchers += member.wants_joins
        if self.kind.presence is not Presence.OFF:
            self.here[member.client] = member.info
            self.users[member.user] = self.users.get(member.user, 0) + 1
        return True

    def exit(self, connection: Connection, member: Member) -> bool:
        """Leave; False if it had not joined."""
        joined = self.members_of(connection)
        if joined.get(connection) is not member:
            return False
        self.distribute()
        del joined[connection]
        if not joined and joined is not self.joined:
            del self.others[connection.wire]
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

    def tell(self, encode: Callable[[Codec], bytes], about: Member) -> None:
        """Tell of a join or leave those who want to know, but the one whom it is about."""
        self.distribute()
        for wire, joined in self._by_wire():
            frame = wire.frame(encode(wire.codec))
            for connection, member in joined.items():
                if member.wants_joins and member is not about:
                    connection.put(frame)

    def _by_wire(self) -> Iterator[tuple[Wire, dict[Connection, Member]]]:
        yield self.wire, self.joined
        for others in self.others.values():
            yield others.wire, others.joined

    def roster(self, most: int) -> Mapping[str, bytes]:
        """Who is here, at most so many."""
        if len(self.here) <= most:
            return self.here
        return dict(islice(self.here.items(), most))


def oldest_ms(kind: RoomKind) -> int:
    """The timestamp below which entries of rooms of a kind aren't visible any more."""
    return int(time.time() * 1000) - kind.history_seconds * 1000 if kind.history_seconds else 0

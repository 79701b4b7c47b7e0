"""A room as this node follows it: who is in it, and what they have not been handed yet."""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from typing_extensions import override

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
    from node.publication import Publication
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

    def enter(self, connection: Connection, member: Member) -> None:
        """Join."""
        self.joined[connection] = member

    def exit(self, connection: Connection) -> None:
        """Leave."""
        del self.joined[connection]

    def take(self, publication: Publication) -> None:
        """Gather a publication."""
        self.frames.append(self.wire.frame(publication.plain(self.wire.codec)))


class Chain(Others):
    """Such members that are given differences, each from the publication before.

    All of them have been given the publication that `base` is the data of, but those who came after it. So that these
    stay apart only until the next publication, whoever joins is given one whole, also after a recovery.

    Attributes:
        base: Data of what was given last; empty: nothing that a difference may refer to.
        fresh: Who was not given that.
    """

    __slots__ = ("base", "fresh")

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.base = b""
        self.fresh: set[Connection] = set()

    @override
    def enter(self, connection: Connection, member: Member) -> None:
        super().enter(connection, member)
        self.fresh.add(connection)

    @override
    def exit(self, connection: Connection) -> None:
        super().exit(connection)
        self.fresh.discard(connection)

    @override
    def take(self, publication: Publication) -> None:
        frame, codec, fresh = self.wire.frame, self.wire.codec, self.fresh
        difference = publication.difference(codec, self.base) if len(fresh) < len(self.joined) else None
        if difference is None:
            self.frames.append(frame(publication.whole(codec)))
        elif not fresh:
            self.frames.append(frame(difference))
        else:  # there are no other frames: who joins is not fresh any more after the next
            put_all([connection for connection in self.joined if connection not in fresh], frame(difference))
            put_all(fresh, frame(publication.whole(codec)))
        fresh.clear()
        self.base = publication.base


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
        others: Members of other wires, and members that are given differences, by wire and whether they are; nobody is
            there without members.
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
        self.others: dict[tuple[Wire, bool], Others] = {}
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
    def is_new(self) -> bool:
        """Whether nothing was ever written in it."""
        return not self.state.sequence and not self.state.meta_n

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

    def replace(self, state: RoomState, epoch: str, sequence: int) -> None:
        """The room goes on as another state, from behind a sequence."""
        state.pins += 1
        self.state.pins -= 1
        self.state, self.epoch = state, epoch
        self.cursor.sequence = sequence
        self.rules = Rules.of(state.values)

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

    def everybody(self) -> list[Member]:
        """All members."""
        return [*self.joined.values(), *(m for others in self.others.values() for m in others.joined.values())]

    def enter(self, connection: Connection, member: Member) -> bool:
        """Join; False if it had joined before."""
        if self._member(connection, member) is not None:
            return False
        self.distribute()  # what was committed before belongs to those who were here
        wire, delta = way = (connection.wire, member.delta)
        if wire is self.wire and not delta:
            self.joined[connection] = member
        else:
            if way not in self.others:
                self.others[way] = Chain(wire) if delta else Others(wire)
            self.others[way].enter(connection, member)
        self.watchers += member.wants_joins
        if self.kind.presence is not Presence.OFF:
            self.here[member.client] = member.info
            self.users[member.user] = self.users.get(member.user, 0) + 1
        return True

    def exit(self, connection: Connection, member: Member) -> bool:
        """Leave; False if it had not joined."""
        if self._member(connection, member) is not member:
            return False
        self.distribute()
        wire, delta = way = (connection.wire, member.delta)
        if wire is self.wire and not delta:
            del self.joined[connection]
        else:
            others = self.others[way]
            others.exit(connection)
            if not others.joined:
                del self.others[way]
        self.watchers -= member.wants_joins
        if self.here.pop(member.client, None) is not None:
            count = self.users[member.user] - 1
            if count:
                self.users[member.user] = count
            else:
                del self.users[member.user]
        return True

    def _member(self, connection: Connection, like: Member) -> Member | None:
        """Who has joined with a connection, and is written to as such a member is."""
        if connection.wire is self.wire and not like.delta:
            return self.joined.get(connection)
        others = self.others.get((connection.wire, like.delta))
        return None if others is None else others.joined.get(connection)

    def interrupt(self) -> None:
        """Members were given what is no part of the stream: clients take it for the publication before all the same."""
        for others in self.others.values():
            if isinstance(others, Chain):
                others.base = b""

    @property
    def tells_joins(self) -> bool:
        """Whether somebody is to be told of joins and leaves."""
        return self.kind.join_leave is not JoinLeave.OFF and self.watchers > 0

    def tell(self, encode: Callable[[Codec], bytes]) -> None:
        """Tell of a join or leave those who are here and want to know."""
        self.distribute()
        for wire, joined in self._by_wire():
            frame = wire.frame(encode(wire.codec))
            for connection, member in joined.items():
                if member.wants_joins:
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

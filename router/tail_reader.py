"""Reads of the log's tail: from the tables, then what is committed and waits to be filed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from router.entry import LAST_VISIBLE, Entry, Kind, decode, split
from router.errors import CorruptEntry
from router.log_schema import META, VISIBLE
from router.removal import Removals
from router.removal_tables import RemovalTables
from router.tail import Lost, Tail

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

    from router.backlog import Unfiled
    from router.ids import RoomId, ShardId
    from router.tail import TailQuery

PLACES_AT_ONCE: Final = 16  # rows of up to 256 entries, of which all may be gone

_LAST_FOLLOWED: Final = int(Kind.META)
# One row for all shards, and one statement for the chunks of many rooms: each step hands the interpreter's lock away.
_SHARDS: Final = "SELECT json_group_array(json_array(shard, lsn, floor)) FROM shard"
_PLACE: Final = (
    "SELECT first, last, entries FROM place WHERE shard=?1 AND first=(SELECT max(first) FROM place WHERE shard=?1"
    " AND first<=?2)"
)
CHUNKS_OF: Final = (
    "SELECT span.key, room, stream, first, wires FROM json_each(?) AS span CROSS JOIN chunk"
    " WHERE room=json_extract(span.value, '$[0]') AND stream=json_extract(span.value, '$[1]')"
    " AND first<=json_extract(span.value, '$[3]') AND first>=coalesce((SELECT max(first) FROM chunk AS before"
    " WHERE before.room=json_extract(span.value, '$[0]') AND before.stream=json_extract(span.value, '$[1]')"
    " AND before.first<=json_extract(span.value, '$[2]')), 0)"
)
decode_places: Final = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode  # room's number, place, kind
_decode_shards = msgspec.json.Decoder(list[tuple[int, int, int]]).decode


class _Slot(NamedTuple):
    """Where an entry of a shard stands."""

    lsn: int
    room: int
    stream: int
    place: int


class TailReader:
    """Answers followers.

    Args:
        connection: Read-only; used by one thread.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._removals = RemovalTables(connection)

    def read(self, query: TailQuery, unfiled: Unfiled) -> Tail:
        """What follows a cursor.

        Args:
            query: The cursor, and the bounds.
            unfiled: What was not filed at some moment before.

        Raises:
            CorruptEntry: What is stored is not what was written.
        """
        self._execute("BEGIN")  # places, chunks and what is removed must be of one moment
        try:
            return _Reading(self._execute, query, unfiled).read(self._removals)
        finally:
            self._execute("COMMIT")


class _Reading:
    """One read, and what it has taken so far."""

    def __init__(self, execute: Callable[..., sqlite3.Cursor], query: TailQuery, unfiled: Unfiled) -> None:
        self._execute, self._query, self._unfiled = execute, query, unfiled
        self._taken: list[Entry] = []
        self._rooms: list[int] = []  # their rooms' numbers; 0: not known
        self._lost: list[Lost] = []
        self._bytes = query.max_bytes
        self._places = PLACES_AT_ONCE
        self._filed: dict[ShardId, int] = {}
        self._floors: dict[RoomId, int] = {}  # of rooms whose history was removed, which is not filed yet
        self._ended = query.limit == 0

    def read(self, removals: RemovalTables) -> Tail:
        """Go round the shards."""
        (listed,) = self._execute(_SHARDS).fetchone()
        ends = {shard: (lsn, floor) for shard, lsn, floor in _decode_shards(listed)}
        heads = {shard: lsn for shard, (lsn, _) in ends.items()}
        for shard, head in self._unfiled.heads.items():
            heads[shard] = max(heads.get(shard, 0), head)
        self._filed = {shard: lsn for shard, (lsn, _) in ends.items()}
        self._floors = {entry.room: entry.sequence for entry in self._later() if entry.kind == Kind.META}
        cursor = dict.fromkeys(heads, 0) | dict(self._query.cursor)
        start = self._query.start
        for shard in sorted(heads, key=lambda shard: (shard < start, shard)):
            if self._ended:
                break
            if cursor[shard] < heads[shard]:
                cursor[shard] = self._read_shard(shard, cursor[shard], *ends.get(shard, (0, 0)))
                start = shard + 1
        self._hide(removals)
        return Tail(self._taken, cursor, self._lost, heads, start)

    def _read_shard(self, shard: ShardId, at: int, filed: int, floor: int) -> int:
        """Take what follows in a shard; gives the lsn up to which it is read."""
        if at < floor:
            self._lose(shard, at + 1, floor)
            at = floor
        while at < filed and not self._ended:
            at = self._read_places(shard, at)
        for entry in () if self._ended else self._unfiled.runs.get(shard, ()):
            if entry.lsn <= at:  # filed since
                continue
            if entry.kind <= _LAST_FOLLOWED and not self._take(entry, 0):
                break
            at = entry.lsn
        return at

    def _take(self, entry: Entry, room: int) -> bool:
        """Take an entry if the bounds allow it; one whose room's history was removed is passed over."""
        if self._floors and entry.visible and entry.sequence <= self._floors.get(entry.room, 0):
            self._lose(entry.shard, entry.lsn, entry.lsn)
            return True
        self._bytes -= len(entry.wire)
        if len(self._taken) == self._query.limit or (self._taken and self._bytes < 0):
            self._ended = True
            return False
        self._taken.append(entry)
        self._rooms.append(room)
        return True

    def _lose(self, shard: ShardId, first: int, last: int) -> None:
        before = self._lost[-1] if self._lost else None
        if before is not None and before.shard == shard and before.last + 1 == first:
            self._lost[-1] = before._replace(last=last)
        else:
            self._lost.append(Lost(shard, first, last))

    # -- from the tables -----------------------------------------------------------------------------------------

    def _read_places(self, shard: ShardId, at: int) -> int:
        """Take what follows in a row of places."""
        if not self._places:
            self._ended = True
            return at
        self._places -= 1
        row = self._execute(_PLACE, (shard, at + 1)).fetchone()
        if row is None or row[1] <= at:
            raise CorruptEntry(f"of shard {shard} the place of lsn {at + 1} is missing")
        try:
            listed = decode_places(row[2]) if row[2] else []  # all of them dropped, and not for followers
        except msgspec.MsgspecError as error:
            raise CorruptEntry(f"the places of shard {shard} up to lsn {row[1]} can't be read: {error}") from error
        slots = [
            _Slot(lsn, room, VISIBLE if kind <= LAST_VISIBLE else META, place)
            for lsn, (room, place, kind) in enumerate(listed, row[0])
            if lsn > at and kind <= _LAST_FOLLOWED
        ]
        return self._take_slots(shard, slots, row[1])

    def _take_slots(self, shard: ShardId, slots: Sequence[_Slot], last: int) -> int:
        """Take the entries of a row's slots; gives the lsn up to which it is read, `last` if that is all of it."""
        floors = self._floors_of(slots)
        gone = {slot for slot in slots if slot.stream == VISIBLE and slot.place <= floors.get(slot.room, 0)}
        there = [slot for slot in slots if slot not in gone]
        most = self._query.limit - len(self._taken)
        wires, end = self._fetch(there[:most], there[most].lsn if most < len(there) else last + 1)
        for slot in slots:
            if slot in gone:
                self._lose(shard, slot.lsn, slot.lsn)
                continue
            if slot.lsn >= end:
                self._ended = True
                return slot.lsn - 1
            wire = wires.get(slot)
            entry = None if wire is None else decode(wire, None)
            if entry is None or (entry.shard, entry.lsn) != (shard, slot.lsn):
                raise CorruptEntry(f"of shard {shard} lsn {slot.lsn} is not where its place says: there is {entry!r}")
            if not self._take(entry, slot.room):
                return slot.lsn - 1
        return last

    def _floors_of(self, slots: Sequence[_Slot]) -> dict[int, int]:
        rooms = msgspec.json.encode(sorted({slot.room for slot in slots})).decode()
        return dict(self._execute("SELECT id, floor FROM room WHERE id IN (SELECT value FROM json_each(?))", (rooms,)))

    def _fetch(self, slots: Sequence[_Slot], end: int) -> tuple[dict[_Slot, bytes], int]:
        """The canonical bytes of entries, and the lsn before which all are there: `end`, or where the bound is."""
        wanted = {slot[1:]: slot for slot in slots}
        spans: dict[tuple[int, int], list[int]] = {}
        firsts: list[int] = []
        for slot in slots:
            span = spans.get((slot.room, slot.stream))
            if span is None:
                spans[slot.room, slot.stream] = [slot.room, slot.stream, slot.place, slot.place]
                firsts.append(slot.lsn)
            else:
                span[3] = slot.place
        found: dict[_Slot, bytes] = {}
        left = self._bytes
        current = 0
        rows = self._execute(CHUNKS_OF, (msgspec.json.encode(list(spans.values())).decode(),))
        for key, room, stream, first, wires in rows:
            if key != current and left < 0:
                return found, min(end, firsts[key])
            current = key
            for place, wire in enumerate(split(wires), first):
                standing = wanted.get((room, stream, place))
                if standing is not None:
                    found[standing] = wire
                    left -= len(wire)
        return found, end

    # -- what was removed ----------------------------------------------------------------------------------------

    def _later(self) -> Iterator[Entry]:
        """What removes or restores others and is not in the tables."""
        return (entry for entry in self._unfiled.removing if entry.lsn > self._filed.get(entry.shard, 0))

    def _hide(self, removals: RemovalTables) -> None:
        """Hide what was removed: what the tables say, then what waits to be filed."""
        by_room: dict[int, list[int]] = {}
        for at, entry in enumerate(self._taken):
            # A message is filed before what removes it, but what an edit is about may be removed before the edit.
            if entry.kind == Kind.EDIT or (entry.kind == Kind.MESSAGE and entry.lsn <= self._filed.get(entry.shard, 0)):
                number = self._rooms[at] or self._number(entry.room)
                by_room.setdefault(number, []).append(at)
        for number, places in by_room.items():
            shown = removals.show(number, [self._taken[at] for at in places])
            for at, entry in zip(places, shown, strict=True):
                self._taken[at] = entry
        later: dict[RoomId, Removals] = {}
        for entry in self._later():
            if entry.kind != Kind.META:
                later.setdefault(entry.room, Removals()).note(entry, entry.sequence)
        if later:
            self._taken = [later[e.room].show(e) if e.room in later else e for e in self._taken]

    def _number(self, room: RoomId) -> int:
        row = self._execute("SELECT id FROM room WHERE site=? AND channel=?", room).fetchone()
        return int(row[0]) if row else -1

"""Imports of snapshots: a shard's tables are dropped, and filled from the parts that another member sends.

All is done in the writer's thread, in slices: nobody reads of a shard that is being imported, as its member serves it
only when all is there. An import that does not come to its end leaves nothing: what there is of it is dropped when the
next one begins, or the log is opened. What is there at the end was compared with the chain, entry by entry.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from router.completions import SnapshotRefused, SnapshotTaken
from router.entry import GENESIS, LAST_VISIBLE, Entry, Kind, decode, split
from router.errors import BrokenInvariant, CorruptEntry
from router.events import ShardTail
from router.ids import RoomId
from router.keyfilter import key_number
from router.known_keys import tagged
from router.log_rows import Rows as RowsOf
from router.log_schema import EPOCHS, MARKS, META, VISIBLE
from router.placement import shard_of
from router.shard_reader import ShardReader
from router.snapshot import Begin, Chunks, Cleared, Edits, End, Keys, Marks, Places, Removed, Restored, Rooms, Values
from router.snapshot import decode as decode_part

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from router.filing import Filing
    from router.ids import ShardId
    from router.snapshot import Part, Table

DROPPED_AT_ONCE: Final = 64  # chunks, rooms, and rows of places, together
SETTLED_AT_ONCE: Final = 50  # rooms

_STREAMS: Final = {int(Kind.META): META, int(Kind.MARKS): MARKS, int(Kind.EPOCH): EPOCHS}
_TABLES: Final = {
    Values: ("state(room, name, value)", 3),
    Marks: ("mark(room, user, sequence, ts)", 4),
    Removed: ("removed(room, target, sequence, ts, reason, erased)", 6),
    Cleared: ("cleared(room, author, first, sequence, ts, reason, reached)", 7),
    Restored: ("restored(room, target, sequence)", 3),
    Edits: ("edit(room, sequence, target)", 3),
}
_OF_ROOM: Final = ("state", "mark", "removed", "cleared", "restored", "edit")
_KINDS: Final = frozenset(int(kind) for kind in Kind)
_encode_places = msgspec.msgpack.Encoder().encode
_decode_places = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode


_Job: TypeAlias = "Generator[bool, None, SnapshotTaken | SnapshotRefused]"  # gives whether the next step is its last


class _Room(NamedTuple):
    number: int  # here
    room: RoomId
    sequence: int
    meta_n: int


class Wipe:
    """Drops all that the tables have of a shard's rooms and log, in slices; dedupe keys stay."""

    def __init__(self, connection: sqlite3.Connection, shard: ShardId) -> None:
        self._execute, self._shard = connection.execute, shard
        self._rooms = [room for (room,) in self._execute("SELECT id FROM room WHERE shard=?", (shard,))]

    def step(self) -> bool:
        """Drop some; whether there may be more."""
        left = DROPPED_AT_ONCE
        while self._rooms and left > 0:
            room = self._rooms[-1]
            dropped = self._drop_chunks(room, left)
            if dropped < left:
                for table in _OF_ROOM:
                    self._execute(f"DELETE FROM {table} WHERE room=?", (room,))  # noqa: S608 - a name of ours
                self._execute("DELETE FROM room WHERE id=?", (room,))
                self._rooms.pop()
            left -= dropped + 1
        if left > 0:
            left -= self._drop_chunks(-1 - self._shard, left)
        if left > 0:
            left -= self._execute(
                "DELETE FROM place WHERE id IN (SELECT id FROM place WHERE shard=? LIMIT ?)", (self._shard, left)
            ).rowcount
        return left <= 0

    def _drop_chunks(self, room: int, most: int) -> int:
        return self._execute(
            "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE room=? LIMIT ?)", (room, most)
        ).rowcount


def drop_unfinished(connection: sqlite3.Connection) -> None:
    """Drop what imports have left that did not come to their ends; when a log is opened."""
    for (shard,) in connection.execute("SELECT shard FROM importing").fetchall():
        wipe = Wipe(connection, shard)
        more = True
        while more:
            connection.execute("BEGIN IMMEDIATE")
            more = wipe.step()
            if not more:
                connection.execute("DELETE FROM importing WHERE shard=?", (shard,))
            connection.execute("COMMIT")


class _Import:
    """One import, from its beginning on."""

    def __init__(self, connection: sqlite3.Connection, filing: Filing, begin: Begin, shards: int) -> None:
        self._execute, self._filing, self._begin, self._shards = connection.execute, filing, begin, shards
        self._reader = ShardReader(connection)
        self._rooms: dict[int, _Room] = {}  # by the sender's numbers
        self._floors: list[tuple[int, int, int]] = []  # room's number here, floor, marks_floor, as they were given
        self._last_room = 0
        self._last_chunk = (0, 0, 0)
        self._due = 0  # the lsn that the next row of places begins with; 0: any
        self._new_rooms = RowsOf(
            connection,
            "INSERT INTO room(id, site, channel, shard, generation, sequence, meta_n, ts, floor, bytes, marks_floor)",
            11,
        )
        self._new_chunks = RowsOf(
            connection, "INSERT INTO chunk(room, stream, first, last, first_ts, last_ts, wires)", 7
        )
        self._new_places = RowsOf(connection, "INSERT INTO place(shard, first, last, before, entries)", 5)
        self._tables = {
            part: RowsOf(connection, f"INSERT INTO {into}", columns) for part, (into, columns) in _TABLES.items()
        }

    def take(self, part: Part) -> Sequence[int]:
        """Fill in a part; gives the numbers of dedupe keys in it.

        Raises:
            CorruptEntry: It is not what may come.
            sqlite3.IntegrityError: It names something twice.
        """
        match part:
            case Rooms():
                self._take_rooms(part)
            case Values() | Marks() | Removed() | Cleared() | Restored() | Edits():
                self._take_table(part)
            case Chunks():
                self._new_chunks.insert([value for room, wires in part.rows for value in self._chunk(room, wires)])
            case Places():
                self._take_places(part)
            case Keys():
                records = tagged(part.records, self._begin.shard)
                self._filing.keys.add(list(records), part.newest)
                self._filing.keys.step(len(records))
                return [key_number(record) for record in records]
            case Begin() | End():
                raise BrokenInvariant(f"{part!r} is no part of a snapshot's tables")
        return ()

    # -- parts ---------------------------------------------------------------------------------------------------

    def _room(self, number: int) -> _Room:
        found = self._rooms.get(number)
        if found is None:
            raise CorruptEntry(f"a snapshot's part names room number {number}, which was not given")
        return found

    def _take_rooms(self, part: Rooms) -> None:
        rows: list[Any] = []
        for number, site, channel, generation, sequence, meta_n, ts, floor, marks_floor in part.rows:
            room = RoomId(site, channel)
            if number <= self._last_room or shard_of(room, self._shards) != self._begin.shard:
                raise CorruptEntry(f"a snapshot of shard {self._begin.shard} has room {channel!r}, number {number}")
            self._last_room = number
            here = self._filing.new_room()
            self._rooms[number] = _Room(here, room, sequence, meta_n)
            self._floors.append((here, floor, marks_floor))
            rows += (here, site, channel, self._begin.shard, generation, sequence, meta_n, ts, floor, 0, marks_floor)
        self._new_rooms.insert(rows)

    def _take_table(self, part: Table) -> None:
        values: list[Any] = []
        for room, *rest in part.rows:
            values += (self._room(room).number, *rest)
        self._tables[type(part)].insert(values)

    def _chunk(self, room: int, wires: bytes) -> tuple[int, int, int, int, int, int, bytes]:
        """The row of a chunk, all of whose entries are what they should be."""
        shard = self._begin.shard
        entries = [decode(wire, None) for wire in split(wires)]
        if not entries:
            raise CorruptEntry(f"a chunk of room number {room} is empty")
        first, last = entries[0], entries[-1]
        stream = _stream(first)
        if stream == EPOCHS:
            number, name, end = -1 - shard, RoomId("", ""), self._begin.lsn
        else:
            number, name, sequence, meta_n = self._room(room)
            end = sequence if stream == VISIBLE else meta_n
        due = _place(first)
        for place, entry in enumerate(entries, due):
            of = (entry.shard, entry.room, _stream(entry), _place(entry))
            if of != (shard, name, stream, place) or not 1 <= entry.lsn <= self._begin.lsn or not 1 <= place <= end:
                raise CorruptEntry(f"a chunk of {name.channel!r} has {entry!r} where {place} is due")
        chunk = (room or 1 << 62, int(stream != VISIBLE), due)
        if chunk <= self._last_chunk:
            raise CorruptEntry(f"a chunk of {name.channel!r} comes out of its order, with {first!r}")
        self._last_chunk = (*chunk[:2], _place(last))
        return number, stream, due, _place(last), first.ts, last.ts, wires

    def _take_places(self, part: Places) -> None:
        shard = self._begin.shard
        rows: list[Any] = []
        for first, last, before, entries in part.rows:
            if not max(self._due, 1) <= first <= last <= self._begin.lsn:
                raise CorruptEntry(f"a snapshot has places {first} to {last} where {self._due} is due")
            if self._due < first:  # what came before was dropped meanwhile where it comes from
                self._execute("DELETE FROM place WHERE shard=?", (shard,))
                rows.clear()
            rows += (shard, first, last, before, self._placed(first, last, entries))
            self._due = last + 1
        self._new_places.insert(rows)

    def _placed(self, first: int, last: int, entries: bytes) -> bytes:
        """Places with the numbers that rooms have here."""
        if not entries:
            return b""
        try:
            listed = _decode_places(entries)
        except msgspec.MsgspecError as error:
            raise CorruptEntry(f"a snapshot's places {first} to {last} can't be read: {error}") from error
        if len(listed) != last - first + 1:
            raise CorruptEntry(f"a snapshot has {len(listed)} places for lsn {first} to {last}")
        epochs = -1 - self._begin.shard
        placed = []
        for room, place, kind in listed:
            if kind not in _KINDS or (kind == Kind.EPOCH) != (room == epochs):
                raise CorruptEntry(f"a snapshot's places {first} to {last} have kind {kind} in room number {room}")
            placed.append((room if room == epochs else self._room(room).number, place, kind))
        return _encode_places(placed)

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self, token: object, end: Callable[[ShardTail], None]) -> _Job:
        """Say of rooms what is not here, compare what is with the chain, and let it be the shard's log.

        Raises:
            CorruptEntry: Something is not what was written.
        """
        shard, lsn, chain = self._begin.shard, self._begin.lsn, self._begin.chain
        for at in range(0, len(self._floors), SETTLED_AT_ONCE):
            for room in self._floors[at : at + SETTLED_AT_ONCE]:
                self._settle(*room)
            yield False
        row = self._execute("SELECT first, before FROM place WHERE shard=? ORDER BY first LIMIT 1", (shard,)).fetchone()
        floor, floor_chain = (row[0] - 1, row[1]) if row is not None else (lsn, chain)
        at = floor
        while at < lsn:
            at = self._reader.check_row(shard, at + 1, lsn, chain)  # up to 256 entries
            yield False
        yield True
        self._execute(
            "UPDATE shard SET lsn=?, chain=?, commit_lsn=?, floor=?, floor_chain=? WHERE shard=?",
            (lsn, chain, lsn, floor, floor_chain, shard),
        )
        self._execute("DELETE FROM importing WHERE shard=?", (shard,))
        (promised,) = self._execute("SELECT promised FROM shard WHERE shard=?", (shard,)).fetchone()
        tail = ShardTail(shard, lsn, chain, promised, lsn, chain)
        end(tail)
        return SnapshotTaken(token, tail)

    def _settle(self, room: int, floor: int, marks_floor: int) -> None:
        """Raise a room's floors to where what is here begins, and count what is."""
        sequence, meta_n = self._execute("SELECT sequence, meta_n FROM room WHERE id=?", (room,)).fetchone()
        query = "SELECT id, first, last FROM chunk WHERE room=? AND stream IN (?,?) ORDER BY first"
        due = sequence + 1
        for number, first, last in reversed(self._execute(query, (room, VISIBLE, VISIBLE)).fetchall()):
            if last == due - 1:
                due = first
            else:  # retention dropped what came between, where it comes from
                self._execute("DELETE FROM chunk WHERE id=?", (number,))
        before = 0
        for _, first, last in [*self._execute(query, (room, META, MARKS)), (0, meta_n + 1, 0)]:
            if first > before + 1:
                marks_floor = max(marks_floor, first - 1)
            before = last
        self._execute(
            "UPDATE room SET floor=?, marks_floor=?, marks=(SELECT count(*) FROM mark WHERE room=room.id),"
            " bytes=(SELECT total(length(wires)) FROM chunk WHERE chunk.room=room.id) WHERE id=?",
            (max(floor, due - 1), marks_floor, room),
        )


def _stream(entry: Entry) -> int:
    return VISIBLE if entry.kind <= LAST_VISIBLE else _STREAMS[entry.kind]


def _place(entry: Entry) -> int:
    if entry.kind <= LAST_VISIBLE:
        return entry.sequence
    return entry.lsn if entry.kind == Kind.EPOCH else entry.meta_n


class Imports:
    """The imports under way.

    Args:
        connection: The writer's; a transaction is open whenever `step` is called.
        filing: Gives rooms their numbers, and has the dedupe keys.
        committed: Up to where a shard's log is known to be committed here.
        begin: Called with a shard whose log begins anew, to forget what is known of it; gives the number of the next
            frame of the journal.
        end: Called with the end of a shard's log that is complete.
        shards: Over how many rooms are spread.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works on
        self, connection: sqlite3.Connection, filing: Filing, committed: Callable[[ShardId], int],
        begin: Callable[[ShardId], int], end: Callable[[ShardTail], None], shards: int,
    ) -> None:  # fmt: skip
        self._connection, self._execute, self._filing = connection, connection.execute, filing
        self._committed, self._begin, self._end, self._shards = committed, begin, end, shards
        self._waiting: deque[tuple[ShardId, bytes, object]] = deque()
        self._imports: dict[ShardId, _Import] = {}
        self._job: tuple[ShardId, object, _Job] | None = None
        self.is_last = False

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._waiting or self._job)

    def put(self, shard: ShardId, data: bytes, token: object) -> None:
        """Take a part."""
        self._waiting.append((shard, data, token))

    def step(self) -> SnapshotTaken | SnapshotRefused | None:
        """Do a slice; gives an answer when there is one."""
        if self._job is None:
            shard, data, token = self._waiting.popleft()
        else:
            shard, token, _ = self._job
            data = b""
        try:
            return self._take(shard, decode_part(data), token) if self._job is None else self._work(self._job[2])
        except (CorruptEntry, sqlite3.IntegrityError) as error:
            return self._refuse(shard, token, str(error))

    def _work(self, job: _Job) -> SnapshotTaken | SnapshotRefused | None:
        try:
            self.is_last = next(job)
        except StopIteration as end:
            self._job, self.is_last = None, False
            answer: SnapshotTaken | SnapshotRefused = end.value
            return answer
        return None

    def _take(self, shard: ShardId, part: Part, token: object) -> SnapshotTaken | SnapshotRefused | None:
        if isinstance(part, Begin):
            if part.shard != shard or part.lsn < self._committed(shard):
                reason = (
                    f"a snapshot of shard {part.shard} at lsn {part.lsn} comes for shard {shard}, which is committed"
                )
                return SnapshotRefused(token, f"{reason} up to {self._committed(shard)} here")
            self._start(shard, part, token)
            return None
        found = self._imports.get(shard)
        if found is None:
            return SnapshotRefused(token, f"a part of a snapshot of shard {shard} comes, and none has begun")
        if isinstance(part, End):
            del self._imports[shard]
            self._job = (shard, token, found.finish(token, self._end))
            return None
        return SnapshotTaken(token, None, found.take(part))

    def _start(self, shard: ShardId, begin: Begin, token: object) -> None:
        self._imports.pop(shard, None)
        self._execute("INSERT OR IGNORE INTO importing(shard) VALUES (?)", (shard,))
        self._execute(
            "INSERT INTO shard(shard, lsn, chain, promised, commit_lsn, since) VALUES (?,0,?,0,0,?) ON CONFLICT(shard)"
            " DO UPDATE SET lsn=0, chain=excluded.chain, commit_lsn=0, floor=0, floor_chain=NULL, looked=0,"
            " since=excluded.since",
            (shard, GENESIS, self._begin(shard)),
        )
        self._job = (shard, token, self._clear(shard, begin, token))

    def _clear(self, shard: ShardId, begin: Begin, token: object) -> _Job:
        """Drop what was here before."""
        wipe = Wipe(self._connection, shard)
        while wipe.step():
            yield False
        self._filing.forget_rooms()
        self._imports[shard] = _Import(self._connection, self._filing, begin, self._shards)
        return SnapshotTaken(token, None)

    def _refuse(self, shard: ShardId, token: object, reason: str) -> SnapshotRefused | None:
        """End an import that has begun, if it has, and drop what there is of it."""
        self._job, self.is_last = None, False
        row = self._execute("SELECT 1 FROM importing WHERE shard=?", (shard,)).fetchone()
        if row is None:
            return SnapshotRefused(token, reason)
        self._imports.pop(shard, None)
        self._job = (shard, token, self._give_up(shard, token, reason))
        return None

    def _give_up(self, shard: ShardId, token: object, reason: str) -> _Job:
        wipe = Wipe(self._connection, shard)
        while wipe.step():
            yield False
        self._filing.forget_rooms()
        self._execute("DELETE FROM importing WHERE shard=?", (shard,))
        return SnapshotRefused(token, reason)

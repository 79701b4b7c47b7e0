"""Filing: from the journal's order into the tables that reads use, in bulk and off the acknowledgement's path.

Each call files the next entries of some shards within the caller's transaction, so `shard.lsn` says exactly what is
filed, and a replay of the journal after a crash passes over it.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router.entry import MESSAGE, Entry, Kind
from router.errors import BrokenInvariant
from router.events import fingerprint
from router.ids import dedupe_key
from router.known_keys import KnownKeys, record, shard_tag
from router.log_rows import Rows
from router.log_schema import EPOCHS, MARKS, META, VISIBLE
from router.marks import marks_of
from router.removal_tables import RemovalTables
from router.room_values import changes_of, removes_history

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from router.ids import RoomId

CHUNK_ENTRIES: Final = 128
CHUNK_BYTES: Final = 65_536  # what a read of one entry may have to fetch and cut
PLACE_ENTRIES: Final = 256
PLACE_BYTES: Final = 1 << 20  # what a peer's read of one entry may have to fetch and hash
ROOM_IDS: Final = 100_000  # remembered; more are looked up again
MERGED_PER_KEY: Final = 6  # keys moved for each new one; a key is moved once for each level of runs
_AIMED: Final = frozenset({Kind.EDIT, Kind.REMOVED, Kind.RESTORED})

_encode = msgspec.msgpack.Encoder().encode


class Filing:
    """Writes entries into the tables.

    Args:
        connection: The writer's; a transaction is open whenever `file` is called.

    Attributes:
        keys: The dedupe keys on disk.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._execute = connection, connection.execute
        self._ids: dict[RoomId, int] = {}
        self._next_id = int(self._execute("SELECT max(id) FROM room").fetchone()[0] or 0) + 1
        self._chunks = Rows(connection, "INSERT INTO chunk(room, stream, first, last, first_ts, last_ts, wires)", 7)
        self._rooms = Rows(
            connection,
            "INSERT INTO room(id, site, channel, shard, generation, sequence, meta_n, ts, floor, bytes)",
            10,
            "ON CONFLICT(id) DO UPDATE SET sequence=excluded.sequence, meta_n=excluded.meta_n, ts=excluded.ts,"
            " bytes=bytes+excluded.bytes",
        )
        self._places = Rows(connection, "INSERT INTO place(shard, first, last, before, entries)", 5)
        self._shards = Rows(
            connection,
            "INSERT INTO shard(shard, lsn, chain, promised, commit_lsn)",
            5,
            "ON CONFLICT(shard) DO UPDATE SET lsn=excluded.lsn, chain=excluded.chain,"
            " commit_lsn=max(commit_lsn, excluded.commit_lsn)",
        )
        self._removals = RemovalTables(connection)
        into_mark = "INSERT INTO mark(room, user, sequence, ts)"
        self._new_marks = Rows(connection, into_mark, 4, "ON CONFLICT(room, user) DO NOTHING")
        self._marks = Rows(
            connection,
            into_mark,
            4,
            "ON CONFLICT(room, user) DO UPDATE SET sequence=excluded.sequence, ts=excluded.ts"
            " WHERE excluded.sequence>mark.sequence",
        )
        self.keys = KnownKeys(connection)

    def file(self, runs: Sequence[Sequence[Entry]], chains: dict[int, bytes]) -> list[int]:
        """File entries; gives the numbers of rooms whose history they remove, which is below their floors now.

        Args:
            runs: Entries of one shard each, dense, beginning behind what is filed.
            chains: By shard, the chain up to what is filed; brought up to date.

        Raises:
            BrokenInvariant: Entries of a shard or room aren't dense.
        """
        rooms: dict[RoomId, list[Entry]] = {}
        epochs: list[Entry] = []
        others: list[Entry] = []
        for run in runs:
            for entry in run:
                if entry.kind != MESSAGE:
                    if entry.kind == Kind.EPOCH:
                        epochs.append(entry)
                        continue
                    others.append(entry)
                of_room = rooms.get(entry.room)
                if of_room is None:
                    rooms[entry.room] = [entry]
                else:
                    of_room.append(entry)
        self._file_rooms(rooms, epochs)
        for entry in others:
            self._file_effect(entry)
        removing = [entry for entry in others if entry.kind == Kind.META and removes_history(entry)]
        for entry in removing:
            self._execute("UPDATE room SET floor=max(floor, ?) WHERE id=?", (entry.sequence, self._ids[entry.room]))
        self._file_places(runs, chains)
        self._file_keys(runs)
        return [self._ids[entry.room] for entry in removing]

    def _file_rooms(self, rooms: dict[RoomId, list[Entry]], epochs: Iterable[Entry]) -> None:
        self._name_rooms(rooms)
        heads: list[Any] = []
        chunks: list[Any] = []
        for room, entries in rooms.items():
            number, last = self._ids[room], entries[-1]
            size = 0
            for stream, run in _cut(entries):
                wires = b"".join([entry.wire for entry in run])
                size += len(wires)
                chunks += (number, stream, *_span(stream, run), run[0].ts, run[-1].ts, wires)
            heads += (number, *room, last.shard, 1, last.sequence, last.meta_n, last.ts, 0, size)
        for entry in epochs:
            chunks += (
                _epoch_room(entry.shard), EPOCHS, entry.lsn, entry.lsn, entry.ts, entry.ts, entry.wire
            )  # fmt: skip
        self._rooms.insert(heads)
        self._chunks.insert(chunks)

    def _file_effect(self, entry: Entry) -> None:
        """File what an entry does to others, in the order of their room."""
        room = self._ids[entry.room]
        if entry.kind in _AIMED:
            self._removals.file(room, entry)
        elif entry.kind == Kind.META:
            for name, value in changes_of(entry).items():
                if value is None:
                    self._execute("DELETE FROM state WHERE room=? AND name=?", (room, name))
                else:
                    self._execute("INSERT OR REPLACE INTO state(room, name, value) VALUES (?,?,?)", (room, name, value))
        elif entry.kind == Kind.MARKS:
            self._file_marks(room, entry)

    def _file_marks(self, room: int, entry: Entry) -> None:
        rows = [value for user, mark in marks_of(entry).items() for value in (room, user, mark, entry.ts)]
        before = self._connection.total_changes
        self._new_marks.insert(rows)
        added = self._connection.total_changes - before
        self._marks.insert(rows)
        if added:
            self._execute("UPDATE room SET marks=marks+? WHERE id=?", (added, room))

    def _file_places(self, runs: Sequence[Sequence[Entry]], chains: dict[int, bytes]) -> None:
        ids = self._ids
        places: list[Any] = []
        ends: list[Any] = []
        for entries in runs:
            shard = entries[0].shard
            for run in _cut_places(entries):
                listed: list[tuple[int, int, int]] = []
                for entry in run:
                    if entry.kind <= Kind.SYSTEM:
                        listed.append((ids[entry.room], entry.sequence, entry.kind))
                    elif entry.kind != Kind.EPOCH:
                        listed.append((ids[entry.room], entry.meta_n, entry.kind))
                    else:
                        listed.append((_epoch_room(shard), entry.lsn, entry.kind))
                places += (shard, run[0].lsn, run[-1].lsn, chains[shard], _encode(listed))
                chains[shard] = run[-1].chain
            last = entries[-1]
            if last.lsn - entries[0].lsn != len(entries) - 1:
                raise BrokenInvariant(f"shard {shard}: {len(entries)} entries from {entries[0]!r} to {last!r}")
            ends += (shard, last.lsn, last.chain, 0, last.lsn)
        self._places.insert(places)
        self._shards.insert(ends)

    def _file_keys(self, runs: Iterable[Sequence[Entry]]) -> None:
        records = []
        newest = 0
        for run in runs:
            tag = shard_tag(run[0].shard)
            for entry in run:
                if entry.cmid:
                    key = entry.key or dedupe_key(entry.room, entry.sender, entry.cmid)
                    records.append(record(key, tag | entry.sequence, fingerprint(entry.data)))
                    newest = max(newest, entry.ts)
        self.keys.add(records, newest)
        self.keys.step(len(records) * MERGED_PER_KEY)

    def new_room(self) -> int:
        """A number for a room that comes otherwise than by its first entry."""
        self._next_id += 1
        return self._next_id - 1

    def forget_rooms(self) -> None:
        """Rooms were dropped: look their numbers up again."""
        self._ids.clear()

    def _name_rooms(self, rooms: Iterable[RoomId]) -> None:
        known = self._ids
        if len(known) > ROOM_IDS:
            known.clear()
        for room in rooms:
            if room in known:
                continue
            row = self._execute("SELECT id FROM room WHERE site=? AND channel=?", room).fetchone()
            if row is None:
                known[room] = self._next_id
                self._next_id += 1
            else:
                known[room] = int(row[0])


def _cut(entries: list[Entry]) -> Iterator[tuple[int, list[Entry]]]:
    """Runs of a room's entries that become a chunk each, those of META and MARKS in chunks of their own.

    What is to be removed ends a chunk, so that it can be dropped without what follows.
    """
    visible = [entry for entry in entries if entry.kind <= Kind.SYSTEM]
    hidden = [entry for entry in entries if entry.kind > Kind.SYSTEM] if len(visible) < len(entries) else []
    floors = {entry.sequence for entry in hidden if entry.kind == Kind.META and removes_history(entry)}
    streams = groupby(hidden, key=lambda entry: MARKS if entry.kind == Kind.MARKS else META)
    for stream, of_stream in ((VISIBLE, visible), *((stream, list(run)) for stream, run in streams)):
        run: list[Entry] = []
        size = 0
        for entry in of_stream:
            size += len(entry.wire)
            if run and (size > CHUNK_BYTES or len(run) == CHUNK_ENTRIES or run[-1].sequence in floors):
                yield stream, run
                run, size = [], len(entry.wire)
            run.append(entry)
        if run:
            yield stream, run


def _cut_places(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Runs of a shard's entries that become a row of places each."""
    start = size = 0
    if sum([len(entry.wire) for entry in entries]) > PLACE_BYTES:
        for at, entry in enumerate(entries):
            size += len(entry.wire)
            if at > start and (size > PLACE_BYTES or at - start == PLACE_ENTRIES):
                yield entries[start:at]
                start, size = at, len(entry.wire)
    for first in range(start, len(entries), PLACE_ENTRIES):
        yield entries[first : first + PLACE_ENTRIES]


def _epoch_room(shard: int) -> int:
    """What stands in place of a room's number for the EPOCH entries of a shard: they belong to no room."""
    return -1 - shard


def _span(stream: int, run: Sequence[Entry]) -> tuple[int, int]:
    first, last = run[0], run[-1]
    span = (first.sequence, last.sequence) if stream == VISIBLE else (first.meta_n, last.meta_n)
    if span[1] - span[0] != len(run) - 1:
        raise BrokenInvariant(f"room {first.room}: {len(run)} entries from {first!r} to {last!r}")
    return span

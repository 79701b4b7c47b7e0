"""Exports of snapshots: what the tables hold of a shard at an lsn, part after part.

Small tables are read in one transaction and spooled to a file without a name, so that the write-ahead file is held up
for about a second at a hundred thousand rooms, however slow the learner is. What is large, the entries, their places
and the keys, is read afterwards by short reads: it only grows, which the lsn cuts off, and loses what retention drops,
which the learner sees by the gaps. The keys may have some of later entries, which the learner is given anyhow.
"""

from __future__ import annotations

import struct
from array import array
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Final

from router.entry import GENESIS
from router.known_keys import RECORD_BYTES, scan_shard
from router.log_schema import EPOCHS, MARKS, META, VISIBLE
from router.snapshot import (
    PART_BYTES,
    Begin,
    Chunks,
    Cleared,
    Edits,
    End,
    Keys,
    Marks,
    Places,
    Removed,
    Restored,
    Rooms,
    Values,
    encode,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from router.snapshot import Part

MOST_EXPORTS: Final = 4  # at once; beyond it the one that was asked for longest ago ends
MEMORY_BYTES: Final = 8 << 20  # of a spool; what exceeds it is in the file
ROWS_AT_ONCE: Final = 500
CHUNKS_AT_ONCE: Final = 4  # at most 64 KiB each, or one entry
PAGES_AT_ONCE: Final = 64  # of keys, about 80 each
ROW_BYTES: Final = 24  # of a row beside its texts, about

_LENGTH: Final = struct.Struct(">I")
_OF_SHARD: Final = " WHERE room IN (SELECT id FROM room WHERE shard=?)"
_TABLES: Final = (
    (Values, "SELECT room, name, value FROM state"),
    (Marks, "SELECT room, user, sequence, ts FROM mark"),
    (Removed, "SELECT room, target, sequence, ts, reason, erased FROM removed"),
    (Cleared, "SELECT room, author, first, sequence, ts, reason, reached FROM cleared"),
    (Restored, "SELECT room, target, sequence FROM restored"),
    (Edits, "SELECT room, sequence, target FROM edit"),
)
_ROOMS: Final = (
    "SELECT id, site, channel, generation, sequence, meta_n, ts, floor, marks_floor FROM room WHERE shard=? ORDER BY id"
)
_CHUNKS: Final = (
    "SELECT first, wires FROM chunk WHERE room=? AND stream IN (?,?) AND first>? AND last<=? ORDER BY first LIMIT ?"
)

_PLACE_AT: Final = (
    "SELECT first, last, before, entries FROM place WHERE shard=?1 AND first=(SELECT max(first) FROM place"
    " WHERE shard=?1 AND first<=?2)"
)
_PLACE_BEHIND: Final = "SELECT first, last, before, entries FROM place WHERE shard=? AND first>? ORDER BY first LIMIT 1"


class Exports:
    """The exports under way.

    Args:
        connection: Read-only; used by one thread.
        folder: For spools.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection, self._folder = connection, folder
        self._exports: dict[object, _Export] = {}

    def next(self, shard: int, export: object) -> bytes:
        """The next part of an export, which begins if it is not under way; nothing: the last one was given before.

        Args:
            shard: Of which shard.
            export: Its name, of the caller's choice.
        """
        under_way = self._exports.pop(export, None)
        if under_way is None:
            while len(self._exports) >= MOST_EXPORTS:
                self._exports.pop(next(iter(self._exports))).close()
            under_way = _Export(self._connection, shard, self._folder)
        self._exports[export] = under_way
        try:
            return next(under_way.parts, b"")
        except BaseException:
            self.end(export)
            raise

    def end(self, export: object) -> None:
        """Nobody asks for more of it."""
        under_way = self._exports.pop(export, None)
        if under_way is not None:
            under_way.close()

    def close(self) -> None:
        """End all."""
        for export in list(self._exports):
            self.end(export)


class _Export:
    def __init__(self, connection: sqlite3.Connection, shard: int, folder: Path) -> None:
        self._connection, self._execute, self._shard = connection, connection.execute, shard
        self._spool = SpooledTemporaryFile(MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed with the export
        self._rooms, self._sequences, self._meta_ns = array("q"), array("q"), array("q")
        self._lsn = self._floor = 0
        self.parts = self._parts()

    def close(self) -> None:
        """Give the spool back."""
        self._spool.close()

    def _parts(self) -> Iterator[bytes]:
        self._fill_spool()
        while length := self._spool.read(_LENGTH.size):
            yield self._spool.read(_LENGTH.unpack(length)[0])
        self._spool.close()
        yield from self._chunks()
        yield from self._places()
        yield from self._keys()
        yield encode(End())

    # -- of one moment -------------------------------------------------------------------------------------------

    def _fill_spool(self) -> None:
        self._execute("BEGIN")
        try:
            row = self._execute("SELECT lsn, chain, floor FROM shard WHERE shard=?", (self._shard,)).fetchone()
            self._lsn, chain, self._floor = row or (0, GENESIS, 0)
            self._put(Begin(self._shard, self._lsn, chain))
            cursor = self._execute(_ROOMS, (self._shard,))
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                self._rooms.extend([row[0] for row in rows])
                self._sequences.extend([row[4] for row in rows])
                self._meta_ns.extend([row[5] for row in rows])
                self._put(Rooms(rows))
            for part, query in _TABLES:
                self._put_rows(part, self._execute(query + _OF_SHARD, (self._shard,)))
        finally:
            self._execute("COMMIT")
        self._spool.seek(0)

    def _put_rows(
        self, part: type[Values | Marks | Removed | Cleared | Restored | Edits], cursor: sqlite3.Cursor
    ) -> None:
        rows = []
        size = 0
        for row in cursor:
            rows.append(row)
            size += ROW_BYTES + sum(len(value) for value in row if isinstance(value, str | bytes))
            if size >= PART_BYTES:
                self._put(part(rows))
                rows, size = [], 0
        if rows:
            self._put(part(rows))

    def _put(self, part: Part) -> None:
        data = encode(part)
        self._spool.write(_LENGTH.pack(len(data)) + data)

    # -- by short reads ------------------------------------------------------------------------------------------

    def _chunks(self) -> Iterator[bytes]:
        rows: list[tuple[int, bytes]] = []
        size = 0
        for row in self._all_chunks():
            if rows and size + len(row[1]) > PART_BYTES:
                yield encode(Chunks(rows))
                rows, size = [], 0
            rows.append(row)
            size += ROW_BYTES + len(row[1])
        if rows:
            yield encode(Chunks(rows))

    def _all_chunks(self) -> Iterator[tuple[int, bytes]]:
        for at, room in enumerate(self._rooms):
            for wires in self._chunks_of(room, (VISIBLE, VISIBLE), self._sequences[at]):
                yield room, wires
            for wires in self._chunks_of(room, (META, MARKS), self._meta_ns[at]):
                yield room, wires
        for wires in self._chunks_of(-1 - self._shard, (EPOCHS, EPOCHS), self._lsn):
            yield 0, wires

    def _chunks_of(self, room: int, streams: tuple[int, int], last: int) -> Iterator[bytes]:
        at = 0
        while True:
            rows = self._execute(_CHUNKS, (room, *streams, at, last, CHUNKS_AT_ONCE)).fetchall()
            for _, wires in rows:
                yield wires
            if len(rows) < CHUNKS_AT_ONCE:
                return
            at = rows[-1][0]

    def _places(self) -> Iterator[bytes]:
        rows: list[tuple[int, int, bytes, bytes]] = []
        size = 0
        at = self._floor
        while at < self._lsn and (row := self._place_behind(at)) is not None:
            rows.append(row)
            at = row[1]
            size += ROW_BYTES + len(row[3])
            if size >= PART_BYTES:
                yield encode(Places(rows))
                rows, size = [], 0
        if rows:
            yield encode(Places(rows))

    def _place_behind(self, at: int) -> tuple[int, int, bytes, bytes] | None:
        """The row that goes on behind a place, or where the log begins now if that is further on."""
        row = self._execute(_PLACE_AT, (self._shard, at + 1)).fetchone()
        if row is None or row[1] <= at:
            row = self._execute(_PLACE_BEHIND, (self._shard, at)).fetchone()
        if row is None or row[0] > self._lsn:
            return None
        first, last, before, entries = row
        if entries:
            return first, last, before, entries
        return max(first, at + 1), min(last, self._lsn), before, b""  # rows that are empty are joined meanwhile

    def _keys(self) -> Iterator[bytes]:
        records: list[bytes] = []
        newest = 0
        at: int | None = -1
        while at is not None:
            found, of_found, at = scan_shard(self._connection, self._shard, at, PAGES_AT_ONCE)
            records += found
            newest = max(newest, of_found)
            if len(records) * RECORD_BYTES >= PART_BYTES or (at is None and records):
                yield encode(Keys(newest, b"".join(records)))
                records, newest = [], 0

"""Short reads of the log's tables, on a read-only connection of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.entry import Entry, decode, split
from router.errors import CorruptEntry
from router.events import RoomRecord
from router.filing import CHUNK_ENTRIES
from router.known_keys import find_keys, scan_numbers
from router.log_schema import VISIBLE
from router.removal_tables import RemovalTables

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from router.events import History, KnownKey
    from router.ids import RoomId

CHUNKS_AT_ONCE: Final = 100  # rows of one statement; a long reader keeps checkpoints from finishing


class LogReader:
    """Answers questions from the tables.

    Args:
        connection: Read-only; used by one thread.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._execute = connection, connection.execute
        self._removals = RemovalTables(connection)

    def room(self, room: RoomId) -> RoomRecord:
        """The head of a room; of one that was never written, the beginning."""
        row = self._execute(
            "SELECT id, generation, sequence, meta_n, ts, floor FROM room WHERE site=? AND channel=?", room
        ).fetchone()
        if row is None:
            return RoomRecord(room)
        number, generation, sequence, meta_n, ts, floor = row
        values = self._execute("SELECT name, value FROM state WHERE room=?", (number,)).fetchall()
        return RoomRecord(room, generation, sequence, meta_n, ts, floor, dict(values))

    def mark(self, room: RoomId, user: str) -> int:
        """The sequence up to which a user has read a room; 0: the table has none."""
        row = self._execute(
            "SELECT sequence FROM mark WHERE room=(SELECT id FROM room WHERE site=? AND channel=?) AND user=?",
            (*room, user),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def keys(self, keys: Sequence[bytes]) -> list[KnownKey]:
        """Those of the dedupe keys that are known."""
        return find_keys(self._connection, keys)

    def key_numbers(self, after: int, pages: int) -> tuple[list[int], int | None]:
        """Numbers of known keys, see `known_keys.scan_numbers`."""
        return scan_numbers(self._connection, after, pages)

    def history(self, read: History) -> list[Entry]:
        """Visible entries of a room, as asked; those that the table says were removed are hidden.

        Raises:
            CorruptEntry: What is stored is not what was written.
        """
        self._execute("BEGIN")  # between two statements, retention might drop what the second is to go on with
        try:
            return self._history(read)
        finally:
            self._execute("COMMIT")

    def _history(self, read: History) -> list[Entry]:
        row = self._execute("SELECT id FROM room WHERE site=? AND channel=?", read.room).fetchone()
        if row is None:
            return []
        taken: list[Entry] = []
        left = read.max_bytes
        expected: int | None = None
        for wire in self._wires_back(row[0], read) if read.reverse else self._wires_on(row[0], read):
            entry = decode(wire, None)
            if read.since is not None and (
                entry.sequence >= read.since if read.reverse else entry.sequence <= read.since
            ):
                continue
            if entry.room != read.room or (expected is not None and entry.sequence != expected):
                raise CorruptEntry(f"{entry!r} stands where sequence {expected} of {read.room.channel} should")
            expected = entry.sequence + (-1 if read.reverse else 1)
            left -= len(wire)
            if len(taken) == read.limit or (left < 0 and taken):
                break
            taken.append(entry)
        return self._removals.show(row[0], taken)

    def _wires_on(self, room: int, read: History) -> Iterator[bytes]:
        since = read.since or 0
        row = self._execute(
            "SELECT max(first) FROM chunk WHERE room=? AND stream=? AND first<=?", (room, VISIBLE, since + 1)
        ).fetchone()
        first = row[0] or 0
        for most in _chunks_at_once(read):
            rows = self._execute(
                "SELECT last, wires FROM chunk WHERE room=? AND stream=? AND first>=? ORDER BY first LIMIT ?",
                (room, VISIBLE, first, most),
            ).fetchall()
            for _, wires in rows:
                yield from split(wires)
            if len(rows) < most:
                return
            first = rows[-1][0] + 1

    def _wires_back(self, room: int, read: History) -> Iterator[bytes]:
        before = read.since if read.since is not None else 1 << 62
        for most in _chunks_at_once(read):
            rows = self._execute(
                "SELECT first, wires FROM chunk WHERE room=? AND stream=? AND first<? ORDER BY first DESC LIMIT ?",
                (room, VISIBLE, before, most),
            ).fetchall()
            for _, wires in rows:
                yield from reversed(list(split(wires)))
            if not rows:
                return
            before = rows[-1][0]


def _chunks_at_once(read: History) -> Iterator[int]:
    """How many rows to fetch at a time: what a read needs if chunks are full, then more, as they may be small."""
    most = 1 + read.limit // CHUNK_ENTRIES
    while True:
        most = min(most, CHUNKS_AT_ONCE)
        yield most
        most *= 2

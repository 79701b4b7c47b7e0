"""Reads of one shard's log for peers, and of a room's hidden entries for edges: from the tables, then what waits.

What is read of the tables is compared with the chain before it is given: a row of places says the chain before its
first entry, so the row as a whole is read, and its end compared with what stands behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from router.completions import Dropped, MetaRun, ShardRun
from router.entry import GENESIS, LAST_VISIBLE, Entry, Kind, decode, erase, split
from router.errors import CorruptEntry
from router.log_schema import EPOCHS, MARKS, META, VISIBLE
from router.tail_reader import CHUNKS_OF, decode_places

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from router.ids import RoomId

CHUNKS_AT_ONCE: Final = 32  # rows of one statement; of a room's hidden entries

_STREAMS: Final = {int(Kind.META): META, int(Kind.MARKS): MARKS, int(Kind.EPOCH): EPOCHS}
_ERASABLE: Final = (int(Kind.MESSAGE), int(Kind.EDIT))  # what says something
_ROW: Final = (
    "SELECT first, last, before, entries FROM place WHERE shard=?1 AND first=(SELECT max(first) FROM place"
    " WHERE shard=?1 AND first<=?2)"
)


class _Row(NamedTuple):
    """A row of places.

    Attributes:
        first: The lsn of its first entry.
        last: And of its last.
        before: The chain before the first.
        listed: Where they are: the room's number, the place, the kind; empty, where all have gone.
    """

    first: int
    last: int
    before: bytes
    listed: Sequence[tuple[int, int, int]]


class _Run:
    """What was taken so far, up to `at`, within bounds."""

    def __init__(self, after: int, limit: int, max_bytes: int) -> None:
        self.wires: list[bytes] = []
        self.at = after
        self._limit, self._bytes = limit, max_bytes

    def take(self, entries: Sequence[Entry]) -> bool:
        """Take entries as far as the bounds allow; whether that was all of them."""
        for entry in entries:
            if entry.lsn != self.at + 1:
                raise CorruptEntry(f"of shard {entry.shard} lsn {entry.lsn} follows {self.at}")
            self._bytes -= len(entry.wire)
            if len(self.wires) == self._limit or (self.wires and self._bytes < 0):
                return False
            self.wires.append(entry.wire)
            self.at = entry.lsn
        return True


class ShardReader:
    """Answers peers and edges.

    Args:
        connection: Read-only; used by one thread.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def read(self, shard: int, after: int, limit: int, max_bytes: int, waiting: Sequence[Entry]) -> ShardRun | Dropped:
        """Committed entries of a shard above a place.

        Args:
            shard: The shard.
            after: The lsn of the place.
            limit: At most so many, >= 1.
            max_bytes: Stop before the sum of their bytes passes this; at least one is given.
            waiting: Of `Backlog.following`, at some moment before.

        Raises:
            CorruptEntry: What is stored is not what was written, or does not follow.
        """
        self._execute("BEGIN")  # places, chunks and floors must be of one moment
        try:
            return self._read(shard, after, _Run(after, limit, max_bytes), waiting)
        finally:
            self._execute("COMMIT")

    def _read(self, shard: int, after: int, run: _Run, waiting: Sequence[Entry]) -> ShardRun | Dropped:
        row = self._execute("SELECT lsn, chain, floor FROM shard WHERE shard=?", (shard,)).fetchone()
        filed, filed_chain, floor = row if row is not None else (0, GENESIS, 0)
        if after < floor:
            return Dropped(floor)
        chain = filed_chain if after == filed else b""
        while run.at < filed:
            places = self._find_row(shard, run.at + 1)
            entries = self._verified(shard, places, filed, filed_chain)
            skip = run.at + 1 - places.first
            if skip >= len(entries):
                return ShardRun(chain, run.wires) if run.wires else Dropped(places.last)
            if run.at == after:
                chain = entries[skip - 1].chain if skip else places.before
            if not run.take(entries[skip:]) or run.at < places.last:
                return ShardRun(chain, run.wires)  # the next read is told what has gone
        if waiting and waiting[0].lsn == after:
            chain = chain or waiting[0].chain
        run.take([entry for entry in waiting if entry.lsn > run.at])
        return ShardRun(chain, run.wires) if chain else ShardRun(b"", ())

    def check_row(self, shard: int, lsn: int, filed: int, filed_chain: bytes) -> int:
        """Compare the row with the place of an lsn with the chain, as far as its entries are here; gives its last lsn.

        Args:
            shard: The shard.
            lsn: The lsn.
            filed: The last lsn that has a place.
            filed_chain: The chain up to it.

        Raises:
            CorruptEntry: What is stored is not what was written.
        """
        row = self._find_row(shard, lsn)
        self._verified(shard, row, filed, filed_chain)
        return row.last

    def _find_row(self, shard: int, lsn: int) -> _Row:
        row = self._execute(_ROW, (shard, lsn)).fetchone()
        if row is None or row[1] < lsn:
            raise CorruptEntry(f"of shard {shard} the place of lsn {lsn} is missing")
        first, last, before, entries = row
        try:
            listed = decode_places(entries) if entries else []
        except msgspec.MsgspecError as error:
            raise CorruptEntry(f"the places of shard {shard} up to lsn {last} can't be read: {error}") from error
        if entries and len(listed) != last - first + 1:
            raise CorruptEntry(f"of shard {shard} there are {len(listed)} places for lsn {first} to {last}")
        return _Row(first, last, before, listed)

    def _verified(self, shard: int, row: _Row, filed: int, filed_chain: bytes) -> list[Entry]:
        """The entries of a row, from its first on as far as none has gone, compared with the chain."""
        wires = self._wires(row.listed)
        chain, entries = row.before, []
        for lsn, wire in enumerate(wires, row.first):
            entry = decode(wire, chain)
            if (entry.shard, entry.lsn) != (shard, lsn):
                raise CorruptEntry(f"of shard {shard} lsn {lsn} is not where its place says: there is {entry!r}")
            entries.append(entry)
            chain = entry.chain
        if entries and entries[-1].lsn == row.last:
            following = self._execute("SELECT before FROM place WHERE shard=? AND first=?", (shard, row.last + 1))
            expected = filed_chain if row.last == filed else next((before for (before,) in following), None)
            if expected != chain:
                raise CorruptEntry(f"of shard {shard} the chain breaks behind lsn {row.last}")
        return entries

    def _wires(self, listed: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """The entries at places, until one that retention has dropped; of what was removed, the headers only."""
        places = [(room, VISIBLE if kind <= LAST_VISIBLE else _STREAMS[kind], place) for room, place, kind in listed]
        found = self._fetch(places)
        floors = self._floors({room for room, _, _ in places})
        wires: list[bytes] = []
        for place, (_, _, kind) in zip(places, listed, strict=True):
            number, stream, at = place
            wire = found.get(place)
            floor, marks_floor = floors.get(number, (0, 0))
            gone = at <= floor if stream == VISIBLE else stream == MARKS and at <= marks_floor
            if wire is None:
                if gone:
                    break
                raise CorruptEntry(f"entry {at} of room number {number} (stream {stream}) is missing")
            wires.append(erase(wire) if gone and kind in _ERASABLE else wire)
        return wires

    def _fetch(self, places: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int, int], bytes]:
        wanted = set(places)
        spans: dict[tuple[int, int], list[int]] = {}
        for room, stream, place in places:
            span = spans.setdefault((room, stream), [room, stream, place, place])
            span[3] = place
        found: dict[tuple[int, int, int], bytes] = {}
        rows = self._execute(CHUNKS_OF, (msgspec.json.encode(list(spans.values())).decode(),))
        for _, room, stream, first, wires in rows:
            for place, wire in enumerate(split(wires), first):
                if (room, stream, place) in wanted:
                    found[room, stream, place] = wire
        return found

    def _floors(self, rooms: set[int]) -> dict[int, tuple[int, int]]:
        rows = self._execute(
            "SELECT id, floor, marks_floor FROM room WHERE id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(sorted(rooms)).decode(),),
        )
        return {number: (floor, marks_floor) for number, floor, marks_floor in rows}

    # -- a room's hidden entries ---------------------------------------------------------------------------------

    def hidden(self, room: RoomId, after: int, limit: int, waiting: Sequence[Entry]) -> MetaRun:
        """META and MARKS entries of a room.

        Args:
            room: The room.
            after: The `meta_n` behind which to begin.
            limit: At most so many, >= 1.
            waiting: Of `Backlog.hidden`, at some moment before.

        Raises:
            CorruptEntry: What is stored is not what was written.
        """
        self._execute("BEGIN")
        try:
            return self._hidden(room, after, limit, waiting)
        finally:
            self._execute("COMMIT")

    def _hidden(self, room: RoomId, after: int, limit: int, waiting: Sequence[Entry]) -> MetaRun:
        row = self._execute("SELECT id, marks_floor FROM room WHERE site=? AND channel=?", room).fetchone()
        number, floor = row if row is not None else (0, 0)
        taken: list[Entry] = []
        at = after
        for wire in self._hidden_wires(number, after):
            entry = decode(wire, None)
            if entry.meta_n <= at:
                continue
            if entry.room != room or not (entry.meta_n == at + 1 or at < entry.meta_n - 1 <= floor):
                raise CorruptEntry(f"{entry!r} stands where META entry {at + 1} of {room.channel} should")
            if len(taken) == limit:
                break
            taken.append(entry)
            at = entry.meta_n
        for entry in waiting:
            if entry.meta_n == at + 1 and len(taken) < limit:
                taken.append(entry)
                at = entry.meta_n
        return MetaRun(taken, floor)

    def _hidden_wires(self, room: int, after: int) -> Iterator[bytes]:
        """Those of the chunks from the one on that has what follows a place; of both streams, in one order."""
        at = after
        while True:
            rows = self._execute(
                "SELECT last, wires FROM chunk WHERE room=? AND stream IN (?,?) AND last>? ORDER BY first LIMIT ?",
                (room, META, MARKS, at, CHUNKS_AT_ONCE),
            ).fetchall()
            for _, wires in rows:
                yield from split(wires)
            if len(rows) < CHUNKS_AT_ONCE:
                return
            at = rows[-1][0]

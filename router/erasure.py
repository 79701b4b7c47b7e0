"""Erasure: taking the texts of removed messages off the disk when their time is over, in slices.

Headers and chains stay, so the log still verifies. What a user's messages hide (`cleared`) is gone over chunk by
chunk, and its row dropped at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from router.entry import decode, erase, split
from router.log_schema import VISIBLE
from router.removal_tables import RemovalTables

if TYPE_CHECKING:
    import sqlite3

ERASED_AT_ONCE: Final = 16  # messages, each of whose entries costs a chunk that is written anew
CHUNKS_AT_ONCE: Final = 8  # of up to 128 entries, which are all decoded: some 10 ms

_WHOLE: Final = (  # a room that is being imported may get later what is to be erased
    "NOT EXISTS (SELECT 1 FROM room JOIN importing ON importing.shard=room.shard WHERE room.id=row.room)"
)
_CHUNK: Final = "SELECT id, first, last, wires FROM chunk WHERE room=? AND stream=?"


class _Cleared(NamedTuple):
    """A row of the table, about a user's messages of a room."""

    room: int
    author: bytes
    first: int
    sequence: int
    reached: int


class _Chunk(NamedTuple):
    number: int
    first: int
    last: int
    wires: bytes


class Erasure:
    """Erases what was removed.

    Args:
        connection: The writer's; a transaction is open whenever `step` is called.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._removals = RemovalTables(connection)

    def step(self, before_ms: int) -> bool:
        """Erase some of what was removed before a moment, in milliseconds since 1970; whether there was any.

        Raises:
            CorruptEntry: A chunk can't be read.
        """
        removed = self._execute(
            f"SELECT room, target FROM removed AS row WHERE NOT erased AND ts<? AND {_WHOLE} LIMIT ?",  # noqa: S608
            (before_ms, ERASED_AT_ONCE),
        ).fetchall()
        row = self._execute(
            f"SELECT room, author, first, sequence, reached FROM cleared AS row WHERE ts<? AND {_WHOLE} LIMIT 1",  # noqa: S608
            (before_ms,),
        ).fetchone()
        if not removed and row is None:
            return False
        for room, target in removed:
            self._erase_message(room, target)
        if row is not None:
            self._erase_cleared(_Cleared(*row))
        return True

    def _erase_message(self, room: int, target: int) -> None:
        edits = self._execute("SELECT sequence FROM edit WHERE room=? AND target=?", (room, target)).fetchall()
        for sequence in (target, *(sequence for (sequence,) in edits)):
            chunk = self._chunk_with(room, sequence)
            if chunk is not None:
                self._erase(room, chunk, {sequence})
        self._execute("UPDATE removed SET erased=1 WHERE room=? AND target=?", (room, target))

    def _erase_cleared(self, cleared: _Cleared) -> None:
        """Erase some of a user's messages and edits: first those before the removal, then late edits."""
        reached: int | None
        if cleared.reached < cleared.sequence:
            reached = self._erase_before(cleared)
        else:
            late = self._execute(
                "SELECT sequence FROM edit WHERE room=? AND sequence>? AND target>=? AND target<?"
                " ORDER BY sequence LIMIT ?",
                (cleared.room, cleared.reached, cleared.first, cleared.sequence, ERASED_AT_ONCE),
            ).fetchall()
            for (sequence,) in late:
                chunk = self._chunk_with(cleared.room, sequence)
                if chunk is not None:
                    self._erase_covered(cleared, chunk, sequence, sequence)
            reached = late[-1][0] if late else None
        key = (cleared.room, cleared.author, cleared.first)
        if reached is None:
            self._execute("DELETE FROM cleared WHERE room=? AND author=? AND first=?", key)
            self._removals.forget_restored(cleared.room)
        else:
            self._execute("UPDATE cleared SET reached=? WHERE room=? AND author=? AND first=?", (reached, *key))

    def _erase_before(self, cleared: _Cleared) -> int:
        """Erase in the next chunks; how far it is now."""
        start = self._chunk_with(cleared.room, cleared.reached)
        chunks = self._execute(
            _CHUNK + " AND first>=? AND first<? ORDER BY first LIMIT ?",
            (cleared.room, VISIBLE, start.first if start else cleared.reached, cleared.sequence, CHUNKS_AT_ONCE),
        ).fetchall()
        for chunk in map(_Chunk._make, chunks):
            self._erase_covered(cleared, chunk, cleared.first, cleared.sequence)
        return cleared.sequence if len(chunks) < CHUNKS_AT_ONCE else min(chunks[-1][2] + 1, cleared.sequence)

    def _erase_covered(self, cleared: _Cleared, chunk: _Chunk, first: int, last: int) -> None:
        """Erase those entries of a chunk, from the first to the last, that are hidden because of this removal."""
        entries = [decode(wire, None) for wire in split(chunk.wires)]
        own = [entry for entry in entries if first <= entry.sequence <= last and entry.info == cleared.author]
        removals = self._removals.of(cleared.room, own)
        covered = {
            entry.sequence
            for entry in own
            if (mark := removals.verdict(entry)) is not None and mark.sequence == cleared.sequence
        }
        if covered:
            self._erase(cleared.room, chunk, covered)

    def _chunk_with(self, room: int, sequence: int) -> _Chunk | None:
        row = self._execute(_CHUNK + " AND first<=? ORDER BY first DESC LIMIT 1", (room, VISIBLE, sequence)).fetchone()
        return None if row is None or row[2] < sequence else _Chunk(*row)

    def _erase(self, room: int, chunk: _Chunk, sequences: set[int]) -> None:
        wires = [erase(wire) if chunk.first + at in sequences else wire for at, wire in enumerate(split(chunk.wires))]
        erased = b"".join(wires)
        self._execute("UPDATE chunk SET wires=? WHERE id=?", (erased, chunk.number))
        self._execute("UPDATE room SET bytes=bytes-? WHERE id=?", (len(chunk.wires) - len(erased), room))

"""What was removed, as the disk keeps it: the tables that reads of the disk apply.

=========  ==========================================================================================
removed    by room and target: what REMOVED entries of one message hide, and whether it was erased
cleared    by room and author: the messages of a user that a REMOVED entry hides, from `first` on and
           before `sequence`; gone when all of them are erased, as then nothing has to be hidden
restored   by room and target: RESTORED entries of what is cleared
edit       by room and sequence: which message an EDIT entry is about
=========  ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.entry import Entry, Kind
from router.removal import Mark, Removal, Removals, aim_of, body_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

_REMOVED: Final = "SELECT target, sequence, ts, reason FROM removed WHERE room=?"
_RESTORED: Final = "SELECT target, sequence FROM restored WHERE room=?"
_CLEARED: Final = "SELECT author, first, sequence, ts, reason FROM cleared WHERE room=?"
_BETWEEN: Final = " AND target BETWEEN ? AND ?"


class RemovalTables:
    """Writes and reads the tables.

    Args:
        connection: The writer's, with a transaction open whenever something is written; or one that only reads.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    # -- filing --------------------------------------------------------------------------------------------------

    def file(self, room: int, entry: Entry) -> None:
        """File what an EDIT, REMOVED or RESTORED entry does to others, in the order of their room."""
        aim = aim_of(entry)
        if entry.kind == Kind.EDIT:
            self._execute("INSERT INTO edit(room, sequence, target) VALUES (?,?,?)", (room, entry.sequence, aim.target))
        elif entry.kind == Kind.RESTORED:
            self._execute("DELETE FROM removed WHERE room=? AND target=? AND NOT erased", (room, aim.target))
            self._execute(
                "INSERT OR REPLACE INTO restored(room, target, sequence) SELECT ?1, ?2, ?3 WHERE EXISTS"
                " (SELECT 1 FROM cleared WHERE room=?1 AND first<=?2 AND sequence>?2)",
                (room, aim.target, entry.sequence),
            )
        elif aim.user:  # of what is cleared again, the newer removal counts, and its time
            self._execute("DELETE FROM cleared WHERE room=? AND author=? AND first>=?", (room, aim.author, aim.since))
            self._execute(
                "INSERT INTO cleared(room, author, first, sequence, ts, reason, reached) VALUES (?,?,?,?,?,?,?)",
                (room, aim.author, aim.since, entry.sequence, entry.ts, aim.reason, aim.since),
            )
        else:
            self._execute(
                "INSERT OR REPLACE INTO removed(room, target, sequence, ts, reason, erased) VALUES (?,?,?,?,?,0)",
                (room, aim.target, entry.sequence, entry.ts, aim.reason),
            )

    def forget(self, room: int, floor: int) -> None:
        """Drop what is about messages up to a sequence, which are gone, unless edits of them are still there."""
        self._execute("DELETE FROM edit WHERE room=? AND sequence<=?", (room, floor))
        self._execute(
            "DELETE FROM removed WHERE room=? AND target<=? AND sequence<=?"
            " AND NOT EXISTS (SELECT 1 FROM edit WHERE edit.room=removed.room AND edit.target=removed.target)",
            (room, floor, floor),
        )
        self._execute(
            "DELETE FROM cleared WHERE room=? AND sequence<=? AND NOT EXISTS (SELECT 1 FROM edit"
            " WHERE edit.room=cleared.room AND edit.target>=cleared.first AND edit.target<cleared.sequence)",
            (room, floor),
        )
        self.forget_restored(room)

    def forget_restored(self, room: int) -> None:
        """Drop what says that messages were restored which nothing clears."""
        self._execute(
            "DELETE FROM restored WHERE room=? AND NOT EXISTS (SELECT 1 FROM cleared WHERE cleared.room=restored.room"
            " AND cleared.first<=restored.target AND cleared.sequence>restored.target)",
            (room,),
        )

    # -- reading -------------------------------------------------------------------------------------------------

    def of_room(self, room: int) -> Removals:
        """All that is removed and restored in a room."""
        removals = Removals()
        self._mark(removals, room, "", ())
        self._mark_authors(removals, self._execute(_CLEARED + " ORDER BY sequence", (room,)))
        return removals

    def show(self, room: int, entries: Sequence[Entry]) -> list[Entry]:
        """Entries of a room, neighbours in any order, as clients are shown them."""
        return self.of(room, entries).show_all([self._aimed(room, entry) for entry in entries])

    def of(self, room: int, entries: Sequence[Entry]) -> Removals:
        """What is removed and restored of these entries of a room."""
        removals = Removals()
        shown = [entry for entry in entries if entry.kind <= Kind.EDIT]
        if not shown:
            return removals
        ends = shown[0].sequence, shown[-1].sequence
        low, high = min(ends), max(ends)
        self._mark(removals, room, _BETWEEN, (low, high))
        for target in {body_of(entry) for entry in shown if entry.kind == Kind.EDIT}:
            if not low <= target <= high:
                self._mark(removals, room, _BETWEEN, (target, target))
        if self._execute("SELECT 1 FROM cleared WHERE room=? LIMIT 1", (room,)).fetchone() is not None:
            for author in {entry.info for entry in shown}:
                query = _CLEARED + " AND author=? ORDER BY sequence"
                self._mark_authors(removals, self._execute(query, (room, author)))
        return removals

    def _mark(self, removals: Removals, room: int, where: str, values: tuple[int, ...]) -> None:
        for target, sequence, ts, reason in self._execute(_REMOVED + where, (room, *values)):
            removals.mark(target, Mark(sequence, Removal(sequence, ts, reason)))
        for target, sequence in self._execute(_RESTORED + where, (room, *values)):
            removals.mark(target, Mark(sequence, None))

    @staticmethod
    def _mark_authors(removals: Removals, rows: Iterable[tuple[bytes, int, int, int, str]]) -> None:
        for author, first, sequence, ts, reason in rows:
            removals.mark_author(author, Mark(sequence, Removal(sequence, ts, reason), first))

    def _aimed(self, room: int, entry: Entry) -> Entry:
        """An erased edit with what it was about, which went with its body."""
        if entry.kind == Kind.EDIT and entry.erased:
            query = "SELECT target FROM edit WHERE room=? AND sequence=?"
            row = self._execute(query, (room, entry.sequence)).fetchone()
            entry.removal = Removal(0, 0, "", row[0] if row is not None else 0)
        return entry

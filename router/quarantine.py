"""The quarantine: what this disk had of a shard and its log has not, as another primary wrote others in their places.

Nobody was told that any of these entries was accepted. They are kept for an operator who looks for a message whose
outcome was unknown (`chat-node log export --quarantine`): the newest, up to a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.entry import decode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


class Quarantine:
    """Writes the table.

    Args:
        connection: The writer's; a transaction is open whenever `add` is called.
        most_bytes: The oldest go when there are more; 0: nothing is kept.
    """

    def __init__(self, connection: sqlite3.Connection, most_bytes: int) -> None:
        self._execute, self._most = connection.execute, most_bytes
        self._bytes = int(self._execute("SELECT total(length(wire)) FROM quarantine").fetchone()[0])
        self._trim()

    def add(self, wires: Iterable[bytes], now_ms: int) -> None:
        """Put entries aside, given as their canonical bytes; those that are there stay as they are.

        Args:
            wires: The entries, oldest first.
            now_ms: Milliseconds since 1970.

        Raises:
            CorruptEntry: One is none.
        """
        for wire in wires:
            entry = decode(wire, None)
            added = self._execute(
                "INSERT OR IGNORE INTO quarantine(shard, lsn, epoch, ts, wire) VALUES (?,?,?,?,?)",
                (entry.shard, entry.lsn, entry.epoch, now_ms, wire),
            ).rowcount
            self._bytes += len(wire) if added > 0 else 0
        self._trim()

    def _trim(self) -> None:
        """Drop the oldest beyond the bound."""
        last = 0
        for number, size in self._execute("SELECT id, length(wire) FROM quarantine ORDER BY id"):
            if self._bytes <= self._most:
                break
            last = number
            self._bytes -= size
        if last:
            self._execute("DELETE FROM quarantine WHERE id<=?", (last,))

"""Rows for one table, written with few statements.

Each step of a statement hands the interpreter's lock away and takes it again. Beside a busy loop every such turn may
cost a switch interval, so a statement per row would make the writer starve; a statement for up to 256 rows does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

SIZES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # rows of a statement; few texts, so that all stay prepared


class Rows:
    """Inserts rows of a fixed number of columns.

    Args:
        connection: The writer's.
        into: The statement up to its values: ``INSERT INTO table(columns)``.
        columns: How many values a row has.
        conflict: What follows the values.
    """

    __slots__ = ("_columns", "_connection", "_statements")

    def __init__(self, connection: sqlite3.Connection, into: str, columns: int, conflict: str = "") -> None:
        row = f"({','.join('?' * columns)})"
        self._connection, self._columns = connection, columns
        self._statements = [(size, f"{into} VALUES {','.join([row] * size)} {conflict}") for size in SIZES]

    def insert(self, values: Sequence[Any]) -> None:
        """Insert rows, given one after the other as a flat sequence of values."""
        columns, execute = self._columns, self._connection.execute
        at, rows = 0, len(values) // columns
        for size, statement in self._statements:
            while rows >= size:
                end = at + size * columns
                execute(statement, values[at:end])
                at, rows = end, rows - size

"""Rows of registers on this disk: those of the node's own register, and those of others that it has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from router.errors import CorruptEntry
from router.events import Configuration
from router.ids import MemberId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from router.ids import ShardId

REGISTER: Final = "register"
LEARNED: Final = "learned"

_COLUMNS: Final = "shard, version, epoch, primary_node, primary_disk, members"


def read_rows(connection: sqlite3.Connection, table: str) -> dict[ShardId, Configuration]:
    """The rows of a table, by shard.

    Raises:
        CorruptEntry: One can't be read.
    """
    found = {}
    for shard, version, epoch, node, disk, members in connection.execute(f"SELECT {_COLUMNS} FROM {table}"):  # noqa: S608
        try:
            listed = msgspec.json.decode(members, type=list[tuple[str, str]])
        except (msgspec.MsgspecError, TypeError) as error:
            raise CorruptEntry(f"its {table}'s row of shard {shard} can't be read: {error}") from error
        of_shard = tuple(MemberId(*member) for member in listed)
        found[shard] = Configuration(shard, version, epoch, MemberId(node, disk), of_shard)
    return found


def _put(connection: sqlite3.Connection, table: str, row: Configuration) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO {table}({_COLUMNS}) VALUES (?,?,?,?,?,?)",  # noqa: S608
        (row.shard, row.version, row.epoch, *row.primary, msgspec.json.encode(row.members).decode()),
    )


class OwnRegister:
    """This node's own register.

    Args:
        connection: The writer's; a transaction is open whenever `compare_and_set` is called.

    Raises:
        CorruptEntry: A row can't be read.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows = read_rows(connection, REGISTER)

    def compare_and_set(self, expected_version: int, new: Configuration) -> Configuration | None:
        """Put a row in force if that before it has this version; gives the row in force then, whoever won."""
        current = self._rows.get(new.shard)
        if (current.version if current else 0) != expected_version:
            return current
        _put(self._connection, REGISTER, new)
        self._rows[new.shard] = new
        return new


class Learned:
    """Rows of other registers: a hint for when this node starts again and nobody answers yet.

    Args:
        connection: The writer's; a transaction is open whenever `write` is called.

    Attributes:
        rows: The newest of each shard.
        waiting: Those of them that are not in the table yet.

    Raises:
        CorruptEntry: A row can't be read.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.rows = read_rows(connection, LEARNED)
        self.waiting: dict[ShardId, Configuration] = {}

    def note(self, rows: Iterable[Configuration]) -> None:
        """Take over rows that are newer than what is known of their shards."""
        for row in rows:
            known = self.rows.get(row.shard)
            if known is None or row.version > known.version:
                self.rows[row.shard] = self.waiting[row.shard] = row

    def write(self) -> None:
        """Write what waits."""
        for row in self.waiting.values():
            _put(self._connection, LEARNED, row)
        self.waiting.clear()

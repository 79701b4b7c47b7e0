"""What must hold of a log's database before it is used: a quick look at its tables, not a reading of all of it.

Entries and frames are verified when they are read; `chat-node log verify` reads all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from router.entry import HASH_BYTES, decode, split
from router.errors import CorruptEntry, StorageFault
from router.log_schema import PAGE_BYTES

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

TABLES: Final = (
    "meta", "journal", "register", "learned", "shard", "room", "chunk", "place", "run", "known", "quarantine",
    "importing",
)  # fmt: skip
KEYED: Final = ("removed", "cleared", "restored", "edit", "state", "mark")  # tables without a rowid
INDEXES: Final = {"room": "site, channel", "chunk": "room, stream, first", "place": "shard, first"}
KEY_BYTES: Final = 32  # of the secrets in meta
FRAME_BYTES: Final = PAGE_BYTES + 24  # of a page in the write-ahead file, https://sqlite.org/fileformat2.html#walformat


class LogMeta(NamedTuple):
    """What was made with the database.

    Attributes:
        birth: Of the cluster, in every stream epoch.
        disk_id: Of this database.
        pseudonym_key: Makes senders' pseudonyms.
        guest_key: Signs guests' ids.
    """

    birth: str
    disk_id: str
    pseudonym_key: bytes
    guest_key: bytes


def check_log(connection: sqlite3.Connection, path: Path, shards: int) -> LogMeta:
    """Look at the database as a whole, and at the ends of each table.

    Args:
        connection: To read with.
        path: The database file, for what is said of it.
        shards: Over how many rooms are spread now.

    Raises:
        CorruptEntry: Something is missing, or is not what was written.
        StorageFault: It was made for another number of shards.
        sqlite3.Error: It can't be read.
    """
    _check_size(connection, path)
    _check_schema(connection)
    rows = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    _check_shards(rows, path, shards)
    for table in TABLES:
        for order in ("ASC", "DESC"):
            connection.execute(f"SELECT * FROM {table} ORDER BY rowid {order} LIMIT 1").fetchall()  # noqa: S608
    for table in KEYED:
        for order in ("ASC", "DESC"):
            connection.execute(f"SELECT * FROM {table} ORDER BY room {order} LIMIT 1").fetchall()  # noqa: S608
    for table, columns in INDEXES.items():
        connection.execute(f"SELECT {columns} FROM {table} ORDER BY {columns} LIMIT 1").fetchall()  # noqa: S608
    _check_shard_rows(connection)
    _check_chunks(connection)
    return _read_meta(rows)


def _read_meta(rows: dict[str, bytes]) -> LogMeta:
    values: list[bytes] = []
    for key in LogMeta._fields:
        value = rows.get(key)
        if not isinstance(value, bytes) or (key.endswith("_key") and len(value) != KEY_BYTES):
            raise CorruptEntry(f"its table meta has no {key}, or not all of it")
        values.append(value)
    birth, disk, pseudonym_key, guest_key = values
    if not (birth.isalnum() and disk.isalnum()):
        raise CorruptEntry("a name in its table meta is not what was written")
    return LogMeta(birth.decode(), disk.decode(), pseudonym_key, guest_key)


def _check_size(connection: sqlite3.Connection, path: Path) -> None:
    """All pages are in the file, but for those that may still be in the write-ahead file."""
    pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
    size = path.stat().st_size
    ahead = path.with_name(f"{path.name}-wal")
    frames = ahead.stat().st_size // FRAME_BYTES if ahead.exists() else 0
    if pages - size // PAGE_BYTES > frames:
        raise CorruptEntry(f"it is {size} bytes long and has {pages} pages of {PAGE_BYTES} bytes")


def _check_schema(connection: sqlite3.Connection) -> None:
    """All tables and indexes are there."""
    found = connection.execute("SELECT type, tbl_name FROM sqlite_schema").fetchall()
    for kind, wanted in (("table", (*TABLES, *KEYED)), ("index", INDEXES)):
        missing = set(wanted) - {table for of, table in found if of == kind}
        if missing:
            raise CorruptEntry(f"its {kind} {', '.join(sorted(missing))} is missing")


def _check_shards(rows: dict[str, bytes], path: Path, shards: int) -> None:
    value = rows.get("shards")
    if not isinstance(value, bytes) or not value.isdigit():
        raise CorruptEntry("its table meta does not say the number of shards")
    made = int(value)
    if made != shards:
        raise StorageFault(
            "shards",
            f"{path} was made with log.shards = {made}, the configuration says {shards}. The number says where each"
            f" room's messages are, so it can't change: set log.shards = {made}, or give an empty --data-dir.",
        )


def _check_shard_rows(connection: sqlite3.Connection) -> None:
    columns = "shard, lsn, chain, promised, commit_lsn, floor, floor_chain"
    for shard, lsn, chain, promised, commit, floor, floor_chain in connection.execute(f"SELECT {columns} FROM shard"):  # noqa: S608
        numbers = all(isinstance(number, int) and number >= 0 for number in (lsn, promised, commit, floor))
        chains = all(isinstance(value, bytes) and len(value) == HASH_BYTES for value in (chain, floor_chain or chain))
        if not (numbers and chains and floor <= lsn):
            raise CorruptEntry(f"its row of shard {shard} can't be: lsn {lsn!r}, commit {commit!r}, floor {floor!r}")


def _check_chunks(connection: sqlite3.Connection) -> None:
    """The first and the last chunk are what was written."""
    for order in ("ASC", "DESC"):
        rows = connection.execute(f"SELECT id, wires FROM chunk ORDER BY id {order} LIMIT 1")  # noqa: S608
        for number, wires in rows.fetchall():
            try:
                for wire in split(wires):
                    decode(wire, None)
            except (CorruptEntry, TypeError, ValueError) as error:
                raise CorruptEntry(f"chunk {number}: {error}") from error

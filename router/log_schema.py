"""The log's database: how it is opened, its tables, and what became of them over time.

One connection writes, one makes checkpoints; readers open the file read-only. Tables, beside the journal, are filled by
filing (router/filing.py) and are what reads use:

==========  ============================================================================================
meta        the cluster's birth id, the disk's id, keys of this node, the number of shards; its cluster's certificate
journal     one frame per group commit; deleted when all its entries are filed
register    the configuration of each shard (this node's own register)
learned     rows of other registers that this node has learned: a hint, so that it knows its shards when it starts
shard       how far each shard's log is filed, its chain there, promises and commits; its floor, up to which its
            places are dropped, and the chain there; and since which frame of the journal it counts
room        the head of each room, the number of its marks, and up to where its MARKS entries are dropped
chunk       entries of one room, their canonical bytes one after the other
place       runs of a shard's log: which entry is where, and the chain before the run; empty, where all are dropped
run         runs of dedupe keys (router/known_keys.py)
known       pages of those runs: where a client's message was first written
removed     what was removed, see router/removal_tables.py; as are cleared, restored and edit
quarantine  entries that were truncated from shards' logs (router/quarantine.py), and when
importing   shards that are being filled from a snapshot (router/snapshot_import.py), and are not whole
state       by room and name: what META entries have set
mark        by room and user: up to which sequence the user has read (router/marks.py), and since when
==========  ============================================================================================
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING, Final

import sqlite_utils

from router.errors import StorageFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_NAME: Final = "log.sqlite3"
PAGE_BYTES: Final = 4096
MOST_WAL_BYTES: Final = 128 << 20  # to which the write-ahead file is cut when it begins anew
CACHE_KIB: Final = 32_768

VISIBLE: Final = 0  # of chunk.stream: entries that clients see, by sequence
META: Final = 1  # entries that they don't, by meta_n; with holes where those of MARKS are
EPOCHS: Final = 2  # EPOCH entries of a shard, by lsn; chunk.room is then -1 - shard
MARKS: Final = 3  # entries that say how far users have read, by meta_n


def _create(db: sqlite_utils.Database) -> None:
    db.table("meta").create({"key": str, "value": bytes}, pk="key")
    db.table("journal").create({"n": int, "frame": bytes}, pk="n")
    db.table("register").create(
        {"shard": int, "version": int, "epoch": int, "primary_node": str, "primary_disk": str, "members": str},
        pk="shard",
    )
    db.table("shard").create(
        {
            "shard": int, "lsn": int, "chain": bytes, "promised": int, "commit_lsn": int, "floor": int,
            "floor_chain": bytes,
        },
        pk="shard",
        defaults={"floor": 0},
        not_null={"lsn", "chain", "promised", "commit_lsn", "floor"},
    )  # fmt: skip
    db.table("room").create(
        {
            "id": int, "site": str, "channel": str, "shard": int, "generation": int, "sequence": int, "meta_n": int,
            "ts": int, "floor": int, "bytes": int,
        },
        pk="id",
    )  # fmt: skip
    db.table("room").create_index(["site", "channel"], unique=True)
    db.table("chunk").create(
        {
            "id": int, "room": int, "stream": int, "first": int, "last": int, "first_ts": int, "last_ts": int,
            "wires": bytes,
        },
        pk="id",
    )  # fmt: skip
    db.table("chunk").create_index(["room", "stream", "first"], unique=True)
    db.table("place").create(
        {"id": int, "shard": int, "first": int, "last": int, "before": bytes, "entries": bytes}, pk="id"
    )
    db.table("place").create_index(["shard", "first"], unique=True)
    db.table("run").create({"id": int, "level": int, "bits": int, "count": int, "newest": int, "state": int}, pk="id")
    db.table("known").create({"id": int, "records": bytes}, pk="id")
    for key, value in (
        ("birth", secrets.token_hex(4)),
        ("disk_id", secrets.token_hex(8)),
        ("pseudonym_key", secrets.token_bytes(32)),
        ("guest_key", secrets.token_bytes(32)),
    ):
        db.table("meta").insert({"key": key, "value": value.encode() if isinstance(value, str) else value})


def _add_removed(db: sqlite_utils.Database) -> None:
    execute = db.conn.execute
    execute(
        "CREATE TABLE removed(room INTEGER NOT NULL, target INTEGER NOT NULL, sequence INTEGER NOT NULL,"
        " ts INTEGER NOT NULL, reason TEXT NOT NULL, erased INTEGER NOT NULL, PRIMARY KEY(room, target)) WITHOUT ROWID"
    )
    execute("CREATE INDEX removed_due ON removed(ts) WHERE NOT erased")
    execute(
        "CREATE TABLE edit(room INTEGER NOT NULL, sequence INTEGER NOT NULL, target INTEGER NOT NULL,"
        " PRIMARY KEY(room, sequence)) WITHOUT ROWID"
    )
    execute("CREATE INDEX edit_target ON edit(room, target)")
    execute(
        "CREATE TABLE state(room INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(room, name))"
        " WITHOUT ROWID"
    )


def _add_cleared(db: sqlite_utils.Database) -> None:
    execute = db.conn.execute
    execute(
        "CREATE TABLE cleared(room INTEGER NOT NULL, author BLOB NOT NULL, first INTEGER NOT NULL,"
        " sequence INTEGER NOT NULL, ts INTEGER NOT NULL, reason TEXT NOT NULL, reached INTEGER NOT NULL,"
        " PRIMARY KEY(room, author, first)) WITHOUT ROWID"
    )
    execute("CREATE INDEX cleared_due ON cleared(ts)")
    execute(
        "CREATE TABLE restored(room INTEGER NOT NULL, target INTEGER NOT NULL, sequence INTEGER NOT NULL,"
        " PRIMARY KEY(room, target)) WITHOUT ROWID"
    )


def _add_marks(db: sqlite_utils.Database) -> None:
    execute = db.conn.execute
    execute(
        "CREATE TABLE mark(room INTEGER NOT NULL, user TEXT NOT NULL, sequence INTEGER NOT NULL, ts INTEGER NOT NULL,"
        " PRIMARY KEY(room, user)) WITHOUT ROWID"
    )
    execute("CREATE INDEX mark_age ON mark(room, ts)")
    for column in ("marks", "marks_floor"):
        execute(f"ALTER TABLE room ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE shard ADD COLUMN looked INTEGER NOT NULL DEFAULT 0")


def _add_members(db: sqlite_utils.Database) -> None:
    execute = db.conn.execute
    execute(
        "CREATE TABLE quarantine(id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, lsn INTEGER NOT NULL,"
        " epoch INTEGER NOT NULL, ts INTEGER NOT NULL, wire BLOB NOT NULL)"
    )
    execute("CREATE UNIQUE INDEX quarantine_entry ON quarantine(shard, lsn, epoch)")
    execute(
        "CREATE TABLE learned(shard INTEGER PRIMARY KEY, version INTEGER NOT NULL, epoch INTEGER NOT NULL,"
        " primary_node TEXT NOT NULL, primary_disk TEXT NOT NULL, members TEXT NOT NULL)"
    )


def _add_imports(db: sqlite_utils.Database) -> None:
    db.conn.execute("CREATE TABLE importing(shard INTEGER PRIMARY KEY)")
    db.conn.execute("ALTER TABLE shard ADD COLUMN since INTEGER NOT NULL DEFAULT 0")


MIGRATIONS: Final[tuple[Callable[[sqlite_utils.Database], None], ...]] = (
    _create, _add_removed, _add_cleared, _add_marks, _add_members, _add_imports,
)  # fmt: skip
"""Each takes the database from the version of its index to the next; none is ever changed once released."""


def open_writer(path: Path, *, synchronous: str, shards: int) -> sqlite3.Connection:
    """Open the one connection that writes, creating or migrating the database.

    Args:
        path: The database file.
        synchronous: ``FULL`` or ``OFF``, see SQLite's pragma.
        shards: Over how many the rooms of a database that is made now are spread.

    Raises:
        sqlite3.Error: It can't be opened.
        StorageFault: A newer version of this program made it.
    """
    connection = _connect(path)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"PRAGMA journal_size_limit={MOST_WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute("PRAGMA secure_delete=1")  # what is erased must not stay in unused bytes, nor in old frames
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StorageFault(
            "version",
            f"{path} has version {version} of the log's tables; this chat-node knows {len(MIGRATIONS)}."
            " Run a chat-node as new as the one that wrote it.",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[number](sqlite_utils.Database(connection))
        if number == 0:
            connection.execute("INSERT INTO meta(key, value) VALUES ('shards', ?)", (b"%d" % shards,))
        connection.execute(f"PRAGMA user_version={number + 1}")
        if connection.in_transaction:
            connection.execute("COMMIT")
    return connection


def open_checkpointer(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open a connection to make checkpoints with.

    Raises:
        sqlite3.Error: It can't be opened.
    """
    connection = _connect(path)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads.

    Raises:
        sqlite3.Error: It can't be opened.
    """
    connection = _connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.execute("PRAGMA query_only=1")
    return connection


def _connect(database: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """A connection that makes no checkpoints of its own accord: router/checkpointer.py does."""
    connection = sqlite3.connect(database, uri=uri, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection

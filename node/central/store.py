"""The central register on disk: the cluster's birth certificate, a row for each shard, and what requests were answered.

One process has the directory, one connection writes, and what is answered is on disk before (SQLite with a write-ahead
file and an fsync in each transaction). The first fault of the disk ends it: an fsync that failed is never tried again.

=========  ===========================================================================================
meta       the certificate, and how many sessions and reads there were
register   the configuration of each shard
session    of a node's process: its number, and up to which request answers are forgotten
answer     to requests of sessions
=========  ===========================================================================================
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import sqlite_utils

from router.errors import StorageFault
from router.log_lock import take_lock
from router.register_wire import SESSIONS, Certificate, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

FILE_NAME: Final = "register.sqlite3"
_RESTORE: Final = (
    "Make a new one from the logs of the nodes (`chat-node register rebuild`). A backup would lack the newest rows, and"
    " nodes that know newer ones refuse it."
)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: no such table
_ROW_COLUMNS: Final = "shard, version, epoch, members, primary_member"


class Session(NamedTuple):
    """A session of a node's process.

    Attributes:
        node: Whose.
        boot: The process.
        floor: Up to this number of its requests no answer is kept.
    """

    node: str
    boot: str
    floor: int


def _create(db: sqlite_utils.Database) -> None:
    db.table("meta").create({"key": str, "value": bytes}, pk="key")
    db.table("register").create(
        {"shard": int, "version": int, "epoch": int, "members": bytes, "primary_member": bytes},
        pk="shard",
        not_null={"version", "epoch", "members", "primary_member"},
    )
    db.table("session").create(
        {"number": int, "node": str, "boot": str, "address": str, "floor": int},
        pk="number",
        not_null={"node", "boot", "address", "floor"},
    )
    db.table("session").create_index(["node", "boot"], unique=True)
    db.conn.execute(
        "CREATE TABLE answer(session INTEGER NOT NULL, n INTEGER NOT NULL, results BLOB NOT NULL,"
        " PRIMARY KEY(session, n)) WITHOUT ROWID"
    )


MIGRATIONS: Final[tuple[Callable[[sqlite_utils.Database], None], ...]] = (_create,)
"""Each takes the database from the version of its index to the next; none is ever changed once released."""


class Store:
    """The central register of a data directory; made by `open`.

    All methods but `close` are called within `transaction`.

    Attributes:
        path: The database file.
        fault: Why it has halted.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self.fault: StorageFault | None = None
        self._connection, self._lock = connection, lock
        self._execute = connection.execute

    @classmethod
    def open(cls, folder: Path, *, durable: bool = True) -> Store:
        """Open the register in a data directory; blocks while it is verified.

        Args:
            folder: The data directory.
            durable: False: without fsync, for tests.

        Raises:
            StorageFault: There is none, another process has it, it is damaged, or the disk fails.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise StorageFault(
                "io",
                f"There is no register in {folder}: {path} is missing. Make one by `chat-node cluster init`, or give"
                " the --data-dir that has it.",
            )
        with _faults(path):
            lock = take_lock(folder)
            try:
                connection = _connect(path, durable=durable)
                try:
                    _migrate(connection, path)
                    store = cls(path, connection, lock)
                    store.check()
                except BaseException:
                    connection.close()
                    raise
            except BaseException:
                os.close(lock)
                raise
        return store

    def close(self) -> None:
        """Close the files."""
        with suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done within; on disk when it has ended.

        Raises:
            StorageFault: The disk has failed, now or before; nobody knows whether what was done within is on it.
        """
        if self.fault is not None:
            raise self.fault
        try:
            with _faults(self.path):
                self._execute("BEGIN IMMEDIATE")
                yield
                self._execute("COMMIT")
        except StorageFault as fault:
            self.fault = fault
            self._roll_back()
            raise
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._execute("ROLLBACK")

    def check(self) -> None:
        """Read all of it.

        Raises:
            StorageFault: It is not what was written.
        """
        found = self._execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StorageFault("corrupt", f"{self.path} is damaged: {found}. {_RESTORE}")
        self.certificate()
        self._number("sessions")
        self._number("reads")
        self.rows()
        for table in ("session", "answer"):
            self._execute(f"SELECT * FROM {table} LIMIT 1").fetchone()  # noqa: S608

    # -- the certificate -----------------------------------------------------------------------------------------

    def certificate(self) -> Certificate:
        """The cluster's."""
        value = self._value("certificate")
        try:
            return msgspec.msgpack.decode(value, type=Certificate)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(f"its certificate can't be read: {error}") from error

    def change_settings(self, copies: int, min_sync: int) -> Certificate:
        """An operator's change of the number of copies; gives the new certificate."""
        old = self.certificate()
        new = msgspec.structs.replace(old, copies=copies, min_sync=min_sync, settings=old.settings + 1)
        self._set("certificate", msgspec.msgpack.encode(new))
        return new

    # -- rows ----------------------------------------------------------------------------------------------------

    def row(self, shard: int) -> Row:
        """A shard's row; of version 0: there is none."""
        found = self._execute(f"SELECT {_ROW_COLUMNS} FROM register WHERE shard=?", (shard,)).fetchone()  # noqa: S608
        return Row(shard, 0, 0, []) if found is None else self._row(found)

    def rows(self, after: int = -1, limit: int = -1) -> list[Row]:
        """Rows of shards above `after`, by shard; at most `limit` of them (-1: all)."""
        found = self._execute(
            f"SELECT {_ROW_COLUMNS} FROM register WHERE shard>? ORDER BY shard LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return [self._row(row) for row in found]

    def put(self, row: Row) -> None:
        """Put a row in force."""
        _put(self._connection, row)

    def count_read(self) -> None:
        """Write something: a read that is acknowledged with a write shows what no later register will deny."""
        self._set("reads", b"%d" % (self._number("reads") + 1))

    def _row(self, found: tuple[int, int, int, bytes, bytes]) -> Row:
        shard, version, epoch, members, primary = found
        try:
            row = msgspec.convert(
                (shard, version, epoch, msgspec.json.decode(members), msgspec.json.decode(primary)), Row
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
            raise self._damaged(f"the row of shard {shard} can't be read: {error}") from error
        if row.primary not in row.members or not row.version:
            raise self._damaged(f"the row of shard {shard} can't be: {row}")
        return row

    # -- sessions and answers ------------------------------------------------------------------------------------

    def addresses(self) -> dict[str, str]:
        """Where the newest process of each node is answered."""
        found = self._execute("SELECT node, address FROM session ORDER BY number")
        return dict(found.fetchall())

    def open_session(self, node: str, boot: str, address: str) -> int:
        """The number of a process's session: of the one it has, or a new one; a node's oldest is forgotten for it."""
        found = self._execute("SELECT number FROM session WHERE node=? AND boot=?", (node, boot)).fetchone()
        if found is not None:
            return int(found[0])
        number = self._number("sessions") + 1
        self._set("sessions", b"%d" % number)
        self._execute(
            "INSERT INTO session(number, node, boot, address, floor) VALUES (?,?,?,?,0)", (number, node, boot, address)
        )
        old = self._execute(
            "SELECT number FROM session WHERE node=? ORDER BY number DESC LIMIT -1 OFFSET ?", (node, SESSIONS)
        ).fetchall()
        self._connection.executemany("DELETE FROM answer WHERE session=?", old)
        self._connection.executemany("DELETE FROM session WHERE number=?", old)
        return number

    def session(self, number: int) -> Session | None:
        """A session; None: it was never given out, or is forgotten."""
        found = self._execute("SELECT node, boot, floor FROM session WHERE number=?", (number,)).fetchone()
        return None if found is None else Session(*found)

    def answer(self, session: int, n: int) -> bytes | None:
        """What a request was answered."""
        found = self._execute("SELECT results FROM answer WHERE session=? AND n=?", (session, n)).fetchone()
        return None if found is None else bytes(found[0])

    def keep(self, session: int, n: int, results: bytes) -> None:
        """Keep what a request was answered."""
        self._execute("INSERT INTO answer(session, n, results) VALUES (?,?,?)", (session, n, results))

    def forget(self, session: int, floor: int) -> None:
        """Forget answers up to the request of this number."""
        self._execute("DELETE FROM answer WHERE session=? AND n<=?", (session, floor))
        self._execute("UPDATE session SET floor=? WHERE number=?", (floor, session))

    # -- values --------------------------------------------------------------------------------------------------

    def _number(self, key: str) -> int:
        value = self._value(key)
        if not value.isdigit():
            raise self._damaged(f"its table meta has no number under {key}")
        return int(value)

    def _value(self, key: str) -> bytes:
        found = self._execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        if found is None or not isinstance(found[0], bytes):
            raise self._damaged(f"its table meta has no {key}")
        return found[0]

    def _set(self, key: str, value: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?,?)", (key, value))

    def _damaged(self, what: str) -> StorageFault:
        return StorageFault("corrupt", f"{self.path} is damaged: {what}. {_RESTORE}")


def create(folder: Path, certificate: Certificate, rows: Iterable[Row], *, durable: bool = True) -> Path:
    """Make a register; gives its file, which is there as a whole or not at all.

    Args:
        folder: The data directory, which is made if it is missing.
        certificate: Of the cluster.
        rows: Of its shards.
        durable: False: without fsync, for tests.

    Raises:
        StorageFault: There is one, another process has the directory, or the disk fails.
    """
    path = folder / FILE_NAME
    part = folder / f"{FILE_NAME}.part"
    with _faults(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder)
        try:
            if path.exists():
                raise StorageFault(
                    "locked",
                    f"{path} exists: there is a register in {folder} already, and a second birth would make another"
                    " cluster of it. Give an empty --data-dir, or move the old one away.",
                )
            for old in folder.glob(f"{part.name}*"):
                old.unlink()
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))  # it holds secrets
            with closing(_connect(part, durable=durable)) as connection:
                _fill(connection, part, certificate, rows)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            part.replace(path)
            _sync(folder)
        finally:
            os.close(lock)
    return path


def look(folder: Path) -> tuple[Certificate, list[Row]]:
    """The certificate and all rows, whether the register runs or not.

    Raises:
        StorageFault: There is none, or it can't be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise StorageFault(
            "io", f"There is no register in {folder}: {path} is missing. Give the --data-dir of `chat-node central`."
        )
    with _faults(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5)
        with closing(connection):
            connection.execute("BEGIN")
            _check_version(connection, path)
            store = Store(path, connection, -1)
            return store.certificate(), store.rows()


def _fill(connection: sqlite3.Connection, path: Path, certificate: Certificate, rows: Iterable[Row]) -> None:
    _migrate(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    for key, value in (("certificate", msgspec.msgpack.encode(certificate)), ("sessions", b"0"), ("reads", b"0")):
        connection.execute("INSERT INTO meta(key, value) VALUES (?,?)", (key, value))
    for row in rows:
        _put(connection, row)
    connection.execute("COMMIT")


def _put(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO register({_ROW_COLUMNS}) VALUES (?,?,?,?,?)",  # noqa: S608
        (row.shard, row.version, row.epoch, msgspec.json.encode(row.members), msgspec.json.encode(row.primary)),
    )


def _connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StorageFault(
            "version",
            f"{path} has version {version} of the register's tables; this chat-node knows {len(MIGRATIONS)}."
            " Run a chat-node as new as the one that wrote it.",
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    for number in range(_check_version(connection, path), len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[number](sqlite_utils.Database(connection))
        connection.execute(f"PRAGMA user_version={number + 1}")
        if connection.in_transaction:
            connection.execute("COMMIT")


def _sync(folder: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Tell an operator what a failure of the disk means."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if primary in _DAMAGED:
            raise StorageFault("corrupt", f"{path} is damaged: {error}. {_RESTORE}") from error
        if primary == sqlite3.SQLITE_FULL:
            raise StorageFault("full", f"The disk of {path} is full. Free space on it, then start it again.") from error
        if primary in _BUSY:
            raise StorageFault("locked", f"Another program holds {path}: {error}. End it, then try again.") from error
        raise StorageFault(
            "io", f"{path} can't be written or read: {error!r}. Look at the disk (`dmesg`), then start it again."
        ) from error
    except OSError as error:
        raise StorageFault("io", f"{path} can't be used: {error}.") from error

"""Checkpoints beside the writer: the write-ahead file stays short, no two race, and a failure halts the log."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from typing_extensions import override

from router import checkpointer
from router.checkpointer import CHECKPOINT_BYTES, Checkpointer
from router.completions import Halted
from router.entry import GENESIS, Kind, make
from router.events import Batch
from router.ids import RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME, open_writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_SECONDS: Final = 20.0
LONG_BYTES: Final = 1 << 20
ROW_BYTES: Final = 64 << 10
NAME: Final = "log-checkpointer"


class Watched(Checkpointer):
    """Counts its checkpoints, and tells when it has dealt with a request."""

    def __init__(self, path: Path) -> None:
        self.made = 0
        self._dealt = threading.Semaphore(0)
        self.failures: list[Exception] = []
        super().__init__(path, "OFF", self.failures.append)

    @override
    def _checkpoint(self, connection: sqlite3.Connection) -> int:
        self.made += 1
        return super()._checkpoint(connection)

    @override
    def _keep_up(self) -> None:
        super()._keep_up()
        self._dealt.release()

    def ask(self) -> None:
        """Say that a transaction has written much, and wait until the request is dealt with."""
        self.wrote(CHECKPOINT_BYTES)
        assert self._dealt.acquire(timeout=WAIT_SECONDS)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_writer(tmp_path / FILE_NAME, synchronous="OFF", shards=1)) as connection:
        connection.execute("CREATE TABLE filler(data BLOB)")
        yield connection


@pytest.fixture
def watched(writer: sqlite3.Connection, tmp_path: Path) -> Iterator[Watched]:  # noqa: ARG001 - it makes the file
    made = Watched(tmp_path / FILE_NAME)
    yield made
    assert made.close(WAIT_SECONDS)
    assert made.failures == []


def write(watched: Watched, writer: sqlite3.Connection) -> None:
    watched.begins()
    writer.execute("INSERT INTO filler VALUES (zeroblob(?))", (ROW_BYTES,))


def lengths(watched: Watched, writer: sqlite3.Connection, folder: Path, *, helping: bool) -> list[int]:
    """Lengths of the write-ahead file under steady load: every checkpoint takes place while a transaction is open."""
    found = []
    for _ in range(100):
        writer.execute("BEGIN IMMEDIATE")
        write(watched, writer)
        watched.ask()
        writer.execute("COMMIT")
        watched.wrote(ROW_BYTES)
        if helping and watched.behind:
            watched.help(writer)
        found.append((folder / f"{FILE_NAME}-wal").stat().st_size)
    return found


def test_under_steady_writes_the_write_ahead_file_begins_anew_when_the_writer_helps(
    watched: Watched, writer: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "LONG_WAL_BYTES", LONG_BYTES)
    assert max(lengths(watched, writer, tmp_path, helping=True)) < 2 * LONG_BYTES
    assert not watched.behind
    assert max(lengths(watched, writer, tmp_path, helping=False)) > 5 * LONG_BYTES
    assert watched.behind


def test_nothing_is_checkpointed_twice(watched: Watched, writer: sqlite3.Connection) -> None:
    """SQLite might lose the transaction that begins the write-ahead file anew at the same moment."""
    write(watched, writer)
    watched.ask()
    assert watched.made == 1
    watched.ask()
    assert watched.made == 1
    write(watched, writer)
    watched.ask()
    assert watched.made == 2
    watched.begins()
    watched.help(writer)
    assert watched.made == 3
    watched.wrote(0)
    watched._asked.put(None)
    assert watched._dealt.acquire(timeout=WAIT_SECONDS)
    assert watched.made == 3


def test_a_transaction_that_had_begun_before_a_checkpoint_ended_asks_for_no_other(
    watched: Watched, writer: sqlite3.Connection
) -> None:
    """For it may be in that checkpoint as a whole."""
    write(watched, writer)
    watched.wrote(1)
    watched.begins()
    watched.help(writer)
    watched.ask()
    assert watched.made == 1


def test_the_writer_does_not_help_while_a_checkpoint_is_made(watched: Watched, writer: sqlite3.Connection) -> None:
    write(watched, writer)
    watched.behind = True
    with watched._one:
        watched.help(writer)
    assert (watched.made, watched.behind) == (0, True)
    watched.help(writer)
    assert (watched.made, watched.behind) == (1, False)


def test_closing_ends_the_thread_and_closes_its_connection(writer: sqlite3.Connection, tmp_path: Path) -> None:
    made = Watched(tmp_path / FILE_NAME)
    write(made, writer)
    made.wrote(CHECKPOINT_BYTES)
    assert made.close(WAIT_SECONDS)
    assert NAME not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(sqlite3.ProgrammingError):
        made._connection.execute("SELECT 1")


def test_closing_does_not_wait_longer_than_it_may(writer: sqlite3.Connection, tmp_path: Path) -> None:
    made = Watched(tmp_path / FILE_NAME)
    write(made, writer)
    with made._one:
        made.wrote(CHECKPOINT_BYTES)
        assert not made.close(0)
    assert made.close(WAIT_SECONDS)


def test_a_checkpoint_that_fails_halts_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Checkpointer, _connection: sqlite3.Connection) -> int:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    monkeypatch.setattr(checkpointer, "CHECKPOINT_BYTES", 1)
    monkeypatch.setattr(Checkpointer, "_checkpoint", fail)
    halted = threading.Event()
    log = Log.open(tmp_path, LogOptions(), lambda: halted.set() if log.fault else None)
    try:
        room = RoomId("default", "lobby")
        data = b'{"id":"1"}'
        entry = make(1, 1, 1, room, 1, 0, Kind.MESSAGE, b"s" * 12, "1", 1, b"salt" * 4, data, b"", GENESIS)
        log.append(Batch(1, entries=[entry]))
        assert halted.wait(WAIT_SECONDS)
        (answer,) = [answer for answer in log.completions if isinstance(answer, Halted)]
        assert answer.fault.reason == "io"
        assert str(tmp_path / FILE_NAME) in str(answer.fault)
    finally:
        log.close()

"""The central register on disk: made once, opened by one process, refused when it is not what was written."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from node.central import store as stores
from node.central.store import FILE_NAME, Store, create, look
from router.errors import StorageFault
from router.register_wire import SESSIONS, Certificate, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
A, B = ("a", "d1"), ("b", "d2")
ROWS = [Row(3, 7, 9, [A, B], B), Row(5, 1, 1, [A], A)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "central", CERTIFICATE, ROWS, durable=False)
    return tmp_path / "central"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = Store.open(folder, durable=False)
    yield opened
    opened.close()


def test_what_was_made_is_there(store: Store) -> None:
    with store.transaction():
        assert store.certificate() == CERTIFICATE
        assert store.rows() == ROWS
        assert store.rows(3) == ROWS[1:]
        assert store.rows(-1, 1) == ROWS[:1]
        assert store.row(3) == ROWS[0]
        assert store.row(4) == Row(4, 0, 0, [])


def test_a_register_is_not_made_over_another(folder: Path) -> None:
    with pytest.raises(StorageFault, match="there is a register in"):
        create(folder, CERTIFICATE, [], durable=False)
    assert look(folder) == (CERTIFICATE, ROWS)


def test_a_making_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.part").write_bytes(b"half")
    (tmp_path / f"{FILE_NAME}.part-wal").write_bytes(b"half")
    create(tmp_path, CERTIFICATE, ROWS, durable=False)
    assert look(tmp_path) == (CERTIFICATE, ROWS)
    assert {path.name for path in tmp_path.iterdir()} <= {FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", "lock"}


def test_others_cannot_read_its_secrets(folder: Path) -> None:
    assert os.stat(folder / FILE_NAME).st_mode & 0o077 == 0


def test_one_process_has_it_and_others_may_look(folder: Path, store: Store) -> None:
    with pytest.raises(StorageFault, match=f"in use by process {os.getpid()}"):
        Store.open(folder, durable=False)
    with store.transaction():
        store.put(Row(3, 8, 10, [A], A))
    assert look(folder)[1][0].version == 8


@pytest.mark.parametrize("action", [Store.open, look])
def test_where_there_is_none_it_says_so(tmp_path: Path, action: object) -> None:
    assert callable(action)
    with pytest.raises(StorageFault, match=f"There is no register in {tmp_path}"):
        action(tmp_path)


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.transaction():
            store.put(Row(3, 8, 10, [A], A))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.transaction():
        assert store.row(3) == ROWS[0]


def test_a_fault_of_the_disk_halts_it_for_good(store: Store) -> None:
    def write(shards: int) -> None:
        with store.transaction():
            for shard in range(shards):
                store.put(Row(shard + 100, 1, 1, [A] * 30, A))

    store._execute("PRAGMA max_page_count=1")
    with pytest.raises(StorageFault, match="is full"):
        write(1000)
    with pytest.raises(StorageFault, match="is full"):
        write(0)


def test_a_process_keeps_its_session_and_the_oldest_of_a_node_are_forgotten(store: Store) -> None:
    with store.transaction():
        numbers = [store.open_session("a", f"boot{number}", "tcp://a:1") for number in range(SESSIONS)]
        other = store.open_session("b", "boot0", "tcp://a:1")
        assert store.open_session("a", "boot3", "tcp://a:1") == numbers[3]
        for number in (numbers[0], numbers[1]):
            store.keep(number, 1, b"\x90")
    with store.transaction():
        newest = store.open_session("a", "another", "tcp://a:1")
        assert newest > other > max(numbers)
        assert store.session(numbers[0]) is None
        assert store.answer(numbers[0], 1) is None
        assert store.session(numbers[1]) == ("a", "boot1", 0)
        assert store.answer(numbers[1], 1) == b"\x90"
        assert store.open_session("a", "boot0", "tcp://a:1") > newest  # forgotten, so it is a new one


def test_a_node_is_answered_where_its_newest_process_is(store: Store) -> None:
    with store.transaction():
        for node, boot, address in (("a", "1", "tcp://a:1"), ("b", "1", "tcp://b:1"), ("a", "2", "tcp://a:2")):
            store.open_session(node, boot, address)
        assert store.addresses() == {"a": "tcp://a:2", "b": "tcp://b:1"}


def test_answers_are_forgotten_up_to_a_number(store: Store) -> None:
    with store.transaction():
        number = store.open_session("a", "boot", "tcp://a:1")
        for n in range(1, 6):
            store.keep(number, n, b"%d" % n)
        store.forget(number, 3)
        assert [store.answer(number, n) for n in range(1, 6)] == [None, None, None, b"4", b"5"]
        assert store.session(number) == ("a", "boot", 3)


def test_settings_change_and_nothing_else_does(store: Store) -> None:
    with store.transaction():
        new = store.change_settings(5, 3)
    assert new == msgspec.structs.replace(CERTIFICATE, copies=5, min_sync=3, settings=2)
    with store.transaction():
        assert store.certificate() == new


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM meta WHERE key='certificate'", "its table meta has no certificate"),
        ("UPDATE meta SET value=x'90' WHERE key='certificate'", "its certificate can't be read"),
        ("UPDATE meta SET value=7 WHERE key='certificate'", "its table meta has no certificate"),
        ("UPDATE meta SET value=x'41' WHERE key='sessions'", "no number under sessions"),
        ("UPDATE register SET members=x'7b' WHERE shard=3", "the row of shard 3 can't be read"),
        ("UPDATE register SET members='7' WHERE shard=3", "the row of shard 3 can't be read"),
        ("UPDATE register SET version=-1 WHERE shard=3", "the row of shard 3 can't be read"),
        ("UPDATE register SET version=0 WHERE shard=3", "the row of shard 3 can't be"),
        ("""UPDATE register SET primary_member='["c","d"]' WHERE shard=3""", "the row of shard 3 can't be"),
        ("DROP TABLE session", "no such table"),
        ("PRAGMA user_version=99", "version 99 of the register's tables"),
    ],
)
def test_what_is_not_what_was_written_is_refused(folder: Path, statement: str, why: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute(statement)
    with pytest.raises(StorageFault, match=why):
        Store.open(folder, durable=False).close()
    with pytest.raises(StorageFault, match=why):
        Store.open(folder, durable=False).close()  # and the lock is free again


def test_damaged_pages_are_found_when_it_is_opened(folder: Path) -> None:
    path = folder / FILE_NAME
    data = bytearray(path.read_bytes())
    data[4096 + 100 : 4096 * 2] = os.urandom(4096 - 100)
    path.write_bytes(data)
    with pytest.raises(StorageFault, match="is damaged"):
        Store.open(folder, durable=False).close()


def test_a_copy_is_whole_after_every_transaction(folder: Path, store: Store, tmp_path: Path) -> None:
    """What is in the files after a commit is what a kill at that moment would leave."""
    with store.transaction():
        store.put(Row(3, 8, 10, [A], A))
    shutil.copytree(folder, tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy" / FILE_NAME)) as connection:
        assert connection.execute("SELECT version FROM register WHERE shard=3").fetchone() == (8,)


def test_every_version_of_the_tables_is_made(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(stores.MIGRATIONS),)

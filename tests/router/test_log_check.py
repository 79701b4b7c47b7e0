"""What is damaged or does not fit is refused when the log is opened, with the file and the mend."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from router import log as log_module
from router.completions import CasDone, Filed, Persisted
from router.entry import GENESIS, SALT_BYTES, Entry, Kind, make
from router.errors import StorageFault
from router.events import Batch, Configuration, Promise
from router.ids import MemberId, RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME, PAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

ROOM: Final = RoomId("default", "lobby")
WAIT_SECONDS: Final = 20.0
ENTRIES: Final = 300  # several chunks


def entries() -> list[Entry]:
    made: list[Entry] = []
    for n in range(1, ENTRIES + 1):
        previous = made[-1].chain if made else GENESIS
        salt, data = bytes(SALT_BYTES), b'{"id":"%d"}' % n
        made.append(make(1, n, 1, ROOM, n, 0, Kind.MESSAGE, b"s" * 12, f"{n}", n, salt, data, b"", previous))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a log that is filed, and a row in its register."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)
    told = threading.Event()
    log = Log.open(tmp_path, LogOptions(durable=False), told.set)

    def wait(kind: type) -> None:
        while True:
            while log.completions:
                if isinstance(log.completions.popleft(), kind):
                    return
            assert told.wait(WAIT_SECONDS)
            told.clear()

    try:
        made = entries()
        log.append(Batch(1, [Promise(1, 1)], entries=made))
        wait(Persisted)
        log.committed(made)
        wait(Filed)
        member = MemberId("a", "1")
        log.cas(0, Configuration(1, 1, 1, member, (member,)), None)
        wait(CasDone)
    finally:
        log.close()
    return tmp_path


def reopen(folder: Path, shards: int = 128) -> None:
    Log.open(folder, LogOptions(durable=False, shards=shards), lambda: None).close()


def test_an_undamaged_log_is_opened(folder: Path) -> None:
    reopen(folder)
    reopen(folder)


def test_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    reopen(tmp_path, shards=16)
    with pytest.raises(
        StorageFault, match=r"made with log\.shards = 16, the configuration says 32\..*= 16, or"
    ) as found:
        reopen(tmp_path, shards=32)
    assert str(tmp_path / FILE_NAME) in str(found.value)
    reopen(tmp_path, shards=16)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP TABLE known", "its table known is missing"),
        ("DROP INDEX idx_chunk_room_stream_first", "its index chunk is missing"),
        ("DELETE FROM meta WHERE key='birth'", "its table meta has no birth"),
        ("DELETE FROM meta WHERE key='shards'", "does not say the number of shards"),
        ("UPDATE meta SET value=x'00' WHERE key='guest_key'", "its table meta has no guest_key, or not all of it"),
        ("UPDATE meta SET value=x'ff00' WHERE key='birth'", "a name in its table meta"),
        ("UPDATE meta SET value=7 WHERE key='guest_key'", "its table meta has no guest_key"),
        ("UPDATE register SET members='[['", "its register's row of shard 1 can't be read"),
        ("UPDATE register SET members='[1]'", "its register's row of shard 1 can't be read"),
        ("UPDATE shard SET lsn=-1", "its row of shard 1 can't be"),
        ("UPDATE shard SET chain=x'00'", "its row of shard 1 can't be"),
        ("UPDATE shard SET floor=1000", "its row of shard 1 can't be"),
        ("UPDATE chunk SET wires=zeroblob(40) WHERE id=1", "chunk 1: "),
        ("UPDATE chunk SET wires=CAST(substr(wires, 1, length(wires)-1)||x'00' AS BLOB) WHERE id=3", "chunk 3: "),
        ("UPDATE chunk SET wires=NULL WHERE id=3", "chunk 3: "),
    ],
)
def test_a_log_that_is_not_what_was_written_is_refused(folder: Path, statement: str, words: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute(statement)
    with pytest.raises(StorageFault) as found:
        reopen(folder)
    assert found.value.reason == "corrupt"
    assert str(folder / FILE_NAME) in str(found.value)
    assert words in str(found.value)
    assert "chat-node log verify" in str(found.value)
    assert "restore" in str(found.value)


def test_a_file_that_was_cut_off_is_refused(folder: Path) -> None:
    path = folder / FILE_NAME
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - PAGE_BYTES)
    with pytest.raises(StorageFault, match=r"is damaged: .*chat-node log verify") as found:
        reopen(folder)
    assert found.value.reason == "corrupt"


def test_a_file_that_was_cut_off_beside_its_write_ahead_file_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("UPDATE register SET version=2")
        copy.mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            shutil.copy(folder / name, copy / name)
    path = copy / FILE_NAME
    frames = (copy / f"{FILE_NAME}-wal").stat().st_size // PAGE_BYTES
    assert frames > 0
    whole = path.read_bytes()
    path.write_bytes(whole[: -PAGE_BYTES * (frames + 1)])
    with pytest.raises(StorageFault, match=rf"is damaged: it is {path.stat().st_size} bytes long and has .* pages"):
        reopen(copy)
    path.write_bytes(whole)
    reopen(copy)


@pytest.mark.parametrize("table", ["meta", "shard", "register", "room", "chunk", "place", "run", "known"])
def test_a_damaged_page_at_the_root_of_a_table_is_refused(folder: Path, table: str) -> None:
    path = folder / FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xff" * 100)
    with pytest.raises(StorageFault, match=r"is damaged: ") as found:
        reopen(folder)
    assert found.value.reason == "corrupt"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but a text that is long enough" * 100)
    with pytest.raises(StorageFault, match=r"is damaged: file is not a database") as found:
        reopen(tmp_path)
    assert found.value.reason == "corrupt"


def test_a_refused_directory_can_be_opened_once_it_is_mended(folder: Path) -> None:
    path = folder / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageFault, match="is damaged"):
        reopen(folder)
    for name in (f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
        (folder / name).unlink(missing_ok=True)
    path.write_bytes(whole)
    reopen(folder)

"""Looking into a log: what it holds, its faults, and its records."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router import journal
from router.entry import GENESIS, Entry, Kind
from router.errors import StorageFault
from router.events import Batch
from router.filing import Filing
from router.ids import RoomId
from router.log_audit import export, stat, verify
from router.log_schema import FILE_NAME, open_writer

CATS, DOGS = RoomId("default", "cats"), RoomId("other", "dogs")
SALT = bytes(range(16))
FILED = 300  # of each room, in one shard: several chunks and places


def entries(count: int, after: list[Entry]) -> list[Entry]:
    """So many entries of a shard, for two rooms in turn, with one that clients don't see after every tenth."""
    made = list(after)
    for _ in range(count):
        lsn = len(made) + 1
        room = CATS if lsn % 2 else DOGS
        before = [entry for entry in made[-40:] if entry.room == room]
        sequence, meta_n = (before[-1].sequence, before[-1].meta_n) if before else (0, 0)
        is_meta = lsn % 11 == 0
        made.append(
            Entry(
                7, lsn, 1, room, sequence + (not is_meta), meta_n + is_meta, Kind.META if is_meta else Kind.MESSAGE,
                b"s" * 12, f"m{lsn}", 1_700_000_000_000 + lsn, SALT, b'{"n":%d}' % lsn, b'"u1"',
                made[-1].chain if made else GENESIS,
            )
        )  # fmt: skip
    return made[len(after) :]


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(folder / FILE_NAME, synchronous="OFF")
    connection.execute("BEGIN")
    yield connection
    connection.execute("COMMIT")
    connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a log: most of it filed, the newest entries in the journal."""
    filed = entries(2 * FILED, [])
    unfiled = entries(20, filed)
    with writing(tmp_path) as connection:
        chains = {7: GENESIS}
        filing = Filing(connection)
        for start in range(0, len(filed), 130):
            filing.file([filed[start : start + 130]], chains)
        frame = journal.encode([Batch(1, entries=unfiled, commits={7: unfiled[-1].lsn})])
        connection.execute("INSERT INTO journal(n, frame) VALUES (1, ?)", (frame,))
    return tmp_path


def test_a_log_that_is_as_it_was_written_has_no_faults(folder: Path) -> None:
    report = verify(folder)
    assert report.faults == []
    assert (report.rooms, report.shards, report.entries, report.unfiled) == (2, 1, 2 * FILED, 20)


def test_the_log_is_counted(folder: Path) -> None:
    found = stat(folder)
    visible = [entry for entry in entries(2 * FILED, []) if entry.visible]
    assert (found.rooms, found.entries, found.unfiled, found.shards) == (2, len(visible), 20, 1)
    assert (found.oldest_ms, found.newest_ms) == (1_700_000_000_001, 1_700_000_000_620)
    assert {(room.site, room.channel) for room in found.largest} == {CATS, DOGS}
    assert found.bytes > 0


def test_an_export_has_every_visible_entry_in_each_rooms_order(folder: Path) -> None:
    records = list(export(folder))
    for room in (CATS, DOGS):
        told = [record for record in records if (record["site"], record["channel"]) == room]
        expected = [entry for entry in entries(2 * FILED + 20, []) if entry.room == room and entry.visible]
        assert [record["sequence"] for record in told] == list(range(1, len(expected) + 1))
        assert [record["data"]["n"] for record in told] == [entry.lsn for entry in expected]
        assert {record["info"] for record in told} == {"u1"}


@pytest.mark.parametrize(
    ("site", "channel", "rooms"),
    [(None, None, {CATS, DOGS}), ("other", None, {DOGS}), (None, "cats", {CATS}), ("other", "cats", set())],
)
def test_an_export_can_be_of_a_site_or_a_room(
    folder: Path, site: str | None, channel: str | None, rooms: set[RoomId]
) -> None:
    assert {(record["site"], record["channel"]) for record in export(folder, site, channel)} == rooms


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE chunk SET wires = substr(wires, 1, length(wires) - 1) WHERE id = 1", "room"),
        ("DELETE FROM chunk WHERE id = 3", "are missing"),
        ("UPDATE chunk SET first = first + 1, last = last + 1 WHERE id = 2", "missing"),
        ("UPDATE chunk SET room = 99 WHERE id = 2", "belong to no room"),
        ("UPDATE room SET sequence = sequence + 1 WHERE id = 1", "its head is"),
        ("UPDATE room SET channel = 'birds' WHERE id = 1", "is not that"),
        ("DELETE FROM place WHERE id = 2", "are missing"),
        ("UPDATE place SET before = zeroblob(16) WHERE id = 2", "the chain breaks"),
        ("UPDATE place SET entries = x'00' WHERE id = 2", "database file"),
        ("UPDATE shard SET lsn = lsn + 1", "it is filed to"),
        ("UPDATE shard SET chain = zeroblob(16)", "or differ"),
    ],
)
def test_damage_is_found(folder: Path, damage: str, words: str) -> None:
    with writing(folder) as connection:
        assert connection.execute(damage).rowcount == 1
    assert any(words in fault for fault in verify(folder).faults)


@pytest.mark.parametrize("at", [0, 3, 5, 30, 90, 201, -1])
@pytest.mark.parametrize(("table", "column", "key"), [("chunk", "wires", "id"), ("journal", "frame", "n")])
def test_a_byte_that_changed_is_found(folder: Path, table: str, column: str, key: str, at: int) -> None:
    with writing(folder) as connection:
        stored = bytearray(connection.execute(f"SELECT {column} FROM {table} WHERE {key} = 1").fetchone()[0])
        stored[at] ^= 1
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = 1", (bytes(stored),))
    assert verify(folder).faults


def test_entries_that_changed_places_are_found_by_the_chain(folder: Path) -> None:
    with writing(folder) as connection:
        rows = connection.execute("SELECT id, wires FROM chunk WHERE room = 1 AND stream = 0 ORDER BY first").fetchall()
        original = rows[0][1]
        forged = entries(1, [])[0]
        twin = Entry(
            7, 1, 1, CATS, 1, 0, Kind.MESSAGE, b"s" * 12, "m1", forged.ts, SALT, b'{"n":0}', b'"u1"', GENESIS
        )  # fmt: skip
        assert original.startswith(forged.wire)
        forgery = twin.wire + original[len(forged.wire) :]
        connection.execute("UPDATE chunk SET wires = ? WHERE id = ?", (forgery, rows[0][0]))
    assert any("chain" in fault for fault in verify(folder).faults)


def test_what_retention_dropped_is_no_fault(folder: Path) -> None:
    with writing(folder) as connection:
        number, last = connection.execute(
            "SELECT id, last FROM chunk WHERE room = 1 AND stream = 0 ORDER BY first LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM chunk WHERE id = ?", (number,))
        connection.execute("UPDATE room SET floor = ? WHERE id = 1", (last,))
    report = verify(folder)
    assert (report.faults, report.forgotten) == ([], last)
    assert next(export(folder, channel="cats"))["sequence"] == last + 1


def test_where_there_is_no_log_it_is_told(tmp_path: Path) -> None:
    for call in (verify, stat, lambda folder: list(export(folder))):
        with pytest.raises(StorageFault, match="There is no log"):
            call(tmp_path)


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(StorageFault, match="can't be read"):
        stat(tmp_path)

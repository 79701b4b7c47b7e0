"""What was removed, on disk: what reads give back, what goes with dropped entries, and logs of before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router import log_schema
from router.entry import SALT_BYTES, Entry, Kind, make
from router.ids import RoomId
from router.log_schema import open_writer
from router.removal import REMOVING, Removals
from router.removal_tables import RemovalTables

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

ROOM = 1


def entry(sequence: int, kind: Kind = Kind.MESSAGE, data: str = "{}", user: str = "u") -> Entry:
    return make(
        1, sequence, 1, RoomId("default", "r"), sequence, 0, kind, b"s" * 12, f"i{sequence}", 7, b"s" * SALT_BYTES,
        data.encode(), f'"{user}"'.encode(), b"",
    )  # fmt: skip


SAID = [
    entry(1),
    entry(2, user="v"),
    entry(3, Kind.EDIT, '{"target":1}'),
    entry(4, Kind.REMOVED, '{"target":2,"reason":"one"}'),
    entry(5),
    entry(6, Kind.REMOVED, '{"user":"u","since":2,"reason":"some"}'),
    entry(7, Kind.REMOVED, '{"user":"u","reason":"all"}'),
    entry(8, Kind.RESTORED, '{"target":5}'),
    entry(9, Kind.RESTORED, '{"target":2}'),
    entry(10, Kind.EDIT, '{"target":1}'),
    entry(11),
]
HIDDEN = {1: "all", 3: "all", 10: "all"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "log.sqlite3", synchronous="OFF", shards=1)
    yield connection
    connection.close()


def filed(connection: sqlite3.Connection) -> RemovalTables:
    tables = RemovalTables(connection)
    for each in SAID:
        if each.kind in REMOVING or each.kind == Kind.EDIT:
            tables.file(ROOM, each)
    return tables


def reasons(entries: list[Entry]) -> dict[int, str]:
    return {each.sequence: each.removal.reason for each in entries if each.removal is not None}


def rows(connection: sqlite3.Connection) -> dict[str, int]:
    tables = ("removed", "cleared", "restored", "edit")
    return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_the_disk_says_what_memory_says(connection: sqlite3.Connection) -> None:
    removals = Removals()
    for each in SAID:
        if each.kind in REMOVING:
            removals.note(each, 0)
    tables = filed(connection)
    assert reasons(tables.show(ROOM, SAID)) == HIDDEN
    assert reasons(removals.show_all(SAID)) == HIDDEN
    assert reasons(tables.of_room(ROOM).show_all(SAID)) == HIDDEN


@pytest.mark.parametrize("each", SAID, ids=repr)
def test_an_entry_is_shown_alone_as_among_others(connection: sqlite3.Connection, each: Entry) -> None:
    expected = {each.sequence: HIDDEN[each.sequence]} if each.sequence in HIDDEN else {}
    assert reasons(filed(connection).show(ROOM, [each])) == expected
    assert reasons(RemovalTables(connection).show(2, [each])) == {}, "another room is another matter"


def test_pages_in_reverse_are_shown_alike(connection: sqlite3.Connection) -> None:
    assert reasons(filed(connection).show(ROOM, SAID[::-1])) == HIDDEN


def test_what_a_newer_removal_covers_is_one_row(connection: sqlite3.Connection) -> None:
    filed(connection)
    assert rows(connection) == {"removed": 0, "cleared": 1, "restored": 2, "edit": 2}


@pytest.mark.parametrize(
    ("floor", "left"),
    [
        (2, {"removed": 0, "cleared": 1, "restored": 2, "edit": 2}),
        (9, {"removed": 0, "cleared": 1, "restored": 2, "edit": 1}),  # a late edit of a message that is gone
        (10, {"removed": 0, "cleared": 0, "restored": 0, "edit": 0}),
    ],
)
def test_what_is_about_dropped_entries_goes_when_no_edit_needs_it(
    connection: sqlite3.Connection, floor: int, left: dict[str, int]
) -> None:
    tables = filed(connection)
    tables.forget(ROOM, floor)
    assert rows(connection) == left
    shown = [each for each in SAID if each.sequence > floor]
    assert reasons(tables.show(ROOM, shown)) == {at: why for at, why in HIDDEN.items() if at > floor}


def test_an_erased_edit_still_says_what_it_was_of(connection: sqlite3.Connection) -> None:
    erased = entry(10, Kind.EDIT)
    erased.salt = erased.data = erased.info = b""
    (shown,) = filed(connection).show(ROOM, [erased])
    assert shown.removal is not None
    assert (shown.removal.target, shown.erased) == (1, True)


def test_a_log_of_before_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.sqlite3"
    monkeypatch.setattr(log_schema, "MIGRATIONS", log_schema.MIGRATIONS[:2])
    old = open_writer(path, synchronous="OFF", shards=1)
    old.execute(
        "INSERT INTO removed(room, target, sequence, ts, reason, erased) VALUES (?, 2, 4, 7, 'one', 0)", (ROOM,)
    )
    old.close()
    monkeypatch.undo()
    new = open_writer(path, synchronous="OFF", shards=1)
    tables = RemovalTables(new)
    assert reasons(tables.show(ROOM, SAID[:2])) == {2: "one"}
    tables.file(ROOM, SAID[6])
    assert reasons(tables.show(ROOM, SAID[:2])) == {1: "all", 2: "one"}
    new.close()

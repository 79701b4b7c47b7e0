"""What a shard's members and edges are given of its log: of the tables and of what waits, as written or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from router import filing
from router.completions import Dropped, MetaRead, MetaRun, Persisted, ShardRead, ShardRun
from router.entry import GENESIS, Entry, Kind, decode, erase
from router.errors import StorageFault
from router.events import Batch
from router.ids import RoomId
from router.log_schema import FILE_NAME
from router.placement import shard_of
from router.retention import MARKS_KEPT_MS, Keep
from tests.harness.log_writer import NOW_MS, SHARD, LogWriter, days_ago

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    OpenNode = Callable[..., LogWriter]

ROOM = RoomId("default", "lobby")
OTHER = RoomId("default", "hall")
MUCH = 1 << 30


def read(
    node: LogWriter, after: int, limit: int = 10_000, max_bytes: int = MUCH, shard: int = SHARD
) -> ShardRun | Dropped | StorageFault:
    token = object()
    node.log.read_shard(shard, after, limit, max_bytes, token)
    done = node.wait(lambda done: isinstance(done, ShardRead) and done.token is token)
    assert isinstance(done, ShardRead)
    return done.result


def wires(entries: list[Entry]) -> list[bytes]:
    return [entry.wire for entry in entries]


def chain_at(entries: list[Entry], lsn: int) -> bytes:
    return entries[lsn - 1].chain if lsn else GENESIS


def written(node: LogWriter) -> list[Entry]:
    """Entries of all kinds and of two rooms, filed in several slices."""
    kinds = (Kind.MESSAGE, Kind.META, Kind.MESSAGE, Kind.MESSAGE)
    all_entries = []
    for part in range(3):
        entries = [node.epoch()]
        entries += [node.entry(OTHER if n % 3 else ROOM, NOW_MS + n, kinds[n % 4]) for n in range(100)]
        entries.append(node.marks(ROOM, NOW_MS, ada=part + 1))
        node.file(entries)
        all_entries += entries
    return all_entries


def test_the_log_is_given_from_any_place_as_it_was_written(
    open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "PLACE_ENTRIES", 16)
    node = open_node()
    entries = written(node)
    for after in (0, 1, 15, 16, 17, 100, 102, 103, 305):
        assert read(node, after) == ShardRun(chain_at(entries, after), wires(entries[after:]))
        assert read(node, after, limit=20) == ShardRun(chain_at(entries, after), wires(entries[after : after + 20]))
    assert read(node, len(entries)) == ShardRun(entries[-1].chain, [])
    assert read(node, len(entries) + 1) == ShardRun(b"", ())
    assert read(node, 0, shard=SHARD + 1) == ShardRun(GENESIS, [])


def test_a_read_stops_before_its_bytes_pass_the_bound_but_gives_one_entry_at_least(open_node: OpenNode) -> None:
    node = open_node()
    entries = [node.entry(ROOM, NOW_MS, size=1000) for _ in range(5)]
    node.file(entries)
    size = len(entries[0].wire)
    assert read(node, 1, max_bytes=3 * size + 1) == ShardRun(entries[0].chain, wires(entries[1:4]))
    assert read(node, 1, max_bytes=1) == ShardRun(entries[0].chain, wires(entries[1:2]))


def test_rows_of_places_are_cut_where_their_entries_are_large(
    open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "PLACE_BYTES", 5000)
    node = open_node()
    entries = [node.entry(ROOM, NOW_MS, size=size) for size in (10, 10, 3000, 3000, 9000, 10, 4000, 10)]
    node.file(entries)
    with closing(sqlite3.connect(node.log.path)) as connection:
        rows = connection.execute("SELECT first, last FROM place ORDER BY first").fetchall()
    assert rows == [(1, 3), (4, 4), (5, 5), (6, 8)]
    assert read(node, 3) == ShardRun(entries[2].chain, wires(entries[3:]))


def test_what_waits_to_be_filed_follows_what_is(open_node: OpenNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = open_node()
    filed = [node.entry(ROOM, NOW_MS) for _ in range(3)]
    node.file(filed)
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 1e6)
    waiting = [node.entry(ROOM, NOW_MS) for _ in range(4)]
    node.ticket += 1
    node.log.append(Batch(node.ticket, entries=waiting))
    node.wait(lambda done: isinstance(done, Persisted))
    assert read(node, 1) == ShardRun(filed[0].chain, wires(filed[1:]))  # not committed
    node.log.committed(waiting[:3])
    node.log.committed(waiting[3:])
    entries = filed + waiting
    for after in range(8):
        assert read(node, after) == ShardRun(chain_at(entries, after), wires(entries[after:]))
        assert read(node, after, limit=2) == ShardRun(chain_at(entries, after), wires(entries[after : after + 2]))


def test_what_retention_dropped_is_said_to_be_gone(open_node: OpenNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filing, "PLACE_ENTRIES", 4)
    node = open_node()
    old = [node.entry(ROOM, days_ago(9)) for _ in range(8)]
    new = [node.entry(ROOM, days_ago(1)) for _ in range(4)]
    node.file(old)
    node.file(new)
    node.sweep(lambda _: Keep(seconds=5 * 86_400))
    assert read(node, 0) == Dropped(8)
    assert read(node, 7) == Dropped(8)
    assert read(node, 8) == ShardRun(old[-1].chain, wires(new))


def test_entries_before_a_hole_are_given_and_then_the_hole_is_told(
    open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "PLACE_ENTRIES", 4)
    node = open_node()
    kept = [node.entry(OTHER, days_ago(9)) for _ in range(6)]
    gone = [node.entry(ROOM, days_ago(8)) for _ in range(3)]
    new = [node.entry(OTHER, days_ago(7)) for _ in range(7)]
    for entries in (kept, gone, new):
        node.file(entries)
    node.sweep(lambda room: Keep(seconds=5 * 86_400 if room == ROOM else 0))
    assert read(node, 2) == ShardRun(kept[1].chain, wires(kept[2:]))
    assert read(node, 6) == Dropped(9)
    assert read(node, 9) == ShardRun(gone[-1].chain, wires(new))


def test_marks_that_a_table_has_superseded_are_gone(open_node: OpenNode) -> None:
    node = open_node()
    node.file([node.entry(ROOM, NOW_MS)])
    node.file([node.marks(ROOM, NOW_MS - MARKS_KEPT_MS - 1, ada=1)])
    rest = [node.entry(ROOM, NOW_MS)]
    node.file(rest)
    node.sweep(lambda _: Keep())
    assert read(node, 1) == Dropped(2)
    assert isinstance(run := read(node, 2), ShardRun)
    assert run.wires == wires(rest)


def test_an_erased_entry_is_given_without_its_body_and_still_verifies(open_node: OpenNode) -> None:
    node = open_node()
    entries = [node.entry(ROOM, days_ago(40), info=b'"u1"') for _ in range(3)]
    entries.append(node.entry_of(ROOM, days_ago(39), Kind.REMOVED, b'{"target":2}'))
    node.file(entries)
    node.log.retain(lambda _: Keep(), 1 << 30, undo_seconds=86_400)
    node.settle()
    run = read(node, 0)
    assert isinstance(run, ShardRun)
    assert run.wires == [entries[0].wire, erase(entries[1].wire), entries[2].wire, entries[3].wire]
    chain = run.chain
    for wire in run.wires:
        chain = decode(wire, chain).chain
    assert chain == entries[-1].chain


def test_a_history_that_was_removed_and_is_still_there_goes_without_its_texts(
    open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.retention.Retention.purge", lambda _self, _rooms: None)  # a node that is killed here
    node = open_node()
    said = [node.entry(ROOM, NOW_MS) for _ in range(2)]
    removal = node.entry_of(ROOM, NOW_MS, Kind.META, b'{"remove":"history"}')
    node.file([*said, removal])
    assert read(node, 0) == ShardRun(GENESIS, [*(erase(entry.wire) for entry in said), removal.wire])


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE place SET before=zeroblob(16) WHERE first=3", "the chain breaks behind lsn 2"),
        ("UPDATE shard SET chain=zeroblob(16)", "the chain breaks behind lsn 4"),
        ("DELETE FROM chunk WHERE first=3", "entry 3 of room number"),
        ("DELETE FROM place WHERE first=3", "the chain breaks behind lsn 2"),
        ("UPDATE place SET entries=x'90' WHERE first=1", "there are 0 places for lsn 1 to 2"),
        ("UPDATE place SET entries=x'ff' WHERE first=1", "can't be read"),
        ("UPDATE chunk SET wires=(SELECT wires FROM chunk WHERE first=1) WHERE first=3", "is not where its place says"),
    ],
)
def test_what_is_not_as_it_was_written_halts_the_log(
    open_node: OpenNode, tmp_path: Path, statement: str, words: str
) -> None:
    node = open_node()
    for _ in range(2):
        node.file([node.entry(ROOM, NOW_MS) for _ in range(2)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(statement)
        connection.commit()
    result = read(node, 0)
    assert isinstance(result, StorageFault)
    assert words in str(result)
    assert node.log.fault is result


# -- a room's hidden entries ---------------------------------------------------------------------------------------


def hidden(node: LogWriter, room: RoomId, after: int, limit: int = 1000) -> MetaRun | StorageFault:
    token = object()
    node.log.hidden(room, after, limit, token)
    done = node.wait(lambda done: isinstance(done, MetaRead) and done.token is token)
    assert isinstance(done, MetaRead)
    return done.result


def test_hidden_entries_of_a_room_are_given_by_meta_n_filed_or_not(
    open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.shard_reader.CHUNKS_AT_ONCE", 2)
    node = open_node()
    shard = shard_of(ROOM, 128)
    entries = []
    for part in range(4):
        kinds = (Kind.MESSAGE, Kind.META, Kind.MARKS, Kind.META, Kind.META)
        run = [node.entry(ROOM, NOW_MS, kind, shard) for kind in kinds]
        other = node.entry(OTHER, NOW_MS, Kind.META, shard)
        if part < 3:
            node.file([*run, other])
        else:
            monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 1e6)
            node.log.committed([*run, other])
        entries += [entry for entry in run if not entry.visible]
    for after in (0, 1, 3, 11, 12, 13, 16, 20):
        for limit in (1, 5, 100):
            run_ = hidden(node, ROOM, after, limit)
            assert isinstance(run_, MetaRun)
            assert [entry.wire for entry in run_.entries] == wires(entries[after : after + limit])
    assert hidden(node, RoomId("default", "nowhere"), 0) == MetaRun([], 0)


def test_marks_that_were_dropped_leave_a_hole_up_to_a_place_that_is_told(open_node: OpenNode) -> None:
    node = open_node()
    old = NOW_MS - MARKS_KEPT_MS - 1
    node.file([node.entry(ROOM, old, Kind.META)])
    node.file([node.marks(ROOM, old, ada=1), node.marks(ROOM, old, ada=2)])
    node.file([node.entry(ROOM, NOW_MS, Kind.META), node.marks(ROOM, NOW_MS, ada=3)])
    node.sweep(lambda _: Keep())
    run = hidden(node, ROOM, 0)
    assert isinstance(run, MetaRun)
    assert ([entry.meta_n for entry in run.entries], run.floor) == ([1, 4, 5], 3)


def test_a_hidden_entry_that_is_missing_halts_the_log(open_node: OpenNode, tmp_path: Path) -> None:
    node = open_node()
    for _ in range(3):
        node.file([node.entry(ROOM, NOW_MS, Kind.META)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("DELETE FROM chunk WHERE first=2")
        connection.commit()
    assert isinstance(hidden(node, ROOM, 0), StorageFault)

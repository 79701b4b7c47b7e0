"""A shard's snapshot from one log to another: what is there is what was there, or plainly not; and peers send junk."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from router import filing, snapshot, snapshot_export, snapshot_import
from router.completions import (
    Dropped,
    KeysFound,
    ShardRead,
    ShardRun,
    SnapshotRead,
    SnapshotRefused,
    SnapshotTaken,
    TailRead,
)
from router.entry import Entry, Kind, erase
from router.events import Batch, ShardTail, fingerprint
from router.ids import RoomId, dedupe_key
from router.keyfilter import key_number
from router.log import LogOptions
from router.log_tools import export, export_quarantine, verify
from router.placement import shard_of
from router.retention import MARKS_KEPT_MS, Keep
from router.snapshot import Begin, Chunks, End, Keys, Places, Rooms, Values, decode, encode
from router.tail import TailQuery
from tests.harness.log_writer import NOW_MS, LogWriter, days_ago, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SHARDS = 2
ROOM, HALL, ELSEWHERE = RoomId("default", "a"), RoomId("default", "b"), RoomId("default", "e")
SHARD = shard_of(ROOM, SHARDS)
MUCH = 1 << 30


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a few entries pass, a filing that does not wait, and a clock that stands."""
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("router.log.REST_SECONDS", 0.0)
    monkeypatch.setattr("router.log.time.time", lambda: NOW_MS / 1000)
    monkeypatch.setattr(filing, "PLACE_ENTRIES", 8)
    monkeypatch.setattr(filing, "CHUNK_ENTRIES", 8)
    for name, value in (("PART_BYTES", 1000), ("ROWS_AT_ONCE", 2), ("CHUNKS_AT_ONCE", 2), ("PAGES_AT_ONCE", 1)):
        monkeypatch.setattr(snapshot_export, name, value)
    for name in ("DROPPED_AT_ONCE", "SETTLED_AT_ONCE"):
        monkeypatch.setattr(snapshot_import, name, 2)


class Member(LogWriter):
    """A log that gives and takes snapshots."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LogOptions(durable=False, shards=SHARDS))

    def parts(self, export: object = "learner") -> Iterator[bytes]:
        while part := self.part(export):
            yield part

    def part(self, export: object) -> bytes:
        token = object()
        self.log.export_shard(SHARD, export, token)
        done = self.wait(lambda done: isinstance(done, SnapshotRead) and done.token is token)
        assert isinstance(done, SnapshotRead)
        assert isinstance(done.result, bytes)
        return done.result

    def take(self, part: bytes) -> SnapshotTaken | SnapshotRefused:
        token = object()
        self.log.import_shard(SHARD, part, token)
        done = self.wait(lambda d: isinstance(d, SnapshotTaken | SnapshotRefused) and d.token is token)
        assert isinstance(done, SnapshotTaken | SnapshotRefused)
        return done

    def take_all(self, parts: Iterator[bytes] | Sequence[bytes]) -> tuple[ShardTail, set[int]]:
        """The log's end, and the numbers of keys."""
        numbers: set[int] = set()
        for part in parts:
            done = self.take(part)
            assert isinstance(done, SnapshotTaken), done
            numbers.update(done.numbers)
            if done.tail is not None:
                return done.tail, numbers
        pytest.fail("it did not end")

    def log_of(self, after: int) -> ShardRun | Dropped:
        token = object()
        self.log.read_shard(SHARD, after, 10_000, MUCH, token)
        done = self.wait(lambda done: isinstance(done, ShardRead) and done.token is token)
        assert isinstance(done, ShardRead)
        assert isinstance(done.result, ShardRun | Dropped)
        return done.result

    def texts(self) -> list[dict[str, Any]]:
        return list(export(self.log.path.parent))

    def keys(self, keys: list[bytes]) -> list[tuple[bytes, int, int]]:
        self.log.find_keys(keys, None)
        done = self.wait(lambda done: isinstance(done, KeysFound))
        assert isinstance(done, KeysFound)
        return [(key.key, key.sequence, key.fingerprint) for key in done.known]

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """What the tables have of the shard's rooms, by their names."""
        found = {}
        of_room = f"SELECT site, channel, t.* FROM {{}} AS t JOIN room ON room.id=t.room WHERE shard={SHARD}"
        with closing(sqlite3.connect(self.log.path)) as connection:
            for table in ("state", "mark", "removed", "cleared", "restored", "edit", "chunk"):
                drop = 4 if table == "chunk" else 3
                rows = connection.execute(of_room.format(table)).fetchall()
                found[table] = sorted((*row[:2], *row[drop:]) for row in rows if row)
            found["chunk"] = sorted((*row[:2], *row[3:]) for row in found["chunk"])
            rooms = "SELECT site, channel, generation, sequence, meta_n, ts, floor, bytes, marks, marks_floor FROM room"
            found["room"] = connection.execute(f"{rooms} WHERE shard={SHARD} ORDER BY 1, 2").fetchall()
            shard = f"SELECT lsn, chain, commit_lsn, floor, floor_chain FROM shard WHERE shard={SHARD}"
            found["shard"] = connection.execute(shard).fetchall()
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Member]]:
    members: list[Member] = []

    def open_one(name: str) -> Member:
        members.append(Member(tmp_path / name))
        return members[-1]

    yield open_one
    for member in members:
        member.log.close()


def fill(node: Member, ts: int = NOW_MS) -> list[Entry]:
    """Entries of all kinds, several slices of them, and rooms of the other shard between them."""
    made: list[Entry] = []
    for part in range(4):
        entries = [node.epoch(SHARD)]
        for n in range(10):
            text = b'{"n":%d}' % n
            entries.append(node.entry_of(ROOM, ts, Kind.MESSAGE, text, SHARD, b'"ada"'))
            entries.append(node.entry_of(HALL if n % 2 else ROOM, ts, Kind.MESSAGE, text, SHARD, b'"bob"'))
        entries += [
            node.entry_of(ROOM, ts, Kind.EDIT, b'{"target":%d,"data":1}' % (2 + part), SHARD, b'"bob"'),
            node.entry_of(ROOM, ts, Kind.REMOVED, b'{"target":%d,"reason":"spam"}' % (3 + part), SHARD),
            node.entry_of(ROOM, ts, Kind.RESTORED, b'{"target":3}', SHARD),
            node.entry_of(HALL, ts, Kind.REMOVED, b'{"user":"bob","since":1}', SHARD),
            node.entry_of(HALL, ts, Kind.META, b'{"set":{"name%d":%d,"topic":1}}' % (part, part), SHARD),
            node.entry_of(ROOM, ts, Kind.MARKS, b'{"marks":{"ada":%d,"u%d":1}}' % (part + 1, part), SHARD),
        ]
        node.file(entries)
        made += entries
        node.file([node.entry_of(ELSEWHERE, ts, Kind.MESSAGE, b"{}", 1 - SHARD)])
    return made


def known(entries: Sequence[Entry]) -> list[tuple[bytes, int, int]]:
    return [(dedupe_key(e.room, e.sender, e.cmid), e.sequence, fingerprint(e.data)) for e in entries if e.cmid]


def test_a_learner_has_then_what_the_tables_of_the_other_have(start: Callable[[str], Member]) -> None:
    assert {shard_of(room, SHARDS) for room in (ROOM, HALL)} == {SHARD}
    assert shard_of(ELSEWHERE, SHARDS) == 1 - SHARD
    first, second = start("a"), start("b")
    entries = fill(first)
    second.file([second.entry_of(ELSEWHERE, NOW_MS, Kind.MESSAGE, b"{}", 1 - SHARD)])  # room numbers differ
    tail, numbers = second.take_all(first.parts())
    assert tail == ShardTail(SHARD, len(entries), entries[-1].chain, 0, len(entries), entries[-1].chain)
    assert second.tables() == first.tables() | {
        "shard": [(len(entries), entries[-1].chain, len(entries), 0, bytes(16))]
    }
    assert numbers == {key_number(key) for key, _, _ in known(entries)}
    assert second.keys([key for key, _, _ in known(entries)]) == known(entries)
    assert second.log_of(0) == first.log_of(0)
    assert [row for row in second.texts() if row["channel"] != "e"] == [
        row for row in first.texts() if row["channel"] != "e"
    ]
    assert verify(second.log.path.parent).findings == ()


def test_the_log_goes_on_behind_a_snapshot_and_over_a_restart(start: Callable[[str], Member], tmp_path: Path) -> None:
    first, second = start("a"), start("b")
    entries = fill(first)
    second.take_all(first.parts())
    more = [first.entry_of(HALL, NOW_MS, Kind.MESSAGE, b"{}", SHARD) for _ in range(3)]
    for member in (first, second):
        member.file(more)
    assert second.tables()["room"] == first.tables()["room"]
    second.reach()
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    third = start("c")
    assert third.log.recovered.shards[SHARD].lsn == len(entries) + 3
    assert third.log_of(0) == first.log_of(0)
    assert verify(tmp_path / "c").findings == ()
    fourth = start("d")
    fourth.take_all(third.parts())  # what came by a snapshot can be given on
    assert fourth.tables() == third.tables()


def test_what_retention_dropped_is_plainly_not_there(start: Callable[[str], Member], tmp_path: Path) -> None:
    first, second = start("a"), start("b")
    old = fill(first, days_ago(9))
    new = fill(first, days_ago(1))
    first.sweep(lambda room: Keep(seconds=5 * 86_400 if room == ROOM else 0))
    before = first.tables()
    second.take_all(first.parts())
    assert second.tables() == before | {"shard": second.tables()["shard"]}
    assert verify(tmp_path / "b").findings == ()
    assert second.log_of(0) == first.log_of(0)
    assert first.sequences(ROOM) == second.sequences(ROOM) != []
    assert second.keys([key for key, _, _ in known(old)]) == known(old)
    first.sweep(lambda _: Keep(seconds=5 * 86_400))
    third = start("c")
    third.take_all(first.parts("another"))
    assert third.log_of(len(old) + 1) == first.log_of(len(old) + 1)
    assert isinstance(third.log_of(0), Dropped)
    assert verify(tmp_path / "c").findings == ()
    third.log.tail(TailQuery({}, 10, MUCH), None)
    done = third.wait(lambda done: isinstance(done, TailRead))
    assert isinstance(done, TailRead)
    assert not isinstance(done.result, Exception)
    assert done.result.lost[0][:2] == (SHARD, 1)
    assert {e.wire for e in done.result.entries if e.visible} <= {e.wire for e in new}


def test_erased_texts_stay_erased(start: Callable[[str], Member], tmp_path: Path) -> None:
    first, second = start("a"), start("b")
    entries = fill(first, days_ago(40))
    first.log.retain(lambda _: Keep(), 1 << 30, undo_seconds=86_400)
    first.settle()
    second.take_all(first.parts())
    assert second.tables()["chunk"] == first.tables()["chunk"]
    run = second.log_of(0)
    assert isinstance(run, ShardRun)
    hidden = [e.wire for e in entries if e.room == ROOM and e.sequence in {4, 5, 6}]
    assert [erase(wire) in run.wires for wire in hidden] == [True] * 3
    assert not set(hidden) & set(run.wires)
    assert verify(tmp_path / "b").findings == ()


def test_a_history_that_was_removed_stays_away(start: Callable[[str], Member], tmp_path: Path) -> None:
    first, second = start("a"), start("b")
    fill(first)
    first.file([first.entry_of(HALL, NOW_MS, Kind.META, b'{"remove":"history"}', SHARD)])
    first.settle()
    second.take_all(first.parts())
    assert second.tables() == first.tables() | {"shard": second.tables()["shard"]}
    assert second.sequences(HALL) == []
    assert second.texts() == [row for row in first.texts() if row["channel"] != "e"]
    assert verify(tmp_path / "b").findings == ()


def test_an_export_goes_on_while_the_log_does(start: Callable[[str], Member], tmp_path: Path) -> None:
    """Retention, erasure and new entries come between its parts."""
    first, second = start("a"), start("b")
    entries = fill(first, days_ago(9))
    parts: list[bytes] = []
    for at, part in enumerate(first.parts()):
        parts.append(part)
        if at == 5:
            first.file([first.entry_of(ROOM, NOW_MS, Kind.MESSAGE, b"{}", SHARD) for _ in range(20)])
            first.log.retain(lambda _: Keep(), 1 << 30, undo_seconds=86_400)
            first.settle()
        if at == 8:
            first.sweep(lambda room: Keep(seconds=5 * 86_400 if room == HALL else 0))
        if isinstance(decode(part), Places) and not any(isinstance(decode(p), Places) for p in parts[:-1]):
            first.sweep(lambda _: Keep(seconds=5 * 86_400))
    tail, _ = second.take_all(parts)
    assert tail.lsn == len(entries)
    assert verify(tmp_path / "b").findings == ()
    run = second.log_of(len(entries))
    assert run == ShardRun(entries[-1].chain, [])


def test_marks_that_were_dropped_leave_a_floor(start: Callable[[str], Member], tmp_path: Path) -> None:
    first, second = start("a"), start("b")
    old = NOW_MS - MARKS_KEPT_MS - 1
    for n in range(3):
        first.file([first.entry_of(ROOM, old, Kind.MARKS, b'{"marks":{"ada":%d}}' % n, SHARD)])
        first.file([first.entry_of(ROOM, old, Kind.META, b'{"set":{"x":%d}}' % n, SHARD)])
    first.sweep(lambda _: Keep())
    second.take_all(first.parts())
    assert second.tables() == first.tables() | {"shard": second.tables()["shard"]}
    assert second.mark(ROOM, "ada") == 2
    assert verify(tmp_path / "b").findings == ()


def test_a_shard_that_was_never_written_is_given_as_empty(start: Callable[[str], Member]) -> None:
    tail, numbers = start("b").take_all(start("a").parts())
    assert (tail, numbers) == (ShardTail(SHARD, 0, bytes(16), 0, 0, bytes(16)), set())


# -- what was there before -----------------------------------------------------------------------------------------


def test_what_a_learner_had_goes_and_what_was_not_committed_is_kept_aside(
    start: Callable[[str], Member], tmp_path: Path
) -> None:
    first, second = start("a"), start("b")
    entries = fill(first)
    own = [second.entry_of(ROOM, NOW_MS, Kind.MESSAGE, b'{"own":1}', SHARD) for _ in range(20)]
    second.file(own[:15])
    second.ticket += 1
    second.log.append(Batch(second.ticket, entries=own[15:]))
    second.take_all(first.parts())
    assert [row["lsn"] for row in export_quarantine(tmp_path / "b")] == [16, 17, 18, 19, 20]
    assert second.tables()["room"] == first.tables()["room"]
    second.reach()
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    third = start("c")
    assert third.log.recovered.shards[SHARD].chain == entries[-1].chain
    assert third.log.recovered.unfiled == ()
    assert verify(tmp_path / "c").findings == ()


def test_an_import_that_was_interrupted_leaves_nothing_and_may_begin_again(
    start: Callable[[str], Member], tmp_path: Path
) -> None:
    first = start("a")
    entries = fill(first)
    parts = list(first.parts())
    member = start("b0")
    promised = [member.entry_of(ROOM, NOW_MS, Kind.MESSAGE, b'{"own":1}', SHARD) for _ in range(4)]
    member.file(promised)
    for at in (1, len(parts) // 2, len(parts) - 1):
        for part in parts[:at]:
            assert isinstance(member.take(part), SnapshotTaken)
        member.reach()
        assert verify(member.log.path.parent).findings == ()
        assert member.texts() == []
        copy = tmp_path / f"b{at}"
        shutil.copytree(member.log.path.parent, copy)
        member = start(copy.name)
        assert member.log.recovered.shards[SHARD].lsn == 0
        assert member.log.recovered.unfiled == ()
        assert read(copy, "SELECT count(*) FROM room UNION ALL SELECT count(*) FROM chunk") == [(0,), (0,)]
    for part in parts[:5]:
        member.take(part)
    tail, _ = member.take_all(parts)  # begun again without a restart
    assert tail.lsn == len(entries)
    assert member.tables()["room"] == first.tables()["room"]
    assert member.keys([key for key, _, _ in known(entries)]) == known(entries)
    assert verify(member.log.path.parent).findings == ()


def test_a_snapshot_below_the_commit_is_refused_and_changes_nothing(start: Callable[[str], Member]) -> None:
    member = start("a")
    fill(member)
    before = member.tables()
    refused = member.take(encode(Begin(SHARD, 5, bytes(16))))
    assert isinstance(refused, SnapshotRefused)
    assert "at lsn 5 comes for shard" in refused.reason
    assert isinstance(member.take(encode(End())), SnapshotRefused)
    assert isinstance(member.take(b"\x00"), SnapshotRefused)
    assert isinstance(member.take(encode(Begin(1 - SHARD, 1000, bytes(16)))), SnapshotRefused)
    assert member.tables() == before
    assert member.log.fault is None


# -- what a peer may send ------------------------------------------------------------------------------------------


def changed(parts: list[bytes], kind: type, change: Callable[[Any], Any], at: int = 0) -> list[bytes]:
    """The parts, of which that of a kind is changed."""
    places = [n for n, part in enumerate(parts) if isinstance(decode(part), kind)]
    found = list(parts)
    found[places[at]] = encode(change(decode(parts[places[at]])))
    return found


def first_row(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda part: type(part)([change(part.rows[0]), *part.rows[1:]])


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (Begin, lambda part: Begin(SHARD, part.lsn, bytes(16)), "the chain breaks behind"),
        (Begin, lambda part: Begin(SHARD, part.lsn - 1, part.chain), "where"),
        (Begin, lambda part: Begin(SHARD, part.lsn + 1, part.chain), "the chain breaks behind"),
        (Rooms, first_row(lambda row: (row[0], "default", "e", *row[3:])), "has room 'e'"),
        (Rooms, first_row(lambda row: (row[0] + 100, *row[1:])), "has room"),
        (Rooms, first_row(lambda row: (*row[:4], 3, *row[5:])), "is due"),
        (Values, first_row(lambda row: (99, *row[1:])), "room number 99, which was not given"),
        (Values, lambda part: Values([*part.rows, part.rows[0]]), "UNIQUE"),
        (Chunks, first_row(lambda row: (row[0], b"")), "is empty"),
        (Chunks, first_row(lambda row: (row[0], row[1][:-1])), "passes the end"),
        (Chunks, first_row(lambda row: (row[0], row[1][:-1] + b"\x00")), "does not match its hash"),
        (Chunks, lambda part: Chunks([*part.rows, part.rows[0]]), "out of its order"),
        (Chunks, first_row(lambda row: (row[0] + 1, row[1])), "is due"),
        (Places, first_row(lambda row: (*row[:2], bytes(15) + b"1", row[3])), "the chain breaks"),
        (Places, first_row(lambda row: (*row[:3], b"\xff")), "can't be read"),
        (Places, first_row(lambda row: (*row[:3], b"\x90")), "0 places"),
        (Places, first_row(lambda row: (row[0], 1 << 40, *row[2:])), "is due"),
        (Places, first_row(lambda row: (*row[:3], encode([[1, 1, 99]] * 8))), "kind 99"),
        (Places, first_row(lambda row: (*row[:3], encode([[1, 1, 9]] * 8))), "kind 9 in room"),
        (Keys, lambda part: Keys(part.newest, part.records + b"x"), "dedupe keys of"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_and_leaves_nothing(
    start: Callable[[str], Member], tmp_path: Path, kind: type, change: Callable[[Any], Any], words: str
) -> None:
    first, second = start("a"), start("b")
    fill(first)
    refused = None
    for part in changed(list(first.parts()), kind, change):
        refused = second.take(part)
        if isinstance(refused, SnapshotRefused):
            break
    assert isinstance(refused, SnapshotRefused)
    assert words in refused.reason
    assert second.log.fault is None
    tables = "SELECT count(*) FROM room UNION ALL SELECT count(*) FROM chunk UNION ALL SELECT count(*) FROM place"
    assert read(tmp_path / "b", tables) == [(0,), (0,), (0,)]
    second.take_all(first.parts("again"))
    assert verify(tmp_path / "b").findings == ()


@pytest.mark.parametrize(
    "data", [b"", b"\x93\xa5begin\x01\x02", encode(["begin", -1, 0, bytes(16)]), encode(["begin", 1, 0, b"x"]),
             encode(["rooms", [[1]]]), encode(["end", 1]), encode(["what"]), bytes(snapshot.MAX_PART + 1)],
)  # fmt: skip
def test_a_part_that_is_none_can_not_be_read(data: bytes) -> None:
    with pytest.raises(Exception, match="a snapshot's part"):
        decode(data)


def test_few_exports_are_kept_and_one_that_ended_gives_nothing_more(
    start: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_export, "MOST_EXPORTS", 2)
    monkeypatch.setattr(snapshot_export, "MEMORY_BYTES", 100)
    member = start("a")
    fill(member)
    one = member.parts("one")
    begin = next(one)
    second = next(one)
    member.log.end_export("one")
    assert next(one) == begin  # a new one, of that name
    assert next(one) == second
    next(member.parts("two"))
    next(member.parts("three"))
    assert next(one) == begin
    all_parts = list(member.parts("whole"))
    assert isinstance(decode(all_parts[-1]), End)
    assert max(len(part) for part in all_parts) < 4000

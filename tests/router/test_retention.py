"""Retention: what is dropped, in which order, what stays, and that the log is still whole to its readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router import retention
from router.completions import KeysFound
from router.entry import Kind
from router.events import History
from router.ids import RoomId, dedupe_key
from router.log_tools import export, verify
from router.retention import Keep
from tests.harness.log_writer import DAY, SHARD, LogWriter, days_ago, read, used_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

A, B, C = RoomId("default", "a"), RoomId("default", "b"), RoomId("default", "c")


def keep_days(days: int) -> Callable[[RoomId], Keep]:
    return lambda _room: Keep(seconds=days * DAY)


def test_what_is_past_goes_and_the_rest_stays(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    for days in (9, 8, 3, 1):
        node.file([node.entry(A, days_ago(days)), node.entry(A, days_ago(days))])
    node.sweep(keep_days(5))
    assert node.floors == [(A, 4)]
    assert node.sequences(A) == [5, 6, 7, 8]
    assert node.head(A) == (8, 0, 4)
    assert verify(tmp_path).findings == ()


def test_a_room_that_is_past_as_a_whole_keeps_its_head(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(9)), node.entry(A, days_ago(8)), node.entry(B, days_ago(1))])
    node.sweep(keep_days(5))
    assert node.head(A) == (2, 0, 2)
    assert (node.sequences(A), node.sequences(B)) == ([], [1])
    assert verify(tmp_path).findings == ()
    node.file([node.entry(A, days_ago(0))])
    assert node.sequences(A) == [3]
    assert verify(tmp_path).findings == ()


def test_a_rule_of_bytes_leaves_a_room_its_newest_chunk(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    for _ in range(4):
        node.file([node.entry(A, days_ago(1), size=1000)])
    node.sweep(lambda _room: Keep(bytes=2500))
    assert node.sequences(A) == [3, 4]
    node.sweep(lambda _room: Keep(bytes=1))
    assert node.sequences(A) == [4]


def test_each_room_has_its_own_rule(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(room, days_ago(9)) for room in (A, B, C)])
    node.sweep(lambda room: Keep(seconds=5 * DAY) if room == B else Keep())
    assert [node.sequences(room) for room in (A, B, C)] == [[1], [], [1]]


def test_more_chunks_than_a_slice_takes_go_in_one_sweep(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(retention, "CHUNKS_AT_ONCE", 3)
    monkeypatch.setattr(retention, "ROOMS_AT_ONCE", 2)
    monkeypatch.setattr(retention, "PLACES_AT_ONCE", 2)
    node = open_node()
    for _ in range(7):
        node.file([node.entry(room, days_ago(9)) for room in (A, B, C)])
    node.file([node.entry(C, days_ago(1))])
    node.sweep(keep_days(5))
    assert [node.sequences(room) for room in (A, B, C)] == [[], [], [8]]
    assert read(tmp_path, "SELECT floor FROM shard") == [(21,)]
    assert verify(tmp_path).findings == ()


def test_beyond_the_bytes_of_the_log_the_oldest_of_all_rooms_go(
    open_node: Callable[..., LogWriter], tmp_path: Path
) -> None:
    node = open_node()
    for number in range(200):
        node.file([node.entry((A, B)[number % 2], days_ago(200 - number), size=8000)])
    node.file([node.entry(C, days_ago(0))])
    before = used_bytes(tmp_path)
    bound = before // 2
    node = open_node(retention_bytes=bound)
    node.shrink(bound)
    assert bound - (1 << 19) < used_bytes(tmp_path)
    (_, _, a), (_, _, b) = node.head(A), node.head(B)
    assert abs(a - b) <= 1
    assert node.sequences(A) == list(range(a + 1, 101))
    assert node.sequences(B) == list(range(b + 1, 101))
    assert node.sequences(C) == [1]
    assert dict(node.floors) == {A: a, B: b}
    assert verify(tmp_path).findings == ()
    assert {row["sequence"] for row in export(tmp_path, channel="a")} == set(range(a + 1, 101))


def test_a_bound_that_cannot_be_kept_ends_when_nothing_is_left(
    open_node: Callable[..., LogWriter], tmp_path: Path
) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(1)), node.entry(A, days_ago(1), Kind.META)])
    node = open_node(retention_bytes=1)
    node.settle()
    assert node.head(A) == (1, 1, 1)
    assert read(tmp_path, "SELECT stream FROM chunk") == [(1,)]
    assert verify(tmp_path).findings == ()


def test_places_and_epochs_go_with_the_entries_behind_them(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.epoch(), node.entry(A, days_ago(9))])
    node.file([node.entry(A, days_ago(8))])
    node.file([node.epoch()])
    node.file([node.entry(A, days_ago(1))])
    node.sweep(keep_days(5))
    assert read(tmp_path, "SELECT first, last FROM place") == [(4, 4), (5, 5)]
    assert read(tmp_path, "SELECT first FROM chunk WHERE stream=2") == [(4,)]
    assert read(tmp_path, "SELECT floor, lsn FROM shard") == [(3, 5)]
    assert verify(tmp_path).findings == ()
    node = open_node()
    node.heads[A] = [3, 0]
    node.file([node.entry(A, days_ago(0))])
    assert node.sequences(A) == [3, 4]
    assert verify(tmp_path).findings == ()


def test_meta_entries_stay_and_so_do_the_places_behind_them(
    open_node: Callable[..., LogWriter], tmp_path: Path
) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(9))])
    node.file([node.entry(A, days_ago(9), Kind.META)])
    node.file([node.entry(A, days_ago(9))])
    node.sweep(keep_days(5))
    assert node.head(A) == (2, 1, 2)
    assert read(tmp_path, "SELECT first FROM place ORDER BY first") == [(2,), (3,)]
    assert verify(tmp_path).findings == ()


def test_a_shard_without_any_place_still_has_its_chain(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(9))])
    node.sweep(keep_days(5))
    assert read(tmp_path, "SELECT count(*) FROM place") == [(0,)]
    assert verify(tmp_path).findings == ()
    node = open_node()
    assert node.log.recovered.shards[SHARD].lsn == 1
    node.heads[A] = [1, 0]
    node.file([node.entry(A, days_ago(0))])
    assert verify(tmp_path).findings == ()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM place WHERE first=(SELECT min(first) FROM place)", "the places go from lsn 2 to 4"),
        ("UPDATE place SET before=zeroblob(16) WHERE first=3", "the chain breaks before lsn 3"),
        ("UPDATE shard SET floor_chain=zeroblob(16)", "the chain breaks before lsn 3"),
        ("UPDATE shard SET floor=1", "the places go from lsn 1 to 3"),
        ("DELETE FROM chunk WHERE last=4", "sequences 4 to 4 are missing"),
        ("UPDATE room SET floor=1", "sequences 2 to 2 are missing"),
    ],
)
def test_damage_to_a_trimmed_log_is_found(
    open_node: Callable[..., LogWriter], tmp_path: Path, statement: str, words: str
) -> None:
    node = open_node()
    for days in (9, 8, 3, 1):
        node.file([node.entry(A, days_ago(days))])
    node.sweep(keep_days(5))
    assert verify(tmp_path).findings == ()
    connection = node.log._connection
    assert connection.execute(statement).rowcount == 1
    assert any(words in finding for finding in verify(tmp_path).findings), verify(tmp_path).findings


def test_ids_are_forgotten_after_their_time(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    old, new = node.entry(A, days_ago(9)), node.entry(A, days_ago(1))
    node.file([old])
    node.file([new])
    node.sweep(lambda _room: Keep(), 5 * DAY)
    keys = [dedupe_key(A, b"s" * 12, entry.cmid) for entry in (old, new)]
    node.log.find_keys(keys, None)
    done = node.wait(lambda done: isinstance(done, KeysFound))
    assert isinstance(done, KeysFound)
    assert [known.sequence for known in done.known] == [2]
    assert node.sequences(A) == [1, 2]


def test_a_history_that_is_read_meanwhile_is_of_one_moment(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.log_reader.CHUNKS_AT_ONCE", 1)
    node = open_node()
    for _ in range(4):
        node.file([node.entry(A, days_ago(9))])
    reader = node.log._reader
    split = reader._wires_on

    def sweep_between(number: int, read: History) -> Iterator[bytes]:
        wires = split(number, read)
        yield next(wires)
        node.sweep(keep_days(5))
        yield from wires

    monkeypatch.setattr(reader, "_wires_on", sweep_between)
    found = reader.history(History(A, 0, 10, reverse=False, max_bytes=1 << 20))
    assert [entry.sequence for entry in found] == [1, 2, 3, 4]
    assert node.head(A)[2] == 4

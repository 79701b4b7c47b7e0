"""The log's tail: what followers are given, in which order, in what parts; what is missing, hidden and held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from router import log, tail_reader
from router.backlog import Unfiled
from router.completions import Halted, Persisted, TailRead
from router.entry import Entry, Kind
from router.errors import StorageFault
from router.events import Batch, Recovered, ShardTail
from router.ids import RoomId
from router.retention import Keep
from router.room_values import HISTORY_REMOVED
from router.tail import Hold, Lost, Tail, TailQuery, first_cursor, fit_cursor
from tests.harness.log_writer import NOW_MS, SHARD, LogWriter, days_ago, read
from tests.router.test_retention import A, B, C, keep_days

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MUCH: Final = 1 << 30


def follow(
    node: LogWriter, cursor: Mapping[int, int], limit: int = 1000, max_bytes: int = MUCH, start: int = 0
) -> Tail:
    token = object()
    node.log.tail(TailQuery(cursor, limit, max_bytes, start), token)
    done = node.wait(lambda done: isinstance(done, TailRead) and done.token is token)
    assert isinstance(done, TailRead)
    assert isinstance(done.result, Tail)
    return done.result


def follow_on(node: LogWriter, limit: int = 1000, max_bytes: int = MUCH) -> tuple[list[Tail], list[Entry]]:
    """All parts from the beginning on, and their entries."""
    parts = [follow(node, {}, limit, max_bytes)]
    while parts[-1].behind:
        before = parts[-1]
        parts.append(follow(node, before.cursor, limit, max_bytes, before.start))
        assert parts[-1].cursor != before.cursor, "it does not get on"
    return parts, [entry for part in parts for entry in part.entries]


def places(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    return [(entry.shard, entry.lsn) for entry in entries]


def commit(node: LogWriter, entries: Sequence[Entry]) -> None:
    """Write and commit; filing waits."""
    node.ticket += 1
    node.log.append(Batch(node.ticket, entries=list(entries)))
    node.wait(lambda done: isinstance(done, Persisted) and done.ticket == node.ticket)
    node.log.committed(list(entries))


def test_followers_pass_over_marks_whether_they_are_still_there_or_gone(
    open_node: Callable[..., LogWriter], tmp_path: Path
) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(3)), node.marks(A, days_ago(3), ann=1), node.entry(A, days_ago(3), Kind.META)])
    for _ in range(3):
        node.file([node.marks(A, days_ago(3), ann=1)])
    node.file([node.entry(A, days_ago(3))])
    wanted = [(SHARD, 1), (SHARD, 3), (SHARD, 7), (SHARD, 9)]
    commit(node, [node.marks(A, days_ago(0), ann=2), node.entry(A, days_ago(0))])
    assert places(follow(node, {}).entries) == wanted
    node.sweep(lambda _: Keep())
    assert read(tmp_path, "SELECT count(*) FROM place WHERE length(entries)=0") == [(1,)]
    for lsn in range(9):
        tail = follow(node, {SHARD: lsn})
        assert places(tail.entries) == [place for place in wanted if place[1] > lsn]
        assert (tail.cursor, tail.lost) == ({SHARD: 9}, [])


def test_entries_of_all_rooms_come_in_the_order_of_their_shard_and_shards_one_by_one(
    open_node: Callable[..., LogWriter],
) -> None:
    node = open_node()
    node.file([node.epoch(), node.entry(A, 1), node.entry(B, 2), node.entry(A, 3), node.entry(A, 4, Kind.META)])
    node.file([node.epoch(7), node.entry(C, 5, shard=7), node.entry(C, 6, shard=7)])
    node.file([node.entry(B, 7), node.entry(A, 8)])
    tail = follow(node, {})
    assert places(tail.entries) == [(SHARD, lsn) for lsn in (2, 3, 4, 5, 6, 7)] + [(7, 2), (7, 3)]
    assert [entry.room for entry in tail.entries[:3]] == [A, B, A]
    assert tail.entries[3].kind == Kind.META
    assert (tail.cursor, tail.heads, tail.behind, tail.lost) == ({SHARD: 7, 7: 3}, {SHARD: 7, 7: 3}, 0, [])
    assert follow(node, tail.cursor).entries == []
    assert places(follow(node, {SHARD: 5, 7: 2}).entries) == [(SHARD, 6), (SHARD, 7), (7, 3)]


def test_what_is_committed_comes_before_it_is_filed_and_what_is_not_committed_does_not(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(A, 2)])
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    commit(node, [node.entry(A, 3), node.entry(B, 4)])
    node.log.append(Batch(99, entries=[node.entry(A, 5), node.entry(A, 6)]))
    node.wait(lambda done: isinstance(done, Persisted) and done.ticket == 99)
    tail = follow(node, {SHARD: 1})
    assert places(tail.entries) == [(SHARD, 2), (SHARD, 3), (SHARD, 4)]
    assert read(node.log.path.parent, "SELECT lsn FROM shard") == [(2,)]
    assert follow(node, tail.cursor).entries == []


@pytest.mark.parametrize(("limit", "max_bytes"), [(1, MUCH), (2, MUCH), (7, MUCH), (1000, 1), (1000, 700), (3, 400)])
@pytest.mark.parametrize("is_filed", [True, False])
def test_parts_make_the_whole_whatever_their_bounds(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, limit: int, max_bytes: int, *, is_filed: bool
) -> None:
    node = open_node()
    if not is_filed:
        monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    entries = [node.entry((A, B, C)[n % 3], n, size=(8, 300)[n % 2]) for n in range(20)]
    entries += [node.epoch(), *(node.entry((B, A)[n % 2], n, Kind.META) for n in range(5)), node.epoch()]
    entries += [node.epoch(5), *(node.entry(RoomId("other", "a"), n, shard=5) for n in range(6))]
    for part in (entries[:11], entries[11:13], entries[13:]):
        (node.file if is_filed else lambda part: commit(node, part))(part)
    parts, got = follow_on(node, limit, max_bytes)
    assert sorted(places(got)) == sorted(places([entry for entry in entries if entry.kind != Kind.EPOCH]))
    for shard in (SHARD, 5):
        assert [entry.lsn for entry in got if entry.shard == shard] == sorted(e.lsn for e in got if e.shard == shard)
    assert all(len(part.entries) <= limit for part in parts)
    assert all(len(part.entries) == 1 or sum(len(entry.wire) for entry in part.entries) <= max_bytes for part in parts)
    assert {entry.wire for entry in got} == {entry.wire for entry in entries if entry.kind != Kind.EPOCH}


def test_a_busy_shard_does_not_keep_others_from_their_turn(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(A, n) for n in range(8)])
    node.file([node.entry(B, 1, shard=9)])
    first = follow(node, {}, 2)
    assert places(first.entries) == [(SHARD, 1), (SHARD, 2)]
    second = follow(node, first.cursor, 2, start=first.start)
    assert places(second.entries) == [(9, 1), (SHARD, 3)]


def test_a_limit_of_nothing_asks_for_the_heads(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(A, 2)])
    tail = follow(node, {}, 0)
    assert (tail.entries, tail.heads, tail.cursor, tail.behind) == ([], {SHARD: 2}, {SHARD: 0}, 2)


def test_a_log_that_was_never_written_has_no_tail(open_node: Callable[..., LogWriter]) -> None:
    tail = follow(open_node(), {4: 7})
    assert (tail.entries, tail.cursor, tail.heads, tail.behind) == ([], {4: 7}, {}, 0)


def test_many_runs_that_are_gone_are_passed_a_few_at_a_time(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_reader, "PLACES_AT_ONCE", 2)
    node = open_node()
    node.file([node.entry(B, days_ago(9), Kind.META)])  # keeps the places behind it
    for _ in range(5):
        node.file([node.entry(A, days_ago(9))])
    node.file([node.entry(A, days_ago(1))])
    node.sweep(keep_days(5))
    parts, entries = follow_on(node)
    assert len(parts) == 4
    assert [part.lost for part in parts] == [
        [Lost(SHARD, 2, 2)], [Lost(SHARD, 3, 4)], [Lost(SHARD, 5, 6)], []
    ]  # fmt: skip
    assert places(entries) == [(SHARD, 1), (SHARD, 7)]


def test_what_retention_dropped_unread_is_told(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(9)), node.entry(A, days_ago(9)), node.entry(A, days_ago(9))])
    node.file([node.entry(B, days_ago(9)), node.entry(A, days_ago(1)), node.entry(B, days_ago(9))])
    node.sweep(keep_days(5))
    tail = follow(node, {})
    assert tail.lost == [Lost(SHARD, 1, 4), Lost(SHARD, 6, 6)]
    assert places(tail.entries) == [(SHARD, 5)]
    assert follow(node, {SHARD: 2}).lost == [Lost(SHARD, 3, 4), Lost(SHARD, 6, 6)]
    assert follow(node, {SHARD: 6}).lost == []


# -- what was removed --------------------------------------------------------------------------------------------


def about(target: int) -> bytes:
    return b'{"target":%d,"reason":"spam"}' % target


def texts(tail: Tail) -> list[tuple[int, bool]]:
    """Messages and edits: their sequences, and whether their text is shown."""
    shown = [entry for entry in tail.entries if entry.kind <= Kind.EDIT]
    assert all((entry.data == b"") == (entry.removal is not None) for entry in shown)
    return [(entry.sequence, bool(entry.data)) for entry in shown]


@pytest.mark.parametrize("filed", range(8))
def test_what_was_removed_is_given_without_its_text_wherever_it_is(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, filed: int
) -> None:
    node = open_node()
    entries = [
        node.entry(A, 1), node.entry(B, 1), node.entry(A, 2), node.entry(A, 3, Kind.EDIT, data=about(1)),
        node.entry(A, 4, Kind.REMOVED, data=about(1)), node.entry(A, 5, Kind.REMOVED, data=about(2)),
        node.entry(A, 6, Kind.EDIT, data=about(1)), node.entry(A, 7, Kind.RESTORED, data=about(2)),
    ]  # fmt: skip
    if filed:
        node.file(entries[:filed])
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    commit(node, entries[filed:])
    tail = follow(node, {})
    assert texts(tail) == [(1, False), (1, True), (2, True), (3, False), (6, False)]
    removal = tail.entries[0].removal
    assert removal is not None
    assert (removal.sequence, removal.reason) == (4, "spam")
    assert [entry.kind for entry in tail.entries if entry.kind > Kind.EDIT] == [
        Kind.REMOVED,
        Kind.REMOVED,
        Kind.RESTORED,
    ]


def test_who_reads_again_is_given_no_text_that_was_removed_meanwhile(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(A, 2)])
    assert texts(follow(node, {})) == [(1, True), (2, True)]
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    for target, shown in ((2, [(1, True), (2, False)]), (1, [(1, False), (2, False)])):
        commit(node, [node.entry(A, 3, Kind.REMOVED, data=about(target))])
        assert [texts(follow(node, {})) for _ in range(2)] == [shown, shown]


@pytest.mark.parametrize("filed", range(5))
def test_what_a_user_was_cleared_of_is_given_without_its_text(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, filed: int
) -> None:
    node = open_node()
    entries = [
        node.entry(A, 1, info=b'"ann"'), node.entry(A, 2, info=b'"bob"'),
        node.entry(A, 3, Kind.REMOVED, data=b'{"user":"ann","reason":"flood"}'), node.entry(A, 4, info=b'"ann"'),
        node.entry(A, 5, Kind.EDIT, data=about(1), info=b'"ann"'),
    ]  # fmt: skip
    if filed:
        node.file(entries[:filed])
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    commit(node, entries[filed:])
    assert texts(follow(node, {})) == [(1, False), (2, True), (4, True), (5, False)]


@pytest.mark.parametrize("filed", range(5))
def test_a_history_that_was_removed_is_lost_to_followers(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, filed: int
) -> None:
    node = open_node()
    entries = [
        node.entry(A, 1), node.entry(B, 2), node.entry(A, 3), node.entry(A, 4, Kind.META, data=HISTORY_REMOVED),
        node.entry(A, 5),
    ]  # fmt: skip
    if filed:
        node.file(entries[:filed])
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    commit(node, entries[filed:])
    tail = follow(node, {})
    assert places(tail.entries) == [(SHARD, 2), (SHARD, 4), (SHARD, 5)]
    assert (tail.lost, tail.cursor) == ([Lost(SHARD, 1, 1), Lost(SHARD, 3, 3)], {SHARD: 5})


def test_what_was_filed_between_a_question_and_its_answer_is_neither_given_twice_nor_older_than_the_tables(
    open_node: Callable[..., LogWriter],
) -> None:
    node = open_node()
    entries = [
        node.entry(A, 1), node.entry(A, 2, Kind.REMOVED, data=about(1)), node.entry(A, 3, Kind.RESTORED, data=about(1))
    ]  # fmt: skip
    node.file(entries)
    late = Unfiled({SHARD: 2}, {SHARD: entries[:2]}, entries[1:2])
    tail = node.log._tail_reader.read(TailQuery({}, 10, MUCH), late)
    assert places(tail.entries) == [(SHARD, 1), (SHARD, 2), (SHARD, 3)]
    assert (texts(tail), tail.heads) == ([(1, True)], {SHARD: 3})


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_log_that_has_halted_says_so_to_followers(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(A, 1)])
    node.log._connection.execute("PRAGMA query_only=1")
    node.log.append(Batch(99, entries=[node.entry(A, 2)]))
    node.wait(lambda done: isinstance(done, Halted))
    for token in (1, 2):
        node.log.tail(TailQuery({}, 10, MUCH), token)
        done = node.wait(lambda done: isinstance(done, TailRead))
        assert isinstance(done, TailRead)
        assert (done.token, done.result) == (token, node.log.fault)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM chunk", "UPDATE place SET entries=x'00'", "DELETE FROM place", "UPDATE chunk SET first=2, last=3"],
)
def test_a_hole_in_the_tables_is_no_news(open_node: Callable[..., LogWriter], damage: str) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(A, 2)])
    node.log._connection.execute(damage)
    node.log.tail(TailQuery({}, 10, MUCH), None)
    done = node.wait(lambda done: isinstance(done, TailRead))
    assert isinstance(done, TailRead)
    assert isinstance(done.result, StorageFault)
    assert done.result.reason == "corrupt"


def test_a_read_fetches_no_more_than_its_bound_asks_for(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(B, 2), node.entry(A, 3)])
    node.log._connection.execute("UPDATE chunk SET wires=x'00' WHERE room=(SELECT id FROM room WHERE channel='b')")
    assert places(follow(node, {}, max_bytes=1).entries) == [(SHARD, 1)]
    node.log.tail(TailQuery({}, 10, MUCH), None)
    done = node.wait(lambda done: isinstance(done, TailRead))
    assert isinstance(done, TailRead)
    assert isinstance(done.result, StorageFault)


# -- what is held ------------------------------------------------------------------------------------------------


def expired(node: LogWriter) -> None:
    for days in (9, 8, 7):
        node.file([node.entry(A, days_ago(days)), node.entry(A, days_ago(days))])


def test_a_sweep_leaves_what_a_follower_has_not_read(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    expired(node)
    node.log.hold(Hold({SHARD: 2}, days_ago(20)))
    node.sweep(keep_days(5))
    assert node.sequences(A) == [3, 4, 5, 6]
    assert (follow(node, {SHARD: 2}).lost, node.head(A)) == ([], (6, 0, 2))
    node.log.hold(Hold({SHARD: 3}, days_ago(20)))
    node.sweep(keep_days(5))
    assert node.sequences(A) == [3, 4, 5, 6]
    node.log.hold(Hold({SHARD: 6}, days_ago(20)))
    node.sweep(keep_days(5))
    assert node.sequences(A) == []


def test_a_rule_of_bytes_leaves_it_too(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    expired(node)
    node.log.hold(Hold({SHARD: 4}, 0))
    node.sweep(lambda _: Keep(bytes=1))
    assert node.sequences(A) == [5, 6]


def test_a_hold_has_an_end_in_time_or_when_it_is_taken_back(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    expired(node)
    node.log.hold(Hold({}, days_ago(8)))
    node.sweep(keep_days(5))
    assert node.sequences(A) == [3, 4, 5, 6]
    assert follow(node, {}).lost == [Lost(SHARD, 1, 2)]
    node.log.hold(None)
    node.sweep(keep_days(5))
    assert node.sequences(A) == []


def test_nothing_is_held_while_the_disk_is_full(
    open_node: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    expired(node)
    node.log.hold(Hold({}, 0))
    monkeypatch.setattr(log, "FULL_SHARE", -1.0)
    for _ in range(5000):
        if not node.log.full:
            node.reach()
    assert node.log.full
    node.sweep(keep_days(5))
    assert node.sequences(A) == []
    assert follow(node, {}).lost == [Lost(SHARD, 1, 6)]


def test_the_bound_of_the_log_waits_for_nobody(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node(retention_bytes=200_000)
    node.log.hold(Hold({}, 0))
    for n in range(60):
        node.file([node.entry(A, NOW_MS + n, size=6000)])
    node.shrink(200_000)
    (floor,) = read(tmp_path, "SELECT floor FROM room")[0]
    assert floor > 0
    assert follow(node, {}).lost == [Lost(SHARD, 1, floor)]


# -- cursors -----------------------------------------------------------------------------------------------------


def recovered(**commits: tuple[int, int]) -> Recovered:
    """Shards by name, with their last lsn and the one known to be committed."""
    tails = {int(name[1:]): ShardTail(int(name[1:]), lsn, b"", 1, commit) for name, (lsn, commit) in commits.items()}
    return Recovered(tails, {}, ())


def test_the_first_cursor_is_what_was_committed_when_the_log_was_opened(open_node: Callable[..., LogWriter]) -> None:
    assert first_cursor(recovered(s1=(9, 7), s2=(4, 4))) == {1: 7, 2: 4}
    node = open_node()
    node.file([node.entry(A, 1), node.entry(A, 2)])
    node = open_node()
    cursor = first_cursor(node.log.recovered)
    assert cursor == {SHARD: 2}
    node.heads[A] = [2, 0]
    node.file([node.entry(A, 3)])
    assert places(follow(node, cursor).entries) == [(SHARD, 3)]


def test_a_cursor_beyond_the_end_of_the_log_goes_back_to_what_is_committed() -> None:
    assert fit_cursor({1: 9, 2: 5, 3: 1}, recovered(s1=(9, 7), s2=(4, 3), s4=(1, 1))) == {1: 9, 2: 3, 3: 0}

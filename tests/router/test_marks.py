"""How far users have read: what memory and disk say, what is forgotten, and that no trace of it stays that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router import retention
from router.entry import SALT_BYTES, Entry, Kind, make
from router.ids import RoomId
from router.log_tools import verify
from router.marks import Marks, Reader, marks_data, marks_of
from router.retention import Keep
from tests.harness.log_writer import LogWriter, days_ago, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from router.events import Away

A, B = RoomId("default", "a"), RoomId("other", "a")
ALL: Final = Keep()


def entry(meta_n: int, data: bytes, room: RoomId = A) -> Entry:
    return make(1, meta_n, 1, room, 0, meta_n, Kind.MARKS, b"", "", 0, bytes(SALT_BYTES), data, b"", b"")


# -- in memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b'{"marks":[]}', b'{"marks":{"u":"1"}}', b"{}", b'\xff{"marks":{}}']
)
def test_what_is_no_entry_of_marks_sets_none(data: bytes) -> None:
    assert marks_of(entry(1, data)) == {}


def test_only_what_the_disk_has_is_forgotten() -> None:
    marks = Marks(most=2)
    entries = [entry(number, marks_data({f"u{number}": number})) for number in range(1, 6)]
    for number, made in enumerate(entries, 1):
        assert marks.ask(Reader(A, f"u{number}"), lambda _: None)
        marks.note(made)
        assert marks.get(Reader(A, f"u{number}")) is None  # the disk may have a higher one
        assert marks.learn(Reader(A, f"u{number}"), 0)[1] == number
    assert [marks.get(Reader(A, f"u{number}")) for number in range(1, 6)] == [1, 2, 3, 4, 5]
    for made in entries[:4]:
        marks.filed(made)
    assert [marks.get(Reader(A, f"u{number}")) for number in range(1, 6)] == [None, None, 3, 4, 5]
    assert len(marks) == 3
    assert marks.get(Reader(B, "u5")) is None


def test_who_asks_twice_is_answered_twice_and_the_disk_once() -> None:
    marks = Marks()
    told: list[int | Away] = []
    assert marks.ask(Reader(A, "u"), told.append)
    assert not marks.ask(Reader(A, "u"), told.append)
    waiting, mark = marks.learn(Reader(A, "u"), 7)
    assert (len(waiting), mark) == (2, 7)
    assert marks.get(Reader(A, "u")) == 7
    assert marks.ask(Reader(A, "v"), told.append)
    assert marks.fail(Reader(A, "v")) == [told.append]
    assert marks.get(Reader(A, "v")) is None


class Memory(RuleBasedStateMachine):
    """Entries are committed, later filed; the disk is asked, and answers late. Hardly anything is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = Marks(most=1)
        self.committed: dict[Reader, int] = {}
        self.table: dict[Reader, int] = {}
        self.unfiled: list[Entry] = []
        self.asked: dict[Reader, int] = {}  # what the reader of the disk has found already
        self.count = 0

    @rule(marks=st.dictionaries(st.sampled_from("uvw"), st.integers(1, 9), min_size=1), room=st.sampled_from([A, B]))
    def commit(self, marks: dict[str, int], room: RoomId) -> None:
        self.count += 1
        self.unfiled.append(entry(self.count, marks_data(marks), room))
        self.marks.note(self.unfiled[-1])
        for user, mark in marks.items():
            reader = Reader(room, user)
            self.committed[reader] = max(mark, self.committed.get(reader, 0))

    @rule(told=st.booleans())
    def file(self, *, told: bool) -> None:
        if self.unfiled:
            filed = self.unfiled.pop(0)
            for user, mark in marks_of(filed).items():
                reader = Reader(filed.room, user)
                self.table[reader] = max(mark, self.table.get(reader, 0))
            if told:
                self.marks.filed(filed)

    @rule(user=st.sampled_from("uvw"), room=st.sampled_from([A, B]))
    def ask(self, user: str, room: RoomId) -> None:
        reader = Reader(room, user)
        if self.marks.get(reader) is None and self.marks.ask(reader, lambda _: None):
            self.asked[reader] = self.table.get(reader, 0)

    @rule()
    def answer(self) -> None:
        for reader, found in self.asked.items():
            _, mark = self.marks.learn(reader, found)
            assert mark == self.committed.get(reader, 0)
        self.asked.clear()

    @invariant()
    def memory_is_right_or_knows_nothing(self) -> None:
        for reader in [Reader(room, user) for room in (A, B) for user in "uvw"]:
            assert self.marks.get(reader) in {None, self.committed.get(reader, 0)}


TestMemory = Memory.TestCase


# -- on disk -----------------------------------------------------------------------------------------------------


def test_the_highest_counts_whatever_comes_later(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(1)), node.marks(A, days_ago(1), ann=1, bob=1), node.entry(A, days_ago(1))])
    node.file([node.marks(A, days_ago(0), ann=2), node.marks(A, days_ago(0), bob=1, cat=2)])
    node.file([node.marks(A, days_ago(0), ann=1), node.entry(B, days_ago(0)), node.marks(B, days_ago(0), ann=1)])
    assert [node.mark(A, user) for user in ("ann", "bob", "cat", "dan")] == [2, 1, 2, 0]
    assert [node.mark(B, user) for user in ("ann", "bob")] == [1, 0]
    assert node.mark(RoomId("default", "never"), "ann") == 0
    assert read(tmp_path, "SELECT marks FROM room ORDER BY id") == [(3,), (1,)]
    assert node.head(A) == (2, 4, 0)
    assert verify(tmp_path).findings == ()
    assert open_node().mark(A, "ann") == 2


def test_a_room_keeps_the_marks_that_rose_last(
    open_node: Callable[..., LogWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MARKS_AT_ONCE", 3)
    node = open_node()
    node.file([node.entry(room, days_ago(30)) for room in (A, B) for _ in range(30)])
    for number in range(20):
        marks = {f"u{number}": 1}
        node.file([node.marks(A, days_ago(20 - number), **marks), node.marks(B, days_ago(20 - number), **marks)])
    node.file([node.marks(A, days_ago(0), u3=7)])
    node.sweep(lambda room: Keep(marks=8) if room == A else Keep())
    kept = [f"u{number}" for number in (3, *range(13, 20))]
    assert {f"u{number}" for number in range(20) if node.mark(A, f"u{number}")} == set(kept)
    assert node.mark(A, "u3") == 7
    assert all(node.mark(B, f"u{number}") for number in range(20))
    assert read(tmp_path, "SELECT marks FROM room ORDER BY id") == [(8,), (20,)]
    node.file([node.marks(A, days_ago(0), u0=5)])  # who fell out may come again
    assert read(tmp_path, "SELECT marks FROM room ORDER BY id") == [(9,), (20,)]
    assert read(tmp_path, "SELECT count(*) FROM mark") == [(29,)]


def test_entries_of_marks_go_and_leave_what_they_said(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(2)), node.marks(A, days_ago(2), ann=1)])
    node.file([node.entry(A, days_ago(2), Kind.META)])
    node.file([node.marks(A, days_ago(1), bob=1)])
    node.file([node.marks(A, days_ago(0), bob=1)])
    size = read(tmp_path, "SELECT bytes FROM room")
    node.sweep(lambda _: ALL)
    assert read(tmp_path, "SELECT stream, first FROM chunk ORDER BY id") == [(0, 1), (1, 2), (3, 4)]
    ((left,),) = read(tmp_path, "SELECT sum(length(wires)) FROM chunk")
    assert read(tmp_path, "SELECT bytes, marks_floor FROM room") == [(left, 3)]
    assert left < size[0][0]
    assert (node.mark(A, "ann"), node.mark(A, "bob")) == (1, 1)
    assert node.head(A) == (1, 4, 0)
    assert verify(tmp_path).findings == ()
    node = open_node()
    node.heads[A] = [1, 4]
    node.file([node.entry(A, days_ago(0), Kind.META), node.marks(A, days_ago(0), ann=1)])
    assert verify(tmp_path).findings == ()


def test_a_thousand_entries_of_marks_leave_nothing_that_grows(
    open_node: Callable[..., LogWriter], tmp_path: Path
) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(9)), node.entry(A, days_ago(9), Kind.META)])
    sizes = []
    for day in (8, 7, 6):
        for number in range(100):
            node.file([node.marks(A, days_ago(day), ann=1 + number)])
        node.file([node.entry(A, days_ago(day))])
        node.sweep(lambda _: ALL)
        sizes.append(read(tmp_path, "SELECT (SELECT count(*) FROM chunk), (SELECT count(*) FROM place)")[0])
    assert sizes == [(3, 3), (4, 5), (5, 7)]  # two messages, and between them what is gone
    assert read(tmp_path, "SELECT first, last, length(entries)=0 FROM place ORDER BY first") == [
        (1, 2, 0), (3, 102, 1), (103, 103, 0), (104, 203, 1), (204, 204, 0), (205, 304, 1), (305, 305, 0),
    ]  # fmt: skip
    assert verify(tmp_path).findings == ()
    node.file([node.entry(A, days_ago(0))])
    node.sweep(lambda _: Keep(seconds=86_400 * 7 - 1))  # the places behind the META entry stay, as ever
    assert verify(tmp_path).findings == ()
    assert open_node().log.recovered.shards[3].lsn == 306


def test_places_that_hold_more_than_marks_stay(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.file([node.epoch()])
    node.file([node.entry(A, days_ago(9)), node.marks(A, days_ago(9), ann=1)])
    node.file([node.marks(A, days_ago(9), ann=2), node.epoch()])
    node.file([node.marks(A, days_ago(9), ann=3)])
    node.file([node.marks(A, days_ago(0), ann=4)])
    for _ in range(2):
        node.sweep(lambda _: ALL)
        assert read(tmp_path, "SELECT first, length(entries)>0 FROM place ORDER BY first") == [
            (1, 1), (2, 1), (4, 1), (6, 0), (7, 1),
        ]  # fmt: skip
        assert read(tmp_path, "SELECT looked FROM shard") == [(6,)]
    assert verify(tmp_path).findings == ()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM chunk WHERE stream=1", "entry 2 of room number 1 (stream 1) is missing"),
        ("DELETE FROM chunk WHERE stream=3", "META entries 4 to 4 are missing"),
        ("UPDATE room SET marks_floor=1", "META entries 3 to 3 are missing"),
        ("DELETE FROM place WHERE length(entries)=0", "the places go from lsn 3 to 5"),
    ],
)
def test_damage_to_what_marks_have_left_is_found(
    open_node: Callable[..., LogWriter], tmp_path: Path, statement: str, words: str
) -> None:
    node = open_node()
    node.file([node.entry(A, days_ago(2)), node.marks(A, days_ago(2), ann=1), node.entry(A, days_ago(2), Kind.META)])
    node.file([node.marks(A, days_ago(1), bob=1)])
    node.file([node.marks(A, days_ago(0), bob=1)])
    node.sweep(lambda _: ALL)
    assert verify(tmp_path).findings == ()
    assert node.log._connection.execute(statement).rowcount == 1
    assert any(words in finding for finding in verify(tmp_path).findings), verify(tmp_path).findings


def test_a_log_that_can_not_be_read_says_so(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.log._reader_connection.close()
    node.log.mark(A, "ann", "token")
    done = node.wait(lambda done: getattr(done, "token", "") == "token")
    assert not isinstance(getattr(done, "result", 0), int)

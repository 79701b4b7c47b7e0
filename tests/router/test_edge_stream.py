"""An edge's cursor in a room, over visible and other entries, and how what was fetched is put in."""

from __future__ import annotations

import json

import pytest

from router.edge_stream import EARLY_ENTRIES, Stream, entries_of
from router.edge_wire import Entries, Hidden
from router.entry import Entry, Kind, decode, erase, make
from router.errors import CorruptEntry
from router.events import RoomRecord
from router.ids import Place, RoomId
from router.room import RoomCache, RoomState

ROOM = RoomId("s", "room")
GENESIS = bytes(16)


def entry(sequence: int, meta_n: int = 0, kind: int = Kind.MESSAGE, data: bytes = b"{}") -> Entry:
    return make(1, 1, 1, ROOM, sequence, meta_n, kind, b"s" * 12, "", 5, b"x" * 16, data, b'"u"', GENESIS)


def stream(sequence: int = 0, meta_n: int = 0) -> Stream:
    cache = RoomCache(1 << 20, 10)
    state = RoomState(1, RoomRecord(ROOM, 1, sequence, meta_n))
    cache.add(state)
    return Stream(state, cache)


def answer(
    visible: list[Entry], metas: list[Entry] | None = None, upto: tuple[int, int] = (0, 0), floor: int = 0,
    hidden: list[Hidden] | None = None,
) -> Entries:  # fmt: skip
    return Entries(1, 1, [e.wire for e in visible], hidden or [], [e.wire for e in metas or ()], upto, floor, upto)


def places(out: list[Entry]) -> list[tuple[int, int]]:
    return [(e.sequence, e.meta_n) for e in out]


def test_entries_are_handed_on_in_order_whatever_the_order_they_come_in() -> None:
    followed, out = stream(), list[Entry]()
    for came in (entry(2), entry(2, 1, Kind.META), entry(1), entry(2), entry(3, 1), entry(1)):
        assert followed.take(came, out)
    assert places(out) == [(1, 0), (2, 0), (2, 1), (3, 1)]
    assert followed.place == Place(3, 1)
    assert not followed.behind
    assert [e.sequence for e in followed.state.entries] == [1, 2, 3]


def test_what_stands_after_a_hole_waits() -> None:
    followed, out = stream(4, 2), list[Entry]()
    followed.take(entry(6, 2), out)
    assert not out
    assert followed.behind
    followed.take(entry(5, 2), out)
    assert places(out) == [(5, 2), (6, 2)]
    assert not followed.behind


def test_a_lost_hidden_entry_is_noticed() -> None:
    followed, out = stream(4, 2), list[Entry]()
    followed.take(entry(5, 3), out)
    assert not out
    followed.take(entry(4, 3, Kind.META), out)
    assert places(out) == [(4, 3), (5, 3)]


def test_a_place_that_can_not_be_is_refused() -> None:
    followed, out = stream(4, 2), list[Entry]()
    assert not followed.take(entry(4, 3), out)
    assert not followed.take(entry(5, 2, Kind.META), out)
    assert not out


def test_only_so_many_early_entries_are_kept() -> None:
    followed, out = stream(), list[Entry]()
    for sequence in range(2, EARLY_ENTRIES + 50):
        followed.take(entry(sequence), out)
    followed.take(entry(1), out)
    assert len(out) == EARLY_ENTRIES + 1
    assert followed.behind


def test_values_and_floors_follow_hidden_entries() -> None:
    followed, out = stream(4, 0), list[Entry]()
    followed.take(entry(4, 1, Kind.META, b'{"set":{"lock":true}}'), out)
    assert followed.state.values == {"lock": b"[5,true]"}
    followed.take(entry(4, 2, Kind.META, b'{"remove":"history"}'), out)
    assert followed.state.floor == 4
    assert not followed.state.unfinished


def test_an_answer_is_put_between_what_came_before_and_after_it() -> None:
    followed, out = stream(4, 2), list[Entry]()
    followed.take(entry(8, 3), out)
    followed.take(entry(5, 2), out)
    followed.fill(answer([entry(5, 2), entry(6, 3), entry(7, 3)], [entry(5, 3, Kind.META)], (7, 3)), out)
    assert places(out) == [(5, 2), (5, 3), (6, 3), (7, 3), (8, 3)]
    assert not followed.behind


def test_marks_that_the_log_has_dropped_leave_no_hole() -> None:
    followed, out = stream(4, 2), list[Entry]()
    followed.fill(answer([entry(5, 4)], [entry(5, 6, Kind.META)], (5, 8)), out)
    assert places(out) == [(5, 4), (5, 6)]
    assert followed.place == Place(5, 8)
    followed.take(entry(6, 8), out)
    assert followed.place == Place(6, 8)


@pytest.mark.parametrize(
    "page",
    [
        answer([entry(6, 2)], [], (6, 2)),
        answer([entry(5, 1)], [], (5, 2)),
        answer([], [entry(7, 3, Kind.META)], (7, 3)),
        answer([entry(5, 2), entry(7, 2)], [], (7, 2)),
    ],
    ids=["hole", "falling", "elsewhere", "inner hole"],
)
def test_an_answer_that_does_not_follow_is_refused(page: Entries) -> None:
    followed, out = stream(4, 2), list[Entry]()
    with pytest.raises(CorruptEntry):
        followed.fill(page, out)
    assert not out


def test_removed_entries_come_without_their_body_and_can_be_restored() -> None:
    followed, out = stream(), list[Entry]()
    page = answer([entry(1, data=b'{"content":"bad"}'), entry(2)], [], (2, 0), hidden=[Hidden(0, 3, 9, "spam", 0)])
    followed.fill(page, out)
    assert out[0].removal is not None
    assert (out[0].data, out[0].removal.reason) == (b"", "spam")
    followed.take(entry(3, kind=Kind.RESTORED, data=json.dumps({"target": 1}).encode()), out)
    assert followed.state.show(list(followed.state.after(0, 1)))[0].data == b'{"content":"bad"}'


def test_erased_entries_are_entries() -> None:
    wire = erase(entry(1, data=b'{"content":"bad"}').wire)
    page = answer([decode(wire, None)], [], (1, 0), hidden=[Hidden(0, 0, 0, "", 0)])
    assert entries_of(page, reverse=False)[0].erased


def test_what_is_hidden_must_be_there() -> None:
    with pytest.raises(CorruptEntry, match="entry 1 of an answer of 1"):
        entries_of(answer([entry(1)], hidden=[Hidden(1, 0, 0, "", 0)]), reverse=False)


def test_newest_first_is_dense_too() -> None:
    assert places(entries_of(answer([entry(3), entry(2)]), reverse=True)) == [(3, 0), (2, 0)]
    with pytest.raises(CorruptEntry):
        entries_of(answer([entry(3), entry(1)]), reverse=True)

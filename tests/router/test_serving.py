"""A primary's side of the edges: answers, publications and Heads, and when there are none."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from router import edge_wire as wire
from router.entry import LAST_VISIBLE, Entry, Kind, make
from router.errors import CorruptEntry
from router.events import Away, Configuration, Duplicate, History, Page, Refusal, RoomRecord, Submit
from router.ids import MemberId, Place, RoomId
from router.removal import Removal, hide
from router.room import RoomCache, RoomState
from router.serving import META_BYTES, Metas, Serving, join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.events import Outcome
    from router.marks import Reader

ROOM, OTHER = RoomId("s", "room"), RoomId("s", "other")
TOPIC = wire.topic_of(ROOM)
EDGE, BOOT = "edge", "boot"
ROW = Configuration(1, 4, 4, MemberId("b", "disk"), (MemberId("b", "disk"),))


def entry(sequence: int, meta_n: int = 0, kind: int = Kind.MESSAGE, data: bytes = b"{}", room: RoomId = ROOM) -> Entry:
    return make(1, 1, 1, room, sequence, meta_n, kind, b"s" * 12, "", 5, b"x" * 16, data, b'"u"', bytes(16))


class Router:
    """A source of which the test says what it answers."""

    def __init__(self) -> None:
        self.mapping = 3
        self.serving = True
        self.cache = RoomCache(1 << 20, 10)
        self.confirming: list[Callable[[bool], None]] = []
        self.submits: list[Submit] = []
        self.metas_there: list[Entry] = []
        self.away: Away | None = None

    def add(self, *entries: Entry, room: RoomId = ROOM, **fields: Any) -> RoomState:  # noqa: ANN401 - of a message
        state = self.cache.get(room)
        if state is None:
            state = RoomState(1, RoomRecord(room, **fields))
            self.cache.add(state)
        for each in entries:
            state.meta_n, state.sequence = each.meta_n, each.sequence
            if each.kind <= LAST_VISIBLE:
                self.cache.extend(state, each)
            else:
                self.metas_there.append(each)
        return state

    def confirm_all(self, primary: bool = True) -> None:  # noqa: FBT002 - as `Shard.confirm` does
        confirming, self.confirming = self.confirming, []
        for done in confirming:
            done(primary)

    def shard_of(self, _room: RoomId) -> int:
        return 1

    def row(self, _shard: int) -> Configuration | None:
        return ROW

    def serves(self, _shard: int) -> bool:
        return self.serving

    def confirm(self, _shard: int, done: Callable[[bool], None]) -> None:
        self.confirming.append(done)

    def state(self, room: RoomId) -> RoomState | None:
        return self.cache.get(room)

    def open_room(self, room: RoomId, done: Callable[[RoomState | Away], None]) -> None:
        done(self.away or self.add(room=room))

    def head(self, state: RoomState) -> Place:
        return Place(state.committed, state.meta_n)

    def submit(self, submit: Submit) -> None:
        self.submits.append(submit)

    def probe(self, submit: Submit) -> None:
        self.submits.append(submit)

    def history(self, state: RoomState, read: History, done: Callable[[Page | Away], None]) -> None:
        entries = state.before(1 << 40, read.limit) if read.reverse else list(state.after(read.since or 0, read.limit))
        done(self.away or Page(state.show(entries), state.floor, state.committed))

    def metas(self, state: RoomState, after: int, limit: int, done: Callable[[Metas | Away], None]) -> None:
        done(Metas([each for each in self.metas_there if each.meta_n > after][:limit], state.meta_n))

    def mark(self, reader: Reader, done: Callable[[int | Away], None]) -> None:
        done(self.away or len(reader.user))


class Desk:
    """A `Serving` with its router, and what it said."""

    def __init__(self) -> None:
        self.router = Router()
        self.serving = Serving(self.router)

    def ask(self, message: wire.Request, now: int = 0) -> list[wire.PeerMessage]:
        self.serving.receive(EDGE, BOOT, message, now)
        return self.said()

    def said(self) -> list[wire.PeerMessage]:
        effects = self.serving.effects()
        self.published = [wire.decode_publication(body) for _, body in effects.publications]
        assert all(node == EDGE for node, _ in effects.sends)
        return [wire.decode(body) for _, body in effects.sends]

    def publications(self) -> list[wire.Publication]:
        assert not self.said()
        return self.published

    def commit(self, *entries: Entry, now: int = 0) -> None:
        self.router.add(*entries)
        self.serving.committed(entries, now)

    def follow(self, now: int = 0) -> None:
        self.serving.subscribed(TOPIC, now, wanted=True)
        self.ask(OPEN, now)
        self.router.confirm_all()
        self.said()


OPEN = wire.Open(1, *ROOM, 3)
FETCH = wire.Fetch(2, *ROOM, 3, 0, 0, 500, 1 << 20, reverse=False)
MARK = wire.Mark(3, *ROOM, 3, "user")


def submit(number: int, session: int = 1, **fields: Any) -> wire.SubmitRemote:  # noqa: ANN401 - of a message
    values: dict[str, Any] = {
        "request": 10 + number, "site": ROOM.site, "channel": ROOM.channel, "mapping": 3, "session": session,
        "number": number, "kind": int(Kind.MESSAGE), "sender": b"s" * 12, "cmid": "id", "data": b"{}", "info": b"",
        "probe": False,
    }  # fmt: skip
    return wire.SubmitRemote(**values | fields)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_room_is_opened_once_the_members_have_confirmed_the_primary(desk: Desk) -> None:
    desk.router.add(entry(1), entry(1, 1, Kind.META), floor=0, values={"lock": b"[1,true]"})
    assert desk.ask(OPEN) == []
    desk.router.add(entry(2, 1))
    desk.router.confirm_all()
    assert desk.said() == [wire.Opened(1, 1, 2, 1, 0, 0, {"lock": b"[1,true]"})]


@pytest.mark.parametrize("message", [OPEN, FETCH, MARK], ids=["open", "fetch", "mark"])
def test_who_is_not_confirmed_says_who_may_be_primary(desk: Desk, message: wire.Request) -> None:
    assert desk.ask(message) == []
    desk.router.confirm_all(primary=False)
    assert desk.said() == [wire.NotPrimary(message.request, 3, wire.row_of(ROW))]


@pytest.mark.parametrize("message", [OPEN, FETCH, MARK, submit(0)], ids=["open", "fetch", "mark", "submit"])
@pytest.mark.parametrize("fault", ["serving", "mapping"])
def test_who_does_not_serve_a_room_says_so_at_once(desk: Desk, message: wire.Request, fault: str) -> None:
    setattr(desk.router, fault, 0)
    assert desk.ask(message) == [wire.NotPrimary(message.request, desk.router.mapping, wire.row_of(ROW))]


@pytest.mark.parametrize("message", [OPEN, FETCH, MARK], ids=["open", "fetch", "mark"])
@pytest.mark.parametrize("why", [Away.OVERLOADED, Away.MOVED])
def test_what_can_not_be_answered_is_said(desk: Desk, message: wire.Request, why: Away) -> None:
    desk.router.away = why
    moved = wire.NotPrimary(message.request, 3, wire.row_of(ROW))
    assert desk.ask(message) == [moved if why is Away.MOVED else wire.Failed(message.request, "OVERLOADED")]


def test_a_mark_is_told(desk: Desk) -> None:
    assert desk.ask(MARK) == []
    desk.router.confirm_all()
    assert desk.said() == [wire.Marked(3, 4)]


@pytest.mark.parametrize("message", [OPEN, FETCH, MARK], ids=["open", "fetch", "mark"])
def test_what_was_read_in_an_earlier_tenure_is_not_told(desk: Desk, message: wire.Request) -> None:
    desk.ask(message)
    desk.serving.unserved(1)
    desk.router.confirm_all()
    assert desk.said() == [wire.NotPrimary(message.request, 3, wire.row_of(ROW))]


def test_entries_are_fetched_with_what_is_hidden(desk: Desk) -> None:
    gone = hide(entry(2, 1, data=b'{"content":"x"}'), Removal(3, 7, "spam"))
    desk.router.add(entry(1), entry(1, 1, Kind.META), gone)
    assert desk.ask(FETCH) == []
    desk.router.confirm_all()
    (page,) = desk.said()
    assert isinstance(page, wire.Entries)
    assert page.wires == [entry(1).wire, gone.wire]
    assert page.hidden == [wire.Hidden(1, 3, 7, "spam", 0)]
    assert page.metas == [entry(1, 1, Kind.META).wire]
    assert (page.upto, page.head, page.floor) == ((2, 1), (2, 1), 0)


def test_clients_reads_have_no_hidden_entries(desk: Desk) -> None:
    desk.router.add(entry(1), entry(1, 1, Kind.META), entry(2, 1))
    desk.ask(wire.Fetch(2, *ROOM, 3, None, None, 10, 1 << 20, reverse=True))
    desk.router.confirm_all()
    (page,) = desk.said()
    assert isinstance(page, wire.Entries)
    assert (page.wires, page.metas) == ([entry(2, 1).wire, entry(1).wire], [])


def test_meta_that_does_not_fit_is_left_for_the_next_answer(desk: Desk) -> None:
    big = [entry(0, n + 1, Kind.META, bytes(META_BYTES // 2)) for n in range(3)]
    desk.router.add(*big)
    desk.ask(FETCH)
    desk.router.confirm_all()
    (page,) = desk.said()
    assert isinstance(page, wire.Entries)
    assert (len(page.metas), page.upto, page.head) == (1, (0, 1), (0, 3))


@pytest.mark.parametrize(
    ("visible", "head", "metas", "covered", "upto"),
    [
        ([(5, 2), (6, 2)], 6, [], 2, (6, 2)),
        ([(5, 2), (6, 3)], 6, [(5, 3)], 3, (6, 3)),
        ([(5, 2), (6, 3)], 6, [], 2, (5, 2)),  # its META was made after they were read
        ([(5, 2), (6, 4)], 6, [(5, 3)], 4, (6, 4)),  # MARKS that were dropped
        ([(5, 2)], 6, [(5, 3), (6, 4)], 4, (5, 3)),  # visible ones were cut
        ([(5, 2)], 5, [(5, 3)], 5, (5, 5)),
        ([], 4, [(4, 3)], 3, (4, 3)),
        ([], 4, [], 4, (4, 4)),
        ([], 4, [], 2, (4, 2)),
        ([(5, 2), (6, 4)], 6, [(5, 3)], 3, (5, 3)),  # META was cut
    ],
)
def test_two_reads_are_joined_up_to_a_place_before_which_nothing_is_missing(
    visible: Sequence[tuple[int, int]], head: int, metas: Sequence[tuple[int, int]], covered: int,
    upto: tuple[int, int],
) -> None:  # fmt: skip
    page = Page([entry(*place) for place in visible], 0, head)
    found = join(Place(4, 2), page, Metas([entry(*place, Kind.META) for place in metas], covered))
    assert found[2] == upto
    assert [(e.sequence, e.meta_n) for e in found[0]] == [place for place in visible if place <= upto]
    assert [(e.sequence, e.meta_n) for e in found[1]] == [place for place in metas if place <= upto]


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (entry(1), wire.Made(10, 1, entry(1).wire)),
        (Duplicate(4), wire.Repeated(10, 4)),
        (Refusal.CONFLICT, wire.Refused(10, 1, "CONFLICT")),
        (Away.OVERLOADED, wire.Failed(10, "OVERLOADED")),
        (Away.MOVED, wire.NotPrimary(10, 3, wire.row_of(ROW))),
    ],
)
def test_a_submit_is_answered_with_its_outcome(desk: Desk, outcome: Outcome, answer: wire.PeerMessage) -> None:
    desk.router.add()
    assert desk.ask(submit(0)) == []
    desk.router.submits[0].done(outcome)
    assert desk.said() == [answer]


def test_submits_are_taken_in_order_or_not_at_all(desk: Desk) -> None:
    desk.ask(submit(0))
    assert desk.ask(submit(2)) == [wire.Restart(*ROOM, 1)]
    assert desk.ask(submit(0)) == []
    desk.ask(submit(0, session=2))
    assert desk.ask(submit(1)) == []
    desk.ask(submit(1, session=2, probe=True))
    assert [sent.probe for sent in desk.router.submits] == [False, False, True]


def test_a_primary_that_has_begun_anew_has_no_sessions(desk: Desk) -> None:
    desk.ask(submit(0))
    desk.serving.unserved(1)
    assert desk.ask(submit(1)) == [wire.Restart(*ROOM, 1)]


@pytest.mark.parametrize("fields", [{"kind": int(Kind.EPOCH)}, {"cmid": ""}], ids=str)
def test_what_no_edge_may_ask_is_refused(desk: Desk, fields: dict[str, Any]) -> None:
    with pytest.raises(CorruptEntry):
        desk.ask(submit(0, **fields))
    assert not desk.router.submits


def test_entries_of_a_turn_are_published_together(desk: Desk) -> None:
    desk.follow()
    desk.commit(entry(1), entry(1, 1, Kind.META))
    desk.serving.committed([entry(1, room=OTHER)], 0)
    desk.commit(entry(2, 1))
    assert desk.publications() == [
        wire.Published(*ROOM, 1, [entry(1).wire, entry(1, 1, Kind.META).wire, entry(2, 1).wire])
    ]


def test_many_bytes_are_published_in_parts(desk: Desk) -> None:
    desk.follow()
    desk.commit(*(entry(n + 1, data=bytes(400_000)) for n in range(5)))
    parts = desk.publications()
    assert [len(part.wires) for part in parts if isinstance(part, wire.Published)] == [2, 2, 1]


def test_nothing_is_published_that_nobody_wants_or_by_who_does_not_serve(desk: Desk) -> None:
    desk.commit(entry(1))
    assert desk.publications() == []
    desk.follow()
    desk.router.serving = False
    desk.commit(entry(2))
    assert desk.publications() == []
    desk.router.serving = True
    desk.serving.subscribed(TOPIC, 0, wanted=False)
    desk.commit(entry(3))
    assert desk.publications() == []
    assert len(desk.serving) == 0


def test_who_subscribed_is_served_though_the_room_was_never_opened_here(desk: Desk) -> None:
    desk.serving.subscribed(TOPIC, 0, wanted=True)
    desk.commit(entry(1))
    assert desk.publications() == [wire.Published(*ROOM, 1, [entry(1).wire])]
    assert len(desk.serving) == 1


def heads(desk: Desk, now: int) -> list[tuple[int, int]]:
    desk.serving.tick(now)
    desk.router.confirm_all()
    return [(head.sequence, head.next_ms) for head in desk.publications() if isinstance(head, wire.Head)]


def test_heads_come_often_while_a_room_is_active_and_ever_slower_when_it_is_not(desk: Desk) -> None:
    desk.follow()
    desk.commit(entry(1))
    times = []
    for now in range(0, 40_000, 50):
        times += [(now, next_ms) for _, next_ms in heads(desk, now)]
    assert [now for now, _ in times[:9]] == [250 * (n + 1) for n in range(8)] + [2500]
    gaps = [after - before for (before, _), (after, _) in pairwise(times)]
    assert gaps == [next_ms for _, next_ms in times[:-1]]
    assert max(gaps) == 15_000
    desk.commit(entry(2), now=40_000)
    desk.said()
    assert heads(desk, 40_250) == [(2, 250)]


def test_a_new_subscription_is_told_at_once(desk: Desk) -> None:
    desk.follow()
    desk.serving.subscribed(TOPIC, 100, wanted=True)
    assert heads(desk, 100) == [(0, 250)]


def test_who_opens_an_idle_room_anew_is_told_soon(desk: Desk) -> None:
    desk.follow()
    for now in range(0, 30_000, 50):
        heads(desk, now)
    desk.ask(OPEN, 30_000)
    desk.router.confirm_all()
    desk.said()
    assert [now for now in range(30_000, 32_000, 50) if heads(desk, now)] == [30_250, 30_750, 31_750]


def test_an_answer_that_no_message_can_hold_is_none(desk: Desk) -> None:
    desk.router.add(values={"bans": bytes(wire.MAX_MESSAGE)})
    desk.ask(OPEN)
    desk.router.confirm_all()
    assert desk.said() == [wire.Failed(1, "OVERLOADED")]


def test_a_head_comes_after_what_it_tells_of(desk: Desk) -> None:
    desk.follow()
    desk.commit(entry(1))
    desk.serving.tick(250)
    desk.router.confirm_all()
    assert [type(each) for each in desk.publications()] == [wire.Published, wire.Head]


def test_no_head_without_a_round_trip(desk: Desk) -> None:
    desk.follow()
    desk.serving.tick(250)
    desk.serving.tick(500)
    assert desk.publications() == []
    assert len(desk.router.confirming) == 1
    desk.router.confirm_all(primary=False)
    assert desk.publications() == []
    assert heads(desk, 1000) == [(0, 250)]


def test_a_room_that_was_opened_and_not_subscribed_to_is_forgotten(desk: Desk) -> None:
    desk.ask(OPEN)
    desk.router.confirm_all()
    desk.said()
    state = desk.router.add()
    assert (len(desk.serving), state.pins) == (1, 1)
    assert heads(desk, 9_000) == []
    assert heads(desk, 10_000) == []
    assert (len(desk.serving), state.pins) == (0, 0)
    assert desk.serving.next_deadline is None


def test_rooms_of_a_shard_that_is_no_longer_served_are_forgotten(desk: Desk) -> None:
    desk.follow()
    desk.serving.tick(250)
    desk.serving.unserved(1)
    desk.router.confirm_all(primary=False)
    assert desk.publications() == []
    assert (len(desk.serving), desk.router.add().pins) == (0, 0)
    desk.follow(300)
    desk.router.serving = False
    desk.serving.tick(1000)
    assert len(desk.serving) == 0


def test_topics_in_memory_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.serving.MOST_TOPICS", 3)
    desk.follow()
    for n in range(10):
        desk.serving.committed([entry(1, room=RoomId("s", f"room{n}"))], 0)
    assert len(desk.serving._topics) <= 3


def test_this_nodes_own_edge_is_answered_and_not_published_to(desk: Desk) -> None:
    answers: list[wire.Answer] = []
    desk.serving.ask(OPEN, answers.append, follow=False)
    desk.router.confirm_all()
    assert [type(answer) for answer in answers] == [wire.Opened]
    assert len(desk.serving) == 0
    assert desk.serving.generation(OTHER) == 0

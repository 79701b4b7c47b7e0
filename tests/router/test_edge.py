"""One edge against primaries of which the test says what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from router import edge_wire as wire
from router.edge import Edge
from router.edge_ground import EdgeOptions, Reset, Route
from router.edge_rooms import Phase
from router.entry import Entry, Kind, make
from router.events import Away, Configuration, Duplicate, History, Page, Refusal, Submit
from router.ids import MemberId, Place, RoomId
from router.marks import Reader
from router.serving import Serving
from router.wire import Config
from tests.router.test_serving import Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.edge_ground import EdgeEffects
    from router.events import Outcome
    from router.room import RoomState

ROOM, OTHER = RoomId("s", "room"), RoomId("s", "other")
TOPIC = wire.topic_of(ROOM)
OPTIONS = EdgeOptions(jitter=0, max_requests=4, max_rooms=2)
ROW = Config(1, 9, 9, ("b", "disk"), [("b", "disk")])


def entry(sequence: int, meta_n: int = 0, kind: int = Kind.MESSAGE, data: bytes = b"{}", room: RoomId = ROOM) -> Entry:
    return make(1, 1, 1, room, sequence, meta_n, kind, b"s" * 12, "", 5, b"x" * 16, data, b'"u"', bytes(16))


def published(*entries: Entry, generation: int = 1) -> wire.Published:
    return wire.Published(*ROOM, generation, [each.wire for each in entries])


def head(sequence: int, meta_n: int = 0, next_ms: int = 250, generation: int = 1) -> wire.Head:
    return wire.Head(*ROOM, generation, sequence, meta_n, next_ms)


class Node:
    """An edge at `me`, with all that it did."""

    def __init__(self) -> None:
        self.nodes: tuple[str, ...] = ("a", "b")
        self.router = Router()
        self.router.serving = False
        self.serving = Serving(self.router)
        self.edge = Edge("me", "boot", OPTIONS, self._locate, lambda: 3, lambda: 0.0, self.serving)
        self.now = 0
        self.committed: list[Entry] = []
        self.resets: list[Reset] = []
        self.hints: list[Configuration] = []
        self.subscribed: set[str] = set()
        self.answers: list[Any] = []

    def _locate(self, _room: RoomId) -> Route:
        return Route(1, self.nodes)

    def take(self) -> list[tuple[str, wire.PeerMessage]]:
        """What it sends; all else is gathered."""
        effects: EdgeEffects = self.edge.effects()
        for node, topic, wanted in effects.subscriptions:
            assert topic in {TOPIC, wire.topic_of(OTHER)}
            (self.subscribed.add if wanted else self.subscribed.remove)(node)
        self.committed += effects.committed
        self.resets += effects.resets
        self.hints += effects.hints
        for done, answer in effects.answers:
            done(answer)
        return [(node, wire.decode(body)) for node, body in effects.sends]

    def at(self, now: int) -> list[tuple[str, wire.PeerMessage]]:
        self.now = now
        self.edge.tick(now)
        return self.take()

    def say(self, node: str, answer: wire.Answer) -> list[tuple[str, wire.PeerMessage]]:
        self.edge.receive(node, answer, self.now)
        return self.take()

    def hear(self, node: str, *messages: wire.Publication) -> list[tuple[str, wire.PeerMessage]]:
        for message in messages:
            self.edge.published(node, message, self.now)
        return self.take()

    def sent(self, kind: type[Any], sends: list[tuple[str, wire.PeerMessage]]) -> tuple[str, Any]:
        ((node, message),) = sends
        assert isinstance(message, kind), message
        return node, message

    def ask_open(self, room: RoomId = ROOM) -> wire.Open:
        self.edge.open_room(room, self.answers.append, self.now)
        node, message = self.sent(wire.Open, self.take())
        assert node == "a"
        assert isinstance(message, wire.Open)
        return message

    def open(self, sequence: int = 4, meta_n: int = 2, **fields: Any) -> RoomState:  # noqa: ANN401 - of a message
        message = self.ask_open()
        self.say("a", opened(message, sequence, meta_n, **fields))
        state: RoomState = self.answers.pop()
        state.pins += 1
        return state

    def submit(self, cmid: str = "id", room: RoomId = ROOM, **fields: Any) -> Submit:  # noqa: ANN401 - of a message
        submit = Submit(room, Kind.MESSAGE, b"s" * 12, cmid, b"{}", b"", self.answers.append, **fields)
        self.edge.submit(submit, self.now)
        return submit

    def phase(self) -> Phase:
        (phase,) = [phase for phase, count in self.edge.statistics().rooms.items() if count]
        return phase

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(each.sequence, each.meta_n) for each in self.committed]


def opened(
    message: wire.Open, sequence: int, meta_n: int = 0, *, generation: int = 1, floor: int = 0,
    values: dict[str, bytes] | None = None,
) -> wire.Opened:  # fmt: skip
    return wire.Opened(message.request, generation, sequence, meta_n, 0, floor, values or {})


def entries(message: wire.Fetch, *found: Entry, upto: tuple[int, int], **fields: Any) -> wire.Entries:  # noqa: ANN401 - of a message
    visible = [each.wire for each in found if each.kind != Kind.META]
    metas = [each.wire for each in found if each.kind == Kind.META]
    values: dict[str, Any] = {"generation": 1, "hidden": [], "floor": 0, "head": upto}
    values |= fields
    return wire.Entries(message.request, wires=visible, metas=metas, upto=upto, **values)


@pytest.fixture
def node() -> Node:
    return Node()


# -- rooms ---------------------------------------------------------------------------------------------------------


def test_a_room_is_opened_at_its_primary_and_subscribed_to_there(node: Node) -> None:
    state = node.open(values={"lock": b"[1,true]"})
    assert (state.committed, state.meta_n, state.values) == (4, 2, {"lock": b"[1,true]"})
    assert node.subscribed == {"a"}
    assert node.phase() is Phase.LIVE
    node.edge.open_room(ROOM, node.answers.append, 1)
    assert node.take() == []
    assert node.answers == [state]


def test_what_is_published_is_handed_on(node: Node) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2), entry(5, 3, Kind.META, b'{"set":{"v":1}}')), published(entry(6, 3)))
    assert node.places == [(5, 2), (5, 3), (6, 3)]
    assert (state.committed, state.meta_n, state.values) == (6, 3, {"v": b"[5,1]"})


def test_what_came_before_the_room_was_open_is_fetched(node: Node) -> None:
    message = node.ask_open()
    node.hear("a", published(entry(5, 2)), published(entry(6, 2)))
    node.say("a", opened(message, 5, 2))
    assert node.phase() is Phase.GAP
    _, fetch = node.sent(wire.Fetch, node.at(0))
    assert (fetch.after, fetch.meta_n) == (5, 2)
    node.say("a", entries(fetch, entry(6, 2), upto=(6, 2)))
    assert node.places == [(6, 2)]
    assert node.phase() is Phase.LIVE


@pytest.mark.parametrize(
    "message", [head(7, 2), head(6, 3), published(entry(6, 3))], ids=["sequence", "meta_n", "early entry"]
)
def test_what_is_missing_is_fetched(node: Node, message: wire.Publication) -> None:
    node.open()
    assert node.hear("a", message) == []
    target, fetch = node.sent(wire.Fetch, node.at(1))
    assert (target, fetch.after, fetch.meta_n, fetch.reverse) == ("a", 4, 2, False)
    node.say("a", entries(fetch, entry(5, 2), entry(5, 3, Kind.META), entry(6, 3), entry(7, 3), upto=(7, 3)))
    assert node.places == [(5, 2), (5, 3), (6, 3), (7, 3)]
    assert node.phase() is Phase.LIVE


def test_a_gap_that_closes_by_itself_is_not_fetched(node: Node) -> None:
    node.open()
    node.hear("a", published(entry(6, 2)), published(entry(5, 2)))
    assert node.places == [(5, 2), (6, 2)]
    assert node.at(1) == []
    assert node.phase() is Phase.LIVE


def test_more_than_one_answer_holds_is_fetched_on(node: Node) -> None:
    node.open(0, 0)
    node.hear("a", head(3))
    _, fetch = node.sent(wire.Fetch, node.at(1))
    assert node.say("a", entries(fetch, entry(1), upto=(1, 0), head=(3, 0))) == []
    _, fetch = node.sent(wire.Fetch, node.at(2))
    assert fetch.after == 1
    node.say("a", entries(fetch, entry(2), entry(3), upto=(3, 0)))
    assert node.places == [(1, 0), (2, 0), (3, 0)]


def test_an_answer_that_is_not_needed_any_more_changes_nothing(node: Node) -> None:
    node.open()
    node.hear("a", head(5, 2))
    _, fetch = node.sent(wire.Fetch, node.at(1))
    node.hear("a", published(entry(5, 2)))
    node.say("a", entries(fetch, entry(5, 2), upto=(5, 2)))
    node.say("a", entries(fetch, entry(5, 2), upto=(5, 2)))
    assert node.places == [(5, 2)]


def test_a_fetch_is_tried_again_and_then_the_primary_looked_for(node: Node) -> None:
    node.open()
    node.hear("a", head(5, 2))
    kinds = [type(message).__name__ for now in range(1, 6000, 10) for _, message in node.at(now)]
    assert kinds[:4] == ["Fetch", "Fetch", "Fetch", "Open"]


def test_a_primary_that_is_silent_is_asked_and_then_the_next_member(node: Node) -> None:
    node.open()
    assert node.at(1499) == []
    node.hear("a", head(4, 2, next_ms=250))
    assert node.at(2998) == []
    assert [to for to, _ in node.at(2999)] == ["a"]
    assert node.phase() is Phase.REOPENING
    assert node.at(3998) == []
    target, message = node.sent(wire.Open, node.at(3999))
    assert target == "b"
    node.say("b", opened(message, 5, 2))
    assert node.subscribed == {"b"}
    _, fetch = node.sent(wire.Fetch, node.at(4000))
    node.say("b", entries(fetch, entry(5, 2), upto=(5, 2)))
    assert node.places == [(5, 2)]


def test_an_idle_room_may_be_silent_for_as_long_as_its_head_said(node: Node) -> None:
    node.open()
    node.hear("a", head(4, 2, next_ms=4000))
    assert node.at(9_999) == []
    assert [to for to, _ in node.at(10_000)] == ["a"]


def test_a_head_of_another_node_does_not_stand_for_the_primary(node: Node) -> None:
    node.open()
    node.hear("b", head(4, 2, next_ms=60_000))
    assert [to for to, _ in node.at(1500)] == ["a"]


def test_whoever_says_that_another_is_primary_is_believed_enough_to_ask(node: Node) -> None:
    message = node.ask_open()
    node.say("a", wire.NotPrimary(message.request, 3, ROW))
    assert [(row.shard, row.primary.node) for row in node.hints] == [(1, "b")]
    node.nodes = ("b", "a")
    node.edge.relocated(1, 5)
    target, message = node.sent(wire.Open, node.at(5))
    assert target == "b"
    node.say("b", opened(message, 4, 2))
    assert node.phase() is Phase.LIVE
    assert node.subscribed == {"b"}


def test_a_room_goes_on_at_another_primary_where_it_was(node: Node) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2)))
    node.nodes = ("b", "a")
    node.edge.relocated(1, 10)
    _, message = node.sent(wire.Open, node.at(10))
    node.hear("a", published(entry(6, 2)))  # committed is committed
    node.say("b", opened(message, 8, 2))
    _, fetch = node.sent(wire.Fetch, node.at(11))
    node.say("b", entries(fetch, entry(7, 2), entry(8, 2), upto=(8, 2)))
    assert node.places == [(5, 2), (6, 2), (7, 2), (8, 2)]
    assert (state.committed, node.resets) == (8, [])


def test_a_primary_that_does_not_know_yet_what_is_committed_is_asked_again(node: Node) -> None:
    node.open()
    node.edge.relocated(1, 10)
    _, message = node.sent(wire.Open, node.at(10))
    node.say("a", opened(message, 3, 2))
    assert node.phase() is Phase.REOPENING
    assert [type(sent) for _, sent in node.at(1010)] == [wire.Open]


def test_another_generation_resets_the_room(node: Node) -> None:
    state = node.open()
    _, message = node.sent(wire.Open, node.hear("a", published(entry(1), generation=2)))
    assert node.places == []
    node.say("a", opened(message, 1, generation=2))
    (reset,) = node.resets
    assert (reset.room, reset.place, reset.state.generation) == (ROOM, Place(1, 0), 2)
    assert reset.state is not state
    node.hear("a", published(entry(6, 2)), published(entry(2), generation=2))
    assert node.places == [(2, 0)]


@pytest.mark.parametrize("way", ["opened", "fetched"])
def test_entries_that_can_not_be_had_any_more_reset_the_room(node: Node, way: str) -> None:
    node.open()
    if way == "fetched":
        node.hear("a", head(9, 2))
        _, fetch = node.sent(wire.Fetch, node.at(1))
        sends = node.say("a", entries(fetch, entry(8, 2), entry(9, 2), upto=(9, 2), floor=7))
    else:
        node.edge.relocated(1, 1)
        sends = node.at(1)
    _, message = node.sent(wire.Open, sends)
    node.say("a", opened(message, 9, 2, floor=7))
    (reset,) = node.resets
    assert (reset.place, reset.state.floor) == (Place(9, 2), 7)
    assert node.places == []
    node.hear("a", published(entry(10, 2)))
    assert node.places == [(10, 2)]


def test_a_room_that_can_not_be_opened_in_time_is_away(node: Node) -> None:
    node.ask_open()
    asked = {to for now in range(0, 4000, 100) for to, _ in node.at(now)}
    assert asked == {"a", "b"}
    assert node.answers == []
    node.at(4000)
    assert node.answers == [Away.UNREACHABLE]
    assert node.edge.statistics().rooms[Phase.OPENING] == 0
    assert node.subscribed == set()


def test_without_a_known_member_nobody_is_asked(node: Node) -> None:
    node.nodes = ()
    node.edge.open_room(ROOM, node.answers.append, 0)
    node.submit()
    node.edge.mark(Reader(ROOM, "u"), node.answers.append, 0)
    assert [sends for now in range(0, 4100, 100) if (sends := node.at(now))] == []
    assert node.answers == [Away.UNREACHABLE] * 3


def test_rooms_are_bounded(node: Node) -> None:
    for name in "abc":
        node.edge.open_room(RoomId("s", name), node.answers.append, 0)
    node.edge.effects().answers[0][0](Away.OVERLOADED)
    assert node.answers == [Away.OVERLOADED]


def test_a_room_that_nobody_needs_is_forgotten_after_a_while(node: Node) -> None:
    state = node.open()

    def live(until: int) -> None:
        while node.now < until:
            node.at(node.now + 500)
            node.hear("a", head(4, 2))

    live(70_000)
    assert node.edge.statistics().rooms[Phase.LIVE] == 1
    state.pins -= 1
    live(170_000)
    assert node.edge.statistics().rooms[Phase.LIVE] == 0
    assert node.subscribed == set()
    assert node.edge.next_deadline is None


def test_what_can_not_be_read_is_counted(node: Node) -> None:
    node.open()
    node.hear("a", wire.Published(*ROOM, 1, [b"garbage"]))
    node.say("a", wire.Made(1, 1, b"garbage"))
    node.say("a", wire.Refused(1, 1, "WHATEVER"))
    assert node.edge.statistics().faults == 3


# -- submits -------------------------------------------------------------------------------------------------------


def test_a_submit_is_answered_once_its_entry_was_handed_on(node: Node) -> None:
    node.open()
    node.submit()
    target, message = node.sent(wire.SubmitRemote, node.take())
    assert (target, message.mapping, message.number, message.cmid) == ("a", 3, 0, "id")
    node.say("a", wire.Made(message.request, 1, entry(6, 2).wire))
    assert node.answers == []
    node.hear("a", published(entry(5, 2)))
    assert node.places == [(5, 2), (6, 2)]
    assert [answer.sequence for answer in node.answers] == [6]
    node.hear("a", published(entry(6, 2)))
    assert node.places == [(5, 2), (6, 2)]


def test_what_is_committed_is_told_when_time_is_up(node: Node) -> None:
    node.open()
    node.submit()
    _, message = node.sent(wire.SubmitRemote, node.take())
    node.say("a", wire.Made(message.request, 1, entry(6, 2).wire))
    for now in range(0, 4001, 50):
        node.at(now)
    assert [answer.sequence for answer in node.answers] == [6]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (lambda m: wire.Repeated(m.request, 4), Duplicate(4)),
        (lambda m: wire.Refused(m.request, m.session, "CONFLICT"), Refusal.CONFLICT),
        (lambda m: wire.Failed(m.request, "OVERLOADED"), Away.OVERLOADED),
        (lambda m: wire.Failed(m.request, "SOMETHING_NEW"), Away.UNREACHABLE),
    ],
)
def test_other_outcomes_are_told_at_once(
    node: Node, answer: Callable[[wire.SubmitRemote], wire.Answer], outcome: Outcome
) -> None:
    node.submit()
    _, message = node.sent(wire.SubmitRemote, node.take())
    node.say("a", answer(message))
    node.say("a", answer(message))
    assert node.answers == [outcome]


def test_a_submit_without_an_answer_is_sent_again_under_the_same_id(node: Node) -> None:
    node.submit(cmid="")
    node.submit()
    first = [message for _, message in node.take()]
    again = node.at(1000)
    assert [to for to, _ in again] == ["b", "b"]
    for before, (_, after) in zip(first, again, strict=True):
        assert isinstance(before, wire.SubmitRemote)
        assert isinstance(after, wire.SubmitRemote)
        assert (before.request, before.cmid, before.number) == (after.request, after.cmid, after.number)
        assert after.session > before.session
    assert first[0].cmid == f"boot.{first[0].request}"  # type: ignore[union-attr]


def test_a_refusal_of_an_earlier_session_is_not_the_last_word(node: Node) -> None:
    node.submit()
    _, message = node.sent(wire.SubmitRemote, node.take())
    node.at(1000)
    node.say("a", wire.Refused(message.request, message.session, "CONFLICT"))
    assert node.answers == []


@pytest.mark.parametrize("why", ["not primary", "MOVED", "CLOSING", "STORAGE_FAULT"])
def test_all_that_waits_is_sent_in_order_to_the_next_primary(node: Node, why: str) -> None:
    for n in range(3):
        node.submit(f"id{n}")
    sent: list[Any] = [message for _, message in node.take()]
    request = sent[0].request
    node.say("a", wire.NotPrimary(request, 3, ROW) if why == "not primary" else wire.Failed(request, why))
    node.nodes = ("b", "a")
    node.edge.relocated(1, 5)
    again: list[Any] = node.take()
    assert [(to, message.cmid, message.number) for to, message in again] == [(("b"), f"id{n}", n) for n in range(3)]
    for message in sent:  # the first node's other answers, late
        node.say("a", wire.NotPrimary(message.request, 3, None))
    assert node.answers == []


def test_who_is_not_primary_is_not_asked_at_once_again(node: Node) -> None:
    node.submit()
    _, message = node.sent(wire.SubmitRemote, node.take())
    assert node.say("a", wire.NotPrimary(message.request, 3, None)) == []
    node.submit("another")
    assert node.take() == []
    assert [to for to, _ in node.at(50)] == ["b", "b"]


def test_what_was_lost_on_the_way_is_sent_again_with_all_behind_it(node: Node) -> None:
    for n in range(2):
        node.submit(f"id{n}")
    sent: list[Any] = [message for _, message in node.take()]
    node.say("a", wire.Restart(*ROOM, sent[1].session))
    again: list[Any] = [message for _, message in node.at(1)]
    assert [message.number for message in again] == [0, 1]
    node.say("a", wire.Restart(*ROOM, sent[1].session))
    assert node.at(2) == []


def test_a_submit_that_nobody_answers_is_unknown_in_time(node: Node) -> None:
    node.submit()
    for now in range(0, 4000, 50):
        node.at(now)
    assert node.answers == []
    node.at(4000)
    assert node.answers == [Away.UNREACHABLE]
    assert node.edge.statistics().submits == 0
    node.at(10_000)
    assert node.edge.next_deadline is None


def test_the_last_reason_is_told(node: Node) -> None:
    node.submit()
    _, message = node.sent(wire.SubmitRemote, node.take())
    node.say("a", wire.Failed(message.request, "STORAGE_FAULT"))
    for now in range(0, 4001, 50):
        node.at(now)
    assert node.answers == [Away.STORAGE_FAULT]


def test_requests_are_bounded(node: Node) -> None:
    for n in range(5):
        node.submit(f"id{n}")
        node.edge.mark(Reader(ROOM, "u"), node.answers.append, 0)
    node.take()
    assert node.answers == [Away.OVERLOADED] * 2


# -- reads ---------------------------------------------------------------------------------------------------------


def read(since: int | None, limit: int = 10, *, reverse: bool = False, max_bytes: int = 1 << 20) -> History:
    return History(ROOM, since, limit, reverse=reverse, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        (read(4), [5, 6, 7]),
        (read(5, 1), [6]),
        (read(7), []),
        (read(1 << 70), []),
        (read(4, max_bytes=1), [5]),
        (read(None, 2, reverse=True), [7, 6]),
        (read(7, 2, reverse=True), [6, 5]),
        (read(None, 3, reverse=True), [7, 6, 5]),
        (read(None, 9, reverse=True, max_bytes=1), [7]),
    ],
)
def test_what_memory_holds_is_read_from_memory(node: Node, query: History, sequences: list[int]) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2), entry(6, 2), entry(7, 2)))
    node.edge.history(state, query, node.answers.append, 0)
    assert node.take() == []
    (page,) = node.answers
    assert [each.sequence for each in page.entries] == sequences
    assert (page.floor, page.head) == (0, 7)


@pytest.mark.parametrize(
    ("query", "after"),
    [
        (read(3), 3),
        (read(None), 0),
        (read(-5), 0),
        (read(None, reverse=True), None),
        (read(1 << 70, reverse=True), 1 << 62),
        (read(7, 3, reverse=True), 7),
    ],
)
def test_all_else_is_read_from_the_primary(node: Node, query: History, after: int | None) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2)))
    node.edge.history(state, query, node.answers.append, 0)
    _, fetch = node.sent(wire.Fetch, node.take())
    assert (fetch.after, fetch.meta_n, fetch.limit, fetch.reverse) == (after, None, query.limit, query.reverse)
    assert (state.pins, state.reads) == (2, 1)
    found = [entry(3), entry(4)]
    node.say("a", entries(fetch, *(found[::-1] if query.reverse else found), upto=(0, 0), floor=2, head=(6, 2)))
    (page,) = node.answers
    assert (page.floor, page.head, len(page.entries)) == (2, 6, 2)
    assert (state.pins, state.reads) == (1, 0)


def test_what_the_primary_knows_of_removals_is_newer(node: Node) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2, Kind.RESTORED, b'{"target":3}')))
    node.edge.history(state, read(2), node.answers.append, 0)
    _, fetch = node.sent(wire.Fetch, node.take())
    hidden = [wire.Hidden(0, 9, 1, "spam", 0), wire.Hidden(1, 4, 1, "spam", 0)]
    node.say("a", entries(fetch, entry(3), entry(4), upto=(0, 0), hidden=hidden, head=(9, 2)))
    (page,) = node.answers
    assert [each.removal.sequence for each in page.entries] == [9, 4]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"generation": 2}, Away.MOVED),
        ({"wires": [b"garbage"]}, Away.UNREACHABLE),
        ({"wires": [entry(3).wire, entry(5).wire]}, Away.UNREACHABLE),
    ],
)
def test_an_answer_that_does_not_fit_is_none(node: Node, changes: dict[str, Any], answer: Away) -> None:
    state = node.open()
    node.edge.history(state, read(2), node.answers.append, 0)
    _, fetch = node.sent(wire.Fetch, node.take())
    values: dict[str, Any] = {"generation": 1, "wires": [], "hidden": [], "metas": [], "upto": (0, 0), "floor": 0}
    node.say("a", wire.Entries(fetch.request, head=(4, 2), **(values | changes)))
    assert node.answers == [answer]


def test_reads_are_asked_again_until_their_time_is_up(node: Node) -> None:
    state = node.open()
    node.edge.history(state, read(2), node.answers.append, 0)
    node.edge.mark(Reader(ROOM, "u"), node.answers.append, 0)
    asked = [to for to, _ in node.take()]
    for now in range(0, 4000, 100):
        asked += [to for to, message in node.at(now) if not isinstance(message, wire.Open)]
    assert asked == ["a", "a", "b", "b", "a", "a", "b", "b"]
    node.at(4000)
    assert node.answers == [Away.UNREACHABLE] * 2
    assert node.edge.statistics().asks == 0


def test_a_mark_is_told(node: Node) -> None:
    node.edge.mark(Reader(ROOM, "u"), node.answers.append, 0)
    target, message = node.sent(wire.Mark, node.take())
    assert (target, message.user) == ("a", "u")
    node.say("a", wire.NotPrimary(message.request, 3, None))
    target, message = node.sent(wire.Mark, node.at(50))
    assert target == "b"
    node.say("b", wire.Failed(message.request, "CLOSING"))
    node.nodes = ("c",)
    node.edge.relocated(1, 60)
    target, message = node.sent(wire.Mark, node.take())
    assert target == "c"
    node.say("c", wire.Marked(message.request, 7))
    assert node.answers == [7]


# -- this node as primary ------------------------------------------------------------------------------------------


def test_a_room_whose_primary_is_this_node_needs_no_messages(node: Node) -> None:
    node.nodes, node.router.serving = ("me",), True
    theirs = node.router.add(entry(1), entry(1, 1, Kind.META))
    node.edge.open_room(ROOM, node.answers.append, 0)
    assert node.take() == []
    node.router.confirm_all()
    assert node.take() == []
    state = node.answers.pop()
    assert (state.committed, state.meta_n) == (1, 1)
    assert state is not theirs
    node.submit()
    assert node.take() == []
    made = entry(2, 1)
    node.router.add(made)
    node.edge.committed([made], 0)
    node.router.submits[0].done(made)
    assert node.take() == []
    assert node.committed == [made]
    assert node.answers == [made]
    assert state.committed == 2
    assert node.at(60_000) == []
    assert node.subscribed == set()


def test_a_room_comes_to_this_node_and_goes_again(node: Node) -> None:
    state = node.open()
    node.hear("a", published(entry(5, 2)))
    node.submit()
    node.sent(wire.SubmitRemote, node.take())

    node.nodes, node.router.serving = ("me", "a"), True
    node.router.add(*(entry(n, 2) for n in (5, 6)), generation=1, sequence=4, meta_n=2)
    node.edge.relocated(1, 10)
    node.at(10)
    assert [sent.cmid for sent in node.router.submits] == ["id"]
    node.router.confirm_all()
    node.take()  # opened: behind by one
    node.at(11)
    node.router.confirm_all()
    node.take()
    assert node.places == [(5, 2), (6, 2)]
    assert node.phase() is Phase.LIVE
    assert node.subscribed == set()

    node.nodes, node.router.serving = ("b", "me"), False
    node.serving.unserved(1)
    node.router.submits[0].done(Away.MOVED)
    node.edge.relocated(1, 20)
    sends: list[Any] = node.at(20)
    assert {(to, type(message)) for to, message in sends} == {("b", wire.Open), ("b", wire.SubmitRemote)}
    (message,) = [message for _, message in sends if isinstance(message, wire.Open)]
    node.say("b", opened(message, 6, 2))
    node.hear("b", published(entry(7, 2)))
    assert node.places == [(5, 2), (6, 2), (7, 2)]
    assert (state.committed, node.resets) == (7, [])


def test_a_page_of_the_router_is_the_edges(node: Node) -> None:
    node.nodes, node.router.serving = ("me",), True
    node.router.add(entry(1), entry(2))
    node.edge.open_room(ROOM, node.answers.append, 0)
    node.take()
    node.router.confirm_all()
    node.take()
    node.edge.history(node.answers.pop(), read(0), node.answers.append, 0)
    node.router.confirm_all()
    node.take()
    (page,) = node.answers
    assert isinstance(page, Page)
    assert [each.sequence for each in page.entries] == [1, 2]


def test_a_local_submit_in_a_session_that_was_lost_is_sent_again(node: Node) -> None:
    node.nodes, node.router.serving = ("me",), True
    node.router.add()
    node.submit("id0")
    node.take()
    node.serving.unserved(1)
    node.submit("id1")
    node.take()
    node.at(1)
    assert [sent.cmid for sent in node.router.submits] == ["id0", "id0", "id1"]


def test_rows_keep_their_meaning(node: Node) -> None:
    message = node.ask_open()
    node.say("a", wire.NotPrimary(message.request, 3, ROW))
    assert node.hints == [Configuration(1, 9, 9, MemberId("b", "disk"), (MemberId("b", "disk"),))]

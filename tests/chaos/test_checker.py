"""The checker lets every history pass that keeps the promises, and refuses each that breaks one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.harness.checker import HIDDEN, Ack, Begin, Chains, Event, Fault, History, Rule, Seen, Submit, faults, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOM = "room"


def wrote(*names: str, at: float = 0) -> list[Event]:
    """Messages whose bodies are as their ids."""
    return [Submit(at, ROOM, name, f"text {name}") for name in names]


def read(*names: str, first: int = 1, at: float = 9) -> list[Event]:
    return [Begin(0, ROOM, first - 1), *(seen(number, name, at=at) for number, name in enumerate(names, first))]


def seen(sequence: int, name: str, at: float = 9, body: str | None = None, target: int = 0) -> Seen:
    return Seen(at, ROOM, sequence, name, f"text {name}" if body is None else body, target)


def rules(*histories: History, chains: dict[str, Chains] | None = None) -> set[Rule]:
    return {fault.rule for fault in faults(histories, chains)}


TWO = [*wrote("a", "b"), Ack(1, ROOM, "a", 1), Ack(2, ROOM, "b", 2)]
REMOVAL = [*wrote("a"), Ack(1, ROOM, "a", 1), Submit(2, ROOM, "r", "removed", 1), Ack(3, ROOM, "r", 2)]


@pytest.mark.parametrize(
    ("rule", "histories"),
    [
        (Rule.LOST, [History("w", TWO), History("log", read("a"), at_rest=True)]),
        (Rule.LOST, [History("w", TWO), History("reader", read("a"))]),
        (Rule.LOST, [History("w", [*TWO, *wrote("c")]), History("reader", read("a", "c"))]),
        (Rule.DOUBLED, [History("w", TWO), History("reader", read("a", "b", "a"))]),
        (Rule.DOUBLED, [History("w", [*TWO, Ack(3, ROOM, "b", 3)]), History("reader", read("a", "b"))]),
        (Rule.TWO_BODIES, [History("w", TWO), History("r1", read("a", "b")), History("r2", read("b"))]),
        (Rule.TWO_BODIES, [History("w", TWO), History("r", read("a")), History("s", [seen(1, "a", body="else")])]),
        (Rule.TWO_BODIES, [History("w", TWO), History("r", read("a")), History("s", [seen(1, "a", target=3)])]),
        (Rule.SKIPPED, [History("w", TWO), History("all", read("a", "b")), History("reader", [seen(2, "b")])]),
        (Rule.SKIPPED, [History("w", TWO), History("reader", [Begin(0, ROOM, 0), seen(2, "b")])]),
        (Rule.BACKWARDS, [History("w", TWO), History("reader", [*read("a", "b"), seen(1, "a")])]),
        (Rule.BACKWARDS, [History("w", TWO), History("reader", [*read("a", "b"), seen(2, "b")])]),
        (Rule.BACKWARDS, [History("w", TWO), History("r", [*read("a", "b"), Begin(9, ROOM, 2), seen(2, "b")])]),
        (Rule.INVENTED, [History("w", TWO), History("reader", read("a", "b", "c"))]),
        (Rule.INVENTED, [History("w", [*TWO, Ack(3, ROOM, "c", 3)]), History("reader", read("a", "b"))]),
        (Rule.INVENTED, [History("w", TWO), History("reader", [seen(1, "a", body="else"), seen(2, "b")])]),
        (Rule.INVENTED, [History("w", REMOVAL), History("r", [*read("a"), seen(2, "r", body="removed")])]),
        (
            Rule.REVERSED,
            [History("w", [*wrote("a"), Ack(1, ROOM, "a", 2), *wrote("b", at=2)]), History("reader", read("b", "a"))],
        ),
        (
            Rule.REVERSED,
            [History("w", [*wrote("a"), *wrote("b", at=2)]), History("reader", [*read("b"), seen(2, "a", at=1)])],
        ),
        (
            Rule.TARGET,
            [
                History("w", [*wrote("a"), Submit(0, ROOM, "r", "removed", 2)]),
                History("reader", [seen(1, "r", body="removed", target=2), seen(2, "a")]),
            ],
        ),
        (Rule.HIDDEN, [History("w", TWO), History("reader", [seen(1, "a", body=HIDDEN), seen(2, "b")])]),
        (
            Rule.HIDDEN,
            [
                History("w", REMOVAL),
                History("log", [*read("a"), seen(2, "r", body="removed", target=1)], at_rest=True),
            ],
        ),
        (Rule.BEHIND, [History("w", TWO), History("all", read("a", "b")), History("r", read("a"), settled=True)]),
        (
            Rule.STREAM,
            [
                History("w", TWO),
                History("reader", [Begin(0, ROOM, 0, "birth.1"), *read("a", "b"), Begin(9, ROOM, 0, "birth.2")]),
            ],
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Rule) else "",
)
def test_a_history_that_breaks_a_rule_is_refused(rule: Rule, histories: list[History]) -> None:
    assert rule in rules(*histories)


@pytest.mark.parametrize(
    "histories",
    [
        [],
        [History("w", TWO)],
        [History("w", TWO), History("reader", read("a", "b"), settled=True), History("late", read("b", first=2))],
        [History("w", [*wrote("a"), *wrote("b")]), History("reader", read("b", "a"))],
        [History("w", [*wrote("a"), *wrote("a", at=1), Ack(2, ROOM, "a", 1), Ack(2, ROOM, "a", 1)])],
        [History("w", TWO), History("reader", [*read("a"), Begin(9, ROOM, 1), seen(2, "b")])],
        [
            History("w", REMOVAL),
            History("before", [*read("a"), seen(2, "r", body="removed", target=1)]),
            History("after", [seen(1, "a", body=HIDDEN), seen(2, "r", body="removed", target=1)], at_rest=True),
            History("again", [*read("a"), seen(2, "r", body="removed", target=1)]),
        ],
    ],
    ids=["nothing", "unread", "late reader", "unanswered", "retried", "resumed", "removed"],
)
def test_a_history_that_keeps_them_passes(histories: list[History]) -> None:
    assert faults(histories) == []


def test_chains_are_compared_where_both_logs_have_them() -> None:
    one: Chains = {0: {1: b"a", 2: b"b"}, 1: {1: b"x"}}
    assert rules(chains={"one": one, "two": {0: {2: b"b", 3: b"c"}, 2: {1: b"y"}}}) == set()
    assert rules(chains={"one": one, "two": {0: {1: b"a", 2: b"c"}}}) == {Rule.CHAIN}
    later = faults([], {"one": one, "two": {0: {3: b"c"}}, "three": {0: {3: b"d", 4: b"e"}}})
    assert later == [Fault(Rule.CHAIN, "shard 0: three and two differ from lsn 3 on")]


def test_rooms_do_not_mix() -> None:
    other = [event._replace(room="other") for event in [*TWO, *read("a", "b")]]
    assert rules(History("w", TWO), History("x", other), History("reader", read("a", "b"))) == set()
    strange = [event._replace(room="other") for event in read("a", "b")]
    assert rules(History("w", TWO), History("reader", read("a", "b")), History("x", strange)) == {Rule.INVENTED}


def test_a_summary_names_each_rule_and_counts_what_it_leaves_out() -> None:
    found = [Fault(Rule.LOST, str(number)) for number in range(5)] + [Fault(Rule.CHAIN, "c")]
    assert summary(found, 2) == ["lost: 0", "lost: 1", "lost: and 3 more", "chain: c"]


# -- random runs --------------------------------------------------------------------------------------------------


@dataclass
class Made:
    """A run that keeps every promise, made of one true order.

    Attributes:
        order: Submits, each with when it was acknowledged; None: never.
    """

    order: list[tuple[Submit, float | None]]
    readers: list[History] = field(default_factory=list)
    log: History = field(default_factory=lambda: History("log", at_rest=True))

    def histories(self) -> list[History]:
        writer = History("writer")
        for number, (submit, acked) in enumerate(self.order, 1):
            writer.events.append(submit)
            if acked is not None:
                writer.events.append(Ack(acked, ROOM, submit.cmid, number))
        return [writer, *self.readers, self.log]


@st.composite
def runs(draw: st.DrawFn) -> Made:
    """Messages that overlap in time as they like, removals of some, and readers that come, go and resume."""
    order: list[tuple[Submit, float | None]] = []
    now = 0.0
    committed: list[float] = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        now += draw(st.floats(0.1, 2))  # commits follow each other; a message is written at any time before its own
        committed.append(now)
        written = max(0.0, now - draw(st.floats(0.01, 5)))
        acked = now + draw(st.floats(0, 5)) if draw(st.booleans()) else None
        messages = [n for n in range(1, number) if not order[n - 1][0].target]
        removes = bool(messages) and draw(st.booleans())
        target = draw(st.sampled_from(messages)) if removes else 0
        body = "removed" if target else f"text {draw(st.integers(0, 3))}"
        order.append((Submit(written, ROOM, f"m{number}", body, target), acked))
    made = Made(order)
    removed: dict[int, float] = {}
    for number, (submit, _) in enumerate(order, 1):
        if submit.target:
            removed.setdefault(submit.target, committed[number - 1])
    for reader in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(order)))
        history = History(f"reader {reader}", [Begin(0, ROOM, begin, "birth.1")])
        history.settled = draw(st.booleans())
        end = len(order) if history.settled else draw(st.integers(begin, len(order)))
        for number in range(begin + 1, end + 1):
            submit = order[number - 1][0]
            at = committed[number - 1] + draw(st.floats(0, 50))
            hidden = number in removed and at > removed[number] and draw(st.booleans())
            body = HIDDEN if hidden else submit.body
            history.events.append(Seen(at, ROOM, number, submit.cmid, body, 0 if hidden else submit.target))
        made.readers.append(history)
    made.log.events.append(Begin(0, ROOM))
    for number, (submit, _) in enumerate(order, 1):
        body = HIDDEN if number in removed else submit.body
        made.log.events.append(Seen(1000, ROOM, number, submit.cmid, body, submit.target))
    return made


@given(runs())
def test_every_run_of_one_order_passes(made: Made) -> None:
    assert faults(made.histories()) == []


def _lose_last(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    assume(made.order[-1][1] is not None)
    del draw, made.log.events[-1]
    return (Rule.LOST,)


def _skip(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    assume(len(made.log.events) > 2)
    del made.log.events[draw(st.integers(1, len(made.log.events) - 2))]
    return (Rule.SKIPPED,)


def _repeat(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    events = made.log.events
    number = draw(st.integers(1, len(events) - 1))
    events.insert(draw(st.integers(number + 1, len(events))), events[number])
    return (Rule.BACKWARDS,)


def _double(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    submit, _ = made.order[draw(st.integers(0, len(made.order) - 1))]
    made.log.events.append(Seen(1000, ROOM, len(made.order) + 1, submit.cmid, submit.body, submit.target))
    return (Rule.DOUBLED,)


def _swap(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    assume(len(made.order) > 1)
    reader = History("swapped", [Begin(0, ROOM)])
    for number, (submit, _) in enumerate(made.order, 1):
        reader.events.append(Seen(1000, ROOM, number, submit.cmid, submit.body, submit.target))
    at = draw(st.integers(1, len(made.order) - 1))
    one, other = reader.events[at], reader.events[at + 1]
    assert isinstance(one, Seen)
    assert isinstance(other, Seen)
    reader.events[at] = other._replace(sequence=one.sequence)
    reader.events[at + 1] = one._replace(sequence=other.sequence)
    made.readers.append(reader)
    return (Rule.TWO_BODIES,)


def _alter(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    number = draw(st.integers(1, len(made.order)))
    event = made.log.events[number]
    assert isinstance(event, Seen)
    made.log.events[number] = event._replace(body="altered")
    return (Rule.TWO_BODIES, Rule.INVENTED)


def _write_late(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    """One is written when a later one was known: the order can't be right."""
    acked = [number for number, (_, at) in enumerate(made.order) if at is not None and number]
    assume(acked)
    later = draw(st.sampled_from(acked))
    known = made.order[later][1]
    assert known is not None
    earlier = draw(st.integers(0, later - 1))
    submit, acked_at = made.order[earlier]
    made.order[earlier] = (submit._replace(at=known + 0.001), acked_at)
    return (Rule.REVERSED,)


def _aim_ahead(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    number = draw(st.integers(1, len(made.order)))
    target = draw(st.integers(number, len(made.order) + 3))
    submit, acked = made.order[number - 1]
    made.order[number - 1] = (submit._replace(target=target, body="removed"), acked)
    event = made.log.events[number]
    assert isinstance(event, Seen)
    made.log.events[number] = event._replace(target=target, body="removed")
    return (Rule.TARGET, Rule.TWO_BODIES)


def _hide(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    removed = {submit.target for submit, _ in made.order}
    free = [number for number in range(1, len(made.order) + 1) if number not in removed]
    assume(free)
    number = draw(st.sampled_from(free))
    event = made.log.events[number]
    assert isinstance(event, Seen)
    made.log.events[number] = event._replace(body=HIDDEN)
    return (Rule.HIDDEN,)


def _show(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    removed = [submit.target for submit, _ in made.order if submit.target]
    assume(removed)
    number = draw(st.sampled_from(removed))
    event = made.log.events[number]
    assert isinstance(event, Seen)
    made.log.events[number] = event._replace(body=made.order[number - 1][0].body)
    return (Rule.HIDDEN,)


def _begin_anew(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    reader = draw(st.sampled_from(made.readers))
    begin = reader.events[0]
    assert isinstance(begin, Begin)
    made.readers.append(History("other", [replace_epoch(begin)]))
    return (Rule.STREAM,)


def replace_epoch(begin: Begin) -> Begin:
    return begin._replace(epoch="birth.2")


def _stay_behind(made: Made, draw: Callable[[Any], Any]) -> Sequence[Rule]:
    behind = History("behind", made.log.events[: draw(st.integers(1, len(made.order)))])
    made.readers.append(replace(behind, settled=True))
    return (Rule.BEHIND,)


@pytest.mark.parametrize(
    "corrupt",
    [
        _lose_last,
        _skip,
        _repeat,
        _double,
        _swap,
        _alter,
        _write_late,
        _aim_ahead,
        _hide,
        _show,
        _begin_anew,
        _stay_behind,
    ],
    ids=lambda corrupt: corrupt.__name__.strip("_"),
)
@given(data=st.data())
def test_every_corruption_of_a_run_is_found(
    corrupt: Callable[[Made, Callable[[Any], Any]], Sequence[Rule]], data: st.DataObject
) -> None:
    made = data.draw(runs())
    expected = corrupt(made, data.draw)
    assert rules(*made.histories()) & set(expected)

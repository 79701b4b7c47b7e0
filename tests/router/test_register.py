"""A node's side of the register: each claim is answered once, with the row in force or with None."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from router.events import Claim, Configuration
from router.ids import MemberId
from router.register import Answer, RegisterClient, RegisterEffects, RegisterOptions
from router.register_wire import (
    MOST_ROWS,
    WINDOW,
    CasRequest,
    Certificate,
    Open,
    Opened,
    ReadRequest,
    Request,
    Row,
    Rows,
    Swapped,
    Unknown,
    decode_request,
    encode,
    row_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

A = MemberId("a", "d1")
CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
OPTIONS = RegisterOptions(deadline=1000, retry=50, retry_most=400)

T = TypeVar("T", bound=Request)


def claim(shard: int, version: int = 1) -> Claim:
    return Claim(version - 1, Configuration(shard, version, version, A, (A,)))


def client(
    random: Callable[[], float] = lambda: 0.5, birth: str = "", options: RegisterOptions = OPTIONS
) -> RegisterClient:
    return RegisterClient("boot", "tcp://a:1", birth, random, options, 0)


def opened(session: int = 7, **changes: Any) -> bytes:  # noqa: ANN401 - values of any field
    return encode(Opened("boot", session, msgspec.structs.replace(CERTIFICATE, **changes)))


def due(asked: RegisterClient) -> int | None:
    return asked.due


def ready() -> RegisterClient:
    """A client with a session."""
    made = client()
    made.tick(0)
    made.receive(opened(), 0)
    made.tick(0)
    return made


def sent(effects: RegisterEffects, kind: type[T]) -> list[T]:
    requests = [decode_request(body) for body in effects.sends]
    return [request for request in requests if isinstance(request, kind)]


def done(request: CasRequest, **changes: Any) -> bytes:  # noqa: ANN401 - values of any field
    results = [(True, swap.row) for swap in request.swaps]
    return encode(msgspec.structs.replace(Swapped("boot", request.session, request.n, 1, results), **changes))


def test_a_session_is_opened_first_and_gives_the_certificate_once() -> None:
    asked = client()
    assert [decode_request(body) for body in asked.tick(0).sends] == [Open("boot", "tcp://a:1")]
    asked.receive(opened(), 10)
    assert due(asked) == 0
    assert asked.tick(10).certificate == CERTIFICATE == asked.certificate
    asked.receive(opened(), 11)
    effects = asked.tick(11)
    assert effects.certificate is None
    assert effects.sends == []
    assert due(asked) is None
    assert asked.strays == 1


def test_a_request_without_an_answer_is_sent_again_later_and_later_up_to_a_bound() -> None:
    asked = client(lambda: 0.999)
    times: list[int] = []
    while len(times) < 5:
        now = asked.due
        assert now is not None
        assert asked.tick(now - 1).sends == []
        assert len(asked.tick(now).sends) == 1
        times.append(now)
    assert times == [0, 99, 298, 697, 1096]


@pytest.mark.parametrize(("random", "wait"), [(0.0, 50), (0.5, 75), (0.999, 99)])
def test_the_wait_is_a_random_part_of_its_bound(random: float, wait: int) -> None:
    asked = client(lambda: random)
    asked.tick(0)
    assert asked.due == wait


def test_claims_of_one_turn_go_in_one_request() -> None:
    asked = ready()
    claims = [claim(shard) for shard in range(3)]
    for each in claims:
        asked.ask(each, 0)
    (request,) = sent(asked.tick(0), CasRequest)
    assert [swap.row.shard for swap in request.swaps] == [0, 1, 2]
    assert (request.session, request.n, request.settled) == (7, 1, 0)
    asked.receive(done(request), 5)
    effects = asked.tick(5)
    assert effects.answers == [Answer(each, each.new, done=True) for each in claims]
    assert all(answer.claim is each for answer, each in zip(effects.answers, claims, strict=True))
    assert asked.due is None


def test_claims_wait_for_a_session() -> None:
    asked = client()
    asked.ask(claim(1), 0)
    assert not sent(asked.tick(0), CasRequest)
    asked.receive(opened(), 10)
    assert len(sent(asked.tick(10), CasRequest)) == 1


def test_two_claims_of_a_shard_go_in_two_requests_and_what_is_settled_is_told() -> None:
    asked = ready()
    asked.ask(claim(1, 1), 0)
    asked.ask(claim(1, 2), 0)
    first, second = sent(asked.tick(0), CasRequest)
    assert [swap.row.version for swap in (*first.swaps, *second.swaps)] == [1, 2]
    assert (first.settled, second.settled) == (0, 0)
    asked.receive(done(second), 1)
    asked.ask(claim(2), 1)
    (third,) = sent(asked.tick(1), CasRequest)
    assert third.settled == 0
    asked.receive(done(first), 2)
    asked.receive(done(third), 2)
    asked.ask(claim(3), 2)
    (fourth,) = sent(asked.tick(2), CasRequest)
    assert fourth.settled == 3


def test_a_lost_race_gives_the_row_in_force() -> None:
    asked = ready()
    asked.ask(claim(1), 0)
    asked.ask(claim(2), 0)
    (request,) = sent(asked.tick(0), CasRequest)
    theirs = Configuration(1, 4, 4, MemberId("b", "d2"), (MemberId("b", "d2"),))
    asked.receive(done(request, results=[(False, row_of(theirs)), (False, Row(2, 0, 0, []))]), 1)
    assert [(answer.current, answer.done) for answer in asked.tick(1).answers] == [
        (theirs, False), (Configuration(2, 0, 0, A, ()), False),
    ]  # fmt: skip


def test_after_the_deadline_nobody_knows_and_a_late_answer_is_for_nobody() -> None:
    asked = ready()
    first = claim(1)
    asked.ask(first, 0)
    (request,) = sent(asked.tick(0), CasRequest)
    asked.tick(999)
    assert asked.due == 1000
    assert asked.tick(1000).answers == [Answer(first, None, done=False)]
    asked.receive(done(request), 1001)
    assert asked.tick(1001).answers == []
    asked.ask(claim(2), 1001)
    (later,) = sent(asked.tick(1001), CasRequest)
    assert (later.n, later.settled) == (2, 1)


def test_a_register_that_does_not_answer_is_told_again_who_asks() -> None:
    asked = ready()
    asked.ask(claim(1), 0)
    asked.tick(0)
    assert len(sent(asked.tick(1000), Open)) == 1
    asked.receive(opened(), 1001)
    asked.ask(claim(2), 1001)
    effects = asked.tick(1001)
    assert [(request.session, request.n) for request in sent(effects, CasRequest)] == [(7, 2)]
    assert not sent(effects, Open)


def test_a_claim_that_never_got_a_session_is_given_up_too() -> None:
    asked = client()
    first = claim(1)
    asked.ask(first, 0)
    asked.tick(0)
    assert asked.tick(1000).answers == [Answer(first, None, done=False)]


def test_claims_beyond_the_bound_are_given_up_at_once() -> None:
    asked = client(options=RegisterOptions(most_claims=1))
    asked.ask(claim(1), 0)
    second = claim(2)
    asked.ask(second, 0)
    assert asked.tick(0).answers == [Answer(second, None, done=False)]


def test_no_more_requests_are_under_way_than_the_register_keeps_answers_of() -> None:
    asked = ready()
    for version in range(1, WINDOW + 3):
        asked.ask(claim(1, version), 0)
    requests = sent(asked.tick(0), CasRequest)
    assert [request.n for request in requests] == list(range(1, WINDOW + 1))
    asked.receive(done(requests[-1]), 0)
    assert not sent(asked.tick(0), CasRequest)  # the oldest has still no answer
    asked.receive(done(requests[0]), 0)
    assert [request.n for request in sent(asked.tick(0), CasRequest)] == [WINDOW + 1]


def test_a_request_has_only_so_many_rows() -> None:
    asked = ready()
    for shard in range(MOST_ROWS + 1):
        asked.ask(claim(shard), 0)
    assert [len(request.swaps) for request in sent(asked.tick(0), CasRequest)] == [MOST_ROWS, 1]


def test_a_forgotten_session_is_opened_anew_and_its_claims_are_given_up() -> None:
    asked = ready()
    first, second = claim(1), claim(1, 2)
    asked.ask(first, 0)
    asked.ask(second, 0)
    one, two = sent(asked.tick(0), CasRequest)
    asked.receive(encode(Unknown("boot", 7, one.n)), 1)
    effects = asked.tick(1)
    assert effects.answers == [Answer(first, None, done=False)]
    assert sent(effects, Open) == [Open("boot", "tcp://a:1")]
    asked.receive(opened(9), 2)
    asked.receive(encode(Unknown("boot", 7, two.n)), 2)  # of the old session: the new one stays
    asked.ask(claim(3), 2)
    effects = asked.tick(2)
    assert effects.answers == [Answer(second, None, done=False)]
    assert [(request.session, request.n) for request in sent(effects, CasRequest)] == [(9, 3)]
    assert not sent(effects, Open)


@pytest.mark.parametrize(
    "stray",
    [
        b"\xc1",
        encode(Opened("another", 8, CERTIFICATE)),
        encode(Swapped("another", 7, 1, 1, [(True, row_of(claim(1).new))])),
        encode(Swapped("boot", 6, 1, 1, [(True, row_of(claim(1).new))])),
        encode(Swapped("boot", 7, 2, 1, [(True, row_of(claim(1).new))])),
        encode(Swapped("boot", 7, 1, 1, [])),
        encode(Unknown("boot", 6, 1)),
        encode(Unknown("boot", 7, 2)),
        encode(Rows("boot", 1, 1, [], more=False)),
    ],
)
def test_what_is_for_another_or_none_is_counted_and_changes_nothing(stray: bytes) -> None:
    asked = ready()
    asked.ask(claim(1), 0)
    (request,) = sent(asked.tick(0), CasRequest)
    asked.receive(stray, 1)
    assert asked.strays == 1
    assert asked.tick(1) == RegisterEffects()
    asked.receive(done(request), 2)
    assert len(asked.tick(2).answers) == 1


def test_the_register_of_another_cluster_answers_nothing() -> None:
    asked = client(birth="c0ffee")
    asked.tick(0)
    asked.receive(opened(birth="cafe"), 1)
    assert asked.foreign == "cafe"
    assert asked.tick(1).certificate is None
    asked.receive(opened(), 2)
    assert asked.foreign == ""
    assert asked.tick(2).certificate == CERTIFICATE


def test_changed_settings_are_fetched_and_told_once() -> None:
    asked = ready()
    asked.ask(claim(1), 0)
    (request,) = sent(asked.tick(0), CasRequest)
    asked.receive(done(request, settings=2), 1)
    assert sent(asked.tick(1), Open) == [Open("boot", "tcp://a:1")]
    asked.receive(opened(copies=5, settings=2), 2)
    certificate = asked.tick(2).certificate
    assert certificate is not None
    assert certificate.copies == 5
    asked.ask(claim(2), 3)
    (request,) = sent(asked.tick(3), CasRequest)
    asked.receive(done(request, settings=2), 3)
    assert not sent(asked.tick(3), Open)


def test_a_read_gives_all_rows_page_by_page() -> None:
    asked = ready()
    asked.read(0)
    (request,) = sent(asked.tick(0), ReadRequest)
    assert request.after == -1
    asked.receive(encode(Rows("boot", request.n, 1, [row_of(claim(1).new), row_of(claim(4).new)], more=True)), 1)
    effects = asked.tick(1)
    assert effects.rows is None
    (further,) = sent(effects, ReadRequest)
    assert further.after == 4
    asked.receive(encode(Rows("boot", request.n, 1, [], more=False)), 2)  # again, and late
    asked.receive(encode(Rows("boot", further.n, 1, [row_of(claim(9).new)], more=False)), 2)
    assert asked.tick(2).rows == [claim(1).new, claim(4).new, claim(9).new]
    assert asked.tick(3).rows is None
    assert asked.strays == 1


def test_an_empty_register_is_read_as_no_rows() -> None:
    asked = ready()
    asked.read(0)
    (request,) = sent(asked.tick(0), ReadRequest)
    asked.receive(encode(Rows("boot", request.n, 1, [], more=False)), 1)
    assert asked.due == 0
    assert asked.tick(1).rows == []

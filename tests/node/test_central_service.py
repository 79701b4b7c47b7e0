"""What the central register answers, and what it puts in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from node.central.service import Served, Service, fault_of
from node.central.store import Store, create
from router.register_wire import (
    MOST_ROWS,
    WINDOW,
    Answer,
    CasRequest,
    Certificate,
    Open,
    Opened,
    ReadRequest,
    Request,
    Row,
    Rows,
    Swap,
    Swapped,
    Unknown,
    decode_answer,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B, C = ("a", "d1"), ("b", "d2"), ("c", "d3")
CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
NONE = Row(1, 0, 0, [])
FIRST = Row(1, 1, 1, [A, B], A)
SECOND = Row(1, 2, 2, [B, C], B)


class Central:
    """A service on a disk, which may be started again."""

    def __init__(self, folder: Path) -> None:
        create(folder, CERTIFICATE, [], durable=False)
        self._folder = folder
        self.start()

    def start(self) -> None:
        self.store = Store.open(self._folder, durable=False)
        self.service = Service(self.store)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def ask(self, node: str, request: Request) -> Answer:
        ((to, body),) = self.service.serve([(node, encode(request))]).answers
        assert to == node
        return decode_answer(body)

    def open(self, node: str, boot: str = "boot") -> int:
        answer = self.ask(node, Open(boot, "tcp://a:1"))
        assert isinstance(answer, Opened)
        return answer.session

    def rows(self) -> list[Row]:
        answer = self.ask("x", ReadRequest("boot", 1, -1))
        assert isinstance(answer, Rows)
        return answer.rows


@pytest.fixture
def central(tmp_path: Path) -> Iterator[Central]:
    made = Central(tmp_path)
    yield made
    made.store.close()


def cas(session: int, n: int, *rows: Row, settled: int = 0, boot: str = "boot") -> CasRequest:
    return CasRequest(boot, session, n, settled, [Swap(row.version - 1, row) for row in rows])


def test_a_process_is_given_one_session_and_the_certificate(central: Central) -> None:
    assert central.ask("a", Open("boot", "tcp://a:1")) == Opened("boot", 1, CERTIFICATE)
    assert central.open("b") == 2
    central.restart()
    assert central.open("a") == 1
    assert central.open("a", "another") == 3


def test_a_row_is_put_where_the_expected_one_is_and_nowhere_else(central: Central) -> None:
    session = central.open("a")
    assert central.ask("a", cas(session, 1, FIRST)) == Swapped("boot", session, 1, 1, [(True, FIRST)])
    assert central.ask("a", cas(session, 2, FIRST)) == Swapped("boot", session, 2, 1, [(False, FIRST)])
    assert central.ask("a", cas(session, 3, SECOND)) == Swapped("boot", session, 3, 1, [(True, SECOND)])
    assert central.ask("a", cas(session, 4, Row(1, 9, 9, [B, C], B))) == Swapped(
        "boot", session, 4, 1, [(False, SECOND)]
    )
    assert central.rows() == [SECOND]


def test_each_row_of_a_request_stands_by_itself(central: Central) -> None:
    session = central.open("a")
    central.ask("a", cas(session, 1, FIRST))
    other = Row(2, 1, 1, [A, B], A)
    answer = central.ask("a", cas(session, 2, FIRST, other))
    assert answer == Swapped("boot", session, 2, 1, [(False, FIRST), (True, other)])


def test_a_request_that_comes_again_gets_its_answer_again(central: Central) -> None:
    session = central.open("a")
    request = cas(session, 1, FIRST)
    answer = central.ask("a", request)
    central.ask("b", cas(central.open("b"), 1, SECOND))
    assert central.ask("a", request) == answer
    central.restart()
    assert central.ask("a", request) == answer
    assert central.rows() == [SECOND]


def test_a_request_that_comes_twice_in_a_batch_is_carried_out_once(central: Central) -> None:
    session = central.open("a")
    body = encode(cas(session, 1, FIRST))
    served = central.service.serve([("a", body), ("a", body)])
    assert served.answers[0] == served.answers[1]
    assert served.changes == [("a", FIRST)]


def test_what_is_settled_is_forgotten_and_never_carried_out_again(central: Central) -> None:
    session = central.open("a")
    lost = cas(session, 1, FIRST)  # on its way for long
    central.ask("a", cas(session, 2, Row(2, 1, 1, [A, B], A), settled=1))
    assert central.ask("a", lost) == Unknown("boot", session, 1)
    central.restart()
    assert central.ask("a", lost) == Unknown("boot", session, 1)
    assert [row.shard for row in central.rows()] == [2]


def test_only_the_newest_answers_are_kept(central: Central) -> None:
    session = central.open("a")
    for n in range(1, WINDOW + 2):
        central.ask("a", cas(session, n, Row(1, n, n, [A, B], A)))
    assert isinstance(central.ask("a", cas(session, 2, Row(1, 2, 2, [A, B], A))), Swapped)
    assert isinstance(central.ask("a", cas(session, 1, FIRST)), Unknown)


@pytest.mark.parametrize(
    ("node", "request_"),
    [("a", cas(2, 1, FIRST)), ("b", cas(1, 1, FIRST)), ("a", cas(1, 1, FIRST, boot="another"))],
)
def test_a_session_is_good_for_its_process_only(central: Central, node: str, request_: CasRequest) -> None:
    central.open("a")
    served = central.service.serve([(node, encode(request_))])
    assert [decode_answer(body) for _, body in served.answers] == [Unknown(request_.boot, request_.session, 1)]
    assert served.forgotten == [node]
    assert central.rows() == []


@pytest.mark.parametrize(
    ("current", "new", "fault"),
    [
        (NONE, FIRST, ""),
        (FIRST, SECOND, ""),
        (FIRST, Row(1, 2, 5, [A, B, C], A), ""),
        (FIRST, Row(128, 2, 2, [A, B], A), "shard 128: the cluster has 128"),
        (FIRST, Row(1, 2, 1, [A, B], A), "epoch 1 would follow 1"),
        (FIRST, Row(1, 2, 2, [A, C], C), "would be primary, and is none of the members"),
        (NONE, Row(1, 1, 1, [A], A), "1 members would follow 0, at least 2 may"),
        (FIRST, Row(1, 2, 2, [B], B), "1 members would follow 2, at least 2 may"),
        (Row(1, 1, 1, [A], A), Row(1, 2, 2, [A], A), ""),  # of a node that was alone until now
        (Row(1, 1, 1, [A, B, C], A), Row(1, 2, 2, [A, C], A), ""),
    ],
)
def test_a_row_may_follow_another_by_the_rules_only(current: Row, new: Row, fault: str) -> None:
    found = fault_of(current, new, CERTIFICATE)
    assert fault in found
    assert bool(fault) == bool(found)


def test_a_row_against_the_rules_is_answered_like_one_that_came_too_late_and_told(central: Central) -> None:
    session = central.open("a")
    served = central.service.serve([("a", encode(cas(session, 1, Row(1, 1, 1, [A], A))))])
    assert [decode_answer(body) for _, body in served.answers] == [Swapped("boot", session, 1, 1, [(False, NONE)])]
    assert served.refused == [("a", "shard 1: 1 members would follow 0, at least 2 may")]
    assert served.changes == []


def test_a_read_is_given_in_pages(central: Central) -> None:
    session = central.open("a")
    rows = [Row(shard, 1, 1, [A, B], A) for shard in range(MOST_ROWS)]
    central.ask("a", cas(session, 1, *rows[1:]))
    central.ask("a", cas(session, 2, rows[0]))
    assert central.ask("a", ReadRequest("boot", 3, -1)) == Rows("boot", 3, 1, rows, more=False)
    assert central.ask("a", ReadRequest("boot", 4, 9)) == Rows("boot", 4, 1, rows[10:], more=False)


def test_a_page_says_that_there_are_more(tmp_path: Path) -> None:
    certificate = Certificate("c0ffee", 1024, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
    rows = [Row(shard, 1, 1, [A, B], A) for shard in range(MOST_ROWS + 1)]
    create(tmp_path, certificate, rows, durable=False)
    store = Store.open(tmp_path, durable=False)
    served = Service(store).serve([("a", encode(ReadRequest("b", 1, -1))), ("a", encode(ReadRequest("b", 2, 127)))])
    store.close()
    assert [decode_answer(body) for _, body in served.answers] == [
        Rows("b", 1, 1, rows[:MOST_ROWS], more=True), Rows("b", 2, 1, rows[MOST_ROWS:], more=False),
    ]  # fmt: skip


def test_what_is_no_request_is_told_and_the_others_are_answered(central: Central) -> None:
    served = central.service.serve([("x", b"\xc1"), ("a", encode(Open("boot", "tcp://a:1")))])
    assert [to for to, _ in served.answers] == ["a"]
    ((node, why),) = served.unreadable
    assert node == "x"
    assert "can't be read" in why
    assert central.service.serve([("x", b"\xc1")]).answers == []
    assert central.service.serve([]) == Served()


def test_answers_name_the_settings_in_force(central: Central) -> None:
    session = central.open("a")
    request = cas(session, 1, FIRST)
    central.ask("a", request)
    with central.store.transaction():
        central.store.change_settings(3, 1)
    answer = central.ask("a", request)
    assert isinstance(answer, Swapped)
    assert answer.settings == 2

"""What is taken from a peer about the register, and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from router.errors import CorruptEntry
from router.events import Claim, Configuration
from router.ids import MemberId
from router.register_wire import (
    MAX_MESSAGE,
    MOST_MEMBERS,
    MOST_ROWS,
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
    configuration_of,
    decode_answer,
    decode_request,
    encode,
    row_of,
    swap_of,
)

A, B = MemberId("a", "d1"), MemberId("b", "d2")
ROW = Configuration(3, 7, 9, A, (A, B))
CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 2, 1, b"p" * 32, b"g" * 32)


def cas(*swaps: Swap, n: int = 1, settled: int = 0) -> CasRequest:
    return CasRequest("boot", 1, n, settled, list(swaps))


@pytest.mark.parametrize(
    "request_", [Open("boot", "tcp://a:1"), cas(swap_of(Claim(6, ROW)), n=9, settled=8), ReadRequest("boot", 4, -1)]
)
def test_a_request_is_what_was_written(request_: Request) -> None:
    assert decode_request(encode(request_)) == request_


@pytest.mark.parametrize(
    "answer",
    [
        Opened("boot", 4, CERTIFICATE),
        Swapped("boot", 4, 1, 1, [(True, row_of(ROW)), (False, Row(5, 0, 0, []))]),
        Rows("boot", 2, 1, [row_of(ROW)], more=True),
        Unknown("boot", 4, 1),
    ],
)
def test_an_answer_is_what_was_written(answer: Answer) -> None:
    assert decode_answer(encode(answer)) == answer


def test_a_row_is_the_configuration_that_it_was_made_of() -> None:
    assert configuration_of(row_of(ROW), B) == ROW


def test_where_there_is_no_row_whoever_asks_stands_as_its_primary() -> None:
    assert configuration_of(Row(3, 0, 0, []), B) == Configuration(3, 0, 0, B, ())


def test_the_longest_messages_are_taken() -> None:
    members = [("n" * 64, f"{number:064}") for number in range(MOST_MEMBERS)]
    rows = [Row((1 << 61) + number, 1 << 61, 1 << 61, members, members[0]) for number in range(MOST_ROWS)]
    swaps = [Swap((1 << 61) - 1, row) for row in rows]
    request = CasRequest("b" * 64, 1 << 61, 1 << 61, 0, swaps)
    assert decode_request(encode(request)) == request
    swapped = Swapped("b" * 64, 1 << 61, 1 << 61, 1, [(False, row) for row in rows])
    assert decode_answer(encode(swapped)) == swapped
    read = Rows("b" * 64, 1 << 61, 1, rows, more=True)
    assert decode_answer(encode(read)) == read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        encode(["cas"]),
        encode(["open", "", ""]),
        encode(["open", "b" * 65, ""]),
        encode(["open", "boot", "", 1]),
        encode(["open", "boot", "a" * 301]),
        encode(["opened", "boot", 1]),
        encode(["read", "boot", 1, -2]),
        encode(["cas", "boot", 1, 1, 0, []]),
        encode(["cas", "boot", 1, -1, 0, [[6, [3, 7, 9, [["a", "d1"]], ["a", "d1"]]]]]),
        encode(["cas", "boot", 1, 1 << 62, 0, [[6, [3, 7, 9, [["a", "d1"]], ["a", "d1"]]]]]),
        encode(["open", "boot", ""]) + b"\x00" * MAX_MESSAGE,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode_request(body)


def swap(expected: int = 6, **changes: Any) -> Swap:  # noqa: ANN401 - values of any field
    return Swap(expected, msgspec.structs.replace(row_of(ROW), **changes))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (cas(swap(), settled=1), "request 1 settles up to 1"),
        (cas(swap(), swap()), "changes a shard twice"),
        (cas(swap(5)), "version 7 would follow 5"),
        (cas(swap(version=8)), "version 8 would follow 6"),
        (cas(swap(primary=("c", "d3"))), "is none of"),
        (cas(swap(primary=None)), "is none of"),
        (cas(swap(members=[])), "is none of"),
        (cas(swap(members=[("a", "d1"), ("a", "d1")])), "names a member twice"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(request_: CasRequest, why: str) -> None:
    with pytest.raises(CorruptEntry, match=why):
        decode_request(encode(request_))


@pytest.mark.parametrize(
    "body",
    [
        encode(Open("boot", "tcp://a:1")),
        encode(Swapped("boot", 1, 1, 1, [(True, swap(primary=None).row)])),
        encode(Rows("boot", 1, 1, [swap(members=[]).row], more=False)),
        encode(Opened("boot", 1, msgspec.structs.replace(CERTIFICATE, guest_key=b"short"))),
        encode(Opened("boot", 1, msgspec.structs.replace(CERTIFICATE, birth="no/name"))),
        encode(Unknown("boot", 1, 1)) + b"\x00" * MAX_MESSAGE,
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode_answer(body)


def test_a_certificate_does_not_show_its_secrets() -> None:
    assert repr(CERTIFICATE) == "<birth c0ffee: 128 shards, 3 copies, min_sync 2>"
    assert "ppp" not in repr(Opened("boot", 1, CERTIFICATE))

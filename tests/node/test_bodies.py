"""Bodies of requests: however they are cut up, and whatever is wrong with them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from node.bodies import BodyReader
from node.upgrade import HeadReader, Refusal, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 400
cuts = st.lists(st.integers(0, 2000), max_size=12)


def request(*fields: str) -> Request:
    head = HeadReader(8192).receive("\r\n".join(("POST / HTTP/1.1", "Host: x", *fields, "", "")).encode())
    assert isinstance(head, Request)
    return head


def read(reader: BodyReader, data: bytes, cut_at: list[int]) -> bytes | Refusal | None:
    """Feed data in pieces until there is a result, as a hub does."""
    bounds = sorted({0, len(data), *(cut for cut in cut_at if cut < len(data))})
    result = reader.receive(b"")
    for start, end in pairwise(bounds):
        if result is not None:
            break
        result = reader.receive(data[start:end])
    return result


@given(body=st.binary(max_size=MOST), behind=st.binary(max_size=9), cut_at=cuts)
def test_a_counted_body_is_read_and_what_is_behind_is_kept_apart(body: bytes, behind: bytes, cut_at: list[int]) -> None:
    reader = BodyReader(request(f"Content-Length: {len(body)}"), MOST)
    assert read(reader, body + behind, [*cut_at, len(body)]) == body
    whole = BodyReader(request(f"Content-Length: {len(body)}"), MOST)
    assert (whole.receive(body + behind), whole.rest, whole.counted) == (body, behind, True)


@given(parts=st.lists(st.binary(min_size=5, max_size=90), max_size=4), cut_at=cuts)
def test_a_chunked_body_is_put_together(parts: list[bytes], cut_at: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    reader = BodyReader(request("Transfer-Encoding: chunked"), MOST)
    assert read(reader, data, cut_at) == b"".join(parts)
    assert not reader.counted


@given(data=st.binary(max_size=3 * MOST), cut_at=cuts)
def test_anything_chunked_is_a_body_a_refusal_or_unfinished_and_bounded(data: bytes, cut_at: list[int]) -> None:
    result = read(BodyReader(request("Transfer-Encoding: chunked"), MOST), data, cut_at)
    if isinstance(result, Refusal):
        assert result.status in (400, 413)
    elif result is not None:
        assert len(result) <= MOST
    else:
        assert len(data) <= 2 * MOST


@pytest.mark.parametrize(
    ("fields", "data", "status"),
    [
        (["Content-Length: 401"], b"", 413),
        ([], b"", 411),
        (["Transfer-Encoding: gzip, chunked"], b"", 400),
        (["Transfer-Encoding: chunked"], b"191\r\n" + b"x" * 401 + b"\r\n0\r\n\r\n", 413),
        (["Transfer-Encoding: chunked"], b"1\r\nx\r\n" * 150, 413),
        (["Transfer-Encoding: chunked"], b"nonsense\r\n", 400),
    ],
)
def test_a_body_that_is_too_long_or_malformed_is_refused(fields: list[str], data: bytes, status: int) -> None:
    result = BodyReader(request(*fields), MOST).receive(data)
    assert isinstance(result, Refusal)
    assert result.status == status
    assert b"HTTP/1.1 %d " % status in result.response()


def test_many_small_chunks_are_not_counted_again_with_each_byte() -> None:
    class Parts(list[bytes]):
        walks = 0

        @override
        def __iter__(self) -> Iterator[bytes]:
            Parts.walks += 1
            return super().__iter__()

    reader = BodyReader(request("Transfer-Encoding: chunked"), 1000)
    reader._chunks.parts = Parts()
    for byte in b"1\r\nx\r\n" * 100:
        assert reader.receive(bytes((byte,))) is None
    assert reader.receive(b"0\r\n\r\n") == b"x" * 100
    assert Parts.walks <= 1


def test_two_lengths_are_two_opinions() -> None:
    both = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = HeadReader(8192).receive(both.encode())
    refused = BodyReader(head, MOST).receive(b"") if isinstance(head, Request) else head
    assert isinstance(refused, Refusal)
    assert refused.status == 400

"""What nodes say of themselves is read strictly, but for fields that a newer version adds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.errors import CorruptEntry
from router.membership_wire import (
    MAX_MESSAGE,
    MOST_NEWS,
    MOST_RECORDS,
    Beat,
    Echo,
    Identity,
    Leave,
    Load,
    News,
    Record,
    Standing,
    decode,
    encode,
)

WHO = Identity("eu-1", "b1", "d1", "eu", "rack-7.example", "tcp://[fd00::1]:7400", "0.1.0", 1)
BEAT = Beat(7, WHO, Standing.READY, Load(1, 2), Echo("b2", 3, 4), [News(1, 2, 3, 4)], [Record("us-1", "tcp://h:1")])


def with_who(**changes: object) -> Beat:
    return msgspec.structs.replace(BEAT, who=msgspec.structs.replace(WHO, **changes))


def as_list(message: object) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return found


@pytest.mark.parametrize(
    "message", [BEAT, Beat(1, WHO, Standing.DRAINING, Load()), with_who(disk=""), Leave("b1")], ids=repr
)
def test_a_message_is_read_as_it_was_written(message: Beat | Leave) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        with_who(node="a b"), with_who(node=""), with_who(node="n" * 65), with_who(boot=""), with_who(disk="d" * 65),
        with_who(region="e\n"), with_who(host=""), with_who(host="h" * 254), with_who(address="h:1"),
        with_who(address="ipc://h"), with_who(address="tcp://" + "h" * 271), with_who(version="1\0"),
        with_who(feature=-1), msgspec.structs.replace(BEAT, n=0), msgspec.structs.replace(BEAT, n=2**63),
        msgspec.structs.replace(BEAT, news=BEAT.news * (MOST_NEWS + 1)), msgspec.structs.replace(BEAT, standing=9),
        msgspec.structs.replace(BEAT, peers=BEAT.peers * (MOST_RECORDS + 1)), Leave("b\n"), ["beat"], ["hello", 1], 7,
        {"type": "beat"}, ["beat", 1, None, 0, None],
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(message: object) -> None:
    with pytest.raises(CorruptEntry, match="can't be read"):
        decode(msgspec.msgpack.encode(message))


def test_what_is_too_long_is_refused_unread() -> None:
    with pytest.raises(CorruptEntry, match=f"a membership message of {MAX_MESSAGE + 1} bytes"):
        decode(b"\0" * (MAX_MESSAGE + 1))


def test_fields_of_a_newer_version_are_passed_over() -> None:
    fields = as_list(BEAT)
    fields[2] = [*fields[2], "zone-b"]
    fields[4] = [*fields[4], 99]
    assert decode(msgspec.msgpack.encode([*fields, {"more": 1}])) == BEAT


@given(st.binary(max_size=200))
@example(b"")
@example(encode(BEAT)[:-1])
@example(encode(BEAT) + b"\0")
@example(b"\x92\xa5leave\xa1\xff")
def test_garbage_is_a_fault_of_the_peer_and_nothing_else(data: bytes) -> None:
    try:
        message = decode(data)
    except CorruptEntry:
        return
    assert decode(encode(message)) == message

"""An entry's canonical bytes, and the chain over them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.entry import GENESIS, SALT_BYTES, Entry, Kind, decode, erase, link, make, split
from router.errors import CorruptEntry
from router.ids import RoomId

ROOM = RoomId("default", "room:café")
SALT = bytes(range(SALT_BYTES))


def entry(lsn: int = 1, data: bytes = b'{"id":"a"}', info: bytes = b'"u1"', previous: bytes = GENESIS) -> Entry:
    return make(7, lsn, 3, ROOM, lsn, 0, Kind.MESSAGE, b"s" * 12, f"id-{lsn}", 1_700, SALT, data, info, previous)


def fields(of: Entry) -> tuple[object, ...]:
    return tuple(getattr(of, name) for name in Entry.__struct_fields__)


@given(data=st.binary(max_size=300), info=st.binary(max_size=60), previous=st.binary(min_size=16, max_size=16))
def test_what_is_decoded_is_what_was_encoded(data: bytes, info: bytes, previous: bytes) -> None:
    made = entry(data=data, info=info, previous=previous)
    assert fields(decode(made.wire, previous)) == fields(made)


def test_a_changed_byte_anywhere_is_refused_or_breaks_the_chain() -> None:
    made = entry()
    for at in range(len(made.wire)):
        for flip in (0x01, 0x80, 0xFF):
            wire = bytearray(made.wire)
            wire[at] ^= flip
            try:
                read = decode(bytes(wire), GENESIS)
            except CorruptEntry:
                continue
            assert read.chain != made.chain, f"byte {at} changed by {flip:#x} passed unseen"


@pytest.mark.parametrize("reader", ["in order", "out of order"])
def test_a_shortened_or_lengthened_entry_is_refused(reader: str) -> None:
    made = entry()
    previous = GENESIS if reader == "in order" else None
    for wire in [made.wire[:size] for size in range(len(made.wire))] + [made.wire + b"\0"]:
        with pytest.raises(CorruptEntry):
            decode(wire, previous)


def test_a_changed_body_is_refused_by_a_reader_that_does_not_follow_the_chain() -> None:
    wire = bytearray(entry().wire)
    wire[-1] ^= 1
    with pytest.raises(CorruptEntry, match="body of entry 7/1 does not match its hash"):
        decode(bytes(wire), None)


def test_erasing_the_body_keeps_the_chain() -> None:
    first = entry()
    second = entry(lsn=2, previous=first.chain)
    bare = decode(erase(first.wire), GENESIS)
    assert bare.erased
    assert (bare.salt, bare.data, bare.info) == (b"", b"", b"")
    assert bare.chain == first.chain
    assert (bare.room, bare.sequence, bare.sender, bare.cmid) == (ROOM, 1, b"s" * 12, "id-1")
    assert decode(second.wire, bare.chain).chain == second.chain


def test_erasing_leaves_nothing_of_the_body_or_its_salt() -> None:
    bare = erase(entry(data=b"the secret", info=b"the author").wire)
    assert b"the secret" not in bare
    assert b"the author" not in bare
    assert SALT not in bare


def test_erasing_twice_is_erasing_once() -> None:
    bare = erase(entry().wire)
    assert erase(bare) == bare


def test_the_chain_tells_the_order_of_entries() -> None:
    one, two = entry(data=b"one"), entry(data=b"two")
    assert link(link(GENESIS, one.wire), two.wire) != link(link(GENESIS, two.wire), one.wire)
    assert link(GENESIS, one.wire) == one.chain


def test_entries_one_after_the_other_are_cut_where_they_were_joined() -> None:
    wires = [entry(lsn=n, data=b"x" * n).wire for n in range(1, 5)]
    assert list(split(b"".join(wires))) == wires


@pytest.mark.parametrize("damage", [b"\xff\xff\xff\xff", b"\0\0\1\0", b"\0\0"])
def test_a_length_past_the_end_of_a_chunk_is_refused(damage: bytes) -> None:
    good = entry().wire
    with pytest.raises(CorruptEntry, match=f"at {len(good)} passes the end"):
        list(split(good + damage))

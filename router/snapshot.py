"""A snapshot of one shard, as it travels: parts, their bytes, strictly decoded.  Sans-I/O.

A member that can't be given the log from where its own ends, as retention dropped some of it, is given what the tables
of another member hold of the shard at an lsn, and the log from there. The parts come in this order:

=========  ==========================================================================================
Begin      which shard, and where in its log
Rooms      the heads of its rooms; parts that follow name rooms by the numbers that these give them
Values     what META entries have set
Marks      how far users have read
Removed    and Cleared, Restored, Edits: what is hidden, see router/removal_tables.py
Chunks     the entries that are still there, room by room in the order of numbers; in each what clients see, then
           what they don't, by place; at the end the EPOCH entries of the shard
Places     the shard's log: which entry is where, and the chain
Keys       dedupe keys, see router/known_keys.py
End        that was all
=========  ==========================================================================================

What is not there is plainly not there: a room's history begins above its floor, the shard's log above its own.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from router.errors import CorruptEntry

PART_BYTES: Final = 131_072  # about so many; the learner's writer is busy for some 4 ms with a part
MAX_PART: Final = 1 << 21  # as of `router.wire.MAX_MESSAGE`

Number: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 47)]
Time: TypeAlias = Annotated[int, Meta(gt=-(1 << 53), lt=1 << 53)]
RoomNumber: TypeAlias = Annotated[int, Meta(ge=1, lt=1 << 62)]
Chain: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Name: TypeAlias = Annotated[str, Meta(max_length=4096)]


class Begin(Struct, tag="begin", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A snapshot begins.

    Attributes:
        shard: Of which shard.
        lsn: The last entry's whose effects are in it; all up to there is committed.
        chain: The chain up to it.
    """

    shard: Number
    lsn: Number
    chain: Chain


class Rooms(Struct, tag="rooms", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Number, site, channel, generation, sequence, meta_n, ts, floor, marks_floor of each; numbers rise."""

    rows: list[tuple[RoomNumber, Name, Name, Number, Number, Number, Time, Number, Number]]


class Values(Struct, tag="values", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, name, value."""

    rows: list[tuple[RoomNumber, Name, bytes]]


class Marks(Struct, tag="marks", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, user, sequence, ts."""

    rows: list[tuple[RoomNumber, Name, Number, Time]]


class Removed(Struct, tag="removed", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, target, sequence, ts, reason, erased."""

    rows: list[tuple[RoomNumber, Number, Number, Time, Name, Annotated[int, Meta(ge=0, le=1)]]]


class Cleared(Struct, tag="cleared", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, author, first, sequence, ts, reason, reached."""

    rows: list[tuple[RoomNumber, bytes, Number, Number, Time, Name, Number]]


class Restored(Struct, tag="restored", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, target, sequence."""

    rows: list[tuple[RoomNumber, Number, Number]]


class Edits(Struct, tag="edits", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room, sequence, target."""

    rows: list[tuple[RoomNumber, Number, Number]]


class Chunks(Struct, tag="chunks", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Room (0: the shard's EPOCH entries), and the canonical bytes of entries of one stream, one after the other."""

    rows: list[tuple[Annotated[int, Meta(ge=0, lt=1 << 62)], bytes]]


class Places(Struct, tag="places", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """First and last lsn, the chain before, and the places, as the table of that name has them."""

    rows: list[tuple[Number, Number, Chain, bytes]]


class Keys(Struct, tag="keys", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Records of dedupe keys, one after the other, of messages no newer than `newest` (milliseconds since 1970)."""

    newest: Time
    records: bytes


class End(Struct, tag="end", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """It is complete."""


Table: TypeAlias = Values | Marks | Removed | Cleared | Restored | Edits
Part: TypeAlias = Begin | Rooms | Table | Chunks | Places | Keys | End

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Part).decode


def decode(data: bytes) -> Part:
    """A part that a peer sent.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    if len(data) > MAX_PART:
        raise CorruptEntry(f"a snapshot's part of {len(data)} bytes; at most {MAX_PART} are taken")
    try:
        part: Part = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a snapshot's part can't be read: {error}") from error
    return part

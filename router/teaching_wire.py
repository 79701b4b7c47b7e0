"""What a teacher and a pupil say to each other, see router/teaching.py; their bytes, strictly decoded.  Sans-I/O."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from router.errors import CorruptEntry
from router.snapshot import MAX_PART

MAX_LESSON: Final = MAX_PART + 1024  # bytes

_Number: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Text: TypeAlias = Annotated[str, Meta(max_length=2048)]


class Lesson(Struct, tag="lesson", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A part of a snapshot.

    Attributes:
        shard: Of which shard.
        epoch: Of the primary's tenure.
        serial: Of the snapshot; those of a primary rise.
        number: Of the part, dense from 1.
        known: The number of the last part of which the teacher knows that the pupil has it.
        part: Its bytes, see router/snapshot.py.
    """

    shard: _Number
    epoch: _Number
    serial: _Number
    number: _Number
    known: _Number
    part: bytes


class Taken(Struct, tag="taken", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The pupil has the parts of a snapshot up to a number on disk.

    Attributes:
        shard: Of which shard.
        serial: Of the snapshot.
        number: Of the last part.
        ended: Whether that was all: the shard's log is the pupil's now.
        refused: Why it takes no more of this snapshot; empty: it does.
    """

    shard: _Number
    serial: _Number
    number: _Number
    ended: bool
    refused: _Text


TeachingMessage: TypeAlias = Lesson | Taken

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(TeachingMessage).decode


def decode(data: bytes) -> TeachingMessage:
    """A message of a peer.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    if len(data) > MAX_LESSON:
        raise CorruptEntry(f"a lesson of {len(data)} bytes; at most {MAX_LESSON} are taken")
    try:
        message: TeachingMessage = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a lesson can't be read: {error}") from error
    return message

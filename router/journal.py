"""A frame of the journal: what one group commit makes durable.  Sans-I/O.

::

    frame = u8 version | msgpack [promises, truncations, commits, entries] | u32 CRC-32 of all before it

`entries` are the canonical bytes of the entries, one after the other. The checksum is against torn and damaged
pages; that nobody has changed an entry is what the chain is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import msgspec

from router.entry import decode as decode_entry
from router.entry import split
from router.errors import CorruptEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from router.events import Batch

VERSION: Final = 1
CHECK_BYTES: Final = 4
NO_END: Final = 1 << 63


class Frame(msgspec.Struct, array_like=True, gc=False):
    """What was written together.

    Attributes:
        promises: (shard, epoch) each.
        truncations: (shard, lsn) each; they precede the entries.
        commits: (shard, lsn) each.
        wires: Canonical bytes of all entries.
    """

    promises: list[tuple[int, int]]
    truncations: list[tuple[int, int]]
    commits: list[tuple[int, int]]
    wires: bytes

    def entries(self) -> Iterator[bytes]:
        """The canonical bytes of each entry."""
        return split(self.wires)


class Cuts:
    """Where the frames of a journal truncate shards' logs.

    A frame that was written before may be dropped once the shard is filed up to there, and one between them not: what
    that says of the shard above the place is void, and need not follow on.
    """

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: dict[int, list[tuple[int, int]]] = {}  # frame and lsn, both rising: lower ones void those before

    def note(self, number: int, frame: Frame) -> None:
        """The next frame."""
        for shard, lsn in frame.truncations:
            cuts = self._shards.setdefault(shard, [])
            while cuts and cuts[-1][1] >= lsn:
                cuts.pop()
            cuts.append((number, lsn))

    def end(self, shard: int, number: int) -> int:
        """The lsn above which nothing counts that a frame says of a shard."""
        return next((lsn for frame, lsn in self._shards.get(shard, ()) if frame > number), NO_END)


def without(frame: Frame, number: int, since: Mapping[int, int]) -> Frame:
    """A frame without what it says of shards whose logs a snapshot has replaced since.

    Args:
        frame: The frame.
        number: Its number.
        since: By shard, the number of the first frame that counts; of others all do.
    """
    void = {shard for shard, first in since.items() if number < first}
    if not void:
        return frame
    return Frame(
        [promise for promise in frame.promises if promise[0] not in void],
        [truncation for truncation in frame.truncations if truncation[0] not in void],
        [commit for commit in frame.commits if commit[0] not in void],
        b"".join([wire for wire in frame.entries() if decode_entry(wire, None).shard not in void]),
    )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode(batches: Sequence[Batch]) -> bytes:
    """One frame for several batches, in their order."""
    frame = Frame(
        [(p.shard, p.epoch) for batch in batches for p in batch.promises],
        [(t.shard, t.lsn) for batch in batches for t in batch.truncations],
        [commit for batch in batches for commit in batch.commits.items()],
        b"".join([entry.wire for batch in batches for entry in batch.entries]),
    )
    return _seal(frame)


def _seal(frame: Frame) -> bytes:
    body = bytes((VERSION,)) + _encode(frame)
    return body + crc32(body).to_bytes(CHECK_BYTES)


def carried(truncations: list[tuple[int, int]], wires: list[bytes]) -> tuple[bytes, dict[int, int]]:
    """A frame with entries that stand in frames before it, which it truncates; and the last lsn of each shard in it."""
    highest = {entry.shard: entry.lsn for entry in (decode_entry(wire, None) for wire in wires)}
    return _seal(Frame([], truncations, [], b"".join(wires))), highest


def decode(data: bytes) -> Frame:
    """Read a frame.

    Raises:
        CorruptEntry: It is not what was written.
    """
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if crc32(body).to_bytes(CHECK_BYTES) != check:
        raise CorruptEntry("its checksum does not match")
    if body[0] != VERSION:
        raise CorruptEntry(f"it has version {body[0]}, this program reads {VERSION}")
    try:
        return _decode(body[1:])
    except msgspec.MsgspecError as error:
        raise CorruptEntry(str(error)) from error

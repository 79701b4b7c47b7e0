"""A log entry: its fields, its canonical bytes, and the hash chain over a shard's entries.

An entry is encoded once. Its bytes are what the disk holds and what members of a shard send each other verbatim::

    wire    = u32 length of the rest | u16 length of header | u8 length of salt | header | salt | body
    header  = msgpack array [shard, lsn, epoch, site, channel, sequence, meta_n, kind, sender, cmid, ts, body_hash]
    body    = u32 length of data | data | info
    body_hash = blake2b-128(body, salt=salt)        chain = blake2b-128(previous chain + header)

The chain covers the body only through its hash, and the salt goes with the body: an erased entry (salt and body
empty) still verifies, and nobody can guess what it said from the hash that stays.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
from typing_extensions import override

from router.errors import CorruptEntry
from router.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from router.removal import Removal

SALT_BYTES: Final = 16
HASH_BYTES: Final = 16
GENESIS: Final = bytes(HASH_BYTES)  # the chain before a shard's first entry
MAX_WIRE: Final = 1 << 24  # bounds what a damaged length field can make a reader allocate

_HEAD = struct.Struct(">IHB")
_DATA = struct.Struct(">I")
_encode_header = msgspec.msgpack.Encoder().encode
_new_chain = blake2b(digest_size=HASH_BYTES).copy  # a copy costs a third less than a new one


class Kind(IntEnum):
    """What an entry does. Up to SYSTEM, clients see it and it has a sequence; the others they never see.

    META and MARKS are counted together, by `meta_n`. An entry of MARKS is superseded by what comes after it: the log
    keeps it only for a while, where it keeps META for ever.
    """

    MESSAGE = 1
    EDIT = 2
    REMOVED = 3
    RESTORED = 4
    REACTION = 5
    PIN = 6
    SYSTEM = 7
    META = 8
    EPOCH = 9
    MARKS = 10


LAST_VISIBLE: Final = int(Kind.SYSTEM)  # and other plain numbers for the hot path: a member of an Enum costs more
MESSAGE: Final = int(Kind.MESSAGE)


class _Header(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    shard: int
    lsn: int
    epoch: int
    site: str
    channel: str
    sequence: int
    meta_n: int
    kind: int
    sender: bytes
    cmid: str
    ts: int
    body_hash: bytes


_decode_header = msgspec.msgpack.Decoder(_Header).decode


class Entry(msgspec.Struct, gc=False, eq=False):
    """One entry of a shard's log; immutable once made, except that a body may be erased by `erased`.

    Attributes:
        shard: The shard whose log it stands in.
        lsn: Its place there, dense from 1.
        epoch: The shard epoch of the primary that made it.
        room: (site, channel); an EPOCH entry has the empty room.
        sequence: Its place in the room, dense from 1 over what clients see; otherwise the last one before it.
        meta_n: The room's count of META and MARKS entries up to and including it.
        kind: See `Kind`.
        sender: Pseudonym of who caused it, `ids.SENDER_BYTES` long, or empty (the node itself).
        cmid: The client's message id, or empty.
        ts: Milliseconds since 1970, never falling within a room; for display only, no rule reads it.
        salt: Random, made with the entry; empty once erased.
        data: What the client gave, canonical bytes (JSON for all JSON rooms).
        info: What the edge added about the sender (JSON).
        chain: Hash over this entry and all before it in the shard.
        wire: The canonical bytes.
        key: `ids.dedupe_key` of a client's message where it is known already, else empty; not part of the entry.
        origin: Who waits for the outcome on this node, called with the entry; not part of the entry.
        removal: Why clients are not shown `data`, which is then empty; `wire` still has it. Not part of the entry.
    """

    shard: int
    lsn: int
    epoch: int
    room: RoomId
    sequence: int
    meta_n: int
    kind: int
    sender: bytes
    cmid: str
    ts: int
    salt: bytes
    data: bytes
    info: bytes
    chain: bytes
    wire: bytes
    key: bytes = b""
    origin: Callable[[Any], None] | None = None
    removal: Removal | None = None

    @override
    def __repr__(self) -> str:
        return f"<Entry {self.shard}/{self.lsn} {self.room.channel}#{self.sequence} {Kind(self.kind).name}>"

    @property
    def visible(self) -> bool:
        """Whether clients see it (and it has a sequence of its own)."""
        return self.kind <= Kind.SYSTEM

    @property
    def erased(self) -> bool:
        """Whether its body was erased; the header and the chain are whole."""
        return not self.salt


def make(  # noqa: PLR0913, PLR0917 - the fields of an entry
    shard: int, lsn: int, epoch: int, room: RoomId, sequence: int, meta_n: int, kind: int, sender: bytes, cmid: str,
    ts: int, salt: bytes, data: bytes, info: bytes, previous: bytes, key: bytes = b"",
    origin: Callable[[Any], None] | None = None,
) -> Entry:  # fmt: skip
    """A new entry: what it says is hashed, chained to `previous` (the chain before it), and written down.

    The other arguments are fields of `Entry`; `salt` must be random and `SALT_BYTES` long.
    """
    body = _DATA.pack(len(data)) + data + info
    body_hash = blake2b(body, digest_size=HASH_BYTES, salt=salt).digest()
    header = _encode_header((shard, lsn, epoch, room[0], room[1], sequence, meta_n, kind, sender, cmid, ts, body_hash))
    chain = _new_chain()
    chain.update(previous + header)
    wire = _HEAD.pack(3 + len(header) + len(salt) + len(body), len(header), len(salt)) + header + salt + body
    return Entry(
        shard, lsn, epoch, room, sequence, meta_n, kind, sender, cmid, ts, salt, data, info, chain.digest(), wire, key,
        origin,
    )  # fmt: skip


def decode(wire: bytes, previous: bytes | None) -> Entry:
    """Rebuild an entry from its canonical bytes, verifying the body against its hash.

    Args:
        wire: Exactly one entry.
        previous: The chain before it; None where the reader does not follow the shard's order: `chain` is then
            empty and nothing but the body is verified.

    Raises:
        CorruptEntry: The bytes are not an entry, or the body does not match its hash.
    """
    try:
        rest, header_size, salt_size = _HEAD.unpack_from(wire)
        header_bytes = wire[7 : 7 + header_size]
        header = _decode_header(header_bytes)
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"an entry's head can't be read: {error}") from error
    salt = wire[7 + header_size : 7 + header_size + salt_size]
    body = wire[7 + header_size + salt_size :]
    if len(wire) != rest + 4 or salt_size not in (0, SALT_BYTES) or bool(salt_size) != bool(body):
        raise CorruptEntry(f"entry {header.shard}/{header.lsn} is {len(wire)} bytes long, its head says {rest + 4}")
    if body and blake2b(body, digest_size=HASH_BYTES, salt=salt).digest() != header.body_hash:
        raise CorruptEntry(f"the body of entry {header.shard}/{header.lsn} does not match its hash")
    size = _DATA.unpack_from(body)[0] + 4 if len(body) >= 4 else 0
    if size > len(body):
        raise CorruptEntry(f"the body of entry {header.shard}/{header.lsn} is shorter than its data")
    chain = b"" if previous is None else link(previous, wire)
    return Entry(
        header.shard, header.lsn, header.epoch, RoomId(header.site, header.channel), header.sequence, header.meta_n,
        header.kind, header.sender, header.cmid, header.ts, salt, body[4:size], body[size:], chain, wire,
    )  # fmt: skip


def link(previous: bytes, wire: bytes) -> bytes:
    """The chain up to the entry of these canonical bytes, if it was `previous` before it."""
    return blake2b(previous + wire[7 : 7 + _HEAD.unpack_from(wire)[1]], digest_size=HASH_BYTES).digest()


def identity(wire: bytes) -> str:
    """A name of the entry of these canonical bytes that no other has, not even after a backup was restored.

    It is made of the header, whose hash of the body is random by its salt; so it tells nothing, not even how much
    stands before the entry, and is the same when the body was erased.
    """
    return blake2b(wire[7 : 7 + _HEAD.unpack_from(wire)[1]], digest_size=HASH_BYTES, person=b"identity").hexdigest()


def erase(wire: bytes) -> bytes:
    """The same entry without salt and body; its header, and so the chain, is unchanged."""
    _, header_size, _ = _HEAD.unpack_from(wire)
    return _HEAD.pack(3 + header_size, header_size, 0) + wire[7 : 7 + header_size]


def split(wires: bytes) -> Iterator[bytes]:
    """Cut a concatenation of canonical bytes into its entries.

    Raises:
        CorruptEntry: A length field points past the end.
    """
    at, end = 0, len(wires)
    while at < end:
        size = int.from_bytes(wires[at : at + 4], "big") + 4
        if size > MAX_WIRE or at + size > end:
            raise CorruptEntry(f"an entry of {size} bytes at {at} passes the end of its chunk of {end} bytes")
        yield wires[at : at + size]
        at += size

"""What an edge and the primary of a room say to each other; their bytes, strictly decoded.

A message is a MessagePack array that begins with its tag; entries travel as their canonical bytes (`router/entry.py`).
`request` is the edge's number of what it asks; the answer repeats it. `mapping` is the version of the mapping of rooms
to shards by which the edge chose the node.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from router.errors import CorruptEntry
from router.events import Configuration
from router.ids import MemberId
from router.wire import Config

if TYPE_CHECKING:
    from router.ids import RoomId

MAX_MESSAGE: Final = 1 << 21  # bytes
MAX_ENTRIES: Final = 500  # of one sort in a message; short reads keep the WAL short
MAX_BYTES: Final = 1 << 20  # of the entries of one sort in a message that has more than one
TOPIC_BYTES: Final = 8

_Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Name: TypeAlias = Annotated[str, Meta(max_length=1024)]
_Wires: TypeAlias = Annotated[list[bytes], Meta(max_length=MAX_ENTRIES)]


class Open(Struct, tag="open", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """An edge wants to follow a room, and to know where it stands."""

    request: _Count
    site: _Name
    channel: _Name
    mapping: _Count


class Opened(Struct, tag="opened", array_like=True, forbid_unknown_fields=True, frozen=True):
    """How the room stands, after a round trip to the shard's members that began after the question.

    The fields are those of `events.RoomRecord`.
    """

    request: _Count
    generation: _Count
    sequence: _Count
    meta_n: _Count
    ts: int
    floor: _Count
    values: dict[str, bytes]


class SubmitRemote(Struct, tag="submit", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A message for a room; see `events.Submit`.

    Attributes:
        session: Rises whenever the edge begins to send anew what has no answer.
        number: Place in the session of this room, dense from 0: nothing is taken before what was sent before it.
        cmid: Never empty: what a client gave no id has one of the edge's.
    """

    request: _Count
    site: _Name
    channel: _Name
    mapping: _Count
    session: _Count
    number: _Count
    kind: Annotated[int, Meta(ge=1, le=10)]
    sender: Annotated[bytes, Meta(max_length=64)]
    cmid: _Name
    data: bytes
    info: bytes
    probe: bool


class Made(Struct, tag="made", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Outcome of a submit: this entry is committed, in this generation of the room."""

    request: _Count
    generation: _Count
    wire: bytes


class Repeated(Struct, tag="repeated", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Outcome of a submit: it was accepted before, at `sequence`."""

    request: _Count
    sequence: _Count


class Refused(Struct, tag="refused", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Outcome of a submit of this session: a name of `events.Refusal`."""

    request: _Count
    session: _Count
    reason: Annotated[str, Meta(max_length=64)]


class Restart(Struct, tag="restart", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Something before a submit of this session is missing: the edge is to begin a new one."""

    site: _Name
    channel: _Name
    session: _Count


class Fetch(Struct, tag="fetch", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """An edge wants entries of a room.

    Attributes:
        after: Visible ones above this sequence, or below it if `reverse`; None: see `events.History.since`.
        meta_n: META and MARKS above this one, too; None: only visible ones.
        limit: At most so many of each sort.
        max_bytes: Of the visible ones, at least one is given.
        reverse: Newest first; then without META.
    """

    request: _Count
    site: _Name
    channel: _Name
    mapping: _Count
    after: _Count | None
    meta_n: _Count | None
    limit: Annotated[int, Meta(ge=1, le=MAX_ENTRIES)]
    max_bytes: _Count
    reverse: bool


class Hidden(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Clients are not shown the body of the entry at `index` of `Entries.wires`: see `removal.Removal`."""

    index: _Count
    sequence: _Count
    ts: int
    reason: str
    target: _Count


class Entries(Struct, tag="entries", array_like=True, forbid_unknown_fields=True, frozen=True):
    """Committed entries of a room, after a round trip like that of `Opened`.

    Attributes:
        generation: Of the room.
        wires: Visible entries, dense; oldest first, or newest first if the read was reverse.
        hidden: Which of them are not to be shown.
        metas: META and MARKS, oldest first.
        upto: If META was asked for: all that the room still has between what the edge has and this place is here.
        floor: Entries up to this sequence are no longer there, or were removed.
        head: The place of the room's newest committed entry.
    """

    request: _Count
    generation: _Count
    wires: _Wires
    hidden: Annotated[list[Hidden], Meta(max_length=MAX_ENTRIES)]
    metas: _Wires
    upto: tuple[_Count, _Count]
    floor: _Count
    head: tuple[_Count, _Count]


class Mark(Struct, tag="mark", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """How far has a user read a room?"""

    request: _Count
    site: _Name
    channel: _Name
    mapping: _Count
    user: _Name


class Marked(Struct, tag="marked", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Up to here; 0: no mark."""

    request: _Count
    mark: _Count


class NotPrimary(Struct, tag="not_primary", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """This node does not serve the room, or maps it by another version.

    Attributes:
        mapping: Its version of the mapping.
        row: The newest row of the room's shard that it knows: a hint.
    """

    request: _Count
    mapping: _Count
    row: Config | None


class Failed(Struct, tag="failed", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """There is no answer now, or the outcome is unknown: a name of `events.Away`."""

    request: _Count
    reason: Annotated[str, Meta(max_length=64)]


class Head(Struct, tag="head", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Publication: the place of a room's newest committed entry; the next one comes after `next_ms` at most."""

    site: _Name
    channel: _Name
    generation: _Count
    sequence: _Count
    meta_n: _Count
    next_ms: _Count


class Published(Struct, tag="published", array_like=True, forbid_unknown_fields=True, frozen=True):
    """Publication: committed entries of a room, in order."""

    site: _Name
    channel: _Name
    generation: _Count
    wires: _Wires


Request: TypeAlias = Open | SubmitRemote | Fetch | Mark
Answer: TypeAlias = Opened | Made | Repeated | Refused | Restart | Entries | Marked | NotPrimary | Failed
PeerMessage: TypeAlias = Request | Answer
Publication: TypeAlias = Head | Published

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PeerMessage).decode
_decode_publication: Final = msgspec.msgpack.Decoder(Publication).decode


def decode(data: bytes) -> PeerMessage:
    """A message of a peer.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    message: PeerMessage = _read(_decode, data)
    return message


def decode_publication(data: bytes) -> Publication:
    """A publication of a peer.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    message: Publication = _read(_decode_publication, data)
    return message


def topic_of(room: RoomId) -> bytes:
    """The topic of a room's publications. Two rooms may have the same; what is published names its room."""
    return blake2b(f"{room.site}\0{room.channel}".encode(), digest_size=TOPIC_BYTES, person=b"topic").digest()


def row_of(row: Configuration) -> Config:
    """A row of the register as it travels."""
    return Config(
        row.shard, row.version, row.epoch, (row.primary.node, row.primary.disk),
        [(member.node, member.disk) for member in row.members],
    )  # fmt: skip


def configuration_of(row: Config) -> Configuration:
    """A row that came."""
    members = tuple(MemberId(*member) for member in row.members)
    return Configuration(row.shard, row.version, row.epoch, MemberId(*row.primary), members)


def _read(decode_it: Any, data: bytes) -> Any:  # noqa: ANN401 - what it is, the decoder says
    if len(data) > MAX_MESSAGE:
        raise CorruptEntry(f"a peer's message of {len(data)} bytes; at most {MAX_MESSAGE} are taken")
    try:
        return decode_it(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a peer's message can't be read: {error}") from error

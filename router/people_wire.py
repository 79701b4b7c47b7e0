"""What nodes say to each other about people; its bytes, strictly decoded.

A message is a MessagePack array that begins with its tag. What happens in a room is published to the nodes that have
members there; questions go to each node by itself. A question bears the life of who asks, so that an answer to an
earlier life of a node is none to this one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from router.errors import CorruptEntry

if TYPE_CHECKING:
    from router.ids import RoomId

MAX_MESSAGE: Final = 1 << 20  # bytes
MAX_MARKS: Final = 1024  # of a publication
TOPIC: Final = b"people."  # no topic of the edge has this length

_Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Name: TypeAlias = Annotated[str, Meta(max_length=1024)]


class Whisper(Struct, tag="whisper", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """JSON that members may be given and that nobody keeps, like who is typing."""

    site: _Name
    channel: _Name
    data: bytes


class Push(Struct, tag="push", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """JSON that all who are there now are given."""

    site: _Name
    channel: _Name
    data: bytes


class Read(Struct, tag="read", array_like=True, forbid_unknown_fields=True, frozen=True):
    """Users have read the room up to a sequence."""

    site: _Name
    channel: _Name
    marks: Annotated[dict[_Name, _Count], Meta(max_length=MAX_MARKS)]


class Came(Struct, tag="came", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A client has come into the room; `info` is its ClientInfo as JSON."""

    site: _Name
    channel: _Name
    info: bytes


class Went(Struct, tag="went", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A client has left the room; `info` is its ClientInfo as JSON."""

    site: _Name
    channel: _Name
    info: bytes


class Ask(Struct, tag="ask", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Do, or tell, what `method` says of a site; it may come more than once, and is done once.

    Attributes:
        life: Of who asks: its boot.
        request: Its number in that life.
        body: The method's request, as the method has it.
    """

    life: _Name
    request: _Count
    site: _Name
    method: Annotated[str, Meta(max_length=64)]
    body: bytes


class Told(Struct, tag="told", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The answer.

    Attributes:
        life: As asked.
        request: As asked.
        code: 0; or that of the error, of which `body` is the text.
        body: The method's answer, as the method has it.
    """

    life: _Name
    request: _Count
    code: Annotated[int, Meta(ge=0, le=4999)]
    body: bytes


Publication: TypeAlias = Whisper | Push | Read | Came | Went
PeerMessage: TypeAlias = Ask | Told

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
    """The topic under which it is published what people do in a room. Two rooms may have the same."""
    return TOPIC + blake2b(f"{room.site}\0{room.channel}".encode(), digest_size=8, person=b"people").digest()


def is_peoples(topic: bytes) -> bool:
    """Whether a topic is one of `topic_of`."""
    return topic.startswith(TOPIC)


def _read(decode_it: Any, data: bytes) -> Any:  # noqa: ANN401 - what it is, the decoder says
    if len(data) > MAX_MESSAGE:
        raise CorruptEntry(f"a peer's message of {len(data)} bytes; at most {MAX_MESSAGE} are taken")
    try:
        return decode_it(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a peer's message can't be read: {error}") from error

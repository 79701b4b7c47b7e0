"""The shape of chat messages: what a client gives, what the log keeps of it, what everybody is sent.  Sans-I/O.

A client gives `id`, `content`, `type` and optional `replyTo`, `mentions`, `attachments`, `meta`; the log keeps exactly
these, in this order, so that a retry has the same bytes; the node adds `chatRoom`, `userId`, `timestamp` and
`sequence` whenever it hands the message out, and refuses a message that brings them along.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from node.auth import USER_BYTES
from node.codes import CommandError, ErrorCode
from node.mends import mend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_config.limits import Limits

Given = TypeVar("Given")
MessageType: TypeAlias = Literal["text", "image", "file", "action"]
SERVER_OWNED: Final = frozenset({"chatRoom", "userId", "timestamp", "sequence"})
SAMPLE: Final = 'a chat message is an object such as {"id": "<uuid>", "content": "Hello"}'
WORDLESS: Final = frozenset({"image", "file"})  # types that say something without `content`
REMOVED: Final = "removed"  # the reason of a removal that gives none
SYSTEM: Final = "system"  # `userId` of messages that no user wrote
ERASED: Final = b"erased:"  # begins what stands for the user id of an author whose message was erased
_WIDEST: Final = 4  # bytes of a character in UTF-8, at most


class ChatMessage(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    """A chat message as its author gives it.

    Attributes:
        id: The author's id of it, the same in every retry.
        content: Text.
        type: UNSET: text.
        reply_to: Sequence of the message that it answers.
        mentions: User ids.
        attachments: JSON objects.
        meta: Any JSON.
    """

    id: str
    content: str = ""
    type: MessageType | UnsetType = UNSET
    reply_to: int | UnsetType = UNSET
    mentions: list[str] | UnsetType = UNSET
    attachments: list[dict[str, Raw]] | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


class _SendParameters(ChatMessage, forbid_unknown_fields=True, rename="camel", gc=False, kw_only=True):
    """Parameters of rpc `send`: a message, and where it goes."""

    channel: str


_decode: Final = msgspec.json.Decoder(ChatMessage).decode
_decode_parameters: Final = msgspec.json.Decoder(_SendParameters).decode
_decode_any: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class ChatFormat:
    """Checks messages against the limits of the configuration."""

    __slots__ = ("limits",)

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def canonical(self, message: ChatMessage, head: int) -> bytes:
        """The bytes that the log keeps of a message.

        Args:
            message: Of `parse` or `parse_parameters`.
            head: Sequence of the room's newest entry, which bounds `replyTo`.

        Raises:
            CommandError: 107; names the field, what is wrong with it, and the mend.
        """
        limits = self.limits
        if len(message.id) * _WIDEST > limits.message_id_bytes:
            bound("id", message.id, limits.message_id_bytes)
        if len(message.content) * _WIDEST > limits.content_bytes:
            bound("content", message.content, limits.content_bytes)
        if message.type is UNSET:
            message.type = "text"
        require_id(message.id)
        if not message.content and message.type not in WORDLESS:
            raise bad(f"content is empty, which a message of type {message.type} can't be")
        if message.reply_to is not UNSET and not 1 <= message.reply_to <= head:
            raise bad(f"replyTo is {message.reply_to}, but the room's messages are 1 to {head}")
        if message.mentions is not UNSET or message.attachments is not UNSET or message.meta is not UNSET:
            self._bound_extras(message)
        data = _encode(message)
        if len(data) > limits.body_bytes:
            raise bad(f"the message is {len(data)} bytes long, at most {limits.body_bytes} are taken")
        return data

    def _bound_extras(self, message: ChatMessage) -> None:
        limits = self.limits
        if message.mentions is not UNSET:
            _bound_items("mentions", len(message.mentions), limits.mentions)
            for user in message.mentions:
                bound("a user in mentions", user, USER_BYTES)
        if message.attachments is not UNSET:
            _bound_items("attachments", len(message.attachments), limits.attachments)
        if message.meta is not UNSET and (size := len(bytes(message.meta))) > limits.meta_bytes:
            raise bad(f"meta is {size} bytes long, at most {limits.meta_bytes} are taken")


def parse(data: bytes | Raw) -> ChatMessage:
    """The message that a client published.

    Raises:
        CommandError: 107; the data has not the shape.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        refuse(bytes(data), error, ChatMessage.__struct_encode_fields__)


def parse_parameters(data: bytes | Raw) -> tuple[str, ChatMessage]:
    """Channel and message of rpc `send`.

    Raises:
        CommandError: 107; the data has not the shape.
    """
    given = parameters(_decode_parameters, data, _SendParameters.__struct_encode_fields__, SAMPLE)
    return given.channel, ChatMessage(*(getattr(given, name) for name in ChatMessage.__struct_fields__))


def publication(data: bytes, channel_json: bytes, user_json: bytes, ts_ms: int, sequence: int) -> bytes:
    """The whole message, as everybody is sent it.

    Args:
        data: Canonical bytes of `ChatFormat.read`.
        channel_json: The room's channel as a JSON string.
        user_json: The author's id as a JSON string.
        ts_ms: Milliseconds since 1970.
        sequence: Its offset in the room.
    """
    second, ms = divmod(ts_ms, 1000)
    return b'%b,"chatRoom":%b,"userId":%b,"timestamp":"%b.%03dZ","sequence":%d}' % (
        data[:-1], channel_json, user_json, _utc(second), ms, sequence,
    )  # fmt: skip


def placeholder(cmid: str, reason: str, target: int = 0) -> bytes:
    """What stands for the canonical bytes of a message that was removed, and of its edits.

    Args:
        cmid: The client's id of the entry.
        reason: Why it was removed.
        target: Of an edit, the message that it was of; 0: it was the message itself.
    """
    head = b'{"id":%b,"type":"placeholder","reason":%b' % (_encode(cmid), _encode(reason))
    return head + (b',"target":%d}' % target if target else b"}")


def pseudonym(sender: bytes) -> bytes:
    """What stands for the user id of an author whose message was erased, as JSON.

    The id went with the body. Clients take a message for the same where `userId` and `id` are, so the author's
    pseudonym in the log, `sender`, stands for it.
    """
    return b'"%b%b"' % (ERASED, sender.hex().encode())


def system_message(message_id: str, event: str, data: Mapping[str, object]) -> bytes:
    """The bytes that the log keeps of a message that the node itself writes: that something has happened in a room."""
    return _encode({"id": message_id, "type": "system", "event": event, "data": data})


def timestamp(ts_ms: int) -> bytes:
    """A moment as clients read it."""
    return b"%b.%03dZ" % (_utc(ts_ms // 1000), ts_ms % 1000)


@lru_cache(maxsize=256)  # a page of history spans few seconds, live traffic one
def _utc(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def bad(detail: str) -> CommandError:
    """Error 107."""
    return CommandError(ErrorCode.BAD_REQUEST, detail)


def bound(name: str, text: str, most: int) -> None:
    """Refuse a text that is longer than so many bytes in UTF-8.

    Raises:
        CommandError: 107.
    """
    if (size := len(text.encode())) > most:
        raise bad(f"{name} is {size} bytes long, at most {most} are taken")


def _bound_items(name: str, count: int, most: int) -> None:
    if count > most:
        raise bad(f"{count} {name}, at most {most} are taken")


def require_id(client_id: str) -> None:
    """Refuse an entry without an id.

    Raises:
        CommandError: 107.
    """
    if not client_id:
        raise bad("id is empty; give a UUID, and the same one in a retry")


def check_id(client_id: str, limits: Limits) -> None:
    """Refuse an id that is empty or too long.

    Raises:
        CommandError: 107.
    """
    require_id(client_id)
    bound("id", client_id, limits.message_id_bytes)


def parameters(
    decode: Callable[[bytes | Raw], Given], data: bytes | Raw, fields: tuple[str, ...], sample: str
) -> Given:
    """The parameters of an rpc.

    Args:
        decode: Of the type that they have.
        data: What the client gave.
        fields: That may be given.
        sample: How they may look.

    Raises:
        CommandError: 107; the data has not the shape.
    """
    try:
        return decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        refuse(bytes(data), error, fields, sample)


def refuse(data: bytes, error: Exception, fields: tuple[str, ...], sample: str = SAMPLE) -> NoReturn:
    """Say what is wrong with a message, or with the parameters of an rpc, in the client's terms.

    Args:
        data: What the client gave.
        error: What the decoder said.
        fields: That may be given.
        sample: How it may look, said of what is no object.

    Raises:
        CommandError: 107.
    """
    try:
        given = _decode_any(data)
    except (msgspec.MsgspecError, RecursionError):
        raise bad(sample) from error
    for name in given:
        if name in fields:
            continue
        if name in SERVER_OWNED:
            raise bad(f"{name} is set by the server; leave it out") from error
        raise bad(f"{name} is no field of it; give {', '.join(fields)}, or put it into meta") from error
    raise bad(mend(error, ChatMessage, fields)) from error  # of all parameters only a message's are of few words

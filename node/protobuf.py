"""The Protobuf of the client protocol: commands in, replies and pushes out.  Sans-I/O.

Field numbers are those of the protocol's client.proto. A WebSocket message holds one or more messages, each with its
length before it as a varint, both ways; the server's ping is an empty reply, and a client's pong an empty command.
Unknown fields are skipped. Bytes fields hold JSON here, as the rooms' members with the JSON protocol are given them,
too: `data` that is not JSON is handed on as missing, which a publication answers with 107.

docs/decisions/0005-protobuf-by-hand.md says why no generated code is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from node.protocol import (
    FINAL_CODE,
    ChannelRequest,
    Command,
    ConnectRequest,
    ConnectResult,
    Expiry,
    HistoryRequest,
    HistoryResult,
    PingRequest,
    ProtocolError,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    one_line,
    subscribe_push,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from node.codes import CommandError

# Wire types (the low three bits of a tag).
_VARINT: Final = 0
_LENGTH: Final = 2
_SIZES: Final = {1: 8, 5: 4}  # bytes of the types of one size, which no known field has

_MORE: Final = 0x80  # of a varint's byte: another follows
_VARINT_BITS: Final = 64
_MOST_OFFSET: Final = 2**63 - 1  # as in JSON
_MASK32: Final = 2**32 - 1

REPLIES: Final = {
    "error": 2, "push": 4, "connect": 5, "subscribe": 6, "unsubscribe": 7, "publish": 8, "presence": 9,
    "presence_stats": 10, "history": 11, "ping": 12, "rpc": 13, "refresh": 14, "sub_refresh": 15,
}  # fmt: skip
"""Field numbers of Reply."""

_Field = tuple[str, int, "Callable[[Any], Any]"]
"""A field of a command: its name, its wire type, and what makes a value of an integer or of bytes."""


class _ClientInfo(Struct, gc=False):
    user: str = ""
    client: str = ""
    conn_info: Raw = Raw(b"")
    chan_info: Raw = Raw(b"")


_decode_info: Final = msgspec.json.Decoder(_ClientInfo).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_check_json: Final = msgspec.json.Decoder(Raw).decode


# -- reading -------------------------------------------------------------------------------------------------------


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An unsigned integer of 64 bits, and where it ends.

    Raises:
        ProtocolError: It is cut off at `end`, or longer than 64 bits.
    """
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            if value >> _VARINT_BITS:
                break
            return value, at
        shift += 7
        if shift >= _VARINT_BITS:
            break
    else:
        raise ProtocolError(f"a varint is cut off at byte {at}")
    raise ProtocolError(f"a varint before byte {at} has more than 64 bits")


def _read_value(data: bytes, at: int, end: int, number: int, wire: int) -> tuple[int | bytes, int]:
    """A field's value, and where it ends."""
    if wire == _VARINT:
        return read_varint(data, at, end)
    size = _SIZES.get(wire)
    if size is None:
        if wire != _LENGTH:
            raise ProtocolError(f"field {number} has wire type {wire}, which is none of 0, 1, 2 and 5")
        size, at = read_varint(data, at, end)
    if size > end - at:
        raise ProtocolError(f"field {number} is {size} bytes long, but only {end - at} bytes are left")
    return data[at : at + size], at + size


def _read(data: bytes, at: int, end: int, fields: Mapping[int, _Field]) -> dict[str, Any]:
    """The known fields of a message; of a field that comes twice the last one counts, but maps gather."""
    found: dict[str, Any] = {}
    while at < end:
        tag, at = read_varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ProtocolError(f"{number} is no field number")
        value, at = _read_value(data, at, end, number, wire)
        field = fields.get(number)
        if field is None:
            continue
        name, expected, make = field
        if wire != expected:
            raise ProtocolError(f"{name} has wire type {wire}, but must have {expected}")
        made = make(value)
        if type(made) is dict:
            found.setdefault(name, {}).update(made)
        else:
            found[name] = made
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a text is not UTF-8 at its byte {error.start}") from error


def _json(value: bytes) -> Raw:
    """JSON of one line; empty if it is none."""
    try:
        if not value.isascii():
            value.decode()  # as in `JsonCodec.decode`
        _check_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Raw(b"")
    return Raw(one_line(value))


def _offset(value: int) -> int:
    if value > _MOST_OFFSET:
        raise ProtocolError(f"offset is {value}, more than {_MOST_OFFSET}")
    return value


def _int32(value: int) -> int:
    value &= _MASK32
    return value - (1 << 32) if value >> 31 else value


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _uint32(value: int) -> int:
    return value & _MASK32  # as every Protobuf library reads a number that is too long for its type


_Body = tuple["Callable[..., Any]", dict[int, _Field]]


def _message(body: _Body) -> Callable[[bytes], Any]:
    make, fields = body

    def read(value: bytes) -> Any:  # noqa: ANN401 - whatever the table says
        return make(**_read(value, 0, len(value), fields))

    return read


def _subs(value: bytes) -> dict[str, SubscribeRequest]:
    """One entry of `ConnectRequest.subs`."""
    entry = _read(value, 0, len(value), _SUBS_ENTRY)
    return {entry.get("key", ""): entry.get("value") or SubscribeRequest()}


_CHANNEL: Final[_Field] = ("channel", _LENGTH, _text)
_TOKEN: Final[_Field] = ("token", _LENGTH, _text)
_EPOCH: Final[_Field] = ("epoch", _LENGTH, _text)
_DATA: Final[_Field] = ("data", _LENGTH, _json)
_OFFSET: Final[_Field] = ("offset", _VARINT, _offset)

_SUBSCRIBE: Final[_Body] = (SubscribeRequest, {
    1: _CHANNEL, 2: _TOKEN, 3: ("recover", _VARINT, bool), 6: _EPOCH, 7: _OFFSET, 8: _DATA,
    9: ("positioned", _VARINT, bool), 10: ("recoverable", _VARINT, bool), 11: ("join_leave", _VARINT, bool),
    12: ("delta", _LENGTH, _text), 14: ("flag", _VARINT, _int64),
})  # fmt: skip
_SUBS_ENTRY: Final[dict[int, _Field]] = {1: ("key", _LENGTH, _text), 2: ("value", _LENGTH, _message(_SUBSCRIBE))}
_CONNECT: Final[_Body] = (ConnectRequest, {
    1: _TOKEN, 2: _DATA, 3: ("subs", _LENGTH, _subs), 4: ("name", _LENGTH, _text), 5: ("version", _LENGTH, _text),
})  # fmt: skip
_ONE_CHANNEL: Final[_Body] = (ChannelRequest, {1: _CHANNEL})
_HISTORY: Final[_Body] = (HistoryRequest, {
    1: _CHANNEL, 7: ("limit", _VARINT, _int32),
    8: ("since", _LENGTH, _message((StreamPosition, {1: _OFFSET, 2: _EPOCH}))), 9: ("reverse", _VARINT, bool),
})  # fmt: skip

COMMAND: Final[dict[int, _Field]] = {
    1: ("id", _VARINT, _uint32),
    4: ("connect", _LENGTH, _message(_CONNECT)),
    5: ("subscribe", _LENGTH, _message(_SUBSCRIBE)),
    6: ("unsubscribe", _LENGTH, _message(_ONE_CHANNEL)),
    7: ("publish", _LENGTH, _message((PublishRequest, {1: _CHANNEL, 2: _DATA}))),
    8: ("presence", _LENGTH, _message(_ONE_CHANNEL)),
    9: ("presence_stats", _LENGTH, _message(_ONE_CHANNEL)),
    10: ("history", _LENGTH, _message(_HISTORY)),
    11: ("ping", _LENGTH, _message((PingRequest, {}))),
    12: ("send", _LENGTH, _message((SendRequest, {1: _DATA}))),
    13: ("rpc", _LENGTH, _message((RpcRequest, {1: _DATA, 2: ("method", _LENGTH, _text)}))),
    14: ("refresh", _LENGTH, _message((RefreshRequest, {1: _TOKEN}))),
    15: ("sub_refresh", _LENGTH, _message((SubRefreshRequest, {1: _CHANNEL, 2: _TOKEN}))),
}
"""Fields of Command."""


# -- writing -------------------------------------------------------------------------------------------------------


_EMULATED: Final[dict[int, _Field]] = {2: ("session", _LENGTH, _text), 3: ("data", _LENGTH, bytes)}


def read_emulated(body: bytes) -> tuple[str, bytes]:
    """Session and data of an EmulationRequest; both may be empty.

    Raises:
        ProtocolError: It is none.
    """
    found = _read(body, 0, len(body), _EMULATED)
    return found.get("session", ""), found.get("data", b"")


def varint(value: int) -> bytes:
    """An integer from 0 on as a varint."""
    if value < _MORE:
        return bytes((value,))
    out = bytearray()
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS: Final = [bytes((tag,)) for tag in range(_MORE)]
"""Tags of the fields up to 15: no reply or push has others."""


def _number(number: int, value: int) -> bytes:
    """A field of an integer type or a truth value; what is 0 is not sent."""
    return _TAGS[number << 3] + varint(value) if value else b""


def _bytes(number: int, value: bytes) -> bytes:
    """A field that is there although it is empty: a message, or a map's entry."""
    return _TAGS[number << 3 | _LENGTH] + varint(len(value)) + value


def _filled(number: int, value: bytes) -> bytes:
    """A field of bytes; what is empty is not sent."""
    return _bytes(number, value) if value else b""


def _string(number: int, value: str) -> bytes:
    return _filled(number, value.encode("utf-8", "replace"))


def _delimited(message: bytes) -> bytes:
    return varint(len(message)) + message


def _reply(command_id: int, name: str, body: bytes) -> bytes:
    return _delimited(_number(1, command_id) + _bytes(REPLIES[name], body))


def _push(channel: bytes, number: int, body: bytes) -> bytes:
    return _delimited(_bytes(REPLIES["push"], _filled(2, channel) + _bytes(number, body)))


@lru_cache(maxsize=256)  # who talks, and where, repeats
def _channel(channel_json: bytes) -> bytes:
    return _decode_text(channel_json).encode()


@lru_cache(maxsize=256)
def _info(info: bytes) -> bytes:
    """ClientInfo, from its JSON."""
    read = _decode_info(info)
    return b"".join((
        _string(1, read.user), _string(2, read.client), _filled(3, bytes(read.conn_info)),
        _filled(4, bytes(read.chan_info)),
    ))  # fmt: skip


def _subscribed(result: SubscribeResult) -> bytes:
    return b"".join((
        _number(1, result.expires), _number(2, result.ttl), _number(3, result.recoverable), _string(6, result.epoch),
        *(_bytes(7, bytes(publication)) for publication in result.publications),
        _number(8, result.recovered), _number(9, result.offset), _number(10, result.positioned),
        _filled(11, bytes(result.data)), _number(12, result.was_recovering), _number(13, result.delta),
    ))  # fmt: skip


class ProtobufCodec:
    """Length-delimited Protobuf.

    Args:
        max_commands: Of one WebSocket message.
    """

    __slots__ = ("_max_commands",)

    def __init__(self, max_commands: int = 1000) -> None:
        self._max_commands = max_commands

    @property
    def ping(self) -> bytes:
        """See `Codec.ping`."""
        return b"\0"

    def decode(self, payload: bytes) -> list[Command]:
        """See `Codec.decode`."""
        commands: list[Command] = []
        at, end = 0, len(payload)
        while at < end:
            size, at = read_varint(payload, at, end)
            if size > end - at:
                raise ProtocolError(f"a command is {size} bytes long, but only {end - at} bytes are left")
            if len(commands) == self._max_commands:
                raise ProtocolError(f"more than {self._max_commands} commands in a message")
            commands.append(Command(**_read(payload, at, at + size, COMMAND)))
            at += size
        if not commands:
            raise ProtocolError(f"0 commands in a message; send 1 to {self._max_commands}")
        return commands

    def connected(self, command_id: int, result: ConnectResult) -> bytes:
        """See `Codec.connected`."""
        subs = (
            _bytes(6, _string(1, channel) + _bytes(2, _subscribed(sub))) for channel, sub in result.subs.items()
        )  # fmt: skip
        body = b"".join((
            _string(1, result.client), _string(2, result.version), _number(3, result.expires), _number(4, result.ttl),
            _filled(5, bytes(result.data)), *subs, _number(7, result.ping), _number(8, result.pong),
            _string(9, result.session), _string(10, result.node),
        ))  # fmt: skip
        return _reply(command_id, "connect", body)

    def subscribed(self, command_id: int, result: SubscribeResult) -> bytes:
        """See `Codec.subscribed`."""
        return _reply(command_id, "subscribe", _subscribed(result))

    def history(self, command_id: int, result: HistoryResult) -> bytes:
        """See `Codec.history`."""
        publications = (_bytes(1, bytes(publication)) for publication in result.publications)
        body = b"".join((*publications, _string(2, result.epoch), _number(3, result.offset)))
        return _reply(command_id, "history", body)

    def published(self, command_id: int) -> bytes:
        """See `Codec.published`."""
        return _reply(command_id, "publish", b"")

    def empty(self, command_id: int, name: str) -> bytes:
        """See `Codec.empty`."""
        return _reply(command_id, name, b"")

    def presence(self, command_id: int, clients: Mapping[str, bytes]) -> bytes:
        """See `Codec.presence`."""
        members = (_bytes(1, _string(1, client) + _bytes(2, _info(info))) for client, info in clients.items())
        return _reply(command_id, "presence", b"".join(members))

    def presence_stats(self, command_id: int, clients: int, users: int) -> bytes:
        """See `Codec.presence_stats`."""
        return _reply(command_id, "presence_stats", _number(1, clients) + _number(2, users))

    def rpc(self, command_id: int, data: bytes) -> bytes:
        """See `Codec.rpc`."""
        return _reply(command_id, "rpc", _filled(1, data))

    def expiry(self, command_id: int, name: str, result: Expiry) -> bytes:
        """See `Codec.expiry`."""
        first = 3 if name == "refresh" else 1  # `RefreshResult` has two fields before those of `SubRefreshResult`
        return _reply(command_id, name, _number(first, result.expires) + _number(first + 1, result.ttl))

    def error(self, command_id: int, error: CommandError) -> bytes:
        """See `Codec.error`."""
        body = _number(1, error.code) + _string(2, error.message) + _number(3, error.code.temporary)
        return _reply(command_id, "error", body)

    def publication(self, data: bytes, offset: int, info: bytes) -> bytes:
        """See `Codec.publication`."""
        return b"".join((_filled(4, data), _bytes(5, _info(info)) if info else b"", _number(6, offset)))

    def quote(self, data: bytes) -> bytes:
        """See `Codec.quote`."""
        return data

    def difference(self, delta: bytes, offset: int, info: bytes) -> bytes:
        """See `Codec.difference`."""
        return self.publication(delta, offset, info) + _number(8, 1)

    def push_publication(self, channel_json: bytes, publication: bytes) -> bytes:
        """See `Codec.push_publication`."""
        return _push(_channel(channel_json), 4, publication)

    def push_join(self, channel_json: bytes, info: bytes) -> bytes:
        """See `Codec.push_join`."""
        return _push(_channel(channel_json), 5, _bytes(1, _info(info)))

    def push_leave(self, channel_json: bytes, info: bytes) -> bytes:
        """See `Codec.push_leave`."""
        return _push(_channel(channel_json), 6, _bytes(1, _info(info)))

    def push_unsubscribe(self, channel: str, code: int, reason: str) -> bytes:
        """See `Codec.push_unsubscribe`."""
        return _push(channel.encode(), 7, _number(2, code) + _string(3, reason))

    def push_message(self, data: bytes) -> bytes:
        """See `Codec.push_message`."""
        return _push(b"", 8, _filled(1, data))

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        """See `Codec.push_subscribe`."""
        push = subscribe_push(result)
        body = b"".join((
            _number(1, push.recoverable), _string(4, push.epoch), _number(5, push.offset), _number(6, push.positioned),
            _filled(7, bytes(push.data)),
        ))  # fmt: skip
        return _push(channel.encode(), 9, body)

    def push_disconnect(self, code: int, reason: str) -> bytes:
        """See `Codec.push_disconnect`."""
        return _push(b"", 11, _number(1, code) + _string(2, reason) + _number(3, code < FINAL_CODE))

    def push_refresh(self, result: Expiry) -> bytes:
        """See `Codec.push_refresh`."""
        return _push(b"", 12, _number(1, result.expires) + _number(2, result.ttl))

"""The Centrifuge client protocol, version 2: commands, replies, pushes, and their JSON.  Sans-I/O.

Names and meanings are those of the protocol's client.proto; unknown fields are ignored, as its SDKs send some that
concern features which are not here (`flag` 1, `tf`). In JSON a frame holds one or more objects separated by
newlines, both ways, so no encoded payload may contain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import astuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.codes import CommandError

REJECT_UNRECOVERED: Final = 2
"""Bit of `SubscribeRequest.flag`: answer an impossible recovery with 112 instead of `recovered: false`."""

FOSSIL: Final = "fossil"
"""The one sort of differences that `SubscribeRequest.delta` may ask for: see node/fossil.py."""

FINAL_CODE: Final = 3500
"""From this code of a disconnect on, clients do not come back (`codes.DisconnectCode.reconnects`)."""

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
CommandId = Annotated[int, Meta(ge=0, le=2**32 - 1)]

_NO_RAW: Final = Raw(b"")


class ProtocolError(Exception):
    """What a client sent is not the protocol: its connection is closed with 3501, and the message says why."""


class _Request(Struct, gc=False):
    """Base of the commands' bodies: none of them can be part of a reference cycle."""


class SubscribeRequest(_Request):
    """`subscribe`, and the values of `ConnectRequest.subs`."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    data: Raw = _NO_RAW
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    flag: int = 0


class ConnectRequest(_Request):
    """`connect`."""

    token: str = ""
    data: Raw = _NO_RAW
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""


class PublishRequest(_Request):
    """`publish`."""

    channel: str = ""
    data: Raw = _NO_RAW


class ChannelRequest(_Request):
    """`unsubscribe`, `presence` and `presence_stats`."""

    channel: str = ""


class StreamPosition(_Request):
    """Where a page of history begins, exclusive."""

    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(_Request):
    """`history`."""

    channel: str = ""
    limit: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    since: StreamPosition | None = None
    reverse: bool = False


class RpcRequest(_Request):
    """`rpc`."""

    data: Raw = _NO_RAW
    method: str = ""


class SendRequest(_Request):
    """`send`."""

    data: Raw = _NO_RAW


class RefreshRequest(_Request):
    """`refresh`."""

    token: str = ""


class SubRefreshRequest(_Request):
    """`sub_refresh`."""

    channel: str = ""
    token: str = ""


class PingRequest(_Request):
    """`ping`."""


class Command(Struct, gc=False):
    """What a client asks: exactly one of the bodies. Without id and bodies it is a pong.

    Attributes:
        id: Named again in the reply; 0 in a pong and in `send`.
    """

    id: CommandId = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    ping: PingRequest | None = None
    send: SendRequest | None = None
    rpc: RpcRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None


BODIES: Final = tuple(field for field in Command.__struct_fields__ if field != "id")
"""The names of commands."""


def name_of(command: Command) -> str:
    """The command's name; empty: it is a pong.

    Raises:
        ProtocolError: It has no body, more than one, or an id where none may be or none where one must be.
    """
    values = astuple(command)
    if values.count(None) == len(BODIES) - 1 and command.id:
        if command.publish is not None:
            return "publish"  # by far the most
        for name, value in zip(BODIES, values[1:], strict=True):
            if value is not None:
                return name
    names = [name for name in BODIES if getattr(command, name) is not None]
    if len(names) > 1:
        raise ProtocolError(f"command {command.id} is several: {', '.join(names)}; send an object for each")
    if names == ["send"]:
        return "send"
    if names:
        raise ProtocolError(f"{names[0]} has no id; give one above 0")
    if command.id:
        raise ProtocolError(f"command {command.id} is none of {', '.join(BODIES)}")
    return ""


class SubscribeResult(Struct, gc=False, omit_defaults=True):
    """Answers `subscribe`; also the values of `ConnectResult.subs`.

    Attributes:
        publications: Each encoded by `Codec.publication`.
        ttl: Seconds; only with `expires`.
        delta: Whether the data of all publications is quoted (`Codec.quote`), and may be a difference.
    """

    recoverable: bool = False
    epoch: str = ""
    publications: list[Raw] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False
    expires: bool = False
    ttl: int = 0
    data: Raw = _NO_RAW
    delta: bool = False


class SubscribePush(Struct, gc=False, omit_defaults=True):
    """Tells of a subscription that the server made; fields as in `SubscribeResult`."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = _NO_RAW


def subscribe_push(result: SubscribeResult) -> SubscribePush:
    """What a push tells of a subscription; its publications follow in pushes of their own."""
    return SubscribePush(result.recoverable, result.epoch, result.offset, result.positioned, result.data)


class ConnectResult(Struct, gc=False, omit_defaults=True):
    """Answers `connect`.

    Attributes:
        ping: Seconds between the server's pings.
        pong: Whether the client must answer them.
        session: Secret of this connection, with which a fallback transport sends commands.
    """

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Raw = _NO_RAW
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class Expiry(Struct, gc=False, omit_defaults=True):
    """Answers `refresh` and `sub_refresh`."""

    expires: bool = False
    ttl: int = 0


def expiry(ttl: int | None) -> Expiry:
    """For a token that is valid for so many seconds; None: for ever."""
    return Expiry() if ttl is None else Expiry(expires=True, ttl=ttl)


class HistoryResult(Struct, gc=False):
    """Answers `history`; `publications` as in `SubscribeResult`."""

    publications: list[Raw]
    epoch: str
    offset: int


class Codec(Protocol):
    """A wire format. All results are whole payloads, unless said otherwise."""

    @property
    def ping(self) -> bytes:
        """The server's ping, which has a frame of its own."""

    def decode(self, payload: bytes) -> list[Command]:
        """The commands of one WebSocket message, in order.

        Raises:
            ProtocolError: It is not the protocol.
        """

    def connected(self, command_id: int, result: ConnectResult) -> bytes:
        """Answer `connect`."""

    def subscribed(self, command_id: int, result: SubscribeResult) -> bytes:
        """Answer `subscribe`."""

    def history(self, command_id: int, result: HistoryResult) -> bytes:
        """Answer `history`."""

    def published(self, command_id: int) -> bytes:
        """Answer `publish`."""

    def empty(self, command_id: int, name: str) -> bytes:
        """Answer a command whose result has no fields."""

    def presence(self, command_id: int, clients: Mapping[str, bytes]) -> bytes:
        """Answer `presence` with ClientInfo as JSON by client id."""

    def presence_stats(self, command_id: int, clients: int, users: int) -> bytes:
        """Answer `presence_stats`."""

    def rpc(self, command_id: int, data: bytes) -> bytes:
        """Answer `rpc` with JSON data."""

    def expiry(self, command_id: int, name: str, result: Expiry) -> bytes:
        """Answer `refresh` or `sub_refresh`."""

    def error(self, command_id: int, error: CommandError) -> bytes:
        """Answer any command."""

    def publication(self, data: bytes, offset: int, info: bytes) -> bytes:
        """A publication, part of pushes and results: JSON data, the offset (0: none), ClientInfo as JSON (or empty)."""

    def quote(self, data: bytes) -> bytes:
        """JSON data as subscribers with `delta` are given it, to be put into `publication`."""

    def difference(self, delta: bytes, offset: int, info: bytes) -> bytes:
        """As `publication`, but of its data only what makes it of the data before: text (`fossil.create`)."""

    def push_publication(self, channel_json: bytes, publication: bytes) -> bytes:
        """Push what `publication` or `difference` encoded."""

    def push_join(self, channel_json: bytes, info: bytes) -> bytes:
        """Push that a client joined, given its ClientInfo as JSON."""

    def push_leave(self, channel_json: bytes, info: bytes) -> bytes:
        """Push that a client left, given its ClientInfo as JSON."""

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        """Push that the server has subscribed the client; of the result only the position and `data`."""

    def push_refresh(self, result: Expiry) -> bytes:
        """Push that the connection's time has been changed."""

    def push_unsubscribe(self, channel: str, code: int, reason: str) -> bytes:
        """Push that a subscription has ended."""

    def push_message(self, data: bytes) -> bytes:
        """Push JSON data to one client."""

    def push_disconnect(self, code: int, reason: str) -> bytes:
        """Push that the connection ends: for transports that have no close frame."""


class JsonCodec:
    """Newline-separated JSON.

    Args:
        max_commands: Of one WebSocket message.
    """

    __slots__ = ("_decode", "_max_commands")

    def __init__(self, max_commands: int = 1000) -> None:
        self._decode = msgspec.json.Decoder(Command).decode
        self._max_commands = max_commands

    @property
    def ping(self) -> bytes:
        """See `Codec.ping`."""
        return b"{}"

    def decode(self, payload: bytes) -> list[Command]:
        """See `Codec.decode`."""
        try:
            if not payload.isascii():
                payload.decode()  # raw values are not looked into further, but go out to others
            if b"\n" not in payload:
                return [self._decode(payload)]
            lines = [line for line in payload.split(b"\n") if line]
            if not 0 < len(lines) <= self._max_commands:
                raise ProtocolError(f"{len(lines)} commands in a message; send 1 to {self._max_commands}")
            return [self._decode(line) for line in lines]
        except UnicodeDecodeError as error:
            raise ProtocolError(f"not UTF-8 at byte {error.start}") from error
        except RecursionError as error:
            raise ProtocolError("nested too deeply") from error
        except msgspec.MsgspecError as error:
            raise ProtocolError(str(error)) from error

    def connected(self, command_id: int, result: ConnectResult) -> bytes:
        """See `Codec.connected`."""
        return b'{"id":%d,"connect":%b}' % (command_id, _encode(result))

    def subscribed(self, command_id: int, result: SubscribeResult) -> bytes:
        """See `Codec.subscribed`."""
        return b'{"id":%d,"subscribe":%b}' % (command_id, _encode(result))

    def history(self, command_id: int, result: HistoryResult) -> bytes:
        """See `Codec.history`."""
        return b'{"id":%d,"history":%b}' % (command_id, _encode(result))

    def published(self, command_id: int) -> bytes:
        """See `Codec.published`."""
        return b'{"id":%d,"publish":{}}' % command_id

    def empty(self, command_id: int, name: str) -> bytes:
        """See `Codec.empty`."""
        return b'{"id":%d,"%b":{}}' % (command_id, name.encode())

    def presence(self, command_id: int, clients: Mapping[str, bytes]) -> bytes:
        """See `Codec.presence`."""
        members = b",".join(_encode(client) + b":" + info for client, info in clients.items())
        return b'{"id":%d,"presence":{"presence":{%b}}}' % (command_id, members)

    def presence_stats(self, command_id: int, clients: int, users: int) -> bytes:
        """See `Codec.presence_stats`."""
        return b'{"id":%d,"presence_stats":{"num_clients":%d,"num_users":%d}}' % (command_id, clients, users)

    def rpc(self, command_id: int, data: bytes) -> bytes:
        """See `Codec.rpc`."""
        return b'{"id":%d,"rpc":{"data":%b}}' % (command_id, data)

    def expiry(self, command_id: int, name: str, result: Expiry) -> bytes:
        """See `Codec.expiry`."""
        return b'{"id":%d,"%b":%b}' % (command_id, name.encode(), _encode(result))

    def error(self, command_id: int, error: CommandError) -> bytes:
        """See `Codec.error`."""
        more = b',"temporary":true' if error.code.temporary else b""
        if error.retry_after:
            more += b',"retryAfter":%b' % _encode(error.retry_after)
        return b'{"id":%d,"error":{"code":%d,"message":%b%b}}' % (command_id, error.code, _encode(error.message), more)

    def publication(self, data: bytes, offset: int, info: bytes) -> bytes:
        """See `Codec.publication`."""
        if info:
            return (
                b'{"data":%b,"info":%b,"offset":%d}' % (data, info, offset)
                if offset
                else (b'{"data":%b,"info":%b}' % (data, info))
            )
        return b'{"data":%b,"offset":%d}' % (data, offset) if offset else b'{"data":%b}' % data

    def quote(self, data: bytes) -> bytes:
        """See `Codec.quote`."""
        return _encode(data.decode())

    def difference(self, delta: bytes, offset: int, info: bytes) -> bytes:
        """See `Codec.difference`."""
        return self.publication(self.quote(delta), offset, info)[:-1] + b',"delta":true}'

    def push_publication(self, channel_json: bytes, publication: bytes) -> bytes:
        """See `Codec.push_publication`."""
        return b'{"push":{"channel":%b,"pub":%b}}' % (channel_json, publication)

    def push_join(self, channel_json: bytes, info: bytes) -> bytes:
        """See `Codec.push_join`."""
        return b'{"push":{"channel":%b,"join":{"info":%b}}}' % (channel_json, info)

    def push_leave(self, channel_json: bytes, info: bytes) -> bytes:
        """See `Codec.push_leave`."""
        return b'{"push":{"channel":%b,"leave":{"info":%b}}}' % (channel_json, info)

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        """See `Codec.push_subscribe`."""
        return b'{"push":{"channel":%b,"subscribe":%b}}' % (_encode(channel), _encode(subscribe_push(result)))

    def push_refresh(self, result: Expiry) -> bytes:
        """See `Codec.push_refresh`."""
        return b'{"push":{"refresh":%b}}' % _encode(result)

    def push_unsubscribe(self, channel: str, code: int, reason: str) -> bytes:
        """See `Codec.push_unsubscribe`."""
        return b'{"push":{"channel":%b,"unsubscribe":{"code":%d,"reason":%b}}}' % (
            _encode(channel), code, _encode(reason),
        )  # fmt: skip

    def push_message(self, data: bytes) -> bytes:
        """See `Codec.push_message`."""
        return b'{"push":{"message":{"data":%b}}}' % data

    def push_disconnect(self, code: int, reason: str) -> bytes:
        """See `Codec.push_disconnect`."""
        reconnects = b',"reconnect":true' if code < FINAL_CODE else b""
        return b'{"push":{"disconnect":{"code":%d,"reason":%b%b}}}' % (code, _encode(reason), reconnects)


_encode: Final = msgspec.json.Encoder().encode


def client_info(user: str, client: str, conn_info: bytes, chan_info: bytes) -> bytes:
    """ClientInfo as JSON; the infos are JSON or empty."""
    parts = [b'{"user":', _encode(user), b',"client":', _encode(client)]
    if conn_info:
        parts += (b',"conn_info":', conn_info)
    if chan_info:
        parts += (b',"chan_info":', chan_info)
    return b"".join((*parts, b"}"))


def one_line(data: bytes) -> bytes:
    """JSON without the line ends between its tokens, which would split a client's frame; in strings there are none."""
    return data.translate(None, b"\r\n")


def json_string(text: str) -> bytes:
    """A text as a JSON string, quotes included."""
    return _encode(text)

"""What the client reads and writes: the Centrifuge protocol, version 2, in JSON, from the client's side.  Sans-I/O.

The node's side is node/protocol.py. Unknown fields are ignored: a newer node may send more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FRAME_BYTES: Final = 32_768  # half of what a node takes by default (`limits.message_bytes`)
FRAME_COMMANDS: Final = 500  # half of `limits.commands_per_frame`
NULL: Final = Raw(b"null")


class WireError(ValueError):
    """What came is not the protocol."""


class Error(Struct, frozen=True):
    """An error reply; `retry_after` are seconds to wait, 0.0 if the node does not ask for it."""

    code: int = 0
    message: str = ""
    temporary: bool = False
    retry_after: float = field(default=0.0, name="retryAfter")


class Info(Struct, frozen=True):
    """Who somebody is.

    Attributes:
        user: The user id.
        client: The id of one connection of this user.
        conn_info: What the user's token says of the user, for others to see: any JSON.
        chan_info: The same of a subscription token.
    """

    user: str = ""
    client: str = ""
    conn_info: Any = None
    chan_info: Any = None


class WirePublication(Struct):
    """A publication; offset 0: it is ephemeral and has no place in the room's history."""

    data: Any = None
    offset: int = 0
    info: Info | None = None


class ConnectReply(Struct):
    """Answers `connect`."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Any = None
    subs: dict[str, SubscribeReply] = {}
    ping: int = 0
    pong: bool = False
    node: str = ""


class SubscribeReply(Struct):
    """Answers `subscribe`."""

    epoch: str = ""
    offset: int = 0
    publications: list[WirePublication] = []
    recovered: bool = False
    expires: bool = False
    ttl: int = 0


class HistoryReply(Struct):
    """Answers `history`."""

    publications: list[WirePublication] = []
    epoch: str = ""
    offset: int = 0


class ExpiryReply(Struct):
    """Answers `refresh` and `sub_refresh`."""

    expires: bool = False
    ttl: int = 0


class PresenceReply(Struct):
    """Answers `presence`."""

    presence: dict[str, Info] = {}


class StatsReply(Struct):
    """Answers `presence_stats`."""

    num_clients: int = 0
    num_users: int = 0


class RpcReply(Struct):
    """Answers `rpc`."""

    data: Any = None


class EmptyReply(Struct):
    """Answers `publish` and `unsubscribe`."""


class Member(Struct):
    """Somebody who came or went."""

    info: Info = Info()


class Unsubscribed(Struct):
    """The node ended a subscription."""

    code: int = 0
    reason: str = ""


class DataPush(Struct):
    """Something for this client alone."""

    data: Any = None


class Push(Struct):
    """What comes without being asked for; one of the bodies."""

    channel: str = ""
    pub: WirePublication | None = None
    join: Member | None = None
    leave: Member | None = None
    unsubscribe: Unsubscribed | None = None
    message: DataPush | None = None
    disconnect: Unsubscribed | None = None


class Reply(Struct):
    """A reply, a push, or, if empty, a ping."""

    id: int = 0
    error: Error | None = None
    connect: ConnectReply | None = None
    subscribe: SubscribeReply | None = None
    unsubscribe: EmptyReply | None = None
    publish: EmptyReply | None = None
    history: HistoryReply | None = None
    presence: PresenceReply | None = None
    presence_stats: StatsReply | None = None
    rpc: RpcReply | None = None
    refresh: ExpiryReply | None = None
    sub_refresh: ExpiryReply | None = None
    push: Push | None = None

    def result(self, name: str) -> Any:  # noqa: ANN401 (one of the classes above)
        """The answer to a command of this name.

        Raises:
            WireError: It answers something else.
        """
        body = getattr(self, name)
        if body is None:
            raise WireError(f"the answer to {name} has no {name!r} in it")
        return body


_decode: Final = msgspec.json.Decoder(Reply).decode
_encode: Final = msgspec.json.Encoder().encode


def decode(payload: str | bytes) -> list[Reply]:
    """What is in a WebSocket message, in order.

    Raises:
        WireError: It is not the protocol.
    """
    data = payload.encode() if isinstance(payload, str) else payload
    try:
        return [_decode(line) for line in data.split(b"\n") if line.strip()]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise WireError(f"what came is not the Centrifuge protocol in JSON: {error}") from error


def command(command_id: int, name: str, body: Mapping[str, object]) -> bytes:
    """A command. Fields that are None are left out."""
    return _encode({"id": command_id, name: {field: value for field, value in body.items() if value is not None}})


PONG: Final = b"{}"


def frames(commands: Iterable[bytes]) -> list[bytes]:
    """Commands as WebSocket messages, in order: as few as a node's limits allow."""
    made: list[list[bytes]] = []
    size = 0
    for item in commands:
        if not made or size + len(item) >= FRAME_BYTES or len(made[-1]) >= FRAME_COMMANDS:
            made.append([])
            size = 0
        made[-1].append(item)
        size += len(item) + 1
    return [b"\n".join(items) for items in made]


def json_bytes(value: object) -> bytes:
    """Any value as JSON.

    Raises:
        TypeError: It is none.
    """
    return _encode(value)

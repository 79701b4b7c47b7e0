"""Who may do what in which room.  Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final, assert_never

from edge_config.channel import parse_channel
from edge_config.kinds import Who
from node.codes import CommandError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_config.channel import Channel
    from edge_config.kinds import RoomKind
    from node.auth import Identity


CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WHO: Final = {
    Who.NOBODY: "the server alone",
    Who.TOKEN: "who shows a subscription token",
    Who.SUBSCRIBER: "subscribers",
    Who.USER: "users whom a token names",
    Who.ANYONE: "anyone",
}


class Origin(Enum):
    """How a subscription came about."""

    ASKED = "the client asked"
    TOKEN = "the client showed a subscription token"  # noqa: S105 - a description, no secret
    SERVER = "the server subscribed the client"


class RoomKinds:
    """Finds a channel's kind.

    Args:
        kinds: By name.
        default: Name of the kind of channels that name none; empty: there are no such channels.
        channel_bytes: Longest channel's name in UTF-8.
    """

    __slots__ = ("_channel_bytes", "_default", "_kinds")

    def __init__(self, kinds: Mapping[str, RoomKind], default: str, channel_bytes: int) -> None:
        self._kinds, self._default, self._channel_bytes = kinds, default, channel_bytes

    def find(self, channel: str) -> tuple[Channel, RoomKind]:
        """The parts of a channel's name and its kind.

        Raises:
            CommandError: 107, the name can't be one; 102, there is no such kind.
        """
        size = len(channel.encode())
        if not 0 < size <= self._channel_bytes:
            raise CommandError(ErrorCode.BAD_REQUEST, f"channel is {size} bytes long; give 1 to {self._channel_bytes}")
        if CONTROL.search(channel):
            raise CommandError(ErrorCode.BAD_REQUEST, f"channel {channel!r} has control characters")
        parts = parse_channel(channel)
        kind = self._kinds.get(parts.kind or self._default)
        if kind is None:
            raise CommandError(ErrorCode.UNKNOWN_CHANNEL, self._unknown(parts.kind))
        return parts, kind

    def _unknown(self, kind: str) -> str:
        """Why there is no such channel, and what a developer or an operator does about it."""
        if kind:
            return f"kind {kind!r} is not configured; add [kinds.{kind}], or leave {kind + ':'!r} out of the name"
        if self._default:
            return f"names here are KIND:NAME; for names without a kind, add [kinds.{self._default}]"
        return "names here are KIND:NAME; for names without a kind, set rooms.default_kind"


def require(who: Who, identity: Identity, origin: Origin | None, what: str) -> None:
    """Refuse somebody who has not a right (see `allows`).

    Raises:
        CommandError: 103; `what` is for whom.
    """
    if not allows(who, identity, origin):
        raise denied(f"{what} is for {_WHO[who]}")


def allows(who: Who, identity: Identity, origin: Origin | None) -> bool:
    """Whether a right that `who` has is had by somebody.

    Args:
        who: Of the room's kind.
        identity: Somebody.
        origin: Of their subscription to the room; None: they have none.
    """
    match who:
        case Who.NOBODY:
            return False
        case Who.TOKEN:
            return origin is Origin.TOKEN or origin is Origin.SERVER
        case Who.SUBSCRIBER:
            return origin is not None
        case Who.USER:
            return not identity.guest
        case Who.ANYONE:
            return True
        case _:
            assert_never(who)


def check_entrance(channel: str, parts: Channel, identity: Identity, origin: Origin | None) -> None:
    """Refuse whom the channel's name keeps out, whatever its kind allows.

    Raises:
        CommandError: 103.
    """
    if origin is Origin.TOKEN or origin is Origin.SERVER:
        return
    if parts.private:
        raise denied(f"{channel!r} needs a subscription token")
    if parts.users is not None and identity.user not in parts.users:
        raise denied(f"{channel!r} is for certain users, and {identity.user!r} is none of them")


def denied(detail: str) -> CommandError:
    """Error 103."""
    return CommandError(ErrorCode.PERMISSION_DENIED, detail)

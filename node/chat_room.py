"""The rpc `room`: what holds in a chat room for who asks, so that a page can show it from the start.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from node.chat import timestamp
from node.chat_rules import mute_of, role_of, slow_mode
from node.reading import channel_of, visit

if TYPE_CHECKING:
    from node.protocol import RpcRequest
    from node.seams import Room
    from node.session import Session

_encode: Final = msgspec.json.Encoder().encode


def room(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `room`, for subscribers and whoever may read the history.

    Raises:
        CommandError: It is refused.
    """
    channel = channel_of(request.data)

    def opened(room: Room) -> None:
        session.finish(session.transport.codec.rpc(command_id, _encode(described(session, room))))

    visit(session, command_id, channel, "what holds", opened)


def described(session: Session, room: Room) -> dict[str, Any]:
    """A room as a client is told of it."""
    rules = room.rules
    until = mute_of(session.user, room, session.gateway.wall_ms())
    return {
        "title": rules.title if rules is not None else "",
        "role": role_of(session.identity, room),
        "slow": slow_mode(room),
        "locked": rules is not None and rules.locked,
        "muted": until is not None,
        **({"mutedUntil": timestamp(until).decode()} if until else {}),
    }

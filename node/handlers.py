"""Which function carries out which command.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from node import (
    chat_acting,
    chat_clearing,
    chat_entries,
    chat_marks,
    chat_reporting,
    chat_room,
    chat_rules,
    chat_ruling,
    connecting,
    publishing,
    reading,
    subscribing,
)
from node.codes import CommandError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.protocol import Command, PingRequest, RpcRequest, SendRequest
    from node.session import Session


def overlaps(name: str, command: Command) -> bool:
    """Whether a command may start before the publications ahead of it have an outcome."""
    return name == "publish" or (name == "rpc" and command.rpc is not None and command.rpc.method == "send")


def _rpc(session: Session, command_id: int, request: RpcRequest) -> None:
    rpc = RPCS.get(request.method)
    if rpc is None:
        methods = ", ".join(RPCS)
        raise CommandError(ErrorCode.NOT_AVAILABLE, f"there is no rpc {request.method!r}; give one of {methods}")
    rpc(session, command_id, request)


def _ping(session: Session, command_id: int, _: PingRequest) -> None:
    session.transport.send(session.transport.codec.empty(command_id, "ping"))


def _send(_: Session, __: int, ___: SendRequest) -> None:
    """Nothing here listens to it; it is counted like every command."""


RPCS: Final[dict[str, Callable[[Session, int, RpcRequest], None]]] = {
    "send": publishing.send,
    "reply": publishing.send,
    **dict.fromkeys(chat_entries.ACTIONS, chat_acting.act),
    **dict.fromkeys(chat_rules.RULINGS, chat_ruling.rule),
    "clear": chat_clearing.clear,
    "report": chat_reporting.report,
    "room": chat_room.room,
    "typing": chat_ruling.typing,
    "read": chat_marks.read,
    "unread": chat_marks.unread,
}
"""By the name that the client gives."""
HANDLERS: Final[dict[str, Callable[[Session, int, Any], None]]] = {
    "connect": connecting.connect,
    "subscribe": subscribing.subscribe,
    "unsubscribe": subscribing.unsubscribe,
    "publish": publishing.publish,
    "presence": reading.presence,
    "presence_stats": reading.presence_stats,
    "history": reading.history,
    "ping": _ping,
    "send": _send,
    "rpc": _rpc,
    "refresh": connecting.refresh,
    "sub_refresh": subscribing.sub_refresh,
}
"""By the command; they raise `CommandError` for what is refused at once, and answer the rest themselves."""

"""The rpc `clear`: one entry takes all messages of a user away.  Sans-I/O.

The entry is a removal that names a user in place of a target. It hides what the user said from `since` on and before
the entry itself, so a flood costs one entry however long it was, and the clients can tell from that entry alone what
is gone. The window is one of sequences: one of times would depend on when the removal is sequenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from node.auth import USER_BYTES
from node.chat import bad, bound, check_id, parameters
from node.chat_entries import REASON_BYTES
from node.chat_rules import MODERATING, check_reach, check_speaking, role_of
from node.permissions import denied
from node.publishing import Sent, approach, require_chat
from router.entry import Kind
from router.events import Submit

if TYPE_CHECKING:
    from edge_config.limits import Limits
    from node.protocol import RpcRequest
    from node.seams import Room
    from node.session import Session

_SAMPLE: Final = 'the parameters are an object such as {"channel": "...", "id": "<uuid>", "user": "..."}'


class Clear(Struct, forbid_unknown_fields=True, gc=False):
    """Parameters of `clear`.

    Attributes:
        channel: The room.
        id: The client's id of the new entry, the same in every retry.
        user: Whose messages go.
        since: Sequence of the first that goes; 0: all go.
        reason: What placeholders say; empty: nothing in particular.
    """

    channel: str
    id: str
    user: str
    since: int = 0
    reason: str = ""


_decode: Final = msgspec.json.Decoder(Clear).decode
_encode: Final = msgspec.json.Encoder().encode


def clear(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `clear`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    given = parse(bytes(request.data), session.options.limits)

    def opened(room: Room) -> None:
        require_chat(room)
        check_speaking(session, room)
        if role_of(session.identity, room) not in MODERATING:
            raise denied("clear is for moderators and owners")
        check_reach(session, room, given.user, "clear")
        check_window(given, room)
        sent = Sent(session, command_id, session.command_deadline, room=room)
        submit = Submit(
            room.id, Kind.REMOVED, session.sender, given.id, canonical(given, "moderator"), session.user_json, sent
        )
        session.await_outcome(room, sent, submit)

    approach(session, given.channel, command_id, opened)


def parse(data: bytes, limits: Limits) -> Clear:
    """The parameters that a client gave, checked.

    Raises:
        CommandError: 107; names the field, what is wrong with it, and the mend.
    """
    given = parameters(_decode, data, Clear.__struct_fields__, _SAMPLE)
    check(given, limits)
    return given


def check(given: Clear, limits: Limits) -> None:
    """Check parameters against the limits of the configuration.

    Raises:
        CommandError: As of `parse`.
    """
    check_id(given.id, limits)
    if not given.user:
        raise bad("user is empty; give the id of the user whose messages go")
    bound("user", given.user, USER_BYTES)
    if given.since < 0:
        raise bad(f"since is {given.since}; give the sequence of the first message that goes, or 0 for all")
    bound("reason", given.reason, REASON_BYTES)


def check_window(given: Clear, room: Room) -> None:
    """Refuse a window of what is not said yet.

    Raises:
        CommandError: 107.
    """
    if given.since > room.offset:
        raise bad(f"since is {given.since}, but the room's entries are 1 to {room.offset}; 0 or none clears all")


def canonical(given: Clear, by: str) -> bytes:
    """The bytes that the log keeps; the same for a retry.

    Args:
        given: Of `parse`.
        by: As what the messages are removed.
    """
    body: dict[str, Any] = {"id": given.id, "type": "removed", "user": given.user}
    if given.since:
        body["since"] = given.since
    body["by"] = by
    if given.reason:
        body["reason"] = given.reason
    return _encode(body)

"""The rpcs of moderators, and `typing`.  Sans-I/O.

What a moderator lays down is a META entry: durable, deduplicated by its id, and never in the history. It holds from its
commit on, for connected clients too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from typing_extensions import override

from node.auth import USER_BYTES
from node.chat import bad, bound, check_id, parameters
from node.chat_rules import (
    MOST_SECONDS,
    ROLES,
    RULINGS,
    Given,
    canonical,
    check_presence,
    check_reach,
    check_speaking,
    role_of,
)
from node.codes import CommandError, ErrorCode
from node.permissions import CONTROL, denied
from node.publishing import Submitted, approach, require_chat, submit_unless
from router.entry import Kind
from router.events import Submit

if TYPE_CHECKING:
    from edge_config.limits import Limits
    from node.chat_rules import Ruling
    from node.protocol import RpcRequest
    from node.seams import Room
    from node.session import Session
    from router.entry import Entry

TITLE_BYTES: Final = 255  # a room's name fits into one line
_SAMPLE: Final = 'the parameters are an object such as {"channel": "...", "id": "<uuid>"}'
_TYPING_SAMPLE: Final = 'the parameters are an object such as {"channel": "...", "typing": true}'


class _Typing(Struct, forbid_unknown_fields=True, gc=False):
    channel: str
    typing: bool


class Ruled(Submitted, gc=False, eq=False):
    """A ruling whose outcome is awaited."""

    @override
    def accepted(self, session: Session, entry: Entry) -> None:
        self.repeated(session, 0)

    @override
    def repeated(self, session: Session, sequence: int) -> None:
        session.settle(self, session.transport.codec.rpc(self.command_id, b"{}"))


_decode: Final = msgspec.json.Decoder(Given).decode
_decode_typing: Final = msgspec.json.Decoder(_Typing).decode
_encode: Final = msgspec.json.Encoder().encode


def rule(session: Session, command_id: int, request: RpcRequest) -> None:
    """An rpc of `chat_rules.RULINGS`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    ruling = RULINGS[request.method]
    given = parse(ruling, bytes(request.data), session.options.limits)

    def opened(room: Room) -> None:
        require_chat(room)
        data = canonical(ruling, given, session.user)
        ruled = Ruled(session, command_id, session.command_deadline)
        submit = Submit(room.id, Kind.META, session.sender, given.id, data, session.user_json, ruled)
        refusal: CommandError | None = None
        try:
            _check_rights(session, room, request.method, ruling, given)
        except CommandError as error:
            refusal = error
        submit_unless(session, room, submit, ruled, refusal)

    approach(session, given.channel, command_id, opened)


def parse(ruling: Ruling, data: bytes, limits: Limits) -> Given:
    """The parameters that a client gave, checked.

    Raises:
        CommandError: 107; names the field, what is wrong with it, and the mend.
    """
    given = parameters(_decode, data, _fields(ruling), _SAMPLE)
    check(ruling, given, limits)
    return given


def check(ruling: Ruling, given: Given, limits: Limits) -> None:
    """Check parameters against what a ruling takes and the limits of the configuration.

    Raises:
        CommandError: As of `parse`.
    """
    fields = _fields(ruling)
    for name in ("user", "seconds", "role", "title"):
        if name not in fields and getattr(given, name):
            raise bad(f"{name} is no field of it; give {', '.join(fields)}")
    check_id(given.id, limits)
    if ruling.of_user and not given.user:
        raise bad("user is missing; give the id of the user whom it is about")
    bound("user", given.user, USER_BYTES)
    if not 0 <= given.seconds <= MOST_SECONDS:
        raise bad(f"seconds is {given.seconds}; give 1 to {MOST_SECONDS}, or 0: {_zero(ruling)}")
    bound("title", given.title, TITLE_BYTES)
    if CONTROL.search(given.title):
        raise bad("title has control characters; give one line of text, or an empty one: no title")
    if ruling.takes == "role" and given.role not in ROLES[1:]:
        raise bad(f"role is {given.role!r}; give one of {', '.join(ROLES[1:])}")


def _fields(ruling: Ruling) -> tuple[str, ...]:
    return ("channel", "id", *(("user",) if ruling.of_user else ()), *((ruling.takes,) if ruling.takes else ()))


def _zero(ruling: Ruling) -> str:
    return "until it is undone" if ruling.of_user else "no slow mode"


def _check_rights(session: Session, room: Room, method: str, ruling: Ruling, given: Given) -> None:
    role = role_of(session.identity, room)
    if role != "owner":  # who can be banned by a moderator, and must be able to undo it
        check_presence(session.user, room, session.gateway.wall_ms())
    if role not in ruling.right:
        raise denied(f"{method} is for {' and '.join(sorted(f'{right}s' for right in ruling.right))}")
    check_reach(session, room, given.user, method)
    require_space(room, ruling, given.user, session.options.limits.room_rules)


def require_space(room: Room, ruling: Ruling, user: str, most: int) -> None:
    """Refuse what a room can't keep any more.

    Args:
        room: Where.
        ruling: What is laid down.
        user: For whom.
        most: Values of users that a room keeps.

    Raises:
        CommandError: 106.
    """
    rules = room.rules
    if rules is None or not (ruling.sets and ruling.value and ruling.of_user) or rules.knows(ruling.value, user):
        return
    if len(rules) >= most:
        limit = f"{room.id.channel!r} has {len(rules)} mutes, bans and roles; undo some"
        raise CommandError(ErrorCode.LIMIT_EXCEEDED, limit)


def typing(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `typing`: tell the members that the user is typing, or not any more; nothing of it is kept.

    Raises:
        CommandError: The client is not in the room, or may not write there.
    """
    given = parameters(_decode_typing, request.data, _Typing.__struct_fields__, _TYPING_SAMPLE)
    subscription = session.subscriptions.get(given.channel)
    if subscription is None or not subscription.may_publish:
        raise denied(f"typing is for subscribers of {given.channel!r} who may publish there")
    room = subscription.room
    require_chat(room)
    check_speaking(session, room)
    if room.members <= room.kind.typing_members:
        body = b'{"type":"typing","userId":%b,"typing":%b}' % (session.user_json, _encode(given.typing))
        session.gateway.whisper(room, body)
    session.transport.send(session.transport.codec.rpc(command_id, b"{}"))

"""The rpc `report`: a member tells those who moderate of a message.  Sans-I/O.

A report is a META entry: durable, deduplicated by its id, and never in the history. It sets no value, and who it is
about is not told of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from node.chat import bad, bound, check_id, parameters
from node.chat_rules import REPORTED, check_presence
from node.chat_ruling import Ruled
from node.permissions import denied
from node.publishing import find, refuse_target, require_chat, submit_unless
from router.entry import Kind
from router.events import Submit

if TYPE_CHECKING:
    from edge_config.limits import Limits
    from node.codes import CommandError
    from node.protocol import RpcRequest
    from node.seams import Room
    from node.session import Session
    from router.entry import Entry

REASON_BYTES: Final = 1024  # a paragraph
_SAMPLE: Final = (
    'the parameters are an object such as {"channel": "...", "id": "<uuid>", "target": 12, "reason": "..."}'
)


class Report(Struct, forbid_unknown_fields=True, gc=False):
    """Parameters of `report`.

    Attributes:
        channel: The room.
        id: The client's id of the report, the same in every retry.
        target: Sequence of the message.
        reason: For those who moderate; may be empty.
    """

    channel: str
    id: str
    target: int
    reason: str = ""


_decode: Final = msgspec.json.Decoder(Report).decode
_encode: Final = msgspec.json.Encoder().encode


def report(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `report`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    given = parse(bytes(request.data), session.options.limits)
    subscription = session.subscriptions.get(given.channel)
    if subscription is None:
        raise denied(f"report is for subscribers of {given.channel!r}")
    require_chat(subscription.room)

    def opened(room: Room) -> None:
        check_presence(session.user, room, session.gateway.wall_ms())
        find(session, room, given.target, lambda entry: judge(room, entry))

    def judge(room: Room, entry: Entry | None) -> None:
        refusal = _refusal(session, entry, given.target)
        throttle = session.gateway.throttle
        if (
            refusal is None
            and throttle is not None
            and (wait := throttle.report(session.site, session.user, session.now))
        ):
            raise session.too_many(wait, throttle.limit)
        ruled = Ruled(session, command_id, session.command_deadline)
        data = canonical(given, session.user, entry)
        submit = Submit(room.id, Kind.META, session.sender, given.id, data, session.user_json, ruled)
        submit_unless(session, room, submit, ruled, refusal)

    session.open_room(command_id, subscription.room.id, subscription.room.kind, opened)


def parse(data: bytes, limits: Limits) -> Report:
    """The parameters that a client gave, checked.

    Raises:
        CommandError: 107; names the field, what is wrong with it, and the mend.
    """
    given = parameters(_decode, data, Report.__struct_fields__, _SAMPLE)
    check_id(given.id, limits)
    bound("reason", given.reason, REASON_BYTES)
    return given


def canonical(given: Report, by: str, entry: Entry | None) -> bytes:
    """The bytes that the log keeps; the same for a retry.

    Args:
        given: Of `parse`.
        by: Who reports.
        entry: The message, whose author never changes.
    """
    body: dict[str, Any] = {"id": given.id, "event": REPORTED, "by": by, "target": given.target, "author": ""}
    if entry is not None and entry.info:
        body["author"] = msgspec.json.decode(entry.info, type=str)
    if given.reason:
        body["reason"] = given.reason
    return _encode(body)


def _refusal(session: Session, entry: Entry | None, target: int) -> CommandError | None:
    """Why a message can't be reported; None: nothing stands against it."""
    refusal = refuse_target(entry, "target", target)
    if refusal is None and entry is not None and entry.sender == session.sender:
        return bad(f"target is {target}, your own message; delete takes it away")
    return refusal

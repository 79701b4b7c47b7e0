"""The rpcs about messages: edit, delete, restore, react, unreact, pin, unpin.  Sans-I/O.

The target is looked up first, in memory or on disk. What may not be done is still looked up by its id before it is
refused: a retry of what was done gets the first result, though its target may have gone meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.chat import bad
from node.chat_entries import ACTIONS, Right, canonical, check, parse
from node.chat_rules import MODERATING, check_speaking, role_of
from node.permissions import denied
from node.publishing import Sent, enter, find, refuse_target, require_chat, submit_unless
from router.entry import MESSAGE, Kind
from router.events import Submit

if TYPE_CHECKING:
    from node.chat_entries import Action, Aimed
    from node.codes import CommandError
    from node.protocol import RpcRequest
    from node.seams import Room
    from node.session import Session
    from router.entry import Entry


def act(session: Session, command_id: int, request: RpcRequest) -> None:
    """An rpc of `chat_entries.ACTIONS`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    action = ACTIONS[request.method]
    given = parse(action, request.data)
    check(given, session.options.limits)

    def opened(room: Room) -> None:
        require_chat(room)
        check_speaking(session, room)
        find(session, room, given.target, lambda entry: judge(room, entry))

    def judge(room: Room, entry: Entry | None) -> None:
        sent = Sent(session, command_id, session.command_deadline, room=room)
        own = entry is not None and entry.sender == session.sender and action.right is not Right.MODERATOR
        data = canonical(action, given, "author" if own else "moderator")
        submit = Submit(room.id, action.kind, session.sender, given.id, data, session.user_json, sent)
        submit_unless(session, room, submit, sent, _refusal(session, room, action, given, entry))

    enter(session, given.channel, command_id, opened)


def _refusal(session: Session, room: Room, action: Action, given: Aimed, entry: Entry | None) -> CommandError | None:
    """Why somebody may not do this to a message; None: nothing stands against it."""
    if entry is not None and entry.kind == MESSAGE:
        author = entry.sender == session.sender and action.right in {Right.AUTHOR, Right.AUTHOR_OR_MODERATOR}
        moderator = action.right is not Right.AUTHOR and role_of(session.identity, room) in MODERATING
        if action.right is not Right.ANYONE and not author and not moderator:
            return denied(f"{action.name} of message {given.target} is for {action.right.value}")
        if action.kind is Kind.RESTORED:
            return _not_restorable(session, entry)
    return refuse_target(entry, "target", given.target)


def _not_restorable(session: Session, entry: Entry) -> CommandError | None:
    if entry.erased:
        return bad(f"target is {entry.sequence}, a message that has been erased; it can't come back")
    if entry.removal is None:
        return bad(f"target is {entry.sequence}, a message that is not removed")
    if entry.removal.ts + session.options.undo_ms < session.gateway.wall_ms():
        return bad(f"target is {entry.sequence}, a message that was removed too long ago (log.undo_days)")
    return None

"""The rpcs about messages: edit, delete, restore, react, unreact, pin, unpin.  Sans-I/O.

The target is looked up first, in memory or on disk. What may not be done is still looked up by its id before it is
refused: a retry of what was done gets the first result, though its target may have gone meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.chat import bad
from node.chat_entries import ACTIONS, Right, canonical, check, parse
from node.chat_rules import MODERATING, role_of, silence
from node.permissions import denied
from node.publishing import Sent, enter, find, refuse_target, require_chat, submit_unless
from router.entry import MESSAGE, Kind
from router.events import Submit

if TYPE_CHECKING:
    from collections.abc import Callable

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
        silenced = silence(session, room)
        find(session, room, given.target, lambda entry: decide(room, entry, silenced))

    def decide(room: Room, entry: Entry | None, silenced: CommandError | None) -> None:
        sent = Sent(session, command_id, session.command_deadline, room=room)
        undo_from = session.gateway.wall_ms() - session.options.undo_ms
        data, refusal = judge(
            action, given, entry, session.sender, undo_from, lambda: role_of(session.identity, room) in MODERATING
        )
        submit = Submit(room.id, action.kind, session.sender, given.id, data, session.user_json, sent)
        if entry is None and action.right is Right.AUTHOR_OR_MODERATOR:  # whose it was, nobody knows any more
            data = canonical(action, given, "author")
            sent.otherwise = Submit(room.id, action.kind, session.sender, given.id, data, session.user_json, sent)
            sent.otherwise.probe = True
        submit_unless(session, room, submit, sent, silenced or refusal)

    enter(session, given.channel, command_id, opened)


def judge(  # noqa: PLR0913, PLR0917 - all that a judgement depends on
    action: Action, given: Aimed, entry: Entry | None, sender: bytes, undo_from: int, moderates: Callable[[], bool]
) -> tuple[bytes, CommandError | None]:
    """What the log is to keep of an action, and why it may not be done; None: nothing stands against it.

    Args:
        action: What is done.
        given: Of `chat_entries.check`.
        entry: The target; None: there is none that clients may see.
        sender: Pseudonym of who does it.
        undo_from: Milliseconds since 1970; what was removed earlier is not restored.
        moderates: Whether who does it is a moderator or owner here.
    """
    own = entry is not None and entry.sender == sender and action.right is not Right.MODERATOR
    data = canonical(action, given, "author" if own else "moderator")
    if entry is not None and entry.kind == MESSAGE:
        author = own and action.right in {Right.AUTHOR, Right.AUTHOR_OR_MODERATOR}
        moderator = action.right is not Right.AUTHOR and moderates()
        if action.right is not Right.ANYONE and not author and not moderator:
            return data, denied(f"{action.rpc} of message {given.target} is for {action.right.value}")
        if action.kind is Kind.RESTORED:
            return data, _not_restorable(entry, undo_from)
    return data, refuse_target(entry, "target", given.target)


def _not_restorable(entry: Entry, undo_from: int) -> CommandError | None:
    if entry.erased:
        return bad(f"target is {entry.sequence}, a message that has been erased; it can't come back")
    if entry.removal is None:
        return bad(f"target is {entry.sequence}, a message that is not removed")
    if entry.removal.ts < undo_from:
        return bad(f"target is {entry.sequence}, a message that was removed too long ago (log.undo_days)")
    return None

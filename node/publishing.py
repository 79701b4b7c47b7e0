"""Publishing: from a command to a submit, and from its outcome to the answer.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET
from typing_extensions import override

from edge_config.kinds import Schema
from node import chat
from node.chat_rules import check_presence, silence
from node.codes import CommandError, ErrorCode
from node.joining import away
from node.permissions import check_entrance, require
from node.publication import chat_data
from router.entry import MESSAGE, Entry
from router.events import Away, Duplicate, History, Refusal, Submit
from router.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from edge_config.kinds import RoomKind
    from node.permissions import Origin
    from node.protocol import PublishRequest, RpcRequest
    from node.seams import Page, Room
    from node.session import Session
    from router.events import Outcome

_CHAT: Final = Schema.CHAT  # an attribute of an Enum costs more each time


class Submitted(msgspec.Struct, gc=False, eq=False):
    """A publication whose outcome is awaited; the `done` of its submit.

    Attributes:
        session: Whose; None: the outcome matters no more.
        command_id: Of the command to be answered.
        deadline: Monotonic seconds at which it is answered 100, outcome unknown.
        refusal: Why it may not be made; answers it unless it was made before.
    """

    session: Session | None
    command_id: int
    deadline: float
    refusal: CommandError | None = None

    def __call__(self, outcome: Outcome) -> None:
        """Answer the command."""
        session = self.session
        if session is None:
            return
        if isinstance(outcome, Entry):
            self.accepted(session, outcome)
        elif isinstance(outcome, Duplicate):
            self.repeated(session, outcome.sequence)
        elif outcome is Refusal.NEW and self.refusal is not None:
            session.settle(self, self.refusal)
        elif isinstance(outcome, Refusal):
            session.settle(self, CommandError(ErrorCode.BAD_REQUEST, f"{outcome.value}; give a new message a new id"))
        else:
            session.settle(self, away(outcome))

    def accepted(self, session: Session, entry: Entry) -> None:  # noqa: ARG002 - answers of other commands show it
        """The entry is committed."""
        session.settle(self, session.transport.codec.published(self.command_id))

    def repeated(self, session: Session, sequence: int) -> None:  # noqa: ARG002 - answers of other commands show it
        """It was accepted before; the first result counts."""
        session.settle(self, session.transport.codec.published(self.command_id))


class Sent(Submitted, gc=False, eq=False, kw_only=True):
    """An entry of an rpc, which is answered with the whole entry.

    Attributes:
        room: Where.
        otherwise: The same entry in other words, in which it may have been made; only for what is not to be made now.
        first: The sequence at which it was made before; 0: it is not known to have been.
    """

    room: Room
    otherwise: Submit | None = None
    first: int = 0

    @override
    def __call__(self, outcome: Outcome) -> None:
        if outcome is Refusal.CONFLICT and self.session is not None and self.otherwise is not None:
            otherwise, self.otherwise = self.otherwise, None
            self.session.gateway.probe(self.room, otherwise)
        else:
            super().__call__(outcome)

    @override
    def accepted(self, session: Session, entry: Entry) -> None:
        session.settle(self, session.transport.codec.rpc(self.command_id, chat_data(self.room.channel_json, entry)))

    @override
    def repeated(self, session: Session, sequence: int) -> None:
        self.first = sequence
        first = History(self.room.id, sequence - 1, 1, reverse=False, max_bytes=1)
        session.gateway.history(self.room, first, self._read)

    def _read(self, page: Page | Away) -> None:
        session = self.session
        if session is None:
            return
        if isinstance(page, Away):
            session.settle(self, away(page))
        elif page.entries:
            self.accepted(session, page.entries[0])
        elif page.offset < self.first:  # another node has it, and this one not yet
            session.settle(self, away(Away.UNREACHABLE))
        else:
            session.settle(self, CommandError(ErrorCode.BAD_REQUEST, "the message was sent before, and is forgotten"))


def publish(session: Session, command_id: int, request: PublishRequest) -> None:
    """Command `publish`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    subscription = session.subscriptions.get(request.channel)
    if subscription is not None and subscription.may_publish:
        _submit(session, command_id, subscription.room, request.data)
        return
    enter(session, request.channel, command_id, lambda room: _submit(session, command_id, room, request.data))


def send(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `send`, and `reply`, which is `send` with a `replyTo` that may not be left out.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    channel, message = chat.parse_parameters(request.data)
    if request.method == "reply" and message.reply_to is UNSET:
        raise chat.bad("replyTo is missing; give the sequence of the message that is answered")
    subscription = session.subscriptions.get(channel)

    def submit(room: Room) -> None:
        require_chat(room)
        _submit_message(session, Sent(session, command_id, session.command_deadline, room=room), room, message)

    if subscription is not None and subscription.may_publish:
        submit(subscription.room)
    else:
        enter(session, channel, command_id, submit)


def require_chat(room: Room) -> None:
    """Refuse a chat method in a room of another schema.

    Raises:
        CommandError: 108.
    """
    if room.kind.schema is not _CHAT:
        raise CommandError(ErrorCode.NOT_AVAILABLE, f"{room.id.channel!r} is no chat room; use publish")


def enter(session: Session, channel: str, command_id: int, then: Callable[[Room], None]) -> None:
    """Open a room to publish in, if the client may; everything waits behind the command.

    Raises:
        CommandError: 103, it may not; 102 or 107, there is no such room.
    """

    def check(kind: RoomKind, origin: Origin | None) -> None:
        require(kind.publish, session.identity, origin, f"publishing in {channel!r}")

    approach(session, channel, command_id, then, check)


def approach(
    session: Session, channel: str, command_id: int, then: Callable[[Room], None],
    check: Callable[[RoomKind, Origin | None], None] | None = None,
) -> None:  # fmt: skip
    """Open a room that the client may or may not be in; everything waits behind the command.

    Args:
        session: The client.
        channel: The room's.
        command_id: Of the running command.
        then: What is done in the room.
        check: Refuses by the room's kind, and by how the client came in (None: it is not in).

    Raises:
        CommandError: 103, it may not; 102 or 107, there is no such room.
    """
    parts, kind = session.options.kinds.find(channel)
    subscription = session.subscriptions.get(channel)
    origin = subscription.origin if subscription is not None else None
    check_entrance(channel, parts, session.identity, origin)
    room = RoomId(session.identity.site, channel)
    if check is not None:
        try:
            check(kind, origin)
        except CommandError:
            known = session.gateway.known_room(room)
            if known is not None:  # whoever was banned is not in it, and would be told only that
                check_presence(session.user, known, session.gateway.wall_ms())
            raise
    session.open_room(command_id, room, kind, then)


def _submit(session: Session, command_id: int, room: Room, data: Raw) -> None:
    if room.kind.schema is _CHAT:
        _submit_message(session, Submitted(session, command_id, session.command_deadline), room, chat.parse(data))
        return
    body = bytes(data)
    limit = session.options.limits.body_bytes
    if not 0 < len(body) <= limit:
        what = f"is {len(body)} bytes long" if body else "is missing, or is not JSON"
        raise CommandError(ErrorCode.BAD_REQUEST, f"data {what}; give 1 to {limit} bytes of JSON")
    subscription = session.subscriptions.get(room.id.channel)
    info = subscription.info if subscription is not None else session.info
    session.await_outcome(
        room, submitted := Submitted(session, command_id, session.command_deadline),
        Submit(room.id, MESSAGE, session.sender, "", body, info, submitted),
    )  # fmt: skip


def _submit_message(session: Session, submitted: Submitted, room: Room, message: chat.ChatMessage) -> None:
    data = session.options.chat.canonical(message, room.offset)
    submit = Submit(room.id, MESSAGE, session.sender, message.id, data, session.user_json, submitted)
    if room.rules is not None and (refusal := silence(session, room)) is not None:
        submit_unless(session, room, submit, submitted, refusal)
        return
    if message.reply_to is UNSET:
        session.await_outcome(room, submitted, submit)
        return
    target = message.reply_to

    def judge(entry: Entry | None) -> None:
        refusal = refuse_target(entry, "replyTo", target)
        submit_unless(session, room, submit, submitted, refusal)

    session.open_room(submitted.command_id, room.id, room.kind, lambda room: find(session, room, target, judge))


def find(session: Session, room: Room, sequence: int, then: Callable[[Entry | None], None]) -> None:
    """Look up an entry of a room for the running command; None: there is none that the client may see."""

    def take(page: Page | Away) -> None:
        if isinstance(page, Away):
            raise away(page)
        then(next((entry for entry in page.entries if entry.sequence == sequence), None))

    read = History(room.id, sequence - 1, 1, reverse=False, max_bytes=1)
    session.gateway.history(room, read, session.step(take))


def refuse_target(entry: Entry | None, name: str, sequence: int) -> CommandError | None:
    """Why an entry can't be what another is about; None: it is a message that can be read."""
    if entry is None:
        return chat.bad(f"{name} is {sequence}, which is no entry that this room shows; give a message's sequence")
    if entry.kind != MESSAGE:
        return chat.bad(f"{name} is {sequence}, which is no message; give the sequence of the message itself")
    if entry.removal is not None or entry.erased:
        return chat.bad(f"{name} is {sequence}, a message that has been removed")
    return None


def submit_unless(
    session: Session, room: Room, submit: Submit, submitted: Submitted, refusal: CommandError | None
) -> None:
    """Submit what the running command asks for; or, if it is refused, see whether it is the retry of what was not."""
    if refusal is None:
        session.await_outcome(room, submitted, submit)
    else:
        submitted.refusal, submit.probe = refusal, True
        session.await_repetition(room, submitted, submit)

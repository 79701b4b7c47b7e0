"""Publishing: from a command to a submit, and from its outcome to the answer.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from typing_extensions import override

from edge_config.kinds import Schema
from node import chat
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
    """

    session: Session | None
    command_id: int
    deadline: float

    def __call__(self, outcome: Outcome) -> None:
        """Answer the command."""
        session = self.session
        if session is None:
            return
        if isinstance(outcome, Entry):
            self.accepted(session, outcome)
        elif isinstance(outcome, Duplicate):
            self.repeated(session, outcome.sequence)
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


class Sent(Submitted, gc=False, eq=False):
    """A message of rpc `send`, which is answered with the whole message.

    Attributes:
        room: Where.
    """

    room: Room

    @override
    def accepted(self, session: Session, entry: Entry) -> None:
        session.settle(self, session.transport.codec.rpc(self.command_id, chat_data(self.room, entry)))

    @override
    def repeated(self, session: Session, sequence: int) -> None:
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
    _enter(session, request.channel, command_id, lambda room: _submit(session, command_id, room, request.data))


def send(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `send`.

    Raises:
        CommandError: It is refused before anything was submitted.
    """
    channel, message = chat.parse_parameters(request.data)
    subscription = session.subscriptions.get(channel)

    def submit(room: Room) -> None:
        if room.kind.schema is not _CHAT:
            raise CommandError(ErrorCode.NOT_AVAILABLE, f"{channel!r} is no chat room; use publish")
        _submit_message(session, Sent(session, command_id, session.command_deadline, room), room, message)

    if subscription is not None and subscription.may_publish:
        submit(subscription.room)
    else:
        _enter(session, channel, command_id, submit)


def _enter(session: Session, channel: str, command_id: int, then: Callable[[Room], None]) -> None:
    """Open a room in which the client has no right to publish by its subscription."""
    parts, kind = session.options.kinds.find(channel)
    subscription = session.subscriptions.get(channel)
    origin = subscription.origin if subscription is not None else None
    check_entrance(channel, parts, session.identity, origin)
    require(kind.publish, session.identity, origin, f"publishing in {channel!r}")
    session.open_room(command_id, RoomId(session.identity.site, channel), kind, then)


def _submit(session: Session, command_id: int, room: Room, data: Raw) -> None:
    if room.kind.schema is _CHAT:
        _submit_message(session, Submitted(session, command_id, session.command_deadline), room, chat.parse(data))
        return
    body = bytes(data)
    limit = session.options.limits.body_bytes
    if not 0 < len(body) <= limit:
        raise CommandError(ErrorCode.BAD_REQUEST, f"data is {len(body)} bytes long; give 1 to {limit}")
    subscription = session.subscriptions.get(room.id.channel)
    info = subscription.info if subscription is not None else session.info
    session.await_outcome(
        room, submitted := Submitted(session, command_id, session.command_deadline),
        Submit(room.id, MESSAGE, session.sender, "", body, info, submitted),
    )  # fmt: skip


def _submit_message(session: Session, submitted: Submitted, room: Room, message: chat.ChatMessage) -> None:
    data = session.options.chat.canonical(message, room.offset)
    session.await_outcome(
        room, submitted, Submit(room.id, MESSAGE, session.sender, message.id, data, session.user_json, submitted)
    )

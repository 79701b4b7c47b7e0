"""What the methods of the server API do, on the hub's task.  Sans-I/O.

A method is given the site of the key, its request, and `done`, which it calls once with the encoded result or an error,
in the call itself or in a later turn. Rooms and users are looked up in that site alone.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw

from edge_config.kinds import Presence, Schema
from node import api_calls as calls
from node import chat
from node.codes import CommandError, DisconnectCode, ErrorCode, UnsubscribeCode
from node.joining import away
from node.protocol import HistoryResult, client_info, json_string
from node.publication import encode_publication
from node.reading import require_presence
from router.entry import MESSAGE, Entry
from router.events import Away, Duplicate, History, Refusal, Submit
from router.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from node.protocol import Codec
    from node.seams import Page, Room, Server, User
    from node.session import SessionOptions
    from router.events import Outcome

SYSTEM: Final = "system"  # `userId` of chat messages that no user wrote

T = TypeVar("T")
Done: TypeAlias = "Callable[[bytes | CommandError], None]"
EMPTY: Final = b"{}"


class Methods:
    """The methods that act on this node.

    Args:
        gateway: The node.
        options: Limits and kinds of rooms, common with the sessions.
        codec: JSON, for publications.
        new_id: Makes ids of chat messages that come without one.
        session_id: The session id of a client id.
        uptime: Seconds since the node started.
    """

    __slots__ = ("_codec", "_gateway", "_new_id", "_options", "_session_id", "_uptime")

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, composed in one place
        self, gateway: Server, options: SessionOptions, codec: Codec, new_id: Callable[[], str],
        session_id: Callable[[str], str], uptime: Callable[[], float],
    ) -> None:  # fmt: skip
        self._gateway, self._options, self._codec, self._new_id = gateway, options, codec, new_id
        self._session_id, self._uptime = session_id, uptime

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, site: str, request: calls.PublishRequest, done: Done) -> None:
        """Method `publish`."""
        data = read_content(request)

        def opened(room: Room) -> None:
            chatting = room.kind.schema is Schema.CHAT
            self._gateway.submit(room, (self._message if chatting else self._plain)(room, request, data, done))

        self._open(site, request.channel, opened, done)

    def _plain(self, room: Room, request: calls.Content, data: bytes, done: Done) -> Submit:
        limit = self._options.limits.body_bytes
        if len(data) > limit:
            raise bad(f"data is {len(data)} bytes long; give 1 to {limit}")
        info = client_info(request.user, "", b"", b"") if request.user else b""
        sender = self._gateway.sender(room.id.site, request.user)
        return Submit(room.id, MESSAGE, sender, request.idempotency_key, data, info, _Published(room, done))

    def _message(self, room: Room, request: calls.Content, data: bytes, done: Done) -> Submit:
        message = chat.parse(self._identified(data, request.idempotency_key))
        canonical = self._options.chat.canonical(message, room.offset)
        sender = self._gateway.sender(room.id.site, request.user)
        author = json_string(request.user or SYSTEM)
        return Submit(room.id, MESSAGE, sender, message.id, canonical, author, _Published(room, done))

    def _identified(self, data: bytes, key: str) -> bytes:
        """A chat message with an id: its own, or the idempotency key, or a new one."""
        try:
            given = msgspec.json.decode(data, type=dict[str, Raw])
        except (msgspec.MsgspecError, RecursionError):
            return data  # which the chat format refuses, and says why
        if "id" not in given:
            given["id"] = Raw(json_string(key or self._new_id()))
        elif key and bytes(given["id"]) != json_string(key):
            raise bad(f"data.id and idempotency_key ({key!r}) differ; give one of them, or the same")
        return msgspec.json.encode(given)

    # -- reading -------------------------------------------------------------------------------------------------

    def history(self, site: str, request: calls.HistoryRequest, done: Done) -> None:
        """Method `history`."""

        def opened(room: Room) -> None:
            since = request.since
            if since is not None and since.epoch not in ("", room.epoch):
                raise CommandError(ErrorCode.UNRECOVERABLE_POSITION, f"the room's epoch is {room.epoch!r}")
            if request.limit == 0:
                answer(room, ())
                return
            limits = self._options.limits
            limit = min(request.limit, limits.history_entries) if request.limit > 0 else limits.history_entries
            start = since.offset if since is not None else None
            read = History(room.id, start, limit, reverse=request.reverse, max_bytes=limits.recovery_bytes)
            self._gateway.history(room, read, _guarded(lambda page: take(room, page), done))

        def take(room: Room, page: Page | Away) -> None:
            if isinstance(page, Away):
                raise away(page)
            answer(room, (entry for entry in page.entries if entry.sequence <= room.offset))

        def answer(room: Room, entries: Iterable[Entry]) -> None:
            publications = [Raw(encode_publication(self._codec, room, entry)) for entry in entries]
            done(msgspec.json.encode(HistoryResult(publications, room.epoch, room.offset)))

        self._open(site, request.channel, opened, done)

    def presence(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `presence`."""

        def opened(room: Room) -> None:
            require_presence(request.channel, room.kind, Presence.ROSTER)
            there = {client: Raw(info) for client, info in self._gateway.presence(room).items()}
            done(msgspec.json.encode({"presence": there}))

        self._open(site, request.channel, opened, done)

    def presence_stats(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `presence_stats`."""

        def opened(room: Room) -> None:
            require_presence(request.channel, room.kind, Presence.COUNTS)
            done(msgspec.json.encode(calls.PresenceStatsResult(*self._gateway.presence_stats(room))))

        self._open(site, request.channel, opened, done)

    def members(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `members`."""

        def opened(room: Room) -> None:
            require_presence(request.channel, room.kind, Presence.ROSTER)
            done(msgspec.json.encode(calls.MembersResult(dict(self._gateway.members(room)))))

        self._open(site, request.channel, opened, done)

    def rooms(self, site: str, request: calls.ChannelsRequest, done: Done) -> None:
        """Methods `rooms` and `channels`: all of the site's, encoded and chosen from by who asked."""
        del request
        listed = [
            calls.RoomInfo(
                room.id.channel, room.kind.name, room.offset, room.epoch, room.members,
                self._gateway.presence_stats(room)[1],
            )
            for room in self._gateway.populated(site)
        ]  # fmt: skip
        done(msgspec.json.encode(calls.RoomsResult(listed)))

    def info(self, site: str, request: calls.InfoRequest, done: Done) -> None:
        """Method `info`."""
        del request
        gateway = self._gateway
        clients, users = gateway.connected(site)
        rooms = gateway.populated(site)
        node = calls.NodeInfo(
            gateway.node, gateway.node, gateway.version, clients, users, sum(room.members for room in rooms),
            len(rooms), int(self._uptime()),
        )  # fmt: skip
        done(msgspec.json.encode(calls.InfoResult([node])))

    # -- acting on connections -----------------------------------------------------------------------------------

    def unsubscribe(self, site: str, request: calls.UnsubscribeRequest, done: Done) -> None:
        """Method `unsubscribe`."""
        self._options.kinds.find(request.channel)
        for session in self._sessions(site, request):
            session.unsubscribe(request.channel, UnsubscribeCode.SERVER)
        done(EMPTY)

    def disconnect(self, site: str, request: calls.DisconnectRequest, done: Done) -> None:
        """Method `disconnect`."""
        how = request.disconnect or calls.DisconnectCodeBody()
        code = how.code or DisconnectCode.FORCE_NO_RECONNECT
        if code < 3000:
            raise bad(f"disconnect.code is {code}; give 3000 to 4999, or leave it out")
        for session in self._sessions(site, request):
            if session.client not in request.whitelist:
                session.disconnect_as(code, how.reason)
        done(EMPTY)

    def history_remove(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `history_remove`: not to be had."""
        del site, done
        self._options.kinds.find(request.channel)
        what = "a room's history can't be removed at once; history_entries, history_seconds and retention_days bound it"
        raise CommandError(ErrorCode.NOT_AVAILABLE, what)

    def _sessions(self, site: str, request: calls.UserRequest) -> list[User]:
        """The connections that a request names."""
        if not request.user:
            raise bad("user is empty; give the id of the user whose connections are meant")
        return [
            session
            for session in self._gateway.sessions(site, request.user)
            if request.client in ("", session.client)
            and (not request.session or request.session == self._session_id(session.client))
        ]

    # -- inside --------------------------------------------------------------------------------------------------

    def _open(self, site: str, channel: str, then: Callable[[Room], None], done: Done) -> None:
        """Go on with a room; `then` may raise `CommandError`."""
        _, kind = self._options.kinds.find(channel)

        def opened(answer: Room | Away) -> None:
            if isinstance(answer, Away):
                raise away(answer)
            then(answer)

        self._gateway.open_room(RoomId(site, channel), kind, _guarded(opened, done))


class _Published(msgspec.Struct, eq=False):
    """Takes the outcome of a publication."""

    room: Room
    done: Done

    def __call__(self, outcome: Outcome) -> None:
        """Answer it."""
        if isinstance(outcome, Entry | Duplicate):
            self.done(msgspec.json.encode(calls.PublishResult(outcome.sequence, self.room.epoch)))
        elif isinstance(outcome, Refusal):
            self.done(bad(f"{outcome.value}; give a new message a new idempotency_key of at most 64 bytes"))
        else:
            self.done(away(outcome))


def read_content(content: calls.Content) -> bytes:
    """The data of a publication as compact JSON.

    Raises:
        CommandError: 107, there is none or it is bad; 108, it is to be treated in a way that is not to be had.
    """
    if content.skip_history:
        raise CommandError(ErrorCode.NOT_AVAILABLE, "every publication is kept; leave skip_history out")
    if content.tags:
        raise CommandError(ErrorCode.NOT_AVAILABLE, "publications have no tags; put them into data")
    if (content.data is UNSET) is not bool(content.b64data):
        raise bad("give either data (JSON) or b64data (JSON in base64)")
    try:
        data = b64decode(content.b64data, validate=True) if content.data is UNSET else bytes(content.data)
        data.decode()
        return msgspec.json.format(data, indent=-1)
    except (Base64Error, UnicodeDecodeError) as error:
        raise bad(f"b64data is no base64 of UTF-8: {error}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise bad(f"data is no JSON, which is all that rooms here carry: {error}") from error


def _guarded(then: Callable[[T], None], done: Done) -> Callable[[T], None]:
    """A callback whose `CommandError` is the answer."""

    def go(answer: T) -> None:
        try:
            then(answer)
        except CommandError as error:
            done(error)

    return go


def bad(detail: str) -> CommandError:
    """Error 107."""
    return CommandError(ErrorCode.BAD_REQUEST, detail)

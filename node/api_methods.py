"""What the methods of the server API do, on the hub's task.  Sans-I/O.

A method is given the site of the key, its request, and `done`, which it calls once with the encoded result or an error,
in the call itself or in a later turn. Rooms and users are looked up in that site alone.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Raw
from typing_extensions import override

from edge_config.kinds import Presence, Schema
from node import api_calls as calls
from node import chat
from node.auth import LONGEST_TTL, USER_BYTES, Grant
from node.chat_marks import Count, Who
from node.codes import CommandError, DisconnectCode, ErrorCode, UnsubscribeCode
from node.joining import Joining, away
from node.permissions import Origin
from node.protocol import HistoryResult, SubscribeRequest, client_info, json_string
from node.publication import encode_publication
from node.publishing import refuse_target, require_chat
from node.reading import require_presence
from router.entry import MESSAGE, Entry, Kind
from router.events import Away, Duplicate, History, Refusal, Submit
from router.ids import RoomId
from router.room_values import HISTORY_REMOVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from msgspec import UnsetType

    from node.protocol import Codec
    from node.seams import Page, Room, Server, User
    from node.session_options import SessionOptions
    from router.events import Outcome


T = TypeVar("T")
Done: TypeAlias = "Callable[[bytes | CommandError], None]"
EMPTY: Final = b"{}"


class World(NamedTuple):
    """What is not computed.

    Attributes:
        new_id: Makes ids of chat messages that come without one.
        session_id: The session id of a client id.
        monotonic: Monotonic seconds, as the sessions count them.
        wall: Seconds since 1970.
        slowly: Goes through slices of work, a few in each turn.
    """

    new_id: Callable[[], str]
    session_id: Callable[[str], str]
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    slowly: Callable[[Iterator[None]], None]


class Methods:
    """The methods that act on this node.

    Args:
        gateway: The node.
        options: Limits and kinds of rooms, common with the sessions.
        codec: JSON, for publications.
        world: Clocks and ids.
    """

    __slots__ = ("codec", "gateway", "options", "started", "world")

    def __init__(self, gateway: Server, options: SessionOptions, codec: Codec, world: World) -> None:
        self.gateway, self.options, self.codec, self.world = gateway, options, codec, world
        self.started = world.monotonic()

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, site: str, request: calls.PublishRequest, done: Done) -> None:
        """Method `publish`."""
        data = read_content(request)
        chat.bound("user", request.user, USER_BYTES)

        def opened(room: Room) -> None:
            if request.skip_history:
                self._push(room, request, data, done)
            elif room.kind.schema is Schema.CHAT:
                self._submit_message(room, request, data, done)
            else:
                self.gateway.submit(room, self._plain(room, request, data, done))

        self.open(site, request.channel, opened, done)

    def _push(self, room: Room, request: calls.Content, data: bytes, done: Done) -> None:
        """Publish to those who are here now, and to nobody later."""
        if room.kind.schema is Schema.CHAT:
            raise CommandError(ErrorCode.NOT_AVAILABLE, "every chat message is kept; leave skip_history out")
        if request.idempotency_key or request.user:
            raise bad("skip_history keeps nothing, so a retry is not known: leave out idempotency_key and user")
        self._require_size(data)
        self.gateway.push(room, data)
        done(msgspec.json.encode(calls.PublishResult(0, room.epoch)))

    def _require_size(self, data: bytes) -> None:
        limit = self.options.limits.body_bytes
        if len(data) > limit:
            raise bad(f"data is {len(data)} bytes long; give 1 to {limit}")

    def _plain(self, room: Room, request: calls.Content, data: bytes, done: Done) -> Submit:
        self._require_size(data)
        info = client_info(request.user, "", b"", b"") if request.user else b""
        sender = self.gateway.sender(room.id.site, request.user)
        return Submit(room.id, MESSAGE, sender, request.idempotency_key, data, info, Awaited(room, done))

    def _submit_message(self, room: Room, request: calls.Content, data: bytes, done: Done) -> None:
        """Submit a chat message; what it replies to is looked up before, as for clients."""
        message = chat.parse(self._identified(data, request.idempotency_key))
        canonical = self.options.chat.canonical(message, room.offset)
        sender = self.gateway.sender(room.id.site, request.user)
        author, published = json_string(request.user or chat.SYSTEM), Awaited(room, done)
        submit = Submit(room.id, MESSAGE, sender, message.id, canonical, author, published)
        target = message.reply_to
        if not isinstance(target, int):
            self.gateway.submit(room, submit)
            return

        def judge(entry: Entry | None) -> None:
            self.submit_unless(room, submit, published, refuse_target(entry, "replyTo", target))

        self.find(room, target, judge, done)

    def _identified(self, data: bytes, key: str) -> bytes:
        """A chat message with an id: its own, or the idempotency key, or a new one."""
        try:
            given = msgspec.json.decode(data, type=dict[str, Raw])
        except (msgspec.MsgspecError, RecursionError):
            return data  # which the chat format refuses, and says why
        if "id" not in given:
            given["id"] = Raw(json_string(key or self.world.new_id()))
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
            limits = self.options.limits
            limit = min(request.limit, limits.history_entries) if request.limit > 0 else limits.history_entries
            start = since.offset if since is not None else None
            read = History(room.id, start, limit, reverse=request.reverse, max_bytes=limits.recovery_bytes)
            self.gateway.history(room, read, guarded(lambda page: take(room, page), done))

        def take(room: Room, page: Page | Away) -> None:
            if isinstance(page, Away):
                raise away(page)
            answer(room, (entry for entry in page.entries if entry.sequence <= room.offset))

        def answer(room: Room, entries: Iterable[Entry]) -> None:
            publications = [Raw(encode_publication(self.codec, room, entry)) for entry in entries]
            done(msgspec.json.encode(HistoryResult(publications, room.epoch, room.offset)))

        self.open(site, request.channel, opened, done)

    def presence(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `presence`."""

        def opened(room: Room) -> None:
            require_presence(request.channel, room.kind, Presence.ROSTER)
            self.gateway.presence(room, answer)

        def answer(there: Mapping[str, bytes]) -> None:
            done(msgspec.json.encode({"presence": {client: Raw(info) for client, info in there.items()}}))

        self.open(site, request.channel, opened, done)

    def presence_stats(self, site: str, request: calls.ChannelRequest, done: Done) -> None:
        """Method `presence_stats`."""

        def opened(room: Room) -> None:
            require_presence(request.channel, room.kind, Presence.COUNTS)
            self.gateway.presence_stats(room, answer)

        def answer(counts: tuple[int, int]) -> None:
            done(msgspec.json.encode(calls.PresenceStatsResult(*counts)))

        self.open(site, request.channel, opened, done)

    def unread(self, site: str, request: calls.UnreadRequest, done: Done) -> None:
        """Method `unread`: what the rpc `unread` tells the user."""
        if not request.user:
            raise bad("user is empty; give the id of the user whose unread messages are counted")

        def opened(room: Room) -> None:
            require_chat(room)

            def take(mark: int | Away) -> None:
                if isinstance(mark, Away):
                    raise away(mark)
                who = Who(request.user, self.gateway.sender(site, request.user), mark)
                Count(self.gateway, self.options.limits, room, who, lambda then: guarded(then, done), done).go_on()

            self.gateway.mark(room, request.user, guarded(take, done))

        self.open(site, request.channel, opened, done)

    # -- acting on connections -----------------------------------------------------------------------------------

    def subscribe(self, site: str, request: calls.SubscribeRequest, done: Done) -> None:
        """Method `subscribe`; answered when all connections are there, with the first error if one could not."""
        _, kind = self.options.kinds.find(request.channel)
        if request.override:
            raise CommandError(ErrorCode.NOT_AVAILABLE, "a room's options are its kind's; leave override out")
        ttl = self._ttl(request.expire_at) if request.expire_at else None
        if ttl == 0:
            raise bad(f"expire_at is {request.expire_at}, which is past; give seconds since 1970, or leave it out")
        info = read_json("info", request.info, request.b64info)
        grant = Grant(info, read_json("data", request.data, request.b64data), ttl)
        asked, since = SubscribeRequest(), request.recover_since
        if since is not None:
            asked = SubscribeRequest(recover=True, epoch=since.epoch, offset=since.offset)
        sessions = self._sessions(site, request)
        errors: list[CommandError | None] = []

        def entered(error: CommandError | None) -> None:
            errors.append(error)
            if len(errors) == len(sessions):
                done(next((one for one in errors if one is not None), EMPTY))

        if not sessions:
            done(EMPTY)
        for session in sessions:
            room = RoomId(site, request.channel)
            joining = Joining(self.gateway, session.user, room, kind, asked, Origin.SERVER, grant)
            session.subscribe(joining, self.world.monotonic(), entered)

    def refresh(self, site: str, request: calls.RefreshRequest, done: Done) -> None:
        """Method `refresh`."""
        if not request.expired and not request.expire_at:
            raise bad("give expire_at (seconds since 1970), or expired = true")
        ttl = 0 if request.expired else self._ttl(request.expire_at)
        for session in self._sessions(site, request):
            if ttl:
                session.extend(ttl, self.world.monotonic())
            else:
                session.disconnect(DisconnectCode.EXPIRED)
        done(EMPTY)

    def unsubscribe(self, site: str, request: calls.UnsubscribeRequest, done: Done) -> None:
        """Method `unsubscribe`."""
        self.options.kinds.find(request.channel)
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
        """Method `history_remove`: of what the room has when its entry is made."""

        def opened(room: Room) -> None:
            sender, awaited = self.gateway.sender(site, ""), Placeless(room, done)
            self.gateway.submit(room, Submit(room.id, Kind.META, sender, "", HISTORY_REMOVED, b"", awaited))

        self.open(site, request.channel, opened, done)

    def _sessions(self, site: str, request: calls.UserRequest) -> list[User]:
        """The connections that a request names."""
        if not request.user:
            raise bad("user is empty; give the id of the user whose connections are meant")
        return [
            session
            for session in self.gateway.tenant(site).of(request.user).values()
            if request.client in ("", session.client)
            and (not request.session or request.session == self.world.session_id(session.client))
        ]

    def _ttl(self, expire_at: int) -> int:
        """Seconds from now on, at most `LONGEST_TTL`; 0: it is past."""
        return min(LONGEST_TTL, max(0, int(expire_at - self.world.wall())))

    # -- for all of them -----------------------------------------------------------------------------------------

    def open(self, site: str, channel: str, then: Callable[[Room], None], done: Done) -> None:
        """Go on with a room; `then` may raise `CommandError`."""
        _, kind = self.options.kinds.find(channel)

        def opened(answer: Room | Away) -> None:
            if isinstance(answer, Away):
                raise away(answer)
            then(answer)

        self.gateway.open_room(RoomId(site, channel), kind, guarded(opened, done))

    def find(self, room: Room, sequence: int, then: Callable[[Entry | None], None], done: Done) -> None:
        """Go on with an entry, None: there is none that clients may see; `then` may raise `CommandError`."""

        def take(page: Page | Away) -> None:
            if isinstance(page, Away):
                raise away(page)
            then(next((entry for entry in page.entries if entry.sequence == sequence), None))

        read = History(room.id, sequence - 1, 1, reverse=False, max_bytes=1)
        self.gateway.history(room, read, guarded(take, done))

    def submit_unless(self, room: Room, submit: Submit, awaited: Awaited, refusal: CommandError | None) -> None:
        """Submit an entry; or, if it is refused, see whether it is the retry of what was not."""
        if refusal is None:
            self.gateway.submit(room, submit)
        else:
            awaited.refusal, submit.probe = refusal, True
            self.gateway.probe(room, submit)


class Awaited(msgspec.Struct, eq=False):
    """Takes the outcome of a submit; until then it keeps the room in memory.

    Attributes:
        room: Where.
        done: Told of it.
        refusal: Why it may not be made; the answer, unless it was made before.
        otherwise: Asks for the same entry in other words, in which it may have been made; see `publishing.Sent`.
    """

    room: Room
    done: Done
    refusal: CommandError | None = None
    otherwise: Callable[[], None] | None = None

    def __call__(self, outcome: Outcome) -> None:
        """Answer it."""
        if isinstance(outcome, Entry | Duplicate):
            self.done(self.answer(outcome.sequence))
        elif outcome is Refusal.CONFLICT and self.otherwise is not None:
            otherwise, self.otherwise = self.otherwise, None
            otherwise()
        elif outcome is Refusal.NEW and self.refusal is not None:
            self.done(self.refusal)
        elif isinstance(outcome, Refusal):
            self.done(bad(f"{outcome.value}; give a new request a new idempotency_key of at most 64 bytes"))
        else:
            self.done(away(outcome))

    def answer(self, sequence: int) -> bytes:
        """The encoded result: where it is."""
        return msgspec.json.encode(calls.PublishResult(sequence, self.room.epoch))


class Placeless(Awaited, eq=False):
    """Takes the outcome of what has no place in the room."""

    @override
    def answer(self, sequence: int) -> bytes:
        return EMPTY


def read_content(content: calls.Content) -> bytes:
    """The data of a publication as compact JSON.

    Raises:
        CommandError: 107, there is none or it is bad; 108, it is to be treated in a way that is not to be had.
    """
    if content.tags:
        raise CommandError(ErrorCode.NOT_AVAILABLE, "publications have no tags; put them into data")
    data = read_json("data", content.data, content.b64data)
    if not data:
        raise bad("give either data (JSON) or b64data (JSON in base64)")
    return data


def read_json(name: str, plain: Raw | UnsetType, encoded: str) -> bytes:
    """Compact JSON that is given as it is or in base64; empty: it is not given.

    Raises:
        CommandError: 107, it is given twice or bad.
    """
    if isinstance(plain, Raw) and encoded:
        raise bad(f"give either {name} (JSON) or b64{name} (JSON in base64)")
    try:
        data = bytes(plain) if isinstance(plain, Raw) else b64decode(encoded, validate=True)
        data.decode()
        return msgspec.json.format(data, indent=-1) if data else b""
    except (Base64Error, UnicodeDecodeError) as error:
        raise bad(f"b64{name} is no base64 of UTF-8: {error}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise bad(f"{name} is no JSON, which is all that is carried here: {error}") from error


def guarded(then: Callable[[T], None], done: Done) -> Callable[[T], None]:
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

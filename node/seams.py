"""What a session needs of its surroundings: a way out to the client, and a way in to rooms.

`Transport` is the hub's connection, `Gateway` and `Room` are node/gateway.py and node/rooms.py; tests have fakes. All
calls are made on the hub's task. A ``done`` callback is called exactly once, on the same task: in the call itself when
the answer is at hand, else in a later turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_config.kinds import RoomKind
    from node.auth import Grant, Identity
    from node.chat_rules import Rules
    from node.codes import CommandError, DisconnectCode, UnsubscribeCode
    from node.counters import Counters
    from node.joining import Joining
    from node.neighbours import Neighbours
    from node.protocol import Codec
    from node.ratelimit import Throttle
    from node.tenant import Tenant
    from node.webhook_attendance import Subject
    from router.entry import Entry
    from router.events import Away, History, Submit
    from router.ids import RoomId


class Transport(Protocol):
    """A client's way out."""

    @property
    def remote(self) -> str:
        """The client's IP address."""

    @property
    def codec(self) -> Codec:
        """How this client's commands are read and its replies and pushes written."""

    @property
    def behind(self) -> bool:
        """Whether the client has not taken yet all that was sent before this turn."""

    def send(self, payload: bytes) -> None:
        """Send one encoded reply or push; payloads leave in the order of calls."""

    def send_ephemeral(self, payload: bytes) -> None:
        """Send one encoded push that may be dropped when the client is behind."""

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close with this code and end.

        `Session.closed` follows, in this call or later; a second call does nothing.
        """

    def pause(self) -> None:
        """Stop reading this client. What was read already may still be received."""

    def resume(self) -> None:
        """Go on reading."""


class Room(Protocol):
    """A room as this node follows it.

    A room obtained from the gateway follows its stream for as long as anybody refers to it, member or not: the gateway
    must not replace it by another object, nor let `offset` fall behind what members were given.
    """

    @property
    def id(self) -> RoomId:
        """Its full name."""

    @property
    def kind(self) -> RoomKind:
        """Its options."""

    @property
    def channel_json(self) -> bytes:
        """Its channel as a JSON string, quotes included."""

    @property
    def epoch(self) -> str:
        """Its stream epoch; never empty."""

    @property
    def offset(self) -> int:
        """Sequence of the last entry handed to the members here; 0: the room has none."""

    @property
    def floor(self) -> int:
        """Entries up to this sequence are not visible (any more); 0: all are."""

    @property
    def members(self) -> int:
        """How many subscriptions are joined on this node."""

    @property
    def users(self) -> Mapping[str, int]:
        """How many connections each user has here; empty where presence is off."""

    @property
    def rules(self) -> Rules | None:
        """What its moderators have laid down; None: nothing."""


class Page(NamedTuple):
    """Part of a room's history.

    Attributes:
        entries: Committed and visible; without a hole, oldest first, or newest first if the read was reverse. They may
            go beyond `Room.offset` while its members are still to be handed the last of them.
        offset: `Room.offset` at the moment of the answer.
    """

    entries: Sequence[Entry]
    offset: int


class Member(Protocol):
    """A subscription, as a room sees it: `node.subscription.Subscription`."""

    @property
    def transport(self) -> Transport:
        """Where the room's publications go."""

    @property
    def client(self) -> str:
        """The connection's client id; unique, the key of presence."""

    @property
    def user(self) -> str:
        """The user id; one user may have many clients."""

    @property
    def info(self) -> bytes:
        """ClientInfo as JSON, for presence and for join and leave pushes."""

    @property
    def wants_joins(self) -> bool:
        """Whether join and leave pushes go to it."""

    @property
    def delta(self) -> bool:
        """Whether it is given quoted data, and differences."""

    def lose(self) -> None:
        """A hole was found in what it was given: end it with 2500 (or the connection with 3010), to be resumed."""


class Place(Member, Protocol):
    """A subscription, as changes of sites see it: `node.subscription.Subscription`."""

    @property
    def grant(self) -> Grant:
        """What a token says of it."""


class User(Protocol):
    """Who is behind a connection: `node.session.Session`, as the gateway counts and finds it."""

    @property
    def site(self) -> str:
        """The tenant."""

    @property
    def user(self) -> str:
        """The user id; never empty."""

    @property
    def client(self) -> str:
        """The connection's client id."""

    @property
    def identity(self) -> Identity:
        """What its token says."""

    @property
    def subscriptions(self) -> Mapping[str, Place]:
        """Its subscriptions by channel."""

    def disconnect(self, code: DisconnectCode, reason: str = "") -> None:
        """Close the connection; `reason` is added to the code's text."""

    def disconnect_as(self, code: int, reason: str) -> None:
        """Close the connection with any code of the protocol, 3000 to 4999; `reason` empty: the code's text."""

    def unsubscribe(self, channel: str, code: UnsubscribeCode, reason: str = "") -> None:
        """End a subscription with an unsubscribe push; nothing happens if there is none."""

    def subscribe(self, joining: Joining, now: float, done: Callable[[CommandError | None], None]) -> None:
        """Have the client enter a room without its asking; `done` is called once, with why it could not."""

    def extend(self, ttl: int, now: float) -> None:
        """End the connection in so many seconds, instead of when its token does."""

    def push_message(self, data: bytes) -> None:
        """Push JSON data to this client alone."""


class Watcher(Protocol):
    """Who wants to know who comes and goes: `node.webhooks.Webhooks`."""

    def note(self, subject: Subject, *, here: bool) -> None:
        """The first connection of a user or in a room came, or the last one went."""


class Gateway(Protocol):
    """The node, as a session sees it."""

    @property
    def node(self) -> str:
        """The node's id."""

    @property
    def version(self) -> str:
        """The application's version."""

    @property
    def counters(self) -> Counters:
        """What is counted here."""

    @property
    def throttle(self) -> Throttle | None:
        """Rates of publishing that hold across connections, and slow mode; None: there are none."""

    def known_room(self, room: RoomId) -> Room | None:
        """The room, if it is in memory."""

    def open_room(self, room: RoomId, kind: RoomKind, done: Callable[[Room | Away], None]) -> None:
        """Bring a room into memory."""

    def history(self, room: Room, read: History, done: Callable[[Page | Away], None]) -> None:
        """Read a room's visible entries; without `since` from the visible floor on, or from the end if reverse.

        Fewer than `read.limit` may come although there are more, but at least one if there is one.
        """

    def submit(self, room: Room, submit: Submit) -> None:
        """Have an entry made; submits of one connection to one room are sequenced in the order of calls.

        `submit.done` is given the outcome when the entry is committed and handed to the members here. `submit.info` is
        the user id as JSON in rooms of schema chat, ClientInfo as JSON in others.
        """

    def probe(self, room: Room, submit: Submit) -> None:
        """Ask how an entry fared that is not to be made: as at first if it was made before, else `Refusal.NEW`."""

    def whisper(self, room: Room, data: bytes) -> None:
        """Give the members, of other nodes too, a publication without offset, JSON.

        It is dropped where a client is behind, and may get lost on its way to another node.
        """

    def mark(self, room: Room, user: str, done: Callable[[int | Away], None]) -> None:
        """Ask up to which sequence a user has read a room, as far as it is on disk; 0: the user has no mark there."""

    def raise_mark(
        self, room: Room, user: str, sequence: int, deadline: float, done: Callable[[int | Away], None]
    ) -> None:
        """A user has read a room up to a sequence; tell the members, and `done` when it is on disk.

        A mark never falls: `done` is given the one that the user has. It is called by `deadline`, monotonic seconds,
        or not long after it.
        """

    def wall_ms(self) -> int:
        """The time of new entries: milliseconds since 1970."""

    def join(self, room: Room, member: Member) -> None:
        """From now on the member gets what follows `room.offset`; presence and join pushes as the kind says."""

    def leave(self, room: Room, member: Member) -> None:
        """Undo `join`; nothing happens if the member is not joined."""

    def presence(self, room: Room, done: Callable[[Mapping[str, bytes]], None]) -> None:
        """ClientInfo as JSON by client id, at most `limits.presence_roster` of them; those of other nodes, too."""

    def presence_stats(self, room: Room, done: Callable[[tuple[int, int]], None]) -> None:
        """How many clients and how many users are there, on all nodes."""

    def admit(self, user: User) -> str | None:
        """Register a connected user; a text that says why not if the user has too many connections (3504)."""

    def reconsider(self, user: User) -> None:
        """The role of a registered user may have changed."""

    def forget(self, user: User) -> None:
        """Undo `admit`."""

    def sender(self, site: str, user: str) -> bytes:
        """The pseudonym of a user in the log."""


class Server(Gateway, Protocol):
    """The node, as the server API sees it."""

    @property
    def neighbours(self) -> Neighbours | None:
        """The other nodes; None: it is alone."""

    def tenant(self, site: str) -> Tenant[Any]:
        """What of a site is here; not to be changed."""

    def push(self, room: Room, data: bytes) -> None:
        """Push JSON data to the members on all nodes as a publication without an offset, which is not kept."""

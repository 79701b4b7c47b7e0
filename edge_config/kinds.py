"""Kinds of rooms (namespaces): what a room is for, who may do what in it, how long it remembers."""

from collections.abc import Iterator
from enum import StrEnum

from edge_config.faults import Fault, shown
from edge_config.setting import Bounds, section, setting

DAY_SECONDS = 86_400


class Schema(StrEnum):
    """What a room's publications are: chat messages, checked and completed by the node, or any JSON, untouched."""

    CHAT = "chat"
    ANY = "any"


class Who(StrEnum):
    """Who may do a thing, from nobody to all.

    NOBODY: only the server API. TOKEN: who subscribed with a subscription token, or was subscribed by the server.
    SUBSCRIBER: who is subscribed. USER: whose connection token names a user. ANYONE: guests too, where they connect.
    """

    NOBODY = "nobody"
    TOKEN = "token"  # noqa: S105 - a word of the configuration, no secret
    SUBSCRIBER = "subscriber"
    USER = "user"
    ANYONE = "anyone"


class Recovery(StrEnum):
    """Whether a subscription can be resumed where it broke.

    OFF: never. ASKED: where the client asks for it. POSITIONED: where it asks, and every client's position is
    watched, so that a hole is noticed. FORCED: always, asked for or not.
    """

    OFF = "off"
    ASKED = "asked"
    POSITIONED = "positioned"
    FORCED = "forced"


class Presence(StrEnum):
    """What can be known of who is in a room: nothing, how many, or who."""

    OFF = "off"
    COUNTS = "counts"
    ROSTER = "roster"


class JoinLeave(StrEnum):
    """Who is told of joins and leaves: nobody, subscribers that ask for it, or all subscribers."""

    OFF = "off"
    ON = "on"
    PUSH = "push"


class SystemEvent(StrEnum):
    """What a room can be told of by messages of the node: who comes and goes, and what moderators lay down."""

    CREATED = "created"
    JOINED = "joined"
    LEFT = "left"
    RENAMED = "renamed"
    LOCKED = "locked"
    UNLOCKED = "unlocked"
    SLOWMODE = "slowmode"
    ROLE = "role"
    MUTED = "muted"
    UNMUTED = "unmuted"
    BANNED = "banned"
    UNBANNED = "unbanned"
    KICKED = "kicked"


ARRIVALS = frozenset({SystemEvent.JOINED.value, SystemEvent.LEFT.value})


@section
class RoomKind:
    """Rooms whose channel is `NAME:...`; NAME has letters, digits, _ and -, but no two _ in a row.

    Attributes:
        name: Its name; not a key, but the table's.
    """

    name: str = "default"

    schema: Schema = setting(
        Schema.CHAT,
        "`chat`: messages in the chat format, checked and completed by the node. `any`: any JSON, untouched, and no"
        " chat methods.",
    )
    subscribe: Who = setting(
        Who.ANYONE,
        "Who may subscribe: `nobody` (only the server subscribes clients), `token` (who shows a subscription token),"
        " `user` (whose connection token names a user) or `anyone`. `anyone` admits guests only where guests may"
        " connect at all (`auth.insecure`).",
    )
    publish: Who = setting(
        Who.SUBSCRIBER,
        "Who may publish: `nobody` (only the server API), `token` (who subscribed with a token), `subscriber` (who is"
        " subscribed), `user` or `anyone`. Whoever is in a room may speak there.",
        dev=Who.ANYONE,
    )
    read_history: Who = setting(
        Who.SUBSCRIBER,
        "Who may page through the history: as for `publish`. Recovery is no matter of this key.",
        dev=Who.ANYONE,
    )
    read_presence: Who = setting(
        Who.SUBSCRIBER, "Who may ask who or how many are there: as for `publish`.", dev=Who.ANYONE
    )
    recovery: Recovery = setting(
        Recovery.FORCED,
        "Whether a subscription resumes where it broke: `off`, `asked` (if the client asks), `positioned` (if it asks;"
        " a hole in a live subscription is noticed in any case) or `forced` (always: the promise of this server).",
    )
    history_entries: int = setting(
        0,
        "Clients see at most so many newest entries of a room, in history and recovery alike; 0: all that the disk"
        " keeps.",
        Bounds(0),
    )
    history_seconds: int = setting(
        0, "Clients see no entry older than this, in history and recovery alike; 0: no limit of age.", Bounds(0)
    )
    retention_days: int = setting(
        0, "The disk forgets entries older than this; 0: as `log.retention_days` says.", Bounds(0)
    )
    retention_bytes: int = setting(
        0,
        "The disk forgets a room's oldest entries beyond this many bytes; 0: no limit for a single room.",
        Bounds(0),
    )
    presence: Presence = setting(
        Presence.COUNTS,
        "What can be known of who is there: `off`, `counts` (how many) or `roster` (who). Counts reveal nobody.",
        dev=Presence.ROSTER,
    )
    join_leave: JoinLeave = setting(
        JoinLeave.OFF,
        "Who is told of joins and leaves: `off` (nobody), `on` (subscribers that ask) or `push` (all subscribers)."
        " In a big room every join is a message to everybody, hence off.",
        dev=JoinLeave.ON,
    )
    slow_mode_seconds: int = setting(
        0, "A user may publish once in so many seconds; 0: no slow mode.", Bounds(0, DAY_SECONDS)
    )
    typing_members: int = setting(
        100,
        "Who is typing is told in rooms with at most so many connections of this node; beyond it nobody could follow.",
        Bounds(0),
    )
    delta: bool = setting(
        default=False,
        meaning="Subscribers that ask for it (`delta: fossil`) are sent what differs from the publication before"
        " instead of the whole. For big documents of which little changes; each takes the node time.",
    )
    presence_seconds: float = setting(
        0.0,
        "Members are pushed the number of users when it has changed, at most once in so many seconds; 0: never. In a"
        " big room each of them is a message to everybody.",
        Bounds(0, 3600),
    )
    system_messages: tuple[str, ...] = setting(
        (),
        "What messages of the node tell of, which stay in the history: any of `created`, `joined`, `left`, `renamed`,"
        " `locked`, `unlocked`, `slowmode`, `role`, `muted`, `unmuted`, `banned`, `unbanned`, `kicked`. None: who is"
        " concerned learns it without.",
    )
    system_members: int = setting(
        100,
        "`joined` and `left` are told in rooms of at most so many users on this node; beyond it they would bury what is"
        " said.",
        Bounds(0),
    )
    read_members: int = setting(
        100,
        "How far each member has read is told in rooms with at most so many connections of this node; beyond it only"
        " the user's own connections are told.",
        Bounds(0),
    )
    read_marks: int = setting(
        10_000,
        "Of so many users it is remembered how far they have read a room, those whose mark rose last; 0: of all.",
        Bounds(0),
    )
    maximum_members: int = setting(0, "A room admits at most so many connections of this node; 0: no limit.", Bounds(0))
    moderation: str = setting(
        "",
        "Name of the moderation policy; empty: none. This version has no policies, and refuses a name rather than"
        " leaving a room unmoderated in silence.",
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        if self.subscribe is Who.SUBSCRIBER:
            yield Fault(
                "subscribe",
                repr(self.subscribe.value),
                "only subscribers could subscribe",
                "Give one of nobody, token, user, anyone",
            )
        yield from self._telling()
        if self.moderation:
            yield Fault(
                "moderation",
                shown(self.moderation),
                "there is no such policy: this version does not moderate",
                "Leave it empty",
            )
        if self.history_seconds > self.retention_days * DAY_SECONDS > 0:
            yield Fault(
                "history_seconds",
                str(self.history_seconds),
                f"clients are promised more than the disk keeps (retention_days = {self.retention_days})",
                f"Give at most {self.retention_days * DAY_SECONDS}, or raise retention_days",
                also=("retention_days",),
            )

    @property
    def tells_arrivals(self) -> bool:
        """Whether messages of the node tell of who comes or goes."""
        return not ARRIVALS.isdisjoint(self.system_messages)

    def _telling(self) -> Iterator[Fault]:
        """What does not fit with what rooms are told of."""
        unknown = [event for event in self.system_messages if event not in set(SystemEvent)]
        if unknown:
            known = ", ".join(SystemEvent)
            yield Fault("system_messages", shown(unknown[0]), "there is no such event", f"Give some of {known}")
        if self.system_messages and self.schema is not Schema.CHAT:
            problem = "rooms of schema any have no messages of the node"
            yield Fault("system_messages", shown(self.system_messages), problem, "Leave it out", also=("schema",))
        if self.presence_seconds and self.schema is not Schema.CHAT:
            problem = "rooms of schema any carry what is published there, and nothing else"
            yield Fault("presence_seconds", str(self.presence_seconds), problem, "Leave it out", also=("schema",))
        if self.presence is Presence.OFF and (self.presence_seconds or self.tells_arrivals):
            key = "presence_seconds" if self.presence_seconds else "system_messages"
            problem = "it would tell of who is there, but presence is off"
            mend = "Give presence = counts or roster"
            yield Fault(key, shown(getattr(self, key)), problem, mend, also=("presence",))

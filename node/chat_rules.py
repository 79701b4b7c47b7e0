"""What moderators have laid down in a chat room: roles, mutes, bans, slow mode, a lock.  Sans-I/O.

The router keeps it as named values (`router/room_values.py`), here is what they mean:

=============  ====================================================
``role:USER``  a role that was granted in this room
``mute:USER``  seconds from the entry's time on; 0: until it is undone
``ban:USER``   likewise
``slow``       seconds between two messages of a user
``lock``       only moderators and owners may write
``title``      the room's name for people
=============  ====================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from node.chat import timestamp
from node.codes import CommandError, ErrorCode
from router.entry import Kind
from router.room_values import changes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.auth import Identity
    from node.seams import Room
    from node.session import Session
    from router.entry import Entry
    from router.events import Submit

ROLES: Final = ("guest", "member", "moderator", "owner")
"""From the least to the most; another word of a site counts as member."""
MODERATING: Final = frozenset({"moderator", "owner"})
MOST_SECONDS: Final = 366 * 86_400  # of a mute or ban that ends; longer ones may as well be for ever

T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode


class Rules:
    """The rules of one room, as of its newest META entry.

    Attributes:
        roles: By user.
        muted: By user, until when, in milliseconds since 1970; 0: for ever.
        banned: Likewise.
        slow_seconds: Between two messages of a user; 0: no slow mode.
        locked: Whether only moderators and owners may write.
        title: The room's name for people; empty: it has none.
    """

    __slots__ = ("banned", "locked", "muted", "roles", "slow_seconds", "title")

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self.roles: dict[str, str] = {}
        self.muted: dict[str, int] = {}
        self.banned: dict[str, int] = {}
        self.slow_seconds, self.locked, self.title = 0, False, ""
        self.change(values)

    def change(self, values: Mapping[str, bytes | None]) -> None:
        """Take over values that were set; None: that were taken away."""
        for name, text in values.items():
            ts, value = (0, None) if text is None else msgspec.json.decode(text)
            what, _, user = name.partition(":")
            if what == "role":
                _put(self.roles, user, value)
            elif what == "mute":
                _put(self.muted, user, _end(ts, value))
            elif what == "ban":
                _put(self.banned, user, _end(ts, value))
            elif what == "slow":
                self.slow_seconds = value or 0
            elif what == "lock":
                self.locked = value is not None
            elif what == "title":
                self.title = value or ""

    @classmethod
    def of(cls, values: Mapping[str, bytes] | None) -> Rules | None:
        """The rules that a room's values make; None: there are none."""
        return cls(values) if values else None

    @classmethod
    def after(cls, rules: Rules | None, values: Mapping[str, bytes] | None, entry: Entry) -> Rules | None:
        """The rules after a META entry: `rules` as it was before, and all values as they are then."""
        if rules is None or not values:
            return cls.of(values)
        rules.change(changes_of(entry))
        return rules

    def knows(self, value: str, user: str) -> bool:
        """Whether a value of this name (see above, before the colon) is set for a user; if so it takes no more room."""
        of: dict[str, Mapping[str, object]] = {"role": self.roles, "mute": self.muted, "ban": self.banned}
        return user in of.get(value, {})

    def __len__(self) -> int:
        return len(self.roles) + len(self.muted) + len(self.banned)


def _put(values: dict[str, T], user: str, value: T | None) -> None:
    if value is None:
        values.pop(user, None)
    else:
        values[user] = value


def _end(ts: int, seconds: int | None) -> int | None:
    """When what was laid down for so many seconds ends; 0: it does not."""
    return ts + seconds * 1000 if seconds else seconds


def role_of(identity: Identity, room: Room) -> str:
    """The role that counts: the higher one of what the token says and what was granted in the room."""
    own = identity.role or ("guest" if identity.guest else "member")
    granted = room.rules.roles.get(identity.user, "") if room.rules is not None else ""
    return max(own, granted, key=_rank)


def slow_mode(room: Room) -> int:
    """Seconds between two messages of a member, by the room's kind and its moderators; 0: no slow mode."""
    seconds = room.kind.slow_mode_seconds
    return seconds if room.rules is None else max(seconds, room.rules.slow_seconds)


def slow_seconds(identity: Identity, room: Room, submit: Submit) -> int:
    """Between what a user submits; 0: no slow mode, as for rulings and reports, and for those who moderate."""
    seconds = slow_mode(room)
    return 0 if submit.kind == Kind.META or not seconds or role_of(identity, room) in MODERATING else seconds


def mute_of(user: str, room: Room, now_ms: int) -> int | None:
    """Until when a user is muted, in milliseconds since 1970; 0: for ever; None: it is not."""
    if room.rules is None or not holds(room.rules.muted, user, now_ms):
        return None
    return room.rules.muted[user]


def _rank(role: str) -> int:
    return ROLES.index(role) if role in ROLES else 1 if role else -1


def check_presence(user: str, room: Room, now_ms: int) -> None:
    """Refuse whom the room has banned.

    Raises:
        CommandError: 103.
    """
    if room.rules is not None and holds(room.rules.banned, user, now_ms):
        raise _banned(user, room, room.rules)


def check_speaking(session: Session, room: Room) -> None:
    """Refuse who may not write in a room now.

    Raises:
        CommandError: 103.
    """
    refusal = silence(session, room)
    if refusal is not None:
        raise refusal


def silence(session: Session, room: Room) -> CommandError | None:
    """Error 103 for who may not write in a room now; None: the room's moderators have nothing against it."""
    rules = room.rules
    if rules is None:
        return None
    identity, now_ms = session.identity, session.gateway.wall_ms()
    if holds(rules.banned, identity.user, now_ms):
        return _banned(identity.user, room, rules)
    if holds(rules.muted, identity.user, now_ms):
        return _denied(f"{identity.user!r} is muted in {room.id.channel!r}{_until(rules.muted, identity.user)}")
    if rules.locked and role_of(identity, room) not in MODERATING:
        return _denied(f"{room.id.channel!r} is locked; only moderators and owners may write")
    return None


def _banned(user: str, room: Room, rules: Rules) -> CommandError:
    return _denied(f"{user!r} is banned from {room.id.channel!r}{_until(rules.banned, user)}")


def check_reach(session: Session, room: Room, user: str, method: str) -> None:
    """Refuse what a moderator would do to whom the room has made an owner.

    Raises:
        CommandError: 103.
    """
    rules = room.rules
    if rules is not None and rules.roles.get(user) == "owner" and role_of(session.identity, room) != "owner":
        raise _denied(f"{user!r} is an owner of {room.id.channel!r}, which only owners may {method}")


def holds(until: Mapping[str, int], user: str, now_ms: int) -> bool:
    """Whether a user's mute or ban has not ended."""
    end = until.get(user)
    return end is not None and (not end or end > now_ms)


def _until(until: Mapping[str, int], user: str) -> str:
    return f" until {timestamp(until[user]).decode()}" if until[user] else ""


def _denied(detail: str) -> CommandError:
    return CommandError(ErrorCode.PERMISSION_DENIED, detail)


class Ruling(NamedTuple):
    """An rpc that lays something down.

    Attributes:
        event: What the notice says.
        value: Name of the value that it sets, before the user's; empty: it sets none.
        of_user: Whether it is about a user.
        takes: What else is given: `seconds`, `role`, `title`, or nothing.
        sets: Whether it sets the value, or takes it away.
        expels: Whether the user's subscription ends.
        right: Roles that may.
    """

    event: str
    value: str
    of_user: bool = True
    takes: str = ""
    sets: bool = True
    expels: bool = False
    right: frozenset[str] = MODERATING


RULINGS: Final = {
    "mute": Ruling("muted", "mute", takes="seconds"),
    "unmute": Ruling("unmuted", "mute", sets=False),
    "ban": Ruling("banned", "ban", takes="seconds", expels=True),
    "unban": Ruling("unbanned", "ban", sets=False),
    "kick": Ruling("kicked", "", expels=True),
    "slow": Ruling("slowmode", "slow", of_user=False, takes="seconds"),
    "lock": Ruling("locked", "lock", of_user=False),
    "unlock": Ruling("unlocked", "lock", of_user=False, sets=False),
    "rename": Ruling("renamed", "title", of_user=False, takes="title"),
    "grant": Ruling("role", "role", takes="role", right=frozenset({"owner"})),
}
"""By the rpc's name."""
REPORTED: Final = "reported"  # the event of a report: it sets nothing, and is for those who moderate
_EXPELLING: Final = frozenset(ruling.event for ruling in RULINGS.values() if ruling.expels)


class Given(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """Parameters of the rpcs in `RULINGS`; which of them an rpc takes, the table says."""

    channel: str
    id: str
    user: str = ""
    seconds: int = 0
    role: str = ""
    title: str = ""


def canonical(ruling: Ruling, given: Given, by: str) -> bytes:
    """The bytes that the log keeps; the same for a retry."""
    body: dict[str, Any] = {"id": given.id, "event": ruling.event, "by": by}
    if ruling.of_user:
        body["user"] = given.user
    if ruling.takes:
        body[ruling.takes] = getattr(given, ruling.takes)
    if ruling.value:
        name = f"{ruling.value}:{given.user}" if ruling.of_user else ruling.value
        body["set"] = {name: _value(ruling, given) if ruling.sets else None}
    return _encode(body)


def _value(ruling: Ruling, given: Given) -> object:
    if ruling.takes == "role":
        return None if given.role == "member" else given.role
    if ruling.takes == "title":
        return given.title or None
    if ruling.takes == "seconds":
        return given.seconds if given.seconds or ruling.of_user else None
    return True


class Notice(Struct, gc=False):
    """What a META entry says to whom it concerns.

    Attributes:
        event: What happened.
        by: The user who did it.
        user: Whom it is about; empty: all.
        seconds: How long, or how slow.
        role: The role that was granted.
        title: The room's new one.
        target: Sequence of the message that was reported.
        author: Its author.
        reason: Why it was.
        ts: When, in milliseconds since 1970.
    """

    event: str = ""
    by: str = ""
    user: str = ""
    seconds: int = 0
    role: str = ""
    title: str = ""
    target: int = 0
    author: str = ""
    reason: str = ""
    ts: int = 0

    @property
    def expels(self) -> bool:
        """Whether the user's subscription ends."""
        return self.event in _EXPELLING

    @property
    def reports(self) -> bool:
        """Whether it is for those alone who moderate the room."""
        return self.event == REPORTED

    def encode(self, channel: str) -> bytes:
        """The notice as clients are pushed it, JSON."""
        return _encode({"type": "notice", "channel": channel, "event": self.event, "by": self.by, **self._details()})

    def facts(self) -> dict[str, object]:
        """The same for all members, whoever is concerned: the data of a system message."""
        return {"by": self.by, **({"user": self.user} if self.user else {}), **self._details()}

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {}
        if self.event == "slowmode":
            details["seconds"] = self.seconds
        elif self.seconds:
            details["until"] = timestamp(self.ts + self.seconds * 1000).decode()
        if self.event == "renamed":
            details["title"] = self.title
        if self.role:
            details["role"] = self.role
        if self.reports:
            details |= {"target": self.target, "author": self.author}
            if self.reason:
                details["reason"] = self.reason
        return details


_decode_notice: Final = msgspec.json.Decoder(Notice).decode


def notice_of(entry: Entry) -> Notice:
    """What a META entry of a chat room says."""
    notice = _decode_notice(entry.data)
    notice.ts = entry.ts
    return notice

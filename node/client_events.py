"""What a subscription gives, and the values around it.  Sans-I/O."""

from __future__ import annotations

from typing import Any, NamedTuple, Required, TypeAlias, TypedDict

from msgspec import Struct

from node.client_wire import Info  # noqa: TC001 (msgspec looks the names of fields' types up)


class Position(NamedTuple):
    """A place in a room's stream.

    Attributes:
        epoch: Of the stream; it changes only when a room is reset. Empty: whichever the room has.
        offset: Of the last entry that was seen; 0: before the first.
    """

    epoch: str
    offset: int


class Message(TypedDict, total=False):
    """An entry of a chat room as everybody is sent it; `type` says which further fields it has.

    The fields are those of the wire. `sequence` is the entry's offset in the room: dense from 1, never reused.
    """

    id: Required[str]
    chatRoom: Required[str]
    userId: Required[str]
    timestamp: Required[str]
    sequence: Required[int]
    type: Required[str]
    content: str
    replyTo: int
    mentions: list[str]
    attachments: list[dict[str, Any]]
    meta: Any
    target: int
    emoji: str
    by: str
    reason: str
    user: str
    since: int
    event: str
    data: Any


class Publication(Struct, frozen=True):
    """Something published in a room.

    Attributes:
        channel: The room.
        offset: Its place: one more than that of the one before it. 0: it is ephemeral (somebody types, has read) and in
            no history.
        data: In chat rooms a `Message`, or an ephemeral `{"type": "typing" | "read" | ...}`; in others any JSON.
        info: Who published it; chat rooms say so in `data`.
    """

    channel: str
    offset: int
    data: Any
    info: Info | None = None


class Gap(Struct, frozen=True):
    """Recovery was impossible: what stands between two positions is lost for this subscription, which goes on after it.

    Attributes:
        channel: The room.
        after: The last thing that was given.
        until: Where the subscription goes on; what follows is given without a hole. If the epochs differ, the room was
            reset: its history is another one.
        reason: Why, in words.
    """

    channel: str
    after: Position
    until: Position
    reason: str


class Joined(Struct, frozen=True):
    """Somebody came into a room that tells of it."""

    channel: str
    info: Info


class Left(Struct, frozen=True):
    """Somebody left a room that tells of it."""

    channel: str
    info: Info


Event: TypeAlias = Publication | Gap | Joined | Left


class HistoryPage(NamedTuple):
    """Part of a room's history.

    Attributes:
        publications: Oldest first, or newest first if it was read in reverse.
        position: The room's newest, at the moment of the answer.
        following: What to give as `since` for the next page; None: this is the last.
    """

    publications: list[Publication]
    position: Position
    following: Position | None


class Unread(NamedTuple):
    """What a user has not read in a room.

    Attributes:
        unread: Messages of others after the mark.
        mentions: Those of them that mention the user.
        read: The mark: the sequence up to which the user has read.
        more: Whether there may be more of both than the node counts.
    """

    unread: int
    mentions: int
    read: int
    more: bool = False


class Standing(NamedTuple):
    """What holds in a room, and for the user there.

    Attributes:
        title: Of the room; empty: it has none.
        role: The user's.
        slow: Seconds between two messages of a member; 0: no slow mode.
        locked: Whether only those who moderate may write.
        muted: Whether the user may not write.
        muted_until: When that ends, as timestamps of messages are written; empty: when somebody undoes it.
    """

    title: str
    role: str
    slow: int
    locked: bool
    muted: bool
    muted_until: str


class Presence(NamedTuple):
    """How many are in a room: connections, and the users behind them."""

    clients: int
    users: int

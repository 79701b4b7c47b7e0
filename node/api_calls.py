"""The requests and results of the server API: names and meanings of Centrifugo's HTTP API.  Sans-I/O.

Unknown fields are ignored, as its clients send some that concern features which are not here. What is known and can't
be honoured is refused with 108, so that nobody believes in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from node.chat_rules import MOST_SECONDS

if TYPE_CHECKING:
    from node.codes import CommandError

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]

MOST_LISTED: Final = 10_000  # of a page: some hundred KiB
Pattern: TypeAlias = Annotated[str, Meta(max_length=255)]


class Position(Struct):
    """A place in a room's stream."""

    offset: Offset = 0
    epoch: str = ""


class Content(Struct, kw_only=True):
    """What `publish` and `broadcast` have in common.

    Attributes:
        data: JSON. In rooms of schema `chat` a message; its `id` may be left out.
        b64data: Instead of `data`: JSON in base64.
        skip_history: Push it to the members at this moment, without an offset, and keep nothing; in rooms of schema
            `any` only.
        tags: Only empty: publications have none.
        idempotency_key: In a retry the same; then the first result is given. At most 64 bytes.
        user: Author, beyond Centrifugo; empty: the system.
    """

    data: Raw | UnsetType = UNSET
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] = {}
    idempotency_key: str = ""
    user: str = ""


class PublishRequest(Content, kw_only=True):
    """Publish in a room; answered when it is on disk."""

    channel: str


class PublishResult(Struct):
    """Where the publication is; its offset is 0 if it was not kept."""

    offset: Count
    epoch: str


class BroadcastRequest(Content, kw_only=True):
    """Publish the same in several rooms."""

    channels: list[str]


class ErrorBody(Struct):
    """Why something was not done; `code` is of the client protocol's table, and `retryAfter` seconds to wait."""

    code: int
    message: str
    retry_after: float | UnsetType = field(default=UNSET, name="retryAfter")

    @classmethod
    def of(cls, error: CommandError) -> Self:
        """What is told of an error."""
        return cls(int(error.code), error.message, error.retry_after or UNSET)


class PublishReply(Struct):
    """What became of one publication of a broadcast: a result or an error."""

    result: PublishResult | UnsetType = UNSET
    error: ErrorBody | UnsetType = UNSET


class BroadcastResult(Struct):
    """One reply for each channel, in their order."""

    responses: list[PublishReply]


class ChannelRequest(Struct, kw_only=True):
    """Names a room."""

    channel: str


class HistoryRequest(ChannelRequest, kw_only=True):
    """Read a room's history.

    Attributes:
        limit: 0: only the position; -1: as many as one answer may have.
        since: Where to begin, exclusive.
        reverse: Newest first.
    """

    limit: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = 0
    since: Position | None = None
    reverse: bool = False


class ClientInfo(Struct):
    """Who is connected."""

    user: str
    client: str
    conn_info: Raw | UnsetType = UNSET
    chan_info: Raw | UnsetType = UNSET


class Publication(Struct):
    """A publication of the history; `info` is there if a client made it."""

    data: Raw
    offset: Count
    info: ClientInfo | UnsetType = UNSET


class HistoryResult(Struct):
    """Part of a room's history, and the room's present position."""

    publications: list[Publication]
    epoch: str
    offset: Count


class PresenceResult(Struct):
    """Who is in a room, by client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct):
    """How many are in a room."""

    num_clients: Count
    num_users: Count


class ChannelsRequest(Struct, kw_only=True):
    """List all rooms with members here.

    Attributes:
        pattern: `*`, `?` and `[abc]` stand for characters; empty: all.
    """

    pattern: Pattern = ""


class ChannelInfo(Struct):
    """A room with members."""

    num_clients: Count


class ChannelsResult(Struct):
    """Rooms with members here, by channel."""

    channels: dict[str, ChannelInfo]


class PageRequest(Struct, kw_only=True):
    """Which part of a list is wanted.

    Attributes:
        limit: At most so many.
        cursor: Of the page before; empty: the first page.
    """

    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = 1000
    cursor: str = ""


class RoomsRequest(PageRequest, kw_only=True):
    """List rooms with members here, and where they stand, in the order of their names.

    Attributes:
        pattern: As of `channels`.
    """

    pattern: Pattern = ""


class RoomInfo(Struct):
    """A room with members.

    Attributes:
        kind: Name of its kind.
        offset: Of its newest entry.
        num_clients: Subscriptions here.
        num_users: Users here; 0 where presence is off.
    """

    channel: str
    kind: str
    offset: Count
    epoch: str
    num_clients: Count
    num_users: Count


class RoomsResult(Struct):
    """Rooms with members here, in the order of their names.

    Attributes:
        cursor: For the next page; empty: there is none.
    """

    rooms: list[RoomInfo]
    cursor: str = ""


class MembersRequest(PageRequest, kw_only=True):
    """List the users in a room, in the order of their ids."""

    channel: str


class MembersResult(Struct):
    """How many connections each user has in a room.

    Attributes:
        cursor: For the next page; empty: there is none.
    """

    members: dict[str, Count]
    cursor: str = ""


class UsersRequest(PageRequest, kw_only=True):
    """List the connected users, in the order of their ids.

    Attributes:
        pattern: As of `channels`, for user ids.
    """

    pattern: Pattern = ""


class ListedUser(Struct):
    """A connected user.

    Attributes:
        num_clients: Connections.
        num_subs: Subscriptions of all of them.
    """

    user: str
    num_clients: Count
    num_subs: Count


class UsersResult(Struct):
    """Connected users, in the order of their ids.

    Attributes:
        cursor: For the next page; empty: there is none.
    """

    users: list[ListedUser]
    cursor: str = ""


class UserInfoRequest(Struct, kw_only=True):
    """Ask for a user's connections."""

    user: str


class Connected(Struct):
    """A connection.

    Attributes:
        client: Its client id.
        role: What its token calls the user; empty: nothing.
        guest: Whether nobody vouches for the user.
        channels: Rooms that it is in, in the order of their names.
    """

    client: str
    role: str
    guest: bool
    channels: list[str]


class UserInfoResult(Struct):
    """A user's connections here; none, if it is not connected."""

    user: str
    connections: list[Connected]


class InfoRequest(Struct):
    """Ask for the node's figures; of the key's site only."""


class NodeInfo(Struct):
    """A node's figures of one site; `uptime` in seconds."""

    uid: str
    name: str
    version: str
    num_clients: Count
    num_users: Count
    num_subs: Count
    num_channels: Count
    uptime: Count


class InfoResult(Struct):
    """The nodes."""

    nodes: list[NodeInfo]


class UserRequest(Struct, kw_only=True):
    """Names a user's connections.

    Attributes:
        client: Only the connection with this client id; empty: any.
        session: Only the connection with this session id; empty: any.
    """

    user: str
    client: str = ""
    session: str = ""


class SubscribeRequest(UserRequest, kw_only=True):
    """Subscribe a user's connections, whatever the room's kind allows clients.

    Attributes:
        info: JSON for presence in this room, or `b64info`, the same in base64.
        data: JSON that the client is given with the subscription, or `b64data`.
        recover_since: What came after this position is pushed too.
        expire_at: Seconds since 1970 when the subscription ends; 0: it does not.
        override: Only empty: options are those of the room's kind.
    """

    channel: str
    info: Raw | UnsetType = UNSET
    b64info: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    recover_since: Position | None = None
    expire_at: Count = 0
    override: dict[str, Raw] = {}


class RefreshRequest(UserRequest, kw_only=True):
    """Change when connections of a user end.

    Attributes:
        expired: They end now (3005), and SDKs connect again with a new token.
        expire_at: Seconds since 1970.
    """

    expired: bool = False
    expire_at: Count = 0


class UnsubscribeRequest(UserRequest, kw_only=True):
    """End subscriptions of a user."""

    channel: str


class DisconnectCodeBody(Struct):
    """How to close; 3500 to 3999 and 4500 to 4999 keep SDKs from connecting again."""

    code: Annotated[int, Meta(ge=0, le=4999)] = 0
    reason: Annotated[str, Meta(max_length=100)] = ""


class DisconnectRequest(UserRequest, kw_only=True):
    """Close connections of a user.

    Attributes:
        whitelist: Client ids that stay.
        disconnect: Code and reason; without it 3503.
    """

    whitelist: list[str] = []
    disconnect: DisconnectCodeBody | None = None


class RuleRequest(ChannelRequest, kw_only=True):
    """What moderators' calls have in common.

    Attributes:
        by: The user who does it; empty: the system. Whether that user may is for the caller to know.
        idempotency_key: In a retry the same; then it is done once. At most 64 bytes.
    """

    by: str = ""
    idempotency_key: str = ""


class RuleUserRequest(RuleRequest, kw_only=True):
    """A moderator's call about a user."""

    user: str


class RestrictRequest(RuleUserRequest, kw_only=True):
    """Keep a user from something.

    Attributes:
        seconds: For how long; 0: until it is undone.
    """

    seconds: Annotated[int, Meta(ge=0, le=MOST_SECONDS)] = 0


class SlowRequest(RuleRequest, kw_only=True):
    """Let each user publish once in so many seconds; 0: as they like."""

    seconds: Annotated[int, Meta(ge=0, le=MOST_SECONDS)]


class GrantRequest(RuleUserRequest, kw_only=True):
    """Give a user a role in a room; `member` takes it away."""

    role: Literal["member", "moderator", "owner"]


class RenameRequest(RuleRequest, kw_only=True):
    """Give a room a name for people.

    Attributes:
        title: One line, at most 255 bytes; empty: none.
    """

    title: str


class ClearUserRequest(RuleUserRequest, kw_only=True):
    """Remove all that a user said, with one entry: clients are shown placeholders in its place.

    Attributes:
        since: Offset of the first message that goes; 0: all go.
        reason: Shown there; at most 255 bytes.
    """

    since: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    reason: str = ""


class MessageRequest(RuleRequest, kw_only=True):
    """A moderator's call about a message.

    Attributes:
        target: Its sequence, which is its offset.
    """

    target: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class DeleteMessageRequest(MessageRequest, kw_only=True):
    """Remove a message: clients are shown a placeholder in its place.

    Attributes:
        reason: Shown there; at most 255 bytes.
    """

    reason: str = ""


class EditMessageRequest(MessageRequest, kw_only=True):
    """Give a message another text, as its author.

    Attributes:
        content: The new text.
    """

    content: str


class RoomInfoRequest(ChannelRequest, kw_only=True):
    """Ask for a room and what its moderators have laid down."""


class Restriction(Struct, omit_defaults=True):
    """A mute or a ban.

    Attributes:
        until: When it ends (RFC 3339); left out: when it is undone.
    """

    user: str
    until: str = ""


class RoomInfoResult(RoomInfo):
    """A room, with or without members here.

    Attributes:
        schema: `chat` or `any`; in rooms of the latter there are no rules.
        roles: Granted in this room, by user.
        mutes: Those that hold now.
        bans: Those that hold now.
        slow_seconds: Between two messages of a user; 0: no slow mode.
        locked: Whether only moderators and owners may write.
        title: Its name for people; empty: it has none.
    """

    schema: str
    roles: dict[str, str]
    mutes: list[Restriction]
    bans: list[Restriction]
    slow_seconds: Count
    locked: bool
    title: str


class UnreadRequest(ChannelRequest, kw_only=True):
    """Count what a user has not read in a room."""

    user: str


class UnreadResult(Struct):
    """What a user has not read in a room.

    Attributes:
        unread: Messages of others behind the mark.
        mentions: Those of them that mention the user.
        read: The mark: the offset up to which the user has read.
        more: Whether not all was looked at (`limits.unread_entries`).
    """

    unread: Count
    mentions: Count
    read: Count
    more: bool = False


class Empty(Struct):
    """Nothing more is to be told."""

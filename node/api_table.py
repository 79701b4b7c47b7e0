"""The methods of the server API: name, request, result, and the scope that a key must have.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Raw, Struct

from node import api_calls as calls
from node import api_listing, api_moderating
from node.api_everywhere import everywhere
from node.api_methods import Methods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Method(NamedTuple):
    """One method.

    Attributes:
        request: What its body holds.
        result: What its answer holds, for the document.
        scope: Of `edge_config.api.SCOPES`.
        perform: Carries it out on the hub's task, with the site, the request and `done`; None: it is made of others. If
            it gives slices, they are the rest of it.
    """

    request: type[Struct]
    result: type[Struct]
    scope: str
    perform: Callable[[Methods, str, Any, Any], Iterator[None] | None] | None


class BatchRequest(Struct, kw_only=True):
    """Several commands in one request, carried out in order, or at once if `parallel`.

    Attributes:
        commands: Each has one field, named as a method, with that method's request.
    """

    commands: list[dict[str, Raw]]
    parallel: bool = False


class BatchResult(Struct):
    """One reply for each command, in their order: it has one field, the method's name with its result, or `error`."""

    replies: list[dict[str, Raw]]


_RULINGS: Final[tuple[tuple[str, type[calls.RuleRequest]], ...]] = (
    ("mute", calls.RestrictRequest),
    ("unmute", calls.RuleUserRequest),
    ("ban", calls.RestrictRequest),
    ("unban", calls.RuleUserRequest),
    ("kick", calls.RuleUserRequest),
    ("slow", calls.SlowRequest),
    ("lock", calls.RuleRequest),
    ("unlock", calls.RuleRequest),
    ("rename", calls.RenameRequest),
    ("grant", calls.GrantRequest),
)
_ACTIONS: Final[tuple[tuple[str, type[calls.MessageRequest]], ...]] = (
    ("delete", calls.DeleteMessageRequest),
    ("restore", calls.MessageRequest),
    ("edit", calls.EditMessageRequest),
    ("pin", calls.MessageRequest),
    ("unpin", calls.MessageRequest),
)
METHODS: Final[Mapping[str, Method]] = {
    "publish": Method(calls.PublishRequest, calls.PublishResult, "publish", Methods.publish),
    "broadcast": Method(calls.BroadcastRequest, calls.BroadcastResult, "publish", None),
    "history": Method(calls.HistoryRequest, calls.HistoryResult, "read", Methods.history),
    "presence": Method(calls.ChannelRequest, calls.PresenceResult, "read", Methods.presence),
    "presence_stats": Method(calls.ChannelRequest, calls.PresenceStatsResult, "read", Methods.presence_stats),
    "channels": Method(calls.ChannelsRequest, calls.ChannelsResult, "read", api_listing.channels),
    "rooms": Method(calls.RoomsRequest, calls.RoomsResult, "read", api_listing.rooms),
    "room_info": Method(calls.RoomInfoRequest, calls.RoomInfoResult, "read", api_moderating.room_info),
    "members": Method(calls.MembersRequest, calls.MembersResult, "read", api_listing.members),
    "users": Method(calls.UsersRequest, calls.UsersResult, "read", api_listing.users),
    "user_info": Method(calls.UserInfoRequest, calls.UserInfoResult, "read", api_listing.user_info),
    "unread": Method(calls.UnreadRequest, calls.UnreadResult, "read", Methods.unread),
    "info": Method(calls.InfoRequest, calls.InfoResult, "read", api_listing.info),
    "subscribe": Method(calls.SubscribeRequest, calls.Empty, "manage", everywhere("subscribe")),
    "unsubscribe": Method(calls.UnsubscribeRequest, calls.Empty, "manage", everywhere("unsubscribe")),
    "disconnect": Method(calls.DisconnectRequest, calls.Empty, "manage", everywhere("disconnect")),
    "refresh": Method(calls.RefreshRequest, calls.Empty, "manage", everywhere("refresh")),
    "history_remove": Method(calls.ChannelRequest, calls.Empty, "manage", Methods.history_remove),
    **{name: Method(request, calls.Empty, "moderate", api_moderating.ruling(name)) for name, request in _RULINGS},
    **{
        f"{name}_message": Method(request, calls.PublishResult, "moderate", api_moderating.acting(name))
        for name, request in _ACTIONS
    },
    "clear_user": Method(calls.ClearUserRequest, calls.PublishResult, "moderate", api_moderating.clear_user),
}
BATCH: Final = "batch"
EVERY: Final = (*METHODS, BATCH)

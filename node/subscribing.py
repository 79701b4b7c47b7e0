"""Commands about subscriptions: subscribe, unsubscribe, sub_refresh.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.auth import NO_GRANT, AuthError, ExpiredToken, KeysAwaited
from node.codes import CommandError, ErrorCode
from node.joining import Joining
from node.permissions import Origin, check_entrance, denied, require
from node.protocol import expiry
from router.ids import RoomId

if TYPE_CHECKING:
    from node.auth import Grant
    from node.protocol import ChannelRequest, SubRefreshRequest, SubscribeRequest
    from node.session import Session


def subscribe(session: Session, command_id: int, request: SubscribeRequest) -> None:
    """Command `subscribe`.

    Raises:
        CommandError: It is refused.
    """
    channel, identity, codec = request.channel, session.identity, session.transport.codec
    parts, kind = session.options.kinds.find(channel)
    if channel in session.subscriptions:
        raise CommandError(ErrorCode.ALREADY_SUBSCRIBED, f"to {channel!r}")
    limit = session.options.limits.subscriptions
    if len(session.subscriptions) >= limit:
        raise CommandError(ErrorCode.LIMIT_EXCEEDED, f"{limit} subscriptions are the most; unsubscribe from some")
    origin, grant = Origin.ASKED, NO_GRANT
    if request.token:
        origin, grant = Origin.TOKEN, _grant(session, request.token, channel)
    check_entrance(channel, parts, identity, origin)
    require(kind.subscribe, identity, origin, f"subscribing to {channel!r}")
    joining = Joining(session.gateway, identity.user, RoomId(identity.site, channel), kind, request, origin, grant)

    def answer() -> bytes:
        if why := session.authenticator.withdrawn(identity, grant):  # while the room was opened
            raise denied(why)
        return codec.subscribed(command_id, joining.result(codec))

    session.enter("subscribe", command_id, [joining], answer)


def unsubscribe(session: Session, command_id: int, request: ChannelRequest) -> None:
    """Command `unsubscribe`; nothing happens if there is no subscription, so that a retry is harmless."""
    session.leave(request.channel)
    session.transport.send(session.transport.codec.empty(command_id, "unsubscribe"))


def sub_refresh(session: Session, command_id: int, request: SubRefreshRequest) -> None:
    """Command `sub_refresh`: a new token for the same subscription.

    Raises:
        CommandError: It is refused; the subscription goes on until the old token's end.
    """
    subscription = session.subscriptions.get(request.channel)
    if subscription is None:
        raise denied(f"there is no subscription to {request.channel!r}")
    if not request.token:
        raise CommandError(ErrorCode.BAD_REQUEST, "sub_refresh needs a token")
    grant = _grant(session, request.token, request.channel)
    session.hold(subscription, grant)
    session.transport.send(session.transport.codec.expiry(command_id, "sub_refresh", expiry(grant.ttl)))


def _grant(session: Session, token: str, channel: str) -> Grant:
    try:
        return session.authenticator.subscription(token, session.identity, session.client, channel)
    except ExpiredToken as error:
        raise CommandError(ErrorCode.TOKEN_EXPIRED, str(error)) from error
    except KeysAwaited as error:
        raise CommandError(ErrorCode.INTERNAL, str(error)) from error
    except AuthError as error:
        raise denied(str(error)) from error

"""Commands about the connection itself: connect, refresh.  Sans-I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from node.auth import NO_GRANT, AuthError, ExpiredToken, ForeignPage, KeysAwaited, RevokedToken
from node.codes import CommandError, Disconnect, DisconnectCode, ErrorCode
from node.joining import Joining
from node.origins import NOWHERE, Arrival
from node.permissions import Origin
from node.protocol import ConnectResult, SubscribeRequest, expiry
from router.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.auth import Identity
    from node.protocol import ConnectRequest, RefreshRequest
    from node.session import Session


class _ConnectData(msgspec.Struct):
    guest: str = ""


def connect(session: Session, command_id: int, request: ConnectRequest) -> None:
    """Command `connect`: who is it, and which rooms does the server subscribe it to.

    Raises:
        CommandError: The client may come again, with a new token or later.
        Disconnect: It may not.
    """
    session.admit(_identify(session, request.token, _guest_proof(bytes(request.data)), session.arrival))
    session.arrival = NOWHERE
    joinings = _server_joinings(session, request)
    session.enter("connect", command_id, joinings, lambda: _answer(session, command_id, joinings))


def refresh(session: Session, command_id: int, request: RefreshRequest) -> None:
    """Command `refresh`: a new token for the same user.

    Raises:
        CommandError: 109, the token has expired already.
        Disconnect: It is bad, or another user's.
    """
    if not request.token:
        raise Disconnect(DisconnectCode.BAD_REQUEST, "refresh needs a token")
    old = session.identity
    fresh = _identify(session, request.token, old.proof, Arrival(old.site))
    if (fresh.site, fresh.user) != (old.site, old.user):
        raise Disconnect(DisconnectCode.INVALID_TOKEN, f"it is for {fresh.user!r}, this connection is {old.user!r}'s")
    session.identity = replace(old, token_id=fresh.token_id, issued=fresh.issued, role=fresh.role)
    session.gateway.reconsider(session)
    session.expire_in(fresh.ttl)
    session.transport.send(session.transport.codec.expiry(command_id, "refresh", expiry(fresh.ttl)))


def _identify(session: Session, token: str, proof: str, came: Arrival) -> Identity:
    refused = session.gateway.counters.tokens_refused
    try:
        return session.authenticator.connection(token, proof, came)
    except ExpiredToken as error:
        refused["expired"] += 1
        raise CommandError(ErrorCode.TOKEN_EXPIRED, str(error)) from error
    except KeysAwaited as error:
        refused["awaited"] += 1
        raise CommandError(ErrorCode.INTERNAL, str(error)) from error
    except ForeignPage as error:
        refused["page"] += 1
        raise Disconnect(DisconnectCode.PERMISSION_DENIED, str(error)) from error
    except RevokedToken as error:
        refused["revoked"] += 1
        raise Disconnect(DisconnectCode.INVALID_TOKEN, str(error)) from error
    except AuthError as error:
        refused["invalid"] += 1
        raise Disconnect(DisconnectCode.INVALID_TOKEN, str(error)) from error


def _guest_proof(data: bytes) -> str:
    """The guest id that a client shows in its connect data, which may be anything."""
    try:
        return msgspec.json.decode(data, type=_ConnectData).guest if data else ""
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _who(identity: Identity) -> dict[str, str]:
    """What a client is told about itself; `guest` is what it shows at the next connect to be the same guest."""
    who = {"user": identity.user}
    if identity.role:
        who["role"] = identity.role
    if identity.guest:
        who["guest"] = identity.proof
    return who


def _server_joinings(session: Session, request: ConnectRequest) -> list[Joining]:
    options, identity = session.options, session.identity
    grants = dict(identity.subscriptions)
    if options.personal_channel:
        grants.setdefault(f"#{identity.user}", NO_GRANT)
    if len(grants) > options.limits.subscriptions:
        limit = options.limits.subscriptions
        raise Disconnect(DisconnectCode.CHANNEL_LIMIT, f"the token names {len(grants)} channels, {limit} are the most")
    joinings = []
    for channel, grant in grants.items():
        _, kind = options.kinds.find(channel)
        asked = request.subs.get(channel, SubscribeRequest())
        room = RoomId(identity.site, channel)
        joining = Joining(session.gateway, identity.user, room, kind, asked, Origin.SERVER, grant)
        joining.optional = True
        joinings.append(joining)
    return joinings


def _answer(session: Session, command_id: int, joinings: Sequence[Joining]) -> bytes:
    codec, gateway, identity = session.transport.codec, session.gateway, session.identity
    result = ConnectResult(
        client=session.client,
        version=gateway.version,
        ping=session.options.keepalive.ping_seconds,
        pong=True,
        session=session.authenticator.session_id(session.client),
        node=gateway.node,
        subs={joining.room_id.channel: joining.result(codec) for joining in joinings if not joining.barred},
    )
    if identity.ttl is not None:
        result.expires, result.ttl = True, identity.ttl
    result.data = msgspec.Raw(msgspec.json.encode(_who(identity)))
    session.connected()
    return codec.connected(command_id, result)

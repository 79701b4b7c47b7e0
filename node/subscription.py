"""A client's place in a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.codes import DisconnectCode, UnsubscribeCode
from node.permissions import Origin, allows

if TYPE_CHECKING:
    from node.joining import Joining
    from node.seams import Room, Transport
    from node.session import Session


class Subscription:
    """A client's place in a room; a `seams.Member`.

    Attributes:
        session: Whose.
        room: Where.
        origin: How it came about.
        info: ClientInfo as JSON.
        wants_joins: Whether the client is told of joins and leaves.
        delta: Whether the client is given quoted data, and differences.
        may_publish: Whether the client may publish here.
        grant: What a token says of it.
        expires_at: Monotonic seconds of its end, refresh and grace considered; None: it does not expire.
    """

    __slots__ = ("delta", "expires_at", "grant", "info", "may_publish", "origin", "room", "session", "wants_joins")

    def __init__(self, session: Session, room: Room, joining: Joining, info: bytes) -> None:
        self.session, self.room, self.origin, self.info = session, room, joining.origin, info
        self.wants_joins, self.delta = joining.wants_joins, joining.delta
        self.may_publish = allows(room.kind.publish, session.identity, joining.origin)
        self.grant = joining.grant
        self.expires_at: float | None = None

    @property
    def transport(self) -> Transport:
        """See `seams.Member`."""
        return self.session.transport

    @property
    def client(self) -> str:
        """See `seams.Member`."""
        return self.session.client

    @property
    def user(self) -> str:
        """See `seams.Member`."""
        return self.session.identity.user

    def lose(self) -> None:
        """See `seams.Member`."""
        if self.origin is Origin.SERVER:
            self.session.disconnect(DisconnectCode.INSUFFICIENT_STATE)
        else:
            self.session.unsubscribe(self.room.id.channel, UnsubscribeCode.INSUFFICIENT_STATE)

    def expire(self) -> None:
        """Its time is up."""
        if self.origin is Origin.SERVER:
            self.session.disconnect(DisconnectCode.SUBSCRIPTION_EXPIRED)
        else:
            self.session.unsubscribe(self.room.id.channel, UnsubscribeCode.EXPIRED)

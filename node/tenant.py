"""What of one site is connected to this node: found by name, counted as it comes and goes.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from node.chat_rules import MODERATING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.seams import Room, User

R = TypeVar("R", bound="Room")
_NONE: Final[Mapping[str, User]] = {}


class Tenant(Generic[R]):
    """The connections and rooms of one site here.

    Attributes:
        users: Connections by user and client id; a user without connections is not in it.
        rooms: Rooms with members, by channel.
        moderators: Connections of those whose tokens say that they moderate, by client id.
        connections: How many there are.
        subscriptions: How many there are in all rooms.
    """

    __slots__ = ("connections", "moderators", "rooms", "subscriptions", "users")

    def __init__(self) -> None:
        self.users: dict[str, dict[str, User]] = {}
        self.rooms: dict[str, R] = {}
        self.moderators: dict[str, User] = {}
        self.connections = self.subscriptions = 0

    @property
    def vacant(self) -> bool:
        """Whether nothing of the site is here."""
        return not self.users and not self.rooms

    def of(self, user: str) -> Mapping[str, User]:
        """A user's connections by client id."""
        return self.users.get(user, _NONE)

    def connect(self, user: User) -> None:
        """Count a connection in."""
        self.users.setdefault(user.user, {})[user.client] = user
        self.connections += 1
        self.reconsider(user)

    def reconsider(self, user: User) -> None:
        """A connection's role may have changed."""
        if user.identity.role in MODERATING:
            self.moderators[user.client] = user
        else:
            self.moderators.pop(user.client, None)

    def disconnect(self, user: User) -> bool:
        """Count a connection out; False if it was not there."""
        connections = self.users.get(user.user)
        if connections is None or connections.pop(user.client, None) is None:
            return False
        if not connections:
            del self.users[user.user]
        self.connections -= 1
        self.moderators.pop(user.client, None)
        return True

    def enter(self, room: R) -> None:
        """Count a subscription in."""
        self.rooms[room.id.channel] = room
        self.subscriptions += 1

    def leave(self, room: R) -> None:
        """Count a subscription out; the room is let go with its last member."""
        self.subscriptions -= 1
        if not room.members:
            del self.rooms[room.id.channel]

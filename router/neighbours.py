"""A node's membership over its link: what the core wants done is done, and what it learned is handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from router.channels import Channel
from router.errors import CorruptEntry
from router.membership_events import Changed, Connect, Disconnect, Heard, Send
from router.membership_wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from router.link import Link, Received
    from router.membership import Membership, Pulse
    from router.membership_events import MembershipEffect

Word: TypeAlias = Changed | Heard


class Neighbours:
    """Performs what a membership wants of the link; whoever owns the link calls it, and is told the rest.

    Args:
        membership: Of this node.
        link: Of this node.

    Attributes:
        membership: For what is so: who is up, who may be given shards.
        corrupt: Messages that could not be read.
        unsent: Heartbeats and farewells that the link did not take.
    """

    __slots__ = ("_link", "corrupt", "membership", "unsent")

    def __init__(self, membership: Membership, link: Link) -> None:
        self.membership, self._link = membership, link
        self.corrupt = self.unsent = 0

    def receive(self, received: Received, now: int) -> list[Word]:
        """A message of a node: on another channel it is a sign of life, and all else about it is the caller's."""
        if received.channel is not Channel.MEMBERSHIP:
            self.membership.sign_of_life(received.node, received.boot, now)
            return []
        try:
            message = decode(received.body)
        except CorruptEntry:
            self.corrupt += 1
            return []
        return self._perform(self.membership.receive(received.node, message, now))

    def tick(self, now: int, pulse: Pulse) -> list[Word]:
        """Time passes; see `Membership.tick`."""
        return self._perform(self.membership.tick(now, pulse))

    def allow(self, now: int) -> list[Word]:
        """Who may join has changed; the link is to know of it already."""
        return self._perform(self.membership.allow(now))

    def leave(self, now: int) -> list[Word]:
        """This node goes: tell all."""
        return self._perform(self.membership.leave(now))

    def _perform(self, effects: Iterable[MembershipEffect]) -> list[Word]:
        words: list[Word] = []
        for effect in effects:
            match effect:
                case Send(node, message):
                    self.unsent += not self._link.send(node, Channel.MEMBERSHIP, encode(message))
                case Connect(node, address, key):
                    self._link.connect(node, address, key)
                case Disconnect(node):
                    self._link.disconnect(node)
                case Changed() | Heard():
                    words.append(effect)
        return words

"""What is to be sent and not lost: each message goes out, under one id, until its outcome is definite.  Sans-I/O.

Of each room one message at a time is under way, so that their order is that of the calls whatever fails in between: a
message that has to be repeated is never overtaken by the next. Rooms don't wait for each other.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from node.client_faults import ClientFault, NotSent, OutboxFull, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

UNDER_WAY: Final = 64  # messages in as many rooms; a node takes 256 commands before it stops reading


class Stage(Enum):
    """Where a message is on its way."""

    WAITING = "waits for its turn"
    UNDER_WAY = "sent, not answered yet"
    SETTLED = "its outcome is known, or nobody waits for it"


class Outgoing:
    """A message on its way.

    Args:
        channel: The room.
        method: Of the rpc.
        params: Of the rpc, with `id` and `channel`.
        deadline: Monotonic seconds; then the sender is told that it failed.
        done: Called once, with the answer or a fault.

    Attributes:
        stage: See `Stage`.
        tried: Whether it may have reached the node.
        attempts: How often it was refused for the moment.
        not_before: When it may be sent again.
    """

    __slots__ = ("attempts", "channel", "deadline", "done", "method", "not_before", "params", "stage", "tried")

    def __init__(
        self, channel: str, method: str, params: Mapping[str, Any], deadline: float,
        done: Callable[[Any | ClientFault], None],
    ) -> None:  # fmt: skip
        self.channel, self.method, self.params, self.deadline, self.done = channel, method, params, deadline, done
        self.stage = Stage.WAITING
        self.tried = False
        self.attempts = 0
        self.not_before = 0.0


class Outbox:
    """Messages on their way, by room and in order.

    Args:
        most: Messages in all; beyond it none is taken.
    """

    __slots__ = ("_count", "_most", "_rooms", "_under_way")

    def __init__(self, most: int) -> None:
        self._most = most
        self._rooms: dict[str, deque[Outgoing]] = {}
        self._count = self._under_way = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Outgoing) -> None:
        """Take a message.

        Raises:
            OutboxFull: There are too many.
        """
        if self._count >= self._most:
            raise OutboxFull(f"{self._count} messages wait to be sent, which is the most; wait for some of them")
        self._rooms.setdefault(item.channel, deque()).append(item)
        self._count += 1

    def start(self, now: float) -> Iterator[Outgoing]:
        """The messages that may be sent now; each is under way from then on."""
        for room in list(self._rooms.values()):
            if self._under_way >= UNDER_WAY:
                return
            item = room[0]
            if item.stage is Stage.WAITING and item.not_before <= now:
                item.stage, item.tried = Stage.UNDER_WAY, True
                self._under_way += 1
                yield item

    def settle(self, item: Outgoing, outcome: object) -> None:
        """The answer is there, or a fault; nothing happens if there was one before."""
        if item.stage is not Stage.SETTLED:
            self._remove(item)
            item.done(outcome)

    def repeat(self, item: Outgoing, not_before: float) -> None:
        """It has no outcome: send it again."""
        if item.stage is Stage.UNDER_WAY:
            self._under_way -= 1
            item.stage, item.not_before = Stage.WAITING, not_before

    def withdraw(self, item: Outgoing) -> None:
        """Nobody waits for its outcome any more: it is not sent (again)."""
        if item.stage is not Stage.SETTLED:
            self._remove(item)

    def expire(self, now: float) -> None:
        """Settle what is beyond its deadline."""
        for item in [item for room in self._rooms.values() for item in room if item.deadline <= now]:
            self.settle(item, late(item))

    def fail(self, fault: ClientFault) -> None:
        """Nothing can be sent any more: settle everything."""
        for item in [item for room in self._rooms.values() for item in room]:
            unknown = OutcomeUnknown(item.params.get("id", ""), str(fault))
            self.settle(item, unknown if item.tried else fault)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; None: nothing is here."""
        return min((item.deadline for room in self._rooms.values() for item in room), default=None)

    def next_start(self) -> float | None:
        """When `start` has something to do; None: not before something else happens."""
        if self._under_way >= UNDER_WAY:
            return None
        rooms = self._rooms.values()
        return min((room[0].not_before for room in rooms if room[0].stage is Stage.WAITING), default=None)

    def _remove(self, item: Outgoing) -> None:
        if item.stage is Stage.UNDER_WAY:
            self._under_way -= 1
        item.stage = Stage.SETTLED
        room = self._rooms[item.channel]
        room.remove(item)
        self._count -= 1
        if not room:
            del self._rooms[item.channel]


def late(item: Outgoing) -> ClientFault:
    """What the sender is told of a message whose time is up."""
    message_id = item.params.get("id", "")
    if item.tried:
        return OutcomeUnknown(message_id, f"{item.method} to {item.channel!r} was not answered in time")
    return NotSent(f"{item.method} to {item.channel!r} found no connection in time; nothing was sent")

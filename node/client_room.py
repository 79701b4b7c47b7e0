"""A subscription: what was given of a room, and what is still to be had.  Sans-I/O.

Everything with an offset is given once, in order and without a hole, or a `Gap` says plainly that something can't be
had. There is one rule for all that goes wrong: what does not follow the position is not taken, and what follows the
position is read from the room's history until the room's head is reached. So it is after a connection that was lost for
too long to be recovered, after a hole in what was pushed, and when the user of the subscription does not keep up:
then the queue stays as it is, and the rest is read when half of it has been taken.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from node.client_events import Event, Gap, Joined, Left, Position, Publication
from node.client_faults import ClientFault, SubscriptionEnded

if TYPE_CHECKING:
    from node.client_wire import HistoryReply, Member, SubscribeReply, WirePublication

PAGE_ENTRIES: Final = 100  # of one read of history: with messages of the usual size far below a node's bounds


class Stage(Enum):
    """Where a subscription is in its life."""

    IDLE = "to be subscribed"
    TOKEN = "waits for a subscription token"  # noqa: S105 - a description, no secret
    SUBSCRIBING = "subscribe has been sent"
    LIVE = "takes what is pushed"
    BEHIND = "to be filled from history"
    READING = "history has been asked for"
    FULL = "the queue is full; filled from history when half of it is taken"
    ENDED = "ended"


class RoomCursor:
    """A subscription to a room.

    Args:
        channel: The room.
        since: Where to begin; None: with what comes from now on.
        most_queued: Events that wait for the user of the subscription.
        needs_token: Whether to show a subscription token.
        join_leave: Whether to ask for joins and leaves.

    Attributes:
        stage: See `Stage`.
        position: The last thing put into the queue; None: not subscribed yet.
        head: The room's newest offset, as far as known.
        queue: What waits to be taken; use `take`.
        dropped: Ephemeral events (typing, read, joined, left) that found the queue full.
        token: To show with the next subscribe.
        by_server: The node itself subscribed this client.
        not_before: Monotonic seconds before which nothing is asked for.
        attempts: Refusals for the moment, in a row.
        refresh_at: When a new token is due.
        fault: Why it has ended; None: its user ended it, or it goes on.
    """

    __slots__ = (
        "_most", "attempts", "by_server", "channel", "dropped", "fault", "head", "join_leave", "needs_token",
        "not_before", "position", "queue", "refresh_at", "stage", "token",
    )  # fmt: skip

    def __init__(
        self, channel: str, since: Position | None, most_queued: int, *, needs_token: bool, join_leave: bool
    ) -> None:
        self.channel, self.position, self._most = channel, since, most_queued
        self.needs_token, self.join_leave = needs_token, join_leave
        self.stage = Stage.IDLE
        self.head = since.offset if since is not None else 0
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.token = ""
        self.by_server = False
        self.not_before = 0.0
        self.attempts = 0
        self.refresh_at: float | None = None
        self.fault: ClientFault | None = None

    @property
    def is_subscribed(self) -> bool:
        """Whether the node has it as a subscription of the present connection."""
        return self.stage in {Stage.LIVE, Stage.BEHIND, Stage.READING, Stage.FULL}

    @property
    def lacks_token(self) -> bool:
        """Whether a token has to be had before it can be subscribed."""
        return self.needs_token and not self.token

    # -- what it asks for ----------------------------------------------------------------------------------------

    def request(self) -> dict[str, Any]:
        """The body of `subscribe`; the stage is SUBSCRIBING from then on."""
        self.stage = Stage.SUBSCRIBING
        body: dict[str, Any] = {"channel": self.channel, "recoverable": True, "positioned": True}
        if self.token:
            body["token"] = self.token
        if self.join_leave:
            body["join_leave"] = True
        if self.position is not None:
            body |= {"recover": True, "epoch": self.position.epoch, "offset": self.position.offset}
        return body

    def history_request(self) -> dict[str, Any]:
        """The body of `history` for what is missing; the stage is READING from then on."""
        self.stage = Stage.READING
        position = self._reached
        since = {"epoch": position.epoch, "offset": position.offset}
        return {"channel": self.channel, "limit": max(1, min(PAGE_ENTRIES, self._free)), "since": since}

    # -- what comes ----------------------------------------------------------------------------------------------

    def subscribed(self, reply: SubscribeReply) -> None:
        """The node has admitted it."""
        self.attempts, self.not_before = 0, 0.0
        now = Position(reply.epoch, reply.offset)
        if self.position is None:
            self.position, self.head = now, reply.offset
        elif self.position.epoch not in {"", reply.epoch}:
            self._lose(now, "the room was reset")
        else:
            self.position = Position(reply.epoch, self.position.offset)
            if not reply.recovered and reply.offset < self.position.offset:
                self._lose(now, f"the room has only {reply.offset} entries")
            self.head = max(reply.offset, self.position.offset)
        self.stage = Stage.LIVE
        for publication in reply.publications:
            self.published(publication)
        self._settle()

    def published(self, item: WirePublication) -> None:
        """A publication was pushed, or came with the answer to subscribe."""
        if not item.offset:
            self._offer(Publication(self.channel, 0, item.data, item.info))
        elif self.is_subscribed:
            self.head = max(self.head, item.offset)
            if self.stage is Stage.LIVE:
                self._append(item)
                self._settle()

    def came(self, member: Member) -> None:
        """Somebody joined."""
        self._offer(Joined(self.channel, member.info))

    def went(self, member: Member) -> None:
        """Somebody left."""
        self._offer(Left(self.channel, member.info))

    def read(self, page: HistoryReply) -> None:
        """A page of history came, asked for by `history_request`."""
        if self.stage is not Stage.READING:
            return
        self.attempts, self.not_before = 0, 0.0
        before = self._reached
        if page.epoch != before.epoch:
            self._lose(Position(page.epoch, page.offset), "the room was reset")
        self.head = max(self.head, page.offset)
        for item in page.publications:
            if item.offset > self._reached.offset + 1 and self._free > 0:
                self._lose(Position(page.epoch, item.offset - 1), "the room does not keep these entries any more")
            if not self._append(item):
                break
        if self._reached == before and before.offset < page.offset:
            self._lose(Position(page.epoch, page.offset), "the room does not keep these entries any more")
        if self._reached.offset >= page.offset:
            self.head = self._reached.offset  # what was pushed before this answer is part of it
        self.stage = Stage.LIVE
        self._settle()

    def unreadable(self, reason: str) -> None:
        """History is refused for good: what is missing can't be had."""
        if self.stage is Stage.READING:
            self._lose(Position(self._reached.epoch, self.head), reason)
            self.stage = Stage.LIVE

    def lost(self) -> None:
        """The connection, or the subscription for the moment, is gone."""
        if self.stage is not Stage.ENDED:
            self.stage = Stage.IDLE
            self.refresh_at = None

    def postpone(self, not_before: float) -> None:
        """What was asked for was refused for the moment."""
        if self.stage is Stage.ENDED:
            return
        self.attempts += 1
        self.not_before = not_before
        self.stage = Stage.BEHIND if self.stage is Stage.READING else Stage.IDLE

    def end(self, fault: ClientFault | None) -> None:
        """It is over; what is queued can still be taken."""
        if self.stage is not Stage.ENDED:
            self.stage, self.fault = Stage.ENDED, fault

    def refuse(self, code: int, reason: str) -> None:
        """The node does not admit it, or ended it for good."""
        self.end(SubscriptionEnded(self.channel, code, reason))

    # -- what is taken -------------------------------------------------------------------------------------------

    def take(self) -> Event | None:
        """The next event; None: there is none now."""
        if not self.queue:
            return None
        event = self.queue.popleft()
        if self.stage is Stage.FULL and len(self.queue) <= self._most // 2:
            self.stage = Stage.BEHIND
        return event

    # -- order ---------------------------------------------------------------------------------------------------

    @property
    def _reached(self) -> Position:
        if self.position is None:
            raise ValueError(f"{self.channel} has no position yet")
        return self.position

    @property
    def _free(self) -> int:
        return self._most - len(self.queue)

    def _append(self, item: WirePublication) -> bool:
        """Queue what follows the position; False: the queue is full. Anything else is not taken."""
        position = self._reached
        if item.offset != position.offset + 1:
            return True
        if self._free <= 0:
            return False
        self.queue.append(Publication(self.channel, item.offset, item.data, item.info))
        self.position = Position(position.epoch, item.offset)
        return True

    def _settle(self) -> None:
        """Choose the stage by how far the position is from the head."""
        if self._reached.offset >= self.head:
            self.stage = Stage.LIVE
        else:
            self.stage = Stage.BEHIND if self._free > 0 else Stage.FULL

    def _lose(self, until: Position, reason: str) -> None:
        """What stands between the position and another can't be had."""
        after, self.position = self._reached, until
        self.head = max(self.head, until.offset) if after.epoch == until.epoch else until.offset
        last = self.queue[-1] if self.queue else None
        if isinstance(last, Gap):  # so that gaps alone can't fill the queue
            self.queue.pop()
            after = last.after
        self.queue.append(Gap(self.channel, after, until, reason))

    def _offer(self, event: Event) -> None:
        if self.stage is Stage.ENDED:
            return
        if self._free > 0:
            self.queue.append(event)
        else:
            self.dropped += 1

"""An edge's submits: one queue for each room, in order, sent again to whoever is primary until answered.  Sans-I/O.

A retry has the same id as the first try (what a client gave no id has one of the edge's), so the shard makes the entry
once. In a queue's session nothing overtakes anything (`router/serving_order.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from router.edge_ground import AGAIN
from router.edge_link import Numbered
from router.entry import Entry
from router.events import Away, Duplicate, Refusal
from router.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.edge_ground import Ground
    from router.events import Outcome, Submit
    from router.ids import RoomId, ShardId


class _Pending:
    """A submit without an outcome; `why` is why there was none so far."""

    __slots__ = ("cmid", "deadline", "queue", "request", "sent", "session", "submit", "why")

    def __init__(self, request: int, submit: Submit, cmid: str, deadline: int, queue: _Queue) -> None:
        self.request, self.submit, self.cmid, self.deadline, self.queue = request, submit, cmid, deadline, queue
        self.session = self.sent = -1
        self.why = Away.UNREACHABLE


class _Queue:
    """The submits of a room; `node` is None while they wait for `retry_at`."""

    __slots__ = ("attempt", "node", "number", "pending", "retry_at", "room", "session")

    def __init__(self, room: RoomId) -> None:
        self.room = room
        self.node: str | None = None
        self.session = self.number = -1
        self.attempt = self.retry_at = 0
        self.pending: dict[int, _Pending] = {}


class Submits:
    """All queues of an edge.

    Args:
        ground: Of the edge.
        boot: Of this process; no other has it.
        landed: Takes an entry that was made, the generation of its room, who waits for it, and until when.
        repeated: Takes the room of an entry that was made before, where, who waits, and until when.
    """

    def __init__(
        self, ground: Ground, boot: str, landed: Callable[[Entry, int, Callable[[Any], None], int], None],
        repeated: Callable[[RoomId, Duplicate, Callable[[Any], None], int], None],
    ) -> None:  # fmt: skip
        self._ground, self._boot, self._landed, self._repeated = ground, boot, landed, repeated
        self._queues: dict[RoomId, _Queue] = {}
        self._pending: dict[int, _Pending] = {}
        self.timers: Timers[_Queue] = Timers()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, submit: Submit) -> None:
        """Take a message; its outcome is an answer of the effects, at the deadline at the latest."""
        ground = self._ground
        if len(self._pending) >= ground.options.max_requests:
            ground.answer(submit.done, Away.OVERLOADED)
            return
        queue = self._queues.get(submit.room)
        if queue is None:
            queue = self._queues[submit.room] = _Queue(submit.room)
        request = ground.number()
        cmid = submit.cmid or f"{self._boot}.{request}"
        pending = _Pending(request, submit, cmid, ground.now + ground.options.deadline, queue)
        self._pending[request] = queue.pending[request] = pending
        if queue.session < 0:
            self._start(queue)
        elif queue.node is not None:
            self._send(queue, queue.node, pending)
        if len(queue.pending) == 1:
            self._plan(queue)

    def settle(self, request: int, session: int, outcome: Outcome, generation: int = 0) -> None:
        """An answer came; `session` is the one that a refusal is of, `generation` the room's of an entry."""
        pending = self._pending.get(request)
        if pending is None or (isinstance(outcome, Refusal) and session != pending.session):
            return  # of another session: it may be accepted in this one
        if isinstance(outcome, Away) and outcome in AGAIN:
            pending.why = outcome
            self.put_off(request)
            return
        self._remove(pending)
        pending.queue.attempt = 0
        if isinstance(outcome, Entry):
            self._landed(outcome, generation, pending.submit.done, pending.deadline)
        elif isinstance(outcome, Duplicate):
            self._repeated(pending.submit.room, outcome, pending.submit.done, pending.deadline)
        else:
            self._ground.answer(pending.submit.done, outcome)

    def put_off(self, request: int) -> None:
        """The node that this was sent to is not the room's primary."""
        pending = self._pending.get(request)
        if pending is None:
            return
        queue = pending.queue
        if queue.node is not None and pending.session == queue.session:
            self._pause(queue)

    def restart(self, room: RoomId, session: int) -> None:
        """Something of this session did not arrive."""
        queue = self._queues.get(room)
        if queue is not None and queue.node is not None and queue.session == session:
            queue.node = None
            queue.retry_at = self._ground.now + self._ground.jitter()
            self._plan(queue)

    def relocated(self, shard: ShardId) -> None:
        """A shard has another primary, or its primary has begun anew."""
        for queue in list(self._queues.values()):
            if self._ground.locate(queue.room).shard != shard:
                continue
            if not queue.pending:
                self.timers.cancel(queue)
                del self._queues[queue.room]
                continue
            queue.attempt = 0
            self._start(queue)
            self._plan(queue)

    def tick(self) -> None:
        """Time has passed."""
        ground = self._ground
        while (queue := self.timers.pop(ground.now)) is not None:
            self._expire(queue)
            if not queue.pending:
                del self._queues[queue.room]
                continue
            if queue.node is None:
                if ground.now >= queue.retry_at:
                    self._start(queue)
            elif ground.now >= self._oldest(queue).sent + ground.options.attempt:
                queue.attempt += 1
                self._start(queue)
            self._plan(queue)

    def _remove(self, pending: _Pending) -> None:
        del self._pending[pending.request]
        del pending.queue.pending[pending.request]

    def _expire(self, queue: _Queue) -> None:
        while queue.pending and (oldest := self._oldest(queue)).deadline <= self._ground.now:
            self._remove(oldest)
            self._ground.answer(oldest.submit.done, oldest.why)

    @staticmethod
    def _oldest(queue: _Queue) -> _Pending:
        return next(iter(queue.pending.values()))

    def _pause(self, queue: _Queue) -> None:
        queue.attempt += 1
        queue.node = None
        queue.retry_at = self._ground.now + self._ground.backoff(queue.attempt)
        self._plan(queue)

    def _start(self, queue: _Queue) -> None:
        """Begin a session: all that waits is sent, in order."""
        ground = self._ground
        queue.node = ground.node_for(queue.room, queue.attempt)
        queue.session, queue.number = ground.number(), 0
        if queue.node is None:
            self._pause(queue)
            return
        for pending in queue.pending.values():
            self._send(queue, queue.node, pending)

    def _send(self, queue: _Queue, node: str, pending: _Pending) -> None:
        ground = self._ground
        pending.session, pending.sent = queue.session, ground.now
        number, queue.number = queue.number, queue.number + 1
        ground.primary(node).submit(
            Numbered(pending.request, ground.mapping(), queue.session, number, pending.cmid, pending.submit)
        )

    def _plan(self, queue: _Queue) -> None:
        if not queue.pending:
            return
        oldest = self._oldest(queue)
        due = queue.retry_at if queue.node is None else oldest.sent + self._ground.options.attempt
        self.timers.set(queue, min(due, oldest.deadline))

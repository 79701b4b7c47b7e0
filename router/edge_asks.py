"""What an edge asks a room's primary for a client: history and marks. Asked again until answered.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.edge_ground import AGAIN
from router.events import Away
from router.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.edge_ground import Ground
    from router.edge_wire import Entries, Fetch, Mark, Marked
    from router.ids import RoomId, ShardId


class _Ask:
    __slots__ = ("attempt", "deadline", "due", "made", "request", "room", "took", "why")

    def __init__(
        self, request: int, room: RoomId, made: Callable[[int, int], Fetch | Mark],
        took: Callable[[Entries | Marked | Away], None], deadline: int,
    ) -> None:  # fmt: skip
        self.request, self.room, self.made, self.took, self.deadline = request, room, made, took, deadline
        self.attempt = self.due = 0
        self.why = Away.UNREACHABLE


class Asks:
    """All such questions of an edge that are not answered."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._asks: dict[int, _Ask] = {}
        self.timers: Timers[_Ask] = Timers()

    def __len__(self) -> int:
        return len(self._asks)

    def add(
        self, room: RoomId, made: Callable[[int, int], Fetch | Mark], took: Callable[[Entries | Marked | Away], None]
    ) -> None:
        """Ask; `made` gives the message for a request and a mapping, `took` is called once, by the deadline."""
        ground = self._ground
        if len(self._asks) >= ground.options.max_requests:
            took(Away.OVERLOADED)
            return
        ask = _Ask(ground.number(), room, made, took, ground.now + ground.options.deadline)
        self._asks[ask.request] = ask
        self._send(ask)

    def settle(self, request: int, answer: Entries | Marked | Away) -> None:
        """An answer came."""
        ask = self._asks.get(request)
        if ask is None:
            return
        if isinstance(answer, Away) and answer in AGAIN:
            ask.why = answer
            self.put_off(request)
            return
        del self._asks[request]
        self.timers.cancel(ask)
        ask.took(answer)

    def put_off(self, request: int) -> None:
        """The node that was asked is not the room's primary."""
        ask = self._asks.get(request)
        if ask is not None:
            self._plan(ask, self._ground.backoff(ask.attempt))

    def relocated(self, shard: ShardId) -> None:
        """A shard has another primary, or its primary has begun anew."""
        for ask in list(self._asks.values()):
            if self._ground.locate(ask.room).shard == shard:
                ask.attempt = 0
                self._send(ask)

    def tick(self) -> None:
        """Time has passed."""
        while (ask := self.timers.pop(self._ground.now)) is not None:
            if self._ground.now >= ask.deadline:
                del self._asks[ask.request]
                ask.took(ask.why)
            else:
                ask.attempt += 1
                self._send(ask)

    def _send(self, ask: _Ask) -> None:
        ground = self._ground
        node = ground.node_for(ask.room, ask.attempt)
        if node is None:
            self._plan(ask, ground.options.retry_most)
            return
        self._plan(ask, ground.options.attempt)
        ground.primary(node).ask(ask.made(ask.request, ground.mapping()))

    def _plan(self, ask: _Ask, wait: int) -> None:
        self.timers.set(ask, min(self._ground.now + wait, ask.deadline))

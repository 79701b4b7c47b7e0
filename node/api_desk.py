"""Operations on their way from the HTTP tasks to the hub's task, which owns all that they read and change.

An HTTP task lays an operation on the desk and rings; the hub's task carries some out in each of its turns, and answers
each in the same or a later turn. Both tasks are on one loop, so nothing is locked: between two checkpoints either side
has the queue for itself.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from node.logs import events

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MOST_PER_TURN: Final = 256  # about 5 ms of work, while others wait for their messages

log = events(__name__)


class Work(Protocol):
    """What the hub drives (see `node.hub.Work`)."""

    def turn(self) -> None:
        """Perform what came up in this turn."""

    def drain(self) -> None:
        """Fetch the answers that have come."""

    def distribute(self) -> None:
        """Hand what rooms have for their members to the connections."""


class Pending(Generic[T]):
    """The answer to one operation.

    Attributes:
        begun: Whether the hub's task has taken it up; if not, it never will once it is given up.
    """

    __slots__ = ("_answer", "_event", "_given_up", "begun")

    def __init__(self) -> None:
        self._answer: T | None = None
        self._event = trio.Event()
        self._given_up = self.begun = False

    def __call__(self, answer: T) -> None:
        """Give the answer; only the first counts."""
        if self._answer is None:
            self._answer = answer
            self._event.set()

    def begin(self) -> bool:
        """Whether somebody still waits; the hub's task asks before it starts."""
        self.begun = not self._given_up
        return self.begun

    async def wait(self, seconds: float) -> T | None:
        """The answer, or None if there is none in time; then it is given up."""
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._given_up = True
        return self._answer


class Desk:
    """A bounded queue of operations; the hub's work, with another's beside it.

    Args:
        work: Driven too: the gateway.
        limit: Operations that wait.
        ring: Makes the hub turn.
    """

    def __init__(self, work: Work, limit: int, ring: Callable[[], object]) -> None:
        self._work, self._limit, self._ring = work, limit, ring
        self._waiting: deque[Callable[[], None]] = deque()

    # -- for HTTP tasks ------------------------------------------------------------------------------------------

    def put(self, operation: Callable[[], None]) -> bool:
        """Have an operation carried out on the hub's task; False: too many wait."""
        if len(self._waiting) >= self._limit:
            return False
        self._waiting.append(operation)
        if len(self._waiting) == 1:
            self._ring()
        return True

    # -- for the hub's task --------------------------------------------------------------------------------------

    def turn(self) -> None:
        """See `Work`: some operations, then the work that they made."""
        waiting = self._waiting
        if waiting:
            for _ in range(min(len(waiting), MOST_PER_TURN)):
                operation = waiting.popleft()
                try:
                    operation()
                except Exception as error:  # noqa: BLE001 - the boundary: it ends this operation, not the node
                    log.fault("api operation failed", error)
            if waiting:
                self._ring()
        self._work.turn()

    def drain(self) -> None:
        """See `Work`."""
        self._work.drain()

    def distribute(self) -> None:
        """See `Work`."""
        self._work.distribute()

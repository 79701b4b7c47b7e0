"""Operations on their way from the HTTP tasks to the hub's task, which owns all that they read and change.

An HTTP task lays an operation on the desk and rings; the hub's task carries some out in each of its turns, and answers
each in the same or a later turn. What looks through thousands of things is cut into slices, of which a turn does few.
Both tasks are on one loop, so nothing is locked: between two checkpoints either side has the queue for itself.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from node.logs import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
Steps: TypeAlias = "Iterator[None] | None"  # slices of a long operation, each of well below a millisecond

MOST_PER_TURN: Final = 256  # operations of a turn
TURN_SECONDS: Final = 0.005  # for them, while others wait for their messages; one at least is done
SLICES_SECONDS: Final = 0.002  # for slices in one turn; at least one is done
TAKING_TURNS: Final = 8  # long operations under way, so that a short one need not wait for all; each holds a list

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

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self._given_up

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
        self._waiting: deque[Callable[[], Steps]] = deque()
        self._long: deque[Iterator[None]] = deque()

    # -- for HTTP tasks ------------------------------------------------------------------------------------------

    def put(self, operation: Callable[[], Steps]) -> bool:
        """Have an operation carried out on the hub's task; False: too many wait.

        If it returns an iterator, that is the rest of it: it is gone through in this and later turns.
        """
        if len(self._waiting) + len(self._long) >= self._limit:
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
            until = monotonic() + TURN_SECONDS
            for _ in range(min(len(waiting), MOST_PER_TURN)):
                try:
                    steps = waiting.popleft()()
                except Exception as error:  # noqa: BLE001 - the boundary: it ends this operation, not the node
                    log.fault("api operation failed", error)
                else:
                    if steps is not None:
                        self._long.append(steps)
                if monotonic() >= until:
                    break
        if self._long:
            self._go_on()
        if waiting or self._long:
            self._ring()
        self._work.turn()

    def _go_on(self) -> None:
        """Some slices of the first long operations, by turns."""
        until = monotonic() + SLICES_SECONDS
        while self._long:
            steps = self._long.popleft()
            try:
                next(steps)
            except StopIteration:
                pass
            except Exception as error:  # noqa: BLE001 - the boundary, as above
                log.fault("api operation failed", error)
            else:
                self._long.insert(TAKING_TURNS - 1, steps)
            if monotonic() >= until:
                break

    def go_through(self, steps: Iterator[None]) -> None:
        """Take the rest of an operation that has turned out long; on the hub's task."""
        self._long.append(steps)
        self._ring()

    def drain(self) -> None:
        """See `Work`."""
        self._work.drain()

    def distribute(self) -> None:
        """See `Work`."""
        self._work.distribute()

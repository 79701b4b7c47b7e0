"""How long the hub lets work gather before it turns again.  Sans-I/O.

A send costs the same for one message as for twenty, so turning less often makes every message cheaper and later. An
idle hub waits for nothing; as its core fills, the period between turns grows, and that alone lowers the load: it
settles at the shortest period with which the core still has room.
"""

from __future__ import annotations

from typing import Final

BUSY: Final = 0.75  # share of the core from which the period grows
CALM: Final = 0.55  # share below which it shrinks; the gap keeps it from swinging
SHORTEST: Final = 0.001  # seconds; the grain of timers, a shorter period is none
FULL: Final = 0.9  # share from which nothing is sent in between: there, it would cost turns
MEMORY: Final = 0.1  # seconds over which the load is averaged


class Pace:
    """Watches the load of the hub's task.

    Args:
        longest: Seconds; the period never passes it.

    Attributes:
        load: Share of time spent working, averaged over `MEMORY`.
        period: Seconds from the start of one turn to the next; 0: turn at once.
    """

    __slots__ = ("load", "longest", "period")

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.load = 0.0
        self.period = 0.0

    @property
    def full(self) -> bool:
        """Whether the core has no room for sends between two turns."""
        return self.load > FULL

    def rest(self, busy: float, passed: float) -> float:
        """Seconds to let work gather now.

        Args:
            busy: Seconds that the turn just ended took.
            passed: Seconds from the end of the turn before it to its own end.
        """
        share = min(1.0, busy / passed) if passed > 0 else 1.0
        self.load += (share - self.load) * min(1.0, passed / MEMORY)
        if self.load > BUSY:
            self.period = min(self.longest, max(SHORTEST, self.period * 1.2))
        elif self.load < CALM:
            self.period = self.period * 0.9 if self.period > SHORTEST else 0.0
        return max(0.0, self.period - busy)

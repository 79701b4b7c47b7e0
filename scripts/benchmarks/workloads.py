"""What is asked of every server, and how long each part may take."""

from dataclasses import dataclass

PAYLOAD_BYTES = 100
P99_LIMIT_MS = 100
"""A rate holds when the p99 from due to delivered is below this and nothing is missing."""

IDLE_RATE = 10
"""Messages a second at which a server counts as idle."""

UNBATCHED_RATE = 20
"""Messages a second into a room of 1,000: 50 ms apart, so that no server finds two to join."""

NAP_US = 100
"""How long wsload lets events gather; the send floor's receiver does the same."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Connections, the rooms they are spread over, how many of them publish, and wsload's mode."""

    connections: int
    rooms: int
    publishers: int
    mode: str = "fanout"

    def options(self, scale: "Scale") -> list[str]:
        """The shape as options of wsload, at this scale."""
        rooms = max(1, self.rooms // scale.divisor) if self.rooms > 1 else 1
        connections = self.connections // scale.divisor
        return ["-n", str(connections), "-r", str(rooms), "-p", str(min(self.publishers, connections))]


SHAPES = {
    "fan1": Shape(1000, 1, 10),
    "fan100": Shape(1000, 100, 100),
    "ingest": Shape(1000, 500, 1000, mode="ingest"),
    "idle": Shape(10_000, 1000, 0),
    "connect": Shape(10_000, 1000, 0),
    "latency": Shape(1000, 100, 100),
    "unbatched": Shape(1000, 1, 1),
}
"""The shape of each test; its keys are the tests, in the order in which they are made."""

SEARCHES = ("fan1", "fan100", "ingest")
"""The tests that look for the highest rate; `latency` then runs at half of what they found."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how large: a benchmark, or a smoke run that only shows that everything works."""

    name: str
    divisor: int
    step_s: float
    search_s: float
    window_s: float
    warmup_s: float
    hold_s: float
    precision: float

    def search(self) -> list[str]:
        """Options of wsload for a search of the highest rate."""
        return [
            *("--step", str(self.step_s), "--budget", str(self.search_s), "--warmup", str(self.warmup_s)),
            *("--precision", str(self.precision), "--limit", str(P99_LIMIT_MS)),
        ]

    def window(self) -> list[str]:
        """Options of wsload for a window at a fixed rate."""
        return ["-d", str(self.window_s), "--warmup", str(self.warmup_s)]


FULL = Scale("full", divisor=1, step_s=2, search_s=34, window_s=8, warmup_s=1, hold_s=5, precision=0.06)
QUICK = Scale("quick", divisor=10, step_s=0.4, search_s=1.5, window_s=1, warmup_s=0.2, hold_s=0.3, precision=0.5)

CONNECT_SECONDS = 45
"""Time for 10,000 connections at a slow peer's 300 a second, and some more for the stragglers."""


def time_limit(scale: Scale) -> float:
    """Seconds after which a run of the generator is given up, whatever it does.

    A search ends within its budget and one step with the drain (10 s) after it.
    """
    return CONNECT_SECONDS + scale.search_s + scale.window_s + 4 * scale.step_s + 15

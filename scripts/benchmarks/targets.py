"""What one node is to reach. Printed beside the figures, never asserted: machines differ."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that a node must reach, and the one to aim at, as they are printed."""

    must: str
    aim: str = ""


TARGETS = {
    "fan1": Target("1,000,000", "Bun's"),
    "fan100": Target("200,000", "nats-server's"),
    "ingest": Target("20,000", "ws's"),
    "idle": Target("3.0", "1.5"),
    "connect": Target("5,000", "10,000"),
}
"""By test, in the unit of its column in the table."""

IDLE_P50_MS = 10
HALF_P99_MS = 50
LOOP_LAG_P99_MS = 20
UNBATCHED_RATIO = 1.3

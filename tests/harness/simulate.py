"""The command behind ``scripts/simulate``: runs of the simulated mesh, by seeds; one that fails replays exactly."""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.shard import ShardOptions
from tests.harness.simulated_mesh import Mesh, Weather
from tests.harness.simulated_storage import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

STORM: Final = Weather(repeat=0.5, cut=1.0, crash=0.1, stop=0.5, sync=300)
"""Primaries change often, and what was said long ago still arrives."""
WEATHERS: Final = {"rough": Weather(), "storm": STORM}
NEWEST_EVENTS: Final = 20  # shown of a run that failed


@dataclass(slots=True, frozen=True)
class Run:
    """One seed's: what happens in it follows from these.

    Attributes:
        seed: Of the generator that decides everything.
        seconds: Of faults, in virtual time; the calm that follows is not counted.
        weather: How bad it is.
        nodes: How many; 0: three to five, as the seed says.
    """

    seed: int
    seconds: int = 30
    weather: Weather = WEATHERS["rough"]
    nodes: int = 0

    def mesh(self) -> Mesh:
        """The nodes and their surroundings, at the beginning."""
        drawn = random.Random(self.seed)
        options = ShardOptions(copies=drawn.choice([2, 3]), min_sync=2)
        nodes, shards = drawn.choice([3, 4, 5]), drawn.choice([1, 2])
        return Mesh(drawn, nodes=self.nodes or nodes, options=options, shards=shards, weather=self.weather)

    def play(self, mesh: Mesh) -> None:
        """The faults.

        Raises:
            Violation: Something did not hold.
        """
        mesh.run(self.seconds * 1000)


def main(given: Sequence[str]) -> int:
    """Run seeds, and say what was seen; 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=int, default=30, help="of faults in each run, in virtual time")
    parser.add_argument("--nodes", type=int, default=0, help="in each run; 0: three to five")
    parser.add_argument("--weather", choices=sorted(WEATHERS), default="rough", help="how bad it is")
    asked = parser.parse_args(given)
    began = time.monotonic()
    steps = acknowledged = rows = failed = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        run = Run(seed, asked.seconds, WEATHERS[asked.weather], asked.nodes)
        mesh = run.mesh()
        try:
            run.play(mesh)
            mesh.calm()
        except Violation as violation:
            failed += 1
            say("\n    ".join([f"seed {seed}: {violation}", *mesh.tally.events[-NEWEST_EVENTS:]]))
            say(
                f"    again: scripts/simulate --seeds 1 --first {seed} --seconds {asked.seconds} --nodes {asked.nodes}"
                f" --weather {asked.weather}"
            )
        steps += mesh.tally.steps
        acknowledged += mesh.tally.acked
        rows += len(mesh.register.history)
    say(
        f"{asked.seeds} runs, {failed} of them with a violation: {steps:,} steps, {acknowledged:,} messages"
        f" acknowledged, {rows:,} configurations, {time.monotonic() - began:.0f} s"
    )
    return 1 if failed else 0


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

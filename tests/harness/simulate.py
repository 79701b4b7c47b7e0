"""The command behind ``scripts/simulate``: runs of the simulated mesh, by seeds; one that fails replays exactly."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.shard import ShardOptions
from tests.harness.simulated_mesh import Mesh
from tests.harness.simulated_scale import measure
from tests.harness.simulated_scenarios import SCENARIOS
from tests.harness.simulated_storage import Violation
from tests.harness.simulated_weather import ROUGH, STORM, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WEATHERS: Final = {"rough": ROUGH, "storm": STORM}
MANY_NODES: Final = 1000  # that are measured, unless told otherwise
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
    weather: Weather = ROUGH
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
    parser.add_argument("--seed", type=int, help="run only this one, and print what happens when")
    parser.add_argument("--seconds", type=int, default=30, help="of faults in each run, in virtual time")
    parser.add_argument("--nodes", type=int, default=0, help="in each run; 0: three to five")
    parser.add_argument("--shards", type=int, help="measure traffic and fail-over of --nodes nodes with so many shards")
    parser.add_argument("--weather", choices=sorted(WEATHERS), default="rough", help="how bad it is")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), help="a failure case, instead of all sorts of faults")
    asked = parser.parse_args(given)
    if asked.shards is not None:
        say(measure(asked.first, asked.nodes or MANY_NODES, asked.shards, asked.seconds).table())
        return 0
    return _Runs(asked).play()


class _Runs:
    """What was asked for, and what was seen."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.counts: Counter[str] = Counter()
        self.steps = self.acknowledged = self.rows = self.failed = 0

    def play(self) -> int:
        """All seeds."""
        asked, began = self.asked, time.monotonic()
        seeds = range(asked.first, asked.first + asked.seeds) if asked.seed is None else [asked.seed]
        for seed in seeds:
            self._one(seed)
        for name, times in sorted(self.counts.items()):
            say(f"{times:>9,}  {name}")
        say(
            f"{len(seeds)} runs, {self.failed} of them with a violation: {self.steps:,} steps,"
            f" {self.acknowledged:,} messages acknowledged, {self.rows:,} configurations,"
            f" {time.monotonic() - began:.0f} s"
        )
        return 1 if self.failed else 0

    def _prepare(self, seed: int) -> tuple[Mesh, Callable[[], None], str]:
        """A mesh, what is to happen to it, and how to ask for that again."""
        asked = self.asked
        if asked.scenario:
            scenario = SCENARIOS[asked.scenario]
            mesh = scenario.mesh(seed)
            return mesh, lambda: scenario.run(mesh), f"--seed {seed} --scenario {asked.scenario}"
        run = Run(seed, asked.seconds, WEATHERS[asked.weather], asked.nodes)
        mesh = run.mesh()

        def play() -> None:
            run.play(mesh)
            mesh.calm()

        return mesh, play, f"--seed {seed} --seconds {run.seconds} --nodes {run.nodes} --weather {asked.weather}"

    def _one(self, seed: int) -> None:
        mesh, play, again = self._prepare(seed)
        tally = mesh.tally
        told: list[str] = []
        try:
            play()
        except Violation as violation:
            self.failed += 1
            told = [f"seed {seed}: {violation}", *tally.events[-NEWEST_EVENTS:], f"again: scripts/simulate {again}"]
        if self.asked.seed is not None:
            told = [*tally.events, *told[:1]]
        if told:
            say("\n    ".join(told))
        self.counts += tally.counts
        self.steps += tally.steps
        self.acknowledged += tally.acked
        self.rows += len(mesh.register.history)


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How bad things are in a simulated mesh, and what happens in it by chance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.harness.simulated_member import Node
    from tests.harness.simulated_mesh import Mesh

PERIOD = 100  # milliseconds between two looks at what may happen


@dataclass(slots=True, frozen=True)
class Weather:
    """How bad things are; probabilities, and times in milliseconds.

    Attributes:
        drop: Of a message.
        repeat: Of a message, which then arrives twice.
        late: After so long a repeated message may still arrive.
        delay: The longest of a message; short ones are usual.
        sync: The longest of an fsync.
        register_delay: The longest of the way to the register, and of the way back.
        register_drop: Of each of the two ways.
        register_repeat: Of a request, which is then carried out once more, much later.
        crash, stop, cut, wipe, away: Events in a second: of a node; of a node, which sleeps and wakes up again; of a
            link, one way or both; of a disk; of the register.
        slow, full, fail: Events in a second, of a disk: its fsyncs take seconds; nothing more fits on it; an fsync
            fails.
    """

    drop: float = 0.02
    repeat: float = 0.05
    late: int = 8_000
    delay: int = 200
    sync: int = 60
    register_delay: int = 150
    register_drop: float = 0.1
    register_repeat: float = 0.1
    crash: float = 0.15
    stop: float = 0.1
    cut: float = 0.25
    wipe: float = 0.02
    away: float = 0.05
    slow: float = 0.03
    full: float = 0.02
    fail: float = 0.02


FAIR: Final = Weather(0, 0, 0, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""Nothing happens, and messages and disks are quick."""
NOISE: Final = Weather(0.01, 0.05, 2_000, 40, 15, 20, 0.02, 0.05, 0, 0, 0, 0, 0, 0, 0, 0)
"""No node, link or disk fails by itself; messages are lost, repeated and overtake each other."""
ROUGH: Final = Weather()
"""All sorts of things."""
STORM: Final = Weather(repeat=0.5, cut=1.0, crash=0.1, stop=0.5, sync=300)
"""Primaries change often, and what was said long ago still arrives."""


@dataclass(slots=True)
class Tally:
    """What happened in a run.

    Attributes:
        steps: Of the simulation.
        acked: Messages that clients were told are accepted.
        heads: Answers of a primary about the newest entry.
        counts: Faults and their like, by name.
        events: What happened when, for people.
    """

    steps: int = 0
    acked: int = 0
    heads: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)


class Chance:
    """What happens by chance, as often as the weather says."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.wipes_left = 2
        mesh.at(PERIOD, self.look)

    def look(self) -> None:
        """A tenth of a second has passed."""
        mesh, weather = self.mesh, self.mesh.weather
        if weather.crash or weather.cut:
            node = mesh.random.choice(mesh.nodes)
            if node.up:
                self._process(node, weather)
            self._disk(node, weather)
            if self._happens(weather.cut):
                self._cut(node)
            if self._happens(weather.away):
                mesh.lose_register(self._between(500, 8000))
        mesh.at(mesh.now + PERIOD, self.look)

    def _happens(self, rate: float) -> bool:
        return self.mesh.random.random() < rate * PERIOD / 1000 * len(self.mesh.nodes) / 3

    def _between(self, least: int, most: int) -> int:
        return self.mesh.random.randrange(least, most)

    def _process(self, node: Node, weather: Weather) -> None:
        mesh = self.mesh
        if self._happens(weather.crash):
            if mesh.random.random() < 0.5:
                mesh.crash(node)
                mesh.at(mesh.now + self._between(50, 6000), partial(mesh.restart, node))
            else:
                mesh.doom(node)
        elif self._happens(weather.stop):
            mesh.stop(node, self._between(500, 10_000))

    def _disk(self, node: Node, weather: Weather) -> None:
        mesh = self.mesh
        if self._happens(weather.wipe) and self.wipes_left and mesh.may_wipe(node):
            self.wipes_left -= 1
            mesh.wipe(node)
            mesh.at(mesh.now + self._between(50, 3000), partial(mesh.restart, node))
        if self._happens(weather.slow):
            mesh.slow(node, self._between(500, 6000))
        if self._happens(weather.full):
            mesh.fill(node, self._between(0, 5))
            mesh.at(mesh.now + self._between(500, 6000), partial(mesh.mend, node))
        if self._happens(weather.fail):
            mesh.fail(node)
            mesh.at(mesh.now + self._between(500, 6000), partial(mesh.mend, node))

    def _cut(self, node: Node) -> None:
        mesh, random = self.mesh, self.mesh.random
        others = mesh.nodes if random.random() < 0.3 else [random.choice(mesh.nodes)]
        lasts, one_way = self._between(100, 8000), random.random() < 0.5
        for other in others:
            if other is not node:
                mesh.network.cut(node, other, lasts, one_way=one_way)

"""Many nodes with many shards: what each of them sends and keeps, and how long a shard is not served when one dies."""

from __future__ import annotations

import random
import resource
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from router.shard import Phase, ShardOptions
from tests.harness.simulated_clients import Writer
from tests.harness.simulated_member import HELLO, Node
from tests.harness.simulated_mesh import Mesh
from tests.harness.simulated_weather import NOISE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.events import Configuration
    from router.ids import MemberId, ShardId

COPIES: Final = 3
SPARES: Final = 1  # nodes beyond its members that watch a shard, as one of them comes in when a member dies
CALM: Final = replace(NOISE, drop=0, repeat=0, register_drop=0, register_repeat=0)
START: Final = 20_000  # milliseconds within which all shards must be served at first
RECOVERY: Final = 30_000  # and again after nodes have died
BETWEEN_DEATHS: Final = 100  # milliseconds
DEATHS: Final = 50  # one node of so many dies


@dataclass(slots=True, frozen=True)
class Figures:
    """What was measured; messages and bytes are of one node in a second, times in milliseconds.

    Attributes:
        messages: That each node sent.
        size: Bytes that each node sent.
        peers: Whom each node talks to.
        shards: That each node is a member of.
        entries: In the log of each node.
        accepted: Clients' messages in a second, of all nodes.
        failovers: How long shards were not served whose primary was killed.
        deaths: Nodes that were killed.
        steps: Of the simulation.
        elapsed: Seconds that it took.
        memory: MiB of this process.
    """

    messages: list[float]
    size: list[float]
    peers: list[float]
    shards: list[float]
    entries: list[float]
    accepted: float
    failovers: list[float]
    deaths: int
    steps: int
    elapsed: float
    memory: float

    def table(self) -> str:
        """For people."""
        lines = [f"{'':34}{'p50':>10}{'p99':>10}{'most':>10}"]
        for name, values in (
            ("messages/s that a node sends", self.messages),
            ("bytes/s that a node sends", self.size),
            ("peers of a node", self.peers),
            ("shards of a node", self.shards),
            ("entries in the log of a node", self.entries),
            (f"fail-over, ms ({len(self.failovers)} shards)", self.failovers),
        ):
            places = [quantile(values, share) for share in (0.5, 0.99, 1)]
            lines.append(f"{name:34}" + "".join(f"{place:>10,.0f}" for place in places))
        lines.append(
            f"{self.accepted:,.0f} messages/s accepted, {self.deaths} nodes killed; {self.steps:,} steps"
            f" in {self.elapsed:.0f} s, {self.memory:,.0f} MiB"
        )
        return "\n".join(lines)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not pass; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


class ScaledMesh(Mesh):
    """Nodes that each have some of the shards, and say hello to those that they share one with.

    Args:
        seed: Decides everything.
        nodes: How many.
        shards: How many; each is written to by one client, once a second.
    """

    stagger = HELLO

    def __init__(self, seed: int, nodes: int, shards: int) -> None:
        self._places: list[list[str]] = [_places(shard, nodes) for shard in range(shards)]
        self.thorough = False
        self._of_node: dict[str, list[ShardId]] = defaultdict(list)
        names: dict[str, set[str]] = defaultdict(set)
        for shard, places in enumerate(self._places):
            for place in places[:COPIES]:
                self._of_node[place].append(shard)
            for place in places:
                names[place].update(places)
        self._peers: dict[str, list[Node]] = {}
        self._dead: dict[ShardId, int] = {}  # since when a shard's primary is dead
        self.failovers: list[float] = []
        options = ShardOptions(copies=COPIES, min_sync=2)
        super().__init__(random.Random(seed), nodes=nodes, options=options, shards=shards, weather=CALM, writers=0)
        by_name = {node.name: node for node in self.nodes}
        self._by_name = by_name
        self._peers = {name: [by_name[peer] for peer in sorted(peers - {name})] for name, peers in names.items()}
        self.pause = 2000
        for node in self.nodes:
            node.hello()
        self.writers = [Writer(self, f"w{shard}", shard) for shard in range(shards)]

    @override
    def shards_of(self, node: Node) -> Sequence[ShardId]:
        return self._of_node[node.name]

    def _members(self, shard: ShardId) -> list[MemberId]:
        by_name = {node.name: node for node in self.nodes} if not self._peers else self._by_name
        return [by_name[name].member for name in self._places[shard]]

    @override
    def founders(self, shard: ShardId) -> list[MemberId]:
        return self._members(shard)[:COPIES]

    @override
    def wanted(self, shard: ShardId) -> list[MemberId]:
        return self._members(shard)

    @override
    def peers_of(self, node: Node) -> list[Node]:
        return self._peers.get(node.name, [])

    @override
    def concerns(self, node: Node, row: Configuration) -> bool:
        return node.name in self._places[row.shard]

    @override
    def node_for(self, shard: ShardId) -> Node:
        row = self.register.rows.get(shard)
        node = self.network.by_member[row.primary] if row is not None else None
        if node is not None and node.up:
            return node
        return self._by_name[self.random.choice(self._places[shard])]

    @override
    def served(self, node: Node, shard: ShardId) -> None:
        super().served(node, shard)
        since = self._dead.pop(shard, None)
        if since is not None:
            self.failovers.append(self.now - since)

    @override
    def crash(self, node: Node) -> None:
        led = [shard for shard, core in node.shards.items() if core.phase is Phase.SERVING]
        super().crash(node)
        self._dead.update(dict.fromkeys(led, self.now))

    def leaders(self) -> list[Node]:
        """Nodes that are primary of some shard."""
        return [node for node in self.nodes if any(core.phase is Phase.SERVING for core in node.shards.values())]

    @property
    def unserved(self) -> int:
        """Shards whose primary has died, and that nobody serves yet."""
        return len(self._dead)


def _places(shard: ShardId, nodes: int) -> list[str]:
    """The nodes of a shard, the best first: by rendezvous hashing."""
    scores = [(blake2b(b"%d.%d" % (shard, i), digest_size=8).digest(), i) for i in range(nodes)]
    return [f"n{i}" for _, i in sorted(scores, reverse=True)[: COPIES + SPARES]]


def measure(seed: int, nodes: int, shards: int, seconds: int) -> Figures:
    """Let them start, count for so long, then kill some.

    Raises:
        Violation: Something did not hold, or a shard is not served again.
    """
    began = time.monotonic()
    mesh = ScaledMesh(seed, nodes, shards)
    mesh.wait(lambda: mesh.tally.counts["taken over"] >= shards, START, "all shards are served")
    mesh.run_for(1000)
    counted = [(node.sent, node.sent_bytes) for node in mesh.nodes]
    acked = mesh.tally.acked
    mesh.run_for(seconds * 1000)
    sent = [(node.sent - a, node.sent_bytes - b) for node, (a, b) in zip(mesh.nodes, counted, strict=True)]
    accepted = (mesh.tally.acked - acked) / seconds
    victims = mesh.random.sample(mesh.leaders(), max(1, nodes // DEATHS))
    for victim in victims:
        mesh.crash(victim)
        mesh.run_for(BETWEEN_DEATHS)
    mesh.wait(lambda: not mesh.unserved, RECOVERY, "all shards are served again")
    return Figures(
        messages=[messages / seconds for messages, _ in sent],
        size=[size / seconds for _, size in sent],
        peers=[len(mesh.peers_of(node)) for node in mesh.nodes],
        shards=[len(node.shards) for node in mesh.nodes],
        entries=[node.disk.used for node in mesh.nodes],
        accepted=accepted,
        failovers=mesh.failovers,
        deaths=len(victims),
        steps=mesh.tally.steps,
        elapsed=time.monotonic() - began,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )

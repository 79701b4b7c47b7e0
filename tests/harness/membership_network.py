"""Nodes that only watch each other, in one process: virtual time, and a network that fails as a seed says."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Final

from router.membership import Membership, MembershipOptions, Pulse
from router.membership_events import Change, Changed, Connect, Disconnect, Heard, Send, State
from router.membership_wire import Identity, Load, MembershipMessage, decode, encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from router.membership_events import MembershipEffect
    from router.membership_wire import News

TICK: Final = 50


class Watcher:
    """A process with a membership; it can crash, restart, sleep and leave."""

    def __init__(self, network: Network, name: str, region: str, seeds: list[str]) -> None:
        self.network, self.name, self.region, self.seeds = network, name, region, seeds
        self.boots, self.disks = count(1), 1
        self.running = False
        self.asleep_until = 0
        self.load = Load()
        self.changes: list[tuple[int, str, Change]] = []
        self.news: dict[int, News] = {}
        self.connected: dict[str, str] = {}
        self.start()

    @property
    def address(self) -> str:
        return f"tcp://{self.name}:7400"

    def start(self) -> None:
        network = self.network
        self.running = True
        self.boot = f"{self.name}.{next(self.boots)}"
        self.connected.clear()
        me = Identity(self.name, self.boot, f"disk{self.disks}", self.region, self.name, self.address, "1", 1)
        self.core = network.core(
            me, [(seed, f"tcp://{seed}:7400") for seed in self.seeds], network.options, network.key_of, network.now
        )
        self.after(network.random.randrange(TICK), self.tick)

    def crash(self) -> None:
        self.running = False

    def sleep(self, milliseconds: int) -> None:
        """As SIGSTOP: what arrives waits."""
        self.asleep_until = self.network.now + milliseconds

    def leave(self) -> None:
        self.perform(self.core.leave(self.network.now))
        self.crash()

    def after(self, delay: int, action: Callable[[], None]) -> None:
        boot = self.boot

        def act() -> None:
            if self.running and self.boot == boot:
                if self.asleep_until > self.network.now:
                    self.network.at(self.asleep_until, act)
                else:
                    action()

        self.network.at(self.network.now + delay, act)

    def tick(self) -> None:
        self.perform(self.core.tick(self.network.now, Pulse(self.load)))
        self.after(TICK, self.tick)

    def receive(self, source: str, data: bytes) -> None:
        self.perform(self.core.receive(source, decode(data), self.network.now))

    def perform(self, effects: Iterable[MembershipEffect]) -> None:
        for effect in effects:
            match effect:
                case Connect(node, address, key):
                    assert key == self.network.key_of(node)
                    self.connected[node] = address
                case Disconnect(node):
                    del self.connected[node]
                case Send(node, message):
                    assert node in self.connected, f"{self.name} sends to {node} without a connection"
                    self.network.send(self, node, message)
                case Changed(node, change):
                    self.changes.append((self.network.now, node, change))
                case Heard(_, news):
                    self.news.update((item.shard, item) for item in news)

    def states(self) -> dict[str, State]:
        return {view.node: view.state for view in self.core.peers(self.network.now)}

    def told(self, change: Change) -> list[str]:
        return [node for _, node, seen in self.changes if seen is change]


class Network:
    """Nodes and what lies between them.

    Args:
        random: Decides everything.
        options: Of all nodes.
        drop: Probability that a message is lost.
        delay: Milliseconds of a message at most.
        core: The membership; a mutant of it.
    """

    def __init__(
        self, random: random.Random, *, options: MembershipOptions | None = None, drop: float = 0.0, delay: int = 20,
        core: type[Membership] = Membership,
    ) -> None:  # fmt: skip
        self.random, self.drop, self.delay, self.core = random, drop, delay, core
        self.options = options or MembershipOptions()
        self.now = 1000
        self.nodes: dict[str, Watcher] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.strangers: set[str] = set()
        self.sent = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def key_of(self, node: str) -> bytes | None:
        return None if node in self.strangers else b"key of " + node.encode()

    def add(self, name: str, seeds: list[str], region: str = "eu") -> Watcher:
        watcher = self.nodes[name] = Watcher(self, name, region, seeds)
        return watcher

    def at(self, when: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._numbers), action))

    def send(self, source: Watcher, node: str, message: MembershipMessage) -> None:
        self.sent += 1
        data = encode(message)
        if (source.name, node) in self.cuts or self.random.random() < self.drop:
            return
        receiver = self.nodes.get(node)
        if receiver is not None and receiver.running:
            receiver.after(self.random.randrange(1, self.delay), lambda: receiver.receive(source.name, data))

    def run(self, milliseconds: int) -> None:
        until = self.now + milliseconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Nothing of `one` reaches `other`, and unless it is one way the reverse."""
        self.cuts.add((one, other))
        if not one_way:
            self.cuts.add((other, one))

    def isolate(self, one: str) -> None:
        for other in self.nodes:
            if other != one:
                self.cut(one, other)

    def heal(self) -> None:
        self.cuts.clear()

    def disagreements(self) -> list[str]:
        """Who does not see whom as it is, among the running nodes."""
        running = {name for name, node in self.nodes.items() if node.running}
        found = []
        for name in sorted(running):
            up = {member.node for member in self.nodes[name].core.up}
            if up != running:
                found.append(f"{name} sees {sorted(up)} up, and not {sorted(running)}")
        return found

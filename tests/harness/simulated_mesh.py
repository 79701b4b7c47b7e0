"""Many members of shards in one process: virtual time, a network, disks and a register that fail as a seed says.

The cores are the real ones. Everything that they can meet is drawn from one generator, so a seed replays exactly.
Faults are also verbs (`crash`, `stop`, `wipe`, `fill`, ...; `network.cut`), for scenarios and for Hypothesis.
"""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from router.events import Configuration
from router.shard import Phase, ShardOptions
from tests.harness.simulated_clients import Reader, Writer
from tests.harness.simulated_ledger import Ledger
from tests.harness.simulated_member import HELLO, Node, names
from tests.harness.simulated_network import Network
from tests.harness.simulated_storage import Register, Violation
from tests.harness.simulated_weather import FAIR, Chance, Tally, Weather

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from router.errors import BrokenInvariant
    from router.events import Claim
    from router.ids import MemberId, ShardId

ANSWER = 400  # milliseconds after which a register's silence is taken for no answer
CALM_PAUSE = 400  # milliseconds, at most, between two messages of a client: what is to be seen then is not load
MOMENT = 10  # milliseconds between two looks, while something is awaited


class Mesh:
    """Nodes, what lies between them, and what must hold.

    Args:
        random: Decides everything.
        nodes: How many.
        options: Of the shards.
        shards: How many.
        weather: How bad it is at first.
        writers: How many clients write into each shard.
        pause: The longest between two messages of a client, in milliseconds.

    Attributes:
        now: Milliseconds.
        register_cuts: Nodes that can't reach the register.
        restored: The register has lost rows: to halt is right now.
    """

    thorough = True  # every member is compared with itself at each step, and all disks at each acknowledgement
    stagger = HELLO  # milliseconds over which the hellos of a node's start are spread

    def __init__(
        self, random: random.Random, *, nodes: int = 4, options: ShardOptions, shards: int = 1,
        weather: Weather | None = None, writers: int = 2, pause: int = 40,
    ) -> None:  # fmt: skip
        self.random, self.options, self.shard_count, self.pause = random, options, shards, pause
        self.weather = weather or Weather()
        self.now = 0
        self.tally = Tally()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self.register = Register()
        self.register_away_until = 0
        self.register_cuts: set[str] = set()
        self.restored = False
        self.network = Network(self)
        self.nodes: list[Node] = []
        self.ledger = Ledger(self)
        self.nodes += [Node(self, f"n{i}") for i in range(nodes)]
        for node in self.nodes:
            node.start()
        self.writers = [Writer(self, f"w{i}", i % shards) for i in range(writers * shards)]
        self.readers = [Reader(self, i) for i in range(shards)] if writers else []
        for shard in range(shards):
            founders = self.founders(shard)
            self.network.by_member[founders[0]].found(shard, founders)
        Chance(self)

    # -- time ----------------------------------------------------------------------------------------------------

    def at(self, moment: int, action: Callable[[], None]) -> None:
        """Do something at this time."""
        heapq.heappush(self._queue, (moment, next(self._numbers), action))

    def run(self, until: int) -> None:
        """Let time pass."""
        queue = self._queue
        steps = 0
        try:
            while queue and queue[0][0] <= until:
                self.now, _, action = heapq.heappop(queue)
                steps += 1
                action()
        finally:
            self.tally.steps += steps
        self.now = until

    def run_for(self, time: int) -> None:
        """Let so many milliseconds pass."""
        self.run(self.now + time)

    def wait(self, holds: Callable[[], object], within: int, what: str) -> int:
        """Let time pass until something holds; gives how long it took."""
        began = self.now
        while not holds():
            if self.now - began >= within:
                raise Violation(f"at {self.now}: after {within} ms still not: {what}")
            self.run(self.now + MOMENT)
        return self.now - began

    def draw(self, most: int) -> int:
        """A time: mostly short, at times up to the longest."""
        if most <= 1:
            return most
        random = self.random.random
        return int(random() * most) if random() < 0.1 else int(random() * max(1, most // 10))

    def note(self, event: str) -> None:
        """Something happens, for people."""
        self.tally.events.append(f"{self.now}: {event}")

    # -- who and where -------------------------------------------------------------------------------------------

    def shards_of(self, node: Node) -> Sequence[ShardId]:  # noqa: ARG002 - here all nodes have all
        """What a node opens when it starts."""
        return range(self.shard_count)

    def founders(self, shard: ShardId) -> list[MemberId]:  # noqa: ARG002 - here the same for all
        """The first members."""
        return [node.member for node in self.nodes[: self.options.copies]]

    def wanted(self, shard: ShardId) -> list[MemberId]:  # noqa: ARG002 - here the same for all
        """Where a shard should be, the best place first."""
        return [node.member for node in self.nodes]

    def peers_of(self, node: Node) -> list[Node]:
        """Whom a node tells that it is there."""
        return [other for other in self.nodes if other is not node]

    def concerns(self, node: Node, row: Configuration) -> bool:  # noqa: ARG002 - here all rows concern all
        """Whether a node is told of a row."""
        return True

    def node_for(self, shard: ShardId) -> Node:  # noqa: ARG002 - a client knows nothing of shards
        """Where a client that knows no better tries; a process that does not run takes no connection."""
        return self.random.choice([node for node in self.nodes if node.up] or self.nodes)

    def primary(self, shard: ShardId = 0) -> Node | None:
        """Who serves a shard, as the register and the node itself say."""
        row = self.register.rows.get(shard)
        node = self.network.by_member.get(row.primary) if row is not None else None
        return node if node is not None and self._serves(node, shard) else None

    @staticmethod
    def _serves(node: Node, shard: ShardId) -> bool:
        core = node.shards.get(shard) if node.up else None
        return core is not None and core.phase is Phase.SERVING

    def backups(self, shard: ShardId = 0) -> list[Node]:
        """The other members."""
        row = self.register.rows[shard]
        nodes = [self.network.by_member.get(member) for member in row.members if member != row.primary]
        return [node for node in nodes if node is not None]

    # -- clients -------------------------------------------------------------------------------------------------

    def post(self, node: Node, action: Callable[[], None]) -> None:
        """A client's message to a node; it is lost with the life that it was meant for."""
        if node.up:
            boot = node.boot
            self.carry(lambda: node.after(0, action) if node.boot == boot else None)

    def carry(self, action: Callable[[], None]) -> None:
        """A message to or from a client."""
        if self.random.random() >= self.weather.drop:
            self.at(self.now + 1 + self.draw(self.weather.delay), action)

    # -- the register --------------------------------------------------------------------------------------------

    def ask(self, node: Node, claim: Claim) -> None:
        """A node's compare-and-set: late, lost on either way, or carried out again."""
        request = (node.name, node.boot, next(node.requests))
        weather, random, counts = self.weather, self.random.random, self.tally.counts
        answered = False

        def answer(row: Configuration | None, *, done: bool) -> None:
            nonlocal answered
            if not answered:
                answered = True
                node.claimed(claim, row, done=done)

        def execute() -> None:
            if self.register_away_until > self.now or node.name in self.register_cuts:
                counts["register away"] += 1
                return
            before = self.register.rows.get(claim.new.shard)
            done, row = self.register.cas(request, claim)
            if not self.restored:
                self.ledger.check_row(row)
            if self.register.rows.get(claim.new.shard) is not before:
                self.note(f"row {row.version} of shard {row.shard}: {names([row.primary])} of {names(row.members)}")
            if random() >= weather.register_drop:
                node.after(1 + self.draw(weather.register_delay), partial(answer, row, done=done))
            else:
                counts["register ambiguous"] += done

        if random() >= weather.register_drop:
            self.at(self.now + 1 + self.draw(weather.register_delay), execute)
            if random() < weather.register_repeat:
                counts["register late"] += 1
                self.at(self.now + 1 + int(random() * 5000), execute)
        node.after(ANSWER, partial(answer, None, done=False))

    def served(self, node: Node, shard: ShardId) -> None:
        """A primary has committed what it inherited."""
        self.tally.counts["taken over"] += 1
        self.note(f"{node.name} serves shard {shard} in epoch {node.shards[shard].row.epoch}")

    def broken(self, node: Node, shard: ShardId, error: BrokenInvariant) -> None:
        """A rule of the cores does not hold: that is right only where the register has lost rows."""
        if not self.restored:
            raise Violation(f"at {self.now} {node.name}: {error}") from error
        node.halt_shard(shard, str(error))

    # -- faults --------------------------------------------------------------------------------------------------

    def crash(self, node: Node) -> None:
        """The process, or its machine, ends: of what is on the way to the disk some arrives, some is torn."""
        if not node.up:
            return
        random = self.random.random
        torn = random() if random() < 0.7 else None
        was_torn = node.crash(torn=torn, kept=int(random() * 2))
        self.tally.counts["crashed"] += 1
        self.tally.counts["torn write"] += was_torn
        self.note(f"{node.name} crashes{' within a write' if was_torn else ''}")

    def restart(self, node: Node) -> None:
        """It comes back."""
        if not node.up:
            node.start()
            self.note(f"{node.name} starts, life {node.boot}, with {node.member.disk}")

    def stop(self, node: Node, time: int) -> None:
        """The process sleeps."""
        node.stopped_until = max(node.stopped_until, self.now + time)
        self.tally.counts["stopped"] += 1
        self.note(f"{node.name} sleeps for {time} ms")

    def wipe(self, node: Node) -> None:
        """The disk is gone; the node is down."""
        self.crash(node)
        self.ledger.lost_disks.append(node.disk)
        node.wipe()
        self.tally.counts["wiped"] += 1
        self.note(f"{node.name} loses its disk")

    def may_wipe(self, node: Node) -> bool:
        """Whether the guarantee holds without this disk: fewer than min_sync copies are ever lost."""
        by_member = self.network.by_member
        for row in self.register.rows.values():
            if node.member in row.members and (
                len(row.members) < self.options.min_sync or any(member not in by_member for member in row.members)
            ):
                return False
        return True

    def slow(self, node: Node, time: int) -> None:
        """Each fsync takes seconds."""
        node.disk.slow_until = self.now + time
        self.note(f"{node.name}'s disk is slow for {time} ms")

    def fill(self, node: Node, left: int) -> None:
        """No more than so many entries fit on the disk."""
        node.disk.capacity = node.disk.used + left
        self.tally.counts["full"] += 1
        self.note(f"{node.name}'s disk has room for {left} entries")

    def fail(self, node: Node) -> None:
        """The next fsync fails."""
        node.disk.failing = True
        self.note(f"{node.name}'s next fsync fails")

    def mend(self, node: Node) -> None:
        """Somebody sees to the disk, and starts the node again if it has halted."""
        node.disk.capacity, node.disk.failing, node.disk.slow_until = None, False, 0
        if node.up and node.halted:
            self.crash(node)
            self.restart(node)

    def isolate(self, node: Node) -> None:
        """It can reach neither other nodes nor the register; clients reach it."""
        for other in self.peers_of(node):
            self.network.cut(node, other)
        self.register_cuts.add(node.name)

    def doom(self, node: Node) -> None:
        """It will crash within its next write, and come back after a while."""
        node.doomed = True

    def heal(self) -> None:
        """All links work again, and the register is there."""
        self.network.heal()
        self.register_cuts.clear()
        self.register_away_until = 0

    def lose_register(self, time: int) -> None:
        """The register can't be reached."""
        self.register_away_until = self.now + time
        self.note(f"the register is away for {time} ms")

    def restore_register(self, rows: dict[ShardId, Configuration]) -> None:
        """The register goes on with an old backup."""
        self.register.restore(rows)
        self.restored = True
        self.tally.counts["register restored"] += 1
        self.note("the register goes on with an old backup: " + ", ".join(f"row {r.version}" for r in rows.values()))

    def rebuild_register(self) -> None:
        """Its operator makes rows that are newer than any member knows, of the members that have what is committed."""
        for shard in range(self.shard_count):
            disks = [node.disk for node in self.nodes]
            best = max(disks, key=lambda disk: (disk.commits[shard], len(disk.logs[shard])))
            newest = best.logs[shard][best.commits[shard] - 1]
            members = [disk.member for disk in disks if disk.holds(newest)]
            members.sort(key=lambda member: member != best.member)
            rows = [row for row in self.register.history if row.shard == shard]
            epoch = max([*(row.epoch for row in rows), *(disk.promised[shard] for disk in disks)]) + 1
            self.register.rows[shard] = Configuration(shard, epoch, epoch, best.member, tuple(members))
        self.register.answered.clear()
        self.restored = False
        self.note("the register is rebuilt")

    # -- in the end ----------------------------------------------------------------------------------------------

    def mend_all(self) -> None:
        """All comes back."""
        self.weather, self.pause = FAIR, CALM_PAUSE
        self.heal()
        for node in self.nodes:
            node.stopped_until, node.doomed = min(node.stopped_until, self.now), False
            self.mend(node)
            self.restart(node)

    def calm(self, seconds: int = 20) -> None:
        """All comes back; then everything must work, and all logs agree."""
        self.mend_all()
        accepted = [writer.accepted for writer in self.writers]
        self.run_for(seconds * 1000)
        for shard in range(self.shard_count):
            serving = [node.name for node in self.nodes if self._serves(node, shard)]
            if len(serving) != 1:
                raise Violation(f"after {seconds} s of calm, {serving} serve shard {shard}")
            row = self.register.rows[shard]
            if len(row.members) < min(self.options.copies, len(self.nodes)):
                raise Violation(f"after {seconds} s of calm, shard {shard} has the members {row.members}")
            self.ledger.check_row(row)
        for writer, before in zip(self.writers, accepted, strict=True):
            if writer.accepted == before:
                raise Violation(f"after {seconds} s of calm, nothing of {writer.name} was accepted")
        self.ledger.check_logs()

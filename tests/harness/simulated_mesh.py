"""Many members of shards in one process: virtual time, a network, disks and a register that fail as a seed says.

The cores are the real ones. Everything that they can meet is drawn from one generator, so a seed replays exactly.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from router.entry import GENESIS, SALT_BYTES, Entry, Kind
from router.errors import BrokenInvariant
from router.ids import MemberId, RoomId
from router.sequencer import RoomHead
from router.shard import Outbox, Phase, Shard, ShardOptions
from router.wire import PeerMessage, config_of
from router.wire import decode as decode_message
from router.wire import encode as encode_message
from tests.harness.simulated_storage import Disk, Register, Violation

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from router.events import Batch, Claim, Configuration
    from router.ids import ShardId
    from router.replication import ReadLog

TICK = 50
HELLO = 250
SUSPECT = 1500
WATCH = 10_000
LATE = 8_000  # milliseconds after which a repeated message may still arrive
ANSWER = 400  # milliseconds after which a register's silence is taken for no answer


@dataclass(slots=True, frozen=True)
class Weather:
    """How bad things are; probabilities, and times in milliseconds.

    Attributes:
        drop: Of a message.
        repeat: Of a message, which then arrives twice.
        delay: The longest of a message; short ones are usual.
        sync: The longest of an fsync.
        register_delay: The longest of the way to the register, and of the way back.
        register_drop: Of each of the two ways.
        register_repeat: Of a request, which is then carried out once more, much later.
        crash, stop, cut, wipe, away: Events in a second: of a node; of a node, which sleeps and wakes up again; of a
            link, one way or both; of a disk; of the register.
    """

    drop: float = 0.02
    repeat: float = 0.05
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


FAIR = Weather(0, 0, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0)


class Node:
    """A process: it can crash and come back, with its disk or a new one."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh, self.name = mesh, name
        self.disks = count(1)
        self.boots = count(1)
        self.requests = count(1)
        self.disk = Disk(MemberId(name, f"{name}-disk{next(self.disks)}"))
        self.boot = 0
        self.up = False
        self.stopped_until = 0
        self.shards: dict[ShardId, Shard] = {}
        self.start()

    @property
    def member(self) -> MemberId:
        return self.disk.member

    def start(self) -> None:
        mesh = self.mesh
        self.boot = next(self.boots)
        self.up = True
        self.out = Outbox()
        self.ticket = 0
        self.disk_free = mesh.now
        self.writes: deque[Batch] = deque()
        self.in_flight: dict[int, list[Shard]] = {}
        self.heard: dict[MemberId, int] = {}
        self.rooms: dict[ShardId, RoomHead] = {}
        self.shards = {}
        for shard in range(mesh.shard_count):
            row = mesh.register.rows.get(shard) if mesh.random.random() < 0.5 else None
            self.shards[shard] = mesh.shard_type(
                self.member, self.disk.open(shard), row, mesh.options, self.out, mesh.random.random,
                lambda: bytes(SALT_BYTES),
            )  # fmt: skip
        self.after(mesh.random.randrange(TICK), self.tick)
        self.after(0, self.hello)
        self.after(mesh.random.randrange(WATCH), self.watch)

    def crash(self) -> None:
        self.up = False
        self.mesh.close(self)

    def wipe(self) -> None:
        self.crash()
        self.mesh.lost_disks.append(self.disk)
        self.disk = Disk(MemberId(self.name, f"{self.name}-disk{next(self.disks)}"))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Do something later, in this life only, and not while stopped."""
        boot = self.boot

        def act() -> None:
            if self.up and self.boot == boot:
                if self.stopped_until > self.mesh.now:
                    self.mesh.at(self.stopped_until, act)
                else:
                    action()

        self.mesh.at(self.mesh.now + delay, act)

    # -- turns ---------------------------------------------------------------------------------------------------

    def hello(self) -> None:
        for other in self.mesh.nodes:
            if other is not self:
                self.mesh.send(self, other.member, None)
                for shard in self.shards.values():
                    if shard.row.members:
                        self.mesh.send(self, other.member, config_of(shard.row))
        self.after(HELLO, self.hello)

    def tick(self) -> None:
        now = self.mesh.now
        up = [self.member, *(m for m, at in self.heard.items() if now - at < SUSPECT)]
        wanted = [node.member for node in self.mesh.nodes if node.member in up]
        for shard in self.shards.values():
            self.mesh.guard(self, partial(shard.tick, now, up, wanted))
        self.perform()
        self.after(TICK, self.tick)

    def watch(self) -> None:
        """Read the register, which may be old news when it arrives."""
        mesh = self.mesh
        if mesh.register_away_until <= mesh.now:
            rows = list(mesh.register.rows.values())
            self.after(1 + mesh.draw(mesh.weather.register_delay), lambda: self.learn(rows))
        self.after(WATCH, self.watch)

    def learn(self, rows: list[Configuration]) -> None:
        for row in rows:
            self.shards[row.shard].learn(row, self.mesh.now)
        self.perform()

    def receive(self, source: MemberId, data: bytes | None) -> None:
        self.heard[source] = self.mesh.now
        if data is not None:
            message = decode_message(data)
            self.mesh.guard(self, lambda: self.shards[message.shard].receive(source, message, self.mesh.now))
            self.perform()

    def submit(self, shard_id: ShardId, cmid: str) -> bool:
        """Append a message if this node serves the shard."""
        shard = self.shards[shard_id]
        founders = [node.member for node in self.mesh.nodes[: self.mesh.options.copies]]
        if not shard.row.members and self.member in founders:
            shard.found(founders)
            self.perform()
        if shard.phase is not Phase.SERVING or shard.sequencer is None:
            return False
        room = self.rooms.setdefault(shard_id, RoomHead(RoomId("s", "r"), 1, 0, 0, 0))
        entry = shard.sequencer.append(
            room, Kind.MESSAGE, b"s" * 12, cmid, b"{}", b"", self.mesh.now, bytes(SALT_BYTES), b"", self.mesh.acked
        )
        self.out.open_batch().entries.append(entry)
        self.out.touched[shard_id] = shard
        self.perform()
        return True

    def perform(self) -> None:
        """Do what the shards want done."""
        out = self.out
        while out.touched or out.batch:
            self._flush()
        self._pass_on()
        for entry in out.lost:
            entry.origin = None
        for entry in out.committed:
            self.mesh.committed(self, entry)
        confirmed = list(out.confirmed)
        for queue in (out.lost, out.forgotten, out.committed, out.served, out.confirmed):
            queue.clear()
        for done, answer in confirmed:
            done(answer)

    def _flush(self) -> None:
        out, mesh = self.out, self.mesh
        batch, touched = out.batch, list(out.touched.values())
        out.batch, out.touched = None, {}
        ticket: int | None = None
        if batch is not None:
            self.ticket += 1
            ticket = batch.ticket = self.ticket
            self.in_flight[ticket] = touched
            batch.commits = {shard.shard: shard.replica.commit for shard in touched}
            self.write(batch)
        for shard in touched:
            shard.flush(ticket, mesh.now)

    def _pass_on(self) -> None:
        out, mesh = self.out, self.mesh
        for claim in out.claims:
            mesh.ask(self, claim)
        for member, message in out.sends:
            mesh.send(self, member, message)
        for read in out.reads:
            self.after(mesh.draw(mesh.weather.sync), partial(self.read, read))
        for row in out.announced:
            for other in mesh.nodes:
                if other is not self:
                    mesh.send(self, other.member, config_of(row))
        for queue in (out.claims, out.sends, out.reads, out.announced):
            queue.clear()

    def write(self, batch: Batch) -> None:
        mesh = self.mesh
        self.disk_free = max(self.disk_free, mesh.now) + 1 + mesh.draw(mesh.weather.sync)
        disk, queue = self.disk, self.writes
        queue.append(batch)

        def synced() -> None:
            written = queue.popleft()
            disk.write(written)
            mesh.guard(self, lambda: self.persisted(written.ticket))
            self.perform()

        self.after(self.disk_free - mesh.now, synced)

    def persisted(self, ticket: int) -> None:
        for shard in self.in_flight.pop(ticket):
            shard.persisted(ticket, self.mesh.now)

    def read(self, read: ReadLog) -> None:
        log = self.disk.logs[read.shard]
        entries = log[read.after : read.after + read.limit]
        chain = log[read.after - 1].chain if read.after else GENESIS
        shard = self.shards[read.shard]
        self.mesh.guard(self, lambda: shard.log_read(read, chain, [e.wire for e in entries], self.mesh.now))
        self.perform()


@dataclass(slots=True)
class Tally:
    """What happened in a run."""

    steps: int = 0
    acked: int = 0
    heads: int = 0
    events: list[str] = field(default_factory=list)


class Mesh:
    """Nodes, what lies between them, and what must hold.

    Args:
        random: Decides everything.
        nodes: How many.
        options: Of the shards.
        shards: How many.
        weather: How bad it is at first.
        shard_type: The core; a mutant of it.
    """

    def __init__(
        self, random: random.Random, *, nodes: int = 4, options: ShardOptions, shards: int = 1,
        weather: Weather | None = None, shard_type: type[Shard] = Shard,
    ) -> None:  # fmt: skip
        self.random, self.options, self.shard_count = random, options, shards
        self.weather = weather or Weather()
        self.shard_type = shard_type
        self.now = 0
        self.tally = Tally()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self.register = Register()
        self.register_away_until = 0
        self.cuts: dict[tuple[str, str], int] = {}
        self.truth: dict[ShardId, list[bytes]] = defaultdict(list)  # what is committed, in order
        self.acknowledged: dict[ShardId, int] = defaultdict(int)  # up to where clients were told
        self.primaries: dict[tuple[ShardId, int], MemberId] = {}
        self.nodes: list[Node] = []
        for i in range(nodes):
            self.nodes.append(Node(self, f"n{i}"))
        self._values = count(1)
        self.wipes_left = 2
        self.lost_disks: list[Disk] = []
        for shard in range(shards):
            founders = [node.member for node in self.nodes[: options.copies]]
            self.nodes[0].shards[shard].found(founders)
        self.nodes[0].perform()
        self.at(10, self._client)
        self.at(100, self._chaos)

    # -- time ----------------------------------------------------------------------------------------------------

    def at(self, moment: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (moment, next(self._numbers), action))

    def run(self, until: int) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, action = heapq.heappop(queue)
            self.tally.steps += 1
            action()
        self.now = until

    def draw(self, most: int) -> int:
        """A time: mostly short, at times up to the longest."""
        if most <= 1:
            return most
        return self.random.randrange(most) if self.random.random() < 0.1 else self.random.randrange(max(1, most // 10))

    def guard(self, node: Node, action: Callable[[], object]) -> None:
        """A broken rule of the cores is a violation."""
        try:
            action()
        except BrokenInvariant as error:
            raise Violation(f"at {self.now} {node.name}: {error}") from error

    # -- the network ---------------------------------------------------------------------------------------------

    def send(self, source: Node, target: MemberId, message: PeerMessage | None) -> None:
        node = next((n for n in self.nodes if n.member == target), None)
        if node is None or self.random.random() < self.weather.drop:
            return
        data = None if message is None else encode_message(message)
        sender = source.member
        arrive = partial(self._arrive, sender, node, target, data)
        self.at(self.now + 1 + self.draw(self.weather.delay), arrive)
        if data is not None and self.random.random() < self.weather.repeat:
            self.at(self.now + 1 + self.random.randrange(LATE), arrive)

    def _arrive(self, source: MemberId, node: Node, target: MemberId, data: bytes | None) -> None:
        if not node.up or node.member != target or self.cuts.get((source.node, node.name), 0) > self.now:
            return
        if node.stopped_until > self.now:
            self.at(node.stopped_until, lambda: self._arrive(source, node, target, data))
            return
        node.receive(source, data)

    # -- the register --------------------------------------------------------------------------------------------

    def ask(self, node: Node, claim: Claim) -> None:
        request = (node.name, node.boot, next(node.requests))
        weather, random = self.weather, self.random
        answered = False

        def answer(row: Configuration | None, *, done: bool) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            self.guard(node, lambda: node.shards[claim.new.shard].claimed(claim, row, self.now, done=done))
            node.perform()

        def execute() -> None:
            if self.register_away_until > self.now:
                return
            done, row = self.register.cas(request, claim)
            self.check_row(row)
            if random.random() >= weather.register_drop:
                node.after(1 + self.draw(weather.register_delay), lambda: answer(row, done=done))

        if random.random() >= weather.register_drop:
            self.at(self.now + 1 + self.draw(weather.register_delay), execute)
            if random.random() < weather.register_repeat:
                self.at(self.now + random.randrange(1, 5000), execute)
        node.after(ANSWER, lambda: answer(None, done=False))

    # -- what happens --------------------------------------------------------------------------------------------

    def _client(self) -> None:
        for _ in range(self.random.randrange(3)):
            node, shard = self.random.choice(self.nodes), self.random.randrange(self.shard_count)
            if node.up and node.stopped_until <= self.now:
                node.submit(shard, f"m{next(self._values)}")
        if self.random.random() < 0.3:
            node, shard = self.random.choice(self.nodes), self.random.randrange(self.shard_count)
            if node.up and node.stopped_until <= self.now:
                self._ask_head(node, node.shards[shard])
        self.at(self.now + 1 + self.random.randrange(40), self._client)

    def _ask_head(self, node: Node, shard: Shard) -> None:
        """A client comes back and asks what the newest is; what was acknowledged before it asked must be known."""
        known = self.acknowledged[shard.shard]

        def answer(is_primary: bool) -> None:
            self.tally.heads += is_primary
            if is_primary and shard.replica.commit < known:
                raise Violation(
                    f"at {self.now} {node.name} gives {shard.replica.commit} as head, {known} was acknowledged"
                )

        if shard.phase is Phase.SERVING:
            shard.confirm(answer, self.now)
            node.perform()

    def _chaos(self) -> None:
        weather, random = self.weather, self.random
        period = 100

        def happens(rate: float) -> bool:
            return random.random() < rate * period / 1000 * len(self.nodes) / 3

        node = random.choice(self.nodes)
        if happens(weather.crash) and node.up:
            node.crash()
            self._note(f"{node.name} crashes")
            self.at(self.now + random.randrange(50, 6000), lambda: self._restart(node))
        if happens(weather.stop) and node.up:
            node.stopped_until = self.now + random.randrange(500, 10_000)
            self._note(f"{node.name} sleeps until {node.stopped_until}")
        if happens(weather.cut):
            others = self.nodes if random.random() < 0.3 else [random.choice(self.nodes)]
            until = self.now + random.randrange(100, 8000)
            one_way = random.random() < 0.5
            for other in others:
                self.cuts[node.name, other.name] = until
                if not one_way:
                    self.cuts[other.name, node.name] = until
        if happens(weather.wipe) and self.wipes_left and self._expendable(node):
            self.wipes_left -= 1
            node.wipe()
            self._note(f"{node.name} loses its disk")
            self.at(self.now + random.randrange(50, 3000), lambda: self._restart(node))
        if happens(weather.away):
            self.register_away_until = self.now + random.randrange(500, 8000)
        self.at(self.now + period, self._chaos)

    def _restart(self, node: Node) -> None:
        if not node.up:
            node.start()
            self._note(f"{node.name} starts, life {node.boot}")

    def _expendable(self, node: Node) -> bool:
        """Whether the guarantee holds without this disk: fewer than min_sync copies are ever lost."""
        for row in self.register.rows.values():
            if node.member in row.members:
                disks = {n.member for n in self.nodes}
                if len(row.members) < self.options.min_sync or not disks.issuperset(row.members):
                    return False
        return True

    def _note(self, event: str) -> None:
        self.tally.events.append(f"{self.now}: {event}")

    def close(self, node: Node) -> None:
        """A process has ended."""

    # -- what must hold ------------------------------------------------------------------------------------------

    def acked(self, entry: Entry) -> None:
        """A client was told that its message is accepted."""
        self.tally.acked += 1
        self.acknowledged[entry.shard] = max(self.acknowledged[entry.shard], entry.lsn)
        self.check_copies(entry)

    def committed(self, node: Node, entry: Entry) -> None:
        """A member takes an entry for committed."""
        truth = self.truth[entry.shard]
        if entry.lsn <= len(truth):
            if truth[entry.lsn - 1] != entry.wire:
                raise Violation(f"at {self.now} {node.name} commits {entry}, where another entry was committed")
        elif entry.lsn == len(truth) + 1:
            truth.append(entry.wire)
        else:
            raise Violation(f"at {self.now} {node.name} commits {entry}, with {len(truth)} before it")
        origin, entry.origin = entry.origin, None
        if origin is not None:
            origin(entry)

    def check_copies(self, entry: Entry) -> None:
        """What is acknowledged is on the disks of as many members as promised, and of every one in force."""
        disks = [*(n.disk for n in self.nodes), *self.lost_disks]
        holders = [disk.member for disk in disks if _holds(disk, entry)]
        if len(holders) < self.options.min_sync:
            raise Violation(f"at {self.now} {entry} is acknowledged, and durable on {holders} only")

    def check_row(self, row: Configuration) -> None:
        """Every member of a configuration in force, whose disk there is, holds all that was acknowledged."""
        last = self.acknowledged[row.shard]
        if not last or row != self.register.rows.get(row.shard):
            return
        wire = self.truth[row.shard][last - 1]
        for node in self.nodes:
            if node.member in row.members:
                log = node.disk.logs[row.shard]
                if len(log) < last or log[last - 1].wire != wire:
                    raise Violation(f"at {self.now} {node.member} is a member by {row}, and lacks {row.shard}/{last}")

    def calm(self, seconds: int = 40) -> None:
        """All comes back; then everything must work, and all logs agree."""
        self.weather = FAIR
        self.cuts.clear()
        self.register_away_until = 0
        for node in self.nodes:
            node.stopped_until = min(node.stopped_until, self.now)
            if not node.up:
                node.start()
        before = self.tally.acked
        self.run(self.now + seconds * 1000)
        for shard in range(self.shard_count):
            serving = [n.name for n in self.nodes if n.shards[shard].phase is Phase.SERVING]
            if len(serving) != 1:
                raise Violation(f"after {seconds} s of calm, {serving} serve shard {shard}")
            row = self.register.rows[shard]
            if len(row.members) < min(self.options.copies, len(self.nodes)):
                raise Violation(f"after {seconds} s of calm, shard {shard} has the members {row.members}")
            self.check_row(row)
        if self.tally.acked == before:
            raise Violation(f"after {seconds} s of calm, nothing was accepted")


def _holds(disk: Disk, entry: Entry) -> bool:
    log = disk.logs[entry.shard]
    return len(log) >= entry.lsn and log[entry.lsn - 1].wire == entry.wire

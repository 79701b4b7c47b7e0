"""A node of a simulated mesh: a process that drives its shards, with a disk that may fail."""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from router.entry import GENESIS, SALT_BYTES
from router.errors import BrokenInvariant
from router.ids import MemberId
from router.shard import Outbox, Phase, Shard
from router.wire import Ack, config_of
from router.wire import decode as decode_message
from tests.harness.simulated_rooms import Rooms, Unanswered
from tests.harness.simulated_storage import Disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.entry import Entry
    from router.events import Batch, Claim, Configuration
    from router.ids import RoomId, ShardId
    from router.replication import ReadLog
    from tests.harness.simulated_mesh import Mesh
    from tests.harness.simulated_rooms import Answer, Message, Reply

TICK = 50
HELLO = 250
ALL_ROWS = 4  # every so many hellos, all rows are told, not only what has changed
SUSPECT = 1500
WATCH = 10_000
PAGE = 50  # entries that a reader is given at once


class Node:
    """A process: it can crash and come back, with its disk or a new one.

    Attributes:
        disk: Its log.
        boot: Of how many lives this is.
        up: Whether the process runs.
        stopped_until: It sleeps until then.
        clock: What its wall clock is ahead, in milliseconds.
        doomed: It will crash within its next write.
        halted: Why nothing of its disk counts any more, in this life; empty: nothing is wrong.
        sent: Messages to other nodes.
        sent_bytes: Their bytes.
    """

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh, self.name = mesh, name
        self._disks = count(1)
        self.requests = count(1)
        self.boot = self.sent = self.sent_bytes = 0
        self.up = self.doomed = False
        self.stopped_until = self.clock = 0
        self.disk = Disk(MemberId(name, f"{name}-disk{next(self._disks)}"))
        self.member = self.disk.member
        mesh.network.by_member[self.member] = self

    # -- a life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life, with what is on the disk."""
        mesh = self.mesh
        self.boot += 1
        self.up, self.doomed = True, False
        self.stopped_until = 0
        self.halted = ""
        self.out = Outbox()
        self.ticket = 0
        self._hellos = 0
        self._syncing = 0  # batches that the fsync under way is of
        self._writes: deque[Batch] = deque()
        self._in_flight: dict[int, list[Shard]] = {}
        self.heard: dict[MemberId, int] = {}
        self._told: dict[ShardId, int] = {}  # versions of rows
        self.shards: dict[ShardId, Shard] = {}
        self.rooms: dict[ShardId, Rooms] = {}
        self._seen: dict[ShardId, tuple[int, int, int]] = {}
        for shard in mesh.shards_of(self):
            self._open(shard)
        self.after(int(mesh.random.random() * TICK), self.tick)
        self.after(int(mesh.random.random() * mesh.stagger), self.hello)
        self.after(int(mesh.random.random() * WATCH), self.watch)

    def _open(self, shard_id: ShardId) -> Shard:
        mesh = self.mesh
        row = mesh.register.rows.get(shard_id) if mesh.random.random() < 0.5 else None
        replica = self.disk.open(shard_id)
        self.rooms[shard_id] = Rooms(self.disk.logs[shard_id][: replica.commit])
        shard = self.shards[shard_id] = Shard(
            self.member, replica, row, mesh.options, self.out, mesh.random.random, lambda: bytes(SALT_BYTES)
        )
        return shard

    def crash(self, *, torn: float | None = None, kept: int = 0) -> bool:
        """The process ends, or the machine.

        Args:
            torn: The power goes while the transaction after those kept is written: what part of it is.
            kept: Transactions on their way to the disk that still get there.

        Returns:
            Whether there was a transaction to tear.
        """
        self.up = False
        writes = self._writes
        while kept and writes and self.disk.fits([writes[0]]) and not self.disk.failing:
            self._persist(writes.popleft())
            kept -= 1
        if torn is None or not writes:
            return False
        self.disk.tear(writes[0], torn)
        return True

    def wipe(self) -> None:
        """Come back with an empty disk, and so as somebody else."""
        by_member = self.mesh.network.by_member
        del by_member[self.member]
        self.disk = Disk(MemberId(self.name, f"{self.name}-disk{next(self._disks)}"))
        self.member = self.disk.member
        by_member[self.member] = self

    def halt(self, why: str) -> None:
        """The disk does not do what it should: all that depends on it ends, and is not tried again."""
        self.halted = why
        self.mesh.tally.counts[f"halted: {why}"] += 1
        self.mesh.note(f"{self.name} halts: {why}")
        self.out = Outbox()
        self._writes.clear()
        self.shards.clear()
        for rooms in self.rooms.values():
            rooms.end()

    def halt_shard(self, shard_id: ShardId, why: str) -> None:
        """One shard's part ends here."""
        self.mesh.tally.counts["shard halted"] += 1
        self.mesh.note(f"{self.name} halts its part in shard {shard_id}: {why}")
        self.shards.pop(shard_id, None)
        self.rooms[shard_id].end()

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Do something later, in this life only, and not while stopped."""
        self.mesh.at(self.mesh.now + delay, partial(self._act, self.boot, action))

    def _act(self, boot: int, action: Callable[[], None]) -> None:
        if self.up and self.boot == boot:
            if self.stopped_until > self.mesh.now:
                self.mesh.at(self.stopped_until, partial(self._act, boot, action))
            else:
                action()

    # -- turns ---------------------------------------------------------------------------------------------------

    def hello(self) -> None:
        """Tell others that this member is there, and of rows that they may not know."""
        if self.halted:
            return
        mesh, told = self.mesh, self._told
        self._hellos += 1
        again = self._hellos % ALL_ROWS == 0
        rows = [shard.row for shard in self.shards.values() if shard.row.members]
        news = [row for row in rows if again or told.get(row.shard, 0) < row.version]
        told.update({row.shard: row.version for row in news})
        for other in mesh.peers_of(self):
            mesh.network.send(self, other.member, None)
            for row in news:
                if mesh.concerns(other, row):
                    mesh.network.send(self, other.member, config_of(row))
        self.after(HELLO, self.hello)

    def tick(self) -> None:
        """Let the cores see the time."""
        if self.halted:
            return
        mesh, now, up = self.mesh, self.mesh.now, self._up()
        for shard in list(self.shards.values()):
            try:
                shard.tick(now, up, mesh.wanted(shard.shard))
            except BrokenInvariant as error:
                mesh.broken(self, shard.shard, error)
        self.perform()
        self.after(TICK, self.tick)

    def _up(self) -> set[MemberId]:
        now = self.mesh.now
        return {self.member, *(member for member, at in self.heard.items() if now - at < SUSPECT)}

    def watch(self) -> None:
        """Read the register, which may be old news when it arrives."""
        mesh = self.mesh
        if mesh.register_away_until <= mesh.now:
            rows = [mesh.register.rows[shard] for shard in self.shards if shard in mesh.register.rows]
            self.after(1 + mesh.draw(mesh.weather.register_delay), lambda: self.learn(rows))
        self.after(WATCH, self.watch)

    def learn(self, rows: list[Configuration]) -> None:
        """Rows of the register, as they were."""
        for row in rows:
            self._do(row.shard, partial(Shard.learn, row=row, now=self.mesh.now))

    def receive(self, source: MemberId, data: bytes) -> None:
        """A message of another member."""
        self.heard[source] = self.mesh.now
        if data and not self.halted:
            message = decode_message(data)
            if message.shard not in self.shards and message.shard not in self.rooms:
                self._open(message.shard)
            self._do(message.shard, lambda shard: shard.receive(source, message, self.mesh.now))

    def claimed(self, claim: Claim, row: Configuration | None, *, done: bool) -> None:
        """The register's answer."""

        def answer(shard: Shard) -> None:
            shard.claimed(claim, row, self.mesh.now, done=done)
            if row is not None:
                shard.claim_again(self.mesh.now, self._up())

        self._do(claim.new.shard, answer)

    def found(self, shard_id: ShardId, founders: list[MemberId]) -> None:
        """Bring a shard into being."""
        self._do(shard_id, lambda shard: shard.found(founders))

    def _do(self, shard_id: ShardId, action: Callable[[Shard], None]) -> None:
        shard = self.shards.get(shard_id)
        if shard is None:
            return
        try:
            action(shard)
        except BrokenInvariant as error:
            self.mesh.broken(self, shard_id, error)
        self.perform()

    # -- clients -------------------------------------------------------------------------------------------------

    def submit(self, shard_id: ShardId, message: Message, reply: Reply) -> None:
        """A client wants a message in a room."""
        shard = self.shards.get(shard_id)
        if shard is not None and not shard.row.members and self.member in self.mesh.founders(shard_id):
            shard.found(self.mesh.founders(shard_id))
            self.perform()
        elif shard is not None and shard.phase is Phase.FOLLOWING:
            shard.claim(self.mesh.now, self._up())
            self.perform()
        if shard is None or shard.phase is not Phase.SERVING or shard.sequencer is None:
            reply(Unanswered.ELSEWHERE)
            return
        if self.disk.nearly_full():
            self.mesh.tally.counts["storage_full"] += 1
            reply(Unanswered.FULL)
            return
        rooms = self.rooms[shard_id]

        def answer(answered: Answer) -> None:
            if isinstance(answered, int):
                self.mesh.ledger.acknowledge(self, rooms.committed[message.room][answered - 1])
            reply(answered)

        entry = rooms.submit(shard.sequencer, message, self.mesh.now + self.clock, answer)
        if entry is not None:
            self.out.open_batch().entries.append(entry)
            self.out.touched[shard_id] = shard
            self.perform()

    def ask_head(self, shard_id: ShardId, room: RoomId, answer: Callable[[bool, int, int], None]) -> None:
        """Whether this node is the primary, for sure; the commit of the shard, and the head of the room."""
        shard = self.shards.get(shard_id)
        if shard is None or shard.phase is not Phase.SERVING:
            return
        rooms = self.rooms[shard_id]
        shard.confirm(lambda sure: answer(sure, shard.replica.commit, rooms.head(room)), self.mesh.now)
        self.perform()

    def history(self, shard_id: ShardId, room: RoomId, offset: int) -> list[Entry] | None:
        """What a room has above a place, as far as this node knows; None: it knows less than that."""
        rooms = self.rooms.get(shard_id)
        if rooms is None or offset > rooms.head(room):
            return None
        return rooms.committed.get(room, [])[offset : offset + PAGE]

    # -- effects -------------------------------------------------------------------------------------------------

    def perform(self) -> None:
        """Do what the shards want done."""
        out = self.out
        while out.touched or out.batch:
            self._flush(out)
        if out.sends or out.claims or out.reads or out.announced:
            self._pass_on(out)
            for queue in (out.sends, out.claims, out.reads, out.announced):
                queue.clear()
        if out.committed or out.ended or out.served or out.forgotten:
            self._conclude(out)
        if out.confirmed:
            confirmed = list(out.confirmed)
            out.confirmed.clear()
            for done, answer in confirmed:
                done(answer)
        if self.mesh.thorough:
            self._compare()

    def _flush(self, out: Outbox) -> None:
        mesh = self.mesh
        batch, touched = out.batch, list(out.touched.values())
        out.batch, out.touched = None, {}
        ticket: int | None = None
        if batch is not None:
            self.ticket += 1
            ticket = batch.ticket = self.ticket
            self._in_flight[ticket] = touched
            batch.commits = {shard.shard: shard.replica.commit for shard in touched}
            self._write(batch)
        for shard in touched:
            shard.flush(ticket, mesh.now)

    def _pass_on(self, out: Outbox) -> None:
        mesh = self.mesh
        for member, message in out.sends:
            if isinstance(message, Ack):
                mesh.ledger.check_promise(self, message)
            mesh.network.send(self, member, message)
        for claim in out.claims:
            mesh.ask(self, claim)
        for read in out.reads:
            self.after(mesh.draw(mesh.weather.sync), partial(self._read, read))
        for row in out.announced:
            mesh.ledger.lead(self, row)
            for other in mesh.peers_of(self):
                if mesh.concerns(other, row):
                    mesh.network.send(self, other.member, config_of(row))

    def _conclude(self, out: Outbox) -> None:
        mesh = self.mesh
        committed, ended, served = list(out.committed), list(out.ended), list(out.served)
        for queue in (out.committed, out.lost, out.ended, out.served, out.forgotten):
            queue.clear()
        for entry in committed:
            mesh.ledger.commit(self, entry)
            self.rooms[entry.shard].apply(entry)
        for shard_id in ended:
            self.rooms[shard_id].end()
        for shard_id in served:
            self.rooms[shard_id].serve()
            mesh.served(self, shard_id)

    def _compare(self) -> None:
        """Promises, rows and commits never fall."""
        seen = self._seen
        for shard_id, shard in self.shards.items():
            replica = shard.replica
            now = replica.promised, shard.row.version, replica.commit
            before = seen.get(shard_id)
            if before != now:
                if before is not None:
                    self.mesh.ledger.check_growth(self, shard_id, before, now)
                seen[shard_id] = now

    # -- the disk ------------------------------------------------------------------------------------------------

    def _write(self, batch: Batch) -> None:
        self._writes.append(batch)
        if not self._syncing:
            self._sync()

    def _sync(self) -> None:
        """Write all that waits, and make it durable together."""
        mesh = self.mesh
        takes = 1 + mesh.draw(mesh.weather.sync)
        if self.disk.slow_until > mesh.now:
            takes += 1000 + int(mesh.random.random() * 2000)
            mesh.tally.counts["slow fsync"] += 1
        self._syncing = len(self._writes)
        self.after(takes, self._synced)
        if self.doomed:
            mesh.at(mesh.now + int(mesh.random.random() * takes), partial(self._crash_within, self.boot))

    def _crash_within(self, boot: int) -> None:
        mesh = self.mesh
        if self.up and self.boot == boot and self.doomed:
            mesh.crash(self)
            mesh.at(mesh.now + 50 + int(mesh.random.random() * 6000), partial(mesh.restart, self))

    def _synced(self) -> None:
        if self.halted:
            return
        batches = [self._writes.popleft() for _ in range(self._syncing)]
        self._syncing = 0
        if self.disk.failing:
            self.disk.failing = False
            if self.mesh.random.random() < 0.5 and self.disk.fits(batches[:1]):
                self._persist(batches[0])  # it was written nevertheless
            self.failed(batches)
            return
        if not self.disk.fits(batches):
            self.halt("its disk is full")
            return
        for batch in batches:
            self._persist(batch)
        if self._writes:
            self._sync()
        self.persisted(batches)

    def _persist(self, batch: Batch) -> None:
        self.mesh.ledger.check_truncations(self, batch)
        self.disk.write(batch)

    def failed(self, batches: list[Batch]) -> None:  # noqa: ARG002 - of what was not written nothing is tried again
        """An fsync has failed: what it was to make durable may be there or not."""
        self.halt("an fsync failed")

    def persisted(self, batches: list[Batch]) -> None:
        """They are durable."""
        for batch in batches:
            for shard in self._in_flight.pop(batch.ticket):
                if self.shards.get(shard.shard) is shard:
                    try:
                        shard.persisted(batch.ticket, self.mesh.now)
                    except BrokenInvariant as error:
                        self.mesh.broken(self, shard.shard, error)
        self.perform()

    def _read(self, read: ReadLog) -> None:
        log = self.disk.logs[read.shard]
        entries = log[read.after : read.after + read.limit]
        chain = log[read.after - 1].chain if read.after else GENESIS
        wires = [entry.wire for entry in entries]
        self._do(read.shard, lambda shard: shard.log_read(read, chain, wires, self.mesh.now))


def names(members: Iterable[MemberId]) -> str:
    """Members for people."""
    return " ".join(member.disk.replace("-disk1", "") for member in members)

"""The log as a whole against a model of it, over restarts, and over kills with a transaction on its way."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from router import checkpointer, journal_writer, known_keys, log_reader, retention, snapshot_export, snapshot_import
from router import log as log_module
from router.completions import (
    CasDone,
    Completion,
    Dropped,
    Halted,
    HistoryRead,
    KeysFound,
    Persisted,
    RoomLoaded,
    ShardRead,
    ShardRun,
    SnapshotRead,
    SnapshotTaken,
)
from router.entry import GENESIS, SALT_BYTES, Entry, Kind, make
from router.events import Batch, Configuration, History, Promise, Truncate
from router.ids import MemberId, RoomId, dedupe_key
from router.log import Log, LogOptions
from router.log_tools import export, export_quarantine, verify
from router.retention import Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from router.events import RoomRecord

ROOMS: Final = [RoomId("default", "a"), RoomId("default", "b"), RoomId("other", "a")]
SHARDS: Final = [1, 1, 2]  # of these rooms
SENDER: Final = b"s" * 12
WAIT_SECONDS: Final = 20.0
SECOND_MS: Final = 1000
LONG_SECONDS: Final = 1 << 30
UNWANTED: Final = Configuration(1, 1 << 40, 1, MemberId("", ""), ())

Answer = TypeVar("Answer")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Small slices, pages and levels, so that a few entries pass their bounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)  # the machine changes it
        patch.setattr(log_module, "REST_SECONDS", 0.0)
        patch.setattr(log_module, "SLICE_ENTRIES", 40)
        patch.setattr(log_module, "UNFILED_ENTRIES", 400)
        patch.setattr(log_reader, "CHUNKS_AT_ONCE", 2)
        patch.setattr(journal_writer, "CARRY_BYTES", 2000)
        patch.setattr(snapshot_export, "PART_BYTES", 3000)
        patch.setattr(snapshot_import, "shard_of", lambda room, _: SHARDS[ROOMS.index(room)])
        patch.setattr(retention, "CHUNKS_AT_ONCE", 3)
        patch.setattr(retention, "ROOMS_AT_ONCE", 2)
        patch.setattr(retention, "PLACES_AT_ONCE", 2)
        patch.setattr(known_keys, "FAN", 3)
        patch.setattr(known_keys, "PAGE_RECORDS", 8)
        patch.setattr(known_keys, "STEP_RECORDS", 16)
        patch.setattr(checkpointer, "CHECKPOINT_BYTES", 200_000)
        patch.setattr(checkpointer, "LONG_WAL_BYTES", 400_000)
        yield


@dataclass
class Shard:
    """What the model knows of a shard: its entries, and how many of them are known to be committed, or filed."""

    entries: list[Entry] = field(default_factory=list)
    durable: int = 0
    noted: int = 0  # known on disk to be committed
    committed: int = 0  # said to be committed, and so to be filed
    epoch: int = 1
    quarantined: list[Entry] = field(default_factory=list)
    before: list[Entry] | None = None  # until the batch on its way, which truncates, is durable


class Learner:
    """Another log, which is given a snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = threading.Event()
        self.log = Log.open(folder, LogOptions(durable=False), self.told.set)

    def wait(self, kind: type[Answer]) -> Answer:
        while True:
            while self.log.completions:
                done = self.log.completions.popleft()
                assert not isinstance(done, Halted), done
                if isinstance(done, kind):
                    return done
            self.told.clear()
            if not self.log.completions:
                assert self.told.wait(WAIT_SECONDS), "the learner's log does not answer"

    def write(self, shard: int) -> None:
        """What nobody commits."""
        chain, entries = GENESIS, []
        room = ROOMS[SHARDS.index(shard)]
        for lsn in range(1, 4):
            entry = make(
                shard, lsn, 1, room, lsn, 0, Kind.MESSAGE, SENDER, "", 1, bytes(SALT_BYTES), b"own", b"", chain
            )  # fmt: skip
            chain = entry.chain
            entries.append(entry)
        self.log.append(Batch(1, [Promise(shard, 1)], [], entries))
        self.wait(Persisted)

    def take(self, shard: int, parts: list[bytes], *, hasty: bool) -> None:
        for part in parts[:-1]:
            self.log.import_shard(shard, part, None)
            self.wait(SnapshotTaken)
        self.log.import_shard(shard, parts[-1], None)
        if not hasty:
            self.wait(SnapshotTaken)

    def kill(self) -> None:
        with self.log._checkpointer._one:
            shutil.copytree(self.folder, self.folder.with_name(self.folder.name + "-killed"))
        self.log.close()
        self.folder = self.folder.with_name(self.folder.name + "-killed")
        self.log = Log.open(self.folder, LogOptions(durable=False), self.told.set)


class Machine(RuleBasedStateMachine):
    """One log, driven as the router drives it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.shards = {1: Shard(), 2: Shard()}
        self.floors = dict.fromkeys(ROOMS, 0)
        self.clock = 0
        self.ticket = 0
        self.learners = 0
        self.told = threading.Event()
        self.log: Log

    @override
    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
        shutil.rmtree(self.root)

    # -- the log -------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.root / str(self.lives)

    @initialize(prompt=st.booleans())
    def open(self, *, prompt: bool) -> None:
        log_module.FILE_AFTER_SECONDS = 0.0 if prompt else 1e6  # type: ignore[misc]
        self.log = Log.open(self.folder, LogOptions(durable=False), self.told.set)

    def wait(self, kind: type[Answer], wanted: Callable[[Answer], bool]) -> Answer:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            while self.log.completions:
                done: Completion = self.log.completions.popleft()
                assert not isinstance(done, Halted), done
                if isinstance(done, kind) and wanted(done):
                    return done
            self.told.clear()
            if not self.log.completions:
                assert self.told.wait(deadline - time.monotonic()), "the log does not answer"

    def reach(self) -> None:
        """Until the writer has done what it was told before."""
        claim = object()
        self.log.cas(99, UNWANTED, claim)  # lost, so it writes nothing
        self.wait(CasDone, lambda done: done.token is claim)

    def file(self) -> None:
        """Until all is filed that may be."""
        log_module.FILE_AFTER_SECONDS = 0.0  # type: ignore[misc]
        self.reach()
        while self.log._backlog.count:
            self.reach()
        self.reach()

    def make(self, room: int, count: int, data: bytes, kind: Kind = Kind.MESSAGE) -> list[Entry]:
        shard = self.shards[SHARDS[room]]
        made = []
        for _ in range(count):
            self.clock += 1
            sequence = sum(entry.room == ROOMS[room] for entry in shard.entries) + 1
            chain = shard.entries[-1].chain if shard.entries else GENESIS
            entry = make(
                SHARDS[room], len(shard.entries) + 1, shard.epoch, ROOMS[room], sequence, 0, kind, SENDER,
                f"id-{sequence}", self.clock * SECOND_MS, bytes(SALT_BYTES), data, b"", chain,
            )  # fmt: skip
            shard.entries.append(entry)
            made.append(entry)
        return made

    def visible(self, room: int) -> list[Entry]:
        """What the tables must have of a room once all is filed that may be."""
        shard = self.shards[SHARDS[room]]
        floor = self.floors[ROOMS[room]]
        return [e for e in shard.entries[: shard.committed] if e.room == ROOMS[room] and e.sequence > floor]

    def append_nowait(self, room: int, count: int, data: bytes, kind: Kind = Kind.MESSAGE) -> None:
        self.ticket += 1
        commits = {number: shard.committed for number, shard in self.shards.items() if shard.committed}
        number = SHARDS[room]
        made = self.make(room, count, data, kind)
        self.log.append(Batch(self.ticket, [Promise(number, self.shards[number].epoch)], [], made, commits))

    def truncate_nowait(self, room: int, share: float, count: int) -> None:
        """Another primary's entries take the places of some that are not committed."""
        self.ticket += 1
        number = SHARDS[room]
        shard = self.shards[number]
        lsn = shard.committed + round((len(shard.entries) - shard.committed) * share)
        shard.before = shard.before or list(shard.entries)
        shard.quarantined += shard.entries[lsn:]
        del shard.entries[lsn:]
        shard.durable = min(shard.durable, lsn)
        shard.epoch += 1
        made = self.make(room, count, b"other")
        commits = {number: shard.committed} if shard.committed else {}
        batch = Batch(self.ticket, [Promise(number, shard.epoch)], [Truncate(number, lsn)], made, commits)
        self.log.append(batch)

    def persist(self) -> None:
        self.wait(Persisted, lambda done: done.ticket == self.ticket)
        for shard in self.shards.values():
            shard.durable, shard.noted, shard.before = len(shard.entries), shard.committed, None

    # -- what is done to it --------------------------------------------------------------------------------------

    @rule(
        room=st.integers(0, 2), count=st.sampled_from([1, 2, 20, 150]), size=st.sampled_from([10, 2000]),
        share=st.sampled_from([0.0, 0.3, 1.0]),
    )  # fmt: skip
    def append(self, room: int, count: int, size: int, share: float) -> None:
        self.append_nowait(room, count, b"x" * size)
        self.persist()
        self.commit(SHARDS[room], share)

    @rule(room=st.integers(0, 2), counts=st.lists(st.sampled_from([1, 1, 2, 20]), min_size=3, max_size=8))
    def append_chunks(self, room: int, counts: list[int]) -> None:
        """Each of these is filed before the next one, so that chunks are small and many."""
        for count in counts:
            self.append(room, count, 10, 1.0)
            self.file()

    def commit(self, number: int, share: float) -> None:
        shard = self.shards[number]
        upto = shard.committed + round((shard.durable - shard.committed) * share)
        if upto > shard.committed:
            self.log.committed(shard.entries[shard.committed : upto])
            shard.committed = upto

    @rule(
        room=st.integers(0, 2), ahead=st.sampled_from([0, 0, 3]), share=st.sampled_from([0.0, 0.5, 1.0]),
        count=st.sampled_from([0, 1, 20]), twice=st.booleans(),
    )  # fmt: skip
    def truncate(self, room: int, ahead: int, share: float, count: int, *, twice: bool) -> None:
        """Perhaps in one commit with what is truncated, and with what is truncated again."""
        if ahead:
            self.append_nowait(room, ahead, b"ahead")
        self.truncate_nowait(room, share, count)
        if twice:
            self.truncate_nowait(room, share, count)
        self.persist()

    @rule()
    def commit_all(self) -> None:
        for number in self.shards:
            self.commit(number, 1.0)

    @rule(prompt=st.booleans())
    def pace(self, *, prompt: bool) -> None:
        log_module.FILE_AFTER_SECONDS = 0.0 if prompt else 1e6  # type: ignore[misc]

    @rule(seconds=st.sampled_from([1, 30, 200]), room=st.integers(0, 2))
    def retain(self, seconds: int, room: int) -> None:
        self.file()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("router.log.time.time", lambda: self.clock)
            self.log.retain(lambda of: Keep(seconds) if of == ROOMS[room] else Keep(), LONG_SECONDS)
        self.reach()
        while self.log._retention.busy:
            self.reach()
        before = self.visible(room)
        floor = self.record(room).floor
        assert floor >= self.floors[ROOMS[room]]
        self.floors[ROOMS[room]] = floor
        gone = [entry for entry in before if entry.sequence <= floor]
        assert all(entry.ts < (self.clock - seconds) * SECOND_MS for entry in gone)
        kept = self.visible(room)
        limit = (self.clock - seconds) * SECOND_MS
        assert sum(entry.ts < limit for entry in kept) < 128  # a chunk goes as a whole

    @rule()
    def restart(self) -> None:
        self.log.close()
        self.reopen(0)

    @rule(room=st.integers(0, 2), count=st.sampled_from([0, 1, 200]), share=st.none() | st.sampled_from([0.0, 0.5]))
    def kill(self, room: int, count: int, share: float | None) -> None:
        """Take the files as they are while a batch is written and filing goes on."""
        if count and share is not None:
            self.truncate_nowait(room, share, count)
        elif count:
            self.append_nowait(room, count, b"x" * 100)
        with self.log._checkpointer._one:
            shutil.copytree(self.folder, self.root / str(self.lives + 1))
        self.log.close()
        self.lives += 1
        self.reopen(SHARDS[room] if count else 0)

    def reopen(self, in_flight: int) -> None:
        """Open it again; entries of shard `in_flight` that nobody was told of may be there."""
        self.log = Log.open(self.folder, LogOptions(durable=False), self.told.set)
        recovered = self.log.recovered
        for number, shard in self.shards.items():
            if not shard.durable and number not in recovered.shards:
                shard.entries.clear()
                continue
            tail = recovered.shards[number]
            before, shard.before = shard.before, None
            if before and (tail.lsn, tail.chain) == (len(before), before[-1].chain):  # it was not truncated yet
                shard.entries, shard.durable = before, len(before)
                kept = {entry.chain for entry in before}
                shard.quarantined = [entry for entry in shard.quarantined if entry.chain not in kept]
            assert shard.durable <= tail.lsn <= len(shard.entries)
            assert number == in_flight or tail.lsn == shard.durable
            del shard.entries[tail.lsn :]
            assert tail.chain == (shard.entries[-1].chain if shard.entries else GENESIS)
            assert shard.noted <= tail.commit <= shard.committed
            shard.durable, shard.noted, shard.committed = tail.lsn, tail.commit, tail.commit
            found = [entry.wire for entry in recovered.unfiled if entry.shard == number]
            assert found == [entry.wire for entry in shard.entries[tail.commit :]]
            shard.entries[tail.commit :] = [entry for entry in recovered.unfiled if entry.shard == number]

    # -- what must hold ------------------------------------------------------------------------------------------

    def record(self, room: int) -> RoomRecord:
        self.log.load_room(ROOMS[room])
        return self.wait(RoomLoaded, lambda done: done.record.room == ROOMS[room]).record

    def read(self, room: int, since: int | None, limit: int, *, reverse: bool) -> list[bytes]:
        token = object()
        self.log.history(History(ROOMS[room], since, limit, reverse=reverse, max_bytes=1 << 30), token)
        result = self.wait(HistoryRead, lambda done: done.token is token).result
        assert isinstance(result, list)
        return [entry.wire for entry in result]

    @rule(room=st.integers(0, 2), since=st.none() | st.integers(0, 400), limit=st.sampled_from([1, 7, 100, 10_000]))
    def history(self, room: int, since: int | None, limit: int) -> None:
        self.file()
        entries = self.visible(room)
        on = [entry.wire for entry in entries if since is None or entry.sequence > since]
        assert self.read(room, since, limit, reverse=False) == on[:limit]
        back = [entry.wire for entry in reversed(entries) if since is None or entry.sequence < since]
        assert self.read(room, since, limit, reverse=True) == back[:limit]

    @rule(room=st.integers(0, 2))
    def find(self, room: int) -> None:
        self.file()
        shard = self.shards[SHARDS[room]]
        filed = [e.sequence for e in shard.entries[: shard.committed] if e.room == ROOMS[room]]
        keys = [dedupe_key(ROOMS[room], SENDER, f"id-{sequence}") for sequence in range(1, len(filed) + 3)]
        token = object()
        self.log.find_keys(keys, token)
        known = self.wait(KeysFound, lambda done: done.token is token).known
        assert [key.sequence for key in known] == filed
        assert self.record(room).sequence == len(filed)

    @rule(
        number=st.sampled_from([1, 2]), after=st.integers(0, 400), limit=st.sampled_from([1, 7, 300, 10_000]),
        size=st.sampled_from([1, 5000, 1 << 30]),
    )  # fmt: skip
    def read_shard(self, number: int, after: int, limit: int, size: int) -> None:
        shard = self.shards[number]
        token = object()
        self.log.read_shard(number, after, limit, size, token)
        result = self.wait(ShardRead, lambda done: done.token is token).result
        following = shard.entries[after : shard.committed]
        if isinstance(result, Dropped):
            gone = shard.entries[after : result.upto]
            assert result.upto <= shard.committed
            assert any(entry.sequence <= self.floors[entry.room] for entry in gone)
            return
        assert isinstance(result, ShardRun)
        if after > shard.committed:
            assert result == ShardRun(b"", ())
            return
        assert result.chain == (shard.entries[after - 1].chain if after else GENESIS)
        assert result.wires == [entry.wire for entry in following[: len(result.wires)]]
        assert len(result.wires) <= limit
        if any(self.floors.values()):
            return
        taken = sum(len(wire) for wire in result.wires)
        more = following[len(result.wires) : limit]
        assert not more or (result.wires and taken + len(more[0].wire) > size)

    @rule(number=st.sampled_from([1, 2]), share=st.sampled_from([0.0, 0.5, 1.0]), hasty=st.booleans())
    def teach(self, number: int, share: float, *, hasty: bool) -> None:
        """A learner that has a log of its own takes a snapshot, and is killed when it has that much of it.

        If that is hasty, it is in the midst of a part.
        """
        self.file()
        shard = self.shards[number]
        parts = list(self.export(number))
        taken = parts[: max(1, round(len(parts) * share))]
        learner = Learner(self.root / f"learner-{self.learners}")
        self.learners += 1
        learner.write(number)
        learner.take(number, taken, hasty=hasty)
        learner.kill()
        tail = learner.log.recovered.shards[number]
        own = [entry for entry in learner.log.recovered.unfiled if entry.data == b"own"]
        if own:
            assert hasty
            assert (len(taken), len(own), tail.lsn) == (1, 3, 3)
        elif len(taken) == len(parts) and (tail.lsn or not hasty):
            chain = shard.entries[tail.lsn - 1].chain if tail.lsn else GENESIS
            assert (tail.lsn, tail.chain) == (shard.committed, chain)
            self.compare(learner, number)
        else:
            assert tail.lsn == 0
        assert verify(learner.folder).findings == ()
        learner.log.close()

    def export(self, number: int) -> Iterator[bytes]:
        name = object()
        while True:
            self.log.export_shard(number, name, name)
            part = self.wait(SnapshotRead, lambda done: done.token is name).result
            assert isinstance(part, bytes)
            if not part:
                return
            yield part

    def compare(self, learner: Learner, number: int) -> None:
        """What the learner has of its rooms is what is here."""
        for room in (room for room in range(3) if SHARDS[room] == number):
            query = History(ROOMS[room], 0, 10_000, reverse=False, max_bytes=1 << 30)
            learner.log.history(query, None)
            result = learner.wait(HistoryRead).result
            assert isinstance(result, list)
            assert [entry.wire for entry in result] == [entry.wire for entry in self.visible(room)]
            learner.log.load_room(ROOMS[room])
            assert learner.wait(RoomLoaded).record == self.record(room)

    @rule()
    def verify(self) -> None:
        self.reach()
        assert verify(self.folder).findings == ()
        aside = {(row["shard"], row["lsn"], row["epoch"]) for row in export_quarantine(self.folder)}
        assert aside == {(e.shard, e.lsn, e.epoch) for shard in self.shards.values() for e in shard.quarantined}
        for room in range(3):
            site, channel = ROOMS[room]
            shard = self.shards[SHARDS[room]]
            there = [
                e.sequence for e in shard.entries if e.room == ROOMS[room] and e.sequence > self.floors[ROOMS[room]]
            ]
            assert [row["sequence"] for row in export(self.folder, site=site, channel=channel)] == there

    @invariant()
    def works(self) -> None:
        if hasattr(self, "log"):
            assert self.log.fault is None


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

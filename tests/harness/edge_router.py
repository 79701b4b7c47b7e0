"""A shard as edges see it: a log that is the truth, and members that are its primary or believe so."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from router.entry import LAST_VISIBLE, Entry, Kind, make
from router.events import Away, Configuration, Duplicate, History, Page, Refusal, RoomRecord, Submit
from router.ids import MemberId, Place, RoomId
from router.room import RoomCache, RoomState
from router.room_values import change, removes_history
from router.serving import Metas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.marks import Reader
    from tests.harness.edge_world import Node

SHARD = 7


@dataclass
class Truth:
    """What is committed, and who is primary."""

    primary: str
    epoch: int = 1
    logs: dict[tuple[RoomId, int], list[Entry]] = field(default_factory=lambda: defaultdict(list))
    generations: dict[RoomId, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    floors: dict[RoomId, int] = field(default_factory=lambda: defaultdict(int))
    dropped: set[tuple[RoomId, int, int]] = field(default_factory=set)  # MARKS that no log has any more

    def log(self, room: RoomId) -> list[Entry]:
        return self.logs[room, self.generations[room]]

    def head(self, room: RoomId) -> Place:
        log = self.log(room)
        return Place(log[-1].sequence, log[-1].meta_n) if log else Place(0, 0)

    def row(self) -> Configuration:
        member = MemberId(self.primary, "disk")
        return Configuration(SHARD, self.epoch, self.epoch, member, (member,))

    def values(self, room: RoomId) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for entry in self.log(room):
            if entry.kind == Kind.META:
                change(values, entry)
        return values


class FakeRouter:
    """A member of the shard, that may be its primary, or believe so; see `serving.Source`."""

    def __init__(self, node: Node, truth: Truth) -> None:
        self.node, self.truth = node, truth
        self.serving = False
        self.epoch = 0
        self.mapping = 1
        self.cache = RoomCache(1 << 30, 1 << 30)
        self.tail: list[Entry] = []
        self.repeats: dict[int, list[Submit]] = {}
        self.confirming: list[tuple[int, Callable[[bool], None]]] = []

    @property
    def is_primary(self) -> bool:
        return self.serving and self.truth.primary == self.node.name and self.epoch == self.truth.epoch

    # -- serving.Source

    def shard_of(self, _room: RoomId) -> int:
        return SHARD

    def row(self, _shard: int) -> Configuration | None:
        return self.node.row

    def serves(self, _shard: int) -> bool:
        return self.serving

    def confirm(self, _shard: int, done: Callable[[bool], None]) -> None:
        self.confirming.append((self.node.world.now + self.node.world.random.randrange(20), done))

    def state(self, room: RoomId) -> RoomState | None:
        return self.cache.get(room)

    def open_room(self, room: RoomId, done: Callable[[RoomState | Away], None]) -> None:
        done(self._state(room) if self.serving else Away.MOVED)

    def head(self, state: RoomState) -> Place:
        hidden = [entry for entry in self.tail if entry.room == state.room and entry.kind > LAST_VISIBLE]
        return Place(state.committed, state.meta_n - len(hidden))

    def submit(self, submit: Submit) -> None:
        if not self.serving:
            submit.done(Away.MOVED)
            return
        known = self._known(submit)
        if known is not None:
            self._repeat(submit, known)
            return
        if submit.probe:
            submit.done(Refusal.NEW)
            return
        state = self._state(submit.room)
        visible = submit.kind <= LAST_VISIBLE
        state.sequence += visible
        state.meta_n += not visible
        world = self.node.world
        world.made += 1
        self.tail.append(
            make(
                SHARD,
                world.made,
                self.epoch,
                submit.room,
                state.sequence,
                state.meta_n,
                submit.kind,
                submit.sender,
                submit.cmid,
                1000 + world.made,
                world.random.randbytes(16),
                submit.data,
                submit.info,
                bytes(16),
                b"",
                submit.done,
            )
        )

    def probe(self, submit: Submit) -> None:
        self.submit(submit)

    def history(self, state: RoomState, read: History, done: Callable[[Page | Away], None]) -> None:
        entries = [e for e in state.entries if e.sequence > state.floor]
        if read.reverse:
            before = state.committed + 1 if read.since is None else read.since
            entries = [e for e in reversed(entries) if e.sequence < before]
        else:
            entries = [e for e in entries if e.sequence > (read.since or 0)]
        page = Page(state.show(entries[: read.limit]), state.floor, state.committed)
        self.node.later(partial(done, page))

    def metas(self, state: RoomState, after: int, limit: int, done: Callable[[Metas | Away], None]) -> None:
        generation, head = state.generation, self.head(state).meta_n
        found = [
            entry
            for entry in self.truth.logs[state.room, generation]
            if entry.kind > LAST_VISIBLE
            and after < entry.meta_n <= head
            and (state.room, generation, entry.meta_n) not in self.truth.dropped
        ]
        metas = Metas(found[:limit], found[limit - 1].meta_n) if len(found) > limit else Metas(found, head)
        self.node.later(partial(done, metas))

    def mark(self, reader: Reader, done: Callable[[int | Away], None]) -> None:
        done(len(reader.user))

    # -- what happens to it

    def take_over(self, inherited: Sequence[Entry]) -> None:
        """It is the primary from now on; what it inherited is committed first."""
        truth, self.epoch = self.truth, self.truth.epoch
        self.forget()
        self.tail = [msgspec.structs.replace(entry, origin=None) for entry in inherited]
        for entry in self.tail:
            state = self._state(entry.room)
            state.sequence, state.meta_n = entry.sequence, entry.meta_n
        self.node.serving.unserved(SHARD)
        self.serving = truth.primary == self.node.name
        self.commit(len(self.tail))
        self.node.edge.relocated(SHARD, self.node.world.now)

    def step_down(self) -> None:
        """It has heard that it is not the primary any more."""
        self.serving = False
        self.node.serving.unserved(SHARD)
        tail, self.tail = self.tail, []
        for entry in tail:
            if entry.origin is not None:
                entry.origin(Away.MOVED)
        for submits in self.repeats.values():
            for submit in submits:
                submit.done(Away.MOVED)
        self.forget()
        confirming, self.confirming = self.confirming, []
        for _, done in confirming:
            done(False)  # noqa: FBT003 - as `Shard.confirm` does
        self.node.edge.relocated(SHARD, self.node.world.now)

    def forget(self) -> None:
        self.cache = RoomCache(1 << 30, 1 << 30)
        self.repeats = {}

    def commit(self, count: int) -> None:
        """So many entries of the tail are on all disks."""
        if not self.is_primary or not count:
            return
        entries, self.tail = self.tail[:count], self.tail[count:]
        for entry in entries:
            self.truth.log(entry.room).append(entry)
            state = self._state(entry.room)
            if entry.kind <= LAST_VISIBLE:
                self.cache.extend(state, entry)
            elif entry.kind == Kind.META:
                state.note_values(entry)
                if removes_history(entry):
                    self.truth.floors[entry.room] = max(self.truth.floors[entry.room], entry.sequence)
        self.node.committed(entries)
        for entry in entries:
            for submit in self.repeats.pop(entry.lsn, ()):
                submit.done(Duplicate(entry.sequence))

    def turn(self) -> None:
        """Members answer those round trips that are over; of a deposed primary none ever is."""
        if not self.is_primary:
            return
        due = [done for at, done in self.confirming if at <= self.node.world.now]
        self.confirming = [(at, done) for at, done in self.confirming if at > self.node.world.now]
        for done in due:
            done(True)  # noqa: FBT003 - as `Shard.confirm` does

    def _state(self, room: RoomId) -> RoomState:
        state = self.cache.get(room)
        if state is None:
            truth = self.truth
            record = RoomRecord(room, truth.generations[room], floor=truth.floors[room])
            state = RoomState(SHARD, record)
            self.cache.add(state)
            for entry in truth.log(room):
                if entry.kind <= LAST_VISIBLE:
                    state.sequence = entry.sequence
                    self.cache.extend(state, entry)
                else:
                    state.meta_n = entry.meta_n
                    if entry.kind == Kind.META:
                        state.note_values(entry)
        return state

    def _known(self, submit: Submit) -> Entry | None:
        for generation in range(1, self.truth.generations[submit.room] + 1):
            for entry in self.truth.logs[submit.room, generation]:
                if (entry.sender, entry.cmid) == (submit.sender, submit.cmid):
                    return entry
        for entry in self.tail:
            if (entry.room, entry.sender, entry.cmid) == (submit.room, submit.sender, submit.cmid):
                return entry
        return None

    def _repeat(self, submit: Submit, first: Entry) -> None:
        if first.data != submit.data:
            submit.done(Refusal.CONFLICT)
        elif any(entry is first for entry in self.tail):
            self.repeats.setdefault(first.lsn, []).append(submit)
        else:
            submit.done(Duplicate(first.sequence))

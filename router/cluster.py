"""Composes the cores of a node: requests and the disk's answers go in, effects for the driver come out.  Sans-I/O.

Life of a shard on its primary: idle -> claiming (compare-and-set of a higher epoch) -> taking over (the promise and
the EPOCH entry go to disk) -> serving. Life of a room: unknown -> loading -> in memory. Requests for what is not ready
yet wait here, in order, at most `max_waiting` of them.

The order of effects binds: the batch must be durable before `persisted` is told of its ticket, and nothing is
acknowledged or published before it comes out in `Effects.committed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from router.entry import LAST_VISIBLE, SALT_BYTES, Entry, Kind
from router.errors import BrokenInvariant
from router.events import (
    Away,
    Batch,
    Claim,
    Configuration,
    Duplicate,
    KnownKey,
    Outcome,
    Recovered,
    Refusal,
    RoomRecord,
    Submit,
    fingerprint,
)
from router.ids import MemberId, RoomId, ShardId, dedupe_key, stream_epoch
from router.keyfilter import KeyFilter, key_number
from router.marks import Marks
from router.placement import shard_of
from router.replica import Replica
from router.room import RoomCache, RoomState
from router.sequencer import Sequencer

MAX_CMID = 64  # characters; a UUID has 36

Opened = Callable[[RoomState | Away], None]


@dataclass(slots=True, frozen=True)
class ClusterOptions:
    """What the cores need to know of the configuration.

    Attributes:
        shards: S; fixed when the cluster was born.
        min_sync: Members that must hold an entry before it is committed.
        cache_bytes: Bound of the newest entries kept in memory.
        cache_rooms: Rooms without members that are kept in memory.
        dedupe_capacity: Keys for which the filter of known message ids is made.
        max_waiting: Requests that may wait for a shard, a room, a key or the disk; more are answered OVERLOADED.
    """

    shards: int = 128
    min_sync: int = 1
    cache_bytes: int = 64 << 20
    cache_rooms: int = 10_000
    dedupe_capacity: int = 4_000_000
    max_waiting: int = 100_000


@dataclass(slots=True)
class Effects:
    """What the driver performs, in the order of the fields.

    Attributes:
        batch: Goes to disk; None: nothing to write.
        claims: Go to the register.
        load: Rooms to be read from disk, answered by `Cluster.loaded`.
        find: Dedupe keys to be looked up on disk, answered by `Cluster.found`.
        committed: Entries to be answered (`entry.origin`), published and filed, in this order.
        outcomes: Submits that have an outcome without a new entry.
        opened: Rooms that were asked for and are ready, or the reason why they are not.
    """

    batch: Batch | None = None
    claims: list[Claim] = field(default_factory=list)
    load: list[RoomId] = field(default_factory=list)
    find: list[bytes] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)
    outcomes: list[tuple[Callable[[Outcome], None], Outcome]] = field(default_factory=list)
    opened: list[tuple[Opened, RoomState | Away]] = field(default_factory=list)


class Phase(Enum):
    """Where a shard is on its way to serve."""

    IDLE = "idle"
    CLAIMING = "claiming"
    TAKING_OVER = "taking over"
    SERVING = "serving"


class _Shard:
    __slots__ = ("phase", "replica", "sequencer", "waiting")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.phase = Phase.IDLE
        self.sequencer: Sequencer | None = None
        self.waiting: list[RoomId] = []  # rooms whose requests wait for this shard


class _Waiting:
    """Requests for a room that can't be served yet, in order."""

    __slots__ = ("key", "queue")

    def __init__(self) -> None:
        self.queue: deque[Submit | Opened] = deque()
        self.key: bytes | None = None  # the key that the first submit waits for


@dataclass(slots=True, frozen=True)
class ClusterStatistics:
    """A moment of the cores."""

    rooms: int
    cached_bytes: int
    shards_serving: int
    waiting: int
    uncommitted: int
    recent_keys: int


class Cluster:
    """The cores of one node.

    Args:
        me: This member.
        birth: The cluster's birth id; part of every stream epoch.
        options: Bounds.
        recovered: What the log held when it was opened.
        random_bytes: Gives so many unpredictable bytes.
    """

    def __init__(
        self, me: MemberId, birth: str, options: ClusterOptions, recovered: Recovered,
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self.me, self.birth, self.options = me, birth, options
        self.rooms = RoomCache(options.cache_bytes, options.cache_rooms)
        self.marks = Marks()
        self._random_bytes = random_bytes
        self._configurations = dict(recovered.configurations)
        uncommitted: dict[ShardId, list[Entry]] = {}
        for entry in recovered.unfiled:
            if entry.lsn > recovered.shards[entry.shard].commit:
                uncommitted.setdefault(entry.shard, []).append(entry)
        self._shards: dict[ShardId, _Shard] = {
            shard: _Shard(Replica(shard, tail, uncommitted.get(shard, ()))) for shard, tail in recovered.shards.items()
        }
        self._filter: KeyFilter | None = None
        self._filed_early: list[int] = []  # numbers of keys filed while the filter was not there yet
        # Keys that the disk's table may not have yet; once there is a filter, all of them are in it.
        self._recent: dict[bytes, Entry] = {}
        self._repeats: dict[bytes, list[Submit]] = {}  # duplicates of entries that aren't committed yet
        self._waiting: dict[RoomId, _Waiting] = {}
        self._waiting_count = 0
        self._loading: dict[RoomId, int] = {}  # to the highest sequence that was filed meanwhile
        self._unfiled: dict[RoomId, deque[Entry]] = {}  # of rooms not in memory, found in the log at the start
        self._ticket = 0
        self._in_flight: dict[int, list[_Shard]] = {}
        self._incoming: list[Submit] = []
        self._effects = Effects()
        self._touched: dict[ShardId, _Shard] = {}
        self._away: Away | None = None
        self._now_ms = 0
        for entry in recovered.unfiled:
            self._inherit(entry)

    # -- requests of the edge ------------------------------------------------------------------------------------

    def submit(self, submit: Submit, now_ms: int) -> None:
        """Take a message for a room; it gets its place with the next `effects`, its outcome comes there or later."""
        self._now_ms = now_ms
        self._incoming.append(submit)

    def probe(self, submit: Submit, now_ms: int) -> None:
        """Ask for the outcome of a message that is not to be made: what it was if it was sent before, else NEW.

        So who refuses a message can answer its retries as it was answered at first.
        """
        self._now_ms = now_ms
        self._take_in()
        state = self.rooms.get(submit.room)
        if self._away is not None:
            self._effects.outcomes.append((submit.done, self._away))
        elif state is None or submit.room in self._waiting:
            self._wait(submit.room, submit, submit.done)
        else:
            self._examine(state, submit)

    def open(self, room: RoomId, done: Opened, now_ms: int) -> None:
        """Ask for a room; `done` is called at once when it is in memory, else it comes in effects."""
        self._now_ms = now_ms
        state = self.rooms.get(room)
        if state is not None and room not in self._waiting:
            done(state)
        else:
            self._wait(room, done, done)

    def epoch_of(self, state: RoomState) -> str:
        """The stream epoch that clients see."""
        return stream_epoch(self.birth, state.generation)

    # -- answers of the disk -------------------------------------------------------------------------------------

    def persisted(self, ticket: int) -> None:
        """Every batch up to `ticket` is durable."""
        me = self.me
        committed = self._effects.committed
        in_flight = self._in_flight
        for done in [t for t in in_flight if t <= ticket]:
            for shard in in_flight.pop(done):
                replica, sequencer = shard.replica, shard.sequencer
                replica.persisted(done)
                if sequencer is None:
                    continue
                entries = sequencer.acknowledge(me, replica.durable)
                if entries:
                    self._commit(entries)
                    committed += entries
                if shard.phase is Phase.TAKING_OVER and sequencer.serving:
                    self._serve(shard)
        self.rooms.shrink()

    def claimed(self, shard_id: ShardId, current: Configuration | None, now_ms: int) -> None:
        """The register's row of a shard after a claim; it is ours if it names us as primary of a new epoch."""
        self._now_ms = now_ms
        shard = self._shards[shard_id]
        if current is not None:
            self._configurations[shard_id] = current
        if current is None or current.primary != self.me or current.epoch <= shard.replica.promised:
            self._claim(shard_id, shard)  # from what the register really says
            return
        batch = self._batch()
        batch.promises.append(shard.replica.promise(current.epoch))
        shard.sequencer = Sequencer(current, shard.replica, self.options.min_sync)
        shard.phase = Phase.TAKING_OVER
        entry = shard.sequencer.begin(self._now_ms, self._salt())
        batch.entries.append(entry)
        self._touched[shard_id] = shard

    def loaded(self, record: RoomRecord, now_ms: int) -> None:
        """The disk's record of a room."""
        self._now_ms = now_ms
        filed = self._loading.pop(record.room, 0)
        state = RoomState(shard_of(record.room, self.options.shards), record)
        self.rooms.add(state)
        for entry in self._unfiled.pop(record.room, ()):
            state.ts = max(state.ts, entry.ts)
            state.meta_n = max(state.meta_n, entry.meta_n)
            if entry.kind <= LAST_VISIBLE and entry.sequence > state.committed:
                state.sequence = entry.sequence
                self.rooms.extend(state, entry)
            elif entry.kind == Kind.META:
                state.note_values(entry)
        state.filed = max(state.filed, filed)
        self._resume(record.room)

    def found(self, asked: Sequence[bytes], known: Sequence[KnownKey], now_ms: int) -> None:
        """What the disk knows of keys that were looked up."""
        self._now_ms = now_ms
        answers = {k.key: k for k in known}
        keys = set(asked)
        for room in [r for r, w in self._waiting.items() if w.key in keys]:
            waiting = self._waiting[room]
            submit = waiting.queue.popleft()
            self._waiting_count -= 1
            key, waiting.key = waiting.key, None
            state = self.rooms.get(room)
            if state is None or not isinstance(submit, Submit) or key is None:
                raise BrokenInvariant(f"{room} waits for a message id and is not in memory, or nothing waits in it")
            state.pins -= 1
            first = answers.get(key)
            if first is not None:
                same = first.fingerprint == fingerprint(submit.data)
                self._effects.outcomes.append((submit.done, Duplicate(first.sequence) if same else Refusal.CONFLICT))
            elif (repeated := self._recent.get(key)) is not None:
                self._repeat(submit, repeated, key)
            elif submit.probe:
                self._effects.outcomes.append((submit.done, Refusal.NEW))
            else:
                if self._filter is not None:  # it may have been asked for before there was a filter
                    self._filter.add(key_number(key))
                self._append_all([(state, submit, key)])
            self._resume(room)

    def filed(self, entries: Sequence[Entry]) -> None:
        """These entries can now be read from the disk's tables, and their keys found there."""
        forget, rooms = self._recent.pop, self.rooms
        for entry in entries:
            if entry.key:
                forget(entry.key, None)
        if self._filter is None:
            self._filed_early += [key_number(entry.key) for entry in entries if entry.key]
        newest = {entry.room: entry for entry in entries if entry.kind <= LAST_VISIBLE}
        for entry in entries:
            if entry.kind > LAST_VISIBLE:
                self._filed_hidden(entry)
        for room, entry in newest.items():
            state = rooms.get(room)
            if state is not None:
                state.filed = entry.sequence
                if state.removals is not None:
                    rooms.forget_removals(state)
            elif room in self._loading:  # the record under way may be of before
                self._loading[room] = entry.sequence
            else:
                self._forget_unfiled(entry)
        rooms.shrink()

    def _filed_hidden(self, entry: Entry) -> None:
        state = self.rooms.get(entry.room)
        if state is not None:
            state.meta_filed = entry.meta_n
        if entry.kind == Kind.MARKS:
            self.marks.filed(entry)

    def trimmed(self, floors: Sequence[tuple[RoomId, int]]) -> None:
        """Retention dropped the oldest entries of rooms from the disk."""
        for room, floor in floors:
            state = self.rooms.get(room)
            if state is not None:
                state.floor = max(state.floor, floor)

    def know_keys(self, keys: KeyFilter) -> None:
        """From now on `keys` says which message ids may be on disk; until then every one is looked up there."""
        for key in self._recent:
            keys.add(key_number(key))
        for number in self._filed_early:  # the scan may have passed their place before they were filed
            keys.add(number)
        self._filed_early.clear()
        self._filter = keys

    def halt(self, why: Away) -> None:
        """The log has halted: whatever waits is answered, and so is everything that comes.

        Of entries on their way to the disk the outcome is unknown; who waits for one is answered now and never again.
        """
        self._away = why
        outcomes, opened = self._effects.outcomes, self._effects.opened
        for shard in self._shards.values():
            for entry in shard.replica.uncommitted:
                if entry.origin is not None:
                    outcomes.append((entry.origin, why))
                    entry.origin = None
        for waiting in self._waiting.values():
            for request in waiting.queue:
                if isinstance(request, Submit):
                    outcomes.append((request.done, why))
                else:
                    opened.append((request, why))
        for submits in self._repeats.values():
            outcomes.extend((submit.done, why) for submit in submits)
        self._waiting.clear()
        self._loading.clear()  # a read that failed is never answered
        self._repeats.clear()
        self._waiting_count = 0

    # -- for the driver ------------------------------------------------------------------------------------------

    def start(self, now_ms: int) -> None:
        """Take over the shards whose logs end in entries not known to be committed, so that they get committed."""
        self._now_ms = now_ms
        for shard_id, shard in self._shards.items():
            if shard.replica.uncommitted:
                self._claim(shard_id, shard)

    def refuse(self, why: Away | None) -> None:
        """Answer every submit with `why` from now on; None: take them again."""
        self._take_in()
        self._away = why

    def effects(self) -> Effects | None:
        """What there is to do since the last call; None when nothing is."""
        if self._incoming:
            self._take_in()
        effects = self._effects
        touched = self._touched
        batch = effects.batch
        if batch is not None:
            self._ticket += 1
            batch.ticket = self._ticket
            self._in_flight[batch.ticket] = list(touched.values())
            for shard in touched.values():
                shard.replica.flush(batch.ticket)
            batch.commits = {shard_id: shard.replica.commit for shard_id, shard in touched.items()}
            self._touched = {}
        elif not (
            effects.committed or effects.outcomes or effects.opened or effects.load or effects.find or effects.claims
        ):
            return None
        for _, state in effects.opened:
            if isinstance(state, RoomState):
                state.pins -= 1
        self._effects = Effects()
        return effects

    def statistics(self) -> ClusterStatistics:
        """Counts of this moment."""
        return ClusterStatistics(
            rooms=len(self.rooms),
            cached_bytes=self.rooms.bytes,
            shards_serving=sum(shard.phase is Phase.SERVING for shard in self._shards.values()),
            waiting=self._waiting_count,
            uncommitted=sum(s.replica.lsn - s.replica.commit for s in self._shards.values()),
            recent_keys=len(self._recent),
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _inherit(self, entry: Entry) -> None:
        if entry.cmid:
            entry.key = dedupe_key(entry.room, entry.sender, entry.cmid)
            self._recent[entry.key] = entry
        if entry.kind != Kind.EPOCH:
            self._unfiled.setdefault(entry.room, deque()).append(entry)

    def _forget_unfiled(self, filed: Entry) -> None:
        unfiled = self._unfiled.get(filed.room)
        while unfiled and unfiled[0].lsn <= filed.lsn:
            unfiled.popleft()
        if unfiled is not None and not unfiled:
            del self._unfiled[filed.room]

    def _take_in(self) -> None:
        """Give places to what was submitted.

        Each step is taken for all before the next one: the code of one step stays in the processor's caches, which
        makes a message a third cheaper than if it went all the way alone.
        """
        incoming, self._incoming = self._incoming, []
        if self._away is not None:
            self._effects.outcomes += ((submit.done, self._away) for submit in incoming)
            return
        waiting, rooms = self._waiting, self.rooms
        accepted: list[tuple[RoomState, Submit, bytes]] = []
        for submit in incoming:
            room = submit.room
            state = rooms.get(room)
            if state is None or (waiting and room in waiting):
                self._wait(room, submit, submit.done)
            else:
                self._accept(state, submit, accepted)
        self._append_all(accepted)

    def _accept(self, state: RoomState, submit: Submit, accepted: list[tuple[RoomState, Submit, bytes]]) -> bool:
        """Put a message among those that are to get a place, or answer it; False: it has to wait for its key."""
        key = b""
        if submit.cmid:
            key = dedupe_key(submit.room, submit.sender, submit.cmid)
            known = self._filter
            # What the filter has never seen is in no other place either.
            if known is None or len(submit.cmid) > MAX_CMID or not known.add_new(key_number(key)):
                self._append_all(accepted)  # it may be a repetition of one of these
                accepted.clear()
                if self._answer_known(submit, key):
                    return True
                self._ask(state, submit, key)
                return False
        accepted.append((state, submit, key))
        return True

    def _examine(self, state: RoomState, submit: Submit) -> bool:
        """Answer a probe; False: it has to wait for its key."""
        key = dedupe_key(submit.room, submit.sender, submit.cmid)
        if self._answer_known(submit, key):
            return True
        known = self._filter
        if known is None or not known.add_new(key_number(key)):
            self._ask(state, submit, key)
            return False
        self._effects.outcomes.append((submit.done, Refusal.NEW))
        return True

    def _answer_known(self, submit: Submit, key: bytes) -> bool:
        """Answer a message that is a repetition of a recent one, or has no valid id."""
        known = self._recent.get(key)
        if known is not None:
            self._repeat(submit, known, key)
        elif len(submit.cmid) > MAX_CMID:
            self._effects.outcomes.append((submit.done, Refusal.BAD_ID))
        else:
            return False
        return True

    def _ask(self, state: RoomState, submit: Submit, key: bytes) -> None:
        """Look a key up on disk; the message, and all behind it in its room, wait for it."""
        waiting = self._waiting[submit.room] = self._waiting.get(submit.room) or _Waiting()
        waiting.key = key
        waiting.queue.appendleft(submit)
        self._waiting_count += 1
        state.pins += 1  # until `found`: what waits in a room keeps it in memory
        self._effects.find.append(key)

    def _append_all(self, accepted: list[tuple[RoomState, Submit, bytes]]) -> None:
        if not accepted:
            return
        shards, touched, recent, now_ms = self._shards, self._touched, self._recent, self._now_ms
        entries = self._batch().entries
        salts = self._random_bytes(SALT_BYTES * len(accepted))
        at = 0
        for state, submit, key in accepted:
            number = state.shard
            shard = touched.get(number)
            if shard is None:
                shard = touched[number] = shards[number]
            sequencer = shard.sequencer
            if sequencer is None:
                raise BrokenInvariant(f"{state.room} is in memory, its shard {number} has no primary here")
            entry = sequencer.append(
                state, submit.kind, submit.sender, submit.cmid, submit.data, submit.info, now_ms,
                salts[at : at + SALT_BYTES], key, submit.done,
            )  # fmt: skip
            at += SALT_BYTES
            if key:
                recent[key] = entry
            entries.append(entry)

    def _repeat(self, submit: Submit, first: Entry, key: bytes) -> None:
        if first.data != submit.data:
            self._effects.outcomes.append((submit.done, Refusal.CONFLICT))
        elif first.lsn > self._shards[first.shard].replica.commit:
            self._repeats.setdefault(key, []).append(submit)
        else:
            self._effects.outcomes.append((submit.done, Duplicate(first.sequence)))

    def _commit(self, entries: list[Entry]) -> None:
        rooms, repeats = self.rooms, self._repeats
        for entry in entries:
            if entry.kind <= LAST_VISIBLE:
                state = rooms.get(entry.room)
                if state is not None and entry.sequence > state.committed:
                    rooms.extend(state, entry)
            elif entry.kind == Kind.MARKS:
                self.marks.note(entry)
            elif entry.kind == Kind.META and (state := rooms.get(entry.room)) is not None:
                state.note_values(entry)
            if repeats and entry.key in repeats:
                outcome = Duplicate(entry.sequence)
                self._effects.outcomes.extend((submit.done, outcome) for submit in repeats.pop(entry.key))

    def _wait(self, room: RoomId, request: Submit | Opened, done: Callable[[Away], None]) -> None:
        """Let a request wait for its room; `done` is called at once if it may not."""
        if self._away is not None and not self._readable(room):
            done(self._away)
            return
        if self._waiting_count >= self.options.max_waiting:
            done(Away.OVERLOADED)
            return
        waiting = self._waiting.get(room)
        self._waiting_count += 1
        if waiting is not None:
            waiting.queue.append(request)
            return
        waiting = self._waiting[room] = _Waiting()
        waiting.queue.append(request)
        self._prepare(room)

    def _readable(self, room: RoomId) -> bool:
        """Whether the room can be opened when nothing can be written: its shard serves, and the disk can be read."""
        shard = self._shards.get(shard_of(room, self.options.shards))
        return self._away is not Away.STORAGE_FAULT and shard is not None and shard.phase is Phase.SERVING

    def _prepare(self, room: RoomId) -> None:
        shard_id = shard_of(room, self.options.shards)
        shard = self._shards.get(shard_id)
        if shard is None:
            shard = self._shards[shard_id] = _Shard(Replica(shard_id, None))
        if shard.phase is Phase.SERVING:
            self._load(room)
            return
        shard.waiting.append(room)
        if shard.phase is Phase.IDLE:
            self._claim(shard_id, shard)

    def _claim(self, shard_id: ShardId, shard: _Shard) -> None:
        row = self._configurations.get(shard_id)
        version, epoch = (row.version, row.epoch) if row else (0, 0)
        epoch = max(epoch, shard.replica.promised) + 1
        shard.phase = Phase.CLAIMING
        new = Configuration(shard_id, version + 1, epoch, self.me, (self.me,))
        self._effects.claims.append(Claim(version, new))

    def _serve(self, shard: _Shard) -> None:
        shard.phase = Phase.SERVING
        rooms, shard.waiting = shard.waiting, []
        for room in rooms:
            self._load(room)

    def _load(self, room: RoomId) -> None:
        if self.rooms.get(room) is not None:
            self._resume(room)
        elif room not in self._loading:
            self._loading[room] = 0
            self._effects.load.append(room)

    def _resume(self, room: RoomId) -> None:
        """Serve what waits for a room until something has to wait again."""
        waiting = self._waiting.pop(room, None)
        if waiting is None:
            return
        state = self.rooms.get(room)
        if state is None:
            raise BrokenInvariant(f"{room} is to be served and is not in memory")
        queue = waiting.queue
        accepted: list[tuple[RoomState, Submit, bytes]] = []
        while queue:
            request = queue.popleft()
            self._waiting_count -= 1
            if not isinstance(request, Submit):
                state.pins += 1  # until `effects`: who asked gets the room that is in memory, and can pin it
                self._effects.opened.append((request, state))
                continue
            if request.probe:
                self._append_all(accepted)  # it may be a repetition of one of these
                accepted.clear()
                served = self._examine(state, request)
            else:
                served = self._accept(state, request, accepted)
            if not served:  # all behind it wait for its key too
                self._waiting[room].queue.extend(queue)
                return
        self._append_all(accepted)

    def _batch(self) -> Batch:
        batch = self._effects.batch
        if batch is None:
            batch = self._effects.batch = Batch(0)
        return batch

    def _salt(self) -> bytes:
        return self._random_bytes(SALT_BYTES)

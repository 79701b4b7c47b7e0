"""Composes the cores of a node: requests, peers' messages and the disk's answers go in, effects come out.  Sans-I/O.

What this node is to a shard, `router/shard.py` says. While it is the primary, and once all that it inherited can be
read from the disk's tables, the shard's rooms can be loaded: unknown -> loading -> in memory. Requests for what is not
ready yet wait here, in order, at most `max_waiting` of them. When another member becomes primary, the shard's rooms
leave the memory, and whoever waits for them is told so.

The order of effects binds: the batch must be durable before `persisted` is told of its ticket, and nothing is
acknowledged or published before it comes out in `Effects.committed`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from router.dedupe import MAX_CMID, Dedupe
from router.effects import Alone, ClusterOptions, ClusterStatistics, Effects, Neighbourhood, Opened
from router.entry import LAST_VISIBLE, SALT_BYTES, Entry, Kind
from router.errors import BrokenInvariant
from router.events import (
    Away,
    Batch,
    Claim,
    Configuration,
    Duplicate,
    KnownKey,
    Recovered,
    Refusal,
    RoomRecord,
    ShardTail,
    Submit,
    fingerprint,
)
from router.ids import MemberId, RoomId, ShardId, dedupe_key, stream_epoch
from router.marks import Marks
from router.placement import shard_of
from router.replica import Replica
from router.room import RoomCache, RoomState
from router.shard import Outbox, Phase, Shard
from router.wire import Nack, Prep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from router.keyfilter import KeyFilter
    from router.replication import ReadLog
    from router.shard import Confirmed
    from router.wire import PeerMessage


class _Waiting:
    """Requests for a room that can't be served yet, in order."""

    __slots__ = ("key", "queue")

    def __init__(self) -> None:
        self.queue: deque[Submit | Opened] = deque()
        self.key: bytes | None = None  # the key that the first submit waits for


class Cluster:
    """The cores of one node.

    Args:
        me: This member.
        birth: The cluster's birth id; part of every stream epoch.
        options: Bounds.
        recovered: What the log held when it was opened: all that is known to be committed is filed.
        random_bytes: Gives so many unpredictable bytes.
        around: Who else is there; by default nobody.

    Attributes:
        now: Milliseconds of a clock that never goes back; the driver keeps it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it is, what it knows, and what it is given
        self, me: MemberId, birth: str, options: ClusterOptions, recovered: Recovered,
        random_bytes: Callable[[int], bytes], around: Neighbourhood | None = None,
    ) -> None:  # fmt: skip
        self.me, self.birth, self.options = me, birth, options
        self.around = around or Alone(me)
        self.rooms = RoomCache(options.cache_bytes, options.cache_rooms)
        self.marks = Marks()
        self.now = 0
        self._random_bytes = random_bytes
        self._out = Outbox()
        self._dedupe = Dedupe()
        self._rows = dict(recovered.configurations)
        self._filed = {shard: tail.commit for shard, tail in recovered.shards.items()}
        uncommitted: dict[ShardId, list[Entry]] = {}
        for entry in recovered.unfiled:
            if entry.lsn > recovered.shards[entry.shard].commit:
                uncommitted.setdefault(entry.shard, []).append(entry)
        self._shards: dict[ShardId, Shard] = {}
        for shard, tail in recovered.shards.items():
            self._shards[shard] = self._new_shard(Replica(shard, tail, uncommitted.get(shard, ())))
        self._ready: set[ShardId] = set()  # they serve, and their rooms can be loaded
        self._unready: dict[ShardId, int] = {}  # they serve, and wait until the log is filed up to here
        self._learning: set[ShardId] = set()  # a snapshot of them is on its way here
        self._awaited: dict[ShardId, list[RoomId]] = {}  # rooms whose requests wait for a shard
        self._waiting: dict[RoomId, _Waiting] = {}
        self._waiting_count = 0
        self._loading: set[RoomId] = set()
        self._stale_loads: dict[RoomId, int] = {}  # reads under way whose answers are of another tenure
        self._ticket = 0
        self._in_flight: dict[int, list[Shard]] = {}
        self._incoming: list[Submit] = []
        self._effects = Effects()
        self._away: Away | None = None
        self._halted = False
        self._now_ms = 0

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

    def shard_of(self, room: RoomId) -> ShardId:
        """Where a room lives."""
        return shard_of(room, self.options.shards)

    def serves(self, shard: ShardId) -> bool:
        """Whether this node is a shard's primary, and has taken over."""
        return shard in self._ready

    def wish(self, number: ShardId) -> None:
        """Somebody asks for a shard that this node does not serve: it comes into being, if it is to be here."""
        row = self.row(number)
        if not self._halted and (row is None or not row.members or row.primary == self.me):
            self._want(self._shard(number))

    def confirm(self, shard: ShardId, done: Confirmed) -> None:
        """Ask whether this node still is a shard's primary; True only if its members said so after now (rule 12)."""
        known = self._shards.get(shard)
        if known is None or self._halted:
            self._effects.confirmed.append((done, False))
            return
        known.confirm(done, self.now)
        self._gather(known)

    # -- peers ---------------------------------------------------------------------------------------------------

    def row(self, shard: ShardId) -> Configuration | None:
        """The newest row of the register that is known here."""
        known = self._shards.get(shard)
        return known.row if known is not None else self._rows.get(shard)

    def rows(self) -> Mapping[ShardId, Configuration]:
        """All of them."""
        return {**self._rows, **{number: shard.row for number, shard in self._shards.items() if shard.row.members}}

    def learn(self, row: Configuration) -> None:
        """The register, or somebody, says that this row is or was in force."""
        if self._halted:
            return
        shard = self._shards.get(row.shard)
        if shard is None and self.me not in row.members:
            known = self._rows.get(row.shard)
            if known is None or known.version < row.version:
                self._rows[row.shard] = row
            return
        shard = shard or self._shard(row.shard)
        shard.learn(row, self.now)
        self._gather(shard)

    def receive(self, source: MemberId, message: PeerMessage) -> None:
        """A message of another member.

        Raises:
            BrokenInvariant: A rule does not hold; this node's part in the shard has to end.
            CorruptEntry: The peer sent what is no entry.
        """
        if self._halted or not 0 <= message.shard < self.options.shards:
            return
        if message.shard in self._learning:
            if isinstance(message, Prep):  # so that a primary that teaches it no more begins again
                self._out.sends.append((source, Nack(message.shard, message.epoch, 0)))
            return
        shard = self._shard(message.shard)
        shard.receive(source, message, self.now)
        self._gather(shard)

    def tick(self) -> None:
        """Time has passed: keep members, claim what has no primary, send again what was not answered."""
        if self._halted:
            return
        up, wanted = self.around.up, self.around.wanted
        for number, shard in self._shards.items():
            if number not in self._learning:
                shard.tick(self.now, up, wanted(number))
                self._gather(shard)

    # -- answers of the disk and of the register -----------------------------------------------------------------

    def persisted(self, ticket: int) -> None:
        """Every batch up to `ticket` is durable."""
        in_flight = self._in_flight
        for done in [t for t in in_flight if t <= ticket]:
            for shard in in_flight.pop(done):
                shard.persisted(done, self.now)
                self._gather(shard)
        self.rooms.shrink()

    def claimed(self, claim: Claim, current: Configuration | None, now_ms: int, *, done: bool) -> None:
        """The register's answer to a claim; see `Shard.claimed`."""
        self._now_ms = now_ms
        if self._halted:
            return
        shard = self._shards[claim.new.shard]
        shard.claimed(claim, current, self.now, done=done)
        if current is not None:
            shard.claim_again(self.now, self.around.up)  # at once, if the row is its own, and of an earlier life
        self._gather(shard)

    def log_read(self, read: ReadLog, chain: bytes, wires: Sequence[bytes]) -> None:
        """The disk's entries for a peer."""
        shard = self._shards[read.shard]
        shard.log_read(read, chain, wires, self.now)
        self._gather(shard)

    def log_gone(self, read: ReadLog) -> None:
        """The disk has dropped what a peer needs."""
        shard = self._shards[read.shard]
        if shard.log_gone(read) and shard.sequencer is not None:
            self._effects.teach.append((read.shard, read.peer, shard.sequencer.epoch))

    # -- snapshots, of `school.Shards` ---------------------------------------------------------------------------

    def may_learn(self, shard: ShardId, epoch: int) -> bool:
        """Whether a shard may be taken from a primary of an epoch: this node has no part in it."""
        known = self._shards.get(shard)
        if self._halted or known is None:
            return not self._halted
        is_idle = known.phase is Phase.FOLLOWING and known.replica.is_at_rest
        return is_idle and self.me not in known.row.members and known.replica.promised <= epoch

    def begun(self, shard: ShardId) -> None:
        """What the log has of a shard counts for nothing until `learned`."""
        self._learning.add(shard)

    def learned(self, tail: ShardTail, keys: Sequence[int]) -> None:
        """The log has a shard up to here."""
        shard = tail.shard
        known = self._shards.pop(shard, None)
        if known is not None and known.row.members:
            self._rows[shard] = known.row
        self._shards[shard] = self._new_shard(Replica(shard, tail))
        self._filed[shard] = tail.commit
        self._dedupe.learn(keys)
        self._learning.discard(shard)

    def taught(self, shard: ShardId, member: MemberId, lsn: int) -> None:
        """As primary: a learner has all up to here."""
        known = self._shards[shard]
        known.taught(member, lsn)
        self._gather(known)

    def given_up(self, shard: ShardId, member: MemberId) -> None:
        """As primary: a learner could not be given a snapshot."""
        self._shards[shard].untaught(member, self.now)

    def loaded(self, record: RoomRecord, now_ms: int) -> None:
        """The disk's record of a room."""
        self._now_ms = now_ms
        room = record.room
        if stale := self._stale_loads.get(room):
            if stale == 1:
                del self._stale_loads[room]
            else:
                self._stale_loads[room] = stale - 1
            return
        if room in self._loading:
            self._loading.remove(room)
            self.rooms.add(RoomState(shard_of(room, self.options.shards), record))
            self._resume(room)

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
                same = first.fingerprint in {0, fingerprint(submit.data)}  # 0: it came here erased
                self._effects.outcomes.append((submit.done, Duplicate(first.sequence) if same else Refusal.CONFLICT))
            elif self._answer_known(submit, key):
                pass
            elif submit.probe:
                self._effects.outcomes.append((submit.done, Refusal.NEW))
            else:
                self._dedupe.add(key)  # it may have been asked for before there was a filter
                self._append_all([(state, submit, key)])
            self._resume(room)

    def filed(self, entries: Sequence[Entry]) -> None:
        """These entries can now be read from the disk's tables, and their keys found there."""
        rooms, filed = self.rooms, self._filed
        self._dedupe.filed(entries)
        newest = {entry.room: entry for entry in entries if entry.kind <= LAST_VISIBLE}
        for entry in entries:
            filed[entry.shard] = entry.lsn
            if entry.kind > LAST_VISIBLE:
                self._filed_hidden(entry)
        for room, entry in newest.items():
            state = rooms.get(room)
            if state is not None:
                state.filed = entry.sequence
                if state.removals is not None:
                    rooms.forget_removals(state)
        for shard in [shard for shard, upto in self._unready.items() if filed.get(shard, 0) >= upto]:
            self._open_rooms(shard)
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
        self._dedupe.know(keys)

    def halt(self, why: Away) -> None:
        """The log has halted: whatever waits is answered, and so is everything that comes.

        Of entries on their way to the disk the outcome is unknown; who waits for one is answered now and never again.
        """
        self._away, self._halted = why, True
        outcomes = self._effects.outcomes
        for shard in self._shards.values():
            for entry in shard.replica.uncommitted:
                if entry.origin is not None:
                    outcomes.append((entry.origin, why))
                    entry.origin = None
        for room in list(self._waiting):
            self._turn_away(room, why)
        outcomes += self._dedupe.give_up_all(why)
        self._loading.clear()  # a read that failed is never answered
        self._waiting_count = 0

    # -- for the driver ------------------------------------------------------------------------------------------

    def start(self, now_ms: int) -> None:
        """Claim the shards whose logs end in entries not known to be committed, so that they get committed."""
        self._now_ms = now_ms
        for shard in self._shards.values():
            if shard.replica.uncommitted:
                self._want(shard)

    def refuse(self, why: Away | None) -> None:
        """Answer every submit with `why` from now on; None: take them again."""
        self._take_in()
        self._away = why

    def effects(self) -> Effects | None:
        """What there is to do since the last call; None when nothing is."""
        if self._incoming:
            self._take_in()
        out = self._out
        out.wall_ms = self._now_ms
        batch = None
        if out.touched or out.batch is not None:
            batch = self._flush()
        effects = self._effects
        if out.claims or out.sends or out.reads or out.announced or out.confirmed:
            effects.claims, out.claims = out.claims, []
            effects.sends, out.sends = out.sends, []
            effects.reads, out.reads = out.reads, []
            effects.announced, out.announced = out.announced, []
            effects.confirmed += out.confirmed
            out.confirmed = []
        elif batch is None and effects.is_nothing:
            return None
        effects.batch = batch
        for _, state in effects.opened:
            if isinstance(state, RoomState):
                state.pins -= 1
        self._effects = Effects()
        return effects

    def _flush(self) -> Batch | None:
        """Hand all that was appended and promised to the disk, and to the peers."""
        out = self._out
        batch, touched = out.batch, out.touched
        out.batch, out.touched = None, {}
        ticket: int | None = None
        if batch is not None:
            self._ticket += 1
            ticket = batch.ticket = self._ticket
            self._in_flight[ticket] = list(touched.values())
            batch.commits = {number: shard.replica.commit for number, shard in touched.items()}
        for shard in touched.values():
            shard.flush(ticket, self.now)
        return batch

    def statistics(self) -> ClusterStatistics:
        """Counts of this moment."""
        return ClusterStatistics(
            rooms=len(self.rooms),
            cached_bytes=self.rooms.bytes,
            shards_serving=len(self._ready),
            waiting=self._waiting_count,
            uncommitted=sum(s.replica.lsn - s.replica.commit for s in self._shards.values()),
            recent_keys=len(self._dedupe.recent),
        )

    # -- shards --------------------------------------------------------------------------------------------------

    def _new_shard(self, replica: Replica) -> Shard:
        row = self._rows.get(replica.shard)
        return Shard(self.me, replica, row, self.options.shard, self._out, self._random, self._salt)

    def _shard(self, number: ShardId) -> Shard:
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = self._new_shard(Replica(number, None))
        return shard

    def _gather(self, shard: Shard) -> None:
        """Take what a shard, which was just told something, has brought about."""
        out = self._out
        if out.committed:
            entries, out.committed = out.committed, []
            sequencer = shard.sequencer
            if sequencer is None or entries[0].lsn <= sequencer.inherited:
                self._dedupe.take_over(entries)
            if sequencer is not None:
                self._effects.committed += entries
            self._commit(entries)
        if out.ended or out.lost or out.forgotten:
            self._end()
        if out.served:
            for number in out.served:
                self._serve(self._shards[number])
            out.served.clear()
        if self._awaited and shard.shard in self._awaited and self._is_elsewhere(shard):
            for room in self._awaited.pop(shard.shard):
                self._turn_away(room, Away.MOVED)

    def _is_elsewhere(self, shard: Shard) -> bool:
        """Whether this node will not be primary as things are."""
        return shard.phase is Phase.FOLLOWING and bool(shard.row.members) and shard.row.primary != self.me

    def _serve(self, shard: Shard) -> None:
        """A shard serves: its rooms are loaded when the tables have all that it inherited."""
        sequencer, number = shard.sequencer, shard.shard
        if sequencer is None:
            return
        if self._filed.get(number, 0) >= sequencer.inherited:
            self._open_rooms(number)
        else:
            self._unready[number] = sequencer.inherited
            self._effects.hurry = True

    def _open_rooms(self, number: ShardId) -> None:
        self._unready.pop(number, None)
        self._ready.add(number)
        for room in self._awaited.pop(number, ()):
            self._load(room)

    def _end(self) -> None:
        """Tenures have ended: nothing of their rooms is known here any more, but what is on disk."""
        out = self._out
        outcomes = self._effects.outcomes
        for entry in out.lost:
            if entry.origin is not None:
                outcomes.append((entry.origin, Away.MOVED))
                entry.origin = None
        outcomes += self._dedupe.give_up(out.lost, Away.MOVED)
        self._dedupe.forget(out.forgotten)
        for number in out.ended:
            self._ready.discard(number)
            self._unready.pop(number, None)
        ended = set(out.ended)
        out.lost, out.forgotten, out.ended = [], [], []
        for room in [r for r in (*self._waiting, *self._loading) if shard_of(r, self.options.shards) in ended]:
            if room in self._loading:
                self._loading.remove(room)
                self._stale_loads[room] = self._stale_loads.get(room, 0) + 1
            self._turn_away(room, Away.MOVED)
        self._effects.moved += self.rooms.drop(ended)

    def _turn_away(self, room: RoomId, why: Away) -> None:
        """Answer all that waits for a room."""
        waiting = self._waiting.pop(room, None)
        if waiting is None:
            return
        if waiting.key is not None and (state := self.rooms.get(room)) is not None:
            state.pins -= 1
        for request in waiting.queue:
            self._waiting_count -= 1
            if isinstance(request, Submit):
                self._effects.outcomes.append((request.done, why))
            else:
                self._effects.opened.append((request, why))

    # -- messages ------------------------------------------------------------------------------------------------

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
            # What the filter has never seen is in no other place either.
            if len(submit.cmid) > MAX_CMID or not self._dedupe.is_new(key):
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
        if not self._dedupe.is_new(key):
            self._ask(state, submit, key)
            return False
        self._effects.outcomes.append((submit.done, Refusal.NEW))
        return True

    def _answer_known(self, submit: Submit, key: bytes) -> bool:
        """Answer a message that is a repetition of a recent one, or has no valid id."""
        answers = self._dedupe.answer(submit, key, self._committed_of)
        if answers is None:
            return False
        self._effects.outcomes += answers
        return True

    def _committed_of(self, number: ShardId) -> int:
        return self._shards[number].replica.commit

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
        shards, touched, recent, now_ms = self._shards, self._out.touched, self._dedupe.recent, self._now_ms
        entries = self._out.open_batch().entries
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

    def _commit(self, entries: list[Entry]) -> None:
        rooms = self.rooms
        self._effects.filing += entries
        for entry in entries:
            if entry.kind <= LAST_VISIBLE:
                state = rooms.get(entry.room)
                if state is not None and entry.sequence > state.committed:
                    rooms.extend(state, entry)
            elif entry.kind != Kind.EPOCH:
                state = rooms.get(entry.room)
                if state is not None:
                    state.meta_committed = entry.meta_n
                if entry.kind == Kind.MARKS:
                    self.marks.note(entry)
                elif state is not None:
                    state.note_values(entry)
        self._effects.outcomes += self._dedupe.committed(entries)

    # -- rooms ---------------------------------------------------------------------------------------------------

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
        return self._away is not Away.STORAGE_FAULT and shard_of(room, self.options.shards) in self._ready

    def _prepare(self, room: RoomId) -> None:
        number = shard_of(room, self.options.shards)
        if number in self._ready:
            self._load(room)
            return
        self._awaited.setdefault(number, []).append(room)
        self._want(self._shard(number))

    def _want(self, shard: Shard) -> None:
        """Become a shard's primary if nobody is, and this node may."""
        if shard.phase is Phase.FOLLOWING:
            if shard.row.members:
                shard.claim(self.now, self.around.up)
            else:
                self._found(shard)
        self._gather(shard)

    def _found(self, shard: Shard) -> None:
        """Bring a shard into being, if this is where it should be."""
        members = list(self.around.wanted(shard.shard))[: self.options.shard.copies]
        if self.me in members:
            shard.found([self.me, *(member for member in members if member != self.me)])
            return
        for room in self._awaited.pop(shard.shard, ()):
            self._turn_away(room, Away.MOVED)

    def _load(self, room: RoomId) -> None:
        if self.rooms.get(room) is not None:
            self._resume(room)
        elif room not in self._loading:
            self._loading.add(room)
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

    def _random(self) -> float:
        return int.from_bytes(self._random_bytes(4), "big") / (1 << 32)

    def _salt(self) -> bytes:
        return self._random_bytes(SALT_BYTES)

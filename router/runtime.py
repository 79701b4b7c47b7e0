"""The driver: owns the cores and the log, and performs the cores' effects in order.

It runs on the task that calls it (the hub's) and never blocks: the log has threads of its own, tells through `notify`
that it has answers, and `drain` fetches them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from router.cluster import Cluster
from router.completions import (
    CasDone,
    Filed,
    Halted,
    HistoryRead,
    KeysFound,
    KeysScanned,
    MarkRead,
    MetaRead,
    Persisted,
    RoomLoaded,
    ShardRead,
    ShardRun,
    SnapshotRead,
    SnapshotRefused,
    SnapshotTaken,
    TailRead,
    Trimmed,
)
from router.errors import StorageFault
from router.events import Away, Configuration, History, Page, Submit
from router.ids import MemberId, RoomId, sender_id
from router.keyfilter import KeyFilter
from router.register import Answer

if TYPE_CHECKING:
    from router.completions import Dropped
    from router.effects import ClusterOptions, Effects, Neighbourhood, Opened
    from router.entry import Entry
    from router.ids import ShardId
    from router.log import Log
    from router.marks import Reader
    from router.register import Register
    from router.replication import ReadLog
    from router.room import RoomState
    from router.tail import Tail, TailQuery
    from router.wire import PeerMessage

SCAN_PAGES: Final = 100  # of known message ids, fetched at once while the filter fills after a start
READ_BYTES: Final = 1 << 19  # of a shard's log for a peer, read at once: what a PREP carries
MAX_PAGE: Final = 500  # entries of one read from disk; short reads keep the WAL short


class Peers(Protocol):
    """The other nodes, as the driver reaches them."""

    def send(self, member: MemberId, message: PeerMessage) -> None:
        """Send a message soon; it may get lost."""

    def announce(self, row: Configuration) -> None:
        """Tell all nodes of a row."""

    def teach(self, shard: ShardId, member: MemberId, epoch: int) -> None:
        """Give a learner a snapshot, as the log does not reach back to where it is."""

    def completed(self, done: SnapshotRead | SnapshotTaken | SnapshotRefused) -> None:
        """The log has answered what teaching or learning asked."""

    def moved(self, rooms: Sequence[RoomState]) -> None:
        """This node is no longer the primary of these rooms, which were in memory."""


@dataclass(slots=True, frozen=True)
class Surroundings:
    """What a router needs to be one of several.

    Attributes:
        around: Who else is there.
        peers: How they are reached.
        register: Asked for claims instead of the log.
    """

    around: Neighbourhood
    peers: Peers
    register: Register


class Edge(Protocol):
    """The gateway, as the router sees it."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """Entries are durable: answer who waits (`entry.origin`), hand them to the members, in this order."""

    def persisted(self, done: Persisted) -> None:
        """A group commit took place: for the metrics."""

    def halted(self, fault: StorageFault) -> None:
        """The log has halted; every submit is refused from now on."""

    def failed(self, told: Callable[..., None], error: Exception) -> None:
        """Who was told an outcome could not take it; nobody else is to suffer for it."""


Read = Callable[[Page | Away], None]
Followed = Callable[["Tail | Away"], None]


class Router:
    """Order and durability for the rooms of one node.

    Args:
        log: Opened; closed by whoever opened it.
        node: This node's id.
        options: Bounds of the cores.
        edge: Told of what was committed.
        others: The other nodes; None: there are none.
    """

    def __init__(
        self, log: Log, node: str, options: ClusterOptions, edge: Edge, others: Surroundings | None = None
    ) -> None:
        self.log = log
        self._edge = edge
        self.fault: StorageFault | None = None
        me = MemberId(node, log.meta.disk_id)
        recovered = log.recovered
        self._register: Register | None = None
        self._peers: Peers | None = None
        around: Neighbourhood | None = None
        if others is not None:
            recovered = replace(recovered, configurations=recovered.learned)
            around, self._register, self._peers = others.around, others.register, others.peers
        self.cluster = Cluster(me, log.meta.birth, options, recovered, os.urandom, around)
        self._keys = KeyFilter(options.dedupe_capacity)
        self._full = False
        self._closing = False
        self._followers: list[Callable[[], None]] = []
        self._now_ms = time.time_ns() // 1_000_000
        log.scan_keys(-1, SCAN_PAGES)
        self.cluster.start(self._now_ms)
        self.turn()

    # -- the edge's requests -------------------------------------------------------------------------------------

    def sender(self, site: str, user: str) -> bytes:
        """The pseudonym of a user in the log."""
        return sender_id(site, user, self.log.meta.pseudonym_key)

    def epoch_of(self, state: RoomState) -> str:
        """The stream epoch that clients see."""
        return self.cluster.epoch_of(state)

    def submit(self, submit: Submit) -> None:
        """Take a message; its outcome is given to `submit.done`, now or in a later turn."""
        self.cluster.submit(submit, self._now_ms)

    def probe(self, submit: Submit) -> None:
        """Ask for the outcome of a message that is not to be made; see `Cluster.probe`."""
        self.cluster.probe(submit, self._now_ms)

    def open_room(self, room: RoomId, done: Opened) -> None:
        """Ask for a room; `done` is called at once when it is in memory."""
        self.cluster.open(room, done, self._now_ms)

    def history(self, state: RoomState, read: History, done: Read) -> None:
        """Read a room's entries: from memory where it holds them, else from the disk and then memory."""
        if read.reverse:
            self._read_back(state, read, done)
        else:
            self._read_on(state, read, done)

    def tail(self, query: TailQuery, done: Followed) -> None:
        """Read what was committed until now, of all rooms, and follows a cursor; from the disk and from memory."""

        def finish(result: Tail | StorageFault) -> None:
            done(Away.STORAGE_FAULT if isinstance(result, StorageFault) else result)

        self.log.tail(query, finish)

    def follow(self, wake: Callable[[], None]) -> None:
        """Call `wake`, which must not block, from now on whenever something was committed, once for many entries."""
        self._followers.append(wake)

    def unfollow(self, wake: Callable[[], None]) -> None:
        """No longer call what `follow` was given."""
        self._followers.remove(wake)

    def mark(self, reader: Reader, done: Callable[[int | Away], None]) -> None:
        """Ask how far a user has read: 0 for who has no mark; `done` is called at once where memory knows."""
        marks = self.cluster.marks
        known = marks.get(reader)
        if known is not None:
            done(known)
        elif marks.ask(reader, done):
            self.log.mark(*reader, partial(self._learn, reader))

    # -- the driver's turns --------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Perform what the cores want done; called when the hub has handled what came."""
        self._now_ms = time.time_ns() // 1_000_000
        cluster, log = self.cluster, self.log
        cluster.now = time.monotonic_ns() // 1_000_000
        self._watch_space()
        while (effects := cluster.effects()) is not None:
            self._ask_disk(effects)
            for done, outcome in effects.outcomes:
                self._tell(done, outcome)
            for opened, state in effects.opened:
                self._tell(opened, state)
            if effects.committed:
                self._edge.committed(effects.committed)
            if effects.filing:
                log.committed(effects.filing)
                for wake in self._followers:
                    wake()
            if effects.hurry:
                log.file_all()
            if self._peers is not None:  # behind `committed`: what peers are to be read may have been among it
                self._pass_on(effects, self._peers)

    def _ask_disk(self, effects: Effects) -> None:
        log = self.log
        if effects.batch is not None:
            log.append(effects.batch)
        for claim in effects.claims:
            if self._register is None:  # the log has this node's own
                log.cas(claim.expected_version, claim.new, claim)
            else:
                self._register.ask(claim, self.cluster.now)
        for room in effects.load:
            log.load_room(room)
        if effects.find:
            log.find_keys(effects.find, effects.find)

    def _pass_on(self, effects: Effects, peers: Peers) -> None:
        for member, message in effects.sends:
            peers.send(member, message)
        for read in effects.reads:
            self.log.read_shard(read.shard, read.after, read.limit, READ_BYTES, read)
        for shard, member, epoch in effects.teach:
            peers.teach(shard, member, epoch)
        for row in effects.announced:
            peers.announce(row)
        for done, answer in effects.confirmed:
            self._tell(done, answer)
        if effects.moved:
            peers.moved(effects.moved)

    def drain(self) -> None:
        """Take the log's answers, and perform what they bring about; called in each turn of the hub."""
        completions = self.log.completions
        while completions:
            self._complete(completions.popleft())
        self.turn()

    def close(self) -> None:
        """Take no more submits: the node is leaving. What was taken is still answered."""
        self._closing = True
        self.cluster.refuse(Away.CLOSING)

    # -- inside --------------------------------------------------------------------------------------------------

    def _complete(self, done: object) -> None:  # noqa: C901, PLR0912 - a table
        match done:
            case Persisted():
                self.cluster.persisted(done.ticket)
                self._edge.persisted(done)
            case Filed():
                self.cluster.filed(done.entries)
            case HistoryRead() | MarkRead() | MetaRead() | TailRead():
                self._tell(done.token, done.result)
            case ShardRead():
                self._read_shard(done.token, done.result)
            case SnapshotRead() | SnapshotTaken() | SnapshotRefused():
                if self._peers is not None:
                    self._peers.completed(done)
            case RoomLoaded():
                self.cluster.loaded(done.record, self._now_ms)
            case KeysFound():
                self.cluster.found(done.token, done.known, self._now_ms)
            case KeysScanned():
                self._scanned(done)
            case Trimmed():
                self.cluster.trimmed(done.floors)
            case CasDone():
                self.claimed(Answer(done.token, done.current, done=done.current is done.token.new))
            case Halted():
                self._halt(done.fault)
            case _:
                raise TypeError(f"the log answered with {done!r}")

    def _tell(self, told: Callable[[Any], None], answer: object) -> None:
        try:
            told(answer)
        except Exception as error:  # noqa: BLE001 - the boundary: it is one client's
            self._edge.failed(told, error)

    def _learn(self, reader: Reader, filed: int | StorageFault) -> None:
        marks = self.cluster.marks
        answer: int | Away = Away.STORAGE_FAULT
        if isinstance(filed, StorageFault):
            waiting = marks.fail(reader)
        else:
            waiting, answer = marks.learn(reader, filed)
        for told in waiting:
            self._tell(told, answer)

    def claimed(self, answer: Answer) -> None:
        """The register has answered a claim."""
        self.cluster.claimed(answer.claim, answer.current, self._now_ms, done=answer.done)

    def _read_shard(self, read: ReadLog, result: ShardRun | Dropped | StorageFault) -> None:
        if isinstance(result, ShardRun):
            self.cluster.log_read(read, result.chain, result.wires)
        elif not isinstance(result, StorageFault):
            self.cluster.log_gone(read)

    def _scanned(self, done: KeysScanned) -> None:
        for number in done.numbers:
            self._keys.add(number)
        if done.end is None:
            self.cluster.know_keys(self._keys)
        else:
            self.log.scan_keys(done.end, SCAN_PAGES)

    def _watch_space(self) -> None:
        full = self.log.full
        if full != self._full and self.fault is None and not self._closing:
            self._full = full
            self.cluster.refuse(Away.STORAGE_FULL if full else None)

    def _halt(self, fault: StorageFault) -> None:
        if self.fault is None:
            self.fault = fault
            self.cluster.halt(Away.STORAGE_FULL if fault.reason == "full" else Away.STORAGE_FAULT)
            self._edge.halted(fault)

    def _read_on(self, state: RoomState, read: History, done: Read) -> None:
        since = state.floor if read.since is None else max(read.since, state.floor)
        if since + 1 >= state.cached_from:
            entries = _within(state.after(since, read.limit), read.max_bytes)
            done(Page(state.show(entries), state.floor, state.committed))
            return
        limit = min(read.limit, MAX_PAGE)
        state.pins += 1
        state.reads += 1

        def finish(result: list[Entry] | StorageFault) -> None:
            state.pins -= 1
            state.reads -= 1
            if isinstance(result, StorageFault):
                done(Away.STORAGE_FAULT)
                return
            entries = _above(result, state.floor)  # which may have risen meanwhile
            last = entries[-1].sequence if entries else since
            if len(entries) < limit and last + 1 >= state.cached_from:
                entries = _within([*entries, *state.after(last, limit - len(entries))], read.max_bytes)
            done(Page(state.show(entries), state.floor, state.committed))

        self.log.history(History(state.room, since, limit, reverse=False, max_bytes=read.max_bytes), finish)

    def _read_back(self, state: RoomState, read: History, done: Read) -> None:
        before = state.committed + 1 if read.since is None else min(read.since, state.committed + 1)
        cached = _above(_within(state.before(before, read.limit), read.max_bytes), state.floor)
        lowest = cached[-1].sequence if cached else before
        missing = min(read.limit - len(cached), MAX_PAGE)
        if missing <= 0 or lowest - 1 <= state.floor or lowest > state.cached_from:
            done(Page(state.show(cached), state.floor, state.committed))
            return
        left = read.max_bytes - sum(len(entry.wire) for entry in cached)
        if cached and left <= 0:
            done(Page(state.show(cached), state.floor, state.committed))
            return
        state.pins += 1
        state.reads += 1

        def finish(result: list[Entry] | StorageFault) -> None:
            state.pins -= 1
            state.reads -= 1
            if isinstance(result, StorageFault):
                done(Away.STORAGE_FAULT)
                return
            done(Page(state.show(_above([*cached, *result], state.floor)), state.floor, state.committed))

        self.log.history(History(state.room, lowest, missing, reverse=True, max_bytes=left), finish)


def _above(entries: Iterable[Entry], floor: int) -> list[Entry]:
    return [entry for entry in entries if entry.sequence > floor]


def _within(entries: Iterable[Entry], max_bytes: int) -> list[Entry]:
    """The first entries whose canonical bytes stay within `max_bytes` in sum; at least one, if there is one."""
    taken: list[Entry] = []
    for entry in entries:
        max_bytes -= len(entry.wire)
        if max_bytes < 0 and taken:
            break
        taken.append(entry)
    return taken

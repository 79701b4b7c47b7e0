"""The edge: rooms that clients of this node are in, whoever is their primary.  Sans-I/O.

It is to the gateway what the router is on a single node: opens rooms, takes submits, reads history, hands on what is
committed. Behind it, each room's primary may be another node or this one, and change; of that, members notice nothing
but time, or are told plainly (`Reset`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from router.edge_asks import Asks
from router.edge_ground import Ground
from router.edge_link import Resolved
from router.edge_rooms import Phase, Rooms
from router.edge_stream import entries_of
from router.edge_submits import Submits
from router.edge_wire import (
    MAX_ENTRIES,
    Entries,
    Failed,
    Fetch,
    Made,
    Mark,
    Marked,
    NotPrimary,
    Opened,
    Refused,
    Repeated,
    Restart,
    configuration_of,
)
from router.entry import decode
from router.errors import CorruptEntry
from router.events import Away, Duplicate, Page, Refusal
from router.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.edge_ground import EdgeEffects, EdgeOptions, Locate
    from router.edge_link import LocalAnswer
    from router.edge_wire import Publication
    from router.entry import Entry
    from router.events import History, Outcome, Submit
    from router.ids import ShardId
    from router.marks import Reader
    from router.room import RoomState
    from router.serving import Serving


FURTHEST: Final = 1 << 62  # above all sequences; clients may name higher ones


class EdgeStatistics(NamedTuple):
    """A moment of an edge.

    Attributes:
        rooms: That are followed, by phase.
        submits: Without an outcome.
        asks: Questions without an answer.
        cached_bytes: Of entries in memory.
        faults: Messages of peers that could not be what they said.
    """

    rooms: dict[Phase, int]
    submits: int
    asks: int
    cached_bytes: int
    faults: int


class Edge:
    """One node's.

    Args:
        me: This node.
        boot: Of this process; no other process of the cluster has it.
        options: Bounds and times.
        locate: Says where a room is, by what is known now.
        mapping: Gives the version of the mapping of rooms to shards that `locate` uses.
        random: Gives numbers in [0, 1), for jitter.
        serving: Answers for the rooms whose primary this node is.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings
        self, me: str, boot: str, options: EdgeOptions, locate: Locate, mapping: Callable[[], int],
        random: Callable[[], float], serving: Serving,
    ) -> None:  # fmt: skip
        self._ground = Ground(me, options, locate, mapping, random, serving)
        self._rooms = Rooms(self._ground)
        self._asks = Asks(self._ground)
        self._submits = Submits(self._ground, boot, self._rooms.land, self._rooms.land_again)

    # -- the gateway's requests ----------------------------------------------------------------------------------

    def open_room(self, room: RoomId, done: Callable[[RoomState | Away], None], now: int) -> None:
        """Follow a room; it is followed as long as its state is pinned, and a while longer."""
        self._ground.now = now
        self._rooms.open(room, done)

    def submit(self, submit: Submit, now: int) -> None:
        """Take a message, or a probe; what is given to one room is made in the order of calls.

        An entry is answered after it was handed on, if its room is followed here.
        """
        self._ground.now = now
        self._submits.add(submit)

    def history(self, state: RoomState, read: History, done: Callable[[Page | Away], None], now: int) -> None:
        """Read a room's entries: from memory where it holds all that is asked for, else from the primary.

        Args:
            state: Of a room that is followed.
            read: What.
            done: Answered with the page. It may go beyond what was handed on.
            now: Milliseconds.
        """
        self._ground.now = now
        page = _cached(state, read)
        if page is not None:
            self._ground.answer(done, page)
            return
        room = read.room

        def made(request: int, mapping: int) -> Fetch:
            since = state.floor if read.since is None and not read.reverse else read.since
            after = None if since is None else min(max(since, 0), FURTHEST)
            return Fetch(
                request, room.site, room.channel, mapping, after, None, min(read.limit, MAX_ENTRIES),
                read.max_bytes, read.reverse,
            )  # fmt: skip

        def took(answer: Entries | Marked | Away) -> None:
            state.pins -= 1
            state.reads -= 1
            self._ground.answer(done, self._page(state, read, answer))

        state.pins += 1
        state.reads += 1
        self._asks.add(room, made, took)

    def mark(self, reader: Reader, done: Callable[[int | Away], None], now: int) -> None:
        """Ask how far a user has read; 0 for who has no mark."""
        self._ground.now = now
        room, user = reader

        def made(request: int, mapping: int) -> Mark:
            return Mark(request, room.site, room.channel, mapping, user)

        def took(answer: Entries | Marked | Away) -> None:
            if isinstance(answer, Entries):
                answer = Away.UNREACHABLE
            self._ground.answer(done, answer.mark if isinstance(answer, Marked) else answer)

        self._asks.add(room, made, took)

    # -- what comes ----------------------------------------------------------------------------------------------

    def committed(self, entries: Sequence[Entry], now: int) -> None:
        """Entries were committed at this node: told before their `origin` is, and after a step-down `relocated`."""
        self._ground.now = now
        self._rooms.take(entries)

    def receive(self, node: str, answer: LocalAnswer, now: int) -> None:
        """A node answers."""
        self._ground.now = now
        self._receive(node, answer)

    def published(self, node: str, message: Publication, now: int) -> None:
        """A node has published."""
        self._ground.now = now
        self._rooms.publication(node, message)

    def relocated(self, shard: ShardId, now: int) -> None:
        """What `locate` says of the rooms of a shard has changed, or its primary has begun a new epoch."""
        self._ground.now = now
        self._rooms.relocated(shard)
        self._submits.relocated(shard)
        self._asks.relocated(shard)

    def tick(self, now: int) -> None:
        """Time has passed."""
        self._ground.now = now
        self._rooms.tick()
        self._submits.tick()
        self._asks.tick()

    # -- for the driver ------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> int | None:
        """When `tick` is to be called; None: nothing is due."""
        due = [t.next for t in (self._rooms.timers, self._submits.timers, self._asks.timers) if t.next is not None]
        return min(due, default=None)

    def effects(self) -> EdgeEffects:
        """What there is to do since the last call; answers of this node itself are taken first."""
        answers = self._ground.local.answers
        while answers:
            self._receive(self._ground.me, answers.popleft())
        return self._ground.take()

    def statistics(self) -> EdgeStatistics:
        """Counts of this moment."""
        rooms = self._rooms
        return EdgeStatistics(
            rooms.phases(), len(self._submits), len(self._asks), rooms.cache.bytes, rooms.faults
        )  # fmt: skip

    # -- inside --------------------------------------------------------------------------------------------------

    def _receive(self, node: str, answer: LocalAnswer) -> None:  # noqa: C901 - a table
        match answer:
            case Opened():
                self._rooms.opened(node, answer)
            case Made():
                self._made(answer)
            case Repeated():
                self._submits.settle(answer.request, 0, Duplicate(answer.sequence))
            case Refused():
                self._refused(answer)
            case Restart():
                self._submits.restart(RoomId(answer.site, answer.channel), answer.session)
            case Entries():
                if not self._rooms.fetched(answer):
                    self._asks.settle(answer.request, answer)
            case Marked():
                self._asks.settle(answer.request, answer)
            case NotPrimary():
                self._not_primary(answer)
            case Failed():
                self._failed(answer.request, Away.__members__.get(answer.reason, Away.UNREACHABLE))
            case Resolved():
                self._submits.settle(answer.request, answer.session, answer.outcome, answer.generation)

    def _refused(self, answer: Refused) -> None:
        reason = Refusal.__members__.get(answer.reason)
        if reason is None:
            self._rooms.faults += 1
        else:
            self._submits.settle(answer.request, answer.session, reason)

    def _made(self, answer: Made) -> None:
        outcome: Outcome
        try:
            outcome = decode(answer.wire, None)
        except CorruptEntry:
            self._rooms.faults += 1
            return
        self._submits.settle(answer.request, 0, outcome, answer.generation)

    def _not_primary(self, answer: NotPrimary) -> None:
        if answer.row is not None:
            self._ground.effects.hints.append(configuration_of(answer.row))
        if not self._rooms.put_off(answer.request):
            self._submits.put_off(answer.request)
            self._asks.put_off(answer.request)

    def _failed(self, request: int, why: Away) -> None:
        if not self._rooms.put_off(request):
            self._submits.settle(request, 0, why)
            self._asks.settle(request, why)

    def _page(self, state: RoomState, read: History, answer: Entries | Marked | Away) -> Page | Away:
        if not isinstance(answer, Entries):
            return answer if isinstance(answer, Away) else Away.UNREACHABLE
        if answer.generation != state.generation:
            return Away.MOVED
        try:
            entries = entries_of(answer, reverse=read.reverse)
        except CorruptEntry:
            self._rooms.faults += 1
            return Away.UNREACHABLE
        state.floor = max(state.floor, answer.floor)
        entries = [entry for entry in entries if entry.sequence > state.floor]
        return Page(state.show(entries), state.floor, max(state.committed, answer.head[0]))


def _cached(state: RoomState, read: History) -> Page | None:
    """A page out of memory; None: it does not have all of it."""
    if read.reverse:
        before = state.committed + 1 if read.since is None else min(read.since, state.committed + 1)
        entries = state.before(before, read.limit)
        lowest = entries[-1].sequence if entries else before
        whole = len(entries) == read.limit or lowest - 1 <= state.floor
    else:
        since = state.floor if read.since is None else max(read.since, state.floor)
        entries = list(state.after(since, read.limit)) if since + 1 >= state.cached_from else []
        whole = since + 1 >= state.cached_from
    fitting: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.wire)
        if fitting and size > read.max_bytes:
            whole = True
            break
        if entry.sequence > state.floor:
            fitting.append(entry)
    return Page(state.show(fitting), state.floor, state.committed) if whole else None

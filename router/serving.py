"""A primary's side of the edges: answers what they ask of rooms served here, publishes what is committed.  Sans-I/O.

Nothing that was read is said, be it asked or published as a Head, before the shard's members have confirmed that this
node still is the primary (rule 12), in the same tenure; a primary that slept through a fail-over so says nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from router.edge_wire import (
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_MESSAGE,
    Entries,
    Failed,
    Fetch,
    Head,
    Hidden,
    Made,
    Mark,
    Marked,
    NotPrimary,
    Open,
    Opened,
    Published,
    Refused,
    Repeated,
    Restart,
    SubmitRemote,
    encode,
    row_of,
    topic_of,
)
from router.entry import LAST_VISIBLE, Entry, Kind
from router.errors import CorruptEntry
from router.events import Away, Duplicate, History, Refusal, Submit
from router.ids import Place, RoomId
from router.marks import Reader
from router.serving_order import Order, Turn
from router.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.edge_wire import Answer, Request
    from router.events import Configuration, Outcome, Page
    from router.ids import ShardId
    from router.room import RoomState
    from router.serving_order import Peer

MOST_TOPICS: Final = 100_000  # of rooms that were written to, kept because hashing costs more than looking up
EPOCH: Final = int(Kind.EPOCH)
META_BYTES: Final = MAX_BYTES // 2  # of META in an answer; with the visible entries it fits into a message

Reply: TypeAlias = "Callable[[Answer], None]"


class Metas(NamedTuple):
    """META and MARKS entries of a room.

    Attributes:
        entries: Committed, oldest first; without those MARKS that the log has dropped.
        upto: All others up to this `meta_n` are there.
    """

    entries: Sequence[Entry]
    upto: int


class Source(Protocol):
    """The router, as `Serving` sees it. Callbacks are called once, at once or later."""

    @property
    def mapping(self) -> int:
        """Version of the mapping of rooms to shards."""

    def shard_of(self, room: RoomId) -> ShardId:
        """The room's shard by this mapping."""

    def row(self, shard: ShardId) -> Configuration | None:
        """The newest row of the register that is known."""

    def serves(self, shard: ShardId) -> bool:
        """Whether this node is the shard's primary, and has taken over."""

    def confirm(self, shard: ShardId, done: Callable[[bool], None]) -> None:
        """Whether it still is, by a round trip to the shard's members that begins now."""

    def state(self, room: RoomId) -> RoomState | None:
        """The room, if it is in memory."""

    def open_room(self, room: RoomId, done: Callable[[RoomState | Away], None]) -> None:
        """Bring a room of a shard that is served into memory."""

    def head(self, state: RoomState) -> Place:
        """The place of its newest committed entry."""

    def submit(self, submit: Submit) -> None:
        """Take a message; submits get their places in the order of calls."""

    def probe(self, submit: Submit) -> None:
        """Ask for the outcome of a message that is not to be made; in order with submits."""

    def history(self, state: RoomState, read: History, done: Callable[[Page | Away], None]) -> None:
        """Read visible entries, as clients are shown them."""

    def metas(self, state: RoomState, after: int, limit: int, done: Callable[[Metas | Away], None]) -> None:
        """Read META and MARKS entries above a `meta_n`, at most so many."""

    def mark(self, reader: Reader, done: Callable[[int | Away], None]) -> None:
        """How far a user has read."""


@dataclass(slots=True, frozen=True)
class ServingOptions:
    """Times in milliseconds.

    Attributes:
        head_every: Between two Heads of an active room.
        active: A room is active so long after an entry; then the time between Heads doubles, up to `idle_most`.
        idle_most: Its bound.
        unheard: A room that an edge has opened and nobody subscribed to is forgotten after so long.
    """

    head_every: int = 250
    active: int = 2000
    idle_most: int = 15_000
    unheard: int = 10_000


@dataclass(slots=True)
class ServingEffects:
    """What the driver performs.

    Attributes:
        sends: Messages, by node.
        publications: By topic.
    """

    sends: list[tuple[str, bytes]] = field(default_factory=list)
    publications: list[tuple[bytes, bytes]] = field(default_factory=list)


class _Served:
    """A room that edges follow."""

    __slots__ = ("active_until", "every", "shard", "since", "state", "topic")

    def __init__(self, state: RoomState, topic: bytes, shard: ShardId, now: int, options: ServingOptions) -> None:
        self.state, self.topic, self.shard, self.since = state, topic, shard, now
        self.active_until, self.every = now + options.active, options.head_every


class Serving:
    """What other nodes' edges ask of this node, and this node's own edge.

    Args:
        source: The router.
        options: Times.
    """

    def __init__(self, source: Source, options: ServingOptions | None = None) -> None:
        self._source = source
        self._options = options or ServingOptions()
        self._orders: dict[ShardId, Order] = {}
        self._tenures: Counter[ShardId] = Counter()  # of this node, that have ended
        self._wanted: set[bytes] = set()  # topics that anybody subscribed to
        self._topics: dict[RoomId, bytes] = {}
        self._served: dict[RoomId, _Served] = {}
        self._by_topic: dict[bytes, dict[RoomId, None]] = {}
        self._timers: Timers[RoomId] = Timers()
        self._confirming: dict[ShardId, dict[RoomId, None]] = {}  # rooms whose Heads wait for a round trip
        self._outgoing: dict[RoomId, list[bytes]] = {}
        self._effects = ServingEffects()
        self._now = 0

    def __len__(self) -> int:
        return len(self._served)

    # -- what comes ----------------------------------------------------------------------------------------------

    def receive(self, node: str, boot: str, message: Request, now: int) -> None:
        """A node's edge asks something.

        Raises:
            CorruptEntry: No edge may ask that.
        """
        self._now = now

        def reply(answer: Answer) -> None:
            body = encode(answer)
            if len(body) > MAX_MESSAGE:  # which no entries make, but a room's values may
                body = encode(Failed(message.request, Away.OVERLOADED.name))
            self._effects.sends.append((node, body))

        if isinstance(message, SubmitRemote):
            self._submit(message, (node, boot), reply)
        else:
            self.ask(message, reply, follow=True)

    def ask(self, message: Open | Fetch | Mark, reply: Reply, *, follow: bool) -> None:
        """Answer a question; `reply` is called once, at once or later.

        Args:
            message: The question.
            reply: Takes the answer.
            follow: Whether Heads of an opened room are to be published from now on.
        """
        room = RoomId(message.site, message.channel)
        refusal = self.refusal(message.request, room, message.mapping)
        if refusal is not None:
            reply(refusal)
            return
        tenure = self._tenures[self._source.shard_of(room)]

        def reply_in_tenure(answer: Answer) -> None:
            """What was read in one tenure and confirmed in the next may have been old when it was read."""
            over = self._tenures[self._source.shard_of(room)] != tenure
            reply(self._not_primary(message.request, room) if over else answer)

        match message:
            case Open():
                self._open(message, room, reply_in_tenure, follow=follow)
            case Fetch():
                self._fetch(message, room, reply_in_tenure)
            case Mark():
                self._mark(message, room, reply_in_tenure)

    def refusal(self, request: int, room: RoomId, mapping: int) -> NotPrimary | None:
        """The answer to what is asked of a room that is not served here; None: it is."""
        source = self._source
        if mapping == source.mapping and source.serves(source.shard_of(room)):
            return None
        return self._not_primary(request, room)

    def turn(self, peer: Peer, room: RoomId, session: int, number: int) -> Turn:
        """A submit came for a room that is served here: whether it is its turn."""
        shard = self._source.shard_of(room)
        order = self._orders.get(shard)
        if order is None:
            order = self._orders[shard] = Order()
        return order.take(peer, room, session, number)

    def generation(self, room: RoomId) -> int:
        """Of a room in memory, as it is after a commit; 0: it has gone already."""
        state = self._source.state(room)
        return 0 if state is None else state.generation

    def take(self, submit: Submit) -> None:
        """Have an entry made, or found, whose turn it is."""
        if submit.probe:
            self._source.probe(submit)
        else:
            self._source.submit(submit)

    def committed(self, entries: Sequence[Entry], now: int) -> None:
        """Entries are committed: they are published, if anybody wants them, with the next `effects`."""
        self._now = now
        if not self._wanted:
            return
        outgoing, served, wanted = self._outgoing, self._served, self._wanted
        for entry in entries:
            room = entry.room
            if entry.kind == EPOCH or self._topic(room) not in wanted:
                continue
            outgoing.setdefault(room, []).append(entry.wire)
            known = served.get(room)
            if known is not None:
                self._enliven(room, known)

    def subscribed(self, topic: bytes, now: int, *, wanted: bool) -> None:
        """Whether anybody wants a topic has changed, or somebody new does: rooms of it are told of."""
        self._now = now
        rooms = self._by_topic.get(topic, {})
        if wanted:
            self._wanted.add(topic)
            for room in rooms:
                self._timers.set(room, now)
        else:
            self._wanted.discard(topic)
            for room in list(rooms):
                self._forget(room)

    def unserved(self, shard: ShardId) -> None:
        """This node is no longer the shard's primary: called before it may become it anew, and before submits of then.

        What it has taken of edges, and what it was about to answer, is void.
        """
        self._tenures[shard] += 1
        self._orders.pop(shard, None)
        for room in [room for room, served in self._served.items() if served.shard == shard]:
            self._forget(room)

    def tick(self, now: int) -> None:
        """Time has passed: Heads are due."""
        self._now = now
        while (room := self._timers.pop(now)) is not None:
            served = self._served[room]
            if not self._source.serves(served.shard):
                self._forget(room)
            elif served.topic in self._wanted:
                self._ask_head(room, served)
            elif now - served.since >= self._options.unheard:
                self._forget(room)
            else:
                self._timers.set(room, served.since + self._options.unheard)

    @property
    def next_deadline(self) -> int | None:
        """When `tick` is to be called; None: nothing is due."""
        return self._timers.next

    def effects(self) -> ServingEffects:
        """What there is to do since the last call."""
        self._flush()
        effects, self._effects = self._effects, ServingEffects()
        return effects

    # -- inside --------------------------------------------------------------------------------------------------

    def _not_primary(self, request: int, room: RoomId) -> NotPrimary:
        row = self._source.row(self._source.shard_of(room))
        return NotPrimary(request, self._source.mapping, None if row is None else row_of(row))

    def _open(self, message: Open, room: RoomId, reply: Reply, *, follow: bool) -> None:
        def told(state: RoomState) -> Answer:
            if follow:
                self._follow(state)
                self._hasten(room)  # who asks waits for Heads, and may have subscribed long ago
            head = self._source.head(state)
            return Opened(
                message.request, state.generation, head.sequence, head.meta_n, state.ts, state.floor,
                dict(state.values or {}),
            )  # fmt: skip

        self._with_room(
            message.request, room, reply, lambda state: self._confirmed(message.request, state, reply, told)
        )

    def _with_room(self, request: int, room: RoomId, reply: Reply, go_on: Callable[[RoomState], None]) -> None:
        def opened(state: RoomState | Away) -> None:
            if isinstance(state, Away):
                reply(self._failed(request, room, state))
            else:
                go_on(state)

        self._source.open_room(room, opened)

    def _confirmed(self, request: int, state: RoomState, reply: Reply, told: Callable[[RoomState], Answer]) -> None:
        """Answer when the shard's members have said that this node is its primary."""
        state.pins += 1

        def confirmed(primary: bool) -> None:  # noqa: FBT001 - the answer of `Source.confirm`
            state.pins -= 1
            reply(told(state) if primary else self._not_primary(request, state.room))

        self._source.confirm(state.shard, confirmed)

    def _failed(self, request: int, room: RoomId, why: Away) -> Answer:
        return self._not_primary(request, room) if why is Away.MOVED else Failed(request, why.name)

    def _fetch(self, message: Fetch, room: RoomId, reply: Reply) -> None:
        request = message.request
        read = History(
            room, message.after, message.limit, reverse=message.reverse, max_bytes=min(message.max_bytes, MAX_BYTES)
        )

        def read_visible(state: RoomState, metas: Metas | None) -> None:
            def took(page: Page | Away) -> None:
                if isinstance(page, Away):
                    reply(self._failed(request, room, page))
                else:
                    self._confirmed(request, state, reply, lambda state: self._entries(message, state, page, metas))

            self._source.history(state, read, took)

        def opened(state: RoomState) -> None:
            if message.meta_n is None or message.reverse:
                read_visible(state, None)
                return

            def took(metas: Metas | Away) -> None:
                if isinstance(metas, Away):
                    reply(self._failed(request, room, metas))
                else:
                    read_visible(state, metas)

            # First these: so what stands before one of them is in the page, as far as that goes.
            self._source.metas(state, message.meta_n, message.limit, took)

        self._with_room(request, room, reply, opened)

    def _entries(self, message: Fetch, state: RoomState, page: Page, metas: Metas | None) -> Entries:
        head = self._source.head(state)
        shown, upto = page.entries[: message.limit], Place(0, 0)
        hidden_entries: list[Entry] = []
        if metas is not None:
            after = Place(message.after or 0, message.meta_n or 0)
            shown, hidden_entries, upto = join(after, page, _within(metas))
        hidden = [
            Hidden(index, entry.removal.sequence, entry.removal.ts, entry.removal.reason, entry.removal.target)
            for index, entry in enumerate(shown)
            if entry.removal is not None
        ]
        return Entries(
            message.request, state.generation, [entry.wire for entry in shown], hidden,
            [entry.wire for entry in hidden_entries], (upto.sequence, upto.meta_n), page.floor,
            (head.sequence, head.meta_n),
        )  # fmt: skip

    def _mark(self, message: Mark, room: RoomId, reply: Reply) -> None:
        request = message.request

        def told(mark: int | Away) -> None:
            if isinstance(mark, Away):
                reply(self._failed(request, room, mark))
                return

            def confirmed(primary: bool) -> None:  # noqa: FBT001 - the answer of `Source.confirm`
                reply(Marked(request, mark) if primary else self._not_primary(request, room))

            self._source.confirm(self._source.shard_of(room), confirmed)

        self._source.mark(Reader(room, message.user), told)

    def _submit(self, message: SubmitRemote, peer: Peer, reply: Reply) -> None:
        room, request = RoomId(message.site, message.channel), message.request
        if message.kind == EPOCH or not message.cmid:
            raise CorruptEntry(f"an edge wants an entry of kind {message.kind} under the id {message.cmid!r}")
        refusal = self.refusal(request, room, message.mapping)
        if refusal is not None:
            reply(refusal)
            return
        turn = self.turn(peer, room, message.session, message.number)
        if turn is Turn.MISSING:
            reply(Restart(message.site, message.channel, message.session))
        if turn is not Turn.TAKEN:
            return

        def done(outcome: Outcome) -> None:
            reply(self._outcome(request, message.session, room, outcome))

        submit = Submit(
            room, message.kind, message.sender, message.cmid, message.data, message.info, done, message.probe
        )
        self.take(submit)

    def _outcome(self, request: int, session: int, room: RoomId, outcome: Outcome) -> Answer:
        match outcome:
            case Entry():
                return Made(request, self.generation(room), outcome.wire)
            case Duplicate():
                return Repeated(request, outcome.sequence)
            case Refusal():
                return Refused(request, session, outcome.name)
            case Away():
                return self._failed(request, room, outcome)

    def _topic(self, room: RoomId) -> bytes:
        topic = self._topics.get(room)
        if topic is None:
            if len(self._topics) >= MOST_TOPICS:
                self._topics.clear()
            topic = self._topics[room] = topic_of(room)
        return topic

    def _follow(self, state: RoomState) -> None:
        room = state.room
        known = self._served.get(room)
        if known is not None:
            if known.state is state:
                return
            self._forget(room)
        served = _Served(state, self._topic(room), self._source.shard_of(room), self._now, self._options)
        state.pins += 1
        self._served[room] = served
        self._by_topic.setdefault(served.topic, {})[room] = None
        self._timers.set(room, self._now + served.every)

    def _forget(self, room: RoomId) -> None:
        served = self._served.pop(room)
        served.state.pins -= 1
        self._timers.cancel(room)
        rooms = self._by_topic[served.topic]
        del rooms[room]
        if not rooms:
            del self._by_topic[served.topic]

    def _enliven(self, room: RoomId, served: _Served) -> None:
        served.active_until = self._now + self._options.active
        self._hasten(room)

    def _hasten(self, room: RoomId) -> None:
        served = self._served[room]
        if served.every > self._options.head_every:
            served.every = self._options.head_every
            self._timers.set(room, self._now + served.every)

    def _ask_head(self, room: RoomId, served: _Served) -> None:
        waiting = self._confirming.get(served.shard)
        if waiting is not None:
            waiting[room] = None
        else:
            self._confirming[served.shard] = {room: None}
            self._source.confirm(served.shard, partial(self._publish_heads, served.shard))

    def _publish_heads(self, shard: ShardId, primary: bool) -> None:  # noqa: FBT001 - the answer of `Source.confirm`
        self._flush()  # a Head that came before what it tells of would have it fetched
        for room in self._confirming.pop(shard):
            served = self._served.get(room)
            if served is None:
                continue
            if self._now >= served.active_until:
                served.every = min(served.every * 2, self._options.idle_most)
            self._timers.set(room, self._now + served.every)
            if primary:
                head, state = self._source.head(served.state), served.state
                message = Head(room.site, room.channel, state.generation, head.sequence, head.meta_n, served.every)
                self._effects.publications.append((served.topic, encode(message)))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for room, wires in outgoing.items():
            self._publish(room, wires)

    def _publish(self, room: RoomId, wires: list[bytes]) -> None:
        shard = self._source.shard_of(room)
        state = self._source.state(room)
        if state is None or not self._source.serves(shard):
            return
        self._follow(state)
        topic, start, size = self._topic(room), 0, 0
        for at, wire in enumerate(wires):
            if at > start and (at - start >= MAX_ENTRIES or size + len(wire) > MAX_BYTES):
                self._publish_some(topic, state, wires[start:at])
                start, size = at, 0
            size += len(wire)
        self._publish_some(topic, state, wires[start:])

    def _publish_some(self, topic: bytes, state: RoomState, wires: list[bytes]) -> None:
        room = state.room
        message = Published(room.site, room.channel, state.generation, wires)
        self._effects.publications.append((topic, encode(message)))


def join(after: Place, page: Page, metas: Metas) -> tuple[list[Entry], list[Entry], Place]:
    """Bring two reads of a room together.

    Args:
        after: Where both began.
        page: Its visible entries, read after `metas`.
        metas: Its others.

    Returns:
        Visible entries and others, up to a place, and that place: between it and `after` nothing is missing.
    """
    reached = page.entries[-1].sequence if page.entries else max(after.sequence, page.floor)
    visible: list[Entry] = []
    others: list[Entry] = []
    upto = after
    for entry in sorted([*page.entries, *metas.entries], key=lambda entry: (entry.sequence, entry.meta_n)):
        if entry.kind <= LAST_VISIBLE:
            if entry.meta_n > metas.upto:
                return visible, others, upto
            visible.append(entry)
        else:
            if entry.sequence > reached:
                return visible, others, upto
            others.append(entry)
        upto = Place(entry.sequence, max(upto.meta_n, entry.meta_n))
    if reached >= page.head:
        upto = Place(upto.sequence, max(upto.meta_n, metas.upto))
    return visible, others, upto


def _within(metas: Metas) -> Metas:
    """As many of them as fit into an answer, at least one."""
    size = 0
    for count, entry in enumerate(metas.entries):
        size += len(entry.wire)
        if count and (size > META_BYTES or count >= MAX_ENTRIES):
            return Metas(metas.entries[:count], metas.entries[count - 1].meta_n)
    return metas

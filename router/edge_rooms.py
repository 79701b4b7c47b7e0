"""The rooms that an edge follows: how each finds its primary, and what it still misses.  Sans-I/O.

    opening ----------- Opened ----------> live
    live -------- something is missing --> gap            (then FETCH, after a jitter)
    gap ----------- nothing is missing --> live
    live, gap ---- the primary is silent, does not answer, or is another --> reopening
    reopening --------- Opened ----------> live or gap    (the same state goes on; what was missed is fetched)

Whatever comes in a phase, of whichever node, is handed on if it is the next entry: what is committed is true wherever
it comes from.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from router.edge_ground import Reset
from router.edge_stream import Stream
from router.edge_wire import MAX_BYTES, MAX_ENTRIES, Fetch, Head, Open, topic_of
from router.entry import decode
from router.errors import CorruptEntry
from router.events import Away, Duplicate, RoomRecord
from router.ids import Place, RoomId
from router.room import RoomCache, RoomState
from router.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.edge_ground import Ground
    from router.edge_wire import Entries, Opened, Publication
    from router.entry import Entry
    from router.ids import ShardId

MOST_TRIES = 3  # of a FETCH; then the room is opened anew
FOREVER = 1 << 62


class Phase(Enum):
    """How a room stands to its primary."""

    OPENING = "opening"
    LIVE = "live"
    GAP = "gap"
    REOPENING = "reopening"


class _Followed:
    """A room.

    Attributes:
        stream: What this edge has of it; None: nothing yet.
        generation: Of the stream, or the highest that was heard of.
        ahead: Before there is a stream, as `Stream.ahead`.
        node: Who was asked last, or has answered; its publications are subscribed to.
        attempt: How many nodes were asked in vain.
        request: What was asked and is not answered; 0: nothing.
        retry_at: When the next step of any phase but LIVE is due.
        heard: When the primary said last where the room stands.
        patience: How long it may be silent.
        openers: Who waits for the room, and until when.
        landed: Outcomes of submits that came before the entry could be handed on, who waits, and until when.
        unused_since: Since when nobody needs it, as far as was noticed.
        planned: When its timer is due.
    """

    __slots__ = (
        "ahead", "attempt", "generation", "heard", "landed", "node", "openers", "patience", "phase", "planned",
        "request", "retry_at", "room", "shard", "stream", "topic", "tries", "unused_since",
    )  # fmt: skip

    def __init__(self, room: RoomId, shard: ShardId) -> None:
        self.room, self.shard, self.topic = room, shard, topic_of(room)
        self.phase = Phase.OPENING
        self.stream: Stream | None = None
        self.generation = self.ahead = self.attempt = self.request = self.retry_at = self.heard = self.tries = 0
        self.patience = 0
        self.node: str | None = None
        self.openers: list[tuple[Callable[[RoomState | Away], None], int]] = []
        self.landed: list[tuple[Entry | Duplicate, Callable[[Any], None], int]] = []
        self.unused_since = FOREVER
        self.planned = FOREVER


class Rooms:
    """All rooms that an edge follows.

    Args:
        ground: Of the edge.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.cache = RoomCache(ground.options.cache_bytes, FOREVER)
        self._rooms: dict[RoomId, _Followed] = {}
        self._by_shard: dict[ShardId, dict[RoomId, None]] = {}
        self._requests: dict[int, _Followed] = {}
        self.timers: Timers[_Followed] = Timers()
        self.faults = 0
        """Answers and publications that could not be what they said."""

    def __len__(self) -> int:
        return len(self._rooms)

    def phases(self) -> dict[Phase, int]:
        """How many rooms are in each phase."""
        counts = dict.fromkeys(Phase, 0)
        for followed in self._rooms.values():
            counts[followed.phase] += 1
        return counts

    # -- what comes ----------------------------------------------------------------------------------------------

    def open(self, room: RoomId, done: Callable[[RoomState | Away], None]) -> None:
        """Follow a room; `done` is answered with its state, or after the deadline with `Away`."""
        ground = self._ground
        followed = self._rooms.get(room)
        if followed is None:
            if len(self._rooms) >= ground.options.max_rooms:
                ground.answer(done, Away.OVERLOADED)
                return
            route = ground.locate(room)
            followed = self._rooms[room] = _Followed(room, route.shard)
            self._by_shard.setdefault(route.shard, {})[room] = None
            self._seek(followed)
        if followed.stream is not None and followed.phase in {Phase.LIVE, Phase.GAP}:
            ground.answer(done, followed.stream.state)
        else:
            followed.openers.append((done, ground.now + ground.options.deadline))
        self._plan(followed)

    def state(self, room: RoomId) -> RoomState | None:
        """The room's state, if it is followed and was opened."""
        followed = self._rooms.get(room)
        return None if followed is None or followed.stream is None else followed.stream.state

    def take(self, entries: Sequence[Entry]) -> None:
        """Entries were committed at this node, which is the primary of their shard."""
        for entry in entries:
            followed = self._rooms.get(entry.room)
            if followed is not None and self._is_of(followed, self._ground.serving.generation(entry.room)):
                self._take(followed, entry)
                self._advance(followed)

    def publication(self, node: str, message: Publication) -> None:
        """Something was published."""
        followed = self._rooms.get(RoomId(message.site, message.channel))
        if followed is None or not self._is_of(followed, message.generation):
            return
        if isinstance(message, Head):
            head = Place(message.sequence, message.meta_n)
            self._note_ahead(followed, head.ordinal)
            if node == followed.node:
                followed.heard = self._ground.now
                # One that is lost may cost the time between two, and a bit for the way.
                followed.patience = max(self._ground.options.silence, 2 * message.next_ms + message.next_ms // 2)
        else:
            try:
                for wire in message.wires:
                    self._take(followed, decode(wire, None))
            except CorruptEntry:
                self.faults += 1
        self._advance(followed)

    def opened(self, node: str, message: Opened) -> None:
        """A node says where a room stands, as its primary."""
        followed = self._requests.get(message.request)
        if followed is None or followed.phase in {Phase.LIVE, Phase.GAP} or message.generation < followed.generation:
            return  # not asked any more, or of before a reset
        record = RoomRecord(
            followed.room, message.generation, message.sequence, message.meta_n, message.ts, message.floor,
            message.values,
        )  # fmt: skip
        stream, head = followed.stream, Place(message.sequence, message.meta_n)
        if stream is not None and followed.generation == message.generation:
            if head.sequence < stream.place.sequence or head.meta_n < stream.place.meta_n:
                return  # it does not know yet what was committed; it is asked again
            if message.floor > stream.place.sequence:
                self._replace(followed, record)
            else:
                stream.state.floor = max(stream.state.floor, message.floor)
                stream.note_head(head)
        elif stream is not None:
            self._replace(followed, record)
        else:
            self._begin(followed, record)
        self._answered(followed)
        self._listen(followed, node)
        followed.phase, followed.attempt = Phase.LIVE, 0
        followed.heard, followed.patience = self._ground.now, self._ground.options.silence
        self._greet(followed)
        self._advance(followed)

    def fetched(self, message: Entries) -> bool:
        """A node answers a FETCH; False: it was not asked for a gap."""
        followed = self._requests.get(message.request)
        if followed is None:
            return False
        if followed.phase is not Phase.GAP or followed.stream is None:
            return True
        self._answered(followed)
        if not self._is_of(followed, message.generation):
            return True
        stream, before = followed.stream, followed.stream.place
        if message.floor > before.sequence:
            self._seek(followed)  # what is missing can't be had any more
            return True
        try:
            stream.fill(message, self._ground.effects.committed)
        except CorruptEntry:
            self.faults += 1
        if stream.place != before:
            followed.tries = 0
            followed.retry_at = self._ground.now
        else:
            followed.retry_at = self._ground.now + self._ground.backoff(followed.tries)
        self._advance(followed)
        return True

    def put_off(self, request: int) -> bool:
        """The node that was asked is not the room's primary, or can't tell now; False: it was not asked."""
        followed = self._requests.get(request)
        if followed is None:
            return False
        if followed.phase is Phase.GAP:
            followed.attempt = 0
            self._seek(followed)
        else:
            followed.retry_at = self._ground.now + self._ground.backoff(followed.attempt)
            self._plan(followed)
        return True

    def relocated(self, shard: ShardId) -> None:
        """A shard has another primary, or its primary has begun anew."""
        for room in self._by_shard.get(shard, ()):
            followed = self._rooms[room]
            self._answered(followed)
            followed.attempt = -1  # the primary is asked first
            followed.phase = Phase.OPENING if followed.stream is None else Phase.REOPENING
            here = self._ground.node_for(room, 0) == self._ground.me
            followed.retry_at = self._ground.now + (0 if here or followed.openers else self._ground.jitter())
            self._plan(followed)

    def land(self, entry: Entry, generation: int, done: Callable[[Entry], None], deadline: int) -> None:
        """A submit has made an entry: who waits is told once the members were handed it, or when time is up."""
        followed = self._rooms.get(entry.room)
        if followed is None or followed.stream is None or generation != followed.generation:
            self._ground.answer(done, entry)
            return
        self._take(followed, entry)
        if _is_handed_on(entry, followed.stream.place):
            self._ground.answer(done, entry)
        else:
            followed.landed.append((entry, done, deadline))
        self._advance(followed)

    def land_again(self, room: RoomId, first: Duplicate, done: Callable[[Any], None], deadline: int) -> None:
        """A submit repeats an entry that was made before: likewise, as who waits looks at it."""
        followed = self._rooms.get(room)
        if followed is None or followed.stream is None or _is_handed_on(first, followed.stream.place):
            self._ground.answer(done, first)
        else:
            followed.landed.append((first, done, deadline))
            self._plan(followed)

    def tick(self) -> None:
        """Time has passed."""
        while (followed := self.timers.pop(self._ground.now)) is not None:
            followed.planned = FOREVER
            self._wake(followed)

    # -- inside --------------------------------------------------------------------------------------------------

    def _is_of(self, followed: _Followed, generation: int) -> bool:
        """Whether what came is of the stream that is followed; a newer one is looked for."""
        if generation == followed.generation:
            return True
        if generation < followed.generation:
            return False
        if followed.stream is None:
            followed.generation, followed.ahead = generation, 0
            return True
        if followed.phase in {Phase.LIVE, Phase.GAP}:
            self._seek(followed)
        return False

    def _note_ahead(self, followed: _Followed, index: int) -> None:
        if followed.stream is None:
            followed.ahead = max(followed.ahead, index)
        else:
            followed.stream.ahead = max(followed.stream.ahead, index)

    def _take(self, followed: _Followed, entry: Entry) -> None:
        stream = followed.stream
        if stream is None or entry.room != followed.room:
            self._note_ahead(followed, entry.sequence + entry.meta_n)
        elif not stream.take(entry, self._ground.effects.committed):
            self.faults += 1

    def _begin(self, followed: _Followed, record: RoomRecord) -> None:
        state = RoomState(followed.shard, record)
        self.cache.add(state)
        followed.stream = Stream(state, self.cache)
        if followed.generation == record.generation:
            followed.stream.ahead = max(followed.stream.ahead, followed.ahead)
        followed.generation, followed.ahead = record.generation, 0

    def _replace(self, followed: _Followed, record: RoomRecord) -> None:
        """The stream can't go on: members are to begin anew, where the room is now."""
        effects, stream = self._ground.effects, followed.stream
        if stream is not None:
            self.cache.remove(stream.state)
        for entry, done, _ in followed.landed:
            self._ground.answer(done, entry)
        followed.landed = []
        # They are not handed any more what would come after the reset.
        effects.committed[:] = [entry for entry in effects.committed if entry.room != followed.room]
        earlier = [reset for reset in effects.resets if reset.room == followed.room]
        for reset in earlier:
            effects.resets.remove(reset)
        followed.generation, followed.ahead = 0, 0
        self._begin(followed, record)
        state = followed.stream.state if followed.stream is not None else RoomState(followed.shard, record)
        state.pins += 1  # until `Ground.take`
        effects.resets.append(Reset(followed.room, state, Place(record.sequence, record.meta_n)))

    def _seek(self, followed: _Followed) -> None:
        """Ask whoever may be primary where the room stands."""
        ground = self._ground
        followed.phase = Phase.OPENING if followed.stream is None else Phase.REOPENING
        node = ground.node_for(followed.room, followed.attempt)
        followed.tries = 0
        followed.retry_at = ground.now + ground.options.attempt
        if not followed.request or self._requests.get(followed.request) is not followed:
            followed.request = ground.number()
            self._requests[followed.request] = followed
        if node is not None:
            if followed.attempt == 0 or followed.node is None:
                self._listen(followed, node)
            message = Open(followed.request, followed.room.site, followed.room.channel, ground.mapping())
            ground.primary(node).ask(message)
        self._plan(followed)

    def _fetch(self, followed: _Followed, stream: Stream) -> None:
        ground = self._ground
        self._answered(followed)
        followed.tries += 1
        followed.retry_at = ground.now + ground.options.attempt
        followed.request = ground.number()
        self._requests[followed.request] = followed
        place, room = stream.place, followed.room
        if followed.node is not None:
            ground.primary(followed.node).ask(
                Fetch(
                    followed.request,
                    room.site,
                    room.channel,
                    ground.mapping(),
                    place.sequence,
                    place.meta_n,
                    MAX_ENTRIES,
                    MAX_BYTES,
                    reverse=False,
                )
            )

    def _answered(self, followed: _Followed) -> None:
        self._requests.pop(followed.request, None)
        followed.request = 0

    def _listen(self, followed: _Followed, node: str | None) -> None:
        if followed.node != node:
            self._ground.subscribe(node, followed.topic)
            self._ground.unsubscribe(followed.node, followed.topic)
            followed.node = node

    def _greet(self, followed: _Followed) -> None:
        """Give the room to who waits for it."""
        openers, followed.openers = followed.openers, []
        for done, _ in openers:
            if followed.stream is not None:
                self._ground.answer(done, followed.stream.state)

    def _advance(self, followed: _Followed) -> None:
        """Something has come: say what was waiting for it, and whether something is missing now."""
        stream = followed.stream
        if stream is None:
            return
        if followed.landed:
            self._tell_landed(followed, stream.place)
        if followed.phase is Phase.LIVE and stream.behind:
            followed.phase, followed.tries = Phase.GAP, 0
            here = followed.node == self._ground.me
            followed.retry_at = self._ground.now + (0 if here else self._ground.jitter())
        elif followed.phase is Phase.GAP and not stream.behind:
            self._answered(followed)
            followed.phase = Phase.LIVE
        self.cache.shrink()
        self._plan(followed)

    def _tell_landed(self, followed: _Followed, place: Place) -> None:
        waiting: list[tuple[Entry | Duplicate, Callable[[Any], None], int]] = []
        for landed in followed.landed:
            outcome, done, deadline = landed
            if _is_handed_on(outcome, place) or deadline <= self._ground.now:
                self._ground.answer(done, outcome)
            else:
                waiting.append(landed)
        followed.landed = waiting

    def _wake(self, followed: _Followed) -> None:
        ground = self._ground
        while followed.openers and followed.openers[0][1] <= ground.now:
            ground.answer(followed.openers.pop(0)[0], Away.UNREACHABLE)
        stream = followed.stream
        if stream is not None:
            self._tell_landed(followed, stream.place)
        if self._is_unused(followed):
            self._drop(followed)
            return
        self._step(followed, stream)
        self._plan(followed)

    def _step(self, followed: _Followed, stream: Stream | None) -> None:
        now = self._ground.now
        if followed.phase is Phase.LIVE:
            if now >= self._silent_at(followed):
                followed.attempt = 0
                self._seek(followed)
        elif now >= followed.retry_at:
            if followed.phase is Phase.GAP and stream is not None and followed.tries < MOST_TRIES:
                self._fetch(followed, stream)
            else:
                followed.attempt = 0 if followed.phase is Phase.GAP else followed.attempt + 1
                self._seek(followed)

    def _silent_at(self, followed: _Followed) -> int:
        return FOREVER if followed.node == self._ground.me else followed.heard + followed.patience

    def _is_unused(self, followed: _Followed) -> bool:
        stream = followed.stream
        if followed.openers or followed.landed or (stream is not None and stream.state.pins):
            followed.unused_since = FOREVER
            return False
        followed.unused_since = min(followed.unused_since, self._ground.now)
        return stream is None or self._ground.now - followed.unused_since >= self._ground.options.linger

    def _drop(self, followed: _Followed) -> None:
        self._answered(followed)
        self._listen(followed, None)
        if followed.stream is not None:
            self.cache.remove(followed.stream.state)
        del self._rooms[followed.room]
        rooms = self._by_shard[followed.shard]
        del rooms[followed.room]
        if not rooms:
            del self._by_shard[followed.shard]

    def _plan(self, followed: _Followed) -> None:
        """Wake it no later than something is due; a timer that is too early is set anew when it comes."""
        due = self._ground.now + self._ground.options.linger
        due = min(due, self._silent_at(followed) if followed.phase is Phase.LIVE else followed.retry_at)
        if followed.openers:
            due = min(due, followed.openers[0][1])
        if followed.landed:
            due = min(due, *(deadline for _, _, deadline in followed.landed))
        if due < followed.planned:
            followed.planned = due
            self.timers.set(followed, due)


def _is_handed_on(outcome: Entry | Duplicate, place: Place) -> bool:
    """Whether members have been handed what a submit has made, or repeats."""
    if isinstance(outcome, Duplicate):
        return outcome.sequence <= place.sequence
    return outcome.sequence + outcome.meta_n <= place.ordinal

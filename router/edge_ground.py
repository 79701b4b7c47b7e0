"""What the parts of an edge share: bounds and times, where primaries are, the effects they gather.  Sans-I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from router.edge_link import LocalPrimary, RemotePrimary
from router.events import Away
from router.room import RoomState

if TYPE_CHECKING:
    from router.edge_link import Primary
    from router.entry import Entry
    from router.events import Configuration
    from router.ids import Place, RoomId, ShardId
    from router.serving import Serving

AGAIN: Final = frozenset({Away.MOVED, Away.CLOSING, Away.STORAGE_FAULT})
"""Answers that a node, once it has given one, gives to all that follows in the room; another node may do better."""


class Route(NamedTuple):
    """Where a room is, as far as is known here.

    Attributes:
        shard: Its shard.
        nodes: Of the shard's members, the primary first; empty: none is known.
    """

    shard: ShardId
    nodes: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class EdgeOptions:
    """Bounds, and times in milliseconds.

    Attributes:
        deadline: Whatever is asked is answered after so long, if only by `Away`; clients give up after 5 s.
        attempt: A node that has not answered after so long is asked again, or another one is.
        retry: After a node said that it is not the primary; doubles up to `retry_most`, with jitter.
        retry_most: Its bound.
        silence: A primary that has not said for so long where a room stands is asked, or another member is.
        jitter: A FETCH, and the opening of a room anew, waits up to so long, as all edges have the same reason for it.
        linger: A room without members is followed for so long.
        max_requests: Submits, and likewise questions, without an answer; more are answered OVERLOADED.
        max_rooms: That are followed; more are answered OVERLOADED.
        cache_bytes: Bound of the newest entries kept in memory.
    """

    deadline: int = 4000
    attempt: int = 1000
    retry: int = 50
    retry_most: int = 500
    silence: int = 1500
    jitter: int = 50
    linger: int = 30_000
    max_requests: int = 20_000
    max_rooms: int = 100_000
    cache_bytes: int = 64 << 20


class Reset(NamedTuple):
    """A room goes on elsewhere than where its members are: they are to be told, and to come back.

    Attributes:
        room: Which.
        state: In place of the one before; of another generation, or beyond entries that can't be had any more.
        place: Where it begins: what follows is in `EdgeEffects.committed`, and in the state already.
    """

    room: RoomId
    state: RoomState
    place: Place


@dataclass(slots=True)
class EdgeEffects:
    """What the driver performs, in the order of the fields.

    Attributes:
        sends: Messages, by node; those to a node arrive in this order, if they do.
        subscriptions: Node, topic, and whether it is wanted from now on.
        hints: Rows of the register that others know.
        resets: Rooms whose state is another one from now on.
        committed: Entries for the members of rooms, in order.
        answers: Who asked, and what is answered.
    """

    sends: list[tuple[str, bytes]] = field(default_factory=list)
    subscriptions: list[tuple[str, bytes, bool]] = field(default_factory=list)
    hints: list[Configuration] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)
    answers: list[tuple[Callable[[Any], None], object]] = field(default_factory=list)


Locate: TypeAlias = Callable[["RoomId"], Route]


class Ground:
    """One for all parts of an edge.

    Args:
        me: This node.
        options: Bounds and times.
        locate: Says where a room is.
        mapping: Gives the version of the mapping that `locate` uses.
        random: Gives numbers in [0, 1), for jitter.
        serving: Answers for the rooms whose primary this node is.

    Attributes:
        now: Milliseconds, monotonic.
        effects: What is to be done.
        local: The way to this node itself.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings
        self, me: str, options: EdgeOptions, locate: Locate, mapping: Callable[[], int], random: Callable[[], float],
        serving: Serving,
    ) -> None:  # fmt: skip
        self.me, self.options, self.locate, self.mapping, self._random = me, options, locate, mapping, random
        self.serving, self.local = serving, LocalPrimary(serving)
        self.effects = EdgeEffects()
        self.now = 0
        self._request = 0
        self._topics: Counter[tuple[str, bytes]] = Counter()  # two rooms may have the same topic

    def number(self) -> int:
        """A number that was not given before."""
        self._request += 1
        return self._request

    def primary(self, node: str) -> Primary:
        """The way to a node."""
        if node == self.me:
            return self.local
        sends = self.effects.sends
        return RemotePrimary(lambda message: sends.append((node, message)))

    def node_for(self, room: RoomId, attempt: int) -> str | None:
        """Whom to ask: the primary first, then any member."""
        nodes = self.locate(room).nodes
        return nodes[attempt % len(nodes)] if nodes else None

    def backoff(self, attempt: int) -> int:
        """How long to wait after so many attempts failed at once."""
        options = self.options
        most = min(options.retry << min(attempt, 10), options.retry_most)
        return int(most * (0.5 + self._random() / 2))

    def jitter(self) -> int:
        """How long to wait before what all edges do at the same time."""
        return int(self.options.jitter * self._random())

    def answer(self, done: Callable[[Any], None], answer: object) -> None:
        """Tell who asked."""
        if isinstance(answer, RoomState):
            answer.pins += 1  # until `take`: who asked gets the room that is in memory, and can pin it
        self.effects.answers.append((done, answer))

    def subscribe(self, node: str | None, topic: bytes) -> None:
        """Want the publications of a topic from a node; those of this node itself come another way."""
        if node is not None and node != self.me:
            self._topics[node, topic] += 1
            if self._topics[node, topic] == 1:
                self.effects.subscriptions.append((node, topic, True))

    def unsubscribe(self, node: str | None, topic: bytes) -> None:
        """Undo `subscribe`."""
        if node is not None and node != self.me:
            self._topics[node, topic] -= 1
            if not self._topics[node, topic]:
                del self._topics[node, topic]
                self.effects.subscriptions.append((node, topic, False))

    def take(self) -> EdgeEffects:
        """What there is to do since the last call."""
        effects, self.effects = self.effects, EdgeEffects()
        for _, answer in effects.answers:
            if isinstance(answer, RoomState):
                answer.pins -= 1
        for reset in effects.resets:
            reset.state.pins -= 1
        return effects

"""Edges and primaries in one process: a log that is the truth, a network that fails, a checker of what edges do.

Every node has an `Edge` and a `Serving`; the first two take turns as the primary of the only shard. A deposed primary
goes on believing in itself for a while, and what it takes in that time is lost.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from router import edge_wire
from router.edge import Edge
from router.edge_ground import EdgeOptions, Route
from router.entry import LAST_VISIBLE, Entry, Kind
from router.events import Away, Configuration, Duplicate, History, Page, Refusal, Submit
from router.ids import Place, RoomId
from router.removal import Removals
from router.serving import Serving
from tests.harness.edge_router import SHARD, FakeRouter, Truth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.edge_ground import EdgeEffects
    from router.events import Outcome
    from router.room import RoomState

SENDER = b"s" * 12


@dataclass
class Sent:
    """A submit of a client."""

    node: str
    number: int
    submit: Submit
    deadline: int
    outcome: Outcome | None = None


class Follower:
    """What the members of a room at a node have been given."""

    def __init__(self, node: Node, room: RoomId, state: RoomState) -> None:
        self.node, self.room, self.state = node, room, state
        self.place = Place(state.committed, state.meta_n)
        self.resets = 0
        state.pins += 1

    def take(self, entry: Entry) -> None:
        """An entry was handed on: it must be the next of the truth."""
        truth, generation = self.node.world.truth, self.state.generation
        log = truth.logs[self.room, generation]
        at = self.place.ordinal
        while at < len(log) and (self.room, generation, log[at].meta_n) in truth.dropped and log[at].kind == Kind.MARKS:
            if log[at].wire == entry.wire:
                break
            at += 1
        assert at < len(log), f"{self} was given {entry!r}, the truth ends before it"
        assert log[at].wire == entry.wire, f"{self} was given {entry!r} in place of {log[at]!r}"
        self.place = Place(entry.sequence, entry.meta_n)

    def reset(self, state: RoomState, place: Place) -> None:
        """Members were told to begin anew."""
        if state.generation == self.state.generation:
            assert state.floor > self.place.sequence, f"{self} was reset without need"
            assert place.ordinal > self.place.ordinal, f"{self} was set back to {place}"
        else:
            assert state.generation > self.state.generation, f"{self} was set back to generation {state.generation}"
        self.state.pins -= 1
        state.pins += 1
        self.state, self.place = state, place
        self.resets += 1

    @override
    def __repr__(self) -> str:
        return f"{self.room.channel} at {self.node.name}, at {self.place}"


class Node:
    """An edge, and what it says to others."""

    def __init__(self, world: World, name: str, life: int = 0) -> None:
        self.world, self.name, self.boot = world, name, f"boot-{name}.{life}"
        self.router = FakeRouter(self, world.truth)
        self.row = world.truth.row()
        self.serving = Serving(self.router)
        self.edge = Edge(
            name, self.boot, EdgeOptions(linger=60_000), self._locate, lambda: 1, world.random.random, self.serving
        )
        self.followers: dict[RoomId, Follower] = {}
        self.opening: dict[RoomId, Place] = {}
        self.subscriptions: set[tuple[str, bytes]] = set()
        self.reads = 0
        self._later: list[Callable[[], None]] = []

    def _locate(self, _room: RoomId) -> Route:
        others = [name for name in self.world.members if name != self.row.primary.node]
        return Route(SHARD, (self.row.primary.node, *others))

    def learn(self, row: Configuration) -> None:
        """It hears of the register's row."""
        if row.version > self.row.version:
            self.row = row
            if self.router.serving and row.primary.node != self.name:
                self.router.step_down()
            else:
                self.edge.relocated(SHARD, self.world.now)

    def later(self, call: Callable[[], None]) -> None:
        """Not in this call, but soon."""
        self._later.append(call)

    def committed(self, entries: Sequence[Entry]) -> None:
        """The router's entries are durable."""
        self.serving.committed(entries, self.world.now)
        self.edge.committed([msgspec.structs.replace(entry, origin=None) for entry in entries], self.world.now)
        for entry in entries:
            origin, entry.origin = entry.origin, None
            if origin is not None:
                origin(entry)

    def open(self, room: RoomId) -> None:
        """A client wants to enter."""
        if room in self.followers or room in self.opening:
            return
        self.opening[room] = self.world.truth.head(room)
        fresh = self.edge._rooms.state(room) is None  # then the head may not be older than the question
        generation = self.world.truth.generations[room]

        def done(state: RoomState | Away) -> None:
            head = self.opening.pop(room)
            if isinstance(state, Away):
                self.world.counts["open away"] += 1
                return
            if fresh and state.generation == generation:
                place = Place(state.committed, state.meta_n)
                assert place.ordinal >= head.ordinal, f"{self.name} was given {place} of {room}, it was at {head}"
            self.followers[room] = Follower(self, room, state)

        self.edge.open_room(room, done, self.world.now)

    def leave(self, room: RoomId) -> None:
        """The last client has gone."""
        follower = self.followers.pop(room, None)
        if follower is not None:
            follower.state.pins -= 1

    def turn(self) -> None:
        """Perform what is to be done until nothing is."""
        world = self.world
        for _ in range(100):
            calls, self._later = self._later, []
            for call in calls:
                call()
            self.router.turn()
            if (due := self.edge.next_deadline) is not None and due <= world.now:
                self.edge.tick(world.now)
            if (due := self.serving.next_deadline) is not None and due <= world.now:
                self.serving.tick(world.now)
            effects, served = self.edge.effects(), self.serving.effects()
            for node, body in served.sends:
                world.send(self.name, node, body)
            for topic, body in served.publications:
                world.publish(self.name, topic, body)
            if not self._perform(effects) and not served.sends and not served.publications and not self._later:
                return
        raise AssertionError(f"{self.name} does not come to rest")

    def _perform(self, effects: EdgeEffects) -> bool:
        world = self.world
        for node, body in effects.sends:
            world.send(self.name, node, body)
        for node, topic, wanted in effects.subscriptions:
            assert ((node, topic) in self.subscriptions) != wanted
            (self.subscriptions.add if wanted else self.subscriptions.remove)((node, topic))
            world.subscribe(self.name, node, topic, wanted=wanted)
        for row in effects.hints:
            self.learn(row)
        for reset in effects.resets:
            if reset.room in self.followers:
                self.followers[reset.room].reset(reset.state, reset.place)
        for entry in effects.committed:
            if entry.room in self.followers:
                self.followers[entry.room].take(entry)
        for done, answer in effects.answers:
            done(answer)
        return bool(effects.sends or effects.hints or effects.answers)


class World:
    """All of it, for one seed.

    Args:
        seed: Of everything random.
        edges: Nodes that are never primary.
    """

    def __init__(self, seed: int, edges: int = 2) -> None:
        self.random = Random(seed)
        self.now = 0
        self.made = 0
        self.members = ("p0", "p1")
        self.truth = Truth("p0")
        self.counts: Counter[str] = Counter()
        self.loss = self.duplication = self.disorder = 0.0
        self.publication_loss = 0.0
        self.deaf: dict[tuple[str, str], int] = {}  # publications between two are dropped until
        self._messages: list[tuple[int, int, Callable[[], None]]] = []
        self._sent = 0
        self._last: dict[tuple[str, str, str], int] = {}
        self._subscribers: dict[tuple[str, bytes], set[str]] = defaultdict(set)
        self.nodes = {name: Node(self, name) for name in (*self.members, *(f"e{n}" for n in range(edges)))}
        self.rooms = [RoomId("s", f"room{n}") for n in range(3)]
        self.submits: list[Sent] = []
        self.reads = 0
        self.nodes["p0"].router.epoch = 1
        self.nodes["p0"].router.serving = True

    # -- the network

    def _carry(self, source: str, target: str, way: str, act: Callable[[], None]) -> None:
        random = self.random
        copies = 1 + (random.random() < self.duplication)
        for _ in range(copies):
            at = self.now + random.randrange(1, 20)
            if random.random() < self.disorder:
                at += random.randrange(200)
            else:
                at = self._last[source, target, way] = max(at, self._last.get((source, target, way), 0))
            self._sent += 1
            self._messages.append((at, self._sent, act))

    def send(self, source: str, target: str, body: bytes) -> None:
        assert len(body) <= edge_wire.MAX_MESSAGE
        if self.random.random() < self.loss:
            return
        boot = self.nodes[source].boot
        self._carry(source, target, "dealer", lambda: self._receive(source, boot, target, body))

    def publish(self, source: str, topic: bytes, body: bytes) -> None:
        for target in sorted(self._subscribers[source, topic]):
            if self.deaf.get((source, target), 0) > self.now:
                continue
            if self.random.random() < self.publication_loss:
                self.deaf[source, target] = self.now + self.random.randrange(600)
            else:
                self._carry(source, target, "sub", lambda target=target: self._published(source, target, body))  # type: ignore[misc]

    def subscribe(self, source: str, target: str, topic: bytes, *, wanted: bool) -> None:
        def act() -> None:
            subscribers = self._subscribers[target, topic]
            (subscribers.add if wanted else subscribers.discard)(source)
            if wanted or not subscribers:
                self.nodes[target].serving.subscribed(topic, self.now, wanted=wanted)

        at = self._last[source, target, "subscribe"] = max(
            self.now + self.random.randrange(1, 20), self._last.get((source, target, "subscribe"), 0)
        )
        self._sent += 1
        self._messages.append((at, self._sent, act))

    def _receive(self, source: str, boot: str, target: str, body: bytes) -> None:
        message, node = edge_wire.decode(body), self.nodes[target]
        if isinstance(message, edge_wire.Open | edge_wire.SubmitRemote | edge_wire.Fetch | edge_wire.Mark):
            node.serving.receive(source, boot, message, self.now)
        else:
            node.edge.receive(source, message, self.now)

    def _published(self, source: str, target: str, body: bytes) -> None:
        self.nodes[target].edge.published(source, edge_wire.decode_publication(body), self.now)

    def run(self, milliseconds: int, step: int = 15) -> None:
        """Let time pass."""
        end = self.now + milliseconds
        while self.now < end:
            self.now += self.random.randrange(1, step)
            due = sorted(m for m in self._messages if m[0] <= self.now)
            self._messages = [m for m in self._messages if m[0] > self.now]
            for _, _, act in due:
                act()
            primary = self.nodes[self.truth.primary].router
            if self.random.random() < 0.7:
                primary.commit(self.random.randrange(len(primary.tail) + 1))
            for node in self.nodes.values():
                node.turn()

    # -- what happens

    def fail_over(self) -> None:
        """The other member becomes primary; the old one does not know yet, nor does anybody else."""
        truth, old = self.truth, self.nodes[self.truth.primary].router
        inherited = old.tail[: self.random.randrange(len(old.tail) + 1)]
        truth.primary = next(name for name in self.members if name != truth.primary)
        truth.epoch += 1
        node = self.nodes[truth.primary]
        if node.router.serving:
            node.router.step_down()
        node.row = truth.row()
        node.router.take_over(inherited)
        self.counts["fail-overs"] += 1

    def restart(self, name: str) -> None:
        """A node's process is killed and begins anew; a primary takes a new epoch."""
        old = self.nodes[name]
        node = self.nodes[name] = Node(self, name, len(self.submits))
        for (publisher, topic), subscribers in self._subscribers.items():
            if name in subscribers:
                subscribers.remove(name)
                if not subscribers:
                    self.nodes[publisher].serving.subscribed(topic, self.now, wanted=False)
            elif publisher == name and subscribers:  # they find it again
                node.serving.subscribed(topic, self.now, wanted=True)
        for sent in self.submits:
            if sent.node == name and sent.outcome is None:
                sent.outcome = Away.CLOSING  # its client is gone, too
                sent.submit.done = lambda _outcome: None
        self.reads -= old.reads
        if self.truth.primary == name:
            self.truth.epoch += 1
            node.row = self.truth.row()
            node.router.take_over(old.router.tail[: self.random.randrange(len(old.router.tail) + 1)])
        else:
            node.row = old.row
        self.counts["restarts"] += 1

    def announce(self, name: str) -> None:
        """A node hears of the primary."""
        self.nodes[name].learn(self.truth.row())

    def reset(self, room: RoomId) -> None:
        """A room begins anew, in another generation."""
        router = self.nodes[self.truth.primary].router
        if any(entry.room == room for entry in router.tail):
            return
        state = router._state(room)
        router.cache.remove(state)
        router.node.serving.unserved(SHARD)
        self.truth.generations[room] += 1
        self.truth.floors[room] = 0
        router.node.edge.relocated(SHARD, self.now)
        self.counts["new generations"] += 1

    def trim(self, room: RoomId) -> None:
        """Retention drops what is old, and MARKS."""
        log, generation = self.truth.log(room), self.truth.generations[room]
        router = self.nodes[self.truth.primary].router
        if len(log) < 20:
            return
        floor = max(self.truth.floors[room], log[-10].sequence)
        self.truth.floors[room] = floor
        state = router.cache.get(room)
        if state is not None:
            state.floor = max(state.floor, floor)
        for entry in log[:-5]:
            if entry.kind == Kind.MARKS:
                self.truth.dropped.add((room, generation, entry.meta_n))
        self.counts["trims"] += 1

    def submit(self, name: str, room: RoomId, kind: int = Kind.MESSAGE, again: Submit | None = None) -> Sent:
        """A client of a node sends something."""
        number = len(self.submits)
        data = self._data(room, kind, number)
        cmid = f"id{number}" if self.random.random() < 0.5 else ""
        if again is not None:
            kind, data, cmid = again.kind, again.data, again.cmid
        sent = Sent(name, number, Submit(room, kind, SENDER, cmid, data, b'"u"', print), self.now + 4000)

        def done(outcome: Outcome) -> None:
            assert sent.outcome is None, f"submit {number} has a second outcome {outcome!r} after {sent.outcome!r}"
            assert self.now <= sent.deadline + 100, f"submit {number} is answered at {self.now}, due {sent.deadline}"
            sent.outcome = outcome

        sent.submit.done = done
        self.submits.append(sent)
        self.nodes[name].edge.submit(sent.submit, self.now)
        return sent

    def _data(self, room: RoomId, kind: int, number: int) -> bytes:
        target = self.random.randrange(max(self.truth.head(room).sequence, 1)) + 1
        match kind:
            case Kind.REMOVED | Kind.RESTORED:
                return b'{"target":%d,"n":%d}' % (target, number)
            case Kind.META if self.random.random() < 0.05:
                return b'{"remove":"history","n":%d}' % number
            case Kind.META:
                return b'{"set":{"v%d":%d},"n":%d}' % (self.random.randrange(4), number, number)
            case _:
                return b'{"n":%d}' % number

    def read(self, name: str, room: RoomId) -> None:
        """A client reads back."""
        follower = self.nodes[name].followers.get(room)
        if follower is None:
            return
        since = self.random.choice([None, self.random.randrange(follower.place.sequence + 2)])
        reverse = self.random.random() < 0.5
        read = History(room, since, self.random.randrange(1, 30), reverse=reverse, max_bytes=1 << 20)
        state, log = follower.state, self.truth.logs[room, follower.state.generation]
        node = self.nodes[name]
        node.reads += 1
        self.reads += 1

        def done(page: Page | Away) -> None:
            node.reads -= 1
            self.reads -= 1
            if isinstance(page, Away):
                self.counts["reads away"] += 1
                return
            self.counts["reads"] += 1
            self._check_page(page, state, read, {e.sequence: e for e in log if e.kind <= LAST_VISIBLE})

        self.nodes[name].edge.history(state, read, done, self.now)

    def _check_page(self, page: Page, state: RoomState, read: History, by_sequence: dict[int, Entry]) -> None:
        step = -1 if read.reverse else 1
        sequences = [entry.sequence for entry in page.entries]
        if sequences:
            assert sequences == list(range(sequences[0], sequences[0] + step * len(sequences), step)), sequences
        removals = Removals()
        for entry in by_sequence.values():
            if entry.kind in {Kind.REMOVED, Kind.RESTORED}:
                removals.note(entry, 0)
        for entry in page.entries:
            assert entry.wire == by_sequence[entry.sequence].wire
            mark = removals.verdict(by_sequence[entry.sequence])
            if mark is None or mark.sequence < entry.sequence:  # nothing is removed before it is there
                assert entry.data or mark is not None, f"{entry!r} is hidden, and nobody removed it"
            elif mark.removal is not None and mark.sequence <= state.committed:
                assert not entry.data, f"{entry!r} is shown, {mark.sequence} has removed it"
        if not read.reverse and sequences and read.since is not None:
            assert sequences[0] == max(read.since, page.floor) + 1

    def act(self) -> None:  # noqa: C901, PLR0912 - a table
        """Something happens, somewhere."""
        random = self.random
        name, room = random.choice(list(self.nodes)), random.choice(self.rooms)
        match random.choices(
            [
                "submit",
                "meta",
                "open",
                "leave",
                "read",
                "fail over",
                "announce",
                "reset",
                "trim",
                "again",
                "restart",
                "probe",
            ],
            [40, 12, 15, 2, 8, 1.5, 3, 0.3, 1, 3, 0.5, 1],
        )[0]:
            case "submit":
                kind = random.choice([Kind.MESSAGE] * 6 + [Kind.REMOVED, Kind.RESTORED])
                for _ in range(random.randrange(1, 6)):
                    self.submit(name, room, kind)
            case "meta":
                self.submit(name, room, random.choice([Kind.META, Kind.MARKS]))
            case "open":
                self.nodes[name].open(room)
            case "leave":
                self.nodes[name].leave(room)
            case "read":
                self.read(name, room)
            case "fail over":
                self.fail_over()
            case "announce":
                self.announce(name)
            case "reset":
                self.reset(room)
            case "trim":
                self.trim(room)
            case "again":
                done = [sent for sent in self.submits[-50:] if sent.submit.cmid]
                if done:
                    self.submit(name, done[0].submit.room, again=random.choice(done[:1]).submit)
            case "restart":
                self.restart(name)
            case _:
                self.probe(name, room)

    def probe(self, name: str, room: RoomId) -> None:
        """A client asks for what was never sent."""
        answers: list[Outcome] = []
        sent = Submit(room, Kind.MESSAGE, SENDER, f"never{self.now}", b"{}", b"", answers.append, probe=True)
        self.nodes[name].edge.submit(sent, self.now)
        self.counts["probes"] += 1

    def trouble(self, steps: int) -> None:
        """A while of faults."""
        for _ in range(steps):
            if self.random.random() < 0.05:
                self.loss = self.random.choice([0, 0, 0.05, 0.5])
                self.duplication = self.random.choice([0, 0.1])
                self.disorder = self.random.choice([0, 0, 0.2])
                self.publication_loss = self.random.choice([0, 0.02, 0.3])
            self.act()
            self.run(self.random.randrange(60))

    def heal(self) -> None:
        """From now on nothing fails; then everything must come right."""
        self.loss = self.duplication = self.disorder = self.publication_loss = 0.0
        self.deaf.clear()
        for name in self.members:  # a deposed primary is told by the shard's members; others have to find out
            self.announce(name)
        self.run(25_000, step=50)
        self.check_alive()  # before anything new shows what is missing
        late = [self.submit(name, room) for name in self.nodes for room in self.rooms]
        self.run(5000)
        for sent in late:
            assert isinstance(sent.outcome, Entry | Duplicate), f"submit {sent.number} is answered {sent.outcome}"
        self.check_alive()
        self.check()

    # -- the checker

    def check_alive(self) -> None:
        """Every member has everything, and everything was answered."""
        for node in self.nodes.values():
            assert not node.opening, f"{node.name} still opens {node.opening}"
            for room, follower in node.followers.items():
                log = [
                    entry
                    for entry in self.truth.log(room)
                    if (room, self.truth.generations[room], entry.meta_n) not in self.truth.dropped
                    or entry.kind != Kind.MARKS
                ]
                head = Place(log[-1].sequence, log[-1].meta_n) if log else Place(0, 0)
                assert follower.state.generation == self.truth.generations[room], f"{follower} is of old"
                assert follower.place.ordinal >= head.ordinal, f"{follower}, the room is at {head}"
                assert Place(follower.state.committed, follower.state.meta_n) == self.truth.head(room)
                assert (follower.state.values or {}) == self.truth.values(room), f"{follower} has other values"
        for sent in self.submits:
            assert sent.outcome is not None, f"submit {sent.number} of {sent.node} was never answered"
        assert self.reads == 0, "reads were never answered"

    def check(self) -> None:
        """What was acknowledged is there once, and in order."""
        places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for (_, generation), log in self.truth.logs.items():
            for at, entry in enumerate(log):
                places[entry.data].append((generation, at))
        doubled = {data: found for data, found in places.items() if len(found) > 1}
        assert not doubled, f"made more than once: {doubled}"
        last: dict[tuple[str, RoomId], tuple[tuple[int, int], int]] = {}
        times = Counter(sent.submit.data for sent in self.submits)
        for sent in self.submits:
            if isinstance(sent.outcome, Entry | Duplicate):
                assert sent.submit.data in places, f"submit {sent.number} was acknowledged and is lost"
                self.counts["acknowledged"] += 1
                if times[sent.submit.data] > 1:
                    continue  # whichever came first
                place, way = places[sent.submit.data][0], (sent.node, sent.submit.room)
                if way in last:
                    assert last[way][0] < place, f"submit {sent.number} overtook {last[way][1]} of {way}"
                last[way] = place, sent.number
            else:
                assert not isinstance(sent.outcome, Refusal), f"submit {sent.number} was refused: {sent.outcome}"


def simulate(seed: int, steps: int = 150, prepare: Callable[[World], Any] | None = None) -> World:
    """Run one seed; raises AssertionError where something is wrong."""
    world = World(seed)
    if prepare is not None:
        prepare(world)
    world.trouble(steps)
    world.heal()
    return world

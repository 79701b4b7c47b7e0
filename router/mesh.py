"""The driver of a node among others: what `Router` is for a node alone, and the ways between nodes.

It owns the link, the membership, the register's client, the edge and what serves other edges, and calls each with what
has arrived. All of it runs on the thread of the hub: in the hub's turns, and in those of `run`, never in both at once.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from router import edge_wire, membership_wire, people_wire, wire
from router.channels import Channel
from router.edge import Edge
from router.edge_ground import EdgeOptions, Route
from router.entry import Entry
from router.errors import BrokenInvariant, CorruptEntry
from router.events import Away
from router.ids import MemberId, Place, stream_epoch
from router.membership import Membership, MembershipOptions, Pulse
from router.membership_events import Change, Changed, Connect, Disconnect, Heard, Send
from router.membership_wire import Load, Standing
from router.people import People
from router.placement import one_group, wanted
from router.register import RegisterClient, RegisterOptions
from router.runtime import Edge as Gateway
from router.runtime import Router, Surroundings
from router.school import School
from router.serving import Metas, Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from router.completions import MetaRun, SnapshotRead, SnapshotRefused, SnapshotTaken
    from router.effects import ClusterOptions
    from router.errors import StorageFault
    from router.events import Configuration, History, Page, Submit
    from router.ids import RoomId, ShardId
    from router.link import Link, Received
    from router.log import Log
    from router.marks import Reader
    from router.membership_events import MembershipEffect, PeerView
    from router.membership_wire import Identity
    from router.people import Gathered, Inquiry, Question
    from router.people_wire import Publication as PeoplePublication
    from router.register_wire import Certificate
    from router.room import RoomState
    from router.tail import Tail, TailQuery
    from router.wire import PeerMessage

TICK_MS: Final = 50  # between two looks at the time: a fifth of a heartbeat
READ_ROWS_MS: Final = 30_000  # between two readings of the whole register: rows are told by peers, and that may be lost
TELL_MS: Final = 1000  # between two words on how this node is
DISK_BYTES: Final = 8  # of a disk's id, as it stands before a message of a member

_logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class MeshOptions:
    """How a node is one of several.

    Attributes:
        me: What others are told of this node.
        seeds: Names and addresses of the configured nodes.
        central: The node that has the register.
        key_of: The public key of a node that may join; None: it may not.
        membership, register, edge: Times and bounds.
    """

    me: Identity
    seeds: Sequence[tuple[str, str]]
    central: str
    key_of: Callable[[str], bytes | None]
    membership: MembershipOptions = field(default_factory=MembershipOptions)
    register: RegisterOptions = field(default_factory=RegisterOptions)
    edge: EdgeOptions = field(default_factory=EdgeOptions)


class Operations(Protocol):
    """What nodes tell each other for their operators."""

    def tell(self) -> bytes:
        """How this node is."""

    def hear(self, node: str, body: bytes) -> None:
        """How another one is."""


class Front(Gateway, Protocol):
    """The gateway of a node among others, as the router sees it."""

    def reset(self, state: RoomState, place: Place) -> None:
        """A room goes on elsewhere than where its members are: they are told, and come back."""

    def acknowledged(self, told: Callable[[Any], None]) -> None:
        """Who waits is told that its entry is committed: for the metrics."""

    def heard(self, publication: PeoplePublication) -> None:
        """On another node, people did something in a room."""

    def asked(self, question: Question) -> None:
        """Another node asks; see `people.Question`."""


class _Around:
    """Of `effects.Neighbourhood`: the membership and the placement, looked at once in a while."""

    def __init__(self, membership: Membership, shards: int) -> None:
        self._membership, self._map = membership, one_group(shards)
        self._wanted: dict[ShardId, list[MemberId]] = {}
        self.candidates = membership.candidates(0)

    @property
    def up(self) -> Collection[MemberId]:
        return self._membership.up

    def wanted(self, shard: ShardId) -> Sequence[MemberId]:
        known = self._wanted.get(shard)
        if known is None:
            known = self._wanted[shard] = wanted(shard, self.candidates, self._map.group_of(shard))
        return known

    def look(self, now: int) -> None:
        """See who may be given shards now."""
        candidates = self._membership.candidates(now)
        if candidates != self.candidates:
            self.candidates = candidates
            self._wanted.clear()


class _Source:
    """Of `serving.Source`: the router of this node."""

    mapping = 1

    def __init__(self, router: Router) -> None:
        self._router, self._cluster = router, router.cluster
        self.shard_of = self._cluster.shard_of
        self.row = self._cluster.row
        self.confirm = self._cluster.confirm
        self.open_room = router.open_room
        self.submit, self.probe = router.submit, router.probe
        self.history, self.mark = router.history, router.mark

    def serves(self, shard: ShardId) -> bool:
        if self._cluster.serves(shard):
            return True
        self._cluster.wish(shard)
        return False

    def state(self, room: RoomId) -> RoomState | None:
        return self._cluster.rooms.get(room)

    def head(self, state: RoomState) -> Place:
        return Place(state.committed, state.meta_committed)

    def metas(self, state: RoomState, after: int, limit: int, done: Callable[[Metas | Away], None]) -> None:
        def finish(result: MetaRun | StorageFault) -> None:
            if isinstance(result, Exception):
                done(Away.STORAGE_FAULT)
                return
            entries = result.entries
            full = len(entries) >= limit
            done(Metas(entries, entries[-1].meta_n if full else state.meta_committed))

        self._router.log.hidden(state.room, after, limit, finish)


class MeshRouter:
    """Order and durability for the rooms of one node among others.

    Args:
        log: Opened, and of the cluster's birth.
        certificate: What is fixed in the cluster.
        options: Who is who.
        cluster_options: Bounds of the cores.
        link: The way to other nodes.
        gateway: Told of what was committed.
        ring: Makes the hub turn.

    Attributes:
        router: The part of it that a node alone has too.
        membership: Who is there.
        edge: The rooms that clients of this node are in.
        people: What they do there, for clients of other nodes, and questions to all nodes.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, composed in one place
        self, log: Log, certificate: Certificate, options: MeshOptions, cluster_options: ClusterOptions, link: Link,
        gateway: Front, ring: Callable[[], object],
    ) -> None:  # fmt: skip
        self.options, self._link, self._gateway, self._ring = options, link, gateway, ring
        now = _now()
        me = options.me
        self.membership = Membership(me, options.seeds, options.membership, options.key_of, now)
        self._around = _Around(self.membership, certificate.shards)
        self.register = RegisterClient(me.boot, me.address, certificate.birth, random.random, options.register, now)
        surroundings = Surroundings(self._around, self, self.register)
        self.router = Router(log, me.node, cluster_options, self, surroundings)
        self._school = School(log, self.router.cluster, self._send_lesson)
        self.log, self._birth = log, certificate.birth
        self.serving = Serving(_Source(self.router))
        self.edge = Edge(
            me.node, me.boot, options.edge, self._locate, lambda: _Source.mapping, random.random, self.serving
        )
        self.people = People(me.boot)
        self._me = MemberId(me.node, me.disk)
        self._prefix = bytes.fromhex(me.disk)
        self._lives: dict[str, Identity] = {}  # of nodes that are heard
        self._tick_at = now
        self._read_at = now
        self._turning = False
        self._awoken = False  # something came of a turn that the hub has to hand on
        self._rows: dict[ShardId, tuple[int, int]] = {}  # version and epoch, as the edge was told
        self.operations: Operations | None = None
        self._tell_at = now
        self._alone_since: int | None = None
        self._central_heard = now
        self.strays = 0  # messages of peers that could not be what they said

    # -- of `Router`, for the gateway ----------------------------------------------------------------------------

    @property
    def fault(self) -> StorageFault | None:
        """Why the log has halted."""
        return self.router.fault

    def sender(self, site: str, user: str) -> bytes:
        """The pseudonym of a user in the log."""
        return self.router.sender(site, user)

    def epoch_of(self, state: RoomState) -> str:
        """The stream epoch that clients see."""
        return stream_epoch(self._birth, state.generation)

    def submit(self, submit: Submit) -> None:
        """See `Router.submit`."""
        self.edge.submit(submit, _now())

    def probe(self, submit: Submit) -> None:
        """See `Router.probe`."""
        self.edge.submit(submit, _now())

    def open_room(self, room: RoomId, done: Callable[[RoomState | Away], None]) -> None:
        """See `Router.open_room`."""
        self.edge.open_room(room, done, _now())

    def history(self, state: RoomState, read: History, done: Callable[[Page | Away], None]) -> None:
        """See `Router.history`."""
        self.edge.history(state, read, done, _now())

    def mark(self, reader: Reader, done: Callable[[int | Away], None]) -> None:
        """See `Router.mark`."""
        self.edge.mark(reader, done, _now())

    def tail(self, query: TailQuery, done: Callable[[Tail | Away], None]) -> None:
        """See `Router.tail`."""
        self.router.tail(query, done)

    def follow(self, wake: Callable[[], None]) -> None:
        """See `Router.follow`."""
        self.router.follow(wake)

    def unfollow(self, wake: Callable[[], None]) -> None:
        """See `Router.unfollow`."""
        self.router.unfollow(wake)

    def ask(self, inquiry: Inquiry, done: Gathered) -> None:
        """See `People.ask`."""
        self.people.ask(inquiry, done, _now())

    def drain(self) -> None:
        """Take the log's answers, and perform what they bring about."""
        self.router.drain()
        self.turn()

    def close(self) -> None:
        """Take no more submits, and tell the others that this node goes."""
        self.router.close()
        self._follow(self.membership.leave(_now()))
        self.turn()

    # -- of `runtime.Edge` and `runtime.Peers`, for the router ---------------------------------------------------

    def committed(self, entries: Sequence[Entry]) -> None:
        """Entries of shards whose primary this node is are durable."""
        now = _now()
        self.serving.committed(entries, now)
        self.edge.committed(entries, now)
        for entry in entries:
            origin, entry.origin = entry.origin, None  # the gateway is given the same entry
            if origin is not None:
                self._tell(origin, entry)

    def persisted(self, done: Any) -> None:  # noqa: ANN401 - as the router has it
        """A group commit took place."""
        self._gateway.persisted(done)

    def halted(self, fault: StorageFault) -> None:
        """The log has halted."""
        self._gateway.halted(fault)

    def failed(self, told: Callable[..., None], error: Exception) -> None:
        """Who was told an outcome could not take it."""
        self._gateway.failed(told, error)

    def send(self, member: MemberId, message: PeerMessage) -> None:
        """Send a message to a member of a shard."""
        identity = self._lives.get(member.node)
        if identity is not None and identity.disk == member.disk:
            self._link.send(member.node, Channel.REPLICATION, self._wrapped(member.disk, wire.encode(message)))

    def announce(self, row: Configuration) -> None:
        """Tell all nodes of a row."""
        body = wire.encode(wire.config_of(row))
        for node, identity in self._lives.items():
            self._link.send(node, Channel.REPLICATION, self._wrapped(identity.disk, body))

    def teach(self, shard: ShardId, member: MemberId, epoch: int) -> None:
        """Give a learner a snapshot."""
        self._school.teach(shard, member, epoch, _now())

    def completed(self, done: SnapshotRead | SnapshotTaken | SnapshotRefused) -> None:
        """The log has answered what teaching or learning asked."""
        self._school.complete(done, _now())

    def _send_lesson(self, member: MemberId, body: bytes) -> None:
        identity = self._lives.get(member.node)
        if identity is not None and identity.disk == member.disk:
            self._link.send(member.node, Channel.TEACHING, self._wrapped(member.disk, body))

    def moved(self, rooms: Sequence[RoomState]) -> None:
        """This node is no longer the primary of these rooms: the edge hears of it with the row."""
        for shard in {state.shard for state in rooms}:
            self.serving.unserved(shard)
            self.edge.relocated(shard, _now())

    # -- turns ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the other nodes, until cancelled."""
        while True:
            with trio.move_on_after(TICK_MS / 1000):
                await self._link.wait()
            self._awoken = False
            self.turn()
            if self._awoken:
                self._ring()

    def turn(self) -> None:
        """Handle what has come, and perform what is to be done; what that brings about, too."""
        if self._turning:
            return
        self._turning = True
        try:
            now = _now()
            self.router.cluster.now = now
            self._take(now)
            if now >= self._tick_at:
                self._tick_at = now + TICK_MS
                self._tick(now)
            busy = True
            while busy:
                self.router.turn()
                self._perform_register(now)
                busy = self._perform_serving() | self._perform_edge() | self._perform_people()
        finally:
            self._turning = False

    def _take(self, now: int) -> None:
        for received in self._link.receive():
            try:
                self._receive(received, now)
            except CorruptEntry:
                self.strays += 1
            except BrokenInvariant as error:
                self._break(error)
        for node, topic, body in self._link.received_publications():
            try:
                if people_wire.is_peoples(topic):
                    self.people.published(topic, people_wire.decode_publication(body))
                    continue
                self.edge.published(node, edge_wire.decode_publication(body), now)
            except CorruptEntry:
                self.strays += 1
        for topic, is_wanted in self._link.subscription_events():
            if not people_wire.is_peoples(topic):
                self.serving.subscribed(topic, now, wanted=is_wanted)

    def _receive(self, received: Received, now: int) -> None:
        node, boot, channel, body = received
        self.membership.sign_of_life(node, boot, now)
        match channel:
            case Channel.MEMBERSHIP:
                self._follow(self.membership.receive(node, membership_wire.decode(body), now))
            case Channel.REPLICATION | Channel.TEACHING:
                self._replicate(received, now)
            case Channel.EDGE:
                message = edge_wire.decode(body)
                if isinstance(message, edge_wire.Request):
                    self.serving.receive(node, boot, message, now)
                else:
                    self.edge.receive(node, message, now)
            case Channel.REGISTER:
                if node == self.options.central:
                    self._central_heard = now
                    self.register.receive(body, now)
            case Channel.OPERATIONS:
                if self.operations is not None:
                    self.operations.hear(node, body)
            case Channel.PRESENCE:
                self.people.receive(node, people_wire.decode(body))

    def _replicate(self, received: Received, now: int) -> None:
        """What one member of a shard tells another: only between the lives and the disks that they mean."""
        node, boot, channel, body = received
        identity = self._lives.get(node)
        source, target = body[:DISK_BYTES], body[DISK_BYTES : 2 * DISK_BYTES]
        if identity is None or identity.boot != boot or source.hex() != identity.disk or target != self._prefix:
            return
        member, inner = MemberId(node, identity.disk), body[2 * DISK_BYTES :]
        if channel is Channel.TEACHING:
            self._school.receive(member, inner, now)
            return
        message = wire.decode(inner)
        self.router.cluster.receive(member, message)
        if isinstance(message, wire.Config):
            self._note(wire.row_of(message))

    def _wrapped(self, disk: str, body: bytes) -> bytes:
        return self._prefix + bytes.fromhex(disk) + body

    def _tick(self, now: int) -> None:
        statistics = self.router.cluster.statistics()
        standing = Standing.READY if self.router.fault is None else Standing.DRAINING
        load = Load(shards=statistics.shards_serving)
        if self.router.fault is None:  # whoever can write nothing is silent, so that others take its place
            self._follow(self.membership.tick(now, Pulse(load, standing)))
        self._around.look(now)
        try:
            self.router.cluster.tick()
        except BrokenInvariant as error:
            self._break(error)
        self.edge.tick(now)
        self.serving.tick(now)
        self._school.tick(now)
        self._look_around(now)
        self.people.tick(now)
        if now >= self._read_at:
            self._read_at = now + READ_ROWS_MS
            self.register.read(now)
        if self.operations is not None and now >= self._tell_at:
            self._tell_at = now + TELL_MS
            body = self.operations.tell()
            for node in self._lives:
                self._link.send(node, Channel.OPERATIONS, body)

    def _look_around(self, now: int) -> None:
        """Whoever hears nobody asks the central often, to know whether it hears that."""
        if not self.membership.is_alone():
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
        self._read_at = min(self._read_at, now + TELL_MS)

    def _break(self, error: BrokenInvariant) -> None:
        """A rule of replication does not hold: this node's part in it ends, loudly (rule 11)."""
        _logger.critical("a rule of replication does not hold, and this node halts: %s", error)
        self.log.halt(str(error))

    def _follow(self, effects: Iterable[MembershipEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(node, message):
                    self._link.send(node, Channel.MEMBERSHIP, membership_wire.encode(message))
                case Connect(node, address, key):
                    self._link.connect(node, address, key)
                    self.people.connected(node)
                case Disconnect(node):
                    self._link.disconnect(node)
                    self.people.disconnected(node)
                case Changed():
                    self._changed(effect)
                case Heard():
                    pass

    def _changed(self, effect: Changed) -> None:
        _logger.info("node %s: %s", effect.node, effect.change.value)
        match effect.change:
            case Change.UP:
                self.people.up(effect.node)
            case Change.SUSPECT:
                self.people.suspect(effect.node)
            case Change.DOWN | Change.LEFT | Change.FORGOTTEN:
                self.people.gone(effect.node)
            case Change.LEARNED | Change.RESTARTED | Change.NEW_DISK:
                pass
        identity = effect.identity
        if identity is not None and effect.change in {Change.UP, Change.RESTARTED, Change.NEW_DISK, Change.SUSPECT}:
            self._lives[effect.node] = identity
        elif effect.change in {Change.LEFT, Change.FORGOTTEN}:
            self._lives.pop(effect.node, None)
        if effect.change is Change.UP and identity is not None and identity.disk:
            for row in self.router.cluster.rows().values():
                self._link.send(
                    effect.node, Channel.REPLICATION,
                    self._wrapped(identity.disk, wire.encode(wire.config_of(row))),
                )  # fmt: skip

    # -- effects -------------------------------------------------------------------------------------------------

    def _perform_register(self, now: int) -> None:
        effects = self.register.tick(now)
        for body in effects.sends:
            self._link.send(self.options.central, Channel.REGISTER, body)
        for answer in effects.answers:
            try:
                self.router.claimed(answer)
            except BrokenInvariant as error:
                self._break(error)
            if answer.current is not None:
                self._note(answer.current)
        for row in effects.rows or ():
            self._learn(row)

    def _perform_serving(self) -> bool:
        effects = self.serving.effects()
        for node, body in effects.sends:
            self._link.send(node, Channel.EDGE, body)
        for topic, body in effects.publications:
            self._link.publish(topic, body)
        return bool(effects.sends or effects.publications)

    def _perform_edge(self) -> bool:
        effects = self.edge.effects()
        for node, body in effects.sends:
            self._link.send(node, Channel.EDGE, body)
        for node, topic, is_wanted in effects.subscriptions:
            (self._link.subscribe if is_wanted else self._link.unsubscribe)(node, topic)
        for row in effects.hints:
            self._learn(row)
        for reset in effects.resets:
            self._gateway.reset(reset.state, reset.place)
        if effects.committed:
            self._gateway.committed(effects.committed)
        for done, answer in effects.answers:
            if isinstance(answer, Entry):
                self._gateway.acknowledged(done)
            self._tell(done, answer)
        did = bool(
            effects.sends or effects.subscriptions or effects.hints or effects.resets or effects.committed
            or effects.answers
        )  # fmt: skip
        self._awoken |= did
        return did

    def _perform_people(self) -> bool:
        effects = self.people.effects()
        for node, topic, is_wanted in effects.subscriptions:
            (self._link.subscribe if is_wanted else self._link.unsubscribe)(node, topic)
        for node, body in effects.sends:
            self._link.send(node, Channel.PRESENCE, body)
        for topic, body in effects.publications:
            self._link.publish(topic, body)
        for publication in effects.heard:
            self._tell(self._gateway.heard, publication)
        for question in effects.questions:
            self._tell(self._gateway.asked, question)
        for done, answers in effects.answers:
            self._tell(done, answers)
        self._awoken |= bool(effects)
        return bool(effects)

    def _tell(self, told: Callable[[Any], None], answer: object) -> None:
        try:
            told(answer)
        except Exception as error:  # noqa: BLE001 - the boundary: it is one client's
            self._gateway.failed(told, error)

    # -- where rooms are -----------------------------------------------------------------------------------------

    def _locate(self, room: RoomId) -> Route:
        cluster = self.router.cluster
        shard = cluster.shard_of(room)
        row = cluster.row(shard)
        if row is None or not row.members:
            return Route(shard, tuple(member.node for member in self._around.wanted(shard)[:1]))
        others = (member.node for member in row.members if member != row.primary)
        return Route(shard, (row.primary.node, *others))

    def _learn(self, row: Configuration) -> None:
        self.router.cluster.learn(row)
        self._note(row)

    def _note(self, row: Configuration) -> None:
        """Tell the edge where a shard is, if that has changed, and remember it on disk."""
        known = self.router.cluster.row(row.shard)
        if known is None:
            return
        state = (known.version, known.epoch)
        if self._rows.get(row.shard) != state:
            self._rows[row.shard] = state
            self.log.learn([known])
            self.serving.unserved(row.shard)  # also if none of its rooms was in memory
            self.edge.relocated(row.shard, _now())

    # -- for operators -------------------------------------------------------------------------------------------

    def peers(self) -> Sequence[PeerView]:
        """The other nodes, as this one sees them."""
        return self.membership.peers(_now())

    @property
    def is_cut_off(self) -> bool:
        """Whether no other node of the cluster is heard, nor the central, and has not been for a while."""
        patience = self.options.membership.down
        now, since = _now(), self._alone_since
        return since is not None and now - since >= patience and now - self._central_heard >= patience

    def allow(self) -> None:
        """Who may join has changed."""
        self._follow(self.membership.allow(_now()))


def _now() -> int:
    return time.monotonic_ns() // 1_000_000

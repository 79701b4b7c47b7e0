"""Between sessions and the router: rooms with members here, and the way of a committed entry to them."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final
from uuid import uuid4
from weakref import WeakValueDictionary

import trio

from edge_config.kinds import JoinLeave
from edge_config.limits import Rates
from node.chat import SYSTEM, system_message
from node.chat_rules import MODERATING, Rules, notice_of
from node.codes import DisconnectCode, UnsubscribeCode
from node.connection import Connection
from node.logs import events
from node.protocol import json_string
from node.publication import Publication, encode_publication
from node.publishing import Submitted
from node.ratelimit import Throttle
from node.read_marks import ReadMarks, Waiter
from node.rooms import Room, oldest_ms
from node.seams import Page
from node.session import COMMAND_SECONDS
from node.status import LogState
from node.tenant import Tenant
from node.webhook_attendance import Subject
from router.entry import LAST_VISIBLE, Kind
from router.events import Away, Submit
from router.ids import RoomId
from router.marks import Reader
from router.people_wire import Came, Push, Read, Went, Whisper
from router.subscriptions import GAP, NEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from edge_config.kinds import RoomKind
    from edge_config.schema import Config
    from node.attending import Attending
    from node.chat_rules import Notice
    from node.counters import Counters
    from node.framing import Wire
    from node.metrics import Metrics
    from node.neighbours import Neighbours
    from node.protocol import Codec
    from node.seams import Member, User, Watcher
    from node.seams import Room as AnyRoom
    from node.vitals import Condition
    from router.completions import Persisted
    from router.entry import Entry
    from router.errors import StorageFault
    from router.events import History, Outcome
    from router.events import Page as RouterPage
    from router.ids import Place
    from router.mesh import MeshRouter
    from router.people import Question
    from router.people_wire import Publication as PeoplePublication
    from router.room import RoomState
    from router.runtime import Router

    AnyRouter = Router | MeshRouter

META: Final = int(Kind.META)
_NOBODY: Final[Tenant[Room]] = Tenant()  # of a site that has nothing here
_SYSTEM: Final = json_string(SYSTEM)
CREATED: Final = "created"
log = events(__name__)


class Gateway:
    """The node, as sessions see it; the router's edge, and the hub's work.

    Args:
        node: This node's id.
        version: Of the application.
        config: The node's.
        metrics: What is counted.
        condition: Told when the log halts.
        wire: How nearly all clients are written to: JSON over WebSocket.
        throttle: Rates across connections; None: there are none.
        ring: Makes the hub turn; may be called from any thread.

    Attributes:
        attending: Tells rooms who comes and goes; None: no kind of rooms asks for it.
        marks: How far users have read, on its way to the log.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, composed in one place
        self, node: str, version: str, config: Config, metrics: Metrics, condition: Condition, wire: Wire,
        throttle: Throttle | None, ring: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.node, self.version, self.throttle = node, version, throttle
        self.counters: Counters = metrics.sessions
        self._limits = config.limits
        self._metrics, self._condition, self._wire = metrics, condition, wire
        self._router: AnyRouter | None = None
        self._submit: Callable[[Submit], None]
        self._rooms: WeakValueDictionary[RoomId, Room] = WeakValueDictionary()
        self._populated: dict[RoomId, Room] = {}
        self._dirty: dict[Room, None] = {}
        self._tenants: defaultdict[str, Tenant[Room]] = defaultdict(Tenant)
        self.attending: Attending | None = None
        self._kind_of = config.kind_of
        self._tells = any(kind.system_messages for kind in config.kinds.values())
        self._ring = ring
        self._period_seconds = config.log.read_period_ms / 1000
        self._period_wanted = trio.Event()
        self.marks = ReadMarks(self.submit, self._tell_marks, self._want_period)
        self.watcher: Watcher | None = None
        """Told who comes and goes."""
        self.neighbours: Neighbours | None = None
        """The other nodes; None: there are none."""

    def attach(self, router: AnyRouter) -> None:
        """The router that this gateway is the edge of."""
        self._router = router
        self._submit = router.submit

    @property
    def router(self) -> AnyRouter:
        """The router."""
        if self._router is None:
            raise RuntimeError("the gateway was used before it was attached to its router")
        return self._router

    # -- for the hub ---------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Perform what came up in this turn."""
        if self.attending is not None:
            self.attending.turn()
        if self.marks.pending:
            self.marks.turn(time.monotonic())
            if self.marks.pending:
                self._ring()
        self.router.turn()

    def close(self) -> None:
        """Take no more: the node is leaving. What was taken is written."""
        self.marks.flush()
        self.router.turn()
        self.router.close()

    async def time_periods(self) -> None:
        """Say when periods of `marks` are over, until cancelled; there are none while nothing is read."""
        while True:
            await self._period_wanted.wait()
            self._period_wanted = trio.Event()
            await trio.sleep(self._period_seconds)
            self.marks.end_period()
            self._ring()

    def _want_period(self) -> None:
        self._period_wanted.set()

    def drain(self) -> None:
        """The log has answers."""
        self.router.drain()

    def distribute(self) -> None:
        """Hand what rooms have for their members to the connections."""
        dirty, self._dirty = self._dirty, {}
        for room in dirty:
            room.distribute()

    # -- for sessions --------------------------------------------------------------------------------------------

    def sender(self, site: str, user: str) -> bytes:
        """The pseudonym of a user in the log."""
        return self.router.sender(site, user)

    def known_room(self, room: RoomId) -> Room | None:
        """See `seams.Gateway`."""
        return self._rooms.get(room)

    def open_room(self, room: RoomId, kind: RoomKind, done: Callable[[AnyRoom | Away], None]) -> None:
        """See `seams.Gateway`."""
        if (known := self.known_room(room)) is not None:
            done(known)
            return

        def opened(state: RoomState | Away) -> None:
            done(state if isinstance(state, Away) else self._room(state, kind))

        self.router.open_room(room, opened)

    def history(self, room: AnyRoom, read: History, done: Callable[[Page | Away], None]) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)
        floor = here.floor
        oldest = oldest_ms(here.kind)

        def answered(page: RouterPage | Away) -> None:
            if isinstance(page, Away):
                done(page)
                return
            # Sequences rise with time, so what is not visible is one end of the page.
            entries = [e for e in page.entries if e.sequence > floor and e.ts >= oldest]
            done(Page(entries, here.offset))

        self.router.history(here.state, _above(read, floor), answered)

    def submit(self, room: AnyRoom, submit: Submit) -> None:  # noqa: ARG002 - a mesh needs to know which room
        """See `seams.Gateway`."""
        self._metrics.received += 1
        self._submit(submit)

    def probe(self, room: AnyRoom, submit: Submit) -> None:  # noqa: ARG002 - a mesh needs to know which room
        """See `seams.Gateway`."""
        self.router.probe(submit)

    def whisper(self, room: AnyRoom, data: bytes) -> None:
        """See `seams.Gateway`."""
        self.whisper_here(room, data)
        if self.neighbours is not None:
            self.neighbours.whisper(room.id, data)

    def whisper_here(self, room: AnyRoom, data: bytes) -> None:
        """As `whisper`, to the members on this node."""
        for member, payload in self._unkept(room, data):
            member.transport.send_ephemeral(payload)

    def announce(self, room: RoomId, event: str, data: Mapping[str, object], message_id: str = "") -> None:
        """Have a system message made, under a new id if none is given; where that can't be done now, there is none."""
        message_id = message_id or str(uuid4())
        body = system_message(message_id, event, data)
        sender = self.sender(room.site, "")
        self._submit(Submit(room, Kind.SYSTEM, sender, message_id, body, _SYSTEM, _told_nobody))

    def mark(self, room: AnyRoom, user: str, done: Callable[[int | Away], None]) -> None:
        """See `seams.Gateway`."""
        self.router.mark(Reader(room.id, user), done)

    def raise_mark(
        self, room: AnyRoom, user: str, sequence: int, deadline: float, done: Callable[[int | Away], None]
    ) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)

        def known(mark: int | Away) -> None:
            if isinstance(mark, Away) or sequence <= mark:
                done(mark)
            else:
                self.marks.rise(here, user, sequence, Waiter(done, deadline))

        self.router.mark(Reader(room.id, user), known)

    def wall_ms(self) -> int:
        """See `seams.Gateway`."""
        return time.time_ns() // 1_000_000

    def join(self, room: AnyRoom, member: Member) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)
        if not here.enter(_connection(member), member):
            return
        if here.id not in self._populated:
            if self.watcher is not None:
                self.watcher.note(Subject.room(here.id), here=True)
            if self.neighbours is not None:
                self.neighbours.follow(here.id)
        self._populated[here.id] = here
        self._tenants[here.id.site].enter(here)
        self._metrics.rooms = len(self._populated)
        if self.attending is not None:
            self.attending.changed(here, member.user)
        if self._tells and here.is_new and CREATED in here.kind.system_messages:
            self.announce(here.id, CREATED, {"by": member.user}, CREATED)  # one for all who are the first
        if here.tells_joins:
            here.tell(lambda codec: codec.push_join(here.channel_json, member.info))
        if self.neighbours is not None and here.kind.join_leave is not JoinLeave.OFF:
            self.neighbours.came(here.id, member.info)

    def leave(self, room: AnyRoom, member: Member) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)
        if not here.exit(_connection(member), member):
            return
        tenant = self._tenants[here.id.site]
        tenant.leave(here)
        self._let_go(here.id.site, tenant)
        if self.attending is not None:
            self.attending.changed(here, member.user)
        if not here.joined and not here.others:
            del self._populated[here.id]
            if self.watcher is not None:
                self.watcher.note(Subject.room(here.id), here=False)
            if self.neighbours is not None:
                self.neighbours.unfollow(here.id)
            self._metrics.rooms = len(self._populated)
        elif here.tells_joins:
            here.tell(lambda codec: codec.push_leave(here.channel_json, member.info))
        if self.neighbours is not None and here.kind.join_leave is not JoinLeave.OFF:
            self.neighbours.went(here.id, member.info)

    def presence(self, room: AnyRoom, done: Callable[[Mapping[str, bytes]], None]) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)
        if self.neighbours is None:
            done(here.roster(self._limits.presence_roster))
        else:
            self.neighbours.presence(here, done)

    def presence_stats(self, room: AnyRoom, done: Callable[[tuple[int, int]], None]) -> None:
        """See `seams.Gateway`."""
        here = self._mine(room)
        if self.neighbours is None:
            done((len(here.here), len(here.users)))
        else:
            self.neighbours.presence_stats(here, done)

    def admit(self, user: User) -> str | None:
        """See `seams.Gateway`."""
        tenant, most = self._tenants[user.site], self._limits.connections_per_user
        if most and len(tenant.of(user.user)) >= most:
            return f"a user may have {most} connections"
        if self.watcher is not None and not tenant.of(user.user):
            self.watcher.note(Subject(user.site, "", user.user), here=True)
        tenant.connect(user)
        return None

    def reconsider(self, user: User) -> None:
        """See `seams.Gateway`."""
        self._tenants[user.site].reconsider(user)

    def forget(self, user: User) -> None:
        """See `seams.Gateway`."""
        tenant = self._tenants[user.site]
        if tenant.disconnect(user) and self.watcher is not None and not tenant.of(user.user):
            self.watcher.note(Subject(user.site, "", user.user), here=False)
        self._let_go(user.site, tenant)

    # -- for the server API --------------------------------------------------------------------------------------

    def tenant(self, site: str) -> Tenant[Room]:
        """See `seams.Server`."""
        return self._tenants.get(site, _NOBODY)

    def push(self, room: AnyRoom, data: bytes) -> None:
        """See `seams.Server`."""
        self._push_here(room, data)
        if self.neighbours is not None:
            self.neighbours.push(room.id, data)

    def _push_here(self, room: AnyRoom, data: bytes) -> None:
        for member, payload in self._unkept(room, data):
            member.transport.send(payload)

    # -- for changes of sites ------------------------------------------------------------------------------------

    def everybody(self) -> list[User]:
        """All connected clients."""
        return [
            user
            for tenant in self._tenants.values()
            for connections in tenant.users.values()
            for user in connections.values()
        ]

    # -- for the router ------------------------------------------------------------------------------------------

    def committed(self, entries: Sequence[Entry]) -> None:
        """Entries are durable: hand them to the rooms, and answer who waits, in this order."""
        populated, rooms = self._populated, self._rooms
        for entry in entries:
            if entry.kind <= LAST_VISIBLE:
                room = populated.get(entry.room) or rooms.get(entry.room)
                if room is not None:
                    self._deliver(room, entry)
            elif entry.kind == META:
                self._rule(entry)
        waited: dict[float, int] = {}
        now = time.monotonic()
        for entry in entries:
            origin = entry.origin
            if origin is not None:
                if isinstance(origin, Submitted):
                    waited[origin.deadline] = waited.get(origin.deadline, 0) + 1
                try:
                    origin(entry)
                except Exception as error:  # noqa: BLE001 - the boundary: it ends this client, not the node
                    self.failed(origin, error)
                entry.origin = None
                self._metrics.acknowledged += 1
        for deadline, count in waited.items():  # few: all that are read in a turn have the same
            self._metrics.delivery_seconds.observe(now - deadline + COMMAND_SECONDS, count)

    def acknowledged(self, told: Callable[..., None]) -> None:
        """Who waits is told that its entry is committed; of entries that come with who waits, `committed` counts."""
        self._metrics.acknowledged += 1
        if isinstance(told, Submitted):
            self._metrics.delivery_seconds.observe(time.monotonic() - told.deadline + COMMAND_SECONDS, 1)

    def reset(self, state: RoomState, place: Place) -> None:
        """A room goes on elsewhere than where its members are: they are told that they can't go on, and come back."""
        room = self._rooms.get(state.room)
        if room is not None:
            for member in room.everybody():
                member.lose()
            room.replace(state, self.router.epoch_of(state), place.sequence)

    def heard(self, publication: PeoplePublication) -> None:
        """On another node, people did something in a room, which its members here are told."""
        room = self._populated.get(RoomId(publication.site, publication.channel))
        if room is None:
            return
        match publication:
            case Whisper(data=data):
                if room.members <= room.kind.typing_members:
                    self.whisper_here(room, data)
            case Push(data=data):
                self._push_here(room, data)
            case Read(marks=marks):
                self._tell_marks_here(room, marks)
            case Came(info=info):
                if room.tells_joins:
                    room.tell(lambda codec: codec.push_join(room.channel_json, info))
            case Went(info=info):
                if room.tells_joins:
                    room.tell(lambda codec: codec.push_leave(room.channel_json, info))

    def asked(self, question: Question) -> None:
        """Another node asks."""
        if self.neighbours is not None:
            self.neighbours.asked(question)

    def persisted(self, done: Persisted) -> None:
        """A group commit took place."""
        metrics = self._metrics
        metrics.commit_entries.observe(done.entries)
        metrics.commit_seconds.observe(done.seconds)
        metrics.fsync_seconds.observe(done.fsync_seconds)

    def halted(self, fault: StorageFault) -> None:
        """The log has halted."""
        self._condition.log = LogState.HALTED
        self._condition.log_reason = str(fault)
        log.error("log halted", reason=fault.reason, message=str(fault))

    def failed(self, told: Callable[..., None], error: Exception) -> None:
        """Who was told an outcome could not take it: its connection ends, if it is known."""
        session = told.session if isinstance(told, Submitted) else None
        log.fault("answer failed", error, client="unknown" if session is None else session.client)
        if session is not None:
            session.disconnect(DisconnectCode.SERVER_ERROR)

    # -- inside --------------------------------------------------------------------------------------------------

    def _room(self, state: RoomState, kind: RoomKind) -> Room:
        room = self._rooms.get(state.room)
        if room is None:
            room = self._rooms[state.room] = Room(state, kind, self.router.epoch_of(state), self._wire)
            self._slow_down(room)
        return room

    def _let_go(self, site: str, tenant: Tenant[Room]) -> None:
        if tenant.vacant:
            self._tenants.pop(site, None)

    def _mine(self, room: AnyRoom) -> Room:
        if not isinstance(room, Room):
            raise TypeError(f"{room!r} is not a room of this gateway")
        return room

    def _unkept(
        self, room: AnyRoom, data: bytes, members: Iterable[Member] | None = None
    ) -> Iterator[tuple[Member, bytes]]:
        """Members of a room (None: all), each with a publication that has no offset, encoded once for each way."""
        here = self._mine(room)
        here.distribute()
        here.interrupt()
        encoded: dict[tuple[Codec, bool], bytes] = {}
        for member in here.everybody() if members is None else members:
            codec, delta = way = (member.transport.codec, member.delta)
            if way not in encoded:
                publication = codec.publication(codec.quote(data) if delta else data, 0, b"")
                encoded[way] = codec.push_publication(here.channel_json, publication)
            yield member, encoded[way]

    def _tell_marks(self, room: Room, marks: Mapping[str, int]) -> None:
        """Tell members, of other nodes too, who has read how far."""
        self._tell_marks_here(room, marks)
        if self.neighbours is not None:
            self.neighbours.read(room.id, marks)

    def _tell_marks_here(self, room: Room, marks: Mapping[str, int]) -> None:
        """Tell a small room's members who has read how far; of a big one's, each user's own connections."""
        tenant, channel = self.tenant(room.id.site), room.id.channel
        for user, sequence in marks.items():
            data = b'{"type":"read","userId":%b,"sequence":%d}' % (json_string(user), sequence)
            members = None
            if room.members > room.kind.read_members:
                members = [o.subscriptions[channel] for o in tenant.of(user).values() if channel in o.subscriptions]
            for member, payload in self._unkept(room, data, members):
                member.transport.send_ephemeral(payload)

    def _slow_down(self, room: Room) -> None:
        """A node that needed no throttle by its configuration may need one for slow mode."""
        if room.rules is not None and room.rules.slow_seconds and self.throttle is None:
            self.throttle = Throttle(Rates(user_publishes=0.0, user_reports=0.0, room_publishes=0.0))

    def _rule(self, entry: Entry) -> None:
        """A moderator has laid something down: it holds from now on, and whom it concerns is told."""
        room = self._rooms.get(entry.room)
        if room is None and not self._tells:
            return
        notice = notice_of(entry)
        kind = self._kind_of(entry.room.channel) if self._tells else None
        if kind is not None and notice.event in kind.system_messages:
            said_once = f"{notice.event}.{entry.meta_n}"  # all nodes with members of the room say it
            self.announce(entry.room, notice.event, notice.facts(), said_once)
        if room is None:
            return
        room.rules = Rules.after(room.rules, room.state.values, entry)
        self._slow_down(room)
        if notice.event:  # without one it is not for clients to know
            self._notify(room, notice)

    def _notify(self, room: Room, notice: Notice) -> None:
        data = notice.encode(room.id.channel)
        room.distribute()
        if notice.reports:
            for user in self._moderators_in(room):
                user.push_message(data)
            return
        if not notice.user:
            for member in room.everybody():
                member.transport.send(member.transport.codec.push_message(data))
            return
        for user in list(self.tenant(room.id.site).of(notice.user).values()):
            user.push_message(data)
            if notice.expels:
                user.unsubscribe(room.id.channel, UnsubscribeCode.SERVER, notice.event)

    def _moderators_in(self, room: Room) -> list[User]:
        """The connections of those who moderate a room and are in it."""
        tenant = self.tenant(room.id.site)
        found = dict(tenant.moderators)
        for user, role in room.rules.roles.items() if room.rules is not None else ():
            if role in MODERATING:
                found |= tenant.of(user)
        return [user for user in found.values() if room.id.channel in user.subscriptions]

    def _deliver(self, room: Room, entry: Entry) -> None:
        arrival = room.cursor.arrive(entry.sequence)
        if arrival is not NEXT:
            if arrival is GAP:
                log.error("gap in a room", room=room.id.channel, at=room.offset, got=entry.sequence)
                for member in room.everybody():
                    member.lose()
                room.cursor.sequence = entry.sequence
            return
        if room.state.removals is not None and (room.joined or room.others):
            entry = room.state.removals.show(entry)
        if room.joined:
            wire = self._wire
            publication = encode_publication(wire.codec, room, entry)
            room.frames.append(wire.frame(wire.codec.push_publication(room.channel_json, publication)))
            self._dirty[room] = None
            self._metrics.delivered += len(room.joined)
        if room.others:
            self._deliver_to_others(room, entry)

    def _deliver_to_others(self, room: Room, entry: Entry) -> None:
        """Once for each other wire in use: see docs/decisions/0006-one-frame-per-wire.md."""
        publication = Publication(room, entry, self._limits.delta_bytes)
        for others in room.others.values():
            others.take(publication)
            self._metrics.delivered += len(others.joined)
        self._dirty[room] = None


def _told_nobody(_: Outcome) -> None:
    """Nobody waits for the outcome of what the node says of its own accord."""


def _connection(member: Member) -> Connection:
    transport = member.transport
    if not isinstance(transport, Connection):
        raise TypeError(f"{transport!r} is no connection of this node's hub")
    return transport


def _above(read: History, floor: int) -> History:
    """The same read, but not below the visible floor."""
    if read.reverse or (read.since is not None and read.since >= floor):
        return read
    return type(read)(read.room, floor, read.limit, reverse=False, max_bytes=read.max_bytes)

"""A node without sockets and disk, for sessions: `FakeGateway` keeps the order of the real one and answers when told.

What a test holds back (`gateway.hold`) waits until `gateway.release`; nothing else is asynchronous, nothing is random.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from node.chat_rules import MODERATING, Rules, notice_of, role_of
from node.codes import DisconnectCode, UnsubscribeCode
from node.counters import Counters
from node.protocol import JsonCodec
from node.publication import encode_publication, encode_quoted
from node.seams import Page
from router.entry import SALT_BYTES, Entry, Kind, make
from router.events import Away, Duplicate, History, Outcome, Refusal, Submit
from router.ids import RoomId, sender_id
from router.removal import Removals
from router.room_values import change, removes_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edge_config.kinds import RoomKind
    from node.ratelimit import Throttle
    from node.seams import Member, Room, User
    from node.session import Session

START_MS = 1_794_000_000_000  # a moment of November 2026


class FakeTransport:
    """A client's end: what it was sent, and how it was closed.

    Attributes:
        sent: Decoded payloads, in order.
        end: Code and reason of the close.
        behind: Whether the client has not taken all yet.
        paused: Whether the client is not read at the moment.
        session: Told when the transport is closed.
    """

    def __init__(self) -> None:
        self.remote = "192.0.2.1"
        self.codec = JsonCodec()
        self.sent: list[dict[str, Any]] = []
        self.end: tuple[int, str] | None = None
        self.paused = self.behind = False
        self.session: Session | None = None

    def send(self, payload: bytes) -> None:
        """Keep a payload, which must be one line of JSON."""
        assert b"\n" not in payload
        if self.end is None:
            self.sent.append(msgspec.json.decode(payload))

    def send_ephemeral(self, payload: bytes) -> None:
        self.send(payload)

    def close(self, code: int, reason: str) -> None:
        assert code in set(DisconnectCode)
        assert len(reason.encode()) <= 123
        if self.end is None:
            self.end = (int(code), reason)
            if self.session is not None:
                self.session.closed()

    def pause(self) -> None:
        assert not self.paused
        self.paused = True

    def resume(self) -> None:
        assert self.paused
        self.paused = False

    def take(self) -> list[dict[str, Any]]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def publications(self, channel: str) -> Iterator[dict[str, Any]]:
        """Publications that the client was given in a room, in pushes and in replies to subscribe, in order."""
        for message in self.sent:
            push = message.get("push", {})
            if push.get("channel") == channel and "pub" in push:
                yield push["pub"]
            yield from message.get("subscribe", {}).get("publications", ())


class FakeRoom:
    """A `seams.Room` with everything in memory.

    Attributes:
        entries: Committed, all of them; `floor` hides the oldest.
    """

    def __init__(self, room: RoomId, kind: RoomKind, epoch: str) -> None:
        self.id, self.kind, self.epoch = room, kind, epoch
        self.channel_json = msgspec.json.encode(room.channel)
        self.entries: list[Entry] = []
        self.floor = 0
        self.removals = Removals()
        self.values: dict[str, bytes] = {}
        self.marks: dict[str, int] = {}
        self.rules: Rules | None = None
        self.joined: list[Member] = []
        self.hidden = 0
        """So many of the newest entries have not been handed to the members here."""
        self.runs_ahead = False
        """Whether pages show such entries already."""

    @property
    def offset(self) -> int:
        return len(self.entries) - self.hidden

    @property
    def members(self) -> int:
        return len(self.joined)

    @property
    def users(self) -> Mapping[str, int]:
        return Counter(member.user for member in self.joined)


class FakeGateway:
    """A `seams.Gateway`.

    Attributes:
        held: Operations (`open`, `history`, `submit`) whose answers wait for `release`.
        waiting: What waits, in order: the operation and its rest.
        users: Who is connected.
        away: Given instead of any answer.
        page: At most so many entries come in one page.
        passed_ms: Added to the time of day.
    """

    def __init__(self) -> None:
        self.node, self.version = "n1", "0.1.0"
        self.counters = Counters()
        self.throttle: Throttle | None = None
        self.rooms: dict[RoomId, FakeRoom] = {}
        self.held: set[str] = set()
        self.waiting: list[tuple[str, Callable[[], None]]] = []
        self.users: list[User] = []
        self.most_per_user = 0
        self.away: Away | None = None
        self.page = 1000
        self.passed_ms = 0
        self.neighbours = None
        self._keys: defaultdict[RoomId, dict[tuple[bytes, str], Entry]] = defaultdict(dict)

    def release(self, *operations: str) -> None:
        """Answer all that waits (of some operations), and what comes of it, in order."""
        self.held -= set(operations) if operations else self.held
        while rest := next((item for item in self.waiting if item[0] not in self.held), None):
            self.waiting.remove(rest)
            rest[1]()

    def answer_one(self) -> None:
        """Answer the first of what waits, and go on holding."""
        self.waiting.pop(0)[1]()

    def _do(self, operation: str, rest: Callable[[], None]) -> None:
        if operation in self.held:
            self.waiting.append((operation, rest))
        else:
            rest()

    # -- seams.Gateway -------------------------------------------------------------------------------------------

    def known_room(self, room: RoomId) -> Room | None:
        return self.rooms.get(room)

    def open_room(self, room: RoomId, kind: RoomKind, done: Callable[[Room | Away], None]) -> None:
        self._do("open", lambda: done(self.away or self.room(room, kind)))

    def history(self, room: Room, read: History, done: Callable[[Page | Away], None]) -> None:
        self._do("history", lambda: done(self.away or self._page(self.rooms[room.id], read)))

    def submit(self, room: Room, submit: Submit) -> None:
        self._do("submit", lambda: submit.done(self.away or self.commit(self.rooms[room.id], submit)))

    def probe(self, room: Room, submit: Submit) -> None:
        def answer() -> Outcome:
            first = self._keys[room.id].get((submit.sender, submit.cmid))
            if first is None:
                return Refusal.NEW
            return Duplicate(first.sequence) if first.data == submit.data else Refusal.CONFLICT

        self._do("submit", lambda: submit.done(self.away or answer()))

    def whisper(self, room: Room, data: bytes) -> None:
        for member in self.rooms[room.id].joined:
            codec = member.transport.codec
            publication = codec.publication(codec.quote(data) if member.delta else data, 0, b"")
            push = codec.push_publication(room.channel_json, publication)
            member.transport.send_ephemeral(push)

    def mark(self, room: Room, user: str, done: Callable[[int | Away], None]) -> None:
        self._do("mark", lambda: done(self.away or self.rooms[room.id].marks.get(user, 0)))

    def raise_mark(
        self, room: Room, user: str, sequence: int, deadline: float, done: Callable[[int | Away], None]
    ) -> None:
        def rise() -> None:
            marks = self.rooms[room.id].marks
            if self.away is None and sequence > marks.get(user, 0):
                marks[user] = sequence
                self.whisper(room, msgspec.json.encode({"type": "read", "userId": user, "sequence": sequence}))
            done(self.away or marks.get(user, 0))

        assert deadline > 0
        self._do("raise", rise)

    def wall_ms(self) -> int:
        return START_MS + self.passed_ms

    def join(self, room: Room, member: Member) -> None:
        joined = self.rooms[room.id].joined
        assert member not in joined
        joined.append(member)
        for other in joined:
            if other.wants_joins:
                other.transport.send(other.transport.codec.push_join(room.channel_json, member.info))

    def leave(self, room: Room, member: Member) -> None:
        joined = self.rooms[room.id].joined
        if member in joined:
            joined.remove(member)
            for other in joined:
                if other.wants_joins:
                    other.transport.send(other.transport.codec.push_leave(room.channel_json, member.info))

    def presence(self, room: Room, done: Callable[[Mapping[str, bytes]], None]) -> None:
        self._do("presence", lambda: done({member.client: member.info for member in self.rooms[room.id].joined}))

    def presence_stats(self, room: Room, done: Callable[[tuple[int, int]], None]) -> None:
        joined = self.rooms[room.id].joined
        self._do("presence", lambda: done((len(joined), len({member.user for member in joined}))))

    def admit(self, user: User) -> str | None:
        connections = sum(other.user == user.user for other in self.users)
        if self.most_per_user and connections >= self.most_per_user:
            return f"{user.user!r} has {connections} connections"
        self.users.append(user)
        return None

    def reconsider(self, user: User) -> None:
        assert user in self.users

    def forget(self, user: User) -> None:
        self.users.remove(user)

    def sender(self, site: str, user: str) -> bytes:
        return sender_id(site, user, b"k" * 32)

    # -- what the rest of a node would do ------------------------------------------------------------------------

    def room(self, room: RoomId, kind: RoomKind) -> FakeRoom:
        """The room; new if there is none."""
        if room not in self.rooms:
            self.rooms[room] = FakeRoom(room, kind, "birth.1")
        return self.rooms[room]

    def publish(self, room: FakeRoom, data: bytes, info: bytes = b'"u0"') -> Entry:
        """Commit an entry of somebody who is not connected here."""
        cmid = f"other-{room.offset + 1}"
        entry = self.commit(room, Submit(room.id, Kind.MESSAGE, b"s" * 12, cmid, data, info, lambda _: None))
        assert isinstance(entry, Entry)
        return entry

    def commit(self, room: FakeRoom, submit: Submit) -> Outcome:
        """Sequence, store, and hand to the members."""
        key = (submit.sender, submit.cmid)
        first = self._keys[room.id].get(key) if submit.cmid else None
        if first is not None:
            return Duplicate(first.sequence) if first.data == submit.data else Refusal.CONFLICT
        n = len(room.entries) + 1
        entry = make(
            0, n, 1, room.id, n, 0, submit.kind, submit.sender, submit.cmid, START_MS + n, b"s" * SALT_BYTES,
            submit.data, submit.info, b"",
        )  # fmt: skip
        self._keys[room.id][key] = entry
        if entry.kind == Kind.META:
            self._rule(room, entry)
            return entry
        room.entries.append(entry)
        if entry.kind in {Kind.REMOVED, Kind.RESTORED}:
            room.removals.note(entry, entry.sequence)
        if not room.hidden:
            self._deliver(room, entry)
        return entry

    def _rule(self, room: FakeRoom, entry: Entry) -> None:
        if removes_history(entry):
            room.floor = len(room.entries)
            return
        change(room.values, entry)
        room.rules = Rules.after(room.rules, room.values, entry)
        notice = notice_of(entry)
        for user in list(self.users):
            if notice.reports:
                if room.id.channel in user.subscriptions and role_of(user.identity, room) in MODERATING:
                    user.push_message(notice.encode(room.id.channel))
            elif notice.user in {"", user.user}:
                user.push_message(notice.encode(room.id.channel))
                if notice.expels:
                    user.unsubscribe(room.id.channel, UnsubscribeCode.SERVER, notice.event)

    def hand_over(self, room: FakeRoom) -> None:
        """Hand the hidden entries to the members."""
        while room.hidden:
            room.hidden -= 1
            self._deliver(room, room.entries[room.offset - 1])

    def _deliver(self, room: FakeRoom, entry: Entry) -> None:
        for member in list(room.joined):
            codec = member.transport.codec
            encode = encode_quoted if member.delta else encode_publication
            publication = encode(codec, room, entry)
            member.transport.send(codec.push_publication(room.channel_json, publication))

    def _page(self, room: FakeRoom, read: History) -> Page:
        known = room.entries if room.runs_ahead else room.entries[: room.offset]
        visible = [entry for entry in known if entry.sequence > room.floor]
        if read.reverse:
            visible.reverse()
            visible = [e for e in visible if read.since is None or e.sequence < read.since]
        else:
            visible = [e for e in visible if e.sequence > (read.since or 0)]
        taken: list[Entry] = []
        size = 0
        for entry in visible[: min(read.limit, self.page)]:
            size += len(entry.wire)
            if size > read.max_bytes and taken:
                break
            taken.append(entry)
        return Page(room.removals.show_all(taken), room.offset)

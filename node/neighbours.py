"""The other nodes, as the gateway and the server API see them: who is there, and what is to be done on all of them.

Sans-I/O. What is asked of other nodes is asked anew each time, and answered by each for itself, so that nothing of a
node that crashed is left. Of one room there is one question at a time: who wants to know meanwhile shares the next.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct

from node.api_everywhere import EVERYWHERE
from node.codes import CommandError, ErrorCode
from router.ids import RoomId
from router.people import Answer, Inquiry
from router.people_wire import Came, Push, Read, Went, Whisper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from node.api_methods import Methods
    from node.rooms import Room
    from node.seams import Server
    from router.people import Answers, Gathered, People, Question

_T = TypeVar("_T")

ACT_MS: Final = 2500  # for what is to be done; the server API answers within 4 s
LOOK_MS: Final = 1000  # for who is there; two of them may follow each other
ROSTER: Final = "presence"
COUNTS: Final = "presence_stats"
MAX_ROSTER_BYTES: Final = 900_000  # of one node's answer
MAX_DIGESTS: Final = 32_768  # users of one node, of whom it is known whether they are on another, too


class Peers(Protocol):
    """The way to them: `router.mesh.MeshRouter`."""

    @property
    def people(self) -> People:
        """What is to reach them."""

    def ask(self, inquiry: Inquiry, done: Gathered) -> None:
        """See `People.ask`."""


class _Counts(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """How many are in a room at a node; `digests` of the users, none if they are too many."""

    clients: int
    users: int
    digests: list[bytes]


class _Look(NamedTuple):
    """Those who want to know of a room: of the question that is under way, and of the next."""

    now: list[Gathered]
    next: list[Gathered]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_roster: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_decode_counts: Final = msgspec.msgpack.Decoder(_Counts).decode


class Neighbours:
    """The other nodes.

    Args:
        peers: The way to them.
        gateway: This node.
        methods: What may be asked of it.
        most: Of a roster.
    """

    def __init__(self, peers: Peers, gateway: Server, methods: Methods, most: int) -> None:
        self._peers, self._gateway, self._methods, self._most = peers, gateway, methods, most
        self._looks: dict[tuple[str, RoomId], _Look] = {}

    # -- what people do ------------------------------------------------------------------------------------------

    def follow(self, room: RoomId) -> None:
        """A room has members here."""
        self._peers.people.follow(room)

    def unfollow(self, room: RoomId) -> None:
        """It has none any more."""
        self._peers.people.unfollow(room)

    def whisper(self, room: RoomId, data: bytes) -> None:
        """See `seams.Gateway.whisper`."""
        self._peers.people.publish(room, Whisper(*room, data))

    def push(self, room: RoomId, data: bytes) -> None:
        """See `seams.Server.push`."""
        self._peers.people.publish(room, Push(*room, data))

    def read(self, room: RoomId, marks: Mapping[str, int]) -> None:
        """Users have read a room up to a sequence."""
        self._peers.people.publish(room, Read(*room, dict(marks)))

    def came(self, room: RoomId, info: bytes) -> None:
        """A client has come into a room."""
        self._peers.people.publish(room, Came(*room, info))

    def went(self, room: RoomId, info: bytes) -> None:
        """A client has left a room."""
        self._peers.people.publish(room, Went(*room, info))

    # -- questions -----------------------------------------------------------------------------------------------

    def act(self, site: str, method: str, request: Struct, done: Gathered) -> None:
        """Have all of them do what is in `EVERYWHERE`."""
        self._peers.ask(Inquiry(site, method, msgspec.json.encode(request), ACT_MS, suspects=True), done)

    def presence(self, room: Room, done: Callable[[Mapping[str, bytes]], None]) -> None:
        """Who is in a room, at most so many, those of this node first."""

        def gathered(answers: Answers) -> None:
            there = dict(room.roster(self._most))
            for others in _told(answers, _decode_roster):
                for client, info in others.items():
                    if len(there) >= self._most:
                        break
                    there[client] = info
            done(there)

        self._look(ROSTER, room.id, gathered)

    def presence_stats(self, room: Room, done: Callable[[tuple[int, int]], None]) -> None:
        """How many clients and users are in a room; of nodes with too many users, each counts those of its own."""

        def gathered(answers: Answers) -> None:
            clients, users = len(room.here), len(room.users)
            seen = {_digest(user) for user in room.users} if users <= MAX_DIGESTS else set()
            for others in _told(answers, _decode_counts):
                clients += others.clients
                new = set(others.digests) - seen
                seen |= new
                users += len(new) if len(others.digests) == others.users else others.users
            done((clients, users))

        self._look(COUNTS, room.id, gathered)

    def _look(self, method: str, room: RoomId, done: Gathered) -> None:
        look = self._looks.get((method, room))
        if look is not None:
            look.next.append(done)  # what is under way may have been answered before somebody came
            return
        self._begin(method, room, [done])

    def _begin(self, method: str, room: RoomId, wanting: list[Gathered]) -> None:
        self._looks[method, room] = _Look(wanting, [])
        inquiry = Inquiry(room.site, method, room.channel.encode(), LOOK_MS, suspects=False)
        self._peers.ask(inquiry, partial(self._end, method, room))

    def _end(self, method: str, room: RoomId, answers: Answers) -> None:
        look = self._looks.pop((method, room))
        if look.next:
            self._begin(method, room, look.next)
        for done in look.now:
            done(answers)

    # -- of other nodes ------------------------------------------------------------------------------------------

    def asked(self, question: Question) -> None:
        """Do what another node asks, and answer it."""

        def done(answer: bytes | CommandError) -> None:
            if isinstance(answer, CommandError):
                told = Answer(answer.code, answer.message.encode(errors="replace"))
            else:
                told = Answer(0, answer)
            self._peers.people.answer(question, told)

        ask = question.ask
        try:
            if ask.method in {ROSTER, COUNTS}:
                done(self._who(ask.method, RoomId(ask.site, ask.body.decode())))
            elif (known := EVERYWHERE.get(ask.method)) is not None:
                known.perform(self._methods, ask.site, msgspec.json.decode(ask.body, type=known.request), done)
            else:
                done(
                    CommandError(ErrorCode.METHOD_NOT_FOUND, f"{self._gateway.node} knows no {ask.method!r}; update it")
                )
        except CommandError as error:
            done(error)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            done(CommandError(ErrorCode.BAD_REQUEST, f"{self._gateway.node} can't read {ask.method!r}: {error}"))

    def _who(self, method: str, room_id: RoomId) -> bytes:
        room: Room | None = self._gateway.tenant(room_id.site).rooms.get(room_id.channel)
        if method == ROSTER:
            there: dict[str, bytes] = {}
            size = 0
            for client, info in room.roster(self._most).items() if room is not None else ():
                size += len(client) + len(info) + 16
                if size > MAX_ROSTER_BYTES:
                    break
                there[client] = info
            return _encode(there)
        if room is None:
            return _encode(_Counts(0, 0, []))
        digests = [_digest(user) for user in room.users] if len(room.users) <= MAX_DIGESTS else []
        return _encode(_Counts(len(room.here), len(room.users), digests))


def _told(answers: Answers, decode: Callable[[bytes], _T]) -> Iterator[_T]:
    """What nodes have told; what can't be read, of a newer node perhaps, is as if it had not come."""
    for _, (code, body) in sorted(answers.told.items()):
        if not code:
            try:
                yield decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue


def _digest(user: str) -> bytes:
    return blake2b(user.encode(errors="surrogatepass"), digest_size=8).digest()

"""A client on its way into a room: open it, recover, and be ready to join without a gap.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from edge_config.kinds import JoinLeave
from edge_config.kinds import Recovery as Mode
from node.chat_rules import check_presence
from node.codes import CommandError, ErrorCode
from node.protocol import FOSSIL, REJECT_UNRECOVERED, SubscribeResult
from node.publication import encode_publication, encode_quoted
from node.recovery import Outcome, Recovery
from router.events import Away
from router.ids import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_config.kinds import RoomKind
    from node.auth import Grant
    from node.counters import Counters
    from node.permissions import Origin
    from node.protocol import Codec, SubscribeRequest
    from node.seams import Gateway, Room, Transport
    from router.ids import RoomId


class Joining:
    """A client on its way into a room.

    Args:
        gateway: The node.
        user: Who.
        room_id: Where to.
        kind: Of what kind the room is.
        request: What the client asked for; of a subscription that the server makes, what is to be recovered.
        origin: How the subscription came about.
        grant: What a token says of it.

    Attributes:
        room: Where to, once it is open.
        optional: Whether a client that the room has banned is left out without an error.
        barred: Whether it was.
        error: Why the client can't join; None: nothing speaks against it by now.
    """

    __slots__ = (
        "_gateway", "_recovery", "_settled", "barred", "error", "grant",
        "kind", "optional", "origin", "request", "room", "room_id", "user",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - made in two places, for subscribe and for connect
        self, gateway: Gateway, user: str, room_id: RoomId, kind: RoomKind, request: SubscribeRequest,
        origin: Origin, grant: Grant,
    ) -> None:  # fmt: skip
        self._gateway, self.room_id, self.kind, self.request, self.origin = gateway, room_id, kind, request, origin
        self.grant, self.user, self.optional, self.barred = grant, user, False, False
        self.room: Room | None = None
        self.error: CommandError | None = None
        self._recovery: Recovery | None = None
        self._settled: Callable[[], None] | None = None

    def begin(self, most_bytes: int, most_entries: int, settled: Callable[[], None]) -> None:
        """Start; `settled` is called whenever it has become `ready`, or there is an `error`, until `cancel`.

        Args:
            most_bytes: See `Recovery`.
            most_entries: See `Recovery`.
            settled: Without arguments.
        """
        self._settled = settled

        def opened(room: Room | Away) -> None:
            if isinstance(room, Away):
                self._fail(away(room))
                return
            self.room = room
            if self._is_barred():
                self._tell()
                return
            if room.kind.maximum_members and room.members >= room.kind.maximum_members:
                limit = f"the room has its {room.kind.maximum_members} members; try again when somebody has left"
                self._fail(CommandError(ErrorCode.LIMIT_EXCEEDED, limit))
            elif self.recovers:
                since = Position(self.request.epoch, self.request.offset)
                most = most_bytes // 2 if self.delta else most_bytes  # data in quotes is up to twice as long
                self._recovery = Recovery(self._gateway, room, since, most_entries, most, self._recovered)
                self._recovery.advance()
            else:
                self._tell()

        self._gateway.open_room(self.room_id, self.kind, opened)

    def refresh(self) -> None:
        """Read on if the room's head has moved since it was ready."""
        if self._is_barred():
            return
        recovery = self._recovery
        if self.error is None and recovery is not None and recovery.outcome is Outcome.RECOVERED and not recovery.fresh:
            recovery.advance()

    def _is_barred(self) -> bool:
        """Whether the room has banned the client, now."""
        if self.room is not None and self.room.rules is not None:
            try:
                check_presence(self.user, self.room, self._gateway.wall_ms())
            except CommandError as error:
                self.room = None
                if self.optional:
                    self.barred = True
                else:
                    self.error = error
        return self.barred or self.error is not None

    def poll(self) -> None:
        """Ask again whether the room's head has reached what the client has seen."""
        recovery = self._recovery
        if recovery is not None and recovery.outcome is Outcome.AHEAD:
            self._gateway.open_room(self.room_id, self.kind, lambda _: recovery.advance())

    def cancel(self) -> None:
        """Its outcome matters no more."""
        self._settled = None

    def _recovered(self) -> None:
        recovery = self._recovery
        if recovery is None or recovery.outcome is Outcome.AHEAD:
            return
        if recovery.outcome is Outcome.AWAY:
            self._fail(CommandError(ErrorCode.INTERNAL, "what was missed can't be read now; try again"))
        elif recovery.outcome is Outcome.UNRECOVERABLE and self.request.flag & REJECT_UNRECOVERED:
            mend = f"{self.request.offset} of {self.request.epoch!r} is too far back; subscribe anew, and read history"
            self._fail(CommandError(ErrorCode.UNRECOVERABLE_POSITION, mend))
        else:
            self._tell()

    def _fail(self, error: CommandError) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        if self._settled is not None:
            self._settled()

    @property
    def ready(self) -> bool:
        """Whether, in this very turn, the client may be answered and join."""
        if self.barred:
            return True
        if self.room is None or self.error is not None:
            return False
        recovery = self._recovery
        if recovery is None:
            return not self.recovers
        return recovery.fresh and recovery.outcome is not Outcome.AHEAD

    @property
    def recovers(self) -> bool:
        """Whether missed entries are to be given."""
        return self.request.recover and self.kind.recovery is not Mode.OFF

    @property
    def wants_joins(self) -> bool:
        """Whether the client is to be told of joins and leaves."""
        mode = self.kind.join_leave
        return mode is JoinLeave.PUSH or (mode is JoinLeave.ON and self.request.join_leave)

    @property
    def delta(self) -> bool:
        """Whether the client is given quoted data, and differences."""
        return self.kind.delta and self.request.delta == FOSSIL

    def result(self, codec: Codec) -> SubscribeResult:
        """The answer; only when `ready`, and followed by `Gateway.join` in the same turn."""
        room, request, recovery = self.room, self.request, self._recovery
        if room is None:
            raise ValueError(f"{self.room_id} is not open yet")
        mode = self.kind.recovery
        recoverable = mode is Mode.FORCED or (mode is not Mode.OFF and (request.recoverable or request.recover))
        result = SubscribeResult(
            recoverable=recoverable,
            positioned=recoverable or (mode is not Mode.OFF and request.positioned) or mode is Mode.POSITIONED,
            epoch=room.epoch,
            offset=room.offset,
            was_recovering=request.recover,
            delta=self.delta,
        )
        if recovery is not None and recovery.outcome is Outcome.RECOVERED:
            result.recovered, result.offset = True, request.offset
            encode = encode_quoted if self.delta else encode_publication
            result.publications = [Raw(encode(codec, room, entry)) for entry in recovery.entries]
        if self.grant.ttl is not None:
            result.expires, result.ttl = True, self.grant.ttl
        if self.grant.data:
            result.data = Raw(self.grant.data)
        return result

    @property
    def outcome(self) -> str:
        """A label for the count of recoveries; empty: nothing was to be recovered."""
        if not self.request.recover:
            return ""
        recovered = self._recovery is not None and self._recovery.outcome is Outcome.RECOVERED
        return "recovered" if recovered else "unrecoverable"

    @property
    def recovered_entries(self) -> int:
        """How many entries the answer gives."""
        return len(self._recovery.entries) if self._recovery is not None and self.outcome == "recovered" else 0


class Entrance:
    """Rooms that a client enters in one turn: answered together, joined together, without a gap in any of them.

    Args:
        joinings: On their way.
        done: Called once: all are `ready`, or there is an `error`.
    """

    __slots__ = ("_busy", "_done", "joinings")

    def __init__(self, joinings: Sequence[Joining], done: Callable[[], None]) -> None:
        self.joinings = joinings
        self._done: Callable[[], None] | None = done
        self._busy = True

    def begin(self, most_bytes: int, most_entries: int) -> None:
        """Start all; `done` may be called in this call.

        Args:
            most_bytes: Given in all recoveries together, as the answer is one frame.
            most_entries: Given in one recovery.
        """
        share = most_bytes // max(1, sum(joining.recovers for joining in self.joinings))
        for joining in self.joinings:
            joining.begin(share, most_entries, self._settled)
        self._busy = False
        self._settled()

    def poll(self) -> None:
        """See `Joining.poll`."""
        for joining in self.joinings:
            joining.poll()

    def cancel(self) -> None:
        """The outcome matters no more."""
        self._done = None
        for joining in self.joinings:
            joining.cancel()

    @property
    def error(self) -> CommandError | None:
        """Why it failed."""
        return next((joining.error for joining in self.joinings if joining.error is not None), None)

    def _settled(self) -> None:
        if self._busy or self._done is None:
            return
        self._busy = True  # a refresh tells at once where memory has the entries
        for joining in self.joinings:
            joining.refresh()
        self._busy = False
        done = self._done
        if self.error is not None or all(joining.ready for joining in self.joinings):
            self.cancel()
            done()


def push_entrance(transport: Transport, joining: Joining) -> None:
    """Tell a client of a place that the server gave it, and what it missed there; only when `ready`."""
    room, codec = joining.room, transport.codec
    if room is not None:
        result = joining.result(codec)
        transport.send(codec.push_subscribe(room.id.channel, result))
        for publication in result.publications:
            transport.send(codec.push_publication(room.channel_json, bytes(publication)))


def away(why: Away) -> CommandError:
    """Error 100 for what can't be done now."""
    return CommandError(ErrorCode.INTERNAL, f"{why.value}; try again")


def count_recoveries(counters: Counters, joinings: Sequence[Joining]) -> None:
    """Count how the recoveries of clients on their way fared."""
    for joining in joinings:
        if joining.outcome:
            counters.recoveries["refused" if joining.error is not None else joining.outcome] += 1
            counters.recovered_entries += joining.recovered_entries

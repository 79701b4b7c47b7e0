"""One client of a node, over all its connections: what it sends, makes of what comes, and tries again.  Sans-I/O.

A driver (node/client_link.py) owns the connection. It calls `opened`, `receive` and `lost` as these things happen,
writes what `take_output` gives, and calls `on_time` when `deadline` is due. All times are monotonic seconds. A ``done``
callback is called exactly once, in one of these calls.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from node.client_faults import ConnectionEnded, Refused
from node.client_outbox import Outbox, Outgoing
from node.client_room import RoomCursor
from node.client_room import Stage as RoomStage
from node.client_wire import (
    PONG,
    ConnectReply,
    Error,
    HistoryReply,
    Push,
    Reply,
    SubscribeReply,
    WireError,
    command,
    decode,
    frames,
)
from node.codes import ErrorCode, UnsubscribeCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMMAND_SECONDS: Final = 5.0  # a node answers within 4; whoever does not is no use, and the connection is given up
PING_GRACE_SECONDS: Final = 10.0  # beyond the promised time of a ping; then the connection is given up
SHORTEST_DELAY: Final = 0.2  # seconds before a first attempt to connect again, jitter aside
LONGEST_DELAY: Final = 20.0  # seconds between attempts: a node that is back is found soon, and not stormed before
STABLE_SECONDS: Final = 5.0  # a connection that held for so long was a good one: the delay begins anew
SHORTEST_RETRY: Final = 0.1  # seconds before a command that was refused for the moment is sent again
LONGEST_RETRY: Final = 5.0
REFRESH_SHARE: Final = 0.85  # of a token's time; then a new one is asked for
MOST_NOTICES: Final = 1000
EXPIRED: Final = frozenset({int(ErrorCode.TOKEN_EXPIRED), 3005})
TOO_BIG: Final = 1009  # a message beyond the node's limit: sent again it would be refused again
LONGEST_WAIT: Final = 3600.0  # seconds, whatever a node asks for


class Link(Enum):
    """How the connection stands."""

    DOWN = "none"
    CONNECTING = "connect has been sent"
    UP = "connected"
    ENDED = "there won't be one any more"


class Lost(NamedTuple):
    """What a command gets instead of an answer: the connection is gone, whether it was carried out is unknown."""

    reason: str


class _Pending(NamedTuple):
    name: str
    deadline: float
    done: Callable[[Any], None]


class ClientCore:
    """One client.

    Args:
        most_outgoing: Messages in the outbox, at most.
        jitter: Gives numbers in [0, 1), so that not all clients of a node that was away come back at once.
        name: Of the application, for the node's operators.

    Attributes:
        link: See `Link`.
        fault: Why it has ended.
        broken: Why the driver is to give up the present connection; empty: it is not.
        client: The id of the present connection.
        rooms: Subscriptions by channel.
        server_rooms: Channels that the node itself subscribed the present connection to.
        notices: What the node tells this client alone (muted, banned, ...), the newest `MOST_NOTICES`.
        token_stale: The token that was shown last is of no use any more.
        attempts: Connections that failed, in a row.
    """

    def __init__(self, most_outgoing: int, jitter: Callable[[], float], name: str = "") -> None:
        self._jitter, self._name = jitter, name
        self.link = Link.DOWN
        self.fault: ConnectionEnded | None = None
        self.broken = ""
        self.client = ""
        self.rooms: dict[str, RoomCursor] = {}
        self.server_rooms: frozenset[str] = frozenset()
        self.notices: list[Any] = []
        self._wanted: list[str] = []
        self.token_stale = False
        self.attempts = 0
        self._outbox = Outbox(most_outgoing)
        self._output: list[bytes] = []
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self._now = 0.0
        self._up_since = 0.0
        self._ping_by: float | None = None
        self._ping_seconds = 0
        self._pong = False
        self._refresh_at: float | None = None
        self._guest: Any = None

    # -- what the driver calls -----------------------------------------------------------------------------------

    def opened(self, token: str, now: float) -> None:
        """A WebSocket is open: connect, and subscribe to everything in the same breath."""
        if self.link is not Link.DOWN:
            return
        self._now, self.link, self.broken, self.token_stale = now, Link.CONNECTING, "", False
        body: dict[str, Any] = {"name": self._name or None, "token": token or None, "data": self._guest}
        positions = {
            room.channel: {"recover": True, "epoch": room.position.epoch, "offset": room.position.offset}
            for room in self.rooms.values()
            if room.by_server and room.position is not None
        }
        self._command("connect", body | {"subs": positions or None}, self._connected)
        self._work()

    def receive(self, payload: str | bytes, now: float) -> None:
        """A WebSocket message came."""
        self._now = now
        if self.link not in {Link.CONNECTING, Link.UP}:
            return
        if self._ping_by is not None:
            self._ping_by = now + self._ping_seconds + PING_GRACE_SECONDS
        try:
            for reply in decode(payload):
                self._take(reply)
        except WireError as error:
            self._break(str(error))
        self._work()

    def lost(self, code: int, reason: str, now: float) -> float:
        """The connection is gone, or none came about; gives the seconds to wait before the next attempt.

        Args:
            code: Of the close frame; 0: there was none.
            reason: Why.
            now: Monotonic seconds.
        """
        self._now = now
        was_up = self.link is Link.UP
        pending, self._pending = self._pending, {}
        self._output.clear()
        if self.link is not Link.ENDED:
            self.link = Link.DOWN
        self._ping_by = self._refresh_at = None
        self.token_stale = self.token_stale or code in EXPIRED
        for room in self.rooms.values():
            room.lost()
        for waiting in pending.values():
            waiting.done(Lost(reason))
        if _is_final(code):
            self.end(code, reason)
        if was_up and now - self._up_since >= STABLE_SECONDS:
            self.attempts = 0
        self.attempts += 1
        return _delay(self.attempts, SHORTEST_DELAY, LONGEST_DELAY, self._jitter())

    def on_time(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        self._outbox.expire(now)
        if any(waiting.deadline <= now for waiting in self._pending.values()):
            names = sorted({waiting.name for waiting in self._pending.values() if waiting.deadline <= now})
            self._break(f"no answer to {', '.join(names)} within {COMMAND_SECONDS:g} s")
        if self._ping_by is not None and self._ping_by <= now:
            self._break(f"no ping for {self._ping_seconds + PING_GRACE_SECONDS:g} s")
        if self._refresh_at is not None and self._refresh_at <= now:
            self._refresh_at = None
            self._wanted.append("")
        for room in self.rooms.values():
            if room.refresh_at is not None and room.refresh_at <= now:
                room.refresh_at = None
                self._wanted.append(room.channel)
        self._work()

    @property
    def deadline(self) -> float | None:
        """When `on_time` is due; None: not before something else happens."""
        times = [self._ping_by, self._refresh_at, self._outbox.next_deadline()]
        times += [waiting.deadline for waiting in self._pending.values()]
        if self.link is Link.UP:
            times.append(self._outbox.next_start())
            for room in self.rooms.values():
                times.append(room.refresh_at)
                if room.stage in {RoomStage.IDLE, RoomStage.BEHIND}:
                    times.append(room.not_before)
        return min((time for time in times if time is not None), default=None)

    def take_output(self) -> list[bytes]:
        """WebSocket messages to be written, in order."""
        output, self._output = self._output, []
        return frames(output)

    def take_wanted(self) -> list[str]:
        """Channels whose tokens are to be fetched ("": the connection's); `give_token` or `give_no_token` follows."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def end(self, code: int, reason: str) -> None:
        """Nothing goes on: settle everything. A second call does nothing."""
        if self.link is Link.ENDED:
            return
        self.link, self.fault = Link.ENDED, ConnectionEnded(code, reason)
        self._output.clear()
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.done(Lost(reason))
        self._outbox.fail(self.fault)
        for room in self.rooms.values():
            room.end(self.fault)

    # -- what the user of the client does ------------------------------------------------------------------------

    def ask(self, name: str, body: Mapping[str, Any], done: Callable[[Any], None], now: float) -> None:
        """Send a command once; `done` is given the result, an `Error`, or `Lost`."""
        self._now = now
        if self.link is Link.UP:
            self._command(name, body, done)
        else:
            done(Lost("not connected"))

    def submit(self, item: Outgoing, now: float) -> None:
        """Send a message until its outcome is definite; `item.done` is given the rpc's answer, or a fault.

        Raises:
            OutboxFull: There are too many.
            ConnectionEnded: There is no connection any more.
        """
        self._now = now
        if self.fault is not None:
            raise self.fault
        self._outbox.add(item)
        self._work()

    def withdraw(self, item: Outgoing, now: float) -> None:
        """Nobody waits for a message's outcome any more."""
        self._now = now
        self._outbox.withdraw(item)
        self._work()

    def add_room(self, room: RoomCursor, now: float) -> None:
        """Subscribe.

        Raises:
            ConnectionEnded: There is no connection any more.
        """
        self._now = now
        if self.fault is not None:
            raise self.fault
        self.rooms[room.channel] = room
        room.by_server = room.channel in self.server_rooms
        self._work()

    def remove_room(self, room: RoomCursor, now: float) -> None:
        """Unsubscribe."""
        self._now = now
        if self.rooms.get(room.channel) is room:
            del self.rooms[room.channel]
            # What was only asked for may be granted yet; the node starts commands in their order.
            asked = room.is_subscribed or room.stage is RoomStage.SUBSCRIBING
            if asked and not room.by_server and self.link in {Link.CONNECTING, Link.UP}:
                self._command("unsubscribe", {"channel": room.channel}, _ignore)
        room.end(None)

    def took(self, now: float) -> None:
        """The user of a subscription has taken an event: there may be room for more."""
        self._now = now
        self._work()

    def give_token(self, channel: str, token: str, now: float) -> None:
        """A token that was wanted."""
        self._now = now
        if not channel:
            if self.link is Link.UP:
                self._command("refresh", {"token": token}, self._refreshed)
            return
        room = self.rooms.get(channel)
        if room is None:
            return
        room.token = token
        if room.stage is RoomStage.TOKEN:
            room.stage = RoomStage.IDLE
        elif room.is_subscribed:
            body = {"channel": channel, "token": token}
            self._command("sub_refresh", body, partial(self._room_refreshed, room))
        self._work()

    def give_no_token(self, channel: str, now: float) -> None:
        """A token that was wanted can't be had for the moment."""
        self._now = now
        room = self.rooms.get(channel)
        if not channel:
            self._refresh_at = now + self._retry_delay(1)
        elif room is not None and room.stage is RoomStage.TOKEN:
            room.postpone(now + self._retry_delay(room.attempts))
        elif room is not None and room.is_subscribed:
            room.refresh_at = now + self._retry_delay(1)

    # -- what comes ----------------------------------------------------------------------------------------------

    def _take(self, reply: Reply) -> None:
        if self.broken or self.link not in {Link.CONNECTING, Link.UP}:
            return  # an earlier reply of the same message ended the connection
        if reply.push is not None:
            self._pushed(reply.push)
        elif not reply.id:
            if self._pong:
                self._output.append(PONG)
        else:
            waiting = self._pending.pop(reply.id, None)
            if waiting is not None:
                waiting.done(reply.error if reply.error is not None else reply.result(waiting.name))

    def _pushed(self, push: Push) -> None:
        if push.message is not None:
            self.notices.append(push.message.data)
            del self.notices[:-MOST_NOTICES]
        if push.disconnect is not None:
            self._break(push.disconnect.reason)
        room = self.rooms.get(push.channel)
        if room is None:
            return
        if push.pub is not None:
            room.published(push.pub)
        elif push.join is not None:
            room.came(push.join)
        elif push.leave is not None:
            room.went(push.leave)
        elif push.unsubscribe is not None:
            code = push.unsubscribe.code
            if code < UnsubscribeCode.INSUFFICIENT_STATE:
                room.refuse(code, push.unsubscribe.reason)
            else:
                if code == UnsubscribeCode.EXPIRED:
                    room.token = ""
                room.lost()
                room.postpone(self._now + self._retry_delay(room.attempts))

    def _connected(self, reply: ConnectReply | Error | Lost) -> None:
        if isinstance(reply, Lost):
            return
        if isinstance(reply, Error):
            if reply.code in EXPIRED:
                self.token_stale = True
            elif not reply.temporary:
                self.end(reply.code, reply.message)
            self._break(reply.message)
            return
        self.link, self.client, self._up_since = Link.UP, reply.client, self._now
        self._ping_seconds, self._pong = reply.ping, reply.pong
        self._ping_by = self._now + reply.ping + PING_GRACE_SECONDS if reply.ping else None
        self._expire(reply.ttl if reply.expires else 0)
        if isinstance(reply.data, dict) and "guest" in reply.data:
            self._guest = {"guest": reply.data["guest"]}
        self.server_rooms = frozenset(reply.subs)
        for room in self.rooms.values():
            room.by_server = room.channel in reply.subs
            if room.by_server and room.stage is RoomStage.IDLE:
                room.subscribed(reply.subs[room.channel])

    def _refreshed(self, reply: Any) -> None:  # noqa: ANN401 (ExpiryReply, Error or Lost)
        if isinstance(reply, Error):
            self._refresh_at = self._now + SHORTEST_RETRY + LONGEST_RETRY * self._jitter()
        elif not isinstance(reply, Lost):
            self._expire(reply.ttl if reply.expires else 0)

    def _room_refreshed(self, room: RoomCursor, reply: Any) -> None:  # noqa: ANN401 (ExpiryReply, Error or Lost)
        if isinstance(reply, Error):
            room.refresh_at = self._now + SHORTEST_RETRY + LONGEST_RETRY * self._jitter()
        elif not isinstance(reply, Lost):
            room.refresh_at = self._now + reply.ttl * REFRESH_SHARE if reply.expires else None

    def _expire(self, ttl: int) -> None:
        self._refresh_at = self._now + ttl * REFRESH_SHARE if ttl else None

    # -- what goes -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Send what may be sent now."""
        if self.broken or self.link not in {Link.CONNECTING, Link.UP}:
            return
        for room in list(self.rooms.values()):
            self._advance(room)
        if self.link is Link.UP:
            for item in list(self._outbox.start(self._now)):
                self._command("rpc", {"method": item.method, "data": item.params}, partial(self._answered, item))

    def _advance(self, room: RoomCursor) -> None:
        if room.not_before > self._now:
            return
        if room.stage is RoomStage.IDLE:
            if room.by_server:
                if self.link is Link.UP:
                    self._attach(room)
            elif room.lacks_token:
                room.stage = RoomStage.TOKEN
                self._wanted.append(room.channel)
            else:
                self._command("subscribe", room.request(), partial(self._subscribed, room))
        elif room.stage is RoomStage.BEHIND:
            self._command("history", room.history_request(), partial(self._read, room))

    def _attach(self, room: RoomCursor) -> None:
        """Take over a subscription that the node made: its position is asked for, what is missing is read."""
        room.stage = RoomStage.SUBSCRIBING
        body = {"channel": room.channel, "limit": 0}
        self._command("history", body, partial(self._attached, room))

    def _attached(self, room: RoomCursor, reply: Any) -> None:  # noqa: ANN401 (HistoryReply, Error or Lost)
        if isinstance(reply, HistoryReply):
            reply = SubscribeReply(reply.epoch, reply.offset)
        self._subscribed(room, reply)

    def _subscribed(self, room: RoomCursor, reply: Any) -> None:  # noqa: ANN401 (SubscribeReply, Error or Lost)
        if isinstance(reply, Lost) or room.stage is not RoomStage.SUBSCRIBING:
            return
        if isinstance(reply, Error):
            self._refuse_room(room, reply)
        else:
            room.subscribed(reply)
            room.refresh_at = self._now + reply.ttl * REFRESH_SHARE if reply.expires and room.needs_token else None

    def _refuse_room(self, room: RoomCursor, error: Error) -> None:
        expired = error.code == ErrorCode.TOKEN_EXPIRED and room.needs_token
        if expired:
            room.token = ""
        if expired or error.temporary:
            room.postpone(self._now + max(self._retry_delay(room.attempts), _told_to_wait(error)))
        else:
            room.refuse(error.code, error.message)

    def _read(self, room: RoomCursor, reply: Any) -> None:  # noqa: ANN401 (HistoryReply, Error or Lost)
        if isinstance(reply, Lost):
            return
        if not isinstance(reply, Error):
            room.read(reply)
        elif reply.temporary:
            if room.stage is RoomStage.READING:
                room.postpone(self._now + max(self._retry_delay(room.attempts), _told_to_wait(reply)))
        else:
            room.unreadable(f"history is refused with {reply.code}: {reply.message}")

    def _answered(self, item: Outgoing, reply: Any) -> None:  # noqa: ANN401 (RpcReply, Error or Lost)
        if isinstance(reply, Lost):
            self._outbox.repeat(item, self._now)
        elif not isinstance(reply, Error):
            self._outbox.settle(item, reply.data)
        elif reply.temporary:
            item.attempts += 1
            wait = max(self._retry_delay(item.attempts), _told_to_wait(reply))
            self._outbox.repeat(item, self._now + wait)
        else:
            self._outbox.settle(item, Refused(reply.code, reply.message))

    def _command(self, name: str, body: Mapping[str, Any], done: Callable[[Any], None]) -> None:
        self._last_id += 1
        self._pending[self._last_id] = _Pending(name, self._now + COMMAND_SECONDS, done)
        self._output.append(command(self._last_id, name, body))

    def _break(self, reason: str) -> None:
        """Have the driver give up the connection; it calls `lost` then."""
        self.broken = self.broken or reason or "the node ended the connection"

    def _retry_delay(self, attempts: int) -> float:
        return _delay(attempts, SHORTEST_RETRY, LONGEST_RETRY, self._jitter())


def _is_final(code: int) -> bool:
    """Whether a close code means: don't come back."""
    return 3500 <= code < 4000 or 4500 <= code < 5000 or code == TOO_BIG


def _told_to_wait(error: Error) -> float:
    """Seconds that the node asks to wait; 0: it asks for nothing."""
    return min(max(0.0, error.retry_after), LONGEST_WAIT)


def _delay(attempts: int, shortest: float, longest: float, jitter: float) -> float:
    """Twice as long each time, up to `longest`; of which the upper half is chance."""
    whole = min(longest, shortest * 2.0 ** min(attempts, 30))
    return whole * (0.5 + 0.5 * jitter)


def _ignore(_: object) -> None:
    """An answer that tells nothing."""

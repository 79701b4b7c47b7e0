"""One client: connect, the order of its commands, its subscriptions, its time-outs.  Sans-I/O.

Commands start strictly in the order in which they came. A publication does not wait for the acknowledgement of the one
before it; every other command waits until all before it are answered, and everything waits behind a command whose
answer takes its time. Each is answered within `COMMAND_SECONDS`.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar
from zlib import crc32

from node import chat_rules, codes
from node.auth import NOBODY, Identity
from node.codes import CLOSE_TEXTS, CommandError, Disconnect, DisconnectCode, ErrorCode, UnsubscribeCode, close_reason
from node.handlers import HANDLERS, overlaps
from node.joining import Entrance, Joining, away, count_recoveries, push_entrance
from node.origins import NOWHERE
from node.protocol import ProtocolError, client_info, expiry, json_string, name_of
from node.ratelimit import ConnectionRates
from node.subscription import Subscription
from router.events import Away

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_config.kinds import RoomKind
    from node.auth import Authenticator, Grant
    from node.protocol import Command
    from node.publishing import Submitted
    from node.seams import Gateway, Room, Transport
    from node.session_options import SessionOptions
    from router.events import Submit
    from router.ids import RoomId

COMMAND_SECONDS: Final = 4.0  # SDKs give up after 5
POLL_SECONDS: Final = 0.5  # how often a command that waits is looked after
EXPIRY_GRACE_SECONDS: Final = 25.0  # SDKs ask for a new token only when the old one has expired
REFUSED_SECONDS: Final = 5.0  # time for a client to leave by itself whose connect was answered with an error
OUTPUT_POLL_SECONDS: Final = 0.05  # how often a client is looked at that has to take what it was given first
MOST_GIVEN: Final = 131_072
"""Bytes of answers to subscribe and connect that a client was given and may not have taken. Then the next `subscribe`
waits: the recoveries of many rooms at once would pass the bound of output, and end the client as slow, ever again."""
MOST_QUEUED: Final = 256  # commands not yet started, and
MOST_SUBMITTED: Final = 1024  # publications without an outcome: beyond either, the client is not read
MOST_REFUSED: Final = 1000  # commands over the rate, in a row: then 3013, for such a client does not listen

T = TypeVar("T")


class State(Enum):
    """Where a session is in its life."""

    NEW = "waits for the connect command"
    CONNECTING = "connect is being carried out"
    CONNECTED = "connected"
    REFUSED = "connect was answered with an error: the client leaves"
    CLOSED = "closed"


# Under names of their own, as in node/connection.py.
NEW, CONNECTING, CONNECTED, REFUSED, CLOSED = State


class _Waiting:
    """The command that everything waits behind."""

    __slots__ = ("command_id", "deadline", "entrance", "name")

    def __init__(self, command_id: int, name: str, deadline: float, entrance: Entrance | None = None) -> None:
        self.command_id, self.name, self.deadline, self.entrance = command_id, name, deadline, entrance


class Session:
    """One client.

    Args:
        transport: Its way out.
        gateway: The node.
        authenticator: Verifies what it shows.
        options: Common to all.
        client: Its client id, unique in the cluster; others see it in presence.
        now: Monotonic seconds, as everywhere here.

    Attributes:
        deadline: When `on_time` is due. It moves nearer only within `receive` and `on_time`.
        state: See `State`.
        identity: Who it is; `NOBODY` until connected.
        info: ClientInfo as JSON.
        user_json: The user id as JSON.
        sender: The user's pseudonym in the log.
        subscriptions: By channel.
        command_deadline: Of the command that is being started.
        arrival: How it came, until it is connected.
    """

    __slots__ = (
        "_admitted", "_expires_at", "_given", "_now", "_paused", "_ping_at", "_pong_by", "_queue", "_rates", "_running",
        "_starting", "_submitted", "arrival", "authenticator", "client", "command_deadline", "deadline", "gateway",
        "identity", "info", "options", "sender", "state", "subscriptions", "transport", "user_json",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, given once by the hub
        self, transport: Transport, gateway: Gateway, authenticator: Authenticator, options: SessionOptions,
        client: str, now: float,
    ) -> None:  # fmt: skip
        self.transport, self.gateway, self.options, self.client = transport, gateway, options, client
        self.authenticator = authenticator
        self.arrival = NOWHERE
        self.state = NEW
        self.identity = NOBODY
        self.info = self.user_json = self.sender = b""
        self.subscriptions: dict[str, Subscription] = {}
        self.deadline = now + options.limits.connect_seconds
        self.command_deadline = self.deadline
        self._now = now
        self._ping_at = self.deadline  # of a client that is not connected yet: when it is stale
        self._pong_by: float | None = None
        self._expires_at: float | None = None
        self._queue: deque[tuple[str, Command, float]] | None = None
        self._running: _Waiting | None = None
        self._submitted: dict[Submitted, None] = {}
        self._given = 0
        self._rates = ConnectionRates(options.rates, now) if options.rated else None
        self._admitted = self._paused = self._starting = False

    @property
    def site(self) -> str:
        """The tenant."""
        return self.identity.site

    @property
    def user(self) -> str:
        """The user id."""
        return self.identity.user

    @property
    def now(self) -> float:
        """Monotonic seconds of the last call."""
        return self._now

    # -- what the hub calls --------------------------------------------------------------------------------------

    def receive(self, payload: bytes, now: float) -> None:
        """Take one WebSocket message of the client: one command or several."""
        self._now = now
        if self._given:
            self._see_output()
        try:
            for command in self.transport.codec.decode(payload):
                self._take(command)
        except ProtocolError as error:
            self.disconnect(DisconnectCode.BAD_REQUEST, str(error))
        except Disconnect as end:
            self._close(end.code, end.reason)
        if self._running is not None:
            self._wake(now + POLL_SECONDS)
        elif self._submitted:
            if now + COMMAND_SECONDS < self.deadline:  # noqa: PLR1730 - a call of min() costs three times as much
                self.deadline = now + COMMAND_SECONDS
        elif self._queue is not None:
            self._wake(now + OUTPUT_POLL_SECONDS)

    def on_time(self, now: float) -> None:
        """Do what is due: pings, time-outs, expiry; sets the next `deadline`."""
        self._now = now
        if self._given:
            self._see_output()
        self._time_out_commands(now)
        if self.state is CONNECTED:
            self._keep_alive(now)
        elif self.state is not CONNECTING and now >= self._ping_at:
            self.disconnect(DisconnectCode.NORMAL if self.state is REFUSED else DisconnectCode.STALE)
        self._set_deadline(now)

    def closed(self) -> None:
        """The connection is gone: leave all rooms. Outcomes under way matter no more."""
        self.state = CLOSED
        self._end()

    # -- what the server does to a client ------------------------------------------------------------------------

    def disconnect(self, code: DisconnectCode, reason: str = "") -> None:
        """Close the connection; `reason` is added to the code's text."""
        self._close(code, close_reason(code.text, reason))

    def disconnect_as(self, code: int, reason: str) -> None:
        """Close the connection with any code of the protocol; `reason` empty: the code's text."""
        self._close(code, close_reason(reason or CLOSE_TEXTS.get(code, "disconnected by the server"), ""))

    def unsubscribe(self, channel: str, code: UnsubscribeCode, reason: str = "") -> None:
        """End a subscription with an unsubscribe push; nothing happens if there is none."""
        if self.leave(channel) is None:
            return
        self.gateway.counters.unsubscribes[code] += 1
        self.transport.send(self.transport.codec.push_unsubscribe(channel, code, reason or code.text))

    def subscribe(self, joining: Joining, now: float, done: Callable[[CommandError | None], None]) -> None:
        """Have the client enter a room unasked: it is pushed the place first, then what it missed.

        Nothing happens if it is there, or is not connected (any more). `done` is called once, now or later.
        """
        channel, limits = joining.room_id.channel, self.options.limits
        if self.state is not CONNECTED or channel in self.subscriptions:
            done(None)
            return
        if len(self.subscriptions) >= limits.subscriptions:
            done(CommandError(ErrorCode.LIMIT_EXCEEDED, f"{self.client} has {limits.subscriptions} subscriptions"))
            return
        self._now = now

        def entered() -> None:
            if entrance.error is None and self.state is CONNECTED and channel not in self.subscriptions:
                count_recoveries(self.gateway.counters, [joining])
                push_entrance(self.transport, joining)
                self._join(joining)
            done(entrance.error)

        entrance = Entrance([joining], entered)
        entrance.begin(limits.recovery_bytes, limits.recovery_entries)

    def extend(self, ttl: int, now: float) -> None:
        """End the connection in so many seconds, instead of when its token does; the end may be noticed a ping late."""
        if self.state is CONNECTED:
            self._now = now
            self.expire_in(ttl)
            self.transport.send(self.transport.codec.push_refresh(expiry(ttl)))

    def push_message(self, data: bytes) -> None:
        """Push JSON data to this client alone."""
        if self.state is CONNECTED:
            self.transport.send(self.transport.codec.push_message(data))

    # -- order ---------------------------------------------------------------------------------------------------

    def _take(self, command: Command) -> None:
        name = name_of(command)
        state = self.state
        if state is CLOSED or state is REFUSED:
            return
        if not name:
            self._pong_by = None
            return
        if (name == "connect") is not (state is NEW):
            raise Disconnect(DisconnectCode.BAD_REQUEST, f"{name} {'before' if state is NEW else 'after'} connect")
        if self._rates is not None and not self._within_rates(self._rates, command.id, name):
            return
        if self._queue is not None or self._running is not None or self._must_wait(name, command):
            self._enqueue((name, command, self._now))
        else:
            self._start(name, command, self._now)

    def _enqueue(self, queued: tuple[str, Command, float]) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(queued)
        if len(self._queue) >= MOST_QUEUED:
            self._pause()

    def _start(self, name: str, command: Command, received: float) -> None:
        self.command_deadline = received + COMMAND_SECONDS
        self.gateway.counters.commands[name] += 1
        self._starting = True
        try:
            HANDLERS[name](self, command.id, getattr(command, name))
        except CommandError as error:
            self._fail(command.id, name, error)
        except Disconnect as end:
            self._close(end.code, end.reason)
        finally:
            self._starting = False

    def _advance(self) -> None:
        """Start what may start now."""
        if self._starting:
            return
        while (queue := self._queue) is not None and self._running is None:
            name, command, received = queue[0]
            late = received + COMMAND_SECONDS <= self._now
            if not late and self._must_wait(name, command):
                break
            queue.popleft()
            if not queue:
                self._queue = None
            if late:
                self.gateway.counters.timeouts += 1
                self._fail(command.id, name, _LATE)
            else:
                self._start(name, command, received)
        self._resume()

    def _must_wait(self, name: str, command: Command) -> bool:
        """Whether a command may not start although no other is running."""
        if self._submitted and not overlaps(name, command):
            return True
        return self._given >= MOST_GIVEN and name == "subscribe"

    def _see_output(self) -> None:
        if not self.transport.behind:
            self._given = 0

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.gateway.counters.pauses += 1
            self.transport.pause()

    def _resume(self) -> None:
        queued = len(self._queue) if self._queue is not None else 0
        if self._paused and queued <= MOST_QUEUED // 2 and len(self._submitted) <= MOST_SUBMITTED // 2:
            self._paused = False
            self.transport.resume()

    def _within_rates(self, rates: ConnectionRates, command_id: int, name: str) -> bool:
        """Whether a command is within the connection's rates; else it is answered 111."""
        wait = rates.take(name, self._now)
        if not wait:
            return True
        if rates.refused >= MOST_REFUSED:
            raise Disconnect(DisconnectCode.TOO_MANY_REQUESTS, f"{MOST_REFUSED} in a row were over {rates.limit}")
        self._fail(command_id, name, self.too_many(wait, rates.limit))
        return False

    def too_many(self, wait: float, limit: str) -> CommandError:
        """Error 111, with the seconds to wait and the limit that says so."""
        self.gateway.counters.limited[limit] += 1
        return codes.too_many(wait, limit)

    # -- answers -------------------------------------------------------------------------------------------------

    def open_room(self, command_id: int, room: RoomId, kind: RoomKind, then: Callable[[Room], None]) -> None:
        """Go on with a command in a room; everything waits behind it until `finish` or `await_outcome`.

        `then` may raise `CommandError`.
        """
        self._running = _Waiting(command_id, "", self.command_deadline)

        def opened(answer: Room | Away) -> None:
            if isinstance(answer, Away):
                raise away(answer)
            then(answer)

        self.gateway.open_room(room, kind, self.step(opened))

    def step(self, then: Callable[[T], None]) -> Callable[[T], None]:
        """Part of the running command, to be called back by the gateway; void if the command is answered by then.

        `then` may raise `CommandError`.
        """
        waiting = self._running

        def go(answer: T) -> None:
            if waiting is None or self._running is not waiting:
                return
            try:
                then(answer)
            except CommandError as error:
                self._running = None
                self._fail(waiting.command_id, waiting.name, error)
                self._advance()

        return go

    def finish(self, payload: bytes) -> None:
        """Answer the running command."""
        self.transport.send(payload)
        self.release()

    def release(self) -> None:
        """Let what waits behind the running command go on; whoever released it sees to its answer."""
        self._running = None
        self._advance()

    def answer(self, command_id: int, answer: bytes | CommandError) -> None:
        """Answer a command that was released, if the client is still there."""
        if self.state is CONNECTED and isinstance(answer, bytes):
            self.transport.send(answer)
        elif self.state is CONNECTED and isinstance(answer, CommandError):
            self._fail(command_id, "", answer)

    def await_outcome(self, room: Room, submitted: Submitted, submit: Submit) -> None:
        """Submit what a command publishes; other publications may start, other commands wait.

        Raises:
            CommandError: 111, its rate is over.
        """
        throttle = self.gateway.throttle
        if throttle is not None:
            slow = room.kind.slow_mode_seconds
            if slow or room.rules is not None:
                slow = chat_rules.slow_seconds(self.identity, room, submit)
            wait = throttle.publish(room.id, self.identity.user, slow, self._now)
            if wait:
                raise self.too_many(wait, throttle.limit)
        self._submitted[submitted] = None
        if len(self._submitted) >= MOST_SUBMITTED:
            self._pause()
        self.gateway.submit(room, submit)
        if self._running is not None:
            self.release()

    def await_repetition(self, room: Room, submitted: Submitted, submit: Submit) -> None:
        """Answer what a command is refused for, unless it is a retry of what was accepted."""
        self._submitted[submitted] = None
        self.gateway.probe(room, submit)
        if self._running is not None:
            self.release()

    def settle(self, submitted: Submitted, answer: bytes | CommandError) -> None:
        """The outcome of a publication is there."""
        submitted.session = None
        del self._submitted[submitted]
        if isinstance(answer, CommandError):
            self._fail(submitted.command_id, "publish", answer)
        else:
            self.transport.send(answer)
        if self._queue is not None:
            self._advance()
        elif self._paused:
            self._resume()

    def _fail(self, command_id: int, name: str, error: CommandError) -> None:
        self.gateway.counters.errors[error.code] += 1
        if command_id:
            self.transport.send(self.transport.codec.error(command_id, error))
        if name == "connect":
            self.state = REFUSED
            self._queue = None
            self._end()
            self._ping_at = self._now + REFUSED_SECONDS
            self._wake(self._ping_at)

    def _close(self, code: int, reason: str) -> None:
        if self.state is CLOSED:
            return
        self.gateway.counters.closes[code] += 1
        self.state = CLOSED
        self._end()
        self.transport.close(code, reason)

    def _end(self) -> None:
        """Let go of all that others hold of this client."""
        if self._running is not None and self._running.entrance is not None:
            self._running.entrance.cancel()
        self._running = self._queue = None
        for submitted in self._submitted:
            submitted.session = None
        self._submitted.clear()
        subscriptions, self.subscriptions = self.subscriptions, {}
        for subscription in subscriptions.values():
            self.gateway.leave(subscription.room, subscription)
        if self._admitted:
            self._admitted = False
            self.gateway.forget(self)

    # -- time ----------------------------------------------------------------------------------------------------

    def _wake(self, at: float) -> None:
        self.deadline = min(self.deadline, at)

    def _time_out_commands(self, now: float) -> None:
        waiting = self._running
        if waiting is not None and waiting.deadline > now and waiting.entrance is not None:
            waiting.entrance.poll()
        elif waiting is not None and waiting.deadline <= now:
            if waiting.entrance is not None:
                waiting.entrance.cancel()
            self._running = None
            self.gateway.counters.timeouts += 1
            self._fail(waiting.command_id, waiting.name, _LATE)
        for submitted in list(self._submitted):
            if submitted.deadline > now or submitted.session is None:
                break
            self.gateway.counters.timeouts += 1
            self.settle(submitted, _LATE)
        self._advance()

    def _keep_alive(self, now: float) -> None:
        if self._pong_by is not None and now >= self._pong_by:
            self.disconnect(DisconnectCode.NO_PONG)
            return
        if self._expires_at is not None and now >= self._expires_at:
            self.disconnect(DisconnectCode.EXPIRED)
            return
        if now >= self._ping_at:
            self.transport.send(self.transport.codec.ping)
            self._pong_by = now + self.options.keepalive.pong_seconds
            self._ping_at = now + self.options.keepalive.ping_seconds
        for subscription in [s for s in self.subscriptions.values() if s.expires_at is not None]:
            if subscription.expires_at is not None and now >= subscription.expires_at:
                subscription.expire()

    def _set_deadline(self, now: float) -> None:
        if self.state is CLOSED:
            self.deadline = inf
            return
        due = [] if self.state is CONNECTING else [self._ping_at]
        due += (at for at in (self._pong_by, self._expires_at) if at is not None)
        due += (s.expires_at for s in self.subscriptions.values() if s.expires_at is not None)
        if self._running is not None:
            due.append(min(now + POLL_SECONDS, self._running.deadline))
        if self._submitted:
            due.append(next(iter(self._submitted)).deadline)
        elif self._queue is not None and self._running is None:
            due.append(now + OUTPUT_POLL_SECONDS)
        self.deadline = min(due)

    # -- rooms ---------------------------------------------------------------------------------------------------

    def enter(self, name: str, command_id: int, joinings: Sequence[Joining], answer: Callable[[], bytes]) -> None:
        """Enter rooms and answer the running command, all in one turn; everything waits behind it."""
        waiting = self._running = _Waiting(command_id, name, self.command_deadline)

        def entered(_: None) -> None:
            count_recoveries(self.gateway.counters, joinings)
            if entrance.error is not None:
                raise entrance.error
            if name == "subscribe" and joinings[0].room_id.channel in self.subscriptions:  # by the server, meanwhile
                raise CommandError(ErrorCode.ALREADY_SUBSCRIBED, "by the server")
            payload = answer()
            self._given += len(payload)
            self.transport.send(payload)
            self._running = None
            for joining in joinings:
                self._join(joining)
            self._advance()

        go = self.step(entered)
        entrance = waiting.entrance = Entrance(joinings, lambda: go(None))
        limits = self.options.limits
        entrance.begin(limits.recovery_bytes, limits.recovery_entries)

    def leave(self, channel: str) -> Subscription | None:
        """End a subscription without telling the client; the one that there was."""
        subscription = self.subscriptions.pop(channel, None)
        if subscription is not None:
            self.gateway.leave(subscription.room, subscription)
        return subscription

    def expire_in(self, ttl: int | None) -> None:
        """The connection's token is valid for so many seconds more; None: for ever."""
        self._expires_at = self._expiry_of(ttl)

    def hold(self, subscription: Subscription, grant: Grant) -> None:
        """A subscription rests on this token from now on, and ends with it."""
        subscription.grant, subscription.expires_at = grant, self._expiry_of(grant.ttl)

    def _expiry_of(self, ttl: int | None) -> float | None:
        if ttl is None:
            return None
        at = self._now + ttl + EXPIRY_GRACE_SECONDS
        self._wake(at)
        return at

    def _join(self, joining: Joining) -> None:
        room, grant = joining.room, joining.grant
        if room is None or self.state is not CONNECTED:
            return
        info = self.info
        if grant.info:
            info = client_info(self.identity.user, self.client, self.identity.info, grant.info)
        subscription = Subscription(self, room, joining, info)
        self.subscriptions[room.id.channel] = subscription
        self.hold(subscription, grant)
        self.gateway.join(room, subscription)

    # -- connect -------------------------------------------------------------------------------------------------

    def admit(self, identity: Identity) -> None:
        """The client is who it says.

        Raises:
            Disconnect: 3504, the user has too many connections.
        """
        self.state = CONNECTING
        self.identity = identity
        refusal = self.gateway.admit(self)
        if refusal is not None:
            raise Disconnect(DisconnectCode.CONNECTION_LIMIT, refusal)
        self._admitted = True
        self.info = client_info(identity.user, self.client, identity.info, b"")
        self.user_json = json_string(identity.user)
        self.sender = self.gateway.sender(identity.site, identity.user)

    def connected(self) -> None:
        """The connect command is about to be answered: from now on there are pings instead of its time-out."""
        # Spread over half a period, so that a crowd that connects at once is not pinged at once.
        spread = crc32(self.client.encode()) / 2**33
        self._ping_at = self._now + self.options.keepalive.ping_seconds * (1 - spread)
        self.deadline = self._ping_at
        self.state = CONNECTED
        self.gateway.counters.connects[self.identity.site] += 1
        self.expire_in(self.identity.ttl)


_LATE: Final = CommandError(
    ErrorCode.INTERNAL, f"no answer within {COMMAND_SECONDS:g} s; try again, a message under the same id"
)

"""A person with a client: it says things until they are acknowledged, reads its rooms, and comes back when it was lost.

It does what the SDKs do, and no more: a message is sent again under its id until it is answered, a room is resumed
where it was. What it did and was given, it writes down for the checker as it was, whatever it may think of it.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.harness.chaos_socket import ChaosSocket, SocketEnded
from tests.harness.checker import Ack, Begin, History, Seen, Submit
from tests.harness.node_process import token
from tests.harness.read_log import body_of

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    Dial = Callable[[], Awaitable[trio.SocketStream]]

DIAL_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0  # as the SDKs' time-out
SILENCE_SECONDS: Final = 35.0  # a node pings every 25 s; SDKs wait 10 s more
LOOK_SECONDS: Final = 0.25  # from one look for what is late to the next
FIRST_BACKOFF: Final = 0.05
MOST_BACKOFF: Final = 1.0
AGAIN_SECONDS: Final = 0.1  # until what a node refused for the moment is sent again
REMOVED_SHARE: Final = 0.02  # of what is sent
LONG_SHARE: Final = 0.01
LONG_BYTES: Final = 8000
PAGE: Final = 100
_intern: Final = sys.intern


@dataclass(slots=True)
class Sent:
    """A message on its way, or what became of it.

    Attributes:
        number: How many its client sent before it.
        submit: What and when at first.
        acked_at: When it was acknowledged; None: not yet.
        due: When it may be sent (again).
    """

    number: int
    submit: Submit
    acked_at: float | None = None
    due: float = 0.0

    def command(self) -> dict[str, Any]:
        """The rpc that sends it."""
        submit = self.submit
        about = {"channel": submit.room, "id": submit.cmid}
        if submit.target:
            return {"method": "delete", "data": {**about, "target": submit.target}}
        return {"method": "send", "data": {**about, "content": submit.body}}


@dataclass(slots=True)
class Cursor:
    """How far it has read a room.

    Attributes:
        acked: The last sequence that was acknowledged to it.
        live: Publications are handed on as they come; while pages are read they wait.
    """

    room: str
    epoch: str = ""
    offset: int = 0
    acked: int = 0
    live: bool = False
    begun: bool = False
    waiting: list[dict[str, Any]] = field(default_factory=list)


class ChaosClient:
    """One person.

    Args:
        name: Its user.
        rooms: That it reads and writes.
        dial: Connects to some node.
        drawn: Decides what it says and when.
        rate: Messages per second while it writes.
        window: It has no more on their way at once.

    Attributes:
        history: For the checker.
        sent: All its messages.
        faults: What no checker need be asked about.
        connections: How many it has had.
        newest_acked: Of its messages that are acknowledged, the number of the last; -1: there are none.
        problem: Why the last of its connections ended.
        writing: Whether it begins messages; what it began it finishes anyway.
    """

    def __init__(  # noqa: PLR0917 - what makes a person
        self,
        name: str,
        rooms: Sequence[str],
        dial: Dial,
        drawn: random.Random,
        rate: float,
        window: int = 32,
    ) -> None:
        self.name = name
        self.history = History(name, settled=True)
        self.sent: list[Sent] = []
        self.faults: list[str] = []
        self.writing = True
        self.connections = 0
        self.newest_acked = -1
        self.problem = ""
        self._dial, self._drawn, self._rate, self._window = dial, drawn, rate, window
        self._cursors = {room: Cursor(_intern(room)) for room in rooms}
        self._pending: dict[str, Sent] = {}
        self._targets: dict[str, list[int]] = {room: [] for room in rooms}
        self._asked: dict[int, tuple[float, Callable[[dict[str, Any]], None]]] = {}
        self._output: deque[dict[str, Any]] = deque()
        self._turn = trio.Event()
        self._id = 0
        self._up = False

    @property
    def unanswered(self) -> int:
        """How many messages are on their way."""
        return len(self._pending)

    def offset(self, room: str) -> int:
        """How far it has read a room."""
        return self._cursors[room].offset

    def top(self, room: str) -> int:
        """The last sequence of a room that it knows of."""
        return max(self._cursors[room].offset, self._cursors[room].acked)

    @property
    def rooms(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(self._cursors)

    async def run(self) -> None:
        """Connect, and connect again, without end; unless it found a fault."""
        backoff = FIRST_BACKOFF
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_messages)
            while not self.faults:
                answered = len(self.history.events)
                await self._connect()
                grew = len(self.history.events) > answered
                backoff = FIRST_BACKOFF if grew else min(2 * backoff, MOST_BACKOFF)
                await trio.sleep(self._drawn.uniform(0.5, 1) * backoff)
            nursery.cancel_scope.cancel()

    # -- what it says --------------------------------------------------------------------------------------------

    async def _write_messages(self) -> None:
        while True:
            await trio.sleep(self._drawn.expovariate(self._rate))
            if self.writing and len(self._pending) < self._window:
                sent = Sent(len(self.sent), self._compose())
                self.sent.append(sent)
                self._pending[sent.submit.cmid] = sent
                self.history.events.append(sent.submit)
                if self._up:
                    self._submit(sent)

    def _compose(self) -> Submit:
        room = self._drawn.choice(self.rooms)
        cmid = _intern(f"{self.name}-{len(self.sent)}")
        targets = self._targets[room]
        if targets and self._drawn.random() < REMOVED_SHARE:
            target = targets.pop(self._drawn.randrange(len(targets)))
            return Submit(trio.current_time(), self._cursors[room].room, cmid, "removed", target)
        size = LONG_BYTES if self._drawn.random() < LONG_SHARE else self._drawn.randrange(80)
        return Submit(trio.current_time(), self._cursors[room].room, cmid, _intern(f"{cmid} " + "x" * size))

    def _submit(self, sent: Sent) -> None:
        sent.due = trio.current_time() + ANSWER_SECONDS
        self._ask("rpc", sent.command(), lambda reply: self._answered(sent, reply))

    def _answered(self, sent: Sent, reply: dict[str, Any]) -> None:
        submit = sent.submit
        if (error := reply.get("error")) is not None:
            if error.get("temporary"):
                sent.due = trio.current_time() + AGAIN_SECONDS
            else:
                self.faults.append(f"{self.name}: {submit} was refused: {error}")
                self._pending.pop(submit.cmid, None)
            return
        sequence = reply["rpc"]["data"]["sequence"]
        cursor = self._cursors[submit.room]
        cursor.acked = max(cursor.acked, sequence)
        self.history.events.append(Ack(trio.current_time(), submit.room, submit.cmid, sequence))
        if sent.acked_at is None:
            sent.acked_at = trio.current_time()
            self.newest_acked = max(self.newest_acked, sent.number)
            if not submit.target:
                self._targets[submit.room].append(sequence)
        self._pending.pop(submit.cmid, None)

    # -- what it reads -------------------------------------------------------------------------------------------

    def _subscribe(self, cursor: Cursor) -> None:
        cursor.live = False
        cursor.waiting.clear()
        if not cursor.begun:
            cursor.begun = True
            self.history.events.append(Begin(trio.current_time(), cursor.room))
        wanted = {"channel": cursor.room, "recover": True, "recoverable": True}
        position = {"epoch": cursor.epoch, "offset": cursor.offset}
        self._ask("subscribe", wanted | position, lambda reply: self._subscribed(cursor, reply))

    def _subscribed(self, cursor: Cursor, reply: dict[str, Any]) -> None:
        if (error := reply.get("error")) is not None:
            if not error.get("temporary"):
                self.faults.append(f"{self.name}: {cursor.room} could not be resumed at {cursor.offset}: {error}")
            raise SocketEnded(0, f"{cursor.room} is refused for the moment: {error}")
        result = reply["subscribe"]
        if result["epoch"] != cursor.epoch:
            self.history.events.append(Begin(trio.current_time(), cursor.room, cursor.offset, result["epoch"]))
            if cursor.epoch:
                self.faults.append(f"{self.name}: {cursor.room} began anew: {cursor.epoch} is {result['epoch']} now")
            cursor.epoch = result["epoch"]
        for publication in result.get("publications", ()):
            self._take(cursor, publication)
        if result.get("recovered"):
            self._go_live(cursor)
        else:
            self._page(cursor, result.get("offset", 0))

    def _page(self, cursor: Cursor, top: int) -> None:
        """Read what is too much to be recovered, page by page."""
        if cursor.offset >= top:
            self._go_live(cursor)
            return

        def paged(reply: dict[str, Any]) -> None:
            if (error := reply.get("error")) is not None:
                raise SocketEnded(0, f"the history of {cursor.room} is refused for the moment: {error}")
            publications = reply["history"].get("publications", ())
            if not publications:
                raise SocketEnded(0, f"the history of {cursor.room} ends at {cursor.offset} of {top}")
            for publication in publications:
                self._take(cursor, publication)
            self._page(cursor, top)

        since = {"epoch": cursor.epoch, "offset": cursor.offset}
        limit = min(PAGE, top - cursor.offset)
        self._ask("history", {"channel": cursor.room, "limit": limit, "since": since}, paged)

    def _go_live(self, cursor: Cursor) -> None:
        cursor.live = True
        for publication in cursor.waiting:
            self._take(cursor, publication)
        cursor.waiting.clear()

    def _take(self, cursor: Cursor, publication: dict[str, Any]) -> None:
        data = publication["data"]
        target = data.get("target", 0) if data.get("type") == "removed" else 0
        cursor.offset = max(cursor.offset, publication["offset"])
        self.history.events.append(
            Seen(
                trio.current_time(), cursor.room, publication["offset"], _intern(data["id"]), _intern(body_of(data)),
                target,
            )
        )  # fmt: skip

    def _pushed(self, push: dict[str, Any]) -> None:
        cursor = self._cursors.get(push.get("channel", ""))
        if cursor is not None and "pub" in push and push["pub"].get("offset"):
            if cursor.live:
                self._take(cursor, push["pub"])
            else:
                cursor.waiting.append(push["pub"])
        elif cursor is not None and "unsubscribe" in push:
            self._subscribe(cursor)
        elif "disconnect" in push:
            raise SocketEnded(push["disconnect"].get("code", 0), push["disconnect"].get("reason", ""))

    # -- its connections -----------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """One connection, to its end."""
        try:
            with trio.fail_after(DIAL_SECONDS):
                stream = await self._dial()
            async with stream:
                socket = ChaosSocket(stream)
                with trio.fail_after(ANSWER_SECONDS):
                    await socket.open("chat")
                self.connections += 1
                async with trio.open_nursery() as nursery:
                    self._begin()
                    nursery.start_soon(self._write, socket)
                    nursery.start_soon(self._watch)
                    await self._read(socket)
        except* (OSError, SocketEnded, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as ends:
            self.problem = "; ".join(dict.fromkeys(f"{type(end).__name__} {end}" for end in leaves(ends)))
        finally:
            self._asked.clear()
            self._output.clear()
            self._up = False
            for cursor in self._cursors.values():
                cursor.live = False

    def _begin(self) -> None:
        self._ask("connect", {"token": token(self.name)}, self._connected)

    def _connected(self, reply: dict[str, Any]) -> None:
        if "error" in reply:
            raise SocketEnded(0, f"the node does not take us: {reply}")
        self._up = True
        for cursor in self._cursors.values():
            self._subscribe(cursor)
        for sent in self._pending.values():
            self._submit(sent)

    async def _read(self, socket: ChaosSocket) -> None:
        while True:
            with trio.fail_after(SILENCE_SECONDS):
                messages = await socket.receive()
            for message in messages:
                if "push" in message:
                    self._pushed(message["push"])
                elif message:
                    asked = self._asked.pop(message["id"], None)
                    if asked is not None:
                        asked[1](message)

    async def _write(self, socket: ChaosSocket) -> None:
        while True:
            turn = self._turn
            if self._output:
                messages = list(self._output)
                self._output.clear()
                await socket.send(*messages)
            else:
                await turn.wait()

    async def _watch(self) -> None:
        """Give the node up when it does not answer, and send again what it refused for the moment."""
        while True:
            await trio.sleep(LOOK_SECONDS * self._drawn.uniform(0.5, 1))
            now = trio.current_time()
            if any(until < now for until, _ in self._asked.values()):
                raise SocketEnded(0, f"no answer within {ANSWER_SECONDS} s")
            for sent in [sent for sent in self._pending.values() if self._up and sent.due < now]:
                self._submit(sent)

    def _ask(self, name: str, body: dict[str, Any], answered: Callable[[dict[str, Any]], None]) -> None:
        self._id += 1
        self._asked[self._id] = trio.current_time() + ANSWER_SECONDS, answered
        self._output.append({"id": self._id, name: body})
        self._turn.set()
        self._turn = trio.Event()


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group of groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error

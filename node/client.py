"""A client of a node for Python programs on Trio: nothing sent is lost or doubled, nothing received is lost unnoticed.

    async with open_client("ws://127.0.0.1:8000", token=fetch_token) as client:
        async with client.subscribe("support") as room:
            await client.send("support", "Hello")
            async for event in room:
                ...

What it promises, and a program to try: docs/python-client.md. What can go wrong: node/client_faults.py.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import trio

from node.client_core import ClientCore, Link, Lost
from node.client_events import (
    Event,
    Gap,
    HistoryPage,
    Joined,
    Left,
    Message,
    Position,
    Presence,
    Publication,
    Standing,
    Unread,
)
from node.client_faults import (
    ClientFault,
    ConnectionEnded,
    NotSent,
    OutboxFull,
    OutcomeUnknown,
    Refused,
    SubscriptionEnded,
    TimedOut,
    Unreachable,
)
from node.client_link import CLOSE_SECONDS, ClientLink, Token
from node.client_outbox import Outgoing
from node.client_room import RoomCursor
from node.client_room import Stage as RoomStage
from node.client_wire import Error, Info
from node.codes import ErrorCode

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

__all__ = [
    "Client",
    "ClientFault",
    "ConnectionEnded",
    "Event",
    "Gap",
    "HistoryPage",
    "Info",
    "Joined",
    "Left",
    "Message",
    "NotSent",
    "OutboxFull",
    "OutcomeUnknown",
    "Position",
    "Presence",
    "Publication",
    "Refused",
    "Standing",
    "Subscription",
    "SubscriptionEnded",
    "TimedOut",
    "Token",
    "Unreachable",
    "Unread",
    "open_client",
]

PATH: Final = "/connection/websocket"
SEND_SECONDS: Final = 30.0  # a person waits no longer; the outcome is reported as it is then
ASK_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.2  # between attempts of a request that got no answer
MOST_QUEUED: Final = 256  # events of a subscription
MOST_OUTGOING: Final = 1000  # messages on their way


class Subscription:
    """A room's events, in order: an async iterator. Made by `Client.subscribe`.

    When the iteration falls behind, nothing is lost: what does not fit into the queue is read from the room's history
    later. Only ephemeral events (typing, read, joined, left) are dropped then, and counted.
    """

    def __init__(self, link: ClientLink, room: RoomCursor, token: Token | None) -> None:
        self._link, self._room, self._token = link, room, token

    async def __aenter__(self) -> Self:
        """Subscribe, and wait until the node has answered.

        Raises:
            SubscriptionEnded: It refuses.
            ConnectionEnded: There is no connection any more.
            TimedOut: There was no answer in time.
            ValueError: The client is subscribed to this room already.
        """
        if self.channel in self._link.core.rooms:
            raise ValueError(f"this client is subscribed to {self.channel!r} already; iterate over that subscription")
        self._link.add_room(self._room, self._token)
        is_done = False
        try:
            with trio.move_on_after(ASK_SECONDS) as scope:
                await self._wait_subscribed()
            if scope.cancelled_caught:
                raise TimedOut(f"subscribing to {self.channel!r} took more than {ASK_SECONDS:g} s{self._link.why}")
            is_done = True
        finally:
            if not is_done:
                self.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            SubscriptionEnded: The node ended it for good, and all that came before was taken.
            ConnectionEnded: There is no connection any more, and all that came before was taken.
            StopAsyncIteration: `close` was called.
        """
        await trio.lowlevel.checkpoint()
        while True:
            event = self._room.take()
            if event is not None:
                self._link.core.took(trio.current_time())
                self._link.signal()
                return event
            if self._room.stage is RoomStage.ENDED:
                if self._room.fault is None:
                    raise StopAsyncIteration
                raise self._room.fault
            await self._link.wait_changed()

    async def _wait_subscribed(self) -> None:
        while not self._room.is_subscribed:
            if self._room.fault is not None:
                raise self._room.fault
            await self._link.wait_changed()

    def close(self) -> None:
        """Unsubscribe; the iteration ends. A second call does nothing."""
        self._link.remove_room(self._room)

    @property
    def channel(self) -> str:
        """The room."""
        return self._room.channel

    @property
    def position(self) -> Position | None:
        """The newest thing in the queue or given: where another client would go on. None: not subscribed yet."""
        return self._room.position

    @property
    def dropped(self) -> int:
        """Ephemeral events that found the queue full."""
        return self._room.dropped


class Client:
    """One client of a node, made by `open_client`. All methods belong to the Trio task tree that opened it."""

    def __init__(self, link: ClientLink) -> None:
        self._link = link

    # -- sending -------------------------------------------------------------------------------------------------

    async def send(  # noqa: PLR0913 (what a message may have)
        self,
        channel: str,
        content: str,
        *,
        id: str | None = None,  # noqa: A002 (the field's name)
        type: str | None = None,  # noqa: A002 (the field's name)
        reply_to: int | None = None,
        mentions: Sequence[str] | None = None,
        attachments: Sequence[dict[str, Any]] | None = None,
        meta: object = None,
        seconds: float = SEND_SECONDS,
    ) -> Message:
        """Send a message to a chat room; returns the whole message when it is on the node's disk.

        It is repeated under the same id, over lost connections, until the node has said yes or no. Messages to one room
        are sequenced in the order of the calls; the next one leaves when the one before has its outcome.

        Args:
            channel: The room.
            content: Text.
            id: Its id, if it is another attempt at a message of before; else it gets a new one.
            type: text (if it is left out), image, file or action.
            reply_to: Sequence of the message that it answers.
            mentions: User ids.
            attachments: JSON objects.
            meta: Any JSON; None: none.
            seconds: How long to try.

        Raises:
            Refused: The node said no.
            NotSent: There was no connection in time; nothing was sent.
            OutcomeUnknown: There was no answer in time; its `id` tells the outcome with another attempt.
            OutboxFull: Too many messages wait already.
            ConnectionEnded: There is no connection any more; nothing was sent.
        """
        fields = {
            "content": content, "type": type, "replyTo": reply_to, "mentions": mentions, "attachments": attachments,
            "meta": meta,
        }  # fmt: skip
        return await self._submit(channel, "send", fields, id, seconds)

    async def edit(self, channel: str, target: int, content: str, *, id: str | None = None) -> Message:  # noqa: A002
        """Give one's message of sequence `target` another text. Raises as `send` does, like all that follow."""
        return await self._submit(channel, "edit", {"target": target, "content": content}, id, SEND_SECONDS)

    async def delete(self, channel: str, target: int, *, id: str | None = None) -> Message:  # noqa: A002
        """Remove one's message; nobody who comes later sees its text."""
        return await self._submit(channel, "delete", {"target": target}, id, SEND_SECONDS)

    async def react(self, channel: str, target: int, emoji: str, *, id: str | None = None) -> Message:  # noqa: A002
        """React to a message."""
        return await self._submit(channel, "react", {"target": target, "emoji": emoji}, id, SEND_SECONDS)

    async def unreact(self, channel: str, target: int, emoji: str, *, id: str | None = None) -> Message:  # noqa: A002
        """Take a reaction back."""
        return await self._submit(channel, "unreact", {"target": target, "emoji": emoji}, id, SEND_SECONDS)

    async def pin(self, channel: str, target: int, *, id: str | None = None) -> Message:  # noqa: A002
        """Pin a message; for those who moderate."""
        return await self._submit(channel, "pin", {"target": target}, id, SEND_SECONDS)

    async def unpin(self, channel: str, target: int, *, id: str | None = None) -> Message:  # noqa: A002
        """Take a pin off; for those who moderate."""
        return await self._submit(channel, "unpin", {"target": target}, id, SEND_SECONDS)

    async def restore(self, channel: str, target: int, *, id: str | None = None) -> Message:  # noqa: A002
        """Undo the removal of a message; for those who moderate."""
        return await self._submit(channel, "restore", {"target": target}, id, SEND_SECONDS)

    async def clear(
        self, channel: str, user: str, *, since: int | None = None, reason: str | None = None, id: str | None = None  # noqa: A002
    ) -> Message:  # fmt: skip
        """Remove all messages of a user, or those from sequence `since` on; for those who moderate."""
        fields = {"user": user, "since": since, "reason": reason}
        return await self._submit(channel, "clear", fields, id, SEND_SECONDS)

    async def report(
        self, channel: str, target: int, *, reason: str | None = None, id: str | None = None  # noqa: A002
    ) -> None:  # fmt: skip
        """Tell those who moderate a room of a message."""
        await self._submit(channel, "report", {"target": target, "reason": reason}, id, SEND_SECONDS)

    async def moderate(self, channel: str, ruling: str, *, id: str | None = None, **given: object) -> None:  # noqa: A002
        """Lay something down in a room, for those who moderate: `await client.moderate("support", "ban", user="u7")`.

        Args:
            channel: The room.
            ruling: `mute`, `ban`, `slow` or another of docs/chat.md.
            id: Its id, if it is another attempt at one of before; else it gets a new one.
            given: What the ruling takes.
        """
        await self._submit(channel, ruling, given, id, SEND_SECONDS)

    async def publish(self, channel: str, data: object, *, seconds: float = ASK_SECONDS) -> None:
        """Publish any JSON in a room of schema `any`, at most once: there, publications have no id to repeat them by.

        Raises:
            Refused: The node said no.
            NotSent: There was no connection in time; nothing was sent.
            OutcomeUnknown: It was sent; the connection was lost before the answer, or the node does not know either.
            ConnectionEnded: There is no connection any more; nothing was sent.
        """
        try:
            with trio.fail_after(seconds):
                await self._link.wait_up()
        except trio.TooSlowError:
            raise NotSent(f"no connection within {seconds:g} s{self._link.why}; nothing was sent") from None
        answer = await self._ask_once("publish", {"channel": channel, "data": data})
        if isinstance(answer, Error):
            if answer.code == ErrorCode.INTERNAL:  # it may be on its way to the disk
                raise OutcomeUnknown("", f"the node answered {answer.code}: {answer.message}")
            raise Refused(answer.code, answer.message, temporary=answer.temporary)
        if isinstance(answer, Lost):
            raise OutcomeUnknown("", answer.reason)

    # -- receiving -----------------------------------------------------------------------------------------------

    def subscribe(
        self,
        channel: str,
        *,
        since: Position | int | None = None,
        token: Token | None = None,
        join_leave: bool = False,
        most_queued: int = MOST_QUEUED,
    ) -> Subscription:
        """Subscribe to a room: `async with client.subscribe("support") as room: async for event in room: ...`.

        Args:
            channel: The room.
            since: Where to begin: what follows this position (or this sequence) comes first. None: from now on.
            token: A subscription token, for rooms that need one.
            join_leave: Whether to be told of who comes and goes, where the room's kind lets one ask for it.
            most_queued: Events that wait to be iterated over, at most; the rest waits in the room's history.

        Raises:
            ValueError: `most_queued` is below 1.
        """
        if most_queued < 1:
            raise ValueError(f"most_queued is {most_queued}; give 1 or more")
        start = Position("", since) if isinstance(since, int) else since
        room = RoomCursor(channel, start, most_queued, needs_token=token is not None, join_leave=join_leave)
        return Subscription(self._link, room, token)

    def notices(self) -> list[Any]:
        """Take what the node has told this client alone (muted, banned, ...), oldest first, at most the last 1000."""
        taken = list(self._link.core.notices)
        self._link.core.notices.clear()
        return taken

    async def history(
        self, channel: str, *, since: Position | None = None, limit: int = 100, reverse: bool = False
    ) -> HistoryPage:
        """A page of a room's history.

        Args:
            channel: The room.
            since: What follows this position, or precedes it if `reverse`; None: from the beginning (or the end).
            limit: At most so many; the node may give fewer. 0: only where the room stands.
            reverse: Newest first.

        Raises:
            Refused: The node said no.
            TimedOut: There was no answer in time.
            ConnectionEnded: There is no connection any more.
        """
        where = {"epoch": since.epoch, "offset": since.offset} if since is not None else None
        body = {"channel": channel, "limit": limit, "since": where, "reverse": reverse or None}
        reply = await self._ask("history", body)
        found = [Publication(channel, item.offset, item.data, item.info) for item in reply.publications]
        position = Position(reply.epoch, reply.offset)
        is_last = not found or (found[-1].offset <= 1 if reverse else found[-1].offset >= reply.offset)
        return HistoryPage(found, position, None if is_last else Position(reply.epoch, found[-1].offset))

    async def presence(self, channel: str) -> dict[str, Info]:
        """Who is in a room, by client id. Raises as `history` does."""
        reply = await self._ask("presence", {"channel": channel})
        return cast("dict[str, Info]", reply.presence)

    async def presence_stats(self, channel: str) -> Presence:
        """How many are in a room. Raises as `history` does."""
        reply = await self._ask("presence_stats", {"channel": channel})
        return Presence(reply.num_clients, reply.num_users)

    async def standing(self, channel: str) -> Standing:
        """What holds in a room, and for the user there. Raises as `history` does."""
        told = await self._rpc("room", {"channel": channel})
        return Standing(
            told["title"], told["role"], told["slow"], told["locked"], told["muted"], told.get("mutedUntil", "")
        )

    async def typing(self, channel: str, *, typing: bool = True) -> None:
        """Show others in a room that the user types, or has stopped. Raises as `history` does."""
        await self._rpc("typing", {"channel": channel, "typing": typing})

    async def read(self, channel: str, sequence: int) -> int:
        """The user has read a room up to a sequence.

        Returns when the mark is on the node's disk, with the one that stands: it never goes back. Raises as `history`
        does.
        """
        answer = await self._rpc("read", {"channel": channel, "sequence": sequence})
        return int(answer["read"])

    async def unread(self, channel: str) -> Unread:
        """What the user has not read in a room. Raises as `history` does."""
        counts = await self._rpc("unread", {"channel": channel})
        return Unread(counts["unread"], counts["mentions"], counts["read"], counts.get("more", False))

    async def rpc(self, method: str, params: object) -> Any:  # noqa: ANN401 (any JSON)
        """Any other rpc that changes nothing, or may be carried out twice. Raises as `history` does."""
        return await self._rpc(method, params)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link.core.link is Link.UP

    @property
    def client_id(self) -> str:
        """The id of the present connection, which others see in presence; empty before the first."""
        return self._link.core.client

    # -- requests ------------------------------------------------------------------------------------------------

    async def _submit(
        self, channel: str, method: str, fields: dict[str, Any], message_id: str | None, seconds: float
    ) -> Message:
        settled = trio.Event()
        outcomes: list[object] = []

        def done(outcome: object) -> None:
            outcomes.append(outcome)
            settled.set()

        params = {name: value for name, value in fields.items() if value is not None}
        params |= {"channel": channel, "id": message_id or str(uuid4())}
        item = Outgoing(channel, method, params, trio.current_time() + seconds, done)
        self._link.core.submit(item, trio.current_time())
        self._link.signal()
        try:
            await settled.wait()
        finally:
            self._link.core.withdraw(item, trio.current_time())
            self._link.signal()
        if isinstance(outcomes[0], ClientFault):
            raise outcomes[0]
        return cast("Message", outcomes[0])

    async def _rpc(self, method: str, params: object) -> Any:  # noqa: ANN401 (any JSON)
        reply = await self._ask("rpc", {"method": method, "data": params})
        return reply.data

    async def _ask(self, name: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (a reply of node/client_wire.py)
        """Ask until there is an answer: for what changes nothing, or may be done twice."""
        problem = ""
        with trio.move_on_after(ASK_SECONDS):
            while True:
                await self._link.wait_up()
                answer = await self._ask_once(name, body)
                if isinstance(answer, Error):
                    if not answer.temporary:
                        raise Refused(answer.code, answer.message)
                    problem = f"; the last answer was {answer.code}: {answer.message}"
                elif not isinstance(answer, Lost):
                    return answer
                await trio.sleep(POLL_SECONDS)
        raise TimedOut(f"{name} was not answered within {ASK_SECONDS:g} s{problem or self._link.why}")

    async def _ask_once(self, name: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (a reply, Error or Lost)
        settled = trio.Event()
        answers: list[Any] = []

        def done(answer: Any) -> None:  # noqa: ANN401 (a reply, Error or Lost)
            answers.append(answer)
            settled.set()

        self._link.core.ask(name, body, done, trio.current_time())
        self._link.signal()
        await settled.wait()
        return answers[0]


@asynccontextmanager
async def open_client(  # noqa: PLR0913 (all but the first have defaults)
    url: str,
    *,
    token: Token | None = None,
    ssl_context: ssl.SSLContext | None = None,
    name: str = "python",
    connect_seconds: float = 30.0,
    most_outgoing: int = MOST_OUTGOING,
) -> AsyncIterator[Client]:
    """Connect to a node, and stay connected until the block ends.

    Args:
        url: `ws://`, `wss://`, `http://` or `https://`, host and port; the path is the node's if none is given.
        token: Says who connects: a token, or an async function that fetches one from your back end when the one before
            has expired. It may raise `ConnectionEnded` to give up; other exceptions make it try again. None: a guest.
        ssl_context: For `wss://`, if not Python's default.
        name: Of your application, for the node's operators.
        connect_seconds: How long to wait for the first connection. Later ones are waited for until the block ends.
        most_outgoing: Messages that may be on their way.

    Raises:
        ValueError: The URL is none.
        Unreachable: There was no connection in time.
        ConnectionEnded: The node does not want this client: the token is bad, for example.
    """
    link = ClientLink(websocket_url(url), token, ssl_context, ClientCore(most_outgoing, random.random, name))
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        try:
            await link.wait_connected(connect_seconds)
            yield Client(link)
        except Exception as error:  # noqa: BLE001 (raised below, outside of the nursery, which would wrap it in a group)
            failure = error
        finally:
            with trio.move_on_after(2 * CLOSE_SECONDS, shield=True):
                await link.end()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def websocket_url(url: str) -> str:
    """The URL of the node's WebSocket.

    Raises:
        ValueError: It is no URL of a node.
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    try:
        is_good = scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too big
        is_good = False
    if not is_good:
        raise ValueError(f"{url!r} is no URL of a node; give one such as ws://127.0.0.1:8000")
    path = PATH if parts.path in {"", "/"} else parts.path
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))

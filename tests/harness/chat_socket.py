"""A client of a real node for threads: it asks one thing after another, over a WebSocket."""

from __future__ import annotations

import json
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.harness.node_process import token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

PATIENCE_SECONDS: Final = 30  # for one answer; never reached


class Lost(Exception):
    """The node went away."""


class ChatSocket:
    """A connection that asks one thing after another, and keeps the pushes that come between."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._id = 0
        self._read: deque[dict[str, Any]] = deque()
        self._pushed: deque[dict[str, Any]] = deque()

    def ask(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole reply: the result under the command's name, or `error`."""
        self._id += 1
        self.connection.send(json.dumps({"id": self._id, name: body}))
        while True:
            message = self._next()
            if message.get("id") == self._id:
                return message
            self._pushed.append(message["push"])

    def publish(self, room: str, message_id: str, content: str = "Hello") -> dict[str, Any]:
        """The whole reply to a chat message."""
        return self.ask("publish", {"channel": room, "data": {"id": message_id, "content": content}})

    def pushes(self) -> Iterator[dict[str, Any]]:
        """Pushes in the order in which they came, without end."""
        while True:
            yield self._pushed.popleft() if self._pushed else self._next()["push"]

    def take(self) -> list[dict[str, Any]]:
        """The pushes that came with the answers so far."""
        pushed = list(self._pushed)
        self._pushed.clear()
        return pushed

    def pages(self, room: str, offset: int, top: dict[str, Any], most: int = 100) -> Iterator[dict[str, Any]]:
        """Publications of a room after an offset up to a position, in pages of at most so many."""
        while offset < top["offset"]:
            since = {"epoch": top["epoch"], "offset": offset}
            limit = min(most, top["offset"] - offset)
            page = self.ask("history", {"channel": room, "limit": limit, "since": since})["history"]
            publications = page.get("publications", [])
            assert publications, f"the history ends at {since}, the room at {top}"
            yield from publications
            offset = publications[-1]["offset"]

    def history(self, room: str) -> list[tuple[int, str]]:
        """Sequence and id of every message of a chat room, oldest first."""
        top = self.ask("history", {"channel": room, "limit": 0})["history"]
        found = list(self.pages(room, 0, {"offset": 0} | top))
        assert all(publication["offset"] == publication["data"]["sequence"] for publication in found)
        return [(publication["offset"], publication["data"]["id"]) for publication in found]

    def _next(self) -> dict[str, Any]:
        """A reply or push; pings are answered."""
        while True:
            while not self._read:
                self._read.extend(map(json.loads, self.connection.recv(timeout=PATIENCE_SECONDS).splitlines()))
            if message := self._read.popleft():
                return message
            self.connection.send("{}")


@contextmanager
def connected(url: str, user: str, context: ssl.SSLContext | None = None, **claims: object) -> Iterator[ChatSocket]:
    """A connection of a user, with more claims in its token.

    Raises:
        Lost: There is none, or it broke while it was used.
    """
    try:
        with connect(url, proxy=None, ssl=context, open_timeout=PATIENCE_SECONDS, close_timeout=1) as connection:
            socket = ChatSocket(connection)
            socket.ask("connect", {"token": token(user, **claims)})
            yield socket
    except (OSError, EOFError, WebSocketException) as error:
        raise Lost from error

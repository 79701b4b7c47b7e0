"""A client of one session, without a network: it speaks JSON and has a clock that a test turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from edge_config.schema import Auth, Config
from edge_config.secret import Secret
from node.auth import Authenticator, make_token
from node.session import Session
from node.session_options import SessionOptions
from node.sites import assemble
from tests.harness.gateway import FakeGateway, FakeTransport

SECRET = "secret of the tests, long enough for HS256"
WALL = 1_794_000_000  # seconds since 1970 when the monotonic clock of the tests shows 0


class World:
    """A node with clients.

    Attributes:
        now: Monotonic seconds.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config(auth=Auth(insecure=True))
        self.gateway = FakeGateway()
        self.options = SessionOptions(self.config)
        self.now = 0.0
        auth = self.config.auth
        sites = assemble(auth if auth.secret else replace(auth, secret=Secret(SECRET)))
        self.authenticator = Authenticator(sites, b"g" * 32, lambda: WALL + self.now)
        self.clients: list[Client] = []

    def token(self, user: str, **claims: object) -> str:
        """A connection token, or with `channel=` a subscription token; `ttl=` gives it an end."""
        ttl = claims.pop("ttl", None)
        if isinstance(ttl, int):
            claims["exp"] = WALL + self.now + ttl
        return make_token(SECRET, {"sub": user, **claims})

    def client(self) -> Client:
        """A client that has not said anything."""
        client = Client(self, str(UUID(int=len(self.clients) + 1)))
        self.clients.append(client)
        return client

    def connected(self, user: str = "", **claims: object) -> Client:
        """A connected client: a user, or a guest."""
        client = self.client()
        client.ask("connect", {"token": self.token(user, **claims)} if user else {})
        return client

    def run(self, seconds: float) -> None:
        """Let time pass; sessions are called when they are due, and not otherwise."""
        until = self.now + seconds
        while due := [c for c in self.clients if c.session.deadline <= until and c.transport.end is None]:
            client = min(due, key=lambda c: c.session.deadline)
            self.now = max(self.now, client.session.deadline)
            client.session.on_time(self.now)
            assert client.transport.end is not None or client.session.deadline > self.now, "a deadline must lie ahead"
        self.now = until


class Client:
    """What a person would have in a browser.

    Attributes:
        transport: Its end of the connection.
        session: The node's end.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.transport = FakeTransport()
        self.session = Session(self.transport, world.gateway, world.authenticator, world.options, name, world.now)
        self.transport.session = self.session
        self._id = 0

    def send(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        self.send_bytes(b"\n".join(msgspec.json.encode(command) for command in commands))

    def send_bytes(self, payload: bytes) -> None:
        """Send a frame."""
        self.session.receive(payload, self.world.now)

    def tell(self, name: str, body: dict[str, Any] | None = None) -> int:
        """Send a command, and return its id."""
        self._id += 1
        self.send({"id": self._id, name: body or {}})
        return self._id

    def ask(self, name: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Send a command, and return its result, its error under `error`, or None if there is no answer yet."""
        return self.answer(self.tell(name, body))

    def answer(self, command_id: int) -> Any:  # noqa: ANN401 - JSON
        """The result of a command, its error under `error`, or None."""
        for message in self.transport.sent:
            if message.get("id") == command_id:
                answer = {name: value for name, value in message.items() if name != "id"}
                assert len(answer) == 1
                return answer if "error" in answer else next(iter(answer.values()))
        return None

    def code(self, name: str, body: dict[str, Any] | None = None) -> int | None:
        """Send a command, and return the code of its error; None: it was not refused."""
        answer = self.ask(name, body)
        return answer["error"]["code"] if answer is not None and "error" in answer else None

    def end(self) -> int | None:
        """The code with which the connection was closed."""
        return self.transport.end[0] if self.transport.end is not None else None

    def is_read(self) -> bool:
        """Whether the node reads what the client sends."""
        return not self.transport.paused

    def pushes(self, kind: str) -> list[dict[str, Any]]:
        """Pushes of a kind, in order."""
        return [message["push"] for message in self.transport.sent if kind in message.get("push", {})]


def message(number: int, content: str = "Hello") -> dict[str, Any]:
    """Data of a publication in a chat room."""
    return {"id": f"m{number}", "content": content}

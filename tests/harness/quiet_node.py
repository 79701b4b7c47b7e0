"""A node without sockets over a real log: clients of one room, and lives that end at will."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from edge_config.kinds import RoomKind, Who
from edge_config.limits import Rates
from edge_config.schema import Auth, Config
from node.framing import WEB_SOCKET_TEXT, Wire
from node.gateway import Gateway
from node.metrics import Metrics
from node.protocol import JsonCodec
from node.vitals import Condition
from router.effects import ClusterOptions
from router.ids import RoomId
from router.log import Log, LogOptions
from router.runtime import Router
from tests.harness.client import Client, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node.seams import Member, Room

CHANNEL: Final = "r"
DEADLINE_SECONDS: Final = 20.0
CONFIG: Final = Config(
    auth=Auth(insecure=True),
    rates=Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0),
    kinds={"default": RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE)},
)
WIRE = Wire(JsonCodec(), WEB_SOCKET_TEXT)


class Quiet(Gateway):
    """A node's gateway, without connections to push to."""

    @override
    def join(self, room: Room, member: Member) -> None: ...

    @override
    def leave(self, room: Room, member: Member) -> None: ...


class QuietNode:
    """A log, a router over it, and clients; closed and opened again at will."""

    def __init__(self, folder: Path, *, cache_bytes: int) -> None:
        self._told = threading.Event()
        self.log = Log.open(folder, LogOptions(durable=False, shards=1), self._told.set)
        self.gateway = Quiet("n1", "0", CONFIG, Metrics(), Condition(), WIRE, None)
        self.router = Router(
            self.log, "n1", ClusterOptions(shards=1, cache_bytes=cache_bytes, dedupe_capacity=64), self.gateway
        )
        self.gateway.attach(self.router)
        self.world = World(CONFIG)
        self.world.gateway = self.gateway  # type: ignore[assignment]  # the real one
        self.world.now = time.monotonic() + 3600.0  # no command's time is ever up
        self._clients: dict[str, Client] = {}

    def client(self, user: str) -> Client:
        if user not in self._clients:
            self._clients[user] = self.new_client(user)
        return self._clients[user]

    def new_client(self, user: str) -> Client:
        client = self.world.client()
        token = self.world.token(user, role="moderator" if user == "mod" else "")
        self.ask(client, "connect", {"token": token})
        return client

    def ask(self, client: Client, name: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """The answer, when the disk has done its part."""
        command = client.tell(name, body)
        self.wait(lambda: client.answer(command) is not None)
        return client.answer(command)

    def wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            self._told.clear()
            self.router.drain()
            self.gateway.turn()
            if ready():
                return
            assert self._told.wait(deadline - time.monotonic()), "what was waited for did not come"

    def file_all(self) -> None:
        state = self.router.cluster.rooms.get(RoomId("default", CHANNEL))
        if state is not None:
            self.wait(lambda: state.filed == state.committed)

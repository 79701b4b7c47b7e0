"""Nodes with links between them, simulated or real, each with a task that takes what arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import trio
import trio.testing
from typing_extensions import override

from edge_config.keys import KeyPair, new_pair
from router.transport import Transport, TransportOptions, open_transport
from tests.harness.simulated_link import Wires

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from router.link import Link, Publication, Received

PATIENCE = 30  # seconds until a test gives up
OUTBOX_BYTES = 1 << 20


class Station:
    """A node: its link, and what has arrived so far."""

    def __init__(self, node: str, boot: str, link: Link) -> None:
        self.node, self.boot, self.link = node, boot, link
        self.messages: list[Received] = []
        self.publications: list[Publication] = []
        self.events: list[tuple[bytes, bool]] = []
        self._changed = trio.Event()

    async def run(self) -> None:
        """Take what arrives, for ever."""
        while True:
            await self.link.wait()
            self.messages += self.link.receive()
            self.publications += self.link.received_publications()
            self.events += self.link.subscription_events()
            self._changed.set()
            self._changed = trio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that depends on what has arrived."""
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()

    def bodies(self, node: str) -> list[bytes]:
        """What a node has sent."""
        return [message.body for message in self.messages if message.node == node]


class Stations(ABC):
    """Nodes of one mesh, by name."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._boots = count(1)
        self._scopes: dict[str, trio.CancelScope] = {}

    @abstractmethod
    async def start(self, node: str) -> Station:
        """Start a node; again, if it was stopped, in another life with the same address."""

    @abstractmethod
    async def stop(self, node: str) -> None:
        """End a node's process."""

    @abstractmethod
    def connect(self, station: Station, node: str) -> None:
        """Have one connect to another, which need not be there."""

    async def pair(self) -> tuple[Station, Station]:
        """Two nodes that are connected both ways."""
        a, b = await self.start("a"), await self.start("b")
        self.connect(a, "b")
        self.connect(b, "a")
        return a, b

    def _run(self, station: Station) -> None:
        scope = self._scopes[station.node] = trio.CancelScope()

        async def run() -> None:
            with scope:
                await station.run()

        self._nursery.start_soon(run)

    def _boot(self) -> str:
        return f"boot-{next(self._boots)}"


class SimulatedStations(Stations):
    """Without sockets."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self._wires = Wires()

    @override
    async def start(self, node: str) -> Station:
        boot = self._boot()
        station = Station(node, boot, self._wires.open(node, boot, OUTBOX_BYTES))
        self._run(station)
        return station

    @override
    async def stop(self, node: str) -> None:
        self._scopes.pop(node).cancel()
        self._wires.links[f"tcp://{node}:1"].close()

    @override
    def connect(self, station: Station, node: str) -> None:
        station.link.connect(node, f"tcp://{node}:1", b"")


class RealStations(Stations):
    """On loopback, with keys."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.keys: dict[str, KeyPair] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self.transports: dict[str, Transport] = {}

    @property
    def allowed(self) -> dict[str, bytes]:
        """The public key of each node that has ever been."""
        return {node: pair.public for node, pair in self.keys.items()}

    def key(self, node: str) -> KeyPair:
        """A node's key, which others let in."""
        if node not in self.keys:
            self.keys[node] = new_pair()
            for transport in self.transports.values():
                transport.allow(self.allowed)
        return self.keys[node]

    @override
    async def start(self, node: str) -> Station:
        boot, keys = self._boot(), self.key(node)
        port, publish_port = self._ports.get(node, (0, 0))
        options = TransportOptions(
            node=node, boot=boot, host="127.0.0.1", port=port, publish_port=publish_port, keys=keys,
            allowed=self.allowed, outbox_bytes=OUTBOX_BYTES, patience_ms=60_000,
        )  # fmt: skip
        self._stacks[node] = AsyncExitStack()
        transport = await self._stacks[node].enter_async_context(open_transport(options))
        self.transports[node] = transport
        self._ports[node] = transport.port, transport.publish_port
        station = Station(node, boot, transport)
        self._run(station)
        return station

    @override
    async def stop(self, node: str) -> None:
        self._scopes.pop(node).cancel()
        await trio.testing.wait_all_tasks_blocked()
        del self.transports[node]
        await self._stacks.pop(node).aclose()

    @override
    def connect(self, station: Station, node: str) -> None:
        port, _ = self._ports.get(node, (1, 1))
        station.link.connect(node, f"tcp://127.0.0.1:{port}", self.key(node).public)

    async def close(self) -> None:
        """Stop all."""
        for node in list(self.transports):
            await self.stop(node)


@asynccontextmanager
async def open_stations(kind: str) -> AsyncIterator[Stations]:
    """A mesh without nodes: ``simulated`` or ``real``."""
    async with trio.open_nursery() as nursery:
        if kind == "simulated":
            yield SimulatedStations(nursery)
        else:
            async with open_real_stations(nursery) as stations:
                yield stations
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_real_stations(nursery: trio.Nursery) -> AsyncIterator[RealStations]:
    """A mesh without nodes, over loopback."""
    stations = RealStations(nursery)
    try:
        yield stations
    finally:
        with trio.CancelScope(shield=True):
            await stations.close()

"""Nodes of a cluster in one process: real routers, logs and register, a simulated network between them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from node.central.service import Service
from node.central.store import Store, create
from router.channels import Channel
from router.edge_wire import Made, decode
from router.effects import ClusterOptions
from router.ids import RoomId
from router.log import Log, LogOptions
from router.log_member import adopt
from router.membership_wire import Identity
from router.mesh import MeshOptions, MeshRouter
from router.register_wire import Certificate
from router.shard import ShardOptions
from tests.harness.simulated_link import SimulatedLink, Wires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from router.entry import Entry
    from router.errors import StorageFault
    from router.ids import Place
    from router.link import Received
    from router.people import Question
    from router.people_wire import Publication
    from router.room import RoomState

CENTRAL = "central"
OUTBOX_BYTES = 1 << 24
WAIT_SECONDS = 30.0


class Gateway:
    """What a node's clients are given."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.resets: list[tuple[RoomState, Place]] = []
        self.count = 0

    def committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.origin is None, f"{entry!r} is answered twice"
        self.entries += entries

    def acknowledged(self, _told: Callable[..., None]) -> None:
        self.count += 1

    def persisted(self, done: object) -> None:
        """Nothing is measured."""

    def halted(self, fault: StorageFault) -> None:
        raise fault

    def failed(self, _told: Callable[..., None], error: Exception) -> None:
        raise error

    def reset(self, state: RoomState, place: Place) -> None:
        self.resets.append((state, place))

    def heard(self, publication: Publication) -> None:
        raise AssertionError(f"nobody follows a room, and {publication!r} came")

    def asked(self, question: Question) -> None:
        raise AssertionError(f"nobody asks, and {question!r} came")


class MeshNode:
    """One node."""

    def __init__(self, mesh: MeshInProcess, folder: Path, name: str, seeds: Iterable[str]) -> None:
        folder.mkdir()
        adopt(folder, mesh.certificate, durable=False)
        self.log = Log.open(folder, LogOptions(shards=mesh.certificate.shards), mesh.told.set)
        self.link = mesh.wires.open(name, f"boot{name}", OUTBOX_BYTES)
        self.link.connect(CENTRAL, mesh.link.address, b"")
        self.gateway = Gateway()
        me = Identity(name, f"boot{name}", self.log.meta.disk_id, "r", name, self.link.address, "1", 1)
        options = MeshOptions(me, [(seed, f"tcp://{seed}:1") for seed in seeds], CENTRAL, lambda _node: b"")
        kept = ShardOptions(copies=mesh.certificate.copies, min_sync=mesh.certificate.min_sync)
        self.router = MeshRouter(
            self.log, mesh.certificate, options, ClusterOptions(mesh.certificate.shards, shard=kept), self.link,
            self.gateway, mesh.told.set,
        )  # fmt: skip


class MeshInProcess:
    """Some nodes and their central.

    Args:
        folder: For all of their files.
        names: Of the nodes.
        shards: Of the cluster.

    Attributes:
        made: How many answers to submits have come over the network.
    """

    def __init__(self, folder: Path, names: Sequence[str], shards: int = 4) -> None:
        self.told = threading.Event()
        self.wires = Wires()
        self.certificate = Certificate("c0ffee", shards, 1, len(names), min(2, len(names)), 1, b"p" * 32, b"g" * 32)
        (folder / CENTRAL).mkdir()
        create(folder / CENTRAL, self.certificate, [], durable=False)
        self._store = Store.open(folder / CENTRAL, durable=False)
        self._service = Service(self._store)
        self.link: SimulatedLink = self.wires.open(CENTRAL, "bootcentral", OUTBOX_BYTES)
        self.nodes = {
            name: MeshNode(self, folder / name, name, [other for other in names if other != name]) for name in names
        }
        self.made = 0
        for node in self.nodes.values():
            self._count_made(node.link)

    def close(self) -> None:
        """End all."""
        for node in self.nodes.values():
            node.log.close()
        self._store.close()

    def run_until(self, reached: Callable[[], bool], what: str) -> None:
        """Let the nodes work until something is so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            self.turn()
            self.told.wait(0.005)
            self.told.clear()

    def turn(self) -> None:
        """A turn of each."""
        self.wires.carry()
        served = self._service.serve(
            (message.node, message.body) for message in self.link.receive() if message.channel is Channel.REGISTER
        )
        for name, address in served.opened:
            self.link.connect(name, address, b"")
        for name, body in served.answers:
            self.link.send(name, Channel.REGISTER, body)
        for node in self.nodes.values():
            self.wires.carry()
            node.router.drain()

    def cut_off(self, name: str) -> None:
        """Let nothing pass to or from a node until the wires are healed."""
        for other in (CENTRAL, *self.nodes):
            if other != name:
                self.wires.partition(name, other)
                self.wires.partition(other, name)

    def _count_made(self, link: SimulatedLink) -> None:
        receive = link.receive

        def counting() -> Sequence[Received]:
            received = receive()
            for message in received:
                if message.channel is Channel.EDGE and isinstance(decode(message.body), Made):
                    self.made += 1
            return received

        link.receive = counting  # type: ignore[method-assign]


def room_of(shard: int, nodes: MeshInProcess) -> RoomId:
    """A room that lives in a shard."""
    router = next(iter(nodes.nodes.values())).router.router
    return next(room for n in range(1000) if router.cluster.shard_of(room := RoomId("default", f"room{n}")) == shard)

"""The central register in a mesh: whom it answers, and where."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from node.central.server import Server
from node.central.store import Store, create
from router.channels import Channel
from router.errors import StorageFault
from router.events import Claim, Configuration
from router.ids import MemberId
from router.register import Answer, RegisterClient, RegisterOptions
from router.register_wire import Certificate, Open, Opened, Row, decode_answer, encode
from tests.harness.simulated_link import Wires

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.harness.simulated_link import SimulatedLink

CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 1, 1, b"p" * 32, b"g" * 32)
MEMBER = MemberId("a", "d1")
CLAIM = Claim(0, Configuration(1, 1, 1, MEMBER, (MEMBER,)))
KEYS = {"a": b"key of a", "b": b"key of b"}
OUTBOX = 1 << 20


class Mesh:
    """Simulated links, and a central among them."""

    def __init__(self, folder: Path) -> None:
        self.wires = Wires()
        self.folder = folder
        create(folder, CERTIFICATE, [], durable=False)

    def node(self, name: str, boot: str = "boot") -> SimulatedLink:
        link = self.wires.open(name, boot, OUTBOX)
        link.connect("central", "tcp://central:1", b"")
        return link

    @asynccontextmanager
    async def central(self, seeds: Mapping[str, str] | None = None, keys: Mapping[str, bytes] = KEYS) -> AsyncIterator[
        SimulatedLink
    ]:  # fmt: skip
        link = self.wires.open("central", "boot", OUTBOX)
        store = Store.open(self.folder, durable=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Server(store, link, keys.get).run, seeds or {})
            await trio.testing.wait_all_tasks_blocked()
            yield link
            nursery.cancel_scope.cancel()
        store.close()
        link.close()


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


async def answered(link: SimulatedLink) -> list[Any]:
    with trio.fail_after(30):
        await link.wait()
    received = link.receive()
    assert {(message.node, message.channel) for message in received} == {("central", Channel.REGISTER)}
    return [decode_answer(message.body) for message in received]


async def test_a_node_is_answered_where_it_says_it_is(mesh: Mesh) -> None:
    async with mesh.central():
        node = mesh.node("a")
        node.send("central", Channel.REGISTER, encode(Open("boot", node.address)))
        assert await answered(node) == [Opened("boot", 1, CERTIFICATE)]


async def test_a_central_that_was_started_again_knows_where_nodes_are(mesh: Mesh) -> None:
    node = mesh.node("a")
    async with mesh.central():
        node.send("central", Channel.REGISTER, encode(Open("boot", node.address)))
        await answered(node)
    client = RegisterClient("boot", node.address, "", lambda: 0.5, RegisterOptions(), 0)
    client.receive(encode(Opened("boot", 1, CERTIFICATE)), 0)
    client.ask(CLAIM, 0)
    async with mesh.central():
        for body in client.tick(0).sends:
            node.send("central", Channel.REGISTER, body)
        with trio.fail_after(30):
            await node.wait()
        for message in node.receive():
            client.receive(message.body, 1)
        assert client.tick(1).answers == [Answer(CLAIM, CLAIM.new, done=True)]


async def test_nodes_to_begin_with_are_connected_at_once(mesh: Mesh) -> None:
    async with mesh.central({"a": "tcp://a:1", "x": "tcp://x:1", "b": "nowhere"}) as link:
        assert link.send("a", Channel.REGISTER, b"")
        assert not link.send("x", Channel.REGISTER, b"")  # nobody has its key
        assert not link.send("b", Channel.REGISTER, b"")


async def test_what_is_about_something_else_is_left_alone(mesh: Mesh) -> None:
    async with mesh.central():
        node = mesh.node("a")
        node.send("central", Channel.MEMBERSHIP, encode(Open("boot", node.address)))
        node.subscribe("central", b"topic")
        node.send("central", Channel.REGISTER, b"\xc1")
        node.send("central", Channel.REGISTER, encode(Open("another", node.address)))
        (answer,) = await answered(node)
        assert answer.boot == "another"


async def test_a_node_that_cannot_be_reached_keeps_nobody_waiting(mesh: Mesh) -> None:
    async with mesh.central():
        for name, address in (("b", "nowhere"), ("x", "tcp://x:1")):
            mesh.node(name).send("central", Channel.REGISTER, encode(Open("boot", address)))
        node = mesh.node("a")
        node.send("central", Channel.REGISTER, encode(Open("boot", node.address)))
        assert [answer.session for answer in await answered(node)] == [3]


async def test_a_fault_of_the_disk_ends_it_and_nothing_is_answered(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: Store, row: Row) -> None:
        with store.transaction():
            raise StorageFault("io", f"{row} can't be written")

    monkeypatch.setattr(Store, "put", fail)
    link = mesh.wires.open("central", "boot", OUTBOX)
    store = Store.open(mesh.folder, durable=False)
    node = mesh.node("a")
    client = RegisterClient("boot", node.address, "", lambda: 0.5, RegisterOptions(), 0)
    client.ask(CLAIM, 0)
    with pytest.RaisesGroup(StorageFault):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(Server(store, link, KEYS.get).run, {}))
            node.send("central", Channel.REGISTER, encode(Open("boot", node.address)))
            for answer in await answered(node):
                client.receive(encode(answer), 0)
            for body in client.tick(0).sends:
                node.send("central", Channel.REGISTER, body)
    store.close()
    assert list(node.receive()) == []

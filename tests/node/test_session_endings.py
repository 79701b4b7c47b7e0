"""Clients that go, or whose time is up, in the midst of what they asked for: one answer at most, and nothing left."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from edge_config.kinds import RoomKind, Who
from edge_config.limits import Rates
from edge_config.schema import Auth, Config
from tests.harness.client import Client, World

CHAT: Final = RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE, read_presence=Who.ANYONE)
RATES: Final = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0, connection_joins=0.0)
OPERATIONS: Final = ("open", "history", "submit")


def rpc(method: str, **data: object) -> tuple[str, dict[str, Any]]:
    return "rpc", {"method": method, "data": {"channel": "r", "id": "x", **data}}


COMMANDS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "subscribe": ("subscribe", {"channel": "r"}),
    "recover": ("subscribe", {"channel": "r", "recover": True, "offset": 1}),
    "ahead": ("subscribe", {"channel": "r", "recover": True, "offset": 99}),
    "publish": ("publish", {"channel": "r", "data": {"id": "x", "content": "Hi"}}),
    "history": ("history", {"channel": "r", "limit": 10}),
    "presence_stats": ("presence_stats", {"channel": "r"}),
    "send": rpc("send", content="Hi"),
    "again": rpc("send", id="m1", content="Hello"),
    "reply": rpc("reply", content="Hi", replyTo=1),
    "edit": rpc("edit", target=1, content="Hi"),
    "delete": rpc("delete", target=1),
    "nothing": rpc("delete", target=77),
    "react": rpc("react", target=1, emoji="+"),
    "mute": rpc("mute", user="u2", seconds=60),
}


@pytest.fixture
def world() -> World:
    world = World(Config(auth=Auth(insecure=True), rates=RATES, kinds={"default": CHAT}))
    author = world.connected("u1", role="owner")
    for number in (1, 2):
        assert author.ask(*rpc("send", id=f"m{number}", content="Hello"))["data"]["sequence"] == number
    return world


def begin(world: World, name: str, held: str) -> tuple[Client, int]:
    """A client whose command waits for an operation; the answer's id."""
    client = world.connected("u1", role="owner")
    world.gateway.held.add(held)
    return client, client.tell(*COMMANDS[name])


def joined(world: World) -> int:
    return sum(len(room.joined) for room in world.gateway.rooms.values())


@pytest.mark.parametrize("held", OPERATIONS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_client_that_goes_meanwhile_leaves_nothing(world: World, name: str, held: str) -> None:
    client, _ = begin(world, name, held)
    users = len(world.gateway.users)
    client.transport.take()
    client.session.closed()
    world.gateway.release()
    world.run(5)
    assert client.transport.sent == []
    assert not client.session.subscriptions
    assert not client.session._submitted
    assert client.session._running is None
    assert (joined(world), len(world.gateway.users)) == (0, users - 1)


@pytest.mark.parametrize("held", OPERATIONS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_client_is_answered_once_whatever_comes_too_late(world: World, name: str, held: str) -> None:
    client, asked = begin(world, name, held)
    world.run(5)
    in_time = client.answer(asked)
    assert in_time is not None
    world.gateway.release()
    world.run(1)
    answers = Counter(message["id"] for message in client.transport.sent if "id" in message)
    assert answers[asked] == 1
    if in_time.get("error", {}).get("code") == 100:
        assert joined(world) == 0, "a subscription that came too late does not happen"
    assert client.ask("ping") == {}
    assert not client.session._submitted

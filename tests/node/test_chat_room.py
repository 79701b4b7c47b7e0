"""Rpc `room`: what a page is told that comes into a room."""

from __future__ import annotations

from typing import Any

import pytest

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Rates
from edge_config.schema import Auth, Config
from tests.harness.client import Client, World

OPEN = RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE, slow_mode_seconds=3)
ANY = RoomKind(name="any", schema=Schema.ANY, read_history=Who.ANYONE)
CLOSED = RoomKind(name="closed")


@pytest.fixture
def world() -> World:
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    kinds = {"default": OPEN, "any": ANY, "closed": CLOSED}
    return World(Config(auth=Auth(insecure=True), rates=rates, kinds=kinds))


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The data of an rpc's answer, or the code of its error."""
    answer = client.ask("rpc", {"method": method, "data": {"channel": "r", **data}})
    return answer["error"]["code"] if "error" in answer else answer["data"]


def test_a_room_where_nothing_was_laid_down_is_what_its_kind_says(world: World) -> None:
    assert rpc(world.connected("ann"), "room") == {
        "title": "", "role": "member", "slow": 3, "locked": False, "muted": False,
    }  # fmt: skip
    assert rpc(world.connected(), "room")["role"] == "guest"


def test_all_that_holds_for_who_asks_is_told(world: World) -> None:
    ann, owner = world.connected("ann"), world.connected("boss", role="owner")
    rpc(owner, "slow", id="1", seconds=60)
    rpc(owner, "lock", id="2")
    rpc(owner, "rename", id="3", title="Help desk")
    rpc(owner, "mute", id="4", user="ann", seconds=60)
    rpc(owner, "grant", id="5", user="bob", role="moderator")
    told = rpc(ann, "room")
    assert told.pop("mutedUntil").endswith("Z")
    assert told == {"title": "Help desk", "role": "member", "slow": 60, "locked": True, "muted": True}
    assert rpc(world.connected("bob"), "room")["role"] == "moderator"
    world.gateway.passed_ms = 61_000
    assert rpc(ann, "room")["muted"] is False
    rpc(owner, "mute", id="6", user="ann")
    assert "mutedUntil" not in rpc(ann, "room")


def test_who_may_ask(world: World) -> None:
    ann, owner = world.connected("ann"), world.connected("boss", role="owner")
    assert rpc(ann, "room", channel="closed:1") == 103
    ann.ask("subscribe", {"channel": "closed:1"})
    assert rpc(ann, "room", channel="closed:1")["role"] == "member"
    rpc(owner, "ban", id="1", user="ann")
    assert rpc(ann, "room") == 103
    assert rpc(ann, "room", channel="any:r") == 108
    assert rpc(ann, "room", channel="nowhere:r") == 102
    assert rpc(ann, "room", id="1") == 107


def test_clients_write_no_system_messages(world: World) -> None:
    ann = world.connected("ann")
    assert ann.code("publish", {"channel": "r", "data": {"id": "1", "content": "x", "type": "system"}}) == 107
    assert rpc(ann, "send", id="1", content="x", type="system") == 107
    assert rpc(ann, "send", id="1", content="x", event="joined") == 107

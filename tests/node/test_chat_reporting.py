"""Rpc `report`: who may, what the log keeps of it, and who is told."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from node.chat_reporting import parse
from node.codes import CommandError
from node.ratelimit import Throttle
from router.entry import Kind, decode, split
from router.log_schema import FILE_NAME, META, open_reader
from router.log_verification import read_journal
from tests.harness.chat_socket import connected
from tests.harness.client import Client, World
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world() -> World:
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    kinds = {
        "default": RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE),
        "any": RoomKind(name="any", schema=Schema.ANY, publish=Who.ANYONE),
    }
    return World(Config(auth=Auth(insecure=True), rates=rates, kinds=kinds))


def member(world: World, user: str, role: str = "") -> Client:
    """A client in the room."""
    client = world.connected(user, role=role)
    assert client.code("subscribe", {"channel": "r"}) is None
    return client


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The data of an rpc's answer, or the code of its error."""
    answer = client.ask("rpc", {"method": method, "data": {"channel": "r", **data}})
    return answer["error"]["code"] if "error" in answer else answer["data"]


def notices(client: Client) -> list[dict[str, Any]]:
    return [push["message"]["data"] for push in client.pushes("message")]


def test_who_moderates_and_is_in_the_room_is_told_and_nobody_else(world: World) -> None:
    ann, bob, moderator = member(world, "ann"), member(world, "bob"), member(world, "mod", "moderator")
    owner, elsewhere = member(world, "boss", "owner"), world.connected("other", role="moderator")
    rpc(ann, "send", id="m1", content="rude")
    assert rpc(bob, "report", id="r1", target=1, reason="spam") == {}
    notice = {
        "type": "notice", "channel": "r", "event": "reported", "by": "bob", "target": 1, "author": "ann",
        "reason": "spam",
    }  # fmt: skip
    assert [notices(client) for client in (ann, bob, elsewhere)] == [[], [], []]
    assert notices(moderator) == notices(owner) == [notice]
    rpc(bob, "report", id="r2", target=1)
    assert "reason" not in notices(owner)[1]
    answer = bob.ask("history", {"channel": "r", "limit": -1})
    assert [publication["data"]["type"] for publication in answer["publications"]] == ["text"]


def test_whoever_was_made_a_moderator_is_told(world: World) -> None:
    ann, bob, owner = member(world, "ann"), member(world, "bob"), member(world, "boss", "owner")
    rpc(owner, "grant", id="g1", user="bob", role="moderator")
    rpc(ann, "send", id="m1", content="rude")
    rpc(owner, "report", id="r1", target=1)
    assert [notice["event"] for notice in notices(bob)] == ["role", "reported"]
    assert notices(ann) == []


def test_a_retry_is_one_report(world: World) -> None:
    ann, bob, moderator = member(world, "ann"), member(world, "bob"), member(world, "mod", "moderator")
    rpc(ann, "send", id="m1", content="rude")
    assert rpc(bob, "report", id="r1", target=1) == {}
    rpc(moderator, "delete", id="d1", target=1)
    assert rpc(bob, "report", id="r1", target=1) == {}
    assert rpc(bob, "report", id="r1", target=1, reason="other") == 107
    assert len(notices(moderator)) == 1


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (1, "your own message"),
        (2, "has been removed"),
        (3, "which is no message"),
        (9, "no entry that this room shows"),
        (0, "no entry that this room shows"),
    ],
)
def test_what_can_be_reported_is_a_message_of_another_that_is_shown(world: World, target: int, complaint: str) -> None:
    ann, bob = member(world, "ann"), member(world, "bob")
    rpc(bob, "send", id="m1", content="mine")
    rpc(ann, "send", id="m2", content="removed")
    rpc(ann, "delete", id="d1", target=2)
    answer = bob.ask("rpc", {"method": "report", "data": {"channel": "r", "id": "r1", "target": target}})
    assert answer["error"]["code"] == 107
    assert complaint in answer["error"]["message"]


def test_muted_members_of_a_locked_slow_room_may_report_and_who_is_not_in_it_may_not(world: World) -> None:
    world.gateway.throttle = Throttle(Rates(user_publishes=0.0, user_reports=0.0, room_publishes=0.0))
    ann, bob, moderator = member(world, "ann"), member(world, "bob"), member(world, "mod", "moderator")
    rpc(ann, "send", id="m1", content="rude")
    for method, more in (("mute", {"user": "bob"}), ("lock", {}), ("slow", {"seconds": 60})):
        assert rpc(moderator, method, id=method, **more) == {}
    assert rpc(bob, "report", id="r1", target=1) == {}
    assert rpc(bob, "report", id="r2", target=1) == {}
    assert rpc(world.connected("cat"), "report", id="r1", target=1) == 103
    rpc(moderator, "ban", id="ban", user="bob")
    assert rpc(bob, "report", id="r3", target=1) == 103


def test_reports_have_a_rate_of_their_own(world: World) -> None:
    rates = Rates(user_publishes=0.0, user_reports=1.0, room_publishes=0.0, burst_seconds=1.0)
    world.gateway.throttle = Throttle(rates)
    ann, bob, cat = member(world, "ann"), member(world, "bob"), member(world, "cat")
    rpc(ann, "send", id="m1", content="rude")
    assert rpc(bob, "report", id="r1", target=1) == {}
    data = {"channel": "r", "id": "r2", "target": 1}
    answer = bob.ask("rpc", {"method": "report", "data": data})
    assert (answer["error"]["code"], "user_reports" in answer["error"]["message"]) == (111, True)
    assert rpc(cat, "report", id="r1", target=1) == {}
    assert rpc(bob, "send", id="m2", content="I still write") != 111
    world.run(2.0)
    assert rpc(bob, "report", id="r2", target=1) == {}
    assert world.gateway.counters.limited["user_reports"] == 1


def test_a_room_of_another_schema_has_no_reports(world: World) -> None:
    client = world.connected("ann")
    client.ask("subscribe", {"channel": "any:r"})
    assert client.code("rpc", {"method": "report", "data": {"channel": "any:r", "id": "1", "target": 1}}) == 108


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"id": ""}, "id is empty"),
        ({"id": "x" * 65}, "id is 65 bytes long"),
        ({"target": "1"}, "Expected `int`"),
        ({"reason": "x" * 1025}, "reason is 1025 bytes long"),
        ({"user": "ann"}, "user is no field of it; give channel, id, target, reason"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], complaint: str) -> None:
    data = json.dumps({"channel": "r", "id": "1", "target": 1, **given}).encode()
    with pytest.raises(CommandError, match=complaint):
        parse(data, Limits())


def kept(folder: Path) -> list[dict[str, Any]]:
    """What the log has of reports, in the tables and in the journal."""
    with closing(open_reader(folder / FILE_NAME)) as connection:
        rows = connection.execute("SELECT wires FROM chunk WHERE stream=? ORDER BY id", (META,)).fetchall()
        entries = [decode(wire, None) for (wires,) in rows for wire in split(wires)]
        entries += [entry for run in read_journal(connection).unfiled.values() for entry in run]
    return [msgspec.json.decode(entry.data) for entry in entries if entry.kind == Kind.META]


def test_a_real_node_keeps_a_report_and_tells_the_moderator(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        given = {"method": "report", "data": {"channel": "r", "id": "r1", "target": 1, "reason": "spam"}}
        with (
            connected(node.url, "ann") as ann,
            connected(node.url, "bob") as bob,
            connected(node.url, "mod", role="moderator") as moderator,
        ):
            for socket in (ann, bob, moderator):
                assert "subscribe" in socket.ask("subscribe", {"channel": "r"})
            assert "publish" in ann.publish("r", "m1", "rude")
            assert bob.ask("rpc", given)["rpc"] == {"data": {}}
            notice = next(push["message"]["data"] for push in moderator.pushes() if "message" in push)
            assert (notice["event"], notice["target"], notice["author"]) == ("reported", 1, "ann")
        node.restart()
        with connected(node.url, "bob") as bob:
            assert "subscribe" in bob.ask("subscribe", {"channel": "r"})
            assert bob.ask("rpc", given)["rpc"] == {"data": {}}
            assert [sequence for sequence, _ in bob.history("r")] == [1]
        assert kept(node.data_dir) == [
            {"id": "r1", "event": "reported", "by": "bob", "target": 1, "author": "ann", "reason": "spam"}
        ]
        assert not node.is_failing()

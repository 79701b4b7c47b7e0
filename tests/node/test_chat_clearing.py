"""Rpc `clear`: who may, what is left of what a user said, and that kills and restarts keep it so."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from node.chat_clearing import parse
from node.codes import CommandError
from tests.harness.chat_socket import connected
from tests.harness.client import Client, World
from tests.harness.node_process import NodeProcess
from tests.node.test_chat_process import ROOM, exported, read, recovered
from tests.node.test_chat_process import rpc as ask

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    kinds = {
        "default": RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE),
        "any": RoomKind(name="any", schema=Schema.ANY, publish=Who.ANYONE),
    }
    return World(Config(auth=Auth(insecure=True), rates=rates, kinds=kinds))


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The entry that an rpc made, or the code of its error."""
    answer = client.ask("rpc", {"method": method, "data": {"channel": "r", **data}})
    return answer["error"]["code"] if "error" in answer else answer["data"]


def said(client: Client, number: int, content: str = "Hello") -> int:
    sequence: int = rpc(client, "send", id=f"m{number}", content=content)["sequence"]
    return sequence


def types(client: Client) -> list[str]:
    """What the room's history consists of."""
    answer = client.ask("history", {"channel": "r", "limit": -1})
    return [publication["data"]["type"] for publication in answer["publications"]]


def test_all_that_a_user_said_is_gone_with_one_entry(world: World) -> None:
    ann, bob, moderator = world.connected("ann"), world.connected("bob"), world.connected("mod", role="moderator")
    bob.ask("subscribe", {"channel": "r"})
    said(ann, 1, "secret")
    said(bob, 2)
    rpc(ann, "edit", id="e1", target=1, content="secret")
    said(ann, 3, "secret")
    entry = rpc(moderator, "clear", id="c1", user="ann", reason="flood")
    assert {name: entry[name] for name in ("type", "user", "by", "reason", "sequence", "userId")} == {
        "type": "removed", "user": "ann", "by": "moderator", "reason": "flood", "sequence": 5, "userId": "mod",
    }  # fmt: skip
    assert "since" not in entry
    assert "target" not in entry
    said(ann, 4)
    assert types(bob) == ["placeholder", "text", "placeholder", "placeholder", "removed", "text"]
    assert bob.pushes("pub")[4]["pub"]["data"] == entry
    position = {"channel": "r", "recover": True, "offset": 0, "epoch": "birth.1"}
    assert "secret" not in str(world.connected("cat").ask("subscribe", position))
    first = bob.ask("history", {"channel": "r", "limit": 1})["publications"][0]["data"]
    assert (first["reason"], "target" in first) == ("flood", False)


def test_what_was_said_before_the_window_stays(world: World) -> None:
    ann, moderator = world.connected("ann"), world.connected("mod", role="moderator")
    for number in range(1, 4):
        said(ann, number)
    assert rpc(moderator, "clear", id="c1", user="ann", since=2)["since"] == 2
    assert types(ann) == ["text", "placeholder", "placeholder", "removed"]


def test_a_cleared_message_is_as_removed_as_any_and_can_be_restored_alone(world: World) -> None:
    ann, moderator = world.connected("ann"), world.connected("mod", role="moderator")
    said(ann, 1)
    said(ann, 2)
    rpc(moderator, "clear", id="c1", user="ann")
    for method, more in (("edit", {"content": "x"}), ("delete", {}), ("react", {"emoji": "+"})):
        assert rpc(ann, method, id=f"{method}1", target=1, **more) == 107
    assert rpc(ann, "send", id="m9", content="x", replyTo=1) == 107
    assert rpc(moderator, "restore", id="r1", target=1)["type"] == "restored"
    assert types(ann) == ["text", "placeholder", "removed", "restored"]
    assert rpc(ann, "edit", id="e1", target=1, content="better")["type"] == "edit"
    rpc(moderator, "clear", id="c2", user="ann")
    assert types(ann)[:5] == ["placeholder", "placeholder", "removed", "restored", "placeholder"]
    world.gateway.passed_ms = world.options.undo_ms + DAY_MS
    assert rpc(moderator, "restore", id="r2", target=1) == 107


def test_an_edit_that_was_on_its_way_is_removed_with_its_message(world: World) -> None:
    ann, moderator = world.connected("ann"), world.connected("mod", role="moderator")
    said(ann, 1)
    world.gateway.held = {"submit"}
    ann.tell("rpc", {"method": "edit", "data": {"channel": "r", "id": "e1", "target": 1, "content": "secret"}})
    moderator.tell("rpc", {"method": "clear", "data": {"channel": "r", "id": "c1", "user": "ann"}})
    world.gateway.waiting.reverse()
    world.gateway.release()
    assert types(ann) == ["placeholder", "removed", "placeholder"]


def test_a_retry_clears_once_and_shows_what_was_said_since(world: World) -> None:
    ann, moderator = world.connected("ann"), world.connected("mod", role="moderator")
    said(ann, 1)
    first = rpc(moderator, "clear", id="c1", user="ann")
    said(ann, 2)
    assert rpc(moderator, "clear", id="c1", user="ann") == first
    assert rpc(moderator, "clear", id="c1", user="ann", since=1) == 107
    assert types(ann) == ["placeholder", "removed", "text"]


@pytest.mark.parametrize(("role", "code"), [("", 103), ("admin", 103), ("moderator", None), ("owner", None)])
def test_who_may(world: World, role: str, code: int | None) -> None:
    said(world.connected("ann"), 1)
    answer = rpc(world.connected("mod", role=role), "clear", id="c1", user="ann")
    assert (answer if isinstance(answer, int) else None) == code


def test_moderators_cannot_clear_whom_the_room_made_an_owner(world: World) -> None:
    owner, moderator = world.connected("boss", role="owner"), world.connected("mod", role="moderator")
    rpc(owner, "grant", id="g1", user="ann", role="owner")
    assert rpc(moderator, "clear", id="c1", user="ann") == 103
    assert rpc(owner, "clear", id="c1", user="ann")["type"] == "removed"


def test_a_banned_moderator_clears_nothing(world: World) -> None:
    owner, moderator = world.connected("boss", role="owner"), world.connected("mod", role="moderator")
    rpc(owner, "ban", id="b1", user="mod")
    assert rpc(moderator, "clear", id="c1", user="ann") == 103


def test_a_room_of_another_schema_has_nothing_to_clear(world: World) -> None:
    moderator = world.connected("mod", role="moderator")
    assert moderator.code("rpc", {"method": "clear", "data": {"channel": "any:r", "id": "1", "user": "ann"}}) == 108


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"user": ""}, "user is empty"),
        ({"user": "x" * 256}, "user is 256 bytes long"),
        ({"user": 7}, "Expected `str`"),
        ({"id": ""}, "id is empty"),
        ({"id": "x" * 65}, "id is 65 bytes long"),
        ({"since": -1}, "since is -1; give the sequence"),
        ({"reason": "x" * 256}, "reason is 256 bytes long"),
        ({"seconds": 60}, "seconds is no field of it; give channel, id, user, since, reason"),
        ({"target": 1}, "target is no field of it"),
        ({"sequence": 1}, "sequence is set by the server"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], complaint: str) -> None:
    data = json.dumps({"channel": "r", "id": "1", "user": "ann", **given}).encode()
    with pytest.raises(CommandError, match=complaint):
        parse(data, Limits())


def test_a_window_that_begins_in_the_future_is_refused(world: World) -> None:
    said(world.connected("ann"), 1)
    moderator = world.connected("mod", role="moderator")
    answer = moderator.ask("rpc", {"method": "clear", "data": {"channel": "r", "id": "1", "user": "ann", "since": 2}})
    assert "since is 2, but the room's entries are 1 to 1" in answer["error"]["message"]


def test_a_real_node_serves_nothing_of_a_cleared_user_over_kills(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with connected(node.url, "ann") as ann, connected(node.url, "mod", role="moderator") as moderator:
            assert "subscribe" in ann.ask("subscribe", {"channel": ROOM})
            assert "subscribe" in moderator.ask("subscribe", {"channel": ROOM})
            for number in range(3):
                ask(ann, "send", id=f"m{number}", content=f"secret {number}")
            ask(moderator, "send", id="m9", content="harmless")
            ask(ann, "edit", id="e1", target=1, content="secret edit")
            ask(moderator, "clear", id="c1", user="ann", reason="flood")
            ask(moderator, "restore", id="r1", target=2)
            seen = [push["pub"]["data"]["type"] for push in islice((p for p in ann.pushes() if "pub" in p), 7)]
            assert seen == ["text"] * 4 + ["edit", "removed", "restored"]
        for life in range(3):
            node.restart()
            with connected(node.url, "ann") as ann, connected(node.url, "cat") as cat:
                assert "subscribe" in cat.ask("subscribe", {"channel": ROOM})
                for entries in (read(cat), read(cat, reverse=True)[::-1], recovered(ann, 0)):
                    assert [entry["sequence"] for entry in entries] == list(range(1, 8 + life))
                    assert [entry["type"] for entry in entries[:7]] == [
                        "placeholder", "text", "placeholder", "text", "placeholder", "removed", "restored",
                    ]  # fmt: skip
                    assert entries[4]["target"] == 1
                    text = json.dumps(entries)
                    assert "secret 1" in text
                    assert not any(hidden in text for hidden in ("secret 0", "secret 2", "secret edit"))
                ask(ann, "send", id=f"n{life}", content="again")
        assert "secret 0" not in exported(node)
        assert "secret edit" in exported(node, "--with-removed")
        assert not node.is_failing()

"""Rpcs about messages: who may, what everybody is sent, and what is left of a removed message."""

from __future__ import annotations

from typing import Any

import pytest

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Rates
from edge_config.schema import Auth, Config
from node.chat_entries import ACTIONS
from router.events import Away
from tests.harness.client import Client, World

CHAT = RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE)
ANY = RoomKind(name="any", schema=Schema.ANY, publish=Who.ANYONE)
DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    return World(Config(auth=Auth(insecure=True), rates=rates, kinds={"default": CHAT, "any": ANY}))


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The entry that an rpc made, or the code of its error."""
    answer = client.ask("rpc", {"method": method, "data": {"channel": "r", **data}})
    if answer is None:
        return None
    return answer["error"]["code"] if "error" in answer else answer["data"]


def said(client: Client, number: int, content: str = "Hello", **more: object) -> int:
    """Say something; its sequence."""
    sequence: int = rpc(client, "send", id=f"m{number}", content=content, **more)["sequence"]
    return sequence


def served(client: Client) -> list[dict[str, Any]]:
    """The room's history."""
    answer = client.ask("history", {"channel": "r", "limit": -1})
    return [publication["data"] for publication in answer["publications"]]


EXTRAS: dict[str, dict[str, object]] = {"edit": {"content": "New"}, "react": {"emoji": "+"}, "unreact": {"emoji": "+"}}


@pytest.mark.parametrize(
    ("method", "role", "own", "code"),
    [
        ("edit", "", True, None),
        ("edit", "", False, 103),
        ("edit", "moderator", False, 103),
        ("delete", "", True, None),
        ("delete", "", False, 103),
        ("delete", "moderator", False, None),
        ("delete", "owner", False, None),
        ("delete", "admin", False, 103),
        ("react", "", False, None),
        ("unreact", "", True, None),
        ("pin", "", True, 103),
        ("pin", "moderator", False, None),
        ("unpin", "owner", False, None),
        ("restore", "", True, 103),
        ("restore", "owner", True, 107),
    ],
)
def test_who_may(world: World, method: str, role: str, own: bool, code: int | None) -> None:
    author, other = world.connected("u1", role=role), world.connected("u2", role=role)
    sequence = said(author, 1)
    answer = rpc(author if own else other, method, id="a1", target=sequence, **EXTRAS.get(method, {}))
    assert (answer if isinstance(answer, int) else None) == code


def test_a_refusal_names_the_rpc_that_was_asked_for_and_who_may(world: World) -> None:
    author, other = world.connected("u1"), world.connected("u2")
    said(author, 1)
    refused = other.ask("rpc", {"method": "delete", "data": {"channel": "r", "id": "d1", "target": 1}})["error"]
    assert refused["message"].endswith("delete of message 1 is for the message's author, moderators and owners")


def test_an_entry_is_answered_whole_and_sent_to_everybody_with_an_offset_of_its_own(world: World) -> None:
    author, other = world.connected("u1"), world.connected("u2")
    other.ask("subscribe", {"channel": "r"})
    said(author, 1)
    edit = rpc(author, "edit", id="e1", target=1, content="New")
    assert edit == {
        "id": "e1", "type": "edit", "target": 1, "content": "New", "chatRoom": "r", "userId": "u1", "sequence": 2,
        "timestamp": edit["timestamp"],
    }  # fmt: skip
    pushed = [push["pub"] for push in other.pushes("pub")]
    assert [(pub["offset"], pub["data"]["type"]) for pub in pushed] == [(1, "text"), (2, "edit")]
    assert pushed[1]["data"] == edit


@pytest.mark.parametrize(
    ("role", "own", "by"), [("", True, "author"), ("moderator", True, "author"), ("owner", False, "moderator")]
)
def test_a_removal_says_by_whom(world: World, role: str, own: bool, by: str) -> None:
    author, other = world.connected("u1", role=role), world.connected("u2", role=role)
    said(author, 1)
    removed = rpc(author if own else other, "delete", id="d1", target=1, reason="off topic")
    assert (removed["type"], removed["target"], removed["by"], removed["reason"]) == ("removed", 1, by, "off topic")
    assert removed["userId"] == ("u1" if own else "u2")


def test_a_removed_message_and_its_edits_are_placeholders_from_then_on(world: World) -> None:
    author, moderator = world.connected("u1"), world.connected("u2", role="moderator")
    said(author, 1, "secret one")
    rpc(author, "edit", id="e1", target=1, content="secret two")
    said(author, 2)
    rpc(moderator, "delete", id="d1", target=1, reason="rude")
    first, edit, second, removed = served(author)
    for sequence, (entry, message_id, more) in enumerate([(first, "m1", {}), (edit, "e1", {"target": 1})], 1):
        assert entry == more | {
            "id": message_id, "type": "placeholder", "reason": "rude", "chatRoom": "r", "userId": "u1",
            "sequence": sequence, "timestamp": entry["timestamp"],
        }  # fmt: skip
    assert (second["content"], removed["type"]) == ("Hello", "removed")
    late = world.connected("u3")
    position = {"channel": "r", "recover": True, "offset": 0, "epoch": "birth.1"}
    recovered = late.ask("subscribe", position)["publications"]
    assert [publication["offset"] for publication in recovered] == [1, 2, 3, 4]
    assert "secret" not in str(recovered)


def test_a_message_that_is_removed_while_a_client_catches_up_is_not_shown_to_it(world: World) -> None:
    author, late = world.connected("u1"), world.connected("u2")
    for number in range(1, 6):
        said(author, number, f"secret {number}")
    world.gateway.page = 2
    world.gateway.held = {"history"}
    command = late.tell("subscribe", {"channel": "r", "recover": True, "offset": 0, "epoch": "birth.1"})
    world.gateway.answer_one()  # it has 1 and 2 now
    world.gateway.held = set()
    deleter = world.connected("u1")
    assert rpc(deleter, "delete", id="d1", target=1)["target"] == 1
    world.gateway.release("history")
    publications = late.answer(command)["publications"]
    assert [publication["offset"] for publication in publications] == [1, 2, 3, 4, 5, 6]
    assert publications[0]["data"]["type"] == "placeholder"
    assert "secret 1" not in str(late.transport.sent)


def test_the_reason_of_a_placeholder_is_never_empty(world: World) -> None:
    author = world.connected("u1")
    said(author, 1)
    rpc(author, "delete", id="d1", target=1)
    assert served(author)[0]["reason"] == "removed"


def test_a_moderator_takes_a_removal_back_within_the_time_for_it(world: World) -> None:
    author, moderator = world.connected("u1"), world.connected("u2", role="moderator")
    said(author, 1)
    rpc(author, "edit", id="e1", target=1, content="New")
    rpc(author, "delete", id="d1", target=1)
    restored = rpc(moderator, "restore", id="r1", target=1)
    assert (restored["type"], restored["target"], restored["by"]) == ("restored", 1, "moderator")
    assert [entry["type"] for entry in served(author)] == ["text", "edit", "removed", "restored"]
    assert rpc(author, "edit", id="e2", target=1, content="Newer")["sequence"] == 5
    rpc(author, "delete", id="d2", target=1)
    world.gateway.passed_ms = 31 * DAY_MS
    assert rpc(moderator, "restore", id="r2", target=1) == 107
    assert rpc(moderator, "restore", id="r1", target=1) == restored


@pytest.mark.parametrize("method", [method for method in ACTIONS if method != "restore"])
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (0, "no entry"),
        (-1, "no entry"),
        (99, "no entry"),
        (2**63, "no entry"),
        (2, "no message"),
        (3, "has been removed"),
    ],
)
def test_a_target_is_a_message_that_can_be_read(world: World, method: str, target: int, complaint: str) -> None:
    author = world.connected("u1", role="owner")
    said(author, 1)
    rpc(author, "edit", id="e1", target=1, content="New")
    said(author, 2)
    rpc(author, "delete", id="d1", target=3)
    data = {"channel": "r", "id": "x", "target": target, **EXTRAS.get(method, {})}
    error = author.ask("rpc", {"method": method, "data": data})["error"]
    assert error["code"] == 107
    assert complaint in error["message"]


@pytest.mark.parametrize("method", ACTIONS)
def test_a_retry_gets_the_first_result_whatever_became_of_the_target(world: World, method: str) -> None:
    author = world.connected("u1", role="owner")
    said(author, 1)
    if method == "restore":
        rpc(author, "delete", id="d0", target=1)
    given = {"id": "a1", "target": 1, **EXTRAS.get(method, {})}
    first = rpc(author, method, **given)
    assert rpc(author, method, **given) == first
    if method != "delete":
        rpc(author, "delete", id="d1", target=1)
    again = rpc(author, method, **given)
    if method == "edit":
        assert (again["type"], again["sequence"]) == ("placeholder", first["sequence"])
    else:
        assert again == first
    assert rpc(author, method, **given | {"target": 2}) == 107
    types = [entry["type"] for entry in served(author)]
    assert types.count(ACTIONS[method].name) == (1 if method != "edit" else 0)


@pytest.mark.parametrize("method", ACTIONS)
@pytest.mark.parametrize("own", [True, False])
def test_a_retry_gets_the_first_result_though_retention_dropped_the_target(
    world: World, method: str, own: bool
) -> None:
    author, moderator = world.connected("u1"), world.connected("u2", role="moderator")
    said(author, 1)
    if method == "restore":
        rpc(author, "delete", id="d0", target=1)
    actor = author if (own and method not in {"restore", "pin", "unpin"}) or method == "edit" else moderator
    given = {"id": "a1", "target": 1, **EXTRAS.get(method, {})}
    first = rpc(actor, method, **given)
    (room,) = world.gateway.rooms.values()
    room.floor = 1
    assert rpc(actor, method, **given) == first
    assert rpc(actor, method, **given | {"id": "a2"}) == 107
    assert rpc(actor, method, **given | {"target": 2}) == 107


@pytest.mark.parametrize("method", ["send", "edit", "delete", "react"])
@pytest.mark.parametrize("ruling", ["mute", "lock", "ban"])
def test_a_retry_gets_the_first_result_though_the_user_may_not_write_any_more(
    world: World, method: str, ruling: str
) -> None:
    author, moderator = world.connected("u1"), world.connected("u2", role="moderator")
    said(author, 1)
    about = {"content": "Hi"} if method == "send" else {"target": 1, **EXTRAS.get(method, {})}
    first = rpc(author, method, id="a1", **about)
    rpc(moderator, ruling, id="x", **({} if ruling == "lock" else {"user": "u1"}))
    assert rpc(author, method, id="a1", **about) == first
    assert rpc(author, method, id="a2", **about) == 103
    assert len(served(moderator)) == 2
    assert author.ask("publish", {"channel": "r", "data": {"id": "m1", "content": "Hello"}}) == {}
    assert author.code("publish", {"channel": "r", "data": {"id": "m9", "content": "Hello"}}) == 103


def test_a_retry_of_a_removed_message_does_not_show_it(world: World) -> None:
    author = world.connected("u1")
    said(author, 1, "secret")
    rpc(author, "delete", id="d1", target=1)
    assert rpc(author, "send", id="m1", content="secret")["type"] == "placeholder"


def test_a_retry_of_what_this_node_does_not_have_yet_is_to_be_tried_again(world: World) -> None:
    author = world.connected("u1")
    said(author, 2)
    (room,) = world.gateway.rooms.values()
    room.hidden = 1
    assert rpc(author, "send", id="m2", content="Hello") == 100
    room.hidden = 0
    assert rpc(author, "send", id="m2", content="Hello")["sequence"] == 1


def test_a_retry_of_what_retention_dropped_is_refused(world: World) -> None:
    author = world.connected("u1")
    said(author, 2)
    (room,) = world.gateway.rooms.values()
    room.floor = 1
    assert rpc(author, "send", id="m2", content="Hello") == 107


@pytest.mark.parametrize("method", ["send", "reply"])
def test_a_reply_answers_a_message_that_can_be_read(world: World, method: str) -> None:
    author = world.connected("u1")
    said(author, 1)
    reply = rpc(author, method, id="m2", content="Yes", replyTo=1)
    assert reply["replyTo"] == 1
    rpc(author, "delete", id="d1", target=1)
    assert rpc(author, method, id="m3", content="Yes", replyTo=1) == 107
    assert rpc(author, method, id="m3", content="Yes", replyTo=3) == 107
    assert rpc(author, method, id="m3", content="Yes", replyTo=9) == 107
    assert rpc(author, method, id="m2", content="Yes", replyTo=1) == reply
    assert author.code("publish", {"channel": "r", "data": {"id": "m4", "content": "x", "replyTo": 1}}) == 107
    assert author.ask("publish", {"channel": "r", "data": {"id": "m5", "content": "x", "replyTo": 2}}) == {}


def test_a_reply_needs_a_message_that_it_answers(world: World) -> None:
    assert rpc(world.connected("u1"), "reply", id="m1", content="Yes") == 107


@pytest.mark.parametrize("method", [*ACTIONS, "send", "reply"])
def test_a_room_of_another_schema_has_no_chat_methods(world: World, method: str) -> None:
    given = {"content": "x", "replyTo": 1} if method in {"send", "reply"} else {"target": 1, **EXTRAS.get(method, {})}
    assert rpc(world.connected("u1"), method, **given | {"channel": "any:r", "id": "1"}) == 108


def test_who_may_not_publish_may_not_react(world: World) -> None:
    author = world.connected("u1")
    said(author, 1)
    closed = World(Config(auth=Auth(insecure=True), kinds={"default": RoomKind()}))
    assert rpc(closed.connected("u2"), "react", id="a1", target=1, emoji="+") == 103


def test_an_unknown_method_is_told_which_there_are(world: World) -> None:
    error = world.connected("u1").ask("rpc", {"method": "frobnicate", "data": {}})["error"]
    assert error["code"] == 108
    assert "send, reply, edit, delete" in error["message"]


def test_what_waits_for_a_target_waits_in_order_and_not_for_ever(world: World) -> None:
    author = world.connected("u1")
    said(author, 1)
    world.gateway.held = {"history"}
    edit = author.tell("rpc", {"method": "edit", "data": {"channel": "r", "id": "e1", "target": 1, "content": "New"}})
    after = author.tell("publish", {"channel": "r", "data": {"id": "m2", "content": "x"}})
    assert (author.answer(edit), author.answer(after)) == (None, None)
    world.run(4.0)
    assert author.answer(edit)["error"]["code"] == 100
    assert author.answer(after)["error"]["code"] == 100
    world.gateway.release()
    assert [entry["type"] for entry in served(author)] == ["text"]


def test_a_log_that_is_away_is_an_error_that_passes(world: World) -> None:
    author = world.connected("u1")
    said(author, 1)
    author.ask("subscribe", {"channel": "r"})
    world.gateway.away = Away.OVERLOADED
    assert rpc(author, "delete", id="d1", target=1) == 100

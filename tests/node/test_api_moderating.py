"""What a site's back end lays down in chat rooms: at once, durable, and the same entries as rpcs make."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from edge_config.kinds import Schema
from edge_config.limits import Limits
from node import api_moderating
from node.api_listing import SLICE
from node.api_table import METHODS
from node.chat_rules import RULINGS, Rules
from tests.harness.api import KEY, READING, post
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODERATING: Final = "a-key-that-moderates-0123456789abcdef"
SETTINGS: Final = {
    "API__KEYS": f"{KEY}\nread:{READING}\nmoderate:{MODERATING}",
    "KINDS__DEFAULT__SCHEMA": "chat",
    "KINDS__ANY__SCHEMA": "any",
    "KINDS__SHORT__HISTORY_ENTRIES": "1",
}
GIVEN: Final[dict[str, dict[str, Any]]] = {
    "mute": {"user": "ann"},
    "unmute": {"user": "ann"},
    "ban": {"user": "ann"},
    "unban": {"user": "ann"},
    "kick": {"user": "ann"},
    "slow": {"seconds": 60},
    "lock": {},
    "unlock": {},
    "rename": {"title": "Help desk"},
    "grant": {"user": "ann", "role": "moderator"},
    "clear_user": {"user": "ann"},
    "delete_message": {"target": 1},
    "restore_message": {"target": 1},
    "edit_message": {"target": 1, "content": "better"},
    "pin_message": {"target": 1},
    "unpin_message": {"target": 1},
}
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "mute": {"seconds": 7},
    "unmute": {"user": "bob"},
    "ban": {"seconds": 7},
    "unban": {"user": "bob"},
    "kick": {"user": "bob"},
    "slow": {"seconds": 7},
    "rename": {"title": "x"},
    "grant": {"role": "owner"},
    "clear_user": {"user": "bob"},
    "delete_message": {"reason": "x"},
    "edit_message": {"content": "x"},
}
"""What makes another request of each in `GIVEN`."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("moderating"), settings=SETTINGS) as node:
        yield node


@pytest.fixture
def room() -> str:
    return str(uuid4())


def call(node: NodeProcess, method: str, room: str, **more: object) -> Any:  # noqa: ANN401 - any JSON
    """The result of a method; of an error its code and message."""
    body = post(node.internal, method, {"channel": room, **GIVEN.get(method, {}), **more}).body
    return body["result"] if "result" in body else (body["error"]["code"], body["error"]["message"])


def entered(socket: ChatSocket, room: str) -> ChatSocket:
    assert "subscribe" in socket.ask("subscribe", {"channel": room})
    return socket


def says(socket: ChatSocket, room: str) -> int | None:
    """The code of the error that a message gets; None: it is taken."""
    answer = socket.publish(room, str(uuid4()))
    return int(answer["error"]["code"]) if "error" in answer else None


def rpc(socket: ChatSocket, method: str, room: str, **data: object) -> Any:  # noqa: ANN401 - any JSON
    return socket.ask("rpc", {"method": method, "data": {"channel": room, **data}})["rpc"]["data"]


def notice(pushes: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next push, which must be a notice."""
    told: dict[str, Any] = next(pushes)["message"]["data"]
    assert told.pop("type") == "notice"
    return told


def test_every_moderating_method_is_tried() -> None:
    assert set(GIVEN) == {name for name, method in METHODS.items() if method.scope == "moderate"}
    assert set(RULINGS) <= set(GIVEN)


def test_a_muted_user_is_told_and_silent_until_unmuted(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann:
        pushes = entered(ann, room).pushes()
        assert call(node, "mute", room, seconds=3600, by="boss") == {}
        told = notice(pushes)
        assert (told["event"], told["by"], told["channel"]) == ("muted", "boss", room)
        assert says(ann, room) == 103
        (mute,) = call(node, "room_info", room)["mutes"]
        assert mute == {"user": "ann", "until": told["until"]}
        assert call(node, "unmute", room) == {}
        assert notice(pushes) == {"channel": room, "event": "unmuted", "by": "system"}
        assert says(ann, room) is None
        assert call(node, "room_info", room)["mutes"] == []


def test_a_banned_user_is_out_at_once_and_over_a_crash(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, settings=SETTINGS) as node:
        with connected(node.url, "ann") as ann:
            pushes = entered(ann, "r").pushes()
            assert call(node, "ban", "r") == {}
            assert notice(pushes)["event"] == "banned"
            assert next(pushes)["unsubscribe"] == {"code": 2000, "reason": "banned"}
        node.restart()
        assert call(node, "room_info", "r")["bans"] == [{"user": "ann"}]
        with connected(node.url, "ann") as ann:
            assert ann.ask("subscribe", {"channel": "r"})["error"]["code"] == 103
            assert call(node, "unban", "r") == {}
            entered(ann, "r")


def test_what_is_undone_while_a_rooms_rules_are_gone_through_is_left_out() -> None:
    rules = Rules({f"mute:u{number:03}": b"[0,0]" for number in range(2 * SLICE)})
    kind = SimpleNamespace(name="default", schema=Schema.CHAT)
    room = SimpleNamespace(
        id=SimpleNamespace(channel="r"), kind=kind, offset=0, epoch="e", members=0, users={}, rules=rules
    )
    methods = SimpleNamespace(gateway=SimpleNamespace(wall_ms=lambda: 0))
    answers: list[Any] = []
    steps = api_moderating._described(methods, room, answers.append)  # type: ignore[arg-type]
    next(steps)
    rules.muted.clear()
    assert sum(1 for _ in steps) == 1
    assert len(json.loads(answers[0])["mutes"]) == SLICE


def test_a_kicked_user_may_come_again(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann:
        pushes = entered(ann, room).pushes()
        assert call(node, "kick", room) == {}
        assert notice(pushes)["event"] == "kicked"
        assert next(pushes)["unsubscribe"]["reason"] == "kicked"
        entered(ann, room)


def test_a_room_is_locked_slowed_and_given_moderators(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
        for socket in (ann, bob):
            entered(socket, room)
        call(node, "lock", room)
        assert says(ann, room) == 103
        call(node, "grant", room)
        assert says(ann, room) is None
        call(node, "unlock", room)
        call(node, "slow", room)
        assert [says(bob, room) for _ in range(2)] == [None, 111]
        found = call(node, "room_info", room)
        assert found["num_clients"] == 2
        assert (found["roles"], found["locked"], found["slow_seconds"]) == ({"ann": "moderator"}, False, 60)
        call(node, "grant", room, role="member")
        call(node, "slow", room, seconds=0)
        found = call(node, "room_info", room)
        assert (found["roles"], found["slow_seconds"], found["schema"]) == ({}, 0, "chat")


def test_a_message_is_removed_and_restored_for_who_is_there_and_who_comes(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann:
        entered(ann, room).publish(room, "m1", "rude")
        pushes = ann.pushes()
        next(pushes)
        removed = call(node, "delete_message", room, reason="rules", by="boss")
        assert removed["offset"] == 2
        data = next(pushes)["pub"]["data"]
        assert (data["type"], data["userId"], data["by"], data["reason"]) == ("removed", "boss", "moderator", "rules")
        page = ann.ask("history", {"channel": room, "limit": 1})["history"]["publications"]
        assert (page[0]["data"]["type"], page[0]["data"]["reason"]) == ("placeholder", "rules")
        assert call(node, "restore_message", room)["offset"] == 3
        assert next(pushes)["pub"]["data"]["userId"] == "system"
        page = ann.ask("history", {"channel": room, "limit": 1})["history"]["publications"]
        assert page[0]["data"]["content"] == "rude"
        assert call(node, "pin_message", room)["offset"] == 4
        assert next(pushes)["pub"]["data"]["type"] == "pin"


def test_all_that_a_user_said_is_removed_with_one_entry(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
        for socket in (ann, bob):
            entered(socket, room)
        for number, socket in enumerate((ann, bob, ann), 1):
            socket.publish(room, f"m{number}", f"text {number}")
        assert call(node, "clear_user", room, since=2, reason="flood", by="boss")["offset"] == 4
        page = bob.ask("history", {"channel": room, "limit": 10})["history"]["publications"]
        assert [publication["data"]["type"] for publication in page] == ["text", "text", "placeholder", "removed"]
        assert (page[3]["data"]["user"], page[3]["data"]["userId"], page[2]["data"]["reason"]) == (
            "ann", "boss", "flood",
        )  # fmt: skip
        assert call(node, "clear_user", room)["offset"] == 5
        page = bob.ask("history", {"channel": room, "limit": 1})["history"]["publications"]
        assert page[0]["data"]["type"] == "placeholder"


def test_a_room_is_given_a_title(node: NodeProcess, room: str) -> None:
    assert call(node, "rename", room) == {}
    assert call(node, "room_info", room)["title"] == "Help desk"
    assert call(node, "rename", room, title="") == {}
    assert call(node, "room_info", room)["title"] == ""


def test_what_a_user_has_not_read_is_counted_as_for_the_user(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
        for socket in (ann, bob):
            entered(socket, room)
        for number in range(3):
            data = {"content": "Hi", "mentions": ["ann"] if number == 2 else []}
            post(node.internal, "publish", {"channel": room, "data": data, "user": "bob"})
        assert rpc(ann, "read", room, sequence=1) == {"read": 1}
        found = call(node, "unread", room, user="ann")
        assert found == rpc(ann, "unread", room) == {"unread": 2, "mentions": 1, "read": 1}
        assert call(node, "unread", room, user="bob") == {"unread": 0, "mentions": 0, "read": 0}
    assert call(node, "unread", room, user="zoe") == {"unread": 3, "mentions": 0, "read": 0}
    assert call(node, "unread", room, user="")[0] == 107
    assert call(node, "unread", "any:r", user="ann")[0] == 108


@pytest.mark.parametrize("target", [2**63, 2**64, 2**70, -(2**70)])
def test_a_target_beyond_all_numbers_is_none(node: NodeProcess, room: str, target: int) -> None:
    with connected(node.url, "ann") as ann:
        entered(ann, room).publish(room, "m1")
        data = {"channel": room, "id": "d1", "target": target}
        error = ann.ask("rpc", {"method": "delete", "data": data})["error"]
        assert (error["code"], "no entry that this room shows" in error["message"]) == (107, True)


def test_a_text_is_changed_in_the_name_of_its_author_only(node: NodeProcess, room: str) -> None:
    for user in ("", "ann"):
        post(node.internal, "publish", {"channel": room, "data": {"content": "Hi"}, "user": user})
    assert call(node, "edit_message", room)["offset"] == 3
    assert call(node, "edit_message", room, target=2, by="ann")["offset"] == 4
    code, message = call(node, "edit_message", room, target=2)
    assert (code, "author" in message) == (103, True)


@pytest.mark.parametrize("method", GIVEN)
def test_a_retry_under_the_same_key_is_one(node: NodeProcess, room: str, method: str) -> None:
    with connected(node.url, "ann") as ann:
        entered(ann, room)
        post(node.internal, "publish", {"channel": room, "data": {"content": "Hi"}})
        if method == "restore_message":
            call(node, "delete_message", room)
        given = {"idempotency_key": "k1"}
        first = call(node, method, room, **given)
        assert isinstance(first, dict), first
        offset = call(node, "room_info", room)["offset"]
        assert call(node, method, room, **given) == first
        assert call(node, "room_info", room)["offset"] == offset
        if (another := OTHERS.get(method)) is not None:
            code, message = call(node, method, room, **given, **another)
            assert (code, "idempotency_key" in message) == (107, True)


@pytest.mark.parametrize("by", ["ann", "mod"])
def test_a_retry_is_one_though_the_room_does_not_show_the_target_any_more(node: NodeProcess, by: str) -> None:
    room = f"short:{uuid4()}"
    post(node.internal, "publish", {"channel": room, "data": {"content": "Hi"}, "user": "ann"})
    first = call(node, "delete_message", room, by=by, idempotency_key="d1")
    assert first["offset"] == 2
    assert call(node, "delete_message", room, by=by, idempotency_key="d1") == first
    assert call(node, "delete_message", room, by=by, idempotency_key="d2")[0] == 107


def test_the_api_and_the_rpc_of_a_moderator_make_one_entry(node: NodeProcess, room: str) -> None:
    with connected(node.url, "ann") as ann, connected(node.url, "mod", role="moderator") as moderator:
        entered(ann, room).publish(room, "m1")
        entered(moderator, room)
        removed = rpc(moderator, "delete", room, id="d1", target=1, reason="x")
        again = call(node, "delete_message", room, by="mod", idempotency_key="d1", reason="x")
        assert again["offset"] == removed["sequence"]
        assert call(node, "mute", room, by="mod", idempotency_key="u1", seconds=60) == {}
        assert rpc(moderator, "mute", room, id="u1", user="ann", seconds=60) == {}
        pushes = ann.pushes()
        assert [next(pushes)["pub"]["data"]["type"] for _ in range(2)] == ["text", "removed"]
        assert notice(pushes)["by"] == "mod"
        call(node, "unlock", room)
        assert notice(pushes)["event"] == "unlocked", "there was no second notice of the mute"


@pytest.mark.parametrize(
    ("method", "given", "code", "told"),
    [
        ("mute", {"channel": "any:r"}, 108, "no chat room"),
        ("delete_message", {"channel": "any:r"}, 108, "no chat room"),
        ("room_info", {"channel": "none:r"}, 102, "[kinds.none]"),
        ("lock", {"channel": ""}, 107, "channel is 0 bytes long"),
        ("mute", {"user": ""}, 107, "user is missing"),
        ("mute", {"user": "x" * 256}, 107, "user is 256 bytes long"),
        ("mute", {"by": "x" * 256}, 107, "by is 256 bytes long"),
        ("mute", {"idempotency_key": "x" * 65}, 107, "idempotency_key is 65 bytes long"),
        ("delete_message", {"target": 99}, 107, "no entry that this room shows"),
        ("delete_message", {"reason": "x" * 256}, 107, "reason is 256 bytes long"),
        ("restore_message", {}, 107, "not removed"),
        ("edit_message", {"content": ""}, 107, "use delete"),
        ("edit_message", {"content": "x" * 8193}, 107, "content is 8193 bytes long"),
        ("slow", {"seconds": -1}, 107, ">= 0"),
        ("mute", {"seconds": 367 * 86_400}, 107, "<= 31622400"),
        ("rename", {"title": "two\nlines"}, 107, "control characters"),
        ("clear_user", {"channel": "any:r"}, 108, "no chat room"),
        ("clear_user", {"since": 2}, 107, "since is 2, but the room's entries are 1 to 1"),
        ("clear_user", {"user": ""}, 107, "user is empty"),
        ("grant", {"role": "king"}, 107, "at `$.role`; give one of member, moderator, owner"),
        ("delete_message", {"target": 0}, 107, ">= 1"),
    ],
)
def test_what_is_refused_says_why(  # noqa: PLR0917 - a row of the table
    node: NodeProcess, room: str, method: str, given: dict[str, object], code: int, told: str
) -> None:
    post(node.internal, "publish", {"channel": room, "data": {"content": "Hi"}})
    answer = post(node.internal, method, {"channel": room, **GIVEN.get(method, {}), **given})
    assert answer.body["error"]["code"] == code
    assert told in answer.body["error"]["message"]
    assert answer.status == (400 if "the body is no request" in answer.body["error"]["message"] else 200)


def test_a_full_room_takes_nothing_more_but_undoes(node: NodeProcess, room: str) -> None:
    users = [f"u{number}" for number in range(Limits().room_rules)]
    for start in range(0, len(users), 1000):
        commands = [{"mute": {"channel": room, "user": user}} for user in users[start : start + 1000]]
        replies = post(node.internal, "batch", {"commands": commands, "parallel": True}).body["replies"]
        assert replies == [{"mute": {}}] * 1000
    code, message = call(node, "mute", room)
    assert (code, "10000 mutes" in message) == (106, True)
    assert len(call(node, "room_info", room)["mutes"]) == len(users)
    assert call(node, "unmute", room, user="u0") == {}
    assert call(node, "mute", room) == {}


def test_moderating_needs_a_scope_of_its_own_and_reading_its_results_another(node: NodeProcess, room: str) -> None:
    for method, given in GIVEN.items():
        assert post(node.internal, method, {"channel": room, **given}, key=READING).status == 403
    assert post(node.internal, "lock", {"channel": room}, key=MODERATING).body == {"result": {}}
    assert post(node.internal, "publish", {"channel": room, "data": 1}, key=MODERATING).status == 403
    assert post(node.internal, "room_info", {"channel": room}, key=MODERATING).status == 403
    assert post(node.internal, "room_info", {"channel": room}, key=READING).body["result"]["locked"] is True


def test_a_batch_moderates_in_order(node: NodeProcess, room: str) -> None:
    commands = [
        {"publish": {"channel": room, "data": {"content": "Hi"}}},
        {"delete_message": {"channel": room, "target": 1}},
        {"lock": {"channel": room}},
        {"room_info": {"channel": room}},
    ]
    replies = post(node.internal, "batch", {"commands": commands}).body["replies"]
    assert replies[1]["delete_message"]["offset"] == 2
    assert replies[2] == {"lock": {}}
    assert (replies[3]["room_info"]["locked"], replies[3]["room_info"]["offset"]) == (True, 2)

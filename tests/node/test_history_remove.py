"""`history_remove` of a real node: for members, recoveries, targets, other sites, and after a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from tests.harness.api import KEY, READING, post
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANAGING: Final = "a-key-that-manages-0123456789abcdef"
SETTINGS: Final = {
    "API__KEYS": f"{KEY}\nread:{READING}\nmanage:{MANAGING}",
    "KINDS__DEFAULT__SCHEMA": "chat",
    "KINDS__ANY__SCHEMA": "any",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("removing"), settings=SETTINGS) as node:
        yield node


@pytest.fixture(params=["", "any:"])
def room(request: pytest.FixtureRequest) -> str:
    return f"{request.param}{uuid4()}"


def call(node: NodeProcess, method: str, room: str, **more: object) -> Any:  # noqa: ANN401 - any JSON
    """The result of a method, or the code of its error."""
    body = post(node.internal, method, {"channel": room, **more}).body
    return body["result"] if "result" in body else body["error"]["code"]


def publish(node: NodeProcess, room: str, text: str) -> int:
    return int(call(node, "publish", room, data={"content": text})["offset"])


def recover(socket: ChatSocket, room: str, offset: int) -> tuple[bool, list[int]]:
    body = {"channel": room, "recover": True, "offset": offset, "epoch": ""}
    answer = socket.ask("subscribe", body)["subscribe"]
    socket.ask("unsubscribe", {"channel": room})
    return answer.get("recovered", False), [each["offset"] for each in answer.get("publications", ())]


def test_who_missed_something_of_it_recovers_nothing_and_who_did_not_goes_on(node: NodeProcess, room: str) -> None:
    for n in range(3):
        publish(node, room, f"old {n}")
    with connected(node.url, "u1") as here, connected(node.url, "u2") as back:
        here.ask("subscribe", {"channel": room})
        assert recover(back, room, 1) == (True, [2, 3])
        assert call(node, "history_remove", room) == {}
        assert publish(node, room, "new") == 4
        push = next(here.pushes())
        assert push["pub"]["offset"] == 4, "the members are told of nothing but what is new"
        assert [recover(back, room, since) for since in range(5)] == [(False, [])] * 3 + [(True, [4]), (True, [])]
        history = here.ask("history", {"channel": room, "limit": 10})["history"]
        assert ([each["offset"] for each in history["publications"]], history["offset"]) == ([4], 4)


def test_what_is_gone_is_no_target(node: NodeProcess) -> None:
    room = str(uuid4())
    for n in range(2):
        publish(node, room, f"old {n}")
    assert call(node, "history_remove", room) == {}
    for method, more in (("delete_message", {}), ("edit_message", {"content": "x"}), ("pin_message", {})):
        assert call(node, method, room, target=2, **more) == 107
    assert call(node, "publish", room, data={"content": "x", "replyTo": 1}) == 107
    with connected(node.url, "u1") as socket:
        socket.ask("subscribe", {"channel": room})
        for method in ("react", "edit", "delete"):
            data = {"channel": room, "id": str(uuid4()), "target": 1}
            data |= {"react": {"emoji": "+"}, "edit": {"content": "x"}, "delete": {}}[method]
            assert socket.ask("rpc", {"method": method, "data": data})["error"]["code"] == 107


def test_a_retry_of_what_is_gone_is_still_known(node: NodeProcess) -> None:
    room = f"any:{uuid4()}"
    first = call(node, "publish", room, data=1, idempotency_key="k")
    call(node, "history_remove", room)
    assert call(node, "publish", room, data=1, idempotency_key="k") == first
    assert call(node, "history", room, limit=10)["publications"] == []


def test_a_room_that_was_never_written_has_nothing_to_remove(node: NodeProcess, room: str) -> None:
    assert call(node, "history_remove", room) == {}
    assert publish(node, room, "first") == 1
    assert [each["offset"] for each in call(node, "history", room, limit=10)["publications"]] == [1]


def test_it_takes_the_scope_to_manage_and_a_room_that_can_be(node: NodeProcess, room: str) -> None:
    assert post(node.internal, "history_remove", {"channel": room}, key=READING).status == 403
    assert post(node.internal, "history_remove", {"channel": room}, key=MANAGING).body == {"result": {}}
    assert call(node, "history_remove", "none:x") == 102


def test_what_was_removed_stays_so_when_the_node_is_killed_at_once(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, settings=SETTINGS) as node:
        for life in range(5):
            text = f"secret {life}"
            top = [publish(node, "r", text) for _ in range(3)][-1]
            before = call(node, "history", "r", limit=100)
            assert len(before["publications"]) == 3
            assert call(node, "history_remove", "r") == {}
            node.kill()
            node.start()
            history = call(node, "history", "r", limit=100)
            assert history == {"publications": [], "epoch": before["epoch"], "offset": top}
            with connected(node.url, "u1") as socket:
                assert recover(socket, "r", top - 1) == (False, [])
                assert recover(socket, "r", top) == (True, [])

"""Marks on a real node: over kills and ends, for all of a user's connections, and told to who is to be told."""

from __future__ import annotations

import signal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from edge_config.kinds import RoomKind
from edge_config.schema import Config, Log
from node.app import _keep
from router.retention import Keep
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from pathlib import Path

ROOM: Final = "support"


def rpc(socket: ChatSocket, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    answer = socket.ask("rpc", {"method": method, "data": {"channel": ROOM, **data}})
    return answer["rpc"]["data"] if "rpc" in answer else answer["error"]["code"]


def join(*sockets: ChatSocket) -> None:
    for socket in sockets:
        assert "subscribe" in socket.ask("subscribe", {"channel": ROOM})


def told(socket: ChatSocket, publications: int) -> list[Any]:
    """Of the first so many publications, those that are marks."""
    pushed = islice((push["pub"] for push in socket.pushes() if "pub" in push), publications)
    return [pub["data"] for pub in pushed if pub["data"]["type"] == "read"]


def test_what_was_answered_outlives_kills_and_is_the_same_on_all_devices(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with connected(node.url, "ann") as ann, connected(node.url, "bob") as phone, connected(node.url, "bob") as desk:
            join(ann, phone, desk)
            for number in range(4):
                assert "publish" in ann.publish(ROOM, f"m{number}")
            assert rpc(phone, "read", sequence=1) == {"read": 1}
            assert rpc(desk, "read", sequence=3) == {"read": 3}  # at the end of the period
            assert rpc(phone, "read", sequence=2) == {"read": 3}
            assert told(ann, 6) == [{"type": "read", "userId": "bob", "sequence": mark} for mark in (1, 3)]
        for _ in range(2):
            node.restart()
            with connected(node.url, "bob") as bob:
                join(bob)
                assert rpc(bob, "unread") == {"unread": 1, "mentions": 0, "read": 3}
        with connected(node.url, "bob") as bob:
            join(bob)
            assert rpc(bob, "read", sequence=4) == {"read": 4}
        assert node.verdict()[0] == 0


def test_an_end_in_order_answers_or_keeps_what_waits_for_its_period(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, settings={"LOG__READ_PERIOD_MS": 2500, "HUB__DRAIN_SECONDS": 1}) as node:
        with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
            join(ann, bob)
            for number in range(3):
                assert "publish" in ann.publish(ROOM, f"m{number}")
            assert rpc(bob, "read", sequence=1) == {"read": 1}
            bob.connection.send('{"id":90,"rpc":{"method":"read","data":{"channel":"support","sequence":2}}}')
            assert "history" in bob.ask("history", {"channel": ROOM, "limit": 1})  # the node has it, and does not wait
            node.tell(signal.SIGTERM)
            assert node.wait_ended() == 0
        node.start()
        with connected(node.url, "bob") as bob:
            join(bob)
            assert rpc(bob, "unread")["read"] == 2


def test_in_a_big_room_only_the_users_own_connections_are_told(tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path, settings={"KINDS__DEFAULT__READ_MEMBERS": 2}) as node,
        connected(node.url, "ann") as ann,
        connected(node.url, "bob") as phone,
        connected(node.url, "bob") as desk,
        connected(node.url, "bob") as elsewhere,
    ):
        join(ann, phone, desk)
        assert "publish" in ann.publish(ROOM, "m1")
        assert rpc(phone, "read", sequence=1) == {"read": 1}
        assert "publish" in ann.publish(ROOM, "m2")
        mark = {"type": "read", "userId": "bob", "sequence": 1}
        assert told(phone, 3) == told(desk, 3) == [mark]
        assert told(ann, 2) == []
        assert rpc(elsewhere, "unread")["read"] == 1
        assert not elsewhere._pushed


def test_what_a_kind_of_rooms_keeps_is_what_retention_is_told() -> None:
    config = Config(log=Log(retention_days=3))
    assert _keep(config, RoomKind(read_marks=7, retention_bytes=5)) == Keep(seconds=3 * 86_400, bytes=5, marks=7)
    assert _keep(config, RoomKind(retention_days=1)) == Keep(seconds=86_400, marks=10_000)

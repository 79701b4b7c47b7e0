"""A real node: two clients live, and removed messages over kills."""

from __future__ import annotations

import json
import subprocess
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import COMMAND, NodeProcess

if TYPE_CHECKING:
    from pathlib import Path

ROOM: Final = "support"


def rpc(socket: ChatSocket, method: str, **data: object) -> dict[str, Any]:
    """The entry that an rpc made."""
    answer = socket.ask("rpc", {"method": method, "data": {"channel": ROOM, **data}})
    assert "rpc" in answer, answer
    entry: dict[str, Any] = answer["rpc"]["data"]
    return entry


def recovered(socket: ChatSocket, offset: int) -> list[dict[str, Any]]:
    """What a client is given that was here before."""
    answer = socket.ask("subscribe", {"channel": ROOM, "recover": True, "offset": offset})["subscribe"]
    assert answer["recovered"]
    return [publication["data"] for publication in answer["publications"]]


def read(socket: ChatSocket, *, reverse: bool = False) -> list[dict[str, Any]]:
    """The room's history."""
    answer = socket.ask("history", {"channel": ROOM, "limit": -1, "reverse": reverse})["history"]
    return [publication["data"] for publication in answer["publications"]]


def exported(node: NodeProcess, *options: str) -> str:
    """What `chat-node log export` prints."""
    command = [*COMMAND, "log", "export", "--data-dir", str(node.data_dir), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_what_one_does_the_other_sees_and_removed_text_is_gone_after_kills(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
            for socket in (ann, bob):
                assert "subscribe" in socket.ask("subscribe", {"channel": ROOM})
            rpc(ann, "send", id="m1", content="secret one")
            rpc(ann, "edit", id="e1", target=1, content="secret two")
            rpc(bob, "react", id="r1", target=1, emoji="+")
            rpc(bob, "send", id="m2", content="harmless")
            removed = rpc(ann, "delete", id="d1", target=1, reason="oops")
            assert (removed["sequence"], removed["by"]) == (5, "author")
            seen = list(islice((push["pub"] for push in bob.pushes() if "pub" in push), 5))
            assert [(pub["offset"], pub["data"]["type"]) for pub in seen] == [
                (1, "text"), (2, "edit"), (3, "reaction"), (4, "text"), (5, "removed"),
            ]  # fmt: skip
            assert [entry["type"] for entry in read(ann)][:2] == ["placeholder", "placeholder"]
        for _ in range(2):
            node.restart()
            with connected(node.url, "ann") as ann, connected(node.url, "cat") as cat:
                assert "subscribe" in cat.ask("subscribe", {"channel": ROOM})
                for entries in (read(cat), read(cat, reverse=True)[::-1], recovered(ann, 0)):
                    assert "secret" not in json.dumps(entries)
                    assert [entry["sequence"] for entry in entries] == [1, 2, 3, 4, 5]
                    assert [entry["type"] for entry in entries] == [
                        "placeholder", "placeholder", "reaction", "text", "removed",
                    ]  # fmt: skip
                assert rpc(ann, "delete", id="d1", target=1, reason="oops")["sequence"] == 5
                assert rpc(ann, "send", id="m1", content="secret one")["type"] == "placeholder"
        assert "secret" not in exported(node)
        assert "secret two" in exported(node, "--with-removed")
        assert not node.is_failing()


def test_a_moderator_restores_after_a_kill(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with connected(node.url, "ann") as ann:
            ann.ask("subscribe", {"channel": ROOM})
            rpc(ann, "send", id="m1", content="Hello")
            rpc(ann, "delete", id="d1", target=1)
        node.restart()
        with connected(node.url, "mod", role="moderator") as moderator:
            moderator.ask("subscribe", {"channel": ROOM})
            assert read(moderator)[0]["type"] == "placeholder"
            assert rpc(moderator, "restore", id="r1", target=1)["by"] == "moderator"
            assert read(moderator)[0]["content"] == "Hello"
        node.restart()
        with connected(node.url, "ann") as ann:
            ann.ask("subscribe", {"channel": ROOM})
            assert [entry["type"] for entry in read(ann)] == ["text", "removed", "restored"]

"""The JavaScript SDK, unmodified, against a real node; `tests/sdk/scenes.mjs` holds what it does and expects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.harness.javascript import FOLDER, install_sdk
from tests.harness.node_process import NodeProcess, token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js with npm"),
]

SCENE_SECONDS: Final = 30  # never reached


@pytest.fixture(scope="module")
def sdk() -> None:
    """The SDK as the lock file names it, installed if it is not there yet."""
    install_sdk()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that all scenes but the violent one share; each has a room of its own."""
    with NodeProcess(tmp_path_factory.mktemp("node"), settings={"KINDS__DEFAULT__DELTA": "true"}) as node:
        yield node


def play(scene: str, node: NodeProcess, transport: str = "websocket") -> None:
    """Play a scene to its end; restart the node whenever the scene says so.

    Raises:
        AssertionError: It did not go as it must; the scene's complaint is in the message.
    """
    process = subprocess.Popen(
        ("node", str(FOLDER / "scenes.mjs"), scene),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CHAT_SCENE": json.dumps({**arguments(node), "transport": transport})},
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if scene == "kill" and process.stdout.readline() == "kill\n":
                node.restart()
                process.stdin.write("done\n")
                process.stdin.flush()
            _, complaint = process.communicate(timeout=SCENE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, complaint


def arguments(node: NodeProcess) -> dict[str, object]:
    """What a scene knows: `tokens.brief` end one after the other, the last one much later."""
    room, now = f"room-{uuid4()}", int(time.time())
    tokens = {
        "ann": token("ann"),
        "bob": token("bob"),
        "room": token("bob", channel=f"${room}"),
        "brief": [token("ann", exp=now + 3), token("ann", exp=now + 600)],
    }
    return {"url": node.url, "room": room, "tokens": tokens}


TRANSPORTS = pytest.mark.parametrize(
    "transport", ["websocket", "protobuf", "http_stream", "protobuf_http_stream", "sse"]
)


@TRANSPORTS
@pytest.mark.parametrize("scene", ["publish", "history", "delta", "read", "presence", "private", "badToken", "refresh"])
@pytest.mark.usefixtures("sdk")
def test_the_sdk_plays_a_scene(scene: str, transport: str, shared: NodeProcess) -> None:
    play(scene, shared, transport)


@pytest.mark.usefixtures("sdk")
def test_members_of_all_transports_see_one_order(shared: NodeProcess) -> None:
    play("order", shared)


@TRANSPORTS
@pytest.mark.usefixtures("sdk")
def test_the_sdk_recovers_what_it_missed_when_the_node_was_killed(tmp_path: Path, transport: str) -> None:
    with NodeProcess(tmp_path) as node:
        play("kill", node, transport)

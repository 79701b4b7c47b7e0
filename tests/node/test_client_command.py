"""``chat-node chat``, ``send`` and ``tail`` as processes, with a real node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from node.client import Publication
from node.client_command import told
from tests.harness.node_process import COMMAND, NodeProcess, token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS: Final = 30  # for whatever a process does; never reached


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("commands")) as running:
        yield running


def environment(node: NodeProcess | None, user: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    url = node.public if node is not None else "http://127.0.0.1:1"
    return kept | {"CHAT_CLIENT_URL": url, "CHAT_CLIENT_TOKEN": token(user)}


def call(
    node: NodeProcess | None, *arguments: str, user: str = "ada", said: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=said, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment(node, user),
    )  # fmt: skip


def test_send_prints_the_sequence_and_tail_what_was_said(node: NodeProcess) -> None:
    first, second = call(node, "send", "talk", "Hello"), call(node, "send", "talk", "-", "--json", said="Two\nlines\n")
    assert (first.returncode, first.stdout) == (0, "1\n")
    message = json.loads(second.stdout)
    assert (message["sequence"], message["content"]) == (2, "Two\nlines")
    seen = call(node, "tail", "talk", "--since", "0", "--no-follow")
    assert seen.returncode == 0
    assert [line[9:] for line in seen.stdout.splitlines()[:2]] == ["ada: Hello", "ada: Two"]
    assert seen.stdout.splitlines()[2] == "    lines"
    only = call(node, "tail", "talk", "--since", "1", "--no-follow", "--json")
    assert [json.loads(line)["sequence"] for line in only.stdout.splitlines()] == [2]


def test_the_commands_are_of_use_where_only_subscribers_may_speak_and_read(tmp_path: Path) -> None:
    settings = {"KINDS__DEFAULT__PUBLISH": "subscriber", "KINDS__DEFAULT__READ_HISTORY": "subscriber"}
    with NodeProcess(tmp_path, settings=settings) as strict:
        for number in (1, 2):
            done = call(strict, "send", "talk", "Hello")
            assert (done.returncode, done.stdout) == (0, f"{number}\n"), done.stderr
        seen = call(strict, "tail", "talk", "--since", "1", "--no-follow", "--json")
        assert [json.loads(line)["sequence"] for line in seen.stdout.splitlines()] == [2], seen.stderr
        assert call(strict, "tail", "talk", "--since", "3", "--no-follow").returncode == 2


def test_the_same_id_is_sent_once(node: NodeProcess) -> None:
    assert [call(node, "send", "once", "Hello", "--id", "x").stdout for _ in range(2)] == ["1\n", "1\n"]


def test_chat_in_a_pipe_sends_every_line_and_prints_them_in_order(node: NodeProcess) -> None:
    done = call(node, "chat", "pipe", "--json", said="".join(f"line {n}\n" for n in range(20)) + "\nlast")
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["content"] for message in messages] == [f"line {n}" for n in range(20)] + ["last"]
    assert [message["sequence"] for message in messages] == list(range(1, 22))


def test_tail_follows_until_it_is_interrupted(node: NodeProcess) -> None:
    process = subprocess.Popen(
        [*COMMAND, "tail", "follow", "--since", "0"], stdout=subprocess.PIPE, text=True, env=environment(node, "eve")
    )
    try:
        assert process.stdout is not None
        assert call(node, "send", "follow", "Hello").returncode == 0
        assert process.stdout.readline()[9:] == "ada: Hello\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, rest) == (130, "")
    finally:
        process.kill()
        process.wait()


def test_who_has_seen_enough_of_tail_ends_it_quietly(node: NodeProcess) -> None:
    call(node, "chat", "enough", said="Hello\n" * 3)
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*COMMAND, "tail", "enough", "--since", "0"]
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(
            arguments, check=False, stdout=output, stderr=subprocess.PIPE, timeout=SECONDS, env=environment(node, "eve")
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("send", "$private", "Hello"), 1, "subscription token"),
        (("send", "unknown:a", "Hello"), 1, "102"),
        (("send", "talk", "Hello", "--token", "bad"), 1, "chat-node token create"),
        (("send", "talk", "Hello", "--url", "nowhere"), 2, "ws://127.0.0.1:8000"),
        (("tail", "empty", "--since", "7", "--no-follow"), 2, "Give 0 or less"),
        (("send",), 2, "ROOM"),
    ],
)
def test_what_goes_wrong_is_said_with_its_mend(
    node: NodeProcess, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = call(node, *arguments)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_no_node_is_said(node: NodeProcess) -> None:
    del node
    done = call(None, "send", "talk", "Hello")
    assert done.returncode == 1
    assert "Is the node running there?" in done.stderr


def test_what_others_write_does_not_steer_the_terminal() -> None:
    data = {"type": "text", "userId": "e\x1bve", "content": "\x1b[2J\nada: fake", "timestamp": "2026-11-24T10:30:00.1Z"}
    assert told(Publication("a", 1, data)) == "10:30:00 e\ufffdve: \ufffd[2J\n    ada: fake"


def test_what_the_node_tells_of_a_room_reads_as_words() -> None:
    data = {"type": "system", "event": "role", "userId": "system", "timestamp": "2026-11-24T10:30:00.1Z"}
    assert told(Publication("a", 1, {**data, "data": {"by": "ada", "user": "bob", "role": "moderator"}})) == (
        "10:30:00 system: (role: by ada, user bob, role moderator)"
    )
    assert told(Publication("a", 1, data)) == "10:30:00 system: (role)"

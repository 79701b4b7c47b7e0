"""The command ``chat-node`` as processes: a node, and the commands that look at it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node import endpoints

SECONDS = 30  # for whatever a process does; never reached
COMMAND = [sys.executable, "-c", "from node.cli import main; main()"]

Start = Callable[..., "Node"]


class Node:
    """A running node."""

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [*COMMAND, "run", "--region", "test", "--dev", "--port", "0", "--data-dir", str(data_dir), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def wait_started(self) -> str:
        """Its summary."""
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        return "".join(line for line in iter(lambda: next(lines, "\n"), "\n"))

    def end(self, signum: signal.Signals) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error."""
        self.process.send_signal(signum)
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_NODE")}


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=SECONDS, env=environment()
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts nodes, and ends those that still run after the test."""
    started: list[Node] = []

    def start_one(*flags: str, data_dir: Path = tmp_path / "data") -> Node:
        started.append(Node(data_dir, *flags))
        return started[-1]

    yield start_one
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
        node.process.communicate()


@pytest.mark.slow
def test_a_node_starts_is_well_and_ends_when_told(start: Start) -> None:
    node = start()
    summary = node.wait_started()
    where = endpoints.read(node.data_dir)
    assert where is not None
    assert f"{where.public}/" in summary
    assert f"{where.internal}/metrics" in summary
    assert str(node.data_dir) in summary

    status = call("cluster", "status", "--data-dir", str(node.data_dir), "--json")
    assert (status.returncode, status.stderr) == (0, "")
    found = json.loads(status.stdout)
    assert (found["verdict"], found["nodes_up"], found["nodes"][0]["region"]) == ("OK", 1, "test")

    code, errors = node.end(signal.SIGTERM)
    assert code == 0
    assert [json.loads(line)["level"] for line in errors.splitlines()] == ["info"] * len(errors.splitlines())


@pytest.mark.slow
def test_a_node_that_was_killed_is_unreachable_and_starts_again(start: Start) -> None:
    node = start()
    node.wait_started()
    node.end(signal.SIGKILL)
    status = call("cluster", "status", "--data-dir", str(node.data_dir))
    assert status.returncode == 2
    assert "is unreachable: Connection refused" in status.stdout

    start().wait_started()
    assert call("cluster", "status", "--data-dir", str(node.data_dir)).returncode == 0


@pytest.mark.slow
def test_ctrl_c_drains_like_sigterm(start: Start) -> None:
    node = start()
    node.wait_started()
    assert node.end(signal.SIGINT)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "key"), [("--port", "listen.port"), ("--internal-port", "listen.internal_port")])
def test_a_port_in_use_is_one_message(start: Start, flag: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = start(flag, str(port))
        output, errors = node.process.communicate(timeout=SECONDS)
    assert (node.process.returncode, output) == (1, "")
    assert errors.count("\n") == 1
    assert f"127.0.0.1 port {port} ({key}): another process has the port" in errors


@pytest.mark.slow
def test_a_data_directory_in_use_is_one_message_that_names_the_other(start: Start) -> None:
    first = start()
    first.wait_started()
    second = start()
    output, errors = second.process.communicate(timeout=SECONDS)
    assert (second.process.returncode, output) == (1, "")
    assert errors.count("\n") == 1
    assert f"in use by process {first.process.pid}" in errors


@pytest.mark.slow
def test_a_data_directory_that_can_not_be_made_is_one_message(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    node = start(data_dir=tmp_path / "file" / "data")
    output, errors = node.process.communicate(timeout=SECONDS)
    assert (node.process.returncode, output) == (1, "")
    assert "Traceback" not in errors
    assert str(tmp_path / "file" / "data") in errors


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_fault() -> None:
    process = subprocess.Popen(
        [*COMMAND, "config", "init"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert "Traceback" not in stderr.read()
    process.wait(timeout=SECONDS)

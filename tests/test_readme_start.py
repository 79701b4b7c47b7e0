"""The README's five minutes: every command and every piece of code, as somebody does it who reads it first."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from node import endpoints
from tests.harness.javascript import FOLDER, install_sdk
from tests.harness.node_process import wait_for
from tests.test_readme import section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from node.endpoints import Endpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js with npm"),
]
SECONDS: Final = 60  # for one command; never reached
PAGE: Final = """
import WebSocket from "ws";
globalThis.WebSocket = WebSocket; // which browsers have
globalThis.fetch = async () => ({ text: async () => process.env.CHAT_TOKEN });
"""


def blocks(title: str, language: str) -> list[str]:
    """The pieces of code of a language in a section."""
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return kept | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CHAT_NODE_NODE__DATA_DIR": str(folder / "chat-data"),
        "CHAT_NODE_LISTEN__PORT": "0",
        "CHAT_NODE_LISTEN__INTERNAL_PORT": "0",
    }


def run(folder: Path, *command: str, **more: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder) | more, check=False, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where somebody did what the first block says, with other ports; its node is running."""
    install_sdk()
    folder = tmp_path_factory.mktemp("start")
    (folder / "bin").mkdir()
    command = folder / "bin" / "chat-node"
    command.write_text(f"#!{sys.executable}\nfrom node.cli import main\nmain()\n")
    command.chmod(0o755)
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    with (folder / "log").open("wb") as log:
        shell = subprocess.Popen(
            ("bash", "-ec", blocks("A site in five minutes", "sh")[0]), cwd=folder, env=environment(folder),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        assert shell.wait(SECONDS) == 0, (folder / "log").read_text()
        yield folder
    finally:
        os.killpg(shell.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def where(folder: Path) -> Endpoints:
    """Where the node listens, once it does."""
    return wait_for("the node", lambda: endpoints.read(folder / "chat-data"))


@pytest.fixture(scope="module")
def tokens(folder: Path) -> list[str]:
    """Of a back end in Python, and of one in Node.js."""
    code: dict[str, Any] = {}
    before = os.getcwd()
    try:
        os.chdir(folder)
        exec(compile(blocks("A site in five minutes", "python")[0], "README.md", "exec"), code)
    finally:
        os.chdir(before)
    (folder / "backend.mjs").write_text(
        blocks("A site in five minutes", "js")[0] + 'process.stdout.write(chatToken("u7"));'
    )
    return [code["chat_token"]("u7"), run(folder, "node", "backend.mjs")]


def test_the_node_accepts_what_either_back_end_signs(folder: Path, tokens: list[str]) -> None:
    for token in tokens:
        done = subprocess.run(
            ("chat-node", "token", "inspect", token), env=environment(folder), check=False, capture_output=True,
            text=True, timeout=SECONDS,
        )  # fmt: skip
        assert "Accepted: u7 may connect" in done.stderr


def test_a_page_sees_what_it_says_itself_and_what_the_server_says(
    folder: Path, where: Endpoints, tokens: list[str]
) -> None:
    code = PAGE + blocks("Clients", "js")[0].replace("ws://127.0.0.1:8000", where.public.replace("http", "ws", 1))
    (folder / "page.mjs").write_text(code)
    [curl] = [block for block in blocks("A site in five minutes", "sh") if block.startswith("curl")]
    with (folder / "page.log").open("wb") as log:
        page = subprocess.Popen(
            ("node", "page.mjs"), cwd=folder, env=environment(folder) | {"CHAT_TOKEN": tokens[1]}, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for("its own message", lambda: "1 u7 Hello" in (folder / "page.log").read_text())

        def is_published() -> bool:  # the node looks once a second for keys
            answer = run(folder, "bash", "-c", curl.replace("http://127.0.0.1:9000", where.internal))
            assert '"offset":2' in answer or '"code":101' in answer
            return '"offset":2' in answer

        wait_for("the server's key", is_published)
        wait_for("the server's message", lambda: "2 system We are back." in (folder / "page.log").read_text())
    finally:
        page.kill()
        page.wait()

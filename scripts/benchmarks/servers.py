"""The servers that are measured: chat-node, the floor in C, and two that a team would write on Node."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.errors import RunError
from scripts.benchmarks.processes import last_line, running

PARTS = Path(__file__).parent
START_SECONDS = 30
INTERNAL_PORT = "CHAT_NODE_LISTEN__INTERNAL_PORT"
SECRET = "CHAT_NODE_AUTH__SECRET"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where things are built and kept, and the cores: the server's, then the generator's."""

    folder: Path
    cores: tuple[int, int]
    programs: Mapping[str, Path]
    modules: Path | None = None

    def log(self, name: str) -> Path:
        """The log that a program of this name appends to."""
        return self.folder / f"{name}.log"

    def template(self, name: str) -> Path:
        """What wsload is to say to a server."""
        return PARTS / "templates" / f"{name}.txt"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its process, its public port, and its internal one if it has one."""

    pid: int
    port: int
    internal_port: int | None = None
    token_secret: str | None = None

    def metrics(self) -> str:
        """Its page of metrics; empty when it has none."""
        if self.internal_port is None:
            return ""
        try:
            return _get(f"http://127.0.0.1:{self.internal_port}/metrics")
        except OSError:
            return ""


@dataclass(frozen=True, slots=True)
class Server:
    """A server by name: what to say to it, at which rates a search begins, how it is started.

    `start_rates` are messages a second by test; they only spare a search its first steps.
    """

    name: str
    template: str
    start_rates: Mapping[str, float]
    open: Callable[[Workshop], contextlib.AbstractContextManager[Running]]
    options: tuple[str, ...] = field(default=())


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the scheme is ours
        text: str = answer.read().decode()
        return text


def _accepts(port: int) -> Callable[[], bool]:
    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return ask


def _is_ready(port: int) -> Callable[[], bool]:
    def ask() -> bool:
        with contextlib.suppress(OSError):
            _get(f"http://127.0.0.1:{port}/health/ready")
            return True
        return False

    return ask


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None:
            message = f"{name} ended with status {process.returncode} before it was ready: {last_line(log)}"
            raise RunError(message)
        if time.monotonic() > deadline:
            message = f"{name} was not ready within {START_SECONDS} s; its log is {log}"
            raise RunError(message)
        time.sleep(0.05)


@contextlib.contextmanager
def _open_floor(shop: Workshop) -> Iterator[Running]:
    port, log = free_port(), shop.log("floor")
    command = [str(shop.programs["room_server"]), str(port)]
    with running(shop.cores[0], command, log, {}) as process:
        _wait("floor", process, log, _accepts(port))
        yield Running(process.pid, port)


def _open_on_node(name: str, script: str) -> Callable[[Workshop], contextlib.AbstractContextManager[Running]]:
    @contextlib.contextmanager
    def opened(shop: Workshop) -> Iterator[Running]:
        port, log = free_port(), shop.log(name)
        command = ["node", str(PARTS / "peers" / script), str(port)]
        environment = {"NODE_PATH": str(shop.modules), "NODE_ENV": "production"}
        with running(shop.cores[0], command, log, environment) as process:
            _wait(name, process, log, _accepts(port))
            yield Running(process.pid, port)

    return opened


@contextlib.contextmanager
def _open_chat_node(shop: Workshop) -> Iterator[Running]:
    port, internal_port, log = free_port(), free_port(), shop.log("chat-node")
    data, secret = shop.folder / "data", secrets.token_hex(32)
    shutil.rmtree(data, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("chat-node")), "run", "--region", "bench", "--dev"]
    command += ["--port", str(port), "--data-dir", str(data)]
    with running(shop.cores[0], command, log, {INTERNAL_PORT: str(internal_port), SECRET: secret}) as process:
        _wait("chat-node", process, log, _is_ready(port))
        yield Running(process.pid, port, internal_port, secret)
    shutil.rmtree(data, ignore_errors=True)


CHAT_NODE = Server(
    "chat-node",
    "chat-node",
    {"fan1": 100, "fan100": 4000, "ingest": 4000},
    _open_chat_node,
    ("--set", "ROOM="),
)
PEERS = {
    "floor": Server("floor", "roomjson", {"fan1": 50, "fan100": 4000, "ingest": 8000}, _open_floor),
    "ws": Server("ws", "roomjson", {"fan1": 30, "fan100": 3000, "ingest": 4000}, _open_on_node("ws", "ws_room.js")),
    "socketio": Server(
        "socketio",
        "socketio",
        {"fan1": 20, "fan100": 1500, "ingest": 1500},
        _open_on_node("socketio", "socketio_room.js"),
    ),
}
"""By the names that --peers takes."""

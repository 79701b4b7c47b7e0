"""A real node in a process of its own, which a test kills as hard as a power cut does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from node import endpoints
from node.auth import make_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from node.endpoints import Endpoints

SECRET: Final = "secret of the tests, long enough for HS256"
START_SECONDS: Final = 20  # interpreter, imports and recovery of the log on a busy machine; never reached
POLL_SECONDS: Final = 0.02
COMMAND: Final = (sys.executable, "-c", "from node.cli import main; main()")

T = TypeVar("T")


class NodeProcess:
    """A node with a data directory that outlives it, at a port that stays the same.

    Used as a context manager, it is running inside and is killed and reaped at the end, come what may.

    Args:
        folder: Holds the data directory and the log; the log is what pytest keeps of a failed test.
        data_dir: If it is to lie elsewhere.
        settings: Configuration, as variables: `LIMITS__CONNECTIONS`.
        environment: More variables of the process.
        descriptors: Its limit of open files.
        command: The program that gets the arguments of `chat-node`.
        region: Where it is.
        port: Its public port; 0: the one that the system gives it at first.
        arguments: More of them for `chat-node run`.
        inside: Enters the network that it is on, for as long as it takes to ask its internal port.

    Attributes:
        data_dir: Its data directory.
        log: What the node wrote to its standard streams, over all its lives.
        command: What it is started with the next time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_dir: Path | None = None,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: int | None = None,
        command: Sequence[str] = COMMAND,
        region: str = "local",
        port: int = 0,
        arguments: Sequence[str] = (),
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.data_dir = data_dir or folder / "data"
        self.log = folder / "node.log"
        self._settings = {f"CHAT_NODE_{name}": str(value) for name, value in (settings or {}).items()}
        self._environment = {**_environment(), **self._settings, **(environment or {})}
        self._descriptors = descriptors
        self.command = tuple(command)
        self._region, self._port = region, port
        self._arguments, self._inside = tuple(arguments), inside
        self._found: Endpoints | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.kill()
        if failure is not None:
            sys.stderr.write(f"--- {self.log}\n{self._tail()}\n")

    @property
    def url(self) -> str:
        """Where clients connect by WebSocket."""
        return f"{self.public.replace('http', 'ws', 1)}/connection/websocket"

    @property
    def public(self) -> str:
        """The URL of its public port."""
        return self._where.public

    @property
    def internal(self) -> str:
        """The URL of its internal port."""
        return self._where.internal

    @property
    def port(self) -> int:
        """Its public port."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process."""
        return self._where.pid

    @property
    def _where(self) -> Endpoints:
        if self._found is None:
            raise RuntimeError("the node has not been started")
        return self._found

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: It ended, or was not ready in time.
        """
        if self._process is not None:
            raise RuntimeError(f"node {self._process.pid} runs already; kill it before it is started again")
        flags = ("--region", self._region, "--dev", "--port", str(self._port), "--internal-port", "0")
        limit = f"--nofile={self._descriptors}" if self._descriptors else ""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (
                    *(("prlimit", limit) if limit else ()),
                    *self.command,
                    "run",
                    *flags,
                    *self._arguments,
                    "--data-dir",
                    self.data_dir,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it and its children with SIGKILL, and reap it; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def restart(self) -> None:
        """Kill it and start it again with the same data at the same port."""
        self.kill()
        self.start()

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def tell(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, signum)

    def wait_ended(self) -> int:
        """Wait until it has ended by itself; gives its exit status."""
        if self._process is None:
            raise RuntimeError("the node does not run")
        status = self._process.wait(timeout=START_SECONDS)
        self._process = None
        return status

    def ready(self) -> Ready:
        """What it says of its readiness, on its internal port."""
        status, body = self._fetch("/health/ready")
        return Ready(status, json.loads(body)["status"])

    def metrics(self) -> dict[str, float]:
        """All samples of a scrape, under their names with labels, as Prometheus writes them."""
        _, body = self._fetch("/metrics")
        samples = (line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event so far."""
        lines = (line for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def wait_line(self, event: str, number: int = 1) -> dict[str, Any]:
        """Wait for so many log lines of an event; gives the last of them."""
        return wait_for(f"{number} lines {event!r}", lambda: next(iter(self.lines(event)[number - 1 :]), None))

    def is_failing(self) -> bool:
        """Whether `chat-node cluster status` says so; of a busy machine it may always say to look at it."""
        return self.verdict()[0] > 1

    def verdict(self) -> tuple[int, str]:
        """What `chat-node cluster status` says of it: its exit status and output."""
        done = subprocess.run(
            (*COMMAND, "cluster", "status", "--data-dir", self.data_dir),
            check=False,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            env=_environment(),
        )
        return done.returncode, done.stdout + done.stderr

    def _fetch(self, path: str) -> tuple[int, bytes]:
        with self._inside():
            return fetch(f"{self._where.internal}{path}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-10_000:]

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"the node ended with status {process.returncode}: {self._tail()}")
            found = endpoints.read(self.data_dir)
            with self._inside():
                is_ready = found is not None and found.pid == process.pid and _is_ready(found.internal)
            if found is not None and is_ready:
                self._found = found
                self._port = urlsplit(found.public).port or 0
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the node was not ready after {START_SECONDS} s: {self._tail()}")


class Ready(NamedTuple):
    """An answer of `/health/ready`.

    Attributes:
        code: The status of HTTP.
        status: In a word or two.
    """

    code: int
    status: str


def wait_for(what: str, found: Callable[[], T | None]) -> T:
    """Ask until there is something else than None or False; gives it.

    Raises:
        AssertionError: There was not for `START_SECONDS`.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        value = found()
        if value is not None and value is not False:
            return value
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {START_SECONDS} s: {what}")


def fetch(url: str) -> tuple[int, bytes]:
    """The status and body of an answer to GET over plain HTTP.

    Raises:
        OSError, http.client.HTTPException: There is none.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=START_SECONDS)
    try:
        connection.request("GET", address.path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def token(user: str, **claims: object) -> str:
    """A token that a node process accepts: for a connection, or with `channel=` for a subscription."""
    return make_token(SECRET, {"sub": user, **claims})


def _is_ready(url: str) -> bool:
    try:
        return fetch(f"{url}/health/ready")[0] == http.client.OK
    except OSError:
        return False


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_NODE")}
    return {**kept, "CHAT_NODE_AUTH__SECRET": SECRET}

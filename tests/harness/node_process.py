"""A real node in a process of its own, which a test kills as hard as a power cut does."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from node import endpoints
from node.auth import make_token

if TYPE_CHECKING:
    from pathlib import Path

SECRET: Final = "secret of the tests, long enough for HS256"
START_SECONDS: Final = 20  # interpreter, imports and recovery of the log on a busy machine; never reached
POLL_SECONDS: Final = 0.02
_COMMAND: Final = (sys.executable, "-c", "from node.cli import main; main()")


class NodeProcess:
    """A node with a data directory that outlives it, at a port that stays the same.

    Used as a context manager, it is running inside and is killed and reaped at the end, come what may.

    Args:
        folder: Holds the data directory and the log; the log is what pytest keeps of a failed test.

    Attributes:
        log: What the node wrote to its standard streams, over all its lives.
    """

    def __init__(self, folder: Path) -> None:
        self._data_dir = folder / "data"
        self.log = folder / "node.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.kill()
        if failure is not None:
            sys.stderr.write(f"--- {self.log}\n{self.log.read_text(errors='replace')[-10_000:]}\n")

    @property
    def url(self) -> str:
        """Where clients connect by WebSocket."""
        return f"ws://127.0.0.1:{self._port}/connection/websocket"

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: It ended, or was not ready in time.
        """
        if self._process is not None:
            raise RuntimeError(f"node {self._process.pid} runs already; kill it before it is started again")
        flags = ("--region", "local", "--dev", "--port", str(self._port), "--internal-port", "0")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (*_COMMAND, "run", *flags, "--data-dir", str(self._data_dir)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
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

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"the node ended with status {process.returncode}; {self.log} says why")
            found = endpoints.read(self._data_dir)
            if found is not None and found.pid == process.pid and _is_ready(found.public):
                self._port = urlsplit(found.public).port or 0
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the node was not ready after {START_SECONDS} s; {self.log} says why")


def token(user: str, **claims: object) -> str:
    """A token that a node process accepts: for a connection, or with `channel=` for a subscription."""
    return make_token(SECRET, {"sub": user, **claims})


def _is_ready(url: str) -> bool:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=START_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_NODE")}
    return {**kept, "CHAT_NODE_AUTH__SECRET": SECRET}

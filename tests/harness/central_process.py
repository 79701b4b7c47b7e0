"""A real `chat-node central` in a process of its own, which a test kills as hard as a power cut does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from tests.harness.node_process import COMMAND, START_SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class CentralProcess:
    """A central register with a data directory that outlives it, at a port that stays the same.

    Used as a context manager, it serves inside and is killed and reaped at the end.

    Args:
        folder: Holds the data directory and the log.
        settings: Configuration, as variables: `CLUSTER__PLAIN`.

    Attributes:
        data_dir: Its data directory, in which there has to be a register.
        log: What it wrote to its standard streams, over all its lives.
        port: Where it listens.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.data_dir, self.log = folder / "central", folder / "central.log"
        self.port = 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_NODE")}
        self._environment = {**kept, **{f"CHAT_NODE_{name}": str(value) for name, value in settings.items()}}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.kill()
        if failure is not None:
            sys.stderr.write(f"--- {self.log}\n{self.said()[-10_000:]}\n")

    def start(self) -> None:
        """Start it and wait until it serves."""
        before = self.said().count("cluster.central = ")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (*COMMAND, "central", "--data-dir", self.data_dir, "--listen", f"127.0.0.1:{self.port}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        process = self._process

        def serving() -> int | None:
            assert process.poll() is None, self.said()
            ports = re.findall(r"cluster\.central = central=127\.0\.0\.1:(\d+)\n", self.said())
            return int(ports[-1]) if len(ports) > before else None

        self.port = wait_for("the central register serves", serving)

    def kill(self) -> None:
        """End it with SIGKILL, and reap it; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self) -> int:
        """Tell it to end, and wait; gives its exit status."""
        process, self._process = self._process, None
        if process is None:
            raise RuntimeError("the central register does not run")
        process.terminate()
        return process.wait(timeout=START_SECONDS)

    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

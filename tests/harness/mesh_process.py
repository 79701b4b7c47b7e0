"""A cluster of real processes on this machine: the central, and nodes that a test kills and starts again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from tests.harness.node_process import COMMAND, START_SECONDS, NodeProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHARDS: Final = 8
HOST: Final = "127.0.0.1"


class MeshProcess:
    """A central and some nodes without encryption on loopback, running inside the context.

    Args:
        folder: Holds all data and logs.
        nodes: How many; the first is ``n1``.
        copies, min_sync: As of `chat-node cluster init`.
        settings: Configuration of the nodes, as variables: `LIMITS__CONNECTIONS`.

    Attributes:
        nodes: By name.
        central_log: What the central wrote.
    """

    def __init__(
        self, folder: Path, nodes: int = 3, copies: int = 3, min_sync: int = 2,
        settings: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self.central_log = folder / "central.log"
        self._central: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        central, *ports = free_ports(1 + 2 * nodes)
        peers = [f"n{i + 1}={HOST}:{ports[2 * i]}" for i in range(nodes)]
        common = f'central = "central={HOST}:{central}"\npeers = {peers}\nplain = "loopback"\n'
        self._config = folder / "central.toml"
        self._config.write_text(f'[cluster]\nlisten = "{HOST}:{central}"\n{common}')
        _call("cluster", "init", "--data-dir", str(folder / "central"), "--shards", str(SHARDS),
              "--copies", str(copies), "--min-sync", str(min_sync))  # fmt: skip
        self.nodes: dict[str, NodeProcess] = {}
        for i in range(nodes):
            name = f"n{i + 1}"
            (folder / name).mkdir()
            config = folder / f"{name}.toml"
            config.write_text(
                f'[node]\nname = "{name}"\n[cluster]\nlisten = "{HOST}:{ports[2 * i]}"\n'
                f'publish_port = {ports[2 * i + 1]}\nhost = "host-{name}"\n{common}'
            )
            environment = {"CHAT_NODE_CONFIG": str(config)}
            self.nodes[name] = NodeProcess(folder / name, settings=settings, environment=environment)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.kill_central)
            self.start_central()
            for node in self.nodes.values():
                stack.enter_context(node)
            self._stack = stack.pop_all()
        self.wait_met()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def start_central(self) -> None:
        """Start the central; nodes wait for it."""
        with self.central_log.open("ab") as log:
            self._central = subprocess.Popen(
                (*COMMAND, "central", "--data-dir", self._folder / "central", "--config", self._config),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def kill_central(self) -> None:
        """End the central with SIGKILL."""
        process, self._central = self._central, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def wait_met(self) -> None:
        """Until every node that runs says that each other one is up."""
        for name in self.nodes:
            wait_for(f"{name} meets all", partial(self._has_met, name))

    def _has_met(self, name: str) -> bool:
        return all(self.nodes[name].lines(f"node {other}: up") for other in self.nodes if other != name)

    def primary_of(self, room: str) -> str:
        """The node that sequences a room, by the register's log: the last one that changed a row of it.

        Only for clusters in which nothing but this room was used.
        """
        rows = [line for line in self.central_log.read_text().splitlines() if '"row changed"' in line]
        assert rows, f"nobody has used {room!r}"
        return rows[-1].split('"members":"')[1].split(",")[0].split('"')[0]


def _call(*arguments: str) -> None:
    subprocess.run((*COMMAND, *arguments), check=True, capture_output=True, timeout=START_SECONDS)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def free_run(count: int) -> int:
    """The first of so many ports in a row that nobody has now, below those that the system gives out."""
    for first in range(20_000 + os.getpid() % 1000 * 8, 30_000, count):
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server((HOST, port)))
            return first
    raise AssertionError(f"no {count} free ports in a row")

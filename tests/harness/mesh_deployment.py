"""Several nodes and their register, each a host on a network of its own."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

from tests.harness.deployment import Deployment, NodePlan, Options
from tests.harness.node_process import COMMAND, START_SECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CENTRAL: Final = "central"
CENTRAL_PORT: Final = 7500
PORT: Final = 7400
SHARDS: Final = 8
COPIES: Final = 3
MIN_SYNC: Final = 2


class Mesh(Deployment):
    """A cluster: the central, and nodes that have each message on three disks, and on two before it is acknowledged.

    They speak without encryption, as nobody else is on their network.

    Args:
        folder: For what they write.
        drawn: Decides what the network does to whom.
        options: What is needed of it; a network it has anyway.
        nodes: How many.
    """

    def __init__(self, folder: Path, drawn: random.Random, options: Options, nodes: int) -> None:
        super().__init__(folder, drawn, replace(options, network=True))
        self._names = [f"n{number}" for number in range(1, nodes + 1)]
        self._central: subprocess.Popen[bytes] | None = None

    @property
    @override
    def hosts(self) -> Sequence[str]:
        return [CENTRAL, *self._names]

    @property
    @override
    def copies(self) -> int:
        return MIN_SYNC

    @override
    def plans(self) -> Sequence[NodePlan]:
        return [self._plan(name) for name in self._names]

    @asynccontextmanager
    @override
    async def services(self) -> AsyncIterator[None]:
        data = self.folder / CENTRAL
        data.mkdir(parents=True)
        values = ("--shards", str(SHARDS), "--copies", str(COPIES), "--min-sync", str(MIN_SYNC))
        command = (*COMMAND, "cluster", "init", "--data-dir", str(data / "data"), *values)
        await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        (self.folder / CENTRAL / "chat-node.toml").write_text(self._cluster(CENTRAL, CENTRAL_PORT))
        self.start_central()
        try:
            yield
        finally:
            self.kill_central()

    def start_central(self) -> None:
        """Start the register; nodes wait for it, or find it again."""
        assert self.network is not None
        data, config = self.folder / CENTRAL / "data", self.folder / CENTRAL / "chat-node.toml"
        with (self.folder / CENTRAL / "central.log").open("ab") as log:
            self._central = subprocess.Popen(
                (*self.network.prefix(CENTRAL), *COMMAND, "central", "--data-dir", data, "--config", config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_central(self) -> None:
        """SIGKILL to the register; nothing happens if it does not run."""
        process, self._central = self._central, None
        if process is not None:
            process.kill()
            process.wait(START_SECONDS)

    def _plan(self, name: str) -> NodePlan:
        config = self.folder / name / "chat-node.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(self._cluster(name, PORT))
        return NodePlan(name, settings={"HUB__DRAIN_SECONDS": 5}, arguments=("--config", str(config)))

    def _cluster(self, name: str, port: int) -> str:
        """A configuration file."""
        peers = [f"{node}={self.host_address(node)}:{PORT}" for node in self._names]
        return (
            f'[cluster]\nlisten = "{self.host_address(name)}:{port}"\npublish_port = {port + 1}\nhost = "{name}"\n'
            f'central = "{CENTRAL}={self.host_address(CENTRAL)}:{CENTRAL_PORT}"\npeers = {peers}\nplain = "anywhere"\n'
        )

"""Nodes as processes, how they are started and reached, and what can be done to them.

`Deployment` is what scenarios see. Which nodes there are, with which settings, and what else must run before them, its
subclasses say: `OneNode` here.
"""

from __future__ import annotations

import shutil
import signal
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, Self

import trio
from typing_extensions import override

from tests.harness.namespaces import Network
from tests.harness.node_process import COMMAND, NodeProcess
from tests.harness.small_disk import SmallDisk
from tests.harness.tcp_balancer import TcpBalancer
from tests.harness.tcp_proxy import TcpProxy, connect, listen
from tests.harness.wall_clock import WallClock

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from tests.harness.tcp_proxy import Address

CLIENTS: Final = "clients"
"""The host of the clients, and of the balancer before the nodes."""
PORT: Final = 8000
DIAL_SECONDS: Final = 1.0  # for a connection to a node; then the next is tried
LAST_SAID: Final = 200  # characters of a log
DISK_BYTES: Final = 48 << 20  # a minute of load takes a few MiB; what is filled up takes memory


@dataclass(slots=True, frozen=True)
class Options:
    """What a run needs of its deployment.

    Attributes:
        clock: The nodes' clocks can be set.
        small_disk: The nodes' data lies on disks that can be filled.
        network: Nodes and clients are hosts that can be cut from each other.
        command: The program of the nodes: that of `chat-node`, or one with a fault.
    """

    clock: bool = False
    small_disk: bool = False
    network: bool = False
    command: tuple[str, ...] = COMMAND


@dataclass(slots=True, frozen=True)
class NodePlan:
    """How a node is started.

    Attributes:
        name: Also of its host.
        settings: As `NodeProcess` takes them.
        arguments: Of `chat-node run`; such as its configuration file.
    """

    name: str
    region: str = "local"
    settings: Mapping[str, object] = field(default_factory=dict)
    arguments: Sequence[str] = ()


class Deployment(ABC):
    """Nodes that run.

    Args:
        folder: For what they write: a folder for each node.
        drawn: Decides what the network does to whom.
        options: What is needed of it.

    Attributes:
        network: The hosts; None: all is on this machine's loopback.
        proxy: What stands before all nodes: a balancer's path, which can delay, stall and reset.
        nodes: The processes, by name.
        clocks: Where they were wanted, by node.
        disks: The same.
    """

    def __init__(self, folder: Path, drawn: random.Random, options: Options = Options()) -> None:
        self.folder, self.options = folder, options
        self.network: Network | None = None
        self.nodes: dict[str, NodeProcess] = {}
        self.clocks: dict[str, WallClock] = {}
        self.disks: dict[str, SmallDisk] = {}
        self._balancer = TcpBalancer([])
        self.proxy = TcpProxy(self._balancer.dial, drawn)
        self._drawn = drawn
        self._turns = count()

    @abstractmethod
    def plans(self) -> Sequence[NodePlan]:
        """The nodes; asked when there is a network, so that addresses are known."""

    @asynccontextmanager
    async def services(self) -> AsyncIterator[None]:
        """What must run before the nodes, and after them."""
        await trio.lowlevel.checkpoint()
        yield

    @property
    def copies(self) -> int:
        """How many nodes have what was acknowledged, at least."""
        return 1

    @property
    @abstractmethod
    def hosts(self) -> Sequence[str]:
        """What has an address: the nodes, and what they need beside them."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Everything runs inside; after it only logs and data are left.

        Raises:
            NotPermitted: Something that was wanted can't be had here.
            RuntimeError: A node did not start.
        """
        async with AsyncExitStack() as stack:
            if self.options.network:
                self.network = stack.enter_context(Network([CLIENTS, *self.hosts]))
            await stack.enter_async_context(self.services())
            for plan in self.plans():
                node = await self._node(plan, stack)
                self.nodes[plan.name] = node
                stack.callback(node.kill)
            async with trio.open_nursery() as nursery:
                for name in self.nodes:
                    nursery.start_soon(self.start, name)
            await stack.enter_async_context(self._balanced())
            yield self

    # -- how nodes are reached -----------------------------------------------------------------------------------

    def address(self, name: str) -> Address:
        """Where a node's public port is."""
        return self.host_address(name), self.nodes[name].port

    def host_address(self, name: str) -> str:
        """The address of a host."""
        return self.network.address(name) if self.network is not None else "127.0.0.1"

    def socket(self) -> trio.socket.SocketType:
        """A TCP socket where the clients are."""
        return self.network.socket(CLIENTS) if self.network is not None else trio.socket.socket()

    async def dial_balancer(self) -> trio.SocketStream:
        """A connection through the balancer.

        Raises:
            OSError: It can't be had.
        """
        return await connect(self.proxy.address, self.socket)

    async def dial_node(self) -> trio.SocketStream:
        """A connection to one node after another.

        Raises:
            OSError: That node can't be reached.
        """
        names = list(self.nodes)
        name = names[next(self._turns) % len(names)]
        try:
            with trio.fail_after(DIAL_SECONDS):
                return await connect(self.address(name), self.socket)
        except trio.TooSlowError:
            raise OSError(f"{name} does not answer") from None

    async def dial(self, name: str) -> trio.SocketStream:
        """A connection to this node.

        Raises:
            OSError: It can't be had.
        """
        return await connect(self.address(name), self.socket)

    # -- what can be done to them --------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a node, and wait until it is ready.

        Raises:
            RuntimeError: It is not, after long.
        """
        await trio.to_thread.run_sync(self.nodes[name].start)

    async def kill(self, name: str) -> None:
        """SIGKILL."""
        await trio.to_thread.run_sync(self.nodes[name].kill)

    async def terminate(self, name: str) -> int:
        """SIGTERM: it sends its clients elsewhere and ends; gives its exit status."""
        self.nodes[name].tell(signal.SIGTERM)
        return await self.wait_ended(name)

    async def wait_ended(self, name: str) -> int:
        """Wait until a node ends by itself; gives its exit status."""
        return await trio.to_thread.run_sync(self.nodes[name].wait_ended)

    def stop(self, name: str) -> None:
        """SIGSTOP: it does nothing until it goes on."""
        self.nodes[name].tell(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self.nodes[name].tell(signal.SIGCONT)

    def set_clock(self, name: str, seconds: float) -> None:
        """Its wall clock is so far from this machine's, from now on; the monotonic one stays."""
        self.clocks[name].set(seconds)

    def ended(self) -> list[str]:
        """A line for each node that does not run, with the last that it said."""
        return [
            f"{name} does not run; its log ends: {node.log.read_text(errors='replace')[-LAST_SAID:].strip()!r}"
            for name, node in self.nodes.items()
            if not node.runs
        ]

    def kill_all(self) -> None:
        """SIGKILL to all nodes."""
        for node in self.nodes.values():
            node.kill()

    def wipe(self, name: str) -> None:
        """Take away all that a node has; it must not run."""
        shutil.rmtree(self.nodes[name].data_dir)

    def data(self) -> dict[str, Path]:
        """The data directories, by node."""
        return {name: node.data_dir for name, node in self.nodes.items()}

    def keep_disks(self) -> None:
        """Copy what lies on small disks to where it outlives them."""
        for name, node in self.nodes.items():
            if name in self.disks:
                shutil.copytree(node.data_dir, self.folder / name / "data", dirs_exist_ok=True)

    def heal(self) -> None:
        """Undo what a scenario may have done to network and clocks; processes are its own matter."""
        if self.network is not None:
            self.network.heal()
        self.proxy.delay(0)
        self.proxy.flow()
        for clock in self.clocks.values():
            clock.set(0)
        for disk in self.disks.values():
            disk.free()

    # -- making them ---------------------------------------------------------------------------------------------

    async def _node(self, plan: NodePlan, stack: AsyncExitStack) -> NodeProcess:
        name, folder = plan.name, self.folder / plan.name
        await trio.Path(folder).mkdir(parents=True, exist_ok=True)
        command = self.options.command
        settings = {"NODE__NAME": name, **plan.settings}
        if self.network is not None:
            command = (*self.network.prefix(name), *command)
            settings["LISTEN__HOST"] = self.network.address(name)
        environment: dict[str, str] = {}
        if self.options.clock:
            self.clocks[name] = WallClock(folder)
            environment = self.clocks[name].environment
        if self.options.small_disk:
            self.disks[name] = stack.enter_context(SmallDisk(folder / "disk", DISK_BYTES))
        return NodeProcess(
            folder,
            data_dir=folder / "disk" / "data" if self.options.small_disk else None,
            settings=settings,
            environment=environment,
            command=command,
            region=plan.region,
            port=PORT if self.network is not None else 0,
            arguments=plan.arguments,
            inside=partial(self.network.inside, name) if self.network is not None else nullcontext,
        )

    @asynccontextmanager
    async def _balanced(self) -> AsyncIterator[None]:
        self._balancer = TcpBalancer([self.address(name) for name in self.nodes], self.socket)
        self.proxy = TcpProxy(self._balancer.dial, self._drawn)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._balancer.watch)
            await nursery.start(self.proxy.serve, await listen(self.host_address(CLIENTS), self.socket))
            yield
            nursery.cancel_scope.cancel()


class OneNode(Deployment):
    """One node, as `chat-node run` starts it today."""

    @property
    @override
    def hosts(self) -> Sequence[str]:
        return ["node"]

    @override
    def plans(self) -> Sequence[NodePlan]:
        return [NodePlan("node", settings={"HUB__DRAIN_SECONDS": 5})]

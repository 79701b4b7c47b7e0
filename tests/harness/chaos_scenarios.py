"""What is done to nodes while clients talk: the failure cases that are shown on real processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from tests.harness.deployment import CLIENTS, Deployment, Options
from tests.harness.mesh_deployment import Mesh

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

DAY: Final = 86_400.0
ASK_SECONDS: Final = 0.1
RELEARN_SECONDS: Final = 10.0


@dataclass(slots=True)
class Stage:
    """Where a scenario acts.

    Attributes:
        drawn: Decides what is left open.
        longest: Seconds that one fault lasts at most.
        timeline: What was done, and when: seconds since the beginning.
    """

    deployment: Deployment
    drawn: random.Random
    longest: float = 30.0
    began: float = field(default_factory=trio.current_time)
    timeline: list[tuple[float, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say what is done."""
        self.timeline.append((trio.current_time() - self.began, text))

    def node(self) -> str:
        """Any of the nodes."""
        return self.drawn.choice(list(self.deployment.nodes))

    def seconds(self, least: float) -> float:
        """How long a fault lasts: short ones are as likely as long ones."""
        return least * float((max(self.longest, least) / least) ** self.drawn.random())


@dataclass(slots=True, frozen=True)
class Scenario:
    """A failure case.

    Attributes:
        summary: What happens, for people.
        act: One round of it; afterwards the network, clocks and disks are mended, and the clients must get on.
        options: What it needs.
        nodes: And how many, at least.
    """

    name: str
    summary: str
    act: Callable[[Stage], Awaitable[None]]
    options: Options = Options()  # noqa: RUF009 - it is frozen
    nodes: int = 1


async def _rest(stage: Stage) -> None:
    await trio.sleep(stage.seconds(1.0))


async def _kill(stage: Stage) -> None:
    name, away = stage.node(), stage.seconds(0.1)
    stage.note(f"kill -9 {name}, for {away:.1f} s")
    await stage.deployment.kill(name)
    await trio.sleep(away)
    await stage.deployment.start(name)
    stage.note(f"{name} is ready again")


async def _kill_all(stage: Stage) -> None:
    names = list(stage.deployment.nodes)
    stage.note("kill -9 of all nodes")
    for name in names:
        await stage.deployment.kill(name)
    stage.drawn.shuffle(names)
    for name in names:
        await stage.deployment.start(name)
    stage.note("all nodes are ready again")


async def _stop(stage: Stage) -> None:
    name, away = stage.node(), stage.seconds(0.5)
    stage.note(f"SIGSTOP {name}, for {away:.1f} s")
    stage.deployment.stop(name)
    await trio.sleep(away)
    stage.deployment.go_on(name)


async def _clock(stage: Stage) -> None:
    name = stage.node()
    jump = stage.drawn.choice([1.0, -1.0]) * stage.drawn.choice([0.5, 10.0, 3600.0, DAY, 400 * DAY])
    stage.note(f"the clock of {name} jumps by {jump:g} s")
    stage.deployment.set_clock(name, jump)
    await trio.sleep(stage.seconds(2.0))
    if stage.drawn.random() < 0.5:
        stage.note(f"kill -9 {name} and start it with this clock")
        await stage.deployment.kill(name)
        await stage.deployment.start(name)
        await trio.sleep(0.5)


async def _disk(stage: Stage) -> None:
    name = stage.node()
    node, disk = stage.deployment.nodes[name], stage.deployment.disks[name]
    share = stage.drawn.choice([0.9, 1.0])
    stage.note(f"the disk of {name} is filled to {share:.0%}")
    await trio.to_thread.run_sync(disk.fill, share)
    found = await trio.to_thread.run_sync(node.ready)
    with trio.move_on_after(stage.longest):
        while found.code == 200:
            await trio.sleep(ASK_SECONDS)
            found = await trio.to_thread.run_sync(node.ready)
    stage.note(f"{name} says: {found.status}")
    await trio.sleep(stage.seconds(0.5))
    disk.free()
    if (await trio.to_thread.run_sync(node.ready)).status == "log halted":
        stage.note(f"there is room again, {name} is restarted")
        await stage.deployment.kill(name)
        await stage.deployment.start(name)
    else:
        stage.note("there is room again")


async def _roll(stage: Stage) -> None:
    for name in stage.deployment.nodes:
        stage.note(f"SIGTERM {name}")
        status = await stage.deployment.terminate(name)
        if status:
            raise RuntimeError(f"{name} ended with status {status} at SIGTERM")
        await stage.deployment.start(name)
        stage.note(f"{name} is ready again")
        await trio.sleep(stage.drawn.uniform(0.2, 1.0))


async def _cut_clients(stage: Stage) -> None:
    network, name, away = stage.deployment.network, stage.node(), stage.seconds(0.5)
    assert network is not None
    match stage.drawn.randrange(3):
        case 0:
            stage.note(f"{name} and the clients are cut from each other, for {away:.1f} s")
            network.cut(name, CLIENTS)
        case 1:
            stage.note(f"{name} does not hear the clients, for {away:.1f} s")
            network.deafen(name, CLIENTS)
        case _:
            stage.note(f"the clients do not hear {name}, for {away:.1f} s")
            network.deafen(CLIENTS, name)
    await trio.sleep(away)


async def _kill_unheard(stage: Stage) -> None:
    network, name, away = stage.deployment.network, stage.node(), stage.seconds(0.3)
    assert network is not None
    stage.note(f"the clients do not hear {name}, which goes on for {away:.1f} s and is killed")
    network.deafen(CLIENTS, name)
    await trio.sleep(away)
    await stage.deployment.kill(name)
    network.heal()
    await stage.deployment.start(name)
    stage.note(f"{name} is ready again")


async def _path(stage: Stage) -> None:
    proxy, away = stage.deployment.proxy, stage.seconds(0.5)
    match stage.drawn.randrange(3):
        case 0:
            delay, jitter = stage.drawn.uniform(0, 0.1), stage.drawn.uniform(0, 0.3)
            stage.note(
                f"{proxy.reset()} paths break; those that come are late by {delay:.2f} to {delay + jitter:.2f} s"
            )
            proxy.delay(delay, jitter)
        case 1:
            stage.note(f"the paths through the balancer stall, for {away:.1f} s")
            proxy.stall()
        case _:
            for _ in range(5):
                stage.note(f"{proxy.reset()} paths break")
                await trio.sleep(stage.drawn.uniform(0.05, 0.5))
    await trio.sleep(away)


async def _cut_nodes(stage: Stage) -> None:
    network, away = stage.deployment.network, stage.seconds(0.5)
    assert network is not None
    one, other = stage.drawn.sample(list(stage.deployment.nodes), 2)
    if stage.drawn.random() < 0.5:
        stage.note(f"{one} and {other} are cut from each other, for {away:.1f} s; both reach the register")
        network.cut(one, other)
    else:
        stage.note(f"{one} does not hear {other}, for {away:.1f} s")
        network.deafen(one, other)
    await trio.sleep(away)


async def _isolate(stage: Stage) -> None:
    network, name, away = stage.deployment.network, stage.node(), stage.seconds(0.5)
    assert network is not None
    hosts = set(network.hosts) - {name} - ({CLIENTS} if stage.drawn.random() < 0.5 else set())
    stage.note(f"{name} is cut from {', '.join(sorted(hosts))}, for {away:.1f} s")
    for host in sorted(hosts):
        network.cut(name, host)
    await trio.sleep(away)


async def _lose_register(stage: Stage) -> None:
    mesh, name = _mesh(stage), stage.node()
    stage.note("kill -9 of the register")
    mesh.kill_central()
    await trio.sleep(stage.seconds(0.5))
    stage.note(f"kill -9 {name}")
    await mesh.kill(name)
    await trio.sleep(stage.seconds(0.5))
    mesh.start_central()
    stage.note("the register is back")
    await trio.sleep(stage.seconds(0.5))
    await mesh.start(name)
    stage.note(f"{name} is ready again")


async def _away_register(stage: Stage) -> None:
    mesh, away = _mesh(stage), stage.seconds(1.0)
    stage.note(f"kill -9 of the register, for {away:.1f} s")
    mesh.kill_central()
    await trio.sleep(away)
    mesh.start_central()


async def _wipe(stage: Stage) -> None:
    name, away = stage.node(), stage.seconds(0.1)
    stage.note(f"kill -9 {name}, for {away:.1f} s, and its disk is lost")
    await stage.deployment.kill(name)
    stage.deployment.wipe(name)
    await trio.sleep(away)
    await stage.deployment.start(name)
    stage.note(f"{name} is ready again, with an empty disk")
    await trio.sleep(RELEARN_SECONDS)  # two disks in a row may be lost only when the first is made up for


def _mesh(stage: Stage) -> Mesh:
    assert isinstance(stage.deployment, Mesh)
    return stage.deployment


_ALL: Final = (
    Scenario("calm", "nothing happens: what load alone does", _rest),
    Scenario("kill", "kill -9 of a node under load, and its start", _kill),
    Scenario("kill-all", "kill -9 of all nodes at once", _kill_all),
    Scenario("stop", "SIGSTOP of a node for 0.5 to 30 s", _stop),
    Scenario("clock", "a node's wall clock jumps, up to years", _clock, Options(clock=True)),
    Scenario("disk", "a node's disk fills up, and is freed", _disk, Options(small_disk=True)),
    Scenario("roll", "SIGTERM and start of one node after another", _roll),
    Scenario("cut", "clients and a node are cut from each other, also one way", _cut_clients, Options(network=True)),
    Scenario(
        "unheard",
        "kill -9 of a node that clients no longer hear: what it has kept, they send again",
        _kill_unheard,
        Options(network=True),
    ),
    Scenario("path", "the path through the balancer is slow, stalls, breaks", _path),
    Scenario("split", "two nodes are cut from each other, also one way; the register hears both", _cut_nodes, nodes=3),
    Scenario("isolate", "a node is cut from all others, with or without its clients", _isolate, nodes=3),
    Scenario(
        "register",
        "the register is killed, then a node; both come back",
        _lose_register,
        nodes=3,
    ),
    Scenario("register-away", "the register is away for long, and nobody fails", _away_register, nodes=3),
    Scenario("wipe", "a node is killed and comes back with an empty disk", _wipe, nodes=3),
)
SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}
"""By name. With several nodes, those that take any node meet primaries and backups alike."""

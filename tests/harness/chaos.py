"""The command behind ``scripts/chaos``: faults on real nodes under the load of real clients, judged by the checker."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from router.errors import RouterError
from router.log_tools import verify
from tests.harness import checker, mutants, read_log
from tests.harness.chaos_client import ChaosClient, leaves
from tests.harness.chaos_scenarios import SCENARIOS, Scenario, Stage
from tests.harness.deployment import OneNode
from tests.harness.mesh_deployment import Mesh
from tests.harness.namespaces import NotPermitted
from tests.harness.node_process import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.harness.checker import History
    from tests.harness.deployment import Deployment

LOOK_SECONDS: Final = 0.02
LOOK_AGAIN_SECONDS: Final = 1.0  # at all logs
PROMPT_SECONDS: Final = 1.0  # within which a submit counts as available
MOST_NAMED: Final = 3  # clients in a message
CALM_SECONDS: Final = (0.5, 2.0)  # between two rounds of faults
ROOMS_OF_A_CLIENT: Final = 2


@dataclass(slots=True, frozen=True)
class Load:
    """What clients do.

    Attributes:
        clients: How many; each reads two rooms.
        rooms: Over which they are spread.
        rate: Messages per second, of all together.
    """

    clients: int = 12
    rooms: int = 6
    rate: float = 200.0


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        faults: What is wrong, a line each; empty: nothing.
        timeline: What was done, and when: seconds since the beginning.
        latencies: Of each message that was acknowledged, in seconds from when it was wanted, sorted.
        messages: How many were sent.
        silence: The longest time in which nothing was acknowledged, in seconds.
        places: How many entries were given to clients.
    """

    scenario: str
    seed: int
    faults: list[str] = field(default_factory=list)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    messages: int = 0
    silence: float = 0.0
    places: int = 0
    seconds: float = 0.0

    @property
    def availability(self) -> float:
        """The share of messages that were acknowledged within a second, whatever it took."""
        prompt = sum(1 for latency in self.latencies if latency <= PROMPT_SECONDS)
        return prompt / self.messages if self.messages else 0.0

    def lines(self) -> list[str]:
        """For people."""
        verdict = f"{len(self.faults)} FAULTS" if self.faults else "nothing is wrong"
        return [
            f"{self.scenario}, seed {self.seed}: {verdict}",
            *(f"    {at:7.1f} s  {text}" for at, text in self.timeline),
            f"    {self.messages:,} messages in {self.seconds:.0f} s, {self.availability:.2%} acknowledged within"
            f" {PROMPT_SECONDS:g} s; p50 {self._latency(0.5)}, p99 {self._latency(0.99)}, longest {self._latency(1)};"
            f" longest silence {self.silence:.2f} s; {self.places:,} entries read",
            *(f"    FAULT {fault}" for fault in self.faults),
        ]

    def _latency(self, share: float) -> str:
        if not self.latencies:
            return "-"
        return f"{self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1000:,.0f} ms"


class NoProgress(Exception):
    """Clients did not get on, when nothing hindered them any more; says which."""


class Crowd:
    """The clients of a run: every other one comes through the balancer, the others to one node after another.

    Args:
        deployment: What they talk to.
        load: What they do.
        drawn: Decides what is left open.
        patience: Seconds that anything may take that nothing hinders.
    """

    def __init__(self, deployment: Deployment, load: Load, drawn: random.Random, patience: float) -> None:
        self._patience = patience
        self._rooms = [f"room-{number}" for number in range(load.rooms)]
        self.clients = [
            ChaosClient(
                f"user-{number}",
                [self._rooms[(number + step) % load.rooms] for step in range(min(ROOMS_OF_A_CLIENT, load.rooms))],
                deployment.dial_balancer if number % 2 else deployment.dial_node,
                random.Random(drawn.random()),
                load.rate / load.clients,
            )
            for number in range(load.clients)
        ]

    async def wait_progress(self) -> None:
        """Wait until each client was acknowledged something that it began after now.

        Raises:
            NoProgress: One was not, after long.
        """
        begun = {client: len(client.sent) for client in self.clients}
        await self._wait("have no acknowledgement", lambda: [c for c, n in begun.items() if c.newest_acked < n])

    async def finish(self) -> None:
        """Begin no more messages, and wait until all are acknowledged, and read by all.

        Raises:
            NoProgress: They are not, after long.
        """
        for client in self.clients:
            client.writing = False
        await self._wait("have unanswered messages", lambda: [c for c in self.clients if c.unanswered])
        await self._wait_read(self.clients)

    async def read_at_rest(self, deployment: Deployment) -> list[History]:
        """What each node shows somebody who comes when all is over.

        Raises:
            NoProgress: It does not show everything, after long.
        """
        readers = []
        for name in deployment.nodes:
            dial = partial(deployment.dial, name)
            reader = ChaosClient(f"reader of {name}", self._rooms, dial, random.Random(0), 1.0)
            reader.writing, reader.history.at_rest = False, True
            readers.append(reader)
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.run)
            try:
                await self._wait_read(readers)
            finally:
                nursery.cancel_scope.cancel()
        return [reader.history for reader in readers]

    async def _wait(self, what: str, missing: Callable[[], list[ChaosClient]]) -> None:
        """Wait until nobody is missing any more.

        Raises:
            NoProgress: Some are, after long.
        """
        with trio.move_on_after(self._patience):
            while missing():  # noqa: ASYNC110 - many clients change what is missing, thousands of times a second
                await trio.sleep(LOOK_SECONDS)
            return
        if clients := missing():
            names = ", ".join(f"{client.name} ({client.problem or 'connected'})" for client in clients[:MOST_NAMED])
            raise NoProgress(f"after {self._patience:g} s {len(clients)} clients {what}: {names}")

    async def _wait_read(self, readers: Sequence[ChaosClient]) -> None:
        tops = dict.fromkeys(self._rooms, 0)
        for client in self.clients:
            for room in client.rooms:
                tops[room] = max(tops[room], client.top(room))
        await self._wait(
            "have not read everything",
            lambda: [reader for reader in readers if any(reader.offset(room) < tops[room] for room in reader.rooms)],
        )


@dataclass(slots=True, frozen=True)
class Run:
    """A scenario under one seed.

    Attributes:
        seed: Of the generator that decides what the scenario and the clients do; when, the machine has a say in.
        seconds: Rounds of faults begin for so long; there is always one.
        longest: Seconds that one fault lasts at most.
        patience: Seconds in which clients must get on after a fault, and all have read everything at the end.
        command: The nodes' program.
        nodes: How many; more than one are a cluster.
    """

    scenario: Scenario
    seed: int
    seconds: float = 30.0
    longest: float = 30.0
    patience: float = 60.0
    load: Load = Load()
    command: tuple[str, ...] = COMMAND
    nodes: int = 1

    async def perform(self, folder: Path) -> Outcome:
        """Do it.

        Args:
            folder: For the nodes' data and logs, and what is kept of the run.

        Raises:
            NotPermitted: Something that the scenario needs can't be had here.
        """
        drawn = random.Random(f"{self.scenario.name} {self.seed}")
        options = replace(self.scenario.options, command=self.command)
        deployment = OneNode(folder, drawn, options) if self.nodes == 1 else Mesh(folder, drawn, options, self.nodes)
        outcome = Outcome(self.scenario.name, self.seed)
        crowd = Crowd(deployment, self.load, drawn, self.patience)
        histories = [client.history for client in crowd.clients]
        try:
            async with deployment.running():
                stage = Stage(deployment, drawn, self.longest, trio.current_time(), outcome.timeline)
                try:
                    await self._play(stage, crowd, histories)
                finally:
                    outcome.seconds = trio.current_time() - stage.began
                    outcome.faults += deployment.ended()
                    deployment.kill_all()
                    outcome.faults += judged(histories, deployment.data(), deployment.copies)
                    if outcome.faults:
                        deployment.keep_disks()
        except* (RuntimeError, AssertionError, NoProgress) as group:
            outcome.faults += [str(error) for error in leaves(group)]
        outcome.faults += [fault for client in crowd.clients for fault in client.faults]
        measure(outcome, crowd)
        if outcome.faults:
            keep(folder, outcome, histories)
        return outcome

    async def _play(self, stage: Stage, crowd: Crowd, histories: list[History]) -> None:
        async with trio.open_nursery() as nursery:
            for client in crowd.clients:
                nursery.start_soon(client.run)
            await crowd.wait_progress()
            stage.note("all clients get on")
            until = trio.current_time() + self.seconds
            while True:
                await self.scenario.act(stage)
                stage.deployment.heal()
                healed = trio.current_time()
                await crowd.wait_progress()
                stage.note(f"all clients get on again after {trio.current_time() - healed:.2f} s")
                if trio.current_time() > until or any(client.faults for client in crowd.clients):
                    break
                await trio.sleep(stage.drawn.uniform(*CALM_SECONDS))
            await crowd.finish()
            histories += await crowd.read_at_rest(stage.deployment)
            await self._settle(stage.deployment, histories)
            nursery.cancel_scope.cancel()

    async def _settle(self, deployment: Deployment, histories: Sequence[History]) -> None:
        """Let nodes that came back catch up; what they have not by then is judged as it is."""
        with trio.move_on_after(self.patience):
            while await trio.to_thread.run_sync(judged, histories, deployment.data(), deployment.copies):  # noqa: ASYNC110
                await trio.sleep(LOOK_AGAIN_SECONDS)


def performed_or_why_not(run: Run, folder: Path) -> Outcome | str:
    """What came of a run; or why there can't be one here."""
    reasons: list[str] = []
    try:
        return trio.run(run.perform, folder)
    except* NotPermitted as group:
        reasons += map(str, leaves(group))
    return reasons[0]


def judged(histories: Sequence[History], data: Mapping[str, Path], copies: int) -> list[str]:
    """What is wrong with what clients saw and what is in the nodes' data directories, a line each.

    Args:
        histories: Of all clients, and of who reads at rest.
        data: By node. Of several, one need not have all rooms; so many must, of each.
        copies: How many.
    """
    logs, chains, lines = [], {}, []
    for name, folder in data.items():
        try:
            lines += [f"log of {name}: {finding}" for finding in verify(folder).findings]
            log = read_log.history(name, folder)
            log.at_rest = len(data) == 1
            logs.append(log)
            chains[name] = read_log.chains(folder)
        except RouterError as error:
            lines.append(f"log of {name}: {error}")
    lines += checker.summary(checker.faults([*histories, *logs], chains))
    return lines + list(missing_copies(logs, copies))


def missing_copies(logs: Sequence[History], copies: int) -> Iterator[str]:
    """A line for each room that too few logs have to its end."""
    ends: dict[str, list[int]] = {}
    for log in logs:
        of_log = {event.room: event.sequence for event in log.events if isinstance(event, checker.Seen)}
        for room, end in of_log.items():
            ends.setdefault(room, []).append(end)
    for room, reached in ends.items():
        whole = sum(end == max(reached) for end in reached)
        if whole < copies:
            yield f"copies: room {room} goes to {max(reached)} in {whole} of {len(logs)} logs; it is to be in {copies}"


def measure(outcome: Outcome, crowd: Crowd) -> None:
    """Write down how clients fared."""
    sent = [sent for client in crowd.clients for sent in client.sent]
    acked = sorted(one.acked_at for one in sent if one.acked_at is not None)
    outcome.messages = len(sent)
    outcome.latencies = sorted(one.acked_at - one.submit.at for one in sent if one.acked_at is not None)
    outcome.silence = max((later - earlier for earlier, later in pairwise(acked)), default=0.0)
    outcome.places = sum(isinstance(event, checker.Seen) for c in crowd.clients for event in c.history.events)


def keep(folder: Path, outcome: Outcome, histories: Sequence[History]) -> None:
    """Leave beside the nodes' logs what is needed to find out what went wrong."""
    (folder / "run.txt").write_text("\n".join(outcome.lines()) + "\n")
    with (folder / "histories.jsonl").open("wb") as file:
        for history in histories:
            for event in history.events:
                file.write(msgspec.json.encode([history.client, type(event).__name__, *event]) + b"\n")


def main(given: Sequence[str]) -> int:
    """Run scenarios under seeds, and say what was seen; 1 if anything is wrong, 2 if nothing could be run."""
    asked = _parse(given)
    if asked.list:
        _list()
        return 0
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="chat-chaos-"))
    command = mutants.command(asked.mutant) if asked.mutant else COMMAND
    load = Load(asked.clients, asked.rooms, asked.rate)
    failed = performed = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        for name in asked.scenario or SCENARIOS:
            nodes = max(asked.nodes, SCENARIOS[name].nodes)
            run = Run(SCENARIOS[name], seed, asked.minutes * 60, asked.longest, load=load, command=command, nodes=nodes)
            where = folder / f"{name}-{seed}"
            outcome = performed_or_why_not(run, where)
            if isinstance(outcome, str):
                say(f"{name}, seed {seed}: not here: {outcome}")
                continue
            performed += 1
            say("\n".join(outcome.lines()))
            if outcome.faults:
                failed += 1
                say(f"    kept in {where}; again: scripts/chaos --nodes {nodes} --scenario {name} --first {seed}")
            else:
                shutil.rmtree(where)
    if not failed and not asked.keep:
        folder.rmdir()
    say(f"{performed} runs, {failed} of them with faults")
    return 1 if failed else 0 if performed else 2


def _parse(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each scenario")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="again for more; else all")
    parser.add_argument("--list", action="store_true", help="say what scenarios there are")
    parser.add_argument("--minutes", type=float, default=0.5, help="rounds of faults begin for so long in each run")
    parser.add_argument("--longest", type=float, default=30, help="seconds that one fault lasts at most")
    parser.add_argument("--nodes", type=int, default=1, help="how many; more where a scenario takes more")
    parser.add_argument("--clients", type=int, default=12, help="how many; each is in two rooms")
    parser.add_argument("--rooms", type=int, default=6, help="how many")
    parser.add_argument("--rate", type=float, default=200, help="messages per second, of all clients together")
    parser.add_argument("--keep", type=Path, help="folder for data and logs; else one in the temporary folder")
    parser.add_argument("--mutant", help=f"run nodes with a fault, to see it found: {', '.join(mutants.MUTATIONS)}")
    return parser.parse_args(given)


def _list() -> None:
    for scenario in SCENARIOS.values():
        say(f"{scenario.name:14} {scenario.summary}" + (f" ({scenario.nodes} nodes)" if scenario.nodes > 1 else ""))


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

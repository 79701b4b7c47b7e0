"""Members of a shard as a Hypothesis state machine: what fails shrinks to the few faults that it takes."""

from __future__ import annotations

import random
from statistics import median_low

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from router.sequencer import Sequencer
from router.shard import ShardOptions
from tests.harness.simulated_mesh import Mesh
from tests.harness.simulated_storage import Violation
from tests.harness.simulated_weather import FAIR, NOISE, STORM

NODES = 4
WHO = st.integers(0, NODES - 1)


class MeshMachine(RuleBasedStateMachine):
    """Every rule is a fault, or time; the mesh itself compares all that must hold, at each of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh: Mesh

    @initialize(copies=st.sampled_from([3, 2]), noisy=st.booleans())
    def begin(self, copies: int, noisy: bool) -> None:
        options = ShardOptions(copies=copies, min_sync=2)
        weather = NOISE if noisy else FAIR
        self.mesh = Mesh(random.Random(1), nodes=NODES, options=options, weather=weather, writers=3, pause=200)

    @rule(milliseconds=st.sampled_from([20, 100, 400, 1600, 4000]))
    def time_passes(self, milliseconds: int) -> None:
        self.mesh.run_for(milliseconds)

    @rule(who=WHO)
    def crash(self, who: int) -> None:
        self.mesh.crash(self.mesh.nodes[who])

    @rule()
    def crash_primary(self) -> None:
        primary = self.mesh.primary()
        if primary is not None:
            self.mesh.crash(primary)

    @rule(who=WHO)
    def crash_within_a_write(self, who: int) -> None:
        self.mesh.doom(self.mesh.nodes[who])

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        self.mesh.restart(self.mesh.nodes[who])

    @rule(who=WHO, other=WHO, one_way=st.booleans())
    def cut(self, who: int, other: int, one_way: bool) -> None:
        if who != other:
            self.mesh.network.cut(self.mesh.nodes[who], self.mesh.nodes[other], one_way=one_way)

    @rule(who=WHO)
    def isolate(self, who: int) -> None:
        self.mesh.isolate(self.mesh.nodes[who])

    @rule()
    def heal(self) -> None:
        self.mesh.heal()

    @rule(who=WHO, milliseconds=st.sampled_from([200, 2000, 6000]))
    def stop(self, who: int, milliseconds: int) -> None:
        self.mesh.stop(self.mesh.nodes[who], milliseconds)

    @precondition(lambda self: not self.mesh.ledger.lost_disks)
    @rule(who=WHO)
    def wipe(self, who: int) -> None:
        node = self.mesh.nodes[who]
        if self.mesh.may_wipe(node):
            self.mesh.wipe(node)

    @rule(who=WHO, fault=st.sampled_from(["fails", "is full", "is slow"]))
    def disk(self, who: int, fault: str) -> None:
        node = self.mesh.nodes[who]
        if fault == "fails":
            self.mesh.fail(node)
        elif fault == "is full":
            self.mesh.fill(node, 2)
        else:
            self.mesh.slow(node, 3000)

    @rule(who=WHO)
    def mend(self, who: int) -> None:
        self.mesh.mend(self.mesh.nodes[who])

    @rule()
    def lose_register(self) -> None:
        self.mesh.lose_register(3000)

    @override
    def teardown(self) -> None:
        if hasattr(self, "mesh"):
            self.mesh.calm(12)


SETTINGS = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def test_whatever_happens_nothing_acknowledged_is_lost_and_all_comes_back() -> None:
    run_state_machine_as_test(MeshMachine, settings=SETTINGS)


def test_the_machine_sees_a_core_that_commits_what_a_majority_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequencer, "_lowest", lambda self: median_low(self._match.values()))
    quick = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(Violation, match="is a member by"):
        run_state_machine_as_test(MeshMachine, settings=quick)


def test_a_seed_replays_exactly() -> None:
    def play() -> tuple[list[str], int]:
        options = ShardOptions(copies=3, min_sync=2)
        mesh = Mesh(random.Random(7), options=options, weather=STORM)
        mesh.run_for(10_000)
        return mesh.tally.events, mesh.tally.steps

    assert play() == play()

"""Replication under every kind of fault, in virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from router.sequencer import Sequencer
from tests.harness.simulate import Run, main
from tests.harness.simulated_weather import ROUGH, STORM

SEEDS: Final = range(80)  # with the scenarios, more than a million steps
BLOCK: Final = 40  # seeds, in which all kinds of faults happen

FAULTS: Final = (
    "crashed", "cut", "cut one way", "dropped", "full", "halted: an fsync failed", "halted: its disk is full", "healed",
    "lost in a cut", "overtaken", "register ambiguous", "register away", "register late", "repeated", "slow fsync",
    "stopped", "storage_full", "torn write", "wiped",
)  # fmt: skip
RETRIES: Final = ("accepted at a later attempt", "forwarded", "sent again", "told: the outcome is unknown")


@pytest.mark.parametrize("block", SEEDS[::BLOCK])
def test_nothing_acknowledged_is_lost_and_all_comes_back_when_it_is_calm(block: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(block, block + BLOCK):
        run = Run(seed, weather=STORM if seed % 4 == 3 else ROUGH)
        simulated = run.mesh()
        run.play(simulated)
        simulated.calm()
        assert simulated.tally.acked > 50, f"seed {seed}"
        assert simulated.tally.heads, f"seed {seed}"
        counts += simulated.tally.counts
    assert [fault for fault in (*FAULTS, *RETRIES) if not counts[fault]] == []


def test_a_failing_seed_is_told_with_what_led_to_it_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Sequencer, "_lowest", lambda self: max(self._match.values()))
    assert main(["--seeds", "1", "--first", "1", "--nodes", "3"]) == 1
    told = capsys.readouterr().out
    assert "again: scripts/simulate --seed 1 --seconds 30 --nodes 3 --weather rough" in told
    assert "1 runs, 1 of them with a violation" in told
    assert main(["--seed", "1", "--nodes", "3"]) == 1
    assert "6: row 1 of shard 0: n0 of n0 n1" in capsys.readouterr().out

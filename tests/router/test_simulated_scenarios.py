"""Every failure case of replication, in virtual time, with noise around it."""

from __future__ import annotations

from typing import Final

import pytest

from tests.harness.simulated_scenarios import SCENARIOS

SEEDS: Final = 20


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_acknowledged_is_lost_and_all_comes_back(name: str) -> None:
    for seed in range(SEEDS):
        assert SCENARIOS[name].play(seed).tally.acked > 10, f"seed {seed}"

"""Figures of many nodes: what is counted, and that it is told to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.simulate import main
from tests.harness.simulated_scale import measure, quantile

if TYPE_CHECKING:
    import pytest


def test_a_node_talks_only_to_those_that_it_shares_shards_with() -> None:
    figures = measure(0, nodes=60, shards=20, seconds=2)
    assert sum(figures.shards) >= 60  # three copies of each
    assert 0 < quantile(figures.peers, 1) < 59
    assert 10 < figures.accepted < 30  # of each shard's client, one in a second
    assert all(1000 <= time <= 5000 for time in figures.failovers)  # it takes a while to suspect


def test_figures_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "30", "--shards", "60", "--seconds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["p50", "p99", "most"]
    assert [line for line in lines if line.startswith("messages/s that a node sends ")]
    assert "fail-over, ms (" in lines[6]

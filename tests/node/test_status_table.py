"""The status of a cluster as people and programs see it."""

import json
from io import StringIO

import pytest
from rich.console import Console

from node.status import ClusterStatus
from node.status_table import UNKNOWN, WIDE_CHARACTERS, as_json, delay, duration, rendered, size
from tests.harness.status import GONE, WELL

SHOWN = (
    "edge-[1]", "ready", "1 d 2 h", "12,345", "678", "1,234 / 0.2", "4.2 ms / 31 ms", "1.1 ms", "100.0 MiB", "42%",
    "2.9 MiB ok", "unreachable",
)  # fmt: skip
CLUSTER = ClusterStatus(2, [WELL], [GONE])


def text(cluster: ClusterStatus, width: int) -> str:
    written = StringIO()
    Console(width=width, file=written).print(rendered(cluster, width))
    return written.getvalue()


@pytest.mark.parametrize("width", [WIDE_CHARACTERS, 79])
def test_the_verdict_comes_first_and_nothing_is_cut_off(width: int) -> None:
    lines = text(CLUSTER, width).splitlines()
    assert lines[0].split() == ["CRIT", "1", "of", "2", "nodes", "up"]
    assert "http://127.0.0.1:9001 is unreachable: Connection refused" in lines[1]
    told = "\n".join(lines)
    assert "…" not in told
    assert [value for value in SHOWN if value not in told] == []


def test_json_has_the_same_verdicts() -> None:
    found = json.loads(as_json(CLUSTER))
    assert (found["verdict"], found["nodes_up"], found["nodes_expected"]) == ("CRIT", 1, 2)
    assert found["nodes"][0]["verdict"] == "OK"
    assert found["nodes"][0]["recent"]["cpu_share"] == 0.42
    assert found["unreachable"] == [{"address": GONE.address, "reason": GONE.reason}]
    assert found["reasons"][0]["verdict"] == "CRIT"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h 0 min"), (86_400 * 3 + 3600 * 4, "3 d 4 h")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, UNKNOWN), (0.0005, "0.5 ms"), (0.05, "50 ms"), (1.5, "1.5 s")]
)
def test_delays(seconds: float | None, expected: str) -> None:
    assert delay(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(None, UNKNOWN), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes(number: int | None, expected: str) -> None:
    assert size(number) == expected

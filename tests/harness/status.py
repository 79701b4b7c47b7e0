"""A node's description of itself, as one that is well gives it."""

from __future__ import annotations

from typing import Final

import msgspec

from node.status import LogState, NodeStatus, Readiness, Recent, State, Unreachable, readiness

WELL: Final = NodeStatus(
    node="edge-[1]",
    region="eu",
    version="0.1.0",
    state=State.READY,
    uptime_seconds=93_784.0,
    connections=12_345,
    rooms=678,
    log=LogState.OK,
    log_bytes=3_000_000,
    memory_bytes=104_857_600,
    disk_used_share=0.5,
    recent=Recent(
        received_per_second=1234.5,
        delivered_per_second=0.25,
        latency_p50_seconds=0.0042,
        latency_p99_seconds=0.031,
        loop_lag_p99_seconds=0.0011,
        cpu_share=0.42,
    ),
)
GONE: Final = Unreachable(address="http://127.0.0.1:9001", reason="Connection refused")


def changed(**changes: object) -> NodeStatus:
    """`WELL`, but for these fields."""
    return msgspec.structs.replace(WELL, **changes)


def recently(**changes: float) -> NodeStatus:
    """`WELL`, but for these fields of the last minute."""
    return changed(recent=msgspec.structs.replace(WELL.recent, **changes))


class FakeNode:
    """A node that HTTP tells of (`node.http.Watched`): it is well, and as ready as the test wants."""

    def __init__(self, ready: Readiness | None = None) -> None:
        self.readiness = ready or readiness(State.READY, LogState.OK, "")

    def status(self) -> NodeStatus:
        """How it is: well."""
        return WELL

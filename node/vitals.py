"""How this node is: its condition, the last minute's figures, and the process's own.

`Condition` is what others set; `Vitals` turns it, with the metrics, into a `NodeStatus`. Two tasks measure: one how
late the loop wakes it, one how the counters grow.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from node.metrics import DELAY_SECONDS, PAUSE_SECONDS, quantile
from node.status import MOST_TROUBLES, LogState, NodeStatus, Readiness, Recent, State, readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from node.metrics import Build, Histogram, Metrics
    from node.status import MeshStatus, WebhookTrouble

LAG_PROBE_SECONDS: Final = 0.1  # ten wake-ups a second cost nothing and see every pause that clients feel
SAMPLE_SECONDS: Final = 5.0
SHORTEST_SECONDS: Final = 1.0  # over less, a rate says nothing
WINDOW_SECONDS: Final = 60.0  # what "now" means to a person who looks; longer than a burst, shorter than an incident

_STATM: Final = Path("/proc/self/statm")


class Condition:
    """What the parts of the node say of themselves.

    Attributes:
        log_reason: Why the log is not OK, and the mend.
        webhooks: Gives the receivers of webhooks that fail.
        mesh: Gives the node's view of its cluster; None: it is alone.
        cut_off: Whether it is cut off from it; None: it is alone.
    """

    __slots__ = ("cut_off", "log", "log_reason", "mesh", "state", "webhooks")

    def __init__(self) -> None:
        self.state = State.STARTING
        self.log = LogState.OK
        self.log_reason = ""
        self.webhooks: Callable[[], tuple[WebhookTrouble, ...]] = tuple
        self.mesh: Callable[[], MeshStatus] | None = None
        self.cut_off: bool | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The growing figures at one moment.

    Attributes:
        at: Monotonic seconds.
        cpu_seconds: Of all threads of the process.
        deliveries: Counts of `Metrics.delivery_seconds`.
        lags: Counts of `Metrics.loop_lag_seconds`.
    """

    at: float
    cpu_seconds: float
    received: int
    delivered: int
    deliveries: tuple[int, ...]
    lags: tuple[int, ...]

    @classmethod
    def take(cls, metrics: Metrics, at: float, cpu_seconds: float) -> Sample:
        """What holds now."""
        return cls(
            at,
            cpu_seconds,
            metrics.received,
            metrics.delivered,
            tuple(metrics.delivery_seconds.counts),
            tuple(metrics.loop_lag_seconds.counts),
        )


class Window:
    """Samples of the last minute."""

    __slots__ = ("_samples",)

    def __init__(self, first: Sample) -> None:
        self._samples = deque((first,), maxlen=round(WINDOW_SECONDS / SAMPLE_SECONDS) + 1)

    def add(self, sample: Sample) -> None:
        """Keep a sample; the oldest goes."""
        self._samples.append(sample)

    def until(self, now: Sample) -> Recent:
        """What happened from the oldest sample until `now`."""
        old = self._samples[0]
        seconds = now.at - old.at
        if seconds < SHORTEST_SECONDS:
            return Recent()
        deliveries = [after - before for before, after in zip(old.deliveries, now.deliveries, strict=True)]
        lags = [after - before for before, after in zip(old.lags, now.lags, strict=True)]
        return Recent(
            received_per_second=(now.received - old.received) / seconds,
            delivered_per_second=(now.delivered - old.delivered) / seconds,
            latency_p50_seconds=quantile(DELAY_SECONDS, deliveries, 0.5),
            latency_p99_seconds=quantile(DELAY_SECONDS, deliveries, 0.99),
            loop_lag_p99_seconds=quantile(PAUSE_SECONDS, lags, 0.99),
            cpu_share=(now.cpu_seconds - old.cpu_seconds) / seconds,
        )


class Vitals:
    """Describes this node.

    Args:
        build: Who it is.
        metrics: What it counts.
        condition: What its parts say.
        data_dir: Where the log lies.
    """

    def __init__(self, build: Build, metrics: Metrics, condition: Condition, data_dir: Path) -> None:
        self.build = build
        self.metrics = metrics
        self.condition = condition
        self._data_dir = data_dir
        self._started = time.monotonic()
        self._window = Window(self._sample())
        metrics.refreshers.append(self._refresh)

    @property
    def readiness(self) -> Readiness:
        """Whether clients should be sent here."""
        condition = self.condition
        return readiness(condition.state, condition.log, condition.log_reason, cut_off=condition.cut_off)

    def status(self) -> NodeStatus:
        """How the node is now."""
        metrics, condition = self.metrics, self.condition
        metrics.refresh()
        now = self._sample()
        return NodeStatus(
            node=self.build.node,
            region=self.build.region,
            version=self.build.version,
            state=condition.state,
            uptime_seconds=now.at - self._started,
            connections=metrics.connections,
            rooms=metrics.rooms,
            log=condition.log,
            log_reason=condition.log_reason,
            log_bytes=metrics.log_bytes,
            memory_bytes=memory_bytes(),
            disk_used_share=metrics.disk_used_share or None,
            recent=self._window.until(now),
            webhooks=condition.webhooks()[:MOST_TROUBLES],
            mesh=None if condition.mesh is None else condition.mesh(),
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_lag, self.metrics.loop_lag_seconds)
            while True:
                await trio.sleep(SAMPLE_SECONDS)
                self._window.add(self._sample())

    def _sample(self) -> Sample:
        return Sample.take(self.metrics, time.monotonic(), time.process_time())

    def _refresh(self) -> None:
        metrics, condition = self.metrics, self.condition
        metrics.draining = int(condition.state is State.DRAINING)
        metrics.log_halted = int(condition.log is LogState.HALTED)
        metrics.disk_used_share = disk_used_share(self._data_dir) or 0.0


async def watch_lag(histogram: Histogram) -> None:
    """Observe how late the loop wakes this task, until cancelled."""
    while True:
        due = trio.current_time() + LAG_PROBE_SECONDS
        await trio.sleep_until(due)
        histogram.observe(trio.current_time() - due)


@contextmanager
def watched_gc(histogram: Histogram) -> Iterator[None]:
    """Observe every collection of garbage of this process, in whichever thread."""
    clock = time.perf_counter
    started = clock()

    def observe(phase: str, _: Mapping[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = clock()
        else:
            histogram.observe(clock() - started)

    gc.callbacks.append(observe)
    try:
        yield
    finally:
        with suppress(ValueError):
            gc.callbacks.remove(observe)


def memory_bytes() -> int | None:
    """The process's resident memory; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def disk_used_share(folder: Path) -> float | None:
    """The used share of a folder's disk, from 0 to 1, as non-privileged writers see it; None if it can't be told."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    writable = usage.used + usage.free
    return usage.used / writable if writable else None

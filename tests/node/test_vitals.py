"""What a node knows of itself."""

import gc
from pathlib import Path

import pytest
import trio
import trio.testing

from node.metrics import DELAY_SECONDS, Build, Histogram, Metrics
from node.status import LogState, Recent, State
from node.vitals import (
    LAG_PROBE_SECONDS,
    SAMPLE_SECONDS,
    WINDOW_SECONDS,
    Condition,
    Sample,
    Vitals,
    Window,
    disk_used_share,
    memory_bytes,
    watch_lag,
    watched_gc,
)

BUILD = Build(version="1.2.3", python="3.11.0", node="n1", region="eu")


def sample(at: float, metrics: Metrics, cpu_seconds: float = 0.0) -> Sample:
    return Sample.take(metrics, at, cpu_seconds)


def test_rates_are_of_the_time_since_the_oldest_sample() -> None:
    metrics = Metrics()
    window = Window(sample(100.0, metrics))
    metrics.received, metrics.delivered = 20, 400
    metrics.delivery_seconds.observe(0.0015, 99)
    metrics.delivery_seconds.observe(3.0)
    metrics.loop_lag_seconds.observe(0.0003)
    recent = window.until(sample(110.0, metrics, cpu_seconds=5.0))
    assert (recent.received_per_second, recent.delivered_per_second, recent.cpu_share) == (2.0, 40.0, 0.5)
    assert recent.latency_p50_seconds == pytest.approx(0.0015, rel=0.2)
    assert recent.latency_p99_seconds == pytest.approx(0.002)
    assert recent.loop_lag_p99_seconds is not None


def test_what_is_older_than_the_window_is_forgotten() -> None:
    metrics = Metrics()
    window = Window(sample(0.0, metrics))
    metrics.received = 1_000_000
    metrics.delivery_seconds.observe(5.0)
    steps = round(WINDOW_SECONDS / SAMPLE_SECONDS) + 1
    for step in range(1, steps + 1):
        window.add(sample(step * SAMPLE_SECONDS, metrics))
    recent = window.until(sample((steps + 1) * SAMPLE_SECONDS, metrics))
    assert (recent.received_per_second, recent.latency_p99_seconds) == (0.0, None)


def test_over_less_than_a_second_nothing_is_said() -> None:
    metrics = Metrics()
    assert Window(sample(0.0, metrics)).until(sample(0.9, metrics)) == Recent()


def test_a_node_tells_its_condition(tmp_path: Path) -> None:
    metrics, condition = Metrics(), Condition()
    vitals = Vitals(BUILD, metrics, condition, tmp_path)
    assert vitals.status().state is State.STARTING
    condition.state = State.READY
    condition.log, condition.log_reason = LogState.FULL, "free 1 GiB"
    metrics.connections, metrics.rooms, metrics.log_bytes = 3, 2, 100
    status = vitals.status()
    assert (status.node, status.region, status.version) == ("n1", "eu", "1.2.3")
    assert (status.state, status.log, status.log_reason) == (State.READY, LogState.FULL, "free 1 GiB")
    assert (status.connections, status.rooms, status.log_bytes) == (3, 2, 100)
    assert status.uptime_seconds >= 0
    assert not vitals.readiness.checks["log"].ok


def test_gauges_follow_the_condition(tmp_path: Path) -> None:
    metrics, condition = Metrics(), Condition()
    Vitals(BUILD, metrics, condition, tmp_path)
    condition.state, condition.log = State.DRAINING, LogState.HALTED
    metrics.refresh()
    assert (metrics.draining, metrics.log_halted) == (1, 1)
    assert 0 < metrics.disk_used_share < 1


def test_a_disk_that_is_gone_is_not_known(tmp_path: Path) -> None:
    assert disk_used_share(tmp_path / "gone") is None


def test_memory_is_known_on_linux() -> None:
    assert (memory_bytes() or 0) > 1_000_000


def test_collections_of_garbage_are_observed_while_watched() -> None:
    histogram = Histogram(DELAY_SECONDS)
    with watched_gc(histogram):
        gc.collect()
    observed = sum(histogram.counts)
    gc.collect()
    assert observed >= 1
    assert sum(histogram.counts) == observed


async def test_a_loop_that_is_held_up_is_late(autojump_clock: trio.testing.MockClock) -> None:
    histogram = Histogram((0.001, 0.5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_lag, histogram)
        await trio.sleep(LAG_PROBE_SECONDS * 10.5)
        assert histogram.counts == [10, 0, 0]
        autojump_clock.jump(LAG_PROBE_SECONDS + 0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert histogram.counts == [10, 1, 0]
        nursery.cancel_scope.cancel()


async def test_the_window_moves_by_itself(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    vitals = Vitals(BUILD, Metrics(), Condition(), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vitals.run)
        await trio.sleep(WINDOW_SECONDS * 2)
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() >= WINDOW_SECONDS * 2
    assert sum(vitals.metrics.loop_lag_seconds.counts) > WINDOW_SECONDS

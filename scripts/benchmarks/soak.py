"""The command line of scripts/soak: one node under a steady load for as long as is asked, watched for what creeps."""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.build import compile_program
from scripts.benchmarks.command import ROOT, guarded, positive
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.machine import real_disk, two_cores
from scripts.benchmarks.processes import output_of
from scripts.benchmarks.prometheus import histograms, quantile
from scripts.benchmarks.reports import Report, read_report
from scripts.benchmarks.servers import CHAT_NODE, Running, Workshop
from scripts.benchmarks.workloads import NAP_US, PAYLOAD_BYTES

WORK = ROOT / ".run" / "soak"
SETTLED_SHARE = 0.2  # of the time; caches and tables fill in it, what grows afterwards creeps
SPARE_SECONDS = 120  # for connecting, and for the generator's end


@dataclass
class Watch:
    """Samples a node's resident memory in a thread of its own.

    Attributes:
        samples: (seconds since the start, KiB).
    """

    pid: int
    every: float
    samples: list[tuple[float, int]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until `ended`."""
        start = time.monotonic()
        while not self.ended.wait(self.every):
            seconds, kib = time.monotonic() - start, resident_kib(self.pid)
            self.samples.append((seconds, kib))
            print(f"{seconds:7.0f} s  {kib / 1024:8.1f} MiB", file=sys.stderr, flush=True)


def resident_kib(pid: int) -> int:
    """A process's resident memory; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def growth(samples: Sequence[tuple[float, int]]) -> float:
    """KiB per hour from the median of the first third to that of the last, of the time when all had settled."""
    if not samples:
        return 0.0
    settled = [sample for sample in samples if sample[0] >= samples[-1][0] * SETTLED_SHARE]
    third = max(1, len(settled) // 3)
    (at, before), (until, after) = (
        (sorted(s for s, _ in part)[len(part) // 2], sorted(k for _, k in part)[len(part) // 2])
        for part in (settled[:third], settled[-third:])
    )
    return (after - before) / (until - at) * 3600 if until > at else 0.0


def parser() -> argparse.ArgumentParser:
    """The options; docs/benchmarks.md says more."""
    options = argparse.ArgumentParser(
        prog="scripts/soak", description="Load one chat-node for a long time and watch its memory and its order."
    )
    add = options.add_argument
    add("--minutes", type=positive, default=60, help="of steady load (60)")
    add("--rate", type=positive, default=2000, help="messages a second (2000)")
    add("--connections", type=positive, default=1000, help="in rooms of two, all of which publish (1000)")
    add("--every", type=positive, default=30, help="seconds between two looks at the memory (30)")
    add("--work", type=Path, default=WORK, help="programs, logs and the node's data, on a disk (.run/soak)")
    return options


def main(arguments: Sequence[str]) -> int:
    """Load, watch and print; 1 when a message was missing or out of order, 2 when something needed is not there."""
    options = parser().parse_args(arguments)
    return guarded("scripts/soak", lambda: _watch(options))


def _watch(options: argparse.Namespace) -> int:
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    real_disk(work)
    shop = Workshop(work, two_cores(), {"wsload": compile_program("wsload", work / "programs")})
    with CHAT_NODE.open(shop) as node:
        return _soak(shop, node, options)


def _soak(shop: Workshop, node: Running, options: argparse.Namespace) -> int:
    seconds = options.minutes * 60
    command = [str(shop.programs["wsload"]), "ingest", f"ws://127.0.0.1:{node.port}/", *CHAT_NODE.options]
    command += ["-t", str(shop.template(CHAT_NODE.template)), "-n", str(options.connections)]
    command += ["-r", str(max(1, options.connections // 2)), "-p", str(options.connections), "-x", str(options.rate)]
    command += ["-d", str(seconds), "--warmup", "5", "--order", "--inflight", "200", "--conn-timeout", "30"]
    command += ["-s", str(PAYLOAD_BYTES), "--nap", str(NAP_US), "--pid", str(node.pid)]
    watch = Watch(node.pid, options.every)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        report = read_report(output_of(shop.cores[1], command, shop.log("wsload"), seconds + SPARE_SECONDS))
    finally:
        watch.ended.set()
        thread.join()
    return _tell(report, watch, node.metrics())


def _tell(report: Report, watch: Watch, metrics: str) -> int:
    step, order = report.step, report.order
    if step is None or order is None:
        message = f"wsload measured nothing: {report.first_error}"
        raise BenchError(message)
    print(f"connections   {report.established} of {report.conns}, {step.lost} lost")
    print(f"messages      {step.published}, {step.acked} acknowledged, {step.missing} deliveries missing")
    print(f"order         {order.faults()} faults")
    print(f"latency       p50 {step.latency_ms.p50:.1f} ms, p99 {step.latency_ms.p99:.1f} ms")
    lag = quantile(histograms(metrics).get("chat_node_loop_lag_seconds", {}), 0.99)
    print(f"loop lag      p99 {'unknown' if lag is None else f'at most {lag * 1000:.0f} ms'}")
    print(f"node's core   {step.server_cpu:.0%}")
    if watch.samples:
        print(f"memory        {watch.samples[-1][1] / 1024:.0f} MiB, {growth(watch.samples) / 1024:+.1f} MiB an hour")
    return int(bool(order.faults() or step.missing or step.lost or step.acked < step.published))

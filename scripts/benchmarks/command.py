"""The command line of scripts/bench."""

import argparse
import contextlib
import fcntl
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from scripts.benchmarks.build import compile_program, install_peers, versions
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.machine import describe, real_disk, two_cores
from scripts.benchmarks.measure import Measurement
from scripts.benchmarks.reports import Failure, FloorRun, Machine, Record, Run, read_records, write_record
from scripts.benchmarks.servers import CHAT_NODE, PEERS, Server, Workshop
from scripts.benchmarks.tables import document
from scripts.benchmarks.workloads import FULL, QUICK, SHAPES, Scale

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".run" / "bench"
PROGRAMS = ("wsload", "room_server", "send_floor")
ON_NODE = {"ws", "socketio"}
QUICK_PEERS = ["floor"]
"""A smoke run of the node and one peer stays below a minute."""


def list_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads a comma-separated list of these names, in the order in which we list them."""

    def read(text: str) -> list[str]:
        wanted = [name.strip() for name in text.split(",") if name.strip()]
        for name in wanted:
            if name not in known:
                message = f"{name!r} is none of {', '.join(known)}"
                raise argparse.ArgumentTypeError(message)
        return [name for name in known if name in wanted]

    return read


def positive(text: str) -> int:
    """Reads a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is no whole number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The options; docs/benchmarks.md says more."""
    options = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure one chat-node beside its peers; see docs/benchmarks.md."
    )
    add = options.add_argument
    add("--tests", type=list_of(SHAPES), default=list(SHAPES), help=f"of {','.join(SHAPES)} (all)")
    add("--peers", type=list_of(PEERS), help=f"of {','.join(PEERS)} (all; with --quick, floor)")
    add("--peers-only", action="store_true", help="leave chat-node out")
    add("--runs", type=positive, default=1, help="repeat everything N times and show medians (1)")
    add("--quick", action="store_true", help="small and short: shows that it works, its figures say nothing")
    add("--out", type=Path, help="results, a JSON object a line (WORK/results-TIME.jsonl)")
    add("--work", type=Path, default=WORK, help="programs, logs and the node's data, on a disk (.run/bench)")
    add("--read", type=Path, metavar="FILE", help="print the tables of an earlier --out and measure nothing")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 when a run failed, 2 when something needed is not there."""
    options = parser().parse_args(arguments)
    return guarded("scripts/bench", lambda: _read(options.read) if options.read else _bench(options))


def guarded(name: str, run: Callable[[], int]) -> int:
    """The exit status of `run`; 2 and a message when something needed is not there, 130 when it is interrupted."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        return run()
    except BenchError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the servers have been ended", file=sys.stderr)
        return 130


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _read(path: Path) -> int:
    try:
        print(document(read_records(path.read_bytes().splitlines())))
    except (OSError, msgspec.DecodeError) as error:
        message = f"{path} is no file of results: {error}"
        raise BenchError(message) from error
    return 0


def _servers(options: argparse.Namespace) -> list[Server]:
    peers = options.peers
    if peers is None:
        peers = QUICK_PEERS if options.quick else list(PEERS)
    chosen = [PEERS[name] for name in peers]
    return chosen if options.peers_only else [CHAT_NODE, *chosen]


def _bench(options: argparse.Namespace) -> int:
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    real_disk(work)
    servers = _servers(options)
    with _alone(work / "lock"):
        scale = QUICK if options.quick else FULL
        shop, machine = _prepare(work, servers, scale)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        out: Path = options.out or work / f"results-{stamp}.jsonl"
        records: list[Record] = []

        def keep(record: Record) -> None:
            records.append(record)
            write_record(out, record)
            print(progress(record), file=sys.stderr, flush=True)

        keep(machine)
        measurement = Measurement(shop, scale, keep)
        for number in range(1, options.runs + 1):
            for server in servers:
                measurement.measure(server, options.tests, number)
    print(document(records))
    print(f"\nThe runs are in {out}, the programs' logs in {work}.", file=sys.stderr)
    return int(any(isinstance(record, Failure) for record in records))


def _prepare(work: Path, servers: Sequence[Server], scale: Scale) -> tuple[Workshop, Machine]:
    cores = two_cores()
    for log in work.glob("*.log"):
        log.unlink()
    programs = {name: compile_program(name, work / "programs") for name in PROGRAMS}
    on_node = any(server.name in ON_NODE for server in servers)
    modules = install_peers(work / "peers") if on_node else None
    return Workshop(work, cores, programs, modules), describe(ROOT, work, cores, scale.name, versions(modules))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock: two benchmarks at once would measure each other.

    Raises:
        BenchError: another one holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another benchmark is running (it holds {path}); wait for it to end"
            raise BenchError(message) from error
        yield


def progress(record: Record) -> str:
    """One line to read while the benchmark goes on."""
    match record:
        case Machine():
            return f"{record.at}, data on {record.filesystem}"
        case Failure():
            return f"{record.server} {record.test}: FAILED: {record.message}"
        case FloorRun():
            return f"{record.server} unbatched: the floor is {record.floor.cpu_us_per_send:.2f} µs/send"
        case Run():
            return f"{record.server} {record.test} ({record.load}): {_progress_of(record)}"


def _progress_of(run: Run) -> str:
    step = run.report.step
    if run.report.mode == "idle":
        kib = run.report.server_rss_bytes_per_conn / 1024
        return f"{run.report.established} connections, {run.report.connects_per_s:,.0f}/s, {kib:.1f} KiB each"
    if step is None:
        return "no rate held"
    rates = f"{step.rate:,.0f} messages/s, {step.deliveries_per_s:,.0f} deliveries/s"
    latency = f"p50 {step.latency_ms.p50:.2f} ms, p99 {step.latency_ms.p99:.2f} ms"
    return f"{rates}, {latency}, {step.server_cpu_us_per_delivery:.2f} µs/delivery"

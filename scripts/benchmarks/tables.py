"""The tables: Markdown made of the records of a results file, and of nothing else.

Of several runs the median is shown, with the least and the most in brackets. Marks: `*` something
else had a core for part of the window, so that the figure is spoilt; `g` the generator's core was
full, so that the server may do better.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scripts.benchmarks.reports import Failure, FloorRun, Machine, Record, Run, Step
from scripts.benchmarks.targets import HALF_P99_MS, IDLE_P50_MS, LOOP_LAG_P99_MS, TARGETS, UNBATCHED_RATIO
from scripts.benchmarks.workloads import FULL

SPOILT_WAIT = 0.15
FULL_CORE = 0.95
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of the first table: of which test, in which unit, how it is taken and printed."""

    test: str
    title: str
    value: Callable[[Run], float | None]
    decimals: int = 0


def _best(value: Callable[[Step], float]) -> Callable[[Run], float | None]:
    return lambda run: value(run.report.best) if run.report.best else None


COLUMNS = (
    Column("fan1", "fan1 deliveries/s", _best(lambda step: step.deliveries_per_s)),
    Column("fan100", "fan100 deliveries/s", _best(lambda step: step.deliveries_per_s)),
    Column("ingest", "ingest messages/s", _best(lambda step: step.rate)),
    Column("idle", "idle KiB/connection", lambda run: run.report.server_rss_bytes_per_conn / 1024, 1),
    Column("connect", "connects/s", lambda run: run.report.connects_per_s),
)


def number(value: float, decimals: int = 0) -> str:
    """A figure with thousands separated."""
    return f"{value:,.{decimals}f}"


def spread(values: Sequence[float], decimals: int = 0) -> str:
    """The median, and the range when there is more than one value."""
    if not values:
        return NOTHING
    middle = number(statistics.median(values), decimals)
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values), decimals)}-{number(max(values), decimals)})"


def marks(steps: Sequence[Step | None]) -> str:
    """What is to be known of the windows behind a figure."""
    counted = [step for step in steps if step]
    spoilt = any(max(step.server_wait, step.generator_wait) > SPOILT_WAIT for step in counted)
    return ("*" if spoilt else "") + ("g" if any(step.generator_cpu > FULL_CORE for step in counted) else "")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; empty when it has no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


class Results:
    """The records by server and test, in the order in which they were made."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.machines = [record for record in records if isinstance(record, Machine)]
        self.runs = [record for record in records if isinstance(record, Run)]
        self.floors = [record for record in records if isinstance(record, FloorRun)]
        self.failures = [record for record in records if isinstance(record, Failure)]
        self.servers = list(dict.fromkeys(run.server for run in self.runs))

    def of(self, server: str, test: str, load: str | None = None) -> list[Run]:
        """The runs of one test of a server, or of one load of it."""
        return [run for run in self.runs if run.server == server and run.test == test and load in {None, run.load}]

    def values(self, server: str, column: Column) -> list[float]:
        """A column's figures, one for each run that found one."""
        values = [column.value(run) for run in self.of(server, column.test)]
        return [value for value in values if value is not None]


def throughput(results: Results) -> str:
    """Rates, memory and connects of every server, the first server against the others, the targets."""
    columns = [column for column in COLUMNS if any(run.test == column.test for run in results.runs)]
    if not columns:
        return ""
    rows = [[server, *(_figure(results, server, column) for column in columns)] for server in results.servers]
    first = results.servers[0]
    rows += [
        [f"{first} / {peer}", *(_ratio(results, first, peer, column) for column in columns)]
        for peer in results.servers[1:]
    ]
    rows.append(["a node must reach", *(TARGETS[column.test].must for column in columns)])
    rows.append(["aim", *(TARGETS[column.test].aim for column in columns)])
    return markdown(["server", *(column.title for column in columns)], rows)


def _figure(results: Results, server: str, column: Column) -> str:
    runs = results.of(server, column.test)
    values = results.values(server, column)
    if runs and not values:
        return "none held"
    return spread(values, column.decimals) + marks([run.report.step for run in runs])


def _ratio(results: Results, server: str, peer: str, column: Column) -> str:
    ours, theirs = results.values(server, column), results.values(peer, column)
    if not ours or not theirs or not statistics.median(theirs):
        return NOTHING
    return f"{statistics.median(ours) / statistics.median(theirs):.2f} x"


def latency(results: Results) -> str:
    """From due to delivered, at rest and at half of the highest rate, with what went wrong there."""
    header = ["server", "load", "messages/s", "deliveries/s", "p50 ms", "p99 ms", "p99.9 ms", "ack p99 ms"]
    header += ["server CPU", "µs/delivery", "loop lag p99 ms", "commit p99 ms", "faults"]
    loads = dict.fromkeys((run.server, run.load) for run in results.runs if run.test == "latency")
    rows = [_latency_row(server, load, results.of(server, "latency", load)) for server, load in loads]
    if not rows:
        return ""
    goal = f"A node must reach: p50 < {IDLE_P50_MS} ms when idle; at half of the highest rate p99 < {HALF_P99_MS} ms"
    return markdown(header, rows) + f"\n\n{goal}, loop lag p99 < {LOOP_LAG_P99_MS} ms, no faults."


def _cpu_per_delivery(steps: Sequence[Step]) -> list[float]:
    return [cpu for step in steps if (cpu := step.cpu_per_delivery()) is not None]


def _latency_row(server: str, load: str, runs: Sequence[Run]) -> list[str]:
    steps = [run.report.result for run in runs if run.report.result]

    def of(value: Callable[[Step], float], decimals: int = 2) -> str:
        return spread([value(step) for step in steps], decimals)

    acks = [step.ack_ms.p99 for step in steps if step.ack_ms]
    return [
        server,
        load + marks(steps),
        of(lambda step: step.rate, 0),
        of(lambda step: step.deliveries_per_s, 0),
        of(lambda step: step.latency_ms.p50),
        of(lambda step: step.latency_ms.p99),
        of(lambda step: step.latency_ms.p99_9),
        spread(acks, 2),
        of(lambda step: step.server_cpu),
        spread(_cpu_per_delivery(steps), 2),
        spread([run.observed["loop_lag_p99"] for run in runs if "loop_lag_p99" in run.observed], 1),
        spread([run.observed["commit_p99"] for run in runs if "commit_p99" in run.observed], 1),
        number(sum(run.report.faults() for run in runs)),
    ]


def unbatched(results: Results) -> str:
    """The CPU of one delivery when there is nothing to join, against one send() in C."""
    rows = []
    for server in results.servers:
        steps = [step for run in results.of(server, "unbatched") if (step := run.report.result)]
        floors = [record.floor for record in results.floors if record.server == server]
        if not steps or not floors:
            continue
        ours = _cpu_per_delivery(steps)
        least = [floor.cpu_us_per_send for floor in floors]
        joined = [step.deliveries_per_s / step.frames_per_s for step in steps if step.frames_per_s]
        ratio = f"{statistics.median(ours) / statistics.median(least):.2f} x" if ours else NOTHING
        row = [server + marks(steps), number(floors[-1].frame_bytes), spread(joined, 2), spread(ours, 2)]
        rows.append([*row, spread(least, 2), ratio, f"{UNBATCHED_RATIO} x"])
    header = ["server", "bytes/delivery", "deliveries/frame", "CPU µs/delivery", "floor: CPU µs/send"]
    return markdown([*header, "ratio", "a node must reach"], rows)


def remarks(results: Results) -> Iterator[str]:
    """What no figure shows: connections that were not had, and runs that failed."""
    for run in results.runs:
        report, where = run.report, f"{run.server}, {run.test} ({run.load}), run {run.number}"
        if report.established < report.conns:
            yield f"{where}: {report.established} of {report.conns} connections established: {report.first_error}"
        if report.lost:
            yield f"{where}: {report.lost} connections lost: {report.first_error}"
    for failure in results.failures:
        yield f"{failure.server}, {failure.test}, run {failure.number}: {failure.message}"


def document(records: Sequence[Record]) -> str:
    """All tables of a results file, with the machine above and the remarks below them."""
    results = Results(records)
    parts = [_machine(machine) for machine in results.machines[-1:]]
    for title, table in (
        ("Highest rate that holds, memory, connects", throughput(results)),
        ("Latency", latency(results)),
        ("An unbatched delivery", unbatched(results)),
    ):
        if table:
            parts.append(f"### {title}\n\n{table}")
    notes = "\n".join(f"- {remark}" for remark in remarks(results))
    if notes:
        parts.append(f"### Remarks\n\n{notes}")
    return "\n\n".join(parts)


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    where = f"{machine.cpu}, Linux {machine.kernel}, data on {machine.filesystem}"
    cores = f"server on core {machine.cores[0]}, generator on core {machine.cores[1]}"
    smoke = "**A smoke run: its figures say nothing.** " if machine.scale != FULL.name else ""
    return f"{smoke}{machine.at}, commit {machine.commit}; {where}; {cores}; {versions}"

"""Makes the runs: every test against a fresh server, one after the other."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt
import msgspec

from scripts.benchmarks import prometheus
from scripts.benchmarks.errors import RunError
from scripts.benchmarks.processes import output_of, running
from scripts.benchmarks.reports import Failure, FloorRun, Record, Report, Run, SendFloor, read_floor, read_report
from scripts.benchmarks.servers import Running, Server, Workshop, free_port
from scripts.benchmarks.workloads import (
    IDLE_RATE,
    NAP_US,
    PAYLOAD_BYTES,
    SEARCHES,
    SHAPES,
    UNBATCHED_RATE,
    Scale,
    time_limit,
)

OBSERVED = {"loop_lag_p99": "loop_lag_seconds", "commit_p99": "commit_seconds"}
"""What the tables call it -> how the name of the server's histogram ends."""

TOKEN_SECONDS = 3600
FLOOR_START_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Load:
    """One run to make: wsload's mode and options for a test, and what the tables call it."""

    test: str
    name: str
    mode: str
    options: Sequence[str]


def observed(before: str, after: str) -> dict[str, float]:
    """What the server's metrics say of the time between the two pages, in ms."""
    old, new = prometheus.histograms(before), prometheus.histograms(after)
    found = {}
    for label, ending in OBSERVED.items():
        for name in (name for name in new if name.endswith(ending)):
            value = prometheus.quantile(prometheus.since(old.get(name, {}), new[name]), 0.99)
            if value is not None:
                found[label] = value * 1000
    return found


def frame_bytes(report: Report) -> int:
    """The mean size of what one delivery was on the wire, the frame's header included."""
    return round(report.totals.bytes / max(1, report.totals.delivered))


class Measurement:
    """Measures one server after the other and hands each record to `keep` as soon as it is there.

    A run that fails is a record too: the others are made nevertheless.
    """

    def __init__(self, shop: Workshop, scale: Scale, keep: Callable[[Record], None]) -> None:
        self._shop = shop
        self._scale = scale
        self._keep = keep

    def measure(self, server: Server, tests: Sequence[str], number: int) -> None:
        """All these tests of one server; `number` counts the repetitions from 1."""
        rates: dict[str, float] = {}
        for test in tests:
            try:
                if test in SEARCHES:
                    report = self._run(server, self._search(server, test), number)
                    if report.best:
                        rates[test] = report.best.rate
                elif test == "latency":
                    self._measure_latency(server, rates, number)
                elif test == "unbatched":
                    self._measure_unbatched(server, number)
                else:
                    self._run(server, self._connections(test), number)
            except RunError as error:
                self._keep(Failure(server.name, test, number, str(error)))

    def _measure_latency(self, server: Server, rates: dict[str, float], number: int) -> None:
        options = [*SHAPES["latency"].options(self._scale), *self._scale.window(), "--order"]
        self._run(server, Load("latency", "idle", "fanout", [*options, "-x", str(IDLE_RATE)]), number)
        for test, rate in rates.items():
            options = [*SHAPES[test].options(self._scale), *self._scale.window(), "--order"]
            options += ["-x", f"{rate / 2:.1f}"]
            self._run(server, Load("latency", f"half of {test}", SHAPES[test].mode, options), number)

    def _measure_unbatched(self, server: Server, number: int) -> None:
        options = [*SHAPES["unbatched"].options(self._scale), *self._scale.window(), "-x", str(UNBATCHED_RATE)]
        report = self._run(server, Load("unbatched", "unbatched", "fanout", options), number)
        self._keep(FloorRun(server.name, number, self._send_floor(report.conns, frame_bytes(report))))

    def _search(self, server: Server, test: str) -> Load:
        options = [*SHAPES[test].options(self._scale), *self._scale.search()]
        options += ["-x", str(server.start_rates[test])]
        if SHAPES[test].mode == "ingest":
            options.append("--acks")
        return Load(test, "search", "max", options)

    def _connections(self, test: str) -> Load:
        options = [*SHAPES[test].options(self._scale), "--conn-timeout", "30"]
        hold = self._scale.hold_s if test == "idle" else 0
        inflight = 100 if test == "idle" else 200
        return Load(test, test, "idle", [*options, "-d", str(hold), "--inflight", str(inflight)])

    def _run(self, server: Server, load: Load, number: int) -> Report:
        with server.open(self._shop) as process:
            template, extra = server.template, list(server.options)
            if load.test == "connect" and process.token_secret:
                template += "-token"
                extra += ["--tokens", str(self._write_tokens(process.token_secret))]
            command = [str(self._shop.programs["wsload"]), load.mode, f"ws://127.0.0.1:{process.port}/"]
            command += ["-t", str(self._shop.template(template)), *extra, *load.options]
            command += ["-s", str(PAYLOAD_BYTES), "--nap", str(NAP_US), "--pid", str(process.pid)]
            return self._generate(server, load, process, command, number)

    def _generate(self, server: Server, load: Load, process: Running, command: Sequence[str], number: int) -> Report:
        before = process.metrics()
        output = output_of(self._shop.cores[1], command, self._shop.log("wsload"), time_limit(self._scale))
        try:
            report = read_report(output)
        except msgspec.DecodeError as error:
            message = f"wsload printed what is no report ({error}): {output[:200]!r}"
            raise RunError(message) from error
        if not report.established:
            message = f"none of {report.conns} connections was established: {report.first_error}"
            raise RunError(message)
        self._keep(
            Run(
                server=server.name,
                test=load.test,
                load=load.name,
                number=number,
                command=shlex.join(["wsload", *command[1:]]),
                report=report,
                observed=observed(before, process.metrics()),
            )
        )
        return report

    def _write_tokens(self, secret: str) -> Path:
        path = self._shop.folder / "tokens"
        expires = int(time.time()) + TOKEN_SECONDS
        count = SHAPES["connect"].connections // self._scale.divisor
        claims = ({"sub": f"bench-{number}", "exp": expires} for number in range(count))
        path.write_text("".join(jwt.encode(claim, secret, "HS256") + "\n" for claim in claims))
        return path

    def _send_floor(self, sockets: int, size: int) -> SendFloor:
        program, log, port = str(self._shop.programs["send_floor"]), self._shop.log("send_floor"), free_port()
        sender, receiver = self._shop.cores
        with running(receiver, [program, "recv", str(port), str(sockets), str(NAP_US)], log, {}):
            time.sleep(FLOOR_START_SECONDS)
            command = [program, "send", str(port), str(sockets), str(size)]
            command += [str(self._scale.window_s), str(UNBATCHED_RATE)]
            return read_floor(output_of(sender, command, log, time_limit(self._scale)))

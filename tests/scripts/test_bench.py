"""scripts/bench: what it reads, what it prints, and that it leaves no process behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from scripts.benchmarks import command, prometheus
from scripts.benchmarks.errors import BenchError, RunError
from scripts.benchmarks.machine import filesystem_of, real_disk
from scripts.benchmarks.measure import frame_bytes, observed
from scripts.benchmarks.processes import output_of, running
from scripts.benchmarks.reports import (
    AckLatency,
    Failure,
    FloorRun,
    Latency,
    Machine,
    Order,
    Record,
    Report,
    Run,
    SendFloor,
    Step,
    Totals,
    read_records,
    read_report,
    write_record,
)
from scripts.benchmarks.tables import Results, document, latency, spread, throughput, unbatched
from scripts.benchmarks.workloads import FULL, QUICK, SHAPES

ROOT = Path(command.__file__).parents[2]
CORE = min(os.sched_getaffinity(0))
# What wsload printed for a run against the floor, shortened in its steps only.
PRINTED = b"""{"name":"","mode":"max","port":44753,"conns":100,"rooms":1,"pubs":10,"size":100,"established":100,
"failed":0,"lost":0,"connect_s":0.004,"connects_per_s":25381,"handshake_ms":{"p50":1.799,"p99":2.351,"max":2.357},
"server_rss_kb":[1872,1900],"server_rss_bytes_per_conn":287,"best":{"rate":200.0,"ok":true,"why":"","window_s":0.40,
"published":80,"expected":8000,"delivered":8000,"missing":0,"deliveries_per_s":20000,"frames_per_s":20200,"latency_ms":
{"mean":0.436,"p50":0.411,"p90":0.627,"p99":0.859,"p99.9":1.007,"max":1.007},"acked":80,"ack_ms":{"p50":0.5,"p99":0.9,
"max":1.0},"publish_late_p99_ms":0.183,"generator_cpu":0.053,"generator_wait":0.001,"server_cpu":0.050,"server_wait":
0.000,"server_cpu_us_per_delivery":2.500,"lost":0},"steps":[],"order":{"duplicates":1,"out_of_order":2,"gaps":3,
"wrong_room":4,"untagged":5,"server_seq_breaks":6,"rooms_disagreeing":7},"totals":{"published":300,"delivered":30000,
"acked":300,"frames":30400,"bytes":4320000,"blocked_sends":0,"protocol_errors":0,"close_frames":0,"last_close":0},
"first_error":""}"""


def step(**changes: object) -> Step:
    quiet = Step(
        rate=100,
        ok=True,
        why="",
        window_s=8,
        published=800,
        expected=8000,
        delivered=8000,
        missing=0,
        deliveries_per_s=1000,
        frames_per_s=1000,
        latency_ms=Latency(p50=1, p99=2, p99_9=3, max=4),
        publish_late_p99_ms=0.1,
        generator_cpu=0.2,
        generator_wait=0.01,
        server_cpu=0.5,
        server_wait=0.01,
        server_cpu_us_per_delivery=6,
        lost=0,
    )
    return msgspec.structs.replace(quiet, **changes)


def report(**changes: object) -> Report:
    quiet = Report(
        mode="fanout",
        conns=1000,
        rooms=1,
        established=1000,
        failed=0,
        lost=0,
        connects_per_s=8000,
        server_rss_bytes_per_conn=2048,
        server_rss_kb=(1000, 3000),
        totals=Totals(published=900, delivered=9000, acked=0, frames=9000, bytes=1_350_000, protocol_errors=0),
        first_error="",
    )
    return msgspec.structs.replace(quiet, **changes)


def run(server: str, test: str, load: str = "search", number: int = 1, **changes: object) -> Run:
    return Run(server=server, test=test, load=load, number=number, command="wsload", report=report(**changes))


def search(server: str, test: str, rate: float, number: int = 1) -> Run:
    return run(server, test, number=number, best=step(rate=rate, deliveries_per_s=rate * 10))


def row(table: str, start: str) -> list[str]:
    """The cells of the row that starts so."""
    [line] = [line for line in table.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ---- what wsload prints


def test_a_report_is_read_as_wsload_prints_it() -> None:
    read = read_report(PRINTED)
    assert read.step == read.best
    assert read.best
    assert read.best.latency_ms == Latency(p50=0.411, p99=0.859, p99_9=1.007, max=1.007)
    assert read.best.ack_ms == AckLatency(p50=0.5, p99=0.9, max=1.0)
    assert read.server_rss_kb == (1872, 1900)


def test_faults_of_order_are_added_up() -> None:
    assert read_report(PRINTED).faults() == 1 + 2 + 3 + 4 + 5 + 6 + 7


def test_too_many_deliveries_and_lost_connections_are_faults_too() -> None:
    assert report(result=step(missing=-5), lost=2, order=Order(0, 0, 0, 0, 0, 0, 0)).faults() == 7


def test_cpu_below_the_kernels_resolution_is_no_figure() -> None:
    assert step(server_cpu=0.01, window_s=8).cpu_per_delivery() is None
    assert step(server_cpu=0.1, window_s=8).cpu_per_delivery() == 6


def test_the_size_of_a_delivery_is_what_arrived_over_what_was_delivered() -> None:
    assert frame_bytes(report()) == 150


def test_records_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    records: list[Record] = [
        Machine("now", "a CPU", (0, 1), "6.1", "ext4", "abc", "full", {"ws": "8"}),
        run("ws", "fan1", best=step(), order=Order(0, 0, 0, 0, 0, 0, 0)),
        FloorRun("ws", 1, SendFloor(1000, 150, 20_000, 5)),
        Failure("ws", "fan1", 1, "it ended"),
    ]
    for record in records:
        write_record(tmp_path / "out", record)
    assert read_records((tmp_path / "out").read_bytes().splitlines()) == records


# ---- tables


@pytest.mark.parametrize(
    ("values", "decimals", "shown"),
    [
        ([], 0, "-"),
        ([1234.4], 0, "1,234"),
        ([2.0, 3.0, 10.0], 1, "3.0 (2.0-10.0)"),
    ],
)
def test_several_runs_show_their_median_and_their_range(values: list[float], decimals: int, shown: str) -> None:
    assert spread(values, decimals) == shown


def test_a_ratio_is_that_of_the_medians_of_the_same_run() -> None:
    ours = [search("chat-node", "fan1", rate, number) for number, rate in enumerate((100, 300, 200), 1)]
    table = throughput(Results([*ours, search("floor", "fan1", 50), search("ws", "fan1", 25)]))
    assert row(table, "chat-node") == ["2,000 (1,000-3,000)"]
    assert row(table, "chat-node / floor") == ["4.00 x"]
    assert row(table, "chat-node / ws") == ["8.00 x"]


def test_only_tests_that_were_made_have_a_column_and_its_target() -> None:
    table = throughput(Results([run("ws", "idle", "idle"), run("ws", "connect", "connect")]))
    assert row(table, "server") == ["idle KiB/connection", "connects/s"]
    assert row(table, "ws") == ["2.0", "8,000"]
    assert row(table, "a node must reach") == ["3.0", "5,000"]


def test_ingest_is_counted_in_messages() -> None:
    assert row(throughput(Results([search("ws", "ingest", 33)])), "ws") == ["33"]


def test_a_search_without_a_rate_that_held_says_so_and_has_no_ratio() -> None:
    table = throughput(Results([run("chat-node", "fan1"), search("floor", "fan1", 50)]))
    assert row(table, "chat-node") == ["none held"]
    assert row(table, "chat-node / floor") == ["-"]


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"server_wait": 0.2}, "*"),
        ({"generator_wait": 0.2}, "*"),
        ({"generator_cpu": 0.99}, "g"),
        ({"server_wait": 0.2, "generator_cpu": 0.99}, "*g"),
        ({}, ""),
    ],
)
def test_a_spoilt_window_and_a_full_generator_are_marked(changes: dict[str, float], mark: str) -> None:
    table = throughput(Results([run("ws", "fan1", best=step(**changes))]))
    assert row(table, "ws") == [f"1,000{mark}"]


def test_latency_has_a_row_for_each_load_with_what_the_server_observed() -> None:
    half = run("chat-node", "latency", "half of ingest", result=step(ack_ms=AckLatency(p50=5, p99=9, max=10)), lost=3)
    half.observed.update(loop_lag_p99=12.5, commit_p99=7.0)
    table = latency(Results([run("chat-node", "latency", "idle", result=step()), half]))
    rows = [line for line in table.splitlines() if line.startswith("| chat-node |")]
    assert rows[0].endswith("| - | 0.50 | 6.00 | - | - | 0 |")
    assert rows[1].endswith("| 9.00 | 0.50 | 6.00 | 12.5 | 7.0 | 3 |")


def test_an_unbatched_delivery_is_set_beside_a_send_of_the_same_run() -> None:
    floor = FloorRun("chat-node", 1, SendFloor(1000, 150, 20_000, 5))
    table = unbatched(Results([run("chat-node", "unbatched", "unbatched", result=step()), floor]))
    assert row(table, "chat-node") == ["150", "1.00", "6.00", "5.00", "1.20 x", "1.3 x"]


def test_connections_that_are_missing_and_runs_that_failed_are_remarked() -> None:
    few = run("ws", "idle", "idle", established=990, first_error="timed out")
    text = document([few, Failure("socketio", "fan1", 1, "it ended")])
    assert "- ws, idle (idle), run 1: 990 of 1000 connections established: timed out" in text
    assert "- socketio, fan1, run 1: it ended" in text


def test_a_smoke_run_says_that_its_figures_say_nothing() -> None:
    machine = Machine("now", "a CPU", (0, 1), "6.1", "ext4", "abc", QUICK.name, {})
    assert "say nothing" in document([machine])
    assert "say nothing" not in document([msgspec.structs.replace(machine, scale=FULL.name)])


# ---- metrics

PAGE = """# TYPE chat_node_loop_lag_seconds histogram
chat_node_loop_lag_seconds_bucket{le="0.001"} 90.0
chat_node_loop_lag_seconds_bucket{le="0.01"} 99.0
chat_node_loop_lag_seconds_bucket{le="+Inf"} 100.0
chat_node_loop_lag_seconds_count 100.0
chat_node_commit_seconds_bucket{shard="1",le="0.002"} 1.0
chat_node_commit_seconds_bucket{shard="2",le="0.002"} 3.0
chat_node_commit_seconds_bucket{shard="1",le="+Inf"} 1.0
chat_node_commit_seconds_bucket{shard="2",le="+Inf"} 3.0
"""


def test_series_of_a_histogram_are_added_up() -> None:
    assert prometheus.histograms(PAGE)["chat_node_commit_seconds"] == {0.002: 4.0, float("inf"): 4.0}


@pytest.mark.parametrize(("q", "bound"), [(0.5, 0.001), (0.9, 0.001), (0.91, 0.01), (0.99, 0.01), (1, float("inf"))])
def test_a_quantile_is_the_bound_of_its_bucket(q: float, bound: float) -> None:
    assert prometheus.quantile(prometheus.histograms(PAGE)["chat_node_loop_lag_seconds"], q) == bound


def test_a_histogram_without_observations_has_no_quantile() -> None:
    assert prometheus.quantile({}, 0.5) is None
    assert prometheus.quantile({0.1: 0.0, float("inf"): 0.0}, 0.5) is None


def test_only_what_was_observed_during_the_run_counts() -> None:
    assert observed("", PAGE) == {"loop_lag_p99": 10.0, "commit_p99": 2.0}
    later = PAGE.replace("90.0", "190.0").replace(" 99.0", " 199.0").replace(" 100.0", " 200.0")
    assert observed(PAGE, later) == {"loop_lag_p99": 1.0}


def test_a_server_without_metrics_observed_nothing() -> None:
    assert observed("", "") == {}


# ---- the command line


def test_tests_and_peers_are_made_in_our_order_whatever_order_they_are_asked_in() -> None:
    options = command.parser().parse_args(["--tests", "idle,fan1", "--peers", "ws,floor"])
    assert (options.tests, options.peers) == (["fan1", "idle"], ["floor", "ws"])


def test_all_tests_are_made_unless_some_are_named() -> None:
    assert command.parser().parse_args([]).tests == list(SHAPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tests", "fan2"], "'fan2' is none of fan1, fan100"),
        (["--peers", "bun"], "'bun' is none of floor, ws, socketio"),
        (["--runs", "0"], "'0' is no whole number above 0"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.parser().parse_args(arguments)
    assert message in capsys.readouterr().err


def test_a_smoke_run_has_a_tenth_of_the_connections_and_never_more_publishers() -> None:
    assert SHAPES["ingest"].options(QUICK) == ["-n", "100", "-r", "50", "-p", "100"]
    assert SHAPES["fan1"].options(QUICK) == ["-n", "100", "-r", "1", "-p", "10"]


def test_an_earlier_file_is_printed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "out", search("ws", "fan1", 50))
    assert command.main(["--read", str(tmp_path / "out")]) == 0
    assert row(capsys.readouterr().out, "ws") == ["500"]


def test_a_file_that_holds_no_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("no JSON")
    assert command.main(["--read", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'} is no file of results" in capsys.readouterr().err


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "30 22 0:26 / /srv/my\\040data rw - tmpfs tmpfs rw\n"
        "31 22 0:27 / /srv/my rw shared:2 - xfs /dev/sdb rw\n"
    )
    assert filesystem_of(Path("/srv/my data/node"), mounts) == "tmpfs"
    assert filesystem_of(Path("/srv/my/node"), mounts) == "xfs"
    assert filesystem_of(Path("/srv/mystery"), mounts) == "ext4"


def test_memory_is_refused_as_a_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("scripts.benchmarks.machine.filesystem_of", lambda _path, _mounts: "tmpfs")
    with pytest.raises(BenchError, match="where an fsync costs nothing; give --work a folder on a disk"):
        real_disk(tmp_path)


# ---- processes


def readable(pipe: int) -> bytes:
    """What comes next, b"" when nobody holds the other end any more."""
    ready, _, _ = select.select([pipe], [], [], 30)
    assert ready, "the process neither spoke nor ended"
    return os.read(pipe, 100)


def test_a_server_that_ignores_sigterm_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.benchmarks.processes.END_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    shell = f"trap '' TERM; exec 3> {tmp_path / 'pipe'}; sleep 1000 & echo started >&3; wait"
    with running(CORE, ["sh", "-c", shell], tmp_path / "log", {}):
        assert readable(pipe) == b"started\n"
    assert readable(pipe) == b""
    os.close(pipe)


def test_a_server_runs_on_the_core_that_it_was_given(tmp_path: Path) -> None:
    printed = output_of(CORE, ["grep", "Cpus_allowed_list", "/proc/self/status"], tmp_path / "log", 10)
    assert printed.split() == [b"Cpus_allowed_list:", str(CORE).encode()]


def test_a_generator_that_does_not_end_is_ended_and_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"sleep did not end within 0\.1 s"):
        output_of(CORE, ["sleep", "1000"], tmp_path / "log", 0.1)


def test_a_generator_that_prints_nothing_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"sh printed nothing \(exit status 3\): the last words"):
        output_of(CORE, ["sh", "-c", "echo the last words >&2; exit 3"], tmp_path / "log", 10)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a benchmark needs two cores")
def test_the_floor_is_measured_from_the_command_to_the_table(tmp_path: Path) -> None:
    arguments = ["--quick", "--peers-only", "--peers", "floor", "--tests", "fan1,connect,latency,unbatched"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench"), *arguments, "--work", str(tmp_path / "work")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [load for load in ("idle", "half of fan1") if f"| floor | {load}" in done.stdout] == ["idle", "half of fan1"]
    assert "An unbatched delivery" in done.stdout

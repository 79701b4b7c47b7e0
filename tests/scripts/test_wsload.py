"""The load generator counts what servers that misbehave in known ways do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

import msgspec
import pytest
import trio

from scripts.benchmarks.build import compile_program
from tests.harness.broadcaster import Broadcaster, Kind

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS, RATE, SECONDS = 6, 50, 1
SENT = RATE * SECONDS
KINDS: tuple[Kind, ...] = get_args(Kind)
UPGRADED = [kind for kind in KINDS if kind not in {"bad-accept", "refuse"}]
TEMPLATE = """path /chat?room={room}&user={user}&token={token}
header X-Conn: {conn}
header X-Set: {colour}
send@sub {"t":"join","room":"{room}"}
expect@sub "joined"
every 0.1 {"t":"beat"}
publish {"t":"pub","id":{id},"data":"{payload}"}
ack "ack"
ackid "id":
seq "seq":
pong =app-ping => app-pong
"""


class Result(msgspec.Struct):
    published: int
    missing: int


class Order(msgspec.Struct):
    duplicates: int
    out_of_order: int
    gaps: int
    wrong_room: int
    untagged: int
    server_seq_breaks: int
    rooms_disagreeing: int


class Totals(msgspec.Struct):
    published: int
    acked: int
    protocol_errors: int
    last_close: int


class Report(msgspec.Struct):
    established: int
    failed: int
    lost: int
    order: Order
    totals: Totals
    result: Result | None = None


@dataclass
class Trial:
    """What the server did, and what the generator says of it."""

    server: Broadcaster
    report: Report

    @property
    def result(self) -> Result:
        assert self.report.result
        return self.report.result


async def attempt(kind: Kind, program: Path, folder: Path, trials: dict[str, Trial]) -> None:
    server = Broadcaster(kind)
    command = [str(program), "fanout", "-t", str(folder / "template"), "-r", "1"]
    command += ["-n", str(CONNECTIONS), "-p", "2", "-x", str(RATE), "-d", str(SECONDS), "--warmup", "0.2"]
    command += ["--order", "--acks", "--mask", "--tokens", str(folder / "tokens"), "--set", "colour=blue"]
    if kind in {"no-echo", "dedicated"}:
        command.append(f"--{kind}")
    async with trio.open_nursery() as clients, trio.open_nursery() as accepting:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        command.append(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/")
        accepting.start_soon(partial(trio.serve_listeners, server.serve, [listener], handler_nursery=clients))
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        accepting.cancel_scope.cancel()  # the clients' last bytes are still read
    trials[kind] = Trial(server, msgspec.json.decode(done.stdout, type=Report))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """All kinds side by side: each takes seconds, and next to no CPU."""
    folder = tmp_path_factory.mktemp("wsload")
    (folder / "template").write_text(TEMPLATE)
    (folder / "tokens").write_text("tok0\ntok1\n")
    program = compile_program("wsload", folder)
    found: dict[str, Trial] = {}

    async def attempt_all() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for kind in KINDS:
                    nursery.start_soon(attempt, kind, program, folder, found)

    trio.run(attempt_all)
    return found


@pytest.mark.parametrize("program", ["wsload", "room_server", "send_floor"])
def test_compiles_without_a_warning(program: str, tmp_path: Path) -> None:
    assert compile_program(program, tmp_path).exists()


@pytest.mark.parametrize("kind", ["bad-accept", "refuse"])
def test_an_upgrade_that_is_refused_or_wrong_is_no_connection(kind: Kind, trials: dict[str, Trial]) -> None:
    report = trials[kind].report
    assert (report.established, report.failed) == (0, CONNECTIONS)


@pytest.mark.parametrize("kind", UPGRADED)
def test_every_connection_is_established_with_what_the_template_says(kind: Kind, trials: dict[str, Trial]) -> None:
    trial = trials[kind]
    assert trial.report.established == CONNECTIONS + 2 * (kind == "dedicated")
    assert trial.server.faults == []


@pytest.mark.parametrize("kind", UPGRADED)
def test_every_message_that_is_due_is_published_and_its_ack_is_counted(kind: Kind, trials: dict[str, Trial]) -> None:
    trial = trials[kind]
    assert trial.result.published == SENT
    assert trial.report.totals.acked == trial.report.totals.published == trial.server.published


@pytest.mark.parametrize("kind", UPGRADED)
def test_correct_frames_of_any_form_are_no_protocol_error(kind: Kind, trials: dict[str, Trial]) -> None:
    assert trials[kind].report.totals.protocol_errors == 0


@pytest.mark.parametrize("kind", UPGRADED)
def test_heartbeats_are_sent(kind: Kind, trials: dict[str, Trial]) -> None:
    assert trials[kind].server.beats > 0


@pytest.mark.parametrize("kind", [kind for kind in UPGRADED if kind != "close"])
def test_missing_is_what_was_not_delivered(kind: Kind, trials: dict[str, Trial]) -> None:
    missing = {"drop": CONNECTIONS * SENT // 10, "twice": -CONNECTIONS * SENT}
    assert trials[kind].result.missing == missing.get(kind, 0)


@pytest.mark.parametrize("kind", UPGRADED)
def test_duplicates_are_counted_where_there_are_any(kind: Kind, trials: dict[str, Trial]) -> None:
    report = trials[kind].report
    assert report.order.duplicates == (CONNECTIONS * report.totals.published if kind == "twice" else 0)


@pytest.mark.parametrize("kind", UPGRADED)
def test_gaps_are_counted_where_something_was_left_out(kind: Kind, trials: dict[str, Trial]) -> None:
    report = trials[kind].report
    if kind == "drop":  # what was left out last is followed by nothing, and so is no gap
        assert report.order.gaps >= CONNECTIONS * (report.totals.published // 10 - 1)
    else:
        assert report.order.gaps == 0


@pytest.mark.parametrize("kind", UPGRADED)
def test_members_that_saw_another_order_are_found(kind: Kind, trials: dict[str, Trial]) -> None:
    assert trials[kind].report.order.rooms_disagreeing == (1 if kind == "one-reordered" else 0)


@pytest.mark.parametrize("kind", UPGRADED)
def test_two_publishers_swapped_leave_the_order_of_each_alone(kind: Kind, trials: dict[str, Trial]) -> None:
    order = trials[kind].report.order
    assert (order.out_of_order, order.wrong_room, order.untagged) == (0, 0, 0)


def test_a_break_in_the_servers_numbers_is_counted_for_each_member(trials: dict[str, Trial]) -> None:
    assert trials["seq-break"].report.order.server_seq_breaks == CONNECTIONS


@pytest.mark.parametrize("kind", ["swap", "one-reordered", "no-echo"])
def test_the_servers_numbers_show_what_came_in_another_order_or_not_at_all(
    kind: Kind, trials: dict[str, Trial]
) -> None:
    assert trials[kind].report.order.server_seq_breaks > 0


def test_a_connection_that_the_server_closes_is_lost_with_its_code(trials: dict[str, Trial]) -> None:
    report = trials["close"].report
    assert (report.lost, report.totals.last_close) == (1, 1008)


def test_pings_between_fragments_are_answered(trials: dict[str, Trial]) -> None:
    trial = trials["fragments"]
    assert trial.server.pongs == CONNECTIONS * trial.report.totals.published


def test_pings_of_the_application_are_answered(trials: dict[str, Trial]) -> None:
    trial = trials["app-ping"]
    assert trial.server.app_pongs == CONNECTIONS * trial.report.totals.published

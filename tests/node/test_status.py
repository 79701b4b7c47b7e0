"""Verdicts and readiness, by tables."""

import msgspec
import pytest

from node.status import (
    ClusterStatus,
    Health,
    LogState,
    NodeStatus,
    Recent,
    State,
    Unreachable,
    Verdict,
    WebhookTrouble,
    judge,
    readiness,
)
from tests.harness.status import GONE, WELL, changed, recently


def failing(seconds: float) -> WebhookTrouble:
    return WebhookTrouble(webhook="a/crm", error="refused", seconds=seconds)


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (changed(log=LogState.HALTED, log_reason="I/O error on log.db"), Verdict.CRIT, "I/O error on log.db"),
        (changed(log=LogState.HALTED), Verdict.CRIT, "halted"),
        (changed(log=LogState.FULL, log_reason="free 2 GiB"), Verdict.CRIT, "free 2 GiB"),
        (changed(disk_used_share=0.8), Verdict.WARN, "80% full"),
        (changed(state=State.DRAINING), Verdict.WARN, "shutting down"),
        (changed(state=State.STARTING), Verdict.WARN, "starting"),
        (recently(loop_lag_p99_seconds=0.1), Verdict.WARN, "100 ms late"),
        (recently(loop_lag_p99_seconds=1.0), Verdict.CRIT, "1000 ms late"),
        (recently(latency_p99_seconds=0.1), Verdict.WARN, "messages take 100 ms"),
        (recently(cpu_share=0.9), Verdict.WARN, "90% of its core"),
        (changed(webhooks=(failing(60.0),)), Verdict.WARN, "webhook a/crm has failed for 1 min: refused"),
        (changed(webhooks=(failing(0.0),)), Verdict.WARN, "webhook a/crm is not sent to: refused"),
    ],
)
def test_each_fault_has_its_verdict(status: NodeStatus, verdict: Verdict, words: str) -> None:
    (reason,) = judge(status)
    assert reason.verdict is verdict
    assert words in reason.text


@pytest.mark.parametrize(
    "status",
    [
        WELL,
        changed(recent=Recent(), memory_bytes=None, disk_used_share=None),
        changed(disk_used_share=0.799),
        changed(webhooks=(failing(59.0),)),
        recently(loop_lag_p99_seconds=0.099, latency_p99_seconds=0.099, cpu_share=0.899),
    ],
)
def test_below_every_bound_a_node_is_well(status: NodeStatus) -> None:
    assert judge(status) == ()


def test_the_worst_reason_comes_first() -> None:
    verdicts = [reason.verdict for reason in judge(changed(state=State.DRAINING, log=LogState.HALTED))]
    assert verdicts == [Verdict.CRIT, Verdict.WARN]


@pytest.mark.parametrize(
    ("nodes", "unreachable", "verdict"),
    [
        ([WELL], [], Verdict.OK),
        ([WELL, changed(state=State.DRAINING)], [], Verdict.WARN),
        ([WELL], [GONE], Verdict.CRIT),
        ([], [GONE], Verdict.CRIT),
        ([changed(log=LogState.FULL)], [], Verdict.CRIT),
    ],
)
def test_a_cluster_is_as_well_as_its_worst_node(
    nodes: list[NodeStatus], unreachable: list[Unreachable], verdict: Verdict
) -> None:
    assert ClusterStatus(len(nodes) + len(unreachable), nodes, unreachable).verdict is verdict


def test_a_status_survives_the_wire_and_ignores_what_newer_nodes_add() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(WELL)) | {"new_in_2.0": 1}
    assert msgspec.json.decode(msgspec.json.encode(sent), type=NodeStatus) == WELL


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("log", LogState)
def test_clients_are_sent_only_to_a_ready_node_whose_log_takes_messages(state: State, log: LogState) -> None:
    ready = state is State.READY and log is LogState.OK
    found = readiness(state, log, "")
    assert found.health is (Health.READY if ready else Health.UNREADY)
    assert all(check.ok or check.reason for check in found.checks.values())

"""The status of a cluster: what nodes say of each other, and the verdict on it."""

from __future__ import annotations

import json
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from node.mesh_view import MOST_BYTES, MeshView
from node.status import (
    ClusterStatus,
    LogState,
    MeshStatus,
    NodeStatus,
    PeerStatus,
    State,
    Unreachable,
    Verdict,
    judge,
    readiness,
)
from node.status_table import as_json, rendered
from tests.harness.status import WELL, changed

UP = PeerStatus(node="b", region="us", state="up", hears=True, silence_seconds=0.1, rtt_seconds=0.0004)
MESH = MeshStatus(peers=(UP,), copies=3, shards=16, shards_served=9, shards_short=0)


def node(name: str, mesh: MeshStatus | None = MESH) -> NodeStatus:
    return changed(node=name, mesh=mesh)


def view(**changes: object) -> MeshStatus:
    return msgspec.structs.replace(MESH, **changes)


@pytest.mark.parametrize(
    ("mesh", "verdict", "told"),
    [
        (MESH, None, ""),
        (view(peers=(msgspec.structs.replace(UP, state="left"),)), None, ""),
        (view(cut_off=True), Verdict.CRIT, "hears no other node, nor the central"),
        (view(shards_short=2), Verdict.WARN, "2 of 16 shards have fewer than 3 copies"),
        (
            view(peers=(msgspec.structs.replace(UP, state="suspect", silence_seconds=2.2),)), Verdict.WARN,
            "b is suspect to it, heard 2 s ago",
        ),
        (view(peers=(msgspec.structs.replace(UP, state="down", silence_seconds=None),)), Verdict.WARN, "b is down"),
        (view(peers=(msgspec.structs.replace(UP, hears=False),)), Verdict.WARN, "b does not hear it"),
    ],
)  # fmt: skip
def test_the_verdict_on_a_nodes_view(mesh: MeshStatus, verdict: Verdict | None, told: str) -> None:
    reasons = judge(node("a", mesh))
    assert [(reason.verdict, reason.text) for reason in reasons if told not in reason.text] == []
    assert {reason.verdict for reason in reasons} == ({verdict} if verdict is not None else set())


def test_one_node_that_is_asked_tells_of_all() -> None:
    gone = Unreachable(address="c", reason="down, last seen 12 s ago")
    found = ClusterStatus.of([node("a", view(nodes=(node("b"),), unreachable=(gone,)))])
    assert [each.node for each in found.nodes] == ["a", "b"]
    assert (found.expected, found.unreachable, found.verdict) == (3, [gone], Verdict.CRIT)
    text = json.loads(as_json(found))
    assert (text["nodes_up"], text["nodes_expected"]) == (2, 3)
    assert "nodes" not in text["nodes"][0]["mesh"]
    assert text["nodes"][0]["mesh"]["peers"][0]["node"] == "b"


def test_nodes_that_are_asked_speak_for_themselves() -> None:
    first = node("a", view(nodes=(node("b", view(shards_served=1)),), unreachable=()))
    second = node("b", view(unreachable=(Unreachable(address="a", reason="down"),)))
    found = ClusterStatus.of([first, second, Unreachable(address="http://x", reason="refused")])
    assert found.nodes == [first, second]
    assert [each.address for each in found.unreachable] == ["http://x"]


@pytest.mark.parametrize("width", [80, 400])
def test_the_table_shows_peers_and_shards_of_a_cluster_only(width: int) -> None:
    for status, is_shown in ((ClusterStatus.of([node("a")]), True), (ClusterStatus.of([WELL]), False)):
        text = _text(status, width)
        assert ("1/1 0.4 ms" in text) == is_shown
        assert ("9 of 16" in text) == is_shown


def _text(status: ClusterStatus, width: int) -> str:
    console = Console(width=width, file=StringIO())
    with console.capture() as captured:
        console.print(rendered(status, width))
    return captured.get()


@pytest.mark.parametrize(("cut_off", "ready"), [(None, True), (False, True), (True, False)])
def test_a_node_that_is_cut_off_is_not_ready(cut_off: bool | None, ready: bool) -> None:
    found = readiness(State.READY, LogState.OK, "", cut_off=cut_off)
    assert all(check.ok for check in found.checks.values()) == ready
    assert ("cluster" in found.checks) == (cut_off is not None)


class Router:
    """A mesh of which nothing is known."""

    is_cut_off = False

    def peers(self) -> list[object]:
        return []


def test_what_is_no_status_is_counted_and_changes_nothing() -> None:
    seen = MeshView(Router(), lambda: node("a"), 3)  # type: ignore[arg-type]
    for body in (b"", b"garbage", msgspec.msgpack.encode({"node": "b"}), b"\xc0" * (MOST_BYTES + 1)):
        seen.hear("b", body)
    seen.hear("c", msgspec.msgpack.encode(node("b")))  # it speaks for another one
    assert seen.strays == 5


def test_what_others_are_told_does_not_hold_what_others_said() -> None:
    told = view(nodes=(node("b"),), unreachable=(Unreachable(address="c", reason="down"),))
    seen = MeshView(Router(), lambda: node("a", told), 3)  # type: ignore[arg-type]
    status = msgspec.msgpack.decode(seen.tell(), type=NodeStatus)
    assert status.mesh is not None
    assert (status.mesh.nodes, status.mesh.unreachable) == ((), ())
    assert status.mesh.peers == told.peers

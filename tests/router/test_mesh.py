"""Rooms of several nodes in one process, by real routers: every node is given every entry, every submit one outcome."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from router.entry import Entry, Kind
from router.events import Away, Duplicate, History, Page, Submit
from router.retention import Keep
from tests.harness.mesh_in_process import MeshInProcess, room_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from router.events import Outcome
    from router.ids import RoomId
    from router.room import RoomState

MESSAGES = 20


@pytest.fixture
def meshes(tmp_path: Path) -> Iterator[Callable[[str], MeshInProcess]]:
    running: list[MeshInProcess] = []

    def start(names: str) -> MeshInProcess:
        running.append(MeshInProcess(tmp_path, names.split()))
        return running[-1]

    yield start
    for mesh in running:
        mesh.close()


def open_everywhere(mesh: MeshInProcess, room: RoomId) -> dict[str, RoomState]:
    opened: dict[str, RoomState | Away] = {}
    for name, node in mesh.nodes.items():
        node.router.open_room(room, partial(opened.__setitem__, name))
    mesh.run_until(lambda: len(opened) == len(mesh.nodes), "the room is open at all nodes")
    states = {name: state for name, state in opened.items() if not isinstance(state, Away)}
    assert len(states) == len(mesh.nodes), opened
    for state in states.values():
        state.pins += 1
    return states


def test_all_nodes_are_given_what_any_of_them_makes_and_each_submit_one_outcome(
    meshes: Callable[[str], MeshInProcess],
) -> None:
    mesh = meshes("a b")
    room = room_of(1, mesh)
    states = open_everywhere(mesh, room)
    outcomes: Counter[str] = Counter()

    def done(name: str, outcome: Outcome) -> None:
        assert isinstance(outcome, Entry), outcome
        outcomes[name] += 1

    for n in range(MESSAGES):
        for name, node in mesh.nodes.items():
            sender = node.router.sender("default", name)
            kind = Kind.META if n % 5 == 4 else Kind.MESSAGE
            data = b'{"set":{"last":"%d"}}' % n if kind is Kind.META else b'{"n":%d}' % n
            node.router.submit(Submit(room, kind, sender, f"{name}{n}", data, b"", partial(done, f"{name}{n}")))
    mesh.run_until(
        lambda: (
            all(len(node.gateway.entries) == 2 * MESSAGES for node in mesh.nodes.values())
            and len(outcomes) == 2 * MESSAGES
        ),
        "all is handed on and answered",
    )
    assert set(outcomes.values()) == {1}
    assert [node.gateway.count for node in mesh.nodes.values()] == [MESSAGES] * 2
    assert mesh.made == MESSAGES, "answers were sent to the node that is not the primary"
    a, b = (node.gateway.entries for node in mesh.nodes.values())
    assert [entry.wire for entry in a] == [entry.wire for entry in b]
    assert [entry.sequence + entry.meta_n for entry in a] == list(range(1, 2 * MESSAGES + 1))
    assert {state.committed for state in states.values()} == {a[-1].sequence}
    assert len({tuple(sorted((state.values or {}).items())) for state in states.values()}) == 1

    pages: list[Page | Away] = []
    for name, node in mesh.nodes.items():
        read = History(room, 0, 100, reverse=False, max_bytes=1 << 20)
        node.router.history(states[name], read, pages.append)
    mesh.run_until(lambda: len(pages) == 2, "history is read")
    assert {len(page.entries) for page in pages if isinstance(page, Page)} == {a[-1].sequence}


def test_a_room_goes_on_at_another_primary_for_all_its_members(meshes: Callable[[str], MeshInProcess]) -> None:
    mesh = meshes("a b c")
    room = room_of(1, mesh)
    states = open_everywhere(mesh, room)
    row = mesh.nodes["a"].router.router.cluster.row(1)
    assert row is not None
    primary = row.primary.node
    other = mesh.nodes[next(name for name in mesh.nodes if name != primary)].router
    outcomes: dict[str, Outcome] = {}

    def say(name: str) -> None:
        """As a client does: again under the same id, until it knows."""
        if not isinstance(outcomes.get(name), Entry | Duplicate):
            done = partial(outcomes.__setitem__, name)
            other.submit(Submit(room, Kind.MESSAGE, other.sender("default", "u"), name, b"{}", b"", done))

    def is_said(name: str) -> bool:
        if isinstance(outcomes.get(name), Away):
            del outcomes[name]
            say(name)
        return name in outcomes

    say("before")
    mesh.run_until(lambda: is_said("before"), "the first message is acknowledged")
    mesh.cut_off(primary)
    say("meanwhile")
    mesh.run_until(lambda: is_said("meanwhile"), "another node is primary, and has taken the message")
    mesh.wires.heal()
    say("after")
    mesh.run_until(
        lambda: is_said("after") and all(len(node.gateway.entries) == 3 for node in mesh.nodes.values()),
        "all have all, the old primary too",
    )
    entries = [[entry.wire for entry in node.gateway.entries] for node in mesh.nodes.values()]
    assert entries[0] == entries[1] == entries[2]
    assert [entry.cmid for entry in mesh.nodes["a"].gateway.entries] == ["before", "meanwhile", "after"]
    assert all(not node.gateway.resets for node in mesh.nodes.values())
    assert {state.committed for state in states.values()} == {3}


def test_a_node_that_retention_has_left_behind_is_taught_by_a_snapshot(
    meshes: Callable[[str], MeshInProcess], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mesh = meshes("a b c")
    room = room_of(1, mesh)
    a = mesh.nodes["a"].router
    states = open_everywhere(mesh, room)
    row = a.router.cluster.row(1)
    assert row is not None
    primary = mesh.nodes[row.primary.node].router
    left = next(name for name in mesh.nodes if name != row.primary.node)
    said: list[Outcome] = []

    def say(count: int) -> None:
        upto = len(said) + count
        for n in range(len(said), upto):
            data = _data(n)
            sender = primary.sender("default", "u")
            primary.submit(Submit(room, Kind.MESSAGE, sender, f"m{n}", data, b"", said.append))
            mesh.run_until(lambda n=n: len(said) > n, "it is acknowledged")  # type: ignore[misc]
        primary.log.file_all()

    def members() -> set[str]:
        now = primary.router.cluster.row(1)
        return set() if now is None else {member.node for member in now.members}

    say(3)
    mesh.run_until(lambda: members() == {"a", "b", "c"}, "all are members")
    mesh.cut_off(left)
    mesh.run_until(lambda: left not in members(), "who is cut off is a member no more")
    for _ in range(4):
        say(30)
    floor = states[row.primary.node].floor
    primary.log.retain(lambda _: Keep(bytes=1), 10**6)
    own = primary.router.cluster.rooms.get(room)
    assert own is not None
    mesh.run_until(lambda: own.floor > max(floor, 3), "the oldest entries are dropped")
    mesh.wires.heal()
    mesh.run_until(lambda: left in members(), "it is a member again")
    assert f"{left} has the snapshot" in caplog.text
    say(1)
    mesh.run_until(lambda: mesh.nodes[left].router.router.cluster.row(1) == primary.router.cluster.row(1), "it knows")
    assert [type(outcome) for outcome in said] == [Entry] * len(said)
    mesh.cut_off(row.primary.node)
    heir = mesh.nodes[left].router
    again: list[Outcome] = []
    heir.submit(Submit(room, Kind.MESSAGE, heir.sender("default", "u"), "m5", _data(5), b"", again.append))
    mesh.run_until(lambda: bool(again), "somebody else is the primary")
    assert again == [Duplicate(6)]


def _data(n: int) -> bytes:
    return b'{"n":%d,"content":"%b"}' % (n, b"x" * 500)

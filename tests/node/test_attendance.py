"""Who is told to have come and gone, and how many are told to be there: cases, and a model."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from edge_config.faults import ConfigError
from edge_config.kinds import ARRIVALS, Presence, RoomKind, Schema, SystemEvent
from node.attendance import (
    ABSENCE_SECONDS,
    ARRIVAL_SECONDS,
    JOINED,
    LEFT,
    RETURN_SECONDS,
    TOLD_AT_ONCE,
    Attendance,
    Came,
)
from node.chat_rules import RULINGS
from node.gateway import CREATED
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH: Final = (JOINED, LEFT)
USERS: Final = st.sampled_from(["ann", "bob", "cat", "dan"])
LONG: Final = ABSENCE_SECONDS + ARRIVAL_SECONDS + 1.0


class FakePlace:
    """A room: connections by user."""

    def __init__(self, kind: RoomKind) -> None:
        self.kind = kind
        self.users: dict[str, int] = {}


class Scene:
    """One room, a clock, and what the room was told."""

    def __init__(self, kind: RoomKind, *, after: float = RETURN_SECONDS) -> None:
        self.room = FakePlace(kind)
        self.attendance: Attendance[FakePlace] = Attendance(0.0)
        self.now = after

    def come(self, user: str = "ann") -> None:
        self.room.users[user] = self.room.users.get(user, 0) + 1
        self.attendance.changed(self.room, user, self.now)

    def go(self, user: str = "ann") -> None:
        self.room.users[user] -= 1
        if not self.room.users[user]:
            del self.room.users[user]
        self.attendance.changed(self.room, user, self.now)

    def passes(self, seconds: float) -> list[str]:
        """What is told in so many seconds, at the moments that the deadlines name."""
        told: list[str] = []
        until = self.now + seconds
        while self.attendance.next_deadline <= until:
            self.now = max(self.now, self.attendance.next_deadline)
            told += [
                f"{item.user} {item.event}" if isinstance(item, Came) else str(item.users)
                for item in self.attendance.tick(self.now)
            ]
        self.now = until
        return told


def telling(**more: object) -> RoomKind:
    return RoomKind(system_messages=BOTH, **more)  # type: ignore[arg-type]  # options of a kind


def test_a_user_is_one_however_many_connections_it_has() -> None:
    scene = Scene(telling())
    scene.come()
    scene.come()
    assert scene.passes(LONG) == ["ann joined"]
    scene.go()
    assert scene.passes(LONG) == []
    scene.go()
    assert scene.passes(LONG) == ["ann left"]
    assert len(scene.attendance) == 0


def test_who_loads_a_page_again_has_neither_gone_nor_come() -> None:
    scene = Scene(telling())
    scene.come()
    scene.passes(LONG)
    for _ in range(3):
        scene.go()
        assert scene.passes(ABSENCE_SECONDS - 1.0) == []
        scene.come()
    assert scene.passes(LONG) == []


def test_who_looks_in_and_leaves_has_not_come() -> None:
    scene = Scene(telling())
    scene.come()
    assert scene.passes(ARRIVAL_SECONDS / 2) == []
    scene.go()
    assert scene.passes(LONG) == []
    assert len(scene.attendance) == 0


def test_after_a_start_those_who_come_are_taken_to_have_been_there() -> None:
    scene = Scene(telling(), after=RETURN_SECONDS - 1.0)
    scene.come("ann")
    assert scene.passes(LONG) == []
    scene.come("bob")
    scene.go("ann")
    assert scene.passes(LONG) == ["bob joined", "ann left"]


@pytest.mark.parametrize("wanted", BOTH)
def test_only_what_the_kind_names_is_told(wanted: str) -> None:
    scene = Scene(RoomKind(system_messages=(wanted,)))
    scene.come()
    told = scene.passes(LONG)
    scene.go()
    assert told + scene.passes(LONG) == [f"ann {wanted}"]


def test_in_a_big_room_nobody_comes_or_goes_and_in_one_that_shrinks_all_are_known() -> None:
    scene = Scene(telling(system_members=2))
    for user in ("ann", "bob", "cat"):
        scene.come(user)
    assert scene.passes(LONG) == []
    scene.go("cat")
    assert scene.passes(LONG) == []
    scene.go("bob")
    assert scene.passes(LONG) == ["bob left"]
    scene.come("dan")
    assert scene.passes(LONG) == ["dan joined"]


def test_a_flood_of_arrivals_is_cut_short() -> None:
    scene = Scene(telling(system_members=10_000))
    for number in range(1000):
        scene.come(f"u{number}")
    assert len(scene.passes(LONG)) == TOLD_AT_ONCE


def test_a_count_is_told_when_it_has_changed_and_once_in_a_period() -> None:
    scene = Scene(RoomKind(presence_seconds=10.0))
    scene.come("ann")
    assert scene.passes(0.0) == ["1"]
    for number in range(50):
        scene.come(f"u{number}")
        assert scene.passes(0.1) == []
    assert scene.passes(5.0) == ["51"]
    scene.come("ann")
    scene.go("u1")
    scene.come("u1")
    assert scene.passes(100.0) == []
    scene.go("u1")
    assert scene.passes(0.0) == ["50"]


def test_a_room_that_is_empty_is_forgotten() -> None:
    scene = Scene(telling(presence_seconds=1.0))
    scene.come()
    scene.passes(LONG)
    assert len(scene.attendance) == 1
    scene.go()
    scene.passes(LONG)
    assert len(scene.attendance) == 0


def test_a_node_that_leaves_tells_nothing() -> None:
    scene = Scene(telling(presence_seconds=1.0))
    scene.come("ann")
    scene.passes(LONG)
    scene.come("bob")
    scene.attendance.silence()
    scene.go("ann")
    assert scene.passes(100.0) == []


class AnyAttendance(RuleBasedStateMachine):
    """Whatever users do: what is told of each alternates, and is true in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(telling())
        self.told: dict[str, list[str]] = {}
        self.counts: list[tuple[float, int]] = []

    @initialize(members=st.integers(1, 4))
    def open(self, members: int) -> None:
        self.scene = Scene(telling(presence_seconds=5.0, system_members=members))

    @rule(user=USERS)
    def come(self, user: str) -> None:
        self.scene.come(user)

    @rule(user=USERS)
    def go(self, user: str) -> None:
        if user in self.scene.room.users:
            self.scene.go(user)

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        scene = self.scene
        until = scene.now + seconds
        while scene.attendance.next_deadline <= until:
            scene.now = max(scene.now, scene.attendance.next_deadline)
            for item in scene.attendance.tick(scene.now):
                if isinstance(item, Came):
                    self.told.setdefault(item.user, []).append(item.event)
                else:
                    self.counts.append((scene.now, item.users))
        scene.now = until

    @rule()
    def rest(self) -> None:
        self.wait(LONG)
        users = self.scene.room.users
        assert not self.counts or self.counts[-1][1] == len(users)
        if self.scene.room.kind.system_members == 4:  # it was never crowded
            for user, told in self.told.items():
                assert (told[-1] == JOINED) is (user in users)
            assert users.keys() <= self.told.keys()
        assert (len(self.scene.attendance) == 0) is (not users)

    @invariant()
    def what_is_told_of_a_user_alternates(self) -> None:
        if self.scene.room.kind.system_members < 4:
            return
        for told in self.told.values():
            assert told == [BOTH[at % 2] for at in range(len(told))]

    @invariant()
    def counts_have_a_period_and_differ(self) -> None:
        for (earlier, before), (later, after) in zip(self.counts, self.counts[1:], strict=False):
            assert later - earlier >= 5.0 - 1e-6 or before == 0
            assert before != after or before == 0

    @invariant()
    def what_waits_is_bounded(self) -> None:
        assert len(self.scene.attendance._heap) <= 5  # each user, and the count

    @override
    def teardown(self) -> None:
        self.rest()


TestAnyAttendance = AnyAttendance.TestCase


# -- the kinds ---------------------------------------------------------------------------------------------------


def test_a_room_can_be_told_that_it_is_new_who_comes_and_goes_and_what_is_laid_down() -> None:
    assert set(SystemEvent) == {CREATED} | ARRIVALS | {ruling.event for ruling in RULINGS.values()}


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ({"system_messages": ("joined", "jumped")}, "there is no such event"),
        ({"system_messages": ("locked",), "schema": Schema.ANY}, "no messages of the node"),
        ({"presence_seconds": 1.0, "schema": Schema.ANY}, "carry what is published there"),
        ({"presence_seconds": 1.0, "presence": Presence.OFF}, "but presence is off"),
        ({"system_messages": ("left",), "presence": Presence.OFF}, "but presence is off"),
    ],
)
def test_what_does_not_fit_together_is_said(kind: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RoomKind(**kind)  # type: ignore[arg-type]  # options of a kind


def test_a_locked_room_tells_of_it_without_presence() -> None:
    assert not RoomKind(system_messages=("locked",), presence=Presence.OFF).tells_arrivals


# -- a real node -------------------------------------------------------------------------------------------------

HURRIED: Final = (
    sys.executable,
    "-c",
    "import node.attendance as a; a.RETURN_SECONDS = 0.0; a.ARRIVAL_SECONDS = a.ABSENCE_SECONDS = 0.05;"
    "from node.cli import main; main()",
)
"""A node whose people are in a hurry."""


def told(socket: ChatSocket) -> Iterator[dict[str, object]]:
    """Data of publications, as they come."""
    return (push["pub"]["data"] for push in socket.pushes() if "pub" in push)


def test_a_real_node_tells_a_room_who_comes_and_goes_how_many_there_are_and_what_is_laid_down(tmp_path: Path) -> None:
    settings = {
        "KINDS__DEFAULT__SYSTEM_MESSAGES": "joined,left,renamed",
        "KINDS__DEFAULT__PRESENCE_SECONDS": "0.01",
    }
    with NodeProcess(tmp_path, settings=settings, command=HURRIED) as node:
        with connected(node.url, "mod", role="moderator") as moderator:
            assert "subscribe" in moderator.ask("subscribe", {"channel": "r"})
            news = told(moderator)
            assert next(news) == {"type": "presence", "count": 1}
            with connected(node.url, "ann") as ann:
                assert "subscribe" in ann.ask("subscribe", {"channel": "r"})
                seen = [next(news) for _ in range(3)]
                assert {"type": "presence", "count": 2} in seen
                joined = [entry for entry in seen if entry["type"] == "system"]
                assert [(entry["event"], entry["data"]) for entry in joined] == [
                    ("joined", {"user": "mod"}), ("joined", {"user": "ann"}),
                ]  # fmt: skip
                data = {"channel": "r", "id": "1", "title": "Help desk"}
                assert moderator.ask("rpc", {"method": "rename", "data": data})["rpc"] == {"data": {}}
                renamed = next(news)
                assert (renamed["type"], renamed["event"], renamed["userId"]) == ("system", "renamed", "system")
                assert renamed["data"] == {"by": "mod", "title": "Help desk"}
                assert "rpc" in moderator.ask("rpc", {"method": "lock", "data": {"channel": "r", "id": "2"}})
            seen = [next(news) for _ in range(2)]
            assert {"type": "presence", "count": 1} in seen
            assert [(entry["event"], entry["data"]) for entry in seen if entry["type"] == "system"] == [
                ("left", {"user": "ann"})
            ]
        node.restart()
        with connected(node.url, "cat") as cat:
            assert "subscribe" in cat.ask("subscribe", {"channel": "r"})
            answer = cat.ask("history", {"channel": "r", "limit": 4})["history"]
            assert [pub["data"]["event"] for pub in answer["publications"]] == ["joined", "joined", "renamed", "left"]
            assert [pub["offset"] for pub in answer["publications"]] == [1, 2, 3, 4]
            assert cat.ask("rpc", {"method": "room", "data": {"channel": "r"}})["rpc"]["data"] == {
                "title": "Help desk", "role": "member", "slow": 0, "locked": True, "muted": False,
            }  # fmt: skip
        assert not node.is_failing()


def test_a_real_node_tells_once_who_came_first(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, settings={"KINDS__DEFAULT__SYSTEM_MESSAGES": "created"}) as node:
        for life in range(2):
            with connected(node.url, f"ann{life}") as ann, connected(node.url, "bob") as bob:
                for socket in (ann, bob):
                    assert "subscribe" in socket.ask("subscribe", {"channel": "r"})
                assert "publish" in bob.publish("r", f"m{life}")
                answer = bob.ask("history", {"channel": "r", "limit": -1})["history"]["publications"]
                assert [pub["data"]["type"] for pub in answer] == ["system", *(["text"] * (life + 1))]
                assert (answer[0]["data"]["event"], answer[0]["data"]["data"]) == ("created", {"by": "ann0"})
            node.restart()


def test_of_a_real_node_that_is_restarted_nobody_leaves(tmp_path: Path) -> None:
    settings = {"KINDS__DEFAULT__SYSTEM_MESSAGES": "joined,left", "HUB__DRAIN_COHORT": 1, "HUB__DRAIN_SECONDS": 3}
    users = ["ann", "bob", "cat"]
    with NodeProcess(tmp_path, settings=settings, command=HURRIED) as node:
        with ExitStack() as sockets:
            entered = [sockets.enter_context(connected(node.url, user)) for user in users]
            for socket in entered:
                assert "subscribe" in socket.ask("subscribe", {"channel": "r"})
            news = told(entered[0])
            assert [next(news)["event"] for _ in users] == ["joined"] * 3
            node.tell(signal.SIGTERM)
            assert node.wait_ended() == 0
        node.start()
        with connected(node.url, "dan") as dan:
            answer = dan.ask("history", {"channel": "r", "limit": -1})["history"]["publications"]
            assert [pub["data"]["event"] for pub in answer] == ["joined"] * 3

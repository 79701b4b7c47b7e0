"""The client against a simulated node, over a network that fails everywhere: nothing is lost, doubled or reordered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from node.client_core import ClientCore, Link
from node.client_events import Publication
from node.client_outbox import Outbox, Outgoing
from node.client_room import RoomCursor
from tests.harness.simulated_node import SimulatedNode

if TYPE_CHECKING:
    from node.client_wire import WirePublication

ROOMS: Final = ("a", "b")
MOST_QUEUED: Final = 4
QUIET_ROUNDS: Final = 8  # seconds without a command: longer than the client ever waits before it tries again
FOREVER: Final = 1e9  # seconds: no message is given up
TEMPORARY: Final = {"code": 100, "message": "internal server error: try again", "temporary": True}
TOO_MANY: Final = {"code": 111, "message": "too many requests: wait 0.7 s", "temporary": True}
SETTINGS: Final = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
FINDING: Final = settings(
    SETTINGS, max_examples=3000, database=None, phases=[Phase.generate], report_multiple_bugs=False
)

rooms: Final = st.sampled_from(ROOMS)


class ClientMachine(RuleBasedStateMachine):
    """A client, a node, and the network between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.node = SimulatedNode()
        self.core = ClientCore(10_000, lambda: 0.5)
        self.cursors = {
            name: RoomCursor(name, None, MOST_QUEUED, needs_token=False, join_leave=False) for name in ROOMS
        }
        self.taken: dict[str, list[Publication]] = {name: [] for name in ROOMS}
        self.sent: dict[str, list[str]] = {name: [] for name in ROOMS}
        self.answers: dict[str, list[Any]] = {}
        self.others = 0
        self.begun: dict[str, int] = {}
        self.is_open = False
        for cursor in self.cursors.values():
            self.core.add_room(cursor, self.now)
        self.connect()
        self.settle()  # so that every room has a position, from which everything counts

    def connect(self) -> None:
        self.node.connect()
        self.core.opened("", self.now)
        self.is_open = True
        self.flush()

    def flush(self) -> None:
        self.node.sent(self.core.take_output())
        if self.core.broken:
            self.drop()

    def drop(self) -> None:
        self.is_open = False
        self.core.lost(0, "test", self.now)
        assert self.core.link is Link.DOWN

    def take(self, name: str) -> bool:
        event = self.cursors[name].take()
        self.core.took(self.now)
        self.flush()
        if event is None:
            return False
        assert isinstance(event, Publication), event
        self.taken[name].append(event)
        return True

    def settle(self) -> None:
        """Let everything arrive, and time pass, until nothing happens any more."""
        quiet = rounds = 0
        while quiet < QUIET_ROUNDS:
            quiet, rounds = quiet + 1, rounds + 1
            assert rounds < 1000, "the client never comes to rest"
            if not self.is_open:
                self.connect()
            before = self.node.commands
            while self.node.carry_up():
                pass
            if self.node.commands > before:
                quiet = 0
            while self.is_open and (frame := self.node.carry_down(10)) is not None:
                self.core.receive(frame, self.now)
                self.flush()
            while any(self.take(name) for name in ROOMS):
                quiet = 0
            self.now += 1
            self.node.ping()
            self.core.on_time(self.now)
            self.flush()

    # -- what the user does --------------------------------------------------------------------------------------

    @rule(name=rooms)
    def send(self, name: str) -> None:
        message_id = f"m{len(self.answers)}"
        answers = self.answers[message_id] = []
        self.sent[name].append(message_id)
        params = {"channel": name, "id": message_id, "content": message_id}
        self.core.submit(Outgoing(name, "send", params, FOREVER, answers.append), self.now)
        if self.is_open:
            self.flush()

    @rule(name=rooms, number=st.integers(1, 3))
    def read(self, name: str, number: int) -> None:
        for _ in range(number):
            self.take(name)

    # -- what others and the node do -----------------------------------------------------------------------------

    @rule(name=rooms, number=st.integers(1, 6))
    def others_send(self, name: str, number: int) -> None:
        for _ in range(number):
            self.others += 1
            self.node.add(name, "other", f"o{self.others}", "Hello")

    @rule(error=st.sampled_from([TEMPORARY, TOO_MANY]), is_done=st.booleans())
    def fail_next(self, error: dict[str, Any], is_done: bool) -> None:
        self.node.failures.append((error, is_done and error is TEMPORARY))

    @rule(name=rooms, data=st.data())
    def repeat_push(self, name: str, data: st.DataObject) -> None:
        if entries := self.node.rooms.get(name):
            self.node.repeat_push(name, data.draw(st.integers(1, len(entries))))

    @rule()
    def forget_push(self) -> None:
        self.node.holes += 1

    @rule(name=rooms)
    def unsubscribe(self, name: str) -> None:
        self.node.unsubscribe(name, 2500)

    # -- what the network does -----------------------------------------------------------------------------------

    @precondition(lambda self: self.is_open)
    @rule(number=st.integers(1, 4))
    def carry_up(self, number: int) -> None:
        for _ in range(number):
            self.node.carry_up()

    @precondition(lambda self: self.is_open)
    @rule(most=st.integers(1, 4))
    def carry_down(self, most: int) -> None:
        frame = self.node.carry_down(most)
        if frame is not None:
            self.core.receive(frame, self.now)
            self.flush()

    @precondition(lambda self: self.is_open)
    @rule()
    def break_connection(self) -> None:
        self.drop()

    @precondition(lambda self: not self.is_open)
    @rule()
    def come_back(self) -> None:
        self.connect()

    @rule(seconds=st.sampled_from([0.05, 0.5, 6.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.on_time(self.now)
        if self.is_open:
            self.flush()

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def no_hole_no_double(self) -> None:
        for taken in self.taken.values():
            offsets = [publication.offset for publication in taken]
            assert offsets == list(range(1, len(offsets) + 1))

    @invariant()
    def queues_are_bounded(self) -> None:
        assert all(len(cursor.queue) <= MOST_QUEUED for cursor in self.cursors.values())

    @override
    def teardown(self) -> None:
        self.node.holes = 0
        self.settle()
        for name in ROOMS:  # what was forgotten last shows by the next
            self.node.add(name, "other", f"last-{name}", "Hello")
        self.settle()
        for name in ROOMS:
            entries = self.node.rooms[name]
            assert [publication.data for publication in self.taken[name]] == entries
            assert [entry["id"] for entry in entries if entry["userId"] == "me"] == self.sent[name]
            for message_id in self.sent[name]:
                assert self.answers[message_id] == [next(entry for entry in entries if entry["id"] == message_id)]


TestClient = ClientMachine.TestCase
TestClient.settings = SETTINGS


# -- the machine finds what is wrong: each of these clients has one fault ------------------------------------------


def take_whatever_comes(self: RoomCursor, item: WirePublication) -> bool:
    self.queue.append(Publication(self.channel, item.offset, item.data))
    self.position = self._reached._replace(offset=item.offset)
    return True


def forget(self: Outbox, item: Outgoing, not_before: float) -> None:  # noqa: ARG001
    self.withdraw(item)


def renumber(self: Outbox, item: Outgoing, not_before: float) -> None:
    item.params = {**item.params, "id": f"{item.params['id']}'"}
    ORIGINAL_REPEAT(self, item, not_before)


def overtake(self: Outbox, item: Outgoing, not_before: float) -> None:
    ORIGINAL_REPEAT(self, item, not_before)
    self._rooms[item.channel].rotate(-1)


ORIGINAL_REPEAT: Final = Outbox.repeat


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (RoomCursor, "_append", take_whatever_comes),
        (Outbox, "repeat", forget),
        (Outbox, "repeat", renumber),
        (Outbox, "repeat", overtake),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_faulty_client_is_found(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, fault: object) -> None:
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(ClientMachine, settings=FINDING)

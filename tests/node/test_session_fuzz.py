"""Whatever clients send and in whatever order: sessions answer or close, and nobody misses or sees twice a message."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from edge_config.kinds import JoinLeave, Presence, RoomKind, Schema, Who
from edge_config.limits import Rates
from edge_config.schema import Auth, Config
from node.protocol import BODIES
from router.ids import RoomId
from tests.harness.client import Client, World, message

KINDS = {
    "default": RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE, presence=Presence.ROSTER),
    "any": RoomKind(name="any", schema=Schema.ANY, join_leave=JoinLeave.PUSH),
}


def world() -> World:
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    return World(Config(auth=Auth(insecure=True), rates=rates, kinds=KINDS))


# -- anything at all ---------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
channels = st.sampled_from(["a", "b", "any:a", "$a", "a#u1", "#u1", "x:a", ""]) | texts
bodies = st.fixed_dictionaries(
    {},
    optional={
        "channel": channels,
        "token": texts,
        "data": st.fixed_dictionaries({"id": st.sampled_from("12"), "content": texts}) | json_values,
        "recover": st.booleans(),
        "offset": st.integers(0, 3),
        "epoch": st.sampled_from(["", "birth.1", "other"]),
        "limit": st.integers(-2, 3),
        "reverse": st.booleans(),
        "since": st.none() | st.fixed_dictionaries({"offset": st.integers(0, 3)}),
        "method": st.sampled_from(["send", "other"]),
        "flag": st.integers(0, 3),
        "join_leave": st.booleans(),
        "subs": st.dictionaries(channels, st.fixed_dictionaries({"recover": st.booleans()}), max_size=2),
    },
)
commands = st.builds(
    lambda command_id, given: {"id": command_id, **given},
    st.integers(1, 1000),
    st.dictionaries(st.sampled_from(BODIES), bodies, min_size=1, max_size=1),
)
frames = (
    st.lists(commands, min_size=1, max_size=4).map(lambda batch: b"\n".join(json.dumps(c).encode() for c in batch))
    | st.dictionaries(texts, json_values, max_size=3).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.just(b"{}")
)
steps = frames | st.sampled_from(["pass", "hold", "answer", "release"])


def run(node: World, client: Client, step: bytes | str) -> None:
    gateway = node.gateway
    match step:
        case bytes():
            if client.end() is None:
                client.send_bytes(step)
        case "pass":
            node.run(1.5)
        case "hold":
            gateway.held = {"open", "history", "submit"}
        case "answer" if gateway.waiting:
            gateway.answer_one()
        case "release":
            gateway.release()
        case _:
            pass


@given(st.lists(steps, max_size=12), st.booleans())
def test_whatever_a_client_sends_it_is_answered_or_closed(sequence: list[bytes | str], connects: bool) -> None:
    node = world()
    client = node.connected("u1") if connects else node.client()
    for step in sequence:
        run(node, client, step)
    node.gateway.release()
    node.run(60.0)
    assert client.end() in {3012, 3502, 3000, 3501, 3500}
    assert node.gateway.users == []
    assert all(not room.joined for room in node.gateway.rooms.values())


@given(st.lists(commands, max_size=8), st.lists(st.sampled_from(["pass", "hold", "answer", "release"]), max_size=8))
def test_every_command_has_exactly_one_answer(batch: list[dict[str, Any]], between: list[str]) -> None:
    node = world()
    client = node.connected("u1")
    client.transport.take()
    expected = []
    for n, command in enumerate(batch, start=2):
        if "connect" in command or client.end() is not None:
            continue
        client.send({**command, "id": n})
        if "send" not in command:
            expected.append(n)
        if between:
            run(node, client, between.pop())
    node.run(4.1)
    node.gateway.release()
    answers = [reply["id"] for reply in client.transport.sent if "id" in reply]
    assert len(answers) == len(set(answers))
    if client.end() is None:
        assert sorted(answers) == expected
    else:
        assert set(answers) <= set(expected)


# -- dense and without duplicates --------------------------------------------------------------------------------


class Reader:
    """A client as an SDK is: it keeps its position, resumes from it, and may be told that it can't."""

    def __init__(self, node: World) -> None:
        self.node = node
        self.client = node.connected("u1")
        self.position: int | None = None
        self.live = False
        self.pending = 0
        self.seen: list[int] = []

    def subscribe(self) -> None:
        if not self.live and not self.pending:
            since = {} if self.position is None else {"recover": True, "offset": self.position, "epoch": "birth.1"}
            self.pending = self.client.tell("subscribe", {"channel": "r", **since})

    def unsubscribe(self) -> None:
        if self.live:
            self.live = False
            self.client.tell("unsubscribe", {"channel": "r"})

    def reconnect(self) -> None:
        self.drain()
        self.client.session.closed()
        self.client = self.node.connected("u1")
        self.live, self.pending = False, 0

    def drain(self) -> None:
        for sent in self.client.transport.take():
            if sent.get("id") == self.pending and self.pending:
                self.pending = 0
                if "subscribe" in sent:
                    self._subscribed(sent["subscribe"])
            elif "pub" in sent.get("push", {}):
                self._see(sent["push"]["pub"]["offset"])

    def _subscribed(self, result: dict[str, Any]) -> None:
        self.live = True
        start = result.get("offset", 0)
        if result.get("recovered"):
            assert start == self.position
        else:
            assert "publications" not in result
            self.seen.clear()
        self.position = start
        for publication in result.get("publications", ()):
            self._see(publication["offset"])

    def _see(self, offset: int) -> None:
        assert self.position is not None
        assert offset == self.position + 1, "a hole, or seen twice"
        self.position = offset
        self.seen.append(offset)


class Readers(RuleBasedStateMachine):
    """Two readers of one room, a writer, and a gateway whose disk is slow at times."""

    def __init__(self) -> None:
        super().__init__()
        self.node = world()
        self.readers = [Reader(self.node), Reader(self.node)]
        self.writer = self.node.connected("u2")
        self.writer.tell("subscribe", {"channel": "r"})
        self.written = 0
        self.room = self.node.gateway.rooms[RoomId("default", "r")]

    @rule(who=st.integers(0, 1))
    def subscribe(self, who: int) -> None:
        self.readers[who].subscribe()

    @rule(who=st.integers(0, 1))
    def unsubscribe(self, who: int) -> None:
        self.readers[who].unsubscribe()

    @rule(who=st.integers(0, 1))
    def reconnect(self, who: int) -> None:
        self.readers[who].reconnect()

    @rule()
    def publish(self) -> None:
        self.written += 1
        self.writer.tell("publish", {"channel": "r", "data": message(self.written)})

    @rule()
    def publish_elsewhere(self) -> None:
        self.node.gateway.publish(self.room, b'{"id":"x","content":"x"}')

    @rule(operation=st.sampled_from(["open", "history", "submit"]))
    def slow(self, operation: str) -> None:
        self.node.gateway.held.add(operation)

    @rule()
    def answer(self) -> None:
        if self.node.gateway.waiting:
            self.node.gateway.answer_one()

    @rule()
    def fast(self) -> None:
        self.node.gateway.release()

    @rule(page=st.integers(1, 4))
    def small_pages(self, page: int) -> None:
        self.node.gateway.page = page

    @invariant()
    def dense(self) -> None:
        for reader in self.readers:
            reader.drain()
            if reader.live:
                assert reader.position == self.room.offset

    @override
    def teardown(self) -> None:
        self.node.gateway.release()
        for reader in self.readers:
            reader.drain()
            reader.subscribe()
            reader.drain()
            assert reader.live
            assert reader.position == self.room.offset


Readers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestReaders = Readers.TestCase

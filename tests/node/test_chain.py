"""Members with and without differences, of all wires, come and go: each is given all that was published, in order."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from edge_config.kinds import RoomKind, Schema
from edge_config.limits import Limits
from edge_config.schema import Config
from node import publication
from node.connection import OPEN, Connection
from node.fossil import create
from node.framing import EVENTS, LINES, MESSAGES, WEB_SOCKET_BINARY, WEB_SOCKET_TEXT, Wire
from node.gateway import Gateway
from node.metrics import Metrics
from node.protobuf import ProtobufCodec
from node.protocol import JsonCodec
from router.entry import MESSAGE, SALT_BYTES, make
from router.events import RoomRecord
from router.ids import RoomId
from router.room import RoomState
from tests.node.test_protobuf import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.hub import Hub
    from node.rooms import Room
    from node.upgrade import HeadReader
    from router.runtime import Router

JSON, BINARY = JsonCodec(), ProtobufCodec()
USUAL = Wire(JSON, WEB_SOCKET_TEXT)
WIRES = [
    USUAL, Wire(JSON, LINES), Wire(JSON, EVENTS), Wire(BINARY, WEB_SOCKET_BINARY), Wire(BINARY, MESSAGES),
]  # fmt: skip
NAME = RoomId("default", "docs:1")
LONG = 400  # bytes of data that are too many for differences here
documents = st.fixed_dictionaries({
    "n": st.integers(0, 9), "of": st.text("aé\"\\\u2028👩", max_size=8),
    "rest": st.sampled_from(["ü" * 60, "e" * 60, ""]),
})  # fmt: skip


class Pipe:
    """A socket that takes everything.

    Attributes:
        data: What it was given.
    """

    def __init__(self) -> None:
        self.data = b""

    def fileno(self) -> int:
        return -1

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


class FakeMember:
    """A subscription whose client applies what it is given, as the SDKs do.

    Attributes:
        wanted: What it must have been given, oldest first: offset (0: none) and data.
        differences: How many of its publications were told as differences.
    """

    def __init__(self, wire: Wire, name: str, *, delta: bool) -> None:
        self.client = self.user = name
        self.info = b'{"user":"u"}'
        self.wants_joins, self.delta = False, delta
        self.pipe = Pipe()
        hub = cast("Hub", SimpleNamespace(dirty=[], metrics=Metrics()))
        parser = cast("HeadReader", None)
        self.transport = Connection(hub, cast("Any", self.pipe), "192.0.2.1", OPEN, parser, wire)
        self.wanted: list[tuple[int, object]] = []
        self.differences = 0

    def lose(self) -> None:
        raise AssertionError("there is no hole")

    def given(self) -> list[tuple[int, object]]:
        """What its client makes of all that was sent."""
        self.transport.flush()
        found: list[tuple[int, object]] = []
        base = b""
        self.differences = 0
        for pub in self._publications():
            data = pub["data"]
            if self.delta:
                told = data if isinstance(data, bytes) else data.encode()
                base = bytes(apply_delta(base, told)) if pub.get("delta") else told
                self.differences += bool(pub.get("delta"))
                found.append((pub.get("offset", 0), json.loads(base)))
            else:
                assert "delta" not in pub
                found.append((pub.get("offset", 0), json.loads(data) if isinstance(data, bytes) else data))
        return found

    def _publications(self) -> Iterator[dict[str, Any]]:
        """Those of all whole frames that were sent."""
        wire, at, data = self.transport.wire, 0, self.pipe.data
        while at < len(data):
            end = wire.framing.frame_end(data[at:], 1) + at
            frame, at = data[at:end], end
            if wire.codec is JSON:
                yield json.loads(frame[frame.index(b'{"push"') : frame.rindex(b"}") + 1])["push"]["pub"]
            else:
                if wire.framing is WEB_SOCKET_BINARY:
                    frame = frame[2 if frame[1] < 126 else 4 :]
                size = len(frame) - (1 if frame[0] < 128 else 2)
                read = reference("Reply").FromString(frame[-size:]).push.pub
                yield {name.name: value for name, value in read.ListFields()}


class World:
    """A gateway with one room, whose log is a list."""

    def __init__(self) -> None:
        kind = RoomKind(schema=Schema.ANY, delta=True)
        config = Config(kinds={"docs": kind}, limits=Limits(delta_bytes=LONG))
        self.gateway = Gateway("n1", "1", config, Metrics(), cast("Any", None), USUAL, None)
        self.state = RoomState(0, RoomRecord(NAME))
        router = SimpleNamespace(
            epoch_of=lambda _: "birth.1", submit=None,
            open_room=lambda _, done: done(self.state),
        )  # fmt: skip
        self.gateway.attach(cast("Router", router))
        found: list[Any] = []
        self.gateway.open_room(NAME, kind, found.append)
        self.room: Room = found[0]

    def publish(self, data: object) -> int:
        """Commit a publication; its sequence."""
        sequence = self.state.committed = self.state.committed + 1
        encoded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
        entry = make(
            0, sequence, 1, NAME, sequence, 0, MESSAGE, b"s" * 12, "", 0, b"s" * SALT_BYTES, encoded, b"", b"",
        )  # fmt: skip
        self.gateway.committed([entry])
        return sequence


class Chains(RuleBasedStateMachine):
    """What every member has been given is what was published while it was there."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.here: list[FakeMember] = []
        self.gone: list[FakeMember] = []
        self.named = self.computed = self.published = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(publication, "create", self._create)

    def _create(self, base: bytes, target: bytes) -> bytes | None:
        self.computed += 1
        return create(base, target)

    @rule(target=members, wire=st.sampled_from(WIRES), delta=st.sampled_from([True, True, False]))
    def join(self, wire: Wire, delta: bool) -> FakeMember:
        self.named += 1
        member = FakeMember(wire, f"m{self.named}", delta=delta)
        self.world.gateway.join(self.world.room, member)
        self.here.append(member)
        return member

    @rule(member=members)
    def leave(self, member: FakeMember) -> None:
        self.world.gateway.leave(self.world.room, member)
        if member in self.here:
            self.here.remove(member)
            self.gone.append(member)

    @rule(data=documents | st.sampled_from([None, "long" * LONG]))
    def publish(self, data: object) -> None:
        before = self.computed
        sequence = self.world.publish(data)
        self.published += 1
        assert self.computed - before <= 1
        if not any(member.delta for member in self.here):
            assert self.computed == before
        for member in self.here:
            member.wanted.append((sequence, data))

    @rule(data=documents, kept=st.booleans())
    def publish_without_offset(self, data: object, kept: bool) -> None:
        encoded = json.dumps(data).encode()
        give = self.world.gateway.push if kept else self.world.gateway.whisper
        give(self.world.room, encoded)
        for member in self.here:
            member.wanted.append((0, data))

    @rule()
    def end_turn(self) -> None:
        self.world.gateway.distribute()

    @invariant()
    def members_are_counted(self) -> None:
        assert self.world.room.members == len(self.here)

    @override
    def teardown(self) -> None:
        self.world.gateway.distribute()
        self.patch.undo()
        for member in self.here + self.gone:
            assert member.given() == member.wanted, (member.transport.wire, member.delta)


TestChains = Chains.TestCase


def document(n: int) -> dict[str, object]:
    return {"n": n, "rest": "é" * 60}


@pytest.mark.parametrize("wire", WIRES, ids=repr)
def test_all_but_the_first_of_similar_publications_are_told_as_differences(wire: Wire) -> None:
    world, member = World(), FakeMember(wire, "m", delta=True)
    world.gateway.join(world.room, member)
    for n in range(5):
        world.publish(document(n))
    world.gateway.distribute()
    assert member.given() == [(n + 1, document(n)) for n in range(5)]
    assert member.differences == 4
    assert len(member.pipe.data) < 2 * len(json.dumps(document(0))) + 400


def test_who_joins_is_given_the_next_whole_while_the_others_are_told_the_difference() -> None:
    world, early, late = World(), FakeMember(USUAL, "m", delta=True), FakeMember(USUAL, "l", delta=True)
    world.gateway.join(world.room, early)
    world.publish(document(0))
    world.gateway.join(world.room, late)
    world.publish(document(1))
    world.publish(document(2))
    world.gateway.distribute()
    assert [offset for offset, _ in early.given()] == [1, 2, 3]
    assert [offset for offset, _ in late.given()] == [2, 3]
    assert (early.differences, late.differences) == (2, 1)


def test_who_leaves_before_the_next_publication_is_not_sent_it() -> None:
    world, staying = World(), [FakeMember(USUAL, name, delta=True) for name in "ab"]
    for member in staying:
        world.gateway.join(world.room, member)
    world.publish(document(0))
    brief = FakeMember(USUAL, "c", delta=True)
    world.gateway.join(world.room, brief)
    world.gateway.leave(world.room, brief)
    world.publish(document(1))
    world.gateway.distribute()
    assert brief.given() == []
    assert [len(member.given()) for member in staying] == [2, 2]
    assert [member.differences for member in staying] == [1, 1]


def test_what_follows_a_publication_without_offset_or_one_that_is_too_long_is_whole() -> None:
    world, member = World(), FakeMember(USUAL, "m", delta=True)
    world.gateway.join(world.room, member)
    published: list[object] = [document(0), document(1), "long" * LONG, document(2), document(3)]
    for data in published[:3]:
        world.publish(data)
    assert (len(member.given()), member.differences) == (0, 0)  # the turn is not over
    world.gateway.distribute()
    assert (len(member.given()), member.differences) == (3, 1)
    world.publish(published[3])
    world.gateway.whisper(world.room, b'{"typing":true}')
    world.publish(published[4])
    world.gateway.distribute()
    assert [data for _, data in member.given()] == [*published[:4], {"typing": True}, published[4]]
    assert member.differences == 1

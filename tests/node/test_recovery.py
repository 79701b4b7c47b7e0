"""What a client missed: all of it, or the plain statement that it can't be had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.kinds import Recovery as Mode
from edge_config.kinds import RoomKind
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from node.recovery import Outcome, Recovery
from router.events import Away
from router.ids import Position, RoomId
from tests.harness.client import Client, World

if TYPE_CHECKING:
    from tests.harness.gateway import FakeRoom

LIMITS = Limits(recovery_entries=10, recovery_bytes=4096, body_bytes=16_384)
FREE = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)


def world(kind: RoomKind | None = None) -> World:
    kinds = {"default": kind or RoomKind()}
    return World(Config(auth=Auth(insecure=True), limits=LIMITS, rates=FREE, kinds=kinds))


def room_with(node: World, entries: int, size: int = 10) -> FakeRoom:
    room = node.gateway.room(RoomId("default", "r"), node.config.kinds["default"])
    for n in range(entries):
        publish(node, room, n, size)
    return room


def publish(node: World, room: FakeRoom, n: int, size: int = 10) -> None:
    node.gateway.publish(room, b'{"id":"%d","content":"%b","type":"text"}' % (n, b"x" * size))


def recover(client: Client, offset: int, epoch: str = "birth.1", **more: Any) -> Any:  # noqa: ANN401 - JSON
    return client.ask("subscribe", {"channel": "r", "recover": True, "offset": offset, "epoch": epoch, **more})


def offsets(client: Client) -> list[int]:
    return [publication["offset"] for publication in client.transport.publications("r")]


@pytest.mark.parametrize("epoch", ["birth.1", ""])
@pytest.mark.parametrize("since", [0, 1, 4, 5])
def test_everything_after_the_position_is_given(since: int, epoch: str) -> None:
    node = world()
    room_with(node, 5)
    client = node.connected("u1")
    answer = recover(client, since, epoch)
    assert answer["recovered"] is True
    assert answer["was_recovering"] is True
    assert answer.get("offset", 0) == since
    assert offsets(client) == list(range(since + 1, 6))


def unrecoverable(answer: dict[str, Any], top: int) -> bool:
    return (
        answer["was_recovering"] is True
        and "recovered" not in answer
        and "publications" not in answer
        and (answer["epoch"], answer["offset"]) == ("birth.1", top)
    )


def test_another_epoch_is_unrecoverable() -> None:
    node = world()
    room_with(node, 5)
    assert unrecoverable(recover(node.connected("u1"), 5, "birth.2"), 5)


def test_below_the_floor_is_unrecoverable_and_at_the_floor_is_not() -> None:
    node = world()
    room_with(node, 8).floor = 4
    assert unrecoverable(recover(node.connected("u1"), 3), 8)
    assert recover(node.connected("u1"), 4)["recovered"] is True


def test_more_entries_than_the_cap_are_unrecoverable() -> None:
    node = world()
    room_with(node, 11)
    assert unrecoverable(recover(node.connected("u1"), 0), 11)
    client = node.connected("u1")
    assert recover(client, 1)["recovered"] is True
    assert len(offsets(client)) == 10


def test_more_bytes_than_the_cap_are_unrecoverable() -> None:
    node = world()
    room_with(node, 4, size=1200)
    assert unrecoverable(recover(node.connected("u1"), 0), 4)
    assert recover(node.connected("u1"), 2)["recovered"] is True


def test_a_single_entry_above_the_cap_of_bytes_is_unrecoverable() -> None:
    node = world()
    room_with(node, 1, size=5000)
    assert unrecoverable(recover(node.connected("u1"), 0), 1)


def test_with_deltas_what_was_missed_is_given_whole_as_strings_and_half_as_much_of_it() -> None:
    node = world(RoomKind(delta=True))
    room_with(node, 2, 400)
    answer = recover(node.connected("u1"), 0, delta="fossil")
    assert (answer["recovered"], answer["delta"]) == (True, True)
    assert [json.loads(pub["data"])["sequence"] for pub in answer["publications"]] == [1, 2]
    assert not any("delta" in pub for pub in answer["publications"])
    room_with(node, 3, 400)
    assert "recovered" not in recover(node.connected("u1"), 0, delta="fossil")
    assert recover(node.connected("u1"), 0)["recovered"]


def test_a_hole_is_unrecoverable() -> None:
    node = world()
    room = room_with(node, 5)
    room.entries[3].sequence = 99
    assert unrecoverable(recover(node.connected("u1"), 0), 5)


def test_entries_that_are_gone_are_unrecoverable() -> None:
    node = world()
    room = room_with(node, 5)
    node.gateway.held.add("history")
    client = node.connected("u1")
    recover(client, 2)
    room.floor = 5
    node.gateway.release()
    assert unrecoverable(next(m["subscribe"] for m in client.transport.sent if "subscribe" in m), 5)


def test_an_unrecoverable_position_is_an_error_only_for_a_client_that_asks_for_it() -> None:
    node = world()
    room_with(node, 5)
    client = node.connected("u1")
    assert recover(client, 1, "other", flag=3)["error"]["code"] == 112
    assert client.session.subscriptions == {}
    assert recover(client, 1, flag=3)["recovered"] is True


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_it_is_whole_though_it_comes_in_pages(page: int) -> None:
    node = world()
    room_with(node, 9)
    node.gateway.page = page
    client = node.connected("u1")
    assert recover(client, 1)["recovered"] is True
    assert offsets(client) == list(range(2, 10))


def test_the_head_may_move_while_the_disk_is_read() -> None:
    node = world()
    room = room_with(node, 3)
    client = node.connected("u1")
    node.gateway.held.add("history")
    assert recover(client, 1) is None
    for n in range(3):
        publish(node, room, 10 + n)
        node.gateway.answer_one()
        publish(node, room, 20 + n)
        if not node.gateway.waiting:
            break
    node.gateway.release()
    assert offsets(client) == list(range(2, room.offset + 1))


def test_the_head_may_move_beyond_the_cap_while_the_disk_is_read() -> None:
    node = world()
    room = room_with(node, 10)
    client = node.connected("u1")
    node.gateway.held.add("history")
    node.gateway.page = 2
    recover(client, 0)
    publish(node, room, 11)
    node.gateway.release()
    assert unrecoverable(next(m["subscribe"] for m in client.transport.sent if "subscribe" in m), 11)


def test_a_position_above_the_head_waits_for_the_head() -> None:
    node = world()
    room = room_with(node, 5)
    room.hidden = 2
    client = node.connected("u1")
    assert recover(client, 4) is None
    node.run(1.2)
    node.gateway.hand_over(room)
    node.run(0.6)
    assert offsets(client) == [5]


def test_what_the_members_are_still_to_be_handed_comes_once() -> None:
    node = world()
    room = room_with(node, 5)
    room.hidden, room.runs_ahead = 2, True
    client = node.connected("u1")
    assert recover(client, 1)["recovered"] is True
    history = client.ask("history", {"channel": "r", "limit": 9})
    assert history["offset"] == len(history["publications"]) == 3
    node.gateway.hand_over(room)
    assert offsets(client) == [2, 3, 4, 5]


def test_a_position_above_the_head_is_never_unrecoverable() -> None:
    node = world()
    room_with(node, 5)
    client = node.connected("u1")
    assert recover(client, 6) is None
    node.run(4.1)
    (error,) = [message["error"] for message in client.transport.sent if "error" in message]
    assert (error["code"], error["temporary"]) == (100, True)
    assert client.end() is None


@pytest.mark.parametrize("held", ["open", "history"])
def test_a_storage_that_is_away_is_temporary(held: str) -> None:
    node = world()
    room_with(node, 5)
    client = node.connected("u1")
    node.gateway.held.add(held)
    recover(client, 1)
    node.gateway.away = Away.STORAGE_FAULT
    node.gateway.release()
    (error,) = [message["error"] for message in client.transport.sent if "error" in message]
    assert (error["code"], error["temporary"]) == (100, True)
    assert node.gateway.counters.recoveries == {"refused": 1}


@pytest.mark.parametrize(
    ("mode", "asked", "expected"),
    [
        (Mode.OFF, {"recoverable": True, "positioned": True}, (False, False)),
        (Mode.ASKED, {}, (False, False)),
        (Mode.ASKED, {"positioned": True}, (False, True)),
        (Mode.ASKED, {"recoverable": True}, (True, True)),
        (Mode.POSITIONED, {}, (False, True)),
        (Mode.POSITIONED, {"recoverable": True}, (True, True)),
        (Mode.FORCED, {}, (True, True)),
    ],
)
def test_a_kind_says_whether_subscriptions_resume(
    mode: Mode, asked: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    node = world(RoomKind(recovery=mode))
    answer = node.connected("u1").ask("subscribe", {"channel": "r", **asked})
    assert (answer.get("recoverable", False), answer.get("positioned", False)) == expected


def test_where_recovery_is_off_nothing_is_recovered() -> None:
    node = world(RoomKind(recovery=Mode.OFF))
    room_with(node, 5)
    assert unrecoverable(recover(node.connected("u1"), 2), 5)


def test_a_client_takes_what_it_was_given_before_it_gets_more() -> None:
    node = World(Config(auth=Auth(insecure=True), rates=FREE))
    kind = node.config.kinds["default"]
    rooms = [node.gateway.room(RoomId("default", channel), kind) for channel in "abc"]
    for room in rooms:
        for n in range(20):
            publish(node, room, n, size=7000)
    client = node.connected("u1")
    client.transport.behind = True
    ids = [client.tell("subscribe", {"channel": channel, "recover": True}) for channel in "abc"]
    ping = client.tell("ping")
    assert [client.answer(i) is not None for i in ids] == [True, False, False]
    client.transport.behind = False
    node.run(0.06)
    assert [client.answer(i) is not None for i in ids] == [True, True, False]
    client.transport.behind = True
    node.run(0.5)
    assert client.answer(ping) is None
    node.run(4.0)
    assert client.answer(ids[2])["error"]["code"] == 100
    assert client.answer(ping)["error"]["code"] == 100


def test_what_was_recovered_is_not_given_once_it_is_below_the_floor() -> None:
    node = world()
    room = room_with(node, 5)
    settled: list[Outcome] = []
    recovery = Recovery(node.gateway, room, Position("", 2), 10, 4096, lambda: settled.append(recovery.outcome))
    recovery.advance()
    room.floor = 2
    assert (recovery.fresh, settled) == (True, [Outcome.RECOVERED])
    room.floor = 3
    assert not recovery.fresh
    recovery.advance()
    assert (recovery.fresh, settled) == (True, [Outcome.RECOVERED, Outcome.UNRECOVERABLE])


def test_recoveries_are_counted_by_outcome() -> None:
    node = world()
    room_with(node, 5)
    recover(node.connected("u1"), 2)
    recover(node.connected("u1"), 2, "other")
    node.connected("u1").ask("subscribe", {"channel": "r"})
    assert node.gateway.counters.recoveries == {"recovered": 1, "unrecoverable": 1}
    assert node.gateway.counters.recovered_entries == 3


def test_a_client_whose_publications_have_a_hole_is_told_to_subscribe_again() -> None:
    node = world()
    client = node.connected("u1")
    client.ask("subscribe", {"channel": "r"})
    client.session.subscriptions["r"].lose()
    (push,) = client.pushes("unsubscribe")
    assert push["unsubscribe"]["code"] == 2500
    assert client.end() is None


def test_a_hole_in_what_the_server_subscribed_it_to_makes_it_connect_again() -> None:
    node = world()
    client = node.connected("u1", channels=["r"])
    client.session.subscriptions["r"].lose()
    assert client.end() == 3010


@given(
    st.lists(st.sampled_from(["publish", "answer", "grow", "shrink"]), max_size=30),
    st.integers(0, 6),
    st.integers(1, 4),
)
def test_a_recovery_is_whole_or_none_whatever_happens_meanwhile(steps: list[str], since: int, page: int) -> None:
    node = world()
    room = room_with(node, 6)
    node.gateway.page = page
    node.gateway.held = {"open", "history"}
    client = node.connected("u1")
    recover(client, since)
    for n, step in enumerate(steps):
        if step == "publish":
            publish(node, room, 100 + n)
        elif step == "answer" and node.gateway.waiting:
            node.gateway.answer_one()
        elif step == "grow":
            room.floor = min(room.floor + 1, room.offset)
        elif step == "shrink":
            node.gateway.page = 1
    node.gateway.release()
    publish(node, room, 1000)
    (answer,) = [message["subscribe"] for message in client.transport.sent if "subscribe" in message]
    start = answer.get("offset", 0)
    assert start == since if answer.get("recovered") else "publications" not in answer
    assert offsets(client) == list(range(start + 1, room.offset + 1))

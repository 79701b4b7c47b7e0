"""The rpcs `read` and `unread`: who may, what counts, how far it is counted, and what waits for what."""

from __future__ import annotations

from typing import Any, Final

import pytest

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from router.events import Away
from router.ids import RoomId
from tests.harness.client import Client, World

ANY: Final = RoomKind(name="any", schema=Schema.ANY, publish=Who.ANYONE)
OPEN: Final = RoomKind(name="open", publish=Who.ANYONE, read_history=Who.ANYONE)
RATES: Final = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)


def world(limits: Limits | None = None, **kind: Any) -> World:  # noqa: ANN401 - options of a kind
    kinds = {"default": RoomKind(**kind), "any": ANY, "open": OPEN}
    return World(Config(auth=Auth(insecure=True), rates=RATES, limits=limits or Limits(), kinds=kinds))


def member(world: World, user: str, **claims: str) -> Client:
    """A client in the room."""
    client = world.connected(user, **claims)
    assert client.code("subscribe", {"channel": "r"}) is None
    return client


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The data of an rpc's answer, the code of its error, or None if there is no answer yet."""
    answer = client.ask("rpc", {"method": method, "data": {"channel": "r", **data}})
    if answer is None:
        return None
    return answer["error"]["code"] if "error" in answer else answer["data"]


def say(client: Client, count: int = 1, **fields: object) -> None:
    for _ in range(count):
        number = len(client.transport.sent)
        answer = rpc(client, "send", id=f"{client.session.user}-{number}", content="Hello", **fields)
        assert answer["content"] == "Hello"


def counts(client: Client) -> tuple[int, int, int]:
    answer = rpc(client, "unread")
    assert set(answer) == {"unread", "mentions", "read"}
    return answer["unread"], answer["mentions"], answer["read"]


def told(client: Client) -> list[dict[str, Any]]:
    """What the client was pushed of marks."""
    pushed = [push["pub"] for push in client.pushes("pub")]
    assert all("offset" not in pub for pub in pushed if pub["data"]["type"] == "read")
    return [pub["data"] for pub in pushed if pub["data"]["type"] == "read"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"sequence": 4}, "sequence is 4; give one up to 3, the room's newest"),
        ({"sequence": -1}, "sequence is -1; give one up to 3"),
        ({"sequence": 1 << 70}, "sequence is"),
        ({"sequence": "1"}, "Expected `int`, got `str`"),
        ({"sequence": 1.5}, "Expected `int`"),
        ({"sequence": None}, "Expected `int`"),
        ({}, "sequence is missing; give channel, sequence"),
        ({"sequence": 1, "id": "x"}, "id is no field of it; give channel, sequence"),
        ({"sequence": 1, "userId": "u2"}, "userId is set by the server"),
    ],
)
def test_what_is_wrong_with_a_mark_is_said(data: dict[str, object], complaint: str) -> None:
    client = member(world(), "u1")
    say(client, 3)
    answer = client.ask("rpc", {"method": "read", "data": {"channel": "r", **data}})
    assert answer["error"]["code"] == 107
    assert complaint in answer["error"]["message"]


@pytest.mark.parametrize(("method", "field"), [("read", "sequence"), ("unread", "channel")])
@pytest.mark.parametrize("data", [[], "x", None, 7])
def test_parameters_that_are_no_object_get_a_sample(method: str, field: str, data: object) -> None:
    answer = member(world(), "u1").ask("rpc", {"method": method, "data": data})
    assert answer["error"]["code"] == 107
    assert f'"{field}": ' in answer["error"]["message"]


@pytest.mark.parametrize("method", ["read", "unread"])
@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("any:r", 108),  # no chat room
        ("other", 103),  # history is for subscribers, and it is none
        ("open:r", None),  # anyone may read the history
        ("nothing:r", 102),
        ("#u2", 103),  # another user's
        ("$r", 103),  # needs a token
        ("", 107),
    ],
)
def test_in_which_rooms(method: str, channel: str, code: int | None) -> None:
    node = world()
    client = node.connected("u1")
    client.ask("subscribe", {"channel": "any:r"})
    data = {"channel": channel} | ({"sequence": 0} if method == "read" else {})
    assert client.code("rpc", {"method": method, "data": data}) == code


def test_whom_the_room_has_banned_may_neither_read_nor_count() -> None:
    node = world()
    client, moderator = member(node, "u1"), member(node, "u2", role="moderator")
    assert rpc(moderator, "mute", id="1", user="u1") == {}
    assert rpc(client, "read", sequence=0) == {"read": 0}
    assert rpc(moderator, "ban", id="2", user="u1") == {}
    assert [rpc(client, "read", sequence=0), rpc(client, "unread")] == [103, 103]


def test_others_messages_after_the_mark_count_and_nothing_else() -> None:
    node = world()
    ann, bob, moderator = member(node, "ann"), member(node, "bob"), member(node, "mod", role="moderator")
    say(ann, 4, mentions=["bob", "cat"])
    say(bob, mentions=["bob"])  # one's own
    say(ann, mentions=["cat"])
    say(ann, meta={"mentions": ["bob"]})
    assert rpc(ann, "edit", id="e", target=1, content="Hi")["type"] == "edit"
    assert rpc(ann, "react", id="r", target=1, emoji="+")["type"] == "reaction"
    assert rpc(moderator, "pin", id="p", target=1)["type"] == "pin"
    assert counts(bob) == (6, 4, 0)
    assert rpc(ann, "delete", id="d", target=4)["type"] == "removed"
    assert counts(bob) == (5, 3, 0)
    assert rpc(bob, "read", sequence=2) == {"read": 2}
    assert counts(bob) == (3, 1, 2)
    assert rpc(moderator, "restore", id="u", target=4)["type"] == "restored"
    assert counts(bob) == (4, 2, 2)
    assert rpc(bob, "read", sequence=7) == {"read": 7}
    assert counts(bob) == (0, 0, 7)
    assert counts(ann) == (1, 0, 0)  # bob's


@pytest.mark.parametrize("user", ['a"b', "ü", "a\\b", "a\u2028b", "\x7f", "😀"])
def test_a_user_of_any_name_is_mentioned(user: str) -> None:
    node = world()
    reader, writer = member(node, user), member(node, "u2")
    say(writer, mentions=[user])
    say(writer, mentions=["u3"], meta={"about": user})
    assert counts(reader) == (2, 1, 0)


def test_a_mark_never_goes_back_and_is_the_users_on_every_device() -> None:
    node = world()
    phone, desk, other = member(node, "u1"), member(node, "u1"), member(node, "u2")
    say(other, 5)
    assert rpc(phone, "read", sequence=4) == {"read": 4}
    assert rpc(desk, "read", sequence=2) == {"read": 4}
    assert counts(desk) == (1, 0, 4)
    assert counts(other)[2] == 0
    assert told(phone) == told(desk) == told(other) == [{"type": "read", "userId": "u1", "sequence": 4}]


def test_guests_have_marks() -> None:
    node = world()
    guest, other = node.connected(), member(node, "u1")
    assert guest.code("subscribe", {"channel": "r"}) is None
    say(other, 2)
    assert rpc(guest, "read", sequence=1) == {"read": 1}
    assert counts(guest) == (1, 0, 1)
    assert told(other) == [{"type": "read", "userId": guest.session.user, "sequence": 1}]


@pytest.mark.parametrize(
    ("limits", "unread", "mentions", "more"),
    [
        (Limits(unread_entries=10), 10, 5, True),
        (Limits(unread_entries=19), 19, 10, True),
        (Limits(unread_entries=20), 20, 10, False),
        (Limits(unread_entries=21), 20, 10, False),
        (Limits(recovery_bytes=1024), 7, 4, True),
    ],
)
def test_no_more_is_looked_at_than_the_limits_say(limits: Limits, unread: int, mentions: int, more: bool) -> None:
    node = world(limits)
    reader, writer = member(node, "u1"), member(node, "u2")
    for number in range(20):
        say(writer, mentions=["u1"] if number % 2 else ["u3"])
    answer = rpc(reader, "unread")
    assert (answer["mentions"], answer.get("more", False)) == (mentions, more)
    assert answer["unread"] == unread
    assert rpc(reader, "read", sequence=18) == {"read": 18}
    assert rpc(reader, "unread") == {"unread": 2, "mentions": 1, "read": 18}


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_pages_that_are_shorter_than_asked_are_gone_through(page: int) -> None:
    node = world(Limits(unread_entries=12))
    reader, writer = member(node, "u1"), member(node, "u2")
    node.gateway.page = page
    say(writer, 12)
    assert rpc(reader, "unread") == {"unread": 12, "mentions": 0, "read": 0}
    say(writer)
    assert rpc(reader, "unread") == {"unread": 12, "mentions": 0, "read": 0, "more": True}


def test_what_the_room_does_not_show_does_not_count() -> None:
    node = world(Limits(unread_entries=3))
    reader, writer = member(node, "u1"), member(node, "u2")
    say(writer, 5)
    room = node.gateway.rooms[RoomId("default", "r")]
    room.floor = 2
    assert rpc(reader, "unread") == {"unread": 3, "mentions": 0, "read": 0}
    room.floor, room.hidden = 0, 3
    assert rpc(reader, "unread") == {"unread": 2, "mentions": 0, "read": 0}
    assert rpc(reader, "read", sequence=3) == 107


def test_other_commands_do_not_wait_for_a_mark() -> None:
    node = world()
    client = member(node, "u1")
    say(client, 2)
    node.gateway.held = {"raise"}
    assert rpc(client, "read", sequence=1) is None
    assert client.ask("history", {"channel": "r", "limit": 1})["publications"]
    say(client)
    assert counts(client)[2] == 0
    node.gateway.release()
    assert client.transport.sent[-2:][0]["push"]["pub"]["data"] == {"type": "read", "userId": "u1", "sequence": 1}
    assert client.transport.sent[-1]["rpc"]["data"] == {"read": 1}
    assert counts(client)[2] == 1


@pytest.mark.parametrize("away", [None, Away.STORAGE_FULL])
@pytest.mark.parametrize("closed", [False, True])
def test_the_answer_to_a_mark_says_what_became_of_it_to_who_is_there(closed: bool, away: Away | None) -> None:
    node = world()
    client = member(node, "u1")
    node.gateway.held = {"raise"}
    assert rpc(client, "read", sequence=0) is None
    sent = len(client.transport.sent)
    if closed:
        client.session.closed()
    node.gateway.away = away
    node.gateway.release()
    answers = client.transport.sent[sent:]
    if closed:
        assert answers == []
    elif away is None:
        assert answers[0]["rpc"]["data"] == {"read": 0}
    else:
        assert (answers[0]["error"]["code"], answers[0]["error"]["temporary"]) == (100, True)


@pytest.mark.parametrize("at", ["open", "mark", "history"])
def test_counting_is_answered_in_time_whatever_does_not_answer(at: str) -> None:
    node = world()
    client = member(node, "u1")
    say(member(node, "u2"), 2)
    node.gateway.held = {at}
    assert rpc(client, "unread") is None
    command = client._id
    node.run(5.0)
    assert client.answer(command)["error"]["code"] == 100
    node.gateway.release()
    assert counts(client) == (2, 0, 0)


def test_a_disk_that_can_not_be_read_is_said() -> None:
    node = world()
    client = member(node, "u1")
    say(member(node, "u2"), 2)
    for at in ("mark", "history"):
        node.gateway.held = {at}
        command = client.tell("rpc", {"method": "unread", "data": {"channel": "r"}})
        node.gateway.away = Away.STORAGE_FAULT
        node.gateway.release()
        node.gateway.away = None
        assert client.answer(command)["error"]["code"] == 100

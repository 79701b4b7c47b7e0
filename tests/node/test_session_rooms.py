"""What a client may do in which room, and what it is answered there."""

from __future__ import annotations

from typing import Any

import pytest

from edge_config.kinds import JoinLeave, Presence, RoomKind, Schema, Who
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config, Rooms
from node.ratelimit import Throttle
from router.events import Away
from router.ids import RoomId
from tests.harness.client import WALL, Client, World, message

OPEN = RoomKind(publish=Who.ANYONE, read_history=Who.ANYONE, read_presence=Who.ANYONE, presence=Presence.ROSTER)
ANY = RoomKind(name="any", schema=Schema.ANY, presence=Presence.ROSTER, join_leave=JoinLeave.PUSH)


def world(kind: RoomKind | None = None, **more: Any) -> World:  # noqa: ANN401 - sections of Config
    rates = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
    kinds = {"default": kind or RoomKind(), "any": ANY}
    return World(Config(**{"auth": Auth(insecure=True), "rates": rates, "kinds": kinds, **more}))


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["subscribe", "publish", "history", "presence", "presence_stats"])
@pytest.mark.parametrize(
    ("channel", "code"),
    [("", 107), ("a" * 256, 107), ("ü" * 128, 107), ("a\nb", 107), ("a\0", 107), ("a\x85", 107), ("nokind:a", 102)],
)
def test_a_channel_has_a_name_of_a_known_kind(name: str, channel: str, code: int) -> None:
    body = {"channel": channel, "data": message(1)} if name == "publish" else {"channel": channel}
    assert world(OPEN).connected("u1").code(name, body) == code


@pytest.mark.parametrize("channel", ["a", "a" * 255, "any:a:b", "with space", "👩‍🚀", "a/b.c-d_e~"])
def test_a_channel_may_have_any_other_name(channel: str) -> None:
    client = world(OPEN).connected("u1")
    assert client.code("subscribe", {"channel": channel}) is None
    assert client.ask("unsubscribe", {"channel": channel}) == {}


def test_without_a_default_kind_a_channel_must_name_its_kind() -> None:
    client = world(rooms=Rooms(default_kind="")).connected("u1")
    assert client.code("subscribe", {"channel": "a"}) == 102
    assert client.code("subscribe", {"channel": "any:a"}) is None


# -- subscribe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "guest", "user", "token"),
    [
        (Who.NOBODY, 103, 103, 103),
        (Who.TOKEN, 103, 103, None),
        (Who.USER, 103, None, None),
        (Who.ANYONE, None, None, None),
    ],
)
def test_a_kind_says_who_may_subscribe(who: Who, guest: int | None, user: int | None, token: int | None) -> None:
    node = world(RoomKind(subscribe=who))
    assert node.connected().code("subscribe", {"channel": "a"}) == guest
    assert node.connected("u1").code("subscribe", {"channel": "a"}) == user
    shown = node.token("u1", channel="a")
    assert node.connected("u1").code("subscribe", {"channel": "a", "token": shown}) == token


def test_the_server_subscribes_whatever_the_kind_says() -> None:
    node = world(RoomKind(subscribe=Who.NOBODY, publish=Who.TOKEN))
    client = node.connected("u1", channels=["$a"])
    assert client.code("publish", {"channel": "$a", "data": message(1)}) is None


@pytest.mark.parametrize(
    ("channel", "claims", "code"),
    [
        ("$a", None, 103),
        ("$a", {"channel": "$a"}, None),
        ("$a", {"channel": "$b"}, 103),
        ("$a", {"channel": "$a", "sub": "u2"}, 103),
        ("$a", {"channel": "$a", "exp": WALL - 60}, 109),
        ("a", {"channel": "b"}, 103),
        ("room#u1,u3", None, None),
        ("room#u2,u3", None, 103),
        ("room#u2", {"channel": "room#u2"}, None),
        ("#u1", None, None),
        ("#u2", None, 103),
    ],
)
def test_a_name_says_who_may_enter(channel: str, claims: dict[str, Any] | None, code: int | None) -> None:
    node = world()
    token = "" if claims is None else node.token(**{"user": "u1", **claims})
    assert node.connected("u1").code("subscribe", {"channel": channel, "token": token}) == code


@pytest.mark.parametrize("name", ["publish", "history", "presence", "presence_stats"])
@pytest.mark.parametrize("channel", ["$a", "room#u2", "#u2"])
def test_a_name_keeps_out_those_who_are_not_subscribed_whatever_the_kind_says(name: str, channel: str) -> None:
    body = {"channel": channel, "data": message(1)} if name == "publish" else {"channel": channel}
    assert world(OPEN).connected("u1").code(name, body) == 103


@pytest.mark.parametrize(
    ("allowed", "asked", "given"),
    [(True, "fossil", True), (True, "", False), (True, "other", False), (False, "fossil", False)],
)
def test_deltas_are_given_where_the_kind_has_them_and_the_client_asks(allowed: bool, asked: str, given: bool) -> None:
    node = world(RoomKind(delta=allowed))
    client = node.connected("u1")
    assert client.ask("subscribe", {"channel": "a", "delta": asked}).get("delta", False) is given
    assert client.session.subscriptions["a"].delta is given


def test_a_client_subscribes_once() -> None:
    client = world().connected("u1")
    assert client.code("subscribe", {"channel": "a"}) is None
    assert client.code("subscribe", {"channel": "a"}) == 105
    assert client.ask("unsubscribe", {"channel": "a"}) == {}
    assert client.ask("unsubscribe", {"channel": "a"}) == {}
    assert client.code("subscribe", {"channel": "a"}) is None


def test_subscriptions_of_a_connection_have_a_limit() -> None:
    client = world(limits=Limits(subscriptions=2)).connected("u1")
    assert [client.code("subscribe", {"channel": c}) for c in "abc"] == [None, None, 106]
    client.ask("unsubscribe", {"channel": "a"})
    assert client.code("subscribe", {"channel": "c"}) is None


def test_a_room_has_a_limit_of_members() -> None:
    node = world(RoomKind(maximum_members=1))
    first = node.connected("u1")
    assert first.code("subscribe", {"channel": "a"}) is None
    assert node.connected("u2").code("subscribe", {"channel": "a"}) == 106
    first.session.closed()
    assert node.connected("u2").code("subscribe", {"channel": "a"}) is None


def test_an_expired_subscription_is_to_be_made_again() -> None:
    node = world()
    client = node.connected("u1")
    answer = client.ask("subscribe", {"channel": "$a", "token": node.token("u1", channel="$a", ttl=10)})
    assert (answer["expires"], answer["ttl"]) == (True, 10)
    answer_pings(node, client, 34)
    assert "$a" in client.session.subscriptions
    node.run(2.0)
    (push,) = client.pushes("unsubscribe")
    assert push["unsubscribe"]["code"] == 2501


def test_a_refreshed_subscription_goes_on() -> None:
    node = world()
    client = node.connected("u1")
    client.tell("subscribe", {"channel": "$a", "token": node.token("u1", channel="$a", ttl=10)})
    body = {"channel": "$a", "token": node.token("u1", channel="$a", ttl=100)}
    assert client.ask("sub_refresh", body) == {"expires": True, "ttl": 100}
    answer_pings(node, client, 100)
    assert client.ask("sub_refresh", {"channel": "$a", "token": node.token("u1", channel="$a")}) == {}
    answer_pings(node, client, 200)
    assert "$a" in client.session.subscriptions


@pytest.mark.parametrize(
    ("channel", "claims", "code"),
    [
        ("b", {"channel": "b"}, 103),
        ("$a", None, 107),
        ("$a", {"channel": "$b"}, 103),
        ("$a", {"channel": "$a", "exp": WALL - 60}, 109),
    ],
)
def test_a_subscription_is_refreshed_with_its_own_token_only(
    channel: str, claims: dict[str, Any] | None, code: int
) -> None:
    node = world()
    client = node.connected("u1")
    client.tell("subscribe", {"channel": "$a", "token": node.token("u1", channel="$a")})
    token = "" if claims is None else node.token(**{"user": "u1", **claims})
    assert client.code("sub_refresh", {"channel": channel, "token": token}) == code
    assert "$a" in client.session.subscriptions


# -- publish -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (Who.NOBODY, [103, 103, 103, 103]),
        (Who.TOKEN, [103, 103, 103, None]),
        (Who.SUBSCRIBER, [103, 103, None, None]),
        (Who.USER, [None, 103, None, None]),
        (Who.ANYONE, [None, None, None, None]),
    ],
)
@pytest.mark.parametrize("name", ["publish", "rpc"])
def test_a_kind_says_who_may_publish(name: str, who: Who, expected: list[int | None]) -> None:
    node = world(RoomKind(publish=who))
    outsider, guest, member, bearer = (node.connected(user) for user in ("u1", "", "u2", "u3"))
    member.ask("subscribe", {"channel": "a"})
    bearer.ask("subscribe", {"channel": "a", "token": node.token("u3", channel="a")})
    body = {"channel": "a", "data": message(1)}
    if name == "rpc":
        body = {"method": "send", "data": {"channel": "a", **message(1)}}
    codes = [client.code(name, body) for client in (outsider, guest, member, bearer)]
    assert codes == expected


def test_a_message_is_seen_by_all_members_and_nobody_else() -> None:
    node = world()
    a, b, outsider = node.connected("u1"), node.connected("u2"), node.connected("u3")
    for client in (a, b):
        client.tell("subscribe", {"channel": "r"})
    outsider.tell("subscribe", {"channel": "other"})
    a.tell("publish", {"channel": "r", "data": message(1)})
    (push,) = b.pushes("pub")
    assert push["pub"] == {
        "data": {
            "id": "m1", "content": "Hello", "type": "text", "chatRoom": "r", "userId": "u1",
            "timestamp": "2026-11-06T21:20:00.001Z", "sequence": 1,
        },
        "offset": 1,
    }  # fmt: skip
    assert a.pushes("pub") == b.pushes("pub")
    assert outsider.pushes("pub") == []


def test_a_retry_is_answered_like_the_first_and_seen_once() -> None:
    client = member(world())
    assert client.ask("publish", {"channel": "r", "data": message(1)}) == {}
    assert client.ask("publish", {"channel": "r", "data": {"content": "Hello", "id": "m1"}}) == {}
    assert len(client.pushes("pub")) == 1


def test_another_message_under_the_same_id_is_refused() -> None:
    client = member(world())
    client.tell("publish", {"channel": "r", "data": message(1)})
    error = client.ask("publish", {"channel": "r", "data": message(1, "Bye")})["error"]
    assert error["code"] == 107
    assert "another message was sent under this id" in error["message"]


@pytest.mark.parametrize("away", Away)
def test_a_log_that_is_away_is_temporary(away: Away) -> None:
    node = world()
    client = member(node)
    node.gateway.away = away
    error = client.ask("publish", {"channel": "r", "data": message(1)})["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    assert away.value in error["message"]


def test_send_is_answered_with_the_whole_message() -> None:
    node = world()
    client = member(node)
    body = {"method": "send", "data": {"channel": "r", **message(1)}}
    first = client.ask("rpc", body)["data"]
    assert first == client.pushes("pub")[0]["pub"]["data"]
    client.tell("publish", {"channel": "r", "data": message(2)})
    assert client.ask("rpc", body)["data"] == first
    assert client.ask("publish", {"channel": "r", "data": message(1)}) == {}
    assert len(client.pushes("pub")) == 2


def test_a_repeated_send_whose_first_result_can_not_be_read_is_temporary() -> None:
    node = world()
    client = member(node)
    body = {"method": "send", "data": {"channel": "r", **message(1)}}
    client.tell("rpc", body)
    node.gateway.held.add("history")
    command_id = client.tell("rpc", body)
    node.gateway.away = Away.STORAGE_FAULT
    node.gateway.release()
    assert client.answer(command_id)["error"]["code"] == 100


def test_send_into_a_room_that_opens_late_is_answered() -> None:
    node = world(OPEN)
    client = node.connected("u1")
    node.gateway.held.add("open")
    command_id = client.tell("rpc", {"method": "send", "data": {"channel": "r", **message(1)}})
    node.gateway.release()
    assert client.answer(command_id)["data"]["sequence"] == 1


@pytest.mark.parametrize(
    "data", [None, "x", {"content": "x"}, {"id": "1", "content": "x", "userId": "u9"}, {"id": "1", "content": ""}]
)
def test_a_bad_message_is_refused_and_nothing_is_stored(data: object) -> None:
    node = world(OPEN)
    inside, outside = member(node), node.connected("u2")
    assert inside.code("publish", {"channel": "r", "data": data}) == 107
    assert outside.code("publish", {"channel": "r", "data": data}) == 107
    assert inside.code("rpc", {"method": "send", "data": data}) == 107
    assert inside.ask("ping") == {}
    assert node.gateway.rooms[RoomId("default", "r")].entries == []


def test_a_publication_without_data_is_refused() -> None:
    node = world()
    client = member(node)
    client.tell("subscribe", {"channel": "any:a"})
    assert client.code("publish", {"channel": "r"}) == 107
    assert client.code("publish", {"channel": "any:a"}) == 107


def test_rates_hold_across_connections_and_slow_mode_by_user() -> None:
    node = world(RoomKind(slow_mode_seconds=10))
    node.gateway.throttle = Throttle(Rates(user_publishes=0.0, room_publishes=0.0))
    first, second, other = member(node), member(node), member(node, "u2")
    assert first.code("publish", {"channel": "r", "data": message(1)}) is None
    error = second.ask("publish", {"channel": "r", "data": message(2)})["error"]
    assert (error["code"], error["message"]) == (111, "too many requests: wait 10.0 s (slow_mode)")
    assert other.code("publish", {"channel": "r", "data": message(3)}) is None
    node.run(10.0)
    assert second.code("publish", {"channel": "r", "data": message(2)}) is None


# -- rooms of schema any -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, 0, "x\ny", [1, {"a": "ü"}], {"userId": "u9", "sequence": 7}])
def test_a_room_of_schema_any_carries_any_json_untouched_and_says_who_sent_it(data: object) -> None:
    node = world()
    client = node.connected("u1", info={"name": "Ann"})
    client.tell("subscribe", {"channel": "any:a"})
    assert client.ask("publish", {"channel": "any:a", "data": data}) == {}
    (push,) = client.pushes("pub")
    info = {"user": "u1", "client": client.session.client, "conn_info": {"name": "Ann"}}
    assert push["pub"] == {"data": data, "info": info, "offset": 1}


def test_a_room_of_schema_any_stores_the_same_twice() -> None:
    node = world()
    client = node.connected("u1")
    client.tell("subscribe", {"channel": "any:a"})
    for _ in range(2):
        assert client.ask("publish", {"channel": "any:a", "data": {"id": "1"}}) == {}
    assert len(client.pushes("pub")) == 2


def test_a_room_of_schema_any_knows_no_chat() -> None:
    client = world().connected("u1")
    client.tell("subscribe", {"channel": "any:a"})
    assert client.code("rpc", {"method": "send", "data": {"channel": "any:a", **message(1)}}) == 108


def test_data_has_a_limit_in_rooms_of_both_schemas() -> None:
    node = world(limits=Limits(body_bytes=100, content_bytes=99, meta_bytes=99))
    client = member(node)
    client.tell("subscribe", {"channel": "any:a"})
    assert client.code("publish", {"channel": "any:a", "data": "x" * 98}) is None
    assert client.code("publish", {"channel": "any:a", "data": "x" * 99}) == 107
    assert client.code("publish", {"channel": "r", "data": message(1, "x" * 90)}) == 107


# -- reading -----------------------------------------------------------------------------------------------------


def filled(node: World, entries: int) -> Client:
    client = member(node)
    for n in range(1, entries + 1):
        client.tell("publish", {"channel": "r", "data": message(n)})
    return client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": -1}, [1, 2, 3, 4, 5]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 1000}, [1, 2, 3, 4, 5]),
        ({"limit": 2, "reverse": True}, [7, 6]),
        ({"limit": 9, "since": {"offset": 3, "epoch": "birth.1"}}, [4, 5, 6, 7]),
        ({"limit": 9, "since": {"offset": 3}}, [4, 5, 6, 7]),
        ({"limit": 9, "since": {"offset": 3}, "reverse": True}, [2, 1]),
        ({"limit": 9, "since": {"offset": 7}}, []),
        ({"limit": 9, "since": {"offset": 3, "epoch": "other"}}, []),
    ],
)
def test_history_is_paged_both_ways(query: dict[str, Any], expected: list[int]) -> None:
    client = filled(world(limits=Limits(history_entries=5)), 7)
    answer = client.ask("history", {"channel": "r", **query})
    assert (answer["epoch"], answer["offset"]) == ("birth.1", 7)
    assert [publication["offset"] for publication in answer["publications"]] == expected
    assert [publication["data"]["sequence"] for publication in answer["publications"]] == expected


def test_a_history_that_is_away_is_temporary() -> None:
    node = world()
    client = filled(node, 1)
    node.gateway.held.add("history")
    command_id = client.tell("history", {"channel": "r", "limit": 1})
    node.gateway.away = Away.STORAGE_FAULT
    node.gateway.release()
    assert client.answer(command_id)["error"]["code"] == 100
    assert client.ask("ping") == {}


@pytest.mark.parametrize("name", ["history", "presence", "presence_stats"])
@pytest.mark.parametrize(
    ("who", "outside", "inside"),
    [(Who.NOBODY, 103, 103), (Who.SUBSCRIBER, 103, None), (Who.USER, None, None), (Who.ANYONE, None, None)],
)
def test_a_kind_says_who_may_read(name: str, who: Who, outside: int | None, inside: int | None) -> None:
    node = world(RoomKind(read_history=who, read_presence=who, presence=Presence.ROSTER))
    assert node.connected("u1").code(name, {"channel": "r"}) == outside
    assert member(node).code(name, {"channel": "r"}) == inside


def test_presence_names_clients_and_counts_users() -> None:
    node = world(RoomKind(presence=Presence.ROSTER))
    first, _, _ = member(node), member(node), member(node, "u2")
    presence = first.ask("presence", {"channel": "r"})["presence"]
    assert sorted(info["user"] for info in presence.values()) == ["u1", "u1", "u2"]
    assert set(presence) == {info["client"] for info in presence.values()}
    assert first.ask("presence_stats", {"channel": "r"}) == {"num_clients": 3, "num_users": 2}


@pytest.mark.parametrize(
    ("presence", "roster", "counts"),
    [(Presence.OFF, 108, 108), (Presence.COUNTS, 108, None), (Presence.ROSTER, None, None)],
)
def test_a_kind_says_what_can_be_known_of_presence(presence: Presence, roster: int | None, counts: int | None) -> None:
    client = member(world(RoomKind(presence=presence)))
    assert client.code("presence", {"channel": "r"}) == roster
    assert client.code("presence_stats", {"channel": "r"}) == counts


@pytest.mark.parametrize(
    ("mode", "asks", "told"),
    [
        (JoinLeave.OFF, True, False),
        (JoinLeave.ON, False, False),
        (JoinLeave.ON, True, True),
        (JoinLeave.PUSH, False, True),
    ],
)
def test_a_kind_says_who_is_told_of_joins_and_leaves(mode: JoinLeave, asks: bool, told: bool) -> None:
    node = world(RoomKind(join_leave=mode))
    client = node.connected("u1")
    client.tell("subscribe", {"channel": "r", "join_leave": asks})
    client.transport.take()
    other = node.connected("u2")
    token = node.token("u2", channel="r", info={"seat": 4})
    other.tell("subscribe", {"channel": "r", "token": token})
    other.session.closed()
    info = {"user": "u2", "client": other.session.client, "chan_info": {"seat": 4}}
    assert client.pushes("join") == ([{"channel": "r", "join": {"info": info}}] if told else [])
    assert client.pushes("leave") == ([{"channel": "r", "leave": {"info": info}}] if told else [])


def test_the_answer_to_subscribe_comes_before_anything_of_the_room() -> None:
    client = world(RoomKind(join_leave=JoinLeave.PUSH)).connected("u1")
    client.transport.take()
    client.tell("subscribe", {"channel": "r"})
    assert [next(iter(sent)) for sent in client.transport.sent] == ["id", "push"]


def member(node: World, user: str = "u1") -> Client:
    client = node.connected(user)
    assert "error" not in client.ask("subscribe", {"channel": "r"})
    return client


def answer_pings(node: World, client: Client, seconds: int) -> None:
    for _ in range(seconds):
        node.run(1.0)
        if {} in client.transport.take():
            client.send({})

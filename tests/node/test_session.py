"""A client's life: connect, order, refusals, time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from edge_config.kinds import RoomKind, Who
from edge_config.limits import Keepalive, Limits, Rates
from edge_config.schema import Auth, Config
from node.codes import DisconnectCode, UnsubscribeCode
from node.protocol import BODIES
from router.events import Away
from router.ids import RoomId
from tests.harness.client import WALL, Client, World, message


def rates(**given: float) -> Rates:
    """No rates but those that are given."""
    none = {"connection_commands": 0.0, "connection_publishes": 0.0, "connection_reads": 0.0, "connection_joins": 0.0}
    return Rates(**{**none, **given}, burst_seconds=1.0)


def world(**sections: Any) -> World:  # noqa: ANN401 - sections of Config
    return World(Config(**{"auth": Auth(insecure=True), "rates": rates(), **sections}))


def in_room(node: World, channel: str = "r0", user: str = "u1") -> Client:
    client = node.connected(user)
    assert "error" not in client.ask("subscribe", {"channel": channel})
    return client


# -- connect -----------------------------------------------------------------------------------------------------


def test_a_guest_connects_subscribes_and_publishes() -> None:
    client = world().client()
    connected = client.ask("connect", {"name": "js"})
    assert connected["client"] == client.session.client
    assert connected["version"] == "0.1.0"
    assert connected["node"] == "n1"
    assert connected["ping"] == 25
    assert connected["pong"] is True
    assert connected["session"] not in {"", connected["client"]}
    assert connected["data"]["guest"].startswith("guest:")
    subscribed = client.ask("subscribe", {"channel": "r0", "flag": 1})
    assert subscribed == {"recoverable": True, "positioned": True, "epoch": "birth.1"}
    assert client.ask("publish", {"channel": "r0", "data": message(1)}) == {}
    (push,) = client.pushes("pub")
    assert push["channel"] == "r0"
    assert push["pub"]["offset"] == push["pub"]["data"]["sequence"] == 1
    assert push["pub"]["data"]["content"] == "Hello"
    assert push["pub"]["data"]["userId"] == client.session.user


def test_a_guest_that_shows_its_proof_is_the_same_guest() -> None:
    node = world()
    first = node.client().ask("connect")["data"]
    again = node.client()
    assert again.ask("connect", {"data": first})["data"] == first


@pytest.mark.parametrize("data", [None, 5, "x", {"guest": 5}, {"guest": ""}, {"guest": "guest:1.x"}, [[]]])
def test_connect_data_may_be_anything(data: object) -> None:
    client = world().client()
    assert client.ask("connect", {"data": data})["data"]["guest"]


def test_a_user_connects_with_a_token_and_learns_when_it_ends() -> None:
    node = world()
    client = node.client()
    answer = client.ask("connect", {"token": node.token("u1", ttl=60)})
    assert (answer["expires"], answer["ttl"]) == (True, 60)
    assert answer["data"] == {"user": "u1"}
    assert client.session.user == "u1"


@pytest.mark.parametrize(
    ("auth", "token", "code"),
    [
        (Auth(insecure=False), "", 3500),
        (Auth(insecure=True), "nonsense", 3500),
    ],
)
def test_who_may_not_connect_is_told_so_finally(auth: Auth, token: str, code: int) -> None:
    client = world(auth=auth).client()
    client.tell("connect", {"token": token})
    assert client.end() == code


def test_an_expired_token_is_answered_so_that_the_client_fetches_another() -> None:
    node = world()
    client = node.client()
    expired = node.token("u1", ttl=10)
    node.run(1)
    node.now = 20.0
    error = client.ask("connect", {"token": expired})["error"]
    assert error["code"] == 109
    assert error["temporary"] is True


def test_what_follows_a_refused_connect_is_ignored_until_the_client_has_left() -> None:
    node = world()
    client = node.client()
    node.now = 9.0
    client.send(
        {"id": 1, "connect": {"token": node.token("u1", exp=WALL - 100)}}, {"id": 2, "subscribe": {"channel": "a"}}
    )
    client.send({"id": 3, "ping": {}})
    assert [reply["id"] for reply in client.transport.sent] == [1]
    node.run(4.9)
    assert client.end() is None
    node.run(0.2)
    assert client.end() == 3000
    assert node.gateway.users == []


def test_a_user_with_too_many_connections_is_refused() -> None:
    node = world()
    node.gateway.most_per_user = 1
    node.connected("u1")
    assert node.connected("u1").end() == 3504
    assert node.connected("u2").end() is None
    assert len(node.gateway.users) == 2


@pytest.mark.parametrize("name", [name for name in BODIES if name != "connect"])
def test_the_first_command_must_be_connect(name: str) -> None:
    client = world().client()
    client.tell(name)
    assert client.transport.end == (3501, f"bad request: {name} before connect")


def test_connect_comes_once() -> None:
    client = world().connected()
    client.tell("connect")
    assert client.end() == 3501


def test_a_client_that_does_not_connect_is_stale() -> None:
    node = world()
    client = node.client()
    node.run(9.9)
    assert client.end() is None
    node.run(0.2)
    assert client.end() == 3502


def test_a_connect_under_way_is_not_stale() -> None:
    node = world()
    client = node.client()
    node.run(9.0)
    node.gateway.held.add("open")
    command_id = client.tell("connect", {"token": node.token("u1", channels=["a"])})
    node.run(2.0)
    node.gateway.release()
    assert client.answer(command_id)["subs"]["a"]["epoch"] == "birth.1"
    assert client.end() is None


# -- server-side subscriptions -----------------------------------------------------------------------------------


def test_a_token_subscribes_its_bearer_and_the_answer_tells_of_it() -> None:
    node = world(auth=Auth(personal_channel=True))
    client = node.client()
    answer = client.ask("connect", {"token": node.token("u1", channels=["a"], subs={"b": {"data": {"x": 1}}})})
    subs = answer["subs"]
    assert set(subs) == {"a", "b", "#u1"}
    assert subs["b"]["data"] == {"x": 1}
    assert all(sub["recoverable"] and sub["epoch"] == "birth.1" for sub in subs.values())
    assert client.ask("publish", {"channel": "a", "data": message(1)}) == {}
    assert len(client.pushes("pub")) == 1


def test_all_rooms_of_a_connect_are_entered_without_a_gap_though_some_open_late() -> None:
    node = world()
    gateway = node.gateway
    kind = node.config.kinds["default"]
    subs: dict[str, Any] = {}
    for channel in "ab":
        room = gateway.room(_room(channel), kind)
        for n in range(3):
            gateway.publish(room, b'{"id":"%d"}' % n)
        subs[channel] = {"recover": True, "offset": 1, "epoch": "birth.1"}
    gateway.held = {"open", "history"}
    client = node.client()
    command_id = client.tell("connect", {"token": node.token("u1", channels=["a", "b"]), "subs": subs})
    while gateway.waiting:
        gateway.answer_one()
        gateway.publish(gateway.rooms[_room("a")], b'{"id":"late"}')
        if gateway.rooms[_room("a")].offset > 8:
            gateway.held.clear()
    answer = client.answer(command_id)["subs"]
    for channel in "ab":
        assert answer[channel]["recovered"] is True
        pushed = [push["pub"] for push in client.pushes("pub") if push["channel"] == channel]
        offsets = [publication["offset"] for publication in (*answer[channel]["publications"], *pushed)]
        assert offsets == list(range(2, gateway.rooms[_room(channel)].offset + 1))


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"channels": ["nokind:a"]}, 102), ({"channels": [""]}, 107), ({"channels": ["a" * 300]}, 107)],
)
def test_a_token_that_names_an_impossible_channel_can_not_connect(claims: dict[str, Any], code: int) -> None:
    node = world()
    client = node.client()
    assert client.code("connect", {"token": node.token("u1", **claims)}) == code
    assert node.gateway.users == []


def test_a_token_that_names_too_many_channels_can_not_connect() -> None:
    node = world(limits=Limits(subscriptions=2))
    assert node.connected("u1", channels=["a", "b", "c"]).end() == 3505


def test_a_room_that_is_away_makes_the_client_connect_again_later() -> None:
    node = world()
    node.gateway.away = Away.STORAGE_FAULT
    client = node.client()
    error = client.ask("connect", {"token": node.token("u1", channels=["a"])})["error"]
    assert error == {"code": 100, "message": "internal server error: the log has halted; try again", "temporary": True}


# -- order -------------------------------------------------------------------------------------------------------


def test_commands_in_the_frame_of_connect_wait_for_it() -> None:
    node = world()
    node.gateway.held.add("open")
    client = node.client()
    client.send(
        {"id": 1, "connect": {"token": node.token("u1", channels=["a"])}},
        {"id": 2, "subscribe": {"channel": "r0"}},
        {"id": 3, "publish": {"channel": "r0", "data": message(1)}},
    )
    assert client.transport.sent == []
    node.gateway.release()
    assert [reply["id"] for reply in client.transport.sent if "id" in reply] == [1, 2, 3]


def test_a_publication_does_not_wait_for_the_one_before_it() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("submit")
    for n in range(3):
        client.tell("publish", {"channel": "r0", "data": message(n)})
    client.tell("rpc", {"method": "send", "data": {"channel": "r0", **message(3)}})
    assert len(node.gateway.waiting) == 4
    node.gateway.release()
    assert [push["pub"]["data"]["id"] for push in client.pushes("pub")] == ["m0", "m1", "m2", "m3"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("history", {"channel": "r0", "limit": 9}),
        ("subscribe", {"channel": "r1"}),
        ("unsubscribe", {"channel": "r0"}),
        ("presence_stats", {"channel": "r0"}),
        ("ping", {}),
        ("rpc", {"method": "other"}),
    ],
)
def test_any_other_command_waits_until_all_before_it_are_answered(name: str, body: dict[str, Any]) -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("submit")
    first = client.tell("publish", {"channel": "r0", "data": message(1)})
    second = client.tell(name, body)
    third = client.tell("publish", {"channel": "r0", "data": message(2)})
    assert client.answer(first) is client.answer(second) is None
    assert len(node.gateway.waiting) == 1
    node.gateway.release()
    replies = [reply["id"] for reply in client.transport.sent if "id" in reply]
    assert replies[-3:] == [first, second, third]


def test_a_command_behind_a_publication_that_waited_itself_waits_for_its_outcome() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held = {"open", "submit"}
    opening = client.tell("subscribe", {"channel": "r1"})
    publication = client.tell("publish", {"channel": "r0", "data": message(1)})
    ping = client.tell("ping")
    node.gateway.release("open")
    assert client.answer(opening)["epoch"]
    assert client.answer(ping) is None
    node.gateway.release("submit")
    assert client.answer(publication) == client.answer(ping) == {}


def test_publications_into_a_room_that_opens_late_keep_their_order() -> None:
    node = world(kinds={"default": RoomKind(publish=Who.ANYONE)})
    client = node.connected("u1")
    node.gateway.held.add("open")
    for n in range(5):
        client.tell("publish", {"channel": "far", "data": message(n)})
    node.gateway.release()
    assert [e.cmid for e in node.gateway.rooms[_room("far")].entries] == [f"m{n}" for n in range(5)]


def test_a_client_that_sends_faster_than_it_is_served_is_not_read_for_a_while() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("open")
    client.tell("subscribe", {"channel": "r1"})
    for _ in range(255):
        client.tell("ping")
    assert client.is_read()
    client.tell("ping")
    assert not client.is_read()
    node.gateway.release()
    assert client.is_read()
    assert node.gateway.counters.pauses == 1


def test_a_client_with_too_many_publications_under_way_is_not_read_for_a_while() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("submit")
    for n in range(1023):
        client.tell("publish", {"channel": "r0", "data": message(n)})
    assert client.is_read()
    client.tell("publish", {"channel": "r0", "data": message(1023)})
    assert not client.is_read()
    for _ in range(511):
        node.gateway.answer_one()
    assert not client.is_read()
    node.gateway.answer_one()
    assert client.is_read()


def test_a_deep_queue_is_served_without_deep_recursion() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("open")
    client.tell("subscribe", {"channel": "r1"})
    client.send(*({"id": 10_000 + n, "history": {"channel": "r0", "limit": 1}} for n in range(999)))
    node.gateway.release()
    assert client.answer(10_998) is not None


# -- time --------------------------------------------------------------------------------------------------------


def test_a_client_that_answers_pings_stays() -> None:
    node = world()
    client = node.connected()
    for _ in range(400):
        node.run(1.0)
        if {} in client.transport.take():
            client.send({})
    assert client.end() is None


def test_pings_come_every_25_seconds_and_the_first_not_later() -> None:
    node = world()
    client = node.connected()
    client.transport.take()
    times = []
    for _ in range(1000):
        node.run(0.1)
        if {} in client.transport.take():
            times.append(node.now)
            client.send({})
    assert 12.4 < times[0] <= 25.1
    assert [round(b - a, 1) for a, b in pairwise(times)] == [25.0] * (len(times) - 1)


def test_a_client_that_does_not_answer_a_ping_is_closed() -> None:
    node = world(keepalive=Keepalive(ping_seconds=10, pong_seconds=3.0))
    client = node.connected()
    node.run(13.1)
    assert client.end() == 3012


def test_a_pong_that_nobody_asked_for_is_harmless() -> None:
    client = world().connected()
    client.send({}, {})
    assert client.end() is None


@pytest.mark.parametrize("held", ["open", "history"])
def test_a_read_without_an_answer_is_answered_in_time_as_temporary(held: str) -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add(held)
    command_id = client.tell("history", {"channel": "r0", "limit": 1})
    behind = client.tell("ping")
    node.run(3.9)
    assert client.answer(command_id) is None
    node.run(0.2)
    assert client.answer(command_id)["error"]["code"] == 100
    assert client.answer(command_id)["error"]["temporary"] is True
    assert client.answer(behind)["error"]["code"] == 100
    node.gateway.release()
    assert sum(reply.get("id") == command_id for reply in client.transport.sent) == 1


def test_a_publication_without_an_outcome_is_answered_in_time_as_temporary() -> None:
    node = world()
    client = in_room(node)
    node.gateway.held.add("submit")
    command_id = client.tell("publish", {"channel": "r0", "data": message(1)})
    node.run(4.1)
    assert client.answer(command_id)["error"]["code"] == 100
    node.gateway.release()
    assert sum(reply.get("id") == command_id for reply in client.transport.sent) == 1
    assert client.ask("publish", {"channel": "r0", "data": message(1)}) == {}
    assert len(client.pushes("pub")) == 1
    assert node.gateway.counters.timeouts == 1


def test_a_subscription_that_came_too_late_does_not_happen() -> None:
    node = world()
    client = node.connected("u1")
    node.gateway.held.add("open")
    assert client.ask("subscribe", {"channel": "r0"}) is None
    node.run(4.1)
    node.gateway.release()
    assert client.session.subscriptions == {}
    assert node.gateway.rooms[_room("r0")].joined == []
    assert client.ask("subscribe", {"channel": "r0"})["epoch"]


def test_a_connection_ends_when_its_token_has_expired_and_nobody_refreshed_it() -> None:
    node = world()
    client = node.client()
    client.tell("connect", {"token": node.token("u1", ttl=10)})
    _answer_pings(node, client, 34)
    assert client.end() is None
    _answer_pings(node, client, 2)
    assert client.end() == 3005


def test_a_refreshed_connection_goes_on() -> None:
    node = world()
    client = node.client()
    client.tell("connect", {"token": node.token("u1", ttl=10)})
    assert client.ask("refresh", {"token": node.token("u1", ttl=100)}) == {"expires": True, "ttl": 100}
    _answer_pings(node, client, 100)
    assert client.ask("refresh", {"token": node.token("u1")}) == {}
    _answer_pings(node, client, 300)
    assert client.end() is None


@pytest.mark.parametrize(("user", "claims", "end"), [("u2", {}, 3500), ("u1", {"channel": "a"}, 3500)])
def test_a_refresh_with_anothers_token_ends_the_connection(user: str, claims: dict[str, Any], end: int) -> None:
    node = world()
    client = node.connected("u1")
    client.tell("refresh", {"token": node.token(user, **claims)})
    assert client.end() == end


def test_a_refresh_with_an_expired_token_may_be_tried_again() -> None:
    node = world()
    client = node.connected("u1")
    error = client.ask("refresh", {"token": node.token("u1", exp=WALL - 60)})["error"]
    assert (error["code"], error["temporary"]) == (109, True)
    assert client.end() is None


def test_a_refresh_without_a_token_is_a_bad_request() -> None:
    client = world().connected("u1")
    client.tell("refresh")
    assert client.end() == 3501


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [b"", b"x", b"[]", b'{"id":1}', b'{"id":1,"foo":{}}', b'{"publish":{}}', b'{"id":1,"ping":{},"rpc":{}}', b"\xff"],
)
def test_what_is_not_the_protocol_ends_the_connection(frame: bytes) -> None:
    client = world().connected()
    client.send_bytes(frame)
    assert client.end() == 3501
    assert client.transport.end is not None
    assert client.transport.end[1].startswith("bad request: ")


def test_an_unknown_rpc_is_not_available() -> None:
    assert world().connected().code("rpc", {"method": "dance", "data": {}}) == 108


def test_ping_is_answered_and_send_is_counted() -> None:
    node = world()
    client = node.connected()
    client.transport.take()
    assert client.ask("ping") == {}
    client.send({"send": {"data": {"x": 1}}})
    assert client.transport.sent == [{"id": 2, "ping": {}}]
    assert node.gateway.counters.commands["send"] == 1


def test_too_many_commands_in_a_second_are_refused_with_the_time_to_wait() -> None:
    node = world(
        rates=Rates(connection_commands=2.0, connection_publishes=0.0, connection_reads=0.0, burst_seconds=1.0)
    )
    client = node.connected()
    assert client.ask("ping") == {}
    error = client.ask("ping")["error"]
    assert error == {
        "code": 111,
        "message": "too many requests: wait 0.5 s (connection_commands)",
        "temporary": True,
        "retryAfter": 0.5,
    }
    node.run(0.5)
    assert client.ask("ping") == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"connection_publishes": 1.0}, "publish"),
        ({"connection_reads": 1.0}, "history"),
        ({"connection_reads": 1.0}, "presence_stats"),
    ],
)
def test_publishing_and_reading_have_rates_of_their_own(given: dict[str, float], name: str) -> None:
    node = world(rates=rates(**given))
    client = in_room(node)
    body = {"channel": "r0", "data": message(1)} if name == "publish" else {"channel": "r0"}
    assert client.code(name, body) is None
    assert client.code(name, body) == 111
    assert client.ask("ping") == {}


def test_joining_has_a_rate_of_its_own() -> None:
    node = world(rates=rates(connection_joins=1.0))
    client = node.connected()
    assert client.code("subscribe", {"channel": "r0"}) is None
    error = client.ask("subscribe", {"channel": "r1"})["error"]
    assert error == {
        "code": 111,
        "message": "too many requests: wait 1.0 s (connection_joins)",
        "temporary": True,
        "retryAfter": 1.0,
    }
    assert node.gateway.counters.limited == {"connection_joins": 1}
    node.run(1.0)
    assert client.code("subscribe", {"channel": "r1"}) is None


def test_a_client_that_does_not_listen_is_closed() -> None:
    node = world(
        rates=Rates(connection_commands=1.0, connection_publishes=0.0, connection_reads=0.0, burst_seconds=1.0)
    )
    client = node.connected()
    for _ in range(999):
        client.tell("ping")
    assert client.end() is None
    client.tell("ping")
    assert client.end() == 3013


def test_too_many_commands_in_a_message_end_the_connection() -> None:
    client = world().connected()
    client.send(*({"id": n, "ping": {}} for n in range(1, 1002)))
    assert client.end() == 3501


# -- the end -----------------------------------------------------------------------------------------------------


def test_a_connection_that_is_gone_leaves_nothing_behind() -> None:
    node = world()
    client = in_room(node)
    other = in_room(node, user="u2")
    node.gateway.held.add("submit")
    client.tell("publish", {"channel": "r0", "data": message(1)})
    client.session.closed()
    node.gateway.release()
    assert node.gateway.users == [other.session]
    assert [member.client for member in node.gateway.rooms[_room("r0")].joined] == [other.session.client]
    assert len(other.pushes("pub")) == 1
    client.session.closed()


def test_a_connection_that_is_gone_while_it_enters_a_room_does_not_enter() -> None:
    node = world()
    client = node.connected("u1")
    node.gateway.held.add("open")
    client.tell("subscribe", {"channel": "r0"})
    client.session.closed()
    node.gateway.release()
    assert node.gateway.rooms[_room("r0")].joined == []


def test_nothing_is_done_for_a_closed_client() -> None:
    client = world().connected()
    client.session.disconnect(DisconnectCode.FORCE_RECONNECT)
    before = list(client.transport.sent)
    client.tell("ping")
    client.session.push_message(b"{}")
    client.session.disconnect(DisconnectCode.NORMAL)
    assert client.transport.sent == before
    assert client.transport.end == (3011, "force reconnect")


def test_the_server_can_end_a_subscription_and_push_a_message() -> None:
    node = world()
    client = in_room(node)
    client.session.push_message(b'{"type":"notice"}')
    client.session.unsubscribe("r0", UnsubscribeCode.STATE_INVALIDATED)
    client.session.unsubscribe("r0", UnsubscribeCode.STATE_INVALIDATED)
    assert client.pushes("message") == [{"message": {"data": {"type": "notice"}}}]
    assert client.pushes("unsubscribe") == [
        {"channel": "r0", "unsubscribe": {"code": 2502, "reason": "state invalidated"}}
    ]
    assert node.gateway.rooms[_room("r0")].joined == []


def test_what_happened_is_counted() -> None:
    node = world()
    client = in_room(node)
    client.tell("rpc", {"method": "x"})
    client.session.disconnect(DisconnectCode.SHUTDOWN)
    counters = node.gateway.counters
    assert counters.commands == {"connect": 1, "subscribe": 1, "rpc": 1}
    assert counters.errors == {108: 1}
    assert counters.closes == {3001: 1}


def _answer_pings(node: World, client: Client, seconds: int) -> None:
    for _ in range(seconds):
        node.run(1.0)
        if {} in client.transport.take():
            client.send({})


def _room(channel: str) -> RoomId:
    return RoomId("default", channel)

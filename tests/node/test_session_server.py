"""What the server does to a client's rooms and time without being asked by it."""

from __future__ import annotations

from edge_config.kinds import RoomKind, Schema
from edge_config.limits import Limits
from edge_config.schema import Auth, Config
from node.auth import NO_GRANT, Grant
from node.codes import CommandError, ErrorCode
from node.joining import Joining
from node.permissions import Origin
from node.protocol import SubscribeRequest
from router.events import Away
from router.ids import RoomId
from tests.harness.client import Client, World

KIND = RoomKind(schema=Schema.ANY)
ROOM = RoomId("default", "a")


def world(**limits: int) -> World:
    return World(Config(auth=Auth(insecure=True), kinds={"default": KIND}, limits=Limits(**limits)))


def subscribe(client: Client, grant: Grant = NO_GRANT) -> list[CommandError | None]:
    """Have the server subscribe a client; gives what it answers, once it does."""
    answers: list[CommandError | None] = []
    joining = Joining(client.world.gateway, client.session.user, ROOM, KIND, SubscribeRequest(), Origin.SERVER, grant)
    client.session.subscribe(joining, client.world.now, answers.append)
    return answers


def stays(client: Client, seconds: int) -> bool:
    """Let time pass for a client that answers its pings; whether it is still connected."""
    for _ in range(seconds // 5):
        client.world.run(5)
        client.session.receive(b"{}", client.world.now)
    return client.transport.end is None


def test_a_client_that_subscribes_meanwhile_is_there_once() -> None:
    node = world()
    client = node.connected("u1")
    node.gateway.held = {"open"}
    client.session.receive(b'{"id":7,"subscribe":{"channel":"a"}}', node.now)
    answers = subscribe(client)
    node.gateway.waiting.reverse()  # the server's attempt is through first
    client.transport.take()
    node.gateway.release()
    pushed, refused = client.transport.take()
    assert pushed["push"]["subscribe"]["epoch"] == "birth.1"
    assert (refused["id"], refused["error"]["code"]) == (7, ErrorCode.ALREADY_SUBSCRIBED)
    assert answers == [None]
    assert node.gateway.rooms[ROOM].members == 1


def test_a_server_that_comes_second_changes_nothing() -> None:
    node = world()
    client = node.connected("u1")
    node.gateway.held = {"open"}
    client.session.receive(b'{"id":7,"subscribe":{"channel":"a"}}', node.now)
    answers = subscribe(client)
    client.transport.take()
    node.gateway.release()
    (reply,) = client.transport.take()
    assert "subscribe" in reply
    assert answers == [None]
    assert node.gateway.rooms[ROOM].members == 1


def test_a_client_that_has_left_is_not_subscribed() -> None:
    node = world()
    client = node.connected("u1")
    node.gateway.held = {"open"}
    answers = subscribe(client)
    client.session.closed()
    node.gateway.release()
    assert answers == [None]
    assert node.gateway.rooms[ROOM].members == 0
    assert subscribe(client) == [None]


def test_the_limit_of_subscriptions_and_what_is_away_are_told() -> None:
    node = world(subscriptions=1)
    client = node.connected("u1")
    client.ask("subscribe", {"channel": "b"})
    (error,) = subscribe(client)
    assert error is not None
    assert error.code is ErrorCode.LIMIT_EXCEEDED
    client.ask("unsubscribe", {"channel": "b"})
    node.gateway.away = Away.OVERLOADED
    (error,) = subscribe(client)
    assert error is not None
    assert error.code is ErrorCode.INTERNAL


def test_a_subscription_by_the_server_ends_with_its_time() -> None:
    node = world()
    client = node.connected("u1")
    node.run(10)
    assert subscribe(client, Grant(ttl=60)) == [None]
    assert stays(client, 60)
    assert not stays(client, 60)
    assert client.transport.end is not None
    assert client.transport.end[0] == 3006


def test_a_connection_that_is_extended_ends_then() -> None:
    node = world()
    client = node.connected("u1", ttl=10)
    client.session.extend(100, node.now)
    assert client.transport.take()[-1] == {"push": {"refresh": {"expires": True, "ttl": 100}}}
    assert stays(client, 100)
    assert not stays(client, 60)
    assert client.transport.end is not None
    assert client.transport.end[0] == 3005


def test_a_close_has_any_code_of_the_protocol_and_a_text() -> None:
    for code, reason, told in ((3503, "", "force disconnect"), (3000, "bye", "bye")):
        client = world().connected("u1")
        client.session.disconnect_as(code, reason)
        assert client.transport.end == (code, told)

"""A client's life: connect, publish, order, time."""

from __future__ import annotations

from tests.harness.client import World, message


def test_a_guest_connects_subscribes_and_publishes() -> None:
    world = World()
    client = world.client()
    connected = client.ask("connect", {"name": "js"})
    assert connected["client"] == client.session.client
    assert connected["ping"] == 25
    assert connected["pong"] is True
    assert connected["data"]["guest"].startswith("guest:")
    subscribed = client.ask("subscribe", {"channel": "r0", "flag": 1})
    assert subscribed == {"recoverable": True, "positioned": True, "epoch": "birth.1"}
    assert client.ask("publish", {"channel": "r0", "data": message(1)}) == {}
    (push,) = client.pushes("pub")
    assert push["channel"] == "r0"
    assert push["pub"]["offset"] == push["pub"]["data"]["sequence"] == 1
    assert push["pub"]["data"]["content"] == "Hello"

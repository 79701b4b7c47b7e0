"""Clients that run into something, and what they are told."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from edge_config.kinds import RoomKind
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from node.ratelimit import Throttle
from tests.harness.client import Client, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.origins import Arrival


OFF: Final = {field.name: 0.0 for field in fields(Rates) if field.name != "burst_seconds"}
Told = tuple[int, str]
CHANNEL: Final = {"channel": "r"}


def world(*, limits: Limits | None = None, kind: Mapping[str, Any] | None = None, **rates: float) -> World:
    """A node without rates but those that are given."""
    config = Config(
        auth=Auth(insecure=True), limits=limits or Limits(), rates=Rates(**{**OFF, "burst_seconds": 1.0, **rates}),
        kinds={"default": RoomKind(**(kind or {}))},
    )  # fmt: skip
    node = World(config)
    node.gateway.throttle = Throttle(config.rates)
    return node


def member(node: World, user: str = "u1", **claims: object) -> Client:
    """A client in the room."""
    client = node.connected(user, **claims)
    assert client.code("subscribe", CHANNEL) is None
    return client


def refused(client: Client, name: str, body: dict[str, Any]) -> Told:
    """The error that a command gets."""
    error = client.ask(name, body)["error"]
    return error["code"], error["message"]


def ended(client: Client) -> Told:
    """How the connection was closed."""
    assert client.transport.end is not None
    return client.transport.end


def twice(node: World, name: str, bodies: list[dict[str, Any]]) -> Told:
    """What the second of two commands is told."""
    client = node.connected("u1")
    assert client.code(name, bodies[0]) is None
    return refused(client, name, bodies[-1])


def run(node: World, client: Client, seconds: float) -> Told:
    """How the connection was closed after so much silence."""
    node.run(seconds)
    return ended(client)


def connecting(node: World, body: dict[str, Any], came: Arrival | None = None) -> Told:
    """How a connect is refused."""
    client = node.client()
    if came is not None:
        client.session.arrival = came
    client.ask("connect", body)
    return ended(client)


def over_the_rate() -> Told:
    """A second read within a second."""
    client = member(world(connection_reads=1.0))
    assert client.code("history", {**CHANNEL, "limit": 1}) is None
    return refused(client, "history", {**CHANNEL, "limit": 1})


def silent() -> Told:
    """A client that answers no ping."""
    node = world()
    return run(node, node.connected("u1"), 300)


def second_connection() -> Told:
    """One more than a user may have."""
    node = world()
    node.gateway.most_per_user = 1
    node.connected("u1")
    return connecting(node, {"token": node.token("u1")})


def stale() -> Told:
    """A client that does not connect."""
    node = world()
    return run(node, node.client(), 60)

"""Every code that a client is given: that it is told what is wrong, and what to do about it.

Codes are taken from where the node uses them: who uses another, adds its case.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from websockets.exceptions import ConnectionClosed

from edge_config.kinds import Recovery
from edge_config.limits import Limits
from edge_config.schema import Config
from node import codes
from node.auth import Grant
from node.codes import CommandError, DisconnectCode, ErrorCode, UnsubscribeCode
from node.framing import WEB_SOCKET_TEXT, Wire
from node.gateway import Gateway
from node.joining import Joining
from node.metrics import Metrics
from node.origins import Arrival
from node.permissions import Origin
from node.protocol import REJECT_UNRECOVERED, JsonCodec
from node.protocol import SubscribeRequest as Asked
from node.publishing import Submitted
from node.session import MOST_REFUSED
from node.vitals import Condition
from router.events import Away
from router.ids import RoomId
from tests.harness.api import KEY, post
from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.harness.client import Client, World


from tests.harness.refusals import (
    CHANNEL,
    Told,
    connecting,
    ended,
    member,
    over_the_rate,
    refused,
    run,
    second_connection,
    silent,
    stale,
    twice,
    world,
)

SOURCES: Final = Path(codes.__file__).parent


def unsubscribed(client: Client) -> Told:
    (push,) = client.pushes("unsubscribe")
    return push["unsubscribe"]["code"], push["unsubscribe"]["reason"]


def rpc(client: Client, method: str, **data: object) -> Told:
    return refused(client, "rpc", {"method": method, "data": {**CHANNEL, "id": "i", **data}})


# -- errors ------------------------------------------------------------------------------------------------------


def halted() -> Told:
    node = world()
    client = member(node)
    node.gateway.away = Away.STORAGE_FULL
    return refused(client, "history", {**CHANNEL, "limit": 1})


def unrecoverable() -> Told:
    client = world(kind={"recovery": Recovery.FORCED}).connected("u1")
    body = {**CHANNEL, "recover": True, "epoch": "other.1", "offset": 7, "flag": REJECT_UNRECOVERED}
    return refused(client, "subscribe", body)


def expired_token() -> Told:
    node = world()
    shown = node.token("u1", ttl=1)
    node.run(60)
    return refused(node.client(), "connect", {"token": shown})


def subscribed_already() -> Told:
    return refused(member(world()), "subscribe", CHANNEL)


ERRORS: Final[Mapping[ErrorCode, tuple[Callable[[], Told], str]]] = {
    ErrorCode.INTERNAL: (halted, "the disk is full; try again"),
    ErrorCode.UNKNOWN_CHANNEL: (
        lambda: refused(world().connected("u1"), "subscribe", {"channel": "x:r"}),
        "add [kinds.x]",
    ),
    ErrorCode.PERMISSION_DENIED: (
        lambda: refused(world().connected("u1"), "subscribe", {"channel": "$r"}),
        "needs a subscription token",
    ),
    ErrorCode.ALREADY_SUBSCRIBED: (subscribed_already, "to 'r'"),
    ErrorCode.LIMIT_EXCEEDED: (
        lambda: twice(world(limits=Limits(subscriptions=1)), "subscribe", [CHANNEL, {"channel": "s"}]),
        "unsubscribe from some",
    ),
    ErrorCode.BAD_REQUEST: (lambda: rpc(member(world()), "send", content=""), "content"),
    ErrorCode.NOT_AVAILABLE: (lambda: rpc(member(world()), "fly"), "there is no rpc 'fly'; give one of send,"),
    ErrorCode.TOKEN_EXPIRED: (expired_token, "s ago"),
    ErrorCode.TOO_MANY_REQUESTS: (over_the_rate, "wait 1.0 s (connection_reads)"),
    ErrorCode.UNRECOVERABLE_POSITION: (unrecoverable, "7 of 'other.1' is too far back"),
}
REQUESTS: Final[Mapping[ErrorCode, tuple[str, dict[str, str], str]]] = {
    ErrorCode.UNAUTHORIZED: ("info", {"key": ""}, "send the header X-API-Key"),
    ErrorCode.METHOD_NOT_FOUND: ("fly", {}, "there is no method 'fly'; POST to /api/ with one of publish"),
}
"""Errors that only the server API gives."""


def used(names: str) -> set[str]:
    """Members of an enumeration of codes that the node's files name, but for those of the client for Python."""
    files = [path for path in SOURCES.glob("*.py") if path.name != "codes.py" and not path.name.startswith("client")]
    return {name for path in files for name in re.findall(rf"\b{names}\.([A-Z_]+)\b", path.read_text())}


def test_every_error_that_the_node_uses_has_a_case() -> None:
    assert {code.name for code in (*ERRORS, *REQUESTS)} == used("ErrorCode")


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_says_what_is_wrong(code: ErrorCode) -> None:
    cause, told = ERRORS[code]
    found, text = cause()
    assert found == code
    assert text.startswith(f"{code.text}: ")
    assert told in text


# -- closes ------------------------------------------------------------------------------------------------------


def outlived(node: World, client: Client) -> Client:
    """The client, after a minute in which it answered all pings."""
    for _ in range(12):
        node.run(5)
        client.send({})
    return client


def left_after_a_refused_connect() -> Told:
    node = world()
    shown = node.token("u1", ttl=1)
    node.run(60)
    client = node.client()
    client.ask("connect", {"token": shown})
    return run(node, client, 60)


def faulty() -> Told:
    """The gateway can't tell a session its outcome."""
    gateway = Gateway("n", "1", Config(), Metrics(), Condition(), Wire(JsonCodec(1), WEB_SOCKET_TEXT), None)
    client = world().connected("u1")
    gateway.failed(Submitted(client.session, 1, 0.0), RuntimeError("a bug"))
    return ended(client)


def by_the_server(node: World, grant: Grant) -> Client:
    """A client that the server has subscribed."""
    client = node.connected("u1")
    session, room = client.session, RoomId(client.session.site, "r")
    _, kind = session.options.kinds.find("r")
    joining = Joining(node.gateway, session.user, room, kind, Asked(), Origin.SERVER, grant)
    errors: list[CommandError | None] = []
    session.subscribe(joining, node.now, errors.append)
    assert errors == [None]
    return client


def server_subscription_expired() -> Told:
    node = world()
    return ended(outlived(node, by_the_server(node, Grant(ttl=5))))


def lost_by_the_server() -> Told:
    client = by_the_server(world(), Grant())
    client.session.subscriptions["r"].lose()
    return ended(client)


def expired() -> Told:
    node = world()
    return ended(outlived(node, node.connected("u1", ttl=5)))


def many_channels() -> Told:
    node = world(limits=Limits(subscriptions=1))
    return connecting(node, {"token": node.token("u1", channels=["a", "b"])})


def never_listens() -> Told:
    client = world(connection_commands=1.0).connected("u1")
    for _ in range(MOST_REFUSED + 1):
        client.tell("ping")
    return ended(client)


def malformed() -> Told:
    client = world().connected("u1")
    client.send_bytes(b"{")
    return ended(client)


def foreign() -> Told:
    node = world()
    return connecting(node, {"token": node.token("u1")}, Arrival(origin="https://evil.example", host="chat.example"))


def forced(node: NodeProcess) -> Told:
    with connected(node.url, "forced") as user:
        post(node.internal, "disconnect", {"user": "forced"})
        with pytest.raises(ConnectionClosed) as end:
            user.ask("ping", {})
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


CLOSES: Final[Mapping[DisconnectCode, tuple[Callable[[], Told], str]]] = {
    DisconnectCode.NORMAL: (left_after_a_refused_connect, ""),
    DisconnectCode.SERVER_ERROR: (faulty, ""),
    DisconnectCode.EXPIRED: (expired, ""),
    DisconnectCode.SUBSCRIPTION_EXPIRED: (server_subscription_expired, ""),
    DisconnectCode.INSUFFICIENT_STATE: (lost_by_the_server, ""),
    DisconnectCode.NO_PONG: (silent, ""),
    DisconnectCode.TOO_MANY_REQUESTS: (never_listens, "1000 in a row were over connection_commands"),
    DisconnectCode.INVALID_TOKEN: (lambda: connecting(world(), {"token": "a.b"}), "three parts"),
    DisconnectCode.BAD_REQUEST: (malformed, "truncated"),
    DisconnectCode.STALE: (stale, ""),
    DisconnectCode.CONNECTION_LIMIT: (second_connection, "1 connection"),
    DisconnectCode.CHANNEL_LIMIT: (many_channels, "the token names 2 channels, 1 are the most"),
    DisconnectCode.PERMISSION_DENIED: (foreign, "add it to its origins"),
}
"""With what is said beside the code's text; empty: the code says it all."""
FORCED: Final = {DisconnectCode.FORCE_NO_RECONNECT, DisconnectCode.FORCE_RECONNECT}
"""By the server API, see below; and by a node that is cut off, see tests/node/test_mesh_process.py."""


def test_every_close_that_the_node_uses_has_a_case() -> None:
    assert {code.name for code in {*CLOSES, *FORCED}} == used("DisconnectCode")


@pytest.mark.parametrize("code", CLOSES)
def test_a_close_says_why(code: DisconnectCode) -> None:
    cause, told = CLOSES[code]
    found, text = cause()
    assert found == code
    assert text == code.text if not told else text.startswith(f"{code.text}: ")
    assert told in text


def banned() -> Told:
    node = world()
    user = member(node)
    assert member(node, "mod", role="moderator").ask(
        "rpc", {"method": "ban", "data": {**CHANNEL, "id": "1", "user": "u1"}}
    )
    return unsubscribed(user)


def lost() -> Told:
    client = member(world())
    client.session.subscriptions["r"].lose()
    return unsubscribed(client)


def subscription_expired() -> Told:
    node = world()
    client = node.connected("u1")
    shown = node.token("u1", channel="r", ttl=5)
    assert client.code("subscribe", {**CHANNEL, "token": shown}) is None
    return unsubscribed(outlived(node, client))


UNSUBSCRIBES: Final[Mapping[UnsubscribeCode, tuple[Callable[[], Told], str]]] = {
    UnsubscribeCode.SERVER: (banned, "banned"),
    UnsubscribeCode.INSUFFICIENT_STATE: (lost, UnsubscribeCode.INSUFFICIENT_STATE.text),
    UnsubscribeCode.EXPIRED: (subscription_expired, UnsubscribeCode.EXPIRED.text),
}


def test_every_unsubscribe_that_the_node_uses_has_a_case() -> None:
    assert {code.name for code in UNSUBSCRIBES} == used("UnsubscribeCode")


@pytest.mark.parametrize("code", UNSUBSCRIBES)
def test_an_unsubscribe_says_why(code: UnsubscribeCode) -> None:
    cause, told = UNSUBSCRIBES[code]
    assert cause() == (code, told)


# -- what only the server API does ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("codes"), settings={"API__KEYS": KEY}) as node:
        yield node


@pytest.mark.slow
@pytest.mark.parametrize("code", REQUESTS)
def test_an_error_of_the_server_api_says_what_is_wrong(node: NodeProcess, code: ErrorCode) -> None:
    method, changes, told = REQUESTS[code]
    answer = post(node.internal, method, {}, **changes)  # type: ignore[arg-type]
    assert answer.body["error"]["code"] == code
    assert told in answer.body["error"]["message"]


@pytest.mark.slow
def test_a_close_by_the_server_api_says_so(node: NodeProcess) -> None:
    assert forced(node) == (DisconnectCode.FORCE_NO_RECONNECT, "force disconnect")

"""Every limit: that it holds, and that whoever runs into it is told which it is.

Limits are taken from the fields of the configuration: who adds one, adds its case.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge_config.api import Api
from edge_config.kinds import RoomKind
from edge_config.limits import Keepalive, Limits, Rates
from node.admission import Admission, Refused
from node.protocol import JsonCodec
from router.ids import RoomId
from tests.harness.api import KEY, READING, post
from tests.harness.chat_socket import connected
from tests.harness.client import World, message
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


from tests.harness.refusals import (
    CHANNEL,
    Told,
    ended,
    member,
    over_the_rate,
    refused,
    second_connection,
    silent,
    stale,
    twice,
    world,
)


def says(node: World, **data: object) -> Told:
    return refused(member(node), "publish", {**CHANNEL, "data": {**message(1), **data}})


def limited(**given: int) -> World:
    return world(limits=Limits(**given))


def flooding(node: World, users: int = 1, rooms: int = 1) -> Told:
    """Messages, until one is refused."""
    clients = [node.connected(f"u{number}") for number in range(users)]
    for number in range(10):
        channel = f"r{number % rooms}"
        client = clients[number % users]
        if channel not in client.session.subscriptions:
            client.ask("subscribe", {"channel": channel})
        answer = client.ask("publish", {"channel": channel, "data": message(number)})
        if "error" in answer:
            return answer["error"]["code"], answer["error"]["message"]
    raise AssertionError("none was refused")


def reporting() -> Told:
    node = world(user_reports=1.0)
    author, client = member(node, "u0"), member(node)
    assert author.code("publish", {**CHANNEL, "data": message(1)}) is None
    for number in range(10):
        answer = client.ask("rpc", {"method": "report", "data": {**CHANNEL, "id": str(number), "target": 1}})
        if "error" in answer:
            return answer["error"]["code"], answer["error"]["message"]
    raise AssertionError("none was refused")


def full_room() -> Told:
    node = world(kind={"maximum_members": 1})
    member(node, "u0")
    return refused(node.connected("u1"), "subscribe", CHANNEL)


def many_commands() -> Told:
    client = world().connected("u1")
    client.transport.codec = JsonCodec(2)
    client.send(*[{"id": 9 + number, "ping": {}} for number in range(3)])
    return ended(client)


def many_subscriptions() -> Told:
    return twice(limited(subscriptions=1), "subscribe", [CHANNEL, {"channel": "s"}])


def ruling_over() -> Told:
    """A moderator mutes one more than the room keeps."""
    moderator = member(limited(room_rules=1), "mod", role="moderator")
    rulings = [{"method": "mute", "data": {**CHANNEL, "id": user, "user": user}} for user in ("a", "b")]
    assert moderator.code("rpc", rulings[0]) is None
    return refused(moderator, "rpc", rulings[1])


LIMITS: Final[Mapping[str, tuple[Callable[[], Told], int, str]]] = {
    "connections_per_user": (second_connection, 3504, "1 connection"),
    "connect_seconds": (stale, 3502, "stale"),
    "commands_per_frame": (many_commands, 3501, "3 commands in a message; send 1 to 2"),
    "channel_bytes": (
        lambda: refused(limited(channel_bytes=3).connected("u1"), "subscribe", {"channel": "long"}),
        107,
        "channel is 4 bytes long; give 1 to 3",
    ),
    "body_bytes": (lambda: says(limited(body_bytes=64, content_bytes=63, meta_bytes=0), content="x" * 60), 107, "64"),
    "content_bytes": (lambda: says(limited(content_bytes=4)), 107, "content is 5 bytes long, at most 4"),
    "meta_bytes": (lambda: says(limited(meta_bytes=4), meta={"a": "b"}), 107, "at most 4"),
    "mentions": (lambda: says(limited(mentions=1), mentions=["a", "b"]), 107, "2 mentions, at most 1"),
    "attachments": (lambda: says(limited(attachments=0), attachments=[{}]), 107, "1 attachments, at most 0"),
    "message_id_bytes": (lambda: says(limited(message_id_bytes=36), id="x" * 37), 107, "id is 37 bytes long"),
    "subscriptions": (many_subscriptions, 106, "1 subscriptions are the most"),
    "room_rules": (ruling_over, 106, "has 1 mutes, bans and roles; undo some"),
    "pong_seconds": (silent, 3012, "no pong"),
    "maximum_members": (full_room, 106, "the room has its 1 members"),
    "slow_mode_seconds": (lambda: flooding(world(kind={"slow_mode_seconds": 9})), 111, "wait 9.0 s (slow_mode)"),
    "connection_commands": (
        lambda: twice(world(connection_commands=2.0), "ping", [{}, {}]), 111, "(connection_commands)"
    ),
    "connection_publishes": (lambda: flooding(world(connection_publishes=1.0)), 111, "(connection_publishes)"),
    "connection_reads": (over_the_rate, 111, "(connection_reads)"),
    "connection_joins": (
        lambda: twice(world(connection_joins=1.0), "subscribe", [CHANNEL, {"channel": "s"}]),
        111,
        "(connection_joins)",
    ),
    "user_publishes": (lambda: flooding(world(user_publishes=1.0), rooms=2), 111, "(user_publishes)"),
    "user_reports": (reporting, 111, "(user_reports)"),
    "room_publishes": (lambda: flooding(world(room_publishes=1.0), users=2), 111, "(room_publishes)"),
    "site_publishes": (lambda: flooding(world(site_publishes=1.0), users=2, rooms=2), 111, "(site_publishes)"),
}  # fmt: skip
"""What is told to whom a limit refuses something: the code, and a text that has the limit's value or name."""


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_says_what_it_is(name: str) -> None:
    cause, code, told = LIMITS[name]
    found, text = cause()
    assert found == code
    assert told in text


def missed(node: World) -> int:
    """How many entries a client is given that comes back and missed six."""
    writer = member(node, "u0")
    epoch = node.gateway.room(RoomId(writer.session.site, "r"), RoomKind()).epoch
    for number in range(6):
        assert writer.code("publish", {**CHANNEL, "data": message(number, "x" * 300)}) is None
    answer = node.connected("u1").ask("subscribe", {**CHANNEL, "recover": True, "offset": 0, "epoch": epoch})
    return len(answer.get("publications", ()))


def page(node: World) -> int:
    missed(node)
    return len(member(node, "u2").ask("history", {**CHANNEL, "limit": -1})["publications"])


CUT: Final[Mapping[str, tuple[Callable[[], int], int]]] = {
    "recovery_entries": (lambda: missed(limited(recovery_entries=5)), 0),
    "recovery_bytes": (lambda: missed(limited(recovery_bytes=1024)), 0),
    "history_entries": (lambda: page(limited(history_entries=4)), 4),
}
"""Limits that cut an answer short instead: what is left of six entries; a recovery is whole or none."""


@pytest.mark.parametrize("name", CUT)
def test_a_limit_cuts_an_answer_short(name: str) -> None:
    cause, left = CUT[name]
    assert missed(world()) == page(world()) == 6
    assert cause() == left


# -- limits of a whole node --------------------------------------------------------------------------------------

SMALL: Final = {
    "API__KEYS": f"{KEY}\nread:{READING}",
    "API__BODY_BYTES": 2048,
    "API__BATCH_OPERATIONS": 2,
    "LIMITS__HEADER_BYTES": 512,
    "LIMITS__MESSAGE_BYTES": 20_000,
    "LIMITS__CONNECTIONS_PER_IP": 3,
    "LIMITS__PRESENCE_ROSTER": 1,
    "LIMITS__UPGRADE_SECONDS": 0.5,
    "LIMITS__OUTPUT_BYTES": 600_000,
    "KINDS__DEFAULT__SCHEMA": "any",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("refusals"), settings=SMALL) as node:
        yield node


def talked(node: NodeProcess, sent: bytes) -> str:
    """All that the node says to somebody on its public port, until it closes."""
    address = urlsplit(node.public)
    with socket.create_connection((address.hostname, address.port), timeout=20) as stream:
        stream.sendall(sent)
        return b"".join(iter(lambda: stream.recv(65_536), b"")).decode()


def long_head(node: NodeProcess) -> str:
    return talked(node, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 600 + b"\r\n\r\n")


def long_message(node: NodeProcess) -> str:
    with connected(node.url, "long") as user:
        user.connection.send("x" * 20_001)
        with pytest.raises(ConnectionClosed) as end:
            user.ask("ping", {})
    assert end.value.rcvd is not None
    return f"{end.value.rcvd.code} {end.value.rcvd.reason}"


def many_addresses(node: NodeProcess) -> str:
    with ExitStack() as life:
        for _ in range(3):
            life.enter_context(connect(node.url, proxy=None, close_timeout=1))
        return talked(node, b"")


def roster(node: NodeProcess) -> str:
    with connected(node.url, "a") as first, connected(node.url, "b") as second:
        for user in (first, second):
            user.ask("subscribe", CHANNEL)
        named = len(second.ask("presence", CHANNEL)["presence"]["presence"])
        return f"{named} of {second.ask('presence_stats', CHANNEL)['presence_stats']['num_clients']}"


def asked(method: str, body: object) -> Callable[[NodeProcess], str]:
    def ask(node: NodeProcess) -> str:
        answer = post(node.internal, method, body)
        return f"{answer.status} {answer.body['error']['message']}"

    return ask


WHOLE: Final[Mapping[str, tuple[Callable[[NodeProcess], str], str]]] = {
    "header_bytes": (long_head, "512"),
    "message_bytes": (long_message, "1009"),
    "connections_per_ip": (many_addresses, "429 Too Many Requests"),
    "presence_roster": (roster, "1 of 2"),
    "upgrade_seconds": (lambda node: talked(node, b"GET / HTTP/1.1\r\n") + "closed", "closed"),
    "api.body_bytes": (asked("publish", {**CHANNEL, "data": "x" * 3000}), "413 bad request: a body has at most 2048"),
    "api.batch_operations": (asked("batch", {"commands": [{"info": {}}] * 3}), "at most 2 are taken"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_node_keeps_its_limits(node: NodeProcess, name: str) -> None:
    cause, told = WHOLE[name]
    assert told in cause(node)


def test_a_full_node_says_so() -> None:
    """Limit `connections`."""
    admission = Admission(1, 0)
    assert admission.enter("192.0.2.1") is None
    assert admission.enter("192.0.2.2") is Refused.FULL
    assert b"503" in Refused.FULL.status


ELSEWHERE: Final = {
    "connections": "test_a_full_node_says_so",
    "output_bytes": "test_a_client_that_does_not_read_is_closed_as_slow_at_a_frame_boundary",
    "http_connections": "test_beyond_the_limit_connections_are_turned_away",
    "http_seconds": "test_a_client_that_does_not_read_is_cut_off",
    "burst_seconds": "test_a_full_bucket_admits_its_burst_and_then_its_rate",
    "delta_bytes": "test_what_follows_a_publication_without_offset_or_one_that_is_too_long_is_whole",
    "unread_entries": "test_no_more_is_looked_at_than_the_limits_say",
    "ping_seconds": "test_pings_come_every_25_seconds_and_the_first_not_later",
    "api.waiting_operations": "test_a_full_desk_is_told_at_once",
    "api.site_requests": "test_by_default_the_public_port_has_no_api_and_a_site_has_a_rate",
    "api.keys": "test_without_a_key_nothing_is_answered",
    "api.allow_weak_keys": "test_weak_keys_are_taken_on_loopback_only",
}
"""Limits that others of our tests run into, which have what it takes."""


def test_every_limit_has_a_case() -> None:
    limits = {field.name for section in (Limits, Rates, Keepalive) for field in fields(section)}
    limits |= {"maximum_members", "slow_mode_seconds"} | {f"api.{field.name}" for field in fields(Api)}
    assert set(LIMITS) | set(CUT) | set(WHOLE) | set(ELSEWHERE) == limits
    tests = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name, test in ELSEWHERE.items() if f"def {test}(" not in tests] == []

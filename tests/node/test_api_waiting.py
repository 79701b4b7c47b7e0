"""What a request of the server API is answered when the node is slow, full, or waits for the client."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edge_config.api import Api as Settings
from edge_config.schema import Auth, Config
from node import api_desk
from node.api import BATCH_SECONDS, BODY_SECONDS, Api
from node.api_desk import Desk
from node.api_keys import Caller
from node.api_methods import Methods, World
from node.api_table import METHODS
from node.metrics import Metrics
from node.protocol import JsonCodec
from node.session import COMMAND_SECONDS
from node.session_options import SessionOptions
from tests.harness.api import KEY
from tests.harness.gateway import FakeGateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Idle:
    def turn(self) -> None: ...

    def drain(self) -> None: ...

    def distribute(self) -> None: ...


class OneKey:
    def find(self, key: str) -> Caller | None:
        return Caller("s", frozenset({"admin"})) if key == KEY else None


@dataclass
class Node:
    """An API whose hub turns when the test says so."""

    settings: Settings = field(default_factory=lambda: Settings(site_requests=0))
    gateway: FakeGateway = field(default_factory=FakeGateway)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.desk = Desk(Idle(), self.settings.waiting_operations, lambda: None)
        world = World(lambda: "new", lambda client: client, lambda: 0.0, lambda: 0.0, self.desk.go_through)
        options = SessionOptions(Config(auth=Auth(insecure=True)))
        methods = Methods(self.gateway, options, JsonCodec(), world)  # type: ignore[arg-type]
        self.api = Api(methods, self.desk, OneKey(), self.settings, self.metrics)

    async def ask(self, method: str, *parts: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> tuple[int, Any]:
        """Status and body; without a last part that is empty, the body never ends."""
        waiting = list(parts)
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            if not waiting:
                await trio.sleep_forever()
            part = waiting.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(part)}

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI
            await trio.lowlevel.checkpoint()
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": f"/api/{method}", "query_string": b"", "scheme": "http",
            "server": ("127.0.0.1", 80), "headers": [(b"x-api-key", KEY.encode()), *headers],
        }  # fmt: skip
        await self.api(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])


HISTORY = (b'{"channel": "a"}', b"")


async def test_a_hub_that_does_not_turn_never_begins_what_was_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    node = Node()
    status, body = await node.ask("history", *HISTORY)
    assert (status, body["error"]["code"], trio.current_time()) == (200, 100, COMMAND_SECONDS)
    assert "not begun" in body["error"]["message"]
    node.desk.turn()
    assert node.gateway.rooms == {}
    assert node.metrics.api_requests["s", "history", "100"] == 1


async def test_what_was_begun_and_has_no_answer_has_an_unknown_outcome(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    node = Node()
    node.gateway.held = {"submit"}
    body = b'{"channel": "a", "data": {"content": "Hi"}}'
    async with trio.open_nursery() as nursery:

        async def turn() -> None:
            await trio.sleep(1)
            node.desk.turn()

        nursery.start_soon(turn)
        _, answer = await node.ask("publish", body, b"")
    assert answer["error"]["code"] == 100
    assert "idempotency_key" in answer["error"]["message"]
    node.gateway.release()
    assert [room.offset for room in node.gateway.rooms.values()] == [1]


async def test_a_batch_has_an_end_whatever_its_length(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    node = Node()
    commands = json.dumps({"commands": [{"history": {"channel": "a"}}] * 5}).encode()
    _, body = await node.ask("batch", commands, b"")
    assert trio.current_time() == BATCH_SECONDS
    assert [reply["error"]["code"] for reply in body["replies"]] == [100] * 5


@pytest.mark.parametrize("method", ["batch", "broadcast"])
async def test_a_full_desk_is_told_at_once(method: str, autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    node = Node(Settings(site_requests=0, waiting_operations=2))
    if method == "batch":
        request: dict[str, object] = {"commands": [{"history": {"channel": "a"}}] * 5, "parallel": True}
    else:
        request = {"channels": ["a"] * 5, "data": {"content": "Hi"}}
    _, body = await node.ask(method, json.dumps(request).encode(), b"")
    replies = body["replies"] if method == "batch" else body["result"]["responses"]
    told = [reply["error"]["message"] for reply in replies]
    assert sum("too many requests are waiting" in message for message in told) == 3
    assert trio.current_time() == COMMAND_SECONDS


async def test_a_body_that_does_not_come_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    status, body = await Node().ask("history", b'{"channel"')
    assert (status, body["error"]["code"], trio.current_time()) == (408, 107, BODY_SECONDS)


async def test_a_body_that_does_not_say_its_length_is_bounded_too() -> None:
    node = Node(Settings(site_requests=0, body_bytes=1024))
    status, body = await node.ask("history", *[b" " * 512] * 3)
    assert (status, body["error"]["code"]) == (413, 107)
    assert "1024" in body["error"]["message"]


@pytest.mark.parametrize("length", [b"x", b"-1", b"99999999999999", b"9" * 5000])
async def test_a_length_that_is_none_or_too_much_is_refused_unread(length: bytes) -> None:
    status, _ = await Node().ask("history", headers=[(b"content-length", length)])
    assert status == 413


async def test_a_long_operation_ends_when_nobody_waits_for_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    del autojump_clock
    monkeypatch.setattr(api_desk, "SLICES_SECONDS", 0.0)
    node, steps = Node(), itertools.count()

    def endless(*_: object) -> Iterator[None]:
        for _number in steps:
            yield

    monkeypatch.setitem(METHODS, "users", METHODS["users"]._replace(perform=endless))
    async with trio.open_nursery() as nursery:

        async def turn() -> None:
            await trio.sleep(1)
            for _ in range(3):
                node.desk.turn()

        nursery.start_soon(turn)
        _, answer = await node.ask("users", b"{}", b"")
    assert answer["error"]["code"] == 100
    for _ in range(5):
        node.desk.turn()
    assert next(steps) == 4

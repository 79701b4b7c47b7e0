"""What is answered over plain HTTP; asked over real sockets."""

import gzip
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from starlette.types import ASGIApp

from edge_config.secret import Secret
from node.http import internal_app, public_app
from node.http_server import HttpServer
from node.metrics import Build, Metrics, scraper
from node.page import PageFile
from node.status import LogState, State, readiness
from tests.harness.status import WELL, FakeNode

SCRIPT = b"// chat\n" * 200
PAGE = {"/": PageFile.of("index.html", b"<h1>Chat</h1>"), "/app.js": PageFile.of("app.js", SCRIPT)}
BUILD = Build("1", "3.11", "n1", "eu")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(port: int, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers)

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await trio.to_thread.run_sync(ask, self.port, method, path, named, body)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[Client]:
    """A server of an application, over a loopback port that the system chose."""
    server = HttpServer(app, Metrics(), header_bytes=8192, head_seconds=10)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listen, [listener])
        yield Client(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def public(node: FakeNode | None = None) -> ASGIApp:
    return public_app(node or FakeNode(), Metrics(), PAGE)


def internal(token: Secret | None = None) -> ASGIApp:
    metrics = Metrics()
    return internal_app(FakeNode(), metrics, scraper(metrics, BUILD), token)


async def test_a_node_whose_loop_runs_is_live() -> None:
    async with served(public()) as client:
        answer = await client.get("/health/live")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "live"})


@pytest.mark.parametrize(
    ("state", "log", "reason", "status", "told"),
    [
        (State.READY, LogState.OK, "", 200, "ready"),
        (State.STARTING, LogState.OK, "", 503, "starting"),
        (State.DRAINING, LogState.OK, "", 503, "draining"),
        (State.READY, LogState.FULL, "make room", 503, "log full"),
        (State.READY, LogState.HALTED, "disk gone", 503, "log halted"),
    ],
)
async def test_readiness_says_what_is_missing(state: State, log: LogState, reason: str, status: int, told: str) -> None:
    async with served(public(FakeNode(readiness(state, log, reason)))) as client:
        answer = await client.get("/health/ready")
    body = json.loads(answer.body)
    assert (answer.status, body["status"]) == (status, told)
    failing = [check["reason"] for check in body["checks"].values() if not check["ok"]]
    assert bool(failing) == (status == 503)
    assert not reason or failing == [reason]


async def test_the_page_is_served_with_strict_headers() -> None:
    async with served(public()) as client:
        answer = await client.get("/")
    assert (answer.status, answer.body) == (200, b"<h1>Chat</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "server" not in answer.headers


async def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    async with served(public()) as client:
        first = await client.get("/app.js")
        again = await client.get("/app.js", if_none_match=f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, br", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.0", None),
        ("br", None),
    ],
)
async def test_a_file_is_packed_for_those_who_can_unpack(accepted: str, coding: str | None) -> None:
    async with served(public()) as client:
        answer = await client.get("/app.js", accept_encoding=accepted)
    assert answer.headers.get("content-encoding") == coding
    assert (gzip.decompress(answer.body) if coding else answer.body) == SCRIPT
    assert answer.headers["vary"] == "accept-encoding"


async def test_head_has_the_fields_and_no_body() -> None:
    async with served(public()) as client:
        answer = await client.ask("HEAD", "/app.js", {})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(SCRIPT))


@pytest.mark.parametrize(
    "path", ["/nothing", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd", "/app.js/"]
)
async def test_what_is_not_there_is_404(path: str) -> None:
    async with served(public()) as client:
        plain = await client.get(path)
        structured = await client.get(path, accept="application/json")
    assert (plain.status, plain.body) == (404, b"404 Not Found\n")
    assert json.loads(structured.body) == {"error": "Not Found", "status": 404}


async def test_a_page_that_was_not_built_says_how_to_build_it() -> None:
    async with served(public_app(FakeNode(), Metrics(), {})) as client:
        answer = await client.get("/")
    assert answer.status == 503
    assert b"scripts/build_web" in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_only_get_and_head_are_answered(method: str) -> None:
    async with served(public()) as client:
        answer = await client.ask(method, "/", {}, b"x" if method == "POST" else None)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_a_request_with_a_body_is_refused() -> None:
    async with served(public()) as client:
        answer = await client.ask("GET", "/", {}, b"x" * 100_000)
        empty = await client.ask("GET", "/", {"content-length": "0"})
    assert (answer.status, empty.status) == (413, 200)


async def test_the_public_port_has_neither_metrics_nor_status() -> None:
    async with served(public()) as client:
        assert (await client.get("/metrics")).status == 404
        assert (await client.get("/status")).status == 404


async def test_the_internal_port_has_metrics_status_and_health() -> None:
    async with served(internal()) as client:
        metrics = await client.get("/metrics")
        status = await client.get("/status")
        ready = await client.get("/health/ready")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"chat_node_connections 0.0" in metrics.body
    assert json.loads(status.body)["node"] == WELL.node
    assert ready.status == 200


async def test_gauges_are_of_the_moment_of_the_scrape() -> None:
    metrics = Metrics()

    def count_rooms() -> None:
        metrics.rooms += 1

    metrics.refreshers.append(count_rooms)
    async with served(internal_app(FakeNode(), metrics, scraper(metrics, BUILD), None)) as client:
        answers = [await client.get("/metrics") for _ in range(2)]
    assert [b"chat_node_rooms 1.0" in answers[0].body, b"chat_node_rooms 2.0" in answers[1].body] == [True, True]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "s3cret"}, 401),
        ({"authorization": "Basic s3cret"}, 401),
        ({"authorization": "Bearer s3cret"}, 200),
        ({"authorization": "bearer  s3cret"}, 200),
    ],
)
async def test_with_a_token_the_internal_port_asks_for_it(given: dict[str, str], status: int) -> None:
    async with served(internal(Secret("s3cret"))) as client:
        answers = [await client.ask("GET", path, given) for path in ("/metrics", "/status", "/health/live")]
    assert [answer.status for answer in answers] == [status] * 3
    assert ("www-authenticate" in answers[0].headers) == (status == 401)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9000", 200),
        ("127.8.9.10", 200),
        ("localhost:9000", 200),
        ("LocalHost.", 200),
        ("[::1]:9000", 200),
        ("[::1]", 200),
        ("evil.example:9000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:127.0.0.1", 421),
        ("192.0.2.1:9000", 421),
        ("[2001:db8::1]:9000", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_without_a_token_only_this_machine_s_own_names_are_answered(host: str, status: int) -> None:
    async with served(internal()) as client:
        answers = [await client.get(path, host=host) for path in ("/metrics", "/status", "/health/ready")]
    assert [answer.status for answer in answers] == [status] * 3
    assert (b"listen.internal_token" in answers[0].body) == (status == 421)


async def test_who_names_no_host_is_no_browser_and_is_answered() -> None:
    async with served(internal()) as client, await trio.open_tcp_stream("127.0.0.1", client.port) as stream:
        await stream.send_all(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert (await stream.receive_some(100)).split()[1] == b"200"


async def test_with_a_token_any_name_of_the_node_is_answered() -> None:
    async with served(internal(Secret("s3cret"))) as client:
        answer = await client.get("/metrics", host="chat.example:9000", authorization="Bearer s3cret")
    assert answer.status == 200


async def test_the_public_port_is_answered_under_any_name() -> None:
    async with served(public()) as client:
        assert (await client.get("/", host="chat.example")).status == 200


async def test_responses_are_counted_by_status() -> None:
    metrics = Metrics()
    async with served(public_app(FakeNode(), metrics, PAGE)) as client:
        await client.get("/")
        await client.get("/nothing")
        await client.ask("POST", "/", {})
    assert metrics.http_responses == {200: 1, 404: 1, 405: 1}

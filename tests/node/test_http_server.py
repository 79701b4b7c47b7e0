"""HTTP exchanges with clients that do not behave, over real sockets."""

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import h11
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_config.secret import Secret
from node.http import Guard, bearing
from node.http_server import BODY_BYTES, HttpServer, Peer
from node.listening import open_listeners
from node.metrics import Metrics
from node.socket_stream import SocketStream

PEER = Peer(("192.0.2.1", 40_000), ("192.0.2.2", 80))
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(scope: Scope, _: Receive, send: Send) -> None:
    """Answers with what it was asked and by whom."""
    assert scope["type"] == "http"
    client = scope["client"][0]
    body = f"{scope['scheme']} {scope['method']} {scope['path']} {client}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits for the whole body, which no application of ours does."""
    while (await receive()).get("more_body"):
        pass
    await hello(scope, receive, send)


async def fails(*_: object) -> None:
    raise RuntimeError("bug")


async def sends_much(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})


class Served:
    """A server and what a test needs of it."""

    def __init__(self, nursery: trio.Nursery, app: ASGIApp, most: int) -> None:
        self.metrics = Metrics()
        self.nursery = nursery
        self.server = HttpServer(app, self.metrics, header_bytes=4096, head_seconds=10, most=most)
        self.ended = trio.Event()

    async def connect(self, head: bytes = b"", peer: Peer = PEER) -> trio.SocketStream:
        """A client's connection that the server was given together with bytes that were read from it."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(0)

        async def serve() -> None:
            await self.server.serve(SocketStream(theirs), peer, head)
            self.ended.set()

        self.nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))


@asynccontextmanager
async def served(app: ASGIApp = hello, most: int = 8) -> AsyncIterator[Served]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield Served(nursery, app, most)
            nursery.cancel_scope.cancel()


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    found = b""
    async for data in stream:
        found += data
    return found


def parsed(data: bytes) -> list[h11.Response]:
    """The responses in what a server sent."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    found = []
    while not isinstance(event := connection.next_event(), h11.ConnectionClosed):
        if isinstance(event, h11.Response):
            found.append(event)
    return found


async def answer(app: ASGIApp, *pieces: bytes) -> bytes:
    """What a server sends to a client that sends these pieces and then only reads."""
    async with served(app) as serving, await serving.connect(pieces[0]) as stream:
        for piece in pieces[1:]:
            await stream.send_all(piece)
        return await everything(stream)


async def test_bytes_read_before_are_part_of_the_request() -> None:
    found = await answer(hello, b"GET /a HTT", b"P/1.1\r\nhost: x\r\n\r\n")
    assert found.endswith(b"http GET /a 192.0.2.1")


async def test_every_response_ends_its_connection() -> None:
    found = await answer(hello, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
    (response,) = parsed(found)
    assert (b"connection", b"close") in list(response.headers)


async def test_bytes_behind_a_request_are_no_request() -> None:
    assert (await answer(hello, GET + b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")).count(b"HTTP/1.1 ") == 1


async def test_an_upgrade_on_a_used_connection_is_not_read() -> None:
    upgrade = b"GET /connection/websocket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    found = await answer(hello, GET, upgrade)
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"101" not in found


async def test_an_upgrade_to_a_websocket_is_declined() -> None:
    upgrade = (
        b"GET /nowhere HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    found = await answer(Guard(hello, Metrics(), {}, lambda _: None), upgrade)
    assert found.startswith(b"HTTP/1.1 403 ")


async def test_http_2_is_not_offered() -> None:
    fields = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
    found = await answer(hello, b"GET / HTTP/1.1\r\nhost: x\r\n" + fields + b"\r\n")
    assert found.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 2000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_1_1_is_refused_and_closed(request_bytes: bytes) -> None:
    found = await answer(Guard(hello, Metrics(), {}, lambda _: None), request_bytes)
    (response,) = parsed(found)
    assert response.status_code // 100 == 4 or response.status_code == 501


async def test_a_body_is_not_read_to_its_end() -> None:
    async with served(hello) as serving:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n"
        async with await serving.connect(head) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(send_forever, stream)
            assert b" 200 " in await everything(stream)
            await serving.ended.wait()
            nursery.cancel_scope.cancel()


async def send_forever(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(bytes(10_000))


async def test_a_body_that_an_application_reads_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    started = autojump_clock.current_time()
    stream, theirs = trio.testing.memory_stream_pair()
    server = HttpServer(reads_all, Metrics(), header_bytes=4096, head_seconds=10, seconds=20)
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs, PEER, head)
        for _ in range(BODY_BYTES // 6 * 2):
            await stream.send_all(b"1\r\nx\r\n")
        assert await everything(stream) == b""
    assert autojump_clock.current_time() - started == pytest.approx(20)


async def test_a_head_that_does_not_come_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    started = autojump_clock.current_time()
    stream, theirs = trio.testing.memory_stream_pair()
    server = HttpServer(hello, Metrics(), header_bytes=4096, head_seconds=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs, PEER)
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        assert await everything(stream) == b""
    assert autojump_clock.current_time() - started == pytest.approx(10)


async def test_a_client_that_sends_all_and_closes_its_half_is_answered() -> None:
    async with served() as serving, await serving.connect() as stream:
        await stream.send_all(GET)
        await stream.send_eof()
        assert b" 200 " in await everything(stream)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET])
async def test_a_client_that_is_gone_ends_its_exchange(sent: bytes) -> None:
    async with served() as serving:
        stream = await serving.connect(sent)
        await trio.aclose_forcefully(stream)
        await serving.ended.wait()
        assert serving.metrics.http_connections == 0


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    started = autojump_clock.current_time()
    ours, theirs = trio.testing.lockstep_stream_pair()
    server = HttpServer(sends_much, Metrics(), header_bytes=4096, head_seconds=10, seconds=20)
    await server.serve(theirs, PEER, GET)
    assert autojump_clock.current_time() - started == pytest.approx(20)
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")


async def test_beyond_the_limit_connections_are_turned_away() -> None:
    async with served(most=2) as serving:
        waiting = [await serving.connect() for _ in range(2)]
        async with await serving.connect(GET) as third:
            assert (await everything(third)).startswith(b"HTTP/1.1 503 ")
        await serving.ended.wait()
        for stream in waiting:
            await stream.send_all(GET)
            assert b" 200 " in await everything(stream)
            await stream.aclose()


async def test_a_bug_of_an_application_is_500_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served(fails) as serving, await serving.connect(GET) as stream:
        assert (await everything(stream)).startswith(b"HTTP/1.1 500 ")
    assert "RuntimeError: bug" in caplog.text


async def test_over_tls_the_scheme_is_https_and_the_stream_is_encrypted(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(certificate, key)
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outside.load_verify_locations(certificate)
    ours, theirs = socket.socketpair()
    async with served() as serving:
        async with trio.open_nursery() as nursery:
            accepted: list[ssl.SSLSocket] = []

            def accept() -> None:
                accepted.append(inside.wrap_socket(theirs, server_side=True))

            nursery.start_soon(trio.to_thread.run_sync, accept)
            client = trio.SSLStream(
                trio.SocketStream(trio.socket.from_stdlib_socket(ours)),
                outside,
                server_hostname="localhost",
                https_compatible=True,
            )
            await client.do_handshake()
        accepted[0].settimeout(0)
        serving.nursery.start_soon(serving.server.serve, SocketStream(accepted[0]), PEER._replace(scheme="https"))
        await client.send_all(GET)
        assert (await everything(client)).endswith(b"https GET / 192.0.2.1")
        await client.aclose()


FIELDS = (
    b"host: x", b"host:", b"host : x", b"content-length: 5", b"content-length: 0", b"content-length: 99999999999",
    b"transfer-encoding: chunked", b"transfer-encoding: x", b"expect: 100-continue", b"upgrade: h2c",
    b"upgrade: websocket", b"connection: upgrade", b"connection: keep-alive", b"sec-websocket-version: 13",
    b"sec-websocket-version: 8", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"authorization: bearer s",
    b"authorization: \xff\xfe", b"x: " + b"y" * 3000, b" folded", b"\x00", b"",
)  # fmt: skip
REQUESTS = st.tuples(
    st.sampled_from((b"GET", b"HEAD", b"POST", b"CONNECT", b"PRI", b"get", b"")),
    st.sampled_from((b" / ", b" * ", b" /%ff%00 ", b" http://x/ ", b" x ", b"  ")),
    st.sampled_from((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"")),
    st.lists(st.sampled_from(FIELDS), max_size=8).map(lambda fields: b"".join(b"\r\n" + field for field in fields)),
    st.sampled_from((b"\r\n\r\n", b"\n\n", b"\r\n", b"")),
    st.sampled_from((b"", b"5\r\nhello\r\n0\r\n\r\n", b"z\r\n", b"hello", b"\x81\x80\x00\x00\x00\x00", GET))
    | st.binary(max_size=9),
).map(b"".join)


class Recorder:
    """Stands in for the event logger, and for Hypercorn's."""

    def __init__(self) -> None:
        self.faults: list[object] = []

    def fault(self, _: str, error: BaseException, **__: object) -> None:
        self.faults.append(error)


async def exchange(sent: bytes, cut: int, *, closes: bool) -> bytes:
    """What a server answers to bytes that come in two pieces."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = HttpServer(
        Guard(hello, Metrics(), {}, bearing(Secret("s"))), Metrics(), header_bytes=4096, head_seconds=10
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs, PEER, sent[:cut])
        with suppress(trio.BrokenResourceError):
            await ours.send_all(sent[cut:])
            if closes:
                await ours.send_eof()
        return await everything(ours)


@given(REQUESTS, st.integers(0, 200), st.booleans())
@settings(deadline=None)
def test_whatever_is_sent_the_exchange_ends_without_a_fault(sent: bytes, cut: int, closes: bool) -> None:
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.http_server.log", recorder)
        patch.setattr(logging.getLogger("node.http_server"), "handle", recorder.faults.append)
        clock = trio.testing.MockClock(autojump_threshold=0)
        answered = trio.run(partial(exchange, sent, cut, closes=closes), clock=clock)
    assert recorder.faults == []
    assert answered == b"" or answered.startswith(b"HTTP/1.1 ")


async def test_a_socket_that_the_hub_gives_away_is_answered_and_closed() -> None:
    server = HttpServer(hello, Metrics(), header_bytes=4096, head_seconds=10)
    (listener,) = open_listeners("127.0.0.1", 0, 4, "listen.port")
    with listener, socket.create_connection(listener.getsockname()) as client:
        given, _ = listener.accept()
        given.settimeout(0)
        client.shutdown(socket.SHUT_WR)
        await server.serve_socket(given, GET, "192.0.2.9")
        assert given.fileno() == -1
        assert client.makefile("rb").read().endswith(b"http GET / 192.0.2.9")


async def test_a_socket_whose_client_is_gone_is_closed() -> None:
    server = HttpServer(hello, Metrics(), header_bytes=4096, head_seconds=10)
    given = socket.socket()
    await server.serve_socket(given, GET, "192.0.2.9")
    assert given.fileno() == -1


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths

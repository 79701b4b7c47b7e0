"""Request heads, the WebSocket upgrade and origins: heads as clients send them, hostile ones, h11 as an oracle."""

from __future__ import annotations

import h11
import pytest
import wsproto
import wsproto.events
from hypothesis import given, settings
from hypothesis import strategies as st

from node.upgrade import (
    MAX_FIELDS,
    PROTOBUF,
    HeadReader,
    OriginRules,
    Refusal,
    Request,
    accept,
    choose_subprotocol,
    is_upgrade,
    origin_allowed,
    wanted_format,
)

MAX_BYTES = 4096
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455's example (1.3), and what it is to be answered with."""
PROOF = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

untimed = settings(deadline=None)  # the machine is shared: how long an example takes says nothing


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


CHROME = (
    "GET /connection/websocket HTTP/1.1",
    "Host: chat.example.com",
    "Connection: Upgrade",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Upgrade: websocket",
    "Origin: https://www.example.com",
    "Sec-WebSocket-Version: 13",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8",
    "Cookie: session=0123456789abcdef; theme=dark",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
FIREFOX = (
    "GET /connection/websocket HTTP/1.1",
    "Host: chat.example.com:8443",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Accept: */*",
    "Accept-Language: en-GB,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Sec-WebSocket-Version: 13",
    "Origin: https://chat.example.com:8443",
    "Sec-WebSocket-Extensions: permessage-deflate",
    f"Sec-WebSocket-Key: {KEY}",
    "DNT: 1",
    "Connection: keep-alive, Upgrade",
    "Sec-Fetch-Dest: empty",
    "Sec-Fetch-Mode: websocket",
    "Sec-Fetch-Site: same-origin",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "Upgrade: websocket",
)
NODE_WS = (
    "GET /connection/websocket HTTP/1.1",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    "Host: [::1]:8000",
)
PYTHON = (
    "GET /connection/websocket HTTP/1.1",
    "Host: localhost:8000",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits",
    "User-Agent: Python/3.11 websockets/17.4",
)
PROXIED = (*CHROME, "Via: 1.1 proxy", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.0.0.1", "Cookie: b=2")
CLIENTS = {"Chrome": CHROME, "Firefox": FIREFOX, "Node ws": NODE_WS, "Python": PYTHON, "proxied": PROXIED}


def read(raw: bytes, max_bytes: int = MAX_BYTES) -> Request | Refusal | None:
    return HeadReader(max_bytes).receive(raw)


def read_request(raw: bytes) -> Request:
    request = read(raw)
    assert isinstance(request, Request), request
    return request


def read_refusal(raw: bytes) -> Refusal:
    refusal = read(raw)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def read_in_chops(raw: bytes, sizes: list[int], max_bytes: int = MAX_BYTES) -> Request | Refusal | None:
    """Feed the reader as the hub does: until it says something, with what remains behind its answer."""
    reader = HeadReader(max_bytes)
    position = 0
    for size in [*sizes, len(raw)]:
        piece = raw[position : position + size]
        position += size
        if piece:
            result = reader.receive(piece)
            if result is not None:
                return result
    return None


def without(lines: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(line for line in lines if not line.lower().startswith(f"{name}:"))


def changed(lines: tuple[str, ...], name: str, value: str) -> tuple[str, ...]:
    return (*without(lines, name.lower()), f"{name}: {value}")


# Reading heads.


@pytest.mark.parametrize("lines", CLIENTS.values(), ids=CLIENTS)
def test_a_clients_head_is_read(lines: tuple[str, ...]) -> None:
    raw = head(*lines)
    request = read_request(raw)
    assert request[:4] == ("GET", "/connection/websocket", "/connection/websocket", {})
    assert (request.version, request.rest, request.raw) == ("1.1", b"", raw)
    assert request.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("lines", CLIENTS.values(), ids=CLIENTS)
def test_a_head_is_complete_with_its_last_byte(lines: tuple[str, ...]) -> None:
    raw = head(*lines)
    reader = HeadReader(len(raw))
    assert [reader.receive(raw[n : n + 1]) for n in range(len(raw) - 1)] == [None] * (len(raw) - 1)
    assert reader.receive(raw[-1:]) == read_request(raw)


def test_what_follows_the_head_is_kept_for_the_next_reader() -> None:
    raw = head("POST /api HTTP/1.1", "Host: a", "Content-Length: 4") + b"b\r\n\r\nody"
    reader = HeadReader(MAX_BYTES)
    assert reader.receive(raw[:30]) is None
    request = reader.receive(raw[30:])
    assert isinstance(request, Request)
    assert request.rest == b"b\r\n\r\nody"
    assert request.raw == raw


def test_what_follows_the_head_does_not_count_as_head() -> None:
    raw = head("GET / HTTP/1.1", "Host: a")
    assert isinstance(read(raw + bytes(MAX_BYTES), len(raw)), Request)


def test_values_are_stripped_and_names_are_lower_case() -> None:
    request = read_request(head("GET / HTTP/1.1", "HOST: \t a \t", "X-Empty:", "X-Latin: caf\xe9", "X-Odd: \xa0"))
    assert request.headers == {"host": "a", "x-empty": "", "x-latin": "caf\xe9", "x-odd": "\xa0"}


def test_repeated_fields_are_joined() -> None:
    request = read_request(head("GET / HTTP/1.1", "Host: a", "Cookie: a=1", "Via: x", "Cookie: b=2", "Via: y"))
    assert request.headers == {"host": "a", "cookie": "a=1; b=2", "via": "x, y"}


def test_http_1_0_needs_no_host() -> None:
    request = read_request(head("GET /health/live HTTP/1.0"))
    assert (request.version, request.headers) == ("1.0", {})


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/?", "/", {}),
        ("/a%20b/%C3%A9%e2%82%ac", "/a b/\u00e9\u20ac", {}),
        ("/a%2Fb%25", "/a/b%", {}),
        ("/a+b", "/a+b", {}),
        ("//evil.example/..", "//evil.example/..", {}),
        ("/s?site=a&x=", "/s", {"site": "a", "x": ""}),
        ("/s?a&&b=c=d", "/s", {"a": "", "b": "c=d"}),
        ("/s?q=a+b%2Bc%26%3D", "/s", {"q": "a b+c&="}),
        ("/s?cf_connect=%7B%22id%22%3A1%7D%0A", "/s", {"cf_connect": '{"id":1}\n'}),
        ("/s?a=?/|{}^`", "/s", {"a": "?/|{}^`"}),
        ("http://A/b?c=d", "/b", {"c": "d"}),
        ("HTTPS://a", "/", {}),
        ("http://a?c=d", "/", {"c": "d"}),
    ],
)
def test_a_target_is_decoded(target: str, path: str, query: dict[str, str]) -> None:
    request = read_request(head(f"GET {target} HTTP/1.1", "Host: a"))
    assert (request.target, request.path, request.query) == (target, path, query)


def test_options_asks_about_the_whole_server() -> None:
    assert read_request(head("OPTIONS * HTTP/1.1", "Host: a")).path == "*"


# What is refused, with which status and words.

GET = "GET / HTTP/1.1"
MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "method is unknown"),
    "binary": (b"\x00\xff\xfe", 400, "method is unknown"),
    "a response": (head("HTTP/1.1 200 OK", "Host: a"), 400, "method is unknown"),
    "an unknown method": (head("BREW / HTTP/1.1", "Host: a"), 400, "method is unknown"),
    "a method in small letters": (head("get / HTTP/1.1", "Host: a"), 400, "method is unknown"),
    "an empty line first": (b"\r\n" + head(GET, "Host: a"), 400, "empty line"),
    "a bare line feed first": (b"\n" + head(GET, "Host: a"), 400, "empty line"),
    "a space first": (b" " + head(GET, "Host: a"), 400, "method is unknown"),
    "two spaces": (head("GET  / HTTP/1.1", "Host: a"), 400, "request line 'GET  / HTTP/1.1'"),
    "a tab": (head("GET\t/ HTTP/1.1", "Host: a"), 400, "method is unknown"),
    "a space behind the version": (head(GET + " ", "Host: a"), 400, "malformed"),
    "no version": (head("GET /", "Host: a"), 400, "malformed"),
    "HTTP/0.9": (head("GET /"), 400, "request line 'GET /'"),
    "HTTP/0.9 by name": (head("GET / HTTP/0.9"), 505, "use HTTP/1.1"),
    "HTTP/1.2": (head("GET / HTTP/1.2", "Host: a"), 505, "use HTTP/1.1"),
    "HTTP/2": (head("GET / HTTP/2.0", "Host: a"), 505, "use HTTP/1.1"),
    "HTTP/2 with its preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "use HTTP/1.1"),
    "HTTP/3": (head("GET / HTTP/3.0", "Host: a"), 505, "use HTTP/1.1"),
    "another protocol": (head("DESCRIBE / RTSP/1.0", "Host: a"), 400, "request line"),
    "a small version": (head("GET / http/1.1", "Host: a"), 400, "malformed"),
    "lines that end in line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed"),
    "a head that ends in a line feed": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "malformed"),
    "a line that ends in a carriage return": (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "malformed"),
    "a folded field": (head(GET, "Host: a", " b"), 400, "malformed"),
    "a field without colon": (head(GET, "Host: a", "foo"), 400, "malformed"),
    "a field without name": (head(GET, "Host: a", ": foo"), 400, "malformed"),
    "a space before the colon": (head(GET, "Host : a"), 400, "malformed"),
    "a space before the first field": (head(GET, " Host: a"), 400, "malformed"),
    "a name that is no token": (head(GET, "Host: a", "X\xff: b"), 400, "malformed"),
    "a value with NUL": (head(GET, "Host: a", "X: b\x00c"), 400, "malformed"),
    "a value with a control character": (head(GET, "Host: a", "X: b\x1bc"), 400, "malformed"),
    "no host": (head(GET), 400, "'host' is missing"),
    "an empty host": (head(GET, "Host:"), 400, "'host' has the value ''"),
    "two hosts": (head(GET, "Host: a", "Host: b"), 400, "'host' is repeated"),
    "the same host twice": (head(GET, "Host: a", "host: a"), 400, "'host' is repeated"),
    "two hosts in one": (head(GET, "Host: a, b"), 400, "'host' has the value 'a, b'"),
    "a user in the host": (head(GET, "Host: a@b"), 400, "'host' has the value"),
    "a path in the host": (head(GET, "Host: a/b"), 400, "'host' has the value"),
    "a host with a bad port": (head(GET, "Host: a:b"), 400, "'host' has the value"),
    "two origins": (head(GET, "Host: a", "Origin: http://a", "Origin: http://b"), 400, "'origin' is repeated"),
    "two keys": (head(*CHROME, f"Sec-WebSocket-Key: {KEY}"), 400, "'sec-websocket-key' is repeated"),
    "two lengths": (head("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 1"), 400, "malformed"),
    "two lengths in one": (head("POST / HTTP/1.1", "Host: a", "Content-Length: 1, 1"), 400, "malformed"),
    "a signed length": (head("POST / HTTP/1.1", "Host: a", "Content-Length: +1"), 400, "malformed"),
    "a hexadecimal length": (head("POST / HTTP/1.1", "Host: a", "Content-Length: 0x1"), 400, "malformed"),
    "a huge length": (head("POST / HTTP/1.1", "Host: a", f"Content-Length: {1 << 64}"), 400, "malformed"),
    "length and chunks": (
        head("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "malformed"),
    "chunks and length": (
        head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 1"), 400, "malformed"),
    "chunks that are not the last coding": (
        head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, gzip"), 400, "malformed"),
    "nearly chunks": (head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"), 400, "malformed"),
    "chunks twice": (
        head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"),
        400, "'transfer-encoding' is repeated"),
    "chunks in HTTP/1.0": (
        head("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"), 400, "unknown to HTTP/1.0"),
    "too many fields": (
        head(GET, "Host: a", *(f"x{n}: b" for n in range(MAX_FIELDS))), 431, f"{MAX_FIELDS + 1} header fields"),
    "a target without slash": (head("GET foo HTTP/1.1", "Host: a"), 400, "malformed"),
    "a target with a fragment": (head("GET /#a HTTP/1.1", "Host: a"), 400, "request line"),
    "a target that is not ASCII": (head("GET /\xe9 HTTP/1.1", "Host: a"), 400, "malformed"),
    "a target with a space": (head("GET /a b HTTP/1.1", "Host: a"), 400, "malformed"),
    "a target for all": (head("GET * HTTP/1.1", "Host: a"), 400, "'*' is not a path"),
    "a proxy's method": (head("CONNECT a:80 HTTP/1.1", "Host: a:80"), 400, "'a:80' is not a path"),
    "a proxy's method with an address": (head("CONNECT http://a/ HTTP/1.1", "Host: a"), 400, "is not a path"),
    "another host's address": (head("GET http://b/ HTTP/1.1", "Host: a"), 400, "not on the host"),
    "another protocol's address": (head("GET ftp://a/ HTTP/1.1", "Host: a"), 400, "is not a path"),
    "an address without a host field": (head("GET http://b/ HTTP/1.0"), 400, "not on the host"),
    "half an escape": (head("GET /a%2 HTTP/1.1", "Host: a"), 400, "path has the escape '%2': write % as %25"),
    "a bad escape": (head("GET /%zz HTTP/1.1", "Host: a"), 400, "path has the escape '%zz'"),
    "a bad escape in the query": (head("GET /?a=100% HTTP/1.1", "Host: a"), 400, "query has the escape '%'"),
    "a path that is not UTF-8": (head("GET /%ff HTTP/1.1", "Host: a"), 400, "path '/%ff' is not UTF-8"),
    "an overlong slash": (head("GET /%c0%af HTTP/1.1", "Host: a"), 400, "is not UTF-8"),
    "a query that is not UTF-8": (head("GET /?a=%ff HTTP/1.1", "Host: a"), 400, "query '%ff' is not UTF-8"),
    "a path with NUL": (head("GET /%00 HTTP/1.1", "Host: a"), 400, "control character"),
    "a path with a line feed": (head("GET /%0a HTTP/1.1", "Host: a"), 400, "control character"),
    "a parameter twice": (head("GET /?a=1&%61=2 HTTP/1.1", "Host: a"), 400, "query parameter 'a' is repeated"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_head_is_refused_however_it_is_cut(case: str) -> None:
    raw, status, words = MALFORMED[case]
    refusal = read_refusal(raw)
    assert refusal.status == status
    assert words in refusal.body
    assert read_in_chops(raw, [1] * len(raw)) == refusal


def test_nonsense_is_refused_before_it_ends() -> None:
    assert isinstance(read(b"\x16\x03\x01"), Refusal)
    assert isinstance(read(b"GET / HTTP/1.1\r\nHost : "), Refusal)


def test_a_head_of_the_longest_length_is_read_and_one_byte_more_is_not() -> None:
    raw = head(GET, "Host: a", "X: " + "b" * 100)
    assert isinstance(read(raw, len(raw)), Request)
    refusal = read(raw, len(raw) - 1)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (431, "Request Header Fields Too Large")
    assert f"longer than the {len(raw) - 1} bytes" in refusal.body


def test_a_long_head_is_refused_before_it_ends() -> None:
    raw = head(GET, "Host: a", "X: " + "b" * MAX_BYTES)
    reader = HeadReader(MAX_BYTES)
    assert reader.receive(raw[: MAX_BYTES - 1]) is None
    refusal = reader.receive(raw[MAX_BYTES - 1 : MAX_BYTES])
    assert isinstance(refusal, Refusal)
    assert refusal.status == 431


def test_a_long_request_line_is_the_targets_fault() -> None:
    assert read_refusal(b"GET /" + b"a" * MAX_BYTES).status == 414


def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    refusal = read_refusal(head(GET, "Host: " + "<script>\xe9" * 100))
    assert len(refusal.body) < 200
    assert refusal.body.isascii()


# Any bytes at all.

lines = st.lists(
    st.one_of(
        st.sampled_from([GET, "POST /a?b=%zz HTTP/1.1", "GET /%c3%a9 HTTP/1.0", "GET / HTTP/2.0", ""]),
        st.sampled_from([*CHROME, *FIREFOX]),
        st.sampled_from(
            ["Host: b", "Transfer-Encoding: chunked", "Content-Length: 3", " fold", "X:", "a b", "C\x00:d"]
        ),
        st.text(st.characters(codec="latin-1"), max_size=20),
    ),
    max_size=20,
)
heads = st.one_of(
    st.binary(max_size=100),
    st.lists(st.sampled_from(["\r", "\n", "\r\n", " ", ":", "GET", "/", "HTTP/1.1", "Host", "a", "\t", "%", "?"])).map(
        lambda parts: "".join(parts).encode()
    ),
    lines.map(lambda chosen: head(*chosen)),
    st.tuples(lines, st.binary(max_size=50)).map(lambda parts: head(GET, "Host: a", *parts[0]) + parts[1]),
    st.tuples(st.sampled_from(list(CLIENTS.values())), st.integers(0, 600), st.binary(max_size=3)).map(
        lambda parts: head(*parts[0])[: parts[1]] + parts[2] + head(*parts[0])[parts[1] :]
    ),
)
limits = st.sampled_from([1, 20, 100, 400, MAX_BYTES])


@settings(deadline=None, max_examples=500)
@given(heads, st.lists(st.integers(0, 60)), limits)
def test_any_chopping_gives_the_same_answer(raw: bytes, sizes: list[int], max_bytes: int) -> None:
    answers = [
        read(raw, max_bytes) if raw else None,
        read_in_chops(raw, sizes, max_bytes),
        read_in_chops(raw, [1] * len(raw), max_bytes),
    ]
    # Chops may end with the head, and so without what follows it.
    heads_only = [answer._replace(rest=b"", raw=b"") if isinstance(answer, Request) else answer for answer in answers]
    assert heads_only[1:] == heads_only[:1] * 2


@settings(deadline=None, max_examples=300)
@given(heads)
def test_whatever_arrives_gets_an_answer(raw: bytes) -> None:
    request = read(raw)
    answer: object = request
    if isinstance(request, Request):
        assert request.raw == raw
        assert raw.endswith(request.rest)
        answer = accept(request, {"a"})
        assert is_upgrade(request) or isinstance(answer, Refusal)
    if isinstance(answer, Refusal):
        assert_is_a_response(answer.response(), answer.status)


def assert_is_a_response(raw: bytes, status: int) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    body = client.next_event()
    assert isinstance(body, h11.Data)
    assert bytes(body.data).decode().endswith("\n")
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE


def read_by_h11(raw: bytes) -> tuple[object, ...] | None:
    """Method, target, fields and version according to h11; None if it refuses."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    return (
        event.method.decode(),
        event.target.decode(),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers},
        event.http_version.decode(),
    )


names = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=12
)
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20).map(lambda text: text.strip())


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS"]),
    st.text("abc/.-_~!$&'()*,;=:@|{}", max_size=20),
    st.lists(st.tuples(names, values), unique_by=lambda field: field[0].lower(), max_size=8),
    st.sampled_from(["1.0", "1.1"]),
)
def test_h11_reads_the_same_from_a_well_formed_head(
    method: str, path: str, fields: list[tuple[str, str]], version: str
) -> None:
    others = [(name, value) for name, value in fields if name.lower() not in {"host", "content-length", "connection"}]
    raw = head(f"{method} /{path} HTTP/{version}", "Host: a", *(f"{name}: {value}" for name, value in others))
    request = read_request(raw)
    assert (request.method, request.target, request.headers, request.version) == read_by_h11(raw)


@settings(deadline=None, max_examples=500)
@given(heads)
def test_what_h11_refuses_is_refused(raw: bytes) -> None:
    if b"\r\n\r\n" not in raw:
        return
    end = raw.index(b"\r\n\r\n") + 4
    if isinstance(read(raw), Request):
        assert read_by_h11(raw[:end]) is not None


# The upgrade.


@pytest.mark.parametrize("lines", CLIENTS.values(), ids=CLIENTS)
def test_a_clients_upgrade_is_accepted(lines: tuple[str, ...]) -> None:
    request = read_request(head(*lines))
    assert is_upgrade(request)
    assert accept(request) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + PROOF + b"\r\n\r\n"
    )


def test_wsproto_and_the_server_agree() -> None:
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    raw = client.send(wsproto.events.Request(host="a", target="/b", subprotocols=["x", "centrifuge-protobuf"]))
    response = accept(read_request(raw), {"centrifuge-protobuf"})
    assert isinstance(response, bytes)
    client.receive_data(response)
    accepted = next(iter(client.events()))
    assert isinstance(accepted, wsproto.events.AcceptConnection)
    assert accepted.subprotocol == "centrifuge-protobuf"


BAD_UPGRADES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "POST": (("POST / HTTP/1.1", *CHROME[1:]), 405, "'POST'"),
    "HTTP/1.0": (("GET / HTTP/1.0", *CHROME[1:]), 505, "use HTTP/1.1"),
    "no upgrade": (without(CHROME, "upgrade"), 426, "WebSocket client"),
    "another upgrade": (changed(CHROME, "Upgrade", "h2c"), 426, "WebSocket client"),
    "nearly websocket": (changed(CHROME, "Upgrade", "websocket2"), 426, "WebSocket client"),
    "no connection": (without(CHROME, "connection"), 400, "'connection' does not list 'upgrade'"),
    "another connection": (changed(CHROME, "Connection", "keep-alive"), 400, "'connection' does not list 'upgrade'"),
    "no version": (without(CHROME, "sec-websocket-version"), 426, "'sec-websocket-version' is missing: send 13"),
    "version 8": (changed(CHROME, "Sec-WebSocket-Version", "8"), 426, "'sec-websocket-version' is '8': send 13"),
    "two versions": (changed(CHROME, "Sec-WebSocket-Version", "13, 8"), 426, "is '13, 8': send 13"),
    "no key": (without(CHROME, "sec-websocket-key"), 400, "'sec-websocket-key' is missing"),
    "an empty key": (changed(CHROME, "Sec-WebSocket-Key", ""), 400, "'sec-websocket-key' is ''"),
    "a short key": (changed(CHROME, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub24="), 400, "16 random bytes in base64"),
    "a long key": (changed(CHROME, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWQ="), 400, "16 random bytes"),
    "a key that is not base64": (changed(CHROME, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!Q=="), 400, "base64"),
    "a key with another alphabet": (changed(CHROME, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j_-=="), 400, "base64"),
    "a body": ((*CHROME, "Content-Length: 5"), 400, "'content-length' is in a WebSocket upgrade"),
    "a chunked body": ((*CHROME, "Transfer-Encoding: chunked"), 400, "'transfer-encoding' is in a WebSocket upgrade"),
    "a subprotocol that is no token": ((*CHROME, "Sec-WebSocket-Protocol: a b"), 400, "lists 'a b'"),
    "an empty subprotocol": ((*CHROME, "Sec-WebSocket-Protocol: a,,b"), 400, "lists ''"),
}


@pytest.mark.parametrize("case", BAD_UPGRADES)
def test_a_bad_upgrade_is_refused(case: str) -> None:
    lines, status, words = BAD_UPGRADES[case]
    refusal = accept(read_request(head(*lines)))
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert words in refusal.body
    assert_is_a_response(refusal.response(), status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "WebSocket"),
        ("Upgrade", "h2c, websocket"),
        ("Connection", "UPGRADE"),
        ("Connection", "a,\tupgrade ,b"),
    ],
)
def test_tokens_are_found_in_lists_and_in_any_case(name: str, value: str) -> None:
    assert isinstance(accept(read_request(head(*changed(CHROME, name, value)))), bytes)


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ((GET, "Host: a"), False),
        ((GET, "Host: a", "Upgrade: h2c", "Connection: upgrade"), False),
        ((GET, "Host: a", "Upgrade: websocket"), True),
        (("POST / HTTP/1.1", "Host: a", "Upgrade: h2c, WebSocket"), True),
    ],
)
def test_whoever_names_websocket_asks_for_one(lines: tuple[str, ...], asked: bool) -> None:
    assert is_upgrade(read_request(head(*lines))) is asked


def test_who_comes_without_upgrade_is_told_what_to_upgrade_to() -> None:
    refusal = accept(read_request(head(GET, "Host: a")))
    assert isinstance(refusal, Refusal)
    assert refusal.response() == (
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 69\r\nX-Content-Type-Options: nosniff\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"\r\nthis address is for WebSockets only: connect with a WebSocket client\n"
    )


def test_who_comes_with_another_method_is_told_which_to_use() -> None:
    refusal = accept(read_request(head("PUT / HTTP/1.1", "Host: a")))
    assert isinstance(refusal, Refusal)
    assert b"\r\nAllow: GET\r\n" in refusal.response()


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        ([], {"a"}, None),
        (["a"], set(), None),
        (["a"], {"b"}, None),
        (["b, a"], {"a", "b"}, "b"),
        (["x, \tcentrifuge-protobuf"], {"centrifuge-protobuf"}, "centrifuge-protobuf"),
        (["x", "a"], {"a"}, "a"),
        (["A"], {"a"}, None),
    ],
)
def test_the_first_offered_subprotocol_that_is_spoken_is_chosen(
    offered: list[str], spoken: set[str], chosen: str | None
) -> None:
    request = read_request(head(*CHROME, *(f"Sec-WebSocket-Protocol: {names}" for names in offered)))
    response = accept(request, spoken)
    assert isinstance(response, bytes)
    assert choose_subprotocol(request, spoken) == chosen
    told = [line for line in response.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Protocol: ")]
    assert told == ([f"Sec-WebSocket-Protocol: {chosen}".encode()] if chosen else [])


def test_an_empty_offer_is_none() -> None:
    request = read_request(head(*CHROME, "Sec-WebSocket-Protocol: "))
    response = accept(request, {"a"})
    assert isinstance(response, bytes)
    assert b"Sec-WebSocket-Protocol" not in response


def test_no_subprotocol_is_chosen_from_a_malformed_offer() -> None:
    request = read_request(head(*CHROME, "Sec-WebSocket-Protocol: a, b c"))
    assert choose_subprotocol(request, {"a"}) is None


@pytest.mark.parametrize(
    ("query", "offered", "wanted"),
    [
        ("", "", ""),
        ("", "x, centrifuge-protobuf", PROTOBUF),
        ("?format=protobuf", "", PROTOBUF),
        ("?a=1&cf_protocol=protobuf", "", PROTOBUF),
        ("?format=json", "", ""),
    ],
)
def test_a_format_is_wanted_by_subprotocol_or_query(query: str, offered: str, wanted: str) -> None:
    first, *rest = CHROME
    fields = [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
    request = read_request(head(first.replace(" HTTP", f"{query} HTTP"), *rest, *fields))
    assert wanted_format(request, {PROTOBUF}) == wanted


# Origins.

RULES = OriginRules(
    [
        "https://example.com",
        "http://localhost:8080",
        "https://*.example.org",
        "https://*.example.net:8443",
        "https://default.example:443",
        "capacitor://localhost",
        "https://[2001:db8::1]",
        "HTTPS://Loud.Example",
    ]
)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com", "https://example.com:443", "HTTPS://EXAMPLE.com", "http://localhost:8080",
        "https://a.example.org", "https://a.b.example.org", "https://a.example.net:8443", "https://default.example",
        "capacitor://localhost", "https://[2001:db8::1]", "https://loud.example",
    ],
)  # fmt: skip
def test_a_listed_origin_is_allowed(origin: str) -> None:
    assert origin_allowed(origin, "node", RULES)


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "example.com", "http://example.com", "https://example.com:8443", "https://www.example.com",
        "https://example.com.evil.example", "https://evilexample.com", "https://example.com/", "https://example.com/path",
        "https://user@example.com", "https://example.com evil", "http://localhost", "http://localhost:80800",
        "https://example.org", "https://evilexample.org", "http://a.example.org", "https://a.example.org:8443",
        "https://a.example.org.evil.example", "https://.example.org.", "https://a.example.net", "https://*.example.org.x",
        "https://\u0430.example.com", "https://" + "a." * 200 + "example.org", "http://node.evil.example", "http://nod",
        "*", "https://*",
    ],
)  # fmt: skip
def test_an_origin_that_is_not_listed_is_not_allowed(origin: str) -> None:
    assert not origin_allowed(origin, "node", RULES)


def test_who_sends_no_origin_is_no_browser_and_allowed() -> None:
    assert origin_allowed(None, "node", OriginRules([]))


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://chat.example", "chat.example", True),
        ("https://chat.example", "Chat.Example:443", True),
        ("http://chat.example", "chat.example:80", True),
        ("http://chat.example:80", "chat.example", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost:8000", "localhost:8001", False),
        ("http://localhost", "localhost:8000", False),
        ("https://chat.example", "chat.example:80", False),
        ("https://evil.example", "chat.example", False),
        ("capacitor://chat.example", "chat.example", True),
        ("null", "null", False),
    ],
)
def test_the_servers_own_pages_are_allowed(origin: str, host: str, allowed: bool) -> None:
    assert origin_allowed(origin, host, OriginRules([])) is allowed


@pytest.mark.parametrize("origin", ["null", "https://anything.example:1", "nonsense"])
def test_a_star_allows_every_origin(origin: str) -> None:
    assert origin_allowed(origin, "node", OriginRules(["*"]))


def test_null_can_be_listed() -> None:
    assert origin_allowed("null", "node", OriginRules(["null"]))


@pytest.mark.parametrize(
    "pattern",
    ["", "example.com", "*.example.com", "https://", "https://*", "https://*.*.example.com", "https://a.*.example.com",
     "https://example.com/", "https://example.com/path", "https://example.com:port", "https://*example.com", "**"],
)  # fmt: skip
def test_a_pattern_that_means_nothing_is_an_error_that_names_it(pattern: str) -> None:
    with pytest.raises(ValueError, match="write scheme://host or scheme://host:port") as caught:
        OriginRules([pattern])
    assert repr(pattern) in str(caught.value)


@given(st.text(), st.text())
def test_any_origin_and_host_get_an_answer(origin: str, host: str) -> None:
    assert origin_allowed(origin, host, RULES) in {True, False}

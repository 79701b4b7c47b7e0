"""Heads of HTTP/1 requests and the WebSocket upgrade (RFC 9110, 9112, 6455), without I/O.

`HeadReader` reads the head of a connection's first request. `accept` answers one that asks for a WebSocket; any other
is handed on with the bytes that were read (`Request.raw`). What could be understood in two ways, and so differently by
a proxy in front of this server, is refused: llhttp parses the fields strictly, while the request line, repeated fields,
Host and the encoding of the target are checked here.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import httptools

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

MAX_FIELDS: Final = 100
"""Most header fields of a request. Browsers send about 15 and proxies add some; each one costs a call in Python."""

PROTOBUF: Final = "centrifuge-protobuf"
"""The subprotocol of clients that speak node/protobuf.py."""

_HEAD_END: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"

_request_line = re.compile(rb"([A-Z-]+) ([!-\"$-~]+) HTTP/([0-9]\.[0-9])\r\n").match
_absolute_target = re.compile(r"https?://([^/?]+)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE).fullmatch
_host = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?").fullmatch
_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}").search
_control_character = re.compile(r"[\x00-\x1f\x7f]").search
_token = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_websocket_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch
_origin = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?").fullmatch

_SINGLE: Final = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "host",
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
        "user-agent",
    }
)
"""Fields that have one value and on which something is decided: two of them are two opinions."""

_WEBSOCKET_VERSION: Final = "13"
_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server appends to the client's key to prove that it speaks WebSocket (RFC 6455, 1.3)."""

_DEFAULT_PORTS: Final = {"http": "80", "ws": "80", "https": "443", "wss": "443"}

_MAX_HOST_CHARACTERS: Final = 253
"""Longest name in the DNS; a longer one is in no list, and comparing it must not cost more than that."""

_WRONG_VERSION: Final = frozenset({"Invalid HTTP version", "Pause on PRI/Upgrade"})
"""What llhttp says of versions that it doesn't know, and of HTTP/2's preface."""

_SHOWN_CHARACTERS: Final = 60
"""How much of a faulty value a refusal repeats."""


class Request(NamedTuple):
    """The head of a request.

    Attributes:
        method: As sent, such as ``GET``.
        target: As sent: percent-encoded, with the query.
        path: The decoded path; ``*`` of ``OPTIONS *``.
        query: The decoded parameters.
        headers: Values by lower-case name; a repeated field's values are joined.
        version: ``1.0`` or ``1.1``.
        rest: What arrived behind the head: a body, or the first frames of a hasty client.
        raw: All that arrived: the head and `rest`.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    version: str
    rest: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served.

    Attributes:
        status: HTTP status code.
        reason: The status code's name.
        body: What is wrong with which value, and what to send instead.
        fields: Header fields, name and value, that the status code calls for.
    """

    status: int
    reason: str
    body: str
    fields: tuple[tuple[str, str], ...] = ()

    def response(self) -> bytes:
        """The whole response. The connection is to be closed after it."""
        body = f"{self.body}\n".encode()
        # RFC 9110, 7.8: who sends Upgrade names it in Connection too.
        close = "close, Upgrade" if any(name == "Upgrade" for name, _ in self.fields) else "close"
        fields = (
            ("Connection", close),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            *self.fields,
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"HTTP/1.1 {self.status} {self.reason}\r\n{lines}\r\n".encode() + body


class _Refused(Exception):
    """Carries a refusal out of nested checks; never leaves this file."""

    def __init__(self, status: HTTPStatus, body: str, *fields: tuple[str, str]) -> None:
        super().__init__(status, body)
        self.refusal = Refusal(status.value, status.phrase, body, fields)


class _Fields:
    """What llhttp found, by lower-case name."""

    __slots__ = ("count", "repeated", "values")

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.count = 0
        self.repeated: str | None = None

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        """Called by httptools for each field."""
        name = raw_name.lower().decode("latin-1")
        value = raw_value.decode("latin-1").strip(" \t")
        self.count += 1
        before = self.values.get(name)
        if before is None:
            self.values[name] = value
        elif name in _SINGLE:
            self.repeated = name
        else:
            self.values[name] = f"{before}{'; ' if name == 'cookie' else ', '}{value}"


class HeadReader:
    """Reads the head of one request as it arrives.

    Args:
        max_bytes: Longest acceptable head.
    """

    __slots__ = ("_fields", "_max_bytes", "_parser", "_raw")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._raw: bytes | bytearray = b""
        self._fields = _Fields()
        self._parser = httptools.HttpRequestParser(self._fields)

    def receive(self, data: bytes) -> Request | Refusal | None:
        """The request, why there is none, or None while more is to come. Of no use after it gave one of the first two.

        However the head is cut up, the result is the same.
        """
        try:
            return self._receive(data)
        except _Refused as refused:
            return refused.refusal

    def _receive(self, data: bytes) -> Request | None:
        before = len(self._raw)
        raw = self._append(data)
        if raw.startswith((b"\r", b"\n")):
            # llhttp skips empty lines; the first of them would be taken for the end of the head here.
            raise _bad_request("request starts with an empty line: start with the request line")
        found = raw.find(_HEAD_END, max(0, before - len(_HEAD_END) + 1), self._max_bytes)
        end = min(len(raw), self._max_bytes) if found < 0 else found + len(_HEAD_END)
        self._parse_fields(data if end == len(raw) else data[: end - before])
        if found >= 0:
            return _make_request(bytes(raw), end, self._fields)
        if end == self._max_bytes:
            raise self._too_large()
        return None

    def _append(self, data: bytes) -> bytes | bytearray:
        if not self._raw:
            self._raw = data  # nearly always the whole head
        else:
            if isinstance(self._raw, bytes):
                self._raw = bytearray(self._raw)
            self._raw += data
        return self._raw

    def _parse_fields(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # llhttp's way to say that no HTTP follows the head; `accept` decides on that
        except httptools.HttpParserInvalidMethodError:
            raise _bad_request("method is unknown: send an HTTP/1.1 request, such as GET / HTTP/1.1") from None
        except httptools.HttpParserError as error:
            if str(error) in _WRONG_VERSION:
                raise _unsupported_version() from None
            raise _bad_request(f"request head is malformed: {error}") from None

    def _too_large(self) -> _Refused:
        limit = f"longer than the {self._max_bytes} bytes that are allowed"
        if _LINE_END in self._raw[: self._max_bytes]:
            return _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"request head is {limit}: send fewer fields")
        return _Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"request line is {limit}: shorten the target")


def is_upgrade(request: Request) -> bool:
    """Whether the request asks for a WebSocket, well or badly: then `accept` has the answer."""
    return _lists(request, "upgrade", "websocket")


def accept(request: Request, subprotocols: Container[str] = ()) -> bytes | Refusal:
    """The response with which the connection becomes a WebSocket, or why it does not (RFC 6455, 4.2).

    Extensions are not agreed on. The origin is the caller's to check.

    Args:
        request: Whatever came in; that it is an upgrade at all is checked too.
        subprotocols: Those that the caller speaks; see `choose_subprotocol`.
    """
    try:
        _require_upgrade(request)
        key = _require_key(request)
        _require_no_body(request)
        subprotocol = _choose(_offered(request), subprotocols)
    except _Refused as refused:
        return refused.refusal
    proof = b2a_base64(sha1(key.encode() + _KEY_SUFFIX, usedforsecurity=False).digest(), newline=False)
    chosen = b"" if subprotocol is None else b"\r\nSec-WebSocket-Protocol: " + subprotocol.encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + proof
        + chosen
        + _HEAD_END
    )


def choose_subprotocol(request: Request, subprotocols: Container[str]) -> str | None:
    """The first subprotocol that the client offers among `subprotocols`, or None: what `accept` tells the client."""
    try:
        return _choose(_offered(request), subprotocols)
    except _Refused:
        return None


def wanted_format(request: Request, subprotocols: Container[str]) -> str:
    """The subprotocol in whose format an upgraded client is spoken to; empty: it asks for none.

    Clients that cannot offer a subprotocol ask by a parameter of the query, and it is not in the answer.
    """
    if "protobuf" in (request.query.get("format"), request.query.get("cf_protocol")):
        return PROTOBUF
    return choose_subprotocol(request, subprotocols) or ""


class OriginRules:
    """Which pages may connect, compiled once. Membership costs the same for one origin and for thousands.

    Args:
        patterns: Origins as browsers send them (``https://example.com``, ``http://localhost:8080``, ``null``); the same
            with ``*.`` before the host, for all of its sub-domains at any depth, but not itself; or ``*`` for all.

    Raises:
        ValueError: A pattern is none of these.
    """

    __slots__ = ("_everybody", "_exact", "_subdomains")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._everybody = False
        self._exact: set[str] = set()
        self._subdomains: set[tuple[str, str, str]] = set()
        for pattern in patterns:
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        if pattern == "*":
            self._everybody = True
            return
        if pattern == "null":
            self._exact.add(pattern)
            return
        scheme, wildcard, rest = pattern.lower().partition("://*.")
        parts = _split_origin(f"{scheme}://{rest}" if wildcard else scheme)
        if parts is None:
            raise ValueError(
                f"origin pattern {pattern!r} can't be understood: write scheme://host or scheme://host:port without a "
                "path, such as https://example.com or https://*.example.com, or * for every origin"
            )
        if wildcard:
            self._subdomains.add(parts)
        else:
            self._exact.add(_join_origin(parts))

    def __contains__(self, origin: str) -> bool:
        """Whether a page of `origin` (as in the header field) may connect."""
        if self._everybody:
            return True
        if origin in self._exact:
            return True
        parts = _split_origin(origin.lower())
        return parts is not None and (_join_origin(parts) in self._exact or self._is_subdomain(parts))

    def _is_subdomain(self, parts: tuple[str, str, str]) -> bool:
        scheme, host, port = parts
        while self._subdomains and host:
            host = host.partition(".")[2]
            if (scheme, host, port) in self._subdomains:
                return True
        return False


def origin_allowed(origin: str | None, host: str, allowed: OriginRules) -> bool:
    """Whether a page of `origin` may connect to this server.

    Args:
        origin: The Origin field. None is allowed: only browsers send it, and only they act for a page.
        host: The Host field. Pages that come from there are this server's own, and allowed.
        allowed: Whose pages may connect besides.
    """
    if origin is None or origin in allowed:
        return True
    parts = _split_origin(origin.lower())
    if parts is None:
        return False
    scheme, name, port = parts
    own = host.lower()
    default_port = _DEFAULT_PORTS.get(scheme)
    if default_port is not None:
        own = own.removesuffix(f":{default_port}")
    return own == (f"{name}:{port}" if port else name)


def _split_origin(origin: str) -> tuple[str, str, str] | None:
    """Scheme, host and port, which is empty if it is the scheme's default; None if it is no origin."""
    match = _origin(origin)
    if match is None:
        return None
    scheme, host, port = match.groups(default="")
    if len(host) > _MAX_HOST_CHARACTERS:
        return None
    return scheme, host, "" if port == _DEFAULT_PORTS.get(scheme) else port


def _join_origin(parts: tuple[str, str, str]) -> str:
    scheme, host, port = parts
    return f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}"


def _make_request(raw: bytes, end: int, fields: _Fields) -> Request:
    """The request of a complete head, which llhttp has found to be in order."""
    line = _request_line(raw)
    if line is None:
        shown = raw[: raw.find(_LINE_END)].decode("latin-1")
        raise _bad_request(f"request line {_show(shown)} is malformed: send one such as GET / HTTP/1.1")
    method, target, version = (part.decode("ascii") for part in line.groups())
    if version not in {"1.0", "1.1"}:
        raise _unsupported_version()
    if fields.count > MAX_FIELDS:
        raise _Refused(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"request has {fields.count} header fields: send at most {MAX_FIELDS}",
        )
    if fields.repeated is not None:
        raise _bad_request(f"header field {_show(fields.repeated)} is repeated: send it once")
    if version == "1.0" and "transfer-encoding" in fields.values:
        raise _bad_request("header field 'transfer-encoding' is unknown to HTTP/1.0: use HTTP/1.1")
    _check_host(fields.values.get("host"), version)
    path, query = _split_target(method, target, fields.values.get("host"))
    return Request(method, target, path, query, fields.values, version, raw[end:], raw)


def _check_host(host: str | None, version: str) -> None:
    if host is None:
        if version == "1.1":
            raise _bad_request("header field 'host' is missing: HTTP/1.1 requires it")
    elif _host(host) is None:
        raise _bad_request(f"header field 'host' has the value {_show(host)}: send host or host:port")


def _split_target(method: str, target: str, host: str | None) -> tuple[str, dict[str, str]]:
    """Decoded path and query of the target in any form that is meant for a server and not for a proxy."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
    elif target == "*" and method == "OPTIONS":
        path, query = target, ""
    else:
        absolute = _absolute_target(target)
        if absolute is None or method == "CONNECT":
            raise _bad_request(f"request target {_show(target)} is not a path: start it with /")
        authority, path, query = absolute.groups(default="")
        if host is None or authority.lower() != host.lower():
            raise _bad_request(f"request target {_show(target)} is not on the host of header field 'host'")
        path = path or "/"
    path = _decode(path, "path")
    if _control_character(path):
        raise _bad_request(f"path {_show(path)} has a control character: leave it out")
    return path, _read_query(query) if query else {}


def _read_query(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in query.replace("+", " ").split("&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition("=")
        name = _decode(raw_name, "query")
        if name in parameters:
            raise _bad_request(f"query parameter {_show(name)} is repeated: send it once")
        parameters[name] = _decode(raw_value, "query")
    return parameters


def _decode(text: str, where: str) -> str:
    """Percent-decode strictly: whole escapes, which give UTF-8."""
    if "%" not in text:
        return text
    bad = _bad_escape(text)
    if bad is not None:
        raise _bad_request(f"{where} has the escape {_show(bad.group())}: write % as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise _bad_request(f"{where} {_show(text)} is not UTF-8 when it is percent-decoded") from None


def _require_upgrade(request: Request) -> None:
    if request.method != "GET":
        body = f"method {_show(request.method)} does not open a WebSocket: use GET"
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, body, ("Allow", "GET"))
    if request.version != "1.1":
        raise _unsupported_version()
    if not is_upgrade(request):
        raise _upgrade_required("this address is for WebSockets only: connect with a WebSocket client")
    if not _lists(request, "connection", "upgrade"):
        raise _bad_request("header field 'connection' does not list 'upgrade': a proxy before this server may drop it")
    version = request.headers.get("sec-websocket-version")
    if version != _WEBSOCKET_VERSION:
        shown = "missing" if version is None else _show(version)
        raise _upgrade_required(f"header field 'sec-websocket-version' is {shown}: send {_WEBSOCKET_VERSION}")


def _require_key(request: Request) -> str:
    key = request.headers.get("sec-websocket-key")
    if key is None:
        raise _bad_request("header field 'sec-websocket-key' is missing")
    if _websocket_key(key) is None:
        raise _bad_request(f"header field 'sec-websocket-key' is {_show(key)}: send 16 random bytes in base64")
    return key


def _require_no_body(request: Request) -> None:
    """A body would be taken for frames, or the frames for a body by a proxy."""
    for name in ("content-length", "transfer-encoding"):
        if name in request.headers:
            raise _bad_request(f"header field {name!r} is in a WebSocket upgrade, which has no body: leave it out")


def _offered(request: Request) -> list[str]:
    value = request.headers.get("sec-websocket-protocol")
    if not value:  # some SDKs send the field although they offer nothing
        return []
    offered = [name.strip(" \t") for name in value.split(",")]
    for name in offered:
        if _token(name) is None:
            raise _bad_request(f"header field 'sec-websocket-protocol' lists {_show(name)}, which is not a token")
    return offered


def _choose(offered: Iterable[str], subprotocols: Container[str]) -> str | None:
    return next((name for name in offered if name in subprotocols), None)


def _lists(request: Request, name: str, token: str) -> bool:
    """Whether a field that lists tokens has this one (in lower case)."""
    value = request.headers.get(name, "").lower()
    return value == token or any(listed.strip(" \t") == token for listed in value.split(","))


def _show(value: str) -> str:
    """A client's value in a message: printable, and not longer than helps."""
    return ascii(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}...")


def _bad_request(body: str) -> _Refused:
    return _Refused(HTTPStatus.BAD_REQUEST, body)


def _unsupported_version() -> _Refused:
    return _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP version is not supported: use HTTP/1.1")


def _upgrade_required(body: str) -> _Refused:
    fields = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", _WEBSOCKET_VERSION))
    return _Refused(HTTPStatus.UPGRADE_REQUIRED, body, *fields)

"""Transports for clients whose network lets no WebSocket through: http_stream, server-sent events, and emulation.

Downwards a response that does not end carries the frames of a session like any other (`node.framing`); upwards each
batch of commands is a request of its own to `/emulation`, which names the session by its secret. Both stay with the
hub: a stream is a `Connection`, with the same bounds, time-outs and drain. The end is told by a disconnect push.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from node.bodies import BodyReader
from node.connection import CLOSE_SECONDS, CLOSING, KEPT, OPEN
from node.framing import EVENTS, LINES, MESSAGES, Wire
from node.origins import foreign_page
from node.protobuf import read_emulated
from node.protocol import ProtocolError
from node.upgrade import HeadReader, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.connection import Connection, Session
    from node.hub import Hub
    from node.protocol import Codec
    from node.upgrade import Request

HTTP_STREAM_PATH: Final = "/connection/http_stream"
SSE_PATH: Final = "/connection/sse"
EMULATION_PATH: Final = "/emulation"

KEPT_SECONDS: Final = 35
"""How long a connection of emulation waits for its next request: pongs come every 25 s."""

PREFLIGHT_SECONDS: Final = 600  # for which a browser need not ask again
ESCAPED: Final = 2  # a command in a JSON string is at most so many times as long, but for control characters
ENVELOPE_BYTES: Final = 1024  # of an emulation request, around its data

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
    b"X-Content-Type-Options: nosniff\r\nConnection: close\r\n%b\r\n"
)


class Emulated(msgspec.Struct):
    """The body of a request to `/emulation`.

    Attributes:
        session: The secret that the reply to connect gave the client.
        node: The node's id; there is but one.
        data: Commands, as in a WebSocket message.
    """

    session: str
    data: str
    node: str = ""


class _Stream:
    """Reads what a client sends behind the request that opened its stream: nothing that matters.

    Attributes:
        secret: Of its session.
    """

    def __init__(self, secret: str = "") -> None:
        self.secret = secret

    def receive(self, data: bytes) -> None:
        """Nothing is expected."""


class _Exchange:
    """Reads a request's body, and then has it answered."""

    def __init__(
        self, reader: BodyReader, refuse: Callable[[Refusal], None], then: Callable[[bytes, BodyReader], None]
    ) -> None:
        self._reader, self._refuse, self._then = reader, refuse, then

    def receive(self, data: bytes) -> None:
        """More of the body."""
        body = self._reader.receive(data)
        if isinstance(body, Refusal):
            self._refuse(body)
        elif body is not None:
            self._then(body, self._reader)


class Fallbacks:
    """The transports that work by ordinary HTTP requests.

    Args:
        codec: JSON.
        protobuf: For http_stream clients that send Protobuf.
        secret_of: The secret of a session, with which its client sends commands; connect's reply tells it.
        http_stream: Whether it is served.
        sse: Whether it is served.
    """

    def __init__(
        self, codec: Codec, protobuf: Codec, secret_of: Callable[[Session], str], *, http_stream: bool, sse: bool
    ) -> None:
        self._secret_of = secret_of
        self._messages = Wire(protobuf, MESSAGES)
        self._lines, self._events = Wire(codec, LINES), Wire(codec, EVENTS)
        self._sessions: dict[str, Connection] = {}
        self._served: dict[str, tuple[str, str, Callable[[Hub, Connection, Request], None]]] = {}
        if http_stream:
            self._served[HTTP_STREAM_PATH] = "http_stream", "POST", self._begin_http_stream
        if sse:
            self._served[SSE_PATH] = "sse", "GET", self._begin_sse
        if self._served:
            self._served[EMULATION_PATH] = "emulation", "POST", self._begin_emulation

    def serves(self, path: str) -> bool:
        """Whether requests for a path are answered here."""
        return path in self._served

    def begin(self, hub: Hub, connection: Connection, request: Request) -> None:
        """Take a connection whose request's head has come."""
        name, method, begin = self._served[request.path]
        if not hub.admits(request):
            self._refuse(hub, connection, request, foreign_page(request), "origin")
        elif request.method == "OPTIONS":
            keep = not request.rest and _has_no_body(request)
            self._answer(hub, connection, request, _preflight(method), keep=keep)
        elif request.method != method:
            refusal = Refusal(405, "Method Not Allowed", f"use {method} for {name}", (("Allow", f"{method}, OPTIONS"),))
            self._refuse(hub, connection, request, refusal, "method")
        else:
            begin(hub, connection, request)

    def forget(self, hub: Hub, connection: Connection) -> None:
        """A connection's session has ended."""
        if isinstance(connection.parser, _Stream):
            self._sessions.pop(connection.parser.secret, None)
            hub.metrics.fallback_connections = len(self._sessions)

    # -- downwards -----------------------------------------------------------------------------------------------

    def _begin_http_stream(self, hub: Hub, connection: Connection, request: Request) -> None:
        wire, media_type = self._lines, b"application/json"
        if _is_binary(request):
            wire, media_type = self._messages, b"application/octet-stream"

        def start(body: bytes, _: BodyReader) -> None:
            self._start(hub, connection, request, wire, media_type, body)

        self._read_body(hub, connection, request, hub.options.message_bytes, start)

    def _begin_sse(self, hub: Hub, connection: Connection, request: Request) -> None:
        command = request.query.get("cf_connect")
        if command is None:
            text = "the query has no cf_connect: give it the connect command in JSON, percent-encoded"
            self._refuse(hub, connection, request, Refusal(400, "Bad Request", text), "body")
            return
        self._start(hub, connection, request, self._events, b"text/event-stream", command.encode())

    def _start(  # noqa: PLR0913, PLR0917 - what a stream is made of
        self, hub: Hub, connection: Connection, request: Request, wire: Wire, media_type: bytes, commands: bytes
    ) -> None:
        connection.speak(wire)
        connection.state = OPEN
        connection.parser = _Stream()
        connection.put(_STREAM_HEAD % (media_type, _shared_with(request)))
        hub.metrics.bytes_sent += connection.flush()  # alone, so that only frames can be left over
        if connection.state is not OPEN:
            return
        session = hub.open(connection, request)
        secret = self._secret_of(session)
        connection.parser = _Stream(secret)
        self._sessions[secret] = connection
        hub.metrics.fallback_connections = len(self._sessions)
        self._hear(hub, connection, session, commands)

    # -- upwards -------------------------------------------------------------------------------------------------

    def _begin_emulation(self, hub: Hub, connection: Connection, request: Request) -> None:
        def deliver(body: bytes, reader: BodyReader) -> None:
            refusal = self._deliver(hub, body, binary=_is_binary(request))
            if refusal is not None:
                why = {404: "session", 429: "rate"}.get(refusal.status, "body")
                self._refuse(hub, connection, request, refusal, why)
            else:
                hub.metrics.emulations += 1
                self._answer(hub, connection, request, b"", keep=reader.counted and not reader.rest)

        self._read_body(hub, connection, request, ESCAPED * hub.options.message_bytes + ENVELOPE_BYTES, deliver)

    def _deliver(self, hub: Hub, body: bytes, *, binary: bool) -> Refusal | None:
        """Give a session its client's commands, or say why not."""
        try:
            if binary:
                secret, commands = read_emulated(body)
            else:
                asked = msgspec.json.decode(body, type=Emulated)
                secret, commands = asked.session, asked.data.encode()
        except (msgspec.MsgspecError, ProtocolError, UnicodeError, RecursionError) as error:
            return Refusal(400, "Bad Request", f"the body is not an object of session, node and data: {error}")
        if len(commands) > hub.options.message_bytes:
            text = f"data is longer than the {hub.options.message_bytes} bytes that are allowed: send less at once"
            return Refusal(413, "Request Entity Too Large", text)
        connection = self._sessions.get(secret)
        session = connection.session if connection is not None else None
        if connection is None or session is None or connection.state is not OPEN:
            return Refusal(404, "Not Found", "the session is unknown or has ended: connect again")
        if connection.paused:
            text = "too many commands are waiting for their answers: wait for those"
            return Refusal(429, "Too Many Requests", text, (("Retry-After", "1"),))
        try:
            self._hear(hub, connection, session, commands)
        except Exception as error:  # noqa: BLE001 - the boundary: it ends the session's connection, not this one
            hub.fail(connection, error)
        return None

    def _hear(self, hub: Hub, connection: Connection, session: Session, commands: bytes) -> None:
        session.receive(commands, hub.now)
        if connection.session is session and session.deadline < connection.deadline:
            hub.time(connection, session.deadline)

    # -- answers -------------------------------------------------------------------------------------------------

    def _read_body(
        self, hub: Hub, connection: Connection, request: Request, most: int, then: Callable[[bytes, BodyReader], None]
    ) -> None:
        def refuse(refusal: Refusal) -> None:
            self._refuse(hub, connection, request, refusal, "body")

        exchange = connection.parser = _Exchange(BodyReader(request, most), refuse, then)
        exchange.receive(request.rest)

    def _refuse(self, hub: Hub, connection: Connection, request: Request, refusal: Refusal, why: str) -> None:
        fields = refusal.fields
        if why != "origin":  # the page may read why
            fields += tuple(_sharing(request))
        told = Refusal(refusal.status, refusal.reason, refusal.body, fields)
        hub.answer(connection, told, f"{self._served[request.path][0]}_{why}")
        connection.parser = _Stream()  # what is left of a body is read, or the answer would be lost with it

    def _answer(self, hub: Hub, connection: Connection, request: Request, fields: bytes, *, keep: bool) -> None:
        """Answer 204, and wait for the next request if the client and we can tell where it begins.

        A client that has not taken the last answer yet is not waited for: nothing else bounds what it is to be sent.
        """
        listed = request.headers.get("connection", "").lower()
        keep = keep and request.version == "1.1" and "close" not in listed and not hub.admission.draining
        keep = keep and not connection.behind
        kept = b"keep-alive\r\nKeep-Alive: timeout=%d" % KEPT_SECONDS if keep else b"close"
        connection.state = OPEN  # so that the answer is queued
        connection.put(b"HTTP/1.1 204 No Content\r\nConnection: %b\r\n%b%b\r\n" % (kept, fields, _shared_with(request)))
        if keep:
            connection.state = KEPT
            connection.parser = HeadReader(hub.options.header_bytes)
            hub.time(connection, hub.now + KEPT_SECONDS)
            return
        connection.state = CLOSING
        connection.parser = _Stream()
        hub.time(connection, hub.now + CLOSE_SECONDS)
        connection.shut()


def _has_no_body(request: Request) -> bool:
    """Whether what follows a head is another request, for us as for every proxy."""
    return "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"


def _is_binary(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("application/octet-stream")


def _sharing(request: Request) -> list[tuple[str, str]]:
    """Header fields that let the page read the response, if it is of another origin (WHATWG Fetch, 3.3)."""
    origin = request.headers.get("origin")
    return [] if origin is None else [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]


def _shared_with(request: Request) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in _sharing(request)).encode("latin-1")


def _preflight(method: str) -> bytes:
    return (
        b"Access-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: content-type\r\n"
        b"Access-Control-Max-Age: %d\r\n" % (method.encode(), PREFLIGHT_SECONDS)
    )

"""One HTTP exchange on one connection: h11 and ASGI by Hypercorn's protocol classes, driven by Trio.

Every connection carries one request and one response, and is closed. So a reverse proxy can't send a WebSocket upgrade
down a connection that the hub has already given away, bytes behind a request are never taken for another request, and
each connection ends within a time whatever the client does. HTTP/2 is not offered.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from typing_extensions import override

from node.logs import events
from node.socket_stream import SocketStream

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    import h11
    from hypercorn.events import Event
    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp

    from node.metrics import Metrics

LINGER_SECONDS: Final = 2.0
"""How long bytes are still read after the response: closing with bytes unread would make TCP discard the response."""

LINGER_BYTES: Final = 1_048_576
BODY_BYTES: Final = 65_536  # read while a request is refused, where no endpoint takes a longer body
READ_BYTES: Final = 65_536

_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-type: text/plain\r\n\r\n"
    b"Too many connections at once.\n"
)

log = events(__name__)


class Peer(NamedTuple):
    """Who is at the other end.

    Attributes:
        client: The client's address and port.
        server: The address and port that it connected to.
        scheme: ``http``, or ``https`` if the connection is encrypted here.
    """

    client: tuple[str, int]
    server: tuple[str, int]
    scheme: str = "http"


class HttpServer:
    """Serves an application on connections that others accept.

    Args:
        app: An ASGI application; it is never asked to start up or shut down.
        metrics: Where open connections are counted.
        header_bytes: Most of a request's head.
        head_seconds: For a request's head.
        body_bytes: Longest body that an endpoint takes.
        most: Connections at once; the next is turned away.
        seconds: From a request's head to the end of the connection.
    """

    def __init__(  # noqa: PLR0913 - bounds, given once
        self, app: ASGIApp, metrics: Metrics, *, header_bytes: int, head_seconds: float, body_bytes: int = 0,
        most: int = 256, seconds: float = 30.0,
    ) -> None:  # fmt: skip
        self._app = ASGIWrapper(cast("ASGIFramework", app))
        self._metrics = metrics
        self._head_seconds = head_seconds
        self._most, self._seconds = most, seconds
        self._open = 0
        self._body_bytes = max(body_bytes, BODY_BYTES)
        self._options = _options(header_bytes, self._body_bytes)

    async def serve(self, stream: trio.abc.HalfCloseableStream, peer: Peer, head: bytes = b"") -> None:
        """Answer one request and close the stream; what goes wrong is logged, not raised.

        Args:
            stream: The connection; it is closed when this returns.
            peer: Who is at its other end.
            head: The bytes that were read already.
        """
        self._open += 1
        self._metrics.http_connections += 1
        try:
            if self._open > self._most:
                log.warning("http connection turned away", most=self._most, client=peer.client[0])
                await _turn_away(stream)
            else:
                exchange = _Exchange(stream, self._head_seconds, self._seconds, self._body_bytes)
                await exchange.run(self._app, self._options, peer, head)
        except* Exception as faults:  # noqa: BLE001 (a fault of one connection is not the node's)
            log.fault("http exchange failed", faults, client=peer.client[0])
        finally:
            self._open -= 1
            self._metrics.http_connections -= 1
            await trio.aclose_forcefully(stream)

    async def serve_socket(self, sock: socket.socket, head: bytes, client: str) -> None:
        """Answer one request on a socket that the hub gives away.

        Args:
            sock: Non-blocking, past its TLS handshake if it has one; it is closed when this returns.
            head: The bytes that were read already.
            client: The client's address, which a proxy may have told.
        """
        try:
            port, server = sock.getpeername()[1], sock.getsockname()[:2]
        except OSError:  # gone since
            sock.close()
            return
        scheme = "https" if isinstance(sock, ssl.SSLSocket) else "http"
        await self.serve(SocketStream(sock), Peer((client, port), server, scheme), head)

    async def listen(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Accept and serve connections until cancelled."""
        await trio.serve_listeners(self._serve_accepted, list(listeners))

    async def _serve_accepted(self, stream: trio.SocketStream) -> None:
        try:
            client, server = stream.socket.getpeername(), stream.socket.getsockname()
        except OSError:  # gone before it was accepted
            await trio.aclose_forcefully(stream)
            return
        await self.serve(stream, Peer(client[:2], server[:2]))


def _options(header_bytes: int, body_bytes: int) -> HypercornConfig:
    options = HypercornConfig()
    options.accesslog = None
    options.errorlog = logging.getLogger(__name__)
    options.include_server_header = False
    options.h11_max_incomplete_size = header_bytes
    options.keep_alive_max_requests = 0  # Connection: close on every response
    options.max_app_queue_size = body_bytes  # more events than the bytes that are read of a body can be
    return options


class _Http1(H11Protocol):
    """HTTP/1.1, whatever else the client asks for."""

    @override
    async def _check_protocol(self, event: h11.Request) -> None:
        """Decline to change to HTTP/2."""


class _Exchange:
    """A request and its response."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, head_seconds: float, seconds: float, body_bytes: int
    ) -> None:
        self._stream, self._seconds, self._body_bytes = stream, seconds, body_bytes
        self._sending = trio.Lock()
        self._answered = trio.Event()
        self._reading = trio.CancelScope()
        self._time = trio.CancelScope(deadline=trio.current_time() + head_seconds)

    async def run(self, app: ASGIWrapper, options: HypercornConfig, peer: Peer, head: bytes) -> None:
        with self._time:
            async with TaskGroup() as tasks:
                protocol = _Http1(
                    app,
                    options,
                    WorkerContext(None),
                    tasks,
                    ConnectionState({}),
                    peer.scheme == "https",
                    peer.client,
                    peer.server,
                    self._send,
                )
                with self._reading:
                    await self._read(protocol, head)
                if protocol.stream is None:
                    self._answered.set()  # nothing was asked
                await self._answered.wait()
        if self._answered.is_set():
            await self._linger()

    async def _read(self, protocol: H11Protocol, head: bytes) -> None:
        """Feed the request to the protocol until the end, or until there is more of it than any request needs."""
        left = len(head) + protocol.config.h11_max_incomplete_size + self._body_bytes
        try:
            data = head or await self._stream.receive_some(READ_BYTES)
            while data and left > 0:
                left -= len(data)
                await protocol.handle(RawData(bytes(data)))
                data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._time.cancel()

    async def _send(self, event: Event) -> None:
        match event:
            case RawData(data=data):
                try:
                    async with self._sending:
                        await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._time.cancel()
            case Updated(idle=False):  # the head is there
                self._time.deadline = trio.current_time() + self._seconds
            case Closed():
                self._answered.set()
                self._reading.cancel()
            case _:
                pass

    async def _linger(self) -> None:
        left = LINGER_BYTES
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            while left > 0 and (data := await self._stream.receive_some(READ_BYTES)):
                left -= len(data)


async def _turn_away(stream: trio.abc.HalfCloseableStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(LINGER_SECONDS):
        await stream.send_all(_BUSY)
        await stream.send_eof()
        await stream.receive_some(READ_BYTES)

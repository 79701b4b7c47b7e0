"""One attempt to send a request to a receiver: a checked address, TLS, and an answer of bounded size in bounded time.

A site's back end names the URL, so it must not be a way into the operator's network: unless the webhook allows private
addresses, a name is resolved here, every address that is not public is left out, and the connection goes to an address
that was looked at. Redirections are not followed, and of an answer only the beginning is read.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import h11
import trio

from node.webhook_delivery import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_HEAD_BYTES: Final = 16_384  # of an answer
MOST_BODY_BYTES: Final = 512  # that are read of it, for people to see what is wrong
READ_BYTES: Final = 4096
MOST_ADDRESSES: Final = 8  # of a name that are tried, one after the other

REFUSALS: Final = frozenset({400, 410, 413, 415, 422})
"""Statuses that are about this request, or for ever: the same one again would be answered the same. What is about the
receiver's state or configuration (401, 404, 500 and the like) may be mended, and is tried again."""

_EMBEDDING: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"))  # NAT64, 6to4: an IPv4 address within


class Trouble(Enum):
    """Why there was no answer; the value is what metrics and people call it."""

    NAME = "name"
    ADDRESS = "address"
    CONNECTION = "connection"
    TLS = "tls"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"


class Unanswered(Exception):
    """There was no answer that could be read; the text says why, and what to do about it."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class Answer(NamedTuple):
    """What a receiver said.

    Attributes:
        status: Of HTTP.
        retry_after: Seconds that it asks to be left alone; 0: it does not.
        text: The beginning of what it said.
        address: Where it was.
        seconds: From the look-up of its name to its answer's head.
    """

    status: int
    retry_after: float
    text: str
    address: str
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """What it means for what was sent."""
        if 200 <= self.status < 300:
            return Outcome.DELIVERED
        return Outcome.REFUSED if self.status in REFUSALS else Outcome.FAILED


async def post(
    url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float, *, allow_private: bool
) -> Answer:
    """Send a request and read its answer.

    Args:
        url: As `edge_config.webhooks.url_trouble` accepts it.
        body: JSON.
        headers: Beside those that every request has.
        timeout_seconds: For all of it.
        allow_private: Whether addresses count that are not public.

    Raises:
        Unanswered: There was no answer.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    request = h11.Request(
        method="POST", target=f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
        headers=[
            ("Host", parts.netloc), ("Content-Type", "application/json"), ("Content-Length", str(len(body))),
            ("Accept", "*/*"), ("Connection", "close"), *headers.items(),
        ],
    )  # fmt: skip
    begun = time.monotonic()
    try:
        with trio.fail_after(timeout_seconds):
            addresses = await _look_up(host, port, allow_private=allow_private)
            patience = timeout_seconds / len(addresses)
            stream, address = await _connect(addresses, port, patience, host if secure else "")
            async with stream:
                return await _exchange(stream, request, body, address, begun)
    except trio.TooSlowError as error:
        raise Unanswered(Trouble.TIMEOUT, f"no answer within {timeout_seconds:g} s") from error
    except ssl.SSLError as error:
        raise Unanswered(Trouble.TLS, _tls_text(error, host)) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise Unanswered(Trouble.TLS, _tls_text(error.__cause__, host)) from error
        raise Unanswered(Trouble.CONNECTION, "the connection broke before there was an answer") from error
    except h11.ProtocolError as error:
        raise Unanswered(Trouble.PROTOCOL, f"what came back is no HTTP/1.1: {error}") from error
    except OSError as error:
        raise Unanswered(Trouble.CONNECTION, _os_text(error)) from error


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is of the internet, and of one machine there."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or _embedded(address)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _embedded(address: IPv6Address) -> IPv4Address | None:
    nat64, sixtofour = _EMBEDDING
    if address in nat64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour if address in sixtofour else None


def read_retry_after(value: str, now: float) -> float:
    """Seconds to wait by a header field `Retry-After` (RFC 9110, 10.2.3); 0 for what is none."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)


async def _look_up(host: str, port: int, *, allow_private: bool) -> Sequence[str]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else str(error)
        raise Unanswered(Trouble.NAME, f"the name {host!r} can't be resolved: {reason}") from error
    addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
    usable = [text for text in addresses if allow_private or is_public(ip_address(text.partition("%")[0]))]
    if not usable:
        raise Unanswered(
            Trouble.ADDRESS,
            f"{host!r} is {', '.join(addresses[:3])}, which is not on the internet; a receiver in your own network"
            " needs allow_private",
        )
    return usable[:MOST_ADDRESSES]


async def _connect(
    addresses: Sequence[str], port: int, patience: float, secure_name: str
) -> tuple[trio.abc.Stream, str]:
    """A connection to the first address that takes one within `patience` seconds.

    Raises:
        OSError: None does.
    """
    failed = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    context = await trio.to_thread.run_sync(_trusted) if secure_name else None
    for address in addresses:
        try:
            with trio.move_on_after(patience):
                stream = await trio.open_tcp_stream(address, port)  # an address is not looked up again
                if context is None:
                    return stream, address
                return trio.SSLStream(stream, context, server_hostname=secure_name, https_compatible=True), address
        except OSError as error:
            failed = error
    raise failed


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities of this machine; reading them takes 20 ms."""
    return ssl.create_default_context()


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes, address: str, begun: float) -> Answer:
    exchange = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
    head = exchange.send(request) or b""
    parts = [head, exchange.send(h11.Data(data=body)) or b"", exchange.send(h11.EndOfMessage()) or b""]
    broken: trio.BrokenResourceError | None = None
    try:
        await stream.send_all(b"".join(parts))
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise
        broken = error  # it may have answered before it read all, and closed
    response = await _head(stream, exchange, broken)
    seconds = time.monotonic() - begun
    fields = {name.lower(): value for name, value in response.headers}
    retry_after = read_retry_after(
        fields.get(b"retry-after", b"").decode("latin-1").strip(), datetime.now(UTC).timestamp()
    )
    text = b"" if 200 <= response.status_code < 300 else await _beginning(stream, exchange)
    return Answer(response.status_code, retry_after, text.decode(errors="replace"), address, seconds)


async def _head(
    stream: trio.abc.Stream, exchange: h11.Connection, broken: trio.BrokenResourceError | None
) -> h11.Response:
    while True:
        event = exchange.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(READ_BYTES))
            if not data:
                raise broken or trio.BrokenResourceError("closed")
            exchange.receive_data(data)


async def _beginning(stream: trio.abc.Stream, exchange: h11.Connection) -> bytes:
    """The first bytes of an answer's body, as far as they come; that they do not is no matter."""
    body = b""
    with trio.move_on_after(1.0):
        try:
            while len(body) < MOST_BODY_BYTES:
                event = exchange.next_event()
                if event is h11.NEED_DATA:
                    exchange.receive_data(bytes(await stream.receive_some(READ_BYTES)))
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    break
        except (h11.ProtocolError, OSError, trio.BrokenResourceError):
            pass
    return body[:MOST_BODY_BYTES]


def _tls_text(error: ssl.SSLError, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {host!r} can't be trusted: {error.verify_message.rstrip('.')}"
    return f"no TLS with {host!r}: {error.reason or error}"


def _os_text(error: OSError) -> str:
    """The system's word for it; Trio puts those of all addresses behind an error of its own."""
    inner: BaseException | None = error.__cause__
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    known = inner if isinstance(inner, OSError) else error
    return os.strerror(known.errno) if known.errno else str(known)

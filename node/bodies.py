"""Bodies of HTTP/1.1 requests (RFC 9112, 6 and 7), bounded, without I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httptools

from node.upgrade import Refusal

if TYPE_CHECKING:
    from node.upgrade import Request

_CHUNKED_HEAD: Final = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK_OVERHEAD: Final = 2
"""How many times its content a chunked body may be long: chunks of a few bytes are no client's."""

_MOST_DIGITS: Final = 18


class _Chunks:
    """What llhttp calls while it reads a chunked body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.complete = True


class BodyReader:
    """Reads the body of one request as it arrives. However it is cut up, the result is the same.

    Args:
        request: Its head.
        max_bytes: Longest acceptable body.

    Attributes:
        counted: Whether its end is told by a length, so that what follows is known to be another request.
        rest: What came behind the body; known when it is complete, and only if it is counted.
    """

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._received = 0
        self._parser: httptools.HttpRequestParser | None = None
        self._chunks = _Chunks()
        self._refusal = self._measure(request)
        self.counted = self._parser is None
        self.rest = b""

    def _measure(self, request: Request) -> Refusal | None:
        self._length = 0
        length, coding = (request.headers.get(name) for name in ("content-length", "transfer-encoding"))
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                return _bad("send the body with content-length, or with transfer-encoding: chunked alone")
            self._parser = httptools.HttpRequestParser(self._chunks)
            self._parser.feed_data(_CHUNKED_HEAD)
            return None
        if length is None:
            return Refusal(411, HTTPStatus(411).phrase, "the request has no body: send one, with content-length")
        if not (length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS):
            return _bad(f"content-length is {length[:40]!a}: send the body's length in bytes")
        self._length = int(length)
        return self._too_large() if self._length > self._max_bytes else None

    def receive(self, data: bytes) -> bytes | Refusal | None:
        """The body, why it is refused, or None while more is to come. Of no use after it gave one of the first two."""
        if self._refusal is not None:
            return self._refusal
        if self._parser is not None:
            return self._receive_chunks(self._parser, data)
        self._data += data
        if len(self._data) < self._length:
            return None
        body, self.rest = bytes(self._data[: self._length]), bytes(self._data[self._length :])
        return body

    def _receive_chunks(self, parser: httptools.HttpRequestParser, data: bytes) -> bytes | Refusal | None:
        self._received += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._chunks.complete:  # else it is about what came behind the body
                return _bad(f"the chunked body is malformed: {error}")
        if self._chunks.size > self._max_bytes:
            return self._too_large()
        if self._chunks.complete:
            return b"".join(self._chunks.parts)
        return self._too_large() if self._received > _CHUNK_OVERHEAD * self._max_bytes else None

    def _too_large(self) -> Refusal:
        phrase = HTTPStatus.REQUEST_ENTITY_TOO_LARGE.phrase
        return Refusal(413, phrase, f"the body is longer than the {self._max_bytes} bytes that are allowed: send less")


def _bad(body: str) -> Refusal:
    return Refusal(400, HTTPStatus.BAD_REQUEST.phrase, body)

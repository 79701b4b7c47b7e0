"""How payloads are told apart on the way to a client: WebSocket frames, lines, server-sent events.  Sans-I/O.

A payload is what a codec makes: one reply or push. A room encodes and frames a publication once for each `Wire` that
its members use, and every member of that wire gets the same bytes; so a frame depends on nothing but its payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from node.websocket import binary_frame, close_frame, text_frame

if TYPE_CHECKING:
    from node.protocol import Codec


class Framing(Protocol):
    """A way to tell payloads apart. Runs of frames begin at a frame's start."""

    @property
    def name(self) -> str:
        """Of the transport, as metrics and logs name it."""

    @property
    def half_closes(self) -> bool:
        """Whether our side of the connection ends right after `end`; else the client answers that first."""

    def frame(self, payload: bytes) -> bytes:
        """One payload, framed."""

    def end(self, codec: Codec, code: int, reason: str) -> bytes:
        """The last frame, which tells a client that it is disconnected, and why."""

    def last_start(self, frames: bytes, at: int) -> int:
        """Where the frame begins that holds byte `at` of a run of frames, or would."""

    def frame_end(self, frames: bytes, at: int) -> int:
        """Where the frame ends that holds byte `at` - 1 of a run of frames; `at` itself at a frame's end."""


class WebSocketText:
    """Text frames (RFC 6455)."""

    name = "websocket"
    half_closes = False
    frame = staticmethod(text_frame)

    def end(self, codec: Codec, code: int, reason: str) -> bytes:  # noqa: ARG002 - every codec has the same close frame
        """See `Framing.end`."""
        return close_frame(code, reason)

    def last_start(self, frames: bytes, at: int) -> int:
        """See `Framing.last_start`."""
        start = 0
        while start < at:
            end = self.frame_end(frames, start + 1)
            if end > at:
                break
            start = end
        return start

    def frame_end(self, frames: bytes, at: int) -> int:
        """See `Framing.frame_end`."""
        start = 0
        while start < at:
            length, head = frames[start + 1], 2
            if length == 126:
                length, head = int.from_bytes(frames[start + 2 : start + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(frames[start + 2 : start + 10], "big"), 10
            start += head + length
        return start


class WebSocketBinary(WebSocketText):
    """Binary frames, which differ from text frames in a bit of their first byte."""

    frame = staticmethod(binary_frame)


class _Delimited:
    """Payloads between two marks that no payload can contain.

    Args:
        name: Of the transport.
        prefix: Before each payload.
        suffix: After each payload.
    """

    half_closes = True

    def __init__(self, name: str, prefix: bytes, suffix: bytes) -> None:
        self.name, self._prefix, self._suffix = name, prefix, suffix

    def frame(self, payload: bytes) -> bytes:
        """See `Framing.frame`."""
        return b"%b%b%b" % (self._prefix, payload, self._suffix)

    def end(self, codec: Codec, code: int, reason: str) -> bytes:
        """See `Framing.end`."""
        return self.frame(codec.push_disconnect(code, reason))

    def last_start(self, frames: bytes, at: int) -> int:
        """See `Framing.last_start`."""
        found = frames.rfind(self._suffix, 0, at)
        return 0 if found < 0 else found + len(self._suffix)

    def frame_end(self, frames: bytes, at: int) -> int:
        """See `Framing.frame_end`."""
        size = len(self._suffix)
        return frames.index(self._suffix, max(0, at - size)) + size if at else 0


class _Events(_Delimited):
    """Events, in which a carriage return ends a line as well; JSON has them only between tokens."""

    @override
    def frame(self, payload: bytes) -> bytes:
        return super().frame(payload.replace(b"\r", b"") if b"\r" in payload else payload)


class _Measured:
    """Payloads that tell their length themselves: a varint before each message of Protobuf.

    Args:
        name: Of the transport.
    """

    half_closes = True

    def __init__(self, name: str) -> None:
        self.name = name

    def frame(self, payload: bytes) -> bytes:
        """See `Framing.frame`."""
        return payload

    def end(self, codec: Codec, code: int, reason: str) -> bytes:
        """See `Framing.end`."""
        return codec.push_disconnect(code, reason)

    def last_start(self, frames: bytes, at: int) -> int:
        """See `Framing.last_start`."""
        start = 0
        while (end := self._end(frames, start)) <= at and start < at:
            start = end
        return start

    def frame_end(self, frames: bytes, at: int) -> int:
        """See `Framing.frame_end`."""
        start = 0
        while start < at:
            start = self._end(frames, start)
        return start

    def _end(self, frames: bytes, start: int) -> int:
        if start == len(frames):
            return start
        size = shift = 0
        while (byte := frames[start]) > 0x7F:
            size |= (byte & 0x7F) << shift
            shift += 7
            start += 1
        return start + 1 + (size | byte << shift)


WEB_SOCKET_TEXT = WebSocketText()
WEB_SOCKET_BINARY = WebSocketBinary()
LINES = _Delimited("http_stream", b"", b"\n")
"""Newline-delimited JSON: the body of an HTTP response that does not end."""

MESSAGES = _Measured("http_stream")
"""The same with Protobuf."""

EVENTS = _Events("sse", b"data: ", b"\n\n")
"""`text/event-stream` (WHATWG HTML, 9.2), a JSON payload in each event."""


class Wire:
    """How one sort of client is written to: a codec and a framing. A node has one object for each sort.

    Attributes:
        codec: Encodes replies and pushes.
        framing: Tells them apart.
        frame: `framing.frame`, without a look-up.
    """

    __slots__ = ("codec", "frame", "framing")

    def __init__(self, codec: Codec, framing: Framing) -> None:
        self.codec, self.framing, self.frame = codec, framing, framing.frame

    @override
    def __repr__(self) -> str:
        return f"<wire {self.framing.name} {type(self.codec).__name__}>"

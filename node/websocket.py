"""RFC 6455 framing, the server's side, without I/O.

`Parser` turns what a client sent into complete messages and control frames; the ``*_frame`` functions build what the
server sends. No extension is negotiated, so a reserved bit is a violation. Answering pings and carrying out the close
handshake are the caller's.

A frame that arrives whole, as nearly all do, is cut out of the received bytes and leaves nothing behind. Only what is
incomplete is kept: the start of a head or a control frame (less than 131 bytes), and the message under way.
"""

from __future__ import annotations

from codecs import utf_8_decode
from struct import Struct
from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform for which websockets has no compiled wheel
    from websockets.utils import apply_mask

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
FAILED: Final = 0x10
"""The peer broke the protocol. Above all opcodes, which have four bits."""

NO_STATUS: Final = 1005
"""Stands for the missing code of an empty close frame; never on the wire as a number (RFC 6455, 7.4.1)."""

MAX_CONTROL_BYTES: Final = 125
"""Longest payload of a control frame (RFC 6455, 5.5)."""

_PROTOCOL_ERROR: Final = 1002
_INVALID_PAYLOAD: Final = 1007
_TOO_BIG: Final = 1009

# A frame's first two bytes (RFC 6455, 5.2), and the two lengths that announce a longer one.
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_CONTINUATION: Final = 0x0
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_SHORTEST_TEXT: Final = 8  # bytes of input from which a head with a length of 7 or 16 bits can be read at once
_MASK_BYTES: Final = 4

_CODE_BYTES: Final = 2

_WHOLE_TEXT: Final = _FINAL | TEXT
_WHOLE_BINARY: Final = _FINAL | BINARY
_WHOLE_CLOSE: Final = _FINAL | CLOSE
_CONTROL_FRAMES: Final = frozenset({_WHOLE_CLOSE, _FINAL | PING, _FINAL | PONG})
_WHOLE_FRAMES: Final = _CONTROL_FRAMES | {_WHOLE_TEXT, _WHOLE_BINARY}
_OUTSIDE_MESSAGE: Final = _WHOLE_FRAMES | {TEXT, BINARY}
_INSIDE_MESSAGE: Final = _CONTROL_FRAMES | {_CONTINUATION, _FINAL | _CONTINUATION}
"""The first bytes that a frame may have: one look-up excludes reserved bits, reserved opcodes, fragmented control
frames, and data frames out of turn."""

_NEVER_SENT: Final = frozenset({1004, NO_STATUS, 1006})
"""Reserved codes among the registered ones (RFC 6455, 7.4.1); 1015 lies beyond the last that may be sent."""

_INCOMPLETE: Final = (-1, 0)

_SHORT_TEXT: Final = [bytes((_WHOLE_TEXT, length)) for length in range(_LENGTH_16)]
_head_16 = Struct("!BBH").pack
_head_64 = Struct("!BBQ").pack


class CloseReason(NamedTuple):
    """Why a connection closes: a code (RFC 6455, 7.4) and a text for people, which may be empty."""

    code: int
    reason: str


Event = tuple[int, bytes | CloseReason]
"""`TEXT`, `BINARY`, `PING` or `PONG` with the payload (text is valid UTF-8); `CLOSE` with the peer's `CloseReason`, or
`FAILED` with the one to close with."""


class _Violation(Exception):
    """The peer's fault; never leaves this file."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.reason = CloseReason(code, reason)


class _Message:
    """A data message of which only a part is here.

    Attributes:
        opcode: `TEXT` or `BINARY`.
        data: What is here, unmasked.
        left: How many bytes of the current frame's payload are still to come.
    """

    __slots__ = ("_final", "_mask", "_whole", "data", "left", "opcode")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.data = bytearray()
        self.left = 0
        self._mask = b""  # the current frame's, rotated to start at the next byte to come
        self._final = False  # whether the current frame is the last
        self._whole = 0  # bytes of a text that are known to be whole characters; at most 3 follow them

    def begin_frame(self, first: int, length: int, mask: bytes) -> None:
        """From now on take the payload of a frame with this head."""
        self._final = bool(first & _FINAL)
        self.left = length
        self._mask = mask

    def take(self, masked: bytes) -> bool:
        """Append bytes of the current frame's payload; whether the message is complete now.

        Raises:
            _Violation: The text can't become valid UTF-8 any more, whatever follows.
        """
        self.data += apply_mask(masked, self._mask)
        turn = len(masked) % _MASK_BYTES
        self._mask = self._mask[turn:] + self._mask[:turn]
        self.left -= len(masked)
        complete = self._final and not self.left
        if self.opcode == TEXT:
            self._whole += _count_whole_characters(self.data[self._whole :], self._whole, last=complete)
        return complete


class Parser:
    """Receives what one client sends.

    Args:
        max_message: Longest acceptable message in bytes, over all its fragments. A longer one fails with 1009 as soon
            as a frame announces it, before that frame's payload is kept.
    """

    __slots__ = ("_ended", "_held", "_max_message", "_message")

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._held = b""  # the start of a frame that can't be handled before more of it is here
        self._message: _Message | None = None
        self._ended = False

    def receive(self, data: bytes) -> list[Event]:
        """What `data` completes, in order. `CLOSE` or `FAILED` is the last event: further input is ignored."""
        if self._message is None and not self._held and not self._ended:
            payload = self._read_simple(data)
            if payload is not None:
                return [(TEXT, payload)]
        events: list[Event] = []
        if self._ended:
            return events
        if self._held:
            data = self._held + data
            self._held = b""
        position, end = 0, len(data)
        try:
            while position < end:
                message = self._message
                if message is None or not message.left:
                    position = self._receive_frame(data, position, events)
                else:
                    position = self._receive_payload(message, data, position, events)
        except _Violation as violation:
            self._end()
            events.append((FAILED, violation.reason))
        return events

    def _read_simple(self, data: bytes) -> bytes | None:
        """The payload, if `data` is just one whole text of ASCII, which most input is; None leaves it to the rest."""
        size = len(data)
        if size < _SHORTEST_TEXT or data[0] != _WHOLE_TEXT:
            return None
        length, start = data[1] - _MASKED, 6
        if length >= _LENGTH_16:
            if length == _LENGTH_64:
                return None
            length, start = data[2] << 8 | data[3], 8
            if length < _LENGTH_16:
                return None
        if length != size - start or length > self._max_message:
            return None
        payload = apply_mask(data[start:], data[start - _MASK_BYTES : start])
        return payload if payload.isascii() else None

    def _receive_frame(self, data: bytes, position: int, events: list[Event]) -> int:
        """Handle what is here of the frame at `position`; where to go on."""
        first = data[position]
        message = self._message
        if first not in (_OUTSIDE_MESSAGE if message is None else _INSIDE_MESSAGE):
            raise _first_byte_violation(first)
        length, start = _read_length(data, position)
        stop = start + length
        if first & _CONTROL:
            must_be_here = stop
        else:
            must_be_here = start
            if length > self._max_message - (0 if message is None else len(message.data)):
                raise _Violation(_TOO_BIG, f"message is longer than {self._max_message} bytes")
        if length < 0 or must_be_here > len(data):
            self._held = data[position:]
            return len(data)
        mask = data[start - _MASK_BYTES : start]
        if first not in _WHOLE_FRAMES or stop > len(data):
            message = self._message = message or _Message(first & _OPCODE)
            message.begin_frame(first, length, mask)
            return self._receive_payload(message, data, start, events)
        payload = apply_mask(data[start:stop], mask)
        if first == _WHOLE_TEXT and not payload.isascii():
            _count_whole_characters(payload, 0, last=True)
        if first == _WHOLE_CLOSE:
            events.append((CLOSE, _read_close(payload)))
            self._end()
            return len(data)
        events.append((first & _OPCODE, payload))
        return stop

    def _receive_payload(self, message: _Message, data: bytes, position: int, events: list[Event]) -> int:
        """Handle what is here of the current data frame's payload; where to go on."""
        masked = data[position : position + message.left]
        if message.take(masked):
            events.append((message.opcode, bytes(message.data)))
            self._message = None
        return position + len(masked)

    def _end(self) -> None:
        self._ended = True
        self._held = b""
        self._message = None


def _read_length(data: bytes, position: int) -> tuple[int, int]:
    """Payload length of the frame at `position`, and where its payload starts; `_INCOMPLETE` if that isn't here."""
    if len(data) < position + 2:
        return _INCOMPLETE
    length = data[position + 1] - _MASKED
    if length < 0:
        raise _Violation(_PROTOCOL_ERROR, "frame is not masked")
    start = position + 2
    if length < _LENGTH_16:
        return length, start + _MASK_BYTES
    if data[position] & _CONTROL:
        raise _Violation(_PROTOCOL_ERROR, f"control frame is longer than {MAX_CONTROL_BYTES} bytes")
    size, shortest = (2, _LENGTH_16) if length == _LENGTH_16 else (8, 1 << 16)
    if len(data) < start + size:
        return _INCOMPLETE
    length = int.from_bytes(data[start : start + size], "big")
    if length < shortest:
        raise _Violation(_PROTOCOL_ERROR, f"length {length} is written in {size} bytes, more than it needs")
    if length >> 63:
        raise _Violation(_PROTOCOL_ERROR, "length is 2**63 or more")
    return length, start + size + _MASK_BYTES


def _count_whole_characters(text: bytes | bytearray, offset: int, *, last: bool) -> int:
    """How many bytes of `text` are whole characters; all of them if it is the `last` of a message.

    Args:
        text: A part of a message that starts where a character does.
        offset: Where in the message that is.
        last: Whether the message ends with it.

    Raises:
        _Violation: It is not UTF-8, or will not be, whatever follows.
    """
    try:
        count = utf_8_decode(text, "strict", last)[1]
    except UnicodeDecodeError as error:
        raise _bad_utf8(offset + error.start) from None
    if text[count : count + 1] == b"\xed" and text[count + 1 : count + 2] >= b"\xa0":
        # The start of a surrogate, on which CPython's decoder gives its verdict one byte later than it could.
        raise _bad_utf8(offset + count)
    return count


def _bad_utf8(position: int) -> _Violation:
    return _Violation(_INVALID_PAYLOAD, f"text message is not UTF-8 at byte {position}")


def _read_close(payload: bytes) -> CloseReason:
    if not payload:
        return CloseReason(NO_STATUS, "")
    if len(payload) < _CODE_BYTES:
        raise _Violation(_PROTOCOL_ERROR, "close frame has half a close code")
    code = int.from_bytes(payload[:_CODE_BYTES], "big")
    if not _is_sendable(code):
        raise _Violation(_PROTOCOL_ERROR, f"close code {code} is reserved or not assigned")
    try:
        return CloseReason(code, payload[_CODE_BYTES:].decode())
    except UnicodeDecodeError:
        raise _Violation(_INVALID_PAYLOAD, "reason in the close frame is not UTF-8") from None


def _is_sendable(code: int) -> bool:
    """Whether a close frame may carry `code`: registered with IANA (1016 to 2999 are not), or free for applications."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in _NEVER_SENT)


def _first_byte_violation(first: int) -> _Violation:
    opcode = first & _OPCODE
    if first & _RESERVED:
        reason = "reserved bit is set, but no extension was agreed on"
    elif opcode in {TEXT, BINARY}:
        reason = "new message inside a fragmented message"
    elif opcode == _CONTINUATION:
        reason = "continuation frame without a message to continue"
    elif opcode in {CLOSE, PING, PONG}:
        reason = "control frame is fragmented"
    else:
        reason = f"opcode {opcode} is reserved"
    return _Violation(_PROTOCOL_ERROR, reason)


def text_frame(payload: bytes) -> bytes:
    """A whole text message; `payload` must be UTF-8."""
    length = len(payload)
    if length < _LENGTH_16:
        return _SHORT_TEXT[length] + payload
    return _frame(_WHOLE_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """A whole binary message."""
    return _frame(_WHOLE_BINARY, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping.

    Raises:
        ValueError: `payload` is longer than `MAX_CONTROL_BYTES`.
    """
    return _control_frame(_FINAL | PING, payload)


def pong_frame(payload: bytes = b"") -> bytes:
    """A pong; in answer to a ping, with its payload.

    Raises:
        ValueError: `payload` is longer than `MAX_CONTROL_BYTES`.
    """
    return _control_frame(_FINAL | PONG, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. `NO_STATUS` makes an empty one, so that any received `CLOSE` can be echoed.

    Args:
        code: A code that may be sent (RFC 6455, 7.4).
        reason: For people; what is beyond 123 bytes of UTF-8 is left out, in whole characters.

    Raises:
        ValueError: `code` is never sent.
    """
    if code == NO_STATUS:
        return _control_frame(_WHOLE_CLOSE, b"")
    if not _is_sendable(code):
        raise ValueError(f"close code {code} must not be sent: use 1000-1003, 1007-1014 or 3000-4999")
    text = reason.encode("utf-8", "replace")[: MAX_CONTROL_BYTES - _CODE_BYTES].decode("utf-8", "ignore")
    return _control_frame(_WHOLE_CLOSE, code.to_bytes(_CODE_BYTES, "big") + text.encode())


def _control_frame(first: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_BYTES:
        raise ValueError(f"control frame's payload of {len(payload)} bytes: at most {MAX_CONTROL_BYTES} are allowed")
    return _frame(first, payload)


def _frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < _LENGTH_16:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return _head_16(first, _LENGTH_16, length) + payload
    return _head_64(first, _LENGTH_64, length) + payload

"""What clients send, frame by frame, and what it amounts to: a table with the ideas of Autobahn's groups 1-7 and 10."""

from __future__ import annotations

from node.websocket import BINARY, CLOSE, FAILED, NO_STATUS, PING, PONG, TEXT, CloseReason

CONTINUATION = 0
MASK = b"\x37\xfa\x21\x3d"
MAX_MESSAGE = 1 << 20
"""Longest message that the receiver takes, in bytes; `CASES` go by it."""

Outcome = list[tuple[int, object]]
"""The parser's events in order; of `FAILED` only the code, since the words are for people."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    length: bytes | None = None,
) -> bytes:
    """A client's frame; `length` replaces the length as it should be written."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    first = (0x80 if final else 0) | reserved << 4 | opcode
    if mask is None:
        return bytes([first]) + length + payload
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + masked


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """What a close frame says."""
    return code.to_bytes(2, "big") + reason


def fragments(opcode: int, *payloads: bytes) -> bytes:
    """One message in several frames."""
    last = len(payloads) - 1
    return b"".join(
        frame(CONTINUATION if index else opcode, payload, final=index == last) for index, payload in enumerate(payloads)
    )


HELLO = frame(TEXT, b"Hello, world!")
HELD = (TEXT, b"Hello, world!")
GREEK = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
BEYOND_UNICODE = b"\xf4\x90\x80\x80"
SURROGATE = b"\xed\xa0\x80"
CLOSED_NORMALLY = (CLOSE, CloseReason(1000, ""))

FRAMING: dict[str, tuple[bytes, Outcome]] = {
    **{f"1.1 text of {n} bytes": (frame(TEXT, b"*" * n), [(TEXT, b"*" * n)]) for n in (0, 125, 126, 127, 128)},
    **{f"1.1 text of {n} bytes": (frame(TEXT, b"*" * n), [(TEXT, b"*" * n)]) for n in (65535, 65536)},
    **{f"1.2 binary of {n} bytes": (frame(BINARY, b"\xfe" * n), [(BINARY, b"\xfe" * n)]) for n in (0, 125, 126, 127)},
    **{f"1.2 binary of {n} bytes": (frame(BINARY, b"\xfe" * n), [(BINARY, b"\xfe" * n)]) for n in (128, 65535, 65536)},
    "1 several messages in one packet": (HELLO + frame(BINARY, b"\0") + HELLO, [HELD, (BINARY, b"\0"), HELD]),
    "10.1 a message in fragments of 1300": (
        fragments(TEXT, *(b"*" * n for n in [1300] * 50 + [536])),
        [(TEXT, b"*" * 65536)],
    ),
}

PINGS: dict[str, tuple[bytes, Outcome]] = {
    "2.1 ping": (frame(PING), [(PING, b"")]),
    "2.2 ping with text": (frame(PING, b"Hello, world!"), [(PING, b"Hello, world!")]),
    "2.3 ping with bytes that are not UTF-8": (frame(PING, b"\x00\xff\xfe\xfd"), [(PING, b"\x00\xff\xfe\xfd")]),
    "2.4 ping of 125 bytes": (frame(PING, b"\xfe" * 125), [(PING, b"\xfe" * 125)]),
    "2.5 ping of 126 bytes": (frame(PING, b"\xfe" * 126), [(FAILED, 1002)]),
    "2.5 ping with a 64-bit length": (frame(PING, length=b"\x7f" + bytes(8)), [(FAILED, 1002)]),
    "2.7 pong that nobody asked for": (frame(PONG), [(PONG, b"")]),
    "2.8 pong with payload": (frame(PONG, b"unsolicited"), [(PONG, b"unsolicited")]),
    "2.9 pong, then ping": (frame(PONG, b"a") + frame(PING, b"b"), [(PONG, b"a"), (PING, b"b")]),
    "2.10 ten pings": (
        b"".join(frame(PING, b"%d" % n) for n in range(10)),
        [(PING, b"%d" % n) for n in range(10)],
    ),
}

RESERVED: dict[str, tuple[bytes, Outcome]] = {
    **{
        f"3 reserved bits {bits} of binary": (
            frame(BINARY, b"\x00\xff", reserved=bits) + HELLO,
            [(FAILED, 1002)],
        )
        for bits in range(1, 8)
    },
    **{
        f"3 reserved bits {bits} of text": (
            HELLO + frame(TEXT, b"a", reserved=bits) + frame(PING),
            [HELD, (FAILED, 1002)],
        )
        for bits in range(1, 8)
    },
    **{f"3 reserved bits {bits} of ping": (frame(PING, reserved=bits), [(FAILED, 1002)]) for bits in range(1, 8)},
    **{f"3 reserved bits {bits} of close": (frame(CLOSE, reserved=bits), [(FAILED, 1002)]) for bits in range(1, 8)},
    **{
        f"3 reserved bits {bits} of a continuation": (
            frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", reserved=bits),
            [(FAILED, 1002)],
        )
        for bits in range(1, 8)
    },
    **{f"4 opcode {code}": (frame(code), [(FAILED, 1002)]) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"4 opcode {code} with payload, after a text": (HELLO + frame(code, b"x") + frame(PING), [HELD, (FAILED, 1002)])
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    **{
        f"4 opcode {code} inside a message": (frame(TEXT, b"a", final=False) + frame(code), [(FAILED, 1002)])
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
}

FRAGMENTATION: dict[str, tuple[bytes, Outcome]] = {
    "5.1 ping in fragments": (frame(PING, b"a", final=False) + frame(CONTINUATION, b"b"), [(FAILED, 1002)]),
    "5.2 pong in fragments": (frame(PONG, b"a", final=False) + frame(CONTINUATION, b"b"), [(FAILED, 1002)]),
    "5 close in fragments": (frame(CLOSE, b"\x03", final=False) + frame(CONTINUATION, b"\xe8"), [(FAILED, 1002)]),
    "5.3 text in two fragments": (fragments(TEXT, b"fragment1", b"fragment2"), [(TEXT, b"fragment1fragment2")]),
    "5.6 ping between two fragments": (
        frame(TEXT, b"a", final=False) + frame(PING, b"p") + frame(CONTINUATION, b"b"),
        [(PING, b"p"), (TEXT, b"ab")],
    ),
    "5.9 continuation of nothing": (frame(CONTINUATION, b"a") + HELLO, [(FAILED, 1002)]),
    "5.12 unfinished continuation of nothing": (frame(CONTINUATION, b"a", final=False) + HELLO, [(FAILED, 1002)]),
    "5.15 continuation after the end": (
        fragments(TEXT, b"a", b"b") + frame(CONTINUATION, b"c", final=False) + HELLO,
        [(TEXT, b"ab"), (FAILED, 1002)],
    ),
    "5.15 whole continuation after the end": (
        fragments(BINARY, b"a", b"b") + frame(CONTINUATION, b"c") + HELLO,
        [(BINARY, b"ab"), (FAILED, 1002)],
    ),
    "5.16 message begun after an unfinished continuation of nothing": (
        (frame(CONTINUATION, b"a", final=False) + fragments(TEXT, b"b", b"c")) * 2,
        [(FAILED, 1002)],
    ),
    "5.17 message begun after a continuation of nothing": (
        (frame(CONTINUATION, b"a") + fragments(TEXT, b"b", b"c")) * 2,
        [(FAILED, 1002)],
    ),
    "5.18 text inside a text": (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), [(FAILED, 1002)]),
    "5.18 binary inside a text": (frame(TEXT, b"a", final=False) + frame(BINARY, b"b"), [(FAILED, 1002)]),
    "5.18 new fragments inside a text": (
        frame(TEXT, b"a", final=False) + frame(TEXT, b"b", final=False),
        [(FAILED, 1002)],
    ),
    "5.19 five fragments and two pings": (
        frame(TEXT, b"1", final=False)
        + frame(CONTINUATION, b"2", final=False)
        + frame(PING, b"pongme 1!")
        + frame(CONTINUATION, b"3", final=False)
        + frame(CONTINUATION, b"4", final=False)
        + frame(PING, b"pongme 2!")
        + frame(CONTINUATION, b"5"),
        [(PING, b"pongme 1!"), (PING, b"pongme 2!"), (TEXT, b"12345")],
    ),
    "5 binary in fragments of 0 bytes": (fragments(BINARY, b"", b"", b""), [(BINARY, b"")]),
    "5 close inside a message": (frame(TEXT, b"a", final=False) + frame(CLOSE), [(CLOSE, CloseReason(NO_STATUS, ""))]),
    "5 two messages in fragments": (fragments(TEXT, b"a", b"b") * 2, [(TEXT, b"ab")] * 2),
}

TEXTS: dict[str, tuple[bytes, Outcome]] = {
    "6.1 empty text": (frame(TEXT), [(TEXT, b"")]),
    "6.1 three empty fragments": (fragments(TEXT, b"", b"", b""), [(TEXT, b"")]),
    "6.1 text between empty fragments": (fragments(TEXT, b"", b"middle", b""), [(TEXT, b"middle")]),
    "6.2 characters in one frame": (frame(TEXT, GREEK), [(TEXT, GREEK)]),
    "6.2 fragments between characters": (fragments(TEXT, GREEK[:5], GREEK[5:]), [(TEXT, GREEK)]),
    "6.2 characters cut by fragments": (
        fragments(TEXT, *(GREEK[n : n + 1] for n in range(len(GREEK)))),
        [(TEXT, GREEK)],
    ),
    "6.2 characters cut by a ping": (
        frame(TEXT, GREEK[:1], final=False) + frame(PING) + frame(CONTINUATION, GREEK[1:]),
        [(PING, b""), (TEXT, GREEK)],
    ),
    "6.3 surrogate": (frame(TEXT, GREEK + SURROGATE + b"edited"), [(FAILED, 1007)]),
    "6.3 surrogate, cut by fragments": (
        fragments(TEXT, *(bytes([byte]) for byte in GREEK + SURROGATE + b"edited")),
        [(FAILED, 1007)],
    ),
    "6.4 fragment beyond Unicode in an unfinished text": (
        frame(TEXT, GREEK, final=False) + frame(CONTINUATION, BEYOND_UNICODE, final=False),
        [(FAILED, 1007)],
    ),
    "6.4 fragment that ends at the first impossible byte": (
        frame(TEXT, GREEK + BEYOND_UNICODE[:1], final=False) + frame(CONTINUATION, BEYOND_UNICODE[1:2], final=False),
        [(FAILED, 1007)],
    ),
    "6.4 frame that stops at the first impossible byte": (
        frame(TEXT, GREEK + BEYOND_UNICODE[:2] + b"to come")[:-7],
        [(FAILED, 1007)],
    ),
    "6.3 beyond Unicode": (frame(TEXT, GREEK + BEYOND_UNICODE + b"edited"), [(FAILED, 1007)]),
    "6.3 beyond Unicode, cut by fragments": (
        fragments(TEXT, *(bytes([byte]) for byte in GREEK + BEYOND_UNICODE + b"edited")),
        [(FAILED, 1007)],
    ),
    "6 character that lacks its end": (frame(TEXT, GREEK[:-1]) + HELLO, [(FAILED, 1007)]),
    "6 character that lacks its end, in fragments": (fragments(TEXT, GREEK[:-1], b"") + HELLO, [(FAILED, 1007)]),
    "6 binary that is not UTF-8": (fragments(BINARY, b"\xff", b"\xed\xa0\x80"), [(BINARY, b"\xff\xed\xa0\x80")]),
}

VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535)

CLOSING: dict[str, tuple[bytes, Outcome]] = {
    "7.1.1 close after a text": (HELLO + frame(CLOSE, close_payload(1000)), [HELD, CLOSED_NORMALLY]),
    "7.1.2 two closes": (frame(CLOSE, close_payload(1000)) * 2, [CLOSED_NORMALLY]),
    "7.1.3 ping after close": (frame(CLOSE, close_payload(1000)) + frame(PING), [CLOSED_NORMALLY]),
    "7.1.4 text after close": (frame(CLOSE, close_payload(1000)) + HELLO, [CLOSED_NORMALLY]),
    "7.1.5 last fragment after close": (
        frame(TEXT, b"a", final=False) + frame(CLOSE, close_payload(1000)) + frame(CONTINUATION, b"b"),
        [CLOSED_NORMALLY],
    ),
    "7.1.6 long text, text, close and ping": (
        frame(TEXT, b"*" * (256 << 10)) + HELLO + frame(CLOSE, close_payload(1000)) + frame(PING),
        [(TEXT, b"*" * (256 << 10)), HELD, CLOSED_NORMALLY],
    ),
    "7.1.6 garbage after close": (frame(CLOSE, close_payload(1000)) + b"\xff" * 300, [CLOSED_NORMALLY]),
    "7.3.1 empty close": (frame(CLOSE), [(CLOSE, CloseReason(NO_STATUS, ""))]),
    "7.3.2 close of one byte": (frame(CLOSE, b"\x03"), [(FAILED, 1002)]),
    "7.3.2 close of one letter": (frame(CLOSE, b"a"), [(FAILED, 1002)]),
    "7.3.3 close with a code": (frame(CLOSE, close_payload(1000)), [CLOSED_NORMALLY]),
    "7.3.4 close with a reason": (
        frame(CLOSE, close_payload(1000, GREEK)),
        [(CLOSE, CloseReason(1000, GREEK.decode()))],
    ),
    "7.3.5 close with the longest reason": (
        frame(CLOSE, close_payload(1000, b"*" * 123)),
        [(CLOSE, CloseReason(1000, "*" * 123))],
    ),
    "7.3.6 close that is too long": (frame(CLOSE, close_payload(1000, b"*" * 124)), [(FAILED, 1002)]),
    "7.5.1 close with a reason that is not UTF-8": (
        frame(CLOSE, close_payload(1000, GREEK + BEYOND_UNICODE)),
        [(FAILED, 1007)],
    ),
    "7.5.1 close with a surrogate in its reason": (
        frame(CLOSE, close_payload(1000, GREEK + SURROGATE + b"edited")),
        [(FAILED, 1007)],
    ),
    **{
        f"7.7 close with {code}": (frame(CLOSE, close_payload(code)), [(CLOSE, CloseReason(code, ""))])
        for code in VALID_CODES
    },
    **{f"7.9 close with {code}": (frame(CLOSE, close_payload(code)), [(FAILED, 1002)]) for code in INVALID_CODES},
}

STRICTNESS: dict[str, tuple[bytes, Outcome]] = {
    "text without mask": (HELLO + frame(TEXT, b"a", mask=None), [HELD, (FAILED, 1002)]),
    "long text without mask": (frame(TEXT, b"a" * 200, mask=None), [(FAILED, 1002)]),
    "empty text without mask": (frame(TEXT, mask=None), [(FAILED, 1002)]),
    "ping without mask": (frame(PING, mask=None), [(FAILED, 1002)]),
    "continuation without mask": (frame(TEXT, final=False) + frame(CONTINUATION, mask=None), [(FAILED, 1002)]),
    "text with a mask of zeros": (frame(TEXT, b"a", mask=bytes(4)), [(TEXT, b"a")]),
    "125 bytes with a 16-bit length": (frame(TEXT, b"a" * 125, length=b"\x7e\x00\x7d"), [(FAILED, 1002)]),
    "0 bytes with a 16-bit length": (frame(TEXT, length=b"\x7e\x00\x00"), [(FAILED, 1002)]),
    "65535 bytes with a 64-bit length": (
        frame(BINARY, b"a" * 65535, length=b"\x7f" + (65535).to_bytes(8, "big")),
        [(FAILED, 1002)],
    ),
    "length with the top bit": (frame(BINARY, length=b"\x7f\x80" + bytes(7)), [(FAILED, 1002)]),
    "the longest message": (frame(BINARY, bytes(MAX_MESSAGE)), [(BINARY, bytes(MAX_MESSAGE))]),
    "one byte more": (frame(BINARY, length=b"\x7f" + (MAX_MESSAGE + 1).to_bytes(8, "big")), [(FAILED, 1009)]),
    "the largest length": (frame(BINARY, length=b"\x7f\x7f" + b"\xff" * 7), [(FAILED, 1009)]),
    "one byte more in fragments": (
        frame(BINARY, bytes(65536), final=False) + frame(CONTINUATION, length=b"\x7f" + MAX_MESSAGE.to_bytes(8, "big")),
        [(FAILED, 1009)],
    ),
}

CASES = {**FRAMING, **PINGS, **RESERVED, **FRAGMENTATION, **TEXTS, **CLOSING, **STRICTNESS}
"""For each case what a client sends, and the outcome."""

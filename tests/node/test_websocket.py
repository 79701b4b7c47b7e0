"""Framing: tables of what clients send, other implementations as oracles, and fuzzing."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import wsproto.connection
import wsproto.events
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets import frames as peer_frames
from websockets.exceptions import ProtocolError
from websockets.protocol import Protocol, Side, State

from node import websocket
from node.websocket import (
    BINARY,
    CLOSE,
    FAILED,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    CloseReason,
    Event,
    Parser,
    binary_frame,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from tests.harness.client_frames import (
    BEYOND_UNICODE,
    CASES,
    CONTINUATION,
    GREEK,
    HELD,
    HELLO,
    INVALID_CODES,
    MASK,
    MAX_MESSAGE,
    VALID_CODES,
    Outcome,
    fragments,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

untimed = settings(deadline=None)  # the machine is shared: how long an example takes says nothing


def feed_whole(parser: Parser, wire: bytes) -> list[Event]:
    return parser.receive(wire)


def feed_bytes(parser: Parser, wire: bytes) -> list[Event]:
    return [event for index in range(len(wire)) for event in parser.receive(wire[index : index + 1])]


def feed_chops(parser: Parser, wire: bytes, sizes: Iterable[int]) -> list[Event]:
    events: list[Event] = []
    position = 0
    for size in sizes:
        events += parser.receive(wire[position : position + size])
        position += size
    return events + parser.receive(wire[position:])


def feed_997(parser: Parser, wire: bytes) -> list[Event]:
    return feed_chops(parser, wire, [997] * (len(wire) // 997))


def feed_random(parser: Parser, wire: bytes) -> list[Event]:
    chance = random.Random(len(wire))
    return feed_chops(parser, wire, (chance.randint(1, 40) for _ in range(len(wire) // 20)))


def outcome(events: list[Event]) -> Outcome:
    """Events to compare: of a failure only the code, since the words are for people."""
    return [
        (kind, value.code if kind == FAILED and isinstance(value, CloseReason) else value) for kind, value in events
    ]


@pytest.mark.parametrize("feed", [feed_whole, feed_997, feed_random])
@pytest.mark.parametrize("case", CASES)
def test_a_wire_gives_its_events(case: str, feed: Callable[[Parser, bytes], list[Event]]) -> None:
    wire, expected = CASES[case]
    assert outcome(feed(Parser(MAX_MESSAGE), wire)) == expected


@pytest.mark.parametrize("case", [case for case, (wire, _) in CASES.items() if len(wire) < 2000])
def test_a_wire_gives_its_events_byte_by_byte(case: str) -> None:
    wire, expected = CASES[case]
    assert outcome(feed_bytes(Parser(MAX_MESSAGE), wire)) == expected


# UTF-8. The reference is Unicode's table 3-7 as a regular expression: not CPython's decoder, which the parser uses.

_TAIL = rb"[\x80-\xbf]"
CHARACTER = (
    rb"[\x00-\x7f]|[\xc2-\xdf]T|\xe0[\xa0-\xbf]T|[\xe1-\xec\xee\xef]TT|\xed[\x80-\x9f]T"
    rb"|\xf0[\x90-\xbf]TT|[\xf1-\xf3]TTT|\xf4[\x80-\x8f]TT"
).replace(b"T", _TAIL)
START = (
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef]T?|\xed[\x80-\x9f]?"
    rb"|\xf0(?:[\x90-\xbf]T?)?|[\xf1-\xf3]T{0,2}|\xf4(?:[\x80-\x8f]T?)?"
).replace(b"T", _TAIL)
is_utf8 = re.compile(b"(?:" + CHARACTER + b")*").fullmatch
may_become_utf8 = re.compile(b"(?:" + CHARACTER + b")*(?:" + START + b")?").fullmatch

INCOMPLETE = (b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80", b"\xdf", b"\xef\xbf",
              b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf")  # fmt: skip
SURROGATES = [
    bytes([0xED, second, third]) for second in (0xA0, 0xAD, 0xAE, 0xAF, 0xB0, 0xBE, 0xBF) for third in (0x80, 0xBF)
]
VALID_TEXTS = [
    b"hello\x24world", b"hello\xc2\xa2world", b"hello\xe2\x82\xacworld", b"hello\xf0\xa4\xad\xa2world", GREEK,
    # the first and the last of each length; beside the surrogates; the last of all
    b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80", b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xed\x9f\xbf",
    b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf",
    *(GREEK[:size] for size in range(1, len(GREEK)) if is_utf8(GREEK[:size])),
    # code points that are no characters, but are valid (Unicode's corrigendum 9), and specials
    *(chr(plane << 16 | last).encode() for plane in range(17) for last in (0xFFFE, 0xFFFF)),
    *(chr(point).encode() for point in range(0xFDD0, 0xFDF0)),
    *(b"\xef\xbf" + bytes([last]) for last in range(0xB9, 0xC0)),
]  # fmt: skip
INVALID_TEXTS = [
    # five and six bytes; beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf", BEYOND_UNICODE, b"\xf5\x80\x80\x80",
    # tails without a start, starts without a tail, impossible bytes
    *(b"\x80\xbf\x80\xbf\x80\xbf"[:size] for size in range(1, 7)), b"\xbf", bytes(range(0x80, 0xC0)),
    *(bytes([start, 0x20]) for start in range(0xC0, 0xFE)), *INCOMPLETE, b"".join(INCOMPLETE),
    *(b" ".join(bytes([start]) for start in starts) + b" "
      for starts in (range(0xC0, 0xE0), range(0xE0, 0xF0), range(0xF0, 0xF8), range(0xF8, 0xFC), range(0xFC, 0xFE))),
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    # longer than needed: a slash, the largest of each length, NUL
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80",
    *SURROGATES, *(high + low for high in SURROGATES[:8] for low in SURROGATES[8:]),
    *(GREEK[:size] for size in range(1, len(GREEK)) if not is_utf8(GREEK[:size])),
]  # fmt: skip


@pytest.mark.parametrize("text", VALID_TEXTS, ids=bytes.hex)
def test_valid_text_arrives(text: bytes) -> None:
    assert Parser(MAX_MESSAGE).receive(frame(TEXT, text)) == [(TEXT, text)]


@pytest.mark.parametrize("text", INVALID_TEXTS, ids=bytes.hex)
def test_invalid_text_fails(text: bytes) -> None:
    assert outcome(Parser(MAX_MESSAGE).receive(frame(TEXT, text))) == [(FAILED, 1007)]


@pytest.mark.parametrize("text", INVALID_TEXTS, ids=bytes.hex)
def test_invalid_text_in_its_place_in_a_longer_one_fails(text: bytes) -> None:
    wire = fragments(TEXT, GREEK + text[:1], text[1:], b"edited")
    assert outcome(Parser(MAX_MESSAGE).receive(wire)) == [(FAILED, 1007)]


def assert_fails_as_soon_as_certain(text: bytes, pieces: Iterable[bytes]) -> None:
    """`pieces` brings the bytes of a text that never ends, one at a time."""
    parser = Parser(MAX_MESSAGE)
    for size, piece in enumerate(pieces, start=1):
        certain = not may_become_utf8(text[:size])
        assert outcome(parser.receive(piece)) == ([(FAILED, 1007)] if certain else [])
        if certain:
            return


mostly_text = st.lists(st.one_of(st.binary(max_size=4), st.sampled_from(VALID_TEXTS + INVALID_TEXTS))).map(b"".join)


@untimed
@given(mostly_text)
def test_an_unfinished_text_in_fragments_fails_at_the_first_hopeless_byte(text: bytes) -> None:
    pieces = (frame(CONTINUATION if n else TEXT, text[n : n + 1], final=False) for n in range(len(text)))
    assert_fails_as_soon_as_certain(text, pieces)


@untimed
@given(mostly_text)
def test_an_unfinished_frame_of_text_fails_at_the_first_hopeless_byte(text: bytes) -> None:
    wire = frame(TEXT, text + b"more")
    head = len(wire) - len(text) - 4
    pieces = (wire[: head + 1] if n == 0 else wire[head + n : head + n + 1] for n in range(len(text)))
    assert_fails_as_soon_as_certain(text, pieces)


@untimed
@given(mostly_text)
def test_a_whole_text_arrives_if_and_only_if_it_is_utf8(text: bytes) -> None:
    expected: Outcome = [(TEXT, text)] if is_utf8(text) else [(FAILED, 1007)]
    assert outcome(Parser(MAX_MESSAGE).receive(frame(TEXT, text))) == expected


def test_bad_text_is_located_for_the_one_who_sent_it() -> None:
    assert Parser(MAX_MESSAGE).receive(frame(TEXT, b"abc\xff")) == [
        (FAILED, CloseReason(1007, "text message is not UTF-8 at byte 3"))
    ]


# How the bytes are cut makes no difference, and nothing that a client sends does harm.

SMALL = 64
"""Longest message in generated examples: small, so that they often come near it."""

client_frames = st.builds(
    frame,
    st.sampled_from([CONTINUATION, CONTINUATION, TEXT, TEXT, BINARY, PING, PONG, CLOSE, 3]),
    st.one_of(
        st.binary(max_size=8),
        st.text(max_size=40).map(str.encode),
        st.integers(0, 130).map(bytes),
        st.just(b"\x03\xe8"),
    ),
    final=st.sampled_from([True, True, False]),
    reserved=st.sampled_from([0] * 15 + [1]),
    mask=st.sampled_from([MASK, bytes(4), b"\xff\x00\xaa\x01", MASK, MASK, MASK, MASK, None]),
)
messages = st.one_of(
    st.builds(frame, st.just(TEXT), st.text(max_size=30).map(str.encode)),
    st.builds(frame, st.just(PING), st.binary(max_size=125)),
    st.builds(fragments, st.just(BINARY), st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=20)),
    st.text(max_size=15).map(str.encode).map(lambda text: fragments(TEXT, *(bytes([byte]) for byte in text), b"")),
)
wires = st.one_of(
    st.lists(messages).map(b"".join),
    st.tuples(st.lists(messages, max_size=3).map(b"".join), st.lists(client_frames).map(b"".join), st.binary()).map(
        b"".join
    ),
    st.binary(),
)
chops = st.lists(st.integers(0, 20))


@settings(deadline=None, max_examples=500)
@given(wires, chops)
def test_any_chopping_gives_the_same_events(wire: bytes, sizes: list[int]) -> None:
    whole = Parser(SMALL).receive(wire)
    assert feed_chops(Parser(SMALL), wire, sizes) == whole
    assert feed_bytes(Parser(SMALL), wire) == whole


LONGEST = 1 << 16  # the first length that takes 64 bits
lengths = st.one_of(
    st.integers(0, 140), st.integers(0, 140), st.integers(LONGEST - 3, LONGEST + 3), st.integers(0, 70_000)
)


def written(size: int, width: int) -> bytes:
    """A length in so many bytes behind the head's second, even if fewer would do; cut off if it needs more."""
    marks = {0: b"", 2: b"\x7e", 8: b"\x7f"}
    return marks[width] + (size % (1 << 8 * width)).to_bytes(width, "big") if width else bytes([size & 0x7F])


long_frames = st.builds(
    lambda opcode, size, said, width, mask, byte: frame(opcode, byte * size, mask=mask, length=written(said, width)),
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, PING]),
    lengths,
    lengths,
    st.sampled_from([0, 2, 8, 8]),
    st.sampled_from([MASK, bytes(4), b"\x00\x00\x00\x77"]),
    st.sampled_from([b"a", b"a", b"\xff"]),
)
right_frames = st.builds(
    lambda opcode, size, width, mask: frame(opcode, b"a" * size, mask=mask, length=written(size, width)),
    st.sampled_from([TEXT, TEXT, BINARY, PING]),
    lengths,
    st.sampled_from([0, 2, 8, 8]),
    st.sampled_from([MASK, bytes(4)]),
)
heads = st.builds(
    lambda head, rest: head + rest, st.sampled_from([b"\x81\xff", b"\x81\xfe", b"\x82\xff"]), st.binary(max_size=20)
)
cuts = st.one_of(st.none(), st.sampled_from([131, 132, 133, 134, 135]), st.integers(0, 150))


@settings(deadline=None, max_examples=300)
@given(st.one_of(right_frames, long_frames, heads.map(lambda head: head + b"a" * 140), st.binary(max_size=150)), cuts)
@example(frame(TEXT, b"a" * LONGEST, mask=bytes(4)), 133)  # the beginning of a message
@example(frame(TEXT, b"b" * 119, mask=bytes(4), length=written(119, 8)), None)  # a length that needs no 64 bits
def test_a_frame_that_comes_at_once_gives_the_events_of_one_that_comes_byte_by_byte(
    wire: bytes, cut: int | None
) -> None:
    wire = wire[:cut]
    parser = Parser(LONGEST)
    one_by_one = feed_bytes(parser, wire[:300]) + feed_997(parser, wire[300:])
    assert Parser(LONGEST).receive(wire) == one_by_one


@settings(deadline=None, max_examples=300)
@given(wires, chops)
def test_no_more_is_kept_than_a_message_and_a_frame_that_is_not_whole(wire: bytes, sizes: list[int]) -> None:
    parser = Parser(SMALL)
    position = 0
    for size in [*sizes, len(wire)]:
        parser.receive(wire[position : position + size])
        position += size
        kept = len(parser._message.data) if parser._message else 0
        assert kept <= SMALL
        assert len(parser._held) < 131


@untimed
@given(wires, wires)
def test_the_end_is_final(wire: bytes, more: bytes) -> None:
    parser = Parser(SMALL)
    events = parser.receive(wire)
    assert all(kind not in {CLOSE, FAILED} for kind, _ in events[:-1])
    if events and events[-1][0] in {CLOSE, FAILED}:
        assert parser.receive(more) == []


@untimed
@given(wires)
def test_what_to_close_with_fits_a_close_frame(wire: bytes) -> None:
    for kind, value in Parser(SMALL).receive(wire):
        if kind == FAILED and isinstance(value, CloseReason):
            sent = close_frame(*value)
            assert sent[1] == len(sent) - 2 <= 125
            assert sent[4:].decode() == value.reason


def test_a_message_that_is_too_long_is_refused_before_its_payload() -> None:
    parser = Parser(SMALL)
    announcement = frame(BINARY, bytes(SMALL + 1))[:2]
    assert outcome(parser.receive(announcement)) == [(FAILED, 1009)]


def test_an_unfinished_message_is_dropped_at_the_end() -> None:
    parser = Parser(MAX_MESSAGE)
    parser.receive(frame(BINARY, bytes(MAX_MESSAGE), final=False))
    parser.receive(frame(CLOSE))
    assert parser._message is None


def test_an_idle_parser_costs_less_than_300_bytes() -> None:
    wire = fragments(TEXT, b"a", b"b") + HELLO + frame(PING, b"p")
    parsers: list[Parser | None] = [None] * 1000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(1000):
            parser = parsers[index] = Parser(MAX_MESSAGE)
            feed_bytes(parser, wire)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 1000 < 300


# What the server sends.


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_frames_of_every_length_reach_a_client(size: int) -> None:
    payload = b"x" * size
    client = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    client.receive_data(text_frame(payload) + binary_frame(payload))
    texts, binaries = "", b""
    for event in client.events():
        if isinstance(event, wsproto.events.TextMessage):
            texts += event.data
        elif isinstance(event, wsproto.events.BytesMessage):
            binaries += event.data
    assert (texts, binaries) == (payload.decode(), payload)


def test_control_frames_reach_a_client() -> None:
    client = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    client.receive_data(ping_frame(b"a") + pong_frame(b"b") + close_frame(3001, "shutdown"))
    assert list(client.events()) == [
        wsproto.events.Ping(payload=b"a"),
        wsproto.events.Pong(payload=b"b"),
        wsproto.events.CloseConnection(code=3001, reason="shutdown"),
    ]


@pytest.mark.parametrize("make", [ping_frame, pong_frame])
def test_a_control_frame_of_126_bytes_is_not_made(make: Callable[[bytes], bytes]) -> None:
    assert len(make(bytes(125))) == 127
    with pytest.raises(ValueError, match="126 bytes: at most 125"):
        make(bytes(126))


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_code_that_may_be_received_may_be_sent(code: int) -> None:
    assert close_frame(code) == bytes([0x88, 2]) + code.to_bytes(2, "big")


@pytest.mark.parametrize("code", [-1, *(code for code in INVALID_CODES if code != NO_STATUS), 65536])
def test_a_code_that_is_never_sent_is_not_framed(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code} must not be sent"):
        close_frame(code)


def test_the_echo_of_an_empty_close_is_empty() -> None:
    assert close_frame(NO_STATUS) == b"\x88\x00"


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_a_long_reason_is_cut_between_characters(reason: str) -> None:
    sent = close_frame(1000, reason)
    text = sent[4:].decode()
    whole = reason.encode("utf-8", "replace").decode()
    assert sent[1] == len(sent) - 2 <= 125
    assert whole.startswith(text)
    assert text == whole or len(text.encode()) > 119


# Other implementations as oracles.

client_events = st.one_of(
    st.builds(wsproto.events.TextMessage, data=st.text(max_size=200), message_finished=st.booleans()),
    st.builds(wsproto.events.BytesMessage, data=st.binary(max_size=200), message_finished=st.booleans()),
    st.builds(wsproto.events.Ping, payload=st.binary(max_size=125)),
    st.builds(wsproto.events.Pong, payload=st.binary(max_size=125)),
)


@untimed
@given(st.lists(client_events), chops)
def test_what_wsproto_sends_arrives(sent: list[wsproto.events.Event], sizes: list[int]) -> None:
    client = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    wire = b""
    expected: list[Event] = []
    begun: tuple[int, bytes] | None = None
    for event in sent:
        if isinstance(event, wsproto.events.Ping):
            expected.append((PING, bytes(event.payload)))
        elif isinstance(event, wsproto.events.Pong):
            expected.append((PONG, bytes(event.payload)))
        elif isinstance(event, wsproto.events.TextMessage | wsproto.events.BytesMessage):
            kind = TEXT if isinstance(event, wsproto.events.TextMessage) else BINARY
            if begun is not None and begun[0] != kind:
                continue  # wsproto goes on with the message that was begun
            data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            begun = (kind, (begun[1] if begun else b"") + data)
            if event.message_finished:
                expected.append(begun)
                begun = None
        wire += client.send(event)
    wire += client.send(wsproto.events.CloseConnection(code=4000, reason="bye"))
    expected.append((CLOSE, CloseReason(4000, "bye")))
    assert feed_chops(Parser(MAX_MESSAGE), wire, sizes) == expected


binary_frames = st.builds(
    frame,
    st.sampled_from([CONTINUATION, CONTINUATION, BINARY, BINARY, PING, PONG, 3]),
    st.one_of(st.binary(max_size=8), st.integers(0, 130).map(bytes)),
    final=st.booleans(),
    reserved=st.sampled_from([0] * 9 + [1]),
    mask=st.sampled_from([MASK] * 9 + [None]),
)


def judge_by_websockets(wire: bytes) -> Outcome:
    """The outcome according to `websockets`, which leaves UTF-8 and the joining of fragments to its callers."""
    peer = Protocol(Side.SERVER, state=State.OPEN, max_size=MAX_MESSAGE)
    peer.receive_data(wire)
    result: Outcome = []
    message = b""
    for event in peer.events_received():
        assert isinstance(event, peer_frames.Frame)
        if event.opcode in {peer_frames.Opcode.PING, peer_frames.Opcode.PONG}:
            result.append((int(event.opcode), bytes(event.data)))
            continue
        message += event.data
        if event.fin:
            result.append((BINARY, message))
            message = b""
    if peer.parser_exc is not None:
        assert isinstance(peer.parser_exc, ProtocolError)
        result.append((FAILED, 1002))
    return result


@settings(deadline=None, max_examples=300)
@given(st.lists(binary_frames).map(b"".join))
def test_websockets_judges_alike(wire: bytes) -> None:
    assert outcome(Parser(MAX_MESSAGE).receive(wire)) == judge_by_websockets(wire)


def test_without_compiled_unmasking_messages_arrive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    spec = importlib.util.spec_from_file_location("websocket_in_pure_python", websocket.__file__)
    assert spec is not None
    assert spec.loader is not None
    pure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pure)
    assert pure.apply_mask.__module__ == "websockets.utils"
    assert feed_bytes(pure.Parser(MAX_MESSAGE), HELLO) == [HELD]

"""Where frames begin and end in a run of them: there a client that is too slow is cut off."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.framing import EVENTS, LINES, MESSAGES, WEB_SOCKET_TEXT, Framing, Wire
from node.protobuf import varint
from node.protocol import JsonCodec

FRAMINGS = pytest.mark.parametrize("framing", [WEB_SOCKET_TEXT, LINES, EVENTS], ids=lambda framing: framing.name)
payloads = st.lists(
    st.binary(min_size=1, max_size=300).map(lambda data: data.replace(b"\n", b" ")), min_size=1, max_size=6
)


@FRAMINGS
@given(payloads=payloads, data=st.data())
def test_a_byte_of_a_run_lies_between_the_bounds_of_its_frame(
    framing: Framing, payloads: list[bytes], data: st.DataObject
) -> None:
    frames = [framing.frame(payload) for payload in payloads]
    run, bounds = b"".join(frames), [0]
    for frame in frames:
        bounds.append(bounds[-1] + len(frame))
    at = data.draw(st.integers(0, len(run)))
    assert framing.last_start(run, at) == max(bound for bound in bounds if bound <= at)
    assert framing.frame_end(run, at) == min(bound for bound in bounds if bound >= at)


@given(payloads=payloads, data=st.data())
def test_messages_that_tell_their_length_are_frames_already(payloads: list[bytes], data: st.DataObject) -> None:
    frames = [varint(len(payload)) + payload for payload in payloads]
    run, bounds = b"".join(map(MESSAGES.frame, frames)), [0]
    for frame in frames:
        bounds.append(bounds[-1] + len(frame))
    at = data.draw(st.integers(0, len(run)))
    assert MESSAGES.last_start(run, at) == max(bound for bound in bounds if bound <= at)
    assert MESSAGES.frame_end(run, at) == min(bound for bound in bounds if bound >= at)


def test_frames_look_as_their_specifications_say() -> None:
    assert LINES.frame(b"{}") == b"{}\n"
    assert EVENTS.frame(b"{}") == b"data: {}\n\n"
    assert WEB_SOCKET_TEXT.frame(b"{}") == b"\x81\x02{}"


def test_a_return_between_tokens_of_json_ends_no_line_of_an_event() -> None:
    assert EVENTS.frame(b'{"a":1,\r"b":"\\r"}\r') == b'data: {"a":1,"b":"\\r"}\n\n'


@pytest.mark.parametrize(("code", "reconnect"), [(3001, True), (3500, False)])
def test_without_a_close_frame_the_end_is_a_push(code: int, *, reconnect: bool) -> None:
    codec = JsonCodec()
    line = LINES.end(codec, code, 'said "no"')
    told = msgspec.json.decode(line)["push"]["disconnect"]
    assert (told["code"], told["reason"], told.get("reconnect", False)) == (code, 'said "no"', reconnect)
    assert EVENTS.end(codec, code, "x").startswith(b'data: {"push":{"disconnect"')
    assert WEB_SOCKET_TEXT.end(codec, code, "x")[:1] == b"\x88"
    assert "http_stream JsonCodec" in repr(Wire(codec, LINES))

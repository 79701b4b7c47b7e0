"""The JSON of the client protocol: strict in, one line out."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from node.codes import CommandError, Disconnect, DisconnectCode, ErrorCode, UnsubscribeCode, too_many
from node.protocol import (
    BODIES,
    ConnectResult,
    HistoryResult,
    JsonCodec,
    ProtocolError,
    SubscribeResult,
    client_info,
    expiry,
    json_string,
    name_of,
)

CODEC = JsonCodec(max_commands=3)


def test_several_commands_come_in_one_message_one_a_line() -> None:
    commands = CODEC.decode(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}\r\n\n{}')
    assert [name_of(command) for command in commands] == ["connect", "subscribe", ""]
    assert commands[1].subscribe is not None
    assert commands[1].subscribe.channel == "a"


def test_unknown_fields_are_ignored() -> None:
    (command,) = CODEC.decode(
        b'{"id":1,"params":{},"subscribe":{"channel":"a","flag":1,"tf":{"op":"and"},"delta":"x"}}'
    )
    assert name_of(command) == "subscribe"


@pytest.mark.parametrize("name", BODIES)
def test_every_command_is_known_by_its_name(name: str) -> None:
    (command,) = CODEC.decode(json.dumps({"id": 1, name: {}}).encode())
    assert name_of(command) == name


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "truncated"),
        (b"hello", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"id":"1","connect":{}}', "Expected `int`"),
        (b'{"id":-1,"connect":{}}', ">= 0"),
        (b'{"id":4294967296,"connect":{}}', "<= 4294967295"),
        (b'{"id":1,"subscribe":{"channel":5}}', "Expected `str`"),
        (b'{"id":1,"subscribe":{"offset":-1}}', ">= 0"),
        (b'{"id":1,"publish":{"data":{"a":\xff}}}', "not UTF-8 at byte 31"),
        (b'{"id":1,"publish":{"data":"\xed\xa0\x80"}}', "not UTF-8"),
        (b'{"id":1,"publish":{"data":"\\ud800"}}', "truncated"),
        (b'{"id":1,"publish":{"data":' + b"[" * 100_000, "nested too deeply"),
        (b'{"id":1,"publish":\n{"data":1}}', "truncated"),
        (b"{}\n{}\n{}\n{}\n{}", "5 commands in a message; send 1 to 3"),
        (b"\n\n", "0 commands"),
    ],
)
def test_what_is_not_the_protocol_is_refused_and_named(payload: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        CODEC.decode(payload)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ({"id": 7}, "command 7 is none of connect,"),
        ({"id": 7, "foo": {}}, "none of"),
        ({"id": 7, "ping": {}, "publish": {}}, "command 7 is several: publish, ping; send an object for each"),
        ({"publish": {}}, "publish has no id; give one above 0"),
        ({"id": 0, "send": {}, "rpc": {}}, "several"),
    ],
)
def test_a_command_is_exactly_one_thing(command: dict[str, Any], complaint: str) -> None:
    (decoded,) = CODEC.decode(json.dumps(command).encode())
    with pytest.raises(ProtocolError, match=complaint):
        name_of(decoded)


def test_send_needs_no_id_and_an_empty_object_is_a_pong() -> None:
    assert [name_of(command) for command in CODEC.decode(b'{"send":{"data":1}}\n{}')] == ["send", ""]


ERROR = CommandError(ErrorCode.TOO_MANY_REQUESTS, "wait 1.0 s")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (CODEC.ping, {}),
        (CODEC.published(3), {"id": 3, "publish": {}}),
        (CODEC.empty(3, "ping"), {"id": 3, "ping": {}}),
        (CODEC.rpc(3, b'{"a":1}'), {"id": 3, "rpc": {"data": {"a": 1}}}),
        (CODEC.expiry(3, "refresh", expiry(None)), {"id": 3, "refresh": {}}),
        (CODEC.expiry(3, "sub_refresh", expiry(9)), {"id": 3, "sub_refresh": {"expires": True, "ttl": 9}}),
        (CODEC.presence(3, {}), {"id": 3, "presence": {"presence": {}}}),
        (
            CODEC.presence(3, {"c": client_info("u", "c", b'{"n":1}', b"")}),
            {"id": 3, "presence": {"presence": {"c": {"user": "u", "client": "c", "conn_info": {"n": 1}}}}},
        ),
        (CODEC.presence_stats(3, 2, 1), {"id": 3, "presence_stats": {"num_clients": 2, "num_users": 1}}),
        (
            CODEC.history(3, HistoryResult([Raw(CODEC.publication(b"1", 4, b""))], "e", 4)),
            {"id": 3, "history": {"publications": [{"data": 1, "offset": 4}], "epoch": "e", "offset": 4}},
        ),
        (CODEC.subscribed(3, SubscribeResult()), {"id": 3, "subscribe": {}}),
        (
            CODEC.subscribed(3, SubscribeResult(recovered=True, was_recovering=True, offset=2, epoch="e")),
            {"id": 3, "subscribe": {"recovered": True, "was_recovering": True, "offset": 2, "epoch": "e"}},
        ),
        (
            CODEC.connected(1, ConnectResult("c", "v", subs={"a": SubscribeResult(epoch="e")}, ping=25, pong=True)),
            {
                "id": 1,
                "connect": {"client": "c", "version": "v", "subs": {"a": {"epoch": "e"}}, "ping": 25, "pong": True},
            },
        ),
        (
            CODEC.error(3, ERROR),
            {"id": 3, "error": {"code": 111, "message": "too many requests: wait 1.0 s", "temporary": True}},
        ),
        (
            CODEC.error(3, too_many(1.21, "some_limit")),
            {
                "id": 3,
                "error": {
                    "code": 111,
                    "message": "too many requests: wait 1.3 s (some_limit)",
                    "temporary": True,
                    "retryAfter": 1.3,
                },
            },
        ),
        (
            CODEC.error(3, CommandError(ErrorCode.BAD_REQUEST)),
            {"id": 3, "error": {"code": 107, "message": "bad request"}},
        ),
        (
            CODEC.push_publication(b'"a"', CODEC.publication(b"1", 4, b'{"user":"u"}')),
            {"push": {"channel": "a", "pub": {"data": 1, "info": {"user": "u"}, "offset": 4}}},
        ),
        (
            CODEC.push_publication(b'"a"', CODEC.publication(b"1", 0, b'{"user":"u"}')),
            {"push": {"channel": "a", "pub": {"data": 1, "info": {"user": "u"}}}},
        ),
        (
            CODEC.push_publication(b'"a"', CODEC.publication(b"1", 0, b"")),
            {"push": {"channel": "a", "pub": {"data": 1}}},
        ),
        (
            CODEC.push_join(b'"a"', client_info("u", "c", b"", b"2")),
            {"push": {"channel": "a", "join": {"info": {"user": "u", "client": "c", "chan_info": 2}}}},
        ),
        (CODEC.push_leave(b'"a"', b"{}"), {"push": {"channel": "a", "leave": {"info": {}}}}),
        (
            CODEC.push_unsubscribe("a", 2500, "insufficient state"),
            {"push": {"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
        ),
        (CODEC.push_message(b'"x"'), {"push": {"message": {"data": "x"}}}),
    ],
)
def test_replies_and_pushes_have_the_protocols_shape(payload: bytes, expected: dict[str, Any]) -> None:
    assert json.loads(payload) == expected


@given(st.text())
def test_no_text_breaks_a_line(text: str) -> None:
    try:
        payload = CODEC.push_unsubscribe(text, 2000, text)
    except UnicodeEncodeError:
        return  # lone surrogates: decoding gives none
    assert b"\n" not in payload
    assert json.loads(payload)["push"]["channel"] == text == json.loads(json_string(text))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_decoded_or_refused(payload: bytes) -> None:
    try:
        commands = CODEC.decode(payload)
    except ProtocolError:
        return
    assert commands


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_published_data_stays_as_it_is(value: Any) -> None:  # noqa: ANN401 - JSON
    command = b'{"id":1,"publish":{"channel":"a","data":%b}}' % json.dumps(value, ensure_ascii=False).encode(
        errors="replace"
    )
    (decoded,) = CODEC.decode(command)
    assert decoded.publish is not None
    data = bytes(decoded.publish.data)
    assert b"\n" not in data
    assert json.loads(CODEC.push_publication(b'"a"', CODEC.publication(data, 1, b"")))


def test_the_codes_are_those_that_clients_know() -> None:
    assert {int(code): code.temporary for code in ErrorCode} == {
        100: True, 101: False, 102: False, 103: False, 104: False, 105: False, 106: False, 107: False, 108: False,
        109: True, 110: False, 111: True, 112: False,
    }  # fmt: skip
    assert [int(code) for code in DisconnectCode if code.reconnects] == [
        3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014,
    ]  # fmt: skip
    assert [int(code) for code in DisconnectCode if not code.reconnects] == list(range(3500, 3510))
    assert [int(code) for code in UnsubscribeCode if code.resubscribes] == [2500, 2501, 2502]


def test_a_close_reason_fits_into_its_frame() -> None:
    end = Disconnect(DisconnectCode.BAD_REQUEST, "ü" * 100)
    assert end.reason.startswith("bad request: ü")
    assert len(end.reason.encode()) <= 123


def test_an_offset_of_63_bits_survives() -> None:
    top = 2**63 - 1
    (command,) = CODEC.decode(msgspec.json.encode({"id": 1, "subscribe": {"channel": "a", "offset": top}}))
    assert command.subscribe is not None
    assert command.subscribe.offset == top

"""Edits, removals, reactions and pins: what a client gives, and what the log keeps of it."""

from __future__ import annotations

import json

import pytest

from edge_config.limits import Limits
from node.chat_entries import ACTIONS, canonical, check, parse
from node.codes import CommandError, ErrorCode

LIMITS = Limits(body_bytes=600, content_bytes=500, meta_bytes=100)


def kept(rpc: str, **given: object) -> bytes:
    """What the log keeps of an rpc."""
    action = ACTIONS[rpc]
    parameters = {"channel": "r", "id": "1", "target": 5, **given}
    asked = parse(action, json.dumps(parameters).encode())
    check(asked, LIMITS)
    return canonical(action, asked, "author")


@pytest.mark.parametrize(
    ("rpc", "given", "data"),
    [
        ("edit", {"content": "x"}, b'{"id":"1","type":"edit","target":5,"content":"x"}'),
        ("delete", {}, b'{"id":"1","type":"removed","target":5,"by":"author"}'),
        ("delete", {"reason": "spam"}, b'{"id":"1","type":"removed","target":5,"by":"author","reason":"spam"}'),
        ("restore", {}, b'{"id":"1","type":"restored","target":5,"by":"author"}'),
        ("react", {"emoji": "\U0001f44d"}, '{"id":"1","type":"reaction","target":5,"emoji":"\U0001f44d"}'.encode()),
        ("unreact", {"emoji": ":wave:"}, b'{"id":"1","type":"unreaction","target":5,"emoji":":wave:"}'),
        ("pin", {}, b'{"id":"1","type":"pin","target":5}'),
        ("unpin", {}, b'{"id":"1","type":"unpin","target":5}'),
    ],
)
def test_the_log_keeps_what_was_askedin_one_order(rpc: str, given: dict[str, object], data: bytes) -> None:
    assert kept(rpc, **given) == data


@pytest.mark.parametrize(
    ("rpc", "given", "complaint"),
    [
        ("edit", {"content": ""}, "content is empty; to take the message away, use delete"),
        ("edit", {"content": "ü" * 251}, "content is 502 bytes long, at most 500 are taken"),
        ("edit", {"content": "\x01" * 100}, "bytes long, at most 600 are taken"),
        ("edit", {}, "content is missing; give channel, id, target, content"),
        ("edit", {"content": "x", "meta": {}}, "meta is no field of it"),
        ("edit", {"content": "x", "userId": "u2"}, "userId is set by the server; leave it out"),
        ("delete", {"reason": "x" * 256}, "reason is 256 bytes long, at most 255 are taken"),
        ("delete", {"target": "5"}, "Expected `int`, got `str`"),
        ("delete", {"id": ""}, "id is empty"),
        ("delete", {"id": "x" * 65}, "id is 65 bytes long, at most 64 are taken"),
        ("react", {}, "emoji is missing"),
        ("react", {"emoji": ""}, "emoji is ''"),
        ("react", {"emoji": "a b"}, "emoji is 'a b'"),
        ("react", {"emoji": "\u2028"}, "emoji is"),
        ("react", {"emoji": "x" * 65}, "emoji is 65 bytes long, at most 64 are taken"),
        ("pin", {"content": "x"}, "content is no field of it; give channel, id, target"),
    ],
)
def test_what_is_wrong_is_said(rpc: str, given: dict[str, object], complaint: str) -> None:
    with pytest.raises(CommandError) as error:
        kept(rpc, **given)
    assert error.value.code is ErrorCode.BAD_REQUEST
    assert complaint in error.value.message


@pytest.mark.parametrize("rpc", ACTIONS)
@pytest.mark.parametrize("data", [b"", b"7", b"[]", b"{", b'{"a":' * 2000])
def test_what_is_no_object_is_answered_with_an_example(rpc: str, data: bytes) -> None:
    with pytest.raises(CommandError, match="the parameters are an object such as"):
        parse(ACTIONS[rpc], data)

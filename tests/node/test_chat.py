"""The chat message shape: checked, canonical, completed by the node."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.faults import ConfigError
from edge_config.limits import Limits
from node import chat
from node.chat import ChatFormat
from node.codes import CommandError, ErrorCode
from router.dedupe import MAX_CMID

FORMAT = ChatFormat(Limits(body_bytes=2000, content_bytes=1000, meta_bytes=100, mentions=2, attachments=1))


def canonical(message: object, head: int = 10) -> bytes:
    return FORMAT.canonical(chat.parse(json.dumps(message).encode()), head)


def test_a_messages_canonical_bytes_have_one_order_and_a_type() -> None:
    a = canonical({"id": "1", "content": "x", "meta": {"a": 1}, "replyTo": 3})
    b = canonical({"replyTo": 3, "meta": {"a": 1}, "type": "text", "content": "x", "id": "1"})
    assert a == b == b'{"id":"1","content":"x","type":"text","replyTo":3,"meta":{"a": 1}}'


def test_everybody_is_sent_the_whole_message() -> None:
    data = canonical({"id": "1", "content": "Hallo", "mentions": ["u2"], "attachments": [{"url": "x"}]})
    sent = chat.publication(data, b'"support:42"', b'"u7"', 1_794_000_000_007, 12)
    assert json.loads(sent) == {
        "id": "1", "content": "Hallo", "type": "text", "mentions": ["u2"], "attachments": [{"url": "x"}],
        "chatRoom": "support:42", "userId": "u7", "timestamp": "2026-11-06T21:20:00.007Z", "sequence": 12,
    }  # fmt: skip


@pytest.mark.parametrize(("target", "more"), [(0, {}), (3, {"target": 3})])
def test_a_removed_message_keeps_its_place_and_its_edits_say_of_what_they_were(
    target: int, more: dict[str, int]
) -> None:
    head = chat.placeholder("1", "rude", target)
    sent = json.loads(chat.publication(head, b'"r"', chat.pseudonym(bytes.fromhex("00ff")), 0, 5))
    assert sent == more | {
        "id": "1", "type": "placeholder", "reason": "rude", "chatRoom": "r", "userId": "erased:00ff",
        "timestamp": "1970-01-01T00:00:00.000Z", "sequence": 5,
    }  # fmt: skip


def test_erased_messages_of_two_authors_under_one_id_are_not_the_same_to_clients() -> None:
    assert chat.pseudonym(b"ann") != chat.pseudonym(b"bob")


@pytest.mark.parametrize("type_", ["image", "file"])
def test_a_picture_needs_no_words(type_: str) -> None:
    assert canonical({"id": "1", "type": type_})


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("Hello", "a chat message is an object"),
        (["Hello"], "a chat message is an object"),
        ({"content": "x"}, "id is missing; give id, content, type"),
        ({"id": "", "content": "x"}, "id is empty"),
        ({"id": "i" * 65, "content": "x"}, "id is 65 bytes long, at most 64"),
        ({"id": "1"}, "content is empty"),
        ({"id": "1", "content": "", "type": "action"}, "content is empty, which a message of type action"),
        ({"id": "1", "content": 5}, "Expected `str`"),
        ({"id": "1", "content": "ü" * 501}, "content is 1002 bytes long, at most 1000"),
        ({"id": "1", "content": "x", "type": "edit"}, "'edit' .*; give one of action, file, image, text"),
        ({"id": "1", "content": "x", "type": "system"}, "Invalid enum value 'system'"),
        ({"id": "1", "content": "x", "userId": "admin"}, "userId is set by the server; leave it out"),
        ({"id": "1", "content": "x", "sequence": 1}, "sequence is set by the server"),
        ({"id": "1", "content": "x", "timestamp": ""}, "timestamp is set by the server"),
        ({"id": "1", "content": "x", "chatRoom": "r"}, "chatRoom is set by the server"),
        ({"id": "1", "content": "x", "colour": "red"}, "colour is no field of it; give id, content"),
        ({"id": "1", "content": "x", "replyTo": 11}, "replyTo is 11, but the room's messages are 1 to 10"),
        ({"id": "1", "content": "x", "replyTo": 0}, "replyTo is 0"),
        ({"id": "1", "content": "x", "mentions": ["a", "b", "c"]}, "3 mentions, at most 2"),
        ({"id": "1", "content": "x", "mentions": ["a" * 256]}, "a user in mentions is 256 bytes long"),
        ({"id": "1", "content": "x", "attachments": [{}, {}]}, "2 attachments, at most 1"),
        ({"id": "1", "content": "x", "attachments": ["url"]}, "Expected `object`"),
        (
            {"id": "1", "content": "x", "attachments": [{"a": "x" * 2000}]},
            "the message is 20.. bytes long, at most 2000",
        ),
        ({"id": "1", "content": "x", "meta": {"a": "x" * 100}}, "meta is 109 bytes long, at most 100"),
    ],
)
def test_what_is_wrong_is_named(message: Any, complaint: str) -> None:  # noqa: ANN401 - JSON
    with pytest.raises(CommandError, match=complaint) as caught:
        canonical(message)
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_a_size_at_its_limit_is_taken() -> None:
    assert canonical({"id": "i" * 64, "content": "ü" * 500, "meta": "m" * 98, "replyTo": 10, "mentions": ["a" * 255]})


def test_an_id_within_the_widest_limit_is_one_that_the_router_takes() -> None:
    widest = ChatFormat(Limits(message_id_bytes=MAX_CMID))
    assert widest.canonical(chat.parse(json.dumps({"id": "i" * MAX_CMID, "content": "x"}).encode()), 0)
    with pytest.raises(ConfigError):
        Limits(message_id_bytes=MAX_CMID + 1)


def test_the_parameters_of_send_are_a_message_and_a_channel() -> None:
    channel, message = chat.parse_parameters(b'{"channel":"r","id":"1","content":"x"}')
    assert channel == "r"
    assert FORMAT.canonical(message, 0) == canonical({"id": "1", "content": "x"})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is an object"),
        (b'{"id":"1","content":"x"}', "channel is missing; give id, .*channel"),
        (b'{"channel":"r","id":"1","content":"x","sequence":3}', "sequence is set by the server"),
    ],
)
def test_wrong_parameters_are_named(data: bytes, complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        chat.parse_parameters(data)


@given(st.binary(max_size=100))
def test_arbitrary_data_is_a_message_or_refused(data: bytes) -> None:
    try:
        message = chat.parse(data)
    except CommandError:
        return
    assert isinstance(message.id, str)


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=16),
)
def test_any_text_survives_whole(content: str, user: str) -> None:
    data = canonical({"id": "1", "content": content})
    sent = chat.publication(data, b'"r"', json.dumps(user).encode(), 1, 1)
    assert b"\n" not in sent
    assert json.loads(sent)["content"] == content
    assert json.loads(sent)["userId"] == user

"""What receivers are told: events of log entries, of comings and goings, and requests made of them.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from node.chat import timestamp
from node.protocol import json_string
from node.publication import chat_data
from node.webhook_delivery import Letter, Note
from router.entry import Kind, identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.webhook_attendance import Change
    from router.entry import Entry

GAP: Final = "gap"
TEST: Final = "test"

_EVENTS: Final = {
    Kind.MESSAGE: "message",
    Kind.SYSTEM: "message",
    Kind.EDIT: "edited",
    Kind.REMOVED: "removed",
    Kind.RESTORED: "restored",
}
_REPORTED: Final = "reported"
_encode: Final = msgspec.json.Encoder().encode


class _Meta(Struct, gc=False):
    event: str = ""


_decode_meta: Final = msgspec.json.Decoder(_Meta).decode


class Origin(NamedTuple):
    """Who sends.

    Attributes:
        site: Whose events they are.
        webhook: The receiver's name.
        node: The node.
        boot: A name of this life of it; who was there before it began is not there any more.
    """

    site: str
    webhook: str
    node: str
    boot: str


def event_of(entry: Entry) -> str:
    """The event that an entry is; empty: none that receivers are told of."""
    if entry.kind == Kind.META:
        return _REPORTED if _says_reported(entry.data) else ""
    return _EVENTS.get(Kind(entry.kind), "")


def letter_of(entry: Entry, event: str) -> Letter:
    """An entry as it waits to be sent."""
    return Letter(entry.shard, entry.lsn, event, identity(entry.wire), entry.ts, len(entry.wire))


def gap_of(shard: int, end: int, event_id: str, now_ms: int) -> Letter:
    """Stands for entries of a shard that were gone before they could be sent, the last of them `end`."""
    return Letter(shard, end, GAP, event_id, now_ms, 0)


def render(letter: Letter, entry: Entry | None, *, is_chat: bool) -> bytes:
    """An event of the log, JSON.

    Args:
        letter: The event.
        entry: What the log shows of it now; None: it is gone.
        is_chat: Whether its room has chat messages, rather than any JSON.
    """
    body: dict[str, Any] = {"id": letter.id, "type": letter.event, "time": timestamp(letter.ts).decode()}
    if letter.event == GAP:
        return _encode(body)
    if entry is None:
        return _encode(body | {"gone": True})
    channel = json_string(entry.room.channel)
    body["room"] = Raw(channel)
    if letter.event == _REPORTED:
        body["report"] = Raw(entry.data)
        return _encode(body)
    body["sequence"] = entry.sequence
    if is_chat:
        body["message"] = Raw(chat_data(channel, entry))
    else:
        body["message"] = Raw(entry.data or b"null")
        if entry.info:
            body["info"] = Raw(entry.info)
    return _encode(body)


def note_of(change: Change, event_id: str) -> Note:
    """A coming or going as it waits to be sent."""
    body = {"id": event_id, "type": change.event, "time": timestamp(change.at_ms).decode()}
    channel, user = change.subject.channel, change.subject.user
    body |= {"user": user} if user else {"room": channel}
    return Note(event_id, change.at_ms, _encode(body))


def request_body(origin: Origin, events: Sequence[bytes], dropped: int = 0) -> bytes:
    """The body of a request, JSON.

    Args:
        origin: Who sends.
        events: What is sent, rendered.
        dropped: How many events that nothing keeps were dropped since the last request that was taken.
    """
    head = origin._asdict() | ({"dropped": dropped} if dropped else {})
    return b'%b,"events":[%b]}' % (_encode(head)[:-1], b",".join(events))


def test_event(event_id: str, now_ms: int) -> bytes:
    """An event that says nothing but that it came through."""
    return _encode({"id": event_id, "type": TEST, "time": timestamp(now_ms).decode()})


def _says_reported(data: bytes) -> bool:
    if _REPORTED.encode() not in data:
        return False
    try:
        return _decode_meta(data).event == _REPORTED
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False

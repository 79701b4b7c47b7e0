"""What receivers are told of log entries, and of comings and goings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node import webhook_events
from node.webhook_attendance import Change, Subject
from node.webhook_events import Origin, event_of, gap_of, letter_of, note_of, render, request_body
from router.entry import GENESIS, SALT_BYTES, Entry, Kind, decode, erase, identity, make
from router.ids import RoomId
from router.removal import Removal, hide

TS = 1_795_530_819_123
HELLO = b'{"id":"c1","content":"Hello","type":"text"}'
REPORT = b'{"id":"c2","event":"reported","by":"u2","target":1,"author":"u7","reason":"spam"}'


def entry(kind: Kind, data: bytes = HELLO, info: bytes = b'"u7"', lsn: int = 4) -> Entry:
    room = RoomId("shop", "support:1")
    return make(3, lsn, 1, room, 12, 1, kind, b"s" * 12, "c1", TS, bytes(SALT_BYTES), data, info, GENESIS)


def rendered(shown: Entry | None, kind: Kind = Kind.MESSAGE, *, is_chat: bool = True) -> dict[str, Any]:
    made = entry(kind) if shown is None else shown
    return dict(json.loads(render(letter_of(made, event_of(made)), shown, is_chat=is_chat)))


@pytest.mark.parametrize(
    ("kind", "data", "event"),
    [
        (Kind.MESSAGE, HELLO, "message"),
        (Kind.SYSTEM, HELLO, "message"),
        (Kind.EDIT, HELLO, "edited"),
        (Kind.REMOVED, HELLO, "removed"),
        (Kind.RESTORED, HELLO, "restored"),
        (Kind.REACTION, HELLO, ""),
        (Kind.PIN, HELLO, ""),
        (Kind.EPOCH, b"", ""),
        (Kind.META, REPORT, "reported"),
        (Kind.META, b'{"event":"muted","reason":"reported"}', ""),
        (Kind.META, b'{"set":{"reported":1}}', ""),
        (Kind.META, b'reported {"', ""),
    ],
)
def test_each_kind_of_entry_is_its_event_or_none(kind: Kind, data: bytes, event: str) -> None:
    assert event_of(entry(kind, data)) == event


def test_a_chat_message_is_told_whole_as_clients_see_it() -> None:
    made = entry(Kind.MESSAGE)
    assert rendered(made) == {
        "id": identity(made.wire),
        "type": "message",
        "time": "2026-11-24T14:33:39.123Z",
        "room": "support:1",
        "sequence": 12,
        "message": {
            "id": "c1", "content": "Hello", "type": "text", "chatRoom": "support:1", "userId": "u7",
            "timestamp": "2026-11-24T14:33:39.123Z", "sequence": 12,
        },
    }  # fmt: skip


def test_of_a_removed_message_the_placeholder_is_told() -> None:
    told = rendered(hide(entry(Kind.MESSAGE), Removal(13, TS, "off topic")))
    assert (told["message"]["type"], told["message"]["reason"]) == ("placeholder", "off topic")
    assert "Hello" not in json.dumps(told)
    erased = rendered(decode(erase(entry(Kind.MESSAGE).wire), None))
    assert erased["message"]["reason"] == "erased"
    assert erased["id"] == told["id"] == rendered(entry(Kind.MESSAGE))["id"], "an event's id never changes"


def test_any_json_is_told_untouched_with_who_published_it() -> None:
    info = b'{"user":"u7","client":"c"}'
    told = rendered(entry(Kind.MESSAGE, b'{"x":[1, 2]}', info), is_chat=False)
    assert (told["message"], told["info"]) == ({"x": [1, 2]}, {"user": "u7", "client": "c"})
    gone = rendered(decode(erase(entry(Kind.MESSAGE, b"1", info).wire), None), is_chat=False)
    assert gone["message"] is None
    assert "info" not in gone


def test_a_report_is_told_with_all_that_was_reported() -> None:
    told = rendered(entry(Kind.META, REPORT))
    assert (told["type"], told["report"]) == ("reported", json.loads(REPORT))
    assert "sequence" not in told


def test_what_is_gone_from_the_log_is_said_to_be() -> None:
    told = rendered(None)
    assert set(told) == {"id", "type", "time", "gone"}
    gap = json.loads(render(gap_of(3, 9, "b-1", TS), None, is_chat=True))
    assert gap == {"id": "b-1", "type": "gap", "time": "2026-11-24T14:33:39.123Z"}


def test_no_two_entries_have_one_id() -> None:
    texts = [entry(Kind.MESSAGE), entry(Kind.MESSAGE, lsn=5), entry(Kind.MESSAGE, b'{"id":"c1","content":"Bye"}')]
    assert len({identity(made.wire) for made in texts}) == 3


@pytest.mark.parametrize(
    ("subject", "here", "said"),
    [
        (Subject("shop", "", "ann"), True, {"type": "connected", "user": "ann"}),
        (Subject("shop", "", "ann"), False, {"type": "disconnected", "user": "ann"}),
        (Subject.room(RoomId("shop", "a\n")), True, {"type": "occupied", "room": "a\n"}),
        (Subject.room(RoomId("shop", "")), False, {"type": "vacated", "room": ""}),
    ],
)
def test_comings_and_goings_are_told_with_their_time(subject: Subject, here: bool, said: dict[str, str]) -> None:
    note = note_of(Change(subject, here, TS), "b-7")
    assert json.loads(note.body) == {"id": "b-7", "time": "2026-11-24T14:33:39.123Z", **said}


def test_a_request_says_who_sends_and_what_was_dropped() -> None:
    origin = Origin("shop", "crm", "node-1", "b00t")
    body = json.loads(request_body(origin, [b'{"id":"1"}', webhook_events.test_event("t", TS)], 3))
    assert body == {
        "site": "shop", "webhook": "crm", "node": "node-1", "boot": "b00t", "dropped": 3,
        "events": [{"id": "1"}, {"id": "t", "type": "test", "time": "2026-11-24T14:33:39.123Z"}],
    }  # fmt: skip
    assert "dropped" not in json.loads(request_body(origin, []))

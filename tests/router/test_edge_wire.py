"""Messages between edges and primaries: what is sent is read back, and nothing else is read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from router import edge_wire as wire
from router.errors import CorruptEntry
from router.events import Configuration
from router.ids import MemberId, RoomId
from router.wire import Config

ROW = Config(3, 5, 4, ("a", "disk"), [("a", "disk"), ("b", "disk")])

MESSAGES = [
    wire.Open(1, "s", "room", 2),
    wire.Opened(1, 1, 20, 3, -1, 5, {"mute:u": b"[1,true]"}),
    wire.SubmitRemote(9, "s", "room", 2, 4, 0, 1, b"s" * 12, "id", b"{}", b'"u"', False),  # noqa: FBT003
    wire.Made(9, 1, b"wire"),
    wire.Repeated(9, 17),
    wire.Refused(9, 4, "CONFLICT"),
    wire.Restart("s", "room", 4),
    wire.Fetch(7, "s", "room", 2, 5, None, 500, 1 << 20, True),  # noqa: FBT003
    wire.Entries(7, 1, [b"wire"], [wire.Hidden(0, 6, 1, "spam", 0)], [b"meta"], (6, 2), 0, (8, 3)),
    wire.Mark(8, "s", "room", 2, "u"),
    wire.Marked(8, 3),
    wire.NotPrimary(7, 2, ROW),
    wire.NotPrimary(7, 2, None),
    wire.Failed(7, "OVERLOADED"),
]
PUBLICATIONS = [wire.Head("s", "room", 1, 8, 3, 250), wire.Published("s", "room", 1, [b"wire", b"wire"])]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_back(message: wire.PeerMessage) -> None:
    assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize("message", PUBLICATIONS, ids=lambda message: type(message).__name__)
def test_a_publication_is_read_back(message: wire.Publication) -> None:
    assert wire.decode_publication(wire.encode(message)) == message


@pytest.mark.parametrize(
    "fields",
    [
        ["open", 1, "s", "room"],
        ["open", 1, "s", "room", 2, 3],
        ["open", -1, "s", "room", 2],
        ["open", 1 << 63, "s", "room", 2],
        ["open", 1, "s", "r" * 1025, 2],
        ["open", "1", "s", "room", 2],
        ["head", "s", "room", 1, 8, 3, 250],
        ["submit", 9, "s", "room", 2, 4, 0, 0, b"", "id", b"{}", b"", False],
        ["submit", 9, "s", "room", 2, 4, 0, 11, b"", "id", b"{}", b"", False],
        ["submit", 9, "s", "room", 2, 4, 0, 1, b"s" * 65, "id", b"{}", b"", False],
        ["fetch", 7, "s", "room", 2, 5, None, 0, 1, True],
        ["fetch", 7, "s", "room", 2, 5, None, 501, 1, True],
        ["entries", 7, 1, [b""] * 501, [], [], [0, 0], 0, [0, 0]],
        ["entries", 7, 1, [], [], [], [0, -1], 0, [0, 0]],
        ["nothing", 1],
        {"open": 1},
        1,
    ],
)
def test_what_is_no_message_is_refused(fields: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(CorruptEntry, match="can't be read"):
        wire.decode(msgspec.msgpack.encode(fields))


def test_a_message_of_too_many_bytes_is_not_even_read() -> None:
    message = wire.Made(1, 1, bytes(wire.MAX_MESSAGE))
    with pytest.raises(CorruptEntry, match="at most 2097152"):
        wire.decode(wire.encode(message))


def test_a_message_is_no_publication() -> None:
    with pytest.raises(CorruptEntry):
        wire.decode_publication(wire.encode(MESSAGES[0]))


def test_a_row_travels_whole() -> None:
    row = Configuration(3, 5, 4, MemberId("a", "disk"), (MemberId("a", "disk"), MemberId("b", "disk")))
    assert wire.row_of(row) == ROW
    assert wire.configuration_of(ROW) == row


def test_rooms_of_two_sites_have_different_topics() -> None:
    assert len({wire.topic_of(RoomId(site, "room")) for site in "ab"}) == 2
    assert len(wire.topic_of(RoomId("a", "room"))) == wire.TOPIC_BYTES

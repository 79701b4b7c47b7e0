"""A log is read as what the checker compares."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

from router.entry import Entry, Kind
from router.events import Batch
from router.ids import RoomId
from router.log import LogOptions
from tests.harness import read_log
from tests.harness.checker import HIDDEN, Begin, Seen
from tests.harness.log_writer import NOW_MS, SHARD, LogWriter

if TYPE_CHECKING:
    from pathlib import Path

ROOM = RoomId("default", "room")
SAID = json.dumps({"id": "x", "content": "hello", "type": "text"}).encode()


def chains(entries: list[Entry]) -> dict[int, bytes]:
    return {entry.lsn: entry.chain for entry in entries}


def test_every_entry_has_the_chain_with_which_it_was_made_filed_or_not(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogOptions(durable=False))
    filed = [writer.epoch(), *(writer.entry(ROOM, NOW_MS, data=SAID) for _ in range(3))]
    writer.file(filed)
    more = [
        writer.entry(RoomId("default", "other"), NOW_MS, data=SAID),
        writer.entry(ROOM, NOW_MS, Kind.META),
        writer.marks(ROOM, NOW_MS, ann=2),
        writer.entry(ROOM, NOW_MS, data=SAID),
    ]
    writer.file(more)
    other = [writer.entry(ROOM, NOW_MS, shard=SHARD + 1, data=SAID) for _ in range(2)]
    writer.log.append(Batch(99, entries=other))
    writer.reach()
    assert read_log.chains(tmp_path) == {SHARD: chains(filed + more), SHARD + 1: chains(other)}
    writer.log.close()
    assert read_log.chains(tmp_path) == {SHARD: chains(filed + more), SHARD + 1: chains(other)}


def test_entries_are_a_history_at_rest_that_hides_what_was_removed(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogOptions(durable=False))
    removal = json.dumps({"id": "r", "type": "removed", "target": 1, "by": "author"}).encode()
    entries = [
        writer.entry(ROOM, NOW_MS, data=SAID),
        writer.entry(ROOM, NOW_MS, data=SAID),
        writer.entry(ROOM, NOW_MS, Kind.REMOVED, data=removal),
        writer.entry(RoomId("default", "other"), NOW_MS, data=SAID),
    ]
    writer.file(entries)
    writer.log.close()
    read = read_log.history("a", tmp_path)
    assert (read.client, read.at_rest) == ("log of a", True)
    names = [entry.cmid for entry in entries]
    assert read.events == [
        Begin(inf, "other"),
        Seen(inf, "other", 1, names[3], "hello"),
        Begin(inf, "room"),
        Seen(inf, "room", 1, names[0], HIDDEN),
        Seen(inf, "room", 2, names[1], "hello"),
        Seen(inf, "room", 3, names[2], "removed", 1),
    ]

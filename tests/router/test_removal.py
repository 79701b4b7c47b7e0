"""What is removed, in memory, on disk and after its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from router import retention
from router.entry import SALT_BYTES, Entry, Kind, make
from router.events import Duplicate, Outcome, Refusal, Submit, fingerprint
from router.events import KnownKey as Known
from router.ids import dedupe_key
from router.log_schema import FILE_NAME
from router.log_tools import export, verify
from router.removal import Removals, hide_removed
from router.retention import Keep
from tests.router.test_cluster import LOBBY, SENDER, Disk
from tests.router.test_runtime import CACHE, DEADLINE_SECONDS, Node

if TYPE_CHECKING:
    from pathlib import Path


def entry(sequence: int, kind: Kind = Kind.MESSAGE, target: int = 0, text: str = "x") -> Entry:
    data = b'{"id":"i%d","target":%d,"content":"%b"}' % (sequence, target, text.encode())
    return make(
        1, sequence, 1, LOBBY, sequence, 0, kind, SENDER, f"i{sequence}", 7, b"s" * SALT_BYTES, data, b'"u"', b""
    )


def hidden(entries: list[Entry]) -> list[int]:
    return [each.sequence for each in entries if not each.data]


def test_a_removal_hides_a_message_and_its_edits_before_and_after_it() -> None:
    entries = [
        entry(1), entry(2), entry(3, Kind.EDIT, 1), entry(4, Kind.REMOVED, 1), entry(5, Kind.EDIT, 1),
        entry(6, Kind.EDIT, 2), entry(7, Kind.REACTION, 1),
    ]  # fmt: skip
    removals = Removals()
    removals.note(entries[3], 7)
    shown = removals.show_all(entries)
    assert hidden(shown) == [1, 3, 5]
    assert [each.info for each in shown] == [b'"u"'] * 7
    removals.note(entry(8, Kind.RESTORED, 1), 8)
    assert removals.show_all(shown) != shown
    assert [each.data for each in removals.show_all(shown)] == [each.data for each in entries]


def test_what_a_later_page_removes_is_hidden_in_an_earlier_one() -> None:
    earlier = [entry(1), entry(2), entry(3, Kind.EDIT, 1)]
    hide_removed(earlier, [entry(4, Kind.REMOVED, 2), entry(5, Kind.RESTORED, 2), entry(6, Kind.REMOVED, 1)])
    assert hidden(earlier) == [1, 3]


def test_marks_are_dropped_when_nothing_they_could_be_about_is_on_its_way() -> None:
    removals = Removals()
    removals.note(entry(4, Kind.REMOVED, 1), 4)
    removals.note(entry(5, Kind.REMOVED, 2), 9)
    removals.forget(8)
    assert len(removals) == 1
    assert hidden(removals.show_all([entry(1), entry(2)])) == [2]


# -- probes ------------------------------------------------------------------------------------------------------


def probe(disk: Disk, cmid: str, data: bytes = b"{}") -> None:
    disk.cluster.probe(Submit(LOBBY, Kind.MESSAGE, SENDER, cmid, data, b"", disk.outcomes.append, probe=True), 1000)


def submit(disk: Disk, cmid: str) -> None:
    disk.cluster.submit(Submit(LOBBY, Kind.MESSAGE, SENDER, cmid, b"{}", b"", disk.outcomes.append), 1000)


def settle(disk: Disk) -> None:
    for _ in range(8):
        disk.step()


def kinds(outcomes: list[Outcome]) -> list[object]:
    return [type(outcome) if isinstance(outcome, Entry) else outcome for outcome in outcomes]


def test_a_probe_makes_nothing_and_does_not_spoil_its_id() -> None:
    disk = Disk()
    probe(disk, "a")
    settle(disk)
    submit(disk, "a")
    settle(disk)
    assert kinds(disk.outcomes) == [Refusal.NEW, Entry]
    assert [each.cmid for each in disk.committed if each.cmid] == ["a"]


def test_a_probe_finds_what_was_sent_before_in_memory_and_on_disk() -> None:
    disk = Disk()
    disk.keys = [Known(dedupe_key(LOBBY, SENDER, "old"), 5, fingerprint(b"{}"))]
    submit(disk, "a")
    probe(disk, "a")  # not even on its way to the disk yet
    settle(disk)
    probe(disk, "a")
    probe(disk, "a", b'{"other":1}')
    settle(disk)
    assert kinds(disk.outcomes) == [Duplicate(1), Entry, Duplicate(1), Refusal.CONFLICT]


# -- erasure -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prompt_filing")
def test_a_removed_text_leaves_the_disk_after_its_time_and_the_log_stays_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, CACHE)

    def put(cmid: str, kind: Kind, data: bytes) -> None:
        outcomes: list[Outcome] = []
        node.router.submit(Submit(LOBBY, kind, SENDER, cmid, data, b'"u1"', outcomes.append))
        node.wait(lambda: outcomes)

    put("m1", Kind.MESSAGE, b'{"id":"m1","content":"secret-one"}')
    put("m2", Kind.MESSAGE, b'{"id":"m2","content":"harmless-two"}')
    put("e1", Kind.EDIT, b'{"id":"e1","target":1,"content":"secret-three"}')
    put("d1", Kind.REMOVED, b'{"id":"d1","target":1,"by":"author"}')
    node.file_all()
    node.log.retain(lambda _: Keep(), 1 << 30, 1)
    node.log.close()
    kept = list(export(tmp_path, with_removed=True))
    assert [record["erased"] for record in kept] == [False] * 4  # the margin is not over
    monkeypatch.setattr(retention, "ERASE_MARGIN_MS", -10_000)
    node = Node(tmp_path, CACHE)
    node.log.retain(lambda _: Keep(), 1 << 30, 1)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while verify(tmp_path).erased < 2:
        assert time.monotonic() < deadline
    node.log.close()
    kept = list(export(tmp_path, with_removed=True))
    assert [(record["erased"], record["data"] is None) for record in kept] == [
        (True, True), (False, False), (True, True), (False, False),
    ]  # fmt: skip
    assert verify(tmp_path).findings == ()
    assert verify(tmp_path).erased == 2
    assert b"harmless-two" in (tmp_path / FILE_NAME).read_bytes()
    assert b"secret" not in (tmp_path / FILE_NAME).read_bytes()

"""What is removed, in memory, on disk and after its time."""

from __future__ import annotations

from router.entry import SALT_BYTES, Entry, Kind, make
from router.events import Duplicate, Outcome, Refusal, Submit, fingerprint
from router.events import KnownKey as Known
from router.ids import dedupe_key
from router.removal import Removals, hide_removed, whole
from tests.router.test_cluster import LOBBY, SENDER, Disk


def entry(sequence: int, kind: Kind = Kind.MESSAGE, target: int = 0, text: str = "x") -> Entry:
    data = b'{"id":"i%d","target":%d,"content":"%b"}' % (sequence, target, text.encode())
    return made(sequence, kind, data, b'"u"')


def made(sequence: int, kind: Kind, data: bytes, info: bytes) -> Entry:
    return make(1, sequence, 1, LOBBY, sequence, 0, kind, SENDER, f"i{sequence}", 7, b"s" * SALT_BYTES, data, info, b"")


def clearing(sequence: int, since: int = 0, user: str = "u") -> Entry:
    """All that a user said from an entry on is removed."""
    return made(sequence, Kind.REMOVED, b'{"user":"%b","since":%d,"reason":"flood"}' % (user.encode(), since), b'"m"')


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


def test_a_removal_of_a_user_hides_what_it_said_within_the_window_and_edits_of_that_whenever_they_came() -> None:
    entries = [
        entry(1), entry(2), made(3, Kind.MESSAGE, b"{}", b'"v"'), entry(4, Kind.EDIT, 1), entry(5, Kind.EDIT, 2),
        entry(6), clearing(7, 2), entry(8), entry(9, Kind.EDIT, 1), entry(10, Kind.EDIT, 2),
    ]  # fmt: skip
    removals = Removals()
    removals.note(entries[6], 10)
    shown = removals.show_all(entries)
    assert hidden(shown) == [2, 5, 6, 10]
    assert [each.removal.target for each in shown if each.removal is not None] == [0, 2, 0, 2]
    assert {each.removal.reason for each in shown if each.removal is not None} == {"flood"}
    assert [each.data for each in map(whole, shown)] == [each.data for each in entries]


def test_of_what_is_said_about_a_message_the_newest_counts() -> None:
    removals = Removals()
    removals.note(clearing(5), 5)
    removals.note(entry(6, Kind.RESTORED, 2), 6)
    removals.note(entry(7, Kind.REMOVED, 3), 7)
    removals.note(entry(8, Kind.RESTORED, 4), 8)
    removals.note(clearing(9, 4), 9)
    shown = removals.show_all([entry(number) for number in range(1, 5)])
    assert hidden(shown) == [1, 3, 4]
    assert [each.removal.sequence for each in shown if each.removal is not None] == [5, 7, 9]
    assert len(removals) == 5


def test_a_removal_of_a_user_replaces_those_that_it_covers() -> None:
    removals = Removals()
    for sequence in range(2, 40):
        removals.note(clearing(sequence, sequence - 1), sequence)
    removals.note(clearing(40, 1), 40)
    assert len(removals) == 1


def test_what_a_later_page_removes_is_hidden_in_an_earlier_one() -> None:
    earlier = [entry(1), entry(2), entry(3, Kind.EDIT, 1)]
    hide_removed(earlier, [entry(4, Kind.REMOVED, 2), entry(5, Kind.RESTORED, 2), entry(6, Kind.REMOVED, 1)])
    assert hidden(earlier) == [1, 3]


def test_marks_are_dropped_when_nothing_they_could_be_about_is_on_its_way() -> None:
    removals = Removals()
    removals.note(entry(4, Kind.REMOVED, 1), 4)
    removals.note(entry(5, Kind.REMOVED, 2), 9)
    removals.note(clearing(6, user="v"), 8)
    removals.note(clearing(6, 1), 9)
    removals.forget(8)
    assert len(removals) == 2
    assert hidden(removals.show_all([entry(1), entry(2), made(3, Kind.MESSAGE, b"{}", b'"v"')])) == [1, 2]


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

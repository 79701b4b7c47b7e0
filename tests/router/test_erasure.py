"""What was removed leaves the disk after its time, and nothing else does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from router import erasure, filing, retention
from router.entry import Kind
from router.events import Submit
from router.log_schema import FILE_NAME
from router.log_tools import export, verify
from router.retention import Keep
from tests.router.test_cluster import LOBBY, SENDER
from tests.router.test_runtime import CACHE, DEADLINE_SECONDS, Node

if TYPE_CHECKING:
    from pathlib import Path

    from router.events import Outcome

pytestmark = pytest.mark.usefixtures("prompt_filing")


class Room:
    """A room on a real disk, of which some things are removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(folder, CACHE)
        self._count = 0

    def put(self, kind: Kind, rest: str, user: str = "u1") -> int:
        """Make an entry; its sequence."""
        outcomes: list[Outcome] = []
        self._count += 1
        data = f'{{"id":"i{self._count}",{rest}}}'.encode()
        info = f'"{user}"'.encode()
        self.node.router.submit(Submit(LOBBY, kind, SENDER, f"i{self._count}", data, info, outcomes.append))
        self.node.wait(lambda: outcomes)
        return self._count

    def say(self, text: str, user: str = "u1") -> int:
        return self.put(Kind.MESSAGE, f'"content":"{text}"', user)

    def restart(self) -> None:
        self.node.file_all()
        self.node.log.close()
        self.node = Node(self.folder, CACHE)

    def sweep(self, erased: int) -> None:
        """Sweep until so many entries are erased, and close the log."""
        self.node.file_all()
        self.node.log.retain(lambda _: Keep(), 1 << 30, 1)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := verify(self.folder).erased) != erased:
            assert time.monotonic() < deadline, f"{found} are erased"
        self.node.log.close()
        assert verify(self.folder).findings == ()
        assert verify(self.folder).erased == erased

    def erased(self) -> list[int]:
        """Sequences of what is erased."""
        return [record["sequence"] for record in export(self.folder, with_removed=True) if record["erased"]]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed is over its time at once."""
    monkeypatch.setattr(retention, "ERASE_MARGIN_MS", -10_000)


def test_a_removed_text_leaves_the_disk_after_its_time_and_the_log_stays_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path)
    room.say("secret-one")
    room.say("harmless-two")
    room.put(Kind.EDIT, '"target":1,"content":"secret-three"')
    room.put(Kind.REMOVED, '"target":1,"by":"author"')
    room.sweep(0)  # the margin is not over
    monkeypatch.setattr(retention, "ERASE_MARGIN_MS", -10_000)
    room.node = Node(tmp_path, CACHE)
    room.sweep(2)
    assert room.erased() == [1, 3]
    assert all((record["data"] is None) is record["erased"] for record in export(tmp_path, with_removed=True))
    assert b"harmless-two" in (tmp_path / FILE_NAME).read_bytes()
    assert b"secret" not in (tmp_path / FILE_NAME).read_bytes()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("at_a_time", [1, 8])
def test_of_a_cleared_user_all_is_erased_that_was_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(erasure, "CHUNKS_AT_ONCE", at_a_time)
    monkeypatch.setattr(erasure, "ERASED_AT_ONCE", at_a_time)
    monkeypatch.setattr(filing, "CHUNK_ENTRIES", 3)
    room = Room(tmp_path)
    early = room.say("early")
    secret = [room.say("secret") for _ in range(7)]
    other = room.say("of-another", "u2")
    kept = room.say("restored")
    secret.append(room.put(Kind.EDIT, f'"target":{secret[0]},"content":"secret"'))
    old_edit = room.put(Kind.EDIT, f'"target":{early},"content":"early-edit"')
    cleared = room.put(Kind.REMOVED, f'"user":"u1","since":{early + 1},"by":"moderator"', "mod")
    room.put(Kind.RESTORED, f'"target":{kept},"by":"moderator"', "mod")
    kept_edit = room.put(Kind.EDIT, f'"target":{kept},"content":"restored-edit"')
    secret.append(room.put(Kind.EDIT, f'"target":{secret[1]},"content":"secret"'))  # it was on its way
    later = room.say("later")
    room.sweep(len(secret))
    assert room.erased() == sorted(secret)
    data = (tmp_path / FILE_NAME).read_bytes()
    assert b"secret" not in data
    for text in (b"early", b"of-another", b"restored", b"early-edit", b"restored-edit", b"later"):
        assert text in data
    assert {early, other, kept, old_edit, cleared, kept_edit, later}.isdisjoint(room.erased())
    room.node = Node(tmp_path, CACHE)  # what nothing clears any more is not remembered either
    rows = room.node.log._connection.execute("SELECT (SELECT count(*) FROM cleared), (SELECT count(*) FROM restored)")
    assert rows.fetchone() == (0, 0)
    room.node.log.close()


@pytest.mark.usefixtures("at_once")
def test_erasing_goes_on_where_a_node_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "CHUNKS_AT_ONCE", 1)
    monkeypatch.setattr(filing, "CHUNK_ENTRIES", 1)
    room = Room(tmp_path)
    for _ in range(4):
        room.say("secret")
        room.restart()
    room.put(Kind.REMOVED, '"user":"u1"', "mod")
    room.node.file_all()
    steps = erasure.Erasure(room.node.log._connection)
    assert steps.step(1 << 50)  # and dies after it
    room.restart()
    room.sweep(4)
    assert room.erased() == [1, 2, 3, 4]

"""What is kept of a receiver: whole after a crash, bounded, and refused with a mend when it is not what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from node.webhook_delivery import Letter, Note
from node.webhook_files import DeadLetter, Progress, Replay, TargetFiles, WebhookFault
from node.webhook_target import TargetId

if TYPE_CHECKING:
    from pathlib import Path

TARGET = TargetId("shop", "crm")


def dead(*numbers: int) -> list[DeadLetter]:
    return [DeadLetter.of_letter(Letter(3, n, "message", f"id{n}", n, 10), 99, "refused") for n in numbers]


def ids(files: TargetFiles) -> list[str]:
    return [letter.id for letter in files.dead()]


def test_how_far_a_receiver_has_got_is_found_again(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    assert files.progress() is None
    files.begin(Progress(birth="b", cursor={1: 2, 130: 4}, failing_since=5, error="refused"))
    files.keep(Progress(birth="b", cursor={1: 3, 130: 4}), durable=False)
    found = TargetFiles(tmp_path, TARGET).progress()
    assert found is not None
    assert (found.cursor, found.failing_since) == ({1: 3, 130: 4}, None)
    assert [path.name for path in files.progress_path.parent.iterdir()] == ["crm.json"]
    assert files.progress_path.stat().st_mode & 0o077 == 0


def test_dead_letters_are_found_again_once_each(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    assert files.dead() == []
    assert files.bury(dead(1, 2), 10) == 0
    note = DeadLetter.of_note(Note("n", 7, b'{"id":"n"}'), 99, "refused")
    assert files.bury([*dead(2, 3), note], 10) == 0, "the node died before it moved the cursor, and buries them again"
    found = TargetFiles(tmp_path, TARGET).dead()
    assert [letter.id for letter in found] == ["id1", "id2", "id3", "n"]
    assert found[0].content == Letter(3, 1, "message", "id1", 1, 10)
    assert found[3].content == Note("n", 7, b'{"id":"n"}')
    assert found[3].body == Raw(b'{"id":"n"}')


def test_the_oldest_dead_letters_go_when_there_are_too_many(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    assert files.bury(dead(1, 2, 3), 4) == 0
    assert files.bury(dead(4), 4) == 0
    assert files.bury(dead(5, 6), 4) == 2
    assert ids(files) == ["id3", "id4", "id5", "id6"]
    assert files.bury(dead(7, 8, 9, 10, 11), 4) == 5
    assert ids(files) == ["id8", "id9", "id10", "id11"]


def test_a_line_that_was_being_written_when_the_node_was_killed_is_passed_over(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    files.bury(dead(1), 10)
    with files.dead_path.open("ab") as file:
        file.write(b'{"id":"id2","ev')
    assert ids(files) == ["id1"]
    files.bury(dead(3), 10)
    assert ids(files) == ["id1", "id3"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"birth":"b"}', '{"birth":"b","cursor":{"x":1}}'])
def test_a_file_that_was_not_written_here_is_refused_with_a_mend(tmp_path: Path, content: str) -> None:
    files = TargetFiles(tmp_path, TARGET)
    files.begin(Progress(birth="b", cursor={}))
    files.progress_path.write_text(content)
    with pytest.raises(WebhookFault, match=r"crm\.json can't be used: .*take it away"):
        files.progress()


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    files.begin(Progress(version=2, birth="b", cursor={}))
    with pytest.raises(WebhookFault, match="version 2; this program reads 1"):
        files.progress()


def test_dead_letters_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    files.bury(dead(1), 10)
    files.dead_path.write_text("what\n")
    with pytest.raises(WebhookFault, match=r"crm\.dead can't be used"):
        files.dead()


def test_a_disk_that_takes_nothing_is_told_with_a_mend(tmp_path: Path) -> None:
    (tmp_path / "webhooks").write_text("in the way")
    files = TargetFiles(tmp_path, TARGET)
    with pytest.raises(WebhookFault, match="mend its permissions"):
        files.begin(Progress(birth="b", cursor={}))
    with pytest.raises(WebhookFault, match="mend its permissions"):
        files.progress()


def test_a_wish_is_granted_once(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    assert (files.is_wished(), files.answer()) == (False, None)
    files.wish()
    assert files.is_wished()
    files.grant(Replay(sent=3, left=1, error="it answered 500"))
    assert not files.is_wished()
    assert files.answer() == Replay(sent=3, left=1, error="it answered 500")
    files.wish()
    assert files.answer() is None, "the answer to the wish before"


def test_what_was_forgotten_is_not_written_again(tmp_path: Path) -> None:
    files = TargetFiles(tmp_path, TARGET)
    files.begin(Progress(birth="b", cursor={1: 1}))
    files.bury(dead(1), 10)
    files.forget()
    files.forget()
    files.keep(Progress(birth="b", cursor={1: 2}))  # of a node that runs, and has not heard of it yet
    assert list(files.progress_path.parent.iterdir()) == []

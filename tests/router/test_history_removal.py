"""A room's history that was removed: gone for readers at once, and from the disk soon after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from router import log, retention
from router.entry import Entry, Kind
from router.events import Away, Batch, History, Outcome, Page, Submit
from router.log_schema import FILE_NAME
from router.log_tools import export, stat, verify
from router.retention import Keep
from router.room_values import HISTORY_REMOVED
from router.tail import Hold
from tests.harness.log_writer import NOW_MS, LogWriter, read
from tests.router.test_retention import A, B
from tests.router.test_runtime import CACHE, LOBBY, NO_CACHE, Node, reopen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["reopen"]

CHUNKS: Final = "SELECT count(*) FROM chunk WHERE stream=0"


def keep_all(_: object) -> Keep:
    return Keep()


def removing(node: LogWriter) -> Entry:
    return node.entry(A, NOW_MS, Kind.META, data=HISTORY_REMOVED)


# -- on disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
def test_what_was_before_goes_and_what_comes_after_stays(
    open_node: Callable[..., LogWriter], tmp_path: Path, *, at_once: bool
) -> None:
    node = open_node()
    entries = [node.entry(A, 1), node.entry(B, 1), node.entry(A, 2), removing(node), node.entry(A, 3), node.entry(B, 2)]
    for part in (entries,) if at_once else [[entry] for entry in entries]:
        node.file(part)
    node.settle()
    assert (node.sequences(A), node.sequences(B), node.head(A)) == ([3], [1, 2], (3, 1, 2))
    assert verify(tmp_path).findings == ()
    left = "SELECT room.bytes - total(length(wires)) FROM room JOIN chunk ON room.id=chunk.room GROUP BY room.id"
    assert read(tmp_path, left) == [(0.0,), (0.0,)]
    node.log.close()
    again = open_node()
    assert (again.sequences(A), again.head(A)) == ([3], (3, 1, 2))


def test_the_texts_leave_the_file(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    for life in range(2):
        for n in range(100):
            node.file([node.entry(A, n, data=b"a secret of %d" % n), node.entry(B, n, data=b"no matter %d" % n)])
        node.file([removing(node)])
        node.settle()
        assert stat(tmp_path).entries == 100 * (life + 1)
    node.log.close()
    data = (tmp_path / FILE_NAME).read_bytes()
    assert b"no matter" in data
    assert b"secret" not in data


def test_nothing_is_removed_twice_nor_comes_back(open_node: Callable[..., LogWriter]) -> None:
    node = open_node()
    node.file([removing(node)])
    assert node.head(A) == (0, 1, 0)
    node.file([node.entry(A, 1), removing(node), removing(node)])
    node.settle()
    assert (node.sequences(A), node.head(A)) == ([], (1, 3, 1))
    node.sweep(keep_all)
    assert node.head(A) == (1, 3, 1)


def test_what_a_node_did_not_come_to_drop_the_next_sweep_drops(
    open_node: Callable[..., LogWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(retention.Retention, "purge", lambda _retention, _rooms: None)
        node = open_node()
        for n in range(5):
            node.file([node.entry(A, n), node.entry(B, n)])
        node.file([removing(node), node.entry(A, 9)])
        assert read(tmp_path, CHUNKS) == [(11,)]
        assert verify(tmp_path).findings == ()
    node = open_node()
    node.sweep(keep_all)
    assert (read(tmp_path, CHUNKS), node.sequences(A), node.sequences(B)) == ([(6,)], [6], [1, 2, 3, 4, 5])
    assert verify(tmp_path).findings == ()


def test_retention_does_not_lower_the_floor_again(
    open_node: Callable[..., LogWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention.Retention, "purge", lambda _retention, _rooms: None)
    node = open_node()
    for n in range(4):
        node.file([node.entry(A, n)])
    node.file([removing(node)])
    node.log._writes.put(lambda: node.log._retention.shrink(1))
    node.settle()
    assert (read(tmp_path, "SELECT min(first) FROM chunk WHERE stream=0"), node.head(A)[2]) == ([(2,)], 4)


def test_a_follower_holds_nothing_of_it(open_node: Callable[..., LogWriter], tmp_path: Path) -> None:
    node = open_node()
    node.log.hold(Hold({}, 0))
    node.file([node.entry(A, 1), removing(node)])
    node.settle()
    assert read(tmp_path, CHUNKS) == [(0,)]


def test_what_is_exported_ends_there_whether_it_is_filed_or_not(
    open_node: Callable[..., LogWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    node.file([node.entry(A, 1), node.entry(B, 1)])
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 1e6)
    entries = [node.entry(A, 2), removing(node), node.entry(A, 3)]
    node.ticket += 1
    node.log.append(Batch(node.ticket, entries=entries))
    node.reach()
    assert [(row["channel"], row["sequence"]) for row in export(tmp_path)] == [("a", 3), ("b", 1)]
    node.log.committed(entries)
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 0.0)
    node.settle()
    assert [(row["channel"], row["sequence"]) for row in export(tmp_path)] == [("a", 3), ("b", 1)]


# -- in memory ---------------------------------------------------------------------------------------------------


def remove(node: Node) -> None:
    outcomes: list[Outcome] = []
    node.router.submit(Submit(LOBBY, Kind.META, b"", "", HISTORY_REMOVED, b"", outcomes.append))
    node.wait(lambda: outcomes)
    assert isinstance(outcomes[0], Entry)


@pytest.mark.parametrize("filing", ["prompt_filing", "no_filing"])
@pytest.mark.parametrize("options", [CACHE, NO_CACHE], ids=["cached", "not cached"])
def test_readers_see_nothing_of_it_from_its_commit_on(
    reopen: Callable[..., Node], request: pytest.FixtureRequest, filing: str, options: object
) -> None:
    request.getfixturevalue(filing)
    node = reopen(options)
    node.fill(3)
    epoch = node.router.cluster.epoch_of(node.room())
    remove(node)
    for _ in range(2):
        room = node.room()
        assert (room.floor, room.committed, node.router.cluster.epoch_of(room)) == (3, 3, epoch)
        assert (node.page(None), node.page(0), node.page(None, reverse=True), node.page(3, reverse=True)) == ([],) * 4
        node = reopen(options)
    node.fill(2, start=4)
    assert (node.page(0), node.page(None, reverse=True)) == ([4, 5], [5, 4])
    assert node.room().floor == 3


@pytest.mark.usefixtures("prompt_filing")
@pytest.mark.parametrize("is_reverse", [True, False])
def test_a_read_of_the_disk_that_is_under_way_gives_nothing_of_it(
    reopen: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, *, is_reverse: bool
) -> None:
    node = reopen()
    node.fill(3)
    node.file_all()
    node = reopen(NO_CACHE)
    room = node.room()
    asked: list[tuple[History, Callable[[list[Entry]], None]]] = []
    with monkeypatch.context() as patch:
        patch.setattr(node.log, "history", lambda read, token: asked.append((read, token)))
        pages: list[Page | Away] = []
        node.router.history(room, History(LOBBY, None, 10, reverse=is_reverse, max_bytes=1 << 20), pages.append)
    ((wanted, told),) = asked
    found = node.log._reader.history(wanted)
    assert len(found) == 3
    remove(node)
    told(found)
    (page,) = pages
    assert isinstance(page, Page)
    assert (page.entries, page.floor, page.head) == ([], 3, 3)

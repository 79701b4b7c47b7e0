"""The cores over a real log."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from router import log as log_module
from router.effects import ClusterOptions
from router.entry import Entry, Kind
from router.events import Away, Duplicate, History, Outcome, Page, Refusal, Submit
from router.ids import RoomId
from router.log import Log, LogOptions
from router.runtime import Router
from router.tail import Tail, TailQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from router.completions import Persisted
    from router.errors import StorageFault
    from router.room import RoomState

LOBBY = RoomId("default", "lobby")
DEADLINE_SECONDS = 20.0
NO_CACHE = ClusterOptions(shards=1, cache_bytes=0, dedupe_capacity=64)
CACHE = ClusterOptions(shards=1, dedupe_capacity=64)


class Node:
    """A router over a log, and the edge that it tells."""

    def __init__(self, folder: Path, options: ClusterOptions) -> None:
        self._told = threading.Event()
        self.published: list[Entry] = []
        self.faults: list[StorageFault] = []
        self.failures: list[tuple[Callable[..., None], Exception]] = []
        self.log = Log.open(folder, LogOptions(), self._told.set)
        self.router = Router(self.log, "n1", options, self)

    def committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.origin is not None:
                entry.origin(entry)
        self.published += entries

    def persisted(self, done: Persisted) -> None:
        pass

    def halted(self, fault: StorageFault) -> None:
        self.faults.append(fault)

    def failed(self, told: Callable[..., None], error: Exception) -> None:
        self.failures.append((told, error))

    def wait(self, ready: Callable[[], object]) -> None:
        """Drive the router until something is so."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        self.router.turn()
        while True:
            self._told.clear()
            self.router.drain()
            if ready():
                return
            if not self._told.wait(deadline - time.monotonic()):
                pytest.fail("what was waited for did not come")

    def send(self, cmid: str, data: bytes = b"{}") -> Outcome:
        """The outcome of a message."""
        outcomes: list[Outcome] = []
        sender = self.router.sender("default", "u1")
        self.router.submit(Submit(LOBBY, Kind.MESSAGE, sender, cmid, data, b'"u1"', outcomes.append))
        self.wait(lambda: outcomes)
        return outcomes[0]

    def fill(self, count: int, start: int = 1) -> None:
        """Send messages, each in a commit of its own."""
        for n in range(start, start + count):
            outcome = self.send(f"id-{n}")
            assert isinstance(outcome, Entry)
            assert outcome.sequence == n

    def room(self) -> RoomState:
        opened: list[RoomState | Away] = []
        self.router.open_room(LOBBY, opened.append)
        self.wait(lambda: opened)
        state = opened[0]
        assert not isinstance(state, Away)
        return state

    def page(self, since: int | None, limit: int = 100, *, reverse: bool = False, size: int = 1 << 20) -> list[int]:
        """Sequences of a page."""
        pages: list[Page | Away] = []
        self.router.history(self.room(), History(LOBBY, since, limit, reverse=reverse, max_bytes=size), pages.append)
        self.wait(lambda: pages)
        page = pages[0]
        assert isinstance(page, Page)
        return [entry.sequence for entry in page.entries]

    def file_all(self) -> None:
        """Wait until all that is committed can be read from the disk."""
        state = self.room()
        self.wait(lambda: state.filed == state.committed)


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Opens a node in the test's directory, closing the one before."""
    nodes: list[Node] = []

    def open_again(options: ClusterOptions = CACHE) -> Node:
        for old in nodes:
            old.log.close()
        nodes.append(Node(tmp_path, options))
        return nodes[-1]

    yield open_again
    for old in nodes:
        old.log.close()


def test_a_message_is_published_once_with_its_place(reopen: Callable[..., Node]) -> None:
    node = reopen()
    outcome = node.send("a")
    assert isinstance(outcome, Entry)
    assert (outcome.sequence, outcome.data) == (1, b"{}")
    assert [entry for entry in node.published if entry.visible] == [outcome]


def test_a_retry_is_told_where_it_is_and_another_message_is_refused(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(2)
    assert node.send("id-1") == Duplicate(1)
    assert node.send("id-1", b"else") is Refusal.CONFLICT


@pytest.mark.usefixtures("no_filing")
def test_pages_come_from_memory_both_ways(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(6)
    assert node.page(None) == [1, 2, 3, 4, 5, 6]
    assert node.page(2, 3) == [3, 4, 5]
    assert node.page(None, 2, reverse=True) == [6, 5]
    assert node.page(3, reverse=True) == [2, 1]


@pytest.mark.usefixtures("prompt_filing")
def test_pages_come_from_the_disk_both_ways(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(6)
    node.file_all()
    again = reopen(NO_CACHE)
    assert again.room().cached_from == 7
    assert again.page(None) == [1, 2, 3, 4, 5, 6]
    assert again.page(2, 3) == [3, 4, 5]
    assert again.page(None, 2, reverse=True) == [6, 5]
    assert again.page(3, reverse=True) == [2, 1]


def test_pages_go_on_from_the_disk_into_memory_and_back(
    reopen: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)
    node = reopen()
    node.fill(4)
    node.file_all()
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 1e6)
    again = reopen()
    again.fill(3, start=5)
    assert again.room().cached_from == 5
    assert again.page(0) == [1, 2, 3, 4, 5, 6, 7]
    assert again.page(2, 4) == [3, 4, 5, 6]
    assert again.page(None, 5, reverse=True) == [7, 6, 5, 4, 3]
    assert again.page(4, reverse=True) == [3, 2, 1]
    assert again.page(0, size=1) == [1]
    assert again.page(None, reverse=True, size=1) == [7]


@pytest.mark.usefixtures("no_filing")
def test_what_was_in_the_journal_only_goes_on_after_a_restart(reopen: Callable[..., Node]) -> None:
    reopen().fill(5)
    node = reopen()
    assert node.page(None) == [1, 2, 3, 4, 5]
    assert node.send("id-2") == Duplicate(2)
    node.fill(2, start=6)
    assert node.page(None) == [1, 2, 3, 4, 5, 6, 7]


def test_what_was_in_the_journal_only_is_filed_after_a_restart(
    reopen: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 1e6)
    reopen().fill(5)
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)
    node = reopen()
    node.fill(1, start=6)
    node.file_all()
    again = reopen()
    assert again.log.recovered.unfiled == ()
    assert again.page(None) == [1, 2, 3, 4, 5, 6]
    assert again.send("id-1") == Duplicate(1)


@pytest.mark.usefixtures("prompt_filing")
def test_a_retry_is_known_from_the_disk_after_a_restart(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(3)
    node.file_all()
    again = reopen()
    assert again.send("id-2") == Duplicate(2)
    assert again.send("id-2", b"else") is Refusal.CONFLICT
    again.fill(1, start=4)


def test_the_stream_epoch_outlives_a_restart(reopen: Callable[..., Node]) -> None:
    node = reopen()
    epoch = node.router.cluster.epoch_of(node.room())
    again = reopen()
    assert again.router.cluster.epoch_of(again.room()) == epoch


def test_a_full_disk_answers_who_waits_and_who_comes(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(1)
    pages = node.log._connection.execute("PRAGMA page_count").fetchone()[0]
    node.log._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    assert node.send("big", b"x" * 200_000) is Away.STORAGE_FULL
    assert node.send("late") is Away.STORAGE_FULL
    assert [fault.reason for fault in node.faults] == ["full"]
    assert [entry.sequence for entry in node.published if entry.visible] == [1]


def test_a_node_that_leaves_takes_no_more_and_answers_what_it_took(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.room()
    outcomes: list[Outcome] = []
    sender = node.router.sender("default", "u1")
    node.router.submit(Submit(LOBBY, Kind.MESSAGE, sender, "a", b"{}", b"", outcomes.append))
    node.router.close()
    assert node.send("b") is Away.CLOSING
    node.wait(lambda: len(outcomes) == 1)
    assert isinstance(outcomes[0], Entry)


def test_who_can_not_take_an_answer_harms_nobody_else(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(1)
    trouble = RuntimeError("in a client's code")

    def fail(_: object) -> None:
        raise trouble

    sender = node.router.sender("default", "u1")
    outcomes: list[Outcome] = []
    for done in (fail, outcomes.append, fail, outcomes.append):  # repetitions of what fill has sent
        node.router.submit(Submit(LOBBY, Kind.MESSAGE, sender, "id-1", b"{}", b'"u1"', done))
    node.router.open_room(RoomId("default", "elsewhere"), fail)
    node.wait(lambda: len(outcomes) == 2 and len(node.failures) == 3)
    assert outcomes == [Duplicate(1), Duplicate(1)]
    assert node.failures == [(fail, trouble)] * 3
    assert isinstance(node.send("id-2"), Entry)


# -- followers ---------------------------------------------------------------------------------------------------


def follow(node: Node, cursor: dict[int, int]) -> Tail | Away:
    tails: list[Tail | Away] = []
    node.router.tail(TailQuery(cursor, 100, 1 << 20), tails.append)
    node.wait(lambda: tails)
    return tails[0]


@pytest.mark.usefixtures("no_filing")
def test_a_follower_is_woken_once_for_many_and_reads_what_was_published(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.room()
    woken: list[int] = []

    def wake() -> None:
        woken.append(len(node.published))

    node.router.follow(wake)
    outcomes: list[Outcome] = []
    sender = node.router.sender("default", "u1")
    for n in range(20):
        node.router.submit(Submit(LOBBY, Kind.MESSAGE, sender, f"id-{n + 1}", b"{}", b'"u1"', outcomes.append))
    node.wait(lambda: len(outcomes) == 20)
    assert woken == [len(node.published)]
    tail = follow(node, {})
    assert isinstance(tail, Tail)
    assert [entry.wire for entry in tail.entries] == [entry.wire for entry in node.published if entry.visible]
    node.router.unfollow(wake)
    node.fill(1, start=21)
    assert len(woken) == 1
    more = follow(node, dict(tail.cursor))
    assert isinstance(more, Tail)
    assert [entry.sequence for entry in more.entries] == [21]


def test_a_follower_is_told_that_the_log_has_halted(reopen: Callable[..., Node]) -> None:
    node = reopen()
    node.fill(1)
    node.log._connection.execute("PRAGMA query_only=1")
    assert node.send("b") is Away.STORAGE_FAULT
    assert follow(node, {}) is Away.STORAGE_FAULT

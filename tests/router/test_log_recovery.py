"""What the log still has after a crash, and that it halts rather than lose it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from router.completions import Completion, Filed, Halted, HistoryRead, KeysFound, Persisted
from router.effects import ClusterOptions
from router.entry import GENESIS, Entry, Kind, make
from router.errors import StorageFault
from router.events import Away, Batch, History, Page, Truncate, fingerprint
from router.ids import RoomId, dedupe_key
from router.log import Log, LogOptions
from router.runtime import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from router.room import RoomState

ROOM = RoomId("default", "lobby")
SHARD = 7
WAIT = 10.0  # seconds after which a test that waits for an answer has failed


class Driver:
    """Drives a log as the router does, and waits for its answers."""

    def __init__(self, folder: Path) -> None:
        self.rang = threading.Event()
        self.log = Log.open(folder, LogOptions(), self.rang.set)
        tail = self.log.recovered.shards.get(SHARD)
        self.lsn, self.chain, self.commit = (tail.lsn, tail.chain, tail.commit) if tail else (0, GENESIS, 0)
        self.sequence = 0
        self.ticket = 0

    def entries(self, count: int, room: RoomId = ROOM) -> list[Entry]:
        made = []
        for _ in range(count):
            self.lsn += 1
            self.sequence += 1
            entry = make(
                SHARD, self.lsn, 1, room, self.sequence, 0, Kind.MESSAGE, b"s" * 12, f"c{self.sequence}",
                1_000 + self.sequence, b"salt" * 4, b'{"n":%d}' % self.sequence, b"{}", self.chain,
            )  # fmt: skip
            self.chain = entry.chain
            made.append(entry)
        return made

    def append(self, entries: list[Entry], commits: dict[int, int] | None = None) -> None:
        self.ticket += 1
        self.log.append(Batch(self.ticket, entries=entries, commits=commits or {}))
        ticket = self.ticket
        self.wait(lambda c: isinstance(c, Persisted) and c.ticket >= ticket)

    def wait(self, wanted: Callable[[Completion], bool]) -> Completion:
        while True:
            while self.log.completions:
                completion = self.log.completions.popleft()
                if wanted(completion):
                    return completion
            self.rang.clear()
            if not self.log.completions:
                assert self.rang.wait(WAIT), "the log does not answer"

    def read(self, room: RoomId = ROOM) -> list[int]:
        self.log.history(History(room, 0, 1000, reverse=False, max_bytes=1 << 30), "read")
        answer = self.wait(lambda c: isinstance(c, HistoryRead))
        assert isinstance(answer, HistoryRead)
        assert isinstance(answer.result, list)
        return [entry.sequence for entry in answer.result]


@pytest.fixture
def drive() -> Iterator[Callable[[Path], Driver]]:
    opened: list[Driver] = []

    def start(folder: Path) -> Driver:
        driver = Driver(folder)
        opened.append(driver)
        return driver

    yield start
    for driver in opened:
        driver.log.close()


def crash(folder: Path, to: Path) -> Path:
    """The files as a power cut or kill -9 would leave them at this moment."""
    shutil.copytree(folder, to)
    return to


def test_entries_known_to_be_committed_survive_a_crash_before_they_are_filed(
    drive: Callable[[Path], Driver], tmp_path: Path
) -> None:
    first = drive(tmp_path / "a")
    first.append(first.entries(3))
    first.append(first.entries(2), {SHARD: 3})
    second = drive(crash(tmp_path / "a", tmp_path / "b"))
    inherited = [e for e in second.log.recovered.unfiled if e.lsn > second.commit]
    second.sequence = 5
    opener = second.entries(1)
    second.append(opener)
    second.log.committed([*inherited, *opener])
    second.wait(lambda c: isinstance(c, Filed) and c.entries[-1].lsn == 6)
    assert second.read() == [1, 2, 3, 4, 5, 6]


def test_entries_that_are_not_known_to_be_committed_are_given_to_the_cores(
    drive: Callable[[Path], Driver], tmp_path: Path
) -> None:
    first = drive(tmp_path / "a")
    first.append(first.entries(3))
    first.append(first.entries(2), {SHARD: 3})
    second = drive(crash(tmp_path / "a", tmp_path / "b"))
    assert [entry.lsn for entry in second.log.recovered.unfiled] == [4, 5]


def test_a_batch_is_on_disk_when_it_is_answered(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    first = drive(tmp_path / "a")
    written = first.entries(5)
    first.append(written)
    second = drive(crash(tmp_path / "a", tmp_path / "b"))
    assert [entry.wire for entry in second.log.recovered.unfiled] == [entry.wire for entry in written]
    assert second.chain == written[-1].chain


def test_filing_twice_from_the_same_journal_changes_nothing(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    first = drive(tmp_path / "a")
    written = first.entries(300)
    first.append(written)
    first.append(first.entries(1), {SHARD: 300})
    drive(crash(tmp_path / "a", tmp_path / "b")).log.close()
    second = drive(tmp_path / "b")
    assert second.read() == list(range(1, 301))


def test_a_key_is_found_once_its_entry_is_filed(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    driver = drive(tmp_path)
    written = driver.entries(3)
    driver.append(written)
    driver.log.committed(written)
    driver.wait(lambda c: isinstance(c, Filed))
    known, unknown = dedupe_key(ROOM, b"s" * 12, "c2"), dedupe_key(ROOM, b"s" * 12, "other")
    driver.log.find_keys([known, unknown], "token")
    answer = driver.wait(lambda c: isinstance(c, KeysFound))
    assert isinstance(answer, KeysFound)
    assert [(key.key, key.sequence, key.fingerprint) for key in answer.known] == [
        (known, 2, fingerprint(written[1].data))
    ]


def test_a_hole_in_a_shard_halts_the_log(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    driver = drive(tmp_path)
    written = driver.entries(3)
    driver.append(written)
    driver.log.committed(written[1:])
    answer = driver.wait(lambda c: isinstance(c, Halted))
    assert isinstance(answer, Halted)
    assert answer.fault.reason == "chain"


def test_nothing_is_acknowledged_after_a_halt_and_closing_still_ends(
    drive: Callable[[Path], Driver], tmp_path: Path
) -> None:
    driver = drive(tmp_path)
    written = driver.entries(3)
    driver.append(written)
    driver.log.committed(written[1:])
    driver.wait(lambda c: isinstance(c, Halted))
    driver.log.append(Batch(99, entries=driver.entries(1)))
    driver.log.close()
    assert not driver.log.completions


def test_a_fault_of_ours_halts_the_log_too(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    driver = drive(tmp_path)
    driver.log.append(Batch(1, entries=[None]))  # type: ignore[list-item]
    answer = driver.wait(lambda c: isinstance(c, Halted))
    assert isinstance(answer, Halted)


def test_a_second_process_is_refused_by_name(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    drive(tmp_path)
    with pytest.raises(StorageFault, match=str(os.getpid())) as refused:
        Log.open(tmp_path, LogOptions(), lambda: None)
    assert refused.value.reason == "locked"


def test_a_damaged_frame_is_refused_when_the_log_is_opened(drive: Callable[[Path], Driver], tmp_path: Path) -> None:
    driver = drive(tmp_path)
    driver.append(driver.entries(3))
    driver.log.close()
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
        frame = bytearray(connection.execute("SELECT frame FROM journal").fetchone()[0])
        frame[len(frame) // 2] ^= 1
        connection.execute("UPDATE journal SET frame=?", (bytes(frame),))
        connection.commit()
    with pytest.raises(StorageFault, match="Frame 1 of the journal") as refused:
        Log.open(tmp_path, LogOptions(), lambda: None)
    assert refused.value.reason == "corrupt"


def test_a_truncated_suffix_is_gone_after_a_restart_even_when_its_successor_was_filed(
    drive: Callable[[Path], Driver], tmp_path: Path
) -> None:
    driver = drive(tmp_path / "a")
    kept = driver.entries(2)
    driver.append(kept)
    chain = driver.chain
    driver.append(driver.entries(2))
    driver.lsn, driver.sequence, driver.chain = 2, 2, chain
    replaced = driver.entries(1)
    other = make(8, 1, 1, RoomId("default", "b"), 1, 0, Kind.MESSAGE, b"", "", 1, b"salt" * 4, b"1", b"", GENESIS)
    driver.ticket += 1
    driver.log.append(Batch(driver.ticket, truncations=[Truncate(SHARD, 2)], entries=[*replaced, other]))
    driver.wait(lambda c: isinstance(c, Persisted) and c.ticket == driver.ticket)
    driver.log.committed([*kept, *replaced])
    driver.wait(lambda c: isinstance(c, Filed))
    second = drive(crash(tmp_path / "a", tmp_path / "b"))
    assert (second.lsn, second.chain) == (3, replaced[0].chain)
    assert second.read() == [1, 2, 3]


def test_an_idle_log_notices_by_itself_that_its_disk_is_full_and_that_there_is_space_again(
    drive: Callable[[Path], Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = drive(tmp_path)
    real = os.statvfs(tmp_path)
    free, looks = [real.f_blocks], threading.Semaphore(0)

    def statvfs(_: object) -> os.statvfs_result:
        looks.release()
        return os.statvfs_result((*real[:4], free[0], *real[5:]))

    monkeypatch.setattr("router.log.SPACE_SECONDS", 0.001)
    monkeypatch.setattr("router.log.os.statvfs", statvfs)
    driver.append(driver.entries(1))  # from here on it is idle
    for blocks, full in ((0, True), (real.f_blocks, False)):
        free[0] = blocks
        while looks.acquire(blocking=False):
            pass
        for _ in range(2):  # when the second look begins, the first is over
            assert looks.acquire(timeout=WAIT)
        assert driver.log.full is full


def test_pages_that_retention_freed_do_not_count_against_the_quota(
    drive: Callable[[Path], Driver], tmp_path: Path
) -> None:
    driver = drive(tmp_path)
    written = driver.entries(2000)
    driver.append(written)
    driver.log.committed(written)
    driver.wait(lambda c: isinstance(c, Filed) and c.entries[-1].lsn == 2000)
    driver.log.close()
    size = (tmp_path / "log.sqlite3").stat().st_size
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
        connection.execute("DELETE FROM known")
        connection.commit()
    log = Log.open(tmp_path, LogOptions(quota_bytes=size - 4096), lambda: None)
    log.close()
    assert (tmp_path / "log.sqlite3").stat().st_size == size
    assert not log.full


def test_a_log_whose_disk_does_not_answer_is_left_and_stays_locked(
    drive: Callable[[Path], Driver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = drive(tmp_path)
    log = driver.log
    begun, answers = threading.Event(), threading.Event()
    transact = Log._transact

    def stall(*arguments: Any) -> None:  # noqa: ANN401 - as they come
        begun.set()
        assert answers.wait(WAIT)
        transact(*arguments)

    monkeypatch.setattr(Log, "_transact", stall)
    log.append(Batch(1, entries=driver.entries(3)))
    assert begun.wait(WAIT)
    try:
        log.close(timeout=0)
        assert "was not closed within 0 s" in caplog.text
        assert "(log-writer" in caplog.text
        assert "of 3 entries nobody was told" in caplog.text
        with pytest.raises(StorageFault, match="in use by process"):
            Log.open(tmp_path, LogOptions(), lambda: None)
        log.close()  # does nothing more
    finally:
        driver.rang.clear()
        answers.set()
        for thread in log._threads:
            thread.join(WAIT)
        assert log._checkpointer.close(WAIT)
        log._reader_connection.close()
        log._connection.close()
        os.close(log._lock)
    assert not driver.rang.is_set()
    assert drive(tmp_path).lsn == 3


class Edge:
    """Hears of what is committed."""

    def __init__(self) -> None:
        self.published: list[Entry] = []

    def committed(self, entries: Sequence[Entry]) -> None:
        self.published += entries

    def persisted(self, done: Persisted) -> None:
        pass

    def halted(self, fault: StorageFault) -> None:
        raise fault

    def failed(self, told: Callable[..., None], error: Exception) -> None:  # noqa: ARG002 - as the router calls it
        raise error


OTHER = RoomId("default", "other")
RECOVERED = 6  # entries of each of two rooms


@pytest.mark.parametrize("filed", range(2 * RECOVERED + 2))
@pytest.mark.parametrize("overtaken", [False, True], ids=["in step", "overtaken"])
def test_recovered_entries_of_a_room_may_be_filed_in_parts(
    drive: Callable[[Path], Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filed: int, *, overtaken: bool
) -> None:
    """Wherever the parts end when the room is asked for, nothing of it is missing and nothing is there twice.

    Args:
        filed: So many entries are filed when the room is asked for, as the cores know.
        overtaken: The disk is ahead of what the cores know.
    """
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("router.log.REST_SECONDS", 0.0)
    monkeypatch.setattr("router.log.SLICE_ENTRIES", 1)
    monkeypatch.setattr(sys.modules[__name__], "SHARD", 0)
    first = drive(tmp_path / "a")
    written = []
    for number in range(RECOVERED):
        for room in (ROOM, OTHER):
            first.sequence = number
            written += first.entries(1, room)
    first.append(written)
    told = threading.Event()
    log = Log.open(crash(tmp_path / "a", tmp_path / "b"), LogOptions(), told.set)
    try:
        router = Router(log, "n", ClusterOptions(shards=1, dedupe_capacity=64), Edge())
        assert len(log.recovered.unfiled) == 2 * RECOVERED
        done = 0

        def pump(ready: Callable[[], bool]) -> None:
            """Hand the log's answers to the cores one by one until it is so."""
            nonlocal done
            while not ready():
                told.clear()
                if not log.completions:
                    assert told.wait(WAIT), "the log does not answer"
                    continue
                answer = log.completions.popleft()
                done += len(answer.entries) if isinstance(answer, Filed) else 0
                router._complete(answer)
                router.turn()

        pump(lambda: done >= filed)
        while overtaken and log._backlog.count:
            assert told.wait(WAIT)
            told.clear()
        states: list[RoomState | Away] = []
        router.open_room(ROOM, states.append)
        router.turn()
        pump(lambda: bool(states))
        state = states[0]
        assert not isinstance(state, Away)

        def read() -> list[int]:
            pages: list[Page | Away] = []
            router.history(state, History(ROOM, 0, 100, reverse=False, max_bytes=1 << 20), pages.append)
            pump(lambda: bool(pages))
            page = pages[0]
            assert isinstance(page, Page)
            return [entry.sequence for entry in page.entries]

        assert read() == list(range(1, RECOVERED + 1))
        pump(lambda: done == 2 * RECOVERED + 1)  # and the EPOCH entry
        assert read() == list(range(1, RECOVERED + 1))
        assert (state.sequence, state.committed, state.filed) == (RECOVERED, RECOVERED, RECOVERED)
    finally:
        log.close()

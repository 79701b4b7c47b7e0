"""Dedupe keys in runs: all are found while runs are merged, dropped, and after a crash in the middle of it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from router import known_keys
from router.events import KnownKey
from router.filing import MERGED_PER_KEY
from router.keyfilter import key_number
from router.known_keys import (
    DROPPED,
    LIVE,
    MOST_BITS,
    RECORD_BYTES,
    WRITING,
    KnownKeys,
    find_keys,
    record,
    scan_numbers,
)
from router.log_schema import FILE_NAME, open_reader, open_writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

SMALL_FAN: Final = 3


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Small runs and pages, so that few keys make several levels and runs of several pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_keys, "FAN", SMALL_FAN)
        patch.setattr(known_keys, "PAGE_RECORDS", 4)
        patch.setattr(known_keys, "STEP_RECORDS", 1)
        patch.setattr(known_keys, "PAGE_PRICE", 1)
        yield


def key_of(number: int) -> bytes:
    return blake2b(number.to_bytes(8), digest_size=16).digest()


def known_of(number: int) -> KnownKey:
    return KnownKey(key_of(number), number, number ^ 0xABCDEF)


def record_of(number: int) -> bytes:
    known = known_of(number)
    return record(known.key, known.sequence, known.fingerprint)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def states(connection: sqlite3.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT id, state FROM run").fetchall())


def settle(connection: sqlite3.Connection, keys: KnownKeys) -> None:
    while keys.busy:
        with transaction(connection):
            keys.step(100)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_writer(tmp_path / FILE_NAME, synchronous="OFF", shards=1)) as connection:
        yield connection


class Machine(RuleBasedStateMachine):
    """Runs on a disk against a dict; another connection looks up and scans, as the log's reader does."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.writer = open_writer(self.folder / FILE_NAME, synchronous="OFF", shards=1)
        self.reader = open_reader(self.folder / FILE_NAME)
        self.keys = KnownKeys(self.writer)
        self.next = 1
        self.newest: dict[int, int] = {}  # when the run of each key was written
        self.forgotten = 0  # keys of runs before this may be gone
        self.scan: tuple[int, set[int], set[int]] | None = None  # where it is, what it found, what it must find

    @override
    def teardown(self) -> None:
        self.reader.close()
        self.writer.close()
        shutil.rmtree(self.folder)

    def kept(self) -> set[int]:
        return {number for number, newest in self.newest.items() if newest >= self.forgotten}

    def make(self, count: int, newest: int) -> list[int]:
        made = list(range(self.next, self.next + count))
        self.keys.add([record_of(number) for number in made], newest)
        return made

    @rule(count=st.one_of(st.integers(0, 12), st.sampled_from([1, 200, 3000])), newest=st.integers(0, 9))
    def add(self, count: int, newest: int) -> None:
        with transaction(self.writer):
            made = self.make(count, newest)
        self.next += count
        self.newest.update(dict.fromkeys(made, newest))

    @rule(budget=st.sampled_from([1, 5, 50, 1000]))
    def step(self, budget: int) -> None:
        with transaction(self.writer):
            self.keys.step(budget)

    @rule(before=st.integers(0, 9))
    def forget(self, before: int) -> None:
        with transaction(self.writer):
            self.keys.forget(before)
        self.forgotten = max(self.forgotten, before)

    @rule(count=st.integers(0, 20), budget=st.sampled_from([0, 1, 50, 1000]), before=st.integers(0, 9))
    def crash(self, count: int, budget: int, before: int) -> None:
        """A transaction is lost with the process; the next one knows only the disk."""
        self.writer.execute("BEGIN IMMEDIATE")
        self.make(count, 5)
        if budget:
            self.keys.step(budget)
        self.keys.forget(before)
        self.writer.execute("ROLLBACK")
        self.keys = KnownKeys(self.writer)
        self.scan = None

    @rule()
    def settle(self) -> None:
        settle(self.writer, self.keys)
        found = states(self.writer)
        assert set(found.values()) <= {LIVE}
        pages = {page >> MOST_BITS for (page,) in self.writer.execute("SELECT id FROM known")}
        assert pages == set(found)
        records = b"".join(records for (records,) in self.writer.execute("SELECT records FROM known"))
        numbers = [records[at : at + RECORD_BYTES] for at in range(0, len(records), RECORD_BYTES)]
        assert len(numbers) == len(set(numbers))
        levels = [level for (level,) in self.writer.execute("SELECT level FROM run")]
        assert all(levels.count(level) < SMALL_FAN for level in levels)

    @rule(pages=st.sampled_from([1, 3, 40]))
    def scan_on(self, pages: int) -> None:
        after, found, due = self.scan or (-1, set(), self.kept())
        numbers, end = scan_numbers(self.reader, after, pages)
        found.update(numbers)
        if end is not None:
            self.scan = (end, found, due)
            return
        self.scan = None
        assert {key_number(key_of(number)) for number in due & self.kept()} <= found

    @rule()
    @precondition(lambda self: self.newest)
    def find(self) -> None:
        numbers = [*self.newest, *range(self.next, self.next + 20)]
        found = find_keys(self.reader, [key_of(number) for number in numbers])
        assert {known.sequence for known in found} >= self.kept()
        assert all(known == known_of(known.sequence) for known in found)
        assert {known.sequence for known in found} <= set(self.newest)

    @invariant()
    def some_are_found(self) -> None:
        some = sorted(self.kept())[:: max(1, len(self.newest) // 5)]
        assert find_keys(self.reader, [key_of(number) for number in some]) == [known_of(number) for number in some]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def write_runs(connection: sqlite3.Connection, keys: KnownKeys, runs: int, count: int) -> list[int]:
    """Add so many runs of so many keys; gives the numbers of the keys."""
    with transaction(connection):
        for run in range(runs):
            keys.add([record_of(number) for number in range(run * count, (run + 1) * count)], 1)
    return list(range(runs * count))


def test_a_run_that_is_being_written_is_not_looked_into(writer: sqlite3.Connection) -> None:
    keys = KnownKeys(writer)
    numbers = write_runs(writer, keys, SMALL_FAN, 40)
    with transaction(writer):
        keys.step(10)
    (target,) = [run for run, state in states(writer).items() if state == WRITING]
    pages = "id>=? AND id<?"
    bounds = (target << MOST_BITS, target + 1 << MOST_BITS)
    assert writer.execute(f"SELECT count(*) FROM known WHERE {pages}", bounds).fetchone()[0] > 0
    false = b"".join(record(key_of(number), 0, 0) for number in numbers)
    writer.execute(f"UPDATE known SET records=? WHERE {pages}", (false, *bounds))
    assert find_keys(writer, [key_of(number) for number in numbers]) == [known_of(number) for number in numbers]


def test_what_a_crash_left_half_written_is_removed_and_written_again(writer: sqlite3.Connection) -> None:
    keys = KnownKeys(writer)
    numbers = write_runs(writer, keys, SMALL_FAN, 40)
    with transaction(writer):
        keys.step(10)
    (target,) = [run for run, state in states(writer).items() if state == WRITING]
    settle(writer, KnownKeys(writer))
    left = states(writer)
    assert list(left.values()) == [LIVE]
    assert target not in left
    assert {page >> MOST_BITS for (page,) in writer.execute("SELECT id FROM known")} == set(left)
    assert find_keys(writer, [key_of(number) for number in numbers]) == [known_of(number) for number in numbers]


def test_dropped_runs_are_not_looked_into_before_their_pages_are_gone(writer: sqlite3.Connection) -> None:
    keys = KnownKeys(writer)
    write_runs(writer, keys, 2, 40)
    with transaction(writer):
        keys.forget(2)
        keys.step(1)
    assert set(states(writer).values()) == {DROPPED}
    assert writer.execute("SELECT count(*) FROM known").fetchone()[0] > 0
    assert find_keys(writer, [key_of(0)]) == []
    settle(writer, keys)
    assert writer.execute("SELECT (SELECT count(*) FROM known) + (SELECT count(*) FROM run)").fetchone()[0] == 0


def test_a_run_stays_as_long_as_its_newest_message_is_wanted(writer: sqlite3.Connection) -> None:
    keys = KnownKeys(writer)
    with transaction(writer):
        keys.add([record_of(1)], 10)
        keys.add([record_of(2)], 20)
        keys.forget(20)
    assert find_keys(writer, [key_of(1), key_of(2)]) == [known_of(2)]


def test_runs_that_are_being_merged_are_forgotten_when_they_are_one(writer: sqlite3.Connection) -> None:
    keys = KnownKeys(writer)
    write_runs(writer, keys, SMALL_FAN, 40)
    with transaction(writer):
        keys.step(10)
        keys.forget(2)
    assert find_keys(writer, [key_of(0)]) == [known_of(0)]
    settle(writer, keys)
    with transaction(writer):
        keys.forget(2)
    settle(writer, keys)
    assert states(writer) == {}


def test_a_page_of_the_keys_of_a_large_run_fits_a_page_of_the_database(
    writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "PAGE_RECORDS", 80)
    keys = KnownKeys(writer)
    numbers = write_runs(writer, keys, 1, 30_000)
    sizes = [size for (size,) in writer.execute("SELECT length(records) FROM known")]
    assert sum(sizes) == 30_000 * RECORD_BYTES
    assert sum(size > 4000 for size in sizes) < len(sizes) // 20
    asked = numbers[::997]
    assert find_keys(writer, [key_of(number) for number in asked]) == [known_of(number) for number in asked]


def test_runs_of_very_different_sizes_are_merged_in_small_parts(
    writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "STEP_RECORDS", 32)
    keys = KnownKeys(writer)
    with transaction(writer):
        keys.add([record_of(0)], 1)
        keys.add([record_of(number) for number in range(1, 3)], 1)
        keys.add([record_of(number) for number in range(3, 2000)], 1)
    moved = 0
    while keys.busy:
        with transaction(writer):
            keys.step(1)
        before, moved = moved, writer.execute("SELECT total(length(records)) FROM known").fetchone()[0]
        assert moved - before <= 4 * 32 * RECORD_BYTES or not before
    numbers = list(range(2000))
    assert find_keys(writer, [key_of(number) for number in numbers]) == [known_of(number) for number in numbers]


def test_merging_as_filing_does_keeps_the_number_of_runs_logarithmic(
    writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "FAN", 8)
    monkeypatch.setattr(known_keys, "STEP_RECORDS", 32)
    keys = KnownKeys(writer)
    most = 0
    with transaction(writer):
        for run in range(1500):
            keys.add([record_of(number) for number in range(run * 8, run * 8 + 8)], 1)
            keys.step(8 * MERGED_PER_KEY)
            most = max(most, sum(state == LIVE for state in states(writer).values()))
    levels = 4  # 8**4 runs are more than 1500
    assert most <= levels * 8 + 8
    assert find_keys(writer, [key_of(7)]) == [known_of(7)]

"""The log on a real disk: what it answers, what it still holds when it is opened again, and how it halts."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import pytest

from router import log as log_module
from router.completions import CasDone, Filed, Halted, HistoryRead, KeysFound, Persisted, RoomLoaded
from router.entry import GENESIS, SALT_BYTES, Entry, Kind, make
from router.errors import StorageFault
from router.events import Batch, Configuration, History, KnownKey, Promise, fingerprint
from router.ids import MemberId, RoomId, dedupe_key
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from router.completions import Completion

LOBBY = RoomId("default", "lobby")
SENDER = b"s" * 12
DEADLINE_SECONDS = 20.0
MANY = 300  # entries; more than two chunks

Answer = TypeVar("Answer")


class Opened:
    """A log and its answers so far."""

    def __init__(self, folder: Path, options: LogOptions) -> None:
        self._told = threading.Event()
        self.answers: list[Completion] = []
        self.log = Log.open(folder, options, self._told.set)

    def wait(self, kind: type[Answer], ready: Callable[[Answer], bool] = lambda _: True) -> Answer:
        """The first answer of this kind that is as it should be."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            self._told.clear()
            while self.log.completions:
                self.answers.append(self.log.completions.popleft())
            for answer in self.answers:
                if isinstance(answer, kind) and ready(answer):
                    return answer
            if not self._told.wait(deadline - time.monotonic()):
                pytest.fail(f"no {kind.__name__} among {self.answers}")

    def write(self, count: int = 3) -> list[Entry]:
        """Make entries durable."""
        made = entries(count)
        self.log.append(Batch(1, [Promise(1, 1)], entries=made))
        self.wait(Persisted)
        return made

    def file(self, made: list[Entry]) -> None:
        """Wait until entries are filed."""
        self.log.committed(made)
        self.wait(Filed, lambda done: done.entries[-1].lsn == made[-1].lsn)

    def history(self, since: int | None, limit: int = 1000, *, reverse: bool = False, size: int = 1 << 20) -> list[int]:
        """Sequences of a page."""
        token = object()
        self.log.history(History(LOBBY, since, limit, reverse=reverse, max_bytes=size), token)
        result = self.wait(HistoryRead, lambda done: done.token is token).result
        assert isinstance(result, list)
        return [entry.sequence for entry in result]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the log of the test's directory, closing it first if it is open."""
    opened: list[Opened] = []

    def open_again(**options: int) -> Opened:
        for old in opened:
            old.log.close()
        opened.append(Opened(tmp_path, LogOptions(**options)))  # type: ignore[arg-type] # numbers of a test
        return opened[-1]

    yield open_again
    for old in opened:
        old.log.close()


def entries(
    count: int, start: int = 1, previous: bytes = GENESIS, *, shard: int = 1, room: RoomId = LOBBY
) -> list[Entry]:
    """Messages of one room, the only one of its shard, whose lsn are its sequences."""
    made: list[Entry] = []
    for n in range(start, start + count):
        data = f'{{"id":"{n}"}}'.encode()
        key = dedupe_key(room, SENDER, f"id-{n}")
        entry = make(
            shard, n, 1, room, n, 0, Kind.MESSAGE, SENDER, f"id-{n}", 1000 + n, bytes(SALT_BYTES), data, b'"u1"',
            previous, key,
        )  # fmt: skip
        made.append(entry)
        previous = entry.chain
    return made


def damage(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


def test_a_batch_is_answered_when_it_is_durable(reopen: Callable[..., Opened]) -> None:
    opened = reopen()
    opened.log.append(Batch(7, [Promise(1, 1)], entries=entries(2)))
    done = opened.wait(Persisted)
    assert (done.ticket, done.entries) == (7, 2)


@pytest.mark.usefixtures("no_filing")
def test_what_is_durable_and_not_filed_is_found_again(reopen: Callable[..., Opened]) -> None:
    made = reopen().write(3)
    recovered = reopen().log.recovered
    assert [entry.wire for entry in recovered.unfiled] == [entry.wire for entry in made]
    tail = recovered.shards[1]
    assert (tail.lsn, tail.chain, tail.promised) == (3, made[-1].chain, 1)


@pytest.mark.usefixtures("prompt_filing")
def test_what_is_filed_is_found_again_in_the_tables(reopen: Callable[..., Opened]) -> None:
    first = reopen()
    made = first.write(3)
    first.file(made)
    second = reopen()
    assert second.log.recovered.unfiled == ()
    tail = second.log.recovered.shards[1]
    assert (tail.lsn, tail.chain, tail.commit) == (3, made[-1].chain, 3)
    assert second.history(0) == [1, 2, 3]


@pytest.mark.usefixtures("prompt_filing")
def test_what_follows_the_filed_is_found_again_behind_it(reopen: Callable[..., Opened]) -> None:
    first = reopen()
    made = first.write(3)
    first.file(made)
    more = entries(2, start=4, previous=made[-1].chain)
    first.log.append(Batch(2, entries=more))
    first.wait(Persisted, lambda done: done.ticket == 2)
    second = reopen()
    assert [entry.lsn for entry in second.log.recovered.unfiled] == [4, 5]
    second.file(list(second.log.recovered.unfiled))
    assert second.history(0) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("prompt_filing")
def test_history_reads_both_ways_over_the_bounds_of_chunks(reopen: Callable[..., Opened]) -> None:
    opened = reopen()
    opened.file(opened.write(MANY))
    assert opened.history(None) == list(range(1, MANY + 1))
    assert opened.history(120, 20) == list(range(121, 141))
    assert opened.history(140, 20, reverse=True) == list(range(139, 119, -1))
    assert opened.history(None, 3, reverse=True) == [300, 299, 298]
    assert opened.history(None, reverse=True) == list(range(MANY, 0, -1))
    assert opened.history(MANY) == []
    assert opened.history(1, reverse=True) == []


@pytest.mark.usefixtures("prompt_filing")
def test_a_page_ends_before_its_bytes_pass_the_bound_and_is_never_empty_for_it(
    reopen: Callable[..., Opened],
) -> None:
    opened = reopen()
    made = opened.write(10)
    opened.file(made)
    assert opened.history(0, size=sum(len(entry.wire) for entry in made[:4])) == [1, 2, 3, 4]
    assert opened.history(0, size=1) == [1]


@pytest.mark.usefixtures("prompt_filing")
def test_the_head_of_a_room_and_the_keys_of_its_messages_are_filed(reopen: Callable[..., Opened]) -> None:
    opened = reopen()
    made = opened.write(3)
    opened.file(made)
    opened.log.load_room(LOBBY)
    opened.log.find_keys([made[1].key, b"unknown key 1234"], "token")
    assert opened.wait(RoomLoaded).record.sequence == 3
    assert opened.wait(KeysFound).known == [KnownKey(made[1].key, 2, fingerprint(made[1].data))]


@pytest.mark.usefixtures("no_filing")  # after a rest; under load there is
def test_a_shard_that_is_never_done_does_not_keep_others_from_being_filed(
    reopen: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog, each, rounds = 200, 10, 8
    monkeypatch.setattr(log_module, "UNFILED_ENTRIES", backlog)
    monkeypatch.setattr(log_module, "SLICE_ENTRIES", each)
    opened = reopen()
    quiet = entries(1, shard=2, room=RoomId("default", "quiet"))
    busy = entries(backlog + rounds * each)
    opened.log.append(Batch(1, [Promise(1, 1), Promise(2, 1)], entries=busy[:backlog] + quiet))
    opened.wait(Persisted)
    opened.log.committed(busy[:backlog] + quiet)
    for turn in range(rounds):
        start = backlog + turn * each
        more = busy[start : start + each]
        opened.log.append(Batch(2 + turn, entries=more))
        opened.wait(Persisted, lambda done, ticket=2 + turn: done.ticket == ticket)  # type: ignore[misc]
        opened.log.committed(more)
    opened.log.cas(0, Configuration(1, 1, 1, MemberId("a", "1"), (MemberId("a", "1"),)), "all before it is done")
    opened.wait(CasDone)
    filed = [entry for done in opened.answers if isinstance(done, Filed) for entry in done.entries]
    assert [entry for entry in filed if entry.shard == 2] == quiet
    assert 0 < len(filed) < backlog


def test_a_claim_wins_only_from_the_version_it_expects(reopen: Callable[..., Opened]) -> None:
    opened = reopen()
    a, b = MemberId("a", "1"), MemberId("b", "2")
    first, second = Configuration(1, 1, 1, a, (a,)), Configuration(1, 1, 1, b, (b,))
    opened.log.cas(0, first, "a")
    opened.log.cas(0, second, "b")
    assert opened.wait(CasDone, lambda done: done.token == "b").current == first
    assert reopen().log.recovered.configurations == {1: first}


def test_a_directory_in_use_is_refused_with_its_holder(reopen: Callable[..., Opened], tmp_path: Path) -> None:
    reopen()
    with pytest.raises(StorageFault, match=rf"in use by process {os.getpid()}\..*--data-dir") as caught:
        Log.open(tmp_path, LogOptions(), lambda: None)
    assert caught.value.reason == "locked"


def test_a_closed_log_leaves_its_directory_to_the_next(reopen: Callable[..., Opened], tmp_path: Path) -> None:
    reopen().log.close()
    Log.open(tmp_path, LogOptions(), lambda: None).close()


@pytest.mark.usefixtures("no_filing")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET frame=CAST(substr(frame,1,40)||x'00ff00'||substr(frame,44) AS BLOB)",
        "UPDATE journal SET frame=substr(frame,1,length(frame)-1)",
        "UPDATE journal SET frame=x''",
    ],
    ids=["changed", "shortened", "empty"],
)
def test_a_damaged_frame_of_the_journal_is_refused_when_the_log_is_opened(
    reopen: Callable[..., Opened], tmp_path: Path, statement: str
) -> None:
    opened = reopen()
    opened.write(3)
    opened.log.close()
    damage(tmp_path, statement)
    with pytest.raises(StorageFault, match=r"Frame 1 of the journal in .* is damaged") as caught:
        reopen()
    assert caught.value.reason == "corrupt"


@pytest.mark.usefixtures("no_filing")
def test_a_lost_frame_of_the_journal_is_noticed(reopen: Callable[..., Opened], tmp_path: Path) -> None:
    opened = reopen()
    made = opened.write(2)
    opened.log.append(Batch(2, entries=entries(2, start=3, previous=made[-1].chain)))
    opened.wait(Persisted, lambda done: done.ticket == 2)
    opened.log.close()
    damage(tmp_path, "DELETE FROM journal WHERE n=1")
    with pytest.raises(StorageFault, match=r"shard 1 goes from lsn 0 to 3"):
        reopen()


@pytest.mark.usefixtures("prompt_filing")
def test_a_damaged_chunk_gives_a_fault_to_its_reader_and_halts_the_log(
    reopen: Callable[..., Opened], tmp_path: Path
) -> None:
    opened = reopen()
    opened.file(opened.write(MANY))
    opened.log.close()
    damage(tmp_path, "UPDATE chunk SET wires=CAST(substr(wires,1,length(wires)-1)||x'00' AS BLOB) WHERE id=2")
    again = reopen()
    again.log.history(History(LOBBY, 0, MANY, reverse=False, max_bytes=1 << 20), "token")
    result = again.wait(HistoryRead).result
    assert isinstance(result, StorageFault)
    assert result.reason == "corrupt"
    assert again.wait(Halted).fault is result


def test_a_full_database_halts_and_acknowledges_nothing(reopen: Callable[..., Opened]) -> None:
    opened = reopen()
    pages = opened.log._connection.execute("PRAGMA page_count").fetchone()[0]
    opened.log._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    opened.log.append(Batch(1, [Promise(1, 1)], entries=entries(2000)))
    opened.log.append(Batch(2))
    assert opened.wait(Halted).fault.reason == "full"
    opened.log.close()
    assert not any(isinstance(answer, Persisted) for answer in [*opened.answers, *opened.log.completions])
    assert reopen().log.recovered.unfiled == ()


KILLED = """
import os, pathlib, signal, sys, threading
sys.path.insert(0, sys.argv[2])
from test_log import Batch, Log, LogOptions, Persisted, Promise, entries
told = threading.Event()
log = Log.open(pathlib.Path(sys.argv[1]), LogOptions(), told.set)
made = entries(500)
for n in range(5):
    log.append(Batch(n + 1, [Promise(1, 1)] if n == 0 else [], entries=made[n * 100 : n * 100 + 100]))
ticket = 0
while ticket < 3:
    assert told.wait(20)
    told.clear()
    while log.completions:
        done = log.completions.popleft()
        if isinstance(done, Persisted):
            ticket = done.ticket
print(ticket, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(reopen: Callable[..., Opened], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)],
        stdout=subprocess.PIPE, timeout=60, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    acknowledged = int(done.stdout) * 100
    found = reopen().log.recovered.unfiled
    assert len(found) >= acknowledged
    assert [entry.wire for entry in found] == [entry.wire for entry in entries(len(found))]

"""What is truncated: it leaves the log for good and the quarantine has it; and rows of registers that were learned."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from router.completions import CasDone, Halted, Persisted, ShardRead, ShardRun
from router.entry import GENESIS, Entry, Kind, make
from router.errors import StorageFault
from router.events import Batch, Configuration, Truncate
from router.ids import MemberId, RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME
from router.log_tools import export_quarantine, stat, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from router.completions import Completion

ROOM = RoomId("default", "lobby")
OTHER = RoomId("default", "hall")
SHARD = 7
WAIT = 10.0
NOBODY = MemberId("", "")


class Member:
    """A log, driven as a shard's member drives it."""

    def __init__(self, folder: Path, quarantine_bytes: int = 1 << 20) -> None:
        self.folder = folder
        self.rang = threading.Event()
        self.log = Log.open(folder, LogOptions(durable=False, quarantine_bytes=quarantine_bytes), self.rang.set)
        self.ticket = 0

    def wait(self, wanted: Callable[[Completion], bool]) -> Completion:
        while True:
            while self.log.completions:
                done = self.log.completions.popleft()
                if wanted(done):
                    return done
            self.rang.clear()
            if not self.log.completions:
                assert self.log.fault is None, self.log.fault
                assert self.rang.wait(WAIT), "the log does not answer"

    def hand_over(self, entries: Sequence[Entry], cut: int | None = None, commit: int = 0) -> None:
        self.ticket += 1
        truncations = [] if cut is None else [Truncate(SHARD, cut)]
        commits = {SHARD: commit} if commit else {}
        self.log.append(Batch(self.ticket, truncations=truncations, entries=list(entries), commits=commits))

    def write(self, entries: Sequence[Entry], cut: int | None = None, commit: int = 0) -> None:
        self.hand_over(entries, cut, commit)
        self.wait(lambda done: isinstance(done, Persisted) and done.ticket == self.ticket)

    def reach(self) -> None:
        claim = object()
        self.log.cas(99, Configuration(99, 1, 1, NOBODY, ()), claim)
        self.wait(lambda done: isinstance(done, CasDone) and done.token is claim)

    def read(self) -> list[bytes]:
        self.log.read_shard(SHARD, 0, 1000, 1 << 30, None)
        done = self.wait(lambda done: isinstance(done, ShardRead))
        assert isinstance(done, ShardRead)
        assert isinstance(done.result, ShardRun)
        return list(done.result.wires)

    def kept(self) -> list[tuple[int, int]]:
        """(lsn, epoch) of what is in quarantine, as the operator's tool says."""
        return [(row["lsn"], row["epoch"]) for row in export_quarantine(self.folder)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def open_one(name: str = "a", quarantine_bytes: int = 1 << 20) -> Member:
        members.append(Member(tmp_path / name, quarantine_bytes))
        return members[-1]

    yield open_one
    for member in members:
        member.log.close()


def run(count: int, epoch: int, before: Sequence[Entry] = ()) -> list[Entry]:
    """Entries of an epoch that follow others."""
    made: list[Entry] = list(before)
    for lsn in range(len(before) + 1, len(before) + count + 1):
        chain = made[-1].chain if made else GENESIS
        made.append(
            make(SHARD, lsn, epoch, ROOM, lsn, 0, Kind.MESSAGE, b"s" * 12, f"{epoch}-{lsn}", 1, b"salt" * 4,
                 b'{"n":%d}' % lsn, b'"ada"', chain)
        )  # fmt: skip
    return made[len(before) :]


def again(member: Member, start: Callable[..., Member], name: str) -> Member:
    """The same files, as kill -9 would leave them now."""
    member.reach()
    shutil.copytree(member.folder, member.folder.parent / name)
    return start(name)


def tail(member: Member) -> tuple[int, bytes, int]:
    found = member.log.recovered.shards[SHARD]
    return found.lsn, found.chain, found.commit


def test_what_is_truncated_is_kept_aside_and_shown(start: Callable[..., Member]) -> None:
    member = start()
    old = run(5, 1)
    new = run(2, 2, old[:2])
    member.write(old, commit=1)
    member.write(new, cut=2)
    assert member.kept() == [(3, 1), (4, 1), (5, 1)]
    shown = next(iter(export_quarantine(member.folder, channel="lobby")))
    assert (shown["shard"], shown["data"], shown["author"], shown["cmid"]) == (SHARD, {"n": 3}, "ada", "1-3")
    assert shown["quarantined"] > 1_600_000_000_000
    assert list(export_quarantine(member.folder, site="elsewhere")) == []
    figures = stat(member.folder)
    assert (figures.quarantined, figures.quarantined_bytes) == (3, sum(len(entry.wire) for entry in old[2:]))
    second = again(member, start, "b")
    assert tail(second) == (4, new[-1].chain, 1)
    assert [entry.wire for entry in second.log.recovered.unfiled] == [e.wire for e in (*old[1:2], *new)]
    assert verify(second.folder).findings == ()


def test_batches_of_one_commit_keep_their_order(start: Callable[..., Member]) -> None:
    member = start()
    first = run(4, 1)
    second, third = run(3, 2, first[:2]), run(1, 3, first[:1])
    member.hand_over(first)
    member.hand_over(second, cut=2)
    member.hand_over(run(1, 2, [*first[:2], *second]))
    member.hand_over(third, cut=1)
    member.wait(lambda done: isinstance(done, Persisted) and done.ticket == member.ticket)
    assert sorted(member.kept()) == [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 2), (6, 2)]
    other = again(member, start, "b")
    assert tail(other) == (2, third[0].chain, 0)
    assert verify(other.folder).findings == ()


def test_frames_that_a_truncation_made_void_are_dropped_and_no_matter_to_a_restart(
    start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0)
    member = start()
    first = run(6, 1)
    second, third = run(3, 2, first[:4]), run(1, 3, first[:2])
    other = make(8, 1, 1, OTHER, 1, 0, Kind.MESSAGE, b"", "", 1, b"salt" * 4, b"1", b"", GENESIS)
    member.write(first)
    member.write([*second, other], cut=4)  # this one waits for shard 8 to be filed
    member.write(third, cut=2)
    member.log.committed([*first[:2], *third])
    while (frames := stat(member.folder).frames) == 3:
        member.reach()
    assert frames == 2
    last = again(member, start, "b")
    assert tail(last) == (3, third[0].chain, 3)
    assert last.read() == [entry.wire for entry in (*first[:2], *third)]
    assert verify(last.folder).findings == ()
    assert verify(last.folder).entries == 4
    last.log.committed([other])
    while stat(last.folder).frames:
        last.reach()


def test_an_idle_shard_whose_suffix_was_truncated_keeps_no_frame(
    start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0)
    member = start()
    old = run(3, 1)
    other = [make(8, 1, 1, OTHER, 1, 0, Kind.MESSAGE, b"", "", 1, b"salt" * 4, b"1", b"", GENESIS)]
    member.write(old)
    member.log.committed(old[:1])
    member.write([], cut=1)
    member.write(other)
    member.log.committed(other)
    while stat(member.folder).frames:
        member.reach()
    assert tail(again(member, start, "b")) == (1, old[0].chain, 1)


def test_what_nobody_commits_is_written_again_and_keeps_no_frame(
    start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("router.journal_writer.CARRY_BYTES", 3000)
    member = start()
    old = run(6, 1)
    member.write(old[:3], commit=1)
    member.write(old[3:])
    member.write([], cut=5)
    member.log.committed(old[:1])
    chain, most = GENESIS, 0
    for lsn in range(1, 101):  # another shard goes on
        entry = make(8, lsn, 1, OTHER, lsn, 0, Kind.MESSAGE, b"", "", 1, b"salt" * 4, b"x" * 100, b"", chain)
        chain = entry.chain
        member.write([entry])
        member.log.committed([entry])
        member.reach()
        most = max(most, stat(member.folder).frames)
    assert 3 < most < 30
    assert verify(member.folder).findings == ()
    assert member.kept() == [(6, 1)]
    second = again(member, start, "b")
    assert tail(second) == (5, old[4].chain, 1)
    assert [entry.wire for entry in second.log.recovered.unfiled if entry.shard == SHARD] == [
        entry.wire for entry in old[1:5]
    ]
    new = run(1, 2, old[:2])
    second.write(new, cut=2)
    assert second.kept() == [(6, 1), (3, 1), (4, 1), (5, 1)]
    second.log.committed([*old[1:2], *new])
    while stat(second.folder).frames:
        second.reach()
    assert second.read() == [entry.wire for entry in (*old[:2], *new)]
    assert verify(second.folder).findings == ()


@pytest.mark.parametrize("how", ["batch", "committed", "filed"])
def test_a_truncation_below_the_commit_halts_the_log(
    start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("router.log.FILE_AFTER_SECONDS", 0.0 if how == "filed" else 1e6)
    member = start()
    old = run(3, 1)
    member.write(old, commit=2 if how == "batch" else 0)
    if how != "batch":
        member.log.committed(old[:2])
        member.reach()
    member.hand_over(run(1, 2, old[:1]), cut=1)
    done = member.wait(lambda done: isinstance(done, Halted))
    assert isinstance(done, Halted)
    assert "truncation to 1, below the commit 2" in str(done.fault)
    assert tail(again_halted(member, start)) == (3, old[-1].chain, 0 if how == "committed" else 2)


def again_halted(member: Member, start: Callable[..., Member]) -> Member:
    shutil.copytree(member.folder, member.folder.parent / "b")
    return start("b")


def test_a_frame_that_truncates_what_a_frame_before_it_says_is_committed_is_refused(
    start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.journal_writer.JournalWriter._set_aside", lambda _self, _truncations: None)
    member = start()
    old = run(3, 1)
    member.write(old, commit=2)
    member.write(run(1, 2, old[:1]), cut=1)
    with pytest.raises(StorageFault, match="truncated to lsn 1, below its commit 2"):
        again(member, start, "b")


def test_a_member_that_starts_again_knows_its_commit(start: Callable[..., Member]) -> None:
    member = start()
    entries = run(5, 1)
    member.write(entries[:4], commit=1)
    member.write(entries[4:], commit=3)
    second = again(member, start, "b")
    assert tail(second) == (5, entries[-1].chain, 3)
    assert second.log.recovered.shards[SHARD].commit_chain == entries[2].chain
    assert second.read() == [entry.wire for entry in entries[:3]]


def test_the_quarantine_keeps_the_newest_up_to_its_bound(start: Callable[..., Member]) -> None:
    old = run(6, 1)
    member = start(quarantine_bytes=2 * len(old[0].wire) + 1)
    member.write(old)
    member.write([], cut=3)
    assert member.kept() == [(5, 1), (6, 1)]
    member.write([], cut=2)
    assert member.kept() == [(6, 1), (3, 1)]
    member.log.close()
    reopened = start("a", quarantine_bytes=0)
    assert reopened.kept() == []
    reopened.write([], cut=1)
    assert reopened.kept() == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE quarantine SET lsn=9", "quarantine: lsn 9 of shard 7, epoch 1, is damaged"),
        ("UPDATE quarantine SET wire=x'00'", "quarantine: lsn 2 of shard 7, epoch 1, is damaged"),
        ("INSERT INTO learned VALUES(1, 1, 1, 'n', 'd', '[')", "its learned's row of shard 1 can't be read"),
    ],
)
def test_verify_knows_what_is_kept_aside(start: Callable[..., Member], statement: str, words: str) -> None:
    member = start()
    member.write(run(2, 1))
    member.write([], cut=1)
    with closing(sqlite3.connect(member.folder / FILE_NAME)) as connection:
        connection.execute(statement)
        connection.commit()
    (finding,) = verify(member.folder).findings
    assert words in finding


def test_learned_rows_are_there_after_a_restart_the_newest_of_each_shard(start: Callable[..., Member]) -> None:
    member = start()
    one, two = MemberId("n1", "d1"), MemberId("n2", "d2")
    rows = [Configuration(1, 3, 5, one, (one, two)), Configuration(2, 1, 1, two, (two,))]
    member.log.learn(rows)
    member.log.learn([Configuration(1, 2, 4, two, (two,)), Configuration(2, 2, 2, one, (one,))])
    member.reach()
    second = again(member, start, "b")
    assert second.log.recovered.learned == {1: rows[0], 2: Configuration(2, 2, 2, one, (one,))}
    assert second.log.recovered.configurations == {}
    second.log.learn([rows[0]])
    second.reach()
    assert again(second, start, "c").log.recovered.learned == second.log.recovered.learned

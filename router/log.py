"""The node's log: one thread that writes, one that reads, and a queue of answers.

The driver hands over batches and questions without waiting. The writer makes one transaction and one fsync of all
that is queued (a frame of the journal); between commits it files what is committed into the tables that reads use.
Answers gather in `completions`, and `notify` is called. The first fault of the disk halts the log for good: an fsync
that failed is never tried again (what it covered may be gone), and nothing is acknowledged any more.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from router.backlog import Backlog
from router.checkpointer import Checkpointer
from router.completions import (
    CasDone,
    Completion,
    Filed,
    Halted,
    HistoryRead,
    KeysFound,
    KeysScanned,
    MarkRead,
    MetaRead,
    Persisted,
    RoomLoaded,
    ShardRead,
    SnapshotRead,
    TailRead,
    Trimmed,
)
from router.entry import GENESIS, Entry
from router.errors import BrokenInvariant, RouterError, StorageFault
from router.events import Batch, Configuration, History, Recovered, ShardTail
from router.filing import Filing
from router.journal_writer import JournalWriter
from router.log_check import check_log
from router.log_faults import storage_fault
from router.log_lock import take_lock
from router.log_options import LogOptions, LogStatistics
from router.log_orders import Answer, Cas, Committed, Question
from router.log_questions import Questions
from router.log_reader import LogReader
from router.log_schema import FILE_NAME, PAGE_BYTES, open_reader, open_writer
from router.placement import shard_of
from router.quarantine import Quarantine
from router.replay import replay
from router.retention import Retention, Rule
from router.row_tables import Learned, OwnRegister
from router.shard_reader import ShardReader
from router.snapshot_export import Exports
from router.snapshot_import import Imports, drop_unfinished
from router.tail_reader import TailReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from router.ids import RoomId, ShardId
    from router.tail import Hold, TailQuery

__all__ = ["Log", "LogOptions", "LogStatistics"]

UNFILED_ENTRIES: Final = 16_384  # about so many stay unfiled under load: filing costs less for many at once
SLICE_ENTRIES: Final = 512  # filed at once, at least: about 3 ms of work between two commits
FILE_AFTER_SECONDS: Final = 1.0  # age of the oldest from which filing goes on without commits, in
REST_SECONDS: Final = 0.02  # without anything to write
COMMIT_BYTES: Final = 16_384  # of pages that a commit writes beside what it is for
FILING_FACTOR: Final = 2  # bytes written for each that is filed: indexes, keys, heads of rooms, and the journal's end
CLOSE_SECONDS: Final = 30.0  # for a disk that is slow; supervisors kill after 30 to 90
SPACE_SECONDS: Final = 1.0  # between two looks at the free space
FULL_SHARE: Final = 0.85  # of the disk; above it the file system itself becomes slow and other programs fail


_STOP: Final = object()
_logger = logging.getLogger(__name__)


class Log:
    """The log of one node; made by `open`.

    Attributes:
        meta: What was made with the database.
        recovered: What it held when it was opened; unfiled are only the entries not known to be committed.
        completions: Answers, oldest first; the driver takes them from the left.
        full: Whether there is too little space for more.
        fault: Why it has halted.
    """

    def __init__(self, path: Path, options: LogOptions, notify: Callable[[], None], lock: int) -> None:
        self.path, self.options = path, options
        self._notify, self._lock = notify, lock
        self.completions: deque[Completion] = deque()
        self.full = False
        self.fault: StorageFault | None = None
        self._closed = False
        self._space_at = 0.0
        self._writes: SimpleQueue[Any] = SimpleQueue()
        faulty = partial(storage_fault, path=path)
        self._reads = Questions("log-reader", self._answer, faulty, self._halt)
        self._exporting = Questions("log-exporter", self._answer, faulty, self._halt)
        self._written = 0  # bytes of the transaction under way, about
        self._appended = self._durable = 0  # entries; the first is the driver's to count, the second the writer's
        synchronous = "FULL" if options.durable else "OFF"
        self._connection = open_writer(path, synchronous=synchronous, shards=options.shards)
        self.meta = check_log(self._connection, path, options.shards)
        drop_unfinished(self._connection)
        found = replay(self._connection, path)
        shards = found.recovered.shards
        committed = [entry for entry in found.recovered.unfiled if entry.lsn <= shards[entry.shard].commit]
        uncommitted = tuple(entry for entry in found.recovered.unfiled if entry.lsn > shards[entry.shard].commit)
        self._learned = Learned(self._connection)
        self.recovered = Recovered(shards, found.recovered.configurations, uncommitted, dict(self._learned.rows))
        self._chains = found.chains
        self._filed = found.filed
        self._register = OwnRegister(self._connection)
        self._filing = Filing(self._connection)
        self._retention = Retention(self._connection, self._filing.keys)
        self._backlog = Backlog()
        self._journal = JournalWriter(
            self._connection, found, Quarantine(self._connection, options.quarantine_bytes), self._committed_lsn
        )
        self._imports = Imports(
            self._connection, self._filing, self._committed_lsn, self._begin_import, self._end_import, options.shards
        )
        self._unfiled_since = 0.0
        self._filing_due = 0.0
        self._file_recovered(committed)
        self._reader_connection = open_reader(path)
        self._reader = LogReader(self._reader_connection)
        self._tail_reader = TailReader(self._reader_connection)
        self._shard_reader = ShardReader(self._reader_connection)
        self._export_connection = open_reader(path)
        self._exports = Exports(self._export_connection, path.parent)
        self._watch_space(0.0)
        self._checkpointer = Checkpointer(path, synchronous, lambda error: self._halt(storage_fault(error, path)))
        self._threads = [
            threading.Thread(target=self._write_loop, name="log-writer", daemon=True),
            self._reads.thread,
            self._exporting.thread,
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, folder: Path, options: LogOptions, notify: Callable[[], None]) -> Log:
        """Open or create the log in a data directory; blocks while it is verified and replayed.

        Raises:
            StorageFault: Another process has it, it is damaged, or the disk fails.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(folder)
        except OSError as error:
            raise StorageFault("io", f"The data directory {folder} can't be used: {error}.") from error
        try:
            return cls(folder / FILE_NAME, options, notify, lock)
        except (sqlite3.Error, OSError, RouterError) as error:
            os.close(lock)
            raise storage_fault(error, folder / FILE_NAME) from error

    # -- from the driver -----------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        """Make a batch durable; answered by `Persisted`."""
        self._appended += len(batch.entries)
        self._writes.put((batch, time.monotonic()))

    def committed(self, entries: Sequence[Entry]) -> None:
        """These entries may be filed; answered by `Filed`."""
        self._writes.put(Committed(entries))

    def file_all(self) -> None:
        """File all that may be filed now: somebody waits for `Filed`."""
        self._writes.put(self._file_all)

    def cas(self, expected_version: int, new: Configuration, token: object) -> None:
        """Compare-and-set a row of this node's own register; answered by `CasDone`."""
        self._writes.put(Cas(expected_version, new, token))

    def retain(self, rule: Rule, dedupe_seconds: int, undo_seconds: int = 0) -> None:
        """Drop what is older or more than the rule allows, a slice at a time; answered by `Trimmed`.

        Messages that were removed more than `undo_seconds` ago are erased; 0: none.
        """
        now_ms = int(time.time() * 1000)
        self._writes.put(partial(self._retention.begin, rule, dedupe_seconds, undo_seconds, now_ms))

    def hold(self, hold: Hold | None) -> None:
        """Leave for a follower what it has not read, whatever the rule of `retain` says; None: nothing any more.

        Whatever is held, the log as a whole stays within `LogOptions.retention_bytes`, and nothing is while the disk is
        full. It is not kept over a restart.
        """
        self._writes.put(partial(self._retention.keep_for, hold))

    def load_room(self, room: RoomId) -> None:
        """Read a room's head; answered by `RoomLoaded`."""
        self._reads.put(lambda: RoomLoaded(self._reader.room(room)))

    def find_keys(self, keys: list[bytes], token: object) -> None:
        """Look up dedupe keys; answered by `KeysFound`."""
        self._reads.put(lambda: KeysFound(token, self._reader.keys(keys)))

    def scan_keys(self, after: int, pages: int) -> None:
        """List known keys' numbers, behind the place where the last part ended; answered by `KeysScanned`."""
        self._reads.put(lambda: KeysScanned(*self._reader.key_numbers(after, pages)))

    def history(self, read: History, token: object) -> None:
        """Read entries; answered by `HistoryRead`."""
        self._reads.ask(HistoryRead, partial(self._reader.history, read), token)

    def tail(self, query: TailQuery, token: object) -> None:
        """Read what `committed` was told of until now and follows a cursor; answered by `TailRead`."""
        self._ask(TailRead, lambda: partial(self._tail_reader.read, query, self._backlog.behind(query)), token)

    def read_shard(self, shard: ShardId, after: int, limit: int, max_bytes: int, token: object) -> None:
        """Read a shard's log above a place, of what `committed` was told of until now; answered by `ShardRead`.

        Args:
            shard: The shard.
            after: The lsn of the place.
            limit: At most so many entries, >= 1.
            max_bytes: Stop before the sum of their canonical bytes passes this; at least one is given.
            token: Of the answer.
        """
        bounds = shard, after, limit, max_bytes
        self._ask(
            ShardRead, lambda: partial(self._shard_reader.read, *bounds, self._backlog.following(*bounds[:3])), token
        )

    def hidden(self, room: RoomId, after: int, limit: int, token: object) -> None:
        """Read a room's META and MARKS entries behind a `meta_n`, as `read_shard` does; answered by `MetaRead`."""
        shard = shard_of(room, self.options.shards)
        self._ask(
            MetaRead,
            lambda: partial(
                self._shard_reader.hidden, room, after, limit, self._backlog.hidden(room, shard, after, limit)
            ),
            token,
        )

    def learn(self, rows: Sequence[Configuration]) -> None:
        """Remember rows of another register, for `Recovered.learned`; nobody is told when, and a power cut may lose it.

        A row that is not newer than what is known of its shard changes nothing.
        """
        self._writes.put(partial(self._learned.note, rows))

    def export_shard(self, shard: ShardId, export: object, token: object) -> None:
        """Read the next part of a snapshot of a shard, see router/snapshot.py; answered by `SnapshotRead`.

        Args:
            shard: The shard.
            export: A name of the caller's choice; with a new one an export begins. Few are kept at a time.
            token: Of the answer.
        """
        self._exporting.ask(SnapshotRead, partial(self._exports.next, shard, export), token)

    def end_export(self, export: object) -> None:
        """Nobody asks for more of an export."""
        self._exporting.put(partial(self._exports.end, export))

    def import_shard(self, shard: ShardId, part: bytes, token: object) -> None:
        """Take a part of a snapshot, each when the one before is answered; by `SnapshotTaken` or `SnapshotRefused`.

        The first one drops what is here of the shard, and gives up an import of it that is under way. Until the last
        one is answered, this member has an empty log of the shard: nothing may be read of its rooms, or appended. It
        must not be of the shard's commit set, for what it acknowledged before is gone.
        """
        self._writes.put(partial(self._imports.put, shard, part, token))

    def mark(self, room: RoomId, user: str, token: object) -> None:
        """Read how far a user has read; answered by `MarkRead`."""
        self._reads.ask(MarkRead, partial(self._reader.mark, room, user), token)

    def halt(self, why: str) -> None:
        """Take nothing more: what is on disk can't be trusted to be what others have."""
        self._halt(StorageFault("broken", f"{self.path} takes nothing more: {why}"))

    def statistics(self) -> LogStatistics:
        """Sizes of this moment."""
        wal = self.path.with_name(self.path.name + "-wal")
        return LogStatistics(_size(self.path), _size(wal), self._appended - self._durable, self._backlog.count)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what was handed over, end the threads, and close the files; may be called twice.

        When the disk does not answer in time, that is logged, and threads and files are left to the end of the process:
        what was acknowledged is on disk, and the directory stays locked until then.

        Args:
            timeout: Seconds that all of it may take.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        self._writes.put(_STOP)
        self._reads.stop()
        self._exporting.stop()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        ended = self._checkpointer.close(max(0.0, deadline - time.monotonic()))
        busy = [thread.name for thread in self._threads if thread.is_alive()]
        if busy or not ended:
            self._notify = _tell_nobody
            _logger.error(
                "%s was not closed within %g s, as the disk does not answer (%s): of %d entries nobody was told that"
                " they are on it, %d are filed when it is opened again",
                self.path,
                timeout,
                ", ".join(busy) or "checkpoint",
                self._appended - self._durable,
                self._backlog.count,
            )
            return
        self._exports.close()
        self._export_connection.close()
        self._reader_connection.close()
        with suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)

    # -- the writer's thread -------------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        pending: deque[Any] = deque()
        try:
            self._serve_writes(pending)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be acknowledged after it
            self._halt(storage_fault(error, self.path))
            self._refuse_all(pending)

    def _serve_writes(self, pending: deque[Any]) -> None:
        stopping = False
        last = 0.0
        while not stopping:
            pending.clear()
            with suppress(Empty):
                pending.append(self._writes.get(timeout=self._patience()))
            self._take_all(pending)
            if self._is_batch(pending) and len(pending) == 1:
                self._gather(pending, last)
            if self.fault is not None:
                raise self.fault
            stopping = self._work(pending)
            if self._checkpointer.behind:
                self._checkpointer.help(self._connection)
            last = time.monotonic()
            self._watch_space(last)

    def _patience(self) -> float:
        """Seconds to wait for something to write."""
        if self._retention.busy or self._imports.busy:
            return 0.0
        if not self._backlog.count:
            return SPACE_SECONDS  # then it looks at the space: others fill the disk, and make room, too
        return max(REST_SECONDS, self._unfiled_since + FILE_AFTER_SECONDS - time.monotonic())

    def _take_all(self, pending: deque[Any]) -> None:
        with suppress(Empty):
            while True:
                pending.append(self._writes.get_nowait())

    @staticmethod
    def _is_batch(pending: deque[Any]) -> bool:
        return bool(pending) and isinstance(pending[0], tuple) and isinstance(pending[0][0], Batch)

    def _gather(self, pending: deque[Any], last: float) -> None:
        """Under load a small commit waits a moment for more; the first one after a rest does not."""
        left = last + self.options.commit_window - time.monotonic()
        if left > 0 and len(pending[0][0].entries) < self.options.commit_entries:
            with suppress(Empty):
                pending.append(self._writes.get(timeout=left))
                self._take_all(pending)

    def _work(self, pending: deque[Any]) -> bool:
        batches: list[Batch] = []
        since = 0.0
        claims: list[Cas] = []
        stopping = False
        for item in pending:
            if isinstance(item, tuple):
                batches.append(item[0])
                since = since or item[1]
            elif isinstance(item, Committed):
                self._note(item.entries)
            elif isinstance(item, Cas):
                claims.append(item)
            elif isinstance(item, Question):
                self._hand_on(item)
            elif item is _STOP:
                stopping = True
            else:
                item()
        if batches or claims:
            self._transact(batches, claims, [], since)
        filing = [] if stopping else self._choose_slice(sum([len(batch.entries) for batch in batches]))
        if filing or (not batches and (self._retention.busy or self._learned.waiting)):
            self._rearrange(filing)
        if self._imports.busy and not stopping:
            self._import()
        return stopping

    def _rearrange(self, filing: list[list[Entry]]) -> None:
        """File or trim, without an fsync: nobody waits for it, and what a power cut undoes is still in the journal.

        The write-ahead file keeps its order, so the next commit's fsync makes this durable too.
        """
        if self.options.durable:
            self._connection.execute("PRAGMA synchronous=NORMAL")
        self._transact([], [], filing, 0.0)
        if self.options.durable:
            self._connection.execute("PRAGMA synchronous=FULL")

    def _import(self) -> None:
        """Do a slice of what imports have to do; only the end of one has to be durable when it is answered."""
        lazily = self.options.durable and not self._imports.is_last
        if lazily:
            self._connection.execute("PRAGMA synchronous=NORMAL")
        with self._transaction():
            changes = self._connection.total_changes
            answer = self._imports.step()
            self._written += (self._connection.total_changes - changes) * PAGE_BYTES
        if lazily:
            self._connection.execute("PRAGMA synchronous=FULL")
        if answer is not None:
            self._answer(answer)

    def _begin_import(self, shard: ShardId) -> int:
        frame = self._journal.void(shard)
        self._backlog.drop(shard)
        self._filed[shard], self._chains[shard] = 0, GENESIS
        return frame

    def _end_import(self, tail: ShardTail) -> None:
        self._filed[tail.shard], self._chains[tail.shard] = tail.lsn, tail.chain

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._checkpointer.begins()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._checkpointer.wrote(self._written)
        self._written = 0

    def _transact(self, batches: list[Batch], claims: list[Cas], filing: list[list[Entry]], since: float) -> None:
        answers: list[Completion] = []
        with self._transaction():
            if batches:
                self._written += self._journal.write(batches) + COMMIT_BYTES
            answers += [self._claim(claim) for claim in claims]
            if filing:
                self._file(filing)
                answers.append(Filed([entry for entries in filing for entry in entries]))
            if self._learned.waiting:
                self._learned.write()
            if self._retention.busy and not batches:
                answers += self._retain()
            started = time.monotonic()
        now = time.monotonic()
        if batches:
            count = sum(len(batch.entries) for batch in batches)
            self._durable += count
            answers.insert(0, Persisted(batches[-1].ticket, count, now - since, now - started))
        self.completions.extend(answers)
        self._notify()

    def _committed_lsn(self, shard: ShardId) -> int:
        """Up to where entries of a shard are filed, or wait to be."""
        return max(self._filed.get(shard, 0), self._backlog.head(shard))

    def _claim(self, claim: Cas) -> CasDone:
        return CasDone(claim.token, self._register.compare_and_set(claim.expected_version, claim.new))

    def _retain(self) -> list[Completion]:
        changes = self._connection.total_changes
        floors = self._retention.step()
        self._written += (self._connection.total_changes - changes) * PAGE_BYTES
        return [Trimmed(floors)] if floors else []

    def _note(self, entries: Sequence[Entry]) -> None:
        if not self._backlog.count:
            self._unfiled_since = time.monotonic()
        self._backlog.add(entries)

    def _choose_slice(self, committed: int) -> list[list[Entry]]:
        """What to file after a commit of so many entries, or after a rest.

        Under load it is as many as are committed, more or fewer as the backlog is large or small: filing as fast as it
        goes would take turns with doing nothing, and whoever's message comes while it goes would wait longer.
        """
        if committed:
            self._filing_due += committed * self._backlog.count / UNFILED_ENTRIES
            if self._filing_due < SLICE_ENTRIES:
                return []
        elif time.monotonic() < self._unfiled_since + FILE_AFTER_SECONDS:
            return []
        most, self._filing_due = max(SLICE_ENTRIES, int(self._filing_due)), 0.0
        return self._backlog.take(most)

    def _file_all(self) -> None:
        while filing := self._backlog.take(SLICE_ENTRIES):
            self._rearrange(filing)

    def _file_recovered(self, entries: Sequence[Entry]) -> None:
        """File what the journal says is committed: the driver is told of what is not, and commits only that."""
        self._note(entries)
        while filing := self._backlog.take(SLICE_ENTRIES):
            self._connection.execute("BEGIN IMMEDIATE")
            self._file(filing)
            self._connection.execute("COMMIT")

    def _file(self, runs: list[list[Entry]]) -> None:
        for run in runs:
            shard, first = run[0].shard, run[0].lsn
            if first != self._filed.get(shard, 0) + 1:
                raise BrokenInvariant(f"shard {shard} is filed up to {self._filed.get(shard, 0)}, {first} follows")
            self._chains.setdefault(shard, GENESIS)
        self._retention.purge(self._filing.file(runs, self._chains))
        self._written += FILING_FACTOR * sum([len(entry.wire) for run in runs for entry in run])
        for run in runs:
            self._filed[run[0].shard] = run[-1].lsn
        self._journal.forget(self._filed)

    def _watch_space(self, now: float) -> None:
        if now and now < self._space_at:
            return
        self._space_at = now + SPACE_SECONDS
        quota = self.options.quota_bytes
        page, pages, unused = (self._pragma(name) for name in ("page_size", "page_count", "freelist_count"))
        space = os.statvfs(self.path.parent)
        free = space.f_bavail * space.f_frsize + unused * page  # retention gives pages back to the file, not the disk
        used = (pages - unused) * page
        self.full = free < (1 - FULL_SHARE) * space.f_blocks * space.f_frsize or 0 < quota < used
        self._retention.is_pressed = self.full
        if self.options.retention_bytes:
            self._retention.shrink(used - self.options.retention_bytes)

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _ask(self, answer: Answer, ask: Callable[[], Callable[[], Any]], token: object) -> None:
        self._writes.put(Question(answer, ask, token))

    def _hand_on(self, question: Question) -> None:
        """Let the reader answer, who is given what it can't find in the tables."""
        question.handed_on = True
        self._reads.ask(question.answer, question.ask(), question.token)

    def _refuse_all(self, pending: deque[Any]) -> None:
        """Take what comes without doing it, until the log is closed."""
        while True:
            for item in pending:
                if item is _STOP:
                    return
                if isinstance(item, Question) and not item.handed_on and self.fault is not None:
                    self._answer(item.answer(item.token, self.fault))
            pending = deque((self._writes.get(),))

    # -- any thread ----------------------------------------------------------------------------------------------

    def _answer(self, answer: Completion) -> None:
        self.completions.append(answer)
        self._notify()

    def _halt(self, fault: StorageFault) -> None:
        if self.fault is None:
            self.fault = fault
            self._answer(Halted(fault))


def _tell_nobody() -> None:
    """Whoever was told has gone."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

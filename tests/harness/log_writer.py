"""Writes and files entries as a node does, in shards that stand for it alone, and looks at what is on the disk then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from router.completions import CasDone, Filed, HistoryRead, MarkRead, Persisted, RoomLoaded, Trimmed
from router.entry import GENESIS, Entry, Kind, make
from router.events import Batch, Configuration, History
from router.ids import MemberId, RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME, PAGE_BYTES, open_reader
from router.marks import marks_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from router.completions import Completion
    from router.retention import Keep

SHARD: Final = 3
NOW_MS: Final = 1_000_000_000
DAY: Final = 86_400
WAIT_SECONDS: Final = 20.0
UNWANTED: Final = Configuration(SHARD, 100, 1, MemberId("", ""), ())


class LogWriter:
    """A log, and whoever drives it."""

    def __init__(self, folder: Path, options: LogOptions) -> None:
        self.told = threading.Event()
        self.floors: list[tuple[RoomId, int]] = []
        self.log = Log.open(folder, options, self.told.set)
        self.ends: dict[int, tuple[int, bytes]] = {
            shard: (tail.lsn, tail.chain) for shard, tail in self.log.recovered.shards.items()
        }
        self.heads: dict[RoomId, list[int]] = {}
        self.ticket = 0

    def wait(self, wanted: Callable[[Completion], bool]) -> Completion:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            while self.log.completions:
                done = self.log.completions.popleft()
                if isinstance(done, Trimmed):
                    self.floors += done.floors
                if wanted(done):
                    return done
            self.told.clear()
            if not self.log.completions:
                assert self.told.wait(deadline - time.monotonic()), "the log does not answer"

    def entry(  # noqa: PLR0917 - what may differ
        self, room: RoomId, ts: int, kind: Kind = Kind.MESSAGE, shard: int = SHARD, size: int = 8, data: bytes = b"",
        info: bytes = b"",
    ) -> Entry:  # fmt: skip
        return self.entry_of(room, ts, kind, data or b"x" * size, shard, info)

    def marks(self, room: RoomId, ts: int, **marks: int) -> Entry:
        return self.entry_of(room, ts, Kind.MARKS, marks_data(marks))

    def entry_of(  # noqa: PLR0917 - what may differ
        self, room: RoomId, ts: int, kind: Kind, data: bytes, shard: int = SHARD, info: bytes = b""
    ) -> Entry:  # fmt: skip
        lsn, chain = self.ends.get(shard, (0, GENESIS))
        head = self.heads.setdefault(room, [0, 0])
        head[0] += kind <= Kind.SYSTEM
        head[1] += kind in {Kind.META, Kind.MARKS}
        sequence, meta_n = (0, 0) if kind == Kind.EPOCH else head
        cmid = f"id-{lsn}" if kind == Kind.MESSAGE else ""
        made = make(
            shard, lsn + 1, 1, room, sequence, meta_n, kind, b"s" * 12, cmid, ts, b"salt" * 4, data, info, chain
        )  # fmt: skip
        self.ends[shard] = (lsn + 1, made.chain)
        return made

    def epoch(self, shard: int = SHARD) -> Entry:
        return self.entry(RoomId("", ""), NOW_MS, Kind.EPOCH, shard)

    def file(self, entries: Sequence[Entry]) -> None:
        """Write, commit and file; each call makes chunks of its own."""
        self.ticket += 1
        self.log.append(Batch(self.ticket, entries=list(entries)))
        ticket = self.ticket
        self.wait(lambda done: isinstance(done, Persisted) and done.ticket == ticket)
        self.log.committed(list(entries))
        left = len(entries)

        def filed(done: Completion) -> bool:
            nonlocal left
            left -= len(done.entries) if isinstance(done, Filed) else 0
            return left == 0

        self.wait(filed)

    def sweep(self, rule: Callable[[RoomId], Keep], dedupe_seconds: int = 1 << 30) -> None:
        """Sweep to the end."""
        self.log.retain(rule, dedupe_seconds)
        self.settle()

    def settle(self) -> None:
        """Until the writer has nothing to drop, and the last of it is committed."""
        self.reach()
        while self.log._retention.busy:
            self.reach()
        self.reach()

    def reach(self) -> None:
        """Until the writer has done what it was told before."""
        claim = object()
        self.log.cas(99, UNWANTED, claim)  # lost, so it writes nothing
        self.wait(lambda done: isinstance(done, CasDone) and done.token is claim)

    def shrink(self, bound: int) -> None:
        """Until the log is as small as it may be; it looks again and again."""
        for _ in range(5000):
            self.settle()
            if used_bytes(self.log.path.parent) <= bound:
                return
        pytest.fail(f"{used_bytes(self.log.path.parent)} bytes are in use, {bound} may be")

    def sequences(self, room: RoomId) -> list[int]:
        self.log.history(History(room, 0, 10_000, reverse=False, max_bytes=1 << 30), None)
        done = self.wait(lambda done: isinstance(done, HistoryRead))
        assert isinstance(done, HistoryRead)
        assert isinstance(done.result, list)
        return [entry.sequence for entry in done.result]

    def mark(self, room: RoomId, user: str) -> int:
        """How far a user has read, as the disk's table says."""
        self.log.mark(room, user, None)
        done = self.wait(lambda done: isinstance(done, MarkRead))
        assert isinstance(done, MarkRead)
        assert isinstance(done.result, int)
        return done.result

    def head(self, room: RoomId) -> tuple[int, int, int]:
        """(sequence, meta_n, floor) of a room."""
        self.log.load_room(room)
        done = self.wait(lambda done: isinstance(done, RoomLoaded))
        assert isinstance(done, RoomLoaded)
        return done.record.sequence, done.record.meta_n, done.record.floor


def days_ago(days: float) -> int:
    return NOW_MS - int(days * DAY * 1000)


def read(folder: Path, statement: str) -> list[tuple[int, ...]]:
    reader = open_reader(folder / FILE_NAME)
    try:
        return reader.execute(statement).fetchall()
    finally:
        reader.close()


def used_bytes(folder: Path) -> int:
    ((pages, unused),) = read(folder, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
    return (pages - unused) * PAGE_BYTES

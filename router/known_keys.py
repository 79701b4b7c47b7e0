"""The dedupe keys on disk: where each client's message was first written.

Keys are hashes, so a table ordered by key would touch a page of its own for each message, some 8 KiB of writes. Here
they lie in runs instead, as in a log-structured merge tree: each filing adds a small run, and `FAN` runs of a level
are merged into one of the next, a part at a time, small ones first: so none waits for a large merge, and there are few
runs, about `FAN` of a level. A run of 2**bits pages holds in page p the records of all keys whose first bits are p,
sorted; so a look-up reads one page of each run.

::

    record = 16 bytes key | u17 shard + 1, or 0 | u47 sequence | u64 fingerprint          page id = run << 20 | p

The shard is for whoever is given the keys of one; records of before it was kept have 0.

A run is visible as a whole or not at all: one that is being written, or dropped, is not looked into.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from router.errors import CorruptEntry
from router.events import KnownKey
from router.keyfilter import key_number
from router.log_rows import Rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

FAN: Final = 8
RECORD_BYTES: Final = 32
PAGE_RECORDS: Final = 80  # on average, at most; with what chance adds to some, a row still fits a page of the database
SEQUENCE_BITS: Final = 47
MOST_BITS: Final = 20
MOST_RECORDS: Final = 1 << 25  # of a run; larger ones are not merged any further
STEP_RECORDS: Final = 1024  # the least that a step moves, and about the most that it moves at once
PAGE_PRICE: Final = 4  # of dropping a page, in records moved

LIVE, WRITING, DROPPED = 0, 1, 2

_SEQUENCE: Final = (1 << SEQUENCE_BITS) - 1
_place = struct.Struct(">QQ").pack
_read_place = struct.Struct(">16xQQ").unpack_from
_read_numbers = struct.Struct(">Q24x").iter_unpack
_read_shards = struct.Struct(">16xQ8x").iter_unpack


def record(key: bytes, place: int, fingerprint: int) -> bytes:
    """What is kept of a message.

    Args:
        key: Its dedupe key.
        place: Its sequence, and the `shard_tag` of its shard.
        fingerprint: Of its data.
    """
    return key + _place(place, fingerprint)


def shard_tag(shard: int) -> int:
    """What is added to the sequences of a shard's messages."""
    return shard + 1 << SEQUENCE_BITS


@dataclass(slots=True)
class _Run:
    id: int
    level: int
    bits: int
    count: int
    newest: int

    def pages(self, prefix: int, bits: int) -> tuple[int, int]:
        """The first page with keys that begin with `prefix` of so many bits, and the one behind the last."""
        shift, base = self.bits - bits, self.id << MOST_BITS
        if shift < 0:
            page = base + (prefix >> -shift)
            return page, page + 1
        return base + (prefix << shift), base + (prefix + 1 << shift)


class _Merge:
    __slots__ = ("bits", "next", "sources", "target")

    def __init__(self, sources: list[_Run], target: _Run) -> None:
        self.sources, self.target = sources, target
        parts = -(-target.count // STEP_RECORDS)
        self.bits = min(target.bits, (parts - 1).bit_length())  # a step takes the keys of one prefix of so many bits
        self.next = 0


class KnownKeys:
    """Writes runs and merges them.

    Args:
        connection: The writer's; a transaction is open whenever a method is called.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._pages = Rows(connection, "INSERT INTO known(id, records)", 2)
        rows = self._execute("SELECT id, level, bits, count, newest, state FROM run ORDER BY id").fetchall()
        self._live = [_Run(*row[:5]) for row in rows if row[5] == LIVE]
        self._dropped = [_Run(*row[:5]) for row in rows if row[5] != LIVE]  # what a crash left half written, too
        self._next_id = rows[-1][0] + 1 if rows else 1
        self._merges: dict[int, _Merge] = {}  # under way, by the level of their sources

    @property
    def busy(self) -> bool:
        """Whether something waits to be merged or dropped."""
        return bool(self._merges or self._dropped or self._mergeable())

    def add(self, records: list[bytes], newest: int) -> None:
        """Add a run.

        Args:
            records: Of `record`; sorted here, in place.
            newest: Milliseconds since 1970, of the newest message.
        """
        if not records:
            return
        records.sort()
        run = self._new_run(0, len(records), newest, LIVE)
        self._write(run, records, 0, 0)
        self._live.append(run)

    def step(self, budget: int) -> None:
        """Merge and drop: about so many records, at least `STEP_RECORDS`."""
        budget = max(budget, STEP_RECORDS)
        while budget > 0 and self.busy:
            budget -= self._drop_pages(budget) if self._dropped else self._merge_part()

    def forget(self, before_ms: int) -> None:
        """Drop the runs without a message as new as this."""
        merging = self._merging()
        for run in [run for run in self._live if run.newest < before_ms and run.id not in merging]:
            self._live.remove(run)
            self._set_state(run, DROPPED)
            self._dropped.append(run)

    # -- inside --------------------------------------------------------------------------------------------------

    def _new_run(self, level: int, count: int, newest: int, state: int) -> _Run:
        bits = min(MOST_BITS, max(0, (-(-count // PAGE_RECORDS) - 1).bit_length()))
        run = _Run(self._next_id, level, bits, count, newest)
        self._next_id += 1
        self._execute(
            "INSERT INTO run(id, level, bits, count, newest, state) VALUES (?,?,?,?,?,?)",
            (run.id, run.level, run.bits, run.count, run.newest, state),
        )
        return run

    def _write(self, run: _Run, records: list[bytes], prefix: int, bits: int) -> None:
        """Write the pages of all keys that begin with `prefix`; `records` are sorted."""
        shift = 32 - run.bits
        first, behind = run.pages(prefix, bits)
        base = run.id << MOST_BITS
        starts = [bisect_left(records, (page - base << shift).to_bytes(4)) for page in range(first + 1, behind)]
        rows: list[object] = []
        for page, (start, end) in enumerate(pairwise((0, *starts, len(records))), first):
            if start < end:
                rows += (page, b"".join(records[start:end]))
        self._pages.insert(rows)

    def _merging(self) -> set[int]:
        return {run.id for merge in self._merges.values() for run in merge.sources}

    def _mergeable(self) -> list[_Run]:
        """The runs to be merged next, of the lowest level that has enough of them and is not being merged yet."""
        levels: dict[int, list[_Run]] = {}
        for run in self._live:
            if run.level not in self._merges:
                levels.setdefault(run.level, []).append(run)
        for level in sorted(levels):
            runs = levels[level][:FAN]
            if len(runs) == FAN and sum(run.count for run in runs) <= MOST_RECORDS:
                return runs
        return []

    def _next_merge(self) -> _Merge:
        """That of the lowest level, begun if it is not under way."""
        lowest = min(self._merges, default=None)
        sources = self._mergeable()
        if lowest is not None and (not sources or lowest < sources[0].level):
            return self._merges[lowest]
        count, newest = sum(run.count for run in sources), max(run.newest for run in sources)
        level = sources[0].level
        merge = self._merges[level] = _Merge(sources, self._new_run(level + 1, count, newest, WRITING))
        return merge

    def _merge_part(self) -> int:
        """Merge the keys of the next prefix; gives how many records that was."""
        merge = self._next_merge()
        records: list[bytes] = []
        for run in merge.sources:
            pages = self._execute(
                "SELECT records FROM known WHERE id>=? AND id<? ORDER BY id", run.pages(merge.next, merge.bits)
            )
            for (page,) in pages.fetchall():
                of_page = [page[at : at + RECORD_BYTES] for at in range(0, len(page), RECORD_BYTES)]
                records += of_page if run.bits >= merge.bits else _beginning(of_page, merge.next, merge.bits)
        records.sort()
        self._write(merge.target, records, merge.next, merge.bits)
        merge.next += 1
        if merge.next == 1 << merge.bits:
            self._end(merge)
        return max(1, len(records))

    def _end(self, merge: _Merge) -> None:
        """From now on the merged run stands for its sources."""
        self._set_state(merge.target, LIVE)
        for run in merge.sources:
            self._live.remove(run)
            self._set_state(run, DROPPED)
            self._dropped.append(run)
        self._live.append(merge.target)
        del self._merges[merge.target.level - 1]

    def _drop_pages(self, budget: int) -> int:
        run = self._dropped[0]
        first, behind = run.pages(0, 0)
        most = max(1, budget // PAGE_PRICE)
        dropped = self._execute(
            "DELETE FROM known WHERE id IN (SELECT id FROM known WHERE id>=? AND id<? LIMIT ?)", (first, behind, most)
        ).rowcount
        if dropped < most:
            self._execute("DELETE FROM run WHERE id=?", (run.id,))
            del self._dropped[0]
        return dropped * PAGE_PRICE + 1

    def _set_state(self, run: _Run, state: int) -> None:
        self._execute("UPDATE run SET state=? WHERE id=?", (state, run.id))


def _beginning(records: list[bytes], prefix: int, bits: int) -> list[bytes]:
    """Those of the sorted records whose keys begin with `prefix` of so many bits."""
    shift = 32 - bits
    start = bisect_left(records, (prefix << shift).to_bytes(4))
    end = bisect_left(records, (prefix + 1 << shift).to_bytes(4)) if prefix + 1 < 1 << bits else len(records)
    return records[start:end]


def find_keys(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[KnownKey]:
    """Those of the keys that are known."""
    execute = connection.execute
    execute("BEGIN")  # a merge that ends in between would hide what it moved
    try:
        runs = execute("SELECT id, bits FROM run WHERE state=? ORDER BY id DESC", (LIVE,)).fetchall()
        found = (_find_key(connection, key, runs) for key in keys)
        return [known for known in found if known is not None]
    finally:
        execute("COMMIT")


def _find_key(connection: sqlite3.Connection, key: bytes, runs: list[tuple[int, int]]) -> KnownKey | None:
    start = key_number(key)
    for run, bits in runs:
        page = (run << MOST_BITS) + (start >> 64 - bits)
        row = connection.execute("SELECT records FROM known WHERE id=?", (page,)).fetchone()
        at = _find(row[0], key) if row is not None else -1
        if at >= 0:
            place, fingerprint = _read_place(row[0], at)
            return KnownKey(key, place & _SEQUENCE, fingerprint)
    return None


def _find(page: bytes, key: bytes) -> int:
    at = page.find(key)
    while at > 0 and at % RECORD_BYTES:
        at = page.find(key, at + 1)
    return at


def scan_numbers(connection: sqlite3.Connection, after: int, pages: int) -> tuple[list[int], int | None]:
    """The numbers (`key_number`) of all keys, a part at a time; perhaps of some that are no longer known, too.

    Keys that a merge moves meanwhile are not missed: it moves them to where the scan has not been yet.

    Args:
        connection: To read with.
        after: Where the last part ended; -1: from the beginning.
        pages: At most so many are read.

    Returns:
        The numbers, and where this part ended; None: it was the last.
    """
    rows = connection.execute("SELECT id, records FROM known WHERE id>? ORDER BY id LIMIT ?", (after, pages)).fetchall()
    numbers = [number for _, page in rows for (number,) in _read_numbers(page)]
    return numbers, rows[-1][0] if len(rows) == pages else None


def scan_shard(
    connection: sqlite3.Connection, shard: int, after: int, pages: int
) -> tuple[list[bytes], int, int | None]:
    """The records of a shard, or that may be of it, a part at a time, as `scan_numbers` goes over them.

    Returns:
        The records; the newest time of the runs that they are in, milliseconds since 1970; and where this part ended,
        or None: it was the last.
    """
    rows = connection.execute(
        "SELECT known.id, records, newest FROM known CROSS JOIN run ON run.id=known.id>>? WHERE known.id>?"
        " ORDER BY known.id LIMIT ?",
        (MOST_BITS, after, pages),
    ).fetchall()
    tag = shard_tag(shard) >> SEQUENCE_BITS
    found: list[bytes] = []
    newest = 0
    for _, page, of_run in rows:
        for at, (place,) in enumerate(_read_shards(page)):
            if place >> SEQUENCE_BITS in {0, tag}:
                found.append(page[at * RECORD_BYTES : (at + 1) * RECORD_BYTES])
                newest = max(newest, of_run)
    return found, newest, rows[-1][0] if len(rows) == pages else None


def tagged(records: bytes, shard: int) -> list[bytes]:
    """Records that were given by another node, each as one of the shard.

    Raises:
        CorruptEntry: They are no records.
    """
    if len(records) % RECORD_BYTES:
        raise CorruptEntry(f"dedupe keys of {len(records)} bytes; each has {RECORD_BYTES}")
    tag = shard_tag(shard)
    found = []
    for at in range(0, len(records), RECORD_BYTES):
        place, fingerprint = _read_place(records, at)
        found.append(record(records[at : at + 16], place & _SEQUENCE | tag, fingerprint))
    return found

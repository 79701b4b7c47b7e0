"""Looking into a log for its operator: what it holds, whether all of it is as it was written, and a copy as records.

Everything reads on a connection of its own that can't write, so a node may run meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router.entry import GENESIS, Entry, Kind, decode, link, split
from router.errors import CorruptEntry, StorageFault
from router.events import History
from router.ids import RoomId
from router.log_reader import LogReader
from router.log_schema import EPOCHS, FILE_NAME, META, VISIBLE, open_reader
from router.replay import replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_ENTRIES: Final = 500  # of one read; a long reader keeps checkpoints from finishing
PAGE_BYTES: Final = 8 << 20
MOST_FAULTS: Final = 100  # listed; a damaged disk has thousands, and the first ones tell as much
CHUNKS_KEPT: Final = 1000  # in memory while a shard is followed: at most 64 MiB
LARGEST_ROOMS: Final = 10

_decode_place = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode


@dataclass(slots=True, frozen=True)
class RoomSize:
    """A room in `Statistics`.

    Attributes:
        entries: That clients see and the log still holds.
        bytes: Of all its entries.
    """

    site: str
    channel: str
    entries: int
    bytes: int


@dataclass(slots=True, frozen=True)
class Statistics:
    """What a log holds.

    Attributes:
        birth: Of the cluster; part of every stream epoch.
        bytes: Of the database file.
        wal_bytes: Of its write-ahead file.
        entries: Filed ones that clients see.
        unfiled: Entries in the journal only.
        shards: With at least one entry.
        oldest_ms: Time of the oldest entry, milliseconds since 1970; None: there is none. So is `newest_ms`.
        largest: The rooms with the most bytes, the largest first.
    """

    birth: str
    bytes: int
    wal_bytes: int
    rooms: int
    entries: int
    unfiled: int
    shards: int
    oldest_ms: int | None
    newest_ms: int | None
    largest: list[RoomSize]


@dataclass(slots=True)
class Report:
    """The result of `verify`.

    Attributes:
        entries: Filed entries whose bodies match their hashes.
        unfiled: Entries of the journal, verified likewise and along the chain.
        forgotten: Entries that retention dropped; the chain is not followed through the runs they stood in.
        faults: What is wrong, for a person; at most `MOST_FAULTS`.
    """

    rooms: int = 0
    shards: int = 0
    entries: int = 0
    unfiled: int = 0
    forgotten: int = 0
    faults: list[str] = field(default_factory=list)

    def blame(self, fault: str) -> None:
        """Note a fault."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def stat(folder: Path) -> Statistics:
    """What the log in a data directory holds.

    Raises:
        StorageFault: There is none, or it can't be read.
    """
    with _opened(folder) as (connection, path):
        one = connection.execute
        rooms, entries = one("SELECT count(*), coalesce(sum(sequence - floor), 0) FROM room").fetchone()
        oldest, newest = one("SELECT min(first_ts), max(last_ts) FROM chunk").fetchone()
        unfiled = replay(connection, path).recovered.unfiled
        times = [entry.ts for entry in unfiled]
        largest = one(
            "SELECT site, channel, sequence - floor, bytes FROM room ORDER BY bytes DESC LIMIT ?", (LARGEST_ROOMS,)
        )
        return Statistics(
            birth=one("SELECT value FROM meta WHERE key='birth'").fetchone()[0].decode(),
            bytes=path.stat().st_size,
            wal_bytes=_size(path.with_name(f"{FILE_NAME}-wal")),
            rooms=rooms,
            entries=entries,
            unfiled=len(unfiled),
            shards=one("SELECT count(*) FROM shard WHERE lsn > 0").fetchone()[0],
            oldest_ms=min((oldest, *times) if oldest is not None else times, default=None),
            newest_ms=max((newest, *times) if newest is not None else times, default=None),
            largest=[RoomSize(*row) for row in largest.fetchall()],
        )


def export(folder: Path, site: str | None = None, channel: str | None = None) -> Iterator[dict[str, Any]]:
    """What clients see of the rooms of a site, or of one channel, as records: room by room, in the room's order.

    Raises:
        StorageFault: There is no log, or it can't be read.
    """
    with _opened(folder) as (connection, path):
        unfiled: dict[RoomId, list[Entry]] = {}
        for entry in replay(connection, path).recovered.unfiled:
            if entry.visible:
                unfiled.setdefault(entry.room, []).append(entry)
        filed = [RoomId(*row) for row in connection.execute("SELECT site, channel FROM room ORDER BY site, channel")]
        reader = LogReader(connection)
        for room in dict.fromkeys((*filed, *unfiled)):
            if site in {None, room.site} and channel in {None, room.channel}:
                yield from map(_record, _entries(reader, room, unfiled.get(room, [])))


def verify(folder: Path) -> Report:
    """Read everything in a data directory's log, and compare it with its hashes, chains and numbers.

    It sees one moment of the log; while it runs beside a node, the write-ahead file grows.

    Raises:
        StorageFault: There is no log, or it can't be opened.
    """
    report = Report()
    with _opened(folder) as (connection, path):
        connection.execute("BEGIN")
        for step in (_verify_file, _verify_journal, _verify_rooms, _verify_shards):
            try:
                step(connection, path, report)
            except (sqlite3.DatabaseError, CorruptEntry, msgspec.DecodeError) as error:
                report.blame(f"the database file: {error}")
    return report


def _entries(reader: LogReader, room: RoomId, unfiled: list[Entry]) -> Iterator[Entry]:
    """A room's entries, from the tables in short reads, then what the journal had before them."""
    since = 0
    while page := reader.history(History(room, since, PAGE_ENTRIES, reverse=False, max_bytes=PAGE_BYTES)):
        yield from page
        since = page[-1].sequence
    yield from (entry for entry in unfiled if entry.sequence > since)


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "site": entry.room.site,
        "channel": entry.room.channel,
        "sequence": entry.sequence,
        "kind": Kind(entry.kind).name.lower(),
        "ts": entry.ts,
        "id": entry.cmid,
        "sender": entry.sender.hex(),
        "data": _json(entry.data),
        "info": _json(entry.info),
    }


def _json(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """JSON as it is; other bytes in hexadecimal, under a name that says so."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"hex": data.hex()}


def _verify_file(connection: sqlite3.Connection, _: Path, report: Report) -> None:
    for (problem,) in connection.execute(f"PRAGMA quick_check({MOST_FAULTS})"):
        if problem != "ok":
            report.blame(f"the database file: {problem}")


def _verify_journal(connection: sqlite3.Connection, path: Path, report: Report) -> None:
    try:
        report.unfiled = len(replay(connection, path).recovered.unfiled)
    except StorageFault as fault:
        report.blame(str(fault))


def _verify_rooms(connection: sqlite3.Connection, _: Path, report: Report) -> None:
    for row in connection.execute("SELECT id, site, channel, sequence, meta_n, floor FROM room"):
        _verify_room(connection, row, report)
    orphans = "SELECT count(*) FROM chunk WHERE room >= 0 AND room NOT IN (SELECT id FROM room)"
    if count := connection.execute(orphans).fetchone()[0]:
        report.blame(f"{count} chunks belong to no room")


def _verify_shards(connection: sqlite3.Connection, _: Path, report: Report) -> None:
    for row in connection.execute("SELECT shard, lsn, chain FROM shard ORDER BY shard"):
        _verify_shard(connection, row, report)


def _verify_room(connection: sqlite3.Connection, row: tuple[Any, ...], report: Report) -> None:
    number, site, channel, sequence, meta_n, floor = row
    report.rooms += 1
    report.forgotten += floor
    for stream, first, last in ((VISIBLE, floor + 1, sequence), (META, 1, meta_n)):
        name = f"room {channel} of {site}"
        chunks = connection.execute(
            "SELECT first, last, wires FROM chunk WHERE room=? AND stream=? ORDER BY first", (number, stream)
        )
        expected = first
        for begins, ends, wires in chunks:
            if begins != expected:
                report.blame(f"{name}: {expected} to {begins - 1} are missing")
            try:
                entries = [decode(wire, None) for wire in split(wires)]
            except CorruptEntry as error:
                report.blame(f"{name}, {begins} to {ends}: {error}")
            else:
                report.entries += len(entries)
                found = [entry.sequence if stream == VISIBLE else entry.meta_n for entry in entries]
                if found != list(range(begins, ends + 1)) or any(entry.room != (site, channel) for entry in entries):
                    report.blame(f"{name}: what is filed as {begins} to {ends} is not that")
            expected = ends + 1
        if expected != last + 1:
            report.blame(f"{name}: its head is {last}, but its last entry is {expected - 1}")


def _verify_shard(connection: sqlite3.Connection, row: tuple[Any, ...], report: Report) -> None:
    shard, lsn, head = row
    report.shards += 1
    chunks = _Chunks(connection)
    chain: bytes | None = GENESIS
    expected = 1
    places = connection.execute("SELECT first, last, before, entries FROM place WHERE shard=? ORDER BY first", (shard,))
    for first, last, before, listed in places:
        if first != expected:
            report.blame(f"shard {shard}: lsn {expected} to {first - 1} are missing")
        elif chain is not None and chain != before:
            report.blame(f"shard {shard}: the chain breaks before lsn {first}")
        chain, expected = before, last + 1
        for where, number, kind in _decode_place(listed):
            wire = chunks.find(where, EPOCHS if kind == Kind.EPOCH else META if kind == Kind.META else VISIBLE, number)
            chain = None if wire is None or chain is None else link(chain, wire)
    if expected != lsn + 1 or (chain is not None and chain != head):
        report.blame(f"shard {shard}: it is filed to lsn {lsn}, but the entries end at {expected - 1} or differ")


class _Chunks:
    """Finds entries by their numbers; keeps the chunks that it used last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._kept: OrderedDict[tuple[int, int], tuple[int, list[bytes]]] = OrderedDict()

    def find(self, room: int, stream: int, number: int) -> bytes | None:
        """The canonical bytes of an entry; None: it is not there, or damaged (which its room tells)."""
        first, wires = self._kept.get((room, stream), (0, []))
        if not first <= number < first + len(wires):
            row = self._execute(
                "SELECT first, wires FROM chunk WHERE room=? AND stream=? AND first<=? ORDER BY first DESC LIMIT 1",
                (room, stream, number),
            ).fetchone()
            try:
                first, wires = (row[0], list(split(row[1]))) if row else (0, [])
            except CorruptEntry:
                return None
            self._kept[room, stream] = first, wires
            if len(self._kept) > CHUNKS_KEPT:
                self._kept.popitem(last=False)
        return wires[number - first] if first <= number < first + len(wires) else None


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    path = folder / FILE_NAME
    if not path.is_file():
        raise StorageFault("io", f"There is no log at {path}. Give the data directory of a node that has run.")
    try:
        with closing(open_reader(path)) as connection:
            yield connection, path
    except (sqlite3.Error, CorruptEntry) as error:
        raise StorageFault("corrupt", f"{path} can't be read: {error}. Restore it from a backup.") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

"""What operators do with a log on its disk, whether its node runs or not: verify it, measure it, export it.

Everything is read in one transaction, so it is of one moment. Until it ends, the write-ahead file of a running node
only grows; so these are tools for a person, not for a timer of a few seconds.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router.entry import Entry, Kind, decode, split
from router.errors import CorruptEntry, StorageFault
from router.ids import RoomId
from router.log_schema import FILE_NAME, MIGRATIONS, VISIBLE, open_reader
from router.log_verification import JournalState, Report, Verification, read_journal
from router.removal import REMOVING, Removals, whole
from router.removal_tables import RemovalTables
from router.room_values import removes_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Report", "ShardStat", "Stat", "export", "export_quarantine", "stat", "verify"]

_VERIFY: Final = "`chat-node log verify` lists what is wrong; restore the data directory from a backup."


@dataclass(slots=True, frozen=True)
class ShardStat:
    """A shard's log.

    Attributes:
        epoch: Of its configuration in this node's register; 0: it has none.
        lsn: The last entry's.
        filed_lsn: The last entry's that is in the tables.
    """

    shard: int
    epoch: int
    lsn: int
    filed_lsn: int


@dataclass(slots=True, frozen=True)
class Stat:
    """The size of a log.

    Attributes:
        rooms: That were ever written.
        entries: That clients see and that are still here; of a history that was removed, those are left out when that
            is filed.
        bytes: Of the database file.
        wal_bytes: Of its write-ahead file.
        frames: Of the journal.
        oldest_ts: Milliseconds since 1970 of the oldest of the entries; None if there are none.
        newest_ts: And of the newest.
        shards: In the order of their numbers.
        quarantined: Entries that were truncated from shards' logs and are kept aside.
        quarantined_bytes: Of these.
    """

    rooms: int
    entries: int
    bytes: int
    wal_bytes: int
    frames: int
    oldest_ts: int | None
    newest_ts: int | None
    shards: tuple[ShardStat, ...]
    quarantined: int
    quarantined_bytes: int


def verify(folder: Path) -> Report:
    """Read all of a log, and compare it with its checksums, hashes and chains.

    Args:
        folder: The data directory.

    Raises:
        StorageFault: There is no log, or it can't be opened.
    """
    with _reading(folder) as connection:
        return Verification(connection).run()


def stat(folder: Path) -> Stat:
    """Measure a log.

    Args:
        folder: The data directory.

    Raises:
        StorageFault: There is no log, or it can't be read.
    """
    path = folder / FILE_NAME
    with _reading(folder) as connection:
        execute = connection.execute
        journal = read_journal(connection)
        if journal.findings:
            raise StorageFault("corrupt", f"{path} is damaged: {journal.findings[0]}. {_VERIFY}")
        unfiled, _ = _waiting(journal, lambda _: True)
        waiting = [entry for entries in unfiled.values() for entry in entries]
        known = {RoomId(*row) for row in execute("SELECT site, channel FROM room")}
        count, oldest, newest = execute(
            "SELECT total(last-first+1), min(first_ts), max(last_ts) FROM chunk JOIN room ON room.id=chunk.room"
            " WHERE stream=? AND last>floor",
            (VISIBLE,),
        ).fetchone()
        times = [ts for ts in (oldest, newest, *(entry.ts for entry in waiting)) if ts is not None]
        filed = dict(execute("SELECT shard, lsn FROM shard").fetchall())
        epochs = dict(execute("SELECT shard, epoch FROM register").fetchall())
        quarantined, quarantined_bytes = execute("SELECT count(*), total(length(wire)) FROM quarantine").fetchone()
        shards = sorted(filed.keys() | epochs.keys() | journal.heads.keys())
        return Stat(
            rooms=len(known | {entry.room for entry in waiting}),
            entries=int(count) + len(waiting),
            bytes=_size(path),
            wal_bytes=_size(path.with_name(f"{path.name}-wal")),
            frames=journal.frames,
            oldest_ts=min(times, default=None),
            newest_ts=max(times, default=None),
            shards=tuple(
                ShardStat(shard, epochs.get(shard, 0), journal.heads.get(shard, 0), filed.get(shard, 0))
                for shard in shards
            ),
            quarantined=quarantined,
            quarantined_bytes=int(quarantined_bytes),
        )


def export(
    folder: Path, *, site: str | None = None, channel: str | None = None, with_removed: bool = False
) -> Iterator[dict[str, Any]]:
    """The entries that clients see, room by room, in each by sequence.

    An entry is given as its site, channel, sequence, kind (`Kind`'s name in lower case), ts (milliseconds since
    1970), cmid, author (the user's id in chat rooms, a ClientInfo in others; None where nobody is named, or once
    erased), data (a JSON value; text where it is not JSON; None once erased), whether it is erased, and whether it was
    removed.

    Args:
        folder: The data directory.
        site: Only of this site; None: of all.
        channel: Only of the channel of this name; None: of all.
        with_removed: Show what was removed and is not erased yet; else a placeholder with the reason stands for it.

    Raises:
        StorageFault: There is no log, or it can't be read; what was given until then is right.
    """
    with _reading(folder) as connection:
        try:
            for entry in _visible(
                connection, lambda room: site in {None, room.site} and channel in {None, room.channel}
            ):
                yield _exported(entry, with_removed=with_removed)
        except CorruptEntry as error:
            raise StorageFault("corrupt", f"{folder / FILE_NAME} is damaged: {error}. {_VERIFY}") from error


def export_quarantine(folder: Path, *, site: str | None = None, channel: str | None = None) -> Iterator[dict[str, Any]]:
    """The entries in quarantine, oldest first, as `export` gives them, and with the texts of what was removed.

    Each has besides its shard, lsn and epoch, and when it was truncated (milliseconds since 1970). Its sequence is that
    of an entry which another took the place of, perhaps under another sequence.

    Args:
        folder: The data directory.
        site: Only of this site; None: of all.
        channel: Only of the channel of this name; None: of all.

    Raises:
        StorageFault: There is no log, or it can't be read; what was given until then is right.
    """
    with _reading(folder) as connection:
        try:
            for ts, wire in connection.execute("SELECT ts, wire FROM quarantine ORDER BY id"):
                entry = decode(wire, None)
                if site in {None, entry.room.site} and channel in {None, entry.room.channel}:
                    places = {"shard": entry.shard, "lsn": entry.lsn, "epoch": entry.epoch, "quarantined": ts}
                    yield _exported(entry, with_removed=True) | places
        except CorruptEntry as error:
            raise StorageFault("corrupt", f"{folder / FILE_NAME} is damaged: {error}. {_VERIFY}") from error


def _visible(connection: sqlite3.Connection, is_wanted: Callable[[RoomId], bool]) -> Iterator[Entry]:
    execute = connection.execute
    journal = read_journal(connection)
    if journal.findings:
        raise CorruptEntry(journal.findings[0])
    waiting, floors = _waiting(journal, is_wanted)
    for number, site, channel, floor in execute(
        "SELECT id, site, channel, floor FROM room WHERE shard NOT IN (SELECT shard FROM importing)"
        " ORDER BY site, channel"
    ):
        room = RoomId(site, channel)
        if not is_wanted(room):
            continue
        floor = max(floor, floors.get(room, 0))  # noqa: PLW2901 - what is filed, and what is not
        chunks = execute("SELECT wires FROM chunk WHERE room=? AND stream=? ORDER BY first", (number, VISIBLE))
        unfiled = waiting.pop(room, [])
        removals = _removals(connection, number, unfiled)
        for (wires,) in chunks:
            for wire in split(wires):
                entry = decode(wire, None)
                if entry.sequence > floor:
                    yield removals.show(entry)
        for entry in unfiled:
            yield removals.show(entry)
    for room in sorted(waiting):
        removals = _removals(connection, 0, waiting[room])
        for entry in waiting[room]:
            yield removals.show(entry)


def _removals(connection: sqlite3.Connection, room: int, unfiled: list[Entry]) -> Removals:
    """What is removed and restored in a room."""
    removals = RemovalTables(connection).of_room(room)
    for entry in unfiled:
        if entry.kind in REMOVING:
            removals.note(entry, 0)
    return removals


def _waiting(
    journal: JournalState, is_wanted: Callable[[RoomId], bool]
) -> tuple[dict[RoomId, list[Entry]], dict[RoomId, int]]:
    """By room, the visible entries that only the journal has, and the sequence up to which it removes the history."""
    waiting: dict[RoomId, list[Entry]] = {}
    floors: dict[RoomId, int] = {}
    for entry in chain.from_iterable(journal.unfiled.values()):
        if entry.visible and is_wanted(entry.room):
            waiting.setdefault(entry.room, []).append(entry)
        elif entry.kind == Kind.META and removes_history(entry):
            waiting.pop(entry.room, None)
            floors[entry.room] = entry.sequence
    return waiting, floors


def _exported(entry: Entry, *, with_removed: bool) -> dict[str, Any]:
    data: Any = None
    if entry.removal is not None and not with_removed:
        data = {"id": entry.cmid, "type": "placeholder", "reason": entry.removal.reason}
        if entry.removal.target:
            data["target"] = entry.removal.target
    elif not entry.erased:
        data = _value(whole(entry).data)
    return {
        "site": entry.room.site,
        "channel": entry.room.channel,
        "sequence": entry.sequence,
        "kind": Kind(entry.kind).name.lower(),
        "ts": entry.ts,
        "cmid": entry.cmid,
        "author": _value(entry.info) if entry.info else None,
        "data": data,
        "erased": entry.erased,
        "removed": entry.removal is not None,
    }


def _value(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text.decode(errors="replace")


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection on which one transaction reads."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise StorageFault("io", f"There is no log in {folder}: {path} is missing. Give the --data-dir of a node.")
    try:
        with closing(open_reader(path)) as connection:
            connection.execute("BEGIN")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version != len(MIGRATIONS):
                raise StorageFault(
                    "version",
                    f"{path} has version {version} of the log's tables, this chat-node reads {len(MIGRATIONS)}. Run a"
                    " chat-node as new as the one that wrote it; or start its node once, if it is an older one's.",
                )
            yield connection
    except sqlite3.Error as error:
        raise StorageFault(
            "io", f"{path} can't be read: {error}. Run this as the node's user; else {_VERIFY}"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""Filing: from the journal's order into the tables that reads use, in bulk and off the acknowledgement's path.

Each call files whole shards within the caller's transaction, so `shard.lsn` says exactly what is filed, and a replay of
the journal after a crash passes over it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router.entry import Entry, Kind
from router.events import fingerprint
from router.ids import dedupe_key
from router.keyfilter import key_number
from router.log_schema import EPOCHS, META, VISIBLE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from router.ids import RoomId

CHUNK_ENTRIES: Final = 128
CHUNK_BYTES: Final = 65_536
PLACE_ENTRIES: Final = 256
ROOM_IDS: Final = 100_000  # remembered; more are looked up again

_encode = msgspec.msgpack.Encoder().encode


class Filing:
    """Writes entries into the tables.

    Args:
        connection: The writer's; a transaction is open whenever `file` is called.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute, self._executemany = connection.execute, connection.executemany
        self._ids: dict[RoomId, int] = {}

    def file(self, shards: Sequence[Sequence[Entry]], chains: dict[int, bytes]) -> None:
        """File entries.

        Args:
            shards: For each shard its entries, dense, beginning behind what is filed.
            chains: By shard, the chain up to what is filed; brought up to date.
        """
        rooms: dict[RoomId, list[Entry]] = {}
        epochs: dict[int, list[Entry]] = {}
        for entries in shards:
            for entry in entries:
                if entry.kind == Kind.EPOCH:
                    epochs.setdefault(entry.shard, []).append(entry)
                else:
                    rooms.setdefault(entry.room, []).append(entry)
        ids = self._room_ids(rooms)
        chunks: list[tuple[Any, ...]] = []
        for room, entries in rooms.items():
            chunks += self._chunks(ids[room], entries)
        for shard, entries in epochs.items():
            chunks += [_chunk(-1 - shard, EPOCHS, [(entry.lsn, entry)]) for entry in entries]
        self._executemany(
            "INSERT INTO chunk(room, stream, first, last, first_ts, last_ts, wires) VALUES (?,?,?,?,?,?,?)", chunks
        )
        self._executemany(
            "UPDATE room SET sequence=?, meta_n=?, ts=?, bytes=bytes+? WHERE id=?",
            [
                (e[-1].sequence, e[-1].meta_n, e[-1].ts, sum(len(x.wire) for x in e), ids[room])
                for room, e in rooms.items()
            ],
        )
        self._file_places(shards, ids, chains)
        self._file_keys(shards)

    def _chunks(self, room: int, entries: Sequence[Entry]) -> Iterator[tuple[Any, ...]]:
        for stream in (VISIBLE, META):
            run: list[tuple[int, Entry]] = []
            size = 0
            for entry in entries:
                if (entry.kind > Kind.SYSTEM) is (stream == VISIBLE):
                    continue
                if run and (len(run) == CHUNK_ENTRIES or size + len(entry.wire) > CHUNK_BYTES):
                    yield _chunk(room, stream, run)
                    run, size = [], 0
                run.append((entry.sequence if stream == VISIBLE else entry.meta_n, entry))
                size += len(entry.wire)
            if run:
                yield _chunk(room, stream, run)

    def _file_places(self, shards: Sequence[Sequence[Entry]], ids: dict[RoomId, int], chains: dict[int, bytes]) -> None:
        places, ends = [], []
        for entries in shards:
            shard = entries[0].shard
            for start in range(0, len(entries), PLACE_ENTRIES):
                run = entries[start : start + PLACE_ENTRIES]
                listed = [(_where(entry, ids), _number(entry), entry.kind) for entry in run]
                places.append((shard, run[0].lsn, run[-1].lsn, chains[shard], _encode(listed)))
                chains[shard] = run[-1].chain
            ends.append((shard, entries[-1].lsn, chains[shard], entries[-1].lsn))
        self._executemany("INSERT INTO place(shard, first, last, before, entries) VALUES (?,?,?,?,?)", places)
        self._executemany(
            "INSERT INTO shard(shard, lsn, chain, promised, commit_lsn) VALUES (?,?,?,0,?) ON CONFLICT(shard) DO"
            " UPDATE SET lsn=excluded.lsn, chain=excluded.chain, commit_lsn=max(commit_lsn, excluded.commit_lsn)",
            ends,
        )

    def _file_keys(self, shards: Sequence[Sequence[Entry]]) -> None:
        rows = []
        for entries in shards:
            for entry in entries:
                if entry.cmid:
                    key = entry.key or dedupe_key(entry.room, entry.sender, entry.cmid)
                    rows.append((key_number(key), key[7:], entry.sequence, fingerprint(entry.data), entry.ts))
        rows.sort(key=itemgetter(0))
        self._executemany(
            "INSERT OR REPLACE INTO dedupe(key, rest, sequence, fingerprint, ts) VALUES (?,?,?,?,?)", rows
        )

    def _room_ids(self, rooms: dict[RoomId, list[Entry]]) -> dict[RoomId, int]:
        known = self._ids
        if len(known) > ROOM_IDS:
            known.clear()
        for room, entries in rooms.items():
            if room in known:
                continue
            row = self._execute("SELECT id FROM room WHERE site=? AND channel=?", room).fetchone()
            if row is None:
                row = self._execute(
                    "INSERT INTO room(site, channel, shard, generation, sequence, meta_n, ts, floor, bytes)"
                    " VALUES (?,?,?,1,0,0,0,0,0) RETURNING id",
                    (*room, entries[0].shard),
                ).fetchone()
            known[room] = int(row[0])
        return known


def _chunk(room: int, stream: int, run: Sequence[tuple[int, Entry]]) -> tuple[Any, ...]:
    return (
        room, stream, run[0][0], run[-1][0], run[0][1].ts, run[-1][1].ts, b"".join([entry.wire for _, entry in run]),
    )  # fmt: skip


def _where(entry: Entry, ids: dict[RoomId, int]) -> int:
    return -1 - entry.shard if entry.kind == Kind.EPOCH else ids[entry.room]


def _number(entry: Entry) -> int:
    if entry.kind == Kind.EPOCH:
        return entry.lsn
    return entry.sequence if entry.kind <= Kind.SYSTEM else entry.meta_n

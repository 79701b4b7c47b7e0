"""Retention: dropping the oldest entries, in slices between the writer's commits.

A sweep goes over all rooms and drops what each may not keep; then keys of messages that are too old to be sent again.
Apart from that, when the log has grown too large, the oldest chunks of all rooms are dropped until it has not. Either
ends with the places of entries that are gone: those before the first entry of a shard that is still there, and with
them its EPOCH entries. What a follower has not read yet (router/tail.py) a sweep leaves, the bound of the log does not.
META entries stay, for they alone say who may do what in a room; so do the places behind them.
MARKS entries go soon, as a table has what they say, and their places from wherever they stand: what somebody reads is
to take no room for longer than what he read. Of the marks themselves a room keeps the latest so many.

What was removed as a room's history (router/room_values.py) is dropped at once, whatever is kept or held of the rest.

A sweep also erases the texts of messages that were removed long ago, and of their edits; headers and chains stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from router.entry import Kind, decode, split
from router.erasure import Erasure
from router.errors import CorruptEntry
from router.ids import RoomId
from router.log_schema import EPOCHS, MARKS, PAGE_BYTES, VISIBLE
from router.removal_tables import RemovalTables

if TYPE_CHECKING:
    import sqlite3

    from router.known_keys import KnownKeys
    from router.tail import Hold

ROOMS_AT_ONCE: Final = 50
CHUNKS_AT_ONCE: Final = 32  # at most 64 KiB each, whose pages are all read when they are given back: about 3 ms
PLACES_AT_ONCE: Final = 16  # rows of up to 256 entries
SHARDS_AT_ONCE: Final = 16
MARKS_AT_ONCE: Final = 1000
MARKS_KEPT_MS: Final = 3_600_000  # entries that a table has superseded: for whoever follows the log a little behind
KEYS_AT_ONCE: Final = 2000
ERASE_MARGIN_MS: Final = 3_600_000  # a restoration that came at the last moment is filed long before

_decode_places = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode


@dataclass(slots=True, frozen=True)
class Keep:
    """How much of a room stays.

    Attributes:
        seconds: Entries older than this go; 0: age does not matter.
        bytes: The oldest beyond so many bytes go, but never the newest chunk; 0: size does not matter.
        marks: Of so many users it is known how far they have read, those who read last; 0: of all.
    """

    seconds: int = 0
    bytes: int = 0
    marks: int = 0


Rule: TypeAlias = Callable[[RoomId], Keep]


class Retention:
    """One sweep at a time over all rooms and keys, and the bound of the log as a whole.

    Args:
        connection: The writer's; a transaction is open whenever `step` is called.
        keys: The dedupe keys on disk.

    Attributes:
        is_pressed: Whether space is so short that nothing is left for followers.
    """

    def __init__(self, connection: sqlite3.Connection, keys: KnownKeys) -> None:
        self._execute = connection.execute
        self._keys = keys
        self._removals, self._erasure = RemovalTables(connection), Erasure(connection)
        self._rule: Rule | None = None
        self._now_ms = self._dedupe_ms = self._undo_ms = 0
        self._room = 0
        self._excess = 0  # bytes that the log as a whole is to lose
        self._shards: deque[int] = deque()  # whose places are to be looked at
        self._removed: deque[int] = deque()  # rooms that have something below their floor
        self._hold: Hold | None = None
        self.is_pressed = False

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return self._rule is not None or self._excess > 0 or bool(self._shards or self._removed)

    def begin(self, rule: Rule, dedupe_seconds: int, undo_seconds: int, now_ms: int) -> None:
        """Start a sweep, unless one is under way.

        Args:
            rule: What each room keeps.
            dedupe_seconds: How long message ids are known.
            undo_seconds: After which removed messages are erased; 0: never.
            now_ms: Milliseconds since 1970.
        """
        if self._rule is None:
            self._rule, self._now_ms, self._dedupe_ms = rule, now_ms, dedupe_seconds * 1000
            self._undo_ms = undo_seconds * 1000
            self._room = 0

    def shrink(self, size: int) -> None:
        """Give back so many bytes, of the oldest chunks of all rooms; replaces what was asked for before."""
        self._excess = size

    def purge(self, rooms: Iterable[int]) -> None:
        """Drop what is below the floors of rooms, by their numbers: their history was removed."""
        self._removed.extend(rooms)

    def keep_for(self, hold: Hold | None) -> None:
        """Let sweeps leave what a follower has not read; replaces what was asked for before."""
        self._hold = hold

    def step(self) -> list[tuple[RoomId, int]]:
        """Do a slice; gives rooms with the sequence up to which they were dropped.

        Raises:
            CorruptEntry: A row of places can't be read.
        """
        if self._excess > 0:
            return self._drop_oldest()
        if self._removed:
            self._drop_removed()
            return []
        if self._rule is not None:
            return self._sweep(self._rule)
        for _ in range(min(SHARDS_AT_ONCE, len(self._shards))):
            shard = self._shards[0]
            if self._drop_places(shard) or self._empty_places(shard):
                break  # the next slice goes on in this shard
            self._shards.popleft()
        return []

    def _sweep(self, rule: Rule) -> list[tuple[RoomId, int]]:
        rows = self._execute(
            "SELECT id, site, channel, bytes, marks, EXISTS"
            " (SELECT 1 FROM chunk WHERE room=room.id AND stream=? AND first<=floor AND last<=floor)"
            " FROM room WHERE id>? AND shard NOT IN (SELECT shard FROM importing) ORDER BY id LIMIT ?",
            (VISIBLE, self._room, ROOMS_AT_ONCE),
        ).fetchall()
        floors = []
        left = CHUNKS_AT_ONCE
        for number, site, channel, size, marks, has_removed in rows:
            if left <= 0:
                break
            if has_removed:  # the node was stopped before it was dropped
                self._removed.append(number)
                break
            room = RoomId(site, channel)
            keep = rule(room)
            if self._forget_marks(number, marks, keep.marks) or self._drop_marks(number):
                break  # the next slice goes on in this room
            floor, dropped, more = self._trim(number, keep, size, left)
            left -= dropped
            if floor:
                floors.append((room, floor))
            if more:
                break  # the next slice goes on in this room
            self._room = number
        if not rows and not self._erase():
            self._keys.forget(self._now_ms - self._dedupe_ms)
            self._keys.step(KEYS_AT_ONCE)
            if not self._keys.busy:
                self._look_at_places()
                self._rule = None
        return floors

    def _trim(self, room: int, keep: Keep, size: int, most: int) -> tuple[int, int, bool]:
        """Drop a room's oldest chunks. Gives the new floor or 0, how many went, and whether more may have to."""
        if not keep.seconds and not keep.bytes:
            return 0, 0, False
        cutoff = self._now_ms - keep.seconds * 1000 if keep.seconds else 0
        chunks = self._execute(
            "SELECT id, last, last_ts, length(wires) FROM chunk WHERE room=? AND stream=? ORDER BY first LIMIT ?",
            (room, VISIBLE, most + 1),
        ).fetchall()
        floor = gone = dropped = 0
        for number, last, last_ts, length in chunks[:most]:
            newest = gone + 1 == len(chunks)
            if last_ts >= cutoff and (newest or not 0 < keep.bytes < size - dropped):
                break
            if self._is_held(number, last_ts):
                break
            self._execute("DELETE FROM chunk WHERE id=?", (number,))
            gone += 1
            dropped += length
            floor = last
        if floor:
            self._execute("UPDATE room SET floor=max(floor, ?), bytes=bytes-? WHERE id=?", (floor, dropped, room))
            self._removals.forget(room, floor)
        return floor, gone, gone == most

    def _drop_removed(self) -> None:
        """Drop some of a room's chunks that are below its floor."""
        room = self._removed[0]
        chunks = self._execute(
            "SELECT chunk.id, last, length(wires) FROM chunk JOIN room ON room.id=chunk.room"
            " WHERE chunk.room=? AND stream=? AND last<=floor ORDER BY first LIMIT ?",
            (room, VISIBLE, CHUNKS_AT_ONCE),
        ).fetchall()
        for number, _, _ in chunks:
            self._execute("DELETE FROM chunk WHERE id=?", (number,))
        if chunks:
            self._execute("UPDATE room SET bytes=bytes-? WHERE id=?", (sum(length for _, _, length in chunks), room))
            self._removals.forget(room, chunks[-1][1])
        if len(chunks) < CHUNKS_AT_ONCE:
            self._removed.popleft()

    def _is_held(self, chunk: int, last_ts: int) -> bool:
        """Whether a chunk has something that a follower has not read: then its last entry is, which is the newest."""
        hold = self._hold
        if hold is None or self.is_pressed or last_ts < hold.from_ms:
            return False
        (wires,) = self._execute("SELECT wires FROM chunk WHERE id=?", (chunk,)).fetchone()
        *_, last = split(wires)
        return hold.is_unread(decode(last, None))

    def _drop_oldest(self) -> list[tuple[RoomId, int]]:
        """Drop the oldest chunks of all rooms.

        They are numbered as they were filed. That is the order of their times, but for the second or so that filing
        may take, and for clocks that go back.
        """
        chunks = self._execute(
            "SELECT id, room, last, last_ts, length(wires) FROM chunk WHERE stream=? ORDER BY id LIMIT ?",
            (VISIBLE, CHUNKS_AT_ONCE),
        ).fetchall()
        floors: dict[int, int] = {}
        for number, room, last, _, length in sorted(chunks, key=lambda chunk: (chunk[3], chunk[0])):
            self._execute("DELETE FROM chunk WHERE id=?", (number,))
            self._execute("UPDATE room SET floor=max(floor, ?), bytes=bytes-? WHERE id=?", (last, length, room))
            floors[room] = last
            self._removals.forget(room, last)
            self._excess -= length + PAGE_BYTES // 2  # on average as much of its last page is empty
            if self._excess <= 0:
                break
        else:
            if len(chunks) < CHUNKS_AT_ONCE:
                self._excess = 0  # nothing is left that could go
        if self._excess <= 0:
            self._look_at_places()
        names = (self._execute("SELECT site, channel FROM room WHERE id=?", (room,)).fetchone() for room in floors)
        return [(RoomId(*name), floor) for name, floor in zip(names, floors.values(), strict=True)]

    def _erase(self) -> bool:
        """Erase some of what was removed and whose time is over; whether there was any."""
        return bool(self._undo_ms) and self._erasure.step(self._now_ms - self._undo_ms - ERASE_MARGIN_MS)

    # -- marks ---------------------------------------------------------------------------------------------------

    def _forget_marks(self, room: int, marks: int, most: int) -> bool:
        """Forget some of the marks that have not risen for longest, if there are too many; whether there were."""
        excess = min(marks - most, MARKS_AT_ONCE) if most else 0
        if excess <= 0:
            return False
        self._execute(
            "DELETE FROM mark WHERE room=? AND user IN (SELECT user FROM mark WHERE room=? ORDER BY ts, user LIMIT ?)",
            (room, room, excess),
        )
        self._execute("UPDATE room SET marks=marks-? WHERE id=?", (excess, room))
        return True

    def _drop_marks(self, room: int) -> bool:
        """Drop some of the MARKS entries that the table of marks has superseded; whether there may be more."""
        chunks = self._execute(
            "SELECT id, last, length(wires) FROM chunk WHERE room=? AND stream=? AND last_ts<? ORDER BY first LIMIT ?",
            (room, MARKS, self._now_ms - MARKS_KEPT_MS, MARKS_AT_ONCE),
        ).fetchall()
        for number, _, _ in chunks:
            self._execute("DELETE FROM chunk WHERE id=?", (number,))
        if chunks:
            size = sum(length for _, _, length in chunks)
            self._execute("UPDATE room SET marks_floor=?, bytes=bytes-? WHERE id=?", (chunks[-1][1], size, room))
        return len(chunks) == MARKS_AT_ONCE

    # -- the places of entries that are gone ---------------------------------------------------------------------

    def _look_at_places(self) -> None:
        self._shards = deque(
            shard
            for (shard,) in self._execute(
                "SELECT shard FROM shard WHERE shard NOT IN (SELECT shard FROM importing) ORDER BY shard"
            )
        )

    def _drop_places(self, shard: int) -> bool:
        """Drop the first places of a shard, if they are of entries that are gone; whether they were."""
        rows = self._execute(
            "SELECT id, last, entries FROM place WHERE shard=? ORDER BY first LIMIT ?", (shard, PLACES_AT_ONCE)
        ).fetchall()
        floors: dict[int, tuple[int, int]] = {}
        gone: list[int] = []
        certain = 0  # so many of them; EPOCH entries go only with messages behind them
        end = 0
        for number, last, entries in rows:
            listed = _listed(shard, last, entries)
            if not all(self._is_gone(*place, floors) for place in listed):
                break
            gone.append(number)
            if any(kind <= Kind.SYSTEM for _, _, kind in listed):
                certain, end = len(gone), last
        if not certain:
            return False
        for number in gone[:certain]:
            self._execute("DELETE FROM place WHERE id=?", (number,))
        self._execute("DELETE FROM chunk WHERE room=? AND stream=? AND first<=?", (-1 - shard, EPOCHS, end))
        before = self._execute("SELECT before FROM place WHERE shard=? ORDER BY first LIMIT 1", (shard,)).fetchone()
        self._execute(
            "UPDATE shard SET floor=?, floor_chain=coalesce(?, chain) WHERE shard=?",
            (end, before[0] if before else None, shard),
        )
        return True

    def _empty_places(self, shard: int) -> bool:
        """Empty rows of places whose entries are all of MARKS and gone, and make one of neighbours; whether any were.

        Each row is looked at once in its life, but for the first whose MARKS entries are still here.
        """
        looked = self._execute("SELECT looked FROM shard WHERE shard=?", (shard,)).fetchone()[0]
        rows = self._execute(
            "SELECT id, first, last, entries FROM place WHERE shard=? AND first>? ORDER BY first LIMIT ?",
            (shard, looked, PLACES_AT_ONCE),
        ).fetchall()
        floors: dict[int, tuple[int, int]] = {}
        reached = looked
        for number, first, last, entries in rows:
            listed = _listed(shard, last, entries)
            if all(kind == Kind.MARKS for _, _, kind in listed):
                if not all(self._is_gone(*place, floors) for place in listed):
                    break
                self._empty_place(shard, number, first, last)
            reached = last
        if reached > looked:
            self._execute("UPDATE shard SET looked=? WHERE shard=?", (reached, shard))
        return bool(reached > looked)

    def _empty_place(self, shard: int, number: int, first: int, last: int) -> None:
        before = self._execute(
            "SELECT id, entries FROM place WHERE shard=? AND first<? ORDER BY first DESC LIMIT 1", (shard, first)
        ).fetchone()
        if before is not None and not before[1]:
            self._execute("DELETE FROM place WHERE id=?", (number,))
            self._execute("UPDATE place SET last=? WHERE id=?", (last, before[0]))
        else:
            self._execute("UPDATE place SET entries=? WHERE id=?", (b"", number))

    def _is_gone(self, room: int, place: int, kind: int, floors: dict[int, tuple[int, int]]) -> bool:
        if kind > Kind.SYSTEM and kind != Kind.MARKS:
            return kind == Kind.EPOCH
        found = floors.get(room)
        if found is None:
            row: tuple[int, int] | None = self._execute(
                "SELECT floor, marks_floor FROM room WHERE id=?", (room,)
            ).fetchone()
            found = floors[room] = row or (0, 0)
        return place <= found[1 if kind == Kind.MARKS else 0]


def _listed(shard: int, last: int, entries: bytes) -> list[tuple[int, int, int]]:
    """The places in a row: room's number, place, kind; none, where all of them are gone.

    Raises:
        CorruptEntry: It can't be read.
    """
    try:
        return _decode_places(entries) if entries else []
    except msgspec.MsgspecError as error:
        raise CorruptEntry(f"the places of shard {shard} up to lsn {last} can't be read: {error}") from error

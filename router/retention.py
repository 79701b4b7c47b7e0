"""Retention: dropping the oldest entries of rooms, in slices between the writer's commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from router.ids import RoomId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from router.known_keys import KnownKeys

ROOMS_AT_ONCE: Final = 50
KEYS_AT_ONCE: Final = 2000


@dataclass(slots=True, frozen=True)
class Keep:
    """How much of a room stays.

    Attributes:
        seconds: Entries older than this go; 0: age does not matter.
        bytes: The oldest beyond so many bytes go; 0: size does not matter.
    """

    seconds: int = 0
    bytes: int = 0


Rule: TypeAlias = "Callable[[RoomId], Keep]"


class Retention:
    """One sweep at a time over all rooms and keys.

    Args:
        connection: The writer's; a transaction is open whenever `step` is called.
        keys: The dedupe keys on disk.
    """

    def __init__(self, connection: sqlite3.Connection, keys: KnownKeys) -> None:
        self._execute = connection.execute
        self._keys = keys
        self._rule: Callable[[RoomId], Keep] | None = None
        self._now_ms = self._dedupe_ms = 0
        self._room = 0

    @property
    def busy(self) -> bool:
        """Whether a sweep is under way."""
        return self._rule is not None

    def begin(self, rule: Callable[[RoomId], Keep], dedupe_seconds: int, now_ms: int) -> None:
        """Start a sweep, unless one is under way."""
        if self._rule is None:
            self._rule, self._now_ms, self._dedupe_ms = rule, now_ms, dedupe_seconds * 1000
            self._room = 0

    def step(self) -> list[tuple[RoomId, int]]:
        """Sweep a slice; gives rooms with the sequence up to which they were dropped."""
        rule = self._rule
        if rule is None:
            return []
        rows = self._execute(
            "SELECT id, site, channel, bytes FROM room WHERE id>? ORDER BY id LIMIT ?", (self._room, ROOMS_AT_ONCE)
        ).fetchall()
        floors = []
        for number, site, channel, size in rows:
            self._room = number
            room = RoomId(site, channel)
            floor = self._trim(number, rule(room), size)
            if floor:
                floors.append((room, floor))
        if not rows:
            self._keys.forget(self._now_ms - self._dedupe_ms)
            self._keys.step(KEYS_AT_ONCE)
            if not self._keys.busy:
                self._rule = None
        return floors

    def _trim(self, room: int, keep: Keep, size: int) -> int:
        """Drop a room's oldest chunks; the newest always stays. Gives the new floor, or 0."""
        floor = 0
        if not keep.seconds and not keep.bytes:
            return 0
        cutoff = self._now_ms - keep.seconds * 1000 if keep.seconds else 0
        chunks = self._execute(
            "SELECT id, stream, last, last_ts, length(wires) FROM chunk WHERE room=? AND stream=0 ORDER BY first"
            " LIMIT 200",
            (room,),
        ).fetchall()
        dropped = 0
        for number, _, last, last_ts, length in chunks[:-1]:
            if last_ts >= cutoff and not (keep.bytes and size - dropped > keep.bytes):
                break
            self._execute("DELETE FROM chunk WHERE id=?", (number,))
            dropped += length
            floor = last
        if floor:
            self._execute("UPDATE room SET floor=?, bytes=bytes-? WHERE id=?", (floor, dropped, room))
        return floor

"""The backlog: what is committed and waits to be filed, by shard.  Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from router.entry import Entry, Kind
from router.removal import REMOVING
from router.room_values import removes_history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.ids import RoomId, ShardId
    from router.tail import TailQuery

_META: Final = int(Kind.META)
_HIDDEN: Final = (int(Kind.META), int(Kind.MARKS))


@dataclass(slots=True, frozen=True)
class Unfiled:
    """What a reader of the log's tail can't find in the tables.

    Attributes:
        heads: By shard, the lsn of its last entry that waits.
        runs: By shard, what waits of it behind the reader's cursor, from the first on, as much as was asked for.
        removing: What waits of the entries that remove or restore others, in the order of each shard.
    """

    heads: Mapping[ShardId, int]
    runs: Mapping[ShardId, Sequence[Entry]]
    removing: Sequence[Entry]


class Backlog:
    """Entries in the order of their shards.

    Attributes:
        count: How many there are.
    """

    __slots__ = ("_removing", "_scanned", "_shards", "count")

    def __init__(self) -> None:
        self._shards: dict[ShardId, list[Entry]] = {}
        self.count = 0
        # Of each shard what is in `Unfiled.removing`, and how far it was looked for: nothing is, unless somebody asks.
        self._removing: dict[ShardId, list[Entry]] = {}
        self._scanned: dict[ShardId, int] = {}

    def add(self, entries: Sequence[Entry]) -> None:
        """These were committed."""
        shards = self._shards
        for entry in entries:
            shard = shards.get(entry.shard)
            if shard is None:
                shards[entry.shard] = [entry]
            else:
                shard.append(entry)
        self.count += len(entries)

    def take(self, most: int) -> list[list[Entry]]:
        """Take entries of the shards that wait longest, about so many; a long run is taken in parts."""
        chosen: list[list[Entry]] = []
        shards = self._shards
        left = most
        while shards and left > 0:
            shard, entries = next(iter(shards.items()))
            del shards[shard]
            if len(entries) > left:
                shards[shard] = entries[left:]  # behind the others: a busy shard must not keep them from their turn
                entries = entries[:left]
            chosen.append(entries)
            left -= len(entries)
        self.count -= most - left
        return chosen

    def drop(self, shard: ShardId) -> None:
        """Nothing of a shard waits any more."""
        self.count -= len(self._shards.pop(shard, ()))

    def head(self, shard: ShardId) -> int:
        """The lsn of the last entry of a shard that waits; 0: none does."""
        entries = self._shards.get(shard)
        return entries[-1].lsn if entries else 0

    def following(self, shard: ShardId, after: int, limit: int) -> Sequence[Entry]:
        """At most so many of the entries of a shard that wait behind a place, and before them the one at the place."""
        entries = self._shards.get(shard)
        if not entries:
            return ()
        skip = max(0, after - entries[0].lsn)
        return entries[skip : skip + limit + 1]

    def hidden(self, room: RoomId, shard: ShardId, after: int, limit: int) -> Sequence[Entry]:
        """At most so many of a room's META and MARKS entries that wait, behind a `meta_n`."""
        entries = self._shards.get(shard, ())
        found = (e for e in entries if e.kind in _HIDDEN and e.meta_n > after and e.room == room)
        return list(islice(found, limit))

    def behind(self, query: TailQuery) -> Unfiled:
        """What somebody who reads behind a cursor has to know of it."""
        runs = {}
        for shard, entries in self._shards.items():
            skip = max(0, query.cursor.get(shard, 0) + 1 - entries[0].lsn)
            if skip < len(entries):
                runs[shard] = entries[skip : skip + query.limit]
        heads = {shard: entries[-1].lsn for shard, entries in self._shards.items()}
        return Unfiled(heads, runs, self._find_removing())

    def _find_removing(self) -> list[Entry]:
        """Look through what came since the last time."""
        removing = {}
        for shard, entries in self._shards.items():
            first = entries[0].lsn
            found = [entry for entry in self._removing.get(shard, ()) if entry.lsn >= first]
            skip = max(0, self._scanned.get(shard, 0) + 1 - first)
            found += [entry for entry in entries[skip:] if entry.kind in REMOVING or _removes_history(entry)]
            if found:
                removing[shard] = found
        self._removing = removing
        self._scanned = {shard: entries[-1].lsn for shard, entries in self._shards.items()}
        return [entry for found in removing.values() for entry in found]


def _removes_history(entry: Entry) -> bool:
    return entry.kind == _META and removes_history(entry)

"""A room in memory: its head, and its newest entries.  Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from router.entry import MESSAGE
from router.removal import MOST_MARKS, REMOVING, Removals
from router.room_values import change, removes_history
from router.sequencer import RoomHead

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from router.entry import Entry
    from router.events import RoomRecord
    from router.ids import RoomId, ShardId

ENTRY_OVERHEAD: Final = 640  # bytes that an entry's object, its fields and its place in the cache cost beside its wire


class RoomState(RoomHead):
    """The end of a room and its newest committed, visible entries.

    Attributes:
        shard: Where it lives.
        committed: Sequence of the newest committed visible entry: the room's head as everybody sees it.
        floor: Entries up to this sequence are no longer on this disk, or were removed.
        filed: Entries up to this sequence can be read from the disk, and so may leave the cache.
        entries: The newest committed visible entries, dense, ending at `committed`; never without one above `filed`.
        pins: How many subscriptions and reads keep it in memory.
        reads: Reads of the disk under way.
        removals: What was removed since it is in memory; None: nothing.
        values: What META entries have set; None: nothing.
        meta_committed: `meta_n` of the newest committed META or MARKS entry.
        meta_filed: META and MARKS entries up to this one are on disk in readable form.
    """

    __slots__ = (
        "committed",
        "entries",
        "filed",
        "floor",
        "meta_committed",
        "meta_filed",
        "pins",
        "reads",
        "removals",
        "shard",
        "size",
        "values",
    )

    def __init__(self, shard: ShardId, record: RoomRecord) -> None:
        super().__init__(record.room, record.generation, record.sequence, record.meta_n, record.ts)
        self.shard = shard
        self.committed = self.filed = record.sequence
        self.floor = record.floor
        self.entries: deque[Entry] = deque()
        self.size = 0
        self.pins = self.reads = 0
        self.removals: Removals | None = None
        self.values: dict[str, bytes] | None = dict(record.values) or None
        self.meta_committed = self.meta_filed = record.meta_n

    @property
    def cached_from(self) -> int:
        """The lowest sequence in memory; `committed` + 1 when there is none."""
        return self.committed - len(self.entries) + 1

    def after(self, sequence: int, limit: int) -> Iterator[Entry]:
        """Cached entries above `sequence`, oldest first; `sequence` + 1 must not lie below `cached_from`."""
        start = min(max(0, sequence + 1 - self.cached_from), len(self.entries))  # islice takes no more than 64 bits
        return islice(self.entries, start, start + limit)

    def before(self, sequence: int, limit: int) -> list[Entry]:
        """Cached entries below `sequence`, newest first."""
        skip = max(0, self.committed + 1 - sequence)
        return list(islice(reversed(self.entries), skip, skip + limit))

    def show(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Entries, of memory or disk, as clients are shown them now."""
        return entries if self.removals is None else self.removals.show_all(entries)

    @property
    def unfinished(self) -> bool:
        """Whether something of it is not on disk yet in readable form."""
        return self.sequence != self.filed or self.meta_n != self.meta_filed

    def note_values(self, entry: Entry) -> None:
        """A META entry was committed."""
        if removes_history(entry):
            self.floor = max(self.floor, entry.sequence)
        if self.values is None:
            self.values = {}
        change(self.values, entry)

    def note_removal(self, entry: Entry) -> None:
        """A REMOVED or RESTORED entry was committed."""
        if self.removals is None:
            self.removals = Removals()
        self.removals.note(entry, self.sequence)


class RoomCache:
    """Rooms in memory, bounded by the bytes of their entries and by their number.

    What is not on disk yet in readable form, and rooms that are pinned, stay whatever the bounds say; the log bounds
    the first, the limit of connections the second.

    Args:
        max_bytes: Of cached entries, their objects included.
        max_rooms: That are kept without anybody in them.
    """

    __slots__ = ("_rooms", "bytes", "max_bytes", "max_rooms")

    def __init__(self, max_bytes: int, max_rooms: int) -> None:
        self._rooms: OrderedDict[RoomId, RoomState] = OrderedDict()
        self.bytes = 0
        self.max_bytes, self.max_rooms = max_bytes, max_rooms

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, room: RoomId) -> RoomState | None:
        """The room, if it is in memory."""
        return self._rooms.get(room)

    def add(self, state: RoomState) -> None:
        """Keep a room from now on."""
        self._rooms[state.room] = state

    def drop(self, shards: Collection[ShardId]) -> list[RoomState]:
        """Forget the rooms of these shards, whatever is not on disk of them; gives them."""
        dropped = [state for state in self._rooms.values() if state.shard in shards]
        for state in dropped:
            del self._rooms[state.room]
            self.bytes -= state.size
        return dropped

    def remove(self, state: RoomState) -> None:
        """Keep a room no more, whatever is in it."""
        del self._rooms[state.room]
        self.bytes -= state.size
        state.size = 0
        state.entries.clear()

    def extend(self, state: RoomState, entry: Entry) -> None:
        """A visible entry was committed: it is the room's newest."""
        size = len(entry.wire) + ENTRY_OVERHEAD
        state.entries.append(entry)
        state.committed = entry.sequence
        state.size += size
        self.bytes += size
        self._rooms.move_to_end(state.room)
        if entry.kind > MESSAGE and entry.kind in REMOVING:
            state.note_removal(entry)

    def forget_removals(self, state: RoomState) -> None:
        """Bound what is remembered of removals: from then on the disk is asked, for the entries themselves too."""
        removals = state.removals
        if removals is None or len(removals) <= MOST_MARKS or state.reads:
            return
        while state.entries and state.entries[0].sequence <= state.filed:
            self._drop_first(state)
        removals.forget(state.filed)

    def shrink(self, budget: int = 64) -> None:
        """Bring the cache back within its bounds, oldest rooms first, looking at most at `budget` of them."""
        rooms = self._rooms
        while budget and (self.bytes > self.max_bytes or len(rooms) > self.max_rooms):
            budget -= 1
            room, state = next(iter(rooms.items()))
            self._drop_filed(state)
            if state.entries or state.pins or state.unfinished:
                rooms.move_to_end(room)
            elif len(rooms) > self.max_rooms:
                del rooms[room]
            else:
                rooms.move_to_end(room)

    def _drop_filed(self, state: RoomState) -> None:
        entries, filed = state.entries, state.filed
        while entries and entries[0].sequence <= filed and self.bytes > self.max_bytes:
            self._drop_first(state)
        if not entries:
            self.bytes -= state.size
            state.size = 0

    def _drop_first(self, state: RoomState) -> None:
        size = len(state.entries.popleft().wire) + ENTRY_OVERHEAD
        state.size -= size
        self.bytes -= size

"""What an edge has of a room: a cursor that goes on by one entry and no other, and what came too early.  Sans-I/O.

All entries of a room, visible or not, are one sequence of places (`ids.Place`), so a ban that was lost is noticed as a
message is. What is handed on goes into the room's `RoomState`, as it does at the primary.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from router.entry import LAST_VISIBLE, Kind, decode
from router.errors import CorruptEntry
from router.ids import Place
from router.removal import Removal

if TYPE_CHECKING:
    from router.edge_wire import Entries
    from router.entry import Entry
    from router.room import RoomCache, RoomState

EARLY_ENTRIES: Final = 256  # kept of what came too early: some 50 ms of a very busy room, what a FETCH takes
EARLY_BYTES: Final = 1 << 18
META: Final = int(Kind.META)


class Stream:
    """One room's entries on their way to its members here.

    Args:
        state: Where the room stands; what comes is put in it.
        cache: That the state is in.

    Attributes:
        ahead: Index of the newest entry that is known to exist.
    """

    __slots__ = ("_cache", "_early", "_early_size", "_out", "ahead", "state")

    def __init__(self, state: RoomState, cache: RoomCache) -> None:
        self.state, self._cache = state, cache
        self._out: list[Entry] = []
        self._early: dict[int, Entry] = {}
        self._early_size = 0
        self.ahead = self.place.ordinal

    @property
    def place(self) -> Place:
        """How far it is."""
        return Place(self.state.committed, self.state.meta_n)

    @property
    def behind(self) -> bool:
        """Whether something is known to exist that was not handed on."""
        return self.ahead > self.state.committed + self.state.meta_n

    def take(self, entry: Entry, out: list[Entry]) -> bool:
        """A committed entry came, from anywhere; False: it can't be of this room's log, so nothing is done."""
        self._out = out
        index = entry.sequence + entry.meta_n
        at = self.state.committed + self.state.meta_n
        if index <= at:
            return True
        if index > at + 1:
            self._keep_early(index, entry)
            return True
        if not self._is_next(entry):
            return False
        self._hand_on(entry)
        if self._early:
            self._take_early()
        return True

    def fill(self, page: Entries, out: list[Entry]) -> None:
        """An answer came to a FETCH from a place at or before this one; what it has is handed on.

        Raises:
            CorruptEntry: It is not what follows; what was handed on of it was right.
        """
        self._out = out
        state = self.state
        for entry in sorted(entries_of(page, reverse=False), key=_place):
            if entry.kind <= LAST_VISIBLE:
                if entry.sequence <= state.committed:
                    continue
                if entry.sequence != state.committed + 1 or entry.meta_n < state.meta_n:
                    raise CorruptEntry(f"{entry!r} was fetched after {self.place} of its room")
                self._skip_to(entry.meta_n)  # MARKS that the log has dropped
            else:
                if entry.meta_n <= state.meta_n:
                    continue
                if entry.sequence != state.committed:
                    raise CorruptEntry(f"{entry!r} was fetched after {self.place} of its room")
                self._skip_to(entry.meta_n - 1)
            self._hand_on(entry)
        upto = Place(*page.upto)
        if upto.sequence == state.committed:
            self._skip_to(upto.meta_n)
        self.ahead = max(self.ahead, Place(*page.head).ordinal)
        if self._early:
            self._take_early()

    def note_head(self, head: Place) -> None:
        """So far the room goes."""
        self.ahead = max(self.ahead, head.ordinal)

    def _is_next(self, entry: Entry) -> bool:
        step = entry.kind <= LAST_VISIBLE
        return entry.sequence == self.state.committed + step

    def _hand_on(self, entry: Entry) -> None:
        state = self.state
        if entry.kind <= LAST_VISIBLE:
            state.sequence = entry.sequence
            self._cache.extend(state, entry)
            state.filed = entry.sequence  # the primary has it
            if state.removals is not None:
                self._cache.forget_removals(state)
        else:
            self._skip_to(entry.meta_n)
            if entry.kind == META:
                state.note_values(entry)
        state.ts = max(state.ts, entry.ts)
        self.ahead = max(self.ahead, entry.sequence + entry.meta_n)
        self._out.append(entry)

    def _skip_to(self, meta_n: int) -> None:
        state = self.state
        state.meta_n = state.meta_filed = max(state.meta_n, meta_n)

    def _keep_early(self, index: int, entry: Entry) -> None:
        self.ahead = max(self.ahead, index)
        if len(self._early) < EARLY_ENTRIES and self._early_size < EARLY_BYTES and index not in self._early:
            self._early[index] = entry
            self._early_size += len(entry.wire)

    def _take_early(self) -> None:
        early, state = self._early, self.state
        while (entry := early.pop(state.committed + state.meta_n + 1, None)) is not None:
            self._early_size -= len(entry.wire)
            if not self._is_next(entry):
                break
            self._hand_on(entry)
        at = state.committed + state.meta_n
        for index in [index for index in early if index <= at]:
            self._early_size -= len(early.pop(index).wire)


def entries_of(page: Entries, *, reverse: bool) -> list[Entry]:
    """The entries of an answer: the visible ones as clients are shown them, in their order, then META and MARKS.

    Raises:
        CorruptEntry: Something of it is no entry, or the visible ones are not dense.
    """
    entries = [decode(wire, None) for wire in page.wires]
    step = -1 if reverse else 1
    for before, entry in itertools.pairwise(entries):
        if entry.sequence != before.sequence + step:
            raise CorruptEntry(f"{entry!r} follows {before!r} in an answer")
    for hidden in page.hidden:
        if hidden.index >= len(entries):
            raise CorruptEntry(f"entry {hidden.index} of an answer of {len(entries)} is hidden")
        entry = entries[hidden.index]
        entry.data, entry.removal = b"", Removal(hidden.sequence, hidden.ts, hidden.reason, hidden.target)
    return entries + [decode(wire, None) for wire in page.metas]


def _place(entry: Entry) -> tuple[int, int]:
    return entry.sequence, entry.meta_n

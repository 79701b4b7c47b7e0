"""What was removed: which entries of a room clients are not shown any more.  Sans-I/O.

A REMOVED entry hides its target and all edits of it, those before it and those that come later; a RESTORED entry undoes
that. Nothing is changed in the log: whoever reads entries is given copies without a body in place of what is hidden.
The disk keeps what is hidden in a table (`router/filing.py`), which reads of the disk apply; what happened since a room
came into memory is kept with the room, as the disk's table may be behind.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final

import msgspec

from router.entry import Entry, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_MARKS: Final = 1024  # of a room in memory; then those that the disk has are dropped, about 200 bytes each

_MESSAGE, _EDIT, _REMOVED, _RESTORED = int(Kind.MESSAGE), int(Kind.EDIT), int(Kind.REMOVED), int(Kind.RESTORED)


class Removal(msgspec.Struct, frozen=True, gc=False):
    """Why an entry is hidden.

    Attributes:
        sequence: Of the REMOVED entry.
        ts: Its time, milliseconds since 1970.
        reason: As it gives it; may be empty.
    """

    sequence: int
    ts: int
    reason: str


class _Aim(msgspec.Struct, gc=False):
    target: int = 0
    reason: str = ""


_decode_aim: Final = msgspec.json.Decoder(_Aim).decode


def aim_of(entry: Entry) -> tuple[int, str]:
    """The sequence that an entry is about, and the reason that it gives; 0 and nothing where it has none."""
    try:
        aim = _decode_aim(entry.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0, ""
    return aim.target, aim.reason


def removal_of(entry: Entry) -> Removal:
    """What a REMOVED entry says."""
    return Removal(entry.sequence, entry.ts, aim_of(entry)[1])


def body_of(entry: Entry) -> int:
    """The sequence of the message whose text an entry shows; 0: it shows none."""
    if entry.kind == _MESSAGE:
        return entry.sequence
    return aim_of(entry)[0] if entry.kind == _EDIT else 0


def hide(entry: Entry, removal: Removal) -> Entry:
    """The entry as clients are shown it from now on: without its body, but for the author's id."""
    if entry.erased:
        return entry
    hidden = copy(entry)
    hidden.data, hidden.removal, hidden.origin = b"", removal, None
    return hidden


def whole(entry: Entry) -> Entry:
    """The entry with its body, whether it is hidden or not."""
    return entry if entry.removal is None else decode(entry.wire, None)


class Removals:
    """What was removed and restored in a room since it is in memory."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        # By target: the removal, or None if it was undone; and the room's newest sequence when it was noted.
        self._marks: dict[int, tuple[Removal | None, int]] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def note(self, entry: Entry, newest: int) -> None:
        """A REMOVED or RESTORED entry was committed.

        Args:
            entry: The entry.
            newest: Sequence of the room's newest entry that has a place, committed or not.
        """
        target, reason = aim_of(entry)
        removal = Removal(entry.sequence, entry.ts, reason) if entry.kind == _REMOVED else None
        self._marks.pop(target, None)
        self._marks[target] = (removal, newest)

    def show(self, entry: Entry) -> Entry:
        """An entry as clients are shown it now."""
        if entry.kind > _EDIT:
            return entry
        bare = whole(entry)
        mark = self._marks.get(body_of(bare))
        if mark is None:
            return entry
        return bare if mark[0] is None else hide(bare, mark[0])

    def show_all(self, entries: Iterable[Entry]) -> list[Entry]:
        """Entries as clients are shown them now."""
        return [self.show(entry) for entry in entries]

    def forget(self, filed: int) -> None:
        """Drop what the disk's table has: nothing that it could be about is still on its way."""
        self._marks = {target: mark for target, mark in self._marks.items() if mark[1] > filed}


def hide_removed(entries: list[Entry], later: Sequence[Entry]) -> None:
    """Hide those of the entries, in place, that others remove which were read after them."""
    removed: dict[int, Removal] = {}
    for entry in later:
        if entry.kind == _REMOVED:
            removed[aim_of(entry)[0]] = removal_of(entry)
        elif entry.kind == _RESTORED:
            removed.pop(aim_of(entry)[0], None)
    if removed:
        for at, entry in enumerate(entries):
            if entry.kind <= _EDIT and (removal := removed.get(body_of(whole(entry)))) is not None:
                entries[at] = hide(whole(entry), removal)

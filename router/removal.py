"""What was removed: which entries of a room clients are not shown any more.  Sans-I/O.

A REMOVED entry hides its target and all edits of it, those before it and those that come later; or, if it names a
user, all messages of that user between `since` and itself, and their edits. A RESTORED entry undoes that for its
target. Of the entries that are about a message the newest counts. Nothing is changed in the log: whoever reads entries
is given copies without a body in place of what is hidden. The disk keeps what is hidden in tables
(`router/removal_tables.py`), which reads of the disk apply; what happened since a room came into memory is kept with
the room, as the disk's tables may be behind.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from router.entry import Entry, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_MARKS: Final = 1024  # of a room in memory; then those that the disk has are dropped, about 200 bytes each

REMOVING: Final = frozenset({int(Kind.REMOVED), int(Kind.RESTORED)})  # kinds of entries that `Removals.note` takes
_MESSAGE, _EDIT, _REMOVED = int(Kind.MESSAGE), int(Kind.EDIT), int(Kind.REMOVED)


class Removal(msgspec.Struct, frozen=True, gc=False):
    """Why an entry is hidden.

    Attributes:
        sequence: Of the REMOVED entry; 0: it was erased, and that is all that is known.
        ts: Its time, milliseconds since 1970.
        reason: As it gives it; may be empty.
        target: Of a hidden EDIT entry, the message that it is about; else 0.
    """

    sequence: int
    ts: int
    reason: str
    target: int = 0


class Aim(msgspec.Struct, gc=False):
    """What an EDIT, REMOVED or RESTORED entry is about.

    Attributes:
        target: Sequence of a message; 0: none.
        reason: Of a removal; may be empty.
        user: Whose messages are removed; empty: the target alone.
        since: Sequence of the first message of the user that is.
    """

    target: int = 0
    reason: str = ""
    user: str = ""
    since: int = 0

    @property
    def author(self) -> bytes:
        """The user as `Entry.info` of a chat room has it."""
        return _encode(self.user)


_decode_aim: Final = msgspec.json.Decoder(Aim).decode
_encode: Final = msgspec.json.Encoder().encode
_NOTHING: Final = Aim()


def aim_of(entry: Entry) -> Aim:
    """What an entry is about; nothing where it does not say."""
    try:
        return _decode_aim(entry.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _NOTHING


def body_of(entry: Entry) -> int:
    """The sequence of the message whose text an entry shows, or would if it were not hidden; 0: it shows none."""
    if entry.kind == _MESSAGE:
        return entry.sequence
    if entry.kind != _EDIT:
        return 0
    return aim_of(entry).target if entry.removal is None else entry.removal.target


def hide(entry: Entry, removal: Removal) -> Entry:
    """The entry as clients are shown it from now on: without its body, but for the author's id."""
    if entry.erased:
        return entry
    hidden = copy(entry)
    if entry.kind == _EDIT:
        removal = Removal(removal.sequence, removal.ts, removal.reason, body_of(entry))
    hidden.data, hidden.removal, hidden.origin = b"", removal, None
    return hidden


def whole(entry: Entry) -> Entry:
    """The entry with its body, whether it is hidden or not."""
    return entry if entry.removal is None or entry.erased else decode(entry.wire, None)


class Mark(NamedTuple):
    """What became of messages.

    Attributes:
        sequence: Of the entry that says so.
        removal: Why they are hidden; None: they were restored.
        first: Sequence of the first of them.
        newest: Sequence of the room's newest entry that had a place, committed or not, when it was noted.
    """

    sequence: int
    removal: Removal | None
    first: int = 0
    newest: int = 0


class Removals:
    """What was removed and restored: in a room since it is in memory, or as the disk has it."""

    __slots__ = ("_by_author", "_by_target")

    def __init__(self) -> None:
        self._by_target: dict[int, Mark] = {}
        self._by_author: dict[bytes, list[Mark]] = {}  # oldest first; by the author's id as JSON

    def __len__(self) -> int:
        return len(self._by_target) + sum(map(len, self._by_author.values()))

    def note(self, entry: Entry, newest: int) -> None:
        """A REMOVED or RESTORED entry was committed.

        Args:
            entry: The entry.
            newest: Sequence of the room's newest entry that has a place, committed or not.
        """
        aim = aim_of(entry)
        removal = Removal(entry.sequence, entry.ts, aim.reason) if entry.kind == _REMOVED else None
        mark = Mark(entry.sequence, removal, aim.since, newest)
        if aim.user:
            self.mark_author(aim.author, mark)
        else:
            self.mark(aim.target, mark)

    def mark(self, target: int, mark: Mark) -> None:
        """A message was removed or restored; the newest of its marks counts."""
        known = self._by_target.get(target)
        if known is None or known.sequence < mark.sequence:
            self._by_target[target] = mark

    def mark_author(self, author: bytes, mark: Mark) -> None:
        """All messages of a user were removed; such marks come in order. What one covers anew, it counts for."""
        older = self._by_author.get(author, ())
        self._by_author[author] = [*(known for known in older if known.first < mark.first), mark]

    def verdict(self, entry: Entry) -> Mark | None:
        """What became of the message that an entry shows; None: nothing."""
        body = body_of(entry)
        found = self._by_target.get(body)
        if self._by_author and body:
            for mark in self._by_author.get(entry.info, ()):
                if mark.first <= body < mark.sequence and (found is None or found.sequence < mark.sequence):
                    found = mark
        return found

    def show(self, entry: Entry) -> Entry:
        """An entry as clients are shown it now."""
        if entry.kind > _EDIT:
            return entry
        mark = self.verdict(entry)
        if mark is None or (entry.removal is not None and entry.removal.sequence > mark.sequence):
            return entry  # as it came: nothing is known of it, or less than where it came from
        return whole(entry) if mark.removal is None else hide(entry, mark.removal)

    def show_all(self, entries: Iterable[Entry]) -> list[Entry]:
        """Entries as clients are shown them now."""
        return [self.show(entry) for entry in entries]

    def forget(self, filed: int) -> None:
        """Drop what the disk's tables have: nothing that it could be about is still on its way."""
        self._by_target = {target: mark for target, mark in self._by_target.items() if mark.newest > filed}
        kept = ((author, [m for m in marks if m.newest > filed]) for author, marks in self._by_author.items())
        self._by_author = {author: marks for author, marks in kept if marks}


def hide_removed(entries: list[Entry], later: Sequence[Entry]) -> None:
    """Bring entries up to date, in place, with what others say of them that were read after them."""
    removals = Removals()
    for entry in later:
        if entry.kind in REMOVING:
            removals.note(entry, 0)
    if len(removals):
        entries[:] = removals.show_all(entries)

"""How far users have read: for each room and user a sequence that only rises.  Sans-I/O.

MARKS entries set them; their data is a JSON object with, under `marks`, a sequence by user. A mark never falls: of all
that was ever set the highest counts. The disk has them in a table (`router/filing.py`), of which each mark is looked up
when it is needed; in memory are those that the table may not have yet, and those that were used last. So the memory
that marks take does not grow with the members of rooms, and an entry of marks is worth nothing once it is filed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from router.entry import Entry
    from router.events import Away
    from router.ids import RoomId

MOST_KNOWN: Final = 50_000  # marks in memory that are on disk, too: about 12 MB


class Reader(NamedTuple):
    """Whose mark it is: a user in a room."""

    room: RoomId
    user: str


class _Marks(msgspec.Struct, gc=False):
    marks: dict[str, int] = {}


_decode: Final = msgspec.json.Decoder(_Marks).decode
_encode: Final = msgspec.json.Encoder().encode


def marks_data(marks: Mapping[str, int]) -> bytes:
    """The data of an entry that sets these sequences, by user."""
    return _encode({"marks": marks})


def marks_of(entry: Entry) -> Mapping[str, int]:
    """The sequences that an entry sets, by user; none if it can't be read."""
    try:
        return _decode(entry.data).marks
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


class _Unfiled(msgspec.Struct, gc=False):
    """What entries that are not filed have set.

    Attributes:
        mark: The highest.
        meta_n: Of the last of these entries.
        exact: Whether the disk's table has no higher one.
    """

    mark: int
    meta_n: int
    exact: bool


class _Question:
    """A mark that the disk is asked for; `seen` is the highest of entries that its answer may not have."""

    __slots__ = ("seen", "told")

    def __init__(self, told: Callable[[int | Away], None], seen: int) -> None:
        self.told, self.seen = [told], seen


class Marks:
    """The marks that are in memory.

    Args:
        most: That are kept although the disk has them.
    """

    __slots__ = ("_asked", "_known", "_most", "_unfiled")

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._known: OrderedDict[Reader, int] = OrderedDict()
        self._unfiled: dict[Reader, _Unfiled] = {}
        self._asked: dict[Reader, _Question] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._unfiled)

    def get(self, reader: Reader) -> int | None:
        """The mark, 0 if there is none; None: only the disk knows."""
        unfiled = self._unfiled.get(reader)
        if unfiled is not None:
            return unfiled.mark if unfiled.exact else None
        known = self._known.get(reader)
        if known is not None:
            self._known.move_to_end(reader)
        return known

    def ask(self, reader: Reader, told: Callable[[int | Away], None]) -> bool:
        """Wait for a mark that is not in memory; whether the disk has to be asked now. `learn` or `fail` follows."""
        question = self._asked.get(reader)
        if question is not None:
            question.told.append(told)
            return False
        unfiled = self._unfiled.get(reader)
        self._asked[reader] = _Question(told, 0 if unfiled is None else unfiled.mark)
        return True

    def learn(self, reader: Reader, filed: int) -> tuple[list[Callable[[int | Away], None]], int]:
        """What the disk's table has; gives who waits for it, and the mark."""
        question = self._asked.pop(reader)
        mark = self.get(reader)
        if mark is None:
            mark = max(filed, question.seen)  # the answer may be of before an entry was filed
            unfiled = self._unfiled.get(reader)
            if unfiled is None:
                self._keep(reader, mark)
            else:
                unfiled.mark = mark = max(mark, unfiled.mark)
                unfiled.exact = True
        return question.told, mark

    def fail(self, reader: Reader) -> list[Callable[[int | Away], None]]:
        """The disk does not say; gives who waits for it."""
        return self._asked.pop(reader).told

    def note(self, entry: Entry) -> None:
        """A MARKS entry was committed."""
        for user, mark in marks_of(entry).items():
            reader = Reader(entry.room, user)
            unfiled = self._unfiled.get(reader)
            if unfiled is None:
                known = self._known.pop(reader, None)
                self._unfiled[reader] = _Unfiled(max(mark, known or 0), entry.meta_n, exact=known is not None)
            else:
                unfiled.mark, unfiled.meta_n = max(mark, unfiled.mark), entry.meta_n
            question = self._asked.get(reader)
            if question is not None:
                question.seen = max(question.seen, mark)

    def filed(self, entry: Entry) -> None:
        """The disk's table has what a MARKS entry set."""
        for user in marks_of(entry):
            reader = Reader(entry.room, user)
            unfiled = self._unfiled.get(reader)
            if unfiled is not None and unfiled.meta_n <= entry.meta_n:
                del self._unfiled[reader]
                if unfiled.exact:
                    self._keep(reader, unfiled.mark)

    def _keep(self, reader: Reader, mark: int) -> None:
        self._known[reader] = mark
        if len(self._known) > self._most:
            self._known.popitem(last=False)

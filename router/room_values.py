"""What META entries set in a room: named values that clients never see as publications.  Sans-I/O.

A META entry's data is a JSON object with, under `set`, values by name; null takes one away. Of each name the newest
value counts, kept with the time of its entry as JSON ``[ts, value]``, so that an entry can say "for an hour" and have
the same bytes when it is sent again. What names and values mean is for the edge to know.

Another sort of META entry takes away the history before it: all up to the sequence that it carries, which is that of
the last visible entry before it, is below the room's floor from its commit on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from router.entry import Entry


HISTORY_REMOVED: Final = b'{"remove":"history"}'
"""The data of an entry that takes the history before it away."""


class _Meta(msgspec.Struct, gc=False):
    set: dict[str, Raw] = {}
    remove: str = ""


_decode: Final = msgspec.json.Decoder(_Meta).decode


def changes_of(entry: Entry) -> dict[str, bytes | None]:
    """What an entry sets, as it is kept; None: it takes the value away."""
    try:
        given = _decode(entry.data).set
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {
        name: None if bytes(value) == b"null" else b"[%d,%b]" % (entry.ts, bytes(value))
        for name, value in given.items()
    }


def removes_history(entry: Entry) -> bool:
    """Whether a META entry takes away all entries up to its `sequence`."""
    try:
        return _decode(entry.data).remove == "history"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def change(values: dict[str, bytes], entry: Entry) -> None:
    """Apply an entry."""
    for name, value in changes_of(entry).items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value

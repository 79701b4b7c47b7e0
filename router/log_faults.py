"""What a failure of the disk means to an operator."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from router.errors import BrokenInvariant, CorruptEntry, StorageFault

if TYPE_CHECKING:
    from pathlib import Path

_RESTORE: Final = "`chat-node log verify` lists what is wrong; restore the data directory from a backup."
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def storage_fault(error: BaseException, path: Path) -> StorageFault:
    """The fault that halts the log of the database at `path`."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if isinstance(error, StorageFault):
        return error
    if isinstance(error, BrokenInvariant):
        return StorageFault(
            "chain", f"What was to be filed in {path} does not follow what is there: {error}. {_RESTORE}"
        )
    if isinstance(error, CorruptEntry) or primary in _DAMAGED:
        return StorageFault("corrupt", f"{path} is damaged: {error}. {_RESTORE}")
    if primary == sqlite3.SQLITE_FULL:
        return StorageFault("full", f"The disk of {path} is full. Free space on it, then restart the node.")
    if primary in _BUSY:
        return StorageFault("locked", f"Another program holds {path}: {error}. End it, then restart the node.")
    return StorageFault(
        "io", f"{path} can't be written or read: {error!r}. Look at the disk (`dmesg`), then restart the node."
    )

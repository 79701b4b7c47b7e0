"""The lock of a data directory: one process has it at a time."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from router.errors import StorageFault

if TYPE_CHECKING:
    from pathlib import Path


def take_lock(folder: Path) -> int:
    """The descriptor that holds the lock until it is closed.

    Raises:
        StorageFault: Another process has it.
        OSError: The directory can't be used.
    """
    path = folder / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StorageFault(
            "locked",
            f"The data directory {folder} is in use by process {holder}. Each node needs a directory of its own:"
            " end that process, or give another --data-dir.",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def is_held(folder: Path) -> bool:
    """Whether some process has the lock: a node runs with this data directory.

    Raises:
        OSError: The directory can't be used.
    """
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

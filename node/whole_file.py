"""Files that are replaced as a whole, so that whoever reads one never finds half of it, not even after a power cut."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file, which only its owner may read; blocks.

    Args:
        path: The file, which need not be there yet; its folder is.
        content: All of it.
        durable: Whether it is on the disk when this returns; else the old one may be found again after a power cut.

    Raises:
        OSError: It can't be written; then the old one is still there.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(file)
        fresh.rename(path)
        if durable:
            sync_folder(path.parent)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Have a folder's list of files on the disk.

    Raises:
        OSError: The disk fails.
    """
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)

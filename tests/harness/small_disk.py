"""A small disk in memory, for a node to fill."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.harness.namespaces import NotPermitted, birth

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES: Final = 4096
MOUNT_SECONDS: Final = 20  # for one command; never reached
_SOURCE: Final = re.compile(r"chat-(\d+)-(\d+)")


class SmallDisk:
    """Used as a context manager: it is there inside, and with all that it holds gone after it.

    Those of processes that are gone are removed before.

    Args:
        folder: Where it is to be; made if it is not there.
        size: Of it, in bytes.
    """

    def __init__(self, folder: Path, size: int = 16 << 20) -> None:
        self.folder, self._size = folder, size

    def __enter__(self) -> Self:
        """Mount it.

        Raises:
            NotPermitted: That can't be done here.
        """
        remove_stale()
        self.folder.mkdir(parents=True, exist_ok=True)
        source = f"chat-{os.getpid()}-{birth(os.getpid())}"
        command = ("mount", "-t", "tmpfs", "-o", f"size={self._size}", source, str(self.folder))
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MOUNT_SECONDS)
        if done.returncode:
            raise NotPermitted(f"a small disk can't be mounted, which needs root: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        _unmount(self.folder)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, share: float = 1.0) -> None:
        """Take it up to this share."""
        space = os.statvfs(self.folder)
        size = int(space.f_bavail * space.f_frsize - (1 - share) * space.f_blocks * space.f_frsize)
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while size > 0 or share == 1:
                size -= file.write(bytes(CHUNK_BYTES))

    def free(self) -> None:
        """Give back what was taken up; nothing happens if nothing was."""
        self._ballast.unlink(missing_ok=True)


def remove_stale() -> list[Path]:
    """Remove the disks of processes that are gone; gives where they were."""
    stale = [
        folder
        for source, folder in _mounts()
        if (made_by := _SOURCE.fullmatch(source)) and birth(int(made_by[1])) != made_by[2]
    ]
    for folder in stale:
        _unmount(folder)
    return stale


def _mounts() -> Iterator[tuple[str, Path]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, folder, *_ = line.split()
        yield source, Path(folder.encode().decode("unicode_escape"))


def _unmount(folder: Path) -> None:
    subprocess.run(("umount", "-l", str(folder)), check=False, capture_output=True, timeout=MOUNT_SECONDS)

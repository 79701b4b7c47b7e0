"""A small disk fills up, is freed, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import small_disk
from tests.harness.namespaces import NotPermitted
from tests.harness.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABANDONED = """
import os, pathlib, sys
from tests.harness.small_disk import SmallDisk
SmallDisk(pathlib.Path(sys.argv[1])).__enter__()
os._exit(0)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with SmallDisk(tmp_path / "disk", 1 << 20) as made:
            yield made
    except NotPermitted as reason:
        pytest.skip(str(reason))


def test_a_full_disk_takes_nothing_until_it_is_freed(disk: SmallDisk) -> None:
    file = disk.folder / "file"
    file.write_bytes(bytes(4096))
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        (disk.folder / "other").write_bytes(bytes(8192))
    disk.free()
    disk.free()
    (disk.folder / "other").write_bytes(bytes(8192))
    disk.fill(0.5)
    space = os.statvfs(disk.folder)
    assert 0.45 < space.f_bavail / space.f_blocks < 0.55
    assert file.read_bytes() == bytes(4096)


def test_what_a_process_left_is_removed(disk: SmallDisk, tmp_path: Path) -> None:
    left = tmp_path / "left here"
    subprocess.run((sys.executable, "-c", ABANDONED, str(left)), check=True)
    small_disk.remove_stale()
    assert not left.is_mount()
    assert disk.folder.is_mount()


def test_it_is_gone_after_its_use(tmp_path: Path, disk: SmallDisk) -> None:
    with SmallDisk(tmp_path / "other") as other:
        assert other.folder.is_mount()
    assert not other.folder.is_mount()
    assert disk.folder.is_mount()

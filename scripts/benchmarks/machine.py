"""What is to be known of the machine that a benchmark is made on."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.reports import Machine

MEMORY_FILESYSTEMS = {"tmpfs", "ramfs"}


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds the path, by a text as /proc/self/mountinfo (proc(5))."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        fields = line.split()
        point = fields[4].replace("\\040", " ")
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


def real_disk(path: Path) -> str:
    """The type of the path's file system.

    Raises:
        BenchError: it is memory, where an fsync costs nothing.
    """
    kind = filesystem_of(path.resolve(), Path("/proc/self/mountinfo").read_text())
    if kind in MEMORY_FILESYSTEMS:
        message = f"{path} is on {kind}, where an fsync costs nothing; give --work a folder on a disk"
        raise BenchError(message)
    return kind


def two_cores() -> tuple[int, int]:
    """The cores of the server and of the generator: the first two that we may use.

    Raises:
        BenchError: there is only one, and figures of two programs that share it say nothing.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        message = f"the benchmark needs two cores, one of them the generator's, and may use only {allowed}"
        raise BenchError(message)
    return allowed[0], allowed[1]


def describe(root: Path, work: Path, cores: tuple[int, int], scale: str, versions: dict[str, str]) -> Machine:
    """This machine, now; `root` is the checkout."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Machine(
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        cpu=f"{_cpu()}, {os.cpu_count()} cores",
        cores=cores,
        kernel=platform.release(),
        filesystem=real_disk(work),
        commit=_commit(root),
        scale=scale,
        versions={"Python": python, **versions},
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit(root: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"

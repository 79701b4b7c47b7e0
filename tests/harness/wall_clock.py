"""A wall clock of its own for a process, which jumps when told.

libfaketime, which is there for this, has all threads take one lock to read any clock, and so stalls a node for
seconds. What is preloaded here changes the time of day and nothing else.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from tests.harness.namespaces import NotPermitted

SOURCE: Final = Path(__file__).with_name("wall_clock.c")
COMPILE_SECONDS: Final = 60  # never reached
_SECONDS: Final = struct.Struct("d")


class WallClock:
    """The clock of one process, and of those that it starts.

    Args:
        folder: For the library and the file that says how far the clock is off.

    Raises:
        NotPermitted: There is no compiler.
    """

    def __init__(self, folder: Path) -> None:
        self._library, self._file = folder / "wall_clock.so", folder / "wall_clock"
        self.set(0)
        if shutil.which("gcc") is None:
            raise NotPermitted("gcc is missing: apt-get install gcc libc6-dev")
        command = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", self._library, SOURCE)
        subprocess.run(command, check=True, timeout=COMPILE_SECONDS)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the process."""
        return {"LD_PRELOAD": str(self._library), "CHAT_CLOCK": str(self._file)}

    def set(self, seconds: float) -> None:
        """From now on the clock is so far from this machine's."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode, buffering=0) as file:  # in place: the process has it mapped
            file.write(_SECONDS.pack(seconds))

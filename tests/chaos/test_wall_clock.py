"""The time of day of a process jumps when told, and nothing else does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.namespaces import NotPermitted
from tests.harness.wall_clock import WallClock

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400
TELL = """
import sys, time
COARSE = 5  # CLOCK_REALTIME_COARSE of linux/time.h
for _ in sys.stdin:
    print(time.time(), time.monotonic(), time.clock_gettime(COARSE), flush=True)
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: apt-get install gcc libc6-dev")
def test_only_the_time_of_day_jumps(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    process = subprocess.Popen(
        (sys.executable, "-c", TELL),
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seconds in (0, DAY, -DAY, 0.5, -0.25, 0):
            clock.set(seconds)
            before, monotonic = time.time(), time.monotonic()
            process.stdin.write("\n")
            told = [float(word) for word in process.stdout.readline().split()]
            after = time.time()
            assert before + seconds <= told[0] <= after + seconds
            assert monotonic <= told[1] <= time.monotonic()
            assert before + seconds - 0.1 <= told[2] <= after + seconds
        process.stdin.close()
    assert process.returncode == 0


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NotPermitted, match="apt-get install gcc"):
        WallClock(tmp_path)

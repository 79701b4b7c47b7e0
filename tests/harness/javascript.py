"""Node.js with the SDK of tests/sdk, as its lock file names it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "sdk"
INSTALL_SECONDS: Final = 120  # of a package registry; never reached


def install_sdk() -> None:
    """Install the SDK if it is not there yet."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    result = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert result.returncode == 0, result.stderr

"""Builds the load programs and installs the peers into a folder that git ignores."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scripts.benchmarks.errors import BenchError

SOURCES = Path(__file__).with_name("load")
CFLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
PEER_PACKAGES = {"ws": "8", "socket.io": "4", "bufferutil": "4"}
"""npm packages and the major versions of them; bufferutil is what ws recommends for speed."""

INSTALL_SECONDS = 300


class _Package(msgspec.Struct):
    version: str


def compile_program(name: str, folder: Path) -> Path:
    """The program of load/NAME.c, built anew when a source is newer than it.

    Raises:
        BenchError: there is no compiler, or it refused.
    """
    program = folder / name
    newest = max(source.stat().st_mtime for source in SOURCES.iterdir())
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        message = "the load generator needs a C compiler and found neither gcc nor cc; install gcc"
        raise BenchError(message)
    folder.mkdir(parents=True, exist_ok=True)
    _run([compiler, *CFLAGS, "-o", str(program), str(SOURCES / f"{name}.c"), "-lm"], folder)
    return program


def install_peers(folder: Path) -> Path:
    """The node_modules folder with the peers' packages, installed unless it is there.

    Raises:
        BenchError: there is no npm, or it could not install them.
    """
    modules = folder / "node_modules"
    if all((modules / package).is_dir() for package in PEER_PACKAGES):
        return modules
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        message = "the peers ws and socketio need node and npm; install them, or ask for --peers floor"
        raise BenchError(message)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{package}@{version}" for package, version in PEER_PACKAGES.items()]
    _run([npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), *wanted], folder)
    return modules


def versions(modules: Path | None) -> dict[str, str]:
    """The exact versions of what is measured and of what measures, as far as they are installed."""
    found = {}
    for tool in ("gcc", "node"):
        if path := shutil.which(tool):
            found[tool] = _run([path, "--version"], Path.cwd()).splitlines()[0].split()[-1]
    for package in PEER_PACKAGES if modules else ():
        description = Path(modules or "") / package / "package.json"
        found[package] = msgspec.json.decode(description.read_bytes(), type=_Package).version
    return found


def _run(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{' '.join(command)} did not end within {INSTALL_SECONDS} s"
        raise BenchError(message) from error
    if done.returncode:
        message = f"{' '.join(command)} failed with status {done.returncode}: {done.stderr.strip()[-2000:]}"
        raise BenchError(message)
    return done.stdout

"""Starts programs on a core of their own, and ends them with all their children."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.benchmarks.errors import RunError

PINNED = Path(__file__).with_name("pinned.py")
END_SECONDS = 10
"""A server may flush on SIGTERM, but not for longer than this."""


def _start(
    core: int, command: Sequence[str], log: Path, environment: Mapping[str, str], stdout: int | None = None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(PINNED), str(core), *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)


@contextlib.contextmanager
def running(
    core: int, command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own on this core; none of the group outlives the block."""
    process = _start(core, command, log, environment)
    try:
        yield process
        _end(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    finally:
        _end(process, signal.SIGKILL)
        process.wait()


def output_of(core: int, command: Sequence[str], log: Path, seconds: float) -> bytes:
    """What the command prints on this core; its standard error goes to the log.

    The exit status is not looked at: a generator that lost connections still reports.

    Raises:
        RunError: it ran for longer than `seconds`, or printed nothing.
    """
    with _start(core, command, log, {}, subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            message = f"{Path(command[0]).name} did not end within {seconds:g} s; its log is {log}"
            raise RunError(message) from error
        finally:
            _end(process, signal.SIGKILL)
            process.wait()  # leaving the block does not wait when we are interrupted
    if not output:
        message = f"{Path(command[0]).name} printed nothing (exit status {process.returncode}): {last_line(log)}"
        raise RunError(message)
    return output


def last_line(log: Path) -> str:
    """The last line of a log that says something, for a message."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"{log} is empty"

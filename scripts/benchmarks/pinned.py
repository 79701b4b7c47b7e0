"""Becomes a command on one core, ahead of other processes where that is permitted.

usage: pinned.py CORE COMMAND...

The process id stays the same, so the caller measures and ends the command itself. The nice value
of a process counts only within its session's autogroup (sched(7)), which is why that is given one
too. The kernel ends the command when its parent ends, whatever the parent died of.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

NICE = -15
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Take the core, the priority and the file descriptors, then become the command."""
    core, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as autogroup:
        autogroup.write(str(NICE))
    os.sched_setaffinity(0, {core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.execvp(command[0], command)  # noqa: S606 - to become the command is this program's purpose


if __name__ == "__main__":
    main()

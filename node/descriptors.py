"""Open files: how many this process may have, and how many connections they are enough for."""

from __future__ import annotations

import resource
from typing import Final

RESERVED: Final = 512  # for the log, HTTP and whatever libraries open
FEWEST_CONNECTIONS: Final = 16  # so that a node with few descriptors can be tried at all
UNLIMITED: Final = 1 << 20  # where the system sets no limit


def limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else UNLIMITED


def raise_limit() -> int:
    """Raise the limit of open files as far as it goes; gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def connections_within(descriptors: int) -> int:
    """How many connections a limit of open files is enough for."""
    return max(FEWEST_CONNECTIONS, descriptors - RESERVED)


def notices(connections: int, descriptors: int) -> list[str]:
    """What an operator is told who asks for more connections than the open files are enough for.

    Args:
        connections: `limits.connections`; 0: as many as they are enough for.
        descriptors: The limit of open files.
    """
    enough = connections_within(descriptors)
    if connections <= enough:
        return []
    return [
        f"limits.connections = {connections} is more than this process's limit of {descriptors} open files is enough"
        f" for: a crowd would leave none for metrics and the log. Give at most {enough} (0 does), or raise the limit"
        " (`ulimit -n`, LimitNOFILE= of systemd)."
    ]

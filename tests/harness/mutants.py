"""Nodes with a fault in their log, as programs: ``mutants.py NAME run ...``.  Proof that the crash test can fail.

A name is one or several of `MUTATIONS`, with ``+`` between them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from node.cli import main
from router import log
from router.journal_writer import JournalWriter
from router.log import Log
from router.log_reader import LogReader
from router.replay import replay

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from router.entry import Entry
    from router.events import Batch, KnownKey
    from router.log import LogOptions
    from router.replay import Replay

LOST_FRAMES: Final = 8  # more than the crash test's writers can have unanswered
LIFE_ENTRIES: Final = 30


def acknowledge_early() -> None:
    """What is acknowledged is written some commits later."""
    write = JournalWriter.write
    held: deque[Sequence[Batch]] = deque()

    def write_late(self: JournalWriter, batches: Sequence[Batch]) -> int:
        held.append(batches)
        return write(self, held.popleft()) if len(held) > LOST_FRAMES else 0

    def file_nothing(self: Log, committed: int) -> list[list[Entry]]:  # noqa: ARG001 - of what it stands for
        return []

    JournalWriter.write = write_late  # type: ignore[method-assign]
    Log._choose_slice = file_nothing  # type: ignore[method-assign]


def lose_tail() -> None:
    """When it starts, it overlooks the newest frames of its journal."""

    def replay_less(connection: sqlite3.Connection, path: Path) -> Replay:
        connection.execute("DELETE FROM journal WHERE n > (SELECT max(n) FROM journal) - ?", (LOST_FRAMES,))
        return replay(connection, path)

    log.replay = replay_less  # type: ignore[attr-defined]


def forget_ids() -> None:
    """When it starts, it does not know the ids of the messages that it holds."""

    def find_none(_self: LogReader, _keys: Sequence[bytes]) -> list[KnownKey]:
        return []

    LogReader.keys = find_none  # type: ignore[method-assign, assignment]


def die_unanswered() -> None:
    """No fault of its own: it dies after a commit, before anybody is told of it."""
    start = Log.__init__

    def start_mortal(self: Log, path: Path, options: LogOptions, notify: Callable[[], None], lock: int) -> None:
        def notify_or_die() -> None:
            if self._durable >= LIFE_ENTRIES:
                os.kill(os.getpid(), signal.SIGKILL)
            notify()

        start(self, path, options, notify_or_die, lock)

    Log.__init__ = start_mortal  # type: ignore[method-assign]


MUTATIONS: Final = {mutate.__name__: mutate for mutate in (acknowledge_early, lose_tail, forget_ids, die_unanswered)}


def command(*names: str) -> tuple[str, ...]:
    """What starts such a node, for `NodeProcess`."""
    return (sys.executable, "-P", str(Path(__file__)), "+".join(names))


if __name__ == "__main__":
    for name in sys.argv.pop(1).split("+"):
        MUTATIONS[name]()
    main()

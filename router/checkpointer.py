"""Checkpoints of the log's database: from the write-ahead file into the database file, by a thread of their own.

SQLite would make them within a commit, and everybody whose message is in that commit would wait for some megabytes to
be written and synced. A checkpoint on another connection stops neither the writer nor readers. But the write-ahead
file begins anew only when all of it is in the database, which under steady load it never is when this thread is done:
so when the file has grown long, the writer is asked to `help` and do the rest, which is little then.

SQLite before 3.51.3 can lose what is in the write-ahead file if the writer begins it anew just while another connection
begins a checkpoint of it (https://sqlite.org/wal.html#walresetbug). It begins anew only when nothing is left to
checkpoint, so none is made here unless a transaction has written since the last checkpoint ended; and the writer never
helps while one is under way.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from router.log_schema import PAGE_BYTES, open_checkpointer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

CHECKPOINT_BYTES: Final = 8 << 20  # written since the last checkpoint
LONG_WAL_BYTES: Final = 128 << 20  # from which the writer is asked to help
NICENESS: Final = 10

_CHECKPOINT: Final = object()
_STOP: Final = object()


class Checkpointer:
    """The thread that makes checkpoints.

    Args:
        path: The database file.
        synchronous: See `log_schema.open_writer`.
        failed: Called in this thread, once, when a checkpoint can't be made.

    Attributes:
        behind: The writer is asked to `help`.
    """

    def __init__(self, path: Path, synchronous: str, failed: Callable[[Exception], None]) -> None:
        self.behind = False
        self._failed = failed
        self._connection = open_checkpointer(path, synchronous)
        self._written = 0
        self._begun = 0  # transactions; the writer's to count
        self._newest = 0  # the number of the last one that has written something and is over
        self._ended = 0  # how many had begun when the last checkpoint ended
        self._one = threading.Lock()  # held while a checkpoint is made
        self._asked: SimpleQueue[object] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-checkpointer", daemon=True)
        self._thread.start()

    def begins(self) -> None:
        """A transaction begins; called by the writer."""
        self._begun += 1

    def wrote(self, size: int) -> None:
        """The transaction is over and has written so many bytes, about; called by the writer, 0: it wrote nothing."""
        if not size:
            return
        self._newest = self._begun
        self._written += size
        if self._written >= CHECKPOINT_BYTES:
            self._written = 0
            self._asked.put(_CHECKPOINT)

    def help(self, connection: sqlite3.Connection) -> None:
        """Make a checkpoint in the writer's thread, between two transactions, unless one is under way.

        Raises:
            sqlite3.Error: It can't be made.
        """
        if self._one.acquire(blocking=False):
            try:
                self.behind = False
                self._checkpoint(connection)
            finally:
                self._one.release()

    def close(self, timeout: float | None = None) -> bool:
        """End the thread and close its connection.

        Args:
            timeout: Seconds to wait for the checkpoint under way; None: for ever.

        Returns:
            Whether the thread has ended; if not, its connection stays open.
        """
        self._asked.put(_STOP)
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._connection.close()
        return True

    def _run(self) -> None:
        with suppress(OSError):  # nobody waits for it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while self._asked.get() is not _STOP:
                self._keep_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, the log halts with it
            self._failed(error)

    def _keep_up(self) -> None:
        with self._one:
            if self._newest > self._ended:
                self.behind = self._checkpoint(self._connection) * PAGE_BYTES > LONG_WAL_BYTES

    def _checkpoint(self, connection: sqlite3.Connection) -> int:
        """Gives the length of the write-ahead file, in pages."""
        frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        self._ended = self._begun
        return int(frames)

"""Checkpoints of the log's database: from the write-ahead file into the database file, by a thread of their own.

SQLite would make them within a commit, and everybody whose message is in that commit would wait for some megabytes to
be written and synced. A checkpoint on another connection stops neither the writer nor readers. But the write-ahead
file begins anew only when all of it is in the database, which under steady load it never is when this thread is done:
so when the file has grown long, `behind` asks the writer to do the rest, which is little then.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from router.log_schema import PAGE_BYTES, open_checkpointer

if TYPE_CHECKING:
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
        behind: The writer is to make a checkpoint, and to set this to False.
    """

    def __init__(self, path: Path, synchronous: str, failed: Callable[[Exception], None]) -> None:
        self.behind = False
        self._failed = failed
        self._connection = open_checkpointer(path, synchronous)
        self._written = 0
        self._asked: SimpleQueue[object] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-checkpointer", daemon=True)
        self._thread.start()

    def wrote(self, size: int) -> None:
        """So many bytes were written, about; called by the writer after each commit."""
        self._written += size
        if self._written >= CHECKPOINT_BYTES:
            self._written = 0
            self._asked.put(_CHECKPOINT)

    def close(self) -> None:
        """End the thread and close its connection."""
        self._asked.put(_STOP)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        with suppress(OSError):  # nobody waits for it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while self._asked.get() is not _STOP:
                _, frames, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self.behind = frames * PAGE_BYTES > LONG_WAL_BYTES
        except Exception as error:  # noqa: BLE001 - whatever it is, the log halts with it
            self._failed(error)

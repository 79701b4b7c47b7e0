"""How a log writes, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class LogOptions:
    """How the log writes.

    Attributes:
        commit_window: Seconds that a commit may wait for more under load.
        commit_entries: From so many entries on it does not.
        durable: False: without fsync, for tests.
        quota_bytes: Of the files; 0: only the disk's space counts.
        retention_bytes: The oldest entries are dropped when more than this is in use; 0: none for that.
        shards: Over how many rooms are spread; never changes in the life of a log.
        quarantine_bytes: Of truncated entries that are kept aside; 0: none are.
    """

    commit_window: float = 0.002
    commit_entries: int = 256
    durable: bool = True
    quota_bytes: int = 0
    retention_bytes: int = 0
    shards: int = 128
    quarantine_bytes: int = 64 << 20


@dataclass(slots=True, frozen=True)
class LogStatistics:
    """A moment of the log.

    Attributes:
        bytes: Of the database file.
        wal_bytes: Of its write-ahead file.
        queued: Entries handed over and not durable.
        unfiled: Entries durable and not filed.
    """

    bytes: int
    wal_bytes: int
    queued: int
    unfiled: int

"""The router's exceptions.

RouterError
├── CorruptEntry        stored or received bytes are not what was written: our disk, or a peer, is at fault
├── StorageFault        the log can't go on: `reason` says what halted (full, io, corrupt, chain, locked, ...)
├── TransportFault      other nodes can't be listened for
└── BrokenInvariant     a rule of replication does not hold: our fault; the shard halts
"""

from __future__ import annotations


class RouterError(Exception):
    """Base of all errors of this package."""


class CorruptEntry(RouterError):
    """Bytes that are not the entry they should be."""


class BrokenInvariant(RouterError):
    """A safety rule does not hold; going on could lose or reorder messages."""


class TransportFault(RouterError):
    """The transport to other nodes can't be opened; names the thing, the value and the mend."""


class StorageFault(RouterError):
    """The log has halted.

    Args:
        reason: One of ``full``, ``io``, ``corrupt``, ``chain``, ``broken``, ``locked``, ``version``, ``shards``,
            ``birth``, ``closed``: a label for metrics. Broken is a rule of replication.
        message: What happened, to which file, and what an operator does about it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

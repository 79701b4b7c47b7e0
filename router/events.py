"""What goes into the cores of the router and what comes out: the seam between them and their driver, and to the edge.

Inputs are requests of the edge (`Submit`) and answers of the disk. Effects are what the driver must perform, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from router.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from router.ids import MemberId, RoomId, ShardId


@dataclass(slots=True, frozen=True)
class Promise:
    """A durable promise of this member: it answers STALE to any shard epoch below `epoch`."""

    shard: ShardId
    epoch: int


@dataclass(slots=True, frozen=True)
class Truncate:
    """Entries of a shard above `lsn` are no longer part of its log; they are kept aside in quarantine."""

    shard: ShardId
    lsn: int


@dataclass(slots=True, frozen=True)
class Configuration:
    """A shard's row in the register.

    Attributes:
        version: Rises by one with every change; the compare-and-set compares it. 0: the row does not exist.
        epoch: Rises by one with every change.
        primary: Who sequences.
        members: Who must have an entry on disk before it is committed.
    """

    shard: ShardId
    version: int
    epoch: int
    primary: MemberId
    members: tuple[MemberId, ...]


@dataclass(slots=True, frozen=True)
class Claim:
    """Effect: compare-and-set this row; the register's answer goes to `claimed` of who asked.

    Attributes:
        expected_version: Of the row in force; 0: there is none.
        new: What it is to be.
    """

    expected_version: int
    new: Configuration


@dataclass(slots=True)
class Batch:
    """What one turn of the cores wants on disk: one transaction, one fsync.

    Attributes:
        ticket: Named again in `Persisted`; rises by one from batch to batch.
        promises: Made durable before anything else of the batch.
        truncations: Performed before the entries are appended.
        entries: In order; within a shard their lsn are dense.
        commits: Highest committed lsn per shard known when the batch was made.
    """

    ticket: int
    promises: list[Promise] = field(default_factory=list)
    truncations: list[Truncate] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    commits: dict[ShardId, int] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class ShardTail:
    """The end of a shard's log on this disk.

    Attributes:
        lsn: The last entry's; 0 when there is none.
        chain: The chain up to it.
        promised: The highest shard epoch promised.
        commit: The highest lsn known here to be committed.
        commit_chain: The chain up to it; only where the log goes on above it, else it is `chain`.
    """

    shard: ShardId
    lsn: int
    chain: bytes
    promised: int
    commit: int
    commit_chain: bytes = b""


@dataclass(slots=True, frozen=True)
class RoomRecord:
    """A room as the disk knows it.

    Attributes:
        generation: Raised when a room is reset; part of the stream epoch. 1 for a room that was never written.
        sequence: The last visible entry's sequence.
        meta_n: The count of META and MARKS entries.
        ts: The last entry's timestamp in milliseconds.
        floor: Entries up to this sequence are no longer on this disk, or were removed.
        values: What META entries have set, see router/room_values.py.
    """

    room: RoomId
    generation: int = 1
    sequence: int = 0
    meta_n: int = 0
    ts: int = 0
    floor: int = 0
    values: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class KnownKey:
    """Where a client's message was first written.

    Attributes:
        key: See `ids.dedupe_key`.
        sequence: The entry's sequence in its room.
        fingerprint: Of its data; see `fingerprint`.
    """

    key: bytes
    sequence: int
    fingerprint: int


def fingerprint(data: bytes) -> int:
    """What is kept of a message's data to tell a retry from another message under the same id: 64 bits.

    Nobody but a message's author can use its id, and all that one who makes two texts agree in it would win is that
    the second is taken for the first; so a checksum does.
    """
    return len(data) << 32 | crc32(data)


class Refusal(Enum):
    """Why a submit was refused; definite: it is not in the log and won't be."""

    CONFLICT = "another message was sent under this id"
    BAD_ID = "the message id is too long"
    NEW = "nothing was sent under this id"
    """Of a probe only."""


class Away(Enum):
    """Why the outcome is unknown or a read can't be answered now; the same request may be tried again."""

    STORAGE_FULL = "the disk is full"
    STORAGE_FAULT = "the log has halted"
    OVERLOADED = "too much is waiting for the disk"
    CLOSING = "the node is shutting down"
    MOVED = "the room is another node's"
    UNREACHABLE = "the room's primary can't be reached"


@dataclass(slots=True, frozen=True)
class Duplicate:
    """The message was accepted before; `sequence` is where."""

    sequence: int


class Submit(msgspec.Struct, gc=False, eq=False):
    """A message that an edge wants in a room.

    Attributes:
        room: Where.
        kind: An `entry.Kind`.
        sender: `ids.sender_id` of the author.
        cmid: The client's id of the message; empty: not deduplicated.
        data: Canonical bytes of what the client gave; a retry must give the same.
        info: What the edge adds about the author; a retry may differ.
        done: Called once with the outcome, on the driver's task; of entries in the order of commits.
        probe: It is not to be made, only to be found if it was made before; see `Cluster.probe`.
    """

    room: RoomId
    kind: int
    sender: bytes
    cmid: str
    data: bytes
    info: bytes
    done: Callable[[Outcome], None]
    probe: bool = False


Outcome = Entry | Duplicate | Refusal | Away


@dataclass(slots=True, frozen=True)
class History:
    """A read of a room's visible entries.

    Attributes:
        since: Exclusive start; None: from the end (reverse) or from the floor.
        limit: At most so many entries, >= 1.
        reverse: Newest first; then `since` is where to begin going back, exclusive.
        max_bytes: Stop before the sum of their canonical bytes passes this (at least one is given).
    """

    room: RoomId
    since: int | None
    limit: int
    reverse: bool
    max_bytes: int


@dataclass(slots=True, frozen=True)
class Page:
    """Part of a room's history.

    Attributes:
        entries: Visible entries, dense; oldest first, or newest first if the read was reverse. What was removed is
            without its body, see `Entry.removal`.
        floor: Entries up to this sequence are no longer on this disk, or were removed.
        head: The room's newest committed sequence at the moment of the answer.
    """

    entries: Sequence[Entry]
    floor: int
    head: int


@dataclass(slots=True, frozen=True)
class Recovered:
    """What a log holds when it is opened.

    Attributes:
        shards: The ends of shards' logs.
        configurations: Rows of this node's own register.
        unfiled: Entries that are not known to be committed.
        learned: Rows of other registers that it was told of: old news, perhaps.
    """

    shards: Mapping[ShardId, ShardTail]
    configurations: Mapping[ShardId, Configuration]
    unfiled: tuple[Entry, ...]
    learned: Mapping[ShardId, Configuration] = field(default_factory=dict)

"""What a log holds when it is opened: tables, then the journal's frames that aren't filed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from router.entry import GENESIS, Entry, decode, link
from router.errors import CorruptEntry, StorageFault
from router.events import Configuration, Recovered, ShardTail
from router.ids import MemberId
from router.journal import decode as decode_frame

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from router.journal import Frame


@dataclass(slots=True)
class Tail:
    """The end of a shard's log while frames are applied to it.

    Attributes:
        filed: The last lsn in the tables; what frames say of this and before is history.
        filed_chain: The chain there.
        lsn: The last one.
        chain: The chain there.
        promised: The highest epoch promised.
        commit: The highest lsn known to be committed.
        unfiled: Entries above `filed`, in order.
    """

    filed: int = 0
    filed_chain: bytes = GENESIS
    lsn: int = 0
    chain: bytes = GENESIS
    promised: int = 0
    commit: int = 0
    unfiled: list[Entry] = field(default_factory=list)

    def tail(self, shard: int) -> ShardTail:
        """It as a value."""
        at = self.commit - self.filed
        chain = self.unfiled[at - 1].chain if at > 0 else self.filed_chain
        return ShardTail(shard, self.lsn, self.chain, self.promised, self.commit, chain)

    def append(self, entry: Entry) -> None:
        """The next entry of a frame."""
        if entry.lsn <= self.filed:
            return
        if entry.lsn != self.lsn + 1:
            raise CorruptEntry(f"shard {entry.shard} goes from lsn {self.lsn} to {entry.lsn}")
        self.chain = entry.chain = link(self.chain, entry.wire)
        self.lsn = entry.lsn
        self.unfiled.append(entry)

    def truncate(self, shard: int, lsn: int) -> None:
        """A truncation of a frame."""
        if lsn > self.lsn:
            raise CorruptEntry(f"shard {shard} is truncated to lsn {lsn}, its log ends at {self.lsn}")
        keep = max(0, lsn - self.filed)  # filed beyond it: what was truncated has been replaced since
        del self.unfiled[keep:]
        last = self.unfiled[-1] if self.unfiled else None
        self.lsn, self.chain = (last.lsn, last.chain) if last else (self.filed, self.filed_chain)


@dataclass(slots=True)
class Replay:
    """The result.

    Attributes:
        recovered: Everything that is in the journal and not in the tables, in order within each shard.
        filed: By shard, the last lsn in the tables.
        chains: By shard, the chain there.
        frames: Of the journal: its number, and the highest lsn of each shard in it.
        next_frame: The number of the next frame.
    """

    recovered: Recovered
    filed: dict[int, int]
    chains: dict[int, bytes]
    frames: list[tuple[int, dict[int, int]]]
    next_frame: int


def replay(connection: sqlite3.Connection, path: Path) -> Replay:
    """Read tables and journal, verifying checksums and hashes.

    Raises:
        StorageFault: What is stored is not what was written.
    """
    tails = _filed_tails(connection)
    filed = {shard: tail.filed for shard, tail in tails.items()}
    chains = {shard: tail.chain for shard, tail in tails.items()}
    frames: list[tuple[int, dict[int, int]]] = []
    number = 0
    for number, frame in _frames_of(connection, path):
        with _located(number, path):
            frames.append((number, _apply(frame, tails)))
    recovered = Recovered(
        {shard: t.tail(shard) for shard, t in tails.items()},
        read_register(connection),
        tuple(entry for tail in tails.values() for entry in tail.unfiled),
    )
    return Replay(recovered, filed, chains, frames, number + 1)


def _frames_of(connection: sqlite3.Connection, path: Path) -> Iterator[tuple[int, Frame]]:
    """The journal's frames, oldest first.

    Raises:
        StorageFault: One is damaged.
    """
    for number, data in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
        with _located(number, path):
            frame = decode_frame(data)
        yield number, frame


def _apply(frame: Frame, tails: dict[int, Tail]) -> dict[int, int]:
    """Apply a frame to the tails; gives the highest lsn of each shard in it.

    Raises:
        CorruptEntry: It does not follow what was applied before.
    """
    highest: dict[int, int] = {}
    for shard, epoch in frame.promises:
        tail = tails.setdefault(shard, Tail())
        tail.promised = max(tail.promised, epoch)
    for shard, lsn in frame.truncations:
        tails.setdefault(shard, Tail()).truncate(shard, lsn)
    for wire in frame.entries():
        entry = decode(wire, None)
        highest[entry.shard] = entry.lsn
        tails.setdefault(entry.shard, Tail()).append(entry)
    for shard, lsn in frame.commits:
        tail = tails.setdefault(shard, Tail())
        tail.commit = max(tail.commit, min(lsn, tail.lsn))
    return highest


def read_register(connection: sqlite3.Connection) -> dict[int, Configuration]:
    """The rows of this node's own register.

    Raises:
        CorruptEntry: One can't be read.
    """
    rows = connection.execute("SELECT shard, version, epoch, primary_node, primary_disk, members FROM register")
    found = {}
    for shard, version, epoch, node, disk, members in rows:
        try:
            listed = msgspec.json.decode(members, type=list[tuple[str, str]])
        except (msgspec.MsgspecError, TypeError) as error:
            raise CorruptEntry(f"its register's row of shard {shard} can't be read: {error}") from error
        of_shard = tuple(MemberId(*member) for member in listed)
        found[shard] = Configuration(shard, version, epoch, MemberId(node, disk), of_shard)
    return found


def _filed_tails(connection: sqlite3.Connection) -> dict[int, Tail]:
    rows = connection.execute("SELECT shard, lsn, chain, promised, commit_lsn FROM shard")
    return {
        shard: Tail(lsn, chain, lsn, chain, promised, max(commit, lsn)) for shard, lsn, chain, promised, commit in rows
    }


class _located:  # noqa: N801 - used as a statement
    """Turns a damaged entry into a fault that names the frame and the file."""

    def __init__(self, number: int, path: Path) -> None:
        self._number, self._path = number, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, CorruptEntry):
            raise StorageFault(
                "corrupt",
                f"Frame {self._number} of the journal in {self._path} is damaged: {error}. Restore the data directory"
                " from a backup; `chat-node log verify` lists what is wrong.",
            ) from error

"""What a log holds when it is opened: tables, then the journal's frames that aren't filed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from router.entry import GENESIS, Entry, decode, link
from router.errors import CorruptEntry, StorageFault
from router.events import Recovered, ShardTail
from router.journal import Cuts, without
from router.journal import decode as decode_frame
from router.row_tables import REGISTER, read_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
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
        told: The highest that frames say is.
        unfiled: Entries above `filed`, in order.
    """

    filed: int = 0
    filed_chain: bytes = GENESIS
    lsn: int = 0
    chain: bytes = GENESIS
    promised: int = 0
    commit: int = 0
    told: int = 0
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
        if lsn < self.told:
            raise CorruptEntry(f"shard {shard} is truncated to lsn {lsn}, below its commit {self.told}")
        keep = max(0, lsn - self.filed)  # filed beyond it: what was truncated has been replaced since
        del self.unfiled[keep:]
        last = self.unfiled[-1] if self.unfiled else None
        self.lsn, self.chain = (last.lsn, last.chain) if last else (self.filed, self.filed_chain)

    def commit_to(self, lsn: int) -> None:
        """A commit that a frame tells of."""
        self.told = max(self.told, lsn)
        self.commit = max(self.commit, min(lsn, self.lsn))


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
    since = voided(connection)
    frames: list[tuple[int, dict[int, int]]] = []
    cuts = Cuts()
    for number, frame in _frames_of(connection, path, since):
        cuts.note(number, frame)
    number = 0
    for number, frame in _frames_of(connection, path, since):
        with _located(number, path):
            frames.append((number, _apply(frame, tails, partial(cuts.end, number=number))))
    recovered = Recovered(
        {shard: t.tail(shard) for shard, t in tails.items()},
        read_rows(connection, REGISTER),
        tuple(entry for tail in tails.values() for entry in tail.unfiled),
    )
    return Replay(recovered, filed, chains, frames, max([number + 1, *since.values()]))  # they rise over all


def voided(connection: sqlite3.Connection) -> dict[int, int]:
    """By shard whose log a snapshot has replaced, the number of the first frame that counts."""
    return dict(connection.execute("SELECT shard, since FROM shard WHERE since>0").fetchall())


def _frames_of(connection: sqlite3.Connection, path: Path, since: Mapping[int, int]) -> Iterator[tuple[int, Frame]]:
    """The journal's frames, oldest first, with what counts of them.

    Raises:
        StorageFault: One is damaged.
    """
    for number, data in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
        with _located(number, path):
            frame = without(decode_frame(data), number, since)
        yield number, frame


def _apply(frame: Frame, tails: dict[int, Tail], end: Callable[[int], int]) -> dict[int, int]:
    """Apply a frame to the tails; gives the highest lsn of each shard in it.

    Args:
        frame: The next one.
        tails: By shard, as the frames before leave them.
        end: Gives the lsn of a shard above which a later frame truncates its log.

    Raises:
        CorruptEntry: It does not follow what was applied before.
    """
    highest: dict[int, int] = {}
    for shard, epoch in frame.promises:
        tail = tails.setdefault(shard, Tail())
        tail.promised = max(tail.promised, epoch)
    for shard, lsn in frame.truncations:
        tails.setdefault(shard, Tail()).truncate(shard, min(lsn, end(shard)))
    ends: dict[int, int] = {}
    for wire in frame.entries():
        entry = decode(wire, None)
        shard = entry.shard
        last = ends.get(shard)
        if last is None:
            last = ends[shard] = end(shard)
        highest[shard] = min(entry.lsn, last)
        if entry.lsn <= last:
            tails.setdefault(shard, Tail()).append(entry)
    for shard, lsn in frame.commits:
        tails.setdefault(shard, Tail()).commit_to(lsn)
    return highest


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

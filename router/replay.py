"""What a log holds when it is opened: tables, then the journal's frames that aren't filed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from router.entry import GENESIS, Entry, decode
from router.errors import CorruptEntry, StorageFault
from router.events import Configuration, Recovered, ShardTail
from router.ids import MemberId
from router.journal import decode as decode_frame

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


@dataclass(slots=True)
class _Tail:
    lsn: int = 0
    chain: bytes = GENESIS
    promised: int = 0
    commit: int = 0
    unfiled: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """The result.

    Attributes:
        recovered: For the cores.
        chains: By shard, the chain up to what is filed.
        frames: Of the journal: its number, and the highest lsn of each shard in it.
        next_frame: The number of the next frame.
    """

    recovered: Recovered
    chains: dict[int, bytes]
    frames: list[tuple[int, dict[int, int]]]
    next_frame: int


def replay(connection: sqlite3.Connection, path: Path) -> Replay:
    """Read tables and journal, verifying checksums, hashes and chains.

    Raises:
        StorageFault: What is stored is not what was written.
    """
    tails: dict[int, _Tail] = {}
    chains: dict[int, bytes] = {}
    for shard, lsn, chain, promised, commit in connection.execute(
        "SELECT shard, lsn, chain, promised, commit_lsn FROM shard"
    ):
        tails[shard] = _Tail(lsn, chain, promised, max(commit, lsn))
        chains[shard] = chain
    frames: list[tuple[int, dict[int, int]]] = []
    number = 0
    for number, data in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
        try:
            frames.append((number, _apply(data, tails)))
        except CorruptEntry as error:
            raise StorageFault(
                "corrupt",
                f"Frame {number} of the journal in {path} is damaged: {error}. Restore the data directory from a"
                " backup; `chat-node log verify` lists what is wrong.",
            ) from error
    recovered = Recovered(
        {shard: ShardTail(shard, t.lsn, t.chain, t.promised, t.commit) for shard, t in tails.items()},
        read_register(connection),
        tuple(entry for tail in tails.values() for entry in tail.unfiled),
    )
    return Replay(recovered, chains, frames, number + 1)


def _apply(data: bytes, tails: dict[int, _Tail]) -> dict[int, int]:
    frame = decode_frame(data)
    highest: dict[int, int] = {}
    for shard, epoch in frame.promises:
        tail = tails.setdefault(shard, _Tail())
        tail.promised = max(tail.promised, epoch)
    for shard, lsn in frame.truncations:
        _truncate(tails.setdefault(shard, _Tail()), shard, lsn)
    for wire in frame.entries():
        entry = decode(wire, None)
        tail = tails.setdefault(entry.shard, _Tail())
        highest[entry.shard] = entry.lsn
        if entry.lsn <= tail.lsn:
            continue  # filed before
        if entry.lsn != tail.lsn + 1:
            raise CorruptEntry(f"shard {entry.shard} goes from lsn {tail.lsn} to {entry.lsn}")
        entry = decode(wire, tail.chain)
        tail.lsn, tail.chain = entry.lsn, entry.chain
        tail.unfiled.append(entry)
    for shard, lsn in frame.commits:
        tail = tails.setdefault(shard, _Tail())
        tail.commit = max(tail.commit, min(lsn, tail.lsn))
    return highest


def _truncate(tail: _Tail, shard: int, lsn: int) -> None:
    kept = [entry for entry in tail.unfiled if entry.lsn <= lsn]
    if not kept or kept[-1].lsn != lsn:
        raise CorruptEntry(f"shard {shard} is truncated to lsn {lsn}, which is not among its unfiled entries")
    tail.unfiled, tail.lsn, tail.chain = kept, lsn, kept[-1].chain


def read_register(connection: sqlite3.Connection) -> dict[int, Configuration]:
    """The rows of this node's own register."""
    rows = connection.execute("SELECT shard, version, epoch, primary_node, primary_disk, members FROM register")
    return {
        shard: Configuration(
            shard, version, epoch, MemberId(node, disk),
            tuple(MemberId(*member) for member in msgspec.json.decode(members, type=list[tuple[str, str]])),
        )
        for shard, version, epoch, node, disk, members in rows
    }  # fmt: skip

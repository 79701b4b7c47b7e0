"""The journal's end: frames are written to it, and those whose entries are all filed are dropped from its beginning.

What a member has of a shard and nobody commits, as the shard goes on elsewhere, would keep all frames behind it for
ever. So when much was written behind it, it is written again at the end.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from router import journal
from router.entry import GENESIS, decode
from router.errors import BrokenInvariant
from router.events import Truncate

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from router.events import Batch
    from router.ids import ShardId
    from router.quarantine import Quarantine
    from router.replay import Replay


CARRY_BYTES: Final = 256 << 20  # of frames behind one that is kept by what nobody commits


class JournalWriter:
    """Writes batches as frames.

    Args:
        connection: The writer's; a transaction is open whenever a method is called.
        found: What the log held when it was opened.
        quarantine: Takes what is truncated.
        committed: Up to where entries of a shard were said to be committed, filed or not.
    """

    def __init__(
        self, connection: sqlite3.Connection, found: Replay, quarantine: Quarantine,
        committed: Callable[[ShardId], int],
    ) -> None:  # fmt: skip
        self._execute, self._quarantine, self._committed = connection.execute, quarantine, committed
        self._frames = deque(found.frames)
        self._next = found.next_frame
        self._first = 0  # frame, and the bytes that were written since it became the first
        self._behind = 0
        self._commits = {shard: tail.commit for shard, tail in found.recovered.shards.items()}

    def write(self, batches: Sequence[Batch]) -> int:
        """Write batches; gives the bytes of their frame.

        It is one frame for all, unless something is truncated: within a frame truncations precede the entries, so what
        came before them needs one of its own.

        Raises:
            BrokenInvariant: What is committed would be truncated.
        """
        size, start = 0, 0
        for at, batch in enumerate(batches):
            if batch.truncations:
                size += self._write(batches[start:at]) if at > start else 0
                start = at
                self._set_aside(batch.truncations)
            self._commits.update(batch.commits)
        return size + self._write(batches[start:])

    def _write(self, batches: Sequence[Batch]) -> int:
        frame = journal.encode(batches)
        highest: dict[int, int] = {}
        for batch in batches:
            for promise in batch.promises:
                self._execute(
                    "INSERT INTO shard(shard, lsn, chain, promised, commit_lsn) VALUES (?, 0, ?, ?, 0)"
                    " ON CONFLICT(shard) DO UPDATE SET promised=max(promised, excluded.promised)",
                    (promise.shard, GENESIS, promise.epoch),
                )
            for entry in batch.entries:
                highest[entry.shard] = entry.lsn
        self._put(frame, highest)
        return len(frame)

    def _put(self, frame: bytes, highest: dict[int, int]) -> None:
        self._execute("INSERT INTO journal(n, frame) VALUES (?, ?)", (self._next, frame))
        self._frames.append((self._next, highest))
        self._next += 1
        self._behind += len(frame)

    def _set_aside(self, truncations: Sequence[Truncate]) -> None:
        """Move what is truncated to quarantine."""
        ends = {truncation.shard: truncation.lsn for truncation in truncations}
        for shard, lsn in ends.items():
            commit = self._commit(shard)
            if lsn < commit:
                raise BrokenInvariant(f"shard {shard}: truncation to {lsn}, below the commit {commit}")
        self._quarantine.add(self._take_above(ends), int(time.time() * 1000))

    def _commit(self, shard: ShardId) -> int:
        return max(self._commits.get(shard, 0), self._committed(shard))

    def _take_above(self, ends: Mapping[ShardId, int]) -> list[bytes]:
        """The entries above the ends of their shards' logs, which the frames are kept for no longer."""
        frames = [frame for frame in self._frames if passes(frame[1], ends)]
        wires = [wire for number, highest in frames for wire in self._above(number, highest, ends)]
        cut_frames(self._frames, ends)
        return wires

    def _above(self, number: int, highest: Mapping[ShardId, int], ends: Mapping[ShardId, int]) -> Iterator[bytes]:
        """The entries of a frame that were part of their shards' logs until now, and are above their ends."""
        row = self._execute("SELECT frame FROM journal WHERE n=?", (number,)).fetchone()
        for wire in journal.decode(row[0]).entries():
            entry = decode(wire, None)
            if ends.get(entry.shard, entry.lsn) < entry.lsn <= highest.get(entry.shard, 0):
                yield wire

    def void(self, shard: ShardId) -> int:
        """What is in the journal of a shard counts for nothing from now on; gives the number of the next frame.

        What is not known to be committed goes to quarantine.
        """
        self._set_aside([Truncate(shard, self._commit(shard))])
        self._commits.pop(shard, None)
        for _, highest in self._frames:
            highest.pop(shard, None)
        return self._next

    def forget(self, filed: Mapping[ShardId, int]) -> None:
        """Drop the first frames as far as all their entries are filed, or truncated."""
        frames = self._frames
        done = 0
        while frames and all(filed.get(shard, 0) >= lsn for shard, lsn in frames[0][1].items()):
            done = frames.popleft()[0]
        if done:
            self._execute("DELETE FROM journal WHERE n<=?", (done,))
        first = frames[0][0] if frames else 0
        if first != self._first:
            self._first, self._behind = first, 0
        elif frames and self._behind > CARRY_BYTES:
            self._carry(frames[0][1])

    def _carry(self, highest: Mapping[ShardId, int]) -> None:
        """Write again what nobody commits of the shards of a frame; it truncates them to where that begins."""
        ends = {shard: commit for shard, lsn in highest.items() if (commit := self._commit(shard)) < lsn}
        wires = self._take_above(ends)
        if wires:
            self._put(*journal.carried(list(ends.items()), wires))


def passes(highest: Mapping[ShardId, int], ends: Mapping[ShardId, int]) -> bool:
    """Whether a frame with these last lsn has something above the ends of logs."""
    return any(highest.get(shard, 0) > lsn for shard, lsn in ends.items())


def cut_frames(frames: Sequence[tuple[int, dict[ShardId, int]]], ends: Mapping[ShardId, int]) -> None:
    """Lower the last lsn of frames to where their shards' logs were truncated: what is above need never be filed."""
    for _, highest in frames:
        for shard, lsn in ends.items():
            if highest.get(shard, 0) > lsn:
                highest[shard] = lsn

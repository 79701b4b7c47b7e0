"""Reading the log for all receivers at once.

Receivers that are near the end of the log, as nearly all are nearly always, share one read; whoever is far behind has
reads of its own, in turn with the others, until it is near, too. A receiver that has enough to do is not read for, and
holds nobody up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from node.webhook_events import event_of, letter_of
from router.events import Away
from router.tail import TailQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from node.webhook_delivery import Delivery, Letter
    from router.entry import Entry
    from router.ids import ShardId
    from router.tail import Tail

PAGE_ENTRIES: Final = 500  # 5 ms of the log's reader, behind which a client's history may have to wait
PAGE_BYTES: Final = 1 << 20
NEAR_ENTRIES: Final = 2000  # to the end of the log: a few reads, for which others can wait
NEIGHBOURS: Final = 32  # entries between two that are wanted, which are read along rather than asked for in two parts
REST_SECONDS: Final = 0.05  # between two reads at the end of the log: one for each commit would cost the hub dear
AWAY_SECONDS: Final = 1.0  # until a log is asked again that could not answer


class Source(Protocol):
    """Where the log is read: `router.runtime.Router`."""

    def tail(self, query: TailQuery, done: Callable[[Tail | Away], None]) -> None:
        """Read what was committed; `done` is called once."""

    def follow(self, wake: Callable[[], None]) -> None:
        """Have `wake` called after commits."""

    def unfollow(self, wake: Callable[[], None]) -> None:
        """Undo `follow`."""


class Reader(Protocol):
    """For whom the log is read: `node.webhook_receiver.Receiver`."""

    @property
    def site(self) -> str:
        """Whose events it is told."""

    @property
    def wanted(self) -> Collection[str]:
        """Names of those events."""

    @property
    def delivery(self) -> Delivery:
        """What takes them."""

    def gap(self, shard: ShardId, last: int) -> Letter:
        """What it is told of entries that were gone before they could be read."""

    def wake(self) -> None:
        """There is something new for it."""


class LogTail:
    """The log's tail, for tasks that wait for answers.

    Args:
        source: Where it is read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._heads: Mapping[ShardId, int] | None = None  # as they were when the log was read last

    async def read(self, query: TailQuery) -> Tail:
        """What a query asks; waits while the log can't be read."""
        while True:
            answers: list[Tail | Away] = []
            answered = trio.Event()

            def done(answer: Tail | Away, answers: list[Tail | Away] = answers, told: trio.Event = answered) -> None:
                answers.append(answer)
                told.set()

            self._source.tail(query, done)
            await answered.wait()
            if not isinstance(answers[0], Away):
                self._heads = answers[0].heads
                return answers[0]
            await trio.sleep(AWAY_SECONDS)

    async def heads(self) -> dict[ShardId, int]:
        """By shard the newest entry that is committed."""
        return dict((await self.read(TailQuery({}, 0, 0))).heads)

    async def find(self, letters: Sequence[Letter]) -> dict[tuple[ShardId, int], Entry]:
        """The entries of letters, as clients are shown them now, by shard and lsn; those that are gone are left out.

        Args:
            letters: Any.
        """
        if not letters:
            return {}
        heads = self._heads or await self.heads()
        firsts: dict[ShardId, int] = {}
        for letter in letters:
            firsts[letter.shard] = min(firsts.get(letter.shard, letter.lsn), letter.lsn - 1)
        # Near the end of the log, which is nearly always, one read has them all.
        tail = await self.read(TailQuery({**heads, **firsts}, PAGE_ENTRIES, PAGE_BYTES))
        found = {(entry.shard, entry.lsn): entry for entry in tail.entries}
        rest = [letter for letter in letters if letter.lsn > tail.cursor.get(letter.shard, 0)]
        for shard, first, last in _runs(rest):
            at = first - 1
            while at < last:
                tail = await self.read(TailQuery({**heads, shard: at}, last - at, PAGE_BYTES, shard))
                found.update({(shard, entry.lsn): entry for entry in tail.entries if entry.shard == shard})
                if tail.cursor.get(shard, 0) <= at:
                    break  # it is the end of the log
                at = tail.cursor[shard]
        return found


def _runs(letters: Sequence[Letter]) -> list[tuple[ShardId, int, int]]:
    """Shard, first and last lsn of what is to be read to have all of the letters."""
    by_shard: dict[ShardId, list[int]] = {}
    for letter in letters:
        by_shard.setdefault(letter.shard, []).append(letter.lsn)
    runs = []
    for shard, unordered in by_shard.items():
        first = last = min(unordered)
        for place in sorted(unordered):
            if place - last > NEIGHBOURS:
                runs.append((shard, first, last))
                first = place
            last = place
        runs.append((shard, first, last))
    return runs


class Feed:
    """Gives each receiver what the log has for it.

    Args:
        source: Whose commits are followed.
        tail: Where the log is read.
        readers: All receivers that want anything of the log, at this moment.
    """

    def __init__(self, source: Source, tail: LogTail, readers: Callable[[], Sequence[Reader]]) -> None:
        self._source, self._tail, self._readers = source, tail, readers
        self._heads: Mapping[ShardId, int] = {}
        self._start: ShardId = 0  # where the next read for the near ones begins
        self._turn = 0  # of those that are far behind
        self._stir = trio.Event()

    def poke(self) -> None:
        """There is more in the log, a receiver is new, or one wants more again."""
        self._stir.set()

    async def run(self) -> None:
        """Read until cancelled; commits are followed only while there is somebody to read for."""
        follows = False
        try:
            while True:
                stir = self._stir = trio.Event()
                if bool(self._readers()) is not follows:
                    follows = not follows
                    (self._source.follow if follows else self._source.unfollow)(self.poke)
                if not await self._read_round():
                    await stir.wait()
                    await trio.sleep(REST_SECONDS)
        finally:
            if follows:
                self._source.unfollow(self.poke)

    async def _read_round(self) -> bool:
        """Read for the near ones, and for one that is far behind; whether somebody wants more."""
        wanting = [reader for reader in self._readers() if reader.delivery.wants]
        far = [reader for reader in wanting if self._behind(reader) > NEAR_ENTRIES]
        near = [reader for reader in wanting if reader not in far]
        more = False
        if near:
            shards = {shard for reader in near for shard in reader.delivery.read}
            cursor = {shard: min(reader.delivery.read.get(shard, 0) for reader in near) for shard in shards}
            tail = await self._read_page(cursor, self._start)
            self._start, more = tail.start, tail.behind > 0
        if far:
            self._turn += 1
            tail = await self._read_page(dict(far[self._turn % len(far)].delivery.read), 0)
            more = more or tail.behind > 0
        return more

    def _behind(self, reader: Reader) -> int:
        read = reader.delivery.read
        return sum(max(0, head - read.get(shard, 0)) for shard, head in self._heads.items())

    async def _read_page(self, cursor: Mapping[ShardId, int], start: ShardId) -> Tail:
        tail = await self._tail.read(TailQuery(cursor, PAGE_ENTRIES, PAGE_BYTES, start))
        self._heads = tail.heads
        readers = [reader for reader in self._readers() if reader.delivery.wants]
        letters = _letters_of(tail.entries, {reader.site for reader in readers})
        read = {shard: end for shard, end in tail.cursor.items() if end > cursor.get(shard, 0)}
        for reader in readers:
            self._give(reader, tail, cursor, read, letters.get(reader.site, {}))
        return tail

    @staticmethod
    def _give(
        reader: Reader,
        tail: Tail,
        cursor: Mapping[ShardId, int],
        read: Mapping[ShardId, int],
        letters: Mapping[ShardId, Sequence[Letter]],
    ) -> None:
        """Give a receiver a page, as far as it goes on from where the receiver is."""
        delivery, now = reader.delivery, trio.current_time()
        waiting = delivery.waiting
        fits = [shard for shard in read if delivery.read.get(shard, 0) >= cursor.get(shard, 0)]
        gone = {lost.shard: lost.last for lost in tail.lost if lost.last > delivery.read.get(lost.shard, 0)}
        told = next((shard for shard in fits if shard in gone), None)  # one event for all that a page misses
        for shard in fits:
            mine = [letter for letter in letters.get(shard, ()) if letter.event in reader.wanted]
            if shard == told:
                mine = sorted((*mine, reader.gap(shard, gone[shard])), key=lambda letter: letter.lsn)
            delivery.take(shard, read[shard], mine, now)
        if delivery.waiting > waiting:
            reader.wake()


def _letters_of(entries: Sequence[Entry], sites: Collection[str]) -> dict[str, dict[ShardId, list[Letter]]]:
    """The events of some sites among entries, by site and shard."""
    found: dict[str, dict[ShardId, list[Letter]]] = {}
    for entry in entries:
        site = entry.room.site
        if site in sites and (event := event_of(entry)):
            found.setdefault(site, {}).setdefault(entry.shard, []).append(letter_of(entry, event))
    return found

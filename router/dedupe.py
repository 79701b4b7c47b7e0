"""Which messages are known: what was sent twice is one message (rule 8).  Sans-I/O.

A message's key is looked for in three places, the cheapest first: among those that may not be in the disk's table yet,
in a filter that says for most others that they never were seen, and in the table itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from router.events import Away, Duplicate, Outcome, Refusal, Submit
from router.ids import dedupe_key
from router.keyfilter import KeyFilter, key_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.entry import Entry

MAX_CMID = 64  # characters; a UUID has 36

Answer: TypeAlias = "tuple[Callable[[Outcome], None], Outcome]"


class Dedupe:
    """The keys of one node's shards.

    Attributes:
        recent: Entries whose keys the disk's table may not have yet; once there is a filter, all of them are in it.
        filter: Which keys may be on disk; None: it is not read yet, and every key is looked up there.
    """

    __slots__ = ("_early", "_repeats", "filter", "recent")

    def __init__(self) -> None:
        self.recent: dict[bytes, Entry] = {}
        self.filter: KeyFilter | None = None
        self._early: list[int] = []  # numbers of keys that came to the disk while there was no filter
        self._repeats: dict[bytes, list[Submit]] = {}  # of entries that aren't committed yet

    def know(self, keys: KeyFilter) -> None:
        """From now on `keys` says which ids may be on disk."""
        for key in self.recent:
            keys.add(key_number(key))
        for number in self._early:  # the scan may have passed their place before they came there
            keys.add(number)
        self._early.clear()
        self.filter = keys

    def is_new(self, key: bytes) -> bool:
        """Whether nobody has seen a key, which from now on somebody has; False: it may be on disk."""
        return self.filter is not None and self.filter.add_new(key_number(key))

    def add(self, key: bytes) -> None:
        """A key that was looked up in vain before there was a filter is known from now on."""
        if self.filter is not None:
            self.filter.add(key_number(key))

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Entries of another tenure are committed: their keys are known, too."""
        for entry in entries:
            if entry.cmid:
                entry.key = entry.key or dedupe_key(entry.room, entry.sender, entry.cmid)
                self._note(key_number(entry.key))

    def learn(self, numbers: Iterable[int]) -> None:
        """Keys of these numbers have come to the disk's table with a snapshot."""
        for number in numbers:
            self._note(number)

    def _note(self, number: int) -> None:
        if self.filter is None:
            self._early.append(number)
        else:
            self.filter.add(number)

    def filed(self, entries: Iterable[Entry]) -> None:
        """The disk's table has the keys of these."""
        forget = self.recent.pop
        for entry in entries:
            if entry.key:
                forget(entry.key, None)
        if self.filter is None:
            self._early += [key_number(entry.key) for entry in entries if entry.key]

    def forget(self, entries: Iterable[Entry]) -> None:
        """These were never committed, and never will be."""
        for entry in entries:
            if self.recent.get(entry.key) is entry:
                del self.recent[entry.key]

    # -- answers -------------------------------------------------------------------------------------------------

    def answer(self, submit: Submit, key: bytes, commit: Callable[[int], int]) -> list[Answer] | None:
        """What a message is answered that is a repetition of a recent one, or has no valid id; None: it is neither.

        Args:
            submit: The message.
            key: Its key.
            commit: Gives up to where a shard is committed.

        Returns:
            The answer; nothing, if it comes with the first one's commit.
        """
        first = self.recent.get(key)
        if first is not None:
            return self._repeat(submit, first, key, commit)
        return [(submit.done, Refusal.BAD_ID)] if len(submit.cmid) > MAX_CMID else None

    def _repeat(self, submit: Submit, first: Entry, key: bytes, commit: Callable[[int], int]) -> list[Answer]:
        if first.data != submit.data:
            return [(submit.done, Refusal.CONFLICT)]
        if first.lsn > commit(first.shard):
            self._repeats.setdefault(key, []).append(submit)
            return []
        return [(submit.done, Duplicate(first.sequence))]

    def committed(self, entries: Iterable[Entry]) -> list[Answer]:
        """The answers to repetitions of entries that are committed now."""
        repeats = self._repeats
        if not repeats:
            return []
        return [
            (submit.done, Duplicate(entry.sequence))
            for entry in entries
            if entry.key in repeats
            for submit in repeats.pop(entry.key)
        ]

    def give_up(self, entries: Iterable[Entry], why: Away) -> list[Answer]:
        """The answers to repetitions of entries whose outcome is unknown now."""
        return [(submit.done, why) for entry in entries for submit in self._repeats.pop(entry.key, ())]

    def give_up_all(self, why: Away) -> list[Answer]:
        """The answers to all that wait here."""
        repeats, self._repeats = self._repeats, {}
        return [(submit.done, why) for submits in repeats.values() for submit in submits]

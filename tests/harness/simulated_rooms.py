"""Rooms of a shard at one member of a simulated mesh: their sequences, and what is known of clients' ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from router.entry import SALT_BYTES, Entry, Kind
from router.sequencer import RoomHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.ids import RoomId
    from router.sequencer import Sequencer

Key: TypeAlias = "tuple[RoomId, bytes, str]"
Answer: TypeAlias = "int | Unanswered"  # the sequence of the message, or why there is none
Reply: TypeAlias = "Callable[[Answer], None]"


class Unanswered(Enum):
    """Why a client does not know where its message is; it sends it again."""

    ELSEWHERE = "another node is primary"
    FULL = "the disk is nearly full"
    UNKNOWN = "the outcome is unknown"


@dataclass(slots=True, frozen=True)
class Message:
    """What a client wants in a room."""

    room: RoomId
    sender: bytes
    cmid: str
    data: bytes

    @property
    def key(self) -> Key:
        """What a retry has in common with the first attempt."""
        return self.room, self.sender, self.cmid


class Rooms:
    """What a member knows of the rooms of one shard.

    Attributes:
        committed: Entries of each room, in order.
        known: The sequence of each client's message that is committed.
    """

    def __init__(self, committed: Iterable[Entry]) -> None:
        self.committed: dict[RoomId, list[Entry]] = {}
        self.known: dict[Key, int] = {}
        self._heads: dict[RoomId, RoomHead] = {}
        self._pending: dict[Key, list[Reply]] = {}
        for entry in committed:
            self.apply(entry)

    def apply(self, entry: Entry) -> None:
        """An entry is committed."""
        if entry.kind == Kind.EPOCH:
            return
        self.committed.setdefault(entry.room, []).append(entry)
        key = entry.room, entry.sender, entry.cmid
        self.known[key] = entry.sequence
        for reply in self._pending.pop(key, ()):
            reply(entry.sequence)

    def head(self, room: RoomId) -> int:
        """The sequence of the newest committed entry."""
        return len(self.committed.get(room, ()))

    def serve(self) -> None:
        """This member is primary, and all that it inherited is committed."""
        self.end()
        self._heads.clear()

    def end(self) -> None:
        """It is primary no more: nobody knows what becomes of what was not committed."""
        pending, self._pending = self._pending, {}
        for replies in pending.values():
            for reply in replies:
                reply(Unanswered.UNKNOWN)

    def submit(self, sequencer: Sequencer, message: Message, now: int, reply: Reply) -> Entry | None:
        """Give a message its place, unless it has one; gives the new entry."""
        key = message.key
        if key in self.known:
            reply(self.known[key])
            return None
        if key in self._pending:
            self._pending[key].append(reply)
            return None
        head = self._heads.get(message.room)
        if head is None:
            entries = self.committed.get(message.room)
            ts = entries[-1].ts if entries else 0
            head = self._heads[message.room] = RoomHead(message.room, 1, self.head(message.room), 0, ts)
        self._pending[key] = [reply]
        return sequencer.append(
            head, Kind.MESSAGE, message.sender, message.cmid, message.data, b"", now, bytes(SALT_BYTES), b"", None
        )

"""What a client missed in a room: all of it, or the plain statement that it can't be had.  Sans-I/O.

A recovery succeeds only if the stream is the same and every entry from the requested offset to the room's head is at
hand, without a hole. The head may move while the disk is read, so whoever uses the result asks `fresh` first, in the
turn in which it joins the room.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from router.events import Away, History
from router.removal import hide_removed

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.seams import Gateway, Page, Room
    from router.entry import Entry
    from router.ids import Position


class Outcome(Enum):
    """How a recovery stands."""

    READING = "entries are being read"
    AHEAD = "the client has seen more than this node; its head may be old"
    RECOVERED = "everything up to the head is at hand"
    UNRECOVERABLE = "something is lost for this client, or too much was missed"
    AWAY = "the entries can't be read now"


class Recovery:
    """Reads what follows a position.

    Args:
        gateway: Where from.
        room: Of which room.
        since: The last thing that the client has seen; an empty epoch stands for the present one.
        most_entries: Beyond so many nothing is recovered.
        most_bytes: Likewise, of the entries' wires in sum.
        settled: Called whenever the outcome is no longer READING.

    Attributes:
        outcome: See `Outcome`.
        entries: What follows the position, dense.
    """

    __slots__ = (
        "_gateway", "_most_bytes", "_most_entries", "_reached", "_room", "_settled", "_since", "_size",
        "entries", "outcome",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - a position and two bounds, beside where to read
        self, gateway: Gateway, room: Room, since: Position, most_entries: int, most_bytes: int,
        settled: Callable[[], None],
    ) -> None:  # fmt: skip
        self._gateway, self._room, self._since, self._settled = gateway, room, since, settled
        self._most_entries, self._most_bytes = most_entries, most_bytes
        self._reached, self._size = since.offset, 0
        self.entries: list[Entry] = []
        self.outcome = Outcome.READING

    @property
    def fresh(self) -> bool:
        """Whether the outcome holds for the room as it is now."""
        if self.outcome is Outcome.RECOVERED:
            return self._reached == self._room.offset and self._since.offset >= self._room.floor
        return self.outcome is not Outcome.READING

    def advance(self) -> None:
        """Judge anew, and read on where entries are missing."""
        self._go(self._judge())

    def _go(self, outcome: Outcome) -> None:
        while outcome is Outcome.READING:
            self.outcome = outcome
            page = self._read()
            if page is None:
                return
            outcome = self._append(page)
        self.outcome = outcome
        self._settled()

    def _read(self) -> Page | Away | None:
        """The next page; None: it comes later, and goes on by itself."""
        came: list[Page | Away] = []
        later = False

        def take(page: Page | Away) -> None:
            if later:
                self._go(self._append(page))
            else:
                came.append(page)

        wanted = History(
            self._room.id, self._reached, self._most_entries - len(self.entries), reverse=False,
            max_bytes=self._most_bytes - self._size,
        )  # fmt: skip
        self._gateway.history(self._room, wanted, take)
        later = True
        return came[0] if came else None

    def _append(self, page: Page | Away) -> Outcome:
        if isinstance(page, Away):
            return Outcome.AWAY
        before = self._reached
        hide_removed(self.entries, page.entries)
        for entry in page.entries:
            if entry.sequence > self._room.offset:
                break  # committed, but still to be handed to the members: it comes as a push
            if entry.sequence != self._reached + 1:
                return Outcome.UNRECOVERABLE
            self._reached = entry.sequence
            self._size += len(entry.wire)
            self.entries.append(entry)
        return self._judge() if self._reached > before else Outcome.UNRECOVERABLE

    def _judge(self) -> Outcome:
        room, since = self._room, self._since
        if since.epoch not in ("", room.epoch):
            return Outcome.UNRECOVERABLE
        if since.offset > room.offset:
            return Outcome.AHEAD
        if since.offset < room.floor or room.offset - since.offset > self._most_entries:
            return Outcome.UNRECOVERABLE
        if self._size > self._most_bytes:
            return Outcome.UNRECOVERABLE
        if self._reached == room.offset:
            return Outcome.RECOVERED
        return Outcome.UNRECOVERABLE if self._size == self._most_bytes else Outcome.READING

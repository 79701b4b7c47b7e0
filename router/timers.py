"""When things are due.  Sans-I/O."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """Things, each due at one time or never; times in milliseconds."""

    __slots__ = ("_count", "_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[Item, int] = {}
        self._heap: list[tuple[int, int, Item]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._due)

    def set(self, item: Item, due: int) -> None:
        """It is due then, and not when it was."""
        if self._due.get(item) != due:
            self._due[item] = due
            self._count += 1
            heappush(self._heap, (due, self._count, item))

    def cancel(self, item: Item) -> None:
        """It is not due any more."""
        self._due.pop(item, None)

    def pop(self, now: int) -> Item | None:
        """What is due, oldest first, which then is not any more; None: nothing."""
        while (due := self.next) is not None and due <= now:
            item = heappop(self._heap)[2]
            del self._due[item]
            return item
        return None

    @property
    def next(self) -> int | None:
        """When the next thing is due; None: never."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

"""A hashed timer wheel (Varghese and Lauck, 1987): coarse timers for very many items.

A connection's deadline moves with every message and is hardly ever reached. So an item stays in the slot of the
earliest deadline it had; only when the wheel comes to that slot is the item's true deadline looked at, and the item
moved if that is later. Putting a deadline off costs one attribute write.
"""

from __future__ import annotations

from math import ceil, floor, inf
from typing import Final, Generic, Protocol, TypeVar

NOT_SCHEDULED: Final = -1
"""`Timed.wheel_slot` of an item that is in no wheel."""


class Timed(Protocol):
    """What a wheel holds: hashable, equal only to itself, in one wheel at a time.

    Attributes:
        deadline: When the item is due, in seconds of the wheel's clock. While the item is scheduled, write a later time
            to put it off; an earlier time needs `TimerWheel.schedule`.
        wheel_slot: The wheel's own; `NOT_SCHEDULED` at first.
    """

    deadline: float
    wheel_slot: int


_T = TypeVar("_T", bound=Timed)


class TimerWheel(Generic[_T]):
    """Holds items until their deadline or up to one tick longer.

    `schedule`, `cancel` and putting off take constant time. `advance` takes time for the slots that have come round and
    what is in them. The clock is the caller's, and never negative.

    Args:
        tick_seconds: Time between two slots.
        slots: Ticks per revolution. An item whose deadline is farther away is looked at once per revolution.

    Raises:
        ValueError: One of these is not above zero.
    """

    __slots__ = ("_length", "_next_tick", "_slots", "_tick", "_tick_seconds")

    def __init__(self, tick_seconds: float, slots: int) -> None:
        if not 0 < tick_seconds < inf or slots < 1:
            raise ValueError(f"timer wheel of {slots} slots, {tick_seconds} s apart: both must be above zero")
        self._tick_seconds = tick_seconds
        # Dictionaries without values are sets in order of arrival, so the same calls give the same order.
        self._slots: list[dict[_T, None]] = [{} for _ in range(slots)]
        self._tick = 0  # the last one that has passed
        self._next_tick = inf  # no slot before that of this tick holds anything
        self._length = 0

    def __len__(self) -> int:
        """How many items are scheduled."""
        return self._length

    @property
    def next_deadline(self) -> float:
        """No item is due before this time; infinity if there is none. Call `advance` then: it may find nothing yet."""
        return self._next_tick * self._tick_seconds

    def schedule(self, item: _T, deadline: float) -> None:
        """Set the item's deadline, in seconds of the wheel's clock, whether it is scheduled already or not."""
        item.deadline = deadline
        if item.wheel_slot != NOT_SCHEDULED:
            if self._tick_of(deadline) >= self._tick_of_slot(item.wheel_slot):
                return
            self._remove(item)
        self._place(item)

    def cancel(self, item: _T) -> None:
        """Forget the item; of no effect if it is not scheduled."""
        if item.wheel_slot != NOT_SCHEDULED:
            self._remove(item)

    def advance(self, now: float) -> list[_T]:
        """The items that are due at `now`, in seconds of the wheel's clock. They are no longer scheduled."""
        tick = self._last_tick(now)
        if tick <= self._tick:
            return []
        passed = range(max(self._tick, tick - len(self._slots)) + 1, tick + 1)
        self._tick = tick
        if tick < self._next_tick:
            return []
        due: list[_T] = []
        put_off: list[_T] = []
        for passed_tick in passed:
            for item in self._take_slot(passed_tick):
                (due if item.deadline <= now else put_off).append(item)
        for item in due:
            item.wheel_slot = NOT_SCHEDULED
        self._next_tick = self._find_next_tick()
        for item in put_off:
            self._place(item)
        return due

    def _take_slot(self, tick: int) -> dict[_T, None]:
        index = tick % len(self._slots)
        items = self._slots[index]
        if items:
            self._slots[index] = {}
            self._length -= len(items)
        return items

    def _place(self, item: _T) -> None:
        tick = self._tick_of(item.deadline)
        item.wheel_slot = tick % len(self._slots)
        self._slots[item.wheel_slot][item] = None
        self._length += 1
        self._next_tick = min(self._next_tick, tick)

    def _remove(self, item: _T) -> None:
        del self._slots[item.wheel_slot][item]
        item.wheel_slot = NOT_SCHEDULED
        self._length -= 1
        if not self._length:
            self._next_tick = inf

    def _tick_of(self, deadline: float) -> int:
        """The tick at which to look at an item: that of its deadline, or the last within a revolution."""
        farthest = self._tick + len(self._slots)
        return ceil(max(self._tick + 1, min(farthest, deadline / self._tick_seconds)))

    def _tick_of_slot(self, slot: int) -> int:
        """When the wheel comes to a slot next."""
        return self._tick + 1 + (slot - self._tick - 1) % len(self._slots)

    def _last_tick(self, now: float) -> int:
        tick = floor(now / self._tick_seconds)
        # The quotient may have been rounded down below a tick that `next_deadline` named.
        return tick + 1 if (tick + 1) * self._tick_seconds <= now else tick

    def _find_next_tick(self) -> float:
        if not self._length:
            return inf
        ticks = range(self._tick + 1, self._tick + len(self._slots) + 1)
        return next(tick for tick in ticks if self._slots[tick % len(self._slots)])

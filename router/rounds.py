"""What is told to everybody over and over, a little each time: what is new first, the rest by turns.

So that what was lost on the way is told again, and nothing has to be asked for or confirmed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Rounds(Generic[K, V]):
    """Values by key, of which each round tells some.

    Args:
        most: Values in a round.
        repeated: Of these, so many are told by turns, if there are so many that are not new; fewer than `most`.
    """

    __slots__ = ("_fresh", "_most", "_old", "_repeated", "_values")

    def __init__(self, most: int, repeated: int) -> None:
        self._most, self._repeated = most, repeated
        self._values: dict[K, V] = {}
        self._fresh: dict[K, None] = {}  # in the order of their coming
        self._old: dict[K, None] = {}  # in the order of their turns

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: K, value: V) -> None:
        """Tell this from now on; at once, if it is new."""
        if self._values.get(key) != value:
            self._values[key] = value
            self._old.pop(key, None)
            self._fresh[key] = None

    def drop(self, key: K) -> None:
        """Tell it no longer."""
        self._values.pop(key, None)
        self._fresh.pop(key, None)
        self._old.pop(key, None)

    def values(self) -> list[V]:
        """All of them."""
        return [*self._values.values()]

    def next(self) -> list[V]:
        """What this round tells."""
        turns = self._first(self._old, min(self._repeated, self._most))
        told = self._first(self._fresh, self._most - len(turns))
        self._old.update(dict.fromkeys((*told, *turns)))
        return [self._values[key] for key in (*told, *turns)]

    def _first(self, queue: dict[K, None], count: int) -> list[K]:
        keys = [key for key, _ in zip(queue, range(count), strict=False)]
        for key in keys:
            del queue[key]
        return keys

"""What waits to be sent to a peer: bounded in bytes and in age."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from router.channels import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_URGENT: Final = 1 << 20  # bytes of urgent messages, beside the others
URGENT: Final = frozenset((Channel.MEMBERSHIP, Channel.REGISTER))


class Outbox:
    """Frames in the order of their channel; urgent ones first, so that bulk on a slow line makes no node suspect.

    Args:
        capacity: Bytes of frames that are not urgent.
        patience: Milliseconds that a frame may wait. Later, its sender has long tried again or given up.
    """

    def __init__(self, capacity: int, patience: int) -> None:
        self._patience = patience
        self._urgent = _Lane(MAX_URGENT)
        self._other = _Lane(capacity)

    def __bool__(self) -> bool:
        return bool(self._urgent.frames or self._other.frames)

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self._urgent.waiting + self._other.waiting

    def push(self, channel: Channel, frame: bytes, now: int) -> bool:
        """Put a frame at the end; False if there is no room for it. A frame of any size fits into an empty lane."""
        lane = self._urgent if channel in URGENT else self._other
        if lane.frames and lane.waiting + len(frame) > lane.capacity:
            return False
        lane.frames.append((now, frame))
        lane.waiting += len(frame)
        return True

    def first(self) -> bytes | None:
        """The frame to send next; None: nothing waits."""
        lane = self._urgent if self._urgent.frames else self._other
        return lane.frames[0][1] if lane.frames else None

    def pop(self) -> None:
        """Take away what `first` gave."""
        (self._urgent if self._urgent.frames else self._other).pop()

    def expire(self, now: int) -> int:
        """Take away what has waited for too long; gives how many that were."""
        return sum(1 for lane in (self._urgent, self._other) for _ in lane.older(now - self._patience))

    def clear(self) -> int:
        """Take all away; gives how many that were."""
        count = len(self._urgent.frames) + len(self._other.frames)
        for lane in (self._urgent, self._other):
            lane.frames.clear()
            lane.waiting = 0
        return count


class _Lane:
    __slots__ = ("capacity", "frames", "waiting")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.frames: deque[tuple[int, bytes]] = deque()
        self.waiting = 0

    def pop(self) -> None:
        self.waiting -= len(self.frames.popleft()[1])

    def older(self, moment: int) -> Iterator[None]:
        while self.frames and self.frames[0][0] < moment:
            self.pop()
            yield

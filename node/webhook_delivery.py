"""What one receiver is sent and when: batches, repetition, giving up, and how far it has got.  Sans-I/O.

Events of the log wait in the order in which they were read; a batch takes the first of them, and the next one is not
begun before it has an outcome, so that a receiver sees each room in its order. What waits is only named here: its text
is read from the log when an attempt begins, so whatever was removed by then is not sent, however late it gets through.

=============  ====================================================================================
outcome        what follows
=============  ====================================================================================
DELIVERED      the batch is done with, and the cursor moves
REFUSED        this batch will never be taken: it becomes dead letters, and then the cursor moves
FAILED         the same batch again, after a wait that doubles
=============  ====================================================================================

Once a receiver has failed for an hour, events that are older than `give_up_ms` become dead letters without an attempt;
so the log has to keep what waits for no longer than that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ_AHEAD: Final = 2  # batches of the log's events that are named here, at 400 bytes an event
GRACE_MS: Final = 3_600_000  # a receiver that fails for less is not given up, however old its events are
RETRY_AFTER_SECONDS: Final = 3600.0  # a receiver may ask for such a wait, not for more


class Letter(NamedTuple):
    """An event of the log that waits.

    Attributes:
        shard: Where it stands in the log, with `lsn`.
        event: Its name.
        id: As receivers know it.
        ts: Milliseconds since 1970.
        size: Bytes that it takes in the log, about what it takes in a request.
    """

    shard: int
    lsn: int
    event: str
    id: str
    ts: int
    size: int


class Note(NamedTuple):
    """An event that nothing keeps.

    Attributes:
        id: As receivers know it.
        ts: Milliseconds since 1970.
        body: The whole event, JSON.
    """

    id: str
    ts: int
    body: bytes


class Outcome(Enum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"


class Why(Enum):
    """Why a batch becomes dead letters."""

    REFUSED = "the receiver refused it"
    EXPIRED = "the receiver has failed for too long"


@dataclass(slots=True, frozen=True)
class Batch:
    """What is sent at once.

    Attributes:
        letters: In the order of each room.
        notes: Oldest first.
        dropped: Notes that were dropped since the last batch that was delivered.
        attempt: Counted from 1.
        given_up: Why it is not sent but kept as dead letters; None: it is sent.
    """

    letters: tuple[Letter, ...]
    notes: tuple[Note, ...]
    dropped: int
    attempt: int
    given_up: Why | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of its events."""
        return [*(note.id for note in self.notes), *(letter.id for letter in self.letters)]


@dataclass(slots=True, frozen=True)
class Pace:
    """How a receiver is sent to; as in `edge_config.webhooks.WebhookTarget`, in seconds, bytes and milliseconds."""

    batch_events: int = 100
    batch_bytes: int = 524_288
    linger: float = 0.2
    retry: float = 1.0
    retry_most: float = 300.0
    give_up_ms: int = 86_400_000
    waiting_events: int = 1000


class Delivery:
    """The state of one receiver.

    Args:
        pace: How it is sent to.
        cursor: By shard, up to where everything is done with.
        jitter: Random numbers from 0 to 1, exclusive: so much of half a wait is left out.

    Attributes:
        pace: As given; may be replaced.
        read: By shard, up to where the log has been read for it.
        failures: Attempts that failed since one got through.
        failing_since: Milliseconds since 1970 when the first of them did; None: none has failed.
    """

    __slots__ = (
        "_batch", "_dropped", "_jitter", "_letters", "_notes", "_retry_at", "_sending", "_verdict", "_waits_since",
        "failing_since", "failures", "pace", "read",
    )  # fmt: skip

    def __init__(self, pace: Pace, cursor: dict[int, int], jitter: Callable[[], float]) -> None:
        self.pace = pace
        self.read = dict(cursor)
        self.failures = 0
        self.failing_since: int | None = None
        self._jitter = jitter
        self._letters: deque[Letter] = deque()
        self._notes: deque[Note] = deque()
        self._dropped = 0
        self._batch: Batch | None = None  # begun, without an outcome that ends it
        self._sending = False
        self._verdict: Why | None = None
        self._retry_at = -inf
        self._waits_since = inf

    @property
    def wants(self) -> bool:
        """Whether more of the log is to be read for it."""
        return len(self._letters) < READ_AHEAD * self.pace.batch_events

    @property
    def waiting(self) -> int:
        """Events that are read and not done with."""
        return len(self._letters) + len(self._notes)

    @property
    def oldest_ms(self) -> int | None:
        """The time of the oldest of them, in milliseconds since 1970."""
        firsts = [queue[0].ts for queue in (self._letters, self._notes) if queue]
        return min(firsts) if firsts else None

    @property
    def cursor(self) -> dict[int, int]:
        """By shard, up to where everything is done with."""
        done = dict(self.read)
        for letter in reversed(self._letters):
            done[letter.shard] = letter.lsn - 1
        return done

    @property
    def deadline(self) -> float:
        """When `next` may give something; `inf`: not before more is known."""
        if self._sending or not self.waiting:
            return inf
        if self._verdict is not None or self.failures or self._is_full:
            return self._retry_at
        return max(self._waits_since + self.pace.linger, self._retry_at)

    @property
    def _is_full(self) -> bool:
        return self._batch is not None or self.waiting >= self.pace.batch_events

    # -- what is to be sent --------------------------------------------------------------------------------------

    def take(self, shard: int, end: int, letters: Iterable[Letter], now: float) -> None:
        """A shard has been read up to `end`, exactly from where it had been read, or from before.

        Args:
            shard: Which.
            end: The lsn of the last entry that was looked at.
            letters: Those of its events that this receiver wants, in order.
            now: Monotonic seconds.
        """
        start = self.read.get(shard, 0)
        fresh = [letter for letter in letters if letter.lsn > start]
        self.read[shard] = max(start, end)
        if fresh:
            self._begin_waiting(now)
            self._letters.extend(fresh)

    def tell(self, note: Note, now: float) -> bool:
        """An event that nothing keeps; False if it was dropped, as too many wait."""
        if len(self._notes) >= self.pace.waiting_events:
            self._dropped += 1
            return False
        self._begin_waiting(now)
        self._notes.append(note)
        return True

    def drop(self, count: int) -> None:
        """So many events that nothing keeps were lost before they got here."""
        self._dropped += count

    def _begin_waiting(self, now: float) -> None:
        if not self.waiting:
            self._waits_since = now

    # -- attempts ------------------------------------------------------------------------------------------------

    def next(self, now: float, wall_ms: int) -> Batch | None:
        """What is to be sent or given up now; until `answered` or `buried`, nothing else is.

        Args:
            now: Monotonic seconds.
            wall_ms: Milliseconds since 1970.
        """
        if not now >= self.deadline < inf:
            return None
        why = self._verdict
        if why is None and self._has_expired(wall_ms):
            why = self._verdict = Why.EXPIRED
            self._batch = self._gather(wall_ms - self.pace.give_up_ms)
        batch = self._batch or self._gather(inf)
        attempt = batch.attempt + (why is None)
        self._batch = Batch(batch.letters, batch.notes, batch.dropped, attempt, why)
        self._sending = True
        return self._batch

    def answered(self, outcome: Outcome, now: float, wall_ms: int, retry_after: float = 0.0) -> None:
        """What became of the attempt.

        Args:
            outcome: See the table above.
            now: Monotonic seconds.
            wall_ms: Milliseconds since 1970.
            retry_after: Seconds that the receiver asked to be left alone.
        """
        batch = self._begun()
        self._sending = False
        if outcome is Outcome.FAILED:
            self.failures += 1
            if self.failing_since is None:
                self.failing_since = wall_ms
            self._retry_at = now + max(self._wait(), min(retry_after, RETRY_AFTER_SECONDS))
            return
        self.failures, self.failing_since, self._retry_at = 0, None, -inf
        if outcome is Outcome.REFUSED:
            self._verdict = Why.REFUSED
        else:
            self._dropped -= batch.dropped
            self._done(batch, now)

    def buried(self, now: float) -> None:
        """The batch that was given up is kept as dead letters."""
        batch = self._begun()
        self._sending, self._verdict = False, None
        self._done(batch, now)

    def _begun(self) -> Batch:
        if self._batch is None or not self._sending:
            raise RuntimeError("no attempt has begun")
        return self._batch

    def _done(self, batch: Batch, now: float) -> None:
        for _ in batch.letters:
            self._letters.popleft()
        for _ in batch.notes:
            self._notes.popleft()
        self._batch = None
        self._waits_since = now

    def _wait(self) -> float:
        """Seconds to the next attempt."""
        pace = self.pace
        doublings = min(self.failures - 1, 64)
        return min(pace.retry * 2.0**doublings, pace.retry_most) * (1 - self._jitter() / 2)

    def _has_expired(self, wall_ms: int) -> bool:
        """Whether there are events that are not tried any more."""
        since, oldest = self.failing_since, self.oldest_ms
        if since is None or oldest is None or wall_ms - since < min(GRACE_MS, self.pace.give_up_ms):
            return False
        return oldest <= wall_ms - self.pace.give_up_ms

    def _gather(self, until_ms: float) -> Batch:
        """The first of what waits, in one batch, as far as it is not younger than `until_ms`."""
        left, size = self.pace.batch_events, self.pace.batch_bytes
        notes: list[Note] = []
        letters: list[Letter] = []
        for note in self._notes:
            size -= len(note.body)
            if not left or note.ts > until_ms or (size < 0 and notes):
                break
            notes.append(note)
            left -= 1
        for letter in self._letters:
            size -= letter.size
            if not left or letter.ts > until_ms or (size < 0 and (notes or letters)):
                break
            letters.append(letter)
            left -= 1
        return Batch(tuple(letters), tuple(notes), self._dropped, 0)

"""Token buckets.  Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from edge_config.limits import Rates
    from router.ids import RoomId

K = TypeVar("K")
SLOW_MODE: Final = "slow_mode"  # the limit's name, where others are named as in `Rates`
_PUBLISHING: Final = frozenset({"publish", "rpc"})
_READING: Final = frozenset({"history", "presence", "presence_stats"})
MOST_KEPT: Final = 20_000  # buckets of users and rooms each; beyond it the longest unused go, which errs on mildness


class Bucket:
    """Admits `rate` things a second on average, `burst` at once.

    Args:
        rate: Tokens per second, > 0.
        burst: Tokens of a full bucket; at least 1.
        now: Monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, max(1.0, burst)
        self._tokens, self._at = self._burst, now

    def take(self, now: float) -> float:
        """Take a token: 0.0; or take none: the seconds until there is one."""
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if tokens < 1.0:
            self._tokens = tokens
            return (1.0 - tokens) / self._rate
        self._tokens = tokens - 1.0
        return 0.0


class ConnectionRates:
    """What one connection may do per second.

    Attributes:
        commands: Commands of whatever sort; None: no limit, as for the others.
        publishes: Publications.
        reads: Requests for history and presence.
        joins: Subscriptions.
        refused: Commands refused in a row.
        limit: The name of the limit that refused last.
    """

    __slots__ = ("commands", "joins", "limit", "publishes", "reads", "refused")

    def __init__(self, rates: Rates, now: float) -> None:
        def bucket(rate: float) -> Bucket | None:
            return Bucket(rate, rate * rates.burst_seconds, now) if rate else None

        self.commands = bucket(rates.connection_commands)
        self.publishes = bucket(rates.connection_publishes)
        self.reads = bucket(rates.connection_reads)
        self.joins = bucket(rates.connection_joins)
        self.refused = 0
        self.limit = ""

    def take(self, name: str, now: float) -> float:
        """Whether a command may start now: 0.0, or the seconds to wait."""
        if self.commands is not None and (wait := self.commands.take(now)):
            return self._refuse("connection_commands", wait)
        bucket, limit = self._of(name)
        if bucket is not None and (wait := bucket.take(now)):
            return self._refuse(limit, wait)
        self.refused = 0
        return 0.0

    def _of(self, name: str) -> tuple[Bucket | None, str]:
        if name in _PUBLISHING:
            return self.publishes, "connection_publishes"
        if name in _READING:
            return self.reads, "connection_reads"
        return (self.joins, "connection_joins") if name == "subscribe" else (None, "")

    def _refuse(self, limit: str, wait: float) -> float:
        self.refused += 1
        self.limit = limit
        return wait


class Throttle:
    """Rates of publishing that hold across the connections of this node, and slow mode.

    Args:
        rates: Of the configuration.

    Attributes:
        limit: The name of the limit that refused last.
    """

    __slots__ = (
        "_burst_seconds", "_report_rate", "_reports", "_room_rate", "_rooms", "_site_rate", "_sites", "_slow",
        "_user_rate", "_users", "limit",
    )  # fmt: skip

    def __init__(self, rates: Rates) -> None:
        self._user_rate, self._room_rate, self._site_rate = (
            rates.user_publishes, rates.room_publishes, rates.site_publishes,
        )  # fmt: skip
        self._report_rate = rates.user_reports
        self.limit = ""
        self._reports: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._sites: OrderedDict[str, Bucket] = OrderedDict()
        self._burst_seconds = rates.burst_seconds
        self._users: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._rooms: OrderedDict[RoomId, Bucket] = OrderedDict()
        self._slow: OrderedDict[tuple[RoomId, str, int], Bucket] = OrderedDict()

    def publish(self, room: RoomId, user: str, slow_seconds: int, now: float) -> float:
        """Whether a user may publish now: 0.0, or the seconds to wait."""
        if slow_seconds:
            wait = _bucket(self._slow, (room, user, slow_seconds), 1 / slow_seconds, 1.0, now).take(now)
            if wait:
                self.limit = SLOW_MODE
                return wait
        if self._user_rate:
            burst = self._user_rate * self._burst_seconds
            wait = _bucket(self._users, (room.site, user), self._user_rate, burst, now).take(now)
            if wait:
                self.limit = "user_publishes"
                return wait
        if self._room_rate:
            burst = self._room_rate * self._burst_seconds
            wait = _bucket(self._rooms, room, self._room_rate, burst, now).take(now)
            if wait:
                self.limit = "room_publishes"
                return wait
        if self._site_rate:
            burst = self._site_rate * self._burst_seconds
            wait = _bucket(self._sites, room.site, self._site_rate, burst, now).take(now)
            if wait:
                self.limit = "site_publishes"
                return wait
        return 0.0

    def report(self, site: str, user: str, now: float) -> float:
        """Whether a user may report a message now: 0.0, or the seconds to wait."""
        if not self._report_rate:
            return 0.0
        self.limit = "user_reports"
        burst = self._report_rate * self._burst_seconds
        return _bucket(self._reports, (site, user), self._report_rate, burst, now).take(now)


def _bucket(buckets: OrderedDict[K, Bucket], key: K, rate: float, burst: float, now: float) -> Bucket:
    bucket = buckets.get(key)
    if bucket is None:
        bucket = buckets[key] = Bucket(rate, burst, now)
        if len(buckets) > MOST_KEPT:
            buckets.popitem(last=False)
    else:
        buckets.move_to_end(key)
    return bucket

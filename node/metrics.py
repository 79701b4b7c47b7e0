"""What a node counts and measures, and how Prometheus reads it.

Hot paths only add: a counter is an int attribute, a tally a `Counter` of labels, and an observation one bisection.
Everything else happens when somebody scrapes. Names begin with ``chat_node_``; units are seconds and bytes. Labels have
few values by nature (codes, reasons, names of commands and sites), never a room, user or address.

`FAMILIES` is the one list of what is exported; docs/metrics.md is its copy for people, and a test compares them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from node.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

MOST_LABEL_VALUES: Final = 64
"""Of one tally; the rarest beyond it are exported together as ``other``. More than any list of codes of ours has."""

MOST_LABEL_TUPLES: Final = 1024
"""The same of a tally with several labels: some dozen sites with all methods of the server API."""

DELAY_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Bounds for what clients wait for: fine around the promised 10 ms at the median and 50 ms at the 99th percentile."""

PAUSE_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Bounds for what stops everybody at once: turns of the loop and collections of garbage."""

BATCH_ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Histogram:
    """Counts of observations by size.

    Args:
        bounds: The inclusive upper bounds of the buckets, rising; one more bucket holds what is above the last.

    Attributes:
        counts: Observations by bucket, not accumulated.
        total: The sum of all observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count an observation, or several of the same value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which a share of the observations lies, interpolated within its bucket.

    Args:
        bounds: As in `Histogram`.
        counts: As in `Histogram`, or the difference of two of them.
        share: From 0 to 1.

    Returns:
        None without observations; the last bound if the value lies above it, as more is not known.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return bounds[-1]


class Metrics:
    """All figures of one node since its start. Whoever does a thing counts it here.

    Gauges that cost something to read are set by the callbacks in `refreshers`, which run in the node's thread before
    each reading.

    Args:
        sessions: What the sessions count.
    """

    __slots__ = (
        "accepted",
        "acknowledged",
        "api_requests",
        "bytes_received",
        "bytes_sent",
        "closed",
        "commit_entries",
        "commit_seconds",
        "connections",
        "delivered",
        "delivery_seconds",
        "disk_used_share",
        "draining",
        "emulations",
        "ephemeral_dropped",
        "fallback_connections",
        "fsync_seconds",
        "gc_pause_seconds",
        "http_connections",
        "http_responses",
        "log_bytes",
        "log_halted",
        "log_queue_entries",
        "loop_lag_seconds",
        "opened",
        "output_bytes",
        "received",
        "refreshers",
        "refused",
        "rooms",
        "sessions",
        "slow_closes",
        "turn_seconds",
        "unfiled_entries",
        "wal_bytes",
        "webhook_attempts",
        "webhook_dead",
        "webhook_events",
        "webhook_waiting",
    )

    def __init__(self, sessions: Counters | None = None) -> None:
        self.sessions = sessions or Counters()
        self.connections = 0
        self.accepted = 0
        self.opened: Counter[str] = Counter()
        self.fallback_connections = 0
        self.emulations = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.slow_closes = 0
        self.http_connections = 0
        self.http_responses: Counter[int] = Counter()
        self.api_requests: Counter[tuple[str, str, str]] = Counter()

        self.received = 0
        self.acknowledged = 0
        self.delivered = 0
        self.ephemeral_dropped = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.output_bytes = 0
        self.rooms = 0
        self.delivery_seconds = Histogram(DELAY_SECONDS)

        self.commit_seconds = Histogram(DELAY_SECONDS)
        self.fsync_seconds = Histogram(DELAY_SECONDS)
        self.commit_entries = Histogram(BATCH_ITEMS)
        self.log_bytes = 0
        self.wal_bytes = 0
        self.log_queue_entries = 0
        self.unfiled_entries = 0
        self.log_halted = 0
        self.disk_used_share = 0.0

        self.webhook_events: Counter[tuple[str, str, str]] = Counter()
        self.webhook_attempts: Counter[tuple[str, str, str]] = Counter()
        self.webhook_waiting: dict[tuple[str, str], float] = {}
        self.webhook_dead: dict[tuple[str, str], float] = {}

        self.draining = 0
        self.loop_lag_seconds = Histogram(PAUSE_SECONDS)
        self.turn_seconds = Histogram(PAUSE_SECONDS)
        self.gc_pause_seconds = Histogram(PAUSE_SECONDS)

        self.refreshers: list[Callable[[], None]] = []

    def refresh(self) -> None:
        """Set the gauges to what holds now."""
        for refresher in self.refreshers:
            refresher()


class Form(Enum):
    """What a family's value is, and with that its type in Prometheus."""

    COUNTER = "counter"
    TALLY = "counter by label"
    GAUGE = "gauge"
    GAUGES = "gauge by label"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One exported metric.

    Attributes:
        name: As Prometheus knows it.
        form: What it is.
        field: Where it is read from: an attribute of `Metrics`, or one of an attribute of it.
        meaning: For people, a phrase.
        label: Name of the label of a tally or of gauges; of several, which are kept under tuples, with commas between.
    """

    name: str
    form: Form
    field: str
    meaning: str
    label: str = ""


def _counter(name: str, field: str, meaning: str) -> Family:
    return Family(f"chat_node_{name}_total", Form.COUNTER, field, meaning)


def _tally(name: str, label: str, field: str, meaning: str) -> Family:
    return Family(f"chat_node_{name}_total", Form.TALLY, field, meaning, label)


def _gauge(name: str, field: str, meaning: str) -> Family:
    return Family(f"chat_node_{name}", Form.GAUGE, field, meaning)


def _gauges(name: str, label: str, field: str, meaning: str) -> Family:
    return Family(f"chat_node_{name}", Form.GAUGES, field, meaning, label)


def _histogram(name: str, field: str, meaning: str) -> Family:
    return Family(f"chat_node_{name}", Form.HISTOGRAM, field, meaning)


FAMILIES: Final = (
    _gauge("connections", "connections", "Open connections on the public port, of whatever sort"),
    _counter("connections_accepted", "accepted", "Connections taken on the public port"),
    _tally("connections_opened", "transport", "opened", "Clients that began to talk, by transport"),
    _gauge("fallback_connections", "fallback_connections", "Open connections of http_stream and sse"),
    _counter("emulation_requests", "emulations", "Requests with commands of clients of http_stream and sse"),
    _tally("connections_refused", "reason", "refused", "Connections refused on the public port"),
    _tally("connections_closed", "code", "closed", "Clients disconnected, by the code that was sent"),
    _counter("slow_closes", "slow_closes", "Connections closed because too much output was waiting (3008)"),
    _gauge("http_connections", "http_connections", "Open connections served by the HTTP application"),
    _tally("http_responses", "status", "http_responses", "Responses of the HTTP application"),
    _tally(
        "api_requests", "site,method,outcome", "api_requests", "Requests of the server API, and commands in batches"
    ),
    _tally("commands", "command", "sessions.commands", "Commands from clients"),
    _tally("errors", "code", "sessions.errors", "Commands answered with an error"),
    _tally("limited", "limit", "sessions.limited", "Commands refused with 111, by the limit that they were over"),
    _tally("recoveries", "outcome", "sessions.recoveries", "Subscriptions that asked to resume"),
    _counter("recovered_messages", "sessions.recovered_entries", "Publications given to clients that resumed"),
    _tally("unsubscribes", "code", "sessions.unsubscribes", "Subscriptions that the node ended"),
    _counter("command_timeouts", "sessions.timeouts", "Commands answered with 100 because their time was up"),
    _counter("reading_pauses", "sessions.pauses", "Times a client was not read as too much of its was waiting"),
    _tally("connects", "site", "sessions.connects", "Clients that connected, by their site"),
    _tally("tokens_refused", "reason", "sessions.tokens_refused", "Connects and refreshes that were not accepted"),
    _counter("guests", "sessions.guests", "New guests"),
    _counter("messages_received", "received", "Publications from clients"),
    _counter("messages_acknowledged", "acknowledged", "Publications that are on disk and acknowledged"),
    _counter("messages_delivered", "delivered", "Publications handed to clients: one in a room of 100 counts 100"),
    _counter(
        "ephemeral_dropped", "ephemeral_dropped", "Typing and presence frames dropped for clients that are behind"
    ),
    _counter("received_bytes", "bytes_received", "Bytes read from clients"),
    _counter("sent_bytes", "bytes_sent", "Bytes sent to clients"),
    _gauge("output_bytes", "output_bytes", "Output waiting for clients that are behind"),
    _gauge("rooms", "rooms", "Rooms with members on this node"),
    _histogram("publish_deliver_seconds", "delivery_seconds", "From reading a publication to sending it to the room"),
    _histogram("commit_seconds", "commit_seconds", "From handing entries to the log until they are on disk"),
    _histogram("fsync_seconds", "fsync_seconds", "Commits of the log as the disk sees them"),
    _histogram("commit_entries", "commit_entries", "Entries in one commit of the log"),
    _gauge("log_bytes", "log_bytes", "Size of the log's database file"),
    _gauge("log_wal_bytes", "wal_bytes", "Size of the log's write-ahead file"),
    _gauge("log_queue_entries", "log_queue_entries", "Entries handed to the log and not on disk yet"),
    _gauge("log_unfiled_entries", "unfiled_entries", "Entries on disk and not yet filed by room"),
    _gauge("log_halted", "log_halted", "1 if the log has halted and no message is taken, else 0"),
    _gauge("disk_used_ratio", "disk_used_share", "Used share of the disk that holds the log, from 0 to 1"),
    _tally(
        "webhook_events",
        "site,webhook,outcome",
        "webhook_events",
        "Events of webhooks: delivered, dead (kept as dead letters), replayed, dropped (of who is there), gap",
    ),
    _tally(
        "webhook_attempts",
        "site,webhook,outcome",
        "webhook_attempts",
        "Requests to receivers of webhooks, by the answer's class of status or by why there was none",
    ),
    _gauges(
        "webhook_waiting_seconds",
        "site,webhook",
        "webhook_waiting",
        "Age of the oldest event that waits for a webhook's receiver; 0: none waits",
    ),
    _gauges("webhook_dead_letters", "site,webhook", "webhook_dead", "Dead letters of a webhook"),
    _gauge("draining", "draining", "1 if the node is shutting down, else 0"),
    _histogram("loop_lag_seconds", "loop_lag_seconds", "How late the loop wakes a task whose time has come"),
    _histogram("turn_seconds", "turn_seconds", "One turn of the hub: events handled and output sent"),
    _histogram("gc_pause_seconds", "gc_pause_seconds", "Collections of garbage, during which all stands still"),
)


@dataclass(frozen=True, slots=True)
class Build:
    """What runs: the labels of ``chat_node_build_info``."""

    version: str
    python: str
    node: str
    region: str


class MetricsCollector(Collector):
    """Turns a `Metrics` into Prometheus' families when it is asked for them."""

    def __init__(self, metrics: Metrics, build: Build) -> None:
        self._metrics = metrics
        self._build = build

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield all families with their values of this moment."""
        for family in FAMILIES:
            yield _exported(family, attrgetter(family.field)(self._metrics))
        build = self._build
        info = GaugeMetricFamily(
            "chat_node_build_info", "What runs; the value is always 1", labels=("version", "python", "node", "region")
        )
        info.add_metric((build.version, build.python, build.node, build.region), 1)
        yield info


_Tally: TypeAlias = "Counter[str] | Counter[int] | Counter[tuple[str, str, str]]"
_Gauges: TypeAlias = "dict[tuple[str, str], float]"
_Value: TypeAlias = "int | float | _Tally | _Gauges | Histogram"


def _exported(family: Family, value: _Value) -> Metric:
    if isinstance(value, Counter):
        tally = CounterMetricFamily(family.name, family.meaning, labels=family.label.split(","))
        for labels, count in _capped(value):
            tally.add_metric(labels, count)
        return tally
    if isinstance(value, Histogram):
        bounds = (*(str(float(bound)) for bound in value.bounds), "+Inf")
        buckets = list(zip(bounds, map(float, accumulate(value.counts)), strict=True))
        return HistogramMetricFamily(family.name, family.meaning, buckets=buckets, sum_value=value.total)
    if not isinstance(value, int | float):
        gauges = GaugeMetricFamily(family.name, family.meaning, labels=family.label.split(","))
        for labels, level in sorted(value.items(), key=lambda item: -item[1])[:MOST_LABEL_TUPLES]:
            gauges.add_metric(labels, level)
        return gauges
    if family.form is Form.COUNTER:
        return CounterMetricFamily(family.name, family.meaning, value=value)
    return GaugeMetricFamily(family.name, family.meaning, value=value)


def _capped(tally: _Tally) -> Iterator[tuple[tuple[str, ...], int]]:
    ranked: list[tuple[object, int]] = [*tally.most_common()]
    parts = [(label if isinstance(label, tuple) else (label,), count) for label, count in ranked]
    most = MOST_LABEL_VALUES if not parts or len(parts[0][0]) == 1 else MOST_LABEL_TUPLES
    yield from ((tuple(map(str, labels)), count) for labels, count in parts[:most])
    if rest := parts[most:]:
        yield ("other",) * len(rest[0][0]), sum(count for _, count in rest)


Scrape: TypeAlias = "Callable[[], bytes]"


def scraper(metrics: Metrics, build: Build) -> Scrape:
    """Make what renders a scrape: the text format of Prometheus, with the figures of the process itself.

    What it gives may be called in another thread, after `Metrics.refresh` in the node's own: with 19,000 sockets,
    counting the process's open files takes 7 to 20 ms.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(metrics, build))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)

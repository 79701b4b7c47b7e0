"""The sections of the configuration, and `Config`, which holds them.

An instance is valid by construction: one with a value out of bounds, or with values that do not fit together, raises
`ConfigError`. Units are in the names or the meanings. ``dev=`` is the default with ``--dev``, which changes defaults
only: what is given explicitly wins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from platformdirs import user_data_path

from edge_config.address import is_loopback
from edge_config.api import Api
from edge_config.channel import parse_channel
from edge_config.cluster import Cluster
from edge_config.faults import ConfigError, Fault
from edge_config.kinds import RoomKind
from edge_config.limits import Keepalive, Limits, Rates
from edge_config.secret import Secret
from edge_config.setting import NAME, Bounds, Form, derived, section, setting
from edge_config.webhooks import WebhookTarget

ANY_ORIGIN = "*"


@section
class Node:
    """Who this node is and where it keeps its data."""

    region: str = setting(
        "local",
        "The region that the node serves: a name of your choice, of letters, digits, _ and -.",
        NAME,
        flag="--region",
    )
    name: str = setting(
        "",
        "The node's name, unique in its cluster; empty: made from the host's name and kept in the data directory.",
        Form(rf"|{NAME.pattern}", NAME.described),
    )
    data_dir: Path = derived(
        lambda: user_data_path("chat-node", appauthor=False),
        "Directory of the log and of the node's own keys; empty: `chat-node` in the platform's directory for user data"
        " (on Linux `~/.local/share`). A node has it for itself alone.",
        flag="--data-dir",
    )
    dev: bool = setting(
        default=False,
        meaning="Try it out: guests may do everything, and no rate limit binds. Changes defaults only; what is given"
        " explicitly wins. Not for a network that you do not trust.",
        flag="--dev",
    )


@section
class Listen:
    """The public port for clients, and the internal port for metrics and operators."""

    host: str = setting(
        "127.0.0.1",
        "Address of the public port; `0.0.0.0` or `::` for all. Loopback until you decide otherwise.",
        Form(r"\S+", "characters other than spaces"),
        flag="--host",
    )
    port: int = setting(
        8000, "The public TCP port; 0: any free one. 8000 needs no privileges.", Bounds(0, 65_535), flag="--port"
    )
    internal_host: str = setting(
        "127.0.0.1",
        "Address of the internal port. Beyond loopback it needs `internal_token`: nothing listens there without"
        " authentication.",
        Form(r"\S+", "characters other than spaces"),
    )
    internal_port: int = setting(
        9000,
        "The internal TCP port; 0: any free one, told at start (so that several nodes can be tried on one machine).",
        Bounds(0, 65_535),
        dev=0,
        flag="--internal-port",
    )
    api_on_public_port: bool = setting(
        default=False,
        meaning="Answer the server API (`/api/...`, with a key) on the public port too. The internal port has it in any"
        " case.",
    )
    internal_token: Secret | None = setting(
        None, "Bearer token that the internal port asks for; empty: none, which only loopback may have."
    )
    http_stream: bool = setting(
        default=True,
        meaning="Serve clients whose network lets no WebSocket through by streamed responses"
        " (`/connection/http_stream`, commands to `/emulation`).",
    )
    sse: bool = setting(
        default=True, meaning="Likewise by server-sent events (`/connection/sse`, commands to `/emulation`)."
    )
    backlog: int = setting(
        4096,
        "Connections that the kernel holds until they are accepted: a reconnecting crowd's second or so.",
        Bounds(1, 65_535),
    )
    tls_certificate: Path | None = setting(
        None, "PEM file with the certificate chain of the public port; empty: no TLS here (a balancer ends it)."
    )
    tls_key: Path | None = setting(None, "PEM file with the key of `tls_certificate`.")

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("tls_key", "tls_certificate") if self.tls_key else ("tls_certificate", "tls_key")
            path = str(getattr(self, given))
            yield Fault(given, repr(path), f"{missing} is not set", f"Give {missing} too, or neither", also=(missing,))
        if not is_loopback(self.internal_host) and not self.internal_token:
            yield Fault(
                "internal_host",
                repr(self.internal_host),
                "the internal port would be open to others without authentication",
                "Give internal_token (or internal_token_file) too, or 127.0.0.1",
                also=("internal_token",),
            )
        if self.port == self.internal_port != 0:
            yield Fault(
                "internal_port",
                str(self.internal_port),
                "the public port has this number already",
                "Give another, or 0 for any free one",
                also=("port",),
            )


@section
class Hub:
    """The loop that serves the sockets."""

    flush_window_ms: float = setting(
        20.0,
        "Output for a room may wait this long at most, so that several messages share one send. The window is adaptive:"
        " an idle node waits for nothing.",
        Bounds(0, 1000),
    )
    events_per_turn: int = setting(
        2048, "Socket events served before other tasks have their turn: some milliseconds.", Bounds(1, 65_536)
    )
    drain_seconds: float = setting(
        30.0, "At SIGTERM, time for closing all connections before the rest is cut off.", Bounds(0, 3600)
    )
    drain_cohort: int = setting(
        500, "At SIGTERM, connections closed at once (3001), so that they come back elsewhere in groups.", Bounds(1)
    )
    loop_lag_warn_ms: float = setting(
        100.0, "A turn of the loop that takes longer is logged: clients feel it.", Bounds(1)
    )


@section
class Auth:
    """Whose connections are accepted."""

    secret: Secret | None = setting(
        None,
        "Key that verifies clients' tokens (HS256); at least 32 random bytes, e.g. of `openssl rand -hex 32`."
        " Empty: tokens are refused.",
    )
    audience: str = setting("", "Tokens must name it as `aud`; empty: not checked.")
    issuer: str = setting("", "Tokens must name it as `iss`; empty: not checked.")
    leeway_seconds: int = setting(
        5, "Tolerance for the clocks of token issuers, on `exp`, `nbf` and `iat`.", Bounds(0, 300)
    )
    insecure: bool = setting(
        default=False,
        meaning="Guests: clients without a token may connect; what they may do, the room kinds say.",
        dev=True,
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "Web pages that may connect, each as `https://host[:port]`; `*`: all. Empty: only pages of the node's own host"
        " and, with `--dev`, of this machine.",
    )
    sites: int = setting(
        10_000, "Sites in `sites.json`. To read the keys of so many takes a second.", Bounds(1, 100_000)
    )
    revocations: int = setting(
        10_000,
        "Tokens that one site may have revoked by their ids, and as many users. Looking one up costs the same for any"
        " number, but the file is read as a whole. A site that needs more revokes all that was issued before a moment.",
        Bounds(1, 1_000_000),
    )
    jwks_refresh_seconds: float = setting(
        300.0,
        "Published keys (`--jwks`) are fetched again so often: a key that its owner withdrew is trusted so long.",
        Bounds(1, 86_400),
    )
    jwks_retry_seconds: float = setting(
        10.0,
        "Least time between two fetches of one set, after a failure or for a key that it did not have: strangers'"
        " tokens can't make the node flood its server.",
        Bounds(0.05, 3600),
    )
    jwks_fetch_seconds: float = setting(
        5.0, "Time for one fetch of published keys; then the last good ones stay.", Bounds(0.1, 60)
    )
    jwks_fetches: int = setting(
        16, "Fetches of published keys at once; beyond it they wait for each other.", Bounds(1, 256)
    )
    personal_channel: bool = setting(
        default=False, meaning="Subscribe each user to the channel `#USER` at connect, for messages to this user only."
    )

    def rules(self) -> Iterator[Fault]:
        """Yield origins that no browser sends, and times that do not fit together."""
        if self.jwks_retry_seconds > self.jwks_refresh_seconds:
            problem = f"above jwks_refresh_seconds = {self.jwks_refresh_seconds}, so that failures would be mended late"
            mend = "Lower it, or raise jwks_refresh_seconds"
            yield Fault("jwks_retry_seconds", str(self.jwks_retry_seconds), problem, mend, ("jwks_refresh_seconds",))
        for origin in self.allowed_origins:
            if origin != ANY_ORIGIN and not _is_origin(origin):
                problem = "not an origin as browsers send it"
                mend = "Give scheme://host[:port] in lower case, without a path, or *"
                yield Fault("allowed_origins", repr(origin), problem, mend)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return bool(host) and text == f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


class Durability(StrEnum):
    """When an entry counts as written: after fsync, or when the operating system has it."""

    FSYNC = "fsync"
    OS = "os"


@section
class Log:
    """The log on disk."""

    commit_window_ms: float = setting(
        2.0,
        "Under load, a group commit gathers messages for at most so long; one fsync serves them all.",
        Bounds(0, 100),
    )
    commit_entries: int = setting(256, "A group commit of so many entries waits no longer.", Bounds(1, 65_536))
    read_period_ms: float = setting(
        1000.0,
        "How far users have read a room is written once in this time, for all of them together; an answer to `read`"
        " may wait as long. SDKs give up after 5 s.",
        Bounds(10, 2500),
    )
    durability: Durability = setting(
        Durability.FSYNC,
        "`fsync`: acknowledged means on disk. `os`: survives a crash of the node, but a power cut loses acknowledged"
        " messages; it exists for tests.",
    )
    cache_bytes: int = setting(
        67_108_864, "Memory for the newest entries of rooms: what clients ask for most (64 MiB).", Bounds(0)
    )
    quota_bytes: int = setting(
        0, "The log refuses messages when it has grown to this; 0: when the disk is 85 % full.", Bounds(0)
    )
    retention_days: int = setting(0, "Entries older than this are forgotten; 0: never by age.", Bounds(0))
    retention_bytes: int = setting(
        0, "The oldest entries are forgotten when the log passes this; 0: never by size.", Bounds(0)
    )
    quarantine_bytes: int = setting(
        67_108_864,
        "Of what a fail-over took out of the log, which no client was told is accepted, the newest are kept aside up to"
        " this (64 MiB), for `chat-node log export --quarantine`; 0: none, and what is there is dropped.",
        Bounds(0),
    )
    undo_days: int = setting(
        30,
        "A removed chat message can be restored within this time, unreadable to clients meanwhile; then its text is"
        " erased from the disk.",
        Bounds(1, 3650),
    )
    dedupe_days: int = setting(
        7, "A message sent again under its id within this time is recognised: a phone's week offline.", Bounds(1, 365)
    )
    shards: int = setting(
        128,
        "Shards of the rooms, fixed when the log is made; 1,024 for more than ten nodes. A log made with another"
        " number is refused.",
        Bounds(1, 65_536),
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        if 0 < self.quota_bytes < self.retention_bytes:
            problem = f"messages would be refused before retention_bytes = {self.retention_bytes} makes room"
            mend = "Raise it, or lower retention_bytes"
            yield Fault("quota_bytes", str(self.quota_bytes), problem, mend, also=("retention_bytes",))


@section
class Rooms:
    """Which kind a room is of; the kinds themselves are `[kinds.NAME]`."""

    default_kind: str = setting(
        "default",
        "Kind of the rooms whose channel has no `KIND:` before it; empty: there are no such rooms. Without any"
        " `[kinds.NAME]` there is one kind, `default`.",
        Form(rf"|{NAME.pattern}", NAME.described),
    )


class Level(StrEnum):
    """From which severity log lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


@section
class Logging:
    """Log lines, written to standard error."""

    level: Level = setting(Level.INFO, "`debug`, `info`, `warning` or `error`: this and what is graver is written.")
    format: LogFormat = setting(
        LogFormat.AUTO, "`console` (for people), `json` (a line each), or `auto`: people on a terminal, JSON otherwise."
    )
    lines_per_second: float = setting(
        10.0,
        "Lines of one event per second, so that traffic can't flood the disk; what exceeds it is counted, and the count"
        " written.",
        Bounds(0.1),
    )


def _default_kinds() -> Mapping[str, RoomKind]:
    return MappingProxyType({"default": RoomKind()})


def _no_webhooks() -> Mapping[str, WebhookTarget]:
    return MappingProxyType({"default": WebhookTarget()})


def _no_sources() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it.

    Attributes:
        kinds: The room kinds by name.
        webhooks: The default site's webhooks by name; one without a URL is off.
        sources: Where each value came from, by its key's path; empty unless it was loaded.
    """

    node: Node = field(default_factory=Node)
    listen: Listen = field(default_factory=Listen)
    auth: Auth = field(default_factory=Auth)
    api: Api = field(default_factory=Api)
    rooms: Rooms = field(default_factory=Rooms)
    kinds: Mapping[str, RoomKind] = field(default_factory=_default_kinds)
    webhooks: Mapping[str, WebhookTarget] = field(default_factory=_no_webhooks)
    limits: Limits = field(default_factory=Limits)
    rates: Rates = field(default_factory=Rates)
    keepalive: Keepalive = field(default_factory=Keepalive)
    hub: Hub = field(default_factory=Hub)
    log: Log = field(default_factory=Log)
    cluster: Cluster = field(default_factory=Cluster)
    logging: Logging = field(default_factory=Logging)
    sources: Mapping[str, str] = field(default_factory=_no_sources, compare=False)

    def __post_init__(self) -> None:
        if faults := tuple(self._rules()):
            raise ConfigError(faults)

    def kind_of(self, channel: str) -> RoomKind | None:
        """The kind of a channel's room; None if the channel names no kind that is configured (error 102)."""
        return self.kinds.get(parse_channel(channel).kind or self.rooms.default_kind)

    def _rules(self) -> Iterator[Fault]:
        default = self.rooms.default_kind
        if default not in (*self.kinds, "default", ""):
            problem = f"there is no [kinds.{default}]"
            mend = f"Give one of {', '.join(self.kinds)}, or an empty text"
            yield Fault("rooms.default_kind", repr(default), problem, mend)
        if self.api.allow_weak_keys and not (is_loopback(self.listen.host) and is_loopback(self.listen.internal_host)):
            problem = "a weak key can be guessed, and others than this machine reach the node"
            mend = "Give false and longer keys, or listen.host and listen.internal_host on loopback"
            yield Fault("api.allow_weak_keys", "true", problem, mend, also=("listen.host", "listen.internal_host"))
        if self.cluster.address is not None:
            yield from self._taken_ports(self.cluster.address.port)

    def _taken_ports(self, inbox: int) -> Iterator[Fault]:
        mine = {"cluster.listen": inbox, "cluster.publish_port": self.cluster.publish_at(inbox)}
        for key, port in mine.items():
            for other in ("port", "internal_port"):
                if port == getattr(self.listen, other) != 0:
                    problem = f"listen.{other} has the number {port} already"
                    value = self.cluster.listen if key == "cluster.listen" else str(self.cluster.publish_port)
                    yield Fault(key, value, problem, "Give another", also=(f"listen.{other}", "cluster.listen"))

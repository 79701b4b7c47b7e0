"""What one client may take of the node: sizes, numbers, rates, and how long it may be silent."""

from collections.abc import Iterator

from edge_config.faults import Fault
from edge_config.setting import Bounds, section, setting

SDK_FRAME_BYTES = 1_048_576  # the SDKs refuse a longer frame


@section
class Limits:
    """What one client, address or user may take of the node; all sizes of what a client sends stand here."""

    connections: int = setting(
        0,
        "Connections in all; 0: as many as the limit on open files allows, less what the node itself needs.",
        Bounds(0),
    )
    connections_per_ip: int = setting(
        100,
        "Connections from one address, of IPv6 from one network of 64 bits; 0: no limit. An office behind one address"
        " fits. Behind a balancer all clients have its address: set 0 there.",
        Bounds(0),
        dev=0,
    )
    connections_per_user: int = setting(
        20, "Connections of one user: some tabs on some devices; 0: no limit. Guests are each a user.", Bounds(0)
    )
    http_connections: int = setting(
        256,
        "HTTP exchanges at once beside WebSockets, for pages and the server API, of each port; what comes beyond is"
        " answered 503. A page is four short exchanges, so this is a crowd.",
        Bounds(1, 65_536),
    )
    http_seconds: float = setting(
        30.0,
        "From the head of an HTTP request to the end of the connection: the page's 200 KB over a slow mobile link.",
        Bounds(1, 3600),
    )
    header_bytes: int = setting(8192, "Head of an HTTP request: generous for cookies.", Bounds(512, 65_536))
    upgrade_seconds: float = setting(
        10.0, "From accept to the end of the request's head; slower clients are dropped.", Bounds(0.1, 300)
    )
    connect_seconds: float = setting(
        10.0, "From upgrade to the connect command; then the connection is closed as stale (3502).", Bounds(0.1, 300)
    )
    message_bytes: int = setting(
        65_536,
        "A client's WebSocket message; beyond it the connection is closed with 1009. Several commands fit in.",
        Bounds(1024, 16_777_216),
    )
    commands_per_frame: int = setting(
        1000, "Commands in one message: a client's connect with all its subscriptions, twice.", Bounds(1)
    )
    channel_bytes: int = setting(255, "A channel's name, in UTF-8.", Bounds(1, 1024))
    body_bytes: int = setting(16_384, "The data of a publication, as JSON.", Bounds(64, 1_048_576))
    delta_bytes: int = setting(
        16_384,
        "In rooms with `delta`, a publication beyond this is sent whole: at 16 KiB the difference takes 0.1 to 0.5 ms,"
        " in which the node does nothing else.",
        Bounds(0, 1_048_576),
    )
    content_bytes: int = setting(8192, "The text of a chat message, in UTF-8: about two printed pages.", Bounds(1))
    meta_bytes: int = setting(4096, "`meta` of a chat message, as JSON.", Bounds(0))
    mentions: int = setting(50, "Users mentioned in a chat message.", Bounds(0))
    attachments: int = setting(10, "Attachments of a chat message.", Bounds(0))
    message_id_bytes: int = setting(
        64, "A client's id of a message, in UTF-8: a UUID has 36; the index keeps every one for days.", Bounds(36, 64)
    )
    room_rules: int = setting(
        10_000, "Mutes, bans and granted roles of one room: all of them are in memory with it.", Bounds(1, 1_000_000)
    )
    subscriptions: int = setting(500, "Subscriptions of one connection.", Bounds(1))
    output_bytes: int = setting(
        1_048_576,
        "Output waiting for one connection. Beyond it the connection is closed as slow (3008); the client resumes from"
        " the log.",
        Bounds(65_536),
    )
    recovery_entries: int = setting(
        300, "Entries given at once to a client that resumes; one further behind pages through the history.", Bounds(1)
    )
    recovery_bytes: int = setting(
        524_288, "Bytes given at once to a client that resumes: half of the frame that the SDKs take.", Bounds(1024)
    )
    history_entries: int = setting(300, "Entries of one page of history.", Bounds(1, 10_000))
    unread_entries: int = setting(
        1000,
        "Entries that `unread` looks at, from a room's newest back; beyond it there is `more`. Pages show 99+ anyway.",
        Bounds(1, 10_000),
    )
    presence_roster: int = setting(
        1000,
        "Clients named in one answer to `presence`, at most; `presence_stats` counts all of a bigger room.",
        Bounds(1),
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        ladder = (
            ("body_bytes", "message_bytes", "a publication carries its command around it"),
            ("content_bytes", "body_bytes", "the text is part of the publication's data"),
            ("meta_bytes", "body_bytes", "meta is part of the publication's data"),
            ("recovery_bytes", "output_bytes", "a client that resumes would be closed as slow"),
        )
        for smaller, bigger, why in ladder:
            value, bound = getattr(self, smaller), getattr(self, bigger)
            if value >= bound:
                problem = f"not below {bigger} = {bound}, but {why}"
                yield Fault(smaller, str(value), problem, f"Lower it, or raise {bigger}", also=(bigger,))
        if self.recovery_bytes >= SDK_FRAME_BYTES:
            problem = f"clients refuse a frame of {SDK_FRAME_BYTES} bytes and more"
            yield Fault("recovery_bytes", str(self.recovery_bytes), problem, f"Give less than {SDK_FRAME_BYTES}")


@section
class Rates:
    """Token buckets, each refilled so many times a second; above a rate a command is refused with 111. 0: no limit."""

    connection_commands: float = setting(
        200.0, "Commands of a connection per second, of whatever sort.", Bounds(0), dev=0.0
    )
    connection_publishes: float = setting(
        10.0, "Publications of a connection per second: faster than anybody types.", Bounds(0), dev=0.0
    )
    user_publishes: float = setting(
        20.0, "Publications of a user per second, over all connections to this node.", Bounds(0), dev=0.0
    )
    user_reports: float = setting(
        1.0,
        "Reports of messages by a user per second, over all connections to this node: each is told to all moderators"
        " who are in the room.",
        Bounds(0),
        dev=0.0,
    )
    room_publishes: float = setting(
        1000.0, "Publications in a room per second, by all its members on this node.", Bounds(0), dev=0.0
    )
    site_publishes: float = setting(
        0.0, "Publications of a site per second, over all its rooms on this node. For nodes of many sites.", Bounds(0)
    )
    connection_joins: float = setting(
        100.0,
        "Subscriptions of a connection per second; with the burst, 500 at once after a connect.",
        Bounds(0),
        dev=0.0,
    )
    connection_reads: float = setting(
        20.0, "Requests of a connection for history or presence per second: scrolling back fast.", Bounds(0), dev=0.0
    )
    burst_seconds: float = setting(
        5.0,
        "A full bucket holds so many seconds' worth. With 200 commands per second, a client with 500 subscriptions"
        " connects at once.",
        Bounds(0.1, 3600),
    )


@section
class Keepalive:
    """Pings, which find dead connections and keep balancers from closing quiet ones."""

    ping_seconds: int = setting(
        25,
        "From one ping to the next; below the 30-60 s after which balancers close a quiet connection.",
        Bounds(1, 3600),
    )
    pong_seconds: float = setting(
        8.0, "Time for the answer; then the connection is closed (3012). Slow mobile networks fit.", Bounds(0.1, 600)
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        if self.pong_seconds >= self.ping_seconds:
            problem = f"not below ping_seconds = {self.ping_seconds}, so that a ping would go out unanswered"
            mend = "Lower it, or raise ping_seconds"
            yield Fault("pong_seconds", str(self.pong_seconds), problem, mend, also=("ping_seconds",))

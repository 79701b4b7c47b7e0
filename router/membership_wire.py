"""What nodes say to each other about themselves: heartbeats with gossip, and farewells; their bytes, with bounds.

A message is a MessagePack array that begins with its tag. A field more than is known here is of a newer version and is
passed over, so that nodes of two versions can meet while a cluster is upgraded; `feature` tells what both understand.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from router.errors import CorruptEntry

MAX_MESSAGE: Final = 65_536  # bytes of a heartbeat with as many rows and peers as it may have
MOST_NEWS: Final = 256  # rows in a heartbeat: 20 bytes each
MOST_RECORDS: Final = 64  # peers in a heartbeat

Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Token: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{1,64}\Z")]  # ids that a node has made for itself
Disk: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{0,64}\Z")]
Label: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{1,253}\Z")]
Inbox: TypeAlias = Annotated[str, Meta(pattern=r"^tcp://[!-~]{1,270}\Z")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Standing(IntEnum):
    """What a node takes: nothing yet, its part of everything, or nothing more."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class Identity(Struct, array_like=True, frozen=True, gc=False):
    """Who a node is, for as long as it lives.

    Attributes:
        node: Its name in the cluster.
        boot: Of this life of it.
        disk: Of its log; empty: it has none, and so is never a member of a shard (the central).
        region: Where it is.
        host: What fails with it.
        address: Where its inbox is, ``tcp://host:port``.
        version: Of the program.
        feature: Level up to which it understands what a version may add; a cluster uses the lowest of its nodes.
    """

    node: Name
    boot: Token
    disk: Disk
    region: Name
    host: Label
    address: Inbox
    version: Label
    feature: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Load(Struct, array_like=True, frozen=True, gc=False):
    """How busy a node is.

    Attributes:
        connections: Of clients.
        rooms: That it sequences.
        shards: That it is primary of.
        received: Messages accepted in a second.
        sent: Messages handed to clients in a second.
        lag_ms: Of its loop, 99th percentile.
        sync_ms: Of an fsync, 99th percentile.
        memory: Bytes resident.
        busy: Part of one core that the process takes, in thousandths.
        uptime_s: Seconds since it started.
    """

    connections: Count = 0
    rooms: Count = 0
    shards: Count = 0
    received: Count = 0
    sent: Count = 0
    lag_ms: Count = 0
    sync_ms: Count = 0
    memory: Count = 0
    busy: Count = 0
    uptime_s: Count = 0


class Echo(Struct, array_like=True, frozen=True, gc=False):
    """The newest heartbeat that was heard of the receiver: the way there and back is the time since, less `held`.

    Attributes:
        boot: The receiver's life that sent it.
        n: Its number.
        held: Milliseconds from its arrival to this.
    """

    boot: Token
    n: Count
    held: Count


class News(Struct, array_like=True, frozen=True, gc=False):
    """Where a shard stands, as the sender knows it. A hint: nothing is decided by it alone.

    Attributes:
        shard: The shard.
        epoch: Of its row in the register.
        commit: Up to here everything is committed.
        version: Of the row.
    """

    shard: Count
    epoch: Count
    commit: Count
    version: Count


class Record(Struct, array_like=True, frozen=True, gc=False):
    """A node that the sender hears, and where its inbox is."""

    node: Name
    address: Inbox


class Beat(Struct, tag="beat", array_like=True, frozen=True, gc=False):
    """A heartbeat.

    Attributes:
        n: Rises by one with each round of heartbeats of this life; it is the same for all who get one.
        who: The sender.
        standing: What it takes.
        load: How busy it is.
        echo: None: the sender has not heard the receiver's present life.
        news: Of shards: what has changed, and a few others by turns.
        peers: Nodes that it hears, a few by turns; to a newcomer all of them.
    """

    n: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    who: Identity
    standing: Standing
    load: Load
    echo: Echo | None = None
    news: Annotated[list[News], Meta(max_length=MOST_NEWS)] = []
    peers: Annotated[list[Record], Meta(max_length=MOST_RECORDS)] = []


class Leave(Struct, tag="leave", array_like=True, frozen=True, gc=False):
    """The sender goes, and means to: this life of it will say nothing more."""

    boot: Token


MembershipMessage: TypeAlias = Beat | Leave

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(MembershipMessage).decode


def decode(data: bytes) -> MembershipMessage:
    """A message of a node.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    if len(data) > MAX_MESSAGE:
        raise CorruptEntry(f"a membership message of {len(data)} bytes; at most {MAX_MESSAGE} are taken")
    try:
        message: MembershipMessage = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a membership message can't be read: {error}") from error
    return message

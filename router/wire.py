"""What members of a shard say to each other: PREP, ACK, NACK, STALE, CONFIG; their bytes, strictly decoded.

A message is a MessagePack array that begins with its tag; entries travel as their canonical bytes (`router/entry.py`).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from router.errors import CorruptEntry
from router.events import Configuration
from router.ids import MemberId

MAX_MESSAGE: Final = 1 << 21  # bytes; a PREP carries at most half of it, or one entry


class Prep(Struct, tag="prep", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The primary's log continues so; also its heartbeat, then without entries.

    Attributes:
        shard: The shard.
        epoch: Of the primary's tenure.
        round: Given back in the ACK, so that it shows which PREP the member had seen.
        previous: The lsn before the first entry.
        chain: The chain up to it.
        commit: Up to here everything is committed, as far as the primary knows.
        wires: Canonical bytes of the entries.
    """

    shard: int
    epoch: int
    round: int
    previous: int
    chain: bytes
    commit: int
    wires: list[bytes]


class Ack(Struct, tag="ack", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A member's log agrees with the primary's up to `lsn`, and is on its disk up to there."""

    shard: int
    epoch: int
    round: int
    lsn: int


class Nack(Struct, tag="nack", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A PREP does not fit on; the member's log may agree up to `hint`, from where the primary goes on."""

    shard: int
    epoch: int
    hint: int


class Stale(Struct, tag="stale", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A message came of an epoch below the one that was promised."""

    shard: int
    promised: int


class Config(Struct, tag="config", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A row of the register, as it was written; see `events.Configuration`. A hint: nothing is decided by it alone."""

    shard: int
    version: int
    epoch: int
    primary: tuple[str, str]
    members: list[tuple[str, str]]


def config_of(row: Configuration) -> Config:
    """A row as a message."""
    primary, *members = ((member.node, member.disk) for member in (row.primary, *row.members))
    return Config(row.shard, row.version, row.epoch, primary, members)


def row_of(config: Config) -> Configuration:
    """A message as a row."""
    primary, *members = (MemberId(*member) for member in (config.primary, *config.members))
    return Configuration(config.shard, config.version, config.epoch, primary, tuple(members))


PeerMessage: TypeAlias = Prep | Ack | Nack | Stale | Config

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PeerMessage).decode


def decode(data: bytes) -> PeerMessage:
    """A message of a peer.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    if len(data) > MAX_MESSAGE:
        raise CorruptEntry(f"a peer's message of {len(data)} bytes; at most {MAX_MESSAGE} are taken")
    try:
        message: PeerMessage = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a peer's message can't be read: {error}") from error
    return message

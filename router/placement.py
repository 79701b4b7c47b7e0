"""Where a room lives: room -> shard."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.ids import RoomId, ShardId


def shard_of(room: RoomId, shards: int) -> ShardId:
    """The shard of a room in the only group of a single-region cluster, 0 <= shard < shards."""
    name = f"{room.site}\0{room.channel}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") % shards

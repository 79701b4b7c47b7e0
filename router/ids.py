"""Names of things: nodes, disks, rooms, shards, and positions in a room."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple, TypeAlias

ShardId: TypeAlias = int

SENDER_BYTES = 12  # 96 bits: no two of a billion senders of a site collide (p < 1e-11)
KEY_BYTES = 16  # of a dedupe key; see dedupe_key
_new_key = blake2b(digest_size=KEY_BYTES).copy  # a copy costs a third less than a new one


class RoomId(NamedTuple):
    """A room's full name. Sites never see each other, so a channel alone names nothing.

    Attributes:
        site: The tenant's id; the site of a node without configured sites is ``default``.
        channel: The channel as clients write it, kind prefix included.
    """

    site: str
    channel: str


class Position(NamedTuple):
    """A place in a room's stream, as clients see it.

    Attributes:
        epoch: The room's stream epoch: unchanged by restarts, reconfiguration and fail-over.
        offset: The sequence of the last entry before the place; 0 is before the first entry.
    """

    epoch: str
    offset: int


class Place(NamedTuple):
    """A place in a room's log, of which clients see only the sequence.

    An entry that is seen has the sequence after that of the place before it, any other the `meta_n` after; so the sum
    of both rises by one from each entry of a room to the next.

    Attributes:
        sequence: Of the last visible entry before the place.
        meta_n: Of the last META or MARKS entry before it.
    """

    sequence: int
    meta_n: int

    @property
    def ordinal(self) -> int:
        """How many entries of the room there are before it."""
        return self.sequence + self.meta_n


class MemberId(NamedTuple):
    """A member of a shard: a node together with its disk.

    A node whose disk was wiped is a stranger: what the old disk acknowledged, the new one does not hold.
    """

    node: str
    disk: str


def stream_epoch(birth: str, generation: int) -> str:
    """The epoch that clients see: the cluster's birth id and the room's generation."""
    return f"{birth}.{generation}"


def sender_id(site: str, user: str, key: bytes) -> bytes:
    """The pseudonym under which a user's entries stand in the log (it survives the erasure of bodies)."""
    return blake2b(f"{site}\0{user}".encode(), digest_size=SENDER_BYTES, key=key).digest()


def dedupe_key(room: RoomId, sender: bytes, cmid: str) -> bytes:
    """The name of a client's message: (site, room, sender, client message id), KEY_BYTES long."""
    name = _new_key()
    name.update(sender + f"{room[0]}\0{room[1]}\0{cmid}".encode())  # all senders are SENDER_BYTES long
    return name.digest()

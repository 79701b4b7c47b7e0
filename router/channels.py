"""What a peer's message is about: one byte before it on the wire."""

from __future__ import annotations

from enum import IntEnum


class Channel(IntEnum):
    """Who of the receiving node a message is for. The numbers are on the wire: none is ever given another meaning."""

    REPLICATION = 1  # members of a shard: PREP, ACK, NACK, STALE, CONFIG
    MEMBERSHIP = 2  # heartbeats, gossip of peers, JOIN and LEAVE
    EDGE = 3  # an edge and a room's primary: OPEN, SUBMIT, HEAD, FETCH and their answers
    REGISTER = 4  # the configuration register and who asks it
    PRESENCE = 5  # who is there, who types, what was read
    OPERATIONS = 6  # what an operator asks of other nodes
    TEACHING = 7  # members of shards: snapshots for learners

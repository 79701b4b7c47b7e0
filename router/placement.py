"""Where a room lives: room -> group -> shard -> the nodes that had best keep it.

Which nodes keep a shard, its row in the register says; what is computed here is a preference, and two nodes that see
different nodes up may prefer differently for a while (rule 1 of the design).
"""

from __future__ import annotations

from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from edge_config.channel import parse_channel
from router.ids import MemberId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from router.ids import RoomId, ShardId
    from router.membership_wire import Identity

SCORES: Final = 1 << 17  # remembered: of 1,024 shards on 128 nodes, some 20 MiB


class Group(NamedTuple):
    """Rooms that are to be kept alike.

    Attributes:
        home: The region whose nodes are to sequence them; empty: any.
        survives_region: Whether a copy is to be in another region: then no message is acknowledged before that region
            has it.
    """

    home: str = ""
    survives_region: bool = False


class Candidate(NamedTuple):
    """A node that may keep shards.

    Attributes:
        member: The node with its disk.
        region: Where it is.
        host: What fails with it.
    """

    member: MemberId
    region: str
    host: str

    @classmethod
    def of(cls, identity: Identity) -> Candidate:
        """A node as it says of itself."""
        return cls(MemberId(identity.node, identity.disk), identity.region, identity.host)


class RoomMap(NamedTuple):
    """Which group and shard each room belongs to; kept in the register, so that all nodes have the same.

    Attributes:
        version: Rises by one with every change.
        shards: Of each group; fixed when the cluster is born.
        groups: By number. A group is never taken out, and never gets another number: its shards are numbered by it.
        assigned: Numbers of groups by site and kind of room (empty: rooms without one). What is not in it is in
            group 0, and stays there.
    """

    version: int
    shards: int
    groups: tuple[Group, ...]
    assigned: Mapping[tuple[str, str], int]

    def shard_of(self, room: RoomId) -> ShardId:
        """The shard of a room."""
        number = self.assigned.get((room.site, parse_channel(room.channel).kind), 0)
        return number * self.shards + shard_of(room, self.shards)

    def group_of(self, shard: ShardId) -> Group:
        """How a shard is to be kept.

        Raises:
            IndexError: There is no such shard.
        """
        return self.groups[shard // self.shards]

    def with_assigned(self, site: str, kind: str, group: Group) -> RoomMap:
        """The map in which the rooms of a site and kind are kept so.

        The caller makes sure that there are none yet: those that there are would be looked for in another shard.

        Raises:
            ValueError: They belong to another group already; to move them is a migration.
        """
        number = self.assigned.get((site, kind))
        if number is not None:
            if self.groups[number] != group:
                raise ValueError(
                    f"rooms of kind {kind!r} of site {site!r} belong to {self.groups[number]}, not {group}"
                )
            return self
        groups = self.groups if group in self.groups else (*self.groups, group)
        assigned = {**self.assigned, (site, kind): groups.index(group)}
        return RoomMap(self.version + 1, self.shards, groups, assigned)


def one_group(shards: int) -> RoomMap:
    """The map of a cluster that has just been born: all rooms are in one group."""
    return RoomMap(1, shards, (Group(),), {})


def shard_of(room: RoomId, shards: int) -> ShardId:
    """The shard of a room in the only group of a single-region cluster, 0 <= shard < shards."""
    name = f"{room.site}\0{room.channel}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") % shards


def wanted(shard: ShardId, live: Iterable[Candidate], group: Group, most: int | None = None) -> list[MemberId]:
    """The nodes that had best keep a shard, the best first; the first is to sequence it.

    The first is of the home region, if there is one. The second is of another region, if the group is to survive the
    loss of one. Each further one is best on a host of its own, then in the region of the first: a copy that is lost
    together with another is worth less than one that is far away. Ties are decided by rendezvous hashing, so that a
    node that comes or goes changes only shards that it keeps.

    Args:
        shard: The shard.
        live: Who may keep it, in any order.
        group: How it is to be kept.
        most: So many at most; None: all that live.
    """
    left = {candidate: score(shard, candidate.member.node) for candidate in live}
    chosen: list[Candidate] = []
    while left and (most is None or len(chosen) < most):
        suits = partial(_suits, group, chosen)
        best = max(left, key=lambda candidate: (*suits(candidate), left[candidate], candidate))
        chosen.append(best)
        del left[best]
    return [candidate.member for candidate in chosen]


def _suits(group: Group, chosen: Sequence[Candidate], candidate: Candidate) -> tuple[bool, bool]:
    """How well a node suits, the weightier first, beside those that are chosen already."""
    if not chosen:
        return candidate.region == group.home, True
    is_apart = all(candidate.host != other.host for other in chosen)
    is_near = candidate.region == chosen[0].region
    if group.survives_region and len(chosen) == 1:
        return not is_near, is_apart
    return is_apart, is_near


@lru_cache(SCORES)
def score(shard: ShardId, node: str) -> int:
    """How well a node suits a shard, by its name alone: with a new disk it comes back to where it was."""
    return int.from_bytes(blake2b(f"{shard}\0{node}".encode(), digest_size=8).digest(), "big")

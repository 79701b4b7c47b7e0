"""The cluster as this node sees it: its peers, and what each of them last said of itself.

Every node tells the others its status once a second. So one that is asked knows of all, and nobody waits for a node
that does not answer: it is shown with the time since it was heard.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from node.status import MeshStatus, NodeStatus, PeerStatus, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.mesh import MeshRouter

STALE_SECONDS: Final = 4.0  # a node that has said nothing of itself for so long is shown as unreachable
MOST_BYTES: Final = 65_536  # of a status: peers and webhooks that fail are bounded


class MeshView:
    """What a node knows of its cluster; of `router.mesh.Operations`.

    Args:
        router: Of this node.
        describe: Gives this node's own status.
        copies: That a shard is to have.
    """

    def __init__(self, router: MeshRouter, describe: Callable[[], NodeStatus], copies: int) -> None:
        self._router, self._describe, self._copies = router, describe, copies
        self._heard: dict[str, tuple[NodeStatus, float]] = {}
        self.strays = 0

    def tell(self) -> bytes:
        """What others are told of this node."""
        status = self._describe()
        mesh = status.mesh
        own = mesh if mesh is None else msgspec.structs.replace(mesh, nodes=(), unreachable=())
        return msgspec.msgpack.encode(msgspec.structs.replace(status, mesh=own))

    def hear(self, node: str, body: bytes) -> None:
        """A node tells of itself."""
        try:
            if len(body) > MOST_BYTES:
                raise msgspec.DecodeError("too long")
            status = msgspec.msgpack.decode(body, type=NodeStatus)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.strays += 1
            return
        if status.node == node:
            self._heard[node] = (status, time.monotonic())
        else:
            self.strays += 1

    def now(self) -> MeshStatus:
        """How the cluster is."""
        router, now = self._router, time.monotonic()
        peers = router.peers()
        known = {peer.node for peer in peers}
        self._heard = {node: heard for node, heard in self._heard.items() if node in known}
        fresh = {node: status for node, (status, at) in self._heard.items() if now - at < STALE_SECONDS}
        statistics = router.router.cluster.statistics()
        rows = [row for row in router.router.cluster.rows().values() if row.members]
        return MeshStatus(
            peers=tuple(
                PeerStatus(
                    node=peer.node,
                    region=peer.identity.region if peer.identity else "",
                    state=peer.state.value,
                    hears=peer.hears,
                    silence_seconds=None if peer.silence is None else peer.silence / 1000,
                    rtt_seconds=None if peer.rtt is None else peer.rtt / 1000,
                )
                for peer in peers
            ),
            copies=self._copies,
            shards=len(rows),
            shards_served=statistics.shards_serving,
            shards_short=sum(len(row.members) < self._copies for row in rows),
            cut_off=router.is_cut_off,
            nodes=tuple(fresh.values()),
            unreachable=tuple(
                Unreachable(
                    address=peer.node,
                    reason="never seen" if peer.silence is None
                    else f"{peer.state.value}, last seen {peer.silence / 1000:.0f} s ago",
                )
                for peer in peers
                if peer.node not in fresh and peer.state.value != "left"
            ),
        )  # fmt: skip

"""The network of a simulated mesh: it loses, repeats, delays and reorders, and is cut one way or both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from router.wire import encode

if TYPE_CHECKING:
    from router.ids import MemberId
    from router.wire import PeerMessage
    from tests.harness.simulated_member import Node
    from tests.harness.simulated_mesh import Mesh

FOREVER = 1 << 40
HELLO_BYTES = 60  # about what a heartbeat of a node's membership takes; its content is not simulated


class Network:
    """What lies between the nodes.

    Attributes:
        cuts: (from, to) and until when nothing gets through.
        sent: Messages by their sender's name.
        sent_bytes: Their bytes.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.cuts: dict[tuple[str, str], int] = {}
        self.by_member: dict[MemberId, Node] = {}
        self._number = 0
        self._recorded: tuple[Node, Node] | None = None
        self._record: list[bytes] = []
        self._newest: dict[tuple[str, str], int] = {}  # that has arrived, by link

    # -- faults --------------------------------------------------------------------------------------------------

    def cut(self, node: Node, other: Node, lasts: int = FOREVER, *, one_way: bool = False) -> None:
        """From now on nothing gets from `node` to `other`; nor back, unless `one_way`."""
        until = self.mesh.now + lasts
        self.cuts[node.name, other.name] = until
        if not one_way:
            self.cuts[other.name, node.name] = until
        self.mesh.tally.counts["cut one way" if one_way else "cut"] += 1
        self.mesh.note(f"{node.name} {'->' if one_way else '<->'} {other.name} cut for {min(lasts, 99_999)} ms")

    def heal(self) -> None:
        """All links work again."""
        if self.cuts:
            self.cuts.clear()
            self.mesh.tally.counts["healed"] += 1
            self.mesh.note("all links work")

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing gets through now."""
        until = self.cuts.get((source, target))
        if until is None:
            return False
        if until <= self.mesh.now:
            del self.cuts[source, target]
            self.mesh.tally.counts["healed"] += 1
            return False
        return True

    def record(self, node: Node, other: Node) -> None:
        """Keep copies of what `node` sends to `other` from now on."""
        self._recorded = node, other

    def replay(self) -> None:
        """Deliver the copies: that late."""
        if self._recorded is not None:
            node, other = self._recorded
            self._recorded = None
            for data in self._record:
                self._number += 1
                self._arrive(node.member, other, other.member, data, self._number)

    # -- messages ------------------------------------------------------------------------------------------------

    def send(self, source: Node, target: MemberId, message: PeerMessage | None) -> None:
        """A message of a member to another one; None: only that it is there."""
        node = self.by_member.get(target)
        if node is None:
            return
        mesh = self.mesh
        weather, random, counts = mesh.weather, mesh.random.random, mesh.tally.counts
        data = b"" if message is None else encode(message)
        source.sent += 1
        source.sent_bytes += len(data) or HELLO_BYTES
        if data and self._recorded is not None and (source, node) == self._recorded:
            self._record.append(data)
        if random() < weather.drop:
            counts["dropped"] += 1
            return
        if self.cuts and self.is_cut(source.name, node.name):
            counts["lost in a cut"] += 1
            return
        self._number += 1
        arrive = partial(self._arrive, source.member, node, target, data, self._number)
        mesh.at(mesh.now + 1 + mesh.draw(weather.delay), arrive)
        if data and random() < weather.repeat:
            counts["repeated"] += 1
            mesh.at(mesh.now + 1 + int(random() * weather.late), arrive)

    def _arrive(self, source: MemberId, node: Node, target: MemberId, data: bytes, number: int) -> None:
        mesh = self.mesh
        if not node.up or node.member != target:
            return
        if self.cuts and self.is_cut(source.node, node.name):
            mesh.tally.counts["lost in a cut"] += 1
            return
        if node.stopped_until > mesh.now:
            mesh.at(node.stopped_until, partial(self._arrive, source, node, target, data, number))
            return
        link = source.node, node.name
        if number < self._newest.get(link, 0):
            mesh.tally.counts["overtaken"] += 1
        else:
            self._newest[link] = number
        node.receive(source, data)

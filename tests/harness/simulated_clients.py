"""Clients of a simulated mesh: they write, try again under the same id, read on where they were, and compare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from router.ids import RoomId
from tests.harness.simulated_rooms import Message, Unanswered
from tests.harness.simulated_storage import Violation

if TYPE_CHECKING:
    from router.entry import Entry
    from router.ids import ShardId
    from tests.harness.simulated_member import Node
    from tests.harness.simulated_mesh import Mesh
    from tests.harness.simulated_rooms import Answer

PATIENCE = 1200  # milliseconds after which a message without an answer is sent again


class Writer:
    """Writes one message after the other into a room; each is sent until somebody says that it is accepted.

    Attributes:
        accepted: Messages.
        waited: The longest time that one took, since it was last read.
    """

    def __init__(self, mesh: Mesh, name: str, shard: ShardId) -> None:
        self.mesh, self.name, self.shard = mesh, name, shard
        self.room = RoomId("s", f"r{shard}")
        self.accepted = self._number = self._tries = self.waited = 0
        self._primary: Node | None = None
        self.come()

    def come(self) -> None:
        """Begin, or begin again, with a new message."""
        self._there = True
        self._next()

    def leave(self) -> None:
        """Go, and leave it to fate what becomes of the message that has no answer."""
        self._there = False
        self.message = Message(self.room, b"", "", b"")

    def _next(self) -> None:
        if not self._there:
            return
        self._number += 1
        self._tries = 0
        self._since = self.mesh.now
        self._floor = self.mesh.ledger.newest[self.room]  # this message comes after all that is acknowledged now
        self.message = Message(self.room, self.name.encode().ljust(12), f"m{self._number}", b"{}")
        self._send()

    def _send(self) -> None:
        mesh = self.mesh
        self._tries += 1
        node = self._primary
        if node is None or mesh.random.random() < 0.1:
            node = mesh.node_for(self.shard)
        reply = partial(self._replied, node, self.message, self._tries)
        mesh.post(node, partial(node.submit, self.shard, self.message, reply))
        mesh.at(mesh.now + PATIENCE, partial(self._give_up, self.message, self._tries))

    def _replied(self, node: Node, message: Message, tries: int, answer: Answer) -> None:
        self.mesh.carry(partial(self._hear, node, message, tries, answer))

    def _hear(self, node: Node, message: Message, tries: int, answer: Answer) -> None:
        if message is not self.message:
            return
        mesh = self.mesh
        if isinstance(answer, Unanswered):
            if tries == self._tries:
                self._primary = None
                self._tries += 1  # so that the time-out of this attempt finds it over
                mesh.tally.counts[f"told: {answer.value}"] += 1
                pause = 20 if answer is Unanswered.ELSEWHERE else 300
                mesh.at(mesh.now + pause, partial(self._again, message, self._tries))
            return
        entries = mesh.ledger.rooms[self.room]
        entry = entries[answer - 1] if answer <= len(entries) else None
        if entry is None or (entry.sender, entry.cmid) != (message.sender, message.cmid):
            raise Violation(f"at {mesh.now} {self.name} was told that {message.cmid} is {answer}, which is {entry}")
        if answer <= self._floor:
            raise Violation(f"at {mesh.now} {self.name}: {answer} was sent after {self._floor} was acknowledged")
        mesh.tally.counts["accepted at a later attempt"] += self._tries > 1
        self.accepted += 1
        self.waited = max(self.waited, mesh.now - self._since)
        self._primary = node
        self.message = Message(self.room, b"", "", b"")
        mesh.at(mesh.now + 1 + int(mesh.random.random() * mesh.pause), self._next)

    def _again(self, message: Message, tries: int) -> None:
        if message is self.message and tries == self._tries:
            self._send()

    def _give_up(self, message: Message, tries: int) -> None:
        if message is self.message and tries == self._tries:
            self.mesh.tally.counts["sent again"] += 1
            self._primary = None
            self._send()


class Reader:
    """Reads a room on, at whatever node it finds, from the place where it was."""

    def __init__(self, mesh: Mesh, shard: ShardId) -> None:
        self.mesh, self.shard = mesh, shard
        self.room = RoomId("s", f"r{shard}")
        self.offset = 0
        self._look()

    def _look(self) -> None:
        mesh = self.mesh
        node = mesh.node_for(self.shard)
        if mesh.random.random() < 0.5:
            mesh.post(node, partial(self._ask_head, node))
        else:
            mesh.post(node, partial(self._ask, node, self.offset))
        mesh.at(mesh.now + 20 + int(mesh.random.random() * 200), self._look)

    def _ask_head(self, node: Node) -> None:
        """A client comes back and asks what the newest is; what was acknowledged before it asked must be known."""
        mesh, ledger = self.mesh, self.mesh.ledger
        known = ledger.acknowledged[self.shard], ledger.newest[self.room]

        def answer(sure: bool, commit: int, head: int) -> None:
            mesh.tally.heads += sure
            if sure and (commit < known[0] or head < known[1]):
                raise Violation(f"at {mesh.now} {node.name} gives {commit} and {head} as heads; acknowledged: {known}")

        node.ask_head(self.shard, self.room, answer)

    def _ask(self, node: Node, offset: int) -> None:
        entries = node.history(self.shard, self.room, offset)
        if entries is None:
            self.mesh.tally.counts["forwarded"] += 1
        elif entries:
            self.mesh.carry(partial(self._read, offset, entries))

    def _read(self, offset: int, entries: list[Entry]) -> None:
        truth = self.mesh.ledger.rooms[self.room]
        for i, entry in enumerate(entries, offset + 1):
            if entry.sequence != i or i > len(truth) or entry.wire != truth[i - 1].wire:
                raise Violation(f"at {self.mesh.now} a reader of {self.room} at {i - 1} is given {entry}")
        self.offset = max(self.offset, offset + len(entries))

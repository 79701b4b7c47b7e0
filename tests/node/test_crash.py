"""A node killed under load, ten times: what it acknowledged is there, once, in one order."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from tests.harness import mutants
from tests.harness.chat_socket import PATIENCE_SECONDS, ChatSocket, Lost, connected
from tests.harness.node_process import COMMAND, NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOM: Final = "crash"
KILLS: Final = 10
WRITERS: Final = 3
ACKS_PER_LIFE: Final = 30  # so that every kill meets a node that is writing
RECOVERY_ENTRIES: Final = 300  # the node recovers as many; who missed more pages through the history


@dataclass
class Tally:
    """What clients know at the end; written by their threads under `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    acknowledged: list[str] = field(default_factory=list)
    seen: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    written: bool = False
    read: bool = False

    def wait_acknowledged(self, number: int) -> None:
        """Return when so many publications are acknowledged, or there is a fault."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: bool(self.faults) or len(self.acknowledged) >= number, timeout=PATIENCE_SECONDS
            )
        assert done, f"{len(self.acknowledged)} of {number} publications were acknowledged"

    def wait_seen(self, top: int) -> None:
        """Return when the reader is so far, or there is a fault."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: bool(self.faults) or (bool(self.seen) and self.seen[-1][0] >= top), timeout=PATIENCE_SECONDS
            )
        assert done, f"the reader is at {self.seen[-1:]}, the room at {top}"

    def stop_writing(self) -> None:
        with self.changed:
            self.written = True

    def stop_reading(self) -> None:
        with self.changed:
            self.read = True

    def acknowledge(self, message_id: str) -> None:
        with self.changed:
            self.acknowledged.append(message_id)
            self.changed.notify_all()

    def see(self, publication: dict[str, Any]) -> None:
        with self.changed:
            self.seen.append((publication["offset"], publication["data"]["id"]))
            self.changed.notify_all()

    def fault(self, text: str) -> None:
        with self.changed:
            self.faults.append(text)
            self.changed.notify_all()

    def pause(self) -> None:
        """Let the node come back before the next attempt."""
        with self.changed:
            self.changed.wait(timeout=0.05)


@dataclass
class Writer:
    """Publishes until told to stop; what is not acknowledged is sent again with its id."""

    name: str
    tally: Tally
    message_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def done(self) -> bool:
        """Whether enough has been written."""
        return self.tally.written

    def run(self, socket: ChatSocket) -> None:
        while not self.done:
            reply = socket.publish(ROOM, self.message_id, f"from {self.name}")
            if "publish" in reply:
                self.tally.acknowledge(self.message_id)
                self.message_id = str(uuid4())
            elif not reply["error"].get("temporary"):
                self.tally.fault(f"{self.name} was refused: {reply}")
                return


@dataclass
class Reader:
    """Follows the room, resuming after every loss where its last publication was."""

    name: str
    tally: Tally
    epoch: str = ""
    offset: int = 0

    @property
    def done(self) -> bool:
        """Whether all has been read."""
        return self.tally.read

    def run(self, socket: ChatSocket) -> None:
        position = {"epoch": self.epoch, "offset": self.offset}
        reply = socket.ask("subscribe", {"channel": ROOM, "recover": True, "recoverable": True, **position})
        if reply.get("error", {}).get("temporary"):
            return
        result = reply.get("subscribe")
        if result is None or not self._may_go_on(result):
            self.tally.fault(f"the reader could not resume at {position}: {reply}")
            return
        self.epoch = result["epoch"]
        recovered = (
            result.get("publications", []) if result.get("recovered") else socket.pages(ROOM, self.offset, result)
        )
        for publication in recovered:
            self._take(publication)
        for push in socket.pushes():
            if "pub" in push:
                self._take(push["pub"])

    def _may_go_on(self, result: dict[str, Any]) -> bool:
        """Whether the room is still the same, and nothing is left to be paged that had to be recovered."""
        behind = result.get("offset", 0) - self.offset
        return self.epoch in ("", result["epoch"]) and (bool(result.get("recovered")) or behind > RECOVERY_ENTRIES)

    def _take(self, publication: dict[str, Any]) -> None:
        self.offset = publication["offset"]
        self.tally.see(publication)


def persist(client: Writer | Reader, url: str) -> None:
    """Run a client, with a new connection after every loss, until told to stop."""
    while not client.done:
        try:
            with connected(url, client.name) as socket:
                client.run(socket)
        except Lost:
            client.tally.pause()


def losses(acknowledged: list[str], entries: list[tuple[int, str]], seen: list[tuple[int, str]]) -> list[str]:
    """What breaks the promise, in words; nothing: it was kept.

    Args:
        acknowledged: Ids, in any order.
        entries: (sequence, id) of the whole history.
        seen: (offset, id) as a reader that resumed got them.
    """
    stored = Counter(message_id for _, message_id in entries)
    found = [f"{message_id} was acknowledged and is lost" for message_id in acknowledged if not stored[message_id]]
    found += [f"{message_id} is stored {number} times" for message_id, number in stored.items() if number > 1]
    sequences = [sequence for sequence, _ in entries]
    if sequences != list(range(1, len(entries) + 1)):
        found.append(f"the sequences are not dense: {sequences}")
    if seen != entries[: len(seen)] or len(seen) < len(entries):
        found.append(f"the reader saw another order: {seen} instead of {entries}")
    return found


@pytest.mark.parametrize(
    ("acknowledged", "entries", "seen"),
    [
        (["a", "b"], [(1, "a")], [(1, "a")]),
        (["a"], [(1, "a"), (2, "a")], [(1, "a"), (2, "a")]),
        (["a"], [(2, "a")], [(2, "a")]),
        (["a", "b"], [(1, "a"), (2, "b")], [(2, "b"), (1, "a")]),
        (["a", "b"], [(1, "a"), (2, "b")], [(1, "a"), (1, "a"), (2, "b")]),
        (["a", "b"], [(1, "a"), (2, "b")], [(1, "a")]),
    ],
    ids=["lost", "doubled", "hole", "disordered", "seen twice", "unseen"],
)
def test_the_checker_notices(
    acknowledged: list[str], entries: list[tuple[int, str]], seen: list[tuple[int, str]]
) -> None:
    assert losses(acknowledged, entries, seen)


def kill_under_load(node: NodeProcess, tally: Tally, life: int) -> None:
    """End a life when clients have got something out of it."""
    tally.wait_acknowledged(life * ACKS_PER_LIFE)
    tally.wait_seen(life * ACKS_PER_LIFE)
    node.restart()


def let_die(node: NodeProcess, _tally: Tally, _life: int) -> None:
    """Wait for a life's end, and begin another."""
    node.wait_ended()
    node.start()


def broken_promises(node: NodeProcess, lives: int, end_life: Callable[[NodeProcess, Tally, int], None]) -> list[str]:
    """What goes wrong while clients write and read for so many lives of a node, and in a last one, in words."""
    tally = Tally()
    with node:
        url = node.url
        clients = [*(Writer(f"writer-{number}", tally) for number in range(WRITERS)), Reader("reader", tally)]
        threads = [threading.Thread(target=persist, args=(client, url)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for life in range(1, lives + 1):
                if life == lives:
                    node.command = COMMAND
                end_life(node, tally, life)
            tally.wait_acknowledged((lives + 1) * ACKS_PER_LIFE)
            tally.stop_writing()
            for thread in threads[:-1]:
                thread.join(PATIENCE_SECONDS)
            with connected(url, "checker") as socket:
                entries = socket.history(ROOM)
            tally.wait_seen(entries[-1][0])
        finally:
            tally.stop_writing()
            tally.stop_reading()
            node.kill()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return tally.faults + losses(tally.acknowledged, entries, tally.seen)


@pytest.mark.slow
def test_a_node_killed_ten_times_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    assert broken_promises(NodeProcess(tmp_path), KILLS, kill_under_load) == []


@pytest.mark.slow
def test_a_node_that_dies_between_a_commit_and_its_answers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, command=mutants.command("die_unanswered"))
    assert broken_promises(node, 2, let_die) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutations", "end_life", "words"),
    [
        (["acknowledge_early"], kill_under_load, "was acknowledged and is lost"),
        (["lose_tail"], kill_under_load, "was acknowledged and is lost"),
        (["die_unanswered", "forget_ids"], let_die, "is stored 2 times"),
    ],
)
def test_a_node_with_a_fault_is_noticed(
    tmp_path: Path,
    mutations: list[str],
    end_life: Callable[[NodeProcess, Tally, int], None],
    words: str,
) -> None:
    found = broken_promises(NodeProcess(tmp_path, command=mutants.command(*mutations)), 2, end_life)
    assert [fault for fault in found if words in fault], found

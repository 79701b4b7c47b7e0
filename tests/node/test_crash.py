"""A node killed under load, ten times: what it acknowledged is there, once, in one order."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.harness.node_process import NodeProcess, token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOM: Final = "crash"
KILLS: Final = 10
WRITERS: Final = 3
ACKS_PER_LIFE: Final = 30  # so that every kill meets a node that is writing
RECOVERY_ENTRIES: Final = 300  # the node recovers as many; who missed more pages through the history
PAGE_ENTRIES: Final = 100
PATIENCE_SECONDS: Final = 30  # for one answer, and for one life; never reached


class Lost(Exception):
    """The node went away."""


class Socket:
    """A connection that asks one thing after another, and keeps the pushes that come between."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._id = 0
        self._read: deque[dict[str, Any]] = deque()
        self._pushed: deque[dict[str, Any]] = deque()

    def ask(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole reply: the result under the command's name, or `error`."""
        self._id += 1
        self._connection.send(json.dumps({"id": self._id, name: body}))
        while True:
            message = self._next()
            if message.get("id") == self._id:
                return message
            self._pushed.append(message["push"])

    def pushes(self) -> Iterator[dict[str, Any]]:
        """Pushes in the order in which they came, without end."""
        while True:
            yield self._pushed.popleft() if self._pushed else self._next()["push"]

    def _next(self) -> dict[str, Any]:
        """A reply or push; pings are answered."""
        while True:
            while not self._read:
                self._read.extend(map(json.loads, self._connection.recv(timeout=PATIENCE_SECONDS).splitlines()))
            if message := self._read.popleft():
                return message
            self._connection.send("{}")


@contextmanager
def connected(url: str, user: str) -> Iterator[Socket]:
    """A connection of a user.

    Raises:
        Lost: There is none, or it broke while it was used.
    """
    try:
        with connect(url, proxy=None, open_timeout=PATIENCE_SECONDS) as connection:
            socket = Socket(connection)
            socket.ask("connect", {"token": token(user)})
            yield socket
    except (OSError, EOFError, WebSocketException) as error:
        raise Lost from error


@dataclass
class Tally:
    """What clients know at the end; written by their threads under `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    acknowledged: list[str] = field(default_factory=list)
    seen: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stopping: bool = False

    def wait_acknowledged(self, number: int) -> None:
        with self.changed:
            done = self.changed.wait_for(
                lambda: bool(self.faults) or len(self.acknowledged) >= number, timeout=PATIENCE_SECONDS
            )
        assert not self.faults, self.faults
        assert done, f"{len(self.acknowledged)} of {number} publications were acknowledged"

    def wait_seen(self, top: int) -> None:
        with self.changed:
            done = self.changed.wait_for(
                lambda: bool(self.faults) or (bool(self.seen) and self.seen[-1][0] >= top), timeout=PATIENCE_SECONDS
            )
        assert not self.faults, self.faults
        assert done, f"the reader is at {self.seen[-1:]}, the room at {top}"

    def stop(self) -> None:
        with self.changed:
            self.stopping = True

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

    def run(self, socket: Socket) -> None:
        while not self.tally.stopping:
            data = {"id": self.message_id, "content": f"from {self.name}"}
            reply = socket.ask("publish", {"channel": ROOM, "data": data})
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

    def run(self, socket: Socket) -> None:
        position = {"epoch": self.epoch, "offset": self.offset}
        reply = socket.ask("subscribe", {"channel": ROOM, "recover": True, "recoverable": True, **position})
        if reply.get("error", {}).get("temporary"):
            return
        result = reply.get("subscribe")
        if result is None or not self._may_go_on(result):
            self.tally.fault(f"the reader could not resume at {position}: {reply}")
            return
        self.epoch = result["epoch"]
        recovered = result.get("publications", []) if result.get("recovered") else pages(socket, self.offset, result)
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
    while not client.tally.stopping:
        try:
            with connected(url, client.name) as socket:
                client.run(socket)
        except Lost:
            client.tally.pause()


def pages(socket: Socket, offset: int, top: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Publications of the room after an offset up to a position, as somebody who pages through them gets them."""
    while offset < top["offset"]:
        since = {"epoch": top["epoch"], "offset": offset}
        limit = min(PAGE_ENTRIES, top["offset"] - offset)
        page = socket.ask("history", {"channel": ROOM, "limit": limit, "since": since})["history"]
        publications = page.get("publications", [])
        assert publications, f"the history ends at {since}, the room at {top}"
        yield from publications
        offset = publications[-1]["offset"]


def history(url: str) -> list[tuple[int, str]]:
    """Sequence and id of every message of the room."""
    with connected(url, "checker") as socket:
        top = socket.ask("history", {"channel": ROOM, "limit": 0})["history"]
        found = list(pages(socket, 0, top))
    assert all(publication["offset"] == publication["data"]["sequence"] for publication in found)
    return [(publication["offset"], publication["data"]["id"]) for publication in found]


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


@pytest.mark.slow
def test_a_node_killed_ten_times_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    tally = Tally()
    with NodeProcess(tmp_path) as node:
        url = node.url
        clients = [*(Writer(f"writer-{number}", tally) for number in range(WRITERS)), Reader("reader", tally)]
        threads = [threading.Thread(target=persist, args=(client, url)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for life in range(1, KILLS + 1):
                tally.wait_acknowledged(life * ACKS_PER_LIFE)
                tally.wait_seen(life * ACKS_PER_LIFE)
                node.restart()
            tally.wait_acknowledged((KILLS + 1) * ACKS_PER_LIFE)
            tally.stop()
            for thread in threads[:-1]:
                thread.join(PATIENCE_SECONDS)
            entries = history(url)
            tally.wait_seen(entries[-1][0])
        finally:
            tally.stop()
            node.kill()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert losses(tally.acknowledged, entries, tally.seen) == []

"""What hostile clients take of a node's memory comes back when they are gone."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from websockets.frames import Frame, Opcode

from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS: Final = 4
HOARDERS: Final = 250  # each makes the node keep most of a message that never ends
SLOW: Final = 10
FLOODERS: Final = 10
FLOOD: Final = 100  # publications in one message
OUTPUT_BYTES: Final = 65_536
MESSAGE_BYTES: Final = 65_536
GROWTH: Final = 1.2
"""Of all memory, from the second round to the last; it is 1.06, and 1.3 if no connection is forgotten."""

UPGRADE: Final = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RETURNING: Final = (
    "chat_node_connections",
    "chat_node_output_bytes",
    "chat_node_rooms",
    "chat_node_log_queue_entries",
)


def masked(data: bytes) -> bytes:
    return Frame(Opcode.TEXT, data).serialize(mask=True)


def commands(*given: dict[str, Any]) -> bytes:
    return masked(b"\n".join(json.dumps(command).encode() for command in given))


class Crowd:
    """Connections of clients that mean harm; they are cut off at the end."""

    def __init__(self, port: int, sockets: ExitStack) -> None:
        self._port = port
        self._sockets = sockets

    def hoard(self) -> None:
        """Send a message but for its end."""
        self._open().sendall(UPGRADE + masked(b"x" * (MESSAGE_BYTES - 1))[:-1])

    def begin_head(self) -> None:
        """Send a request but for its end."""
        self._open().sendall(UPGRADE[:-2] + b"cookie: " + b"x" * 4000)

    def oversize(self) -> None:
        """Send more than a message may have."""
        self._open().sendall(UPGRADE + masked(b"x" * (MESSAGE_BYTES + 1)))

    def flood(self, name: str) -> None:
        """Publish much at once, and listen to no answer."""
        publishes = (
            {"id": 2 + n, "publish": {"channel": "flood", "data": {"id": f"{name}-{n}", "content": "x"}}}
            for n in range(FLOOD)
        )
        self._open().sendall(UPGRADE + commands({"id": 1, "connect": {}}, *publishes))

    def lag(self) -> None:
        """Subscribe, and read no more than that it is done."""
        sock = self._open()
        sock.sendall(UPGRADE + commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "slow"}}))
        heard = b""
        while b'"id":2' not in heard:
            more = sock.recv(1024)
            assert more, heard
            heard += more

    def _open(self) -> socket.socket:
        sock = self._sockets.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self._port))
        return sock


def besiege(node: NodeProcess, number: int) -> None:
    """One round, from the first connection until the last is gone."""
    before = node.metrics()
    with ExitStack() as sockets:
        crowd = Crowd(node.port, sockets)
        for _ in range(HOARDERS):
            crowd.hoard()
        for each in range(FLOODERS):
            crowd.flood(f"{number}-{each}")
            crowd.oversize()
            crowd.begin_head()
        for _ in range(SLOW):
            crowd.lag()
        with connected(node.url, "ann") as ann:
            for each in range(1000):
                assert "publish" in ann.publish("slow", f"slow-{number}-{each}", "x" * 8000)
                if each % 25 == 0 and grown(node, before, "chat_node_slow_closes_total") == SLOW:
                    break
        taken = HOARDERS + 3 * FLOODERS + SLOW + 1
        wait_for("all were taken", lambda: grown(node, before, "chat_node_connections_accepted_total") >= taken)
        oversized = 'chat_node_connections_closed_total{code="1009"}'
        wait_for("who said too much is closed", lambda: grown(node, before, oversized) >= FLOODERS)
        assert grown(node, before, "chat_node_slow_closes_total") == SLOW
    wait_for("all have gone", lambda: not any(node.metrics()[name] for name in RETURNING))


def grown(node: NodeProcess, before: dict[str, float], name: str) -> float:
    return node.metrics()[name] - before.get(name, 0.0)


@pytest.mark.slow
def test_what_hostile_clients_take_comes_back(tmp_path: Path) -> None:
    settings = {  # and nothing of what the node keeps on purpose
        "LIMITS__OUTPUT_BYTES": OUTPUT_BYTES,
        "LIMITS__RECOVERY_BYTES": OUTPUT_BYTES // 2,
        "LOG__CACHE_BYTES": 0,
        "LIMITS__MESSAGE_BYTES": MESSAGE_BYTES,
    }
    with NodeProcess(tmp_path, settings=settings) as node:
        resident = []
        for number in range(ROUNDS):
            besiege(node, number)
            resident.append(node.metrics()["process_resident_memory_bytes"])
        assert resident[-1] <= resident[1] * GROWTH, resident
        with connected(node.url, "ann") as ann:
            assert "publish" in ann.publish("lobby", "m1")
    assert not node.lines("connection failed")

"""A node that has no more file descriptors: who is there chats on, and who comes later gets in when others leave."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from node import descriptors
from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTORS: Final = 80  # a node that nobody uses has about 30
CROWD: Final = 100
MESSAGES: Final = 100
PAUSE_SECONDS: Final = 1.0  # between two attempts to accept, as node/hub.py says
EVENT: Final = "no more sockets"
REFUSED: Final = 'chat_node_connections_refused_total{reason="descriptors"}'


@pytest.mark.parametrize("connections", [0, 1, 1000 - descriptors.RESERVED])
def test_who_asks_for_no_more_than_there_is_is_told_nothing(connections: int) -> None:
    assert descriptors.notices(connections, 1000) == []


def test_who_asks_for_more_connections_than_there_are_descriptors_is_told_the_mend() -> None:
    (told,) = descriptors.notices(489, 1000)
    assert told.startswith("limits.connections = 489 is more than this process's limit of 1000 open files")
    assert "Give at most 488" in told


@pytest.mark.slow
def test_without_descriptors_clients_chat_on_and_others_wait(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, settings={"LIMITS__CONNECTIONS": 10_000}, descriptors=DESCRIPTORS)
    with node, connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
        for client in (ann, bob):
            assert "error" not in client.ask("subscribe", {"channel": "room"})
        began = time.monotonic()
        with ExitStack() as crowd:
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=30))
            assert "limits.connections = 10000 is more than" in node.log.read_text()
            line = node.wait_line(EVENT)
            assert line["mend"] == "raise the limit of open files"

            heard = bob.pushes()
            for number in range(MESSAGES):
                assert "publish" in ann.publish("room", f"m{number}")
                assert next(heard)["pub"]["data"]["id"] == f"m{number}"

            # Each message is several turns of the hub: one that tried at every turn would have tried hundreds of times.
            told = len(node.lines(EVENT))
            assert told <= (time.monotonic() - began) / PAUSE_SECONDS + 2

        with connected(node.url, "eve") as eve:
            assert eve.history("room") == [(number + 1, f"m{number}") for number in range(MESSAGES)]
        wait_for("the crowd is gone", lambda: node.metrics()["chat_node_connections"] == 2)
        assert told <= node.metrics()[REFUSED] <= (time.monotonic() - began) / PAUSE_SECONDS + 2 + CROWD  # who left
    assert not node.lines("connection failed")


@pytest.mark.slow
def test_by_default_a_node_refuses_connections_before_it_runs_out(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, descriptors=DESCRIPTORS) as node, ExitStack() as crowd:
        ann = crowd.enter_context(connected(node.url, "ann"))
        address = ("127.0.0.1", node.port)
        sockets = [crowd.enter_context(socket.create_connection(address, timeout=30)) for _ in range(CROWD)]
        told = sockets[-1].recv(4096)
        assert "publish" in ann.publish("room", "m1")
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in told
        assert b"as many connections as it may" in told
        assert not node.lines(EVENT)
        assert REFUSED not in node.metrics()

"""The hub with an echo behind it, for conformance suites: the same framing, limits and output path as the chat's."""

from __future__ import annotations

import os
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from node.admission import Admission
from node.framing import WEB_SOCKET_TEXT, Wire
from node.hub import Hub, HubOptions
from node.listening import open_listeners
from node.metrics import Metrics
from node.origins import Pages
from node.protocol import JsonCodec
from node.sites import Site, Sites
from node.websocket import BINARY, binary_frame, text_frame

if TYPE_CHECKING:
    from node.connection import Connection

MESSAGE_BYTES = 16 << 20  # conformance suites send messages of 16 MiB
EVERY_PAGE = Pages(Sites([Site("echo", origins=("*",))]))
OUTPUT_BYTES = 256 << 20


class EchoSession:
    """Gives back every message as it came."""

    __slots__ = ("_connection", "deadline")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.deadline = inf

    def receive(self, payload: bytes, now: float) -> None:  # noqa: ARG002 - the hub's signature
        """Echo it."""
        frame = binary_frame if self._connection.opcode == BINARY else text_frame
        self._connection.put(frame(payload))

    def on_time(self, now: float) -> None:
        """Nothing is ever due."""

    def closed(self) -> None:
        """Nothing is kept."""


class Idle:
    """No work besides the sockets."""

    def __init__(self, wake: int) -> None:
        self.turn = self.drain = self.distribute = _nothing
        self.wake = wake


def _nothing() -> None:
    """Do nothing."""


async def serve(host: str, port: int, *, task_status: trio.TaskStatus[int]) -> None:
    """Serve echoes at any path of `/`; gives the port."""
    listeners = open_listeners(host, port, 128, "--port")
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        hub = Hub(
            listeners,
            HubOptions(websocket_path="/", message_bytes=MESSAGE_BYTES, output_bytes=OUTPUT_BYTES),
            metrics=Metrics(), admission=Admission(1000, 0), pages=EVERY_PAGE,
            wire=Wire(JsonCodec(1), WEB_SOCKET_TEXT), open_session=lambda connection, _: EchoSession(connection),
            work=Idle(wake), wake=wake,
        )  # fmt: skip
        task_status.started(listeners[0].getsockname()[1])
        await hub.run()
    finally:
        os.close(wake)


def run(host: str, port: int) -> None:
    """Serve until interrupted; says where."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(partial(serve, host, port))
            print(f"echo server at ws://{host}:{bound}/", flush=True)  # noqa: T201 - what a person waits for

    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass  # how a person ends it

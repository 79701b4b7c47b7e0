"""A TCP balancer before nodes, as one stands before those that unmodified SDKs find under one URL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from tests.harness.tcp_proxy import TcpProxy, connect, listen

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence

    from tests.harness.tcp_proxy import Address, SocketMaker

ASK_SECONDS: Final = 0.25  # from one question for readiness to the next
ANSWER_SECONDS: Final = 1.0  # for an answer; without one a node is not ready
DIAL_SECONDS: Final = 1.0  # for a connection; then the next node is tried
MOST_ANSWER_BYTES: Final = 4096


class TcpBalancer:
    """Sends each connection to the next node of those that say that they are ready.

    A connection stays where it is, also when its node is not ready any more: the node itself says when to go.

    Args:
        nodes: Addresses of their public ports.
        make_socket: Makes sockets on the host that it runs on; None: on this machine.
    """

    def __init__(self, nodes: Sequence[Address], make_socket: SocketMaker | None = None) -> None:
        self._nodes, self._make_socket = list(nodes), make_socket
        self._ready: set[Address] = set()
        self._changed = trio.Event()
        self._next = 0

    @property
    def ready(self) -> frozenset[Address]:
        """The nodes that were ready when they were asked last."""
        return frozenset(self._ready)

    async def wait_ready(self, number: int) -> None:
        """Wait until exactly so many nodes are ready."""
        await trio.lowlevel.checkpoint()
        while len(self._ready) != number:
            await self._changed.wait()

    async def watch(self) -> None:
        """Ask all nodes again and again."""
        async with trio.open_nursery() as nursery:
            for node in self._nodes:
                nursery.start_soon(self._watch, node)

    async def dial(self) -> trio.SocketStream:
        """A connection to the next node that is ready and takes one.

        Raises:
            OSError: There is none.
        """
        for _ in self._nodes:
            node = self._nodes[self._next % len(self._nodes)]
            self._next += 1
            if node not in self._ready:
                continue
            try:
                with trio.fail_after(DIAL_SECONDS):
                    return await connect(node, self._make_socket)
            except (OSError, trio.TooSlowError):
                self._note(node, ready=False)
        await trio.lowlevel.checkpoint()
        raise OSError(f"none of {len(self._nodes)} nodes is ready")

    async def _watch(self, node: Address) -> None:
        while True:
            self._note(node, ready=await self._is_ready(node))
            await trio.sleep(ASK_SECONDS)

    async def _is_ready(self, node: Address) -> bool:
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                async with await connect(node, self._make_socket) as stream:
                    request = f"GET /health/ready HTTP/1.1\r\nHost: {node[0]}:{node[1]}\r\nConnection: close\r\n\r\n"
                    await stream.send_all(request.encode())
                    answer = b""
                    while b"\r\n" not in answer and len(answer) < MOST_ANSWER_BYTES:
                        chunk = await stream.receive_some()
                        if not chunk:
                            break
                        answer += chunk
                    return answer.split(b" ", 2)[1:2] == [b"200"]
            except (OSError, trio.BrokenResourceError):
                return False
        return False

    def _note(self, node: Address, *, ready: bool) -> None:
        if ready != (node in self._ready):
            (self._ready.add if ready else self._ready.discard)(node)
            self._changed.set()
            self._changed = trio.Event()


@asynccontextmanager
async def open_balancer(
    nodes: Sequence[Address],
    drawn: random.Random,
    host: str = "127.0.0.1",
    make_socket: SocketMaker | None = None,
) -> AsyncIterator[tuple[TcpBalancer, TcpProxy]]:
    """A balancer that runs, and the proxy through which its connections go."""
    balancer = TcpBalancer(nodes, make_socket)
    proxy = TcpProxy(balancer.dial, drawn)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.watch)
        await nursery.start(proxy.serve, await listen(host, make_socket))
        yield balancer, proxy
        nursery.cancel_scope.cancel()

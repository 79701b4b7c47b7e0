"""The proxy passes everything on, whatever it does to when; the balancer sends connections where they are welcome."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from tests.harness.tcp_balancer import TcpBalancer, open_balancer
from tests.harness.tcp_proxy import TcpProxy, connect, listen, open_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.tcp_proxy import Address

PATIENCE_SECONDS = 20


class Drawn(random.Random):
    """Gives what it was told to."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self.values = list(values)

    @override
    def random(self) -> float:
        return self.values.pop(0) if self.values else 0.0


@asynccontextmanager
async def echo() -> AsyncIterator[Address]:
    """A server that says everything again, and ends when its client does."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async for chunk in stream:
                await stream.send_all(chunk)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listening = await listen("127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listening])
        yield listening.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def proxied(*values: float) -> AsyncIterator[TcpProxy]:
    with trio.fail_after(PATIENCE_SECONDS):
        async with echo() as server, open_proxy(server, Drawn(*values)) as proxy:
            yield proxy


async def asked(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    return await heard(stream, len(text))


async def heard(stream: trio.SocketStream, size: int) -> bytes:
    text = b""
    while len(text) < size:
        chunk = await stream.receive_some(size - len(text))
        assert chunk, text
        text += chunk
    return text


async def test_everything_passes_both_ways_and_so_does_the_end() -> None:
    text = random.Random(1).randbytes(3_000_000)
    async with proxied() as proxy, await connect(proxy.address) as client:
        got = b""

        async def hear() -> None:
            nonlocal got
            async for chunk in client:
                got += chunk

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            await client.send_all(text)
            await client.send_eof()
        assert got == text
        assert proxy.accepted == 1


async def test_what_is_delayed_comes_no_earlier_and_in_order() -> None:
    async with proxied() as proxy:
        proxy.delay(0.05)
        async with await connect(proxy.address) as client:
            began = trio.current_time()
            await client.send_all(b"one ")
            assert await asked(client, b"two") + await heard(client, 4) == b"one two"
            assert trio.current_time() - began >= 0.1


async def test_connections_of_different_lateness_overtake_each_other() -> None:
    async with proxied(1.0, 0.0) as proxy:
        proxy.delay(0.0, jitter=0.3)
        async with await connect(proxy.address) as late:
            assert await asked(late, b"there") == b"there"
            async with await connect(proxy.address) as early:
                heard_of = []

                async def hear(stream: trio.SocketStream, name: str) -> None:
                    await heard(stream, 1)
                    heard_of.append(name)

                await late.send_all(b"1")
                await early.send_all(b"2")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hear, late, "late")
                    nursery.start_soon(hear, early, "early")
                assert heard_of == ["early", "late"]


async def test_a_stalled_path_keeps_what_it_was_given() -> None:
    async with proxied() as proxy, await connect(proxy.address) as client:
        assert await asked(client, b"before") == b"before"
        proxy.stall()
        await client.send_all(b"during")
        with trio.move_on_after(0.05) as scope:
            await client.receive_some()
        assert scope.cancelled_caught
        proxy.flow()
        assert await heard(client, 6) == b"during"


async def test_a_reset_breaks_all_connections_and_new_ones_pass() -> None:
    async with proxied() as proxy, await connect(proxy.address) as one, await connect(proxy.address) as other:
        for client in (one, other):
            assert await asked(client, b"before") == b"before"
        assert proxy.reset() == 2
        for client in (one, other):
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        async with await connect(proxy.address) as new:
            assert await asked(new, b"after") == b"after"
            assert proxy.connections == 1


async def test_nobody_behind_the_proxy_ends_the_connection() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        listening = await listen("127.0.0.1")
        gone = listening.socket.getsockname()[:2]
        await listening.aclose()
        async with open_proxy(gone, random.Random(0)) as proxy, await connect(proxy.address) as client:
            assert await client.receive_some() == b""


# -- the balancer -------------------------------------------------------------------------------------------------


class FakeNode:
    """Answers what it is told to: to who asks for its readiness with a status, to all others with its name."""

    def __init__(self, name: str) -> None:
        self.name, self.status = name, 200
        self.address: Address = ("", 0)

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            said = await stream.receive_some()
            answer = f"HTTP/1.1 {self.status} What\r\n\r\n" if said.startswith(b"GET /health/ready ") else self.name
            await stream.send_all(answer.encode())
        except trio.BrokenResourceError:
            pass

    async def run(self, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            listening = await listen("127.0.0.1")
            self.address = listening.socket.getsockname()[:2]
            task_status.started(scope)
            await trio.serve_listeners(self.serve, [listening])


async def who(proxy: TcpProxy) -> str:
    """The name of whom a connection gets to; empty: it is ended."""
    async with await connect(proxy.address) as client:
        try:
            await client.send_all(b"who?")
            return (await client.receive_some()).decode()
        except trio.BrokenResourceError:
            return ""


@asynccontextmanager
async def balanced(*nodes: FakeNode) -> AsyncIterator[tuple[TcpBalancer, TcpProxy, list[trio.CancelScope]]]:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            running = [await nursery.start(node.run) for node in nodes]
            async with open_balancer([node.address for node in nodes], random.Random(0)) as (balancer, proxy):
                await balancer.wait_ready(len([node for node in nodes if node.status == 200]))
                yield balancer, proxy, running
            nursery.cancel_scope.cancel()


async def test_connections_go_round_the_nodes_that_are_ready() -> None:
    nodes = [FakeNode("a"), FakeNode("b"), FakeNode("c")]
    async with balanced(*nodes) as (balancer, proxy, _):
        first = [await who(proxy) for _ in range(6)]
        assert sorted(first[:3]) == ["a", "b", "c"]
        assert first[3:] == first[:3]
        nodes[1].status = 503
        await balancer.wait_ready(2)
        assert {await who(proxy) for _ in range(6)} == {"a", "c"}
        nodes[1].status = 200
        await balancer.wait_ready(3)
        assert {await who(proxy) for _ in range(3)} == {"a", "b", "c"}


async def test_a_node_that_is_gone_is_passed_over_before_it_is_asked_again() -> None:
    nodes = [FakeNode("a"), FakeNode("b")]
    async with balanced(*nodes) as (_, proxy, running):
        running[0].cancel()
        assert {await who(proxy) for _ in range(4)} == {"b"}


async def test_without_a_ready_node_connections_end() -> None:
    node = FakeNode("a")
    node.status = 503
    async with balanced(node) as (balancer, proxy, _):
        assert await who(proxy) == ""
        assert balancer.ready == frozenset()

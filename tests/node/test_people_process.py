"""People on three real nodes: they see each other type and read, are counted everywhere, and are reached everywhere."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from node.client import ConnectionEnded, Joined, Left, Publication, SubscriptionEnded, open_client
from tests.harness.api import KEY, post
from tests.harness.mesh_process import MeshProcess
from tests.harness.node_process import token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from node.client import Client, Subscription

ROOM: Final = "lobby"
SECONDS: Final = 60  # for whatever a test waits for; never reached
SETTINGS: Final = {
    "API__KEYS": KEY,
    "LISTEN__API_ON_PUBLIC_PORT": "true",
    "KINDS__CHAT__SCHEMA": "chat",
    "KINDS__CHAT__PRESENCE": "roster",
    "KINDS__CHAT__JOIN_LEAVE": "on",
    "ROOMS__DEFAULT_KIND": "chat",
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    with MeshProcess(tmp_path_factory.mktemp("people"), settings=SETTINGS) as running:
        yield running


class Guest:
    """A user at a node, in the room."""

    def __init__(self, user: str, client: Client, room: Subscription) -> None:
        self.user, self.client, self.room = user, client, room

    async def hear(self, fits: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - an event
        """The first event that fits."""
        with trio.fail_after(SECONDS):
            async for event in self.room:
                if fits(event):
                    return event
        raise AssertionError("the subscription ended")

    async def wait_counted(self, number: int) -> None:
        """Until this one's node says that so many are in the room."""
        with trio.fail_after(SECONDS):
            while await self.client.presence_stats(ROOM) != (number, number):  # noqa: ASYNC110 - a node is asked
                await trio.sleep(0.05)


@asynccontextmanager
async def guests(mesh: MeshProcess) -> AsyncIterator[dict[str, Guest]]:
    """One at each node, by its name; all are seen by all."""
    async with AsyncExitStack() as stack:
        there: dict[str, Guest] = {}
        for name, node in mesh.nodes.items():
            client = await stack.enter_async_context(open_client(node.url, token=token(f"at-{name}")))
            room = await stack.enter_async_context(client.subscribe(ROOM, join_leave=True))
            there[name] = Guest(f"at-{name}", client, room)
        for guest in there.values():
            await guest.wait_counted(len(there))
        yield there


async def act(mesh: MeshProcess, name: str, method: str, **request: object) -> None:
    """Ask a node's API, which must say that it is done."""
    answer = await trio.to_thread.run_sync(post, mesh.nodes[name].public, method, request)
    assert answer.body == {"result": {}}, answer


def says(kind: str, user: str) -> Callable[[Any], bool]:
    return lambda event: (
        isinstance(event, Publication) and event.data["type"] == kind and event.data.get("userId") == user
    )


def of(kind: type[Joined | Left], user: str) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, kind) and event.info.user == user


async def test_people_see_each_other_over_all_nodes(mesh: MeshProcess) -> None:
    async with guests(mesh) as there:
        rosters = [await guest.client.presence(ROOM) for guest in there.values()]
        assert {info.user for info in rosters[0].values()} == {"at-n1", "at-n2", "at-n3"}
        assert rosters[0] == rosters[1] == rosters[2]
        assert post(mesh.nodes["n2"].public, "presence_stats", {"channel": ROOM}).body == {
            "result": {"num_clients": 3, "num_users": 3}
        }
        # Whose subscription has not reached the other node yet is not heard there: it may get lost.
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:

                async def type_on() -> None:
                    while True:
                        await there["n1"].client.typing(ROOM)
                        await trio.sleep(0.1)

                nursery.start_soon(type_on)
                for name in ("n2", "n3"):
                    await there[name].hear(says("typing", "at-n1"))
                nursery.cancel_scope.cancel()
        sequence = (await there["n2"].client.send(ROOM, "hello"))["sequence"]
        await there["n3"].hear(lambda event: isinstance(event, Publication) and event.offset == sequence)
        await there["n3"].client.read(ROOM, sequence)
        assert (await there["n1"].hear(says("read", "at-n3"))).data["sequence"] == sequence
        async with open_client(mesh.nodes["n2"].url, token=token("late")) as late:
            async with late.subscribe(ROOM):
                await there["n1"].hear(of(Joined, "late"))
                await there["n1"].wait_counted(4)
            await there["n1"].hear(of(Left, "late"))
        await there["n3"].wait_counted(3)


async def test_the_api_of_a_node_reaches_users_of_others(mesh: MeshProcess) -> None:
    async with guests(mesh) as there:
        await act(mesh, "n1", "unsubscribe", user="at-n2", channel=ROOM)
        with pytest.raises(SubscriptionEnded):
            await there["n2"].hear(lambda _: False)
        await there["n1"].wait_counted(2)
        await act(mesh, "n1", "disconnect", user="at-n3")
        with pytest.raises(ConnectionEnded):
            await there["n3"].hear(lambda _: False)
        await there["n1"].wait_counted(1)
        bad = post(mesh.nodes["n1"].public, "disconnect", {"user": "u", "disconnect": {"code": 1, "reason": ""}})
        assert bad.body["error"]["code"] == 107


async def test_a_ban_removes_a_user_at_another_node(mesh: MeshProcess) -> None:
    async with guests(mesh) as there:
        await act(mesh, "n1", "ban", channel=ROOM, user="at-n2")
        with pytest.raises(SubscriptionEnded):
            await there["n2"].hear(lambda _: False)
        await there["n3"].wait_counted(2)
        await act(mesh, "n3", "kick", channel=ROOM, user="at-n1")
        with pytest.raises(SubscriptionEnded):
            await there["n1"].hear(lambda _: False)
        await there["n3"].wait_counted(1)
        await act(mesh, "n1", "unban", channel=ROOM, user="at-n2")


async def test_the_people_of_a_killed_node_are_gone_with_it(mesh: MeshProcess) -> None:
    async with guests(mesh) as there:
        mesh.nodes["n3"].kill()
        await there["n1"].wait_counted(2)
        await there["n2"].wait_counted(2)
        assert {info.user for info in (await there["n1"].client.presence(ROOM)).values()} == {"at-n1", "at-n2"}
        mesh.nodes["n3"].start()
        await there["n1"].wait_counted(3)  # the client of the killed node has come back to it

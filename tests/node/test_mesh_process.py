"""Three real nodes and a central: whatever is killed, what was acknowledged stays, once and in one order."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest
import trio
from typer.testing import CliRunner

from node.cli import app
from node.client import OutcomeUnknown, Publication, open_client
from tests.harness.mesh_process import MeshProcess
from tests.harness.node_process import NodeProcess, token, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from node.client import Client

ROOM: Final = "lobby"
SECONDS: Final = 60  # for whatever a test waits for; never reached


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[MeshProcess]:
    with MeshProcess(tmp_path) as running:
        yield running


async def say(url: str, user: str, contents: list[str]) -> list[int]:
    """Send messages one after the other, each until it is acknowledged; gives their sequences."""
    places: list[int] = []
    async with open_client(url, token=token(user)) as client:
        for content in contents:
            place = await _insist(client, content, f"{user}-{content}")
            places.append(place)
    return places


async def _insist(client: Client, content: str, name: str) -> int:
    while True:
        try:
            return (await client.send(ROOM, content, id=name))["sequence"]
        except OutcomeUnknown:
            continue


async def read(url: str, upto: int) -> list[tuple[int, str]]:
    """The room's messages from the first to one of a sequence, as a newcomer is given them."""
    found: list[tuple[int, str]] = []
    with trio.fail_after(SECONDS):
        async with open_client(url, token=token("reader")) as client, client.subscribe(ROOM, since=0) as events:
            async for event in events:
                assert isinstance(event, Publication), event
                if event.offset:
                    found.append((event.offset, event.data["id"]))
                if event.offset >= upto:
                    return found
    raise AssertionError("the subscription ended")


async def test_messages_from_all_nodes_are_one_room(mesh: MeshProcess) -> None:
    said: dict[str, list[int]] = {}

    async def speak(name: str, url: str) -> None:
        said[name] = await say(url, name, [str(n) for n in range(20)])

    async with trio.open_nursery() as nursery:
        for name, node in mesh.nodes.items():
            nursery.start_soon(speak, name, node.url)
    places = sorted(place for own in said.values() for place in own)
    assert places == list(range(1, 61))
    assert all(own == sorted(own) for own in said.values())
    seen = [await read(node.url, 60) for node in mesh.nodes.values()]
    assert seen[0] == seen[1] == seen[2]
    assert [place for place, _ in seen[0]] == places
    assert {name: [p for p, message in seen[0] if message.startswith(f"{name}-")] for name in said} == said


@pytest.mark.parametrize("victim", ["primary", "backup"])
async def test_a_killed_node_takes_nothing_with_it_and_comes_back(mesh: MeshProcess, victim: str) -> None:
    before = await say(mesh.nodes["n1"].url, "early", ["0", "1", "2"])
    primary = mesh.primary_of(ROOM)
    killed = primary if victim == "primary" else next(name for name in mesh.nodes if name != primary)
    staying = [node for name, node in mesh.nodes.items() if name != killed]
    followed: list[list[tuple[int, str]]] = []

    async def follow(url: str) -> None:
        followed.append(await read(url, 63))

    said: list[int] = []

    async def speak(user: str, url: str) -> None:
        said.extend(await say(url, user, [str(n) for n in range(30)]))

    with trio.fail_after(2 * SECONDS):
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(staying):
                nursery.start_soon(follow, node.url)
                nursery.start_soon(speak, f"u{number}", node.url)
            await trio.sleep(0.2)
            mesh.nodes[killed].kill()
    assert sorted(before + said) == list(range(1, 64))
    mesh.nodes[killed].start()
    followed.append(await read(mesh.nodes[killed].url, 63))
    assert followed[0] == followed[1] == followed[2]
    assert [place for place, _ in followed[0]] == list(range(1, 64))
    assert len({message for _, message in followed[0]}) == 63


async def test_all_nodes_killed_at_once_have_everything_when_they_are_back(mesh: MeshProcess) -> None:
    await say(mesh.nodes["n2"].url, "early", ["0", "1", "2"])
    for node in mesh.nodes.values():
        node.kill()
    for node in mesh.nodes.values():
        node.start()
    assert await say(mesh.nodes["n3"].url, "late", ["0"]) == [4]
    seen = [await read(node.url, 4) for node in mesh.nodes.values()]
    assert seen[0] == seen[1] == seen[2] == [(1, "early-0"), (2, "early-1"), (3, "early-2"), (4, "late-0")]


async def test_nodes_go_on_without_the_central_and_take_over_when_it_is_back(mesh: MeshProcess) -> None:
    url = mesh.nodes["n1"].url
    await say(url, "early", ["0"])
    primary = mesh.primary_of(ROOM)
    staying = next(node for name, node in mesh.nodes.items() if name != primary)
    mesh.kill_central()
    assert await say(staying.url, "meanwhile", ["0", "1"]) == [2, 3]
    mesh.nodes[primary].kill()
    wait_for("its death is noticed", lambda: staying.lines(f"node {primary}: suspect"))
    mesh.start_central()
    assert await say(staying.url, "after", ["0"]) == [4]


async def test_a_register_that_is_lost_is_made_again_out_of_the_logs(mesh: MeshProcess, tmp_path: Path) -> None:
    await say(mesh.nodes["n1"].url, "early", ["0", "1", "2"])
    for node in mesh.nodes.values():
        node.kill()
    mesh.kill_central()
    shutil.rmtree(tmp_path / "central")
    sources = [word for name, node in mesh.nodes.items() for word in ("--from", f"{name}={node.data_dir}")]
    chat_node("register", "rebuild", "--data-dir", tmp_path / "central", *sources)
    mesh.start_central()
    for node in mesh.nodes.values():
        node.start()
    assert await say(mesh.nodes["n2"].url, "late", ["0"]) == [4]
    seen = [await read(node.url, 4) for node in mesh.nodes.values()]
    assert seen[0] == seen[1] == seen[2] == [(1, "early-0"), (2, "early-1"), (3, "early-2"), (4, "late-0")]


async def test_a_node_that_was_alone_is_the_first_of_a_cluster_with_all_its_rooms(tmp_path: Path) -> None:
    made = MeshProcess(tmp_path)
    data_dir = made.nodes["n1"].data_dir
    with NodeProcess(tmp_path, data_dir=data_dir, settings={"NODE__NAME": "n1"}) as alone:
        await say(alone.url, "early", ["0", "1"])
    shutil.rmtree(tmp_path / "central")
    chat_node("cluster", "init", "--data-dir", tmp_path / "central", "--from", data_dir)
    with made as mesh:
        assert await say(mesh.nodes["n3"].url, "late", ["0"]) == [3]
        mesh.nodes["n1"].kill()
        assert await read(mesh.nodes["n2"].url, 3) == [(1, "early-0"), (2, "early-1"), (3, "late-0")]


def chat_node(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_one_node_tells_how_all_are(mesh: MeshProcess) -> None:
    def says(told: str) -> str | None:
        text = mesh.nodes["n1"].verdict()[1]
        return text if told in text else None

    wait_for("it has heard of all", lambda: says("3 of 3 nodes up"))
    mesh.nodes["n3"].kill()
    text = wait_for("it misses one", lambda: says("2 of 3 nodes up"))
    assert "n3 is unreachable" in text
    assert mesh.nodes["n1"].verdict()[0] == 2
    mesh.nodes["n3"].start()
    wait_for("it is back", lambda: says("3 of 3 nodes up"))


async def test_a_node_without_all_others_sends_its_clients_away_until_it_hears_one(mesh: MeshProcess) -> None:
    node = mesh.nodes["n1"]

    def closed() -> float:
        return node.metrics().get('chat_node_connections_closed_total{code="3011"}', 0.0)

    async with open_client(node.url, token=token("u")):
        assert closed() == 0
        mesh.kill_central()
        for name in ("n2", "n3"):
            mesh.nodes[name].kill()
        await trio.to_thread.run_sync(wait_for, "it is cut off", lambda: node.ready().status == "cut off")
        await trio.to_thread.run_sync(wait_for, "its client is sent away", lambda: closed() == 1)
    mesh.start_central()
    wait_for("it hears the central", lambda: node.ready().status == "ready")

"""The client of Python programs with real nodes, one of which is killed while it is sent to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket
from typing_extensions import override

from node.client import (
    Client,
    ConnectionEnded,
    Gap,
    NotSent,
    OutboxFull,
    OutcomeUnknown,
    Position,
    Publication,
    Refused,
    SubscriptionEnded,
    Unreachable,
    open_client,
    websocket_url,
)
from node.client_core import ClientCore
from node.client_link import ClientLink
from tests.harness.node_process import NodeProcess, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

SECONDS: Final = 30  # for whatever a test waits for; never reached
KILLS: Final = 3
SENDERS: Final = ("ada", "bob")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    settings = {
        "KINDS__DEFAULT__SCHEMA": "chat",
        "KINDS__ANY__SCHEMA": "any",
        "KINDS__SHORT__HISTORY_ENTRIES": 3,
        "KINDS__SECRET__READ_HISTORY": "nobody",
    }
    with NodeProcess(tmp_path_factory.mktemp("client"), settings=settings) as running:
        yield running


async def test_a_message_is_answered_whole_and_seen_by_others(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_client(node.url, token=token("ada")) as ada,
            open_client(node.public, token=token("bob")) as bob,
            bob.subscribe("whole") as room,
        ):
            sent = await ada.send("whole", "Hello", meta={"colour": "red"})
            event = await anext(room)
    assert isinstance(event, Publication)
    assert event.data == sent
    assert (sent["userId"], sent["content"], sent["meta"]) == ("ada", "Hello", {"colour": "red"})
    assert event.offset == sent["sequence"]


async def test_the_same_id_again_gives_the_first_message(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with open_client(node.url, token=token("ada")) as client:
            first = await client.send("again", "Hello", id="x")
            assert await client.send("again", "Hello", id="x") == first
            with pytest.raises(Refused) as refused:
                await client.send("again", "Something else", id="x")
    assert refused.value.code == 107


async def test_messages_are_edited_removed_and_reacted_to(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with open_client(node.url, token=token("ada")) as client:
            target = (await client.send("acts", "Helo"))["sequence"]
            edited = await client.edit("acts", target, "Hello")
            liked = await client.react("acts", target, "👍")
            await client.unreact("acts", target, "👍")
            removed = await client.delete("acts", target)
            assert (await client.history("acts", limit=1)).publications[0].data["type"] == "placeholder"
    assert (edited["type"], edited["target"], edited["content"]) == ("edit", target, "Hello")
    assert (liked["type"], liked["emoji"]) == ("reaction", "👍")
    assert (removed["type"], removed["target"]) == ("removed", target)


async def test_members_report_and_moderators_act(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_client(node.url, token=token("ada")) as ada,
            open_client(node.url, token=token("mod", role="moderator")) as moderator,
            moderator.subscribe("ruled") as room,
            ada.subscribe("ruled"),
        ):
            target = (await moderator.send("ruled", "rude"))["sequence"]
            await ada.report("ruled", target, reason="rude")
            await ada.send("ruled", "flood")
            await moderator.moderate("ruled", "mute", user="ada", seconds=60)
            await moderator.moderate("ruled", "rename", title="Court")
            standing = await ada.standing("ruled")
            assert (standing.title, standing.role, standing.muted, standing.locked) == ("Court", "member", True, False)
            assert standing.muted_until.endswith("Z")
            with pytest.raises(Refused) as refused:
                await ada.send("ruled", "more")
            cleared = await moderator.clear("ruled", "ada", since=1, reason="flood")
            assert (await moderator.history("ruled")).publications[1].data["type"] == "placeholder"
            await moderator.restore("ruled", 2)
            assert (await moderator.history("ruled")).publications[1].data["content"] == "flood"
            seen = [await anext(room) for _ in range(3)]
            assert [event.data for event in seen if isinstance(event, Publication)][-1] == cleared
            assert [notice["event"] for notice in moderator.notices()] == ["reported", "renamed"]
            assert [notice["event"] for notice in ada.notices()] == ["muted", "renamed"]
    assert refused.value.code == 103
    assert (cleared["user"], cleared["since"], cleared["reason"]) == ("ada", 1, "flood")


async def test_typing_is_seen_by_others_and_has_no_place_in_the_room(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_client(node.url, token=token("ada")) as ada,
            open_client(node.url, token=token("bob")) as bob,
            ada.subscribe("typing"),
            bob.subscribe("typing") as room,
        ):
            await ada.typing("typing")
            event = await anext(room)
            assert (await bob.history("typing")).publications == []
    assert event == Publication("typing", 0, {"type": "typing", "userId": "ada", "typing": True})


async def test_what_one_has_read_the_other_sees_and_pins_are_entries(node: NodeProcess) -> None:
    async with (
        open_client(node.url, token=token("ada")) as ada,
        open_client(node.url, token=token("mo", role="moderator")) as moderator,
        ada.subscribe("read") as room,
    ):
        with trio.fail_after(SECONDS):
            target = (await ada.send("read", "Hello", mentions=["mo"]))["sequence"]
            assert await moderator.unread("read") == (1, 1, 0, False)
            assert await moderator.read("read", target) == target
            pinned = await moderator.pin("read", target)
            unpinned = await moderator.unpin("read", target)
            assert await moderator.unread("read") == (0, 0, target, False)
            seen = [await anext(room) for _ in range(4)]
    assert [entry["type"] for entry in (pinned, unpinned)] == ["pin", "unpin"]
    read = next(event for event in seen if isinstance(event, Publication) and not event.offset)
    assert read.data == {"type": "read", "userId": "mo", "sequence": target}


async def test_receipts_are_asked_for_as_the_protocol_says() -> None:
    core = ClientCore(1, lambda: 0.0)
    client = Client(ClientLink("ws://127.0.0.1:1", None, None, core))
    core.opened("", trio.current_time())
    core.receive(b'{"id":1,"connect":{"client":"c","ping":25,"pong":true}}', trio.current_time())
    core.take_output()
    asked: list[Any] = []

    async def answer(data: str) -> None:
        await trio.testing.wait_all_tasks_blocked()
        asked.append(json.loads(core.take_output()[0]))
        reply = {"id": asked[-1]["id"], "rpc": {"data": json.loads(data)}}
        core.receive(json.dumps(reply), trio.current_time())

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, '{"read": 9}')
            assert await client.read("a", 7) == 9
            nursery.start_soon(answer, '{"unread": 3, "mentions": 1, "read": 9}')
            assert await client.unread("a") == (3, 1, 9, False)
            nursery.start_soon(answer, '{"unread": 3, "mentions": 1, "read": 9, "more": true}')
            assert (await client.unread("a")).more
    assert [command["rpc"] for command in asked] == [
        {"method": "read", "data": {"channel": "a", "sequence": 7}},
        {"method": "unread", "data": {"channel": "a"}},
        {"method": "unread", "data": {"channel": "a"}},
    ]


async def test_concurrent_messages_keep_the_order_of_the_calls(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(client.send, "order", f"{number:02}")
                    await trio.testing.wait_all_tasks_blocked()
            page = await client.history("order")
    assert [item.data["content"] for item in page.publications] == [f"{number:02}" for number in range(50)]
    assert page.following is None


async def test_history_is_read_page_by_page(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            for number in range(5):
                await client.send("pages", str(number))
            first = await client.history("pages", limit=3)
            second = await client.history("pages", limit=3, since=first.following)
            newest = await client.history("pages", limit=2, reverse=True)
    assert [item.offset for item in first.publications + second.publications] == [1, 2, 3, 4, 5]
    assert second.following is None
    assert [item.offset for item in newest.publications] == [5, 4]
    assert newest.following == Position(first.position.epoch, 4)


async def test_a_subscription_begins_where_one_wants(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            for number in range(500):  # more than are recovered at once
                await client.send("since", str(number))
            async with client.subscribe("since", since=2, most_queued=10) as room:
                events = [await anext(room) for _ in range(498)]
    assert [event.offset for event in events if isinstance(event, Publication)] == list(range(3, 501))


async def test_what_history_does_not_show_any_more_is_a_gap(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            for number in range(8):
                await client.send("short:a", str(number))
            async with client.subscribe("short:a", since=1) as room:
                gap, *rest = [await anext(room) for _ in range(4)]
    assert isinstance(gap, Gap)
    assert (gap.after.offset, gap.until.offset) == (1, 5)
    assert [event.offset for event in rest if isinstance(event, Publication)] == [6, 7, 8]


async def test_a_reader_that_falls_behind_misses_nothing(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            async with client.subscribe("behind", most_queued=4) as room:
                for number in range(40):
                    await client.send("behind", str(number))
                events = [await anext(room) for _ in range(40)]
    assert [event.data["content"] for event in events if isinstance(event, Publication)] == [str(n) for n in range(40)]


async def test_any_json_is_published_in_rooms_for_it(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            async with client.subscribe("any:x") as room:
                await client.publish("any:x", [1, {"two": 2}])
                event = await anext(room)
            with pytest.raises(Refused):
                await client.publish("whole", [1])
    assert isinstance(event, Publication)
    assert event.data == [1, {"two": 2}]
    assert event.info is not None
    assert event.info.user == "ada"


async def test_presence_counts_clients_and_users(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_client(node.url, token=token("ada")) as one,
            open_client(node.url, token=token("ada")) as two,
            one.subscribe("presence"),
            two.subscribe("presence"),
        ):
            assert await one.presence_stats("presence") == (2, 1)
            found = await one.presence("presence")
    assert set(found) == {one.client_id, two.client_id}


async def test_what_a_room_does_not_allow_is_said(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            with pytest.raises(SubscriptionEnded, match="subscription token"):
                await client.subscribe("$private").__aenter__()
            with pytest.raises(Refused, match="history of"):
                await client.history("secret:a")
            async with client.subscribe("twice"):
                with pytest.raises(ValueError, match="already"):
                    await client.subscribe("twice").__aenter__()


async def test_a_subscription_token_is_shown(node: NodeProcess) -> None:
    async def fetch() -> str:
        await trio.lowlevel.checkpoint()
        return token("ada", channel="$shown")

    async with open_client(node.url, token=token("ada")) as client:
        with trio.fail_after(SECONDS):
            async with client.subscribe("$shown", token=fetch) as room:
                assert room.position is not None


async def test_tokens_are_renewed_in_the_connection(node: NodeProcess) -> None:
    made: list[float] = []

    async def fetch() -> str:
        await trio.lowlevel.checkpoint()
        made.append(time.time())
        return token("ada", exp=int(made[-1]) + 3)

    async with open_client(node.url, token=fetch) as client:
        client_id = client.client_id
        with trio.fail_after(SECONDS):
            await until(lambda: len(made) >= 3)
            await client.presence_stats("renewed")
        assert client.client_id == client_id


async def test_a_bad_token_ends_it_and_an_expired_one_is_fetched_anew(node: NodeProcess) -> None:
    with trio.fail_after(SECONDS):
        with pytest.raises(ConnectionEnded) as ended:
            async with open_client(node.url, token="bad"):
                pass
        assert ended.value.code == 3500
        with pytest.raises(ConnectionEnded, match="async function"):
            async with open_client(node.url, token=token("ada", exp=1)):
                pass
        tokens = iter([token("ada", exp=1), token("ada")])

        async def fetch() -> str:
            await trio.lowlevel.checkpoint()
            return next(tokens)

        async with open_client(node.url, token=fetch) as client:
            assert client.connected


async def test_no_node_is_said_in_time() -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        async with open_client("ws://127.0.0.1:1", connect_seconds=0.3):
            pass


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://a", "ws://", "ws://a:x", "ws://a:99999"])
def test_what_is_no_url_of_a_node_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of a node"):
        websocket_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a:8000", "ws://a:8000/connection/websocket"),
        ("https://a/", "wss://a/connection/websocket"),
        ("ws://[::1]:8/x?site=a", "ws://[::1]:8/x?site=a"),
    ],
)
def test_a_url_is_completed(url: str, expected: str) -> None:
    assert websocket_url(url) == expected


async def test_without_connection_nothing_is_sent_and_that_is_said(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    link = ClientLink("ws://127.0.0.1:1", None, None, ClientCore(1, lambda: 0.0))
    client = Client(link)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_not_sent, client)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OutboxFull):
            await client.send("a", "Hello")
        await trio.sleep(40)
        link.core.on_time(trio.current_time())


async def expect_not_sent(client: Client) -> None:
    with pytest.raises(NotSent, match="nothing was sent"):
        await client.send("a", "Hello")


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(SECONDS * 100):
        if holds():
            return
        await trio.sleep(0.01)
    raise AssertionError(f"not within {SECONDS} s")


async def whole_history(client: Client, channel: str) -> list[Publication]:
    page = await client.history(channel, limit=300)
    entries = page.publications
    while page.following is not None:
        page = await client.history(channel, limit=300, since=page.following)
        entries += page.publications
    return entries


@pytest.mark.slow
async def test_a_node_that_is_killed_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    acknowledged: dict[str, list[int]] = {user: [] for user in SENDERS}
    stop = False

    async def write(user: str, node: NodeProcess) -> None:
        async with open_client(node.url, token=token(user)) as client:
            while not stop:
                message = await client.send("killed", f"{user} {len(acknowledged[user])}")
                acknowledged[user].append(message["sequence"])

    async def watch(client: Client, cancel: trio.CancelScope) -> None:
        with cancel:
            async with client.subscribe("killed", since=0, most_queued=16) as room:
                async for event in room:
                    assert isinstance(event, Publication)
                    seen.append((event.offset, event.data["content"]))

    def has_sent(number: int) -> bool:
        return min(map(len, acknowledged.values())) >= number

    with NodeProcess(tmp_path) as node, trio.fail_after(120):
        async with open_client(node.url, token=token("eve")) as eve, trio.open_nursery() as nursery:
            cancel = trio.CancelScope()
            nursery.start_soon(watch, eve, cancel)
            async with trio.open_nursery() as writers:
                for user in SENDERS:
                    writers.start_soon(write, user, node)
                for kill in range(1, KILLS + 1):
                    await until(partial(has_sent, kill * 20))
                    node.kill()
                    await trio.to_thread.run_sync(node.start)
                stop = True
            top = (await eve.history("killed", limit=0)).position.offset
            await until(lambda: len(seen) >= top)
            cancel.cancel()
            entries = await whole_history(eve, "killed")
    assert seen == [(entry.offset, entry.data["content"]) for entry in entries]
    assert [offset for offset, _ in seen] == list(range(1, top + 1))
    for user in SENDERS:
        mine = [entry for entry in entries if entry.data["userId"] == user]
        assert [entry.data["content"] for entry in mine] == [f"{user} {number}" for number in range(len(mine))]
        assert [entry.offset for entry in mine] == acknowledged[user]


def test_an_unknown_outcome_says_how_to_find_out() -> None:
    assert str(OutcomeUnknown("m1", "no answer")) == "outcome unknown: no answer; send it again with id='m1'"


def example() -> str:
    """The program of docs/python-client.md."""
    text = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text(encoding="utf-8")
    [found] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found)


async def test_the_example_of_the_documentation_runs(node: NodeProcess) -> None:
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(example(), "docs/python-client.md", "exec"), scope)
    with trio.fail_after(SECONDS):
        said = await scope["converse"](node.public, token("ada"))
        again = await scope["converse"](node.public, token("ada"))
    assert said == ["Hello", "How are you?"]
    assert again == said * 2


@pytest.mark.slow
def test_the_example_of_the_documentation_is_typed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("node", "edge_config", "router"):  # PEP 561: else type checkers take nothing of them for typed
        assert (root / package / "py.typed").exists()
        assert "py.typed" in packages[package]
    (tmp_path / "bot.py").write_text(example())
    (tmp_path / "faulty.py").write_text(example().replace('client.send("lobby", "Hello")', 'client.send("lobby", 1)'))
    for program, faults in (("bot.py", 0), ("faulty.py", 1)):
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", program],
            cwd=tmp_path,
            env={**os.environ, "MYPYPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == faults, checked.stdout


# -- cancellation ------------------------------------------------------------------------------------------------


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task has been run so many times within it.

    Attributes:
        steps: How often it was.
    """

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task, self._scope, self._step = task, scope, step
        self.steps = 0

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.steps += 1
            if self.steps == self._step:
                self._scope.cancel()


async def cancelled_at(step: int, act: Callable[[], Awaitable[None]]) -> bool:
    """Cancel `act` at its so manieth step; False: it had ended before."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(trio.lowlevel.current_task(), scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await act()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.steps >= step


async def test_a_client_can_be_used_on_wherever_a_call_was_cancelled(node: NodeProcess) -> None:
    async with open_client(node.url, token=token("ada")) as client:
        sent = (await client.send("cancelled", "first"))["sequence"]

        async def act() -> None:
            async with client.subscribe("cancelled", since=0) as room:
                await client.send("cancelled", "Hello")
                await anext(room)
                await client.history("cancelled")
                await client.react("cancelled", sent, "+")

        step = 1
        with trio.fail_after(SECONDS):
            while await cancelled_at(step, act):
                step += 1
                assert not client._link.core.rooms
                assert not client._link.core._outbox
                async with client.subscribe("cancelled", since=sent - 1) as room:
                    event = await anext(room)
                    assert isinstance(event, Publication)
                    assert event.offset == sent
        assert step > 5
        page = await client.history("cancelled", limit=300)
        assert [item.offset for item in page.publications] == list(range(1, page.position.offset + 1))


async def test_a_client_ends_wherever_its_block_was_cancelled(node: NodeProcess) -> None:
    async def act() -> None:
        async with open_client(node.url, token=token("ada")) as client, client.subscribe("ends") as room:
            await client.send("ends", "Hello")
            await anext(room)

    step = 1
    with trio.fail_after(SECONDS):
        while await cancelled_at(step, act):
            step += 1
    assert step > 5


# -- outcomes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"code": 100, "message": "no answer within 4 s", "temporary": True}, OutcomeUnknown),
        ({"code": 103, "message": "permission denied"}, Refused),
        ({"code": 111, "message": "wait 1 s", "temporary": True}, Refused),
    ],
)
async def test_a_publication_whose_outcome_a_node_does_not_know_is_not_told_to_be_refused(
    error: dict[str, Any], fault: type[Exception]
) -> None:
    async with answering({"publish": {"error": error}}) as url, open_client(url) as client:
        with pytest.raises(fault, match=error["message"]) as raised:
            await client.publish("any:x", {"n": 1})
    assert getattr(raised.value, "temporary", None) == (error["code"] == 111 if fault is Refused else None)


@asynccontextmanager
async def answering(answers: dict[str, dict[str, Any]]) -> AsyncIterator[str]:
    """A server that answers commands with what is given for their names."""
    told = {"connect": {"connect": {"client": "c", "version": "test"}}, **answers}

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept()
        with suppress(ConnectionClosed):
            while True:
                for line in str(await socket.get_message()).split("\n"):
                    command = json.loads(line)
                    name = next(name for name in told if name in command)
                    await socket.send_message(json.dumps({"id": command["id"], **told[name]}))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, ssl_context=None))
        with trio.fail_after(SECONDS):
            yield f"ws://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()

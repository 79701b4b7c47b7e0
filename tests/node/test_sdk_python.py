"""The Python SDK, unmodified, against a real node, with JSON and with Protobuf."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pytest
from centrifuge import (  # type: ignore[import-untyped]
    Client,
    ClientEventHandler,
    ConnectedContext,
    DeltaType,
    DisconnectedContext,
    JoinContext,
    LeaveContext,
    PublicationContext,
    ReplyError,
    StreamPosition,
    SubscribedContext,
    Subscription,
    SubscriptionEventHandler,
    UnsubscribedContext,
)
from typing_extensions import override

from tests.harness.node_process import NodeProcess, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20  # for a whole scene; never reached


class Format:
    """What the scene under way speaks."""

    protobuf: ClassVar = False


@pytest.fixture(autouse=True, params=["json", "protobuf"])
def _format(request: pytest.FixtureRequest) -> None:
    Format.protobuf = request.param == "protobuf"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a node that all scenes share; each has rooms of its own."""
    with NodeProcess(tmp_path_factory.mktemp("node"), settings={"KINDS__DEFAULT__DELTA": "true"}) as node:
        yield node.url


@pytest.fixture
def room() -> str:
    return f"room-{uuid4()}"


class Connection(ClientEventHandler):  # type: ignore[misc]
    """What the SDK tells of a connection."""

    def __init__(self) -> None:
        self.connected: asyncio.Queue[ConnectedContext] = asyncio.Queue()
        self.ended: asyncio.Queue[DisconnectedContext] = asyncio.Queue()

    @override
    async def on_connected(self, ctx: ConnectedContext) -> None:
        self.connected.put_nowait(ctx)

    @override
    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        self.ended.put_nowait(ctx)


class Member(SubscriptionEventHandler):  # type: ignore[misc]
    """What the SDK tells of a subscription."""

    def __init__(self) -> None:
        self.subscribed: asyncio.Queue[SubscribedContext] = asyncio.Queue()
        self.ended: asyncio.Queue[UnsubscribedContext] = asyncio.Queue()
        self.publications: asyncio.Queue[PublicationContext] = asyncio.Queue()
        self.joins: asyncio.Queue[JoinContext] = asyncio.Queue()
        self.leaves: asyncio.Queue[LeaveContext] = asyncio.Queue()

    @override
    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self.subscribed.put_nowait(ctx)

    @override
    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self.ended.put_nowait(ctx)

    @override
    async def on_publication(self, ctx: PublicationContext) -> None:
        self.publications.put_nowait(ctx)

    @override
    async def on_join(self, ctx: JoinContext) -> None:
        self.joins.put_nowait(ctx)

    @override
    async def on_leave(self, ctx: LeaveContext) -> None:
        self.leaves.put_nowait(ctx)

    async def next_content(self) -> tuple[int, str]:
        """Offset and content of the next publication."""
        pub = (await self.publications.get()).pub
        return pub.offset, content(pub.data)["content"]


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene to the end of its last connection: the SDK closes sockets in tasks that nobody awaits."""

    async def whole() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await scene
            while closing := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(closing)

    asyncio.run(whole())


@asynccontextmanager
async def connected(
    url: str,
    user: str = "",
    *,
    events: Connection | None = None,
    get_token: Callable[[], Awaitable[str]] | None = None,
    protobuf: bool | None = None,
) -> AsyncIterator[Client]:
    """A connected client: a user, or a guest."""
    client = Client(
        url,
        events=events,
        token=token(user) if user else "",
        get_token=get_token,
        max_reconnect_delay=0.2,
        proxy=None,
        use_protobuf=Format.protobuf if protobuf is None else protobuf,
    )
    await client.connect()
    try:
        await client.ready()
        yield client
    finally:
        await client.disconnect()


async def join(client: Client, room: str, **options: Any) -> tuple[Subscription, Member]:  # noqa: ANN401 - the SDK's
    """Subscribe, and wait until it is done."""
    member = Member()
    subscription = client.new_subscription(room, events=member, max_resubscribe_delay=0.2, **options)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, member


def message(content: str) -> dict[str, str]:
    return {"id": str(uuid4()), "content": content}


def payload(data: dict[str, Any], *, protobuf: bool | None = None) -> dict[str, Any] | bytes:
    """Data as the SDK takes it; in Protobuf with the newlines of an encoder that likes to indent."""
    return json.dumps(data, indent=1).encode() if (Format.protobuf if protobuf is None else protobuf) else data


def content(data: dict[str, Any] | bytes) -> dict[str, Any]:
    """Data as the SDK gives it."""
    return json.loads(data) if isinstance(data, bytes) else data


def test_a_user_publishes_and_the_others_get_it_completed_by_the_node(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann, connected(url, "bob") as bob:
            spoken, _ = await join(ann, room)
            _, heard = await join(bob, room)
            sent = message("Hello")
            await spoken.publish(payload(sent))
            pub = (await heard.publications.get()).pub
            assert pub.offset == 1
            heard_data = content(pub.data)
            wanted = {**sent, "userId": "ann", "sequence": 1, "chatRoom": room, "type": "text"}
            assert {**heard_data, **wanted} == heard_data

    play(scene())


def test_what_a_user_has_read_is_told_and_counted_from(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann, connected(url, "bob") as bob:
            spoken, heard = await join(ann, room)
            await join(bob, room)

            async def ask(method: str, **given: int) -> dict[str, Any]:
                return content((await bob.rpc(method, payload({"channel": room, **given}))).data)

            await spoken.publish(payload(message("one")))
            await spoken.publish(payload({**message("two"), "mentions": ["bob"]}))
            assert await ask("unread") == {"unread": 2, "mentions": 1, "read": 0}
            assert await ask("read", sequence=1) == {"read": 1}
            assert await ask("unread") == {"unread": 1, "mentions": 1, "read": 1}
            with pytest.raises(ReplyError) as refused:
                await ask("read", sequence=3)
            assert refused.value.code == 107
            assert [await heard.next_content() for _ in range(2)] == [(1, "one"), (2, "two")]
            told = (await heard.publications.get()).pub
            assert (told.offset or 0, content(told.data)) == (0, {"type": "read", "userId": "bob", "sequence": 1})

    play(scene())


def test_a_guest_publishes_and_reads_the_history(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url) as guest:
            subscription, _ = await join(guest, room)
            for number in range(1, 6):
                await subscription.publish(payload(message(f"m{number}")))
            position = await subscription.history()
            assert (position.publications, position.offset) == ([], 5)
            page = await subscription.history(limit=2, since=StreamPosition(1, position.epoch))
            assert [(pub.offset, content(pub.data)["content"]) for pub in page.publications] == [(2, "m2"), (3, "m3")]
            newest = await subscription.history(limit=2, reverse=True)
            assert [pub.offset for pub in newest.publications] == [5, 4]

    play(scene())


def test_who_asks_for_differences_makes_the_same_of_them(url: str, room: str) -> None:
    async def scene() -> None:
        text = 'ü "quoted" ' * 20
        async with connected(url, "ann") as ann:
            spoken, whole = await join(ann, room)
            async with connected(url, "bob") as bob:
                _, applied = await join(bob, room, delta=DeltaType.FOSSIL)
                for number in range(3):
                    await spoken.publish(payload(message(text)))
                    pubs = [(await member.publications.get()).pub for member in (whole, applied)]
                    assert content(pubs[0].data) == content(pubs[1].data)
                    assert content(pubs[0].data)["content"] == text
                    assert [pub.delta for pub in pubs] == [False, number > 0]
                await bob.disconnect()
                await spoken.publish(payload(message("missed")))
                await bob.connect()
                assert await applied.next_content() == (4, "missed")
                await spoken.publish(payload(message(text)))
                assert await applied.next_content() == (5, text)

    play(scene())


def test_a_retry_with_the_same_id_is_stored_once(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann:
            subscription, _ = await join(ann, room)
            sent = message("once")
            await subscription.publish(payload(sent))
            await subscription.publish(payload(sent))
            assert (await subscription.history()).offset == 1

    play(scene())


def test_a_room_has_members_of_both_formats(url: str, room: str) -> None:
    async def scene() -> None:
        async with (
            connected(url, "ann", protobuf=False) as ann, connected(url, "bob", protobuf=True) as bob,
            connected(url, "cid") as cid,
        ):  # fmt: skip
            speaking = [await join(client, room, join_leave=True) for client in (ann, bob)]
            _, heard = await join(cid, room, join_leave=True)
            for number, (subscription, _) in enumerate(speaking):
                while (await speaking[number][1].joins.get()).info.user != "cid":
                    pass
                await subscription.publish(payload(message(f"m{number}"), protobuf=bool(number)))
            for member in (speaking[0][1], speaking[1][1], heard):
                assert [await member.next_content() for _ in range(2)] == [(1, "m0"), (2, "m1")]
            with pytest.raises(ReplyError) as refusal:
                await speaking[1][0].publish(b"\xff\x00 no JSON")
            assert refusal.value.code == 107

    play(scene())


def test_presence_joins_and_leaves_name_the_users(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann:
            watching, seen = await join(ann, room, join_leave=True)
            async with connected(url, "bob") as bob:
                await join(bob, room, join_leave=True)
                while (await seen.joins.get()).info.user != "bob":
                    pass
                presence = await watching.presence()
                assert sorted(info.user for info in presence.clients.values()) == ["ann", "bob"]
                counts = await watching.presence_stats()
                assert (counts.num_clients, counts.num_users) == (2, 2)
            assert (await seen.leaves.get()).info.user == "bob"

    play(scene())


def test_a_private_room_is_closed_without_a_token_and_open_with_one(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann, connected(url, "bob") as bob:
            member = Member()
            await ann.new_subscription(f"${room}", events=member).subscribe()
            assert (await member.ended.get()).code == 103
            await join(bob, f"${room}", token=token("bob", channel=f"${room}"))

    play(scene())


def test_publishing_what_is_no_message_is_refused(url: str, room: str) -> None:
    async def scene() -> None:
        async with connected(url, "ann") as ann:
            subscription, _ = await join(ann, room)
            with pytest.raises(ReplyError) as refusal:
                await subscription.publish(payload({**message("mine"), "sequence": 7}))
            assert refusal.value.code == 107

    play(scene())


def test_a_bad_token_ends_the_connection_for_good(url: str) -> None:
    async def scene() -> None:
        events = Connection()
        client = Client(url, events=events, token=token("ann") + "x", proxy=None, use_protobuf=Format.protobuf)
        await client.connect()
        assert (await events.ended.get()).code == 3500

    play(scene())


def test_an_expiring_token_is_refreshed_without_a_reconnect(url: str, room: str) -> None:
    async def scene() -> None:
        asked: asyncio.Queue[None] = asyncio.Queue()

        async def get_token() -> str:
            await asked.put(None)
            return token("ann", exp=int(time.time()) + 3)

        events = Connection()
        async with connected(url, events=events, get_token=get_token) as ann:
            subscription, _ = await join(ann, room)
            for _ in range(2):
                await asked.get()
            await subscription.publish(payload(message("still here")))
            assert events.connected.qsize() == 1
            assert events.ended.empty()

    play(scene())


def test_a_client_recovers_what_it_missed_when_the_node_was_killed(tmp_path: Path, room: str) -> None:
    async def scene(node: NodeProcess) -> None:
        async with connected(node.url, "ann") as ann, connected(node.url, "bob") as bob:
            spoken, _ = await join(ann, room)
            heard_by, heard = await join(bob, room)
            before = await heard.subscribed.get()
            await spoken.publish(payload(message("before")))
            assert await heard.next_content() == (1, "before")
            await bob.disconnect()
            await spoken.publish(payload(message("missed")))
            await asyncio.to_thread(node.restart)
            await spoken.publish(payload(message("after")))
            await bob.connect()
            await heard_by.ready()
            again = await heard.subscribed.get()
            assert (again.was_recovering, again.recovered) == (True, True)
            assert before.stream_position is not None
            assert again.stream_position is not None
            assert again.stream_position.epoch == before.stream_position.epoch
            assert [await heard.next_content() for _ in range(2)] == [(2, "missed"), (3, "after")]

    with NodeProcess(tmp_path) as node:
        play(scene(node))

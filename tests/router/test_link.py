"""What every link does, simulated or real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from router.channels import Channel
from router.link import MAX_BODY, MAX_TOPIC, Publication, Received
from tests.harness.links import OUTBOX_BYTES, RealStations, Station, Stations, open_stations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MANY = 20_000


@pytest.fixture(params=["simulated", "real"])
async def stations(request: pytest.FixtureRequest) -> AsyncIterator[Stations]:
    async with open_stations(request.param) as opened:
        yield opened


async def subscribed(publisher: Station, *topics: bytes) -> None:
    """Wait until the publisher knows that these are wanted."""
    await publisher.until(lambda: {topic for topic, is_wanted in publisher.events if is_wanted} >= {*topics})


async def test_messages_arrive_with_their_node_and_its_boot(stations: Stations) -> None:
    a, b = await stations.pair()
    assert a.link.send("b", Channel.REPLICATION, b"\x00prep\xff")
    assert b.link.send("a", Channel.MEMBERSHIP, b"")
    await b.until(lambda: b.messages)
    await a.until(lambda: a.messages)
    assert b.messages == [Received("a", a.boot, Channel.REPLICATION, b"\x00prep\xff")]
    assert a.messages == [Received("b", b.boot, Channel.MEMBERSHIP, b"")]


async def test_the_messages_of_a_channel_arrive_in_order_and_once(stations: Stations) -> None:
    a, b = await stations.pair()
    for number in range(3000):
        assert a.link.send("b", Channel.EDGE if number % 3 else Channel.MEMBERSHIP, b"%d" % number)
    await b.until(lambda: len(b.messages) >= 3000)
    for channel in (Channel.EDGE, Channel.MEMBERSHIP):
        numbers = [int(message.body) for message in b.messages if message.channel is channel]
        assert numbers == [n for n in range(3000) if (Channel.EDGE if n % 3 else Channel.MEMBERSHIP) is channel]


async def test_the_longest_message_arrives_and_a_longer_one_is_refused(stations: Stations) -> None:
    a, b = await stations.pair()
    longest = bytes(range(256)) * (MAX_BODY // 256)
    assert a.link.send("b", Channel.REPLICATION, longest)
    with pytest.raises(ValueError, match=f"{MAX_BODY + 1}"):
        a.link.send("b", Channel.REPLICATION, longest + b"x")
    await b.until(lambda: b.messages)
    assert b.bodies("a") == [longest]


async def test_nothing_is_sent_to_a_node_that_is_not_connected(stations: Stations) -> None:
    a, b = await stations.pair()
    assert not a.link.send("c", Channel.EDGE, b"hello")
    a.link.disconnect("b")
    a.link.disconnect("b")
    assert not a.link.send("b", Channel.EDGE, b"hello")
    assert b.messages == []


@pytest.mark.parametrize(
    ("node", "address"), [("a", "tcp://127.0.0.1:7400"), ("c", "127.0.0.1:7400"), ("c", "ipc://x")]
)
async def test_a_connection_that_can_not_be_is_refused(stations: Stations, node: str, address: str) -> None:
    a = await stations.start("a")
    key = stations.key("c").public if isinstance(stations, RealStations) else b""
    with pytest.raises(ValueError, match=node):
        a.link.connect(node, address, key)


async def test_what_waits_for_a_node_that_is_away_is_bounded(stations: Stations) -> None:
    a, b = await stations.pair()
    stations.connect(a, "away")
    body = bytes(1000)
    taken = 0
    while a.link.send("away", Channel.EDGE, body):
        taken += len(body)
        assert taken <= OUTBOX_BYTES
    assert taken > OUTBOX_BYTES - 2 * len(body)
    assert a.link.send("b", Channel.EDGE, b"others hear me")
    await b.until(lambda: b.messages)


async def test_what_waited_is_sent_when_the_node_comes(stations: Stations) -> None:
    a, _ = await stations.pair()
    await stations.stop("b")
    while not a.link.send("b", Channel.EDGE, b"are you there?"):
        pass
    b = await stations.start("b")
    stations.connect(b, "a")
    await answered(a, b)


async def test_a_node_that_started_again_is_heard_and_hears(stations: Stations) -> None:
    a, b = await stations.pair()
    await answered(a, b)
    await answered(b, a)
    await stations.stop("b")
    again = await stations.start("b")
    stations.connect(again, "a")
    await answered(again, a)
    await answered(a, again)
    assert {message.boot for message in a.messages} == {b.boot, again.boot}
    assert {message.boot for message in again.messages} == {a.boot}


async def answered(sender: Station, receiver: Station) -> None:
    """Send until something arrives: what was on its way when a connection broke is lost."""
    with trio.fail_after(30):
        before = len(receiver.bodies(sender.node))
        while len(receiver.bodies(sender.node)) == before:
            sender.link.send(receiver.node, Channel.MEMBERSHIP, b"hello")
            await trio.sleep(0.01)


async def test_publications_go_to_whom_they_are_for(stations: Stations) -> None:
    a, b = await stations.pair()
    c = await stations.start("c")
    for one, other in ((c, "a"), (a, "c")):
        stations.connect(one, other)
    b.link.subscribe("a", b"room")
    c.link.subscribe("a", b"room 2")
    await subscribed(a, b"room", b"room 2")
    a.link.publish(b"roo", b"nobody's")
    a.link.publish(b"room 2", b"c's")
    a.link.publish(b"room", b"b's")
    a.link.publish(b"room 2", b"\x00\xff")
    await b.until(lambda: b.publications)
    await c.until(lambda: len(c.publications) == 2)
    assert b.publications == [Publication("a", b"room", b"b's")]
    assert c.publications == [Publication("a", b"room 2", b"c's"), Publication("a", b"room 2", b"\x00\xff")]


async def test_a_publisher_learns_of_each_subscriber_and_of_the_last_that_left(stations: Stations) -> None:
    a, b = await stations.pair()
    c = await stations.start("c")
    for one, other in ((c, "a"), (a, "c")):
        stations.connect(one, other)
    b.link.subscribe("a", b"room")
    b.link.subscribe("a", b"room")
    await a.until(lambda: a.events == [(b"room", True)])
    c.link.subscribe("a", b"room")
    await a.until(lambda: a.events == [(b"room", True)] * 2)
    c.link.unsubscribe("a", b"room")
    c.link.unsubscribe("a", b"room")
    c.link.subscribe("a", b"another")
    await subscribed(a, b"another")
    assert (b"room", False) not in a.events
    b.link.unsubscribe("a", b"room")
    await a.until(lambda: a.events[-1] == (b"room", False))


async def test_what_is_no_longer_wanted_does_not_arrive(stations: Stations) -> None:
    a, b = await stations.pair()
    b.link.subscribe("a", b"one")
    b.link.subscribe("a", b"two")
    await subscribed(a, b"one", b"two")
    b.link.unsubscribe("a", b"one")
    a.link.publish(b"one", b"too late")
    a.link.publish(b"two", b"in time")
    await b.until(lambda: b.publications)
    assert b.publications == [Publication("a", b"two", b"in time")]


async def test_all_of_many_subscriptions_arrive_and_again_when_the_publisher_comes_back(stations: Stations) -> None:
    a, b = await stations.pair()
    topics = [b"%016d" % number for number in range(MANY)]
    for topic in topics:
        b.link.subscribe("a", topic)
    await subscribed(a, *topics[:1], *topics[-1:])
    await a.until(lambda: len({topic for topic, _ in a.events}) == MANY)
    await stations.stop("a")
    again = await stations.start("a")
    stations.connect(again, "b")
    await again.until(lambda: len({topic for topic, is_wanted in again.events if is_wanted}) == MANY)
    again.link.publish(topics[-1], b"the last of them")
    await b.until(lambda: b.publications)
    assert b.publications == [Publication("a", topics[-1], b"the last of them")]


async def test_subscriptions_may_be_said_before_there_is_a_connection(stations: Stations) -> None:
    a, b = await stations.start("a"), await stations.start("b")
    b.link.subscribe("a", b"room")
    stations.connect(a, "b")
    stations.connect(b, "a")
    await subscribed(a, b"room")


async def test_who_disconnects_wants_nothing_any_more(stations: Stations) -> None:
    a, b = await stations.pair()
    b.link.subscribe("a", b"room")
    await subscribed(a, b"room")
    b.link.disconnect("a")
    await a.until(lambda: a.events[-1] == (b"room", False))
    stations.connect(b, "a")
    b.link.subscribe("a", b"another")
    await subscribed(a, b"another")
    assert a.events[1:] == [(b"room", False), (b"another", True)]


async def test_topics_and_bodies_have_their_bounds(stations: Stations) -> None:
    a = await stations.start("a")
    with pytest.raises(ValueError, match="256"):
        a.link.subscribe("b", bytes(MAX_TOPIC + 1))
    with pytest.raises(ValueError, match="256"):
        a.link.publish(bytes(MAX_TOPIC + 1), b"")
    with pytest.raises(ValueError, match=f"{MAX_BODY + 1}"):
        a.link.publish(b"", bytes(MAX_BODY + 1))

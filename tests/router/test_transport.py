"""The transport over real sockets: who is no peer changes nothing and is counted; who is one, is known by its key."""

from __future__ import annotations

import select
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import zmq

from edge_config.keys import new_pair
from router.channels import Channel
from router.errors import TransportFault
from router.hello import PROTOCOL, Hello, Versions
from router.link import MAX_BODY, Publication
from router.transport import Transport, TransportOptions, open_transport
from router.transport_statistics import Drop, Refusal, TransportStatistics
from router.zmq_socket import OVERHEAD
from tests.harness.links import PATIENCE, RealStations, Station, open_real_stations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from edge_config.keys import KeyPair

TICK = 0.005  # seconds between looks at counters that other threads raise


@pytest.fixture
async def stations() -> AsyncIterator[RealStations]:
    async with trio.open_nursery() as nursery:
        async with open_real_stations(nursery) as opened:
            yield opened
        nursery.cancel_scope.cancel()


class Strangers:
    """Sockets that are none of ours."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        self._sockets.append(self._context.socket(kind))
        return self._sockets[-1]

    def close(self) -> None:
        for raw in self._sockets:
            raw.close(linger=0)
        self._context.term()


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    made = Strangers()
    yield made
    made.close()


def transport_of(station: Station) -> Transport:
    assert isinstance(station.link, Transport)
    return station.link


def counts(station: Station) -> TransportStatistics:
    return transport_of(station).statistics()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds that ZeroMQ's thread brings about."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(TICK)


async def refused(station: Station, refusal: Refusal, times: int = 1) -> str:
    """Wait until something was refused so often; gives the reason in words."""
    await until(lambda: counts(station).refused.get(refusal, 0) >= times)
    return counts(station).reasons[refusal]


def hello(node: str) -> bytes:
    return Hello(PROTOCOL, 0, 0, node, "boot-9", "secret").encoded()


def dealer(  # the socket of somebody who is not necessarily a peer
    strangers: Strangers, station: Station, name: bytes, keys: KeyPair | None, server: KeyPair
) -> zmq.Socket[bytes]:
    raw = strangers.socket(zmq.DEALER)
    if name:
        raw.set(zmq.ROUTING_ID, name)
    protect(raw, keys, server)
    raw.connect(f"tcp://127.0.0.1:{transport_of(station).port}")
    return raw


def protect(raw: zmq.Socket[bytes], keys: KeyPair | None, server: KeyPair) -> None:
    if keys is not None:
        raw.set(zmq.CURVE_PUBLICKEY, keys.public)
        raw.set(zmq.CURVE_SECRETKEY, keys.secret.reveal().encode())
        raw.set(zmq.CURVE_SERVERKEY, server.public)


async def still_heard(a: Station, b: Station) -> None:
    """The mesh goes on, and nothing but its messages has arrived."""
    a.link.send("b", Channel.EDGE, b"still here")
    await b.until(lambda: b.messages)
    assert b.bodies("a") == [b"still here"]
    assert len(b.messages) == 1


# -- strangers ---------------------------------------------------------------------------------------------------


async def test_who_has_no_key_changes_nothing(stations: RealStations, strangers: Strangers) -> None:
    a, b = await stations.pair()
    raw = dealer(strangers, b, hello("a"), None, stations.key("b"))
    raw.send(b"\x01let me in", zmq.DONTWAIT)
    await until(lambda: counts(b).failed_handshakes)
    assert counts(b).strangers >= 1
    await still_heard(a, b)


async def test_who_has_a_wrong_key_changes_nothing_and_the_operator_is_told_the_key(
    stations: RealStations, strangers: Strangers
) -> None:
    a, b = await stations.pair()
    stranger = new_pair()
    raw = dealer(strangers, b, hello("a"), stranger, stations.key("b"))
    raw.send(b"\x01let me in", zmq.DONTWAIT)
    reason = await refused(b, Refusal.KEY)
    assert stranger.public.decode() in reason
    assert "chat-node keys allow" in reason
    await still_heard(a, b)


async def test_a_right_key_with_another_nodes_name_changes_nothing(
    stations: RealStations, strangers: Strangers
) -> None:
    insider = stations.key("c")
    a, b = await stations.pair()
    raw = dealer(strangers, b, hello("a"), insider, stations.key("b"))
    raw.send(b"\x01I am a")
    reason = await refused(b, Refusal.NAME)
    assert "key of c says that it is a" in reason
    await still_heard(a, b)


async def test_a_node_with_this_nodes_name_changes_nothing(stations: RealStations, strangers: Strangers) -> None:
    a, b = await stations.pair()
    raw = dealer(strangers, b, hello("b"), stations.key("b"), stations.key("b"))
    raw.send(b"\x01I am you")
    assert "name of its own" in await refused(b, Refusal.NAME)
    await still_heard(a, b)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n" * 100,
        bytes(1000),
        # greets as ZMTP 3.0 does, with CURVE, and announces a command of 2 GiB
        b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x06" + b"\0\0\0\0\x80\0\0\0x",
    ],
    ids=["http", "zeros", "huge command"],
)
async def test_garbage_changes_nothing(stations: RealStations, garbage: bytes) -> None:
    a, b = await stations.pair()
    await until(lambda: counts(b).handshakes >= 1)
    with socket.create_connection(("127.0.0.1", transport_of(b).port)) as stranger:
        stranger.sendall(garbage)
        await until(lambda: counts(b).accepted >= 2)
    await until(lambda: counts(b).strangers >= 1)
    await until(lambda: counts(b).disconnected >= 1)
    await still_heard(a, b)


async def test_who_says_nothing_is_closed(stations: RealStations) -> None:
    options = TransportOptions(node="b", boot="1", host="127.0.0.1", keys=stations.key("b"), handshake_ms=50)
    async with open_transport(options) as transport, trio.open_nursery() as nursery:
        station = Station("b", "1", transport)
        nursery.start_soon(station.run)
        with socket.create_connection(("127.0.0.1", transport.port)):
            await until(lambda: transport.statistics().disconnected == 1)
        assert transport.statistics().failed_handshakes == 1
        nursery.cancel_scope.cancel()


async def test_huge_frames_change_nothing(stations: RealStations, strangers: Strangers) -> None:
    peer = stations.key("c")
    a, b = await stations.pair()
    await until(lambda: counts(b).handshakes >= 1)
    raw = dealer(strangers, b, hello("c"), peer, stations.key("b"))
    raw.send(bytes((Channel.EDGE,)) + bytes(MAX_BODY + 2 * OVERHEAD))
    await until(lambda: counts(b).disconnected >= 1)
    too_long = dealer(strangers, b, hello("c"), peer, stations.key("b"))
    too_long.send(bytes((Channel.EDGE,)) + bytes(MAX_BODY + 1))
    assert str(MAX_BODY + 2) in await refused(b, Refusal.SIZE)
    await still_heard(a, b)


async def test_many_frames_change_nothing_and_the_next_message_is_read_from_its_begin(
    stations: RealStations, strangers: Strangers
) -> None:
    peer = stations.key("c")
    _, b = await stations.pair()
    raw = dealer(strangers, b, hello("c"), peer, stations.key("b"))
    raw.send(b"\x01first")
    raw.send_multipart([b"\x01part"] * 5000)
    raw.send_multipart([b"\x01part"] * 2)
    raw.send(b"\x01last")
    assert "c sends" in await refused(b, Refusal.FRAMES, 2)
    await b.until(lambda: len(b.messages) == 2)
    assert b.bodies("c") == [b"first", b"last"]


@pytest.mark.parametrize("name", [b"", b"c", b"cn/1-1/0", b"cn/0-1/0/0/c/b/s", b"cn/1-1/0/0/c/b/s p", b"\xff" * 255])
async def test_who_does_not_say_who_it_is_changes_nothing(
    stations: RealStations, strangers: Strangers, name: bytes
) -> None:
    peer = stations.key("c")
    a, b = await stations.pair()
    raw = dealer(strangers, b, name, peer, stations.key("b"))
    raw.send(b"\x01hello?")
    assert "c does not say" in await refused(b, Refusal.HELLO)
    await still_heard(a, b)


async def test_a_message_about_something_unknown_changes_nothing(stations: RealStations, strangers: Strangers) -> None:
    peer = stations.key("c")
    a, b = await stations.pair()
    raw = dealer(strangers, b, hello("c"), peer, stations.key("b"))
    raw.send(b"\xc8what is new")
    assert "channel 200" in await refused(b, Refusal.CHANNEL)
    await still_heard(a, b)


async def test_strangers_do_not_hear_publications(stations: RealStations, strangers: Strangers) -> None:
    a, b = await stations.pair()
    for keys in (None, new_pair()):
        raw = strangers.socket(zmq.SUB)
        protect(raw, keys, stations.key("a"))
        raw.subscribe(b"")
        raw.connect(f"tcp://127.0.0.1:{transport_of(a).publish_port}")
    await refused(a, Refusal.KEY)
    await until(lambda: counts(a).failed_handshakes >= 2)
    b.link.subscribe("a", b"room")
    await a.until(lambda: a.events)
    assert a.events == [(b"room", True)]


async def test_what_is_no_subscription_changes_nothing(stations: RealStations, strangers: Strangers) -> None:
    peer = stations.key("c")
    a, b = await stations.pair()
    raw = strangers.socket(zmq.XSUB)
    protect(raw, peer, stations.key("a"))
    raw.connect(f"tcp://127.0.0.1:{transport_of(a).publish_port}")
    for told in (b"\x01", b"\x01\x05room", b"\x07room", b"\x01\x04room and more"):
        raw.send(told)
    await refused(a, Refusal.SUBSCRIPTION, 4)
    b.link.subscribe("a", b"room")
    await a.until(lambda: a.events)
    assert a.events == [(b"room", True)]
    assert counts(a).wanted == 1


async def test_what_is_no_publication_changes_nothing(stations: RealStations, strangers: Strangers) -> None:
    peer, own = stations.key("c"), stations.key("b")
    b = await stations.start("b")
    publisher = strangers.socket(zmq.XPUB)
    protect(publisher, peer, peer)
    publisher.set(zmq.CURVE_SERVER, 1)  # the server's key is of no meaning then
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    name = Hello(Versions(1, 1), 0, port, "c", "boot-9", "secret").encoded()
    raw = dealer(strangers, b, name, peer, own)
    b.link.connect("c", f"tcp://127.0.0.1:{port}", peer.public)
    b.link.subscribe("c", b"room")
    raw.send(b"\x01hello")
    await until(lambda: publisher.poll(0))
    assert publisher.recv() == b"\x01\x04room"
    for said in ([b"\x04room", b"and more"], [b"\x04roo"], [b"\x04room", b""]):
        publisher.send_multipart(said)
    publisher.send(b"\x04room: a publication")
    await b.until(lambda: b.publications)
    assert b.publications == [Publication("c", b"room", b": a publication")]
    assert counts(b).refused[Refusal.PUBLICATION] == 2  # the third did not begin as what is wanted does


# -- peers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "older"), [(Versions(2, 3), "this node"), (Versions(8, 9), "this node")])
async def test_nodes_without_a_common_version_refuse_each_other(
    stations: RealStations, theirs: Versions, older: str
) -> None:
    b = await stations.start("b")
    keys = stations.key("c")
    options = TransportOptions(
        node="c", boot="1", host="127.0.0.1", keys=keys, allowed=stations.allowed, versions=theirs
    )
    async with open_transport(options) as transport, trio.open_nursery() as nursery:
        c = Station("c", "1", transport)
        nursery.start_soon(c.run)
        stations.connect(c, "b")
        b.link.connect("c", f"tcp://127.0.0.1:{transport.port}", keys.public)
        reason = await refused(b, Refusal.VERSION)
        assert f"{theirs.lowest} to {theirs.highest}" in reason
        assert f"Upgrade {older}" in reason
        assert "Upgrade that one" in await refused(c, Refusal.VERSION)
        nursery.cancel_scope.cancel()


async def test_nodes_of_overlapping_versions_speak(stations: RealStations) -> None:
    b = await stations.start("b")
    options = TransportOptions(
        node="c", boot="1", host="127.0.0.1", keys=stations.key("c"), allowed=stations.allowed,
        versions=Versions(1, 9), features=7,
    )  # fmt: skip
    async with open_transport(options) as transport, trio.open_nursery() as nursery:
        c = Station("c", "1", transport)
        nursery.start_soon(c.run)
        stations.connect(c, "b")
        b.link.connect("c", f"tcp://127.0.0.1:{transport.port}", stations.key("c").public)
        c.link.send("b", Channel.EDGE, b"I know more than you")
        await b.until(lambda: b.messages)
        assert [(peer.node, peer.boot, peer.features) for peer in counts(b).peers] == [("c", "1", 7)]
        nursery.cancel_scope.cancel()


async def test_a_key_is_let_in_from_the_moment_that_it_is_allowed(stations: RealStations) -> None:
    key = stations.key("a").public
    b = await stations.start("b")
    transport_of(b).allow({})
    a = await stations.start("a")
    stations.connect(a, "b")
    a.link.send("b", Channel.EDGE, b"let me in")
    await refused(b, Refusal.KEY)
    assert b.messages == []
    transport_of(b).allow({"a": key})
    await b.until(lambda: b.messages)
    assert b.bodies("a") == [b"let me in"]


async def test_a_key_that_was_withdrawn_is_heard_no_more_and_hears_nothing(stations: RealStations) -> None:
    a, b = await stations.pair()
    c = await stations.start("c")
    for one, other in ((c, "a"), (a, "c")):
        stations.connect(one, other)
    b.link.subscribe("a", b"room")
    c.link.subscribe("a", b"room")
    c.link.subscribe("a", b"another")
    b.link.send("a", Channel.EDGE, b"before")
    await a.until(lambda: len(a.events) == 3 and a.messages)
    transport_of(a).allow({"c": stations.key("c").public})
    await a.until(lambda: a.events[3:].count((b"room", False)) == 1 and a.events[-1][1])
    b.link.send("a", Channel.EDGE, b"after")
    assert "b is still connected" in await refused(a, Refusal.WITHDRAWN)
    await a.until(lambda: {topic for topic, is_wanted in a.events[5:] if is_wanted} == {b"room", b"another"})
    await refused(a, Refusal.KEY)  # b's subscriber tries again
    a.link.publish(b"room", b"for c")
    await c.until(lambda: c.publications)
    assert b.publications == []
    assert a.bodies("b") == [b"before"]


async def test_all_of_many_subscriptions_come_again_after_a_reconnection(stations: RealStations) -> None:
    stations.key("c")
    a, b = await stations.pair()
    topics = {b"%016d" % number for number in range(20_000)}
    for topic in topics:
        b.link.subscribe("a", topic)
    await a.until(lambda: len(a.events) == len(topics))
    transport_of(a).allow({"b": stations.key("b").public})  # without c: the publisher closes all its connections
    await a.until(lambda: len(a.events) == 3 * len(topics))
    assert {topic for topic, is_wanted in a.events[-len(topics) :] if is_wanted} == topics
    a.link.publish(max(topics), b"as before")
    await b.until(lambda: b.publications)


async def test_a_connection_of_another_address_replaces_the_first(stations: RealStations) -> None:
    a, b = await stations.pair()
    a.link.connect("b", "tcp://127.0.0.1:1", stations.key("b").public)
    a.link.send("b", Channel.EDGE, b"to nowhere")
    stations.connect(a, "b")
    assert counts(a).dropped[Drop.DISCONNECTED] == 1
    a.link.send("b", Channel.EDGE, b"to b")
    await b.until(lambda: b.messages)
    assert b.bodies("a") == [b"to b"]


async def test_a_node_is_found_where_one_was_that_refused_for_good(
    stations: RealStations, strangers: Strangers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.transport.REOPEN_MS", 100)
    door = strangers.socket(zmq.REP)
    door.bind("inproc://zeromq.zap.01")
    other = strangers.socket(zmq.ROUTER)
    protect(other, stations.key("b"), stations.key("b"))
    other.set(zmq.CURVE_SERVER, 1)
    port = other.bind_to_random_port("tcp://127.0.0.1")
    a = await stations.start("a")
    a.link.connect("b", f"tcp://127.0.0.1:{port}", stations.key("b").public)
    await until(lambda: door.poll(0))
    _, request, *_ = door.recv_multipart()
    door.send_multipart([b"1.0", request, b"400", b"go away", b"", b""])  # then ZeroMQ never tries again by itself
    await trio.sleep(0.1)
    other.close(linger=0)
    options = TransportOptions(
        node="b", boot="1", host="127.0.0.1", port=port, keys=stations.key("b"), allowed=stations.allowed
    )
    await until(lambda: is_free(port))
    async with open_transport(options) as transport, trio.open_nursery() as nursery:
        b = Station("b", "1", transport)
        nursery.start_soon(b.run)
        await until(lambda: a.link.send("b", Channel.EDGE, b"there you are") and b.messages)
        nursery.cancel_scope.cancel()


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def test_what_waits_for_too_long_is_dropped(stations: RealStations) -> None:
    options = TransportOptions(
        node="a", boot="1", host="127.0.0.1", keys=stations.key("a"), allowed=stations.allowed, patience_ms=-1
    )
    async with open_transport(options) as transport:
        transport.connect("away", "tcp://127.0.0.1:1", stations.key("away").public)
        assert transport.send("away", Channel.EDGE, b"one")
        assert transport.send("away", Channel.EDGE, b"two")
        assert transport.statistics().dropped == {Drop.STALE: 1}
        assert transport.statistics().peers[0].waiting == len(b"\x03two")


# -- its own place -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::"])
async def test_without_keys_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(TransportFault, match="chat-node keys new"):
        async with open_transport(TransportOptions(node="a", boot="1", host=host)):
            pass


async def test_without_keys_it_listens_elsewhere_if_that_was_asked_for() -> None:
    async with open_transport(TransportOptions(node="a", boot="1", host="0.0.0.0", plain=True)) as transport:
        assert transport.port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_without_keys_nodes_of_one_machine_speak(host: str) -> None:
    where = f"[{host}]" if ":" in host else host
    async with (
        open_transport(TransportOptions(node="a", boot="1", host=host)) as one,
        open_transport(TransportOptions(node="b", boot="2", host=host)) as two,
        trio.open_nursery() as nursery,
    ):
        a, b = Station("a", "1", one), Station("b", "2", two)
        nursery.start_soon(a.run)
        nursery.start_soon(b.run)
        one.connect("b", f"tcp://{where}:{two.port}", b"")
        two.connect("a", f"tcp://{where}:{one.port}", b"")
        two.subscribe("a", b"room")
        one.send("b", Channel.EDGE, b"hello")
        await b.until(lambda: b.bodies("a") == [b"hello"])
        await a.until(lambda: a.events == [(b"room", True)])
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in (
            TransportOptions(node="a", boot="1", host="127.0.0.1", port=port),
            TransportOptions(node="a", boot="1", host="127.0.0.1", publish_port=port),
        ):
            with pytest.raises(TransportFault, match=f"127.0.0.1:{port}: Address already in use"):
                async with open_transport(options):
                    pass


@pytest.mark.parametrize(("node", "boot"), [("", "1"), ("a/b", "1"), ("a", ""), ("a", "x" * 65), ("a b", "1")])
async def test_a_name_that_peers_would_not_take_is_refused(node: str, boot: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        async with open_transport(TransportOptions(node=node, boot=boot, host="127.0.0.1")):
            pass


async def test_who_waits_for_other_things_too_watches_its_descriptor(stations: RealStations) -> None:
    a, _ = await stations.pair()
    options = TransportOptions(node="c", boot="1", host="127.0.0.1", keys=stations.key("c"), allowed=stations.allowed)
    async with open_transport(options) as transport:
        with watched(transport) as epoll:
            a.link.connect("c", f"tcp://127.0.0.1:{transport.port}", stations.key("c").public)
            a.link.send("c", Channel.EDGE, b"wake up")
            found: list[bytes] = []
            while not found:
                if not transport.turn():
                    await until(lambda: epoll.poll(0))
                found = [message.body for message in transport.receive()]
            assert found == [b"wake up"]
            while transport.turn():
                transport.receive()
            transport.connect("a", "tcp://127.0.0.1:1", stations.key("a").public)
            assert epoll.poll(0)  # what is done between turns is seen


@contextmanager
def watched(transport: Transport) -> Iterator[select.epoll]:
    with select.epoll() as epoll:
        epoll.register(transport.fileno(), select.EPOLLIN)
        yield epoll


async def test_it_counts_what_it_carries(stations: RealStations) -> None:
    a, b = await stations.pair()
    b.link.subscribe("a", b"room")
    await a.until(lambda: a.events)
    a.link.publish(b"room", b"hello all")
    a.link.publish(b"elsewhere", b"nobody")
    a.link.send("b", Channel.EDGE, b"hello")
    a.link.send("c", Channel.EDGE, b"hello")
    await b.until(lambda: b.messages and b.publications)
    one, two = counts(a), counts(b)
    assert (one.sent, one.sent_bytes, one.published, one.published_bytes) == (1, 5, 2, 15)
    assert (two.received, two.received_bytes, two.publications, two.publications_bytes) == (1, 5, 1, 9)
    assert one.dropped == {Drop.UNKNOWN: 1}
    assert one.wanted == 1
    assert (two.peers[0].node, two.peers[0].topics, two.peers[0].boot) == ("a", 1, a.boot)
    assert one.refused == two.refused == {}

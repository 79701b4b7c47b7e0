"""Membership over a link: its wishes are fulfilled, and what is no message of it does no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.channels import Channel
from router.link import Received
from router.membership import Membership, MembershipOptions, Pulse
from router.membership_events import Change, Changed, Heard, State
from router.membership_wire import Beat, Identity, Leave, Load, News, Standing, decode, encode
from router.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.link import Link, Publication

START: Final = 1000


class Recorder:
    """A link that keeps what it is told."""

    def __init__(self) -> None:
        self.peers: dict[str, tuple[str, bytes]] = {}
        self.sent: list[tuple[str, Channel, bytes]] = []
        self.is_full = False

    def connect(self, node: str, address: str, key: bytes) -> None:
        self.peers[node] = address, key

    def disconnect(self, node: str) -> None:
        del self.peers[node]

    def send(self, node: str, channel: Channel, body: bytes) -> bool:
        self.sent.append((node, channel, body))
        return not self.is_full

    def publish(self, topic: bytes, body: bytes) -> None:
        raise NotImplementedError

    def subscribe(self, node: str, topic: bytes) -> None:
        raise NotImplementedError

    def unsubscribe(self, node: str, topic: bytes) -> None:
        raise NotImplementedError

    def receive(self) -> Sequence[Received]:
        raise NotImplementedError

    def received_publications(self) -> Sequence[Publication]:
        raise NotImplementedError

    def subscription_events(self) -> Sequence[tuple[bytes, bool]]:
        raise NotImplementedError

    async def wait(self) -> None:
        raise NotImplementedError


def identity(node: str) -> Identity:
    return Identity(node, "1", "d", "eu", "h", f"tcp://{node}:1", "1", 1)


def started() -> tuple[Neighbours, Recorder]:
    """Of node a, with a seed b, after the first tick."""
    recorder = Recorder()
    link: Link = recorder
    allowed = {"b": b"kb", "c": b"kc"}
    core = Membership(identity("a"), [("b", "tcp://b:1")], MembershipOptions(forget=10_000), allowed.get, START)
    neighbours = Neighbours(core, link)
    assert neighbours.tick(START, Pulse()) == []
    return neighbours, recorder


def beat(node: str, n: int, news: Sequence[News] = ()) -> Received:
    body = encode(Beat(n, identity(node), Standing.READY, Load(), None, [*news]))
    return Received(node, "1", Channel.MEMBERSHIP, body)


def test_it_connects_and_greets_through_the_link() -> None:
    _, link = started()
    assert link.peers == {"b": ("tcp://b:1", b"kb")}
    node, channel, body = link.sent[0]
    assert (node, channel) == ("b", Channel.MEMBERSHIP)
    assert decode(body) == Beat(1, identity("a"), Standing.READY, Load())


def test_what_it_learns_is_handed_on() -> None:
    neighbours, link = started()
    news = [News(1, 2, 3, 4)]
    words = neighbours.receive(beat("c", 1, news), START)
    assert words == [
        Changed("c", Change.LEARNED, None, None), Changed("c", Change.UP, None, identity("c")), Heard("c", news),
    ]  # fmt: skip
    assert link.peers["c"] == ("tcp://c:1", b"kc")


def test_who_is_forgotten_is_disconnected() -> None:
    neighbours, link = started()
    neighbours.receive(beat("c", 1), START)
    neighbours.receive(Received("c", "1", Channel.MEMBERSHIP, encode(Leave("1"))), START)
    for now in range(START, START + 10_001, 200):
        neighbours.tick(now, Pulse())
    assert list(link.peers) == ["b"]


def test_what_can_not_be_read_is_counted_and_changes_nothing() -> None:
    neighbours, _ = started()
    before = neighbours.membership.peers(START)
    assert neighbours.receive(Received("b", "1", Channel.MEMBERSHIP, b"\xc1"), START) == []
    assert neighbours.corrupt == 1
    assert neighbours.membership.peers(START) == before


def test_a_message_on_another_channel_is_a_sign_of_life() -> None:
    neighbours, _ = started()
    neighbours.receive(beat("b", 1), START)
    for now in range(START, START + 4000, 200):
        assert neighbours.receive(Received("b", "1", Channel.REPLICATION, b"whatever"), now) == []
        assert neighbours.tick(now, Pulse()) == []
    assert neighbours.membership.peers(START)[0].state is State.UP


def test_what_the_link_does_not_take_is_counted() -> None:
    neighbours, link = started()
    link.is_full = True
    assert neighbours.leave(START) == []
    assert neighbours.unsent == 1
    assert decode(link.sent[-1][2]) == Leave("1")


def test_who_may_no_longer_join_is_disconnected() -> None:
    recorder = Recorder()
    link: Link = recorder
    allowed = {"b": b"kb"}
    neighbours = Neighbours(
        Membership(identity("a"), [("b", "tcp://b:1")], MembershipOptions(), allowed.get, START), link
    )  # fmt: skip
    neighbours.tick(START, Pulse())
    allowed.clear()
    assert neighbours.allow(START) == [Changed("b", Change.FORGOTTEN, None, None)]
    assert recorder.peers == {}

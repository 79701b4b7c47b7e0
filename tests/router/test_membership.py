"""Who is up, as each node sees it: tables of single heartbeats, and many nodes on a network that fails."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from typing_extensions import override

from edge_config.cluster import Cluster
from router.ids import MemberId
from router.membership import Membership, MembershipOptions, Pulse
from router.membership_events import Change, Changed, Connect, Disconnect, Heard, Send, State
from router.membership_wire import (
    MAX_MESSAGE,
    MOST_NEWS,
    MOST_RECORDS,
    Beat,
    Echo,
    Identity,
    Leave,
    Load,
    News,
    Record,
    Standing,
    encode,
)
from tests.harness.membership_network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.membership_events import MembershipEffect, PeerView

OPTIONS: Final = MembershipOptions()
START: Final = 5000


def identity(
    node: str, boot: str = "1", disk: str = "d", *, address: str = "", feature: int = 1
) -> Identity:  # fmt: skip
    return Identity(node, boot, disk, "eu", "h", address or f"tcp://{node}:1", "1", feature)


def beat(
    node: str, n: int, boot: str = "1", *, disk: str = "d", address: str = "", feature: int = 1,
    standing: Standing = Standing.READY, echo: Echo | None = None, news: Sequence[News] = (),
    peers: Sequence[Record] = (),
) -> Beat:  # fmt: skip
    who = identity(node, boot, disk, address=address, feature=feature)
    return Beat(n, who, standing, Load(), echo, [*news], [*peers])


def membership(*seeds: str, options: MembershipOptions = OPTIONS, allowed: str = "abcdefgh") -> Membership:
    """Of node a, after its first tick."""
    core = Membership(
        identity("a"), [(seed, f"tcp://{seed}:1") for seed in seeds], options,
        lambda node: b"k" + node.encode() if node in allowed else None, START,
    )  # fmt: skip
    core.tick(START, Pulse())
    return core


def view(core: Membership, node: str, now: int = START) -> PeerView:
    return next(view for view in core.peers(now) if view.node == node)


def members(core: Membership) -> list[str]:
    """Those that are up."""
    return ["/".join(member) for member in core.up]


def sends(effects: Sequence[MembershipEffect]) -> dict[str, Any]:
    return {effect.node: effect.message for effect in effects if isinstance(effect, Send)}


def changes(effects: Sequence[MembershipEffect]) -> list[tuple[str, Change]]:
    return [(effect.node, effect.change) for effect in effects if isinstance(effect, Changed)]


def live_until(core: Membership, since: int, until: int, pulse: Pulse | None = None) -> list[MembershipEffect]:
    """Ticks each 50 ms, after `since` and up to `until`."""
    effects: list[MembershipEffect] = []
    for now in range(since + 50, until + 1, 50):
        effects += core.tick(now, pulse or Pulse())
    return effects


# -- one node --------------------------------------------------------------------------------------------------------


def test_at_first_it_connects_to_its_seeds_and_greets_them() -> None:
    seeds = [("a", "tcp://a:1"), ("b", "tcp://b:1")]
    core = Membership(identity("a"), seeds, OPTIONS, lambda _node: b"key", START)
    effects = core.tick(START, Pulse())
    assert effects[0] == Connect("b", "tcp://b:1", b"key"), "itself is none"
    assert sends(effects)["b"].who == identity("a")
    assert sends(effects)["b"].echo is None
    assert members(core) == ["a/d"]
    assert view(core, "b").state is State.UNSEEN
    assert core.is_alone()


def test_a_heartbeat_brings_a_node_up_and_silence_takes_it_down() -> None:
    core = membership("b")
    assert changes(core.receive("b", beat("b", 1), START)) == [("b", Change.UP)]
    assert members(core) == ["a/d", "b/d"]
    assert not core.is_alone()
    assert changes(live_until(core, START, START + 1450)) == []
    assert changes(live_until(core, START + 1450, START + 1500)) == [("b", Change.SUSPECT)]
    assert members(core) == ["a/d"]
    assert core.is_alone()
    assert changes(live_until(core, START + 1500, START + 9950)) == []
    assert changes(live_until(core, START + 9950, START + 10_000)) == [("b", Change.DOWN)]
    assert changes(core.receive("b", beat("b", 2), START + 10_001)) == [("b", Change.UP)]


def test_a_node_without_a_log_is_up_but_no_member() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1, disk="", echo=Echo("1", 1, 0)), START)
    assert view(core, "b").state is State.UP
    assert not core.is_alone()
    assert members(core) == ["a/d"]
    assert [candidate.member for candidate in core.candidates(START)] == [MemberId("a", "d")]


def test_a_node_that_is_slow_itself_waits_longer_and_not_for_ever() -> None:
    for lag, sync, patience in ((0, 500, 3000), (1000, 0, 4500), (1_000_000, 0, 12_000)):
        core = membership("b")
        core.receive("b", beat("b", 1), START)
        pulse = Pulse(Load(lag_ms=lag, sync_ms=sync))
        assert changes(live_until(core, START, START + patience - 50, pulse)) == []
        assert changes(live_until(core, START + patience - 50, START + patience, pulse)) == [("b", Change.SUSPECT)]


def test_a_sleep_is_nobodys_silence() -> None:
    core = membership("b", "c")
    core.receive("b", beat("b", 1), START)
    assert changes(core.tick(START + 30_000, Pulse())) == []
    assert core.statistics().overslept == 1
    assert changes(live_until(core, START + 30_000, START + 31_450)) == []
    assert changes(live_until(core, START + 31_450, START + 31_500)) == [("b", Change.SUSPECT)]


def test_a_late_tick_counts_as_one_heartbeat_of_silence() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    now = START
    suspected = None
    while suspected is None:
        now += 1000
        suspected = now if changes(core.tick(now, Pulse())) else None
    assert suspected == START + 6000
    assert core.statistics().overslept == 0


def test_other_messages_are_signs_of_life_of_the_life_that_sent_them() -> None:
    core = membership("b", "c")
    core.receive("b", beat("b", 1), START)
    live_until(core, START, START + 1400)
    core.sign_of_life("b", "1", START + 1400)
    core.sign_of_life("c", "1", START + 1400)
    assert changes(live_until(core, START + 1400, START + 2850)) == []
    core.sign_of_life("b", "0", START + 2850)
    assert changes(live_until(core, START + 2850, START + 2900)) == [("b", Change.SUSPECT)]
    core.sign_of_life("b", "1", START + 2900)
    assert view(core, "b").state is State.SUSPECT, "a suspect clears itself by a heartbeat"


def test_a_restart_is_noticed_and_what_the_former_life_said_late_is_passed_over() -> None:
    core = membership("b")
    core.receive("b", beat("b", 7), START)
    effects = core.receive("b", beat("b", 1, "2"), START)
    assert changes(effects) == [("b", Change.RESTARTED)]
    assert changes(core.receive("b", beat("b", 8, "1"), START)) == []
    assert changes(core.receive("b", Leave("1"), START)) == []
    found = view(core, "b")
    assert (found.identity, found.restarts, found.state) == (identity("b", "2"), 1, State.UP)
    assert core.statistics().stale == 2


def test_a_new_disk_is_another_member() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    live_until(core, START, START + 1500)
    effects = core.receive("b", beat("b", 1, "2", disk="new"), START + 1500)
    assert changes(effects) == [("b", Change.RESTARTED), ("b", Change.NEW_DISK), ("b", Change.UP)]
    told = next(effect for effect in effects if isinstance(effect, Changed))
    assert told.before is not None
    assert told.identity is not None
    assert (told.before.disk, told.identity.disk) == ("d", "new")
    assert members(core) == ["a/d", "b/new"]


def test_who_says_farewell_is_gone_at_once_and_comes_back_in_another_life() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    assert changes(core.receive("b", Leave("1"), START)) == [("b", Change.LEFT)]
    assert changes(core.receive("b", Leave("1"), START)) == []
    assert changes(core.receive("b", beat("b", 2), START)) == [], "it was on its way when the farewell was said"
    assert members(core) == ["a/d"]
    effects = core.receive("b", beat("b", 1, "2"), START)
    assert changes(effects) == [("b", Change.RESTARTED), ("b", Change.UP)]


def test_its_own_farewell_goes_to_all_in_place_of_heartbeats() -> None:
    core = membership("b", "c")
    core.receive("b", beat("b", 1), START)
    assert sends(core.leave(START + 10)) == {"b": Leave("1"), "c": Leave("1")}
    assert sends(core.tick(START + 250, Pulse())) == {"b": Leave("1"), "c": Leave("1")}


def test_old_and_repeated_heartbeats_are_no_signs_of_life() -> None:
    core = membership("b")
    core.receive("b", beat("b", 5), START)
    live_until(core, START, START + 1400)
    for n in (5, 4):
        core.receive("b", beat("b", n), START + 1400)
    assert changes(live_until(core, START + 1400, START + 1500)) == [("b", Change.SUSPECT)]
    assert core.statistics().stale == 2
    assert core.statistics().suspicions == 1
    core.receive("b", beat("b", 6), START + 1500)
    assert core.statistics().mistaken == 1


def test_those_who_are_not_heard_get_a_heartbeat_now_and_then() -> None:
    core = membership("b", "c")
    core.receive("b", beat("b", 1), START)
    rounds = [sends(live_until(core, now, now + 250)) for now in range(START, START + 2000, 250)]
    assert all("b" in messages for messages in rounds)
    assert sum("c" in messages for messages in rounds) == 2


def test_the_way_there_and_back_is_measured_by_echoes() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START + 100)
    message = sends(core.tick(START + 250, Pulse()))["b"]
    assert message.echo == Echo("1", 1, 150)
    core.receive("b", beat("b", 2, echo=Echo("1", message.n, 100)), START + 390)
    assert view(core, "b").rtt == 40
    message = sends(core.tick(START + 500, Pulse()))["b"]
    core.receive("b", beat("b", 3, echo=Echo("1", message.n, 0)), START + 548)
    assert view(core, "b").rtt == 41
    core.receive("b", beat("b", 4, echo=Echo("1", message.n, 0)), START + 900)
    core.receive("b", beat("b", 5, echo=Echo("0", message.n + 1, 0)), START + 900)
    core.receive("b", beat("b", 6, echo=Echo("1", 10_000, 0)), START + 900)
    assert view(core, "b").rtt == 41, "each echo of this life counts once"


def test_who_does_not_hear_this_node_is_up_but_gets_no_shards() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1, echo=Echo("1", 1, 0)), START + 10)
    assert [candidate.member.node for candidate in core.candidates(START + 10)] == ["a", "b"]
    for n, now in enumerate(range(START + 50, START + 2000, 50), 2):
        core.receive("b", beat("b", n, echo=Echo("1", 1, now - START)), now)
        core.tick(now, Pulse())
    assert MemberId("b", "d") in core.up
    assert not view(core, "b", START + 2000).hears
    assert [candidate.member.node for candidate in core.candidates(START + 2000)] == ["a"]


@pytest.mark.parametrize("standing", [Standing.STARTING, Standing.DRAINING])
def test_who_starts_or_drains_gets_no_shards(standing: Standing) -> None:
    core = membership("b")
    core.receive("b", beat("b", 1, standing=standing, echo=Echo("1", 1, 0)), START)
    assert [candidate.member.node for candidate in core.candidates(START)] == ["a"]
    assert sends(core.tick(START + 250, Pulse(standing=standing)))["b"].standing is standing
    assert core.candidates(START) == []


def test_a_cluster_has_the_features_of_the_oldest_node_that_is_heard() -> None:
    core = Membership(identity("a", feature=3), [("b", "tcp://b:1")], OPTIONS, lambda _node: b"", START)
    assert core.feature() == 3
    core.receive("b", beat("b", 1, feature=2), START)
    assert core.feature() == 2
    core.receive("b", Leave("1"), START)
    assert core.feature() == 3


# -- who may join ----------------------------------------------------------------------------------------------------


def test_nodes_are_learned_from_peers_if_they_may_join() -> None:
    core = membership("b")
    records = [Record(node, f"tcp://{node}:9") for node in ("a", "b", "c", "x")]
    effects = core.receive("b", beat("b", 1, peers=records), START)
    assert effects[1:] == [Connect("c", "tcp://c:9", b"kc"), Changed("c", Change.LEARNED, None, None)]
    assert view(core, "c").state is State.UNSEEN, "hearsay is no sign of life"
    assert core.statistics().strangers == 1
    effects = core.receive("b", beat("b", 2, peers=[Record("c", "tcp://c:10")]), START)
    assert effects == [Connect("c", "tcp://c:10", b"kc")], "it has moved"
    core.receive("c", beat("c", 1, address="tcp://c:10"), START)
    assert core.receive("b", beat("b", 3, peers=[Record("c", "tcp://c:11")]), START) == [], "it knows best itself"


def test_a_stranger_and_a_false_name_change_nothing() -> None:
    core = membership("b")
    before = core.peers(START)
    assert core.receive("x", beat("x", 1), START) == []
    assert core.receive("b", beat("c", 1), START) == []
    assert core.receive("a", beat("a", 1, "2"), START) == []
    assert core.receive("a", Leave("1"), START) == []
    assert core.receive("c", Leave("1"), START) == []
    assert core.peers(START) == before
    assert (core.statistics().strangers, core.statistics().misnamed) == (1, 3)


@pytest.mark.parametrize("address", ["tcp://c", "tcp://c:0", "tcp://c:65536", "tcp://0.0.0.0:1", "tcp://[::]:1", "c:1"])
def test_an_address_that_nobody_can_connect_to_changes_nothing(address: str) -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    assert core.receive("c", beat("c", 1, address=address), START) == []
    assert core.receive("b", beat("b", 2, address=address), START) == []
    assert core.receive("b", beat("b", 2, peers=[Record("c", address)]), START) == []
    assert core.statistics().misnamed == 2


def test_a_node_that_nobody_told_of_is_learned_when_it_speaks() -> None:
    core = membership()
    effects = core.receive("c", beat("c", 1), START)
    assert effects[0] == Connect("c", "tcp://c:1", b"kc")
    assert changes(effects) == [("c", Change.LEARNED), ("c", Change.UP)]


def test_a_node_that_moves_is_connected_where_it_is_and_a_seed_where_it_is_configured() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    core.receive("c", beat("c", 1), START)
    effects = core.receive("b", beat("b", 1, "2", address="tcp://b:5"), START)
    assert not any(isinstance(effect, Connect) for effect in effects)
    effects = core.receive("c", beat("c", 1, "2", address="tcp://c:5"), START)
    assert effects[0] == Connect("c", "tcp://c:5", b"kc")


def test_there_are_so_many_nodes_at_most_and_the_living_go_before_those_that_are_gone() -> None:
    core = membership("b", options=MembershipOptions(nodes=4))
    core.receive("c", beat("c", 1), START)
    core.receive("d", beat("d", 1), START)
    assert core.receive("e", beat("e", 1), START) == []
    core.receive("b", beat("b", 1, peers=[Record("f", "tcp://f:1")]), START)
    assert core.statistics().crowded == 2
    core.receive("c", Leave("1"), START)
    core.receive("b", beat("b", 2, peers=[Record("f", "tcp://f:1")]), START)
    assert view(core, "c").state is State.LEFT, "hearsay does not displace anybody"
    effects = core.receive("e", beat("e", 1), START)
    assert Disconnect("c") in effects
    assert changes(effects) == [("c", Change.FORGOTTEN), ("e", Change.LEARNED), ("e", Change.UP)]


def test_who_is_gone_for_long_is_forgotten_but_no_seed() -> None:
    core = membership("b", options=MembershipOptions(forget=20_000))
    core.receive("b", beat("b", 1, peers=[Record("d", "tcp://d:1")]), START)
    core.receive("c", beat("c", 1), START)
    effects = live_until(core, START, START + 30_000)
    assert [node for node, change in changes(effects) if change is Change.FORGOTTEN] == ["d", "c"]
    assert [view.node for view in core.peers(START)] == ["b"]


def test_who_may_no_longer_join_is_forgotten_and_a_seed_that_may_now_is_greeted() -> None:
    allowed = {"b": b"1", "c": b"1"}
    core = Membership(identity("a"), [(node, f"tcp://{node}:1") for node in "bd"], OPTIONS, allowed.get, START)
    core.receive("b", beat("b", 1), START)
    core.receive("c", beat("c", 1), START)
    del allowed["b"]
    allowed["c"] = allowed["d"] = b"2"
    effects = core.allow(START)
    assert changes(effects) == [("b", Change.FORGOTTEN)]
    assert [effect for effect in effects if not isinstance(effect, Changed)] == [
        Disconnect("b"), Connect("c", "tcp://c:1", b"2"), Connect("d", "tcp://d:1", b"2"),
    ]  # fmt: skip
    assert members(core) == ["a/d", "c/d"]


def test_a_newcomer_is_told_of_all_who_are_heard() -> None:
    core = membership(options=MembershipOptions(nodes=200), allowed=str(range(200)))
    core = Membership(identity("a"), [], MembershipOptions(nodes=200), lambda _node: b"", START)
    for i in range(100):
        core.receive(f"n{i}", beat(f"n{i}", 1), START)
    core.receive("gone", beat("gone", 1), START)
    core.receive("gone", Leave("1"), START)
    core.receive("new", beat("new", 1), START)
    told = [record.node for now in (0, 250) for record in sends(core.tick(START + now, Pulse()))["new"].peers]
    assert set(told) == {f"n{i}" for i in range(100)}
    assert len(sends(core.tick(START + 500, Pulse()))["new"].peers) <= MOST_RECORDS


def test_the_times_are_those_of_the_configuration() -> None:
    assert MembershipOptions.of(Cluster()) == MembershipOptions()


# -- news of shards --------------------------------------------------------------------------------------------------


def test_heartbeats_tell_where_shards_stand_what_is_new_first_and_all_in_time() -> None:
    core = membership("b")
    core.receive("b", beat("b", 1), START)
    core.tell(News(shard, 1, 0, 1) for shard in range(300))
    told = sends(core.tick(START + 250, Pulse()))["b"].news
    assert len(told) == MOST_NEWS
    core.tell([News(7, 2, 5, 2)])
    core.tell_no_more(9)
    told = sends(core.tick(START + 500, Pulse()))["b"].news
    assert News(7, 2, 5, 2) in told
    seen = {
        item.shard for n in range(25) for item in sends(core.tick(START + 750 + 250 * n, Pulse()))["b"].news
    }  # fmt: skip
    assert seen == set(range(300)) - {9}


def test_what_is_heard_of_shards_is_handed_on() -> None:
    core = membership("b")
    news = [News(1, 2, 3, 4)]
    assert core.receive("b", beat("b", 1, news=news), START)[-1] == Heard("b", news)


def test_the_fullest_heartbeat_is_short_enough() -> None:
    most = 2**63 - 1
    who = Identity("n" * 64, "b" * 64, "d" * 64, "r" * 64, "h" * 253, "tcp://" + "a" * 270, "v" * 253, 2**31 - 1)
    news = [News(most, most, most, most)] * MOST_NEWS
    records = [Record("n" * 64, "tcp://" + "a" * 270)] * MOST_RECORDS
    full = Beat(most, who, Standing.READY, Load(*[most] * 10), Echo("b" * 64, most, most), news, records)
    assert len(encode(full)) < MAX_MESSAGE


# -- many nodes ------------------------------------------------------------------------------------------------------


def network_of(
    seed: int, nodes: int, *, drop: float = 0.0, delay: int = 20, core: type[Membership] = Membership
) -> Network:
    """All know the first, and so each other soon."""
    network = Network(Random(seed), drop=drop, delay=delay, core=core)
    for i in range(nodes):
        network.add(f"n{i}", ["n0"], ["eu", "us", "ap"][i % 3])
    return network


@pytest.mark.parametrize("nodes", [2, 5, 50])
def test_all_find_each_other_by_one_seed(nodes: int) -> None:
    network = network_of(1, nodes)
    network.run(3000)
    assert network.disagreements() == []
    network.run(1000)
    for node in network.nodes.values():
        assert all(peer.hears and peer.rtt is not None for peer in node.core.peers(network.now))
        assert all(peer.rtt is not None and peer.rtt <= 40 for peer in node.core.peers(network.now))
        assert len(node.core.candidates(network.now)) == nodes


def test_all_find_each_other_along_a_chain_of_seeds() -> None:
    network = Network(Random(2))
    for i in range(12):
        network.add(f"n{i}", [f"n{i - 1}"] if i else [])
    network.run(6000)
    assert network.disagreements() == []


def test_a_restarted_seed_without_seeds_is_found_by_the_others() -> None:
    network = network_of(3, 5)
    network.nodes["n0"].seeds = []
    network.run(3000)
    network.nodes["n0"].crash()
    network.run(20_000)
    assert network.disagreements() == []
    network.nodes["n0"].start()
    network.run(3000)
    assert network.disagreements() == []


@pytest.mark.parametrize("seed", range(4))
def test_lost_messages_make_nobody_suspect_for_long(seed: int) -> None:
    network = network_of(seed, 8, drop=0.1, delay=150)
    network.run(60_000)
    network.drop = 0.0
    network.run(2000)
    assert network.disagreements() == []
    suspicions = sum(node.core.statistics().suspicions for node in network.nodes.values())
    assert suspicions <= 2


def disturb(network: Network, random: Random) -> None:
    """One of all things that can happen, to one of the nodes."""
    names = list(network.nodes)
    node = network.nodes[random.choice(names)]
    other = random.choice([name for name in names if name != node.name])
    if not node.running:
        node.disks += random.randrange(2)
        node.start()
        return
    random.choice((
        node.crash, node.leave, lambda: node.sleep(random.randrange(100, 8000)), lambda: network.isolate(node.name),
        lambda: network.cut(node.name, other, one_way=True), network.heal,
    ))()  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_after_all_that_can_happen_all_see_all_up(seed: int) -> None:
    random = Random(seed)
    network = network_of(seed, 7, drop=0.05, delay=100)
    for _ in range(30):
        disturb(network, random)
        network.run(random.randrange(100, 4000))
    network.heal()
    network.drop = 0.0
    network.run(8000)
    for node in network.nodes.values():
        if not node.running:
            node.start()
    network.run(5000)
    assert network.disagreements() == []
    for node in network.nodes.values():
        for peer in node.core.peers(network.now):
            assert peer.identity is not None
            assert peer.identity.boot == network.nodes[peer.node].boot
            assert peer.hears


def test_a_crash_is_noticed_by_all_within_two_seconds_and_nobody_else_is_suspected() -> None:
    network = network_of(4, 10)
    network.run(5000)
    network.nodes["n3"].crash()
    network.run(1200)
    assert not any(node.told(Change.SUSPECT) for node in network.nodes.values())
    network.run(800)
    others = [node for name, node in network.nodes.items() if name != "n3"]
    assert all(node.told(Change.SUSPECT) == ["n3"] for node in others)
    network.run(9000)
    assert all(node.states()["n3"] is State.DOWN for node in others)
    assert all(sorted(node.connected) == sorted({*network.nodes} - {node.name}) for node in others)


def test_a_farewell_is_noticed_at_once() -> None:
    network = network_of(5, 10)
    network.run(5000)
    network.nodes["n3"].leave()
    network.run(50)
    assert all(node.states()["n3"] is State.LEFT for name, node in network.nodes.items() if name != "n3")


def test_one_way_partition_is_seen_from_both_sides() -> None:
    network = network_of(6, 4)
    network.run(5000)
    network.cut("n1", "n2", one_way=True)
    network.run(3000)
    deaf, dumb = network.nodes["n2"], network.nodes["n1"]
    assert deaf.states()["n1"] is State.SUSPECT
    assert dumb.states()["n2"] is State.UP
    assert [peer.node for peer in dumb.core.peers(network.now) if not peer.hears] == ["n2"]
    network.heal()
    network.run(1000)
    assert network.disagreements() == []


@pytest.mark.parametrize("milliseconds", [1400, 5000, 30_000])
def test_who_wakes_up_takes_nobody_for_dead(milliseconds: int) -> None:
    network = network_of(7, 6)
    network.run(5000)
    sleeper = network.nodes["n2"]
    sleeper.sleep(milliseconds)
    network.run(milliseconds + 5000)
    assert sleeper.told(Change.SUSPECT) == []
    assert network.disagreements() == []


def test_a_node_that_is_cut_off_knows_it() -> None:
    network = network_of(8, 5)
    network.run(5000)
    network.isolate("n4")
    network.run(2500)
    assert [name for name, node in network.nodes.items() if node.core.is_alone()] == ["n4"]


def test_a_stranger_stays_one_however_many_tell_of_it() -> None:
    network = network_of(9, 4)
    network.strangers.add("bad")
    network.add("bad", ["n0", "n1"])
    network.run(10_000)
    assert all("bad" not in node.connected for name, node in network.nodes.items() if name != "bad")


def test_news_reach_all_soon_and_in_spite_of_losses() -> None:
    network = network_of(10, 6, drop=0.3)
    network.run(3000)
    network.nodes["n0"].core.tell(News(shard, 1, shard, 1) for shard in range(128))
    network.run(6000)
    assert all(len(node.news) == 128 for name, node in network.nodes.items() if name != "n0")


def test_heartbeats_cost_four_messages_a_second_to_each() -> None:
    network = network_of(11, 20)
    network.run(10_000)
    network.sent = 0
    network.run(10_000)
    assert 0.9 * 40 * 20 * 19 < network.sent < 1.1 * 40 * 20 * 19


# -- mutants ---------------------------------------------------------------------------------------------------------


class Unforgiving(Membership):
    """Its own sleep is everybody's silence."""

    @override
    def _excuse(self, now: int) -> None:
        self._ticked = now


class Gullible(Membership):
    """What others hear, it takes for heard."""

    @override
    def _learn(self, record: Record, now: int) -> None:
        super()._learn(record, now)
        if (peer := self._peers.get(record.node)) is not None:
            peer.heard = now


class Forgetful(Membership):
    """It takes what a former life said late for a restart."""

    @override
    def _on_beat(self, source: str, beat: Beat, now: int) -> None:
        if (peer := self._peers.get(source)) is not None:
            peer.former.clear()
        super()._on_beat(source, beat, now)


class Silent(Membership):
    """It says nothing to those whom it does not hear."""

    @override
    def _beat(self, now: int) -> None:
        super()._beat(now)
        self._out = [
            effect
            for effect in self._out
            if not isinstance(effect, Send) or effect.node in self._seeds or self._peers[effect.node].is_heard
        ]


def test_who_does_not_excuse_its_sleep_is_caught() -> None:
    network = network_of(7, 6, core=Unforgiving)
    network.run(5000)
    network.nodes["n2"].sleep(5000)
    network.run(10_000)
    assert network.nodes["n2"].told(Change.SUSPECT) != []


def test_who_believes_hearsay_is_caught() -> None:
    network = network_of(4, 10, core=Gullible)
    network.run(5000)
    network.nodes["n3"].crash()
    network.run(2000)
    assert not all(node.told(Change.SUSPECT) == ["n3"] for name, node in network.nodes.items() if name != "n3")


def restarts_noticed(core: type[Membership]) -> int:
    """By a node of another that starts again once, while messages of its former life are on their way."""
    network = network_of(12, 3, core=core)
    network.run(3000)
    node = network.nodes["n1"]
    network.delay = 900
    network.run(800)
    node.crash()
    network.delay = 2
    node.start()
    network.run(3000)
    return len(network.nodes["n2"].told(Change.RESTARTED))


def test_who_believes_former_lives_is_caught() -> None:
    assert restarts_noticed(Membership) == 1
    assert restarts_noticed(Forgetful) > 1


def test_who_is_silent_before_those_whom_it_does_not_hear_is_caught() -> None:
    network = network_of(3, 5, core=Silent)
    network.nodes["n0"].seeds = []
    network.run(3000)
    for name in ("n1", "n2"):
        network.nodes[name].seeds = []
    network.isolate("n1")
    network.run(15_000)
    network.heal()
    network.run(8000)
    assert network.disagreements() != []

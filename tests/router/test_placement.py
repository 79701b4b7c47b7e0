"""Rooms find their shards, and shards the nodes that had best keep them; few move when a node comes or goes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ids import MemberId, RoomId
from router.placement import Candidate, Group, RoomMap, one_group, shard_of, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARDS: Final = 512
ANY: Final = Group()


def node(name: str, region: str = "eu", host: str = "") -> Candidate:
    return Candidate(MemberId(name, f"{name}-disk"), region, host or f"{name}-host")


def names(members: Sequence[MemberId]) -> list[str]:
    return [member.node for member in members]


def placed(live: Sequence[Candidate], group: Group = ANY, copies: int = 3) -> list[list[str]]:
    return [names(wanted(shard, live, group, copies)) for shard in range(SHARDS)]


@st.composite
def nodes(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(1, 12))
    regions = draw(st.lists(st.sampled_from(["eu", "us", "ap"]), min_size=count, max_size=count))
    hosts = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    return [node(f"n{i}", regions[i], f"{regions[i]}-{hosts[i]}") for i in range(count)]


groups = st.builds(Group, st.sampled_from(["", "eu", "us", "mars"]), st.booleans())


# -- rooms ---------------------------------------------------------------------------------------------------------


def test_rooms_keep_the_shards_that_logs_have_them_in() -> None:
    """These numbers are on disks: with others, rooms would be looked for where they are not."""
    assert [shard_of(RoomId("default", name), 128) for name in ("support", "a:b", "ü")] == [124, 45, 88]


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from([1, 128, 1024]))
def test_with_one_group_the_map_says_what_shard_of_says(site: str, channel: str, shards: int) -> None:
    room = RoomId(site, channel)
    assert one_group(shards).shard_of(room) == shard_of(room, shards)
    assert one_group(shards).group_of(shard_of(room, shards)) == ANY


def test_a_kind_of_room_of_a_site_has_the_shards_of_its_group() -> None:
    rooms = (
        one_group(128)
        .with_assigned("shop", "help", Group("eu"))
        .with_assigned("shop", "", Group("us", survives_region=True))
    )
    assert (rooms.version, rooms.groups) == (3, (ANY, Group("eu"), Group("us", survives_region=True)))
    of_site = {channel: rooms.shard_of(RoomId("shop", channel)) for channel in ("help:1", "$help:1", "lobby", "game:1")}
    assert [shard // 128 for shard in of_site.values()] == [1, 1, 2, 0]
    assert rooms.group_of(of_site["lobby"]) == Group("us", survives_region=True)
    assert rooms.shard_of(RoomId("other", "help:1")) // 128 == 0
    assert rooms.shard_of(RoomId("shop", "help:1")) % 128 == shard_of(RoomId("shop", "help:1"), 128)


def test_a_group_that_there_is_gets_no_second_number() -> None:
    rooms = one_group(128).with_assigned("a", "x", Group("eu")).with_assigned("b", "y", Group("eu"))
    assert len(rooms.groups) == 2
    assert rooms.with_assigned("b", "y", Group("eu")) is rooms
    assert rooms.with_assigned("c", "z", ANY).assigned["c", "z"] == 0


def test_rooms_are_not_moved_to_another_group_in_passing() -> None:
    rooms = one_group(128).with_assigned("a", "x", Group("eu"))
    with pytest.raises(ValueError, match="rooms of kind 'x' of site 'a' belong to"):
        rooms.with_assigned("a", "x", Group("us"))


def test_a_shard_of_no_group_is_refused() -> None:
    with pytest.raises(IndexError):
        RoomMap(1, 128, (ANY,), {}).group_of(128)


# -- shards --------------------------------------------------------------------------------------------------------

EU: Final = [node("eu-1", host="h1"), node("eu-2", host="h1"), node("eu-3", host="h2"), node("eu-4", host="h3")]
US: Final = [node("us-1", "us"), node("us-2", "us")]


@pytest.mark.parametrize(
    ("group", "live", "regions", "hosts"),
    [
        (Group("eu"), EU + US, ["eu", "eu", "eu"], 3),
        (Group("us"), EU + US, ["us", "us", "eu"], 3),
        (Group("us", survives_region=True), EU + US, ["us", "eu", "us"], 3),
        (Group("eu", survives_region=True), EU + US, ["eu", "us", "eu"], 3),
        (Group("eu"), EU[:2] + US, ["eu", "us", "us"], 3),  # a host of its own weighs more than a near region
        (Group("eu"), EU[:2], ["eu", "eu"], 1),
        (Group("eu", survives_region=True), EU, ["eu", "eu", "eu"], 3),
        (Group("mars"), US, ["us", "us"], 2),
        (ANY, US, ["us", "us"], 2),
        (ANY, [], [], 0),
    ],
)
def test_home_region_other_hosts_and_other_regions_come_in_their_order(
    group: Group, live: list[Candidate], regions: list[str], hosts: int
) -> None:
    of = {candidate.member: candidate for candidate in live}
    for shard in range(SHARDS):
        chosen = [of[member] for member in wanted(shard, live, group, 3)]
        assert [candidate.region for candidate in chosen] == regions
        assert len({candidate.host for candidate in chosen}) == hosts


def test_all_nodes_get_their_share() -> None:
    live = [node(f"n{i}") for i in range(8)]
    primaries = Counter(order[0] for order in placed(live))
    copies = Counter(name for order in placed(live) for name in order)
    assert min(primaries.values()) > SHARDS / 8 / 2
    assert max(primaries.values()) < SHARDS / 8 * 2
    assert min(copies.values()) > SHARDS * 3 / 8 * 0.75


def test_about_one_in_n_shards_moves_to_a_new_node_and_no_other_moves() -> None:
    live = [node(f"n{i}") for i in range(9)]
    before, after = placed(live), placed([*live, node("n9")])
    moved = [(old, new) for old, new in zip(before, after, strict=True) if set(old) != set(new)]
    assert SHARDS * 3 / 10 * 0.7 < len(moved) < SHARDS * 3 / 10 * 1.3
    assert all("n9" in new and len(set(new) - set(old)) == 1 for old, new in moved)
    led = [new for old, new in zip(before, after, strict=True) if old[0] != new[0]]
    assert all(new[0] == "n9" for new in led)
    assert SHARDS / 10 * 0.6 < len(led) < SHARDS / 10 * 1.4


@given(nodes(), groups, st.integers(0, 10_000), st.integers(1, 4), st.data())
def test_a_node_that_goes_changes_only_shards_that_it_kept(
    live: list[Candidate], group: Group, shard: int, copies: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(live))
    before = wanted(shard, live, group, copies)
    after = wanted(shard, [candidate for candidate in live if candidate != gone], group, copies)
    assert gone.member in before or after == before
    assert len(after) == min(copies, len(live) - 1)


@given(nodes(), groups, st.integers(0, 10_000), st.data())
def test_the_order_depends_on_nothing_but_who_there_is(
    live: list[Candidate], group: Group, shard: int, data: st.DataObject
) -> None:
    ranked = wanted(shard, live, group)
    assert ranked == wanted(shard, data.draw(st.permutations(live)), group)
    assert sorted(ranked) == sorted(candidate.member for candidate in live)
    assert wanted(shard, live, group, 2) == ranked[:2]


@given(nodes(), groups, st.integers(0, 10_000), st.integers(1, 4))
def test_no_two_copies_share_a_host_while_there_are_others(
    live: list[Candidate], group: Group, shard: int, copies: int
) -> None:
    of = {candidate.member: candidate for candidate in live}
    chosen = [of[member] for member in wanted(shard, live, group, copies)]
    assert len({c.host for c in chosen}) == min(len(chosen), len({c.host for c in live}))
    if group.survives_region and len(chosen) > 1 and len({c.region for c in live}) > 1:
        assert len({c.region for c in chosen}) > 1
    if any(c.region == group.home for c in live):
        assert chosen[0].region == group.home


def test_a_node_with_a_new_disk_comes_back_to_its_place() -> None:
    live = [node(f"n{i}") for i in range(5)]
    wiped = [Candidate(MemberId("n3", "new"), "eu", "n3-host") if c.member.node == "n3" else c for c in live]
    assert placed(live) == placed(wiped)

"""Shards move where they had best be, a step at a time, and with all copies at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.balance import Action, BalanceOptions, Balancer, Nodes, Step, next_step
from router.events import Configuration
from router.ids import MemberId
from router.membership_wire import Standing
from router.placement import Candidate, Group, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

M: Final = {name: MemberId(name, "d") for name in "abcdef"}
OPTIONS: Final = BalanceOptions(copies=3, settle=1000, every=100, patience=5000, hand_overs=4)


def members(text: str) -> tuple[MemberId, ...]:
    return tuple(M[name] for name in text)


def row(text: str, shard: int = 0, version: int = 1) -> Configuration:
    """A row whose first member is primary."""
    return Configuration(shard, version, version, M[text[0]], members(text))


@pytest.mark.parametrize(
    ("now", "ranked", "up", "step"),
    [
        ("abc", "abcd", "abcd", None),
        ("acb", "abcd", "abcd", None),  # only the first has a place of its own
        ("abd", "abcd", "abcd", (Action.ADD, "c")),
        ("bcd", "abcd", "abcd", (Action.ADD, "a")),
        ("def", "abcdef", "abcdef", (Action.ADD, "a")),
        ("bcda", "abcd", "abcd", (Action.TRANSFER, "a")),
        ("bac", "abcd", "abcd", (Action.TRANSFER, "a")),
        ("abcd", "abcd", "abcd", (Action.REMOVE, "d")),
        ("abcde", "abcde", "abcde", (Action.REMOVE, "e")),
        ("abcd", "abc", "abcd", (Action.REMOVE, "d")),  # it drains
        ("abc", "bcd", "abcd", (Action.HAND_OVER, "b")),
        ("abc", "dbc", "abcd", (Action.HAND_OVER, "b")),  # not to the best: to one that has it all
        ("abc", "def", "abcdef", (Action.ADD, "d")),
        ("abc", "bc", "abc", (Action.HAND_OVER, "b")),
        ("bac", "bc", "abc", None),  # it is one of three until it is gone
        ("abc", "", "abc", None),
        ("abc", "abd", "abd", None),  # c has failed: repair comes first
        ("ab", "abcd", "abcd", None),  # it is about to take c
        ("ba", "ab", "ab", (Action.TRANSFER, "a")),
    ],
)
def test_each_step_is_the_one_that_loses_no_copy(
    now: str, ranked: str, up: str, step: tuple[Action, str] | None
) -> None:
    expected = Step(step[0], 0, M[step[1]]) if step else None
    assert next_step(row(now), members(ranked), members(up), 3) == expected


def test_a_shard_that_was_never_used_has_no_step() -> None:
    assert next_step(Configuration(0, 0, 0, M["a"], ()), members("abc"), members("abc"), 3) is None


def done(now: Configuration, step: Step) -> Configuration:
    """The row after a step."""
    primary, kept = now.primary, now.members
    match step.action:
        case Action.ADD:
            kept = (*kept, step.member)
        case Action.REMOVE:
            kept = tuple(member for member in kept if member != step.member)
        case Action.TRANSFER | Action.HAND_OVER:
            primary = step.member
    assert primary in kept, f"{step} takes the primary of {now} away"
    return Configuration(now.shard, now.version + 1, now.epoch + 1, primary, kept)


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
    st.integers(1, 4),
)
def test_the_steps_lead_there_and_end(now: list[str], live: list[str], copies: int) -> None:
    current = row("".join(now))
    ranked = members("".join(live))
    if len(now) < copies:
        return  # the shard takes more members by itself first
    for _ in range(12):
        step = next_step(current, ranked, M.values(), copies)
        if step is None:
            break
        current = done(current, step)
        assert copies <= len(current.members) <= max(copies + 1, len(now) + 1)
    best = ranked[:copies]
    assert set(best) <= set(current.members)
    assert current.primary == best[0]
    assert set(current.members) == set(best) or len(current.members) == copies > len(best)


# -- the balancer ----------------------------------------------------------------------------------------------------


def nodes(live: str, up: str = "abcdef", ranked: str = "") -> Nodes:
    return Nodes(members(up), members(live), lambda _shard: members(ranked or live))


def test_nothing_moves_until_the_nodes_have_been_the_same_for_a_while() -> None:
    balancer = Balancer(M["a"], OPTIONS, 0)
    rows = [row("abd")]
    assert balancer.tick(900, Standing.READY, rows, nodes("abcd")) == []
    assert balancer.tick(1800, Standing.READY, rows, nodes("abcd")) == []
    assert balancer.tick(1900, Standing.READY, rows, nodes("abc")) == []
    assert balancer.tick(2899, Standing.READY, rows, nodes("abc")) == []
    assert balancer.tick(2900, Standing.READY, rows, nodes("abc")) == [Step(Action.ADD, 0, M["c"])]


def test_one_shard_moves_at_a_time_and_only_by_its_primary() -> None:
    balancer = Balancer(M["a"], OPTIONS, 0)
    rows = [row("abd", 1), row("abd", 2), row("bad", 3)]
    balancer.tick(0, Standing.READY, rows, nodes("abcd"))
    assert balancer.tick(1000, Standing.READY, rows, nodes("abcd")) == [Step(Action.ADD, 1, M["c"])]
    assert balancer.tick(2000, Standing.READY, rows, nodes("abcd")) == []
    rows[0] = row("abdc", 1)
    assert balancer.tick(2050, Standing.READY, rows, nodes("abcd")) == [], "it does not look all the time"
    assert balancer.tick(2100, Standing.READY, rows, nodes("abcd")) == [Step(Action.ADD, 2, M["c"])]
    rows[1] = row("abdc", 2)
    assert balancer.tick(2200, Standing.READY, rows, nodes("abcd")) == [Step(Action.REMOVE, 1, M["d"])]


def test_a_step_that_does_not_come_about_lets_others_go_first_and_is_tried_again() -> None:
    balancer = Balancer(M["a"], OPTIONS, 0)
    rows = [row("abd", 1), row("abd", 2)]
    steps = [balancer.tick(now, Standing.READY, rows, nodes("abcd")) for now in range(0, 17_000, 1000)]
    begun = [step[0].shard for step in steps if step]
    assert begun == [1, 2, 1, 2]


def test_a_node_that_drains_hands_over_at_once_and_several() -> None:
    balancer = Balancer(M["a"], OPTIONS, 0)
    rows = [row("abc", shard) for shard in range(6)]
    begun = balancer.tick(0, Standing.DRAINING, rows, nodes("bcd"))
    assert begun == [Step(Action.HAND_OVER, shard, M["b"]) for shard in range(4)]
    rows[:4] = [row("bac", shard) for shard in range(4)]
    begun = balancer.tick(100, Standing.DRAINING, rows, nodes("bcd"))
    assert begun == [Step(Action.HAND_OVER, shard, M["b"]) for shard in (4, 5)]


def test_a_node_that_has_just_started_moves_nothing() -> None:
    balancer = Balancer(M["a"], OPTIONS, 0)
    assert not any(balancer.tick(now, Standing.STARTING, [row("abc")], nodes("bcd")) for now in range(0, 5000, 100))


def test_a_cluster_that_grows_comes_to_the_placement_that_is_wanted() -> None:
    names = "abcdef"
    live = [Candidate(M[name], "eu", name) for name in names]
    ranks = {shard: wanted(shard, live, Group()) for shard in range(64)}
    rows = {shard: row("abc"[shard % 3 :] + "abc"[: shard % 3], shard) for shard in range(64)}
    balancers = {M[name]: Balancer(M[name], OPTIONS, 0) for name in names}

    def rank(shard: int) -> Sequence[MemberId]:
        return ranks[shard]

    everybody = Nodes(M.values(), M.values(), rank)
    for now in range(0, 40_000, 100):
        for balancer in balancers.values():
            for step in balancer.tick(now, Standing.READY, [*rows.values()], everybody):
                rows[step.shard] = done(rows[step.shard], step)
                assert 3 <= len(rows[step.shard].members) <= 4
    assert all(set(rows[shard].members) == set(ranks[shard][:3]) for shard in rows)
    assert all(rows[shard].primary == ranks[shard][0] for shard in rows)

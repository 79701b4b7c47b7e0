"""Which change brings shards nearer to where they had best be: one step at a time.  Sans-I/O.

A shard moves by steps of which each leaves it with all copies that it is to have: ADD a member (which learns first),
TRANSFER the primary, REMOVE who is one too many. Each node looks after the shards that it is primary of. What has
failed is not moved but repaired, by `router/shard.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from router.membership_wire import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from router.events import Configuration
    from router.ids import MemberId, ShardId


class Action(IntEnum):
    """What to do, the most urgent first: who leaves hands over, then copies are made, then taken away."""

    HAND_OVER = 0  # a TRANSFER by a primary that is to keep nothing, such as one that drains
    ADD = 1
    TRANSFER = 2
    REMOVE = 3


@dataclass(slots=True, frozen=True, order=True)
class Step:
    """One change.

    Attributes:
        action: What to do.
        shard: With which shard.
        member: Whom to add or remove, or who is to be primary.
    """

    action: Action
    shard: ShardId
    member: MemberId


@dataclass(slots=True, frozen=True)
class BalanceOptions:
    """When shards are moved.

    Attributes:
        copies: Members that a shard is to have.
        settle: Milliseconds for which the nodes have been the same before shards move: one that restarts comes back.
        every: Milliseconds from one look to the next.
        patience: Milliseconds after which a step that did not come about goes behind the others.
        hand_overs: Under way at once, where a node drains; of other steps it is one.
    """

    copies: int = 3
    settle: int = 30_000
    every: int = 1_000
    patience: int = 60_000
    hand_overs: int = 16


class Nodes(NamedTuple):
    """The nodes, for the balance.

    Attributes:
        up: Who can be counted on, may they keep shards or not.
        live: Who may keep shards.
        rank: All of `live` for a shard, the best first.
    """

    up: Collection[MemberId]
    live: Collection[MemberId]
    rank: Callable[[ShardId], Sequence[MemberId]]


def next_step(
    row: Configuration, ranked: Sequence[MemberId], up: Collection[MemberId], copies: int
) -> Step | None:  # fmt: skip
    """What brings a shard nearer to where it had best be; None: nothing, or it is to be repaired first.

    Args:
        row: Its row in force.
        ranked: All who may keep it, the best first.
        up: Who can be counted on, may they keep it or not.
        copies: Members that it is to have.
    """
    members, best = row.members, ranked[:copies]
    if not members or not best or any(member not in up for member in members):
        return None
    fit = [member for member in ranked if member in members]
    if row.primary not in ranked and fit:
        return Step(Action.HAND_OVER, row.shard, fit[0])
    missing = [member for member in best if member not in members]
    if missing and len(members) <= copies:  # with fewer than it is to have, the shard takes one by itself
        return Step(Action.ADD, row.shard, missing[0]) if len(members) == copies else None
    if row.primary != best[0] and not missing:
        return Step(Action.TRANSFER, row.shard, best[0])
    if len(members) <= copies:
        return None
    surplus = [member for member in members if member not in best and member != row.primary]
    return Step(Action.REMOVE, row.shard, max(surplus, key=_rank(ranked)))


def _rank(ranked: Sequence[MemberId]) -> Callable[[MemberId], tuple[int, MemberId]]:
    """The last of all is who may not keep the shard at all."""
    return lambda member: (ranked.index(member) if member in ranked else len(ranked), member)


class Balancer:
    """Chooses the steps of the shards that a node is primary of.

    Args:
        me: The node.
        options: When, and how many at once.
        now: Milliseconds.
    """

    __slots__ = ("_failed", "_live", "_look", "_options", "_since", "_under_way", "me")

    def __init__(self, me: MemberId, options: BalanceOptions, now: int) -> None:
        self.me, self._options = me, options
        self._live: frozenset[MemberId] = frozenset()
        self._since = self._look = now
        self._under_way: dict[Step, int] = {}  # until when each is waited for
        self._failed: dict[Step, int] = {}  # and when: others go before

    def tick(
        self, now: int, standing: Standing, rows: Iterable[Configuration], nodes: Nodes
    ) -> list[Step]:  # fmt: skip
        """The steps to begin now; each is said once, and is over when the shard's row shows it.

        Args:
            now: Milliseconds.
            standing: Of this node.
            rows: In force, as far as is known.
            nodes: That there are.
        """
        if (current := frozenset(nodes.live)) != self._live:
            self._live, self._since = current, now
            self._failed.clear()
        is_settled = standing is Standing.READY and now - self._since >= self._options.settle
        if now < self._look or not (is_settled or standing is Standing.DRAINING):
            return []
        self._look = now + self._options.every
        mine = (row for row in rows if row.primary == self.me)
        steps = [
            step for row in mine if (step := next_step(row, nodes.rank(row.shard), nodes.up, self._options.copies))
        ]
        self._review(steps, now)
        return self._begin(steps, now)

    def _review(self, steps: Collection[Step], now: int) -> None:
        """What is under way has come about, takes longer, or has taken too long."""
        for step, until in [*self._under_way.items()]:
            if step not in steps:
                del self._under_way[step]
            elif now >= until:
                del self._under_way[step]
                self._failed[step] = now

    def _begin(self, steps: Iterable[Step], now: int) -> list[Step]:
        begun: list[Step] = []
        for step in sorted(steps, key=lambda step: (self._failed.get(step, -1), step)):
            most = self._options.hand_overs if step.action is Action.HAND_OVER else 1
            if step not in self._under_way and len(self._under_way) < most:
                self._under_way[step] = now + self._options.patience
                begun.append(step)
        return begun

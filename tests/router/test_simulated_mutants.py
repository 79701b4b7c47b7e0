"""Cores, and drivers of them, with one rule missing: the simulator must catch each, or it could not see a fault."""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from router import journal
from router.replica import Replica
from router.sequencer import Sequencer
from router.shard import Phase, Shard
from tests.harness.simulate import Run
from tests.harness.simulated_member import Node
from tests.harness.simulated_rooms import Rooms
from tests.harness.simulated_scenarios import SCENARIOS
from tests.harness.simulated_storage import Disk, Register, Violation
from tests.harness.simulated_weather import ROUGH, STORM

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from router.events import Batch, Claim, Configuration, Promise
    from router.ids import MemberId
    from router.shard import Confirmed
    from router.wire import Ack

ATTEMPTS: Final = 100  # seeds within which a mutant has to be caught

Mutant: TypeAlias = "Callable[[pytest.MonkeyPatch], None]"


def anybody_promotes_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shard, "_may_claim", lambda _self, _row: True)


def a_majority_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sequencer, "_lowest", lambda self: median_low(self._match.values()))


def a_pending_member_does_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sequencer, "propose", lambda self, row, _held: self.pending.append(row))


def members_leave_before_the_register_has_answered(patch: pytest.MonkeyPatch) -> None:
    def propose(self: Sequencer, row: Configuration, held: int) -> None:
        self.pending.append(row)
        self._match = {member: self._match.get(member, held) for member in row.members}

    patch.setattr(Sequencer, "propose", propose)


def fewer_than_min_sync_commit(patch: pytest.MonkeyPatch) -> None:
    def advance(self: Sequencer) -> object:
        low = self._lowest()
        return self.replica.committed(low) if low > self.replica.commit else []

    patch.setattr(Sequencer, "_advance", advance)
    patch.setattr(Shard, "_fill", lambda _self, living, _row: (*living,))


def acknowledged_before_the_fsync(patch: pytest.MonkeyPatch) -> None:
    flush = Replica.flush

    def flush_boldly(self: Replica, ticket: int) -> None:
        flush(self, ticket)
        self.durable, self.durable_promise = self.lsn, self.promised

    patch.setattr(Replica, "flush", flush_boldly)


def a_promise_counts_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    flush = Replica.flush

    def flush_boldly(self: Replica, ticket: int) -> None:
        flush(self, ticket)
        self.durable_promise = self.promised

    patch.setattr(Replica, "flush", flush_boldly)


def a_wiped_disk_keeps_its_name(patch: pytest.MonkeyPatch) -> None:
    def wipe(self: Node) -> None:
        self.disk = Disk(self.member)

    patch.setattr(Node, "wipe", wipe)


def what_comes_before_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "fits", lambda self, prep: prep.previous <= self.lsn)


def a_promise_binds_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shard, "_is_fenced", lambda _self, _epoch: False)


def acknowledgements_of_other_epochs_count(patch: pytest.MonkeyPatch) -> None:
    on_ack = Shard._on_ack

    def count(self: Shard, source: MemberId, ack: Ack, now: int) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(Shard, "_is_of_my_epoch", lambda self, _epoch: self.sequencer is not None)
            on_ack(self, source, ack, now)

    patch.setattr(Shard, "_on_ack", count)


def a_learner_joins_without_the_inherited(patch: pytest.MonkeyPatch) -> None:
    def may_join(self: Shard, learner: MemberId) -> bool:
        return self.replication is not None and self.replication.match(learner) >= self.replica.commit

    patch.setattr(Shard, "_may_join", may_join)
    patch.setattr(Sequencer, "propose", lambda self, row, _held: self.pending.append(row))


def who_takes_over_serves_before_the_inherited_is_committed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sequencer, "serving", property(lambda _self: True))


def a_restarted_primary_goes_on_in_its_epoch(patch: pytest.MonkeyPatch) -> None:
    try_claim = Shard._try_claim

    def resume(self: Shard, now: int, up: Collection[MemberId]) -> None:
        if self.row.primary == self.me and self.row.epoch == self.replica.promised:
            self.replica.promised -= 1
            self._take_over(self.row, now)
        else:
            try_claim(self, now, up)

    patch.setattr(Shard, "_try_claim", resume)


def silence_of_the_register_is_taken_for_no(patch: pytest.MonkeyPatch) -> None:
    unknown = Shard._unknown

    def believe(self: Shard, now: int) -> None:
        unknown(self, now)
        if self.sequencer is not None:
            self.sequencer.pending.clear()
            members = self.sequencer.configuration.members
            self.sequencer._match = {m: lsn for m, lsn in self.sequencer._match.items() if m in members}

    patch.setattr(Shard, "_unknown", believe)


def the_register_loses_writes(patch: pytest.MonkeyPatch) -> None:
    cas = Register.cas

    def forgetful(self: Register, request: tuple[str, int, int], claim: Claim) -> tuple[bool, Configuration]:
        answer = cas(self, request, claim)
        if len(self.history) % 4 == 3:  # a fail-over, to a copy that did not have it yet
            self.rows.pop(claim.new.shard, None)
            self.history.append(claim.new)
        return answer

    patch.setattr(Register, "cas", forgetful)


def a_primary_answers_without_asking(patch: pytest.MonkeyPatch) -> None:
    def confirm(self: Shard, done: Confirmed, _now: int) -> None:
        done(self.phase is Phase.SERVING)

    patch.setattr(Shard, "confirm", confirm)


def ids_are_known_only_to_who_accepted_them(patch: pytest.MonkeyPatch) -> None:
    serve = Rooms.serve

    def forget(self: Rooms) -> None:
        serve(self)
        self.known.clear()

    patch.setattr(Rooms, "serve", forget)


def a_failed_fsync_is_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    def go_on(self: Node, batches: list[Batch]) -> None:
        self.persisted(batches)

    patch.setattr(Node, "failed", go_on)


def a_torn_write_is_taken_for_whole(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal, "crc32", lambda _data: 0)


def who_lacks_what_is_committed_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    promise = Replica.promise

    def promise_blindly(self: Replica, epoch: int) -> Promise:
        promised = promise(self, epoch)
        self.agreed = self.commit
        return promised

    patch.setattr(Replica, "promise", promise_blindly)
    patch.setattr(Shard, "_check_primary", lambda _self, _source, _epoch: None)


MUTANTS: Final = (
    anybody_promotes_itself, a_majority_commits, a_pending_member_does_not_count,
    members_leave_before_the_register_has_answered, fewer_than_min_sync_commit, acknowledged_before_the_fsync,
    a_promise_counts_before_it_is_durable, a_wiped_disk_keeps_its_name, what_comes_before_is_not_compared,
    a_promise_binds_nobody, a_learner_joins_without_the_inherited,
    who_takes_over_serves_before_the_inherited_is_committed, a_restarted_primary_goes_on_in_its_epoch,
    silence_of_the_register_is_taken_for_no, the_register_loses_writes, a_primary_answers_without_asking,
    ids_are_known_only_to_who_accepted_them, a_failed_fsync_is_taken_for_done, a_torn_write_is_taken_for_whole,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_core_without_one_of_its_rules_is_caught(mutate: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    assert any(is_caught(seed) for seed in range(ATTEMPTS))


def is_caught(seed: int) -> bool:
    run = Run(seed, weather=STORM if seed % 2 else ROUGH)
    try:
        run.play(run.mesh())
    except Violation:
        return True
    return False


RARE: Final = {
    "acknowledgements_arrive_in_a_later_tenure": acknowledgements_of_other_epochs_count,
    "the_register_is_restored_from_an_old_backup": who_lacks_what_is_committed_is_acknowledged,
}
"""What it takes a scenario to see."""


@pytest.mark.parametrize("scenario", RARE)
def test_a_core_without_a_rule_for_what_is_rare_is_caught_by_its_scenario(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RARE[scenario](monkeypatch)
    assert any(fails(scenario, seed) for seed in range(ATTEMPTS))


def fails(scenario: str, seed: int) -> bool:
    try:
        SCENARIOS[scenario].play(seed)
    except Violation:
        return True
    return False

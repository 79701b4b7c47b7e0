"""Replication under every kind of fault, in virtual time; and cores with one rule missing, which must be caught."""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from router.replica import Replica
from router.sequencer import Sequencer
from router.shard import Phase, Shard
from tests.harness.simulate import STORM, WEATHERS, Run, main
from tests.harness.simulated_mesh import Node
from tests.harness.simulated_storage import Disk, Register, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from router.events import Claim, Configuration
    from router.ids import MemberId
    from router.shard import Confirmed

SEEDS: Final = 40  # of the real core: about a million steps
ATTEMPTS: Final = 100  # seeds within which a mutant has to be caught

Mutant: TypeAlias = "Callable[[pytest.MonkeyPatch], None]"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost_and_all_comes_back_when_it_is_calm(seed: int) -> None:
    run = Run(seed, weather=STORM if seed % 4 == 3 else WEATHERS["rough"])
    simulated = run.mesh()
    run.play(simulated)
    simulated.calm()
    assert simulated.tally.acked > 100
    assert simulated.tally.heads


def anybody_promotes_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shard, "_may_claim", lambda _self, _row: True)


def a_majority_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sequencer, "_lowest", lambda self: median_low(self._match.values()))


def a_pending_member_does_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sequencer, "propose", lambda self, row, _held: self.pending.append(row))


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


def a_wiped_disk_keeps_its_name(patch: pytest.MonkeyPatch) -> None:
    def wipe(self: Node) -> None:
        self.crash()
        self.disk = Disk(self.member)

    patch.setattr(Node, "wipe", wipe)


def what_comes_before_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "fits", lambda self, prep: prep.previous <= self.lsn)


def a_promise_binds_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shard, "_is_fenced", lambda _self, _epoch: False)


def a_learner_joins_without_the_inherited(patch: pytest.MonkeyPatch) -> None:
    def may_join(self: Shard, learner: MemberId) -> bool:
        return self.replication is not None and self.replication.match(learner) >= self.replica.commit

    patch.setattr(Shard, "_may_join", may_join)
    patch.setattr(Sequencer, "propose", lambda self, row, _held: self.pending.append(row))


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


MUTANTS: Final = (
    anybody_promotes_itself, a_majority_commits, a_pending_member_does_not_count, fewer_than_min_sync_commit,
    acknowledged_before_the_fsync, a_wiped_disk_keeps_its_name,
    what_comes_before_is_not_compared, a_promise_binds_nobody, a_learner_joins_without_the_inherited,
    a_restarted_primary_goes_on_in_its_epoch, silence_of_the_register_is_taken_for_no, the_register_loses_writes,
    a_primary_answers_without_asking,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_core_without_one_of_its_rules_is_caught(mutate: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    assert any(is_caught(seed) for seed in range(ATTEMPTS))


def is_caught(seed: int) -> bool:
    run = Run(seed, weather=STORM if seed % 2 else WEATHERS["rough"])
    try:
        run.play(run.mesh())
    except Violation:
        return True
    return False


def test_a_failing_seed_is_told_with_what_led_to_it_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_majority_commits(monkeypatch)
    assert main(["--seeds", "1", "--first", "1", "--nodes", "3"]) == 1
    told = capsys.readouterr().out
    assert "again: scripts/simulate --seeds 1 --first 1 --seconds 30 --nodes 3 --weather rough" in told
    assert "1 runs, 1 of them with a violation" in told
    assert main(["--seeds", "1", "--first", "1", "--nodes", "3"]) == 1
    assert capsys.readouterr().out.split(" s\n")[0].rsplit(",", 1)[0] == told.split(" s\n")[0].rsplit(",", 1)[0]

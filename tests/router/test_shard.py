"""One shard at one member, driven by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router.entry import GENESIS, SALT_BYTES, Entry, Kind
from router.errors import BrokenInvariant, CorruptEntry
from router.events import Claim, Configuration
from router.ids import MemberId, RoomId
from router.replica import Replica
from router.sequencer import RoomHead
from router.shard import Outbox, Phase, Shard, ShardOptions
from router.wire import Ack, Config, Nack, PeerMessage, Prep, Stale, decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B, C = (MemberId(name, f"disk of {name}") for name in "abc")
OPTIONS = ShardOptions(copies=2, min_sync=2)


class Member:
    """A shard at a member, with a disk that is quick.

    Attributes:
        sent: To whom, and what, in order; emptied by `take`.
        committed: In order.
    """

    def __init__(self, me: MemberId, row: Configuration | None = None, options: ShardOptions = OPTIONS) -> None:
        self.out = Outbox()
        self.shard = Shard(me, Replica(0, None), row, options, self.out, lambda: 0.5, lambda: bytes(SALT_BYTES))
        self.sent: list[tuple[MemberId, PeerMessage]] = []
        self.committed: list[Entry] = []
        self.claims: list[Claim] = []
        self.answers: list[bool] = []
        self.head = RoomHead(RoomId("s", "r"), 1, 0, 0, 0)
        self.ticket = 0

    def settle(self, *, sync: bool = True) -> Member:
        """Write what is to be written, and gather what is to be sent."""
        out = self.out
        while out.touched or out.batch:
            touched, out.touched, batch, out.batch = list(out.touched.values()), {}, out.batch, None
            self.ticket += batch is not None
            for shard in touched:
                shard.flush(self.ticket if batch is not None else None, 0)
                if sync:
                    shard.persisted(self.ticket, 0)
        self.sent += out.sends
        self.committed += out.committed
        self.claims += out.claims
        for done, answer in out.confirmed:
            done(answer)
        for queue in (out.sends, out.committed, out.claims, out.confirmed):
            queue.clear()
        return self

    def take(self) -> list[PeerMessage]:
        """What was sent since the last time."""
        self.settle()
        messages = [message for _, message in self.sent]
        self.sent.clear()
        return messages

    def receive(self, source: MemberId, *messages: PeerMessage) -> Member:
        for message in messages:
            self.shard.receive(source, decode(encode(message)), 0)
        return self.settle()

    def say(self, *, sync: bool = True) -> None:
        """Sequence a message."""
        sequencer = self.shard.sequencer
        assert sequencer is not None
        entry = sequencer.append(self.head, Kind.MESSAGE, b"s" * 12, "", b"{}", b"", 1, bytes(SALT_BYTES), b"", None)
        self.out.open_batch().entries.append(entry)
        self.out.touched[0] = self.shard
        self.settle(sync=sync)


def row(version: int, primary: MemberId, *members: MemberId) -> Configuration:
    return Configuration(0, version, version, primary, members or (primary,))


def primary_of(version: int = 1, *members: MemberId, options: ShardOptions = OPTIONS) -> Member:
    """A, which has just been made primary by this row, and has sent its EPOCH entry."""
    known = row(version - 1, A, *members) if version > 1 else None
    member = Member(A, known, options)
    if known is None:
        member.shard.found(members)
    else:
        member.shard.tick(0, [A], [])
    (claim,) = member.settle().claims
    member.shard.claimed(claim, row(version, A, *members), 0, done=True)
    return member.settle()


def exchange(*members: Member) -> None:
    """Carry messages to and fro, and read for who needs it, until nobody says anything."""
    by_name = {member.shard.me: member for member in members}
    while any(member.settle().sent or member.out.reads for member in members):
        for member in members:
            sent, member.sent = member.sent, []
            for target, message in sent:
                if target in by_name:
                    by_name[target].receive(member.shard.me, message)
            for read in member.out.reads:
                entries = member.committed[read.after : read.after + read.limit]
                chain = member.committed[read.after - 1].chain if read.after else GENESIS
                member.shard.log_read(read, chain, [entry.wire for entry in entries], 0)
            member.out.reads.clear()


def lsns(entries: Sequence[Entry]) -> list[int]:
    return [entry.lsn for entry in entries]


def test_a_primary_serves_once_its_epoch_entry_is_on_every_members_disk() -> None:
    one, two = primary_of(1, A, B), Member(B)
    phases = [one.shard.phase]
    exchange(one, two)
    assert [*phases, one.shard.phase] == [Phase.TAKING_OVER, Phase.SERVING]
    assert lsns(one.committed) == [1]


def test_a_follower_acknowledges_nothing_before_it_is_durable() -> None:
    one, two = primary_of(1, A, B), Member(B)
    (prep,) = one.take()
    two.shard.receive(A, prep, 0)
    two.settle(sync=False)
    assert two.sent == []
    two.shard.persisted(two.ticket, 0)
    assert two.take() == [Ack(0, 1, 0, 1)]


def test_an_acknowledgement_that_waits_for_the_disk_is_not_sent_after_a_promise_to_another() -> None:
    one, two = primary_of(1, A, B), Member(B)
    (prep,) = one.take()
    two.shard.receive(A, prep, 0)
    two.settle(sync=False)
    two.shard.receive(C, Prep(0, 7, 0, 9, GENESIS, 0, []), 0)
    two.settle()
    assert [type(message) for message in two.take()] == [Nack]


def test_what_comes_of_an_earlier_epoch_is_refused_and_says_of_which_it_should_be() -> None:
    two = Member(B)
    two.receive(C, Prep(0, 7, 0, 0, GENESIS, 0, []))
    two.take()
    two.receive(A, Prep(0, 6, 0, 0, GENESIS, 0, []))
    assert two.take() == [Stale(0, 7)]


def test_acknowledgements_of_another_epoch_count_for_nothing() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.say()
    one.receive(B, Ack(0, 2, 0, 2), Ack(0, 0, 0, 2))
    assert lsns(one.committed) == [1]
    one.receive(B, Ack(0, 1, 0, 2))
    assert lsns(one.committed) == [1, 2]


def test_a_primary_that_hears_of_a_later_epoch_gives_up_and_its_clients_are_told_that_nobody_knows() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.say()
    one.receive(B, Stale(0, 4))
    assert one.shard.phase is Phase.FOLLOWING
    assert lsns(one.out.lost) == [2]


def test_a_suffix_that_was_not_committed_gives_way_to_that_of_the_new_primary() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.say(sync=True)  # never reaches the other
    one.say(sync=True)
    one.sent.clear()
    two.shard.learn(row(1, A, A, B), 0)
    two.shard.tick(0, [B], [])
    two.shard.tick(10_000, [B], [])
    (claim,) = two.settle().claims
    assert claim.new.members == (B, A)  # as two must hold what is committed, the one that is away stays
    two.shard.claimed(claim, claim.new, 0, done=True)
    two.settle()
    exchange(two, one)
    assert one.shard.replica.chain == two.shard.replica.chain
    assert (one.shard.replica.lsn, two.shard.phase) == (2, Phase.SERVING)
    assert lsns(one.out.lost) == [2, 3]


def test_a_log_that_differs_where_it_is_committed_halts_the_shard() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.say()
    exchange(one, two)
    one.shard.replication.tick(10_000)  # type: ignore[union-attr]
    exchange(one, two)
    commit = two.shard.replica.commit
    assert commit == 2
    with pytest.raises(BrokenInvariant, match="differs from what is committed at 2"):
        two.receive(C, Prep(0, 9, 0, commit, b"x" * 16, 0, []))


def test_a_member_whose_epoch_two_claim_to_lead_halts() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    with pytest.raises(BrokenInvariant, match="is primary of epoch 1, and so is"):
        one.receive(C, Prep(0, 1, 0, 0, GENESIS, 0, []))


def test_an_entry_in_anothers_place_is_corrupt() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.say()
    prep = next(m for m in one.take() if isinstance(m, Prep) and m.wires)
    wrong = Prep(0, 1, 0, 1, prep.chain, 0, [*prep.wires, *prep.wires])
    with pytest.raises(CorruptEntry, match="has entry 0/2 where 0/3 is due"):
        two.receive(A, wrong)


def test_a_restarted_primary_takes_a_new_epoch_before_it_serves() -> None:
    again = primary_of(6, A, B)
    assert [m.epoch for m in again.take() if isinstance(m, Prep)] == [6]


def test_a_claim_of_an_earlier_life_is_not_taken_for_ones_own() -> None:
    member = Member(A, row(5, A, A, B))
    member.shard.tick(0, [A], [])
    (claim,) = member.settle().claims
    member.shard.claimed(claim, claim.new, 0, done=False)
    member.settle()
    assert (member.shard.phase, member.shard.sequencer) == (Phase.CLAIMING, None)
    member.shard.tick(10_000, [A], [])
    (_, next_claim) = member.settle().claims
    assert next_claim.new.epoch == claim.new.epoch + 1


def test_who_is_no_member_never_claims() -> None:
    stranger = Member(C, row(3, A, A, B))
    stranger.shard.tick(0, [C], [])
    stranger.shard.tick(60_000, [C], [])
    assert stranger.settle().claims == []


def test_a_register_that_forgot_a_row_halts_the_shard() -> None:
    member = Member(A, row(5, A, A, B))
    member.shard.tick(0, [A], [])
    (claim,) = member.settle().claims
    with pytest.raises(BrokenInvariant, match="gives row 2 of epoch 2; this member has seen row 5"):
        member.shard.claimed(claim, row(2, B, B), 0, done=False)


def test_a_register_below_an_epoch_that_another_member_has_promised_halts_the_shard() -> None:
    member = primary_of(2, A, B)
    member.receive(B, Stale(0, 7))
    member.shard.tick(10_000, [A], [])
    claim = member.settle().claims[-1]
    with pytest.raises(BrokenInvariant, match="gives row 3 of epoch 3; this member has seen row 2, and epoch 7"):
        member.shard.claimed(claim, claim.new, 0, done=True)


def test_a_new_primary_that_is_not_heard_of_is_left_alone_for_a_while() -> None:
    member = Member(B, row(1, B, A, B))
    member.shard.learn(row(2, A, A, B), 0)
    for now in range(0, 1500, 50):  # the grace is a second, and up to another one by chance
        member.shard.tick(now, [B], [])
    assert member.settle().claims == []
    member.shard.tick(1500, [B], [])
    assert [claim.new.primary for claim in member.settle().claims] == [B]


def test_who_takes_over_with_a_member_that_is_away_exchanges_it_at_once() -> None:
    one, three = primary_of(2, A, B), Member(C)
    one.shard.tick(50, [A, C], [A, C])
    exchange(one, three)
    one.shard.tick(100, [A, C], [A, C])
    assert one.settle().claims[-1].new.members == (A, C)


def test_a_second_primary_of_an_epoch_is_not_followed() -> None:
    member = Member(B, row(3, A, A, B))
    with pytest.raises(BrokenInvariant, match=r"'disk of c'.* is primary of epoch 3, and so is .*'disk of a'"):
        member.receive(C, Prep(0, 3, 0, 0, GENESIS, 0, []))


def test_who_lacks_what_is_committed_is_acknowledged_nothing_and_halts() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    for _ in range(3):
        one.say()
    exchange(one, two)
    one.shard.replication.tick(10_000)  # type: ignore[union-attr]
    exchange(one, two)
    assert two.shard.replica.commit == 4
    register_of_old = primary_of(2, A, B)  # its log is empty: another disk of this name would have been told so
    (prep,) = register_of_old.take()
    two.receive(A, prep)
    (nack,) = two.take()
    assert nack == Nack(0, 2, 4)
    with pytest.raises(BrokenInvariant, match=r"has committed up to 4, and the log of .* ends at 1"):
        register_of_old.receive(B, nack)


def test_a_member_on_its_way_in_counts_before_the_register_has_answered() -> None:
    options = ShardOptions(copies=3, min_sync=2)
    one, two, three = primary_of(1, A, B, options=options), Member(B), Member(C)
    exchange(one, two)
    one.shard.tick(3_000, [A, B, C], [C])
    exchange(one, two, three)
    one.shard.tick(6_000, [A, B, C], [C])
    (_, change) = one.settle().claims
    assert change.new.members == (A, B, C)
    committed = len(one.committed)
    one.say()
    one.receive(B, Ack(0, 1, 9, 2))
    assert len(one.committed) == committed  # C has not acknowledged it
    one.receive(C, Ack(0, 1, 9, 2))
    assert len(one.committed) == committed + 1


def test_who_asks_whether_it_is_primary_hears_of_answers_given_after_the_question() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.shard.confirm(one.answers.append, 0)
    one.receive(B, Ack(0, 1, 0, 1))  # it was under way before
    assert one.answers == []
    exchange(one, two)
    assert one.answers == [True]
    one.shard.confirm(one.answers.append, 0)
    one.receive(B, Stale(0, 4))
    assert one.answers == [True, False]


def test_news_of_a_row_of_another_primary_ends_a_tenure() -> None:
    one, two = primary_of(1, A, B), Member(B)
    exchange(one, two)
    one.receive(B, Config(0, 2, 2, (B.node, B.disk), [(B.node, B.disk)]))
    assert one.shard.phase is Phase.FOLLOWING


@pytest.mark.parametrize(
    "data", [b"", b"\x91\xa4prep", b"\xc1", b"\x92\xa5stale\x01", encode({"prep": 1}), b"x" * (1 << 22)]
)
def test_what_is_no_message_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(CorruptEntry, match="a peer's message"):
        decode(data)

"""Places and commits of one shard's entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.entry import GENESIS, SALT_BYTES, Entry, Kind, decode
from router.errors import BrokenInvariant
from router.events import Configuration, ShardTail
from router.ids import MemberId, RoomId
from router.replica import Replica
from router.sequencer import RoomHead, Sequencer

SALT = bytes(SALT_BYTES)
A, B, C = (MemberId(name, f"disk of {name}") for name in "abc")
LOBBY, HALL = RoomId("default", "lobby"), RoomId("default", "hall")


def sequencer(*members: MemberId, min_sync: int = 1) -> Sequencer:
    """A primary of an empty shard that has placed its EPOCH entry."""
    row = Configuration(1, 1, 5, A, members or (A,))
    made = Sequencer(row, log(ShardTail(1, 0, GENESIS, 5, 0)), min_sync)
    made.begin(1000, SALT)
    return durable(made)


def durable(primary: Sequencer) -> Sequencer:
    """What it has placed is on its own disk; that it says so is another thing."""
    primary.replica.flush(1)
    primary.replica.persisted(1)
    return primary


def log(tail: ShardTail, *uncommitted: Entry) -> Replica:
    return Replica(1, tail, uncommitted)


def head(room: RoomId = LOBBY) -> RoomHead:
    return RoomHead(room, 1, 0, 0, 0)


def place(primary: Sequencer, at: RoomHead, kind: int = Kind.MESSAGE, now_ms: int = 2000) -> Entry:
    entry = primary.append(at, kind, b"s" * 12, "", b"{}", b"", now_ms, SALT, b"", None)
    durable(primary)
    return entry


def test_rooms_of_a_shard_share_its_log_and_have_dense_sequences_of_their_own() -> None:
    primary, lobby, hall = sequencer(), head(), head(HALL)
    placed = [place(primary, at) for at in (lobby, hall, lobby, lobby, hall)]
    assert [(e.lsn, e.room.channel, e.sequence) for e in placed] == [
        (2, "lobby", 1), (3, "hall", 1), (4, "lobby", 2), (5, "lobby", 3), (6, "hall", 2),
    ]  # fmt: skip


def test_hidden_entries_take_no_sequence() -> None:
    primary, lobby = sequencer(), head()
    placed = [place(primary, lobby, kind) for kind in (Kind.MESSAGE, Kind.META, Kind.META, Kind.MESSAGE)]
    assert [(e.sequence, e.meta_n) for e in placed] == [(1, 0), (1, 1), (1, 2), (2, 2)]


def test_timestamps_of_a_room_never_fall() -> None:
    primary, lobby = sequencer(), head()
    assert [place(primary, lobby, now_ms=now).ts for now in (50, 40, 60)] == [50, 50, 60]


def test_entries_chain_on_from_one_another() -> None:
    primary, lobby = sequencer(), head()
    before = primary.replica.chain
    one, two = place(primary, lobby), place(primary, lobby)
    assert decode(one.wire, before).chain == one.chain
    assert decode(two.wire, one.chain).chain == two.chain == primary.replica.chain


def test_nothing_is_committed_before_every_member_holds_it() -> None:
    primary = sequencer(A, B, C)
    assert primary.acknowledge(A, 1) == []
    assert primary.acknowledge(B, 1) == []
    assert [e.lsn for e in primary.acknowledge(C, 1)] == [1]


def test_nothing_is_committed_by_fewer_than_min_sync_members() -> None:
    primary = sequencer(A, min_sync=2)
    assert primary.acknowledge(A, 1) == []
    assert primary.commit == 0


def test_a_stranger_commits_nothing() -> None:
    primary = sequencer(A, B)
    primary.acknowledge(A, 1)
    assert primary.acknowledge(MemberId("b", "a new disk"), 1) == []


def test_old_news_commits_nothing_again() -> None:
    primary, lobby = sequencer(), head()
    place(primary, lobby)
    assert len(primary.acknowledge(A, 2)) == 2
    assert primary.acknowledge(A, 1) == []
    assert primary.acknowledge(A, 2) == []
    assert primary.commit == 2


def test_an_acknowledgement_past_the_end_of_the_log_is_a_broken_rule() -> None:
    with pytest.raises(BrokenInvariant, match="acknowledges 2, the log ends at 1"):
        sequencer().acknowledge(A, 2)


def test_inherited_entries_are_committed_with_the_new_primarys_first() -> None:
    old = sequencer()
    first = place(old, head())
    tail = ShardTail(1, 2, first.chain, 6, 1, old.replica.chain_at(1))
    primary = Sequencer(Configuration(1, 2, 6, A, (A,)), log(tail, first), 1)
    opening = primary.begin(3000, SALT)
    durable(primary)
    assert primary.acknowledge(A, 2) == [first]
    assert not primary.serving
    assert primary.acknowledge(A, 3) == [opening]
    assert primary.serving


def test_a_log_with_entries_missing_is_a_broken_rule() -> None:
    with pytest.raises(BrokenInvariant, match="0 entries above the commit, from 1 to 4"):
        log(ShardTail(1, 4, GENESIS, 6, 1))


@given(steps=st.lists(st.tuples(st.sampled_from([None, A, B, C]), st.integers(0, 30))))
def test_what_is_committed_is_dense_and_held_by_all(steps: list[tuple[MemberId | None, int]]) -> None:
    primary, lobby = sequencer(A, B, C), head()
    held = dict.fromkeys((A, B, C), 0)
    committed: list[int] = []
    for member, number in steps:
        if member is None:
            place(primary, lobby)
            continue
        lsn = min(number, primary.replica.lsn)
        held[member] = max(held[member], lsn)
        committed += [e.lsn for e in primary.acknowledge(member, lsn)]
        assert committed == list(range(1, min(held.values()) + 1))

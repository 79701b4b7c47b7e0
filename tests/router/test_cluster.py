"""The cores, driven by hand: a disk that answers when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router.cluster import Cluster
from router.effects import ClusterOptions, Effects
from router.entry import Entry, Kind
from router.events import (
    Away,
    Batch,
    Configuration,
    Duplicate,
    KnownKey,
    Outcome,
    Recovered,
    Refusal,
    RoomRecord,
    ShardTail,
    Submit,
    fingerprint,
)
from router.ids import MemberId, RoomId, dedupe_key
from router.keyfilter import KeyFilter, key_number
from router.room import RoomState

if TYPE_CHECKING:
    from collections.abc import Callable

ME = MemberId("n1", "disk")
LOBBY, HALL = RoomId("default", "lobby"), RoomId("default", "hall")
SENDER = b"s" * 12
EMPTY = Recovered({}, {}, ())
ONE = ClusterOptions(shards=1)


class Disk:
    """A cluster with one shard, and the disk under it; `step` lets the disk answer once.

    Attributes:
        recovered: What was there at the start.
        batches: All that were written, in order.
        committed: All entries that came out, in order.
        outcomes: Of all submits, in order.
        opened: Answers to `open`.
        records: Rooms that the disk knows.
        keys: What the disk's table of message ids says.
        unfiled: What may be put into the tables.
    """

    def __init__(self, recovered: Recovered = EMPTY, options: ClusterOptions = ONE) -> None:
        self.recovered = recovered
        self.cluster = Cluster(ME, "birth", options, recovered, bytes)
        self.cluster.know_keys(KeyFilter(64))
        self.batches: list[Batch] = []
        self.committed: list[Entry] = []
        self.outcomes: list[Outcome] = []
        self.opened: list[RoomState | Away] = []
        self.records: dict[RoomId, RoomRecord] = {}
        self.keys: list[KnownKey] = []
        self.unfiled: list[Entry] = []

    def take(self) -> Effects:
        """What the cores want now; outcomes are given to who waits, nothing is done on disk."""
        effects = self.cluster.effects() or Effects()
        if effects.batch is not None:
            self.batches.append(effects.batch)
        for done, outcome in effects.outcomes:
            done(outcome)
        for opened, state in effects.opened:
            opened(state)
        for entry in effects.committed:
            if entry.origin is not None:
                entry.origin(entry)
        self.committed += effects.committed
        self.unfiled += effects.filing
        return effects

    def step(self) -> Effects:
        """Take the effects, and answer them as a disk would."""
        effects = self.take()
        for claim in effects.claims:
            self.cluster.claimed(claim, claim.new, 1000, done=True)
        for room in effects.load:
            self.cluster.loaded(self.records.get(room, RoomRecord(room)), 1000)
        if effects.find:
            self.cluster.found(effects.find, [k for k in self.keys if k.key in effects.find], 1000)
        if effects.batch is not None:
            self.cluster.persisted(effects.batch.ticket)
        if effects.hurry:
            self.file()
        return effects

    def file(self) -> None:
        """Put into the tables what may be put there."""
        filed, self.unfiled = self.unfiled, []
        for entry in filed:
            if entry.visible:
                self.records[entry.room] = RoomRecord(entry.room, sequence=entry.sequence, ts=entry.ts)
            if entry.cmid:
                self.keys.append(KnownKey(entry.key, entry.sequence, fingerprint(entry.data)))
        self.cluster.filed(filed)

    def settle(self) -> None:
        """Step until there is nothing to do."""
        while self.step() != Effects():
            pass

    def submit(self, cmid: str = "", data: bytes = b"{}", room: RoomId = LOBBY, kind: int = Kind.MESSAGE) -> None:
        self.cluster.submit(Submit(room, kind, SENDER, cmid, data, b"", self.outcomes.append), 1000)

    def open(self, room: RoomId = LOBBY) -> None:
        self.cluster.open(room, self.opened.append, 1000)

    def on_air(self, *rooms: RoomId) -> Disk:
        """Bring rooms into memory."""
        for room in rooms or (LOBBY,):
            self.open(room)
        self.settle()
        return self


def sequences(outcomes: list[Outcome]) -> list[int]:
    return [outcome.sequence for outcome in outcomes if isinstance(outcome, Entry | Duplicate)]


def test_a_takeover_promises_and_writes_its_epoch_entry_before_all_else() -> None:
    disk = Disk()
    disk.submit("a")
    disk.settle()
    first, second = disk.batches
    assert [(p.shard, p.epoch) for p in first.promises] == [(0, 1)]
    assert [(e.kind, e.lsn, e.epoch) for e in first.entries] == [(Kind.EPOCH, 1, 1)]
    assert [(e.kind, e.lsn, e.sequence) for e in second.entries] == [(Kind.MESSAGE, 2, 1)]


def test_who_lost_a_claim_says_that_the_room_has_moved() -> None:
    disk = Disk()
    disk.submit("a")
    disk.open()
    (claim,) = disk.take().claims
    other = MemberId("n2", "disk")
    disk.cluster.claimed(claim, Configuration(0, 4, 9, other, (other,)), 1000, done=False)
    assert disk.take().claims == []
    assert (disk.outcomes, disk.opened) == ([Away.MOVED], [Away.MOVED])
    row = disk.cluster.row(0)
    assert row is not None
    assert row.primary == other


def test_a_claim_above_an_older_row_of_its_own_is_repeated_above_it() -> None:
    disk = Disk()
    disk.submit("a")
    (claim,) = disk.take().claims
    disk.cluster.claimed(claim, Configuration(0, 4, 9, ME, (ME,)), 1000, done=False)
    (again,) = disk.take().claims
    assert (again.expected_version, again.new.version, again.new.epoch) == (4, 5, 10)


def test_nothing_is_committed_or_answered_before_it_is_durable() -> None:
    disk = Disk().on_air()
    before = list(disk.committed)
    disk.submit("a")
    batch = disk.take().batch
    assert batch is not None
    assert disk.take() == Effects()
    assert (disk.outcomes, disk.committed) == ([], before)
    disk.cluster.persisted(batch.ticket)
    disk.take()
    assert sequences(disk.outcomes) == [1]


def test_a_later_ticket_makes_all_before_it_durable_in_order() -> None:
    disk = Disk().on_air()
    for cmid in "abc":
        disk.submit(cmid)
        disk.take()
    disk.cluster.persisted(disk.batches[-1].ticket)
    disk.take()
    assert sequences(disk.outcomes) == [1, 2, 3]


def test_an_earlier_ticket_commits_nothing_of_a_later_batch() -> None:
    disk = Disk().on_air()
    for cmid in "ab":
        disk.submit(cmid)
        disk.take()
    disk.cluster.persisted(disk.batches[-2].ticket)
    disk.take()
    assert sequences(disk.outcomes) == [1]


def test_sequences_of_each_room_are_dense() -> None:
    disk = Disk().on_air(LOBBY, HALL)
    for n in range(6):
        disk.submit(f"{n}", room=(LOBBY, HALL)[n % 2])
    disk.settle()
    seen = [(e.room.channel, e.sequence) for e in disk.committed if e.visible]
    assert seen == [(name, n) for n in (1, 2, 3) for name in ("lobby", "hall")]


def test_a_retry_of_a_committed_message_is_told_where_it_is() -> None:
    disk = Disk().on_air()
    disk.submit("a")
    disk.settle()
    disk.submit("a")
    disk.settle()
    assert disk.outcomes[1] == Duplicate(1)


def test_another_message_under_the_same_id_is_a_conflict() -> None:
    disk = Disk().on_air()
    disk.submit("a", b"1")
    disk.submit("a", b"2")
    disk.settle()
    assert disk.outcomes[0] is Refusal.CONFLICT
    assert sequences(disk.outcomes) == [1]


def test_a_retry_of_a_message_under_way_waits_until_it_is_durable() -> None:
    disk = Disk().on_air()
    disk.submit("a")
    batch = disk.take().batch
    assert batch is not None
    disk.submit("a")
    assert disk.take() == Effects()
    assert disk.outcomes == []
    disk.cluster.persisted(batch.ticket)
    disk.settle()
    assert sequences(disk.outcomes) == [1, 1]


def test_the_same_id_of_another_room_is_another_message() -> None:
    disk = Disk().on_air(LOBBY, HALL)
    disk.submit("a", room=LOBBY)
    disk.submit("a", room=HALL)
    disk.settle()
    assert [type(outcome) for outcome in disk.outcomes] == [Entry, Entry]


def test_an_id_that_the_disk_may_know_is_looked_up_and_what_follows_keeps_its_order() -> None:
    disk = Disk().on_air()
    key = dedupe_key(LOBBY, SENDER, "old")
    keys = KeyFilter(64)
    keys.add(key_number(key))
    disk.cluster.know_keys(keys)
    disk.keys = [KnownKey(key, 77, fingerprint(b"{}"))]
    disk.submit("old")
    disk.submit("new")
    disk.submit("old", b"else")
    disk.settle()
    assert Duplicate(77) in disk.outcomes
    assert Refusal.CONFLICT in disk.outcomes
    assert [e.cmid for e in disk.committed if e.visible] == ["new"]


def test_an_id_that_is_looked_up_in_vain_is_a_new_message() -> None:
    disk = Disk().on_air()
    keys = KeyFilter(64)
    keys.add(key_number(dedupe_key(LOBBY, SENDER, "a")))
    disk.cluster.know_keys(keys)
    disk.submit("a")
    disk.submit("a")
    disk.submit("b")
    disk.settle()
    assert [e.cmid for e in disk.committed if e.visible] == ["a", "b"]
    assert sequences(disk.outcomes) == [1, 2, 1] or sequences(disk.outcomes) == [1, 1, 2]


def test_an_id_that_is_too_long_is_refused() -> None:
    disk = Disk().on_air()
    disk.submit("x" * 65)
    disk.settle()
    assert disk.outcomes == [Refusal.BAD_ID]


def test_submits_for_a_room_that_is_loading_keep_their_order() -> None:
    disk = Disk()
    disk.records[LOBBY] = RoomRecord(LOBBY, sequence=40)
    for cmid in "abc":
        disk.submit(cmid)
    disk.settle()
    assert [(e.cmid, e.sequence) for e in disk.committed if e.visible] == [("a", 41), ("b", 42), ("c", 43)]


def test_a_room_is_loaded_once_however_many_ask() -> None:
    disk = Disk()
    disk.open()
    disk.open()
    disk.submit("a")
    loads = []
    while (effects := disk.step()) != Effects():
        loads += effects.load
    assert loads == [LOBBY]
    assert len(disk.opened) == 2
    assert disk.opened[0] is disk.opened[1]


def test_a_room_is_loaded_when_all_that_was_inherited_is_filed() -> None:
    disk = restarted(3)
    disk.open()
    while not (effects := disk.take()).hurry:
        assert not effects.load
        answer(disk, effects)
    assert disk.take().load == []
    disk.file()
    assert disk.take().load == [LOBBY]


def answer(disk: Disk, effects: Effects) -> None:
    """Answer all but loads."""
    for claim in effects.claims:
        disk.cluster.claimed(claim, claim.new, 1000, done=True)
    if effects.batch is not None:
        disk.cluster.persisted(effects.batch.ticket)


def restarted(count: int, commit: int = 0) -> Disk:
    """A cluster over a log in whose journal a room has `count` entries after the EPOCH entry."""
    old = Disk().on_air()
    for n in range(count):
        old.submit(f"{n}")
    old.settle()
    last = old.committed[-1]
    tail = ShardTail(0, last.lsn, last.chain, 1, commit)
    return Disk(Recovered({0: tail}, {0: Configuration(0, 1, 1, ME, (ME,))}, tuple(old.committed)))


def test_what_was_durable_and_not_known_to_be_committed_is_committed_after_a_restart() -> None:
    disk = restarted(3)
    disk.cluster.start(1000)
    disk.settle()
    assert [e.lsn for e in disk.committed] == [1, 2, 3, 4, 5]
    assert disk.committed[-1].kind == Kind.EPOCH


def test_a_retry_is_known_after_a_restart_and_the_room_goes_on_densely() -> None:
    disk = restarted(3)
    disk.submit("1")
    disk.submit("new")
    disk.settle()
    assert disk.outcomes[0] == Duplicate(2)
    assert sequences(disk.outcomes) == [2, 4]


def test_a_fault_answers_all_who_wait_and_all_who_come() -> None:
    disk = Disk().on_air()
    disk.submit("written")
    disk.take()
    disk.submit("written")
    disk.submit("loading", room=HALL)
    disk.open(HALL)
    disk.cluster.halt(Away.STORAGE_FAULT)
    disk.submit("late")
    disk.submit("late", room=RoomId("default", "elsewhere"))
    disk.take()
    assert disk.outcomes == [Away.STORAGE_FAULT] * 5
    assert disk.opened[1:] == [Away.STORAGE_FAULT]


def test_nobody_is_answered_twice_when_a_commit_ends_after_a_fault() -> None:
    disk = Disk().on_air()
    disk.submit("a")
    batch = disk.take().batch
    assert batch is not None
    disk.cluster.halt(Away.STORAGE_FAULT)
    disk.cluster.persisted(batch.ticket)
    disk.settle()
    assert disk.outcomes == [Away.STORAGE_FAULT]


def test_what_answers_after_a_fault_harms_nothing() -> None:
    disk = Disk().on_air()
    disk.submit("a", room=HALL)
    effects = disk.take()
    assert effects.load == [HALL]
    disk.cluster.halt(Away.STORAGE_FAULT)
    disk.cluster.loaded(RoomRecord(HALL), 1000)
    disk.settle()
    assert disk.outcomes == [Away.STORAGE_FAULT]


@pytest.mark.parametrize("ends", [Cluster.halt, Cluster.refuse])
def test_a_room_not_in_memory_can_still_be_read_when_nothing_can_be_written(
    ends: Callable[[Cluster, Away], None],
) -> None:
    disk = Disk().on_air()
    ends(disk.cluster, Away.STORAGE_FULL)
    disk.records[HALL] = RoomRecord(HALL, sequence=3)
    disk.open(HALL)
    disk.settle()
    opened = disk.opened[-1]
    assert isinstance(opened, RoomState)
    assert opened.committed == 3
    disk.submit("a", room=HALL)
    disk.settle()
    assert disk.outcomes == [Away.STORAGE_FULL]


def test_a_room_whose_shard_was_never_used_is_refused_when_nothing_can_be_written() -> None:
    disk = Disk()
    disk.cluster.refuse(Away.STORAGE_FULL)
    disk.open(HALL)
    disk.settle()
    assert disk.opened == [Away.STORAGE_FULL]


def test_more_than_may_wait_is_answered_overloaded() -> None:
    disk = Disk(options=ClusterOptions(shards=1, max_waiting=2))
    for cmid in "abc":
        disk.submit(cmid)
    disk.step()
    assert disk.outcomes == [Away.OVERLOADED]
    disk.settle()
    assert sequences(disk.outcomes) == [1, 2]


def test_a_room_that_was_asked_for_is_still_in_memory_when_it_is_handed_over() -> None:
    disk = Disk(options=ClusterOptions(shards=1, cache_rooms=0)).on_air(HALL)
    disk.open()
    assert disk.take().load == [LOBBY]
    disk.cluster.loaded(RoomRecord(LOBBY), 1000)
    disk.cluster.filed([])  # makes the cache shrink
    disk.take()
    assert disk.opened[-1] is disk.cluster.rooms.get(LOBBY)
    disk.cluster.filed([])
    assert len(disk.cluster.rooms) == 0


def test_an_id_filed_while_the_known_ids_are_still_read_is_known_afterwards() -> None:
    disk = Disk()
    disk.cluster = Cluster(ME, "birth", ClusterOptions(shards=1), EMPTY, bytes)
    disk.on_air()
    disk.submit("m1")
    disk.settle()
    first = disk.committed[-1]
    disk.cluster.filed(disk.committed)
    disk.cluster.know_keys(KeyFilter(64))  # whoever read them had passed its place before it was filed
    disk.keys = [KnownKey(dedupe_key(LOBBY, SENDER, "m1"), first.sequence, fingerprint(b"{}"))]
    disk.submit("m1")
    disk.settle()
    assert disk.outcomes[-1] == Duplicate(first.sequence)


def test_two_of_one_id_in_one_turn_are_one_message_even_if_it_is_filed_before_they_are_looked_up() -> None:
    disk = Disk().on_air()
    disk.submit("a")
    disk.submit("a")
    effects = disk.take()
    assert effects.batch is not None
    disk.cluster.persisted(effects.batch.ticket)
    disk.take()
    disk.cluster.filed(disk.committed)
    disk.cluster.found(effects.find, [], 1000)  # read before the filing
    disk.settle()
    assert sequences(disk.outcomes) == [1, 1]
    assert len([entry for entry in disk.committed if entry.visible]) == 1


def test_an_id_looked_up_in_vain_while_the_known_ids_are_read_is_known_afterwards() -> None:
    disk = Disk()
    disk.cluster = Cluster(ME, "birth", ClusterOptions(shards=1), EMPTY, bytes)
    disk.on_air()
    disk.submit("m1")
    asked = disk.take().find
    assert len(asked) == 1
    disk.cluster.know_keys(KeyFilter(64))
    disk.cluster.found(asked, [], 1000)
    disk.submit("m1")
    disk.settle()
    assert sequences(disk.outcomes) == [1, 1]
    assert len([entry for entry in disk.committed if entry.visible]) == 1


def test_a_room_whose_read_was_under_way_when_the_disk_became_full_is_read_anew() -> None:
    disk = Disk().on_air()
    disk.open(HALL)
    assert disk.take().load == [HALL]
    disk.cluster.halt(Away.STORAGE_FULL)
    disk.take()
    assert disk.opened[1:] == [Away.STORAGE_FULL]
    disk.records[HALL] = RoomRecord(HALL, sequence=3)
    disk.open(HALL)
    disk.settle()
    opened = disk.opened[-1]
    assert isinstance(opened, RoomState)
    assert opened.committed == 3


@pytest.mark.parametrize("loading", [True, False], ids=["its read was under way", "nobody had asked for it"])
def test_after_a_fault_nobody_waits_for_a_room_that_is_not_in_memory(loading: bool) -> None:
    disk = Disk().on_air()
    if loading:
        disk.open(HALL)
        assert disk.take().load == [HALL]
    disk.cluster.halt(Away.STORAGE_FAULT)
    disk.take()
    before = len(disk.opened)
    disk.open(HALL)
    assert disk.opened[before:] == [Away.STORAGE_FAULT]
    assert disk.take() == Effects()
    assert disk.cluster.statistics().waiting == 0

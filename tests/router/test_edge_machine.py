"""Edges and primaries over a network that fails (tests/harness/edge_world.py), and faults that it must see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from router import edge, edge_stream
from router.edge_rooms import Phase, Rooms
from router.edge_stream import Stream, entries_of
from router.edge_submits import Submits
from router.entry import LAST_VISIBLE
from router.ids import RoomId
from router.serving import Serving
from router.serving_order import Order, Turn
from tests.harness.edge_router import FakeRouter
from tests.harness.edge_world import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.edge_rooms import _Followed
    from router.edge_submits import _Pending, _Queue
    from router.edge_wire import Entries, Publication
    from router.entry import Entry
    from router.events import RoomRecord

    Patch = pytest.MonkeyPatch

SEEDS = 24


@pytest.mark.parametrize("seed", range(SEEDS))
def test_edges_hand_on_the_truth_and_every_submit_has_one_outcome(seed: int) -> None:
    world = simulate(seed)
    assert world.counts["acknowledged"] > 100


def skip_entries(patch: Patch) -> None:
    """An edge hands on what comes, even if something is missing before it."""

    def take(self: Stream, entry: Entry, out: list[Entry]) -> bool:
        self._out = out
        if entry.sequence + entry.meta_n > self.place.ordinal:
            self._hand_on(entry)
        return True

    patch.setattr(Stream, "take", take)


def skip_hidden(patch: Patch) -> None:
    """An edge looks at the sequences of what is visible alone."""

    def take(self: Stream, entry: Entry, out: list[Entry]) -> bool:
        self._out = out
        if entry.kind <= LAST_VISIBLE:
            if entry.sequence == self.state.committed + 1:
                self._skip_to(entry.meta_n)
                self._hand_on(entry)
            else:
                self.ahead = max(self.ahead, entry.sequence + entry.meta_n)
        elif entry.meta_n > self.state.meta_n:
            self._hand_on(entry)
        return True

    patch.setattr(Stream, "take", take)


def repeat_fetched(patch: Patch) -> None:
    """An edge hands on all that was fetched, though some of it came in the meantime."""

    fill = Stream.fill

    def fill_all(self: Stream, page: Entries, out: list[Entry]) -> None:
        before = len(out)
        fill(self, page, out)
        if len(out) > before:
            out.append(out[-1])

    patch.setattr(Stream, "fill", fill_all)


def ignore_heads(patch: Patch) -> None:
    """An edge does not fetch what a Head tells of: the last entry of all may be lost."""
    patch.setattr(Stream, "note_head", lambda _self, _head: None)
    publication = Rooms.publication

    def ignore(self: Rooms, node: str, message: Publication) -> None:
        followed = self._rooms.get(RoomId(message.site, message.channel))
        ahead = followed.stream.ahead if followed is not None and followed.stream is not None else 0
        publication(self, node, message)
        if followed is not None and followed.stream is not None and hasattr(message, "next_ms"):
            followed.stream.ahead = max(ahead, followed.stream.place.ordinal)
            if followed.phase is Phase.GAP and not followed.stream.behind:
                followed.phase = Phase.LIVE

    patch.setattr(Rooms, "publication", ignore)


def trust_silence(patch: Patch) -> None:
    """An edge waits for a primary that says nothing."""
    patch.setattr(Rooms, "_silent_at", lambda _self, _followed: 1 << 62)


def overlook_floors(patch: Patch) -> None:
    """An edge goes on beyond entries that can't be had any more, without a word to the members."""

    def replace(self: Rooms, followed: _Followed, record: RoomRecord) -> None:
        stream = followed.stream
        if stream is not None and followed.generation == record.generation:
            stream.state.sequence = stream.state.committed = record.sequence
            stream.state.entries.clear()
            stream._skip_to(record.meta_n)
        else:
            original(self, followed, record)

    original = Rooms._replace
    patch.setattr(Rooms, "_replace", replace)


def mix_generations(patch: Patch) -> None:
    """An edge takes entries of a room for those of another generation of it."""
    patch.setattr(Rooms, "_is_of", lambda _self, _followed, _generation: True)


def rename_retries(patch: Patch) -> None:
    """A message that is sent again has another id."""
    send = Submits._send

    def send_renamed(self: Submits, queue: _Queue, node: str, pending: _Pending) -> None:
        if not pending.submit.cmid:
            pending.cmid = f"{self._boot}.{self._ground.number()}"
        send(self, queue, node, pending)

    patch.setattr(Submits, "_send", send_renamed)


def give_up_on_moves(patch: Patch) -> None:
    """A submit that was sent to a node that is not the primary any more is not sent again."""

    def put_off(self: Submits, request: int) -> None:
        pending = self._pending.get(request)
        if pending is not None:
            self._remove(pending)

    patch.setattr(Submits, "put_off", put_off)


def take_any_order(patch: Patch) -> None:
    """A primary takes what comes, although something before it was lost."""
    patch.setattr(Order, "take", lambda *_: Turn.TAKEN)


def answer_unconfirmed(patch: Patch) -> None:
    """A primary says how a room stands without asking the shard's members whether it still is the primary."""
    patch.setattr(FakeRouter, "confirm", lambda _self, _shard, done: done(True))  # noqa: FBT003


def keep_sessions(patch: Patch) -> None:
    """A primary that lost what it had taken goes on with the sessions of before."""
    unserved = Serving.unserved

    def keep(self: Serving, shard: int) -> None:
        orders = dict(self._orders)
        unserved(self, shard)
        self._orders.update(orders)

    patch.setattr(Serving, "unserved", keep)


def show_removed(patch: Patch) -> None:
    """An edge shows entries that the primary says are removed."""

    def show(page: Entries, *, reverse: bool) -> list[Entry]:
        return entries_of(msgspec.structs.replace(page, hidden=[]), reverse=reverse)

    patch.setattr(edge, "entries_of", show)
    patch.setattr(edge_stream, "entries_of", show)


@pytest.mark.parametrize(
    "mutant",
    [
        skip_entries, skip_hidden, repeat_fetched, ignore_heads, trust_silence, overlook_floors, mix_generations,
        rename_retries, give_up_on_moves, take_any_order, answer_unconfirmed, keep_sessions, show_removed,
    ],
)  # fmt: skip
def test_a_fault_is_seen(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    for seed in range(60):
        try:
            simulate(seed)
        except (AssertionError, KeyError):
            return
    pytest.fail(f"{mutant.__name__} was not seen in 60 seeds")

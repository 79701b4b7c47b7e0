"""Nodes and a central register over a link that loses, repeats and delays; nodes and the register are killed.

Whatever happens: a claim is carried out at most once, and what it is answered was so at some moment while it was asked.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from node.central import service as services
from node.central import store as stores
from node.central.service import Served, Service
from node.central.store import Store
from router import register as registers
from router.events import Claim, Configuration
from router.ids import MemberId
from router.register import RegisterClient, RegisterOptions
from router.register_wire import (
    CasRequest,
    Certificate,
    Request,
    Row,
    Swap,
    Swapped,
    Unknown,
    configuration_of,
    decode_answer,
    decode_request,
)

if TYPE_CHECKING:
    from router.register import RegisterEffects

NODES = ("a", "b")
MEMBERS = tuple(MemberId(node, "disk") for node in NODES)
SHARDS = 3
OPTIONS = RegisterOptions(deadline=3000, retry=50, retry_most=500)
CERTIFICATE = Certificate("c0ffee", SHARDS, 1, 3, 1, 1, b"p" * 32, b"g" * 32)

picks = st.integers(0, 1 << 16)


class Held(NamedTuple):
    """A row, and when it was in force: from this moment to that; None: it still is."""

    row: Configuration | None
    since: int
    until: int | None


class Asked(NamedTuple):
    claim: Claim
    moment: int
    now: int


class CentralMachine(RuleBasedStateMachine):
    """Central with three nodes; moments are counted by what central does, milliseconds by a clock."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(services, "WINDOW", 3)
        patch.setattr(registers, "WINDOW", 3)
        patch.setattr(stores, "SESSIONS", 2)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        stores._fill(self.connection, Path(), CERTIFICATE, [])
        self.store = Store(Path(), self.connection, -1)
        self.random = Random(1)
        self.now = self.moment = self.boots = self.epoch = 0
        self.clients: dict[str, RegisterClient] = {}
        self.asked: dict[str, dict[int, Asked]] = {}
        self.reads: dict[str, int | None] = {}
        self.known: dict[tuple[str, int], Configuration] = {}
        for node in NODES:
            self.start_node(node)
        self.to_central: list[tuple[str, bytes]] = []
        self.to_nodes: list[tuple[str, bytes]] = []
        self.held: dict[int, list[Held]] = defaultdict(lambda: [Held(None, 0, None)])
        self.put: dict[int, int] = {}  # the epoch of a row: when it was put in force
        self.denied: set[int] = set()  # epochs of claims that were answered not to be done
        self.settled: dict[tuple[str, str], int] = defaultdict(int)
        self.unknown: set[tuple[str, str, int, int]] = set()

    @override
    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.connection.close()
            self._stack.close()

    def start_node(self, node: str) -> None:
        self.boots += 1
        self.clients[node] = RegisterClient(f"boot{self.boots}", "", "c0ffee", self.random.random, OPTIONS, self.now)
        self.asked[node], self.reads[node] = {}, None

    # -- what nodes do -------------------------------------------------------------------------------------------

    @rule(
        node=st.sampled_from(NODES),
        shard=st.integers(0, SHARDS - 1),
        behind=st.sampled_from((0, 0, 0, 1)),
        at_once=st.booleans(),
    )
    def ask(self, node: str, shard: int, behind: int, at_once: bool) -> None:
        row = self.known.get((node, shard))
        version = max(0, (row.version if row else 0) - behind)
        self.epoch += 1  # so each claim is another
        claim = Claim(version, Configuration(shard, version + 1, self.epoch, MemberId(node, "disk"), MEMBERS))
        self.asked[node][self.epoch] = Asked(claim, self.moment, self.now)
        self.clients[node].ask(claim, self.now)
        if at_once:
            self.tick(node, 0)

    @rule(node=st.sampled_from(NODES))
    def read(self, node: str) -> None:
        self.clients[node].read(self.now)
        self.reads[node] = self.moment

    @rule(node=st.sampled_from(NODES), ms=st.sampled_from((0, 1, 60, 400, 3000)))
    def tick(self, node: str, ms: int) -> None:
        self.now += ms
        self.check(node, self.clients[node].tick(self.now))

    @rule(node=st.sampled_from(NODES))
    def restart_node(self, node: str) -> None:
        self.start_node(node)

    # -- what the link does --------------------------------------------------------------------------------------

    @precondition(lambda self: self.to_central)
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        self.to_central.pop(pick % len(self.to_central))

    @precondition(lambda self: self.to_nodes)
    @rule(pick=picks, times=st.sampled_from((0, 1, 1, 1, 2)))
    def deliver(self, pick: int, times: int) -> None:
        node, body = self.to_nodes[pick % len(self.to_nodes)]
        if times < 2:  # else it stays, and comes again
            self.to_nodes.pop(pick % len(self.to_nodes))
        if times:
            self.clients[node].receive(body, self.now)

    # -- what central does ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.to_central)
    @rule(wanted=st.lists(picks, min_size=1, max_size=4), again=st.booleans(), killed=st.sampled_from((0, 0, 0, 1)))
    def serve(self, wanted: list[int], again: bool, killed: int) -> None:
        batch = [self.to_central[pick % len(self.to_central)] for pick in wanted]
        if not again:
            self.to_central = [message for message in self.to_central if message not in batch]
        answers = self.carry_out(batch)
        if killed:
            assert not self.connection.in_transaction
            self.store = Store(Path(), self.connection, -1)  # all that it knows is on its disk
        else:
            self.to_nodes += answers

    def carry_out(self, batch: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        served = Service(self.store).serve(batch)
        assert not served.unreadable
        changed = {row.epoch for _, row in served.changes}
        for node, body in batch:
            self.settle(node, decode_request(body), changed)
        for _, row in served.changes:
            self.moment += 1
            self.note(row)
        self.moment += 1
        for node, body in served.answers:
            answer = decode_answer(body)
            if isinstance(answer, Unknown):
                self.unknown.add((node, answer.boot, answer.session, answer.n))
            elif isinstance(answer, Swapped):
                assert (node, answer.boot, answer.session, answer.n) not in self.unknown
        return served.answers

    def settle(self, node: str, request: Request, changed: set[int]) -> None:
        """What a node has said it waits for no more is not carried out from then on."""
        if isinstance(request, CasRequest):
            process = node, request.boot
            epochs = {swap.row.epoch for swap in request.swaps}
            if epochs & changed:
                assert request.n > self.settled[process]
            changed -= epochs  # it may be in the batch once more
            self.settled[process] = max(self.settled[process], request.settled)

    def note(self, row: Row) -> None:
        """A row has been put in force."""
        new = configuration_of(row, MEMBERS[0])
        last = self.held[row.shard][-1]
        assert new.version == (last.row.version if last.row else 0) + 1
        assert new.epoch not in self.put, "carried out twice"
        assert new.epoch not in self.denied, "carried out after it was said not to be"
        self.put[new.epoch] = self.moment
        self.held[row.shard][-1] = last._replace(until=self.moment)
        self.held[row.shard].append(Held(new, self.moment, None))

    # -- what must hold ------------------------------------------------------------------------------------------

    def check(self, node: str, effects: RegisterEffects) -> None:
        self.to_central += [(node, body) for body in effects.sends]
        for answer in effects.answers:
            epoch = answer.claim.new.epoch
            asked = self.asked[node].pop(epoch)  # so it is answered once
            assert asked.claim is answer.claim
            if answer.current is None:
                continue
            self.known[node, answer.claim.new.shard] = answer.current
            if answer.done:
                assert answer.current == answer.claim.new
                assert asked.moment <= self.put[epoch] <= self.moment
            else:
                assert epoch not in self.put, "said not to be carried out, and it was"
                self.denied.add(epoch)
                self.check_was_in_force(answer.current, asked.moment)
        if effects.rows is not None:
            began = self.reads[node]
            assert began is not None
            found = {row.shard: row for row in effects.rows}
            states = ({shard: self.at(shard, moment) for shard in range(SHARDS)} for moment in self.moments(began))
            assert any({s: row for s, row in state.items() if row} == found for state in states)

    def check_was_in_force(self, row: Configuration, since: int) -> None:
        wanted = row if row.version else None
        assert any(
            held.row == wanted and (held.until is None or held.until > since) for held in self.held[row.shard]
        ), f"{row} was not in force since {since}"

    def moments(self, since: int) -> range:
        return range(since, self.moment + 1)

    def at(self, shard: int, moment: int) -> Configuration | None:
        return next(
            held.row
            for held in self.held[shard]
            if held.since <= moment and (held.until is None or moment < held.until)
        )

    @invariant()
    def no_claim_waits_beyond_its_deadline(self) -> None:
        for node, client in self.clients.items():
            if any(asked.now + OPTIONS.deadline <= self.now for asked in self.asked[node].values()):
                assert client.due is not None
                assert client.due <= self.now

    @invariant()
    def the_disk_has_what_was_put_in_force(self) -> None:
        rows = {row.shard: configuration_of(row, MEMBERS[0]) for row in self.store.rows()}
        assert rows == {shard: held[-1].row for shard, held in self.held.items() if held[-1].row}

    def heal(self) -> None:
        """With a link that works, all is answered, whatever was before."""
        for _ in range(40):
            for node in NODES:
                self.tick(node, 30)
            self.to_nodes += self.carry_out(self.to_central)
            self.to_central = []
            for node, body in self.to_nodes:
                self.clients[node].receive(body, self.now)
            self.to_nodes = []
        for node in NODES:
            self.tick(node, 0)
            assert not self.asked[node]


SETTINGS = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
SEARCH = settings(
    SETTINGS, max_examples=1000, database=None, print_blob=False, phases=[Phase.generate], report_multiple_bugs=False
)
TestCentral = CentralMachine.TestCase
TestCentral.settings = SETTINGS


def answers_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "answer", lambda *_: None)
    patch.setattr(Store, "keep", lambda *_: None)


def any_version_will_do(patch: pytest.MonkeyPatch) -> None:
    def swap(service: Service, node: str, swap: Swap, _: Certificate, served: Served) -> tuple[bool, Row]:
        service._store.put(swap.row)
        served.changes.append((node, swap.row))
        return True, swap.row

    patch.setattr(Service, "_swap", swap)


def silence_is_taken_for_no(patch: pytest.MonkeyPatch) -> None:
    drop = RegisterClient._drop

    def deny(client: RegisterClient, n: int) -> None:
        drop(client, n)
        client._effects.answers[:] = [
            answer._replace(current=Configuration(answer.claim.new.shard, 0, 0, MEMBERS[0], ()))
            if answer.current is None
            else answer
            for answer in client._effects.answers
        ]

    patch.setattr(RegisterClient, "_drop", deny)


@pytest.mark.parametrize(
    "mutant",
    [answers_are_not_kept, any_version_will_do, silence_is_taken_for_no],
)
def test_the_machine_sees_what_is_wrong(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    mutant(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion, alone or in a group
        run_state_machine_as_test(CentralMachine, settings=SEARCH)

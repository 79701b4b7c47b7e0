"""Shards of a simulated mesh on the central register: it refuses nothing that they may want, and all comes back.

Also when the register is lost, and made again out of the logs that are left.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from node.central import birth
from node.central import service as services
from node.central import store as stores
from node.central.birth import out_of_all
from node.central.service import Service
from node.central.store import Store
from router.entry import GENESIS
from router.events import ShardTail
from router.ids import MemberId
from router.log_check import LogMeta
from router.log_member import LogEnd, MemberLog
from router.register_wire import (
    CasRequest,
    Certificate,
    Open,
    Opened,
    Row,
    Swapped,
    configuration_of,
    decode_answer,
    encode,
    swap_of,
)
from tests.harness.simulate import WEATHERS, Run
from tests.harness.simulated_storage import Disk, Register, Violation
from tests.harness.simulated_weather import STORM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from router.events import Claim, Configuration

SEEDS = 12
CERTIFICATE = Certificate("c0ffee", 128, 1, 3, 2, 1, b"p" * 32, b"g" * 32)


class Central:
    """A service on a disk in memory, as a simulated mesh asks its register."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self._service = self._start([])

    def _start(self, rows: list[Row]) -> Service:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        stores._fill(connection, Path(), CERTIFICATE, rows)
        return Service(Store(Path(), connection, -1))

    def begin(self) -> None:
        """Be the register of another mesh."""
        self._service = self._start([])

    def make_again(self, register: Register, logs: dict[str, MemberLog]) -> None:
        """In place of one that is lost."""
        rows = out_of_all(logs, 3, 2).rows
        self._service = self._start(rows)
        register.rows = {row.shard: configuration_of(row, MemberId("", "")) for row in rows}

    def cas(self, register: Register, request: tuple[str, int, int], claim: Claim) -> tuple[bool, Configuration]:
        """Of `Register`."""
        node, boot, n = request
        ((_, body),) = self._service.serve([(node, encode(Open(f"{boot}", "")))]).answers
        opened = decode_answer(body)
        assert isinstance(opened, Opened)
        served = self._service.serve(
            [(node, encode(CasRequest(f"{boot}", opened.session, n + 1, 0, [swap_of(claim)])))]
        )
        self.refused += served.refused
        for _, changed in served.changes:
            row = register.rows[changed.shard] = configuration_of(changed, claim.new.primary)
            register.history.append(row)
        swapped = decode_answer(served.answers[0][1])
        assert isinstance(swapped, Swapped)
        done, found = swapped.results[0]
        return done, configuration_of(found, claim.new.primary)


@pytest.fixture
def central(monkeypatch: pytest.MonkeyPatch) -> Central:
    """The register of all meshes that are made."""
    monkeypatch.setattr(services, "WINDOW", 1 << 30)  # the mesh's requests say nothing of what is settled
    monkeypatch.setattr(stores, "SESSIONS", 1 << 30)  # and may come when their process is long gone
    made = Central()

    def cas(register: Register, request: tuple[str, int, int], claim: Claim) -> tuple[bool, Configuration]:
        return made.cas(register, request, claim)

    monkeypatch.setattr(Register, "cas", cas)
    return made


def log_of(disk: Disk) -> MemberLog:
    """What a simulated disk says, as `read_member` does of a real one."""
    ends = {}
    for shard in {*disk.logs, *disk.promised}:
        log = disk.logs[shard]
        chain = log[-1].chain if log else GENESIS
        tail = ShardTail(shard, len(log), chain, disk.promised[shard], min(disk.commits[shard], len(log)))
        ends[shard] = LogEnd(tail, log[-1].epoch if log else 0)
    return MemberLog(Path(), LogMeta("c0ffee", disk.member.disk, b"p" * 32, b"g" * 32), 128, {}, {}, ends)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_shards_get_on_with_the_central_register(seed: int, central: Central) -> None:
    run = Run(seed, weather=STORM if seed % 4 == 3 else WEATHERS["rough"])
    simulated = run.mesh()
    run.play(simulated)
    simulated.calm()
    assert simulated.tally.acked > 50
    assert simulated.register.history
    assert central.refused == []


def lose_the_register(seed: int, central: Central) -> None:
    """Faults for a while; then nodes and register end at once, the register is made again, and all comes back."""
    central.begin()
    run = Run(seed, seconds=10 + seed % SEEDS, weather=STORM if seed % 4 == 3 else WEATHERS["rough"])
    simulated = run.mesh()
    run.play(simulated)
    for node in simulated.nodes:
        if node.up:
            node.crash()
    central.make_again(simulated.register, {node.name: log_of(node.disk) for node in simulated.nodes})
    simulated.calm()
    assert central.refused == []


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_lost_with_a_register_that_is_made_again_out_of_the_logs(seed: int, central: Central) -> None:
    lose_the_register(seed, central)


def any_logs(_shard: int, ends: Mapping[MemberId, LogEnd]) -> list[MemberId]:
    return sorted(ends, key=lambda member: ends[member].tail.lsn)


def the_longest_logs(_shard: int, ends: Mapping[MemberId, LogEnd]) -> list[MemberId]:
    """Whatever their epochs."""
    longest = max((end.tail for end in ends.values()), key=lambda tail: tail.lsn)
    return [member for member, end in ends.items() if end.tail.chain == longest.chain]


@pytest.mark.parametrize("choose", [any_logs, the_longest_logs])
def test_a_register_made_of_the_wrong_logs_is_caught(
    choose: Callable[..., list[MemberId]], central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(birth, "_furthest", choose)

    def try_seeds() -> None:
        for seed in range(4 * SEEDS):
            lose_the_register(seed, central)

    with pytest.raises(Violation):
        try_seeds()

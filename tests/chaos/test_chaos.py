"""Real nodes under load keep their promises through a round of each fault; those with a fault of their own do not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness import chaos, mutants
from tests.harness.chaos import Load, Outcome, Run
from tests.harness.chaos_scenarios import SCENARIOS, Stage
from tests.harness.chaos_socket import TEXT, frame, take_frames
from tests.harness.checker import History, Seen

if TYPE_CHECKING:
    from pathlib import Path

LOAD = Load(clients=6, rooms=3, rate=120)
LONGEST_SECONDS = 1.0
ALONE = [name for name, scenario in SCENARIOS.items() if scenario.nodes == 1 and name not in {"calm", "kill-all"}]


def performed(run: Run, folder: Path) -> Outcome:
    outcome = chaos.performed_or_why_not(run, folder)
    if isinstance(outcome, str):
        pytest.skip(outcome)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_round_of_each_scenario_breaks_no_promise(name: str, tmp_path: Path) -> None:
    assert_kept(performed(Run(SCENARIOS[name], 1, seconds=0, longest=LONGEST_SECONDS, load=LOAD), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kill", "isolate"])
def test_a_round_breaks_no_promise_of_three_nodes(name: str, tmp_path: Path) -> None:
    assert_kept(performed(Run(SCENARIOS[name], 1, seconds=0, longest=3.0, load=LOAD, nodes=3), tmp_path))


@pytest.mark.slow
def test_a_node_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    async def end(stage: Stage) -> None:
        assert await stage.deployment.terminate("node") == 0

    scenario = replace(SCENARIOS["calm"], act=end)
    outcome = performed(Run(scenario, 1, seconds=0, patience=0.5, load=LOAD), tmp_path)
    assert [fault for fault in outcome.faults if fault.startswith("node does not run; its log ends: ")]


def assert_kept(outcome: Outcome) -> None:
    text = "\n".join(outcome.lines())
    assert not outcome.faults, text
    assert outcome.messages, text
    assert len(outcome.latencies) == outcome.messages, text
    assert outcome.places >= outcome.messages, text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "name", "words"),
    [("acknowledge_early", "kill", "lost: "), ("forget_ids", "unheard", "doubled: ")],
)
def test_a_node_with_a_fault_is_found_out(mutant: str, name: str, words: str, tmp_path: Path) -> None:
    command = mutants.command(mutant)
    load = Load(clients=6, rooms=2, rate=400)
    run = Run(SCENARIOS[name], 1, seconds=0, longest=0.3, patience=4, load=load, command=command)
    outcome = performed(run, tmp_path)
    assert [fault for fault in outcome.faults if fault.startswith(words)], "\n".join(outcome.lines())
    assert (tmp_path / "run.txt").read_text().startswith(f"{name}, seed 1: ")
    assert (tmp_path / "histories.jsonl").stat().st_size
    assert (tmp_path / "node" / "node.log").exists()


def test_an_outcome_says_what_was_done_and_how_clients_fared() -> None:
    outcome = Outcome("kill", 7, [], [(1.25, "kill -9 node")], [0.001, 0.002, 3.0], messages=4, seconds=10)
    outcome.silence, outcome.places = 2.5, 12
    assert outcome.lines() == [
        "kill, seed 7: nothing is wrong",
        "        1.2 s  kill -9 node",
        "    4 messages in 10 s, 50.00% acknowledged within 1 s; p50 2 ms, p99 3,000 ms, longest 3,000 ms;"
        " longest silence 2.50 s; 12 entries read",
    ]
    outcome.faults.append("lost: all of it")
    assert outcome.lines()[0] == "kill, seed 7: 1 FAULTS"
    assert outcome.lines()[-1] == "    FAULT lost: all of it"


def test_faults_last_no_longer_than_they_may() -> None:
    drawn = random.Random(1)
    stage = Stage.__new__(Stage)
    stage.drawn, stage.longest = drawn, 30.0
    lasted = [stage.seconds(0.5) for _ in range(1000)]
    assert 0.5 <= min(lasted) < 0.6
    assert 25 < max(lasted) <= 30
    stage.longest = 0.1
    assert stage.seconds(0.5) == 0.5


def test_the_list_has_all_scenarios_and_says_which_take_more_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    assert [line.split()[0] for line in lines if line.endswith("(3 nodes)")] == [
        name for name, scenario in SCENARIOS.items() if scenario.nodes == 3
    ]


def test_each_room_must_be_whole_in_enough_logs() -> None:
    whole = History("log of a", [Seen(0, "r", 1, "a", "x"), Seen(0, "r", 2, "b", "y"), Seen(0, "s", 1, "c", "z")])
    short = History("log of b", [Seen(0, "r", 1, "a", "x"), Seen(0, "s", 1, "c", "z")])
    assert list(chaos.missing_copies([whole, whole, short], 2)) == []
    assert list(chaos.missing_copies([whole, short, History("log of c")], 2)) == [
        "copies: room r goes to 2 in 1 of 3 logs; it is to be in 2"
    ]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_are_taken_whole_however_they_come(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    sent = frame(TEXT, payload)
    head = len(sent) - size - 4
    of_a_server = bytes([sent[0], sent[1] & 0x7F]) + sent[2:head] + payload
    got = bytearray(of_a_server + of_a_server[:-1] if size else of_a_server)
    assert take_frames(got) == [(TEXT, payload)]
    got += of_a_server[-1:] if size else of_a_server
    assert take_frames(got) == [(TEXT, payload)]
    assert not got

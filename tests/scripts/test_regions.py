"""The cluster to try out, with its keys: what is said on one node is read on another, also after one was killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from node.client import OutcomeUnknown, Publication, open_client
from tests.harness.mesh_process import free_run
from tests.harness.node_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "regions"
SECONDS: Final = 60


class Trial:
    """It, running.

    Attributes:
        printed: What it has printed.
    """

    def __init__(self, folder: Path) -> None:
        self._out = folder / "out"
        port = free_run(7)
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                (sys.executable, SCRIPT, "--regions", "eu,us", "--folder", folder / "all", "--port", str(port),
                 "--mesh-port", str(port + 2)),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def printed(self) -> str:
        return self._out.read_text()

    def nodes(self) -> dict[str, tuple[str, int]]:
        """Of each region: the newest page and process that were printed."""
        lines = re.findall(r"^(\w+) +(http\S+)/ +kill -9 (\d+)", self.printed, re.MULTILINE)
        return {region: (url, int(pid)) for region, url, pid in lines}


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    running = Trial(tmp_path)
    try:
        wait_for("both nodes", lambda: running.process.poll() is not None or len(running.nodes()) == 2)
        assert running.process.poll() is None, running.printed
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(SECONDS) == 0, running.printed


async def say(url: str, content: str) -> int:
    async with open_client(url) as client:
        while True:
            try:
                sequence = (await client.send("lobby", content, id=content))["sequence"]
            except OutcomeUnknown:
                continue
            assert isinstance(sequence, int)
            return sequence


async def hear(url: str, count: int) -> list[str]:
    async with open_client(url) as client, client.subscribe("lobby", since=0) as events:
        found = []
        async for event in events:
            assert isinstance(event, Publication)
            found.append(event.data["content"])
            if len(found) == count:
                break
        return found


async def test_people_in_two_regions_chat_though_a_node_is_killed(trial: Trial) -> None:
    (eu, _), (us, victim) = trial.nodes()["eu"], trial.nodes()["us"]
    assert await say(eu, "one") == 1
    assert await say(us, "two") == 2
    assert await hear(us, 2) == await hear(eu, 2) == ["one", "two"]
    os.kill(victim, signal.SIGKILL)
    wait_for("it is started again", lambda: trial.nodes()["us"][1] != victim)
    assert await say(us, "three") == 3
    assert await hear(eu, 3) == ["one", "two", "three"]


def test_what_are_no_regions_is_said() -> None:
    for regions, told in (("eu,eu", "give 1 to 9 different names"), ("e u", "'e u' is no name of a region")):
        done = subprocess.run(
            (sys.executable, SCRIPT, "--regions", regions), check=False, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 2
        assert told in done.stderr

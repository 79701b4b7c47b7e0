"""Autobahn's own test suite against the echo, where its command `wstest` is installed.

It needs Python 2.7, so `scripts/test` does not install it; `test_echo` holds the node to the same ideas everywhere. To
have it: `pip install 'virtualenv<20.22'`, `virtualenv -p python2.7 FOLDER`, `FOLDER/bin/pip install
autobahntestsuite==25.10.1`, and name `FOLDER/bin/wstest` in the variable WSTEST.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WSTEST: Final = os.environ.get("WSTEST") or shutil.which("wstest")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WSTEST is None, reason="needs Autobahn's wstest, see there"),
]

CASES: Final = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
"""How many cases each group has; 9 measures and 12 and 13 are of an extension that the node does not offer."""

UNDEFINED: Final = {"7.1.6", "7.13.1", "7.13.2"}
"""Cases on which the suite gives no verdict, whatever happens."""

SUITE_SECONDS: Final = 110  # six cases wait for a second each; never reached


@pytest.fixture
def echo_url() -> Iterator[str]:
    """Where an echo serves in a process of its own."""
    command = (sys.executable, "-c", "from node.echo import run; run('127.0.0.1', 0)")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


def test_every_case_of_the_suite_with_a_verdict_is_ok(echo_url: str, tmp_path: Path) -> None:
    assert WSTEST is not None
    spec = {
        "outdir": str(tmp_path),
        "servers": [{"agent": "node", "url": echo_url.rstrip("/"), "options": {"version": 18}}],
        "cases": [f"{group}.*" for group in CASES],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    command = (WSTEST, "-m", "fuzzingclient", "-s", str(file))
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SUITE_SECONDS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    verdicts = json.loads((tmp_path / "index.json").read_text())["node"]
    groups = [case.split(".")[0] for case in verdicts]
    assert {group: groups.count(group) for group in CASES} == CASES
    verdict = {case: {verdicts[case]["behavior"], verdicts[case]["behaviorClose"]} for case in verdicts}
    assert {case: found for case, found in verdict.items() if case not in UNDEFINED and found != {"OK"}} == {}
    assert all(verdict[case] == {"INFORMATIONAL"} for case in UNDEFINED)

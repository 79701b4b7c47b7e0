"""scripts/environment: which Python makes the virtual environment, and when it is installed anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parents[2] / "scripts" / "environment"
SECONDS: Final = 30  # never reached
CALLS: Final = "calls"  # a file: a line for each call of the pretended Python


class Checkout:
    """A folder like a checkout, in which Python only writes down how it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        (folder / "scripts" / "environment").write_bytes(SOURCE.read_bytes())
        (folder / "pyproject.toml").write_text("[project]\n")
        (folder / "constraints.txt").write_text("trio==0.27.0\n")

    def program(self, name: str, script: str = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$0 $*" >>{self.folder / CALLS}\n{script}\n')
        path.chmod(0o755)
        return path

    def make_environment(self) -> None:
        self.program(".venv/bin/python")
        self.program(".venv/bin/chat-node")

    def run(self, commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | variables
        return subprocess.run(
            ["bash", "-c", f". scripts/environment\n{commands}"], cwd=self.folder, env=environment, check=False,
            capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip

    def installs(self) -> list[str]:
        """The extras of each call of pip so far."""
        calls = (self.folder / CALLS).read_text() if (self.folder / CALLS).exists() else ""
        return [line.partition(" -e .")[2] for line in calls.splitlines() if " -m pip install " in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_python_that_can_make_environments_is_taken(checkout: Checkout) -> None:
    old, good, other = checkout.program("old", "exit 1"), checkout.program("good"), checkout.program("other")
    chosen = checkout.run(f"PYTHONS=({checkout.folder}/missing {old} {good} {other})\ninterpreter")
    assert (chosen.returncode, chosen.stdout) == (0, f"{good}\n")


@pytest.mark.parametrize(
    ("pretence", "can"),
    [
        ("sys.version_info = (3, 11, 0)", True),
        ("sys.version_info = (3, 10, 99)", False),
        ("sys.modules['ensurepip'] = None", False),
        ("sys.modules['venv'] = None", False),
    ],
)
def test_a_python_can_if_it_is_new_enough_and_has_what_debian_splits_off(
    checkout: Checkout, pretence: str, can: bool
) -> None:
    python = checkout.program("python", f'exec {sys.executable} -c "import sys; {pretence}\n$2"')
    assert (checkout.run(f"PYTHONS=({python})\ninterpreter").returncode == 0) is can


def test_the_distributions_python_comes_before_that_of_the_path(checkout: Checkout) -> None:
    assert checkout.run('printf "%s " "${PYTHONS[@]}"').stdout == "/usr/bin/python3 python3 "


def test_a_python_that_is_named_is_the_only_one_that_counts(checkout: Checkout) -> None:
    named, good = checkout.program("named with a space"), checkout.program("good")
    assert checkout.run(f"PYTHONS=({good})\ninterpreter", PYTHON=str(named)).stdout == f"{named}\n"
    named = checkout.program("named with a space", "exit 1")
    refused = checkout.run(f"PYTHONS=({good})\ninterpreter", PYTHON=str(named))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"not so: {named}." in refused.stderr


def test_without_any_python_it_is_told_what_to_install(checkout: Checkout) -> None:
    refused = checkout.run('PYTHONS=(./missing)\ninstall ""')
    assert refused.returncode == 1
    assert "apt-get install python3 python3-venv" in refused.stderr
    assert not (checkout.folder / ".venv").exists()


def test_an_environment_is_made_with_the_python_that_was_chosen(checkout: Checkout) -> None:
    python = checkout.program("good", 'if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi')
    assert checkout.run(f'PYTHONS=({python})\ninstall ""').returncode == 0
    assert checkout.installs() == [""]


def test_an_environment_that_is_there_is_kept_whatever_made_it(checkout: Checkout) -> None:
    checkout.make_environment()
    assert checkout.run('install ""', PYTHON="./missing").returncode == 0
    assert checkout.installs() == [""]


def test_it_is_installed_again_only_when_something_is_missing(checkout: Checkout) -> None:
    checkout.make_environment()
    checkout.run('install ""; install ""')
    assert checkout.installs() == [""]
    checkout.run('install "[test]"; install ""; install "[test]"')
    assert checkout.installs() == ["", "[test]"]


def test_it_is_installed_again_when_what_it_needs_has_changed(checkout: Checkout) -> None:
    checkout.make_environment()
    constraints = checkout.folder / "constraints.txt"
    before = constraints.read_text()
    checkout.run('install "[test]"')
    constraints.write_text("trio==0.28.0\n")
    checkout.run('install ""; install ""')
    assert checkout.installs() == ["[test]", ""]
    constraints.write_text(before)
    checkout.run('install ""')
    assert checkout.installs() == ["[test]", "", ""]

"""``chat-node keys``, as a person uses it."""

from __future__ import annotations

import json
import os
from stat import S_IMODE
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from edge_config.keys import ALLOWED_FILE, SECRET_FILE, new_pair, pair_of, read_allowed, read_pair, written_pair
from node.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


class Shell:
    """Runs commands for one data directory."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder
        self.keys = folder / "keys"

    def run(self, *arguments: str, status: int = 0, variables: dict[str, str] | None = None) -> Result:
        environment = {name: "" for name in os.environ if name.startswith("CHAT_NODE")}
        result = CliRunner().invoke(
            app, ["keys", *arguments, "--data-dir", str(self.data_dir)], env={**environment, **(variables or {})}
        )
        assert result.exit_code == status, result.output
        return result


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


def test_a_new_key_is_readable_by_its_owner_only_and_the_public_one_is_printed(shell: Shell) -> None:
    made = shell.run("new")
    assert made.stdout.strip() == read_pair(shell.keys).public.decode()
    assert read_pair(shell.keys).secret.reveal() not in made.output
    assert S_IMODE((shell.keys / SECRET_FILE).stat().st_mode) == 0o600
    assert S_IMODE(shell.keys.stat().st_mode) == 0o700


def test_a_key_is_not_replaced_by_accident(shell: Shell) -> None:
    shell.run("new")
    before = read_pair(shell.keys)
    assert "--replace" in shell.run("new", status=1).output
    assert read_pair(shell.keys) == before
    shell.run("new", "--replace")
    assert read_pair(shell.keys) != before


def test_nodes_are_let_in_shown_and_let_in_no_longer(shell: Shell) -> None:
    own = shell.run("new").stdout.strip()
    eu, us, newer = (new_pair().public for _ in range(3))
    shell.run("allow", "us-1", us.decode())
    shell.run("allow", "eu-1", eu.decode())
    assert read_allowed(shell.keys) == {"eu-1": eu, "us-1": us}
    lines = shell.run("show").stdout.splitlines()
    assert [line.split() for line in lines] == [[own], ["eu-1", eu.decode()], ["us-1", us.decode()]]
    shell.run("allow", "us-1", newer.decode())
    shell.run("allow", "eu-1", "--remove")
    shown = json.loads(shell.run("show", "--json").stdout)
    assert shown == {"public": own, "allowed": {"us-1": newer.decode()}}
    assert S_IMODE((shell.keys / ALLOWED_FILE).stat().st_mode) == 0o600


def test_the_configured_directory_is_used(shell: Shell, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    variables = {
        "CHAT_NODE_CLUSTER__KEYS": str(elsewhere),
        "CHAT_NODE_CLUSTER__LISTEN": "127.0.0.1:7400",
        "CHAT_NODE_CLUSTER__CENTRAL": "central=127.0.0.1:7300",
    }
    made = shell.run("new", variables=variables)
    assert read_pair(elsewhere).public.decode() == made.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (["allow", "eu/1", "x"], "'eu/1' is no node's name", 2),
        (["allow", "eu-1"], "or --remove", 2),
        (["allow", "eu-1", "x" * 40, "--remove"], "not both", 2),
        (["allow", "eu-1", "short"], "40 characters", 2),
        (["allow", "eu-1", "#" * 40], "mistyped", 2),
        (["allow", "eu-1", "ü" * 20], "40 characters", 2),
        (["allow", "eu-1", "--remove"], "eu-1 is not let in", 1),
        (["show"], "chat-node keys new", 1),
    ],
)
def test_what_is_wrong_is_said(shell: Shell, arguments: list[str], said: str, status: int) -> None:
    assert said in shell.run(*arguments, status=status).output
    assert not (shell.keys / ALLOWED_FILE).exists()


def test_one_key_is_not_let_in_under_two_names(shell: Shell) -> None:
    key = new_pair().public.decode()
    shell.run("allow", "eu-1", key)
    shell.run("allow", "eu-1", key)
    assert "eu-1 has this key" in shell.run("allow", "us-1", key, status=2).output


def test_a_file_that_can_not_be_read_is_named_and_kept(shell: Shell) -> None:
    shell.keys.mkdir(parents=True)
    path = shell.keys / ALLOWED_FILE
    path.write_text("eu-1 = what?")
    assert str(path) in shell.run("allow", "us-1", new_pair().public.decode(), status=1).output.replace("\n", "")
    assert path.read_text() == "eu-1 = what?"


def test_a_directory_that_can_not_be_written_is_named(shell: Shell) -> None:
    shell.data_dir.parent.mkdir(exist_ok=True)
    shell.data_dir.write_text("a file")
    assert "can't be written" in shell.run("new", status=1).output


def test_the_secret_is_found_again_by_its_text(shell: Shell) -> None:
    pair = new_pair()
    shell.keys.mkdir(parents=True)
    (shell.keys / SECRET_FILE).touch(mode=0o600)
    (shell.keys / SECRET_FILE).write_bytes(written_pair(pair))
    assert read_pair(shell.keys) == pair == pair_of(pair.secret.reveal())

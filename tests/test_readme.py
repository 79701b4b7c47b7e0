"""The README says what is so: its commands, its configuration table, its layout."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from edge_config.document import filled
from edge_config.render import render_readme_table
from node.cli import app

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
INDENT: Final = 2  # columns for each level of the layout


def section(title: str) -> str:
    """The text below a heading, up to the next of its level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found is not None, f"README.md has no section {title!r}"
    return found[1]


def named_commands() -> list[str]:
    """Each `chat-node …` in back quotes, up to its first flag or argument."""
    quoted = re.findall(r"`chat-node ([^`]+)`", README)
    words = (re.match(r"[a-z]+(?: [a-z]+(?= |$))*", text) for text in quoted)
    return sorted({word[0] for word in words if word is not None})


def named_paths() -> list[Path]:
    """What the layout names, each as a path from the root."""
    block = re.search(r"```\n(.*?)```", section("Layout"), re.DOTALL)
    assert block is not None, "the layout is no code block"
    above: list[str] = []
    paths: list[Path] = []
    for line in block[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // INDENT
        above[depth:] = [name]
        paths.append(Path(*above))
    return paths


def tracked_python_folders() -> set[Path]:
    """Folders with Python files, as git knows them: a checkout has others, such as `.venv`."""
    listed = subprocess.run(
        ["git", "ls-files", "--", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return {Path(name).parent for name in listed.splitlines()}


@pytest.mark.parametrize("command", named_commands())
def test_a_command_that_the_readme_names_exists(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert f"{command.rsplit(maxsplit=1)[-1]} [OPTIONS]" in result.output


@pytest.mark.parametrize(
    "command", ["run", "config init", "config check", "token create", "cluster status", "log verify"]
)
def test_the_readme_names_the_commands_that_an_operator_needs(command: str) -> None:
    assert command in named_commands()


def test_the_table_of_keys_is_the_schemas() -> None:
    assert render_readme_table() in README
    assert filled(README) == README, "run python -m edge_config.document docs/configuration.md README.md"


def test_the_layout_names_every_folder_of_python_files() -> None:
    missing = tracked_python_folders() - set(named_paths())
    assert not missing


@pytest.mark.parametrize("path", named_paths(), ids=str)
def test_what_the_layout_names_exists(path: Path) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_a_link_of_the_readme_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()

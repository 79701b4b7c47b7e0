"""docs/limits.md: the limits that are no keys of the configuration, with the values that they have."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS: Final = dict(re.findall(r"^\| `([a-z_.]+\.[A-Z_]+)` \| ([\d.]+) \|", DOCUMENT, re.MULTILINE))
NAMED_AS_LIMITS: Final = re.compile(r"(MOST|LEAST|MAX|LONGEST)_[A-Z_]+")
UNSEEN: Final = {"node.fossil.MOST_PROBES"}  # how hard an algorithm tries: nobody can run into it
OF_OTHERS: Final = ("client", "echo")  # the Python client's are in docs/python-client.md; nobody runs the echo


def constants() -> set[str]:
    """Numbers of the node's modules that are named as limits."""
    found = set()
    for path in (ROOT / "node").glob("*.py"):
        if path.stem.startswith(OF_OTHERS):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                if NAMED_AS_LIMITS.fullmatch(name):
                    found.add(f"node.{path.stem}.{name}")
    return found


@pytest.mark.parametrize("path", ROWS)
def test_a_fixed_limit_has_the_value_that_the_document_says(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) == float(ROWS[path])


def test_what_is_named_as_a_limit_is_configurable_or_documented() -> None:
    missing = constants() - set(ROWS) - UNSEEN
    assert not missing, f"make it a key of edge_config, or add it to docs/limits.md with its reason: {missing}"
    assert len(constants()) > 10, "the search finds them"

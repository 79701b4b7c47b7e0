"""The schema as a whole: a key that does nothing would be a lie."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from edge_config.schema import Config
from edge_config.setting import sections_of, settings_of

ROOT: Final = Path(__file__).parents[2]
READERS: Final = ("node", "router")
REFUSED: Final = frozenset({("kinds", "moderation")})  # a value is refused, which says more than an unknown key would
JUDGED: Final = frozenset({("api", "allow_weak_keys")})  # what it allows, the configuration itself judges
WITHIN: Final = frozenset({("cluster", "advertise")})  # the section's own `reached_at` reads it
KEYS: Final = [
    (field.name, setting.name) for field in sections_of(Config).values() for setting in settings_of(field.cls)
]


@cache
def attributes_read() -> frozenset[str]:
    """All names that the program reads as attributes of something."""
    trees = (ast.parse(path.read_bytes()) for folder in READERS for path in (ROOT / folder).glob("*.py"))
    return frozenset(
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


@pytest.mark.parametrize(("section", "key"), [pair for pair in KEYS if pair not in REFUSED | JUDGED | WITHIN], ids=str)
def test_a_key_is_read_by_the_program(section: str, key: str) -> None:
    assert key in attributes_read(), f"nothing reads {section}.{key}: remove it, or do what it says"


def test_keys_that_are_refused_are_keys() -> None:
    assert set(KEYS) >= REFUSED | JUDGED | WITHIN

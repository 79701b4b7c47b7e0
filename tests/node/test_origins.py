"""Which web pages may connect to a node that is configured so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edge_config.load import load
from node.origins import page_origins

if TYPE_CHECKING:
    from node.upgrade import OriginRules

LOCAL = ("http://localhost:5173", "https://localhost", "http://127.0.0.1:8080", "http://[::1]:3000")
FOREIGN = ("https://evil.example", "http://localhost.evil.example", "http://192.168.1.7:8000", "null", "http://[", "")


def rules(**flags: Any) -> OriginRules:  # noqa: ANN401 - values of any key
    return page_origins(load(None, {}, {name.replace("__", "."): value for name, value in flags.items()}))


@pytest.mark.parametrize("origin", LOCAL)
def test_with_dev_pages_of_this_machine_may_connect(origin: str) -> None:
    assert origin in rules(node__dev=True)
    assert origin not in rules()


@pytest.mark.parametrize("origin", FOREIGN)
def test_with_dev_other_pages_may_not(origin: str) -> None:
    assert origin not in rules(node__dev=True)


def test_what_is_given_wins_over_dev() -> None:
    given = rules(node__dev=True, auth__allowed_origins=["https://shop.example"])
    assert "https://shop.example" in given
    assert LOCAL[0] not in given

"""Networks for those who may make them."""

from __future__ import annotations

import pytest

from tests.harness.namespaces import why_not


@pytest.fixture(scope="session")
def networks() -> None:
    """Skips where there can be none."""
    if reason := why_not():
        pytest.skip(reason)

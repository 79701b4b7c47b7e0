"""When the log files, for tests that wait for it or want it never to."""

from __future__ import annotations

import pytest

from router import log as log_module


@pytest.fixture
def prompt_filing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filing does not wait for more to file."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)


@pytest.fixture
def no_filing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stays in the journal."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 1e6)

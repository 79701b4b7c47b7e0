"""When the log files, for tests that wait for it or want it never to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router import log as log_module
from router.log import LogOptions
from tests.harness.log_writer import NOW_MS, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def prompt_filing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filing does not wait for more to file."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)


@pytest.fixture
def no_filing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stays in the journal."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 1e6)


@pytest.fixture
def open_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LogWriter]]:
    """Opens the log of the test's directory, closing it first if it is open; filing is prompt, days are long ago."""
    monkeypatch.setattr(log_module, "FILE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(log_module, "REST_SECONDS", 0.0)
    monkeypatch.setattr(log_module, "SPACE_SECONDS", 0.01)
    monkeypatch.setattr("router.log.time.time", lambda: NOW_MS / 1000)
    nodes: list[LogWriter] = []

    def open_again(retention_bytes: int = 0) -> LogWriter:
        for node in nodes:
            node.log.close()
        nodes.append(LogWriter(tmp_path, LogOptions(durable=False, retention_bytes=retention_bytes)))
        return nodes[-1]

    yield open_again
    for node in nodes:
        node.log.close()

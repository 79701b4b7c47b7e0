"""One browser and one node for the tests of a file; a test has a room of its own, and a node where it kills it.

Playwright's event loop counts as running in the thread of the tests for as long as it is open, and nobody else's
`asyncio.run` gets on beside it: so it is open in the page's files only.
"""

from __future__ import annotations

import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import sync_playwright

from tests.harness.node_process import NodeProcess
from tests.harness.page import CHROMIUM, QUIET, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, ViewportSize

    from tests.harness.page import Scheme

BUILD: Final = Path(__file__).parents[3] / "scripts" / "build_web"
_numbers = count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, and the page built."""
    subprocess.run([BUILD], check=True, capture_output=True, timeout=300)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[NodeProcess]:  # noqa: ARG001
    """A node that no test may end; it reads the page when it starts, so the page is built before."""
    with NodeProcess(tmp_path_factory.mktemp("shared")) as process:
        yield process


@pytest.fixture
def node(shared_node: NodeProcess) -> NodeProcess:
    """The node of the windows."""
    return shared_node


@pytest.fixture
def room() -> str:
    """A room that nobody has been in."""
    return f"garden-{next(_numbers)}"


@pytest.fixture
def window(browser: Browser, node: NodeProcess) -> Iterator[Callable[..., Window]]:
    """Opens windows, each in a browser profile of its own; none of them may have met a problem."""
    windows: list[Window] = []

    def open_window(width: int = 1200, height: int = 700, scheme: Scheme = "light") -> Window:
        viewport: ViewportSize = {"width": width, "height": height}
        context = browser.new_context(locale="en-GB", viewport=viewport, color_scheme=scheme)
        windows.append(Window(context.new_page(), node))
        return windows[-1]

    yield open_window
    problems = [opened.problems for opened in windows]
    for opened in windows:
        opened.page.context.close()
    assert problems == [[] for _ in windows]

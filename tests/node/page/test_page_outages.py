"""The page while its node is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.node_process import NodeProcess
from tests.harness.page import forbid_recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.harness.page import Window

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path, browser: Browser) -> Iterator[NodeProcess]:  # noqa: ARG001 - the page is built before
    """A node that the test may kill."""
    with NodeProcess(tmp_path) as process:
        yield process


def test_after_the_node_was_killed_both_windows_have_every_message_once_and_in_order(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    ada.write("before 1", "before 2")
    grace.wait_for(2)

    node.kill()
    expect(ada.status).to_have_text("Connection lost. Reconnecting…")
    expect(grace.status).to_have_text("Connection lost. Reconnecting…")
    ada.write("away 1", "away 2", "away 3")
    expect(ada.message("away 3")).to_contain_text("Waiting to be sent")
    node.start()
    ada.wait_for(5)
    grace.wait_for(5)
    grace.write("after")
    ada.wait_for(6)

    texts = ["before 1", "before 2", "away 1", "away 2", "away 3", "after"]
    assert ada.messages() == grace.messages() == list(enumerate(texts, 1))
    expect(ada.page.get_by_text("missing")).to_have_count(0)


def test_a_node_killed_in_the_middle_of_a_burst_neither_loses_nor_doubles(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    texts = [f"message {number}" for number in range(1, 41)]
    ada.write(*texts[:20])
    node.kill()
    ada.write(*texts[20:])
    node.start()
    ada.wait_for(40)
    grace.wait_for(40)
    assert ada.messages() == grace.messages() == list(enumerate(texts, 1))


def test_messages_that_wait_survive_loading_the_page_again(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ada = window()
    ada.enter(room, "Ada")
    ada.write("before")
    ada.wait_for(1)
    node.kill()
    ada.write("away")
    expect(ada.message("away")).to_contain_text("Waiting to be sent")
    node.start()
    ada.open(room=room)
    ada.wait_for(2)
    assert ada.messages() == [(1, "before"), (2, "away")]
    expect(ada.message("before")).to_contain_text("You")


def test_what_cannot_be_recovered_is_said_and_read_anew(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ada = window()
    forbid_recovery(ada.page)
    ada.enter(room, "Ada")
    ada.write("before")
    ada.wait_for(1)
    node.kill()
    expect(ada.status).to_have_text("Connection lost. Reconnecting…")
    node.start()
    expect(ada.page.get_by_text("Some messages may be missing")).to_be_visible()
    ada.write("after")
    ada.wait_for(2)
    assert ada.messages() == [(1, "before"), (2, "after")]

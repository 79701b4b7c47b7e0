"""Messages that the node does not take at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.page import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.page import Window

pytestmark = pytest.mark.slow


def test_a_refused_message_says_why_and_can_be_retried_as_the_same_message(
    window: Callable[..., Window], room: str
) -> None:
    ada, grace = window(), window()
    refuse(ada.page, "publish", {"code": 103, "message": "permission denied"}, count=1)
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    ada.write("refused", "taken")
    expect(ada.message("refused")).to_contain_text("Not sent: you may not do this here")
    grace.wait_for(1)
    ada.page.get_by_role("button", name="Retry: refused").click()
    expect(ada.composer).to_be_focused()
    ada.wait_for(2)
    grace.wait_for(2)
    assert ada.messages() == grace.messages() == [(1, "taken"), (2, "refused")]


def test_a_refused_message_can_be_discarded(window: Callable[..., Window], room: str) -> None:
    ada = window()
    refuse(ada.page, "publish", {"code": 107, "message": "content is too long"}, count=1)
    ada.enter(room, "Ada")
    ada.write("refused")
    expect(ada.message("refused")).to_contain_text("content is too long")
    ada.page.get_by_role("button", name="Discard: refused").click()
    expect(ada.message("refused")).to_have_count(0)


def test_a_temporary_fault_is_retried_without_a_person(window: Callable[..., Window], room: str) -> None:
    ada = window()
    refuse(ada.page, "publish", {"code": 100, "message": "internal server error", "temporary": True}, count=1)
    ada.enter(room, "Ada")
    ada.write("first", "second")
    ada.wait_for(2)
    assert ada.messages() == [(1, "first"), (2, "second")]

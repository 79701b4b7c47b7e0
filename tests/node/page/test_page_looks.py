"""The page by keyboard, on any screen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.page import refuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.page import Scheme, Window

pytestmark = pytest.mark.slow


def test_everything_can_be_done_with_the_keyboard(window: Callable[..., Window], room: str) -> None:
    ada = window()
    refuse(ada.page, "publish", {"code": 103, "message": "permission denied"}, count=1)
    ada.open()
    press, type_text = ada.page.keyboard.press, ada.page.keyboard.type
    expect(ada.page.get_by_label("Your name")).to_be_focused()
    type_text("Ada")
    press("Tab")
    press("ControlOrMeta+a")
    type_text(room)
    press("Enter")
    expect(ada.composer).to_be_focused()
    expect(ada.status).to_have_text("Connected.")
    type_text("one")
    press("Shift+Enter")
    type_text("two")
    press("Enter")
    retry = ada.page.get_by_role("button", name="Retry")
    expect(retry).to_be_visible()
    for _ in range(2):  # Discard, Retry
        press("Shift+Tab")
    expect(retry).to_be_focused()
    press("Enter")
    ada.wait_for(1)
    assert ada.messages() == [(1, "one\ntwo")]
    press("Shift+Tab")
    expect(ada.log).to_be_focused()
    press("Escape")
    expect(ada.composer).to_be_focused()
    for _ in range(2):  # the list, Leave
        press("Shift+Tab")
    press("Enter")
    expect(ada.page.get_by_label("Room")).to_be_focused()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_the_page_fits_narrow_and_wide_light_and_dark(
    tmp_path: Path, window: Callable[..., Window], scheme: Scheme, width: int, room: str
) -> None:
    ada = window(width, 640, scheme)
    refuse(ada.page, "publish", {"code": 103, "message": "permission denied"}, count=1)
    ada.enter(room, "Ada")
    ada.write("refused", "a long word: " + "w" * 200, "An ordinary message.")
    ada.wait_for(2)
    ada.page.screenshot(path=tmp_path / f"page-{scheme}-{width}.png")
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert ada.page.evaluate(overflow) == 0
    assert ada.log.evaluate("log => log.scrollWidth - log.clientWidth") == 0
    ground = ada.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / (3 * 255)
    assert (lightness > 0.5) is (scheme == "light")
    expect(ada.page.get_by_role("button", name="Send")).to_be_in_viewport()

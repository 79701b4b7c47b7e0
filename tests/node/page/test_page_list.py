"""The list of messages: what is loaded, and what stands in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.page import ask, publication, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.node_process import NodeProcess
    from tests.harness.page import Window

pytestmark = pytest.mark.slow


def test_earlier_messages_come_when_the_reader_gets_to_the_first(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    say(node, room, 120)
    ada = window()
    ada.enter(room, "Ada")
    ada.wait_for(120)
    first = ada.messages()[0][0]
    assert first > 1
    place = ada.message(f"said {first}")
    ada.log.evaluate("log => { log.scrollTop = 0 }")
    expect(ada.message(f"said {first - 1}")).to_be_attached()
    expect(place).to_be_in_viewport()
    ada.log.focus()
    while ada.messages()[0][0] > 1:
        ada.page.keyboard.press("Home")
    expect(ada.page.get_by_text("Beginning of the messages")).to_be_visible()
    assert ada.messages() == [(number, f"said {number}") for number in range(1, 121)]


def test_a_reader_keeps_their_place_and_is_told_of_new_messages(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    say(node, room, 40)
    ada, grace = window(height=400), window()
    ada.enter(room, "Ada")
    ada.wait_for(40)
    grace.enter(room, "Grace")
    expect(ada.message("said 40")).to_be_in_viewport()
    place = ada.log.evaluate("log => log.scrollTop -= 500")
    grace.write("news")
    newest = ada.page.get_by_role("button", name="1 new message")
    expect(newest).to_be_visible()
    assert ada.log.evaluate("log => log.scrollTop") == place
    newest.click()
    expect(ada.message("news")).to_be_in_viewport()
    expect(newest).to_be_hidden()
    grace.write("more news")
    expect(ada.message("more news")).to_be_in_viewport()


def test_however_long_a_room_is_the_document_stays_short(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    say(node, room, 700)
    ada = window()
    ada.enter(room, "Ada")
    ada.wait_for(700)
    ada.log.focus()
    rows = ada.page.locator("li.message")
    while ada.messages()[0][0] > 1:
        ada.page.keyboard.press("Home")
        assert rows.count() <= 320
    sequences = [sequence for sequence, _ in ada.messages()]
    assert sequences == list(range(1, len(sequences) + 1))
    ada.page.keyboard.press("End")
    expect(ada.message("said 700")).to_be_in_viewport()
    assert rows.count() <= 320


def test_an_answer_to_a_message_far_up_quotes_and_reaches_it(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    say(node, room, 150)
    ask(node, room, [publication(room, "a", "an answer", replyTo=2)])
    ada = window()
    ada.enter(room, "Ada")
    quote = ada.message("an answer").get_by_role("button", name="said 2")
    expect(quote).to_be_visible()
    quote.click()
    expect(ada.page.locator("li[data-sequence='2']")).to_be_focused()
    expect(ada.page.locator("li[data-sequence='2']")).to_be_in_viewport()
    ada.page.get_by_role("button", name="Newest messages").click()
    expect(ada.message("an answer")).to_be_in_viewport()

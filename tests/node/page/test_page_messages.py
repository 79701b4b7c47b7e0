"""What people say in a room, and do to what was said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.node_process import token
from tests.harness.page import ask, publication, refuse, rpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.node_process import NodeProcess
    from tests.harness.page import Window

pytestmark = pytest.mark.slow


def test_two_windows_chat(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    expect(ada.page.get_by_text("2 people here")).to_be_visible()
    ada.write("Hello")
    grace.wait_for(1)
    grace.write("Hi Ada")
    ada.wait_for(2)
    assert ada.messages() == grace.messages() == [(1, "Hello"), (2, "Hi Ada")]
    expect(grace.message("Hello")).to_contain_text("Ada")
    expect(ada.message("Hello")).to_contain_text("You")


def test_rooms_are_apart(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(f"{room}-kitchen", "Grace")
    ada.write("in the garden")
    ada.wait_for(1)
    grace.write("in the kitchen")
    grace.wait_for(1)
    assert grace.messages() == [(1, "in the kitchen")]


def test_edits_and_removals_are_seen_at_once_and_when_the_page_is_loaded_anew(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ada = window()
    ada.enter(room, "Ada")
    said = [publication(room, "a", "Helo"), publication(room, "b", "a secret")]
    ask(
        node, room, [*said, rpc(room, "edit", id="c", target=1, content="Hello"), rpc(room, "delete", id="d", target=2)]
    )
    shown = [(1, "Hello (edited)"), (2, "Message removed")]
    expect(ada.message("Message removed")).to_be_visible()
    assert ada.messages() == shown
    ada.page.reload()
    expect(ada.message("Message removed")).to_be_visible()
    assert ada.messages() == shown
    assert "a secret" not in ada.page.content()


def both(window: Callable[..., Window], room: str) -> tuple[Window, Window]:
    """Ada and Grace in a room, in which Ada has said something."""
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    ada.write("one", "two")
    grace.wait_for(2)
    ada.wait_for(2)
    return ada, grace


def test_whoever_wrote_a_message_can_edit_it(window: Callable[..., Window], room: str) -> None:
    ada, grace = both(window, room)
    ada.do("one", "Edit")
    expect(ada.composer).to_have_value("one")
    ada.write("one, but better")
    expect(grace.message("one, but better")).to_contain_text("(edited)")
    assert ada.messages() == grace.messages() == [(1, "one, but better (edited)"), (2, "two")]
    grace.message("two").hover()
    expect(grace.message("two").get_by_role("button", name="Reply")).to_be_visible()
    expect(grace.message("two").get_by_role("button", name="Edit")).to_have_count(0)


def test_arrow_up_edits_what_was_said_last_and_escape_gives_back_the_draft(
    window: Callable[..., Window], room: str
) -> None:
    ada, grace = both(window, room)
    ada.composer.press("ArrowUp")
    expect(ada.composer).to_have_value("two")
    ada.write("TWO")
    expect(grace.message("TWO")).to_be_visible()
    expect(ada.composer).to_have_value("")
    ada.composer.fill("a draft")
    ada.do("one", "Edit")
    expect(ada.composer).to_have_value("one")
    ada.composer.press("Escape")
    expect(ada.composer).to_have_value("a draft")
    ada.composer.press("Enter")
    grace.wait_for(4)  # the edit is the third
    assert grace.messages()[-1] == (4, "a draft")


def test_a_message_is_deleted_after_a_question_and_its_text_is_gone_everywhere(
    window: Callable[..., Window], room: str
) -> None:
    ada, grace = both(window, room)
    ada.do("one", "Delete")
    ada.page.get_by_role("button", name="Keep").click()
    assert ada.messages() == [(1, "one"), (2, "two")]
    ada.do("one", "Delete")
    ada.message("one").get_by_role("button", name="Delete", exact=True).click()
    expect(grace.message("Message removed")).to_be_visible()
    assert ada.messages() == grace.messages() == [(1, "Message removed"), (2, "two")]


def test_reactions_are_counted_joined_and_taken_back(window: Callable[..., Window], room: str) -> None:
    ada, grace = both(window, room)
    grace.do("one", "React with 👍")
    chip = ada.message("one").locator(".chip")
    expect(chip).to_have_text("👍1")
    expect(chip).to_have_attribute("aria-pressed", "false")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "true")
    expect(grace.message("one").locator(".chip")).to_have_text("👍2")
    grace.message("one").locator(".chip").click()
    expect(chip).to_have_text("👍1")
    chip.click()
    expect(grace.message("one").locator(".chip")).to_have_count(0)


def test_any_emoji_can_be_a_reaction_but_no_word(window: Callable[..., Window], room: str) -> None:
    ada, grace = both(window, room)
    ada.do("one", "Add reaction")
    field = ada.page.get_by_label("Any emoji")
    field.fill("lol")
    field.press("Enter")
    expect(ada.page.get_by_text("Type one emoji")).to_be_visible()
    field.fill("👩‍🚀")
    field.press("Enter")
    expect(grace.message("one").locator(".chip")).to_have_text("👩‍🚀1")
    expect(field).to_be_hidden()
    expect(ada.message("one")).to_be_focused()


def test_an_answer_quotes_its_message_and_leads_to_it(window: Callable[..., Window], room: str) -> None:
    ada, grace = both(window, room)
    grace.do("one", "Reply")
    expect(grace.page.get_by_text("Replying to Ada")).to_be_visible()
    grace.write("to that: yes")
    quote = ada.message("to that: yes").get_by_role("button", name="In reply to You: one")
    expect(quote).to_be_visible()
    quote.click()
    expect(ada.message("one").first).to_be_focused()
    grace.write("to nothing")
    expect(ada.message("to nothing").locator(".quote")).to_have_count(0)


def test_a_moderator_pins_removes_and_restores(node: NodeProcess, window: Callable[..., Window], room: str) -> None:
    ask(node, room, [publication(room, "a", "Rules"), publication(room, "b", "spam")])
    owner, ada = window(), window()
    owner.enter(room, "Olga", token=token("olga", role="owner"))
    ada.enter(room, "Ada")
    owner.do("Rules", "Pin")
    expect(ada.page.get_by_role("button", name="Pinned Rules")).to_be_visible()
    owner.do("spam", "Delete")
    owner.message("spam").get_by_role("button", name="Delete", exact=True).click()
    expect(ada.message("Message removed")).to_be_visible()
    ada.page.reload()  # so that it never had the text
    expect(ada.message("Message removed")).to_be_visible()
    owner.do("Message removed", "Restore")
    expect(ada.message("spam")).to_be_visible()
    owner.do("Rules", "Unpin")
    expect(ada.page.get_by_role("button", name="Pinned")).to_have_count(0)
    ada.message("Rules").hover()
    expect(ada.message("Rules").get_by_role("button", name="Reply")).to_be_visible()
    expect(ada.message("Rules").get_by_role("button", name="Pin")).to_have_count(0)


def test_who_may_not_pin_is_told_so_and_not_offered_it_again(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    ask(node, room, [publication(room, "a", "Rules")])
    ada = window()
    refuse(ada.page, "room", {"code": 108, "message": "not available"}, count=1)  # so that it has to be tried out
    ada.enter(room, "Ada", token=token("ada"))
    ada.do("Rules", "Pin")
    expect(ada.page.get_by_text("Not pinned: you may not do this here.")).to_be_visible()
    ada.message("Rules").hover()
    expect(ada.message("Rules").get_by_role("button", name="Reply")).to_be_visible()
    expect(ada.message("Rules").get_by_role("button", name="Pin")).to_have_count(0)
    expect(ada.page.get_by_role("button", name="Pinned")).to_have_count(0)


def test_a_room_without_chat_methods_offers_none(window: Callable[..., Window], room: str) -> None:
    ada = window()
    refuse(ada.page, "react", {"code": 108, "message": "not available"}, count=1)
    ada.enter(room, "Ada")
    ada.write("one")
    ada.wait_for(1)
    ada.do("one", "React with 👍")
    expect(ada.page.get_by_text("No reaction added")).to_be_visible()
    ada.message("one").hover()
    expect(ada.page.get_by_role("toolbar")).to_have_count(0)
    expect(ada.page.locator(".chip")).to_have_count(0)


def test_a_refused_edit_gives_back_what_was_written(window: Callable[..., Window], room: str) -> None:
    ada = window()
    refuse(ada.page, "edit", {"code": 107, "message": "content is too long"}, count=1)
    ada.enter(room, "Ada")
    ada.write("one")
    ada.wait_for(1)
    ada.do("one", "Edit")
    ada.write("one and much more")
    expect(ada.page.get_by_text("Not changed: the server does not accept it: content is too long.")).to_be_visible()
    expect(ada.composer).to_have_value("one and much more")
    expect(ada.log.get_by_text("(edited)")).to_have_count(0)
    ada.composer.press("Enter")
    expect(ada.message("one and much more")).to_contain_text("(edited)")


def test_what_people_write_is_text_and_addresses_in_it_are_links(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    hostile = "<img src=x onerror=alert(1)> javascript:alert(1) https://example.org/a?b=(c)."
    ask(node, room, [publication(room, "a", hostile, meta={"name": "<b>Eve</b>"})])
    ada = window()
    ada.enter(room, "Ada")
    ada.wait_for(1)
    assert ada.messages() == [(1, hostile)]
    expect(ada.log.locator("img, b")).to_have_count(0)
    link = ada.log.get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.org/a?b=(c)")
    expect(link).to_have_attribute("rel", re.compile("noopener"))

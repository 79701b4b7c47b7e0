"""What the page shows beside messages: who is here, who types, what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.harness.node_process import token
from tests.harness.page import ask, publication, rpc, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.node_process import NodeProcess
    from tests.harness.page import Window

pytestmark = pytest.mark.slow


def look_away(window: Window) -> None:
    """The person turns to another window."""
    window.page.evaluate("() => { document.hasFocus = () => false; dispatchEvent(new Event('blur')) }")


def look_back(window: Window) -> None:
    """The person returns."""
    window.page.evaluate("() => { document.hasFocus = () => true; dispatchEvent(new Event('focus')) }")


def test_the_others_see_who_is_typing_until_it_is_sent(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    ada.write("Hello")
    grace.wait_for(1)
    ada.composer.press_sequentially("and")
    typing = grace.page.get_by_text("Ada is typing…")
    expect(typing).to_be_visible()
    expect(ada.page.get_by_text("typing…")).to_have_count(0)
    ada.composer.press("Enter")
    grace.wait_for(2)
    expect(typing).to_have_count(0)


def test_who_stops_typing_is_not_shown_for_long(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    ada.composer.press_sequentially("never mind")
    expect(grace.page.get_by_text("is typing…")).to_be_visible()
    expect(grace.page.get_by_text("is typing…")).to_have_count(0)


def test_those_who_are_here_are_counted_and_listed(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace", token=token("grace", info={"name": "Grace Hopper"}))
    ada.page.get_by_role("button", name="2 people here").click()
    people = ada.page.get_by_role("dialog").or_(ada.page.locator("#people")).get_by_role("listitem")
    expect(people).to_have_text(["AAda (you)", "GGrace Hopper"])
    grace.page.close()
    expect(people).to_have_text(["AAda (you)"])
    expect(ada.page.get_by_role("button", name="1 person here")).to_be_visible()


def test_who_looks_away_finds_a_line_before_what_is_new_and_the_title_counts_it(
    window: Callable[..., Window], room: str
) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    grace.write("seen")
    ada.wait_for(1)
    expect(ada.page).to_have_title(f"{room} · Chat")
    look_away(ada)
    grace.write("new one", "new two")
    ada.wait_for(3)
    expect(ada.page).to_have_title(f"(2) {room} · Chat")
    expect(ada.page.locator(".unread + li")).to_contain_text("new one")
    look_back(ada)
    expect(ada.page).to_have_title(f"{room} · Chat")
    expect(ada.page.locator(".unread")).to_have_count(1)
    ada.write("an answer")
    expect(ada.page.locator(".unread")).to_have_count(0)


def test_who_wrote_sees_who_has_seen_it(window: Callable[..., Window], room: str) -> None:
    ada, grace = window(), window()
    ada.enter(room, "Ada")
    grace.enter(room, "Grace")
    grace.write("Hello")
    ada.wait_for(1)
    look_away(grace)
    ada.write("one", "two")
    grace.wait_for(3)
    expect(ada.page.locator(".receipt")).to_have_count(0)
    look_back(grace)
    expect(ada.message("two").locator(".receipt")).to_have_text("Seen by Grace")
    expect(ada.page.locator(".receipt")).to_have_count(1)
    expect(grace.page.locator(".receipt")).to_have_count(1)


def test_who_returns_begins_at_what_is_new(node: NodeProcess, window: Callable[..., Window], room: str) -> None:
    say(node, room, 60)
    before = window()
    before.enter(room, "Ada", token=token("ada"))
    expect(before.message("said 60")).to_be_in_viewport()
    watching = window()
    watching.enter(room, "Grace")
    watching.write("hello Ada")
    before.wait_for(61)
    expect(watching.page.locator(".receipt")).to_be_visible()
    before.page.close()
    ask(node, room, [publication(room, f"new-{n}", f"news {n}") for n in range(1, 31)])
    ada = window(height=400)
    ada.enter(room, "Ada", token=token("ada"))
    expect(ada.page.locator(".unread + li")).to_contain_text("news 1")
    expect(ada.page.locator(".unread")).to_be_in_viewport()
    expect(ada.page.get_by_role("button", name="new messages")).to_be_visible()
    expect(ada.page).to_have_title(f"(30) {room} · Chat")
    ada.page.get_by_role("button", name="new messages").click()
    expect(ada.page).to_have_title(f"{room} · Chat")


def test_a_room_with_a_name_is_called_by_it_and_a_mute_is_said(
    node: NodeProcess, window: Callable[..., Window], room: str
) -> None:
    owner = token("olga", role="owner")
    ask(node, room, [rpc(room, "rename", id="a", title="The garden")], owner)
    ada = window()
    ada.enter(room, "Ada", token=token("ada"))
    expect(ada.page.get_by_role("heading", name="The garden")).to_be_visible()
    ask(node, room, [rpc(room, "rename", id="b", title="The yard"), rpc(room, "mute", id="c", user="ada")], owner)
    expect(ada.page.get_by_role("heading", name="The yard")).to_be_visible()
    expect(ada.page.get_by_text("A moderator has muted you")).to_be_visible()
    ada.page.reload()
    expect(ada.page.get_by_text("A moderator has muted you")).to_be_visible()
    ask(node, room, [rpc(room, "unmute", id="d", user="ada")], owner)
    expect(ada.page.get_by_text("A moderator has muted you")).to_have_count(0)

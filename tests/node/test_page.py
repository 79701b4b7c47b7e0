"""The page at / in a real browser, against a real node."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, ViewportSize, WebSocketRoute

    Scheme = Literal["light", "dark"]

pytestmark = pytest.mark.slow

NODE: Final = [str(Path(sys.executable).with_name("chat-node")), "run", "--region", "local", "--dev"]
BUILD: Final = Path(__file__).parents[2] / "scripts" / "build_web"
CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"
QUIET: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE_S: Final = 30  # for anything that takes milliseconds on an idle machine

expect.set_options(timeout=DEADLINE_S * 1000)


class Node:
    """A node in a process of its own, on one port and data directory for all its lives."""

    def __init__(self, data_dir: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self._data_dir = data_dir
        self._log = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, **query: str) -> str:
        return f"http://127.0.0.1:{self.port}/?{urlencode(query)}"

    def start(self) -> None:
        places = ["--port", str(self.port), "--internal-port", "0", "--data-dir", str(self._data_dir)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*NODE, *places], stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while not self._is_ready():
            assert self._process.poll() is None, f"the node has ended:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"the node is not ready:\n{self._log.read_text()}"
            time.sleep(0.05)  # another process: there is nothing to wait on

    def kill(self) -> None:
        """As with kill -9: no word of farewell, nothing flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def say(self, room: str, count: int) -> None:
        """Publish messages as a guest without a browser, and return once all are acknowledged."""
        self.ask(room, [publication(room, f"said-{n:032d}", f"said {n}") for n in range(1, count + 1)])

    def ask(self, room: str, asked: list[dict[str, Any]]) -> None:
        """Give commands as a guest of a room without a browser, and return once all are answered."""
        unnumbered: list[dict[str, Any]] = [{"connect": {}}, {"subscribe": {"channel": room}}, *asked]
        commands = [{"id": number, **command} for number, command in enumerate(unnumbered, 1)]
        with connect(f"ws://127.0.0.1:{self.port}/connection/websocket", compression=None) as client:
            client.send("\n".join(map(json.dumps, commands)))
            unanswered = {command["id"] for command in commands}
            while unanswered:
                for reply in map(json.loads, client.recv(timeout=DEADLINE_S).splitlines()):
                    assert "error" not in reply, reply
                    unanswered.discard(reply.get("id"))

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def publication(room: str, message_id: str, content: str) -> dict[str, Any]:
    return {"publish": {"channel": room, "data": {"id": message_id, "content": content, "type": "text"}}}


def rpc(room: str, method: str, message_id: str, **given: object) -> dict[str, Any]:
    return {"rpc": {"method": method, "data": {"channel": room, "id": message_id, **given}}}


class Window:
    """One person's window on a room."""

    def __init__(self, page: Page, node: Node) -> None:
        self.page = page
        self.node = node
        self.problems: list[str] = []
        self.composer = page.get_by_label("Message", exact=True)
        self.status = page.get_by_role("status")
        self.log = page.get_by_role("log")
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def enter(self, room: str, name: str) -> None:
        self.page.goto(self.node.url(room=room, name=name))
        expect(self.status).to_have_text("Connected.")

    def write(self, *texts: str) -> None:
        for text in texts:
            self.composer.fill(text)
            self.composer.press("Enter")

    def message(self, text: str) -> Locator:
        return self.log.get_by_role("listitem").filter(has_text=text)

    def messages(self) -> list[tuple[int, str]]:
        """Sequence and text of all that stands in the list; 0 for what the room does not have yet."""
        read = "rows => rows.map(row => [Number(row.dataset.sequence ?? 0), row.querySelector('.content').innerText])"
        return [(sequence, text) for sequence, text in self.page.locator("li.message").evaluate_all(read)]

    def wait_for(self, sequence: int) -> None:
        """Wait until the entry with this sequence is the last that the room is known to have."""
        expect(self.page.locator("li[data-sequence]").last).to_have_attribute("data-sequence", str(sequence))

    def _heard(self, message: ConsoleMessage) -> None:
        # What the browser says of every connection that a node which is away refuses.
        if message.type in {"error", "warning"} and "WebSocket connection" not in message.text:
            self.problems.append(message.text)

    def _asked(self, url: str) -> None:
        if not url.startswith(self.node.url()[:-1]):
            self.problems.append(f"asked for {url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    subprocess.run([BUILD], check=True, capture_output=True, timeout=300)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def node(tmp_path: Path, browser: Browser) -> Iterator[Node]:  # noqa: ARG001 - the node reads the page when it starts
    process = Node(tmp_path / "node")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def window(browser: Browser, node: Node) -> Iterator[Callable[..., Window]]:
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


def refuse_publications(page: Page, error: dict[str, object], count: int) -> None:
    """Answer the first publications of a page with an error, in place of the node."""
    left = count

    def route(client: WebSocketRoute) -> None:
        server = client.connect_to_server()

        def forward(frame: str | bytes) -> None:
            nonlocal left
            for command in map(json.loads, str(frame).splitlines()):
                if "publish" in command and left > 0:
                    left -= 1
                    client.send(json.dumps({"id": command["id"], "error": error}))
                else:
                    server.send(json.dumps(command))

        client.on_message(forward)

    page.route_web_socket(re.compile("/connection/websocket"), route)


def forbid_recovery(page: Page) -> None:
    """Make each recovery of a page fail, as if it had been away for too long."""

    def route(client: WebSocketRoute) -> None:
        server = client.connect_to_server()

        def forward(frame: str | bytes) -> None:
            replies = [json.loads(line) for line in str(frame).splitlines()]
            for reply in replies:
                result = reply.get("subscribe", {})
                if result.pop("recovered", False):
                    result["offset"] = result.get("offset", 0) + len(result.pop("publications", []))
            client.send("\n".join(map(json.dumps, replies)))

        server.on_message(forward)

    page.route_web_socket(re.compile("/connection/websocket"), route)


def test_two_windows_chat(window: Callable[..., Window]) -> None:
    ada, grace = window(), window()
    ada.enter("garden", "Ada")
    grace.enter("garden", "Grace")
    expect(ada.page.get_by_text("2 people here")).to_be_visible()
    ada.write("Hello")
    grace.wait_for(1)
    grace.write("Hi Ada")
    ada.wait_for(2)
    assert ada.messages() == grace.messages() == [(1, "Hello"), (2, "Hi Ada")]
    expect(grace.message("Hello")).to_contain_text("Ada")
    expect(ada.message("Hello")).to_contain_text("You")


def test_edits_and_removals_are_seen_at_once_and_when_the_page_is_loaded_anew(
    node: Node, window: Callable[..., Window]
) -> None:
    ada = window()
    ada.enter("garden", "Ada")
    said = [publication("garden", "a", "Helo"), publication("garden", "b", "a secret")]
    node.ask(
        "garden", [*said, rpc("garden", "edit", "c", target=1, content="Hello"), rpc("garden", "delete", "d", target=2)]
    )
    shown = [(1, "Hello (edited)"), (2, "Message removed")]
    expect(ada.message("Message removed")).to_be_visible()
    assert ada.messages() == shown
    ada.page.reload()
    expect(ada.message("Message removed")).to_be_visible()
    assert ada.messages() == shown
    assert "a secret" not in ada.page.content()


def test_rooms_are_apart(window: Callable[..., Window]) -> None:
    ada, grace = window(), window()
    ada.enter("garden", "Ada")
    grace.enter("kitchen", "Grace")
    ada.write("in the garden")
    ada.wait_for(1)
    grace.write("in the kitchen")
    grace.wait_for(1)
    assert grace.messages() == [(1, "in the kitchen")]


def test_after_the_node_was_killed_both_windows_have_every_message_once_and_in_order(
    node: Node, window: Callable[..., Window]
) -> None:
    ada, grace = window(), window()
    ada.enter("garden", "Ada")
    grace.enter("garden", "Grace")
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
    node: Node, window: Callable[..., Window]
) -> None:
    ada, grace = window(), window()
    ada.enter("garden", "Ada")
    grace.enter("garden", "Grace")
    texts = [f"message {number}" for number in range(1, 41)]
    ada.write(*texts[:20])
    node.kill()
    ada.write(*texts[20:])
    node.start()
    ada.wait_for(40)
    grace.wait_for(40)
    assert ada.messages() == grace.messages() == list(enumerate(texts, 1))


def test_messages_that_wait_survive_loading_the_page_again(node: Node, window: Callable[..., Window]) -> None:
    ada = window()
    ada.enter("garden", "Ada")
    ada.write("before")
    ada.wait_for(1)
    kept = node.url(room="garden")
    node.kill()
    ada.write("away")
    expect(ada.message("away")).to_contain_text("Waiting to be sent")
    node.start()
    ada.page.goto(kept)
    ada.wait_for(2)
    assert ada.messages() == [(1, "before"), (2, "away")]
    expect(ada.message("before")).to_contain_text("You")


def test_a_refused_message_says_why_and_can_be_retried_as_the_same_message(window: Callable[..., Window]) -> None:
    ada, grace = window(), window()
    refuse_publications(ada.page, {"code": 103, "message": "permission denied"}, count=1)
    ada.enter("garden", "Ada")
    grace.enter("garden", "Grace")
    ada.write("refused", "taken")
    expect(ada.message("refused")).to_contain_text("Not sent: you may not do this here")
    grace.wait_for(1)
    ada.page.get_by_role("button", name="Retry: refused").click()
    expect(ada.composer).to_be_focused()
    ada.wait_for(2)
    grace.wait_for(2)
    assert ada.messages() == grace.messages() == [(1, "taken"), (2, "refused")]


def test_a_refused_message_can_be_discarded(window: Callable[..., Window]) -> None:
    ada = window()
    refuse_publications(ada.page, {"code": 107, "message": "content is too long"}, count=1)
    ada.enter("garden", "Ada")
    ada.write("refused")
    expect(ada.message("refused")).to_contain_text("content is too long")
    ada.page.get_by_role("button", name="Discard: refused").click()
    expect(ada.message("refused")).to_have_count(0)


def test_a_temporary_fault_is_retried_without_a_person(window: Callable[..., Window]) -> None:
    ada = window()
    refuse_publications(ada.page, {"code": 100, "message": "internal server error", "temporary": True}, count=1)
    ada.enter("garden", "Ada")
    ada.write("first", "second")
    ada.wait_for(2)
    assert ada.messages() == [(1, "first"), (2, "second")]


def test_what_cannot_be_recovered_is_said_and_read_anew(node: Node, window: Callable[..., Window]) -> None:
    ada = window()
    forbid_recovery(ada.page)
    ada.enter("garden", "Ada")
    ada.write("before")
    ada.wait_for(1)
    node.kill()
    expect(ada.status).to_have_text("Connection lost. Reconnecting…")
    node.start()
    expect(ada.page.get_by_text("Some messages may be missing")).to_be_visible()
    ada.write("after")
    ada.wait_for(2)
    assert ada.messages() == [(1, "before"), (2, "after")]


def test_earlier_messages_come_when_the_reader_gets_to_the_first(node: Node, window: Callable[..., Window]) -> None:
    node.say("garden", 120)
    ada = window()
    ada.enter("garden", "Ada")
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


def test_a_reader_keeps_their_place_and_is_told_of_new_messages(node: Node, window: Callable[..., Window]) -> None:
    node.say("garden", 40)
    ada, grace = window(height=400), window()
    ada.enter("garden", "Ada")
    ada.wait_for(40)
    grace.enter("garden", "Grace")
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


def test_everything_can_be_done_with_the_keyboard(node: Node, window: Callable[..., Window]) -> None:
    ada = window()
    refuse_publications(ada.page, {"code": 103, "message": "permission denied"}, count=1)
    ada.page.goto(node.url())
    press, type_text = ada.page.keyboard.press, ada.page.keyboard.type
    expect(ada.page.get_by_label("Your name")).to_be_focused()
    type_text("Ada")
    press("Tab")
    press("ControlOrMeta+a")
    type_text("garden")
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
    tmp_path: Path, window: Callable[..., Window], scheme: Scheme, width: int
) -> None:
    ada = window(width, 640, scheme)
    refuse_publications(ada.page, {"code": 103, "message": "permission denied"}, count=1)
    ada.enter("garden", "Ada")
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

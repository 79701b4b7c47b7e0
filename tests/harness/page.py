"""The page in a real browser, and what others do in its rooms."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode

from playwright.sync_api import expect
from websockets.sync.client import connect

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, WebSocketRoute
    from websockets.sync.client import ClientConnection

    from tests.harness.node_process import NodeProcess

    Scheme = Literal["light", "dark"]

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
RUN: Final = 200  # commands in one frame, which has to fit into limits.message_bytes

expect.set_options(timeout=DEADLINE_S * 1000)


def say(node: NodeProcess, room: str, count: int) -> None:
    """Publish messages as a guest without a browser, and return once all are acknowledged."""
    ask(node, room, [publication(room, f"said-{n:032d}", f"said {n}") for n in range(1, count + 1)])


def ask(node: NodeProcess, room: str, asked: list[dict[str, Any]], token: str = "") -> None:
    """Give commands in a room without a browser, and return once all are answered.

    Args:
        node: Of which node.
        room: Where.
        asked: The commands, without their numbers.
        token: Says who asks; empty: a guest.
    """
    unnumbered: list[dict[str, Any]] = [{"connect": {"token": token}}, {"subscribe": {"channel": room}}, *asked]
    commands = [{"id": number, **command} for number, command in enumerate(unnumbered, 1)]
    with connect(node.url, compression=None) as client:
        for run in range(0, len(commands), RUN):
            _give(client, commands[run : run + RUN])


def _give(client: ClientConnection, commands: list[dict[str, Any]]) -> None:
    client.send("\n".join(map(json.dumps, commands)))
    unanswered = {command["id"] for command in commands}
    while unanswered:
        for reply in map(json.loads, client.recv(timeout=DEADLINE_S).splitlines()):
            assert "error" not in reply, reply
            unanswered.discard(reply.get("id"))


def publication(room: str, message_id: str, content: str, **given: object) -> dict[str, Any]:
    """The command that publishes a message."""
    return {"publish": {"channel": room, "data": {"id": message_id, "content": content, "type": "text", **given}}}


def rpc(room: str, method: str, **given: object) -> dict[str, Any]:
    """The command that calls a method."""
    return {"rpc": {"method": method, "data": {"channel": room, **given}}}


class Window:
    """One person's window on a room.

    Attributes:
        page: The browser's page.
        problems: What went wrong in it, and what it asked of others than the node.
        composer: The field in which messages are written.
        status: Says how the connection is.
        log: The list of messages.
    """

    def __init__(self, page: Page, node: NodeProcess) -> None:
        self.page = page
        self.problems: list[str] = []
        self.composer = page.get_by_label("Message", exact=True)
        self.status = page.get_by_role("status")
        self.log = page.get_by_role("log")
        self._home = node.public
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def open(self, **query: str) -> None:
        """Load the page, with this in its address."""
        self.page.goto(f"{self._home}/?{urlencode(query)}")

    def enter(self, room: str, name: str, **query: str) -> None:
        """Be in a room."""
        self.open(room=room, name=name, **query)
        expect(self.status).to_have_text("Connected.")

    def write(self, *texts: str) -> None:
        """Send messages."""
        for text in texts:
            self.composer.fill(text)
            self.composer.press("Enter")

    def message(self, text: str) -> Locator:
        """The row of the list that has a text."""
        return self.log.get_by_role("listitem").filter(has_text=text)

    def do(self, text: str, tool: str) -> None:
        """Point at a message, and press one of its tools."""
        self.message(text).hover()
        self.message(text).get_by_role("button", name=tool, exact=True).click()

    def messages(self) -> list[tuple[int, str]]:
        """Sequence and text of all that stands in the list; 0 for what the room does not have yet."""
        read = "rows => rows.map(row => [Number(row.dataset.sequence ?? 0), row.querySelector('.content').innerText])"
        return [(sequence, text) for sequence, text in self.page.locator("li.message").evaluate_all(read)]

    def wait_for(self, sequence: int) -> None:
        """Wait until the message with this sequence is the last that the room is known to have."""
        expect(self.page.locator("li[data-sequence]").last).to_have_attribute("data-sequence", str(sequence))

    def _heard(self, message: ConsoleMessage) -> None:
        # What the browser says of every connection that a node which is away refuses.
        if message.type in {"error", "warning"} and "WebSocket connection" not in message.text:
            self.problems.append(message.text)

    def _asked(self, url: str) -> None:
        if not url.startswith(self._home):
            self.problems.append(f"asked for {url}")


def refuse(page: Page, command: str, error: dict[str, object], count: int) -> None:
    """Answer the first commands of a page that have a name with an error, in place of the node.

    Args:
        page: Whose commands.
        command: Such as `publish`, or the method of an rpc.
        error: The answer.
        count: How many.
    """
    left = count

    def route(client: WebSocketRoute) -> None:
        server = client.connect_to_server()

        def forward(frame: str | bytes) -> None:
            nonlocal left
            for given in map(json.loads, str(frame).splitlines()):
                if command in {*given, given.get("rpc", {}).get("method")} and left > 0:
                    left -= 1
                    client.send(json.dumps({"id": given["id"], "error": error}))
                else:
                    server.send(json.dumps(given))

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

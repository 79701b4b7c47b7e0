"""The receiver in docs/webhooks.md does what it says, as it stands there."""

from __future__ import annotations

import http.client
import re
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from edge_config.secret import Secret
from edge_config.webhooks import EVENTS
from node.webhook_events import Origin, request_body
from node.webhook_post import REFUSALS
from node.webhook_signature import HEADER, sign
from tests.harness.node_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
KEY: Final = Secret("0123456789abcdef0123456789abcdef")
OTHER: Final = Secret("fedcba9876543210fedcba9876543210")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The receiver's, which runs."""
    found = re.search(r"<!-- receiver -->\n```python\n(.*?)```\n<!-- /receiver -->", DOCUMENT, re.DOTALL)
    assert found is not None
    program = tmp_path / "receiver.py"
    program.write_text(found[1])
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    settings = {"SECRET": KEY.reveal(), "DATABASE": str(tmp_path / "events.sqlite3"), "PORT": str(number)}
    environment = {f"WEBHOOK_{name}": value for name, value in settings.items()}
    with subprocess.Popen([sys.executable, program], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for("the receiver", lambda: listens(number))
            yield number
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, body: bytes, header: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/", body, {HEADER: header} if header else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_documented_receiver_verifies_and_takes_each_event_once(port: int, tmp_path: Path) -> None:
    now = int(time.time())
    origin = Origin("default", "crm", "node-1", "b00t")
    body = request_body(origin, [b'{"id":"1","type":"message"}', b'{"id":"2","type":"edited"}'])
    for secrets in ([KEY], [KEY, OTHER], [OTHER, KEY]):
        assert post(port, body, sign(body, secrets, now)) == 204
    for header in (sign(body, [OTHER], now), sign(body, [KEY], now - 301), sign(body + b" ", [KEY], now), "", "t=,v1="):
        assert post(port, body, header) == 401
    more = body.replace(b'"2"', b'"3"')
    assert post(port, more, sign(more, [KEY], now)) == 204
    with sqlite3.connect(tmp_path / "events.sqlite3") as database:
        rows = database.execute("SELECT id, type FROM event ORDER BY id").fetchall()
    database.close()
    assert rows == [("1", "message"), ("2", "edited"), ("3", "edited")]


def test_the_document_names_every_event_and_every_refusal() -> None:
    assert [event for event in EVENTS if f"`{event}`" not in DOCUMENT] == []
    row = re.search(r"^\| ([\d, ]+) \| the same request", DOCUMENT, re.MULTILINE)
    assert row is not None
    assert {int(status) for status in row[1].split(",")} == REFUSALS

"""`tests/sdk.toml`: the node that the test suites of the Centrifuge SDKs expect."""

from __future__ import annotations

import hmac
import json
import shutil
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from node.cli import app
from tests.harness.api import post
from tests.harness.chat_socket import ChatSocket
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: Final = Path(__file__).parents[1] / "sdk.toml"
KEY: Final = "test-api-key"


def token(**claims: str) -> str:
    """A token as the suites have them, signed by hand: PyJWT warns of such a secret, and rightly."""
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(hmac.digest(b"secret", signed, "sha256")).rstrip(b"=")
    return f"{signed.decode()}.{signature.decode()}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """As the file says, but at a free port."""
    folder = tmp_path_factory.mktemp("sdk")
    settings = shutil.copy(SETTINGS, folder / "sdk.toml")
    environment = {"CHAT_NODE_CONFIG": str(settings), "CHAT_NODE_AUTH__SECRET": "secret"}
    with NodeProcess(folder, environment=environment) as node:
        yield node


def test_the_file_can_be_used() -> None:
    result = CliRunner().invoke(app, ["config", "check", "--config", str(SETTINGS)])
    assert result.exit_code == 0, result.output


def test_the_file_says_which_port_and_that_the_api_is_there() -> None:
    text = SETTINGS.read_text()
    assert "port = 8000\n" in text
    assert "api_on_public_port = true\n" in text


def test_guests_and_tokens_without_sub_and_exp_connect_and_have_a_channel_of_their_own(node: NodeProcess) -> None:
    with connect(node.url, proxy=None) as connection:
        result = ChatSocket(connection).ask("connect", {})["connect"]
        assert next(iter(result["subs"])).startswith("#guest:")
    with connect(node.url, proxy=None) as connection:
        assert "client" in ChatSocket(connection).ask("connect", {"token": token()})["connect"]
    with connect(node.url, proxy=None) as connection:
        result = ChatSocket(connection).ask("connect", {"token": token(sub="u1")})["connect"]
        assert list(result["subs"]) == ["#u1"]


def test_who_joins_is_told_of_it_as_the_others_are(node: NodeProcess) -> None:
    with connect(node.url, proxy=None) as connection:
        member = ChatSocket(connection)
        client = member.ask("connect", {"token": token(sub="u2")})["connect"]["client"]
        push = next(member.pushes())
        assert (push["channel"], push["join"]["info"]["client"]) == ("#u2", client)


def test_joins_are_pushed_to_all_and_the_roster_is_told(node: NodeProcess) -> None:
    with connect(node.url, proxy=None) as connection, connect(node.url, proxy=None) as other:
        first, second = ChatSocket(connection), ChatSocket(other)
        for user in (first, second):
            user.ask("connect", {})
        assert first.ask("subscribe", {"channel": "test"})["subscribe"]["recoverable"]
        second.ask("subscribe", {"channel": "test"})
        joined = next(push for push in first.pushes() if push["channel"] == "test")
        assert "join" in joined
        assert len(first.ask("presence", {"channel": "test"})["presence"]["presence"]) == 2


@pytest.mark.parametrize(("channel", "visible"), [("h", 5), ("recovery:h", 5), ("smallhistory:h", 2), ("delta:h", 5)])
def test_the_api_publishes_with_the_weak_key_and_kinds_remember_what_they_should(
    node: NodeProcess, channel: str, visible: int
) -> None:
    for number in range(5):
        assert "result" in post(node.public, "publish", {"channel": channel, "data": number}, key=KEY).body
    history = post(node.public, "history", {"channel": channel, "limit": 100}, key=KEY).body["result"]
    assert [publication["data"] for publication in history["publications"]] == list(range(5))[-visible:]
    assert history["offset"] == 5

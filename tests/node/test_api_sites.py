"""Two sites of one node, each with an API key: no method reads or changes anything of the other's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from edge_config.api import KEY_CHARACTERS
from edge_config.schema import Auth
from node.api_table import EVERY, METHODS
from node.auth import make_token
from node.cli import app
from node.site_file import ApiKeyEntry, KeyEntry, SiteEntry, change
from node.sites import digest_of
from tests.harness.api import post
from tests.harness.chat_socket import ChatSocket
from tests.harness.node_process import NodeProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
NAMES: Final = ("red", "blue")
ROOM: Final = "same"
USER: Final = "u1"
TRIED: Final = {
    "publish": {"channel": ROOM, "data": "of blue", "idempotency_key": "k1"},
    "broadcast": {"channels": [ROOM], "data": "of blue"},
    "history": {"channel": ROOM, "limit": 10},
    "presence": {"channel": ROOM},
    "presence_stats": {"channel": ROOM},
    "members": {"channel": ROOM},
    "channels": {},
    "rooms": {},
    "room_info": {"channel": ROOM},
    "users": {},
    "user_info": {"user": USER},
    "info": {},
    "subscribe": {"user": USER, "channel": "other"},
    "unsubscribe": {"user": USER, "channel": ROOM},
    "disconnect": {"user": USER},
    "refresh": {"user": USER, "expired": True},
    "history_remove": {"channel": ROOM},
}


def secret(site: str) -> str:
    return f"the secret of {site}, long enough for HS256"


def key(site: str) -> str:
    return f"the-api-key-of-{site}-0123456789abcdef"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path, settings={"KINDS__DEFAULT__SCHEMA": "any", "KINDS__DEFAULT__PRESENCE": "roster"})
    with change(node.data_dir, Auth()) as content:
        content.sites = [
            SiteEntry(
                name,
                [KeyEntry("HS256", f"key-{name}", secret(name))],
                api_keys=[ApiKeyEntry("api", digest_of(key(name)), ["admin"])],
            )
            for name in NAMES
        ]
    with node:
        yield node


@pytest.fixture
def red(node: NodeProcess) -> Iterator[ChatSocket]:
    """A user of red in a room with one message; there is nobody and nothing of blue."""
    token = make_token(secret("red"), {"sub": USER}, "HS256", "key-red")
    with connect(node.url, proxy=None) as connection:
        user = ChatSocket(connection)
        assert "client" in user.ask("connect", {"token": token})["connect"]
        assert "subscribe" in user.ask("subscribe", {"channel": ROOM})
        post(node.internal, "publish", {"channel": ROOM, "data": "of red", "idempotency_key": "k1"}, key=key("red"))
        yield user


def result(node: NodeProcess, site: str, method: str) -> Any:  # noqa: ANN401 - any JSON
    return post(node.internal, method, TRIED[method], key=key(site)).body.get("result")


def test_every_method_is_tried() -> None:
    assert {*TRIED, *(name for name, method in METHODS.items() if method.scope == "moderate"), "batch"} == set(EVERY)


def test_a_key_of_one_site_reads_nothing_of_the_other(node: NodeProcess, red: ChatSocket) -> None:
    assert result(node, "red", "history")["offset"] == 1
    assert result(node, "red", "presence_stats")["num_clients"] == 1
    assert list(result(node, "red", "channels")["channels"]) == [ROOM]
    assert result(node, "red", "info")["nodes"][0]["num_clients"] == 1

    assert result(node, "blue", "history")["publications"] == []
    assert result(node, "blue", "presence") == {"presence": {}}
    assert result(node, "blue", "members")["members"] == {}
    assert result(node, "blue", "presence_stats") == {"num_clients": 0, "num_users": 0}
    assert result(node, "blue", "channels") == {"channels": {}}
    assert result(node, "blue", "rooms")["rooms"] == []
    (info,) = result(node, "blue", "info")["nodes"]
    assert (info["num_clients"], info["num_users"], info["num_subs"], info["num_channels"]) == (0, 0, 0, 0)
    assert red.ask("ping", {})["ping"] == {}


def test_a_key_of_one_site_changes_nothing_of_the_other(node: NodeProcess, red: ChatSocket) -> None:
    for method in ("publish", "broadcast", "subscribe", "unsubscribe", "disconnect", "refresh"):
        assert result(node, "blue", method) is not None
    commands = [{method: request} for method, request in TRIED.items()]
    assert len(post(node.internal, "batch", {"commands": commands}, key=key("blue")).body["replies"]) == len(commands)
    history = red.ask("history", {"channel": ROOM, "limit": 10})["history"]
    assert [publication["data"] for publication in history["publications"]] == ["of red"]
    last = post(node.internal, "publish", {"channel": ROOM, "data": "last"}, key=key("red"))
    assert last.body["result"]["offset"] == 2
    pushes = red.pushes()
    assert [next(pushes) for _ in range(2)] == [
        {"channel": ROOM, "pub": {"data": "of red", "offset": 1}},
        {"channel": ROOM, "pub": {"data": "last", "offset": 2}},
    ]


def test_a_key_of_no_site_is_nobodys(node: NodeProcess) -> None:
    assert post(node.internal, "info", {}, key=key("green")).status == 401


def test_metrics_name_the_site_of_each_request(node: NodeProcess) -> None:
    result(node, "blue", "rooms")
    assert node.metrics()['chat_node_api_requests_total{method="rooms",outcome="ok",site="blue"}'] >= 1


def test_a_key_made_by_command_is_taken_by_the_running_node_until_it_is_removed(node: NodeProcess) -> None:
    where = ["--data-dir", str(node.data_dir)]
    made = CliRunner().invoke(app, ["site", "add-api-key", "blue", "--scope", "read", *where])
    assert made.exit_code == 0, made.output
    *_, new = made.output.split()
    assert len(new) >= KEY_CHARACTERS
    identity = made.output.split("API key ")[1].split()[0]
    wait_for("the new key", lambda: post(node.internal, "info", {}, key=new).status == 200)
    assert post(node.internal, "publish", TRIED["publish"], key=new).status == 403
    removed = CliRunner().invoke(app, ["site", "remove-api-key", "blue", identity, *where])
    assert removed.exit_code == 0, removed.output
    wait_for("its end", lambda: post(node.internal, "info", {}, key=new).status == 401)

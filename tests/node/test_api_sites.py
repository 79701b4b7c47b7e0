"""Two sites of one node, each with an API key; what one sees of the other is for tests/node/test_isolation.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from typer.testing import CliRunner

from edge_config.api import KEY_CHARACTERS
from edge_config.schema import Auth
from node.cli import app
from node.site_file import ApiKeyEntry, KeyEntry, SiteEntry, change
from node.sites import digest_of
from tests.harness.api import post
from tests.harness.node_process import NodeProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
NAMES: Final = ("red", "blue")
ROOM: Final = "same"
USER: Final = "u1"


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


def test_a_key_of_no_site_is_nobodys(node: NodeProcess) -> None:
    assert post(node.internal, "info", {}, key=key("green")).status == 401


def test_metrics_name_the_site_of_each_request(node: NodeProcess) -> None:
    post(node.internal, "rooms", {}, key=key("blue"))
    assert node.metrics()['chat_node_api_requests_total{method="rooms",outcome="ok",site="blue"}'] >= 1


def test_a_key_made_by_command_is_taken_by_the_running_node_until_it_is_removed(node: NodeProcess) -> None:
    where = ["--data-dir", str(node.data_dir)]
    made = CliRunner().invoke(app, ["site", "add-api-key", "blue", "--scope", "read", *where])
    assert made.exit_code == 0, made.output
    *_, new = made.output.split()
    assert len(new) >= KEY_CHARACTERS
    identity = made.output.split("API key ")[1].split()[0]
    wait_for("the new key", lambda: post(node.internal, "info", {}, key=new).status == 200)
    assert post(node.internal, "publish", {"channel": "r", "data": 1}, key=new).status == 403
    removed = CliRunner().invoke(app, ["site", "remove-api-key", "blue", identity, *where])
    assert removed.exit_code == 0, removed.output
    wait_for("its end", lambda: post(node.internal, "info", {}, key=new).status == 401)

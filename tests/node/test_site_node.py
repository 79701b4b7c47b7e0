"""Sites on a real node: two that can't see each other, and changes while it runs."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from typer.testing import CliRunner
from typing_extensions import override
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edge_config.schema import Auth
from node import revocations
from node.auth import make_token
from node.cli import app
from node.site_file import KeyEntry, SiteEntry, change
from tests.harness.node_process import SECRET, NodeProcess, wait_for
from tests.harness.node_process import token as default_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.slow
SECRETS = {"a": "secret of site a, long enough for HS256", "b": "secret of site b, long enough for HS256"}
ROOM = "room"


def token(site: str, user: str, **claims: object) -> str:
    return make_token(SECRETS[site], {"sub": user, "iat": int(time.time()) - 5, **claims}, "HS256", f"key-{site}")


def add_sites(data_dir: Path, **fields: Any) -> None:  # noqa: ANN401 - fields of SiteEntry
    with change(data_dir, Auth()) as content:
        content.sites = [
            SiteEntry(name, [KeyEntry("HS256", f"key-{name}", secret)], origins=[f"https://{name}.example"], **fields)
            for name, secret in SECRETS.items()
        ]


class Client:
    """A client that counts its commands and keeps what is pushed to it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._last = socket, 0
        self.pushes: list[dict[str, Any]] = []

    def ask(self, name: str, **fields: object) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, name: fields}))
        while True:
            for line in str(self._socket.recv(timeout=20)).splitlines():
                message = json.loads(line)
                if message.get("id") == self._last:
                    return dict(message)
                if "push" in message:
                    self.pushes.append(message["push"])

    def _drain(self) -> NoReturn:
        while True:
            self._socket.recv(timeout=20)

    def pushed(self, kind: str) -> dict[str, Any]:
        """The first push of a kind; waits for it."""
        while not (found := [push for push in self.pushes if kind in push]):
            messages = map(json.loads, str(self._socket.recv(timeout=20)).splitlines())
            self.pushes += [message["push"] for message in messages if "push" in message]
        return found[0]

    def closed(self) -> tuple[int, str]:
        """Code and reason with which the node ends the connection."""
        with pytest.raises(ConnectionClosed) as end:
            self._drain()
        assert end.value.rcvd is not None
        return end.value.rcvd.code, end.value.rcvd.reason


@contextmanager
def client(node: NodeProcess, query: str = "", origin: str | None = None) -> Iterator[Client]:
    with connect(node.url + query, origin=origin, open_timeout=20) as socket:  # type: ignore[arg-type]
        yield Client(socket)


def message(number: int, content: str) -> dict[str, str]:
    return {"id": f"00000000-0000-4000-8000-{number:012}", "content": content, "type": "text"}


def contents(who: Client) -> list[str]:
    page = who.ask("history", channel=ROOM, limit=-1)["history"]
    return [publication["data"]["content"] for publication in page.get("publications") or ()]


def present(who: Client) -> set[str]:
    return {info["user"] for info in who.ask("presence", channel=ROOM)["presence"]["presence"].values()}


def joined(who: Client, shown: str) -> Client:
    assert "connect" in who.ask("connect", token=shown)
    assert "subscribe" in who.ask("subscribe", channel=ROOM)
    return who


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("sites")
    add_sites(folder / "data")
    settings = {"KINDS__DEFAULT__JOIN_LEAVE": "push", "KINDS__DEFAULT__PRESENCE": "roster"}
    with NodeProcess(folder, settings=settings) as started:
        yield started


def test_two_sites_with_a_room_of_one_name_see_nothing_of_each_other(node: NodeProcess) -> None:
    with client(node) as first, client(node) as second, client(node) as other:
        joined(first, token("a", "u-1"))
        joined(other, token("b", "u-3"))
        joined(second, token("a", "u-2"))
        assert "publish" in first.ask("publish", channel=ROOM, data=message(1, "for a only"))
        assert contents(second) == ["for a only"]
        assert contents(other) == []
        assert present(first) == {"u-1", "u-2"}
        assert present(other) == {"u-3"}
        assert other.ask("presence_stats", channel=ROOM)["presence_stats"] == {"num_clients": 1, "num_users": 1}
        # An id that another site knows is new here.
        assert "publish" in other.ask("publish", channel=ROOM, data=message(1, "for b only"))
        assert contents(other) == ["for b only"]
        assert contents(first) == ["for a only"]
        told = json.dumps(first.pushes) + json.dumps(second.pushes)
        assert "u-3" not in told
        assert "for b only" not in told
        assert "u-1" not in json.dumps(other.pushes)
        assert "for a only" not in json.dumps(other.pushes)
        assert any("join" in push for push in first.pushes), "joins are pushed, so a crossing one would be seen"
    samples = node.metrics()
    assert samples['chat_node_connects_total{site="b"}'] >= 1
    assert not [name for name in samples if "u-1" in name or f'"{ROOM}"' in name]


def test_a_user_of_one_name_is_another_in_each_site(node: NodeProcess) -> None:
    with client(node) as here, client(node) as there:
        joined(here, token("a", "zoe"))
        assert "connect" in there.ask("connect", token=token("b", "zoe"))
        shown = there.ask("subscribe", channel="$secret", token=token("a", "zoe", channel="$secret"))
        assert shown["error"]["code"] == 103
        assert there.ask("subscribe", channel="$secret", token=token("b", "zoe", channel="$secret"))["subscribe"]


def test_what_a_user_has_read_is_of_one_site(node: NodeProcess) -> None:
    def rpc(who: Client, method: str, **fields: object) -> Any:  # noqa: ANN401 - JSON
        return who.ask("rpc", method=method, data={"channel": "marks", **fields})["rpc"]["data"]

    with client(node) as here, client(node) as again, client(node) as there:
        for who, site in ((here, "a"), (again, "a"), (there, "b")):
            assert "connect" in who.ask("connect", token=token(site, "zoe"))
            assert "subscribe" in who.ask("subscribe", channel="marks")
        with client(node) as ann, client(node) as bob:
            for who, site in ((ann, "a"), (bob, "b")):
                assert "connect" in who.ask("connect", token=token(site, "ann"))
                assert "subscribe" in who.ask("subscribe", channel="marks")
                for number in range(3):
                    assert "publish" in who.ask("publish", channel="marks", data=message(number, f"of {site}"))
        assert rpc(here, "read", sequence=2) == {"read": 2}
        assert [rpc(who, "unread")["read"] for who in (here, again, there)] == [2, 2, 0]
        assert rpc(there, "unread")["unread"] == 3
        assert rpc(there, "read", sequence=1) == {"read": 1}
        assert [rpc(who, "unread")["read"] for who in (here, again, there)] == [2, 2, 1]
        told = [[p["pub"]["data"].get("sequence") for p in who.pushes if p.get("pub", {}).get("data", {}).get("type") ==
                 "read"] for who in (here, again, there)]  # fmt: skip
        assert told == [[2], [2], [1]]


def test_a_token_of_another_site_does_not_refresh(node: NodeProcess) -> None:
    with client(node) as ann:
        joined(ann, token("a", "ann"))
        ann._socket.send(json.dumps({"id": 99, "refresh": {"token": token("b", "ann")}}))
        assert ann.closed()[0] == 3500


@pytest.mark.parametrize(
    ("query", "origin", "shown", "end"),
    [
        ("?site=a", None, token("a", "u"), None),
        ("?site=b", None, token("a", "u"), 3500),
        ("?site=unknown", None, token("a", "u"), 3500),
        ("", "https://a.example", token("a", "u"), None),
        ("", "https://b.example", token("a", "u"), 3507),
        ("?site=a", "https://a.example", token("a", "u"), None),
        ("", None, "", 3500),  # a guest of which site?
        ("?site=default", None, "", None),
        ("?site=a", None, "", 3500),
        ("", None, default_token("u"), None),
    ],
)
def test_a_client_gets_to_its_own_site_only(
    node: NodeProcess, query: str, origin: str | None, shown: str, end: int | None
) -> None:
    with client(node, query, origin) as who:
        if end is None:
            assert "connect" in who.ask("connect", token=shown)
        else:
            who._socket.send(json.dumps({"id": 1, "connect": {"token": shown}}))
            assert who.closed()[0] == end


@pytest.mark.parametrize(("query", "origin"), [("?site=b", "https://a.example"), ("", "https://evil.example")])
def test_a_foreign_page_is_refused_at_the_upgrade(node: NodeProcess, query: str, origin: str) -> None:
    with pytest.raises(InvalidStatus, match="403"), client(node, query, origin):
        raise AssertionError("the upgrade must fail")


def test_changes_are_taken_up_and_a_broken_file_is_not(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node, client(node) as guest:
        assert "connect" in guest.ask("connect")
        add_sites(node.data_dir)
        node.wait_line("sites reloaded")
        with client(node) as ann, client(node) as eve:
            joined(ann, token("a", "ann"))
            joined(eve, token("b", "eve"))

            (node.data_dir / "sites.json").write_text("{")
            node.tell(signal.SIGHUP)
            assert "sites.json" in node.wait_line("sites not reloaded")["reason"]
            with client(node) as bob:
                joined(bob, token("a", "bob"))

            (node.data_dir / "sites.json").unlink()
            assert (
                "is gone" in node.wait_line("sites not reloaded", len(node.lines("sites not reloaded")) + 1)["reason"]
            )
            add_sites(node.data_dir)
            with change(node.data_dir, Auth()) as content:
                content.sites = content.sites[:1]
            assert eve.closed() == (3500, "invalid token: its site was removed")
            assert "publish" in ann.ask("publish", channel=ROOM, data=message(2, "hi"))
            with client(node) as late:
                late._socket.send(json.dumps({"id": 1, "connect": {"token": token("b", "eve")}}))
                assert late.closed()[0] == 3500
        assert guest.ask("ping") == {"id": 2, "ping": {}}


class KeyServer(BaseHTTPRequestHandler):
    """Publishes `keys`."""

    keys: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        body = json.dumps({"keys": self.keys}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def published(key_id: str) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    KeyServer.keys = [{**json.loads(OKPAlgorithm.to_jwk(private.public_key())), "kid": key_id}]
    return private


def test_a_client_with_a_new_key_of_its_site_is_told_to_come_again_and_then_connects(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), KeyServer)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        first = published("k1")
        with change(tmp_path / "data", Auth()) as content:
            content.sites.append(SiteEntry("a", jwks=f"http://127.0.0.1:{server.server_port}/"))
        with NodeProcess(tmp_path) as node:

            def answer(private: Ed25519PrivateKey, key_id: str) -> dict[str, Any]:
                with client(node) as ann:
                    return ann.ask("connect", token=jwt.encode({"sub": "ann"}, private, "EdDSA", {"kid": key_id}))

            wait_for("the first key", lambda: "connect" in answer(first, "k1"))
            second = published("k2")
            refused = answer(second, "k2")["error"]
            assert (refused["code"], refused["temporary"]) == (100, True)
            assert "connect" in answer(first, "k1"), "others connect meanwhile"
            wait_for("the second key", lambda: "connect" in answer(second, "k2"))
            shown = jwt.encode({"sub": "ann"}, second, "EdDSA", {"kid": "k2"})
            environment = {"CHAT_NODE_NODE__DATA_DIR": str(node.data_dir)}
            told = CliRunner().invoke(app, ["token", "inspect", shown], env=environment)
            assert "Accepted: ann may connect" in told.output
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_broken_file_keeps_a_node_from_starting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sites.json").write_text("{")
    with pytest.raises(RuntimeError, match=r"sites\.json"), NodeProcess(tmp_path):
        raise AssertionError("it must not start")


def test_what_is_revoked_ends_at_once_and_does_not_come_back(tmp_path: Path) -> None:
    add_sites(tmp_path / "data")
    with NodeProcess(tmp_path) as node, client(node) as ann, client(node) as tab, client(node) as bob:
        stolen = token("a", "ann", jti="stolen")
        joined(ann, stolen)
        joined(tab, token("a", "ann", jti="mine"))
        joined(bob, token("a", "bob"))
        now = time.time()
        revocations.revoke(node.data_dir, "a", token_id="stolen", before=0, until=None, now=now, most=9)
        assert ann.closed() == (3500, "invalid token: it was revoked")
        assert tab.ask("ping")["ping"] == {}

        with client(node) as again:
            again._socket.send(json.dumps({"id": 1, "connect": {"token": stolen}}))
            assert again.closed() == (3500, "invalid token: it was revoked")
        tab._socket.send(json.dumps({"id": 99, "refresh": {"token": stolen}}))
        assert tab.closed() == (3500, "invalid token: it was revoked")

        revocations.revoke(node.data_dir, "a", user="bob", before=now, until=None, now=now, most=9)
        assert bob.closed()[0] == 3500
        with client(node) as fresh:
            joined(fresh, token("a", "bob", iat=int(now) + 2))
        node.restart()
        with client(node) as again:
            again._socket.send(json.dumps({"id": 1, "connect": {"token": stolen}}))
            assert again.closed()[0] == 3500
        assert wait_for("the count", lambda: node.metrics().get('chat_node_tokens_refused_total{reason="revoked"}'))


def site(node: NodeProcess, *arguments: str) -> str:
    """What a command of `chat-node` prints, run while the node runs."""
    environment = {"CHAT_NODE_NODE__DATA_DIR": str(node.data_dir), "CHAT_NODE_AUTH__SECRET": SECRET}
    done = CliRunner().invoke(app, list(arguments), env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def accepts(node: NodeProcess, shown: str) -> bool:
    with client(node) as who:
        who._socket.send(json.dumps({"id": 1, "connect": {"token": shown}}))
        try:
            return "connect" in json.loads(str(who._socket.recv(timeout=20)))
        except ConnectionClosed:
            return False


def test_the_commands_take_effect_without_a_restart(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        site(node, "site", "add", "shop")
        shown = site(node, "token", "create", "--site", "shop", "--user", "ann")
        wait_for("the site", lambda: accepts(node, shown))
        site(node, "site", "rotate-key", "shop", "--grace", "0")
        fresh = site(node, "token", "create", "--site", "shop", "--user", "ann")
        wait_for("the new key", lambda: accepts(node, fresh))
        assert not accepts(node, shown)
        with client(node) as ann, client(node) as bob:
            joined(ann, fresh)
            joined(bob, default_token("bob"))
            site(node, "site", "remove", "shop")
            assert ann.closed() == (3500, "invalid token: its site was removed")
            assert bob.ask("ping")["ping"] == {}
        assert not accepts(node, fresh)
        listed = [json.loads(line)["site"] for line in site(node, "site", "list", "--json").splitlines()]
        assert listed == ["default"]


@pytest.mark.parametrize(
    ("claims", "revoked"),
    [({"jti": "t"}, ("--jti", "t")), ({"iat": 1000}, ("--user", "ann")), ({"iat": 1000}, ("--before", "2026-01-01"))],
)
def test_a_subscription_whose_token_is_revoked_ends_at_once(
    tmp_path: Path, claims: dict[str, object], revoked: tuple[str, str]
) -> None:
    with NodeProcess(tmp_path) as node, client(node) as ann:
        later = int(time.time()) + 4  # within the leeway: issued after what is revoked now
        assert "connect" in ann.ask("connect", token=default_token("ann", iat=later))
        shown = default_token("ann", channel="$c", **claims)
        assert "subscribe" in ann.ask("subscribe", channel="$c", token=shown)
        site(node, "token", "revoke", *revoked)
        push = ann.pushed("unsubscribe")
        assert (push["channel"], push["unsubscribe"]["code"]) == ("$c", 2000)
        assert "revoked" in push["unsubscribe"]["reason"]
        refused = ann.ask("subscribe", channel="$c", token=shown)["error"]
        assert (refused["code"], "revoked" in refused["message"]) == (103, True)

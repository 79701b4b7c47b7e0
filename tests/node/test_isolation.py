"""Two sites on one node, with the same rooms and the same users: whatever is done in one, the other sees nothing of it.

Every command, rpc, push and method of the server API is taken from the code's own tables and tried: who adds one, adds
its case here. What is done in `red` says "crimson"; `blue` must be pushed nothing, and read the same as before.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge_config.schema import Auth
from node.api_table import BATCH, METHODS
from node.auth import make_token
from node.handlers import HANDLERS, RPCS
from node.protocol import JsonCodec
from node.site_file import ApiKeyEntry, KeyEntry, SiteEntry, change
from node.sites import digest_of
from tests.harness.api import post
from tests.harness.chat_socket import ChatSocket
from tests.harness.node_process import NodeProcess, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

pytestmark = pytest.mark.slow
NAMES: Final = ("red", "blue")
WORD: Final = "crimson"  # only what is done in red says so
USERS: Final = ("ann", "bob")  # of each site; ann is an owner and acts, bob is acted on
NUMBERS: Final = count(1)

COMMANDS: Final[Mapping[str, dict[str, Any]]] = {
    "connect": {},
    "subscribe": {"channel": "ROOM-2"},
    "unsubscribe": {"channel": "ROOM"},
    "publish": {"channel": "ROOM", "data": {"id": "p1", "content": WORD}},
    "presence": {"channel": "ROOM"},
    "presence_stats": {"channel": "ROOM"},
    "history": {"channel": "ROOM", "limit": 10},
    "ping": {},
    "send": {"data": WORD},
    "rpc": {"method": "send", "data": {"channel": "ROOM", "id": "p2", "content": WORD}},
    "refresh": {"token": "TOKEN"},
    "sub_refresh": {"channel": "ROOM", "token": "SUBSCRIPTION"},
}
RPC_DATA: Final[Mapping[str, dict[str, Any]]] = {
    "send": {"content": WORD},
    "reply": {"content": WORD, "replyTo": 1},
    "edit": {"target": 1, "content": WORD},
    "delete": {"target": 2, "reason": WORD},
    "restore": {"target": 3},
    "react": {"target": 1, "emoji": f":{WORD}:"},
    "unreact": {"target": 1, "emoji": f":{WORD}:"},
    "pin": {"target": 1},
    "unpin": {"target": 1},
    "mute": {"user": "bob"},
    "unmute": {"user": "bob"},
    "ban": {"user": "bob"},
    "unban": {"user": "bob"},
    "kick": {"user": "bob"},
    "slow": {"seconds": 9},
    "lock": {},
    "unlock": {},
    "grant": {"user": "bob", "role": "owner"},
    "clear": {"user": "bob", "reason": WORD},
    "report": {"target": 2, "reason": WORD},
    "rename": {"title": WORD},
    "room": {},
    "typing": {"typing": True},
    "read": {"sequence": 2},
    "unread": {},
}
WITHOUT_ID: Final = frozenset({"room", "typing", "read", "unread"})
REQUESTS: Final[Mapping[str, dict[str, Any]]] = {
    "publish": {"channel": "ROOM", "data": {"content": WORD}, "user": "ann"},
    "broadcast": {"channels": ["ROOM", "ROOM-2"], "data": {"content": WORD}},
    "history": {"channel": "ROOM", "limit": 10},
    "presence": {"channel": "ROOM"},
    "presence_stats": {"channel": "ROOM"},
    "channels": {"pattern": "ROOM*"},
    "rooms": {"pattern": "ROOM*"},
    "room_info": {"channel": "ROOM"},
    "members": {"channel": "ROOM"},
    "users": {},
    "user_info": {"user": "bob"},
    "info": {},
    "subscribe": {"user": "ann", "channel": "ROOM-2", "info": WORD, "data": WORD},
    "unsubscribe": {"user": "bob", "channel": "ROOM"},
    "disconnect": {"user": "bob", "disconnect": {"code": 4000, "reason": WORD}},
    "refresh": {"user": "bob", "expire_at": 4_000_000_000},
    "history_remove": {"channel": "ROOM"},
    "mute": {"channel": "ROOM", "user": "bob", "by": WORD},
    "unmute": {"channel": "ROOM", "user": "bob", "by": WORD},
    "ban": {"channel": "ROOM", "user": "bob", "by": WORD},
    "unban": {"channel": "ROOM", "user": "bob", "by": WORD},
    "kick": {"channel": "ROOM", "user": "bob", "by": WORD},
    "slow": {"channel": "ROOM", "seconds": 9, "by": WORD},
    "lock": {"channel": "ROOM", "by": WORD},
    "unlock": {"channel": "ROOM", "by": WORD},
    "grant": {"channel": "ROOM", "user": "bob", "role": "owner", "by": WORD},
    "delete_message": {"channel": "ROOM", "target": 2, "reason": WORD},
    "restore_message": {"channel": "ROOM", "target": 3, "by": WORD},
    "edit_message": {"channel": "ROOM", "target": 1, "content": WORD, "by": "ann"},
    "pin_message": {"channel": "ROOM", "target": 1, "by": WORD},
    "unpin_message": {"channel": "ROOM", "target": 1, "by": WORD},
    "clear_user": {"channel": "ROOM", "user": "bob", "reason": WORD},
    "rename": {"channel": "ROOM", "title": WORD, "by": WORD},
    "unread": {"channel": "ROOM", "user": "bob"},
}
READING: Final = sorted(name for name, method in METHODS.items() if method.scope == "read")
LOOKING: Final = frozenset(
    {
        *(("method", name) for name in READING),
        *(("command", name) for name in ("presence", "presence_stats", "history", "ping", "send")),
        *(("command", name) for name in ("refresh", "sub_refresh")),
        *(("rpc", name) for name in ("room", "read", "unread")),
    }
)
"""What changes nothing that others see; of all else, red itself must see something, or the case says nothing."""
PUSHES: Final[Mapping[str, tuple[str, str]]] = {
    "publication": ("command", "publish"),
    "join": ("command", "subscribe"),
    "leave": ("command", "unsubscribe"),
    "subscribe": ("method", "subscribe"),
    "refresh": ("method", "refresh"),
    "unsubscribe": ("method", "unsubscribe"),
    "message": ("rpc", "mute"),
    "disconnect": ("method", "disconnect"),
}
"""A push of each kind, and what causes it."""
FIELDS: Final[Mapping[str, str]] = {"publication": "pub"}


class Site:
    """A site's two users and its back end.

    Attributes:
        name: Its name.
        room: A room that both are in; in `ROOM-2` is bob alone.
        sockets: By user.
    """

    def __init__(self, node: NodeProcess, name: str, room: str, life: ExitStack) -> None:
        self.node, self.name, self.room, self._life = node, name, room, life
        self.sockets = {user: self.connected(user) for user in USERS}
        for user, channel in (("ann", room), ("bob", room), ("bob", f"{room}-2")):
            answer = self.sockets[user].ask("subscribe", {"channel": channel, "token": self.token(user, channel)})
            assert "subscribe" in answer, answer
        for user in USERS:
            assert "publish" in self.sockets[user].publish(room, f"m-{user}")
        assert "rpc" in self.rpc("delete", {"channel": room, "id": "d1", "target": self.message("bob", "rude")})
        self.pushed()

    def connected(self, user: str) -> ChatSocket:
        socket = ChatSocket(self._life.enter_context(connect(self.node.url, proxy=None, close_timeout=1)))
        assert "connect" in socket.ask("connect", {"token": self.token(user)})
        return socket

    def token(self, user: str, channel: str = "") -> str:
        claims: dict[str, Any] = {"channel": channel} if channel else {"role": "owner" if user == "ann" else ""}
        claims |= {"sub": user, "exp": int(time.time()) + 600}
        return make_token(secret(self.name), claims, "HS256", f"key-{self.name}")

    def message(self, user: str, content: str) -> int:
        """The sequence of a new message."""
        answer = self.rpc("send", {"channel": self.room, "id": content, "content": content}, user)
        return int(answer["rpc"]["data"]["sequence"])

    def rpc(self, method: str, data: object, user: str = "ann") -> dict[str, Any]:
        return self.sockets[user].ask("rpc", {"method": method, "data": data})

    def placed(self, body: Any) -> Any:  # noqa: ANN401 - any JSON
        """A case's JSON with this test's room, and this site's tokens."""
        text = json.dumps(body).replace("ROOM", self.room).replace('"TOKEN"', json.dumps(self.token("ann")))
        return json.loads(text.replace('"SUBSCRIPTION"', json.dumps(self.token("ann", self.room))))

    def ask(self, method: str, body: object) -> Any:  # noqa: ANN401 - any JSON
        """The whole answer of the server API."""
        return post(self.node.internal, method, body, key=api_key(self.name)).body

    def pushed(self) -> list[dict[str, Any]]:
        """What its users were pushed since the last time; a connection that the node has closed is one, too."""
        pushes = []
        for user, socket in list(self.sockets.items()):
            try:
                socket.ask("ping", {})
            except ConnectionClosed as end:
                pushes.append({"disconnect": str(end)})
                del self.sockets[user]
            pushes += socket.take()
        return pushes

    def seen(self) -> dict[str, Any]:
        """All that its back end can read of the room, the users and the node."""
        found = {}
        for method in READING:
            found[method] = self.ask(method, self.placed(REQUESTS[method]))
            assert "result" in found[method], found[method]
        for node in found["info"]["result"]["nodes"]:
            del node["uptime"]
        return found


def secret(site: str) -> str:
    return f"the secret of {site}, long enough for HS256"


def api_key(site: str) -> str:
    return f"the-api-key-of-{site}-0123456789abcdef"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    kinds = {"SCHEMA": "chat", "PRESENCE": "roster", "JOIN_LEAVE": "push"}
    settings = {f"KINDS__DEFAULT__{name}": value for name, value in kinds.items()}
    node = NodeProcess(tmp_path_factory.mktemp("isolation"), settings={**settings, "API__SITE_REQUESTS": 0})
    with change(node.data_dir, Auth()) as content:
        content.sites = [
            SiteEntry(
                name,
                [KeyEntry("HS256", f"key-{name}", secret(name))],
                api_keys=[ApiKeyEntry("api", digest_of(api_key(name)), ["admin"])],
            )
            for name in NAMES
        ]
    with node:
        yield node


@pytest.fixture
def sites(node: NodeProcess) -> Iterator[tuple[Site, Site]]:
    """Two sites that look the same."""
    with ExitStack() as life:
        room = f"room{next(NUMBERS)}"
        red, blue = (Site(node, name, room, life) for name in NAMES)
        yield red, blue


def command(site: Site, name: str) -> None:
    body = site.placed(COMMANDS[name])
    ann = site.sockets["ann"]
    if name == "connect":
        site.sockets["tab"] = site.connected("ann")
    elif name == "send":  # which has no answer
        ann.connection.send(json.dumps({"send": body}))
    else:
        assert name in (answer := ann.ask(name, body)), answer


def rpc(site: Site, name: str) -> None:
    data = {"channel": site.room, **RPC_DATA[name], **({} if name in WITHOUT_ID else {"id": f"id-{name}"})}
    assert "rpc" in (answer := site.rpc(name, data)), answer


def method(site: Site, name: str) -> None:
    answer = site.ask(name, site.placed(REQUESTS[name]))
    assert "result" in answer, answer


def batch(site: Site, _: str) -> None:
    commands = [{name: site.placed(REQUESTS[name])} for name in METHODS if name in REQUESTS]
    replies = site.ask(BATCH, {"commands": commands})["replies"]
    assert len(replies) == len(commands)


ACTS: Final[Mapping[str, Callable[[Site, str], None]]] = {
    "command": command,
    "rpc": rpc,
    "method": method,
    "batch": batch,
}
CASES: Final = (
    *(("command", name) for name in HANDLERS),
    *(("rpc", name) for name in RPCS),
    *(("method", name) for name in METHODS),
    ("batch", BATCH),
)


def test_every_command_rpc_method_and_push_has_a_case() -> None:
    assert set(HANDLERS) <= set(COMMANDS)
    assert set(RPCS) <= set(RPC_DATA)
    assert set(METHODS) <= set(REQUESTS)
    assert {name for name in dir(JsonCodec) if name.startswith("push_")} == {f"push_{name}" for name in PUSHES}


@pytest.mark.parametrize(("sort", "name"), CASES, ids=str)
def test_what_is_done_in_one_site_is_not_seen_in_the_other(sites: tuple[Site, Site], sort: str, name: str) -> None:
    red, blue = sites
    before = {site: site.seen() for site in sites}
    assert WORD not in json.dumps(before[blue])
    ACTS[sort](red, name)
    pushed = red.pushed()
    assert blue.pushed() == []
    assert set(blue.sockets) == set(USERS)
    assert blue.seen() == before[blue]
    if (sort, name) not in LOOKING:
        assert pushed or red.seen() != before[red], "the case does nothing, so it shows nothing"


@pytest.mark.parametrize("push", PUSHES)
def test_a_push_of_every_kind_stays_in_its_site(sites: tuple[Site, Site], push: str) -> None:
    red, blue = sites
    sort, name = PUSHES[push]
    ACTS[sort](red, name)
    assert any(FIELDS.get(push, push) in pushed for pushed in red.pushed())
    assert blue.pushed() == []


def test_the_same_ids_are_others_in_each_site(sites: tuple[Site, Site]) -> None:
    """Of messages, and of what the server API repeats: who retries in one site does not get the other's answer."""
    red, blue = sites
    first = red.ask("publish", {"channel": red.room, "data": {"content": WORD}, "idempotency_key": "k1"})
    assert first["result"]["offset"] == red.seen()["room_info"]["result"]["offset"]
    blue.sockets["bob"].publish(blue.room, "one more")
    second = blue.ask("publish", {"channel": blue.room, "data": {"content": "azure"}, "idempotency_key": "k1"})
    assert second["result"]["offset"] == first["result"]["offset"] + 1


def test_figures_name_sites_and_nothing_of_theirs(node: NodeProcess, sites: tuple[Site, Site]) -> None:
    red, _ = sites
    for site in sites:
        method(site, "users")
    metrics = fetch(f"{node.internal}/metrics")[1].decode()
    values = [
        (label, value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        for label, value in sample.labels.items()
    ]
    assert {value for label, value in values if label == "site"} >= set(NAMES)
    here = [site.ask("user_info", {"user": "ann"})["result"]["connections"] for site in sites]
    clients = [connection["client"] for connections in here for connection in connections]
    told = [json.dumps([value for label, value in values if label != "site"]), node.verdict()[1]]
    told += [fetch(f"{node.internal}{path}")[1].decode() for path in ("/status", "/health/ready", "/health/live")]
    names = re.compile(rf"\b({'|'.join([red.room, *USERS, WORD, *NAMES, *clients])})\b")
    assert [found[0] for text in told if (found := names.search(text))] == []

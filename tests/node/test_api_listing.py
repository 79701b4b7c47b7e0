"""Lists of what is on a node: pages without a hole, in slices, while others come and go."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.schema import Auth, Config
from node import api_calls as calls
from node import api_listing
from node.api_listing import SLICE
from node.session_options import SessionOptions
from node.tenant import Tenant
from tests.harness.api import KEY, post
from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node.codes import CommandError

SITE: Final = "s"
names = st.text("ab\u00e4*", min_size=1, max_size=4)


def connection(user: str, client: str, rooms: int = 1) -> Any:  # noqa: ANN401 - a fake
    identity = SimpleNamespace(role="", guest=False)
    subscriptions = {f"r{number}": object() for number in range(rooms)}
    return SimpleNamespace(site=SITE, user=user, client=client, identity=identity, subscriptions=subscriptions)


def room(channel: str, **users: int) -> Any:  # noqa: ANN401 - a fake
    kind = SimpleNamespace(name="default")
    return SimpleNamespace(
        id=SimpleNamespace(channel=channel), kind=kind, offset=7, epoch="e", members=sum(users.values()) or 1,
        users=users,
    )  # fmt: skip


class Node:
    """A node's methods, on a site that a test fills."""

    def __init__(self) -> None:
        self.there: Tenant[Any] = Tenant()
        self.gateway = SimpleNamespace(tenant=lambda _: self.there, node="n1", version="1")
        self.options = SessionOptions(Config(auth=Auth(insecure=True)))
        self.world = SimpleNamespace(monotonic=lambda: 5.0)
        self.started = 0.0

    def begin(self, method: Callable[..., Iterator[None]], request: object) -> tuple[Iterator[None], list[Any]]:
        """An operation, and where its answer will be."""
        answers: list[bytes | CommandError] = []
        return method(self, SITE, request, answers.append), answers

    def ask(self, method: Callable[..., Iterator[None]], request: object) -> Any:  # noqa: ANN401 - any JSON
        steps, answers = self.begin(method, request)
        for _ in steps:
            pass
        (answer,) = answers
        return json.loads(answer)


def pages(node: Node, limit: int, pattern: str = "") -> Iterator[list[str]]:
    cursor = ""
    while True:
        page = node.ask(api_listing.users, calls.UsersRequest(limit=limit, cursor=cursor, pattern=pattern))
        yield [user["user"] for user in page["users"]]
        cursor = page["cursor"]
        if not cursor:
            return


@given(st.sets(names, max_size=30), st.integers(1, 12))
def test_pages_have_everything_once_and_in_order(there: set[str], limit: int) -> None:
    node = Node()
    for user in there:
        node.there.connect(connection(user, "c"))
    found = list(pages(node, limit))
    assert [user for page in found for user in page] == sorted(there)
    assert all(len(page) == limit for page in found[:-1])


@given(st.sets(st.integers(0, 10_000), min_size=3 * SLICE, max_size=6 * SLICE), st.integers(1, SLICE))
def test_the_first_page_of_many_is_the_first(there: set[int], limit: int) -> None:
    node = Node()
    for user in there:
        node.there.connect(connection(str(user), "c"))
    assert next(pages(node, limit)) == sorted(map(str, there))[:limit]


@given(st.data())
def test_who_stays_is_given_once_though_others_come_and_go(data: st.DataObject) -> None:
    node, stay = Node(), data.draw(st.sets(names, max_size=8))
    others = data.draw(st.sets(names, max_size=8)) - stay
    for user in stay:
        node.there.connect(connection(user, "c"))
    found: list[str] = []
    for page in pages(node, data.draw(st.integers(1, 3))):
        found += page
        for user in others:
            if not node.there.disconnect(connection(user, "c")):
                node.there.connect(connection(user, "c"))
    assert len(found) == len(set(found))
    assert found == sorted(found)
    assert stay <= set(found) <= stay | others


def test_what_goes_between_two_slices_is_left_out() -> None:
    node = Node()
    for number in range(3 * SLICE):
        node.there.enter(room(f"{number:04}"))
    steps, answers = node.begin(api_listing.channels, calls.ChannelsRequest())
    next(steps)
    node.there.rooms.clear()
    for _ in steps:
        pass
    assert len(json.loads(answers[0])["channels"]) == SLICE


def test_a_slice_looks_at_few_names() -> None:
    node = Node()
    for number in range(10 * SLICE):
        node.there.connect(connection(f"{number:04}", "c"))
        node.there.enter(room(f"{number:04}"))
    for method, request in (
        (api_listing.channels, calls.ChannelsRequest()),
        (api_listing.rooms, calls.RoomsRequest(limit=1)),
        (api_listing.users, calls.UsersRequest(limit=1)),
    ):
        steps, _ = node.begin(method, request)
        assert sum(1 for _ in steps) >= 10


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a", "b1", "b2", "c*"]),
        ("b*", ["b1", "b2"]),
        ("?", ["a"]),
        ("b[2-9]", ["b2"]),
        ("c[*]", ["c*"]),
        ("B*", []),
        ("[", []),
        ("*" * 255, ["a", "b1", "b2", "c*"]),
    ],
)
def test_a_pattern_chooses(pattern: str, found: list[str]) -> None:
    node = Node()
    for name in ("b2", "a", "c*", "b1"):
        node.there.enter(room(name))
        node.there.connect(connection(name, "c"))
    listed = node.ask(api_listing.rooms, calls.RoomsRequest(pattern=pattern))
    assert [one["channel"] for one in listed["rooms"]] == found
    assert list(pages(node, 10, pattern)) == [found]
    assert sorted(node.ask(api_listing.channels, calls.ChannelsRequest(pattern=pattern))["channels"]) == found


def test_members_are_paged() -> None:
    node = Node()
    node.there.enter(room("r", ann=2, bob=1))
    kinds = Config(auth=Auth(insecure=True)).kinds
    node.options = SessionOptions(Config(auth=Auth(insecure=True), kinds=kinds))
    first = node.ask(api_listing._members, calls.MembersRequest(channel="r", limit=1))
    assert first == {"members": {"ann": 2}, "cursor": "ann"}
    rest = node.ask(api_listing._members, calls.MembersRequest(channel="r", limit=1, cursor="ann"))
    assert rest == {"members": {"bob": 1}, "cursor": ""}
    assert node.ask(api_listing._members, calls.MembersRequest(channel="other")) == {"members": {}, "cursor": ""}


def test_figures_are_kept_as_clients_come_and_go() -> None:
    there: Tenant[Any] = Tenant()
    ann, tab, bob = connection("ann", "1"), connection("ann", "2"), connection("bob", "3")
    for one in (ann, tab, bob):
        there.connect(one)
    assert (there.connections, len(there.users)) == (3, 2)
    assert there.disconnect(tab)
    assert not there.disconnect(tab)
    assert there.disconnect(bob)
    assert (there.connections, list(there.users)) == (1, ["ann"])
    full = room("r", ann=2)
    there.enter(full)
    there.enter(full)
    full.members = 1
    there.leave(full)
    assert (there.subscriptions, list(there.rooms)) == (1, ["r"])
    full.members = 0
    there.leave(full)
    there.disconnect(ann)
    assert there.vacant


def test_moderators_are_known_as_their_tokens_change() -> None:
    there: Tenant[Any] = Tenant()
    ann = connection("ann", "1")
    there.connect(ann)
    assert there.moderators == {}
    ann.identity.role = "moderator"
    there.reconsider(ann)
    assert list(there.moderators) == ["1"]
    ann.identity.role = "member"
    there.reconsider(ann)
    assert there.moderators == {}
    ann.identity.role = "owner"
    there.reconsider(ann)
    there.disconnect(ann)
    assert there.moderators == {}


def test_a_real_node_lists_users_and_what_each_is_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    with NodeProcess(tmp_path_factory.mktemp("users"), settings={"API__KEYS": KEY}) as node:
        with (
            connected(node.url, "ann", role="moderator") as first,
            connected(node.url, "ann") as second,
            connected(node.url, "bob") as bob,
        ):
            for socket, rooms in ((first, "ab"), (second, "a"), (bob, "")):
                for name in rooms:
                    assert "subscribe" in socket.ask("subscribe", {"channel": name})
            listed = post(node.internal, "users", {}).body["result"]
            page = post(node.internal, "users", {"limit": 1}).body["result"]
            rest = post(node.internal, "users", {"cursor": page["cursor"]}).body["result"]
            ann = post(node.internal, "user_info", {"user": "ann"}).body["result"]
            members = post(node.internal, "members", {"channel": "a", "limit": 1}).body["result"]
            info = post(node.internal, "info", {}).body["result"]["nodes"][0]
        assert listed == {
            "users": [
                {"user": "ann", "num_clients": 2, "num_subs": 3},
                {"user": "bob", "num_clients": 1, "num_subs": 0},
            ],
            "cursor": "",
        }
        assert ([user["user"] for user in page["users"]], page["cursor"]) == (["ann"], "ann")
        assert [user["user"] for user in rest["users"]] == ["bob"]
        connections = [(of["role"], of["guest"], of["channels"]) for of in ann["connections"]]
        assert sorted(connections) == [("", False, ["a"]), ("moderator", False, ["a", "b"])]
        assert members == {"members": {"ann": 2}, "cursor": ""}
        assert (info["num_clients"], info["num_users"], info["num_subs"], info["num_channels"]) == (3, 2, 3, 2)
        assert post(node.internal, "user_info", {"user": "zoe"}).body["result"]["connections"] == []

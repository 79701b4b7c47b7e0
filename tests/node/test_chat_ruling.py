"""What moderators lay down: who may, whom it stops, who is told, and that a restart keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.kinds import RoomKind, Schema, Who
from edge_config.limits import Limits, Rates
from edge_config.schema import Auth, Config
from node.chat_rules import RULINGS, Rules
from node.chat_ruling import parse
from node.codes import CommandError
from node.handlers import RPCS
from node.ratelimit import Throttle
from router.entry import SALT_BYTES, Kind, make
from router.ids import RoomId
from router.room_values import change
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.client import Client, World
from tests.harness.node_process import NodeProcess

if TYPE_CHECKING:
    from pathlib import Path

ANY: Final = RoomKind(name="any", schema=Schema.ANY, publish=Who.ANYONE)
RATES: Final = Rates(connection_commands=0.0, connection_publishes=0.0, connection_reads=0.0)
SECOND_MS: Final = 1000
GIVEN: Final[dict[str, dict[str, object]]] = {
    "mute": {"user": "u1", "seconds": 60},
    "unmute": {"user": "u1"},
    "ban": {"user": "u1", "seconds": 60},
    "unban": {"user": "u1"},
    "kick": {"user": "u1"},
    "slow": {"seconds": 5},
    "lock": {},
    "unlock": {},
    "rename": {"title": "Help desk"},
    "grant": {"user": "u1", "role": "moderator"},
}


def world(**kind: Any) -> World:  # noqa: ANN401 - options of a kind
    return World(Config(auth=Auth(insecure=True), rates=RATES, kinds={"default": RoomKind(**kind), "any": ANY}))


def member(world: World, user: str, role: str = "") -> Client:
    """A client in the room."""
    client = world.connected(user, role=role)
    assert client.code("subscribe", {"channel": "r"}) is None
    return client


def rpc(client: Client, method: str, **data: object) -> Any:  # noqa: ANN401 - JSON
    """The data of an rpc's answer, or the code of its error."""
    body = {"channel": "r", "id": f"{method}-{len(client.transport.sent)}", **GIVEN.get(method, {}), **data}
    answer = client.ask("rpc", {"method": method, "data": body})
    return answer["error"]["code"] if "error" in answer else answer["data"]


def says(client: Client, content: str = "Hello") -> int | None:
    """The code of the error that a message gets; None: it is taken."""
    return client.code(
        "publish", {"channel": "r", "data": {"id": f"m{len(client.transport.sent)}", "content": content}}
    )


def notices(client: Client) -> list[dict[str, Any]]:
    return [push["message"]["data"] for push in client.pushes("message")]


@pytest.mark.parametrize("method", RULINGS)
def test_a_retry_gets_the_first_result_though_the_moderator_is_none_any_more(method: str) -> None:
    node = world()
    owner, second = member(node, "u2", "owner"), member(node, "u3")
    rpc(owner, "grant", user="u3", role="owner")
    first = rpc(second, method, id="x")
    rpc(owner, "grant", user="u3", role="member")
    assert rpc(second, method, id="x") == first == {}
    assert rpc(second, method, id="y") == 103


def test_a_full_room_takes_retries_and_other_terms_for_those_whom_it_knows() -> None:
    kinds = {"default": RoomKind()}
    node = World(Config(auth=Auth(insecure=True), rates=RATES, kinds=kinds, limits=Limits(room_rules=2)))
    moderator = member(node, "u2", "moderator")
    for user in ("a", "b"):
        assert rpc(moderator, "mute", id=f"m-{user}", user=user, seconds=60) == {}
    assert rpc(moderator, "mute", id="m-b", user="b", seconds=60) == {}
    assert rpc(moderator, "mute", id="m-b2", user="b", seconds=3600) == {}
    assert rpc(moderator, "mute", id="m-c", user="c", seconds=60) == 106
    assert rpc(moderator, "ban", id="b-b", user="b", seconds=60) == 106
    assert rpc(moderator, "kick", id="k-c", user="c") == {}
    assert rpc(moderator, "unmute", id="u-a", user="a") == {}
    assert rpc(moderator, "mute", id="m-c", user="c", seconds=60) == {}


@pytest.mark.parametrize("method", RULINGS)
@pytest.mark.parametrize(("role", "may"), [("", False), ("admin", False), ("moderator", True), ("owner", True)])
def test_who_may(method: str, role: str, may: bool) -> None:
    node = world()
    member(node, "u1")
    answer = rpc(member(node, "u2", role), method)
    assert answer == ({} if may and (role == "owner" or method != "grant") else 103)


@pytest.mark.parametrize(
    ("method", "given", "complaint"),
    [
        ("mute", {"user": ""}, "user is missing"),
        ("mute", {"seconds": -1}, "seconds is -1; give 1 to"),
        ("mute", {"seconds": 367 * 86_400}, "seconds is"),
        ("mute", {"seconds": "1"}, "Expected `int`"),
        ("mute", {"id": ""}, "id is empty"),
        ("mute", {"id": "x" * 65}, "id is 65 bytes long"),
        ("mute", {"user": "x" * 256}, "user is 256 bytes long"),
        ("mute", {"role": "owner"}, "role is no field of it; give channel, id, user, seconds"),
        ("slow", {"user": "u1"}, "user is no field of it; give channel, id, seconds"),
        ("lock", {"seconds": 3}, "seconds is no field of it; give channel, id"),
        ("grant", {"role": "king"}, "role is 'king'; give one of member, moderator, owner"),
        ("rename", {"title": "x" * 256}, "title is 256 bytes long"),
        ("rename", {"title": "two\nlines"}, "title has control characters"),
        ("lock", {"title": "x"}, "title is no field of it"),
        ("kick", {"why": "x"}, "why is no field of it"),
    ],
)
def test_what_is_wrong_is_said(method: str, given: dict[str, object], complaint: str) -> None:
    data = json.dumps({"channel": "r", "id": "1", **GIVEN[method], **given}).encode()
    with pytest.raises(CommandError, match=complaint):
        parse(RULINGS[method], data, Limits())


@pytest.mark.parametrize("method", [*RULINGS, "typing"])
def test_a_room_of_another_schema_has_none_of_it(method: str) -> None:
    client = world().connected("u2", role="owner")
    client.ask("subscribe", {"channel": "any:r"})
    data = (
        {"channel": "any:r", "typing": True} if method == "typing" else {"channel": "any:r", "id": "1", **GIVEN[method]}
    )
    assert client.code("rpc", {"method": method, "data": data}) == 108


def test_a_muted_user_reads_on_and_writes_again_when_the_time_is_over() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    assert says(user) is None
    assert rpc(moderator, "mute") == {}
    assert says(user) == 103
    assert rpc(user, "react", target=1, emoji="+") == 103
    assert user.code("rpc", {"method": "typing", "data": {"channel": "r", "typing": True}}) == 103
    assert user.code("history", {"channel": "r", "limit": 10}) is None
    assert says(moderator) is None
    assert len(user.pushes("pub")) == 2
    (notice,) = notices(user)
    assert (notice["type"], notice["event"], notice["by"], notice["channel"]) == ("notice", "muted", "u2", "r")
    assert notice["until"].endswith("Z")
    assert notices(moderator) == []
    node.gateway.passed_ms = 61 * SECOND_MS
    assert says(user) is None


def test_what_has_no_end_holds_until_it_is_undone() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "mute", seconds=0)
    node.gateway.passed_ms = 10_000 * 86_400 * SECOND_MS
    assert says(user) == 103
    assert "until" not in notices(user)[0]
    rpc(moderator, "unmute")
    assert says(user) is None
    assert [notice["event"] for notice in notices(user)] == ["muted", "unmuted"]


def test_a_banned_user_is_out_at_once_and_stays_out() -> None:
    node = world(publish=Who.ANYONE, read_history=Who.ANYONE, read_presence=Who.ANYONE)
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "ban")
    (push,) = user.pushes("unsubscribe")
    assert (push["channel"], push["unsubscribe"]) == ("r", {"code": 2000, "reason": "banned"})
    says(moderator)
    assert user.pushes("pub") == []
    assert user.code("subscribe", {"channel": "r"}) == 103
    assert says(user) == 103
    for command in ("history", "presence_stats"):
        assert user.code(command, {"channel": "r", "limit": 1}) == 103
    assert user.code("subscribe", {"channel": "other"}) is None
    again = node.connected("u1", channels=["r", "third"])
    assert again.end() is None
    assert "r" not in again.session.subscriptions
    assert "third" in again.session.subscriptions
    rpc(moderator, "unban")
    assert user.code("subscribe", {"channel": "r"}) is None


RPC_DATA: Final[dict[str, dict[str, object]]] = {
    **GIVEN,
    "send": {"content": "x"},
    "reply": {"content": "x", "replyTo": 1},
    "edit": {"target": 1, "content": "x"},
    "delete": {"target": 1},
    "restore": {"target": 1},
    "react": {"target": 1, "emoji": "+"},
    "unreact": {"target": 1, "emoji": "+"},
    "pin": {"target": 1},
    "unpin": {"target": 1},
    "clear": {"user": "u2"},
    "report": {"target": 1},
    "room": {},
    "typing": {"typing": True},
    "read": {"sequence": 1},
    "unread": {},
}
WITHOUT_ID: Final = {"room", "typing", "read", "unread"}


@pytest.mark.parametrize("method", RPCS)
def test_who_is_banned_may_do_nothing_in_the_room_whatever_its_role(method: str) -> None:
    node = world(publish=Who.ANYONE, read_history=Who.ANYONE)
    user, owner = member(node, "u1", "moderator"), member(node, "u2", "owner")
    says(user)
    rpc(owner, "ban", seconds=0)
    data = {"channel": "r", **({} if method in WITHOUT_ID else {"id": "1"}), **RPC_DATA[method]}
    assert user.code("rpc", {"method": method, "data": data}) == 103
    rpc(owner, "unban")
    user.ask("subscribe", {"channel": "r"})
    assert user.code("rpc", {"method": method, "data": data}) != 103 or method == "grant"


@pytest.mark.parametrize("method", sorted(set(RPCS) - {"typing", "report"}))  # those two are about being in it
def test_who_is_banned_is_told_so_though_the_room_is_for_subscribers(method: str) -> None:
    node = world(publish=Who.SUBSCRIBER, read_history=Who.SUBSCRIBER)
    user, owner = member(node, "u1"), member(node, "u2", "owner")
    says(user)
    rpc(owner, "ban", seconds=0)
    data = {"channel": "r", **({} if method in WITHOUT_ID else {"id": "1"}), **RPC_DATA[method]}
    for answer in (
        user.ask("rpc", {"method": method, "data": data}),
        user.ask("history", {"channel": "r", "limit": 1}),
        user.ask("publish", {"channel": "r", "data": {"id": "x", "content": "x"}}),
    ):
        assert answer["error"] == {"code": 103, "message": "permission denied: 'u1' is banned from 'r'"}


def test_an_owner_whom_a_moderator_has_banned_undoes_it() -> None:
    node = world()
    owner, moderator = member(node, "u1", "owner"), member(node, "u2", "moderator")
    assert rpc(moderator, "ban") == {}
    assert owner.code("subscribe", {"channel": "r"}) == 103
    assert rpc(owner, "unban") == {}
    assert owner.code("subscribe", {"channel": "r"}) is None


def test_who_is_banned_while_it_comes_in_does_not_come_in() -> None:
    node = world()
    moderator = member(node, "u2", "moderator")
    says(moderator)
    user = node.connected("u1")
    node.gateway.held = {"history"}
    command = user.tell("subscribe", {"channel": "r", "recover": True, "epoch": "birth.1", "offset": 0})
    assert user.answer(command) is None
    rpc(moderator, "ban")
    node.gateway.release("history")
    assert user.answer(command)["error"]["code"] == 103


def test_a_kicked_user_may_come_again() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "kick")
    assert [push["unsubscribe"]["reason"] for push in user.pushes("unsubscribe")] == ["kicked"]
    assert user.code("subscribe", {"channel": "r"}) is None
    assert says(user) is None


def test_a_locked_room_is_for_moderators() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "lock")
    assert (says(user), says(moderator)) == (103, None)
    rpc(moderator, "unlock")
    assert says(user) is None
    for client in (user, moderator):
        assert [notice["event"] for notice in notices(client)] == ["locked", "unlocked"]


def test_slow_mode_is_for_members_and_can_change() -> None:
    node = world()
    node.gateway.throttle = Throttle(Rates(user_publishes=0.0, room_publishes=0.0))
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "slow", seconds=60)
    assert (says(user), says(user)) == (None, 111)
    assert (says(moderator), says(moderator)) == (None, None)
    rpc(moderator, "slow", seconds=5)
    assert (says(user), says(user)) == (None, 111)
    rpc(moderator, "slow", seconds=0)
    assert (says(user), says(user)) == (None, None)
    assert [notice["seconds"] for notice in notices(user)] == [60, 5, 0]


def test_a_granted_role_counts_in_its_room_and_owners_are_out_of_reach() -> None:
    node = world()
    owner, helper, moderator = member(node, "boss", "owner"), member(node, "u1"), member(node, "u2", "moderator")
    says(moderator)
    assert rpc(helper, "delete", target=1) == 103
    rpc(owner, "grant", role="moderator")
    assert rpc(helper, "pin", target=1)["type"] == "pin"
    assert notices(helper)[-1]["role"] == "moderator"
    rpc(owner, "grant", role="owner")
    assert rpc(moderator, "ban") == 103
    assert rpc(owner, "grant", role="member") == {}
    assert rpc(helper, "pin", target=1) == 103
    assert rpc(moderator, "ban") == {}


@pytest.mark.parametrize(("first", "then", "answers"), [("moderator", "", ({}, 103)), ("", "moderator", (103, {}))])
def test_the_role_of_a_new_token_counts(first: str, then: str, answers: tuple[object, object]) -> None:
    node = world()
    member(node, "u1")
    client = member(node, "u2", first)
    before = rpc(client, "mute")
    assert "error" not in client.ask("refresh", {"token": node.token("u2", role=then)})
    assert (before, rpc(client, "unmute")) == answers


def test_a_retry_of_a_ruling_is_one_ruling() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    assert rpc(moderator, "mute", id="1") == {}
    assert rpc(moderator, "mute", id="1") == {}
    assert rpc(moderator, "mute", id="1", seconds=5) == 107
    assert len(notices(user)) == 1


def test_a_room_has_the_title_that_it_was_given_last() -> None:
    node = world()
    user, moderator = member(node, "u1"), member(node, "u2", "moderator")
    rpc(moderator, "rename", title="Help desk")
    assert user.ask("rpc", {"method": "room", "data": {"channel": "r"}})["data"]["title"] == "Help desk"
    rpc(moderator, "rename", title="")
    assert user.ask("rpc", {"method": "room", "data": {"channel": "r"}})["data"]["title"] == ""
    assert [(notice["event"], notice["title"]) for notice in notices(user)] == [
        ("renamed", "Help desk"), ("renamed", ""),
    ]  # fmt: skip


def test_typing_is_told_to_members_without_an_offset() -> None:
    node = world(typing_members=2)
    ann, bob = member(node, "ann"), member(node, "bob")
    assert ann.ask("rpc", {"method": "typing", "data": {"channel": "r", "typing": True}}) == {"data": {}}
    (push,) = bob.pushes("pub")
    assert push == {"channel": "r", "pub": {"data": {"type": "typing", "userId": "ann", "typing": True}}}
    member(node, "cat")
    assert ann.ask("rpc", {"method": "typing", "data": {"channel": "r", "typing": False}}) == {"data": {}}
    assert len(bob.pushes("pub")) == 1
    assert node.connected("dan").code("rpc", {"method": "typing", "data": {"channel": "r", "typing": True}}) == 103
    assert ann.code("rpc", {"method": "typing", "data": {"channel": "r"}}) == 107


_VALUES: Final = st.dictionaries(
    st.sampled_from(["mute:a", "mute:b", "ban:a", "role:a", "role:b", "slow", "lock"]), st.integers(0, 3), max_size=4
)


@given(st.lists(_VALUES, max_size=8))
def test_rules_that_change_are_those_of_all_values(steps: list[dict[str, int]]) -> None:
    """0 takes a value away."""
    values: dict[str, bytes] = {}
    rules = None
    for ts, step in enumerate(steps):
        body = {"set": {name: _value(name, number) for name, number in step.items()}}
        entry = make(
            0, 1, 1, RoomId("s", "r"), 0, 1, Kind.META, b"", "", ts, b"s" * SALT_BYTES, json.dumps(body).encode(), b"",
            b"",
        )  # fmt: skip
        change(values, entry)
        rules = Rules.after(rules, values, entry)
        anew = Rules.of(values)
        for field in Rules.__slots__:
            assert getattr(rules, field, None) == getattr(anew, field, None)


def _value(name: str, number: int) -> object:
    if not number:
        return None
    return "moderator" if name.startswith("role") else number > 0 if name == "lock" else number - 1 or 0


def ask(socket: ChatSocket, method: str, **data: object) -> dict[str, Any]:
    return socket.ask("rpc", {"method": method, "data": {"channel": "r", **data}})


def test_a_real_node_keeps_its_rules_over_kills_and_tells_who_is_there(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with connected(node.url, "bob") as bob, connected(node.url, "mod", role="moderator") as moderator:
            for socket in (bob, moderator):
                assert "subscribe" in socket.ask("subscribe", {"channel": "r"})
            assert "rpc" in ask(moderator, "mute", id="1", user="ann")
            assert "rpc" in ask(moderator, "slow", id="2", seconds=3600)
            assert "rpc" in ask(moderator, "ban", id="3", user="bob")
            events = []
            for push in bob.pushes():
                events.append(
                    push["message"]["data"]["event"] if "message" in push else next(iter(push.keys() - {"channel"}))
                )
                if events[-1] == "unsubscribe":
                    break
            assert events == ["slowmode", "banned", "unsubscribe"]
        for life in range(2):
            node.restart()
            with (
                connected(node.url, "ann") as ann,
                connected(node.url, "bob") as bob,
                connected(node.url, "cat") as cat,
            ):
                assert "subscribe" in ann.ask("subscribe", {"channel": "r"})
                assert ann.publish("r", f"a{life}")["error"]["code"] == 103
                assert bob.ask("subscribe", {"channel": "r"})["error"]["code"] == 103
                assert "subscribe" in cat.ask("subscribe", {"channel": "r"})
                assert "publish" in cat.publish("r", f"c{life}")
                assert cat.publish("r", f"d{life}")["error"]["code"] == 111
                assert [sequence for sequence, _ in cat.history("r")] == list(range(1, life + 2))
        assert not node.is_failing()

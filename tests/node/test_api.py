"""The server API of a real node, asked by the unmodified library `cent` and by hand."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from cent import (
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    ChannelsRequest,
    Client,
    DisconnectRequest,
    HistoryRemoveRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)
from websockets.exceptions import ConnectionClosed

from tests.harness.api import KEY, READING, post
from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {
    "API__KEYS": f"{KEY}\nread:{READING}",
    "API__BODY_BYTES": 4096,
    "API__BATCH_OPERATIONS": 20,
    "LISTEN__API_ON_PUBLIC_PORT": "true",
    "KINDS__ANY__SCHEMA": "any",
    "KINDS__CHAT__SCHEMA": "chat",
    "ROOMS__DEFAULT_KIND": "any",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("api"), settings=SETTINGS) as node:
        yield node


@pytest.fixture
def cent(node: NodeProcess) -> Iterator[Client]:
    client = Client(f"{node.public}/api", KEY)
    with closing(client._session):
        yield client


@pytest.fixture
def channel() -> str:
    return f"any:{uuid4()}"


def refusal(error: pytest.ExceptionInfo[CentApiResponseError]) -> tuple[int, str]:
    return error.value.code, error.value.message


def test_a_publication_is_answered_with_its_place_and_reaches_the_room(
    node: NodeProcess, cent: Client, channel: str
) -> None:
    with connected(node.url, "u1") as user:
        subscribed = user.ask("subscribe", {"channel": channel})["subscribe"]
        result = cent.publish(PublishRequest(channel=channel, data={"text": "Grüße\n"}))
        push = next(user.pushes())
    assert (result.offset, result.epoch) == (1, subscribed["epoch"])
    assert push == {"channel": channel, "pub": {"data": {"text": "Grüße\n"}, "offset": 1}}


def test_a_retry_with_the_same_key_gives_the_first_result(cent: Client, channel: str) -> None:
    request = PublishRequest(channel=channel, data=1, idempotency_key="k1")
    first = cent.publish(request)
    cent.publish(PublishRequest(channel=channel, data=2))
    assert cent.publish(request) == first
    assert cent.history(HistoryRequest(channel=channel)).offset == 2


def test_a_key_of_another_publication_is_refused(cent: Client, channel: str) -> None:
    cent.publish(PublishRequest(channel=channel, data=1, idempotency_key="k1"))
    with pytest.raises(CentApiResponseError) as error:
        cent.publish(PublishRequest(channel=channel, data=2, idempotency_key="k1"))
    assert refusal(error)[0] == 107
    assert "idempotency_key" in refusal(error)[1]


def test_what_is_published_survives_a_crash(tmp_path_factory: pytest.TempPathFactory) -> None:
    with NodeProcess(tmp_path_factory.mktemp("crash"), settings=SETTINGS) as node:
        with closing((client := Client(f"{node.public}/api", KEY))._session):
            first = client.publish(PublishRequest(channel="x", data=1, idempotency_key="k"))
            node.restart()
        with closing((client := Client(f"{node.public}/api", KEY))._session):
            assert client.publish(PublishRequest(channel="x", data=1, idempotency_key="k")) == first
            assert [p.data for p in client.history(HistoryRequest(channel="x", limit=-1)).publications] == [1]


def test_a_chat_message_of_the_system_or_a_user_is_completed(node: NodeProcess, cent: Client) -> None:
    channel = f"chat:{uuid4()}"
    cent.publish(PublishRequest(channel=channel, data={"content": "Hi"}, idempotency_key="m1"))
    post(node.public, "publish", {"channel": channel, "data": {"id": "m2", "content": "Ho"}, "user": "u7"})
    messages = [p.data for p in cent.history(HistoryRequest(channel=channel, limit=10)).publications]
    assert [(m["id"], m["userId"], m["content"], m["sequence"]) for m in messages] == [
        ("m1", "system", "Hi", 1),
        ("m2", "u7", "Ho", 2),
    ]


def test_a_reply_needs_a_message_that_is_there(node: NodeProcess, cent: Client) -> None:
    channel = f"chat:{uuid4()}"
    reply = {"channel": channel, "data": {"id": "r1", "content": "Ho", "replyTo": 1}}
    assert post(node.public, "publish", reply).body["error"]["code"] == 107
    with connected(node.url, "u1") as user:
        user.publish(channel, "m1")
        assert post(node.public, "publish", reply).body["result"]["offset"] == 2
        user.ask("rpc", {"method": "delete", "data": {"channel": channel, "id": "d1", "target": 1}})
    assert post(node.public, "publish", reply).body["result"]["offset"] == 2  # a retry
    reply["data"] = {"id": "r2", "content": "Ho", "replyTo": 1}
    refused = post(node.public, "publish", reply).body["error"]
    assert refused["code"] == 107
    assert "removed" in refused["message"]
    placeholder = cent.history(HistoryRequest(channel=channel, limit=1)).publications[0].data
    assert placeholder["type"] == "placeholder"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data": {"text": "Hi"}}, "text is no field"),
        ({"data": {"content": "Hi", "userId": "u1"}}, "userId is set by the server"),
        ({"data": {"id": "a", "content": "Hi"}, "idempotency_key": "b"}, "differ"),
        ({"data": ["Hi"]}, "a chat message is an object"),
    ],
)
def test_a_bad_chat_message_is_refused_as_a_clients(node: NodeProcess, given: dict[str, object], told: str) -> None:
    answer = post(node.public, "publish", {"channel": "chat:bad", **given})
    assert (answer.status, answer.body["error"]["code"]) == (200, 107)
    assert told in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({}, 107, "give either data"),
        ({"data": 1, "b64data": "MQ=="}, 107, "give either data"),
        ({"b64data": "%"}, 107, "no base64"),
        ({"b64data": b64encode(b"\x00\x01").decode()}, 107, "no JSON"),
        ({"b64data": b64encode(b"\xff").decode()}, 107, "UTF-8"),
        ({"data": {"content": "Hi"}, "channel": "chat:x", "skip_history": True}, 108, "every chat message is kept"),
        ({"data": 1, "skip_history": True, "idempotency_key": "k"}, 107, "skip_history keeps nothing"),
        ({"data": 1, "tags": {"a": "b"}}, 108, "no tags"),
        ({"data": 1, "idempotency_key": "k" * 65}, 107, "at most 64"),
        ({"data": 1, "channel": "none:x"}, 102, "[kinds.none]"),
        ({"data": 1, "channel": ""}, 107, "channel"),
        ({"data": 1, "user": "u" * 256}, 107, "user is 256 bytes long, at most 255"),
    ],
)
def test_what_a_publication_can_not_have_is_refused(
    node: NodeProcess, channel: str, given: dict[str, object], code: int, told: str
) -> None:
    answer = post(node.public, "publish", {"channel": channel, **given})
    assert (answer.status, answer.body["error"]["code"]) == (200, code)
    assert told in answer.body["error"]["message"]


def test_data_in_base64_and_with_line_ends_is_one_line_for_the_clients(node: NodeProcess, channel: str) -> None:
    pretty = json.dumps({"a": [1, 2]}, indent=2).encode()
    assert post(node.public, "publish", b'{"channel": "%b",\n "data": %b}' % (channel.encode(), pretty)).status == 200
    post(node.public, "publish", {"channel": channel, "b64data": b64encode(pretty).decode()})
    with connected(node.url, "u1") as user:
        found = user.ask("history", {"channel": channel, "limit": 10})["history"]["publications"]
    assert [publication["data"] for publication in found] == [{"a": [1, 2]}] * 2


def test_what_skips_history_reaches_who_is_there_and_is_not_kept(node: NodeProcess, cent: Client, channel: str) -> None:
    cent.publish(PublishRequest(channel=channel, data=1))
    with connected(node.url, "u1") as user:
        user.ask("subscribe", {"channel": channel})
        skipped = cent.publish(PublishRequest(channel=channel, data={"typing": True}, skip_history=True))
        kept = cent.publish(PublishRequest(channel=channel, data=2))
        pushes = user.pushes()
        assert next(pushes) == {"channel": channel, "pub": {"data": {"typing": True}}}
        assert next(pushes) == {"channel": channel, "pub": {"data": 2, "offset": 2}}
    assert (skipped.offset, skipped.epoch, kept.offset) == (0, kept.epoch, 2)
    assert [p.data for p in cent.history(HistoryRequest(channel=channel, limit=9)).publications] == [1, 2]


def test_a_broadcast_is_answered_room_by_room(cent: Client, channel: str) -> None:
    cent.publish(PublishRequest(channel=channel, data=0))
    result = cent.broadcast(BroadcastRequest(channels=[channel, f"{channel}2", "none:x"], data=1))
    first, second, third = result.responses
    assert first.result is not None
    assert second.result is not None
    assert (first.result.offset, second.result.offset) == (2, 1)
    assert third.error is not None
    assert third.error.code == 102


def test_history_is_paged_from_a_position_in_both_directions(cent: Client, channel: str) -> None:
    for number in range(1, 6):
        cent.publish(PublishRequest(channel=channel, data=number))
    top = cent.history(HistoryRequest(channel=channel))
    since = StreamPosition(offset=2, epoch=top.epoch)
    later = cent.history(HistoryRequest(channel=channel, limit=2, since=since))
    earlier = cent.history(HistoryRequest(channel=channel, limit=2, reverse=True))
    assert [p.offset for p in later.publications] == [3, 4]
    assert [p.data for p in earlier.publications] == [5, 4]
    assert (later.offset, later.epoch) == (5, top.epoch)
    with pytest.raises(CentApiResponseError) as error:
        cent.history(HistoryRequest(channel=channel, limit=1, since=StreamPosition(offset=1, epoch="other")))
    assert refusal(error)[0] == 112


def test_presence_names_who_is_there(node: NodeProcess, cent: Client, channel: str) -> None:
    with connected(node.url, "u1") as first, connected(node.url, "u1") as second, connected(node.url, "u2") as third:
        for user in (first, second, third):
            user.ask("subscribe", {"channel": channel})
        there = cent.presence(PresenceRequest(channel=channel)).presence
        stats = cent.presence_stats(PresenceStatsRequest(channel=channel))
        members = post(node.public, "members", {"channel": channel}).body["result"]["members"]
        listed = cent.channels(ChannelsRequest(pattern=f"any:{channel[4:8]}*")).channels
        rooms = post(node.public, "rooms", {"pattern": channel}).body["result"]["rooms"]
        info = cent.info(InfoRequest()).nodes[0]
    assert sorted(client.user for client in there.values()) == ["u1", "u1", "u2"]
    assert set(there) == {client.client for client in there.values()}
    assert (stats.num_clients, stats.num_users) == (3, 2)
    assert members == {"u1": 2, "u2": 1}
    assert {name: of.num_clients for name, of in listed.items()} == {channel: 3}
    assert [(r["channel"], r["kind"], r["offset"], r["num_clients"], r["num_users"]) for r in rooms] == [
        (channel, "any", 0, 3, 2)
    ]
    assert (info.num_clients, info.num_users, info.num_subs, info.num_channels) == (3, 2, 3, 1)
    assert cent.channels(ChannelsRequest(pattern="nothing*")).channels == {}


def test_all_connections_of_a_user_are_subscribed_and_told(node: NodeProcess, cent: Client, channel: str) -> None:
    cent.publish(PublishRequest(channel=channel, data=1))
    with connected(node.url, "u5") as first, connected(node.url, "u5") as second:
        request = SubscribeRequest(user="u5", channel=channel, info={"i": 1}, data={"d": 2})
        cent.subscribe(request)
        cent.subscribe(request)  # changes nothing
        top = cent.publish(PublishRequest(channel=channel, data=2))
        there = cent.presence(PresenceRequest(channel=channel)).presence
        refused = first.ask("subscribe", {"channel": channel})
        for user in (first, second):
            pushes = user.pushes()
            position = {"recoverable": True, "positioned": True, "epoch": top.epoch, "offset": 1}
            assert next(pushes) == {"channel": channel, "subscribe": {**position, "data": {"d": 2}}}
            assert next(pushes) == {"channel": channel, "pub": {"data": 2, "offset": 2}}
    assert [(client.user, client.chan_info) for client in there.values()] == [("u5", {"i": 1})] * 2
    assert refused["error"]["code"] == 105


def test_a_user_who_is_subscribed_gets_what_came_since_a_position(
    node: NodeProcess, cent: Client, channel: str
) -> None:
    for number in range(1, 4):
        cent.publish(PublishRequest(channel=channel, data=number))
    epoch = cent.history(HistoryRequest(channel=channel)).epoch
    with connected(node.url, "u6") as user:
        since = StreamPosition(offset=1, epoch=epoch)
        cent.subscribe(SubscribeRequest(user="u6", channel=channel, recover_since=since))
        cent.publish(PublishRequest(channel=channel, data=4))
        pushes = user.pushes()
        assert next(pushes)["subscribe"]["offset"] == 1
        assert [next(pushes)["pub"] for _ in range(3)] == [{"data": n, "offset": n} for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"override": {"presence": {"value": True}}}, 108),
        ({"expire_at": 1}, 107),
        ({"info": 1, "b64info": "MQ=="}, 107),
        ({"user": ""}, 107),
        ({"channel": "none:x"}, 102),
    ],
)
def test_what_a_subscription_can_not_have_is_refused(
    node: NodeProcess, channel: str, given: dict[str, object], code: int
) -> None:
    answer = post(node.public, "subscribe", {"user": "u1", "channel": channel, **given})
    assert answer.body["error"]["code"] == code


def test_a_subscription_by_the_server_ends_in_time(node: NodeProcess, cent: Client, channel: str) -> None:
    with connected(node.url, "u8") as user:
        post(node.public, "subscribe", {"user": "u8", "channel": channel, "expire_at": int(time.time()) + 60})
        cent.unsubscribe(UnsubscribeRequest(user="u8", channel=channel))
        pushes = user.pushes()
        assert "subscribe" in next(pushes)
        assert next(pushes)["unsubscribe"]["code"] == 2000


def test_a_connection_is_refreshed_or_expired(node: NodeProcess, cent: Client) -> None:
    with connected(node.url, "u9") as user:
        cent.refresh(RefreshRequest(user="u9", expire_at=int(time.time()) + 60))
        push = next(user.pushes())
        assert push["refresh"]["expires"] is True
        assert 58 <= push["refresh"]["ttl"] <= 60
        cent.refresh(RefreshRequest(user="u9", expired=True))
        with pytest.raises(ConnectionClosed) as end:
            user.ask("ping", {})
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 3005
    assert post(node.public, "refresh", {"user": "u9"}).body["error"]["code"] == 107


def test_a_user_is_unsubscribed(node: NodeProcess, cent: Client, channel: str) -> None:
    with connected(node.url, "u1") as user, connected(node.url, "u2") as other:
        user.ask("subscribe", {"channel": channel})
        other.ask("subscribe", {"channel": channel})
        cent.unsubscribe(UnsubscribeRequest(user="u1", channel=channel))
        push = next(user.pushes())
        assert cent.presence_stats(PresenceStatsRequest(channel=channel)).num_clients == 1
    assert push == {"channel": channel, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}


def test_a_user_is_disconnected_but_for_the_clients_to_keep(node: NodeProcess, cent: Client, channel: str) -> None:
    with connected(node.url, "gone") as user, connected(node.url, "gone") as kept:
        kept.ask("subscribe", {"channel": channel})
        (stays,) = cent.presence(PresenceRequest(channel=channel)).presence
        cent.disconnect(DisconnectRequest(user="gone", whitelist=[stays]))
        with pytest.raises(ConnectionClosed) as end:
            user.ask("ping", {})
        assert "ping" in kept.ask("ping", {})
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (3503, "force disconnect")


def test_a_disconnect_has_the_code_and_reason_that_the_site_gives(node: NodeProcess) -> None:
    with connected(node.url, "paid") as user:
        post(node.public, "disconnect", {"user": "paid", "disconnect": {"code": 4501, "reason": "unpaid"}})
        with pytest.raises(ConnectionClosed) as end:
            user.ask("ping", {})
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (4501, "unpaid")


def test_only_the_client_that_is_named_is_acted_on(node: NodeProcess, cent: Client, channel: str) -> None:
    with connected(node.url, "two") as first, connected(node.url, "two") as second:
        first.ask("subscribe", {"channel": channel})
        (client,) = cent.presence(PresenceRequest(channel=channel)).presence
        second.ask("subscribe", {"channel": channel})
        cent.unsubscribe(UnsubscribeRequest(user="two", channel=channel, client=client))
        cent.unsubscribe(UnsubscribeRequest(user="two", channel=channel, session="no such session"))
        assert next(first.pushes())["unsubscribe"]["code"] == 2000
        assert client not in cent.presence(PresenceRequest(channel=channel)).presence
        assert cent.presence_stats(PresenceStatsRequest(channel=channel)).num_clients == 1


def test_a_batch_is_carried_out_in_order(cent: Client, channel: str) -> None:
    requests = [
        PublishRequest(channel=channel, data=1),
        PublishRequest(channel=channel, data=2),
        HistoryRequest(channel=channel, limit=10),
    ]
    first, second, history = cent.batch(BatchRequest(requests=requests)).replies
    assert (first.offset, second.offset) == (1, 2)  # type: ignore[attr-defined]
    assert [p.data for p in history.publications] == [1, 2]  # type: ignore[attr-defined]
    parallel = cent.batch(BatchRequest(requests=requests[:2] * 10, parallel=True)).replies
    assert sorted(reply.offset for reply in parallel) == list(range(3, 23))  # type: ignore[attr-defined]


def test_a_command_of_a_batch_fails_alone(node: NodeProcess, channel: str) -> None:
    commands = [{"publish": {"channel": "none:x", "data": 1}}, {"publish": {"channel": channel, "data": 1}}]
    replies = post(node.public, "batch", {"commands": commands}).body["replies"]
    assert replies[0]["error"]["code"] == 102
    assert replies[1]["publish"]["offset"] == 1


@pytest.mark.parametrize(
    "commands",
    [
        [{"batch": {"commands": []}}],
        [{"publish": {}}],
        [{}],
        [{"info": {}, "rooms": {}}],
        [{"info": {}}] * 21,
        [{"broadcast": {"channels": ["x"] * 21, "data": 1}}],
    ],
)
def test_a_malformed_batch_is_refused_whole(node: NodeProcess, commands: list[object]) -> None:
    answer = post(node.public, "batch", {"commands": commands})
    assert (answer.status, answer.body["error"]["code"]) == (400, 107)


def test_a_batch_of_nothing_is_answered_with_nothing(node: NodeProcess) -> None:
    answer = post(node.public, "batch", {"commands": []})
    assert (answer.status, answer.body) == (200, {"replies": []})


def test_a_history_is_removed_and_goes_on(cent: Client, channel: str) -> None:
    epoch = cent.publish(PublishRequest(channel=channel, data=1)).epoch
    for n in (2, 3):
        cent.publish(PublishRequest(channel=channel, data=n))
    for _ in range(2):
        cent.history_remove(HistoryRemoveRequest(channel=channel))
        history = cent.history(HistoryRequest(channel=channel, limit=10))
        assert (history.publications, history.offset, history.epoch) == ([], 3, epoch)
    cent.publish(PublishRequest(channel=channel, data="new"))
    for reverse in (False, True):
        history = cent.history(HistoryRequest(channel=channel, limit=10, reverse=reverse))
        assert [(p.data, p.offset) for p in history.publications] == [("new", 4)]
    since = StreamPosition(offset=1, epoch=epoch)
    assert [p.offset for p in cent.history(HistoryRequest(channel=channel, limit=10, since=since)).publications] == [4]


def test_without_a_key_nothing_is_answered(node: NodeProcess) -> None:
    with closing((client := Client(f"{node.public}/api", KEY[::-1]))._session), pytest.raises(CentUnauthorizedError):
        client.info(InfoRequest())
    for key in ("", KEY[:-1], KEY + "0", "\xff"):
        answer = post(node.public, "info", {}, key=key)
        assert (answer.status, answer.body["error"]["code"]) == (401, 101)
        assert answer.headers["www-authenticate"] == "apikey"
        assert KEY not in str(answer)


def test_the_key_may_stand_in_authorization(node: NodeProcess) -> None:
    assert post(node.public, "info", {}, key="", headers={"Authorization": f"apikey {KEY}"}).status == 200
    assert post(node.public, "info", {}, key="", headers={"Authorization": f"Bearer {KEY}"}).status == 401


def test_a_key_does_what_its_scopes_allow(node: NodeProcess, channel: str) -> None:
    assert post(node.public, "history", {"channel": channel}, key=READING).status == 200
    for method in ("publish", "broadcast", "disconnect", "unsubscribe", "history_remove"):
        answer = post(node.public, method, {}, key=READING)
        assert (answer.status, answer.body["error"]["code"]) == (403, 103)
    commands = [{"publish": {"channel": channel, "data": 1}}, {"history": {"channel": channel}}]
    replies = post(node.public, "batch", {"commands": commands}, key=READING).body["replies"]
    assert replies[0]["error"]["code"] == 103
    assert replies[1]["history"]["offset"] == 0


@pytest.mark.parametrize(
    ("method", "body", "changes", "refused"),
    [
        ("none", {}, {}, (404, 104)),
        ("info", {}, {"verb": "GET"}, (405, 107)),
        ("info", {}, {"headers": {"Content-Type": "text/plain"}}, (415, 107)),
        ("info", b"{", {}, (400, 107)),
        ("info", b"", {}, (400, 107)),
        ("info", b'{"\xff": 1}', {}, (400, 107)),
        ("info", b"[" * 3000, {}, (400, 107)),
        ("publish", {"channel": 5}, {}, (400, 107)),
        ("publish", {"channel": "x", "data": "x" * 5000}, {}, (413, 107)),
    ],
    ids=str,
)
def test_what_is_no_request_has_a_status_of_its_own(
    node: NodeProcess, method: str, body: object, changes: dict[str, str], refused: tuple[int, int]
) -> None:
    answer = post(node.public, method, body, **changes)  # type: ignore[arg-type]
    assert (answer.status, answer.body["error"]["code"]) == refused
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_in_transport_mode_an_error_of_a_method_has_a_status(node: NodeProcess) -> None:
    mode = {"X-Centrifugo-Error-Mode": "transport"}
    assert post(node.public, "history", {"channel": "none:x"}, headers=mode).status == 404
    assert post(node.public, "publish", {"channel": "x", "tags": {"a": "b"}}, headers=mode).status == 400
    assert post(node.public, "history", {"channel": "x"}, headers=mode).status == 200


def test_the_internal_port_has_the_api_too_and_its_document(node: NodeProcess) -> None:
    assert post(node.internal, "info", {}).status == 200
    document = post(node.internal, "openapi.json", b"", verb="GET", key="")
    assert document.status == 200
    assert set(document.body["paths"]) >= {"/api/publish", "/api/batch"}
    assert fetch(f"{node.public}/api/openapi.json")[0] == 404


def test_requests_are_counted_by_site_method_and_outcome(node: NodeProcess) -> None:
    post(node.public, "presence", {"channel": "none:x"})
    post(node.public, "presence", {"channel": "x"}, key="")
    metrics = node.metrics()
    assert metrics['chat_node_api_requests_total{method="presence",outcome="102",site="default"}'] >= 1
    assert metrics['chat_node_api_requests_total{method="presence",outcome="101",site=""}'] >= 1


def test_by_default_the_public_port_has_no_api_and_a_site_has_a_rate(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"API__KEYS": KEY, "API__SITE_REQUESTS": 0.2}
    with NodeProcess(tmp_path_factory.mktemp("rated"), settings=settings) as node:
        assert post(node.internal, "info", {}).status == 200
        limited = post(node.internal, "info", {})
        assert (limited.status, limited.body["error"]["code"]) == (429, 111)
        wait = limited.body["error"]["retryAfter"]
        assert 0 < wait <= int(limited.headers["retry-after"]) <= 5
        with pytest.raises(json.JSONDecodeError):
            post(node.public, "info", {})
        assert KEY not in node.log.read_text()

"""Webhooks of a real node, which is killed, and a real receiver, which is down, fails and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from edge_config.schema import Auth
from edge_config.secret import Secret
from node.auth import make_token
from node.cli import app
from node.site_file import KeyEntry, SiteEntry, change
from tests.harness.chat_socket import ChatSocket, connected
from tests.harness.node_process import NodeProcess, wait_for
from tests.harness.webhook_receiver import WebhookReceiver, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
ROOMS = ("red", "green", "blue")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """One that has a port, and does not listen."""
    made = WebhookReceiver()
    with made.serving():
        pass
    yield made
    assert made.forged == 0


def say(socket: ChatSocket, first: int, count: int) -> list[tuple[str, str]]:
    """Publish in each room; gives room and id of what was acknowledged."""
    said = []
    for number in range(first, first + count):
        for room in ROOMS:
            answer = socket.publish(room, f"{room}-{number:05}", f"number {number}")
            assert "publish" in answer, answer
            said.append((room, f"{room}-{number:05}"))
    return said


def heard(receiver: WebhookReceiver) -> list[tuple[str, str]]:
    """Room and id of the messages that it has taken, each event once."""
    return [(event["room"], event["message"]["id"]) for event in receiver.of("message")]


def joined(socket: ChatSocket, *rooms: str) -> ChatSocket:
    for room in rooms:
        answer = socket.ask("subscribe", {"channel": room})
        assert "subscribe" in answer, answer
    return socket


def rpc(socket: ChatSocket, method: str, **data: object) -> dict[str, Any]:
    answer = socket.ask("rpc", {"method": method, "data": data})
    assert "rpc" in answer, answer
    return dict(answer["rpc"])


def test_a_receiver_that_was_down_gets_all_once_and_in_order_though_the_node_is_killed(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    with NodeProcess(tmp_path, settings=settings(receiver, batch_events=7, events="message")) as node:
        with connected(node.url, "ann") as ann:
            said = say(joined(ann, *ROOMS), 0, 15)
        node.wait_line("webhook failed")
        node.restart()
        with connected(node.url, "ann") as ann:
            said += say(joined(ann, *ROOMS), 15, 15)

        def kill(body: dict[str, Any]) -> None:
            if len(receiver.requests) in {3, 6}:
                node.kill()
                receiver.statuses = [] if killed else [503]  # once it has not taken what it was sent, once it has
                killed.append([event["id"] for event in body["events"]])

        killed: list[list[str]] = []
        receiver.before_answer = kill
        with receiver.serving():
            for times in (1, 2):
                receiver.wait("a kill in the middle of a delivery", lambda times=times: len(killed) == times)  # type: ignore[misc]
                node.restart()
            receiver.wait("everything", lambda: len(receiver.of("message")) == len(said))
            with connected(node.url, "ann") as ann:
                said += say(joined(ann, *ROOMS), 30, 2)
            receiver.wait("what came later", lambda: len(receiver.of("message")) == len(said))
    for room in ROOMS:
        assert [one for one in heard(receiver) if one[0] == room] == [one for one in said if one[0] == room]
    repeated = {event_id for event_id in receiver.ids if receiver.ids.count(event_id) > 1}
    assert repeated <= {event_id for batch in killed for event_id in batch}, "only what was in flight may come twice"


def test_what_is_done_to_messages_is_told_and_what_was_removed_is_not(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    wanted = "message,edited,removed,restored,reported"
    with receiver.serving(), NodeProcess(tmp_path, settings=settings(receiver, events=wanted)) as node:
        receiver.status = 503
        with connected(node.url, "ann") as ann, connected(node.url, "mod", role="moderator") as mod:
            joined(ann, "room")
            joined(mod, "room")
            ann.publish("room", "m1", "a secret")
            ann.publish("room", "m2", "a word")
            rpc(ann, "edit", channel="room", id="e1", target=1, content="a secret, too")
            rpc(mod, "report", channel="room", id="r1", target=2, reason="spam")
            receiver.wait("an attempt", lambda: b"a secret" in str(receiver.requests).encode())
            rpc(mod, "delete", channel="room", id="d1", target=1, reason="hush")
            sent = len(receiver.requests) + 1  # one may have been on its way
            receiver.wait("another", lambda: len(receiver.requests) > sent + 1)
            assert "a secret" not in str(receiver.requests[sent:])
            receiver.status = 200
            rpc(mod, "restore", channel="room", id="u1", target=1)
            receiver.wait("all", lambda: len(receiver.of(*wanted.split(","))) == 6)
        events = receiver.of(*wanted.split(","))
        assert [event["type"] for event in events] == [
            "message", "message", "edited", "reported", "removed", "restored"
        ]  # fmt: skip
        assert events[1]["message"]["content"] == "a word"
        assert events[3]["report"] == {
            "id": "r1", "event": "reported", "by": "mod", "target": 2, "author": "ann", "reason": "spam"
        }  # fmt: skip
        assert events[4]["message"]["target"] == 1
        samples = node.metrics()
        labels = 'outcome="delivered",site="default",webhook="crm"'
        assert samples[f"chat_node_webhook_events_total{{{labels}}}"] == 6
        assert samples['chat_node_webhook_waiting_seconds{site="default",webhook="crm"}'] == 0


def test_who_comes_and_goes_is_told_unless_it_flaps(tmp_path: Path, receiver: WebhookReceiver) -> None:
    attendance = ("connected", "disconnected", "occupied", "vacated")
    with receiver.serving(), NodeProcess(tmp_path, settings=settings(receiver, settle_seconds=1)) as node:
        with connected(node.url, "ann") as ann, connected(node.url, "ann"):
            joined(ann, "room")
            for _ in range(3):
                with connected(node.url, "flapping") as flapping:
                    joined(flapping, "other")
            receiver.wait("ann", lambda: len(receiver.of(*attendance)) == 2)
        receiver.wait("that she went", lambda: len(receiver.of(*attendance)) == 4)
        told = {event["type"]: event.get("user") or event.get("room") for event in receiver.of(*attendance)}
        assert told == {"connected": "ann", "disconnected": "ann", "occupied": "room", "vacated": "room"}


def command(node: NodeProcess, *words: str, status: int = 0, environment: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(app, [*words, "--data-dir", str(node.data_dir)], env=environment)
    assert result.exit_code == status, result.output
    return result.output


def test_sites_have_webhooks_of_their_own_made_while_the_node_runs(tmp_path: Path, receiver: WebhookReceiver) -> None:
    other = WebhookReceiver()
    secrets = {"a": "secret of site a, long enough for HS256", "b": "secret of site b, long enough for HS256"}
    with other.serving(), receiver.serving(), NodeProcess(tmp_path) as node:
        with change(node.data_dir, Auth()) as content:
            content.sites = [
                SiteEntry(name, [KeyEntry("HS256", f"k{name}", secret)]) for name, secret in secrets.items()
            ]
        for site, made in (("a", receiver), ("b", other)):
            flags = ("--name", "crm", "--event", "message", "--event", "connected", "--allow-private")
            shown = command(node, "site", "add-webhook", site, made.url, *flags)
            made.secret = Secret(shown.splitlines()[-1])
        wait_for("both", lambda: len(list(node.data_dir.glob("webhooks/*/crm.json"))) == 2)

        def speak(site: str, number: int) -> None:
            shown = make_token(secrets[site], {"sub": f"user-of-{site}"}, "HS256", f"k{site}")
            with connect(node.url, proxy=None) as connection:
                socket = ChatSocket(connection)
                assert "connect" in socket.ask("connect", {"token": shown})
                assert "publish" in joined(socket, "room").publish("room", f"{site}{number}", f"text of {site}")

        for site in secrets:
            speak(site, 1)
        for site, made in (("a", receiver), ("b", other)):
            made.wait(f"{site}'s message", lambda made=made: bool(made.of("message")))  # type: ignore[misc]
            for _, body in made.requests:
                assert body["site"] == site
                assert f"text of {site}" in str(body) or f"user-of-{site}" in str(body)
                assert not any(f"of{mark}{name}" in str(body) for name in secrets if name != site for mark in " -")
        assert "crm" in command(node, "site", "list")

        reloads = len(node.lines("sites reloaded"))
        fresh = command(node, "site", "rotate-webhook-secret", "a", "crm").splitlines()[-1]
        node.wait_line("sites reloaded", reloads + 1)
        speak("a", 2)
        receiver.wait("what is signed with both", lambda: len(receiver.of("message")) == 2)
        receiver.secret = Secret(fresh)
        speak("a", 3)
        receiver.wait("what is signed with the new one", lambda: len(receiver.of("message")) == 3)

        command(node, "site", "remove-webhook", "b", "crm")
        node.wait_line("sites reloaded", reloads + 2)
        before = len(other.requests)
        speak("b", 2)
        speak("a", 4)
        receiver.wait("a's", lambda: len(receiver.of("message")) == 4)
        assert len(other.requests) == before
        assert "no webhook 'crm'" in command(node, "site", "remove-webhook", "b", "crm", status=1)


def test_an_operator_tries_looks_and_sends_again(tmp_path: Path, receiver: WebhookReceiver) -> None:
    configured = settings(receiver, events="message")
    environment = {f"CHAT_NODE_{name}": str(value) for name, value in configured.items()}
    with NodeProcess(tmp_path, settings=configured) as node:

        def operate(*words: str, status: int = 0) -> str:
            return command(node, "webhook", *words, status=status, environment=environment)

        assert "No answer (connection): Connection refused" in operate("test", "crm", status=1)
        with receiver.serving():
            told = operate("test", "default/crm")
            assert "200 from 127.0.0.1 after" in told
            assert [event["type"] for event in receiver.taken] == ["test"]
            receiver.statuses = [503, 422]
            assert "503 from" in (told := operate("test", "crm", status=1))
            assert "are sent again" in told
            assert "dead letters at once" in operate("test", "crm", status=1)
            assert "There is no webhook 'x'. There are: default/crm." in operate("test", "x", status=2)

            receiver.statuses = [422]
            with connected(node.url, "ann") as ann:
                joined(ann, "room").publish("room", "m1")
            node.wait_line("webhook gave events up")
            listed = operate("list")
            for shown in ("default/crm", "dead letters", "it answered 422: told", receiver.url):
                assert shown in listed
            assert '"dead_letters":1' in operate("list", "--json")

            receiver.statuses = [500]
            assert "1 are left: it answered 500" in operate("replay", "crm", status=1)
            assert "Sent 1 of 1 dead letter." in operate("replay", "crm")
            assert [event["message"]["id"] for event in receiver.of("message")] == ["m1"]
            assert "has no dead letters" in operate("replay", "crm")

            receiver.statuses = [422]
            with connected(node.url, "ann") as ann:
                joined(ann, "room").publish("room", "m2")
            node.wait_line("webhook gave events up", 2)
            node.kill()
            assert "No node runs" in operate("replay", "crm", status=1)
            assert '"dead_letters":1' in operate("list", "--json")

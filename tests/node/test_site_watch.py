"""Files of sites that change while a node runs: what is taken up, what is not, and who has to go."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge_config.schema import Auth
from edge_config.secret import Secret
from node import revocations, site_file, site_watch
from node.auth import Authenticator
from node.codes import DisconnectCode, UnsubscribeCode
from node.site_file import SiteEntry, change
from node.site_watch import SiteWatch
from tests.harness.client import SECRET, WALL, Client, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

AUTH = Auth(secret=Secret(SECRET))
ROOM = "$room"
PATIENCE_SECONDS = 30  # never reached


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_watch, "POLL_SECONDS", 0.01)


class Watched:
    """A node without sockets whose sites are watched in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, World()
        self.gate = self.world.authenticator
        self.watch = SiteWatch(folder, AUTH, self.gate, self.sessions, lambda: None)

    def sessions(self) -> list[Any]:
        return [client.session for client in self.world.clients]

    def names(self) -> set[str]:
        return {site.name for site in self.gate.sites}

    def revoke(self, **what: Any) -> None:  # noqa: ANN401 - of revocations.revoke
        given = {"before": 0.0, "until": None, "now": float(WALL), "most": 9, **what}
        revocations.revoke(self.folder, "default", **given)

    def subscribed(self, user: str, **claims: object) -> Client:
        """A client in a room that it entered with a subscription token."""
        client = self.world.connected(user, iat=WALL)
        shown = self.world.token(user, channel=ROOM, **claims)
        assert "error" not in client.ask("subscribe", {"channel": ROOM, "token": shown})
        return client


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    node = Watched(folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.watch.run)
        with trio.fail_after(PATIENCE_SECONDS):
            yield node
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - what changes is in other threads and in files
        await trio.sleep(0.005)


def add(folder: Path, name: str) -> None:
    with change(folder, AUTH) as content:
        content.sites.append(SiteEntry(name, guests=True))


# -- subscriptions whose token is revoked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "revoked", "why"),
    [
        ({"jti": "t", "iat": WALL}, {"token_id": "t"}, "it was revoked"),
        ({"jti": "t"}, {"token_id": "t"}, "it was revoked"),
        ({"iat": WALL - 9}, {"user": "ann", "before": WALL - 8.0}, "the user's tokens of that time were revoked"),
        ({}, {"user": "ann", "before": WALL - 8.0}, "the user's tokens of that time were revoked"),
        ({"iat": WALL - 9}, {"before": WALL - 8.0}, "tokens issued so long ago were revoked"),
    ],
)
async def test_a_subscription_ends_with_its_token_and_the_connection_goes_on(
    tmp_path: Path, claims: dict[str, object], revoked: dict[str, Any], why: str
) -> None:
    async with watched(tmp_path) as node:
        ann = node.subscribed("ann", **claims)
        bob = node.subscribed("bob", jti="b", iat=WALL)
        node.revoke(**revoked)
        await until(lambda: ann.pushes("unsubscribe"))
        (push,) = ann.pushes("unsubscribe")
        assert push["channel"] == ROOM
        assert push["unsubscribe"] == {"code": UnsubscribeCode.SERVER, "reason": f"server unsubscribe: {why}"}
        assert ROOM not in ann.session.subscriptions
        assert ann.ask("ping") == {}
        assert not bob.pushes("unsubscribe")
        shown = node.world.token("ann", channel=ROOM, **claims)
        assert ann.code("subscribe", {"channel": ROOM, "token": shown}) == 103


async def test_a_subscription_rests_on_the_token_that_refreshed_it_last(tmp_path: Path) -> None:
    async with watched(tmp_path) as node:
        ann, bob = node.subscribed("ann", jti="old", iat=WALL), node.subscribed("bob", jti="first", iat=WALL)
        for client, user, fresh in ((ann, "ann", "new"), (bob, "bob", "second")):
            shown = node.world.token(user, channel=ROOM, jti=fresh, iat=WALL)
            assert "error" not in client.ask("sub_refresh", {"channel": ROOM, "token": shown})
        node.revoke(token_id="old")
        node.revoke(token_id="second")
        await until(lambda: bob.pushes("unsubscribe"))
        assert not ann.pushes("unsubscribe")


async def test_a_subscription_without_a_token_of_its_own_stays(tmp_path: Path) -> None:
    async with watched(tmp_path) as node:
        ann = node.world.connected("ann", iat=WALL, channels=["#served"])
        assert "error" not in ann.ask("subscribe", {"channel": "open"})
        node.revoke(before=WALL - 8.0)
        node.revoke(token_id="")
        await until(lambda: node.gate.revocations)
        assert set(ann.session.subscriptions) == {"#served", "open"}


def test_a_token_that_is_revoked_while_its_room_opens_does_not_let_in() -> None:
    world = World()
    ann = world.connected("ann", iat=WALL)
    world.gateway.held.add("open")
    asked = ann.tell("subscribe", {"channel": ROOM, "token": world.token("ann", channel=ROOM, jti="t", iat=WALL)})
    world.authenticator.replace(
        world.authenticator.sites,
        revocations.Revocations({"default": revocations.SiteRevocations({"t": None})}),
    )
    world.gateway.release()
    assert ann.answer(asked)["error"]["message"] == "permission denied: it was revoked"
    assert not ann.session.subscriptions
    assert not any(room.joined for room in world.gateway.rooms.values())


async def test_a_crowd_is_looked_at_in_groups_while_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_watch, "COHORT", 3)
    async with watched(tmp_path) as node:
        await until(lambda: node.watch._seen)
        crowd = [node.world.connected(f"u{number}", jti=f"t{number % 2}", iat=WALL) for number in range(20)]
        node.revoke(token_id="t1")
        await until(lambda: sum(client.end() is not None for client in crowd) == 10)
        assert {client.end() for client in crowd[1::2]} == {DisconnectCode.INVALID_TOKEN}
        assert {client.end() for client in crowd[::2]} == {None}


# -- files -------------------------------------------------------------------------------------------------------


async def test_to_be_told_while_the_files_are_read_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    looks = 0
    original = site_watch.signature_of

    def slow(folder: Path) -> site_watch.Signature:
        nonlocal looks
        looks += 1
        if looks == 3:
            trio.from_thread.run_sync(node.watch.poke)
        return original(folder)

    monkeypatch.setattr(site_watch, "signature_of", slow)
    async with watched(tmp_path) as node:
        await until(lambda: "sites reloaded" in caplog.messages)
    assert caplog.messages.count("sites reloaded") == 1


async def test_a_file_that_is_gone_goes_on_to_hold_whatever_else_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "shop")
    async with watched(tmp_path) as node:
        node.revoke(token_id="t")
        await until(lambda: "shop" in node.names() and node.gate.revocations)
        for name in site_watch.FILES:
            (tmp_path / name).unlink()
        await until(lambda: len(caplog.messages) >= 2)
        node.watch.poke()
        await until(lambda: len(caplog.messages) >= 4)
        assert node.names() == {"default", "shop"}
        assert node.gate.revocations.refusal("default", "", "t", 0.0, WALL)
        node.revoke(user="ann", before=float(WALL))  # a file of its own again, which knows of nothing before
        await until(lambda: node.gate.revocations.refusal("default", "ann", "", 0.0, WALL))
        assert node.names() == {"default", "shop"}
        add(tmp_path, "other")
        await until(lambda: node.names() == {"default", "other"})


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"\xff{"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"version":1,"sites":{"a":1}}'),
        os.mkfifo,
        make_endless,
        lambda path: path.mkdir(),
        lambda path: path.touch(mode=0o000),
    ],
    ids=["no UTF-8", "deep", "another form", "pipe", "endless", "folder", "empty"],
)
async def test_what_can_not_be_used_is_told_and_the_other_file_is_taken_up(
    tmp_path: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "shop")
    async with watched(tmp_path) as node:
        await until(lambda: "shop" in node.names())
        (tmp_path / site_file.FILE).unlink()
        spoil(tmp_path / site_file.FILE)
        await until(lambda: any(site_file.FILE in str(record.__dict__) for record in caplog.records))
        node.revoke(token_id="t")
        await until(lambda: node.gate.revocations.refusal("default", "", "t", 0.0, WALL))
        assert node.names() == {"default", "shop"}


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_file, "MOST_BYTES", 1000)
    (tmp_path / site_file.FILE).write_text('{"version":1,"sites":[' + " " * 1000 + "]}")
    with pytest.raises(site_file.SitesFault, match="larger than 1000 bytes"):
        site_file.read(tmp_path)


async def test_a_fault_of_ours_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(site_file, "load", fail)
    async with watched(tmp_path) as node:
        node.revoke(token_id="t")
        await until(lambda: node.gate.revocations)
        assert "sites not reloaded" in caplog.messages


async def test_a_watch_that_waits_for_a_slow_disk_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = trio.Event(), trio.Event()

    def stuck(_: Path) -> site_watch.Signature:
        trio.from_thread.run_sync(asked.set)
        trio.from_thread.run(answer.wait)
        return (None, None)

    monkeypatch.setattr(site_watch, "signature_of", stuck)
    watch = SiteWatch(tmp_path, AUTH, Authenticator(World().authenticator.sites, b"g"), list, lambda: None)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            await asked.wait()
            nursery.cancel_scope.cancel()

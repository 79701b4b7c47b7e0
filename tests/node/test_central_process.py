"""`chat-node central` as a process: it answers over ZeroMQ, is killed, and answers the same."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from typer.testing import CliRunner

from edge_config.keys import ALLOWED_FILE, SECRET_FILE, new_pair, written_allowed, written_pair
from node.central.store import look
from node.cli import app
from router.channels import Channel
from router.events import Claim, Configuration
from router.ids import MemberId
from router.register import Answer, RegisterClient, RegisterOptions
from router.register_wire import CasRequest, Swapped, decode_answer, encode, swap_of
from router.transport import TransportOptions, open_transport
from tests.harness.central_process import CentralProcess
from tests.harness.node_process import COMMAND, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from edge_config.keys import KeyPair
    from router.transport import Transport

PATIENCE = 60  # seconds; never reached
OPTIONS = RegisterOptions(deadline=PATIENCE * 1000, retry=20, retry_most=200)
MEMBER = MemberId("a", "d1")
PLAIN = {"CLUSTER__PLAIN": "loopback"}


def claim(version: int, shard: int = 1) -> Claim:
    return Claim(version - 1, Configuration(shard, version, version, MEMBER, (MEMBER,)))


def found(folder: Path, *more: object) -> None:
    arguments = ("cluster", "init", "--data-dir", folder / "central", "--copies", 1, "--min-sync", 1, *more)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


class Node:
    """A node that asks the register."""

    def __init__(self, transport: Transport, boot: str) -> None:
        self.transport = transport
        self.address = f"tcp://127.0.0.1:{transport.port}"
        self.client = RegisterClient(boot, self.address, "", lambda: 0.5, OPTIONS, now())
        self.answers: list[Answer] = []
        self.rows: list[Configuration] | None = None
        self.bodies: list[bytes] = []  # that the register has sent

    async def until(self, done: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not done():
                effects = self.client.tick(now())
                self.answers += effects.answers
                self.rows = effects.rows if effects.rows is not None else self.rows
                for body in effects.sends:
                    self.transport.send("central", Channel.REGISTER, body)
                with trio.move_on_after(0.02):
                    await self.transport.wait()
                for message in self.transport.receive():
                    self.bodies.append(message.body)
                    self.client.receive(message.body, now())

    async def ask(self, request: CasRequest) -> bytes:
        """Send a request as it is, again and again, until it is answered."""
        self.bodies.clear()
        with trio.fail_after(PATIENCE):
            while True:
                self.transport.send("central", Channel.REGISTER, encode(request))
                with trio.move_on_after(0.5):
                    await self.transport.wait()
                for message in self.transport.receive():
                    answer = decode_answer(message.body)
                    if isinstance(answer, Swapped) and answer.n == request.n:
                        return message.body


def now() -> int:
    return int(trio.current_time() * 1000)


@asynccontextmanager
async def meeting(  # noqa: PLR0917 - who meets whom
    central: CentralProcess, boot: str, keys: KeyPair | None = None, key: bytes = b"", name: str = "a",
    allowed: Mapping[str, bytes] | None = None,
) -> AsyncIterator[Node]:  # fmt: skip
    options = TransportOptions(node=name, boot=boot, host="127.0.0.1", keys=keys, allowed=allowed or {})
    async with open_transport(options) as transport:
        transport.connect("central", f"tcp://127.0.0.1:{central.port}", key)
        yield Node(transport, boot)


@pytest.mark.slow
async def test_a_request_gets_the_same_answer_from_a_register_that_was_killed(tmp_path: Path) -> None:
    found(tmp_path)
    with CentralProcess(tmp_path, PLAIN) as central:
        async with meeting(central, "boot") as node:
            await node.until(lambda: node.client.certificate is not None)
            assert node.client.certificate == look(central.data_dir)[0]
            request = CasRequest("boot", 1, 1, 0, [swap_of(claim(1)), swap_of(claim(1, 2)), swap_of(claim(2, 3))])
            answer = await node.ask(request)
            results = decode_answer(answer)
            assert isinstance(results, Swapped)
            assert [done for done, _ in results.results] == [True, True, False]
            await node.ask(CasRequest("boot", 1, 2, 0, [swap_of(claim(2))]))
            central.kill()
            central.start()
            assert await node.ask(request) == answer
        async with meeting(central, "another") as node:
            node.client.read(now())
            await node.until(lambda: node.rows is not None)
            assert node.rows == [claim(2).new, claim(1, 2).new]


@pytest.mark.slow
async def test_each_claim_is_answered_right_while_the_register_is_killed_again_and_again(tmp_path: Path) -> None:
    """Nobody else claims, so each claim is done; one that was carried out twice would be answered that it was not."""
    found(tmp_path)
    with CentralProcess(tmp_path, PLAIN) as central:
        async with meeting(central, "boot") as node:
            for version in range(1, 41):
                node.client.ask(claim(version), now())
                if version % 10 == 0:
                    for body in node.client.tick(now()).sends:
                        node.transport.send("central", Channel.REGISTER, body)
                    await trio.sleep(0.005 * (version // 10 - 1))  # before, while or after it is carried out
                    central.kill()
                    central.start()
                await node.until(lambda: len(node.answers) == version)  # noqa: B023 - used at once
            assert node.answers == [Answer(claim(version), claim(version).new, done=True) for version in range(1, 41)]
    assert [row.version for row in look(central.data_dir)[1]] == [40]


@pytest.mark.slow
async def test_with_keys_it_answers_those_it_knows_and_takes_up_further_ones(tmp_path: Path) -> None:
    found(tmp_path)
    own, known, later = new_pair(), new_pair(), new_pair()
    folder = tmp_path / "central" / "keys"
    folder.mkdir()
    (folder / SECRET_FILE).write_bytes(written_pair(own))
    (folder / SECRET_FILE).chmod(0o600)
    (folder / ALLOWED_FILE).write_bytes(written_allowed({"a": known.public}))
    with CentralProcess(tmp_path, {}) as central:
        allowed = {"central": own.public}
        async with meeting(central, "boot", known, own.public, allowed=allowed) as node:
            node.client.ask(claim(1), now())
            await node.until(lambda: bool(node.answers))
        (folder / ALLOWED_FILE).write_bytes(written_allowed({"a": known.public, "b": later.public}))
        wait_for("the keys are read again", lambda: "keys read again" in central.said())
        async with meeting(central, "boot", later, own.public, "b", allowed) as node:
            node.client.ask(claim(2), now())
            await node.until(lambda: bool(node.answers))
            assert node.answers[0].done


@pytest.mark.slow
def test_it_stops_when_it_is_told_to_and_one_process_has_the_register(tmp_path: Path) -> None:
    found(tmp_path)
    with CentralProcess(tmp_path, PLAIN) as central:
        second = subprocess.run(
            (*COMMAND, "central", "--data-dir", central.data_dir, "--listen", "127.0.0.1:0"),
            check=False, capture_output=True, text=True, timeout=PATIENCE, env=central._environment,
        )  # fmt: skip
        assert second.returncode == 1
        assert "is in use by process" in second.stderr
        assert "Traceback" not in second.stderr
        said = central.said()
        assert f"{look(central.data_dir)[0].birth}, 128 shards, of which 0 are in use" in said
        assert "without keys, whoever reaches the port" in said
        assert central.stop() == 0
        assert "stopped" in central.said()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "Give --listen HOST:PORT, or set cluster.central"),
        (("--listen", "here"), 2, "not an address with a port"),
        (("--listen", "10.0.0.1:7000"), 2, "without keys only loopback is safe"),
        (("--listen", "127.0.0.1:7000", "--name", "no name"), 2, "cluster.central"),
        (("--listen", "127.0.0.1:0"), 1, "There is no register in"),
    ],
)
def test_what_it_cannot_start_with_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, said: str
) -> None:
    monkeypatch.setenv("CHAT_NODE_CLUSTER__PLAIN", "loopback")
    if not arguments:
        monkeypatch.delenv("CHAT_NODE_CLUSTER__PLAIN")
    result = CliRunner().invoke(app, ["central", "--data-dir", str(tmp_path), *arguments])
    assert result.exit_code == status, result.output
    assert said in result.output


def test_without_its_key_it_says_how_to_make_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["central", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"])
    assert result.exit_code == 1
    assert "chat-node keys new" in result.output

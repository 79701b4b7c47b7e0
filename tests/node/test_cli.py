"""The command ``chat-node``, as a person or a script calls it."""

import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio
from typer.testing import CliRunner, Result

from node import endpoints, terminal
from node.cli import app, summary
from node.endpoints import Endpoints
from node.faults import ListenFault
from node.version import VERSION
from router.errors import StorageFault
from router.log import Log, LogOptions

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration of the person who runs the tests has a say, and logging is as before when a test is over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in os.environ:
        if name.startswith("CHAT_NODE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CHAT_NODE_NODE__DATA_DIR", str(tmp_path / "data"))
    yield
    root.handlers[:], root.level = handlers, level


def replace_app(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Awaitable[None]]) -> None:
    """Run this instead of a node."""
    module = ModuleType("node.app")
    monkeypatch.setattr(module, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "node.app", module)


def call(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=given)


def test_the_version_is_printed() -> None:
    result = call("version")
    assert (result.exit_code, result.stdout) == (0, f"{VERSION}\n")


@pytest.mark.parametrize(
    "command", [[], ["run"], ["cluster"], ["cluster", "status"], ["config"], ["log"], ["token"], ["token", "create"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_all_faults_of_the_configuration_are_told_at_once_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_NODE_LISTEN__BACKLOG", "many")
    monkeypatch.setenv("CHAT_NODE_LISTEN__PROT", "1")
    for command in (["run"], ["config", "check"], ["cluster", "status"], ["token", "create"]):
        result = call(*command)
        assert result.exit_code == 2
        assert "2 faults" in result.stderr
        assert "listen.backlog" in result.stderr
        assert "Traceback" not in result.output


def test_a_wrong_flag_is_named() -> None:
    result = call("run", "--prot", "1")
    assert result.exit_code == 2
    assert "--prot" in result.stderr


def test_a_missing_file_is_named() -> None:
    result = call("run", "--config", "/nowhere/chat-node.toml")
    assert result.exit_code == 2
    assert "/nowhere/chat-node.toml" in result.stderr


class TestToken:
    def test_without_a_secret_it_says_what_to_do(self) -> None:
        result = call("token", "create", "--user", "ada")
        assert result.exit_code == 1
        assert "openssl rand -hex 32" in result.stderr
        assert not result.stdout

    def test_what_is_created_is_accepted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        monkeypatch.setenv("CHAT_NODE_AUTH__AUDIENCE", "chat")
        monkeypatch.setenv("CHAT_NODE_AUTH__ISSUER", "site")
        token = call(
            "token", "create", "--user", "ada", "--info", '{"name": "Ada"}', "--role", "moderator"
        ).stdout.strip()
        result = call("token", "inspect", "-", given=f"{token}\n")
        assert result.exit_code == 0
        assert "ada may connect" in result.stderr
        claims = json.loads(result.stdout)["claims"]
        assert (claims["info"], claims["exp"] - claims["iat"]) == ({"name": "Ada"}, 3600)
        assert claims["role"] == "moderator"
        assert SECRET not in result.output

    def test_a_subscription_token_names_its_channel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        token = call("token", "create", "--user", "ada", "--channel", "$vip", "--exp", "never").stdout.strip()
        result = call("token", "inspect", token)
        assert result.exit_code == 0
        assert "ada may subscribe to $vip" in result.stderr
        assert "exp" not in json.loads(result.stdout)["claims"]

    def test_many_are_for_numbered_users(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        tokens = call("token", "create", "--user", "u", "--count", "3").stdout.split()
        users = [json.loads(call("token", "inspect", token).stdout)["claims"]["sub"] for token in tokens]
        assert users == ["u1", "u2", "u3"]

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--exp", "tomorrow"], "--exp 'tomorrow' is no time"),
            (["--info", "{"], "is not JSON"),
            (["--count", "0"], "--count"),
        ],
    )
    def test_wrong_values_are_told(self, flags: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        result = call("token", "create", *flags)
        assert result.exit_code == 2
        assert words in result.stderr

    def test_why_a_token_is_refused_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        token = call("token", "create", "--user", "ada").stdout.strip()
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET[::-1])
        result = call("token", "inspect", token)
        assert result.exit_code == 1
        assert "Refused: its signature does not match" in result.stderr
        assert json.loads(result.stdout)["claims"]["sub"] == "ada"

    @pytest.mark.parametrize("text", ["", "x", "a.b.c", "e30.W10.x", "\N{SNOWMAN}.e30.x"])
    def test_what_is_no_token_is_told_so(self, text: str) -> None:
        result = call("token", "inspect", "-", given=text)
        assert result.exit_code == 1
        assert "This is no token" in result.stderr


class TestClusterStatus:
    def test_a_node_that_never_ran_is_told(self) -> None:
        result = call("cluster", "status", "--internal", "1")
        assert result.exit_code == 2
        assert result.stdout.startswith("CRIT  0 of 1 node up")
        assert "http://127.0.0.1:1 is unreachable: Connection refused" in result.stdout

    def test_a_node_is_found_by_its_data_directory(self, tmp_path: Path) -> None:
        endpoints.write(
            tmp_path, Endpoints(node="n", pid=1, public="http://127.0.0.1:2", internal="http://127.0.0.1:3")
        )
        result = call("cluster", "status", "--data-dir", str(tmp_path), "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)["unreachable"][0]["address"] == "http://127.0.0.1:3"

    def test_who_does_not_answer_is_not_waited_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            result = call("cluster", "status", "--internal", address, "--timeout", "0.1")
        assert result.exit_code == 2
        assert "no answer within 0.1 s" in result.stdout

    @pytest.mark.parametrize("address", ["x:y", "ftp://x", "http://", ":", "127.0.0.1:99999"])
    def test_what_is_no_address_is_told_so(self, address: str) -> None:
        result = call("cluster", "status", "--internal", address)
        assert result.exit_code == 2
        assert "is no address" in result.stderr


class TestLog:
    @pytest.mark.parametrize("command", ["verify", "stat"])
    def test_programs_get_json(self, command: str, tmp_path: Path) -> None:
        Log.open(tmp_path, LogOptions(durable=False), lambda: None).close()
        result = call("log", command, "--data-dir", str(tmp_path), "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["rooms"] == 0


class TestConfig:
    def test_a_configuration_that_can_be_used_is_told_what_is_off(self) -> None:
        result = call("config", "check")
        assert result.exit_code == 0
        assert "Client tokens are refused" in result.stdout

    def test_what_is_in_force_is_shown_without_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHAT_NODE_AUTH__SECRET", SECRET)
        monkeypatch.setenv("CHAT_NODE_LISTEN__PORT", "8765")
        result = call("config", "show")
        assert result.exit_code == 0
        assert "port = 8765  # CHAT_NODE_LISTEN__PORT" in result.stdout
        assert SECRET not in result.output

    def test_what_is_written_to_begin_with_can_be_used(self, tmp_path: Path) -> None:
        path = tmp_path / "chat-node.toml"
        assert call("config", "init", str(path)).exit_code == 0
        assert path.read_text() == call("config", "init").stdout
        assert call("config", "check", "--config", str(path)).exit_code == 0

    def test_a_file_that_exists_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "chat-node.toml"
        path.write_text("mine")
        result = call("config", "init", str(path))
        assert (result.exit_code, path.read_text()) == (1, "mine")
        assert "exists" in result.stderr


class TestRun:
    def test_the_summary_says_where_to_chat(self, tmp_path: Path) -> None:
        config = terminal.read_config(None, {"node.region": "eu", "node.data_dir": str(tmp_path)})
        here = Endpoints(node="n1", pid=1, public="https://chat:8000", internal="http://127.0.0.1:9000")
        console = terminal.output()
        with console.capture() as captured:
            console.print(summary(config, here))
        told = captured.get()
        for words in ("node n1 in region eu", "https://chat:8000/", "wss://chat:8000/connection/websocket",
                      "http://127.0.0.1:9000/metrics", str(tmp_path)):  # fmt: skip
            assert words in told

    @pytest.mark.parametrize(
        "fault", [ListenFault("port 8000 is in use"), StorageFault("locked", "data directory is locked by 12")]
    )
    def test_what_an_operator_can_mend_is_one_message(self, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: object) -> None:
            raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [fault])])

        monkeypatch.setattr("node.cli.launch", fail)
        result = call("run")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{fault}\n")

    def test_a_node_that_listens_is_announced_and_ends_with_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run(_: object, *, task_status: trio.TaskStatus[Endpoints]) -> None:
            task_status.started(
                Endpoints(node="n1", pid=1, public="http://127.0.0.1:8000", internal="http://[::1]:9000")
            )
            await trio.lowlevel.checkpoint()

        replace_app(monkeypatch, run)
        result = call("run", "--region", "eu", "--dev")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"chat-node {VERSION}: node n1 in region eu\n")

    def test_a_node_that_can_not_listen_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run(_: object, *, task_status: trio.TaskStatus[Endpoints]) -> None:  # noqa: ARG001 (never called)
            await trio.lowlevel.checkpoint()
            raise ListenFault("port 8000 is in use")

        replace_app(monkeypatch, run)
        result = call("run")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "port 8000 is in use\n")

    def test_ctrl_c_ends_quietly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run(_: object, *, task_status: trio.TaskStatus[Endpoints]) -> None:  # noqa: ARG001 (never called)
            await trio.lowlevel.checkpoint()
            raise KeyboardInterrupt

        replace_app(monkeypatch, run)
        result = call("run")
        assert (result.exit_code, result.output) == (130, "")

    def test_a_bug_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("node.cli.launch", fail)
        result = call("run")
        assert result.exit_code == 1
        assert isinstance(result.exception, ZeroDivisionError)

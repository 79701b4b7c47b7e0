"""``chat-node log``, as an operator calls it."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli import app
from router.completions import Persisted
from router.entry import GENESIS, Entry, Kind, make
from router.events import Batch
from router.ids import RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME

ANSWER_SECONDS = 20  # for a disk that others are busy on; nothing takes so long


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the person who runs the tests has a say."""
    for name in os.environ:
        if name.startswith("CHAT_NODE"):
            monkeypatch.delenv(name)


def messages() -> Iterator[Entry]:
    previous = GENESIS
    for number in (1, 2):
        room = RoomId("default", f"chat:{number}")
        data = json.dumps({"text": f"héllo {number}"}, ensure_ascii=False).encode()
        entry = make(
            7, number, 1, room, 1, 0, Kind.MESSAGE, b"s" * 12, f"id-{number}", 1_700_000_000_000 + number, b"x" * 16,
            data, b"", previous,
        )  # fmt: skip
        previous = entry.chain
        yield entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a log of two messages."""
    told = threading.Event()
    log = Log.open(tmp_path, LogOptions(durable=False), told.set)
    try:
        log.append(Batch(1, entries=list(messages())))
        assert told.wait(ANSWER_SECONDS)
        assert isinstance(log.completions.popleft(), Persisted)
    finally:
        log.close()
    return tmp_path


def call(command: str, folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["log", command, "--data-dir", str(folder), *arguments])


def damage(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.execute("UPDATE journal SET frame=x'00' WHERE n=1")
        connection.commit()


def test_verify_exits_with_0_when_all_is_well(folder: Path) -> None:
    result = call("verify", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "Read 2 entries (0 of them erased) of 0 filed rooms and 1 shards, and 1 journal frames.\nAll is well.\n"
    )


def test_verify_names_each_finding_and_exits_with_1(folder: Path) -> None:
    damage(folder)
    result = call("verify", folder)
    assert (result.exit_code, result.stdout) == (1, "frame 1 of the journal is damaged: its checksum does not match\n")
    assert result.stderr.endswith(f"Findings: 1. Restore {folder} from a backup.\n")


def test_stat_prints_the_figures(folder: Path) -> None:
    result = call("stat", folder)
    assert result.exit_code == 0
    lines = dict(
        line.split(maxsplit=1) for line in result.stdout.splitlines() if line.startswith(("rooms", "entries", "oldest"))
    )
    assert lines == {"rooms": "2", "entries": "2", "oldest": "2023-11-14T22:13:20.001+00:00"}
    assert result.stdout.endswith("shard 7         epoch 0, lsn 2, 2 in the journal only\n")


def test_export_prints_a_json_object_on_a_line(folder: Path) -> None:
    result = call("export", folder)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["data"]["text"] for line in lines] == ["héllo 1", "héllo 2"]
    assert [line["author"] for line in lines] == [None, None], "the entries name nobody"


def test_export_takes_a_site_and_a_channel(folder: Path) -> None:
    result = call("export", folder, "--site", "default", "--channel", "chat:2")
    assert [json.loads(line)["channel"] for line in result.stdout.splitlines()] == ["chat:2"]


@pytest.mark.parametrize("command", ["verify", "stat", "export"])
def test_a_directory_without_a_log_is_one_message(command: str, tmp_path: Path) -> None:
    result = call(command, tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"There is no log in {tmp_path}")


@pytest.mark.parametrize("command", ["stat", "export"])
def test_damage_is_one_message(command: str, folder: Path) -> None:
    damage(folder)
    result = call(command, folder)
    assert result.exit_code == 1
    assert "frame 1 of the journal is damaged" in result.stderr


def test_the_data_directory_of_the_configuration_is_the_default(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat-node.toml"
    file.write_text(f'[node]\nregion = "eu"\ndata_dir = "{folder}"\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["log", "verify", "--config", str(file)])
    assert result.exit_code == 0, result.stderr

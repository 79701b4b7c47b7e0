"""`chat-node cluster init` and `chat-node register`: what an operator makes, sees and is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from node.central.birth import UNHEARD
from node.central.store import Store, look
from node.cli import app
from router.completions import CasDone, Persisted
from router.events import Batch, Configuration, Promise
from router.ids import MemberId, RoomId
from router.log import LogOptions
from router.register_wire import Row
from tests.harness.log_writer import SHARD, LogWriter

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

ROOM = RoomId("default", "room:a")


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def write_log(folder: Path, node: str, *, named: bool = True) -> MemberId:
    """The log of a node that was alone: an entry of epoch 1, a promise of epoch 5, a row of version 2."""
    writer = LogWriter(folder, LogOptions(durable=False))
    member = MemberId(node, writer.log.meta.disk_id)
    if named:
        (folder / "node-name").write_text(f"{node}\n")
    writer.log.append(Batch(1, [Promise(SHARD, 5)], entries=[writer.entry(ROOM, 1)]))
    writer.wait(lambda done: isinstance(done, Persisted))
    for version in (1, 2):
        writer.log.cas(version - 1, Configuration(SHARD, version, version + 3, member, (member,)), version)
    writer.wait(lambda done: isinstance(done, CasDone) and done.token == 2)
    writer.log.close()
    return member


def test_a_cluster_is_founded_once(tmp_path: Path) -> None:
    said = run("cluster", "init", "--data-dir", tmp_path, "--copies", 2, "--min-sync", 1, "--shards", 16).output
    certificate, rows = look(tmp_path)
    assert (certificate.shards, certificate.copies, certificate.min_sync, rows) == (16, 2, 1, [])
    assert f"cluster {certificate.birth}, 16 shards, of which 0 are in use, 2 copies" in said
    assert "Start `chat-node central`" in said
    again = run("cluster", "init", "--data-dir", tmp_path, status=1)
    assert "there is a register" in again.output
    assert look(tmp_path) == (certificate, rows)


def test_two_clusters_differ_in_their_birth_and_their_secrets(tmp_path: Path) -> None:
    for name in "ab":
        run("cluster", "init", "--data-dir", tmp_path / name)
    one, other = look(tmp_path / "a")[0], look(tmp_path / "b")[0]
    assert one.birth != other.birth
    assert one.pseudonym_key != other.pseudonym_key
    assert len({one.guest_key, one.pseudonym_key, other.guest_key}) == 3


@pytest.mark.parametrize("command", [("cluster", "init"), ("register", "settings")])
def test_more_acknowledgements_than_copies_are_refused(tmp_path: Path, command: tuple[str, str]) -> None:
    said = run(*command, "--data-dir", tmp_path, "--copies", 2, "--min-sync", 3, status=2)
    assert "--min-sync 3: there are only 2 copies" in said.output


def test_a_node_that_was_alone_becomes_the_first_of_a_cluster(tmp_path: Path) -> None:
    member = write_log(tmp_path / "node", "eu-1")
    run("cluster", "init", "--data-dir", tmp_path / "central", "--from", tmp_path / "node")
    certificate, rows = look(tmp_path / "central")
    assert rows == [Row(SHARD, 2, 5, [member], member)]
    writer = LogWriter(tmp_path / "node", LogOptions(durable=False))
    try:
        meta = writer.log.meta
        assert (certificate.birth, certificate.pseudonym_key, certificate.guest_key, certificate.shards) == (
            meta.birth, meta.pseudonym_key, meta.guest_key, 128,
        )  # fmt: skip
        said = run("cluster", "init", "--data-dir", tmp_path / "other", "--from", tmp_path / "node", status=1)
        assert "is in use by process" in said.output
    finally:
        writer.log.close()
    said = run("cluster", "init", "--data-dir", tmp_path / "x", "--from", tmp_path / "node", "--shards", 128, status=2)
    assert "Give one of them" in said.output


def test_the_register_is_shown(tmp_path: Path) -> None:
    member = write_log(tmp_path / "node", "eu-1")
    run("cluster", "init", "--data-dir", tmp_path / "central", "--from", tmp_path / "node")
    said = run("register", "show", "--data-dir", tmp_path / "central").output
    assert "3 copies, acknowledged when 2 have it" in said
    assert f"shard {SHARD}     epoch 5      primary eu-1, others none" in said
    line = run("register", "show", "--data-dir", tmp_path / "central", "--json").output
    assert json.loads(line) == {
        "shard": SHARD, "version": 2, "epoch": 5, "primary": list(member), "members": [list(member)]
    }  # fmt: skip


def test_settings_are_changed_while_it_does_not_run(tmp_path: Path) -> None:
    run("cluster", "init", "--data-dir", tmp_path)
    store = Store.open(tmp_path, durable=False)
    try:
        said = run("register", "settings", "--data-dir", tmp_path, "--copies", 5, "--min-sync", 3, status=1)
        assert "is in use by process" in said.output
    finally:
        store.close()
    run("register", "settings", "--data-dir", tmp_path, "--copies", 5, "--min-sync", 3)
    certificate, _ = look(tmp_path)
    assert (certificate.copies, certificate.min_sync, certificate.settings) == (5, 3, 2)


def test_a_register_is_made_again_out_of_the_logs(tmp_path: Path) -> None:
    member = write_log(tmp_path / "node", "eu-1")
    run("register", "rebuild", "--data-dir", tmp_path / "central", "--from", tmp_path / "node", "--copies", 1,
        "--min-sync", 1)  # fmt: skip
    assert look(tmp_path / "central")[1] == [Row(SHARD, 5 + UNHEARD, 5 + UNHEARD, [member], member)]
    run("register", "rebuild", "--data-dir", tmp_path / "other", "--from", f"new={tmp_path / 'node'}")
    assert look(tmp_path / "other")[1][0].primary == ("new", member.disk)


def test_a_nodes_name_may_be_in_its_rows(tmp_path: Path) -> None:
    write_log(tmp_path / "node", "eu-1", named=False)
    run("register", "rebuild", "--data-dir", tmp_path / "central", "--from", tmp_path / "node")
    primary = look(tmp_path / "central")[1][0].primary
    assert primary is not None
    assert primary[0] == "eu-1"


def test_a_log_without_a_name_and_one_given_twice_are_refused(tmp_path: Path) -> None:
    LogWriter(tmp_path / "node", LogOptions(durable=False)).log.close()
    command = "register", "rebuild", "--data-dir", tmp_path / "central", "--from"
    assert "nothing there says the node's name" in run(*command, tmp_path / "node", status=2).output
    one = f"a={tmp_path / 'node'}"
    assert "two directories are of the node 'a'" in run(*command, one, "--from", one, status=2).output


def test_logs_of_two_clusters_make_no_register(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_log(tmp_path / name, name)
    said = run("register", "rebuild", "--data-dir", tmp_path / "central", "--from", tmp_path / "a",
               "--from", tmp_path / "b", status=1)  # fmt: skip
    assert "not of one cluster" in said.output
    assert not (tmp_path / "central").exists()

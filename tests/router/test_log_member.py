"""A log takes up a cluster's birth once, before anything is written; and says what it holds when its node is gone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from router.completions import CasDone, Filed, Persisted
from router.entry import Kind
from router.errors import StorageFault
from router.events import Batch, Configuration, Promise
from router.ids import MemberId, RoomId
from router.log import Log, LogOptions
from router.log_check import LogMeta
from router.log_member import adopt, check_alone, known_certificate, read_member
from router.log_schema import FILE_NAME
from router.register_wire import Certificate
from tests.harness.log_writer import SHARD, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CERTIFICATE = Certificate("c0ffee", 64, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
ROOM = RoomId("default", "room:a")


def opened(folder: Path, shards: int) -> LogMeta:
    log = Log.open(folder, LogOptions(durable=False, shards=shards), lambda: None)
    log.close()
    return log.meta


def test_a_log_is_made_with_the_clusters_birth(tmp_path: Path) -> None:
    adopt(tmp_path / "new", CERTIFICATE, durable=False)
    meta = opened(tmp_path / "new", 64)
    assert (meta.birth, meta.pseudonym_key, meta.guest_key) == ("c0ffee", b"p" * 32, b"g" * 32)


def test_a_log_without_entries_takes_it_up_and_stays_the_disk_that_it_is(tmp_path: Path) -> None:
    before = opened(tmp_path, 128)
    adopt(tmp_path, CERTIFICATE, durable=False)
    after = opened(tmp_path, 64)
    assert after == LogMeta("c0ffee", before.disk_id, b"p" * 32, b"g" * 32)


def test_a_log_of_the_same_birth_stays_as_it_is(tmp_path: Path) -> None:
    adopt(tmp_path, CERTIFICATE, durable=False)
    before = opened(tmp_path, 64)
    adopt(tmp_path, msgspec.structs.replace(CERTIFICATE, copies=5, settings=9), durable=False)
    assert opened(tmp_path, 64) == before


def test_the_newest_certificate_is_remembered_for_when_the_register_is_away(tmp_path: Path) -> None:
    assert known_certificate(tmp_path) is None
    opened(tmp_path, 64)
    assert known_certificate(tmp_path) is None
    adopt(tmp_path, CERTIFICATE, durable=False)
    assert known_certificate(tmp_path) == CERTIFICATE
    newer = msgspec.structs.replace(CERTIFICATE, copies=5, settings=2)
    for certificate in (newer, CERTIFICATE):  # the second is old news
        adopt(tmp_path, certificate, durable=False)
        assert known_certificate(tmp_path) == newer
    log = Log.open(tmp_path, LogOptions(durable=False, shards=64), lambda: None)
    try:
        assert known_certificate(tmp_path) == newer
    finally:
        log.close()


def test_a_log_of_a_cluster_is_not_for_a_node_alone(tmp_path: Path) -> None:
    check_alone(tmp_path / "new")
    opened(tmp_path, 128)
    check_alone(tmp_path)
    adopt(tmp_path, CERTIFICATE, durable=False)
    with pytest.raises(StorageFault, match="is of the cluster c0ffee: a node by itself would take"):
        check_alone(tmp_path)


def test_a_node_that_was_alone_remembers_the_certificate_made_of_it(
    tmp_path: Path, open_node: Callable[[], LogWriter]
) -> None:
    node = open_node()
    write(node, 1)
    meta = node.log.meta
    node.log.close()
    made = Certificate(meta.birth, 128, 1, 3, 2, 1, meta.pseudonym_key, meta.guest_key)
    adopt(tmp_path, made, durable=False)
    assert known_certificate(tmp_path) == made


@pytest.mark.parametrize("statement", ["UPDATE meta SET value=x'90'", "UPDATE meta SET value=7", "DROP TABLE meta"])
def test_a_certificate_that_is_not_what_was_written_is_refused(tmp_path: Path, statement: str) -> None:
    adopt(tmp_path, CERTIFICATE, durable=False)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as connection:
        connection.execute(statement)
    with pytest.raises(StorageFault):
        known_certificate(tmp_path)


def test_a_log_with_messages_of_another_birth_is_refused(tmp_path: Path, open_node: Callable[[], LogWriter]) -> None:
    node = open_node()
    write(node, 1)
    birth = node.log.meta.birth
    node.log.close()
    with pytest.raises(StorageFault, match=f"has messages of {birth}, and the cluster is c0ffee") as caught:
        adopt(tmp_path, CERTIFICATE, durable=False)
    assert caught.value.reason == "birth"
    assert opened(tmp_path, 128).birth == birth


@pytest.mark.parametrize("change", [{"shards": 32}, {"guest_key": b"x" * 32}])
def test_a_log_of_the_same_birth_with_other_values_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    adopt(tmp_path, CERTIFICATE, durable=False)
    with pytest.raises(StorageFault, match=f"of the cluster c0ffee, and its {next(iter(change))} is not"):
        adopt(tmp_path, msgspec.structs.replace(CERTIFICATE, **change), durable=False)


def test_a_cluster_that_maps_rooms_in_another_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="maps rooms to shards in way 2"):
        adopt(tmp_path / "new", msgspec.structs.replace(CERTIFICATE, mapping=2), durable=False)
    assert not (tmp_path / "new").exists()


def test_a_log_in_use_is_left_alone(tmp_path: Path) -> None:
    log = Log.open(tmp_path, LogOptions(durable=False), lambda: None)
    try:
        with pytest.raises(StorageFault, match="is in use by process"):
            adopt(tmp_path, CERTIFICATE, durable=False)
        with pytest.raises(StorageFault, match="is in use by process"):
            read_member(tmp_path)
    finally:
        log.close()


def write(node: LogWriter, count: int, kind: Kind = Kind.MESSAGE) -> None:
    """Entries that are on disk, committed and filed."""
    entries = [node.entry(ROOM, 1, kind) for _ in range(count)]
    node.ticket += 1
    node.log.append(Batch(node.ticket, [Promise(SHARD, 4)], entries=entries))
    node.wait(lambda done: isinstance(done, Persisted))
    node.log.committed(entries)
    node.wait(lambda done: isinstance(done, Filed))


@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.MARKS, Kind.META])
def test_the_end_of_a_filed_log_is_read(tmp_path: Path, open_node: Callable[[], LogWriter], kind: Kind) -> None:
    node = open_node()
    write(node, 3)
    write(node, 2, kind)
    lsn, chain = node.ends[SHARD]
    node.log.close()
    found = read_member(tmp_path)
    assert found.meta == node.log.meta
    assert found.shards == 128
    end = found.ends[SHARD]
    assert (end.epoch, end.tail.lsn, end.tail.chain, end.tail.promised, end.tail.commit) == (1, lsn, chain, 4, lsn)


def test_what_is_not_filed_counts_and_so_do_rows_and_promises(
    tmp_path: Path, open_node: Callable[[], LogWriter]
) -> None:
    node = open_node()
    write(node, 3)
    open_entries = [node.entry(ROOM, 1)]
    node.ticket += 1
    node.log.append(Batch(node.ticket, [Promise(SHARD, 6), Promise(9, 2)], entries=open_entries))
    member = MemberId("a", node.log.meta.disk_id)
    row = Configuration(SHARD, 1, 6, member, (member,))
    node.log.cas(0, row, None)
    node.wait(lambda done: isinstance(done, CasDone))
    of_others = Configuration(7, 3, 3, MemberId("b", "d2"), (MemberId("b", "d2"),))
    node.log.learn([of_others])
    node.reach()
    node.log.close()
    found = read_member(tmp_path)
    assert (found.rows, found.learned) == ({SHARD: row}, {7: of_others})
    end = found.ends[SHARD]
    assert (end.epoch, end.tail.lsn, end.tail.promised, end.tail.commit) == (1, 4, 6, 3)
    assert (found.ends[9].epoch, found.ends[9].tail.lsn, found.ends[9].tail.promised) == (0, 0, 2)


def test_an_end_that_retention_has_dropped_is_unknown(tmp_path: Path, open_node: Callable[[], LogWriter]) -> None:
    node = open_node()
    write(node, 3)
    node.log.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("DELETE FROM chunk")
    assert read_member(tmp_path).ends[SHARD].epoch is None
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("UPDATE place SET entries=x''")
    assert read_member(tmp_path).ends[SHARD].epoch is None


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("PRAGMA user_version=99", "version 99 of the log's tables"),
        ("DELETE FROM meta WHERE key='birth'", "its table meta is not whole"),
        ("UPDATE place SET entries=x'c1'", "the places of shard 3 up to lsn 3 can't be read"),
        ("UPDATE chunk SET wires=x'c1'", "is damaged"),
    ],
)
def test_what_is_not_what_was_written_is_refused(
    tmp_path: Path, open_node: Callable[[], LogWriter], statement: str, why: str
) -> None:
    node = open_node()
    write(node, 3)
    node.log.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as connection:
        connection.execute(statement)
    with pytest.raises(StorageFault, match=why):
        read_member(tmp_path)


def test_where_there_is_no_log_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match=f"There is no log in {tmp_path}"):
        read_member(tmp_path)

"""A log as a member of a cluster: taking up the cluster's birth, and what a log whose node does not run says of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from router.entry import Kind, decode, split
from router.errors import CorruptEntry, StorageFault
from router.log_check import LogMeta
from router.log_faults import storage_fault
from router.log_lock import take_lock
from router.log_schema import EPOCHS, FILE_NAME, MARKS, META, MIGRATIONS, VISIBLE, open_reader, open_writer
from router.register_wire import MAPPING, Certificate, encode
from router.replay import replay
from router.row_tables import LEARNED, read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from router.events import Configuration, ShardTail

_decode_places = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode  # room's number, place, kind
_CERTIFICATE: Final = "certificate"  # of meta
_WRITTEN: Final = (
    "journal",
    "register",
    "learned",
    "shard",
    "room",
)  # tables that are empty until something is written


@dataclass(slots=True, frozen=True)
class LogEnd:
    """The end of a shard's log.

    Attributes:
        tail: Where it ends, and what it has promised.
        epoch: Of the last entry; None: there is an entry, and retention has dropped it; 0: there is none.
    """

    tail: ShardTail
    epoch: int | None


@dataclass(slots=True, frozen=True)
class MemberLog:
    """What a log says of its cluster.

    Attributes:
        folder: Its data directory.
        meta: Names and secrets.
        shards: Over how many rooms are spread.
        rows: Of this node's own register.
        learned: Of other registers, as far as this node had heard of them and written that down.
        ends: Of the shards' logs.
    """

    folder: Path
    meta: LogMeta
    shards: int
    rows: Mapping[int, Configuration]
    learned: Mapping[int, Configuration]
    ends: Mapping[int, LogEnd]


def adopt(folder: Path, certificate: Certificate, *, durable: bool = True) -> None:
    """Have the log of a data directory be of a cluster, before it is opened; blocks.

    A log without entries, or that is made by this, takes up the cluster's birth. One of the same birth only remembers
    the certificate, if it is newer, for `known_certificate`.

    Args:
        folder: The data directory.
        certificate: The cluster's.
        durable: False: without fsync, for tests.

    Raises:
        StorageFault: The log is of another birth, or another process has it, or the disk fails.
    """
    path = folder / FILE_NAME
    if certificate.mapping != MAPPING:
        raise StorageFault(
            "version",
            f"The cluster {certificate.birth} maps rooms to shards in way {certificate.mapping}; this chat-node knows"
            f" way {MAPPING}. Run a chat-node as new as the others.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder)
        try:
            synchronous = "FULL" if durable else "OFF"
            with closing(open_writer(path, synchronous=synchronous, shards=certificate.shards)) as connection:
                _adopt(connection, path, certificate)
        finally:
            os.close(lock)
    except (sqlite3.Error, OSError, CorruptEntry) as error:
        raise storage_fault(error, path) from error


def _adopt(connection: sqlite3.Connection, path: Path, certificate: Certificate) -> None:
    execute = connection.execute
    wanted = {
        "birth": certificate.birth.encode(),
        "pseudonym_key": certificate.pseudonym_key,
        "guest_key": certificate.guest_key,
        "shards": b"%d" % certificate.shards,
    }
    found = dict(execute("SELECT key, value FROM meta").fetchall())
    if wanted.items() <= found.items():
        known = _certificate_in(found)
        if known is None or known.settings < certificate.settings:
            _write(connection, {_CERTIFICATE: encode(certificate)})
        return
    written = [table for table in _WRITTEN if execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]  # noqa: S608
    birth = bytes(found.get("birth", b"")).decode(errors="replace")
    if birth == certificate.birth:
        differ = ", ".join(sorted(key for key, value in wanted.items() if found.get(key) != value))
        raise CorruptEntry(f"it is of the cluster {birth}, and its {differ} is not that cluster's")
    if written:
        raise StorageFault(
            "birth",
            f"{path} has messages of {birth}, and the cluster is {certificate.birth}: they can't become one. Give an"
            " empty --data-dir; or, to make a cluster out of this node, make the register out of its log"
            " (`chat-node cluster init --from`).",
        )
    _write(connection, {**wanted, _CERTIFICATE: encode(certificate)})


def _write(connection: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT OR REPLACE INTO meta(key, value) VALUES (?,?)", list(values.items()))
    connection.execute("COMMIT")


def known_certificate(folder: Path) -> Certificate | None:
    """The certificate that the log of a data directory has taken up; None: there is none, or none was taken up.

    With it a node starts while the register can't be reached: members that are there again let shards go on whose
    primary is up. How many copies there are to be may have changed since; the register says that when it is back.

    Raises:
        StorageFault: The log can't be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        with closing(open_reader(path)) as connection:
            return _certificate_in(dict(connection.execute("SELECT key, value FROM meta").fetchall()))
    except (sqlite3.Error, CorruptEntry) as error:
        raise storage_fault(error, path) from error


def check_alone(folder: Path) -> None:
    """See that a log may be used by a node alone, with its own register.

    Raises:
        StorageFault: It is of a cluster, whose register says who is primary; or it can't be read.
    """
    certificate = known_certificate(folder)
    if certificate is not None:
        raise StorageFault(
            "birth",
            f"The log in {folder} is of the cluster {certificate.birth}: a node by itself would take messages for rooms"
            " that other nodes serve. Give cluster.listen and cluster.central, or another --data-dir.",
        )


def _certificate_in(meta: Mapping[str, bytes]) -> Certificate | None:
    value = meta.get(_CERTIFICATE)
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=Certificate)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
        raise CorruptEntry(f"its cluster's certificate can't be read: {error}") from error


def read_member(folder: Path) -> MemberLog:
    """What the log of a node that does not run says of its cluster.

    Args:
        folder: The data directory.

    Raises:
        StorageFault: There is no log, its node runs, it is damaged, or of another version.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise StorageFault("io", f"There is no log in {folder}: {path} is missing. Give the data directory of a node.")
    try:
        lock = take_lock(folder)
        try:
            with closing(open_reader(path)) as connection:
                connection.execute("BEGIN")
                return _read_member(connection, folder)
        finally:
            os.close(lock)
    except (sqlite3.Error, OSError, CorruptEntry) as error:
        raise storage_fault(error, path) from error


def _read_member(connection: sqlite3.Connection, folder: Path) -> MemberLog:
    path = folder / FILE_NAME
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version != len(MIGRATIONS):
        raise StorageFault(
            "version",
            f"{path} has version {version} of the log's tables, this chat-node reads {len(MIGRATIONS)}. Run a chat-node"
            " as new as the one that wrote it; or start its node once by itself, if it is an older one's.",
        )
    values = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    try:
        meta = LogMeta(
            bytes(values["birth"]).decode(), bytes(values["disk_id"]).decode(),
            bytes(values["pseudonym_key"]), bytes(values["guest_key"]),
        )  # fmt: skip
        shards = int(values["shards"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptEntry(f"its table meta is not whole: {error!r}") from error
    recovered = replay(connection, path).recovered
    epochs = {entry.shard: entry.epoch for entry in recovered.unfiled}  # of each shard in order, so the last stays
    ends = {
        shard: LogEnd(tail, epochs[shard] if shard in epochs else _filed_epoch(connection, shard, tail.lsn))
        for shard, tail in recovered.shards.items()
    }
    return MemberLog(folder, meta, shards, recovered.configurations, read_rows(connection, LEARNED), ends)


def _filed_epoch(connection: sqlite3.Connection, shard: int, lsn: int) -> int | None:
    """The epoch of the last entry that is filed; None: it has been dropped."""
    if not lsn:
        return 0
    row = connection.execute("SELECT entries FROM place WHERE shard=? AND last=?", (shard, lsn)).fetchone()
    if row is None or not row[0]:
        return None
    try:
        room, place, kind = _decode_places(row[0])[-1]
    except (msgspec.MsgspecError, IndexError) as error:
        raise CorruptEntry(f"the places of shard {shard} up to lsn {lsn} can't be read: {error}") from error
    stream = {Kind.META: META, Kind.EPOCH: EPOCHS, Kind.MARKS: MARKS}.get(Kind(kind), VISIBLE)
    chunk = connection.execute(
        "SELECT wires FROM chunk WHERE room=? AND stream=? AND first<=? AND last>=?", (room, stream, place, place)
    ).fetchone()
    if chunk is None:
        return None
    entries = (decode(wire, None) for wire in split(chunk[0]))
    return next((entry.epoch for entry in entries if (entry.shard, entry.lsn) == (shard, lsn)), None)

"""Verifying, measuring and exporting a log, undamaged and damaged."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from router import journal, log
from router.completions import Filed, Persisted
from router.entry import GENESIS, Entry, Kind, decode, erase, make, split
from router.errors import StorageFault
from router.events import Batch, Promise, Truncate
from router.ids import RoomId
from router.log import Log, LogOptions
from router.log_schema import FILE_NAME
from router.log_tools import ShardStat, export, stat, verify

if TYPE_CHECKING:
    from pathlib import Path

LOBBY: Final = RoomId("default", "chat:lobby")
GARDEN: Final = RoomId("acme", "chat:garden")
SHARD: Final = 3
ANSWER_SECONDS: Final = 20  # for a disk that others are busy on; nothing takes so long


def entries_of_a_shard() -> list[Entry]:
    """An EPOCH entry, four messages in two rooms with a META entry between them, and two more messages."""
    made: list[Entry] = []

    def add(room: RoomId, sequence: int, meta_n: int, kind: Kind, data: bytes) -> None:
        lsn = len(made) + 1
        previous = made[-1].chain if made else GENESIS
        cmid = f"id-{lsn}" if kind == Kind.MESSAGE else ""
        made.append(
            make(
                SHARD,
                lsn,
                1,
                room,
                sequence,
                meta_n,
                kind,
                b"s" * 12,
                cmid,
                1000 + lsn,
                b"x" * 16,
                data,
                b'"u"',
                previous,
            )
        )

    add(RoomId("", ""), 0, 0, Kind.EPOCH, b"{}")
    add(LOBBY, 1, 0, Kind.MESSAGE, b'{"text":"one"}')
    add(LOBBY, 1, 1, Kind.META, b"{}")
    add(LOBBY, 2, 1, Kind.MESSAGE, b"not JSON")
    add(GARDEN, 1, 0, Kind.MESSAGE, b'{"text":"flowers"}')
    add(LOBBY, 3, 1, Kind.MESSAGE, b'{"text":"three"}')
    add(LOBBY, 4, 1, Kind.MESSAGE, b'{"text":"four"}')
    add(GARDEN, 2, 0, Kind.SYSTEM, b'{"text":"unfiled"}')
    return made


FILED: Final = 6  # of these entries; the others stay in the journal


class Writing:
    """A log that tells when it has done something."""

    def __init__(self, folder: Path) -> None:
        self._told = threading.Event()
        self.log = Log.open(folder, LogOptions(durable=False), self._told.set)

    def wait(self, kind: type) -> None:
        """Until the log answers with a completion of this kind."""
        while True:
            while self.log.completions:
                if isinstance(self.log.completions.popleft(), kind):
                    return
            assert self._told.wait(ANSWER_SECONDS)
            self._told.clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a log that is partly filed, and no node."""
    monkeypatch.setattr(log, "FILE_AFTER_SECONDS", 0.0)
    entries = entries_of_a_shard()
    writing = Writing(tmp_path)
    try:
        for ticket, batch in enumerate((entries[:FILED], entries[FILED:7], entries[7:]), start=1):
            writing.log.append(Batch(ticket, [Promise(SHARD, 1)], [], batch, {}))
            writing.wait(Persisted)
        writing.log.committed(entries[:FILED])
        writing.wait(Filed)
    finally:
        writing.log.close()
    return tmp_path


def change(folder: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.execute(statement, parameters)
        connection.commit()


def read(folder: Path, statement: str) -> bytes:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        value = connection.execute(statement).fetchone()[0]
        assert isinstance(value, bytes)
        return value


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


LOBBY_CHUNK: Final = "FROM chunk WHERE stream=0 AND room=(SELECT id FROM room WHERE channel='chat:lobby')"


def test_a_log_as_it_was_written_has_no_findings(folder: Path) -> None:
    report = verify(folder)
    assert report.findings == ()
    assert (report.rooms, report.entries, report.erased, report.frames, report.shards) == (2, 8, 0, 2, 1)


def test_a_log_is_verified_while_its_node_has_it_open(folder: Path) -> None:
    writing = Writing(folder)
    try:
        assert verify(folder).findings == ()
    finally:
        writing.log.close()


def test_an_erased_entry_is_counted_and_well(folder: Path) -> None:
    wires = list(split(read(folder, f"SELECT wires {LOBBY_CHUNK}")))
    change(
        folder, f"UPDATE chunk SET wires=? WHERE id=(SELECT id {LOBBY_CHUNK})", b"".join([erase(wires[0]), *wires[1:]])
    )
    report = verify(folder)
    assert (report.findings, report.erased) == ((), 1)


@pytest.mark.parametrize(
    ("place", "finding"),
    [
        (-1, "room 'chat:lobby' of site 'default': sequences 1 to 3 are damaged: the body of entry 3/6"),
        (0, "room 'chat:lobby' of site 'default': sequences 1 to 3 are damaged: an entry of"),
    ],
    ids=["body", "length"],
)
def test_a_flipped_byte_in_a_chunk_is_found(folder: Path, place: int, finding: str) -> None:
    wires = flipped(
        read(folder, f"SELECT wires {LOBBY_CHUNK}"), place % len(read(folder, f"SELECT wires {LOBBY_CHUNK}"))
    )
    change(folder, f"UPDATE chunk SET wires=? WHERE id=(SELECT id {LOBBY_CHUNK})", wires)
    assert verify(folder).findings[0].startswith(finding)


def test_a_changed_header_breaks_the_chain(folder: Path) -> None:
    wires = read(folder, f"SELECT wires {LOBBY_CHUNK}")
    assert b"id-4" in wires
    change(folder, f"UPDATE chunk SET wires=? WHERE id=(SELECT id {LOBBY_CHUNK})", wires.replace(b"id-4", b"id-5"))
    assert verify(folder).findings == ("shard 3: the chain breaks at its end, lsn 6",)


def test_a_flipped_byte_in_a_journal_frame_is_found(folder: Path) -> None:
    frame = read(folder, "SELECT frame FROM journal WHERE n=2")
    change(folder, "UPDATE journal SET frame=? WHERE n=2", flipped(frame, 20))
    assert verify(folder).findings == (
        "frame 2 of the journal is damaged: its checksum does not match",
        "lsn 7 to 7 of shard 3 are missing before frame 3 of the journal",
    )


def test_a_missing_chunk_is_found(folder: Path) -> None:
    change(folder, f"DELETE FROM chunk WHERE id=(SELECT id {LOBBY_CHUNK})")
    found = verify(folder).findings
    assert found[0] == "room 'chat:lobby' of site 'default': sequences 1 to 3 are missing"
    assert found[1].startswith("shard 3: lsn 1 to 6: the chain can't be followed, entry 1 of room number")
    assert len(found) == 2


def test_a_damaged_epoch_entry_is_found(folder: Path) -> None:
    wire = read(folder, "SELECT wires FROM chunk WHERE stream=2")
    change(folder, "UPDATE chunk SET wires=? WHERE stream=2", flipped(wire, len(wire) - 1))
    assert verify(folder).findings == (
        "shard 3: EPOCH entries 1 to 1 are damaged: the body of entry 3/1 does not match its hash",
    )


def test_a_missing_epoch_entry_is_found(folder: Path) -> None:
    change(folder, "DELETE FROM chunk WHERE stream=2")
    (finding,) = verify(folder).findings
    assert finding.startswith("shard 3: lsn 1 to 6: the chain can't be followed, entry 1 of room number -4")


def test_a_room_that_was_moved_to_another_shard_by_damage_is_found(folder: Path) -> None:
    change(folder, "UPDATE room SET shard=1 WHERE channel='chat:garden'")
    (finding,) = verify(folder).findings
    assert finding.startswith("room 'chat:garden' of site 'acme': sequences 1 to 1 are damaged: <Entry 3/5")


def test_a_frame_whose_truncation_lies_past_the_end_is_found(folder: Path) -> None:
    frame = journal.encode([Batch(1, truncations=[Truncate(SHARD, 11)])])
    change(folder, "INSERT INTO journal(n, frame) VALUES (4, ?)", frame)
    assert verify(folder).findings == ("frame 4 of the journal truncates shard 3 to lsn 11, past its end",)


def test_truncated_entries_are_not_exported(folder: Path) -> None:
    frame = journal.encode([Batch(1, truncations=[Truncate(SHARD, 7)])])
    change(folder, "INSERT INTO journal(n, frame) VALUES (4, ?)", frame)
    assert verify(folder).findings == ()
    assert [e["sequence"] for e in export(folder, site="acme")] == [1]


def test_entries_that_retention_dropped_are_not_missing(folder: Path) -> None:
    change(folder, f"DELETE FROM chunk WHERE id=(SELECT id {LOBBY_CHUNK})")
    change(folder, "UPDATE room SET floor=3 WHERE channel='chat:lobby'")
    assert verify(folder).findings == ()


def test_missing_places_are_found(folder: Path) -> None:
    change(folder, "DELETE FROM place")
    assert verify(folder).findings == ("shard 3: the places end at lsn 0, what is filed at 6",)


def test_a_missing_journal_frame_is_found(folder: Path) -> None:
    change(folder, "UPDATE journal SET n=4 WHERE n=3")
    assert verify(folder).findings == ("frames 3 to 3 of the journal are missing",)


def test_an_unfiled_entry_that_does_not_follow_its_room_is_found(folder: Path) -> None:
    change(folder, "UPDATE room SET sequence=0 WHERE channel='chat:garden'")
    assert verify(folder).findings == (
        "room 'chat:garden' of site 'acme': sequences 1 to 1 are past the end that the room knows",
        "room 'chat:garden' of site 'acme': sequence 2 stands in the journal where 1 should",
    )


def test_a_damaged_page_of_the_file_is_a_finding(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='chunk'").fetchone()[0]
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 100)
    assert any("damaged" in finding or "can't be read" in finding for finding in verify(folder).findings)


def test_a_log_is_measured_with_what_is_only_in_the_journal(folder: Path) -> None:
    found = stat(folder)
    assert (found.rooms, found.entries, found.frames) == (2, 6, 2)
    assert (found.oldest_ts, found.newest_ts) == (1002, 1008)
    assert found.shards == (ShardStat(SHARD, 0, 8, FILED),)
    assert found.bytes > 0


def test_an_empty_log_has_no_oldest_entry(tmp_path: Path) -> None:
    Writing(tmp_path).log.close()
    found = stat(tmp_path)
    assert (found.entries, found.oldest_ts, found.shards) == (0, None, ())
    assert verify(tmp_path).findings == ()


def test_an_export_gives_room_by_room_what_clients_see(folder: Path) -> None:
    entries = list(export(folder))
    assert [(e["channel"], e["sequence"], e["data"]) for e in entries] == [
        ("chat:garden", 1, {"text": "flowers"}),
        ("chat:garden", 2, {"text": "unfiled"}),
        ("chat:lobby", 1, {"text": "one"}),
        ("chat:lobby", 2, "not JSON"),
        ("chat:lobby", 3, {"text": "three"}),
        ("chat:lobby", 4, {"text": "four"}),
    ]
    assert entries[1] == {
        "site": "acme", "channel": "chat:garden", "sequence": 2, "kind": "system", "ts": 1008, "cmid": "",
        "author": "u", "data": {"text": "unfiled"}, "erased": False, "removed": False,
    }  # fmt: skip


def test_an_export_can_be_of_one_site_or_channel(folder: Path) -> None:
    assert {e["channel"] for e in export(folder, site="acme")} == {"chat:garden"}
    assert {e["site"] for e in export(folder, channel="chat:lobby")} == {"default"}
    assert not list(export(folder, site="acme", channel="chat:lobby"))


def test_an_export_of_an_erased_entry_has_no_data(folder: Path) -> None:
    wires = list(split(read(folder, f"SELECT wires {LOBBY_CHUNK}")))
    assert decode(erase(wires[0]), None).erased
    change(
        folder, f"UPDATE chunk SET wires=? WHERE id=(SELECT id {LOBBY_CHUNK})", b"".join([erase(wires[0]), *wires[1:]])
    )
    first, *_ = export(folder, channel="chat:lobby")
    assert (first["author"], first["data"], first["erased"], first["cmid"]) == (None, None, True, "id-2")


def test_an_export_stops_at_damage_and_says_what_to_do(folder: Path) -> None:
    change(folder, f"UPDATE chunk SET wires=? WHERE id=(SELECT id {LOBBY_CHUNK})", b"broken")
    with pytest.raises(StorageFault, match=r"is damaged: .*chat-node log verify"):
        list(export(folder))


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="There is no log in"):
        verify(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_log_of_another_version_is_refused(folder: Path) -> None:
    change(folder, "PRAGMA user_version=99")
    with pytest.raises(StorageFault, match="version 99"):
        stat(folder)

"""Whether a log is what was written: every frame, chunk and chain of it."""

from __future__ import annotations

import sqlite3
import struct
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from router.entry import GENESIS, Entry, Kind, decode, link, split
from router.errors import CorruptEntry
from router.ids import RoomId
from router.journal import Cuts, Frame, without
from router.journal import decode as decode_frame
from router.log_schema import EPOCHS, MARKS, META, VISIBLE
from router.replay import voided
from router.row_tables import LEARNED, read_rows

CHUNKS_KEPT: Final = 512  # a slice of filing makes no more; at most 64 KiB each
DAMAGES: Final = 100  # that SQLite itself lists

_STREAMS: Final = {int(Kind.META): META, int(Kind.MARKS): MARKS, int(Kind.EPOCH): EPOCHS}
_decode_places = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode  # room's number, place, kind


@dataclass(slots=True, frozen=True)
class Report:
    """What was read, and what is wrong with it.

    Attributes:
        findings: One sentence each, naming the room, shard or frame; empty: all is well.
        rooms: In the tables.
        entries: Of all kinds, filed or not.
        erased: Of these, without their bodies.
        frames: Of the journal.
        shards: That have a log.
    """

    findings: tuple[str, ...]
    rooms: int
    entries: int
    erased: int
    frames: int
    shards: int


@dataclass(slots=True)
class JournalState:
    """What the journal adds to the tables.

    Attributes:
        frames: How many there are.
        filed: By shard, the lsn of the last entry that the tables have.
        heads: By shard, the lsn of its last entry.
        unfiled: By shard, the entries that the tables don't have.
        findings: What is wrong.
    """

    frames: int = 0
    filed: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    unfiled: dict[int, list[Entry]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def read_journal(connection: sqlite3.Connection) -> JournalState:
    """Read all frames, going on behind a damaged one."""
    filed = dict(connection.execute("SELECT shard, lsn FROM shard").fetchall())
    state = JournalState(filed=filed, heads=dict(filed))
    cuts, since = Cuts(), voided(connection)
    for number, data in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
        with suppress(CorruptEntry):  # said below
            cuts.note(number, without(decode_frame(data), number, since))
    previous: int | None = None
    for number, data in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
        if previous is not None and number != previous + 1:
            state.findings.append(f"frames {previous + 1} to {number - 1} of the journal are missing")
        previous = number
        state.frames += 1
        try:
            _apply(without(decode_frame(data), number, since), state, number, cuts)
        except CorruptEntry as error:
            state.findings.append(f"frame {number} of the journal is damaged: {error}")
    return state


def _apply(frame: Frame, state: JournalState, number: int, cuts: Cuts) -> None:
    for shard, given in frame.truncations:
        lsn = min(given, cuts.end(shard, number))
        kept = [entry for entry in state.unfiled.get(shard, ()) if entry.lsn <= lsn]
        if lsn > state.heads.get(shard, 0):
            state.findings.append(f"frame {number} of the journal truncates shard {shard} to lsn {lsn}, past its end")
        state.unfiled[shard], state.heads[shard] = kept, max(lsn, state.filed.get(shard, 0))
    for wire in frame.entries():
        entry = decode(wire, None)
        head = state.heads.get(entry.shard, 0)
        if entry.lsn <= state.filed.get(entry.shard, 0) or entry.lsn > cuts.end(entry.shard, number):
            continue  # filed before, or truncated later
        if entry.lsn != head + 1:
            state.findings.append(
                f"lsn {head + 1} to {entry.lsn - 1} of shard {entry.shard} are missing before frame {number} of the"
                " journal"
            )
        state.heads[entry.shard] = entry.lsn
        state.unfiled.setdefault(entry.shard, []).append(entry)


@dataclass(slots=True, frozen=True)
class _Stream:
    """Chunks of one room and one kind of entries.

    Attributes:
        name: For findings.
        room: Whose entries; the empty room for the EPOCH entries of a shard.
        shard: Whose entries.
        number: What stands as the room in the chunks' rows.
        streams: And as the stream, one of them.
        begin: The place from which entries must be here.
        end: The last place, from `begin` to which all must be here; None: any may be.
        holes: Up to this place some need not be here.
    """

    name: str
    room: RoomId
    shard: int
    number: int
    streams: tuple[int, ...]
    begin: int
    end: int | None
    holes: int = 0

    def place(self, entry: Entry) -> int:
        """The place of an entry in this stream; -1: it belongs to another."""
        if entry.room != self.room or entry.shard != self.shard:
            return -1
        if entry.visible:
            return entry.sequence if VISIBLE in self.streams else -1
        if entry.kind != Kind.EPOCH:
            return entry.meta_n if META in self.streams else -1
        return entry.lsn if EPOCHS in self.streams else -1


class Verification:
    """One pass over a log.

    Args:
        connection: Reads; in a transaction, so that what is read is of one moment.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._findings: list[str] = []
        self._rooms = self._entries = self._erased = self._frames = self._shards = 0
        self._chunks: OrderedDict[int, list[bytes]] = OrderedDict()

    def run(self) -> Report:
        """Read everything, as far as SQLite can."""
        for what, part in (
            ("file", self._verify_file),
            ("rooms", self._verify_rooms),
            ("shards", self._verify_shards),
            ("journal", self._verify_journal),
            ("quarantine", self._verify_quarantine),
            ("learned rows", self._verify_learned),
        ):
            try:
                part()
            except sqlite3.DatabaseError as error:
                self._findings.append(f"the {what} can't be read to the end: {error}")
        return Report(
            tuple(self._findings), self._rooms, self._entries, self._erased, self._frames, self._shards
        )  # fmt: skip

    def _verify_file(self) -> None:
        found = [row[0] for row in self._execute(f"PRAGMA quick_check({DAMAGES})")]
        self._findings += [f"the file is damaged: {text}" for text in found if text != "ok"]

    def _verify_rooms(self) -> None:
        rows = self._execute(
            "SELECT id, site, channel, shard, sequence, meta_n, floor, marks_floor FROM room WHERE shard NOT IN"
            " (SELECT shard FROM importing) ORDER BY id"
        )
        for number, site, channel, shard, sequence, meta_n, floor, marks_floor in rows:
            self._rooms += 1
            name = f"room {channel!r} of site {site!r}"
            room = RoomId(site, channel)
            self._verify_stream(_Stream(f"{name}: sequences", room, shard, number, (VISIBLE,), floor + 1, sequence))
            self._verify_stream(
                _Stream(f"{name}: META entries", room, shard, number, (META, MARKS), 1, meta_n, marks_floor)
            )
        lost = self._execute(
            "SELECT room, count(*) FROM chunk WHERE room>0 AND room NOT IN (SELECT id FROM room) GROUP BY room"
        )
        self._findings += [f"{count} chunks belong to room number {room}, which does not exist" for room, count in lost]

    def _verify_stream(self, stream: _Stream) -> None:
        rows = self._execute(
            "SELECT first, last, wires FROM chunk WHERE room=? AND stream IN (?,?) ORDER BY first",
            (stream.number, stream.streams[0], stream.streams[-1]),
        )
        due = stream.begin
        for first, last, wires in rows:
            needed = max(due, stream.holes + 1)
            if first > needed and stream.end is not None:
                self._findings.append(f"{stream.name} {needed} to {first - 1} are missing")
            elif stream.begin < due and first < due:
                self._findings.append(f"{stream.name} {first} to {due - 1} are there twice")
            self._verify_chunk(stream, first, last, wires)
            due = max(due, last + 1)
        if stream.end is None:
            return
        due = max(due, stream.holes + 1)
        if due <= stream.end:
            self._findings.append(f"{stream.name} {due} to {stream.end} are missing")
        elif due > stream.end + 1:
            self._findings.append(f"{stream.name} {stream.end + 1} to {due - 1} are past the end that the room knows")

    def _verify_chunk(self, stream: _Stream, first: int, last: int, wires: bytes) -> None:
        due = first
        wrong = ""
        try:
            for wire in split(wires):
                entry = decode(wire, None)
                self._count(entry)
                if stream.place(entry) != due:
                    wrong = wrong or f"{entry!r} stands where {due} should"
                due += 1
        except CorruptEntry as error:
            wrong = wrong or str(error)
        if not wrong and due != last + 1:
            wrong = f"it ends at {due - 1}"
        if wrong:
            self._findings.append(f"{stream.name} {first} to {last} are damaged: {wrong}")

    def _count(self, entry: Entry) -> None:
        self._entries += 1
        self._erased += entry.erased

    def _verify_shards(self) -> None:
        rows = self._execute(
            "SELECT shard, lsn, chain, floor, floor_chain FROM shard WHERE shard NOT IN (SELECT shard FROM importing)"
            " ORDER BY shard"
        ).fetchall()
        for shard, lsn, chain, floor, floor_chain in rows:
            self._shards += 1
            name = f"shard {shard}: EPOCH entries"
            self._verify_stream(_Stream(name, RoomId("", ""), shard, -1 - shard, (EPOCHS,), 0, None))
            self._verify_chain(shard, lsn, chain, floor, floor_chain if floor else GENESIS)

    def _verify_chain(self, shard: int, lsn: int, chain: bytes, floor: int, floor_chain: bytes) -> None:
        due = floor + 1  # retention dropped the places before it
        reached: bytes | None = floor_chain  # None: entries are missing, so nobody can tell
        rows = self._execute("SELECT first, last, before, entries FROM place WHERE shard=? ORDER BY first", (shard,))
        for first, last, before, entries in rows:
            if first != due:
                self._findings.append(f"shard {shard}: the places go from lsn {due - 1} to {first}")
            elif reached is not None and before != reached:
                self._findings.append(f"shard {shard}: the chain breaks before lsn {first}")
            reached = self._follow(f"shard {shard}: lsn {first} to {last}", last - first + 1, before, entries)
            due = last + 1
        if due != lsn + 1:
            self._findings.append(f"shard {shard}: the places end at lsn {due - 1}, what is filed at {lsn}")
        elif reached is not None and reached != chain:
            self._findings.append(f"shard {shard}: the chain breaks at its end, lsn {lsn}")

    def _follow(self, name: str, count: int, chain: bytes, places: bytes) -> bytes | None:
        """The chain at the end of a run; None if entries of it aren't here (any more)."""
        if not places:
            return None
        try:
            listed = _decode_places(places)
        except msgspec.MsgspecError as error:
            self._findings.append(f"{name}: their places can't be read: {error}")
            return None
        if len(listed) != count:
            self._findings.append(f"{name}: there are {len(listed)} places")
            return None
        reached: bytes | None = chain
        for room, place, kind in listed:
            stream = VISIBLE if kind <= Kind.SYSTEM else _STREAMS[kind]
            wire = self._find(room, stream, place)
            if wire is not None:
                reached = None if reached is None else link(reached, wire)
            elif self._was_dropped(room, stream, place):
                reached = None  # but others of the run must still be here
            else:
                self._findings.append(
                    f"{name}: the chain can't be followed, entry {place} of room number {room} (stream {stream}) is"
                    " missing"
                )
                return None
        return reached

    def _was_dropped(self, room: int, stream: int, place: int) -> bool:
        """Whether retention may have dropped the entry at a place."""
        row = self._execute("SELECT floor, marks_floor FROM room WHERE id=?", (room,)).fetchone()
        floors = {VISIBLE: row[0], MARKS: row[1]} if row is not None else {}
        return bool(place <= floors.get(stream, 0))

    def _find(self, room: int, stream: int, place: int) -> bytes | None:
        """The canonical bytes of the entry at a place."""
        row = self._execute(
            "SELECT id, first, last FROM chunk WHERE room=? AND stream=? AND first<=? ORDER BY first DESC LIMIT 1",
            (room, stream, place),
        ).fetchone()
        if row is None or row[2] < place:
            return None
        number, first, _ = row
        wires = self._wires(number)
        return wires[place - first] if place - first < len(wires) else None

    def _wires(self, chunk: int) -> list[bytes]:
        """The entries of a chunk as far as they can be told apart; the latest chunks are remembered."""
        kept = self._chunks.get(chunk)
        if kept is not None:
            self._chunks.move_to_end(chunk)
            return kept
        kept = []
        try:
            for wire in split(self._execute("SELECT wires FROM chunk WHERE id=?", (chunk,)).fetchone()[0]):
                link(GENESIS, wire)
                kept.append(wire)
        except (CorruptEntry, struct.error):
            pass  # said when the room was read
        self._chunks[chunk] = kept
        if len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        return kept

    def _verify_journal(self) -> None:
        journal = read_journal(self._connection)
        self._frames = journal.frames
        self._findings += journal.findings
        self._shards = len(journal.heads)
        due: dict[RoomId, int] = {}
        for entries in journal.unfiled.values():
            for entry in entries:
                self._count(entry)
                if entry.visible:
                    self._verify_sequence(entry, due)

    def _verify_quarantine(self) -> None:
        for shard, lsn, epoch, wire in self._execute("SELECT shard, lsn, epoch, wire FROM quarantine ORDER BY id"):
            wrong = ""
            try:
                entry = decode(wire, None)
                if (entry.shard, entry.lsn, entry.epoch) != (shard, lsn, epoch):
                    wrong = f"there is {entry!r} of epoch {entry.epoch}"
            except CorruptEntry as error:
                wrong = str(error)
            if wrong:
                self._findings.append(f"quarantine: lsn {lsn} of shard {shard}, epoch {epoch}, is damaged: {wrong}")

    def _verify_learned(self) -> None:
        try:
            read_rows(self._connection, LEARNED)
        except CorruptEntry as error:
            self._findings.append(f"the learned rows are damaged: {error}")

    def _verify_sequence(self, entry: Entry, due: dict[RoomId, int]) -> None:
        """An unfiled entry goes on where its room's filed ones, and those before it, end."""
        expected = due.get(entry.room)
        if expected is None:
            row = self._execute("SELECT sequence FROM room WHERE site=? AND channel=?", entry.room).fetchone()
            expected = (row[0] if row else 0) + 1
        if entry.sequence != expected:
            self._findings.append(
                f"room {entry.room.channel!r} of site {entry.room.site!r}: sequence {entry.sequence} stands in the"
                f" journal where {expected} should"
            )
        due[entry.room] = entry.sequence + 1

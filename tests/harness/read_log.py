"""What the log of a node holds, for the checker: its entries as a history, and its chains; the node runs or not."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from router.entry import Kind, link, split
from router.log_schema import EPOCHS, FILE_NAME, MARKS, META, VISIBLE, open_reader
from router.log_tools import export
from router.log_verification import read_journal
from tests.harness.checker import HIDDEN, Begin, Chains, History, Seen

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_STREAMS: Final = {Kind.META: META, Kind.MARKS: MARKS, Kind.EPOCH: EPOCHS}
_decode_places = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode


def body_of(data: dict[str, object]) -> str:
    """What the checker compares of a chat entry: what it says; of a placeholder, that it is hidden."""
    kind = data.get("type", "text")
    return HIDDEN if kind == "placeholder" else str(data.get("content", kind))


def history(name: str, folder: Path) -> History:
    """What clients would see, as a history at rest. Nothing may have been forgotten.

    Args:
        name: The node's.
        folder: Its data directory.

    Raises:
        StorageFault: The log can't be read, or is damaged.
    """
    read = History(f"log of {name}", at_rest=True)
    begun: set[str] = set()
    for entry in export(folder):
        room = entry["channel"]
        if room not in begun:
            begun.add(room)
            read.events.append(Begin(inf, room))
        data = entry["data"] or {"type": "placeholder"}  # its text is off the disk
        target = data.get("target", 0) if entry["kind"] == "removed" else 0
        read.events.append(Seen(inf, room, entry["sequence"], entry["cmid"], body_of(data), target))
    return read


def chains(folder: Path) -> Chains:
    """By shard and lsn, the chain there; before what is forgotten or damaged there are none.

    Args:
        folder: The data directory.
    """
    with closing(open_reader(folder / FILE_NAME)) as connection:
        connection.execute("BEGIN")
        return _chains(connection)


def _chains(connection: sqlite3.Connection) -> Chains:
    wires = _wires(connection)
    found: Chains = {}
    ends: dict[int, bytes] = {}
    for shard, lsn, chain in connection.execute("SELECT shard, lsn, chain FROM shard"):
        ends[shard] = chain
        found[shard] = {lsn: chain} if lsn else {}
    for shard, first, before, places in connection.execute("SELECT shard, first, before, entries FROM place"):
        found[shard].update(_along(first, before, places, wires))
    for shard, entries in read_journal(connection).unfiled.items():
        chain = ends.get(shard, bytes(16))
        of_shard = found.setdefault(shard, {})
        for entry in entries:
            chain = link(chain, entry.wire)
            of_shard[entry.lsn] = chain
    return found


def _along(first: int, before: bytes, places: bytes, wires: dict[tuple[int, int, int], bytes]) -> dict[int, bytes]:
    """The chain at each entry of a run, as far as its entries are there."""
    found = {first - 1: before} if first > 1 else {}
    chain = before
    for lsn, (room, place, kind) in zip(count(first), _decode_places(places) if places else [], strict=False):
        wire = wires.get((room, VISIBLE if kind <= Kind.SYSTEM else _STREAMS[Kind(kind)], place))
        if wire is None:
            break
        chain = link(chain, wire)
        found[lsn] = chain
    return found


def _wires(connection: sqlite3.Connection) -> dict[tuple[int, int, int], bytes]:
    """By room's number, stream and place: the canonical bytes of all entries that are filed."""
    return {
        (room, stream, place): wire
        for room, stream, first, wires in connection.execute("SELECT room, stream, first, wires FROM chunk")
        for place, wire in zip(count(first), split(wires), strict=False)
    }

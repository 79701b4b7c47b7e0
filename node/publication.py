"""From a log entry to what clients are sent of it.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_config.kinds import Schema
from node import chat

if TYPE_CHECKING:
    from node.protocol import Codec
    from node.seams import Room
    from router.entry import Entry

_CHAT: Final = Schema.CHAT  # an attribute of an Enum costs more each time


def chat_data(room: Room, entry: Entry) -> bytes:
    """A chat room's entry as the whole message, JSON."""
    if not entry.data:
        if entry.removal is not None:
            head = chat.placeholder(entry.cmid, entry.removal.reason or chat.REMOVED)
            return chat.publication(head, room.channel_json, entry.info, entry.ts, entry.sequence)
        return chat.erased(entry.cmid, room.channel_json, entry.sender, entry.ts, entry.sequence)
    return chat.publication(entry.data, room.channel_json, entry.info, entry.ts, entry.sequence)


def encode_publication(codec: Codec, room: Room, entry: Entry) -> bytes:
    """An entry as a publication, part of pushes and results (`Codec.publication`)."""
    if room.kind.schema is _CHAT:
        return codec.publication(chat_data(room, entry), entry.sequence, b"")
    return codec.publication(entry.data or b"null", entry.sequence, entry.info)

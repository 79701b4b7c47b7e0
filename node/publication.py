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
        return _placeholder(room, entry)
    return chat.publication(entry.data, room.channel_json, entry.info, entry.ts, entry.sequence)


def _placeholder(room: Room, entry: Entry) -> bytes:
    removal = entry.removal
    author, reason = entry.info, chat.REMOVED
    if entry.erased:
        author, reason = chat.pseudonym(entry.sender), "erased"
    elif removal is not None and removal.reason:
        reason = removal.reason
    head = chat.placeholder(entry.cmid, reason, removal.target if removal is not None else 0)
    return chat.publication(head, room.channel_json, author, entry.ts, entry.sequence)


def encode_publication(codec: Codec, room: Room, entry: Entry) -> bytes:
    """An entry as a publication, part of pushes and results (`Codec.publication`)."""
    if room.kind.schema is _CHAT:
        return codec.publication(chat_data(room, entry), entry.sequence, b"")
    return codec.publication(entry.data or b"null", entry.sequence, entry.info)

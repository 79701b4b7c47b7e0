"""From a log entry to what clients are sent of it.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_config.kinds import Schema
from node import chat
from node.fossil import create

if TYPE_CHECKING:
    from node.protocol import Codec
    from node.seams import Room
    from router.entry import Entry

_CHAT: Final = Schema.CHAT  # an attribute of an Enum costs more each time


def chat_data(channel_json: bytes, entry: Entry) -> bytes:
    """A chat room's entry as the whole message, JSON."""
    if not entry.data:
        return _placeholder(channel_json, entry)
    return chat.publication(entry.data, channel_json, entry.info, entry.ts, entry.sequence)


def _placeholder(channel_json: bytes, entry: Entry) -> bytes:
    removal = entry.removal
    author, reason = entry.info, chat.REMOVED
    if entry.erased:
        author, reason = chat.pseudonym(entry.sender), "erased"
    elif removal is not None and removal.reason:
        reason = removal.reason
    head = chat.placeholder(entry.cmid, reason, removal.target if removal is not None else 0)
    return chat.publication(head, channel_json, author, entry.ts, entry.sequence)


def content(room: Room, entry: Entry) -> tuple[bytes, bytes]:
    """An entry's data, JSON, and the ClientInfo of who published it, JSON; empty where the data tells it or nobody."""
    if room.kind.schema is _CHAT:
        return chat_data(room.channel_json, entry), b""
    return entry.data or b"null", entry.info


def encode_publication(codec: Codec, room: Room, entry: Entry) -> bytes:
    """An entry as a publication, part of pushes and results (`Codec.publication`)."""
    data, info = content(room, entry)
    return codec.publication(data, entry.sequence, info)


def encode_quoted(codec: Codec, room: Room, entry: Entry) -> bytes:
    """Likewise, for a subscriber with `delta`."""
    data, info = content(room, entry)
    return codec.publication(codec.quote(data), entry.sequence, info)


class Publication:
    """An entry in all the ways in which a room's members are sent it, each made once, when it is needed first.

    Args:
        room: Where.
        entry: What.
        most_bytes: Of data that may be told as a difference, or be what the next one differs from.

    Attributes:
        base: Its data; empty if it is longer than that.
    """

    __slots__ = ("_data", "_deltas", "_info", "_made", "_room", "_sequence", "base")

    def __init__(self, room: Room, entry: Entry, most_bytes: int) -> None:
        self._room, self._sequence = room, entry.sequence
        self._data, self._info = content(room, entry)
        self.base = self._data if len(self._data) <= most_bytes else b""
        self._made: dict[tuple[Codec, str | bytes], bytes] = {}
        self._deltas: dict[bytes, bytes | None] | None = None

    def plain(self, codec: Codec) -> bytes:
        """The push for subscribers without `delta`."""
        return self._made.get((codec, "plain")) or self._push(
            codec, "plain", codec.publication(self._data, self._sequence, self._info)
        )

    def whole(self, codec: Codec) -> bytes:
        """The push for subscribers with `delta`."""
        return self._made.get((codec, "whole")) or self._push(
            codec, "whole", codec.publication(codec.quote(self._data), self._sequence, self._info)
        )

    def difference(self, codec: Codec, base: bytes) -> bytes | None:
        """The push for those of them that have `base`; None: it would be no shorter."""
        if not base or not self.base:
            return None
        if self._deltas is None:
            self._deltas = {}
        if base not in self._deltas:
            self._deltas[base] = create(base, self.base)
        delta = self._deltas[base]
        if delta is None:
            return None
        return self._made.get((codec, base)) or self._push(
            codec, base, codec.difference(delta, self._sequence, self._info)
        )

    def _push(self, codec: Codec, form: str | bytes, publication: bytes) -> bytes:
        push = self._made[codec, form] = codec.push_publication(self._room.channel_json, publication)
        return push

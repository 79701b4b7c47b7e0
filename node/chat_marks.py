"""The rpcs `read` and `unread`: how far a user has read a room, and what came after.  Sans-I/O.

`read` is answered when the mark is on disk. It waits for others (node/read_marks.py), so the client's next commands
don't wait for it; each of its answers is of the moment when it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from node.chat import bad, parameters
from node.joining import away
from node.protocol import json_string
from node.reading import channel_of, visit
from router.entry import MESSAGE
from router.events import Away, History

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_config.limits import Limits
    from node.protocol import RpcRequest
    from node.seams import Gateway, Page, Room
    from node.session import Session
    from router.entry import Entry

_READ_SAMPLE: Final = 'the parameters are an object such as {"channel": "...", "sequence": 12}'


class _Read(Struct, forbid_unknown_fields=True, gc=False):
    channel: str
    sequence: int


class _Mentioning(Struct, gc=False):
    mentions: list[str] = []


_decode_read: Final = msgspec.json.Decoder(_Read).decode
_decode_mentions: Final = msgspec.json.Decoder(_Mentioning).decode


def read(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `read`: the user has read the room up to a sequence.

    Raises:
        CommandError: It is refused.
    """
    given = parameters(_decode_read, request.data, _Read.__struct_fields__, _READ_SAMPLE)
    deadline = session.command_deadline

    def opened(room: Room) -> None:
        if not 0 <= given.sequence <= room.offset:
            raise bad(f"sequence is {given.sequence}; give one up to {room.offset}, the room's newest")
        session.release()
        session.gateway.raise_mark(room, session.user, given.sequence, deadline, answer)

    def answer(mark: int | Away) -> None:
        session.answer(
            command_id,
            away(mark) if isinstance(mark, Away) else session.transport.codec.rpc(command_id, b'{"read":%d}' % mark),
        )

    visit(session, command_id, given.channel, "what is read", opened)


def unread(session: Session, command_id: int, request: RpcRequest) -> None:
    """Rpc `unread`: how much the user has not read in a room.

    Raises:
        CommandError: It is refused.
    """
    channel = channel_of(request.data)

    def opened(room: Room) -> None:
        def take(mark: int | Away) -> None:
            if isinstance(mark, Away):
                raise away(mark)
            who = Who(session.user, session.sender, mark)
            Count(session.gateway, session.options.limits, room, who, session.step, finish).go_on()

        session.gateway.mark(room, session.user, session.step(take))

    def finish(body: bytes) -> None:
        session.finish(session.transport.codec.rpc(command_id, body))

    visit(session, command_id, channel, "what is read", opened)


class Who(NamedTuple):
    """Whose reading is counted.

    Attributes:
        user: The user id.
        sender: The user's pseudonym in the log; what the user wrote needs no reading.
        mark: Sequence up to which the user has read.
    """

    user: str
    sender: bytes
    mark: int


class Count:
    """What of a room a user has not read, counted from its end backwards: what is newest is in memory.

    Args:
        gateway: The node.
        limits: How much is looked at.
        room: Where.
        who: Whose.
        step: Makes a callback of what may raise `CommandError`.
        done: Given the answer, JSON.
    """

    __slots__ = (
        "_before", "_bytes", "_done", "_entries", "_gateway", "_mentions", "_name", "_room", "_step", "_unread", "_who",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings: a session's or the server API's
        self, gateway: Gateway, limits: Limits, room: Room, who: Who,
        step: Callable[[Callable[[Page | Away], None]], Callable[[Page | Away], None]], done: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        self._gateway, self._room, self._who, self._step, self._done = gateway, room, who, step, done
        self._name = json_string(who.user)
        self._before = room.offset + 1
        self._entries, self._bytes = limits.unread_entries, limits.recovery_bytes
        self._unread = self._mentions = 0

    def go_on(self) -> None:
        """Read the next page, or answer when there is no more, or none may be read."""
        left = self._before - 1 - max(self._who.mark, self._room.floor)
        if left <= 0 or self._entries <= 0 or self._bytes <= 0:
            self._answer(more=left > 0)
            return
        page = History(self._room.id, self._before, min(left, self._entries), reverse=True, max_bytes=self._bytes)
        self._gateway.history(self._room, page, self._step(self._take))

    def _take(self, page: Page | Away) -> None:
        if isinstance(page, Away):
            raise away(page)
        if not page.entries:
            self._answer(more=False)
            return
        self._note(page.entries)
        self._before = page.entries[-1].sequence
        self._entries -= len(page.entries)
        self._bytes -= sum([len(entry.wire) for entry in page.entries])
        self.go_on()

    def _note(self, entries: Sequence[Entry]) -> None:
        user, sender, name = self._who.user, self._who.sender, self._name
        for entry in entries:
            if entry.kind != MESSAGE or entry.sender == sender or entry.removal is not None or entry.erased:
                continue
            self._unread += 1
            if name in entry.data and user in _decode_mentions(entry.data).mentions:  # few name the user anywhere
                self._mentions += 1

    def _answer(self, *, more: bool) -> None:
        body = b'{"unread":%d,"mentions":%d,"read":%d%b}' % (
            self._unread, self._mentions, self._who.mark, b',"more":true' if more else b"",
        )  # fmt: skip
        self._done(body)

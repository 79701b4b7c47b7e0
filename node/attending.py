"""Tells rooms who has come and gone, and how many are there: what `node.attendance` decides, at the time."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from node.attendance import Attendance, Came

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.rooms import Room
    from router.ids import RoomId


class Voice(Protocol):
    """How rooms are told: `node.gateway.Gateway`."""

    def whisper_here(self, room: Room, data: bytes) -> None:
        """Give the members of this node a publication without offset, which is dropped where a client is behind."""

    def announce(self, room: RoomId, event: str, data: dict[str, object]) -> None:
        """Have a system message made."""


class Attending:
    """The attendance of a node's rooms; on the hub's task but for `run`, which only says when it is time.

    Args:
        voice: How rooms are told.
        ring: Makes the hub turn.
    """

    def __init__(self, voice: Voice, ring: Callable[[], object]) -> None:
        self._voice, self._ring = voice, ring
        self._attendance: Attendance[Room] = Attendance(time.monotonic())
        self._changed = trio.Event()

    def changed(self, room: Room, user: str) -> None:
        """A connection of a user has come into a room, or left it."""
        kind = room.kind
        if kind.presence_seconds or kind.tells_arrivals:
            before = self._attendance.next_deadline
            self._attendance.changed(room, user, time.monotonic())
            if self._attendance.next_deadline < before:
                self._changed.set()

    def silence(self) -> None:
        """Tell nobody of anything any more: the node sends its clients away."""
        self._attendance.silence()

    def turn(self) -> None:
        """Tell what is due."""
        if self._attendance.next_deadline == inf or self._attendance.next_deadline > (now := time.monotonic()):
            return
        for told in self._attendance.tick(now):
            if isinstance(told, Came):
                self._voice.announce(told.room.id, told.event, {"user": told.user})
            else:
                self._voice.whisper_here(told.room, msgspec.json.encode({"type": "presence", "count": told.users}))
        self._changed.set()

    async def run(self) -> None:
        """Make the hub turn when something is due, until cancelled."""
        while True:
            self._changed = trio.Event()
            rest = self._attendance.next_deadline - time.monotonic()
            if rest > 0:
                with trio.move_on_after(rest):
                    await self._changed.wait()
            else:
                self._ring()
                await self._changed.wait()

"""A node of a few lines, without I/O, and connections to it that fail wherever a test wants."""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Final

RECOVERED: Final = 3  # entries given to a client that resumes; beyond it the client has to page
PAGE: Final = 2  # entries of a page of history
EPOCH: Final = "e.1"


class SimulatedNode:
    """Rooms of chat messages, and at most one connection at a time.

    Attributes:
        rooms: Entries of each room, in order: the data of publications.
        failures: How the next commands are answered instead: an error, and whether they are carried out all the same.
        holes: So many pushes are to be forgotten.
        commands: How many have arrived, pongs aside.
    """

    def __init__(self) -> None:
        self.rooms: dict[str, list[dict[str, Any]]] = {}
        self.failures: deque[tuple[dict[str, Any], bool]] = deque()
        self.holes = 0
        self.commands = 0
        self._subscribed: set[str] = set()
        self._up: deque[str] = deque()
        self._down: deque[dict[str, Any]] = deque()

    # -- the network ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """A new connection; whatever was on the way in the old one is lost."""
        self._subscribed.clear()
        self._up.clear()
        self._down.clear()

    def sent(self, frames: list[bytes]) -> None:
        """The client has sent something; it is on its way."""
        for frame in frames:
            self._up.extend(frame.decode().split("\n"))

    def carry_up(self) -> bool:
        """One command arrives; False: there was none."""
        if not self._up:
            return False
        command = json.loads(self._up.popleft())
        if command:
            self.commands += 1
            self._carry_out(command)
        return True

    def carry_down(self, most: int) -> bytes | None:
        """The next frame for the client; None: there is none."""
        taken = [self._down.popleft() for _ in range(min(most, len(self._down)))]
        return "\n".join(json.dumps(message) for message in taken).encode() if taken else None

    # -- what happens at the node --------------------------------------------------------------------------------

    def add(self, room: str, user: str, message_id: str, content: str) -> dict[str, Any]:
        """Sequence a message, unless its id is known; gives it."""
        entries = self.rooms.setdefault(room, [])
        for entry in entries:
            if (entry["userId"], entry["id"]) == (user, message_id):
                return entry
        entry = {"id": message_id, "userId": user, "content": content, "sequence": len(entries) + 1}
        entries.append(entry)
        if room in self._subscribed:
            if self.holes:
                self.holes -= 1
            else:
                self._push(room, entry)
        return entry

    def repeat_push(self, room: str, offset: int) -> None:
        """Push an old message once more."""
        if room in self._subscribed:
            self._push(room, self.rooms[room][offset - 1])

    def unsubscribe(self, room: str, code: int) -> None:
        """End a subscription."""
        if room in self._subscribed:
            self._subscribed.discard(room)
            self._down.append({"push": {"channel": room, "unsubscribe": {"code": code, "reason": "test"}}})

    def ping(self) -> None:
        self._down.append({})

    def _push(self, room: str, entry: dict[str, Any]) -> None:
        self._down.append({"push": {"channel": room, "pub": _publication(entry)}})

    def _carry_out(self, command: dict[str, Any]) -> None:
        command_id = command.pop("id")
        [(name, body)] = command.items()
        may_fail = bool(self.failures) and name in {"subscribe", "history", "rpc"}
        error, is_done = self.failures.popleft() if may_fail else (None, True)
        is_done = is_done and (error is None or name == "rpc")  # only of what is sent may the outcome be unknown
        result = getattr(self, f"_{name}")(body) if is_done else None
        if error is None:
            self._down.append({"id": command_id, name: result})
        else:
            self._down.append({"id": command_id, "error": error})

    def _connect(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"client": "c", "version": "test", "ping": 25, "pong": True}

    def _subscribe(self, body: dict[str, Any]) -> dict[str, Any]:
        room = body["channel"]
        entries = self.rooms.setdefault(room, [])
        self._subscribed.add(room)
        missed = entries[body.get("offset", 0) :]
        if body.get("recover") and body["epoch"] in {"", EPOCH} and len(missed) <= RECOVERED:
            found = [_publication(entry) for entry in missed]
            return {"epoch": EPOCH, "offset": body["offset"], "recovered": True, "publications": found}
        return {"epoch": EPOCH, "offset": len(entries), "was_recovering": body.get("recover", False)}

    def _unsubscribe(self, body: dict[str, Any]) -> dict[str, Any]:
        self._subscribed.discard(body["channel"])
        return {}

    def _history(self, body: dict[str, Any]) -> dict[str, Any]:
        entries = self.rooms.setdefault(body["channel"], [])
        offset = body["since"]["offset"]
        found = entries[offset : offset + min(PAGE, body["limit"])]
        return {"epoch": EPOCH, "offset": len(entries), "publications": [_publication(entry) for entry in found]}

    def _rpc(self, body: dict[str, Any]) -> dict[str, Any]:
        data = body["data"]
        return {"data": self.add(data["channel"], "me", data["id"], data["content"])}


def _publication(entry: dict[str, Any]) -> dict[str, Any]:
    return {"offset": entry["sequence"], "data": entry}

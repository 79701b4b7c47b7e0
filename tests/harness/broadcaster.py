"""A WebSocket server whose broadcast has one known peculiarity, to check the load generator by."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass, field
from typing import Literal

import trio

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

Kind = Literal[
    "plain", "fragments", "binary", "medium", "big", "trickle", "pairs", "app-ping", "twice", "swap", "drop",
    "one-reordered", "no-echo", "dedicated", "seq-break", "close", "bad-accept", "refuse",
]  # fmt: skip


def frame(payload: bytes, opcode: int = TEXT, *, last: bool = True) -> bytes:
    """A frame as a server sends it (RFC 6455, section 5.2)."""
    first = opcode | (0x80 if last else 0)
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 1 << 16:
        return bytes([first, 126]) + struct.pack(">H", size) + payload
    return bytes([first, 127]) + struct.pack(">Q", size) + payload


class Closed(Exception):
    """The client is gone."""


class Reader:
    """Bytes of a stream by count or up to a mark."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._held = b""

    async def _more(self) -> None:
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise Closed
        self._held += data

    async def exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            await self._more()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._held:
            await self._more()
        taken, _, self._held = self._held.partition(mark)
        return taken + mark

    async def frame(self) -> tuple[int, bytes]:
        first, second = await self.exactly(2)
        assert second & 0x80, "a client masks"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self.exactly(8))
        key = await self.exactly(4)
        data = await self.exactly(size)
        return first & 0x0F, bytes(byte ^ key[i & 3] for i, byte in enumerate(data))


@dataclass
class Broadcaster:
    """One room. `kind` says what is odd about the way in which its messages reach the members.

    Attributes:
        published: Messages broadcast so far.
        faults: What a client said that its template does not say.
    """

    kind: Kind
    members: list[trio.SocketStream] = field(default_factory=list)
    published: int = 0
    pongs: int = 0
    app_pongs: int = 0
    beats: int = 0
    faults: list[str] = field(default_factory=list)
    _held: bytes = b""
    _turn: trio.Lock = field(default_factory=trio.Lock)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Talk with one client until it is gone."""
        reader = Reader(stream)
        try:
            if await self._upgrade(stream, (await reader.until(b"\r\n\r\n")).decode()):
                while True:
                    opcode, data = await reader.frame()
                    async with self._turn:
                        await self._answer(stream, opcode, data)
        except (Closed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _upgrade(self, stream: trio.SocketStream, head: str) -> bool:
        expected = (r"GET /chat\?room=r0&user=u\d+&token=tok[01] HTTP/1.1\r\n", r"\r\nX-Conn: \d+\r\nX-Set: blue\r\n")
        self.faults += [head for pattern in expected if not re.search(pattern, head)]
        if self.kind == "refuse":
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return False
        key = re.search(r"Sec-WebSocket-Key: (\S+)", head)
        assert key
        digest = hashlib.sha1((key[1] + GUID).encode()).digest()
        accept = base64.b64encode(digest).decode()
        if self.kind == "bad-accept":
            accept = "A" + accept[1:] if accept[0] != "A" else "B" + accept[1:]
        await stream.send_all(f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        return True

    async def _answer(self, stream: trio.SocketStream, opcode: int, data: bytes) -> None:
        if opcode == PONG:
            self.pongs += 1
        elif data == b"app-pong":
            self.app_pongs += 1
        elif opcode == TEXT:
            message = json.loads(data)
            match message["t"]:
                case "beat":
                    self.beats += 1
                case "join":
                    self.members.append(stream)
                    await stream.send_all(frame(b'{"t":"joined"}'))
                case _:
                    await stream.send_all(frame(json.dumps({"t": "ack", "id": message["id"]}).encode()))
                    await self._broadcast(stream, message["data"])

    async def _broadcast(self, publisher: trio.SocketStream, data: str) -> None:
        number = self.published + (self.kind == "seq-break" and self.published >= 20)
        raw = self._bytes_of(f'{{"seq":{number},"data":"{data}"}}'.encode())
        for place, member in enumerate(self.members.copy()):
            try:
                await self._send(member, publisher, place, raw)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.members.remove(member)
        if self.kind == "one-reordered":
            self._held = b"" if self._held else raw
        self.published += 1

    async def _send(self, member: trio.SocketStream, publisher: trio.SocketStream, place: int, raw: bytes) -> None:
        if self.kind == "one-reordered":
            if self._held:  # the last member sees pairs swapped
                last = member is self.members[-1]
                await member.send_all(raw + self._held if last else self._held + raw)
        elif self.kind == "trickle":
            for start in range(0, len(raw), 7):
                await member.send_all(raw[start : start + 7])
        elif self.kind != "no-echo" or member is not publisher:
            await member.send_all(raw)
        if self.kind == "close" and place == len(self.members) - 1 and self.published == 30:
            await member.send_all(frame(struct.pack(">H", 1008) + b"too slow", CLOSE))
            self.members.remove(member)

    def _bytes_of(self, text: bytes) -> bytes:  # noqa: PLR0911 (a table, one line a kind)
        whole = frame(text)
        match self.kind:
            case "fragments":
                parts = frame(text[:50], last=False), frame(b"hi", PING), frame(text[50:55], 0, last=False)
                return b"".join(parts) + frame(b"", 0, last=False) + frame(text[55:], 0)
            case "binary":
                return frame(text, BINARY)
            case "medium":
                return frame(text + b" " * 300)
            case "big":
                return frame(text + b" " * 70_000)
            case "twice":
                return whole + whole
            case "drop":
                return b"" if self.published % 10 == 9 else whole
            case "app-ping":
                return frame(b"app-ping") + whole
            case "swap" | "pairs":
                if not self._held:
                    self._held = text
                    return b""
                first, self._held = self._held, b""
                return whole + frame(first) if self.kind == "swap" else frame(first + b"\n" + text)
            case _:
                return whole

"""A client's WebSocket for load: it does only what a node's frames need, and so costs little beside the node."""

from __future__ import annotations

import base64
import os
from typing import Any, Final

import msgspec
import trio

PATH: Final = "/connection/websocket"
CHUNK_BYTES: Final = 262_144
MOST_HEAD_BYTES: Final = 65_536
TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_MASK: Final = bytes(4)  # which leaves a payload as it is: RFC 6455, 5.3, wants a mask, and hides nothing from us
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class SocketEnded(Exception):
    """The connection is over.

    Attributes:
        code: Of the close frame; 0: there was none.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class ChaosSocket:
    """A connection to a node; one task reads, another may write meanwhile.

    Args:
        stream: To the node or what stands before it.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._got = bytearray()
        self._sending = trio.Lock()

    async def open(self, host: str) -> None:
        """Upgrade to WebSocket.

        Raises:
            SocketEnded: The other end does not want to.
            trio.BrokenResourceError: It is gone.
        """
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {PATH} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "",
        )  # fmt: skip
        await self._stream.send_all("\r\n".join(lines).encode())
        while (end := self._got.find(b"\r\n\r\n")) < 0 and len(self._got) < MOST_HEAD_BYTES:
            await self._receive()
        if not self._got.startswith(b"HTTP/1.1 101 "):
            raise SocketEnded(0, f"the upgrade was answered {bytes(self._got[:40])!r}")
        del self._got[: end + 4]

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send commands in one frame.

        Raises:
            trio.BrokenResourceError: The other end is gone.
        """
        await self._send(TEXT, b"\n".join(map(_encode, messages)))

    async def receive(self) -> list[dict[str, Any]]:
        """What came next: replies and pushes; an empty object is a ping, which was answered.

        Raises:
            SocketEnded: The other end closed.
            trio.BrokenResourceError: It is gone.
        """
        while True:
            found: list[dict[str, Any]] = []
            for opcode, payload in take_frames(self._got):
                if opcode == TEXT:
                    found += map(_decode, payload.splitlines())
                elif opcode == PING:
                    await self._send(PONG, payload)
                elif opcode == CLOSE:
                    raise SocketEnded(int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace"))
            if {} in found:
                await self._send(TEXT, b"{}")
            if found:
                return found
            await self._receive()

    async def _send(self, opcode: int, payload: bytes) -> None:
        async with self._sending:
            await self._stream.send_all(frame(opcode, payload))

    async def _receive(self) -> None:
        chunk = await self._stream.receive_some(CHUNK_BYTES)
        if not chunk:
            raise SocketEnded(0, "the connection ended")
        self._got += chunk


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + _MASK + payload


def take_frames(got: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole frames of a server off the front: opcodes and payloads. A node sends no fragments."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(got) - at >= 2:
        size, head = got[at + 1] & 0x7F, 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            head += wide
            size = int.from_bytes(got[at + 2 : at + head], "big")
        if len(got) - at < head or len(got) - at < head + size:
            break
        if not got[at] & 0x80:
            raise AssertionError("a node sent a fragment")
        found.append((got[at] & 0xF, bytes(got[at + head : at + head + size])))
        at += head + size
    del got[:at]
    return found

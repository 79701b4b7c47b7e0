"""A Trio stream on a socket that the hub has given away."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READ_BYTES: Final = 65_536

T = TypeVar("T")


class SocketStream(trio.abc.HalfCloseableStream):
    """A stream on a non-blocking socket of the standard library, encrypted or not.

    Trio's own streams take neither an `ssl.SSLSocket` nor a socket of the standard library without a wrapper of theirs.

    Args:
        sock: Connected, non-blocking, past its TLS handshake, and watched by nobody else. The stream owns it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
            trio.BrokenResourceError: The other side is gone.
            trio.ClosedResourceError: This side has closed.
        """
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            sent = await self._perform(partial(self._socket.send, rest), trio.lowlevel.wait_writable)
            rest = rest[sent:]

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes bytes."""
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (OSError, ValueError) as error:
            raise self._failure() from error

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, at least a byte; empty at the end.

        Raises:
            trio.BrokenResourceError: The other side is gone.
            trio.ClosedResourceError: This side has closed.
        """
        await trio.lowlevel.checkpoint()
        size = max_bytes or READ_BYTES
        return await self._perform(partial(self._socket.recv, size), trio.lowlevel.wait_readable)

    @override
    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        await trio.lowlevel.checkpoint()
        with suppress(OSError, ValueError):  # gone, or, over TLS, the other side has not said the same yet
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()
            else:
                self._socket.shutdown(socket.SHUT_WR)

    @override
    async def aclose(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

    async def _perform(self, operation: Callable[[], T], wait: Callable[[socket.socket], Awaitable[None]]) -> T:
        """Repeat an operation until it does not block; `wait` for what it waits for, unless TLS says otherwise."""
        while True:
            try:
                try:
                    return operation()
                except BlockingIOError:
                    await wait(self._socket)
                except ssl.SSLWantReadError:
                    await trio.lowlevel.wait_readable(self._socket)
                except ssl.SSLWantWriteError:
                    await trio.lowlevel.wait_writable(self._socket)
            except (OSError, ValueError) as error:
                raise self._failure() from error

    def _failure(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this side has closed the connection")
        return trio.BrokenResourceError("the other side is gone")

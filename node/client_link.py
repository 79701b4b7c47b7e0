"""The client's connections: one after another, with the tasks that read, write, keep time and fetch tokens.

The only file that touches `trio_websocket`. What is to be said, and what comes of it, is node/client_core.py's.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from node.client_core import ClientCore, Link
from node.client_faults import ClientFault, ConnectionEnded, TimedOut, Unreachable
from node.codes import ErrorCode

if TYPE_CHECKING:
    from node.client_room import RoomCursor

Token = str | Callable[[], Awaitable[str]]
"""A token, or an async function that fetches a new one each time."""
_Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

CONNECT_SECONDS: Final = 10.0  # TCP and TLS, and again the upgrade
TOKEN_SECONDS: Final = 10.0  # for the site's back end to make a token
WRITE_SECONDS: Final = 10.0  # for the node to take what is sent; it reads all the time, unless it is drowning
CLOSE_SECONDS: Final = 1.0  # for a polite end
MOST_FRAME_BYTES: Final = 4_194_304  # of what the node sends; its frames stay below 1 MiB


class ClientLink:
    """Keeps a core connected.

    Args:
        url: Of the node's WebSocket.
        token: Says who connects; None: a guest.
        context: For TLS; None: Python's default.
        core: What to say.

    Attributes:
        core: The same.
    """

    def __init__(self, url: str, token: Token | None, context: ssl.SSLContext | None, core: ClientCore) -> None:
        self.core = core
        self._url, self._source, self._context = url, token, context
        self._token = ""
        self._room_tokens: dict[str, Token] = {}
        self._turn = trio.Event()
        self._ended = trio.Event()
        self._last_problem = ""

    # -- what the client calls -----------------------------------------------------------------------------------

    def add_room(self, room: RoomCursor, token: Token | None) -> None:
        """Subscribe.

        Raises:
            ConnectionEnded: There is no connection any more.
        """
        if token is not None:
            self._room_tokens[room.channel] = token
        self.core.add_room(room, trio.current_time())
        self.signal()

    def remove_room(self, room: RoomCursor) -> None:
        """Unsubscribe; nothing happens if it was done before."""
        if self.core.rooms.get(room.channel) is room:
            self._room_tokens.pop(room.channel, None)
        self.core.remove_room(room, trio.current_time())
        self.signal()

    def signal(self) -> None:
        """Something may be to be written, or to be seen."""
        self._turn.set()
        self._turn = trio.Event()

    async def wait_changed(self) -> None:
        """Wait until something may have changed."""
        await self._turn.wait()

    async def wait_up(self) -> None:
        """Wait until there is a connection.

        Raises:
            ConnectionEnded: There won't be one.
        """
        await trio.lowlevel.checkpoint()
        while self.core.link is not Link.UP:
            if self.core.fault is not None:
                raise self.core.fault
            await self.wait_changed()

    async def wait_connected(self, seconds: float) -> None:
        """Wait until there is a connection.

        Raises:
            Unreachable: There was none in time.
            ConnectionEnded: There won't be one.
        """
        with trio.move_on_after(seconds) as scope:
            await self.wait_up()
        if scope.cancelled_caught:
            raise Unreachable(f"no connection to {self._url} within {seconds:g} s{self.why}")

    async def end(self) -> None:
        """Close the connection for good. Whatever waits is told so."""
        self.core.end(0, "the client was closed")
        self.signal()
        await self._ended.wait()

    @property
    def why(self) -> str:
        """What went wrong last, in brackets, for a message."""
        return f" ({self._last_problem})" if self._last_problem else ""

    # -- connections ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and connect again, until it has ended. To be run in a task."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._keep_tokens, nursery)
            while self.core.link is not Link.ENDED:
                code, reason = await self._connect_and_serve()
                self._last_problem = reason
                delay = self.core.lost(code, reason, trio.current_time())
                self.signal()
                await self._rest(delay)
            nursery.cancel_scope.cancel()
        self._ended.set()

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        with trio.move_on_after(seconds):
            while self.core.link is not Link.ENDED:
                await self.wait_changed()

    async def _keep_time(self) -> None:
        """Let the core do what is due, connected or not."""
        while True:
            deadline = self.core.deadline
            with trio.move_on_at(inf if deadline is None else deadline) as scope:
                await self.wait_changed()
            if scope.cancelled_caught:
                self.core.on_time(trio.current_time())
                self.signal()

    async def _connect_and_serve(self) -> tuple[int, str]:
        """One connection, to its end; gives the close code (0: none) and why."""
        if (not self._token or self.core.token_stale) and (problem := await self._renew_token()):
            return 0, problem
        end = 0, ""
        try:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(CONNECT_SECONDS) as scope:
                    stream = await self._open_stream()
                if scope.cancelled_caught:
                    end = 0, f"{self._url} did not answer within {CONNECT_SECONDS:g} s"
                else:
                    try:
                        end = await self._serve(stream, nursery)
                    finally:
                        await trio.aclose_forcefully(stream)
                nursery.cancel_scope.cancel()
        except* (OSError, HandshakeError, trio.BrokenResourceError) as group:
            end = 0, f"{self._url} can't be reached: {_cause(group)}"
        return end

    async def _open_stream(self) -> _Stream:
        """TCP, and TLS if the URL wants it."""
        parts = urlsplit(self._url)
        host, is_encrypted = parts.hostname or "", parts.scheme == "wss"
        stream = await trio.open_tcp_stream(host, parts.port or (443 if is_encrypted else 80))
        if not is_encrypted:
            return stream
        context = self._context or ssl.create_default_context()
        encrypted = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        try:
            await encrypted.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted

    async def _serve(self, stream: _Stream, nursery: trio.Nursery) -> tuple[int, str]:
        """Speak until reader or writer has to end; gives the close code (0: none) and why."""
        parts = urlsplit(self._url)
        resource = urlunsplit(("", "", parts.path, parts.query, ""))
        with trio.move_on_after(CONNECT_SECONDS) as scope:
            socket = await wrap_client_stream(
                nursery, stream, parts.netloc.rpartition("@")[2], resource, max_message_size=MOST_FRAME_BYTES
            )
        if scope.cancelled_caught:
            return 0, f"{self._url} did not answer within {CONNECT_SECONDS:g} s"
        ends: list[tuple[int, str]] = []
        try:
            self.core.opened(self._token, trio.current_time())
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._write, socket, ends, tasks.cancel_scope)
                tasks.start_soon(self._read, socket, ends, tasks.cancel_scope)
        finally:
            with trio.move_on_after(CLOSE_SECONDS):
                await socket.aclose()
        return ends[0]

    async def _read(self, socket: WebSocketConnection, ends: list[tuple[int, str]], scope: trio.CancelScope) -> None:
        try:
            while True:
                message = await socket.get_message()
                self.core.receive(message, trio.current_time())
                self.signal()
        except ConnectionClosed as closed:
            why = closed.reason
            ends.append((0, "the connection broke") if why is None else (why.code, why.reason or why.name))
            scope.cancel()

    async def _write(self, socket: WebSocketConnection, ends: list[tuple[int, str]], scope: trio.CancelScope) -> None:
        while not (self.core.broken or self.core.link is Link.ENDED):
            turn = self._turn  # before the look: what comes while one writes is seen after it
            for frame in self.core.take_output():
                try:
                    with trio.fail_after(WRITE_SECONDS):
                        await socket.send_message(frame.decode())
                except trio.TooSlowError:
                    ends.append((0, f"the node took nothing for {WRITE_SECONDS:g} s"))
                    scope.cancel()
                except ConnectionClosed:
                    return  # the reader finds out why, after what came before
            await turn.wait()
        ends.append((0, self.core.broken or "the client was closed"))
        scope.cancel()

    # -- tokens --------------------------------------------------------------------------------------------------

    async def _renew_token(self) -> str:
        """Have a token for the next connection; gives why there is none, or nothing."""
        source = self._source
        if callable(source):
            try:
                self._token = await _fetched(source)
            except ConnectionEnded as end:
                self.core.end(end.code, end.reason)
            except ClientFault as fault:
                return str(fault)
        elif self.core.token_stale:
            mend = "give an async function as `token`, which fetches a new one"
            self.core.end(int(ErrorCode.TOKEN_EXPIRED), f"the token has expired; {mend}")
        else:
            self._token = source or ""
        return "" if self.core.fault is None else str(self.core.fault)

    async def _keep_tokens(self, nursery: trio.Nursery) -> None:
        """Fetch what the core wants."""
        while True:
            turn = self._turn
            for wanted in self.core.take_wanted():
                nursery.start_soon(self._fetch_wanted, wanted)
            await turn.wait()

    async def _fetch_wanted(self, channel: str) -> None:
        source = self._room_tokens.get(channel) if channel else self._source
        if callable(source):
            try:
                token = await _fetched(source)
            except ConnectionEnded as end:
                self.core.end(end.code, end.reason)
            except ClientFault as fault:
                self._last_problem = str(fault)
                self.core.give_no_token(channel, trio.current_time())
            else:
                self._token = token if not channel else self._token
                self.core.give_token(channel, token, trio.current_time())
        elif channel and source is not None:
            self.core.give_token(channel, source, trio.current_time())
        self.signal()


async def _fetched(source: Callable[[], Awaitable[str]]) -> str:
    """A token of an application's function.

    Raises:
        ClientFault: There is none for the moment.
        ConnectionEnded: There won't be any.
    """
    try:
        with trio.fail_after(TOKEN_SECONDS):
            return await source()
    except ConnectionEnded:
        raise
    except trio.TooSlowError:
        raise TimedOut(f"fetching a token took more than {TOKEN_SECONDS:g} s") from None
    except Exception as error:  # whatever the application's HTTP library raises
        raise Unreachable(f"fetching a token failed: {error!r}") from error


def _cause(group: BaseExceptionGroup[Exception]) -> str:
    """The innermost thing that a person understands."""
    error: BaseException = group
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return str(error) or type(error).__name__

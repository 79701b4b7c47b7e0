"""Asks nodes how they are, within a deadline that nothing can stretch."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from node.status import ClusterStatus, NodeStatus, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_config.secret import Secret

ANSWER_BYTES: Final = 1_048_576  # far above any status; whoever answers more is no node
READ_BYTES: Final = 65_536
NOT_A_NODE: Final = "what answers is not the internal port of a chat-node"


class Target(NamedTuple):
    """A node's internal port.

    Attributes:
        url: Such as ``http://127.0.0.1:9000``.
        token: What the port asks for; None: nothing.
    """

    url: str
    token: Secret | None = None


class _Refused(Exception):
    """What answered is not the answer."""


async def ask_cluster(targets: Sequence[Target], timeout_seconds: float) -> ClusterStatus:
    """Ask all nodes at once; returns within the time-out."""
    answers: dict[int, NodeStatus | Unreachable] = {}

    async def ask_one(number: int, target: Target) -> None:
        answers[number] = await ask_node(target, timeout_seconds)

    async with trio.open_nursery() as nursery:
        for number, target in enumerate(targets):
            nursery.start_soon(ask_one, number, target)
    return ClusterStatus.of([answers[number] for number in range(len(targets))])


async def ask_node(target: Target, timeout_seconds: float) -> NodeStatus | Unreachable:
    """Ask one node; returns within the time-out."""
    unreachable = partial(Unreachable, address=target.url)
    try:
        with trio.fail_after(timeout_seconds):
            return msgspec.json.decode(await _fetch(target), type=NodeStatus)
    except trio.TooSlowError:
        return unreachable(reason=f"no answer within {timeout_seconds:g} s")
    except _Refused as refused:
        return unreachable(reason=str(refused))
    except (h11.RemoteProtocolError, msgspec.DecodeError, UnicodeDecodeError):
        return unreachable(reason=NOT_A_NODE)
    except (OSError, trio.BrokenResourceError) as error:
        return unreachable(reason=_cause(error))


async def _fetch(target: Target) -> bytes:
    parts = urlsplit(target.url)
    host, is_encrypted = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_encrypted else 80)
    opener = partial(trio.open_ssl_over_tcp_stream, https_compatible=True) if is_encrypted else trio.open_tcp_stream
    headers = [("host", parts.netloc.rpartition("@")[2]), ("accept", "application/json"), ("connection", "close")]
    if target.token:
        headers.append(("authorization", f"Bearer {target.token.reveal()}"))
    path = f"{parts.path.rstrip('/')}/status"
    async with await opener(host, port) as stream:
        connection = h11.Connection(h11.CLIENT)
        request = connection.send(h11.Request(method="GET", target=path, headers=headers))
        await stream.send_all((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return await _receive(stream, connection)


async def _receive(stream: trio.abc.Stream, connection: h11.Connection) -> bytes:
    body = b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))
            case h11.Response(status_code=401):
                raise _Refused("it asks for a token: configure listen.internal_token as on the node")
            case h11.Response(status_code=421):
                raise _Refused(
                    "it answers to names of loopback only: ask for 127.0.0.1 on its machine, or configure"
                    " listen.internal_token there and here"
                )
            case h11.Response(status_code=status) if status != 200:
                raise _Refused(f"it answered {status}: {NOT_A_NODE}")
            case h11.Data(data=data):
                body += bytes(data)
                if len(body) > ANSWER_BYTES:
                    raise _Refused(NOT_A_NODE)
            case h11.EndOfMessage() | h11.ConnectionClosed():
                return body
            case _:
                pass


def _cause(error: OSError | trio.BrokenResourceError) -> str:
    """The system's word for it; Trio puts those of all addresses behind an error of its own."""
    inner = error.__cause__
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    known = inner if isinstance(inner, OSError) else error
    if isinstance(known, OSError) and known.errno and not isinstance(known, socket.gaierror):
        return os.strerror(known.errno)
    return (known.strerror if isinstance(known, OSError) else None) or str(known) or "the connection broke"

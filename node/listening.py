"""Listening sockets for a host and port, or a fault that says what to do."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from node.faults import ListenFault

if TYPE_CHECKING:
    from collections.abc import Sequence

_MENDS: Final = {
    errno.EADDRINUSE: "another process has the port; give another port, or end that process (`ss -ltnp` names it)",
    errno.EACCES: "the system reserves the port; give one from 1024 up",
    errno.EPERM: "the system forbids the port; give another",
    errno.EADDRNOTAVAIL: "this machine has no such address; give one of its own, 127.0.0.1 or 0.0.0.0",
    errno.EAFNOSUPPORT: "this machine has no such network; give an address of another",
}


def open_listeners(host: str, port: int, backlog: int, key: str) -> Sequence[socket.socket]:
    """Open non-blocking listening sockets at all addresses of a host, all with one port.

    Args:
        host: An address or a name. ``::`` takes IPv6 only; give ``0.0.0.0`` for IPv4.
        port: 0: any free one.
        backlog: Connections that the kernel holds until they are accepted.
        key: The configuration's key of the port, for the message.

    Raises:
        ListenFault: It can't be done.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenFault(f"Can't listen at {host}: {error.strerror}. Correct the host of {key}.") from error
    opened: list[socket.socket] = []
    with ExitStack() as undo:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            where = (address[0], port or (opened[0].getsockname()[1] if opened else 0), *address[2:])
            opened.append(undo.enter_context(_listener(socket.AddressFamily(family), where, backlog, key)))
        undo.pop_all()
    return opened


def _listener(family: socket.AddressFamily, address: tuple[object, ...], backlog: int, key: str) -> socket.socket:
    with ExitStack() as undo:
        try:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if sys.platform != "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AddressFamily.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            sock.bind(address)
            sock.listen(backlog)
        except OSError as error:
            mend = _MENDS.get(error.errno or 0, f"{error.strerror}; correct {key}")
            raise ListenFault(f"Can't listen at {address[0]} port {address[1]} ({key}): {mend}.") from error
        undo.pop_all()
    return sock

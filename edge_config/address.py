"""Where something listens or is reached: HOST:PORT, and with a node's name before it."""

import re
from ipaddress import ip_address
from typing import NamedTuple

from typing_extensions import override

from edge_config.setting import NAME

HIGHEST_PORT = 65_535
MOST_HOST_CHARACTERS = 253  # of a name in the DNS


class Address(NamedTuple):
    """A host, without the brackets of an IPv6 address, and a TCP port; 0: any free one."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        """As one writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Peer(NamedTuple):
    """A node of the cluster, and where its inbox is reached."""

    node: str
    address: Address


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether a host stands for all addresses of this machine, so that nobody can connect to it."""
    if host == "*":
        return True
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Whether a text may be a host's name, or is its address, without brackets."""
    if ":" in text:
        try:
            return ip_address(text).version == 6
        except ValueError:
            return False
    return (
        len(text) <= MOST_HOST_CHARACTERS
        and re.fullmatch(r"[A-Za-z0-9_*]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text) is not None
    )


def read_address(text: str) -> Address | None:
    """An address of ``HOST:PORT``, an IPv6 address in brackets; None: the text is none."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            return None
    elif ":" in host:
        return None
    is_port = re.fullmatch(r"[0-9]{1,5}", port) is not None and int(port) <= HIGHEST_PORT
    return Address(host, int(port)) if colon and is_host(host) and is_port else None


def read_peer(text: str) -> Peer | None:
    """A node of ``NAME=HOST:PORT``, with a port to connect to; None: the text is none."""
    node, _, where = text.partition("=")
    address = read_address(where)
    if not NAME.accepts(node) or address is None or not address.port or is_wildcard(address.host):
        return None
    return Peer(node, address)

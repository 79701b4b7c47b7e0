"""Who may connect: counts of connections in all and by address.  Sans-I/O.

Of IPv6 the first 64 bits are counted: that is the network of one site (RFC 4291, 2.5.4), within which every host makes
itself as many addresses as it likes.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Address
from typing import Final

IPV6_NETWORK_BYTES: Final = 8


class Refused(Enum):
    """Why a connection was not taken."""

    FULL = "the node holds as many connections as it may"
    ADDRESS = "too many connections come from this address"
    DRAINING = "the node is shutting down"

    @property
    def status(self) -> bytes:
        """Code and phrase of the HTTP response."""
        return b"429 Too Many Requests" if self is Refused.ADDRESS else b"503 Service Unavailable"


class Admission:
    """Counts what is open.

    Args:
        most: Connections in all.
        most_per_address: Connections from one address, or one IPv6 network; 0: no limit.
    """

    __slots__ = ("_addresses", "draining", "most", "most_per_address", "open")

    def __init__(self, most: int, most_per_address: int) -> None:
        self.most, self.most_per_address = most, most_per_address
        self.open = 0
        self.draining = False
        self._addresses: dict[str | tuple[bytes, str | None], int] = {}

    def enter(self, address: str) -> Refused | None:
        """Count a connection in, or say why it is refused; `address` is an IP address, of IPv6 with any scope."""
        if self.draining:
            return Refused.DRAINING
        if self.open >= self.most:
            return Refused.FULL
        origin = _origin(address)
        count = self._addresses.get(origin, 0)
        if self.most_per_address and count >= self.most_per_address:
            return Refused.ADDRESS
        self._addresses[origin] = count + 1
        self.open += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that was counted in."""
        self.open -= 1
        origin = _origin(address)
        count = self._addresses[origin] - 1
        if count:
            self._addresses[origin] = count
        else:
            del self._addresses[origin]


def _origin(address: str) -> str | tuple[bytes, str | None]:
    """What an address is counted as: itself, or of IPv6 its network, on its link where it has one."""
    if ":" not in address:
        return address
    full = IPv6Address(address)
    if full.ipv4_mapped is not None:
        return str(full.ipv4_mapped)
    return full.packed[:IPV6_NETWORK_BYTES], full.scope_id

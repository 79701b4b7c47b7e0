"""Who may connect: counts of connections in all and by address.  Sans-I/O."""

from __future__ import annotations

from enum import Enum


class Refused(Enum):
    """Why a connection was not taken."""

    FULL = "the node holds as many connections as it may"
    ADDRESS = "too many connections come from this address"
    DRAINING = "the node is shutting down"


class Admission:
    """Counts what is open.

    Args:
        most: Connections in all.
        most_per_address: Connections from one address; 0: no limit.
    """

    __slots__ = ("_addresses", "draining", "most", "most_per_address", "open")

    def __init__(self, most: int, most_per_address: int) -> None:
        self.most, self.most_per_address = most, most_per_address
        self.open = 0
        self.draining = False
        self._addresses: dict[str, int] = {}

    def enter(self, address: str) -> Refused | None:
        """Count a connection in, or say why it is refused."""
        if self.draining:
            return Refused.DRAINING
        if self.open >= self.most:
            return Refused.FULL
        count = self._addresses.get(address, 0)
        if self.most_per_address and count >= self.most_per_address:
            return Refused.ADDRESS
        self._addresses[address] = count + 1
        self.open += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that was counted in."""
        self.open -= 1
        count = self._addresses[address] - 1
        if count:
            self._addresses[address] = count
        else:
            del self._addresses[address]

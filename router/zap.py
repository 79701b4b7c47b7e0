"""Who may connect: the answers to ZeroMQ's questions about each new connection (RFC 27, ZAP).

A connection is let in if the key that it has proved is on the allow list. Its user id then names the node and the key,
and ZeroMQ shows it with each of its messages. Without keys, who is on this machine is let in, and others only if that
was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_config.address import is_loopback
from edge_config.keys import encode_key
from router.transport_statistics import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.transport_statistics import Refusals

VERSION: Final = b"1.0"
DOMAIN: Final = b"chat-node"
_LEAST_FRAMES: Final = 6  # version, request id, domain, address, identity, mechanism
LATER: Final = b"300"  # who gets 400 never tries again, though its key may be allowed tomorrow
_CURVE: Final = b"CURVE"
_NULL: Final = b"NULL"


def users_of(allowed: Mapping[str, bytes]) -> dict[str, str]:
    """The node of each user id, for nodes with these keys."""
    return {user_of(node, key): node for node, key in allowed.items()}


def user_of(node: str, key: bytes) -> str:
    """The user id of a connection of a node with this key (Z85)."""
    return f"{node} {key.decode()}"


class Zap:
    """Answers requests.

    Args:
        allowed: The key (Z85) of each node that may connect; None: there are no keys.
        anywhere: Whether, without keys, others than this machine may connect.
        refusals: Counts who is turned away.
    """

    def __init__(self, allowed: Mapping[str, bytes] | None, refusals: Refusals, *, anywhere: bool) -> None:
        self._anywhere = anywhere
        self._refusals = refusals
        self.allow(allowed)

    def allow(self, allowed: Mapping[str, bytes] | None) -> None:
        """Let in these from now on, and no others."""
        self._users = None if allowed is None else {key: user_of(node, key) for node, key in allowed.items()}

    def answer(self, frames: Sequence[bytes]) -> list[bytes]:
        """The reply to a request."""
        if len(frames) < _LEAST_FRAMES or frames[0] != VERSION:
            request = frames[1] if len(frames) > 1 else b""
            return [VERSION, request, b"500", b"not a request of version 1.0", b"", b""]
        _, request, domain, address, _, mechanism, *credentials = frames
        if domain != DOMAIN:
            return [VERSION, request, b"500", b"another domain", b"", b""]
        where = address.decode("utf-8", "replace")
        if self._users is None:
            user = self._without_keys(where, mechanism)
        else:
            user = self._with_key(where, mechanism, credentials)
        if user is None:
            return [VERSION, request, LATER, b"not allowed", b"", b""]
        return [VERSION, request, b"200", b"OK", user.encode(), b""]

    def _without_keys(self, address: str, mechanism: bytes) -> str | None:
        if mechanism == _NULL and (self._anywhere or is_loopback(address.removeprefix("::ffff:"))):
            return ""
        self._refusals.count(
            Refusal.PLAIN,
            f"{address} connected, and is not on this machine. Make keys (chat-node keys new), or give cluster.plain ="
            ' "anywhere" in a network that you trust.',
        )
        return None

    def _with_key(self, address: str, mechanism: bytes, credentials: Sequence[bytes]) -> str | None:
        if self._users is None or mechanism != _CURVE or len(credentials) != 1:
            return None
        key = encode_key(credentials[0])
        user = self._users.get(key)
        if user is None:
            self._refusals.count(
                Refusal.KEY,
                f"{address} connected with the key {key.decode()}, which no node on the allow list has. If it is one of"
                " yours: chat-node keys allow NAME KEY.",
            )
        return user

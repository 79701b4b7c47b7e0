"""How a node introduces itself: the first thing on each connection to a peer's inbox, and on each message there.

A hello is the routing id of the connection: ZeroMQ sends it in the handshake, after every reconnection too, and shows
it with every message, so there is no message before it and nothing to repeat. It says nothing about who may speak: that
the node's name is true, the connection's key shows (`router/inbox.py`). Its last part is a secret between the two
nodes: as nobody else can guess a hello, nobody can take over a connection by using the same routing id.

Its bytes: ``cn/LOWEST-HIGHEST/FEATURES/PUBLISH_PORT/NODE/BOOT/SECRET``. What later versions put behind another slash is
ignored. They may change everything after HIGHEST if they do not speak the old versions any more.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

NONCE_BYTES: Final = 16  # of a hello's secret: nobody guesses it
MAX_HELLO: Final = 255  # bytes; ZMTP 3.1: a routing id
MAX_VERSION: Final = 0xFFFF
_NAME: Final = r"[A-Za-z0-9_.-]{1,64}"
_VERSIONS: Final = re.compile(rb"cn/(\d{1,5})-(\d{1,5})/")
_HELLO: Final = re.compile(rf"cn/\d+-\d+/(\d{{1,5}})/(\d{{1,5}})/({_NAME})/({_NAME})/([A-Za-z0-9_-]{{1,32}})(/.*)?")


class Versions(NamedTuple):
    """Versions of the protocol between nodes, from `lowest` to `highest`, both included."""

    lowest: int
    highest: int

    def common(self, other: Versions) -> int | None:
        """The newest that both speak; None: there is none."""
        newest = min(self.highest, other.highest)
        return newest if newest >= max(self.lowest, other.lowest) else None


PROTOCOL: Final = Versions(1, 1)
FEATURES: Final = 0  # rises when nodes learn something that others of the same version may not know yet


class Hello(NamedTuple):
    """What a node says of itself.

    Attributes:
        versions: Of the protocol that it speaks.
        features: How much of these versions it knows; whoever needs more of a peer must ask for it.
        publish_port: Where it publishes, on the host of its inbox; 0: it does not.
        node: Its name.
        boot: A name of this life of it.
        secret: Random; letters, digits, _ and -.
    """

    versions: Versions
    features: int
    publish_port: int
    node: str
    boot: str
    secret: str

    def encoded(self) -> bytes:
        """As a routing id.

        Raises:
            ValueError: A part is none that peers would take.
        """
        lowest, highest = self.versions
        text = f"cn/{lowest}-{highest}/{self.features}/{self.publish_port}/{self.node}/{self.boot}/{self.secret}"
        data = text.encode()
        if read_hello(data) != self:
            raise ValueError(f"no hello that peers would take: {text!r}. Node and boot are letters, digits, _, . and -")
        return data


def read_versions(data: bytes) -> Versions | None:
    """The versions that a hello names, in this version's form or a later one; None: it is no hello."""
    found = _VERSIONS.match(data)
    if found is None or len(data) > MAX_HELLO:
        return None
    lowest, highest = int(found[1]), int(found[2])
    return Versions(lowest, highest) if 0 < lowest <= highest <= MAX_VERSION else None


def read_hello(data: bytes) -> Hello | None:
    """A hello in the form of the versions that this node speaks; None: it is none."""
    versions = read_versions(data)
    found = _HELLO.fullmatch(data.decode("latin-1"))
    if versions is None or found is None:
        return None
    features, port = int(found[1]), int(found[2])
    if features > MAX_VERSION or port > MAX_VERSION:
        return None
    return Hello(versions, features, port, found[3], found[4], found[5])

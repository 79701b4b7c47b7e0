"""What is made of what comes into a node's inbox: messages of peers, or nothing.

Who speaks is decided by the key that its connection has proved, which ZeroMQ shows with every message as its user id
(see `router/zap.py`). The hello must name the same node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from router.channels import Channel
from router.hello import Hello, Versions, read_hello, read_versions
from router.link import MAX_BODY, Received
from router.transport_statistics import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.transport_statistics import Refusals

MAX_KNOWN: Final = 4096  # hellos that need not be read again; four lives of each of 1,024 nodes
_CHANNELS: Final[Mapping[int, Channel]] = {channel.value: channel for channel in Channel}

Users: TypeAlias = "Mapping[str, str]"


class Inbox:
    """Reads what came in.

    Args:
        node: This node, which nobody else may be.
        versions: Of the protocol that it speaks.
        users: The node of each user id that is let in; None: there are no keys, and a hello is believed.
        refusals: Counts what changes nothing.
    """

    def __init__(self, node: str, versions: Versions, users: Users | None, refusals: Refusals) -> None:
        self._node = node
        self._versions = versions
        self._users = users
        self._refusals = refusals
        self._known: dict[bytes, Hello] = {}

    def allow(self, users: Users | None) -> None:
        """Let in these from now on, and no others, whether they are connected or not."""
        self._users = users

    def receive(self, sender: bytes, user: str, content: bytes | memoryview) -> Received | Hello | None:
        """Read a message of one part.

        Args:
            sender: The connection's routing id.
            user: Its user id; empty without keys.
            content: Nothing, just after a connection was made; else a channel and a body.

        Returns:
            A message; a hello, which says that its node has just connected; None: it was refused and counted.
        """
        hello = self._known.get(sender) or self._read(sender, user)
        if hello is None:
            return None
        if self._users is not None and self._users.get(user) != hello.node:
            self._refuse_identity(hello, user)
            return None
        if not content:
            return hello
        channel = _CHANNELS.get(content[0])
        if channel is None:
            self._refusals.count(
                Refusal.CHANNEL,
                f"{hello.node} sends messages on channel {content[0]}, which this version does not know. Upgrade this"
                " node, or see why that one sends them to a node of feature level"
                f" lower than its own ({hello.features}).",
            )
            return None
        if len(content) > MAX_BODY + 1:
            self.refuse_size(sender, len(content))
            return None
        return Received(hello.node, hello.boot, channel, bytes(content[1:]))

    def hello_of(self, sender: bytes) -> Hello:
        """The hello of a connection whose message was received just now, and not refused."""
        return self._known[sender]

    def refuse_frames(self, sender: bytes) -> None:
        """A message came in more parts than one."""
        name = self._name(sender)
        self._refusals.count(Refusal.FRAMES, f"{name} sends messages in several parts, which no version does.")

    def refuse_size(self, sender: bytes, size: int) -> None:
        """A message is too long."""
        self._refusals.count(
            Refusal.SIZE, f"{self._name(sender)} sent a message of {size} bytes; at most {MAX_BODY} are taken."
        )

    def _read(self, sender: bytes, user: str) -> Hello | None:
        """Read a hello for the first time."""
        theirs = read_versions(sender)
        who = self._users.get(user, user) if self._users is not None else "somebody"
        if theirs is None:
            self._refusals.count(Refusal.HELLO, f"{who} does not say who it is as a node of chat-node does.")
            return None
        if self._versions.common(theirs) is None:
            older = "this node" if theirs.lowest > self._versions.highest else "that one"
            self._refusals.count(
                Refusal.VERSION,
                f"{who} speaks versions {theirs.lowest} to {theirs.highest} of the nodes' protocol, this node"
                f" {self._versions.lowest} to {self._versions.highest}. Upgrade {older}.",
            )
            return None
        hello = read_hello(sender)
        if hello is None:
            self._refusals.count(Refusal.HELLO, f"{who} does not say who it is as a node of chat-node does.")
            return None
        if hello.node == self._node:
            self._refusals.count(
                Refusal.NAME, f"Another node says that it is {hello.node}, as this one is. Give each a name of its own."
            )
            return None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[sender] = hello
        return hello

    def _refuse_identity(self, hello: Hello, user: str) -> None:
        users = self._users or {}
        if user in users:
            self._refusals.count(
                Refusal.NAME,
                f"The node with the key of {users[user]} says that it is {hello.node}. Make a key for each node, and"
                " allow it under the name of its node.",
            )
        else:
            self._refusals.count(
                Refusal.WITHDRAWN,
                f"{hello.node} is still connected with a key that was taken from the allow list.",
            )

    def _name(self, sender: bytes) -> str:
        hello = self._known.get(sender)
        return hello.node if hello is not None else "somebody"

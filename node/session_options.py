"""What all sessions of a node have in common.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from node.chat import ChatFormat
from node.permissions import RoomKinds

if TYPE_CHECKING:
    from edge_config.schema import Config

DAY_MS: Final = 86_400_000


class SessionOptions:
    """Settings, prepared once.

    Args:
        config: The node's.
    """

    __slots__ = ("chat", "keepalive", "kinds", "limits", "personal_channel", "rated", "rates", "undo_ms")

    def __init__(self, config: Config) -> None:
        self.limits, self.rates, self.keepalive = config.limits, config.rates, config.keepalive
        self.personal_channel = config.auth.personal_channel
        self.kinds = RoomKinds(config.kinds, config.rooms.default_kind, config.limits.channel_bytes)
        self.chat = ChatFormat(config.limits)
        self.undo_ms = config.log.undo_days * DAY_MS
        rates = config.rates
        self.rated = any(
            (rates.connection_commands, rates.connection_publishes, rates.connection_reads, rates.connection_joins)
        )

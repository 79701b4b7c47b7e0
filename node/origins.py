"""Which web pages may connect to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from edge_config.schema import is_loopback
from node.upgrade import OriginRules

if TYPE_CHECKING:
    from edge_config.schema import Config


class LocalPages(OriginRules):
    """Pages of this machine, whatever their port; further rules come on top."""

    __slots__ = ()

    @override
    def __contains__(self, origin: str) -> bool:
        """Whether a page of `origin` may connect."""
        return _is_local(origin) or super().__contains__(origin)


def page_origins(config: Config) -> OriginRules:
    """The rules of a configuration; pages of the node's own host are none of their business."""
    origins = config.auth.allowed_origins
    return LocalPages(origins) if config.node.dev and not origins else OriginRules(origins)


def _is_local(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)

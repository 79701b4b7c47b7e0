"""Which web pages may connect to a node, and to which of its sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from typing_extensions import override

from edge_config.address import is_loopback
from node.upgrade import OriginRules, Refusal, origin_allowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.sites import Sites
    from node.upgrade import Request


class Arrival(NamedTuple):
    """How a client came, as far as its site matters.

    Attributes:
        site: `?site=` of the URL, or empty.
        origin: The page's, or None of a client that is no page.
        host: Where it found the node.
    """

    site: str = ""
    origin: str | None = None
    host: str = ""


NOWHERE = Arrival()
"""Of a client that asked for no site and is no page."""


def arrival(request: Request) -> Arrival:
    """How a client comes with a request."""
    site, origin = request.query.get("site", ""), request.headers.get("origin")
    return Arrival(site, origin, request.headers.get("host", "")) if site or origin is not None else NOWHERE


def foreign_page(request: Request) -> Refusal:
    """Tells a page that it may not connect."""
    origin = request.headers.get("origin")
    text = f"Pages of {origin} may not connect; add it to auth.allowed_origins or to its site.\n"
    if origin == "null":  # of files, sandboxed frames and redirects: whoever admitted it would admit anybody's
        text = "Pages without an origin (files, sandboxed frames) may not connect; serve the page from a web address.\n"
    return Refusal(403, "Forbidden", text)


class LocalPages(OriginRules):
    """Pages of this machine, whatever their port; further rules come on top."""

    __slots__ = ()

    @override
    def __contains__(self, origin: str) -> bool:
        """Whether a page of `origin` may connect."""
        return _is_local(origin) or super().__contains__(origin)


class Pages:
    """The rules of all sites; pages of the node's own host are none of their business.

    Args:
        sites: Whose; `replace` gives others.
        dev: Whether sites without rules admit pages of this machine.
    """

    __slots__ = ("_anybody", "_by_site", "_dev")

    def __init__(self, sites: Sites, *, dev: bool = False) -> None:
        self._dev = dev
        self._by_site: Mapping[str, OriginRules] = {}
        self._anybody = OriginRules(())
        self.replace(sites)

    def replace(self, sites: Sites) -> None:
        """Take the rules of other sites."""
        self._by_site = {site.name: self._rules(site.origins) for site in sites}
        local = self._dev and any(site.origins is None for site in sites)
        union = [origin for site in sites for origin in site.origins or ()]
        self._anybody = LocalPages(union) if local else OriginRules(union)

    def admit(self, came: Arrival) -> bool:
        """Whether a page may connect, as far as is known at the upgrade: by its site's rules, or by anybody's."""
        return self._allowed(came, self._by_site.get(came.site) if came.site else self._anybody)

    def belongs(self, came: Arrival, site: str) -> bool:
        """Whether a page may connect to the site that its token or its guest's place turned out to be."""
        return came.origin is None or self._allowed(came, self._by_site.get(site))

    def _allowed(self, came: Arrival, rules: OriginRules | None) -> bool:
        return origin_allowed(came.origin, came.host, rules if rules is not None else OriginRules(()))

    def _rules(self, origins: tuple[str, ...] | None) -> OriginRules:
        return LocalPages(()) if self._dev and origins is None else OriginRules(origins or ())


def _is_local(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)

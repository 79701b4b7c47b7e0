"""Whose request of the server API it is: the site and the rights of an API key.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from node.sites import ApiKey, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge_config.api import GivenKey
    from node.sites import Sites


class Caller(NamedTuple):
    """Who asks.

    Attributes:
        site: The tenant; nothing of another site is read or changed.
        scopes: Of `edge_config.api.SCOPES`.
    """

    site: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key has a scope."""
        return scope in self.scopes or "admin" in self.scopes


class Keys(Protocol):
    """Who holds API keys."""

    def find(self, key: str) -> Caller | None:
        """Whose key it is; None: nobody's."""


class SiteKeys:
    """The keys of the sites that there are at the moment.

    Args:
        sites: Gives them.
    """

    __slots__ = ("_sites",)

    def __init__(self, sites: Callable[[], Sites]) -> None:
        self._sites = sites

    def find(self, key: str) -> Caller | None:
        """See `Keys`."""
        found = self._sites().by_api_key(key)
        return None if found is None else Caller(found[0].name, found[1].scopes)


def configured(keys: Iterable[GivenKey]) -> tuple[ApiKey, ...]:
    """What is kept of the keys of `edge_config.api.read_api_keys`: their hashes."""
    return tuple(
        ApiKey(f"configured-{number}", digest_of(given.key), given.scopes) for number, given in enumerate(keys, 1)
    )

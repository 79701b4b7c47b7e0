"""Who an API key is."""

from __future__ import annotations

import pytest

from edge_config.api import read_api_keys
from edge_config.schema import Auth
from edge_config.secret import Secret
from node.api_keys import Caller, SiteKeys, configured
from node.sites import ApiKey, Site, assemble, digest_of

KEY = "k" * 32
OTHER = "o" * 32


def keys(given: str) -> SiteKeys:
    further = Site("shop", api_keys=(ApiKey("k1", digest_of(OTHER), frozenset({"read"})),))
    sites = assemble(Auth(), [further], configured(read_api_keys(Secret(given) if given else None)))
    return SiteKeys(lambda: sites)


@pytest.mark.parametrize(
    ("given", "scope", "may"),
    [
        (KEY, "manage", True),
        (f"admin:{KEY}", "publish", True),
        (f"read,publish:{KEY}", "publish", True),
        (f"read,publish:{KEY}", "read", True),
        (f"read,publish:{KEY}", "manage", False),
        (f"read,publish:{KEY}", "admin", False),
    ],
)
def test_a_key_has_its_scopes(given: str, scope: str, may: bool) -> None:
    caller = keys(f"other-{KEY}\n {given} ").find(KEY)
    assert caller is not None
    assert caller.site == "default"
    assert caller.may(scope) is may


@pytest.mark.parametrize("key", ["", "k", KEY + "k", f"read:{KEY}", "\xe9"])
def test_other_keys_are_nobodys(key: str) -> None:
    assert keys(f"read:{KEY}").find(key) is None
    assert keys("").find(key) is None


def test_a_key_is_of_its_site_and_no_other() -> None:
    assert keys(KEY).find(OTHER) == Caller("shop", frozenset({"read"}))
    assert keys("").find(OTHER) == Caller("shop", frozenset({"read"}))


def test_a_configured_key_is_kept_as_a_hash_only() -> None:
    (kept,) = configured(read_api_keys(Secret(f"read:{KEY}")))
    assert KEY not in f"{kept.id}{kept.digest}"
    assert kept.scopes == {"read"}

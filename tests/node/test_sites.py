"""The tenants of a node."""

from __future__ import annotations

import pytest

from edge_config.schema import Auth
from edge_config.secret import Secret
from node.sites import ApiKey, Site, Sites, VerificationKey, Webhook, assemble, digest_of

KEY_A, KEY_B = ApiKey("k1", digest_of("a" * 32), frozenset({"publish"})), ApiKey("k1", digest_of("b" * 32))


def key(key_id: str) -> VerificationKey:
    return VerificationKey(key_id, "HS256", f"secret of {key_id}".encode())


def test_a_site_is_found_by_its_name_and_by_its_api_keys() -> None:
    a, b = Site("a", api_keys=(KEY_A,)), Site("b", api_keys=(KEY_B,))
    sites = Sites([a, b])
    assert list(sites) == [a, b]
    assert (sites.get("a"), sites.get("b"), sites.get("c")) == (a, b, None)
    assert sites.by_api_key("a" * 32) == (a, KEY_A)
    assert sites.by_api_key("b" * 32) == (b, KEY_B)
    assert sites.by_api_key("c" * 32) is None
    assert sites.by_api_key(KEY_A.digest) is None
    assert sites.by_api_key("\ud800") is None


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two sites 'a'"):
        Sites([Site("a"), Site("a")])


def test_guests_without_a_site_belong_to_the_only_one() -> None:
    assert Sites([Site("a")]).only == Site("a")
    assert Sites([Site("a"), Site("b")]).only is None


def test_the_configured_site_is_there_if_it_accepts_anybody_or_is_alone() -> None:
    a = Site("a")
    assert [site.name for site in assemble(Auth())] == ["default"]
    assert [site.name for site in assemble(Auth(), [a])] == ["a"]
    assert [site.name for site in assemble(Auth(insecure=True), [a])] == ["default", "a"]
    assert [site.name for site in assemble(Auth(secret=Secret("x" * 32)), [a])] == ["default", "a"]
    assert [site.name for site in assemble(Auth(), [a], (KEY_A,))] == ["default", "a"]


def test_an_entry_of_the_file_adds_keys_to_the_configured_site() -> None:
    hook = Webhook("h", "https://a.example/", Secret("s"), frozenset({"message"}))
    more = Site("default", (key("k"),), (KEY_B,), guests=True, webhooks=(hook,), jwks="https://a.example/jwks")
    (site,) = assemble(Auth(secret=Secret("x" * 32), issuer="i"), [more], (KEY_A,))
    assert [k.id for k in site.keys] == ["", "k"]
    assert (site.api_keys, site.webhooks, site.jwks) == ((KEY_A, KEY_B), (hook,), more.jwks)
    assert (site.issuer, site.guests) == ("i", False)


def test_a_key_that_is_named_is_found_without_trying_the_others() -> None:
    named, unnamed = key("k7"), key("")
    sites = Sites([*(Site(f"s{n}", (key(f"k{n}"),)) for n in range(1000)), Site("u", (unnamed,))])
    assert [k for _, k in sites.keys("k7", None)] == [named, unnamed]
    assert [k for _, k in sites.keys("k-unknown", None)] == [unnamed]
    assert [site.name for site, _ in sites.keys("", None, "s8")] == ["s8"]
    assert not sites.keys("k7", None, "s8")
    assert not sites.keys("", None, "unknown")


def test_an_issuer_leads_to_its_sites_and_to_those_that_take_any() -> None:
    sites = Sites([Site("a", (key("a"),), issuer="ia"), Site("b", (key("b"),), issuer="ib"), Site("c", (key("c"),))])
    assert [site.name for site, _ in sites.keys("", "ia")] == ["a", "c"]
    assert [site.name for site, _ in sites.keys("", "")] == ["c"]
    assert [site.name for site, _ in sites.keys("", None)] == ["a", "b", "c"]


@pytest.mark.parametrize(("count", "crowded"), [(16, False), (17, True)])
def test_issuers_are_looked_at_only_where_there_are_many_keys(count: int, crowded: bool) -> None:
    sites = Sites(Site(f"s{n}", (key(f"k{n}"),)) for n in range(count))
    assert sites.crowded is crowded


def test_nothing_of_a_key_is_printed() -> None:
    site = Site("a", (key("k"),), (KEY_A,), webhooks=(Webhook("h", "https://a.example/", Secret("hush")),))
    assert "secret of" not in repr(site)
    assert KEY_A.digest not in repr(site)
    assert "hush" not in repr(site)

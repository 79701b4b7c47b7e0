"""Which web pages may connect to a node, and to which of its sites."""

from __future__ import annotations

from typing import Any

import pytest

from edge_config.load import load
from node.origins import NOWHERE, Arrival, Pages, arrival, foreign_page
from node.sites import Site, Sites, assemble
from node.upgrade import Request

LOCAL = ("http://localhost:5173", "https://localhost", "http://127.0.0.1:8080", "http://[::1]:3000")
FOREIGN = ("https://evil.example", "http://localhost.evil.example", "http://192.168.1.7:8000", "null", "http://[", "")
A, B, C = Site("a", origins=("https://a.example",)), Site("b", origins=("https://b.example",)), Site("c")
PAGE_A, PAGE_B = A.origins[0] if A.origins else "", B.origins[0] if B.origins else ""


def configured(**flags: Any) -> Pages:  # noqa: ANN401 - values of any key
    config = load(None, {}, {name.replace("__", "."): value for name, value in flags.items()})
    return Pages(assemble(config.auth), dev=config.node.dev)


def admitted(pages: Pages, origin: str, site: str = "") -> bool:
    return pages.admit(Arrival(site, origin, "chat.example"))


@pytest.mark.parametrize("origin", LOCAL)
def test_with_dev_pages_of_this_machine_may_connect(origin: str) -> None:
    assert admitted(configured(node__dev=True), origin)
    assert not admitted(configured(), origin)


@pytest.mark.parametrize("origin", FOREIGN)
def test_with_dev_other_pages_may_not(origin: str) -> None:
    assert not admitted(configured(node__dev=True), origin)


def test_what_is_given_wins_over_dev() -> None:
    given = configured(node__dev=True, auth__allowed_origins=["https://shop.example"])
    assert admitted(given, "https://shop.example")
    assert not admitted(given, LOCAL[0])


@pytest.mark.parametrize(
    ("site", "origin", "may"),
    [
        ("", PAGE_A, True),
        ("", PAGE_B, True),
        ("", "https://other.example", False),
        ("a", PAGE_A, True),
        ("a", PAGE_B, False),
        ("b", PAGE_B, True),
        ("c", PAGE_A, False),
        ("c", "https://chat.example", True),
        ("unknown", PAGE_A, False),
    ],
)
def test_at_the_upgrade_a_page_is_checked_against_the_site_that_it_asks_for_or_all(
    site: str, origin: str, may: bool
) -> None:
    assert admitted(Pages(Sites([A, B, C])), origin, site) is may


def test_at_connect_a_page_must_be_one_of_its_site() -> None:
    pages = Pages(Sites([A, B, C]))
    assert pages.belongs(Arrival("", PAGE_A, "chat.example"), "a")
    assert not pages.belongs(Arrival("", PAGE_A, "chat.example"), "b")
    assert not pages.belongs(Arrival("", PAGE_A, "chat.example"), "c")
    assert pages.belongs(NOWHERE, "b")


def test_sites_can_be_replaced() -> None:
    pages = Pages(Sites([A]))
    pages.replace(Sites([B]))
    assert not admitted(pages, PAGE_A)
    assert not admitted(pages, PAGE_A, "a")
    assert admitted(pages, PAGE_B, "b")


def test_a_client_arrives_with_site_origin_and_host() -> None:
    def came(query: dict[str, str], headers: dict[str, str]) -> Arrival:
        return arrival(Request("GET", "/", "/", query, headers, "1.1", b"", b""))

    assert came({"site": "a"}, {"origin": PAGE_A, "host": "h"}) == Arrival("a", PAGE_A, "h")
    assert came({}, {"host": "h"}) is NOWHERE


@pytest.mark.parametrize(
    ("origin", "mend"), [(PAGE_A, "add it to auth.allowed_origins"), ("null", "from a web address")]
)
def test_a_foreign_page_is_told_the_mend(origin: str, mend: str) -> None:
    refusal = foreign_page(Request("GET", "/", "/", {}, {"origin": origin}, "1.1", b"", b""))
    assert mend in refusal.body
    assert ("allowed_origins" in refusal.body) is (origin != "null"), "the schema refuses an origin of null"

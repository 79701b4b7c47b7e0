"""Tokens that are refused although they are genuine."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from node.auth import Authenticator, RevokedToken, make_token
from node.revocations import Revocations, Revoked, SiteRevocations, forget, read, revoke
from node.site_file import SitesFault
from node.sites import Site, Sites, VerificationKey

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_794_000_000.0
SECRET = "a secret of the tests, long enough for HS256"
SITES = Sites([Site("a", (VerificationKey("", "HS256", SECRET.encode()),), guests=True)])


def gate(revoked: Revocations, now: float = NOW) -> Authenticator:
    return Authenticator(SITES, b"g" * 32, lambda: now, revocations=revoked)


def token(**claims: object) -> str:
    return make_token(SECRET, {"sub": "u1", "iat": NOW - 10, **claims})


@pytest.mark.parametrize(
    ("claims", "revoked", "refused"),
    [
        ({"jti": "t"}, SiteRevocations({"t": None}), True),
        ({"jti": "t"}, SiteRevocations({"t": NOW + 1}), True),
        ({"jti": "t"}, SiteRevocations({"t": NOW}), False),
        ({"jti": "s"}, SiteRevocations({"t": None}), False),
        ({}, SiteRevocations({"": None}), False),
        ({}, SiteRevocations(users={"u1": Revoked(NOW - 9)}), True),
        ({}, SiteRevocations(users={"u1": Revoked(NOW - 10)}), False),
        ({}, SiteRevocations(users={"u1": Revoked(NOW, NOW + 1)}), True),
        ({}, SiteRevocations(users={"u1": Revoked(NOW, NOW)}), False),
        ({"sub": "u2"}, SiteRevocations(users={"u1": Revoked(NOW)}), False),
        ({"sub": ""}, SiteRevocations(users={"": Revoked(NOW)}), False),
        ({"iat": None}, SiteRevocations(users={"u1": Revoked(1.0)}), True),
        ({}, SiteRevocations(before=NOW - 9), True),
        ({}, SiteRevocations(before=NOW - 10), False),
        ({"iat": None}, SiteRevocations(before=1.0), True),
    ],
)  # fmt: skip
def test_a_revoked_token_is_refused_and_no_other(
    claims: dict[str, Any], revoked: SiteRevocations, refused: bool
) -> None:
    shown = token(**claims)
    here, elsewhere = gate(Revocations({"a": revoked})), gate(Revocations({"b": revoked}))
    who = elsewhere.connection(shown, "")
    assert elsewhere.lapsed(who) == ""
    assert bool(here.lapsed(who)) is refused, "a connected client is judged as a token is"
    if refused:
        with pytest.raises(RevokedToken, match="revoked"):
            here.connection(shown, "")
    else:
        assert here.connection(shown, "").site == "a"


def test_a_revoked_subscription_token_is_refused() -> None:
    here = gate(Revocations({"a": SiteRevocations({"t": None})}))
    who = here.connection(token(), "")
    with pytest.raises(RevokedToken):
        here.subscription(token(jti="t", channel="$c"), who, "c1", "$c")


def test_a_revoked_guest_goes_and_becomes_another_one() -> None:
    guest = gate(Revocations()).connection("", "")
    here = gate(Revocations({"a": SiteRevocations(users={guest.user: Revoked(NOW)})}))
    assert here.lapsed(guest) == "this guest was revoked"
    assert here.connection("", guest.proof).user != guest.user
    assert here.lapsed(gate(Revocations()).connection("", "")) == ""


def test_guests_do_not_lapse_with_tokens_of_the_past() -> None:
    here = gate(Revocations({"a": SiteRevocations(before=NOW)}))
    assert here.lapsed(here.connection("", "")) == ""


def test_a_client_lapses_with_its_site_and_a_guest_with_its_admission() -> None:
    here = gate(Revocations())
    user, guest = here.connection(token(), ""), here.connection("", "")
    here.replace(Sites([Site("a")]), Revocations())
    assert (here.lapsed(user), here.lapsed(guest)) == ("", "this site takes no guests any more")
    here.replace(Sites([Site("b")]), Revocations())
    assert here.lapsed(user) == here.lapsed(guest) == "its site was removed"


# -- the file ----------------------------------------------------------------------------------------------------


def test_what_is_revoked_is_on_disk_for_its_owner_only(tmp_path: Path) -> None:
    revoke(tmp_path, "a", token_id="t", before=0, until=None, now=NOW, most=9)
    revoke(tmp_path, "a", user="u", before=NOW, until=None, now=NOW, most=9)
    revoke(tmp_path, "b", before=NOW, until=None, now=NOW, most=9)
    found = read(tmp_path)
    assert found.refusal("a", "", "t", NOW, NOW)
    assert found.refusal("a", "u", "", NOW - 1, NOW)
    assert not found.refusal("a", "v", "", NOW - 1, NOW)
    assert found.refusal("b", "v", "", NOW - 1, NOW)
    assert stat.S_IMODE((tmp_path / "revocations.json").stat().st_mode) == 0o600


def test_a_later_revocation_never_takes_back_an_earlier_one(tmp_path: Path) -> None:
    for before in (NOW, NOW - 100):
        revoke(tmp_path, "a", user="u", before=before, until=None, now=NOW, most=9)
        revoke(tmp_path, "a", before=before, until=None, now=NOW, most=9)
    assert read(tmp_path).refusal("a", "u", "", NOW - 1, NOW)
    assert read(tmp_path).refusal("a", "v", "", NOW - 1, NOW)


def test_what_has_ended_is_dropped_at_the_next_change(tmp_path: Path) -> None:
    revoke(tmp_path, "a", token_id="old", before=0, until=NOW + 5, now=NOW, most=9)
    revoke(tmp_path, "a", user="old", before=NOW, until=NOW + 5, now=NOW, most=9)
    revoke(tmp_path, "b", token_id="new", before=0, until=None, now=NOW + 6, most=9)
    assert b"old" not in (tmp_path / "revocations.json").read_bytes()


def test_too_many_are_refused_and_told_the_mend(tmp_path: Path) -> None:
    for name in ("t1", "t2"):
        revoke(tmp_path, "a", token_id=name, before=0, until=None, now=NOW, most=2)
    with pytest.raises(SitesFault, match=r"auth\.revocations.*--before"):
        revoke(tmp_path, "a", token_id="t3", before=0, until=None, now=NOW, most=2)
    assert not read(tmp_path).refusal("a", "", "t3", NOW, NOW)
    revoke(tmp_path, "b", token_id="t3", before=0, until=None, now=NOW, most=2)


def test_a_removed_site_leaves_nothing(tmp_path: Path) -> None:
    revoke(tmp_path, "a", token_id="t", before=0, until=None, now=NOW, most=9)
    forget(tmp_path, "b")
    assert read(tmp_path)
    forget(tmp_path, "a")
    assert not read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"version":2}', '{"version":1,"sites":{"a":{"tokens":[]}}}'])
def test_a_damaged_file_is_a_fault(tmp_path: Path, content: str) -> None:
    (tmp_path / "revocations.json").write_text(content)
    with pytest.raises(SitesFault, match=r"revocations\.json"):
        read(tmp_path)

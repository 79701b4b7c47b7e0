"""Who a client is."""

from __future__ import annotations

import json
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.schema import Auth
from edge_config.secret import Secret
from node.auth import Authenticator, AuthError, ExpiredToken, Grant, Identity, InvalidToken, make_token
from node.origins import Arrival
from node.sites import Site, Sites, VerificationKey, assemble

SECRET = "a secret of the tests, long enough for HS256"
OTHER = "another secret of the tests, long enough, too"
NOW = 1_794_000_000
GUEST_KEY = b"g" * 32


def authenticator(now: float = NOW, **rules: Any) -> Authenticator:  # noqa: ANN401 - attributes of Site
    rules = {"keys": (hs256(SECRET),), **rules}
    return Authenticator(Sites([Site("default", **rules)]), GUEST_KEY, lambda: now)


def hs256(secret: str, key_id: str = "") -> VerificationKey:
    return VerificationKey(key_id, "HS256", secret.encode())


def token(secret: str = SECRET, **claims: object) -> str:
    return make_token(secret, {"sub": "u1", **claims})


def test_a_token_says_who_connects() -> None:
    who = authenticator().connection(
        token(
            exp=NOW + 60, info={"name": "Ann"}, role="moderator", channels=["a"],
            subs={"b": {"info": {"x": 1}, "data": [2]}, "c": {}},
        ),
        "",
    )  # fmt: skip
    assert who == Identity(
        "default", "u1", info=b'{"name":"Ann"}', ttl=60, role="moderator",
        subscriptions={"a": Grant(), "b": Grant(b'{"x":1}', b"[2]"), "c": Grant()},
    )  # fmt: skip


def test_what_a_token_brings_for_clients_is_of_one_line_however_it_was_written() -> None:
    class Indented(json.JSONEncoder):
        def __init__(self, **options: Any) -> None:  # noqa: ANN401 - the standard library's
            super().__init__(**{**options, "indent": 1, "separators": (",\r", ":")})

    info = {"name": "A\nn", "of": [1, 2]}
    claims = {"sub": "u1", "info": info, "subs": {"b": {"info": info, "data": info}}}
    gate = authenticator()
    who = gate.connection(jwt.encode(claims, SECRET, "HS256", json_encoder=Indented), "")
    shown = jwt.encode({"sub": "u1", "channel": "$a", "info": info}, SECRET, "HS256", json_encoder=Indented)
    granted = gate.subscription(shown, who, "c", "$a")
    for brought in (who.info, who.subscriptions["b"].info, who.subscriptions["b"].data, granted.info):
        assert json.loads(brought) == info
        assert b"\n" not in brought
        assert b"\r" not in brought


def test_a_token_without_end_does_not_expire() -> None:
    assert authenticator().connection(token(), "").ttl is None


@pytest.mark.parametrize(("now", "ttl"), [(NOW, 100), (NOW + 99, 1), (NOW + 104, 1)])
def test_within_the_leeway_a_token_lives_on_for_a_second(now: float, ttl: int) -> None:
    assert authenticator(now).connection(token(exp=NOW + 100), "").ttl == ttl


def test_a_time_to_live_is_bounded_for_the_timers_of_clients() -> None:
    assert authenticator().connection(token(exp=NOW * 1000), "").ttl == 365 * 86_400


def test_an_expired_token_is_told_from_a_bad_one() -> None:
    with pytest.raises(ExpiredToken, match="it expired 105 s ago"):
        authenticator(NOW + 105).connection(token(exp=NOW), "")


@pytest.mark.parametrize(
    ("bad", "rules", "complaint"),
    [
        ("hello", {}, "three parts"),
        ("a.b.c", {}, "base64url"),
        ("ü.ü.ü", {}, "a"),
        (token(OTHER), {}, "its signature does not match our key"),
        (token()[:-3], {}, "does not match our key"),
        (jwt.encode({"sub": "u1"}, "", "none"), {}, "is signed with 'none'; sign it with HS256"),
        (jwt.encode({"sub": "u1"}, SECRET * 2, "HS512"), {}, "is signed with 'HS512'; sign it with HS256"),
        (token(), {"keys": ()}, "this node has no key for tokens; configure auth.secret"),
        (token(sub=7), {}, r"its claims can't be used: Expected `str`"),
        (token(exp="soon"), {}, "its claims can't be used"),
        (token(channels="a"), {}, "its claims can't be used"),
        (token(nbf=NOW + 10), {}, "nbf is 10 s ahead of this node's clock"),
        (token(iat=NOW + 10), {}, "iat is 10 s ahead"),
        (token(), {"audience": "chat"}, "aud is '', this site's is 'chat'"),
        (token(aud=["a", "b"]), {"audience": "chat"}, "aud is"),
        (token(iss="x"), {"issuer": "y"}, "iss is 'x', this site's is 'y'"),
        (token(channel="a"), {}, "this is a subscription token"),
        (token(sub="guest:1"), {}, "sub begins with guest:"),
        (token(sub="ü" * 128), {}, "sub is 256 bytes long, at most 255"),
        ("", {}, "this site takes no guests; connect with a token"),
    ],
)
def test_a_bad_token_is_refused_and_told_why(bad: str, rules: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidToken, match=complaint):
        authenticator(**rules).connection(bad, "")


@pytest.mark.parametrize("audience", ["chat", ["chat", "mail"]])
def test_a_token_may_name_audience_and_issuer(audience: object) -> None:
    gate = authenticator(audience="chat", issuer="y")
    assert gate.connection(token(aud=audience, iss="y", nbf=NOW + 4), "").user == "u1"


def test_of_several_sites_the_one_whose_key_verifies_the_token_counts() -> None:
    sites = Site("a", (hs256(SECRET),)), Site("b", (hs256(OTHER),)), Site("c")
    both = Authenticator(Sites(sites), GUEST_KEY, lambda: NOW)
    assert both.connection(token(OTHER), "").site == "b"
    assert both.connection(token(SECRET), "").site == "a"


def test_the_default_site_is_what_the_configuration_says() -> None:
    auth = Auth(secret=Secret(SECRET), audience="a", issuer="i", leeway_seconds=7, insecure=True)
    expected = Site("default", (hs256(SECRET),), guests=True, audience="a", issuer="i", leeway=7)
    assert list(assemble(auth)) == [expected]


# -- guests ------------------------------------------------------------------------------------------------------


def test_a_guest_is_the_same_guest_with_the_proof_even_after_a_restart() -> None:
    first = authenticator(guests=True).connection("", "")
    assert first.guest
    assert first.user.startswith("guest:")
    assert len(first.user) == len("guest:") + 16
    assert authenticator(guests=True).connection("", first.proof) == first


def test_two_guests_are_two() -> None:
    gate = authenticator(guests=True)
    assert gate.connection("", "").user != gate.connection("", "").user


@pytest.mark.parametrize(
    "change", [lambda p: p[:-1] + "_", lambda p: "guest:0000000000000000" + p[22:], lambda _: "guest:1."]
)
def test_a_forged_proof_makes_a_new_guest(change: Any) -> None:  # noqa: ANN401 - a function of text
    gate = authenticator(guests=True)
    first = gate.connection("", "")
    forged = change(first.proof)
    assert gate.connection("", forged).user not in {first.user, forged.rpartition(".")[0]}


def test_a_proof_of_another_node_family_is_void() -> None:
    first = authenticator(guests=True).connection("", "")
    other = Authenticator(Sites([Site("default", guests=True)]), b"h" * 32, lambda: NOW)
    assert other.connection("", first.proof).user != first.user


def test_a_token_without_sub_makes_a_guest_where_guests_need_a_token() -> None:
    who = authenticator().connection(make_token(SECRET, {"exp": NOW + 5}), "")
    assert who.guest
    assert who.ttl == 5
    assert authenticator().connection(make_token(SECRET, {}), who.proof).user == who.user


# -- subscriptions -----------------------------------------------------------------------------------------------

U1 = Identity("default", "u1")
GUEST = Identity("default", "guest:1", guest=True)


@pytest.mark.parametrize(
    ("who", "claims"),
    [
        (U1, {}),
        (U1, {"client": "c1"}),
        (GUEST, {"sub": "guest:1"}),
        (GUEST, {"sub": ""}),
    ],
)
def test_a_subscription_token_opens_its_channel(who: Identity, claims: dict[str, Any]) -> None:
    shown = token(channel="$a", exp=NOW + 60, info={"x": 1}, **claims)
    assert authenticator().subscription(shown, who, "c1", "$a") == Grant(b'{"x":1}', b"", 60, issued=None)


@pytest.mark.parametrize(
    ("who", "claims", "complaint"),
    [
        (U1, {}, "channel is None, this subscription's is"),
        (U1, {"channel": "$b"}, r"channel is '\$b', this subscription's is '\$a'"),
        (U1, {"channel": "$a", "sub": "u2"}, "sub is 'u2'"),
        (U1, {"channel": "$a", "sub": ""}, "sub is ''"),
        (GUEST, {"channel": "$a", "sub": "guest:2"}, "sub is 'guest:2'"),
        (U1, {"channel": "$a", "client": "c2"}, "client is 'c2'"),
        (Identity("other", "u1"), {"channel": "$a"}, "there is no site 'other'"),
    ],
)
def test_a_subscription_token_opens_nothing_else(who: Identity, claims: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidToken, match=complaint):
        authenticator().subscription(token(**claims), who, "c1", "$a")


def test_an_expired_subscription_token_is_told_from_a_bad_one() -> None:
    with pytest.raises(ExpiredToken):
        authenticator(NOW + 9).subscription(token(channel="$a", exp=NOW), U1, "c1", "$a")


def test_a_session_id_can_not_be_guessed_from_the_client_id() -> None:
    one, other = authenticator(), Authenticator(Sites(()), b"h" * 32)
    assert one.session_id("c1") == authenticator().session_id("c1")
    assert len({one.session_id("c1"), one.session_id("c2"), other.session_id("c1")}) == 3


@given(st.text(max_size=60), st.text(max_size=60))
def test_arbitrary_texts_are_refused_and_nothing_else(shown: str, proof: str) -> None:
    with pytest.raises(AuthError):
        authenticator().connection(shown, proof)


# -- many sites --------------------------------------------------------------------------------------------------

CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.text(max_size=5) | st.integers(),
        "exp": st.integers(NOW - 9, NOW + 9) | st.text(max_size=2) | st.none(),
        "iat": st.integers(NOW - 9, NOW + 9) | st.booleans(),
        "aud": st.sampled_from(["a", "b", ["a"], ["a", "b"], [], 1]),
        "iss": st.sampled_from(["ia", "ib", "", 1]),
        "jti": st.text(max_size=3) | st.integers(),
        "channel": st.text(max_size=3),
        "subs": st.dictionaries(st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.integers()), max_size=2),
    },
)
LONG, LONGER = SECRET * 2, OTHER * 2  # as HS512 wants them
STRICT = Sites(
    [
        Site("a", (hs256(LONG, "k"),), audience="a", required=frozenset({"exp", "sub"})),
        Site("b", (hs256(LONGER, "k"), VerificationKey("k5", "HS512", LONGER.encode())), issuer="ib"),
    ]
)


@given(CLAIMS, st.sampled_from([LONG, LONGER]), st.sampled_from(["HS256", "HS384", "HS512"]), st.sampled_from("kx"))
def test_whatever_a_token_says_its_site_is_the_one_of_its_key_and_its_rules_hold(
    claims: dict[str, Any], secret: str, algorithm: str, key_id: str
) -> None:
    shown = jwt.api_jws.PyJWS().encode(msgspec.json.encode(claims), secret.encode(), algorithm, {"kid": key_id})
    gate = Authenticator(STRICT, GUEST_KEY, lambda: NOW)
    try:
        who = gate.connection(shown, "")
    except AuthError:
        return
    assert key_id == "k"
    assert algorithm == "HS256", "only the key's own algorithm counts"
    assert who.site == ("a" if secret == LONG else "b")
    if who.site == "a":
        assert "a" in claims["aud"]
        assert claims["exp"] > NOW - 5
        assert claims["sub"] == who.user
    else:
        assert claims["iss"] == "ib"
    assert "channel" not in claims


def test_a_good_token_of_each_of_these_sites_is_accepted() -> None:
    gate = Authenticator(STRICT, GUEST_KEY, lambda: NOW)
    assert gate.connection(make_token(LONG, {"sub": "u", "exp": NOW, "aud": ["b", "a"]}, key_id="k"), "").site == "a"
    assert gate.connection(make_token(LONGER, {"iss": "ib"}, "HS512", "k5"), "").site == "b"


@pytest.mark.parametrize("missing", ["exp", "sub"])
def test_a_token_without_a_claim_that_its_site_requires_is_refused(missing: str) -> None:
    claims = {"sub": "u", "exp": NOW, "aud": "a"}
    del claims[missing]
    with pytest.raises(InvalidToken, match=f"it has no {missing}, which this site requires"):
        Authenticator(STRICT, GUEST_KEY, lambda: NOW).connection(make_token(LONG, claims, key_id="k"), "")


def test_a_key_is_void_when_its_time_is_over() -> None:
    sites = Sites([Site("a", (VerificationKey("", "HS256", SECRET.encode(), NOW),))])
    assert Authenticator(sites, GUEST_KEY, lambda: NOW - 1).connection(token(), "").site == "a"
    with pytest.raises(InvalidToken):
        Authenticator(sites, GUEST_KEY, lambda: NOW).connection(token(), "")


def test_of_very_many_sites_a_token_has_to_say_its_own() -> None:
    sites = Sites(Site(f"s{n}", (hs256(f"{SECRET} {n}", f"k{n}"),), issuer=f"i{n % 100}") for n in range(200))
    gate = Authenticator(sites, GUEST_KEY, lambda: NOW)
    secret, claims = f"{SECRET} 150", {"sub": "u", "iss": "i50"}
    assert gate.connection(make_token(secret, claims, key_id="k150"), "").site == "s150"
    assert gate.connection(make_token(secret, claims), "").site == "s150"
    assert gate.connection(make_token(secret, claims), "", Arrival("s150")).site == "s150"
    anonymous = Authenticator(
        Sites(Site(f"s{n}", (hs256(f"{SECRET} {n}"),)) for n in range(99)), GUEST_KEY, lambda: NOW
    )
    with pytest.raises(InvalidToken, match=r"give kid or iss in the token, or \?site=NAME"):
        anonymous.connection(make_token(f"{SECRET} 90", {"sub": "u"}), "")

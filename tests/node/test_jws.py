"""Signatures of tokens, with PyJWT as the oracle and the vector of RFC 7515, A.1."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.jws import BadSignature, BadToken, verify

KEY = b"0123456789abcdef0123456789abcdef"
RFC_KEY = urlsafe_b64decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==")
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
PLAIN = jwt.encode({"sub": "u1"}, KEY, "HS256")


def signed(header: bytes, payload: bytes = b"{}") -> str:
    """A token with any header, its signature right."""
    head, body = (urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload))
    signature = jwt.api_jws.PyJWS().get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), KEY)
    return f"{head}.{body}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_the_vector_of_the_rfc() -> None:
    assert json.loads(verify(RFC_TOKEN, RFC_KEY)) == {
        "iss": "joe", "exp": 1300819380, "http://example.com/is_root": True
    }  # fmt: skip


@given(st.dictionaries(st.text(), st.text() | st.integers(), max_size=5), st.binary(min_size=32, max_size=80))
def test_what_pyjwt_signs_is_verified(claims: dict[str, str | int], key: bytes) -> None:
    token = jwt.api_jws.PyJWS().encode(json.dumps(claims).encode(), key, "HS256")
    assert json.loads(verify(token, key)) == claims


@given(st.integers(0, len(PLAIN) - 1), st.sampled_from(ALPHABET + ".=+/ \n\0"))
def test_a_token_in_which_a_character_differs_is_refused(at: int, character: str) -> None:
    changed = PLAIN[:at] + character + PLAIN[at + 1 :]
    if changed != PLAIN:  # the last character's unused bits, too: no two texts are the same token
        with pytest.raises(BadToken):
            verify(changed, KEY)


@given(st.text(max_size=60))
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(BadToken):
        verify(text, KEY)


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        (PLAIN + "é", "three parts"),
        (PLAIN + "=", "signature does not match"),
        ("=" + PLAIN, "base64url without padding"),
        ("!" + PLAIN, "not base64url"),
        (signed(b"{}"), "header can't be used"),
        (signed(b"[]"), "header can't be used"),
        (signed(b'{"alg":1}'), "header can't be used"),
        (signed(b'{"alg":"none"}'), "'none'; sign it with HS256"),
        (signed(b'{"alg":"hs256"}'), "'hs256'; sign it with HS256"),
        (signed(b'{"alg":"RS256"}'), "'RS256'; sign it with HS256"),
        (signed(b'{"alg":"HS256","crit":["exp"]}'), "extensions"),
        (signed(b'{"alg":"HS256","b64":false}'), "extensions"),
        (jwt.encode({}, "", "none"), "'none'; sign it with HS256"),
    ],
)
def test_a_bad_token_says_what_is_wrong(token: str, complaint: str) -> None:
    for _ in range(2):  # what is remembered of headers is only that they were good
        with pytest.raises(BadToken, match=complaint):
            verify(token, KEY)


def test_another_key_is_told_from_a_bad_token() -> None:
    with pytest.raises(BadSignature):
        verify(PLAIN, KEY[::-1])


def test_unknown_fields_of_a_header_are_no_harm() -> None:
    assert verify(signed(b'{"alg":"HS256","typ":"JWT","kid":"1"}', b"x"), KEY) == b"x"

"""Signatures of tokens, with PyJWT as the oracle and the vector of RFC 7515, A.1."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from node import jws
from node.jws import BadKey, BadSignature, BadToken, Material, read_jwk, read_public_key, verify

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


# -- other algorithms --------------------------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
LONG = KEY * 2
KEYS: dict[str, tuple[Any, Material]] = {  # what signs and what verifies
    "HS256": (LONG, LONG),
    "HS384": (LONG, LONG),
    "HS512": (LONG, LONG),
    "RS256": (RSA, RSA.public_key()),
    "ES256": (EC, EC.public_key()),
    "EdDSA": (ED, ED.public_key()),
}
PEMS = [k.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for k in (RSA, EC, ED)]


@pytest.mark.parametrize("signer", KEYS)
@pytest.mark.parametrize("verifier", KEYS)
def test_a_key_verifies_its_own_algorithm_and_no_other(signer: str, verifier: str) -> None:
    token = jwt.api_jws.PyJWS().encode(b'{"sub":"u"}', KEYS[signer][0], signer)
    if signer == verifier:
        assert verify(token, KEYS[verifier][1], verifier) == b'{"sub":"u"}'
    else:
        with pytest.raises(BadToken, match=f"sign it with {verifier}"):
            verify(token, KEYS[verifier][1], verifier)


@pytest.mark.parametrize("algorithm", KEYS)
def test_another_keys_signature_is_refused(algorithm: str) -> None:
    token = jwt.api_jws.PyJWS().encode(b"{}", KEYS[algorithm][0], algorithm)
    others: dict[str, Material] = {
        "RS256": rsa.generate_private_key(65537, 2048).public_key(),
        "ES256": ec.generate_private_key(ec.SECP256R1()).public_key(),
        "EdDSA": ed25519.Ed25519PrivateKey.generate().public_key(),
    }
    with pytest.raises(BadSignature):
        verify(token, others.get(algorithm, KEY), algorithm)


@pytest.mark.parametrize("algorithm", KEYS)
@given(at=st.integers(0, 10_000), character=st.sampled_from(ALPHABET + ".=+/"))
def test_no_other_text_is_the_same_token(algorithm: str, at: int, character: str) -> None:
    token = TOKENS[algorithm]
    at %= len(token)
    changed = token[:at] + character + token[at + 1 :]
    if changed != token:
        with pytest.raises(BadToken):
            verify(changed, KEYS[algorithm][1], algorithm)


TOKENS = {name: jwt.api_jws.PyJWS().encode(b'{"sub":"u"}', signer, name) for name, (signer, _) in KEYS.items()}


@pytest.mark.parametrize("pem", PEMS)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_shared_secret(pem: bytes, algorithm: str) -> None:
    """The confusion attack: who knows the public key signs with its text."""
    head = urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
    signature = hmac.digest(
        pem, f"{head}.e30".encode(), {"HS256": "sha256", "HS384": "sha384"}.get(algorithm, "sha512")
    )
    token = f"{head}.e30.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert verify(token, pem, algorithm) == b"{}", "the attack is made as it should be"
    for name in ("RS256", "ES256", "EdDSA"):
        with pytest.raises(BadToken, match="sign it with"):
            verify(token, KEYS[name][1], name)


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "https://evil.example/key", "\0", "é"])
def test_a_key_id_is_a_name_and_nothing_else(kid: str) -> None:
    token = jwt.encode({"sub": "u"}, LONG, "HS256", {"kid": kid, "jwk": {"kty": "oct", "k": "AA"}, "jku": "https://e/"})
    assert verify(token, LONG)
    with pytest.raises(BadSignature):
        verify(jwt.encode({"sub": "u"}, KEY, "HS256", {"kid": kid, "jku": "https://e/"}), LONG)


@pytest.mark.parametrize("kid", [1, ["a"], None, "x" * 129])
def test_a_strange_key_id_is_refused(kid: object) -> None:
    with pytest.raises(BadToken):
        verify(signed(json.dumps({"alg": "HS256", "kid": kid}).encode()), KEY)


def test_a_header_that_would_fill_the_memory_is_refused_and_not_kept() -> None:
    header = json.dumps({"alg": "HS256", "pad": "x" * jws.LONGEST_HEADER}).encode()
    with pytest.raises(BadToken, match=r"its header has 5\d+ characters, at most 4096"):
        verify(signed(header), KEY)


@pytest.mark.parametrize(
    ("bits", "exponent", "told"),
    [
        (1024, 17, "1024 bits; 2048 are the least"),
        (9000, 17, "9000 bits whose exponent has 17; at most 8192 bits"),
        (2048, 2000, "exponent has 2000; at most 8192 bits and an exponent of 33"),
    ],
)
def test_an_rsa_key_that_takes_long_to_verify_with_is_refused(bits: int, exponent: int, told: str) -> None:
    def number(size: int) -> str:
        value = (1 << (size - 1)) + 1
        return urlsafe_b64encode(value.to_bytes((size + 7) // 8, "big")).rstrip(b"=").decode()

    with pytest.raises(BadKey, match=told):
        read_jwk({"kty": "RSA", "n": number(bits), "e": number(exponent)})


def test_keys_are_read_for_their_algorithm_only() -> None:
    for algorithm, pem in zip(("RS256", "ES256", "EdDSA"), PEMS, strict=True):
        assert verify(TOKENS[algorithm], read_public_key(algorithm, pem.decode()), algorithm)
        for other in {"RS256", "ES256", "EdDSA"} - {algorithm}:
            with pytest.raises(BadKey, match="no public key for"):
                read_public_key(other, pem.decode())


@pytest.mark.parametrize(
    "jwk", [{}, {"kty": "oct", "k": "AA"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": []}]
)
def test_what_is_no_public_key_is_refused(jwk: dict[str, object]) -> None:
    with pytest.raises(BadKey):
        read_jwk(jwk)

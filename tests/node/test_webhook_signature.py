"""Signatures: what is signed is verified, and nothing else is."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.secret import Secret
from node.webhook_signature import TOLERANCE_SECONDS, sign, verify

KEY, OTHER = Secret("k" * 32), Secret("o" * 32)
NOW = 1_795_530_819


def test_the_header_is_what_the_documentation_says() -> None:
    digest = hmac.new(b"k" * 32, b'1795530819.{"a":1}', hashlib.sha256).hexdigest()
    assert sign(b'{"a":1}', [KEY], NOW) == f"t=1795530819,v1={digest}"


@given(st.binary(), st.floats(-TOLERANCE_SECONDS, TOLERANCE_SECONDS))
def test_what_was_signed_is_verified_for_a_while(body: bytes, late: float) -> None:
    assert verify(sign(body, [KEY], NOW), body, KEY, NOW + late)


@pytest.mark.parametrize("secret", [KEY, OTHER])
def test_either_of_two_secrets_is_enough(secret: Secret) -> None:
    assert verify(sign(b"x", [KEY, OTHER], NOW), b"x", secret, NOW)


@pytest.mark.parametrize("late", [TOLERANCE_SECONDS + 1, -TOLERANCE_SECONDS - 1])
def test_what_is_too_old_or_of_the_future_is_not(late: int) -> None:
    assert not verify(sign(b"x", [KEY], NOW), b"x", KEY, NOW + late)


@given(st.binary(), st.binary())
def test_another_body_or_secret_or_time_does_not_fit(body: bytes, other: bytes) -> None:
    header = sign(body, [KEY], NOW)
    assert body == other or not verify(header, other, KEY, NOW)
    assert not verify(header, body, OTHER, NOW)
    assert not verify(header.replace(str(NOW), str(NOW + 1)), body, KEY, NOW)


@given(st.text(max_size=80) | st.from_regex(r"\At=\d+(,v1=[0-9a-f]{64}){0,3}\Z"))
def test_what_is_no_signature_is_none(header: str) -> None:
    assert not verify(header, b"x", KEY, NOW)

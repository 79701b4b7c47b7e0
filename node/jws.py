"""JSON Web Signatures with HS256, in compact form (RFC 7515), as fast as a crowd that comes back needs them verified.

PyJWT takes some 80 us for a token, more than all the rest of a connect together: it looks into every character and
tries to read the secret as a public key, each time. Here a header that was seen before is not read again, and the
signature is compared as text, so that no two texts are the same token.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from functools import lru_cache
from typing import Final

import msgspec

ALGORITHM: Final = "HS256"


class BadToken(Exception):
    """Not a token, or not one that may be accepted; the text says why."""


class BadSignature(BadToken):
    """It was not signed with this key."""


class _Header(msgspec.Struct):
    alg: str
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_header = msgspec.json.Decoder(_Header).decode


def verify(token: str, key: bytes) -> bytes:
    """The payload of a token.

    Args:
        token: Three parts, base64url without padding.
        key: The shared secret.

    Raises:
        BadSignature: It was not signed with `key`.
        BadToken: It is malformed, or asks for something else than HS256.
    """
    signed, _, signature = token.rpartition(".")
    header, dot, payload = signed.partition(".")
    if not dot or "." in payload or not token.isascii():
        raise BadToken("a token has three parts with a dot between them")
    _check_header(header)
    digest = hmac.digest(key, signed.encode(), "sha256")
    if not hmac.compare_digest(urlsafe_b64encode(digest).rstrip(b"="), signature.encode()):
        raise BadSignature("its signature does not match our key")
    return _decode(payload)


@lru_cache(maxsize=64)  # a site's tokens all have the same
def _check_header(header: str) -> None:
    try:
        given = _decode_header(_decode(header))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadToken(f"its header can't be used: {error}") from error
    if given.alg != ALGORITHM:
        raise BadToken(f"it is signed with {given.alg[:32]!r}; sign it with {ALGORITHM}")
    if given.crit is not msgspec.UNSET or given.b64 is not msgspec.UNSET:
        raise BadToken("its header asks for extensions (crit, b64); leave them out")


def _decode(part: str) -> bytes:
    """Strict base64url: its alphabet only, and no padding."""
    if "+" in part or "/" in part or "=" in part:
        raise BadToken("its parts are base64, not base64url without padding")
    try:
        return a2b_base64(part.translate(_TO_BASE64) + "=" * (-len(part) % 4), strict_mode=True)
    except Base64Error as error:
        raise BadToken(f"a part of it is not base64url: {error}") from error


_TO_BASE64 = str.maketrans("-_", "+/")

"""How a receiver knows that a request is ours, and new: an HMAC over the time and the body.  Pure.

The header is ``t=SECONDS,v1=HEX``, where HEX is HMAC-SHA256 of ``SECONDS.BODY`` under the webhook's secret. While a
secret is replaced there are two ``v1``; one that fits is enough.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_config.secret import Secret

HEADER: Final = "X-ChatNode-Signature"
TOLERANCE_SECONDS: Final = 300  # what receivers should allow for clocks and slow networks

_FORM: Final = re.compile(r"t=(\d{1,15})((?:,v1=[0-9a-f]{64})+)")


def sign(body: bytes, secrets: Iterable[Secret], now: int) -> str:
    """The header's value.

    Args:
        body: The request's, as it is sent.
        secrets: Each signs.
        now: Seconds since 1970.
    """
    return ",".join((f"t={now}", *(f"v1={_digest(body, secret, now)}" for secret in secrets)))


def verify(header: str, body: bytes, secret: Secret, now: float, tolerance: float = TOLERANCE_SECONDS) -> bool:
    """Whether a request was signed with a secret, and not long ago: what a receiver has to ask first."""
    found = _FORM.fullmatch(header)
    if found is None or abs(now - int(found[1])) > tolerance:
        return False
    expected = _digest(body, secret, int(found[1]))
    return any(hmac.compare_digest(expected, given) for given in found[2].split(",v1=")[1:])


def _digest(body: bytes, secret: Secret, now: int) -> str:
    return hmac.new(secret.reveal().encode(), b"%d." % now + body, sha256).hexdigest()

"""Who a client is: connection tokens, subscription tokens, guests.

Signatures are node/jws.py's business; claims are decoded into typed values and checked here. One site is configured by
now, but all is keyed by site: a connection's site is the one whose key verified its token.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import jwt
import msgspec
from msgspec import Raw, Struct

from node import jws

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_config.schema import Auth
    from edge_config.secret import Secret

DEFAULT_SITE: Final = "default"
GUEST: Final = "guest:"  # begins every guest's user id, and no other
LONGEST_TTL: Final = 365 * 86_400  # seconds; SDKs set timers by it, and those overflow
_SIGNATURE_BYTES: Final = 16  # 128 bits: beyond guessing, and short enough to store beside the id


class AuthError(Exception):
    """Base of this file's errors; the message may be shown to the client."""


class InvalidToken(AuthError):
    """The token is not one of ours, or not for this purpose; another attempt with it is vain."""


class ExpiredToken(AuthError):
    """The token was good; the client needs a new one."""


@dataclass(frozen=True, slots=True)
class Site:
    """A tenant's rules for tokens.

    Attributes:
        id: Its name.
        secret: Verifies HS256; None: tokens are refused.
        audience: Must be in `aud`; empty: not checked.
        issuer: Must be `iss`; empty: not checked.
        leeway: Seconds that clocks may differ.
        insecure: Whether clients without a token may connect, as guests.
    """

    id: str
    secret: Secret | None = None
    audience: str = ""
    issuer: str = ""
    leeway: int = 5
    insecure: bool = False

    @classmethod
    def default(cls, auth: Auth) -> Site:
        """The one site of a node without configured sites."""
        return cls(DEFAULT_SITE, auth.secret, auth.audience, auth.issuer, auth.leeway_seconds, auth.insecure)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says of a subscription.

    Attributes:
        info: JSON for presence in this channel, or empty.
        data: JSON that the client is given with a subscription made by the server, or empty.
        ttl: Seconds that it is still valid; None: it does not expire.
    """

    info: bytes = b""
    data: bytes = b""
    ttl: int | None = None


NO_GRANT: Final = Grant()
_NO_SUBSCRIPTIONS: Final[Mapping[str, Grant]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who connects.

    Attributes:
        site: The tenant.
        user: The user id; a guest's begins with `GUEST`.
        guest: Whether nobody vouches for the user.
        proof: What a guest shows at the next connect to be the same guest; empty for users.
        info: JSON for presence, or empty.
        ttl: Seconds that the token is still valid; None: it does not expire.
        subscriptions: By channel.
        role: What the site calls the user; empty: nothing.
    """

    site: str
    user: str
    guest: bool = False
    proof: str = ""
    info: bytes = b""
    ttl: int | None = None
    subscriptions: Mapping[str, Grant] = field(default_factory=lambda: _NO_SUBSCRIPTIONS)
    role: str = ""


NOBODY: Final = Identity("", "", guest=True)
"""A client that is not connected yet."""


class _Options(Struct):
    info: Raw = Raw(b"")
    data: Raw = Raw(b"")


class _Claims(Struct):
    sub: str = ""
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None
    aud: str | list[str] = ""
    iss: str = ""
    info: Raw = Raw(b"")
    role: str = ""
    channels: list[str] = []
    subs: dict[str, _Options] = {}
    channel: str | None = None
    client: str = ""


_decode_claims: Final = msgspec.json.Decoder(_Claims).decode


class Authenticator:
    """Verifies what clients show.

    Args:
        sites: By id; the first one is where guests belong.
        guest_key: Signs guest ids and session ids; the same after a restart, or guests become strangers.
        clock: Seconds since 1970.
    """

    def __init__(self, sites: Mapping[str, Site], guest_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._sites, self._guest_key, self._clock = sites, guest_key, clock

    def connection(self, token: str, proof: str) -> Identity:
        """Who connects with this token, or (if it is empty) as a guest with this proof of an earlier connect.

        A token without `sub` makes a guest, too, for whom the site vouches in everything but a name.

        Raises:
            ExpiredToken: The client needs a new token.
            InvalidToken: The token is bad, or there is none and guests may not connect.
        """
        if not token:
            site = next(iter(self._sites.values()))
            if not site.insecure:
                raise InvalidToken("this site takes no guests; connect with a token")
            return self._guest(site.id, proof)
        site, claims = self._verify(token)
        if claims.channel is not None:
            raise InvalidToken("this is a subscription token; connect with one without channel")
        if claims.sub.startswith(GUEST):
            raise InvalidToken(f"sub begins with {GUEST}, which is for guests")
        who = Identity(site.id, claims.sub) if claims.sub else self._guest(site.id, proof)
        return Identity(
            site.id, who.user, who.guest, who.proof, bytes(claims.info), self._ttl(claims),
            _subscriptions(claims), claims.role,
        )  # fmt: skip

    def subscription(self, token: str, who: Identity, client: str, channel: str) -> Grant:
        """What a subscription token grants to this connection.

        Raises:
            ExpiredToken: The client needs a new token.
            InvalidToken: The token is bad, or for another site, user, client or channel.
        """
        site, claims = self._verify(token)
        for name, ours, given in (
            ("site", who.site, site.id),
            ("channel", channel, claims.channel),
            ("sub", "" if who.guest and not claims.sub else who.user, claims.sub),
            ("client", client, claims.client or client),
        ):
            if given != ours:
                raise InvalidToken(f"{name} is {given!r}, this subscription's is {ours!r}")
        return Grant(bytes(claims.info), b"", self._ttl(claims))

    def session_id(self, client: str) -> str:
        """The secret of a connection, with which a fallback transport sends commands."""
        return self._sign("session", client)

    def _guest(self, site: str, proof: str) -> Identity:
        user, _, signature = proof.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("guest", site, user).encode()):
            user = GUEST + token_hex(8)
            proof = f"{user}.{self._sign('guest', site, user)}"
        return Identity(site, user, guest=True, proof=proof)

    def _sign(self, *parts: str) -> str:
        digest = hmac.digest(self._guest_key, "\0".join(parts).encode(), "sha256")
        return urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).rstrip(b"=").decode()

    def _verify(self, token: str) -> tuple[Site, _Claims]:
        """The site whose key signed a token, and its claims, within their time and meant for the site."""
        refusal = "this node has no key for tokens; configure auth.secret"
        for site in self._sites.values():
            if not site.secret:
                continue
            try:
                payload = jws.verify(token, site.secret.reveal().encode())
            except jws.BadSignature as error:
                refusal = str(error)
            except jws.BadToken as error:
                raise InvalidToken(str(error)) from error
            else:
                return site, self._check(site, payload)
        raise InvalidToken(refusal)

    def _check(self, site: Site, payload: bytes) -> _Claims:
        try:
            claims = _decode_claims(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidToken(f"its claims can't be used: {error}") from error
        now = self._clock()
        if claims.exp is not None and claims.exp + site.leeway <= now:
            raise ExpiredToken(f"it expired {now - claims.exp:.0f} s ago")
        for name, start in (("nbf", claims.nbf), ("iat", claims.iat)):
            if start is not None and start - site.leeway > now:
                raise InvalidToken(f"{name} is {start - now:.0f} s ahead of this node's clock")
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if site.audience and site.audience not in audience:
            raise InvalidToken(f"aud is {claims.aud!r}, this site's is {site.audience!r}")
        if site.issuer and site.issuer != claims.iss:
            raise InvalidToken(f"iss is {claims.iss!r}, this site's is {site.issuer!r}")
        return claims

    def _ttl(self, claims: _Claims) -> int | None:
        if claims.exp is None:
            return None
        return max(1, min(LONGEST_TTL, int(claims.exp - self._clock())))  # within the leeway: time for a refresh


def _subscriptions(claims: _Claims) -> Mapping[str, Grant]:
    if not claims.channels and not claims.subs:
        return _NO_SUBSCRIPTIONS
    plain = {channel: Grant() for channel in claims.channels}
    detailed = {channel: Grant(bytes(options.info), bytes(options.data)) for channel, options in claims.subs.items()}
    return plain | detailed


def make_token(secret: str, claims: Mapping[str, Any]) -> str:
    """A token with these claims, signed with HS256; for operators and tests, sites make their own."""
    return jwt.encode(dict(claims), secret, jws.ALGORITHM)

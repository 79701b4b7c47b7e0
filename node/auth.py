"""Who a client is: connection tokens, subscription tokens, guests.

Signatures are node/jws.py's business, sites and their keys those of node/sites.py; claims are decoded into typed values
and checked here. A connection's site is the one whose key verified its token.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from math import inf
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt
import msgspec
from msgspec import Raw, Struct

from node import jws
from node.origins import NOWHERE, Arrival, Pages
from node.protocol import one_line
from node.revocations import Revocations
from node.sites import MOST_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from node.sites import Site, Sites, VerificationKey


class KeySets(Protocol):
    """Public keys that sites publish: `node.jwks.KeySets`."""

    def find(self, url: str, key_id: str, algorithm: str) -> Sequence[VerificationKey] | None:
        """Keys of a set that may have signed a token; None: come again, the set is being fetched."""


USER_BYTES: Final = 255  # of a user id: no site's are longer, and it goes out with every message
GUEST: Final = "guest:"  # begins every guest's user id, and no other
LONGEST_TTL: Final = 365 * 86_400  # seconds; SDKs set timers by it, and those overflow
_UNCLEAR: Final = "its site is not clear; give kid or iss in the token, or ?site=NAME in the URL"
_SIGNATURE_BYTES: Final = 16  # 128 bits: beyond guessing, and short enough to store beside the id


class AuthError(Exception):
    """Base of this file's errors; the message may be shown to the client."""


class InvalidToken(AuthError):
    """The token is not one of ours, or not for this purpose; another attempt with it is vain."""


class _ForAnother(InvalidToken):
    """The site's key signed it, but for somebody else."""


class RevokedToken(InvalidToken):
    """It was good, and is not any more."""


class KeysAwaited(AuthError):
    """The keys that may verify the token are being fetched."""


class ForeignPage(AuthError):
    """The web page is none of the site's."""


class ExpiredToken(AuthError):
    """The token was good; the client needs a new one."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says of a subscription.

    Attributes:
        info: JSON for presence in this channel, or empty.
        data: JSON that the client is given with a subscription made by the server, or empty.
        ttl: Seconds that it is still valid; None: it does not expire.
        token_id: `jti` of the subscription token, or empty.
        issued: `iat` of the subscription token, in seconds since 1970, or None; `inf` where there is no such token.
    """

    info: bytes = b""
    data: bytes = b""
    ttl: int | None = None
    token_id: str = ""
    issued: float | None = inf


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
        token_id: `jti` of the token, or empty.
        issued: `iat` of the token, in seconds since 1970, or None; `inf` of a guest without a token.
    """

    site: str
    user: str
    guest: bool = False
    proof: str = ""
    info: bytes = b""
    ttl: int | None = None
    subscriptions: Mapping[str, Grant] = field(default_factory=lambda: _NO_SUBSCRIPTIONS)
    role: str = ""
    token_id: str = ""
    issued: float | None = None


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
    jti: str = ""
    info: Raw = Raw(b"")
    role: str = ""
    channels: list[str] = []
    subs: dict[str, _Options] = {}
    channel: str | None = None
    client: str = ""


class _Issuer(Struct):
    iss: str = ""


_decode_claims: Final = msgspec.json.Decoder(_Claims).decode
_decode_issuer: Final = msgspec.json.Decoder(_Issuer).decode


class Authenticator:
    """Verifies what clients show.

    Args:
        sites: Whose tokens are accepted.
        guest_key: Signs guest ids and session ids; the same after a restart, or guests become strangers.
        clock: Seconds since 1970.
        pages: Which web pages may connect to which site; None: as the sites say.
        revocations: Tokens that are refused.
        key_sets: Public keys that sites publish; None: such sites' tokens are refused.

    Attributes:
        sites: As above, or what `replace` put there.
        pages: Likewise.
        revocations: Likewise.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, given once
        self, sites: Sites, guest_key: bytes, clock: Callable[[], float] = time.time, pages: Pages | None = None,
        revocations: Revocations | None = None, key_sets: KeySets | None = None,
    ) -> None:  # fmt: skip
        self.sites, self._guest_key, self._clock = sites, guest_key, clock
        self._key_sets = key_sets
        self.pages = pages if pages is not None else Pages(sites)
        self.revocations = revocations if revocations is not None else Revocations()

    def replace(self, sites: Sites, revocations: Revocations) -> None:
        """From now on other sites and revocations hold."""
        self.sites, self.revocations = sites, revocations
        self.pages.replace(sites)

    def lapsed(self, who: Identity) -> str:
        """Why a client that was accepted would not be any more; empty: it would be."""
        site = self.sites.get(who.site)
        if site is None:
            return "its site was removed"
        if who.guest and self.revocations.names(site.name, who.user):
            return "this guest was revoked"
        if who.issued == inf:
            return "" if site.guests else "this site takes no guests any more"
        user = "" if who.guest else who.user
        return self.revocations.refusal(site.name, user, who.token_id, who.issued, self._clock())

    def withdrawn(self, who: Identity, grant: Grant) -> str:
        """Why a subscription token that was accepted would not be any more; empty: it would be, or there was none."""
        if grant.issued == inf:
            return ""
        return self.revocations.refusal(who.site, who.user, grant.token_id, grant.issued, self._clock())

    def site_of(self, token: str) -> str:
        """The site whose key signed a token of whatever purpose.

        Raises:
            ExpiredToken, InvalidToken: It is not accepted.
        """
        return self._verify(token, "")[0].name

    def connection(self, token: str, proof: str, came: Arrival = NOWHERE) -> Identity:
        """Who connects with this token, or (if it is empty) as a guest with this proof of an earlier connect.

        A token without `sub` makes a guest, too, for whom the site vouches in everything but a name.

        Args:
            token: Compact JWS.
            proof: As in `Identity`.
            came: The site that the client asks for, and its page.

        Raises:
            ExpiredToken: The client needs a new token.
            ForeignPage: The page may not connect to the site.
            InvalidToken: The token is bad, or there is none and guests may not connect.
        """
        if not token:
            site = self._guests_site(came.site)
            self._check_page(came, site)
            if not site.guests:
                raise InvalidToken("this site takes no guests; connect with a token")
            user, proof = self._guest(site.name, proof)
            return Identity(site.name, user, guest=True, proof=proof, issued=inf)
        site, claims = self._verify(token, came.site)
        if came.origin is not None:
            self._check_page(came, site)
        if claims.channel is not None:
            raise InvalidToken("this is a subscription token; connect with one without channel")
        if claims.sub.startswith(GUEST):
            raise InvalidToken(f"sub begins with {GUEST}, which is for guests")
        if (size := len(claims.sub.encode())) > USER_BYTES:
            raise InvalidToken(f"sub is {size} bytes long, at most {USER_BYTES} are taken")
        user = claims.sub
        if not user:
            user, proof = self._guest(site.name, proof)
        return Identity(
            site.name, user, not claims.sub, "" if claims.sub else proof, one_line(bytes(claims.info)),
            self._ttl(claims), _subscriptions(claims), claims.role, claims.jti, claims.iat,
        )  # fmt: skip

    def subscription(self, token: str, who: Identity, client: str, channel: str) -> Grant:
        """What a subscription token grants to this connection.

        Raises:
            ExpiredToken: The client needs a new token.
            InvalidToken: The token is bad, or for another site, user, client or channel.
        """
        site, claims = self._verify(token, who.site)
        for name, ours, given in (
            ("site", who.site, site.name),
            ("channel", channel, claims.channel),
            ("sub", "" if who.guest and not claims.sub else who.user, claims.sub),
            ("client", client, claims.client or client),
        ):
            if given != ours:
                raise InvalidToken(f"{name} is {given!r}, this subscription's is {ours!r}")
        return Grant(one_line(bytes(claims.info)), b"", self._ttl(claims), claims.jti, claims.iat)

    def session_id(self, client: str) -> str:
        """The secret of a connection, with which a fallback transport sends commands."""
        return self._sign("session", client)

    def _guest(self, site: str, proof: str) -> tuple[str, str]:
        """User id and proof of the guest who shows this proof, or of a new one."""
        user, _, signature = proof.rpartition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign("guest", site, user).encode())
        if not genuine or self.revocations.names(site, user):
            user = GUEST + token_hex(8)
            proof = f"{user}.{self._sign('guest', site, user)}"
        return user, proof

    def _sign(self, *parts: str) -> str:
        digest = hmac.digest(self._guest_key, "\0".join(parts).encode(), "sha256")
        return urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).rstrip(b"=").decode()

    def _guests_site(self, name: str) -> Site:
        site = self.sites.get(name) if name else self.sites.only
        if site is None:
            why = f"there is no site {name!r}" if name else "this node has several sites"
            raise InvalidToken(f"{why}; connect with a token, or with ?site=NAME of a site that takes guests")
        return site

    def _check_page(self, came: Arrival, site: Site) -> None:
        if not self.pages.belongs(came, site.name):
            raise ForeignPage(f"pages of {came.origin} may not connect to site {site.name!r}; add it to its origins")

    def _verify(self, token: str, name: str) -> tuple[Site, _Claims]:
        """The site whose key signed a token, and its claims, within their time and meant for the site."""
        try:
            return self._accept(jws.parse(token), name)
        except jws.BadToken as error:
            raise InvalidToken(str(error)) from error

    def _accept(self, parts: jws.Parts, name: str) -> tuple[Site, _Claims]:
        algorithm, key_id = parts.header
        sites = self.sites
        issuer = _issuer(parts) if sites.crowded and not key_id and not name else None
        candidates = sites.keys(key_id, issuer, name)
        awaited = False
        if algorithm in jws.PUBLIC and self._key_sets is not None:
            published, awaited = self._published(self._key_sets, parts, name)
            candidates = [*candidates, *published]
        attempts, refusal = 0, None
        for site, key in candidates:
            if key.algorithm != algorithm or (key.until != inf and key.until <= self._clock()):
                continue
            attempts += 1
            if attempts > MOST_ATTEMPTS:
                raise InvalidToken(_UNCLEAR)
            if not jws.matches(parts, algorithm, key.material):
                continue
            try:
                claims = self._check(site, parts.decoded())
            except _ForAnother as error:  # sites of one identity provider differ in aud or iss only
                refusal = error
                continue
            if self.revocations:
                self._check_revoked(site, claims)
            return site, claims
        if awaited:
            raise KeysAwaited("the keys of its site are being fetched; try again")
        if refusal is not None:
            raise refusal
        raise InvalidToken(self._no_key(parts, [key.algorithm for _, key in candidates], name, attempts))

    def _published(
        self, key_sets: KeySets, parts: jws.Parts, name: str
    ) -> tuple[list[tuple[Site, VerificationKey]], bool]:
        """Keys that sites publish and that may have signed a token, and whether more are being fetched."""
        algorithm, key_id = parts.header
        found, awaited = [], False
        for site in self.sites.with_key_sets(_issuer(parts), name)[:MOST_ATTEMPTS]:
            keys = key_sets.find(site.jwks, key_id, algorithm)
            awaited = awaited or keys is None
            found += [(site, key) for key in keys or ()]
        return found, awaited

    def _check_revoked(self, site: Site, claims: _Claims) -> None:
        why = self.revocations.refusal(site.name, claims.sub, claims.jti, claims.iat, self._clock())
        if why:
            raise RevokedToken(why)

    def _no_key(self, parts: jws.Parts, algorithms: list[str], name: str, attempts: int) -> str:
        header = parts.header
        if name and self.sites.get(name) is None:
            return f"there is no site {name!r}"
        if not any(site.verifies for site in self.sites):
            return "this node has no key for tokens; configure auth.secret"
        if header.algorithm in jws.PUBLIC and len(self.sites.with_key_sets(_issuer(parts), name)) > MOST_ATTEMPTS:
            return _UNCLEAR
        if attempts:
            return "its signature does not match our key"
        if not algorithms:
            return f"there is no key with kid {header.key_id!r}" if header.key_id else "there is no key of its issuer"
        return jws.wrong_algorithm(header, *dict.fromkeys(algorithms))

    def _check(self, site: Site, payload: bytes) -> _Claims:
        try:
            claims = _decode_claims(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidToken(f"its claims can't be used: {error}") from error
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if site.audience and site.audience not in audience:
            raise _ForAnother(f"aud is {claims.aud!r}, this site's is {site.audience!r}")
        if site.issuer and site.issuer != claims.iss:
            raise _ForAnother(f"iss is {claims.iss!r}, this site's is {site.issuer!r}")
        if site.required:
            _check_required(site, claims)
        now = self._clock()
        if claims.exp is not None and claims.exp + site.leeway <= now:
            raise ExpiredToken(f"it expired {now - claims.exp:.0f} s ago")
        for name, start in (("nbf", claims.nbf), ("iat", claims.iat)):
            if start is not None and start - site.leeway > now:
                raise InvalidToken(f"{name} is {start - now:.0f} s ahead of this node's clock")
        return claims

    def _ttl(self, claims: _Claims) -> int | None:
        if claims.exp is None:
            return None
        return max(1, min(LONGEST_TTL, int(claims.exp - self._clock())))  # within the leeway: time for a refresh


def _check_required(site: Site, claims: _Claims) -> None:
    for claim in sorted(site.required):
        if getattr(claims, claim) in {None, ""}:
            raise InvalidToken(f"it has no {claim}, which this site requires")


def _subscriptions(claims: _Claims) -> Mapping[str, Grant]:
    if not claims.channels and not claims.subs:
        return _NO_SUBSCRIPTIONS
    plain = {channel: Grant() for channel in claims.channels}
    detailed = {
        channel: Grant(one_line(bytes(options.info)), one_line(bytes(options.data)))
        for channel, options in claims.subs.items()
    }
    return plain | detailed


def _issuer(parts: jws.Parts) -> str:
    """What an unverified token says of its issuer; only keys are looked up by it."""
    try:
        return _decode_issuer(parts.decoded()).iss
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidToken(f"its claims can't be used: {error}") from error


def make_token(secret: str, claims: Mapping[str, Any], algorithm: str = jws.HS256, key_id: str = "") -> str:
    """A token with these claims, signed with a shared secret; for operators and tests, sites make their own."""
    return jwt.encode(dict(claims), secret, algorithm, {"kid": key_id} if key_id else None)

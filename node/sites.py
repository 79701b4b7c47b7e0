"""The tenants of a node: who may vouch for users, who may call the API, and where events go.  Pure.

A site is what never sees another: rooms, users, presence, API keys. The default site comes from the configuration
(`auth.*`), further ones from `sites.json` in the data directory (node/site_file.py). A `Sites` never changes; the node
takes another one when the file has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from hmac import compare_digest
from math import inf
from typing import TYPE_CHECKING, Final

from node import jws

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edge_config.schema import Auth
    from edge_config.secret import Secret

DEFAULT_SITE: Final = "default"
CLAIMS: Final = frozenset({"sub", "exp", "iat", "jti"})  # that a site may require
MOST_ATTEMPTS: Final = 16
"""Keys tried on one token. An HMAC takes 2 us, so strangers' tokens cost little; beyond it a token has to say whose it
is: by `kid`, by `iss`, or by `?site=` in the URL."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """What verifies a site's tokens.

    Attributes:
        id: The `kid` of tokens; empty: a key without a name, tried on tokens with any.
        algorithm: Of `jws.ALGORITHMS`; the only one that this key is used with, whatever a token says.
        material: The shared secret, or the public key.
        until: Seconds since 1970 when it ends; `inf`: it does not. A rotated key ends so.
    """

    id: str
    algorithm: str
    material: jws.Material = field(repr=False)
    until: float = inf


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the server API, of which only the hash is kept.

    Attributes:
        id: Its public name, for lists and for removing it.
        digest: SHA-256 of the key, in hexadecimal digits; the key is random, so no salt is needed.
        scopes: What it may do, of `edge_config.api.SCOPES`.
    """

    id: str
    digest: str = field(repr=False)
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OldSecret:
    """A secret that another has taken the place of, and that still signs.

    Attributes:
        secret: Itself.
        until: Seconds since 1970 when it ends.
    """

    secret: Secret
    until: float


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a site's back end is told of events.

    Attributes:
        id: Its name within the site.
        url: What is called.
        secret: Signs what is sent.
        events: Names of the events that it wants; none: all of them.
        old_secrets: Those that still sign beside it.
        allow_private: Whether it may have an address that is not public.
    """

    id: str
    url: str
    secret: Secret
    events: frozenset[str] = frozenset()
    old_secrets: tuple[OldSecret, ...] = ()
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """A tenant.

    Attributes:
        name: Part of the name of all that is the site's.
        keys: Verify its tokens; none, and no `jwks`: tokens are refused.
        api_keys: Of the server API.
        origins: Web pages that may connect, as in `auth.allowed_origins`; None: those of the node's own host.
        guests: Whether clients without a token may connect.
        webhooks: Where events go.
        audience: Must be in `aud`; empty: not checked.
        issuer: Must be `iss`; empty: not checked.
        leeway: Seconds that clocks may differ.
        required: Claims that a token must have, of `CLAIMS`.
        jwks: URL of a set of public keys; empty: there is none.
    """

    name: str
    keys: tuple[VerificationKey, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    origins: tuple[str, ...] | None = None
    guests: bool = False
    webhooks: tuple[Webhook, ...] = ()
    audience: str = ""
    issuer: str = ""
    leeway: int = 5
    required: frozenset[str] = frozenset()
    jwks: str = ""

    @classmethod
    def default(cls, auth: Auth) -> Site:
        """The site of the configuration."""
        keys = (VerificationKey("", jws.HS256, auth.secret.reveal().encode()),) if auth.secret else ()
        return cls(
            DEFAULT_SITE, keys, origins=auth.allowed_origins or None, guests=auth.insecure, audience=auth.audience,
            issuer=auth.issuer, leeway=auth.leeway_seconds,
        )  # fmt: skip

    @property
    def verifies(self) -> bool:
        """Whether it can accept any token."""
        return bool(self.keys or self.jwks)


class Sites:
    """All sites of a node, found by name, by key and by issuer.

    Args:
        sites: Each with a name of its own.

    Raises:
        ValueError: Two have one name.
    """

    __slots__ = (
        "_api_keys",
        "_by_issuer",
        "_by_key_id",
        "_by_name",
        "_every",
        "_published",
        "_unnamed",
        "crowded",
        "only",
    )

    def __init__(self, sites: Iterable[Site]) -> None:
        self._by_name: dict[str, Site] = {}
        self._api_keys: dict[str, tuple[Site, ApiKey]] = {}
        self._by_key_id: dict[str, list[tuple[Site, VerificationKey]]] = {}
        self._by_issuer: dict[str, list[tuple[Site, VerificationKey]]] = {}
        self._unnamed: list[tuple[Site, VerificationKey]] = []
        self._every: list[tuple[Site, VerificationKey]] = []
        for site in sites:
            if site.name in self._by_name:
                raise ValueError(f"there are two sites {site.name!r}")
            self._by_name[site.name] = site
            self._api_keys |= {key.digest: (site, key) for key in site.api_keys}
            for key in site.keys:
                self._add_key(site, key)
        self._published = [site for site in self._by_name.values() if site.jwks]
        self.only = next(iter(self._by_name.values())) if len(self._by_name) == 1 else None
        """The site, if there is exactly one: guests that name no site belong there."""
        self.crowded = len(self._every) > MOST_ATTEMPTS
        """Whether `keys` would give too many for a token without `kid`, unless its issuer is known."""

    def _add_key(self, site: Site, key: VerificationKey) -> None:
        pair = (site, key)
        self._every.append(pair)
        self._by_issuer.setdefault(site.issuer, []).append(pair)
        if key.id:
            self._by_key_id.setdefault(key.id, []).append(pair)
        else:
            self._unnamed.append(pair)

    def with_key_sets(self, issuer: str, name: str = "") -> Sequence[Site]:
        """Sites that publish their keys and accept tokens of this issuer; only the named one, if a name is given."""
        named = self._by_name.get(name)
        sites = self._published if not name else (named,) if named is not None and named.jwks else ()
        return [site for site in sites if site.issuer in {"", issuer}]

    def __iter__(self) -> Iterator[Site]:
        """Yield all of them."""
        return iter(self._by_name.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_name)

    def get(self, name: str) -> Site | None:
        """The site of this name."""
        return self._by_name.get(name)

    def by_api_key(self, key: str) -> tuple[Site, ApiKey] | None:
        """Whose API key it is.

        What is looked up is the key's hash, which nobody can choose: how long it takes tells nothing of other keys.
        """
        digest = digest_of(key)
        found = self._api_keys.get(digest)
        return found if found is not None and compare_digest(found[1].digest, digest) else None

    def keys(self, key_id: str, issuer: str | None, name: str = "") -> Sequence[tuple[Site, VerificationKey]]:
        """Keys that may have signed a token; more than `MOST_ATTEMPTS` are not to be tried.

        Args:
            key_id: Its `kid`, or empty.
            issuer: Its `iss`, or None if nobody looked (see `crowded`).
            name: Only this site's.
        """
        if name:
            site = self._by_name.get(name)
            mine = site.keys if site is not None else ()
            return [(site, key) for key in mine if site is not None and (not key_id or key.id in {"", key_id})]
        if key_id:
            named = self._by_key_id.get(key_id)
            return self._unnamed if named is None else [*named, *self._unnamed]
        if issuer is None:
            return self._every
        return [*(self._by_issuer.get(issuer, ()) if issuer else ()), *self._by_issuer.get("", ())]


def digest_of(key: str) -> str:
    """What is kept of an API key."""
    return sha256(key.encode(errors="surrogatepass")).hexdigest()


def assemble(auth: Auth, further: Iterable[Site] = (), api_keys: tuple[ApiKey, ...] = ()) -> Sites:
    """The sites of a node.

    The configured one exists if it can accept anybody, or if there is no other. An entry `default` among the further
    ones adds keys, API keys and webhooks to it.

    Args:
        auth: The configuration.
        further: Of the file.
        api_keys: Of the default site, by the configuration.
    """
    others = {site.name: site for site in further}
    default, more = replace(Site.default(auth), api_keys=api_keys), others.pop(DEFAULT_SITE, None)
    if more is not None:
        default = replace(
            default, keys=default.keys + more.keys, api_keys=api_keys + more.api_keys, webhooks=more.webhooks,
            jwks=more.jwks,
        )  # fmt: skip
    if default.verifies or default.guests or default.api_keys or not others:
        return Sites([default, *others.values()])
    return Sites(others.values())

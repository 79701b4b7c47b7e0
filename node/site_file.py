"""Sites in the data directory: `sites.json`, and `revocations.json` beside it (node/revocations.py).

Both are replaced as a whole, by one writer at a time, and are on disk before the command ends. They hold secrets, so
only their owner may read them. The node reads them and never writes.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from math import inf
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Struct, UnsetType

from edge_config.address import is_loopback
from edge_config.api import SCOPES
from edge_config.secret import Secret
from edge_config.setting import NAME
from edge_config.webhooks import EVENTS, secrets_trouble, url_trouble
from node import jws, whole_file
from node.faults import NodeFault
from node.sites import CLAIMS, DEFAULT_SITE, ApiKey, OldSecret, Site, Sites, VerificationKey, Webhook, assemble
from node.upgrade import OriginRules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_config.schema import Auth

FILE: Final = "sites.json"
REVOCATIONS: Final = "revocations.json"
LOCK: Final = "sites.lock"
VERSION: Final = 1
MOST_BYTES: Final = 67_108_864  # of a file: ten thousand sites with a public key each are 10 MB
MOST_WEBHOOKS: Final = 1000  # of a node: each has a task, a file, and a cursor of every shard
MOST_KEYS: Final = 16  # of one site: a few that are being rotated
LEAST_SECRET_BYTES: Final = 32  # RFC 7518, 3.2
LOCK_SECONDS: Final = 10.0  # for another command to end, which takes a second at most
LOCK_POLL_SECONDS: Final = 0.02

T = TypeVar("T")


class SitesFault(NodeFault):
    """A file of sites can't be used; what was in force goes on."""


class KeyEntry(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A `VerificationKey` in the file: `secret` for shared ones, `public` in PEM for others; `until` as there."""

    algorithm: str
    id: str = ""
    secret: str = ""
    public: str = ""
    until: float | None = None


class ApiKeyEntry(Struct, forbid_unknown_fields=True):
    """An `ApiKey` in the file."""

    id: str
    digest: str
    scopes: list[str]


class OldSecretEntry(Struct, forbid_unknown_fields=True):
    """An `OldSecret` in the file."""

    secret: str
    until: float


class WebhookEntry(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A `Webhook` in the file."""

    id: str
    url: str
    secret: str
    events: list[str] = []
    old_secrets: list[OldSecretEntry] = []
    allow_private: bool = False


class SiteEntry(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A `Site` in the file."""

    name: str
    keys: list[KeyEntry] = []
    jwks: str = ""
    audience: str = ""
    issuer: str = ""
    leeway: int = 5
    required: list[str] = []
    origins: list[str] | UnsetType = UNSET
    guests: bool = False
    api_keys: list[ApiKeyEntry] = []
    webhooks: list[WebhookEntry] = []


class SiteFile(Struct, forbid_unknown_fields=True):
    """The whole file; what a command changes."""

    version: int = VERSION
    sites: list[SiteEntry] = []

    def find(self, name: str) -> SiteEntry | None:
        """The entry of a site."""
        return next((site for site in self.sites if site.name == name), None)


def read(data_dir: Path) -> SiteFile:
    """What the file says, or an empty one if there is none.

    Raises:
        SitesFault: It can't be read.
    """
    found = read_json(data_dir / FILE, SiteFile)
    if found is not None and found.version != VERSION:
        raise SitesFault(f"{data_dir / FILE} is of version {found.version}; this program reads version {VERSION}.")
    return found or SiteFile()


def load(data_dir: Path, auth: Auth, api_keys: tuple[ApiKey, ...] = ()) -> Sites:
    """All sites of a node: the configured one and those of the file.

    Raises:
        SitesFault: The file can't be used.
    """
    return checked(data_dir, read(data_dir), auth, api_keys)


def checked(data_dir: Path, content: SiteFile, auth: Auth, api_keys: tuple[ApiKey, ...] = ()) -> Sites:
    """As `load`, of a file's content.

    Raises:
        SitesFault: It can't be used.
    """
    path = data_dir / FILE
    if len(content.sites) > auth.sites:
        raise SitesFault(f"{path} has {len(content.sites)} sites; {auth.sites} are the most (auth.sites).")
    if (webhooks := sum(len(entry.webhooks) for entry in content.sites)) > MOST_WEBHOOKS:
        raise SitesFault(f"{path} has {webhooks} webhooks; {MOST_WEBHOOKS} are the most on one node.")
    further = []
    for entry in content.sites:
        try:
            further.append(_site(entry))
        except (ValueError, jws.BadKey) as error:
            raise SitesFault(
                f"{path}, site {entry.name[:64]!r}: {error}. Mend it, or the site can't be used."
            ) from error
    if len({site.name for site in further}) < len(further):
        raise SitesFault(f"{path} has two sites of one name. Give each its own.")
    sites = assemble(auth, further, api_keys)
    if trouble := _clash(sites):
        raise SitesFault(f"{path}: {trouble}")
    return sites


@contextmanager
def change(data_dir: Path, auth: Auth) -> Iterator[SiteFile]:
    """Change the file: what is yielded is checked and written when the block ends without an error.

    Raises:
        SitesFault: It can't be read or written, or could not be used.
    """
    with locked(data_dir):
        content = read(data_dir)
        yield content
        checked(data_dir, content, auth)
        write_json(data_dir / FILE, content)


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Be the only writer of the files of sites for a while.

    Raises:
        SitesFault: The directory can't be written, or somebody else goes on writing.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SitesFault(f"{data_dir} can't be written: {error.strerror}. Give the node's own --data-dir.") from error
    try:
        _wait_locked(lock, data_dir / LOCK)
        for name in (FILE, REVOCATIONS):
            for left in data_dir.glob(f".{name}.*"):  # by a command that was killed
                left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _wait_locked(lock: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise SitesFault(
                    f"Another command has been changing the sites for {LOCK_SECONDS:g} s. Wait for it, or end it:"
                    f" fuser {path} names it."
                ) from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return


def read_json(path: Path, form: type[T]) -> T | None:
    """A file of a known form, or None if there is none.

    Raises:
        SitesFault: It can't be read, or is of another form.
    """
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # a pipe would never end, nor would a device
            raise SitesFault(f"{path} is no file. Restore it from a backup.")
        if status.st_size > MOST_BYTES:
            raise SitesFault(f"{path} is larger than {MOST_BYTES} bytes.")
        return msgspec.json.decode(path.read_bytes(), type=form)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SitesFault(f"{path} can't be read: {error.strerror}.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SitesFault(f"{path} can't be used: {error}. Mend it, or restore it from a backup.") from error


def write_json(path: Path, content: Struct) -> None:
    """Replace a file so that there is always a whole one, on disk when this returns.

    Raises:
        SitesFault: It can't be written.
    """
    try:
        whole_file.replace(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    except OSError as error:
        raise SitesFault(f"{path} can't be written: {error.strerror}. Free space, or mend its permissions.") from error


def _site(entry: SiteEntry) -> Site:
    if not NAME.accepts(entry.name):
        raise ValueError(f"a site's name has {NAME.described}")
    if len(entry.keys) > MOST_KEYS:
        raise ValueError(f"it has {len(entry.keys)} keys; {MOST_KEYS} are the most")
    if unknown := set(entry.required) - CLAIMS:
        raise ValueError(f"required claims {sorted(unknown)} are none of {', '.join(sorted(CLAIMS))}")
    if entry.jwks and not safe_url(entry.jwks):
        raise ValueError(f"jwks {entry.jwks!r} is no URL of https, or of http on this machine")
    if entry.name == DEFAULT_SITE and (entry.audience or entry.issuer or entry.guests or entry.origins is not UNSET):
        raise ValueError("audience, issuer, guests and origins of the default site are keys of [auth]")
    if len({hook.id for hook in entry.webhooks}) < len(entry.webhooks):
        raise ValueError("two of its webhooks have one id")
    origins = None if entry.origins is UNSET else tuple(entry.origins)
    OriginRules(origins or ())  # raises ValueError for what is none
    return Site(
        entry.name, tuple(map(_key, entry.keys)), tuple(map(_api_key, entry.api_keys)), origins, entry.guests,
        tuple(map(_webhook, entry.webhooks)),
        entry.audience, entry.issuer, entry.leeway, frozenset(entry.required), entry.jwks,
    )  # fmt: skip


def _key(entry: KeyEntry) -> VerificationKey:
    if len(entry.id) > jws.LONGEST_KEY_ID:
        raise ValueError(f"a key's id has at most {jws.LONGEST_KEY_ID} characters")
    material: jws.Material
    if entry.algorithm in jws.SHARED:
        material = entry.secret.encode()
        if len(material) < LEAST_SECRET_BYTES or entry.public:
            raise ValueError(
                f"key {entry.id!r} of {entry.algorithm} needs a secret of {LEAST_SECRET_BYTES} bytes or more"
            )
    elif entry.algorithm in jws.PUBLIC:
        if entry.secret:
            raise ValueError(f"key {entry.id!r} of {entry.algorithm} has a secret; give the public key alone")
        material = jws.read_public_key(entry.algorithm, entry.public)
    else:
        raise ValueError(f"algorithm {entry.algorithm!r} is none of {', '.join(jws.ALGORITHMS)}")
    return VerificationKey(entry.id, entry.algorithm, material, inf if entry.until is None else entry.until)


def _api_key(entry: ApiKeyEntry) -> ApiKey:
    if unknown := set(entry.scopes).difference(SCOPES):
        raise ValueError(f"scopes {sorted(unknown)} of API key {entry.id!r} are none of {', '.join(SCOPES)}")
    return ApiKey(entry.id, entry.digest, frozenset(entry.scopes))


def _webhook(entry: WebhookEntry) -> Webhook:
    old_secrets = tuple(OldSecret(Secret(old.secret), old.until) for old in entry.old_secrets)
    hook = Webhook(
        entry.id, entry.url, Secret(entry.secret), frozenset(entry.events), old_secrets, entry.allow_private
    )  # fmt: skip
    if not NAME.accepts(hook.id):
        raise ValueError(f"webhook id {hook.id[:64]!r} has not {NAME.described}")
    if unknown := hook.events.difference(EVENTS):
        raise ValueError(f"events {sorted(unknown)} of webhook {hook.id!r} are none of {', '.join(EVENTS)}")
    if trouble := url_trouble(hook.url, allow_private=hook.allow_private):
        raise ValueError(f"webhook {hook.id!r} with URL {hook.url[:200]!r}: {trouble}")
    if trouble := secrets_trouble((hook.secret, *(old.secret for old in old_secrets))):
        raise ValueError(f"the secret of webhook {hook.id!r}: {trouble}")
    return hook


def _clash(sites: Sites) -> str:
    """What two sites have in common that must tell them apart; empty: nothing."""
    holders: dict[object, list[Site]] = {}
    for site in sites:
        for api_key in site.api_keys:
            holders.setdefault(api_key.digest, []).append(site)
        for key in site.keys:
            if isinstance(key.material, bytes):
                holders.setdefault(key.material, []).append(site)
    for thing, owners in holders.items():
        if len({site.name for site in owners}) > 1:
            what = "secret" if isinstance(thing, bytes) else "API key"
            return f"sites {owners[0].name!r} and {owners[1].name!r} have one {what}. Give each its own."
    return _shared_issuers(sites)


def _shared_issuers(sites: Sites) -> str:
    """Sites that trust the same public keys must differ in what tokens say of themselves."""
    holders: dict[object, list[Site]] = {}
    for site in sites:
        shared: set[object] = {jws.fingerprint(k.material) for k in site.keys if not isinstance(k.material, bytes)}
        for thing in shared | ({site.jwks} if site.jwks else set()):
            holders.setdefault(thing, []).append(site)
    for owners in holders.values():
        audiences, issuers = {site.audience for site in owners} - {""}, {site.issuer for site in owners} - {""}
        if len(owners) > 1 and len(audiences) < len(owners) and len(issuers) < len(owners):
            names = " and ".join(repr(site.name) for site in owners[:2])
            return f"sites {names} trust the same public key. Give each an audience, or an issuer, of its own."
    return ""


def safe_url(url: str) -> bool:
    """Whether what is fetched from there can be trusted to come from there."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or not url.isascii() or any(character <= " " for character in url) or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))

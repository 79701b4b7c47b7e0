"""``chat-node site``: the tenants of a node, changed while it runs or not."""

import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from edge_config.api import SCOPES
from edge_config.schema import Config
from node import jws, revocations, site_file
from node.site_file import ApiKeyEntry, KeyEntry, SiteEntry, SiteFile
from node.sites import DEFAULT_SITE, VerificationKey, digest_of
from node.terminal import MISUSED, ConfigFile, DataDir, expected_faults, failure, read_config, remark, seconds_of
from node.webhook_files import TargetFiles
from node.webhook_target import TargetId

app = typer.Typer(
    help="Sites: tenants of this node that never see each other. A running node takes changes up at once.",
    no_args_is_help=True,
)

SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518, 3.2
API_KEY_BYTES: Final = 24

Name = Annotated[str, typer.Argument(help="The site's name: letters, digits, _ and -.")]
Algorithm = Annotated[str, typer.Option(help=f"Of the site's tokens: {', '.join(jws.ALGORITHMS)}.")]
PublicKeyFile = Annotated[
    Path | None, typer.Option(help="PEM file with the public key, for RS256, ES256 and EdDSA; else a secret is made.")
]


@app.command()
def add(  # noqa: PLR0913 (one parameter per flag)
    name: Name,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    algorithm: Algorithm = jws.HS256,
    public_key: PublicKeyFile = None,
    jwks: Annotated[
        str, typer.Option(help="URL of the site's public keys, instead of a key: https, or http on this machine.")
    ] = "",
    audience: Annotated[str, typer.Option(help="Tokens must name it as aud.")] = "",
    issuer: Annotated[str, typer.Option(help="Tokens must name it as iss.")] = "",
    require: Annotated[
        list[str] | None, typer.Option(help="A claim that tokens must have: exp, sub, iat, jti.")
    ] = None,
    origin: Annotated[list[str] | None, typer.Option(help="A web page that may connect: https://host[:port].")] = None,
    guests: Annotated[bool, typer.Option("--guests", help="Clients without a token may connect.")] = False,
) -> None:
    """Add a site with a key for its tokens. A secret is shown this once: give it to the site's back end."""
    settings, folder = place(config, data_dir)
    key = None if jwks else _new_key(name, algorithm, public_key)
    entry = SiteEntry(
        name, [key] if key is not None else [], jwks, audience, issuer, required=require or [], guests=guests,
        origins=msgspec.UNSET if origin is None else origin,
    )  # fmt: skip
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        if content.find(name) is not None:
            raise failure(f"There is a site {name!r} already. Give another name, or remove it first.")
        content.sites.append(entry)
    if key is not None:
        _show_key(name, key)
    else:
        remark(f"Site {name!r}, tokens signed with a key of {jwks}.")


@app.command("list")
def list_(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    structured: Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")] = False,
) -> None:
    """Show all sites with the ids of their keys, and no secret."""
    settings, folder = place(config, data_dir)
    with expected_faults():
        sites = site_file.load(folder, settings.auth)
    for site in sites:
        told: dict[str, Any] = {
            "site": site.name,
            "keys": [_described(key) for key in site.keys],
            "jwks": site.jwks,
            "audience": site.audience,
            "issuer": site.issuer,
            "required": sorted(site.required),
            "origins": site.origins,
            "guests": site.guests,
            "api_keys": [f"{key.id} ({', '.join(sorted(key.scopes)) or 'nothing'})" for key in site.api_keys],
            "webhooks": [hook.id for hook in site.webhooks],
        }
        if structured:
            typer.echo(msgspec.json.encode(told).decode())
        else:
            typer.echo(site.name)
            lines = ((field, value) for field, value in told.items() if field != "site" and value)
            for field, value in lines:
                typer.echo(f"  {field:9} {', '.join(value) if isinstance(value, list | tuple) else value}")


@app.command()
def rotate_key(  # noqa: PLR0913 (one parameter per flag)
    name: Name,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    algorithm: Algorithm = jws.HS256,
    public_key: PublicKeyFile = None,
    grace: Annotated[str, typer.Option(help="How long the old keys are still valid: 0, 10m, 1h, 30d.")] = "1d",
) -> None:
    """Give a site a new key. Its old keys stay valid for a while, so that nobody is signed out."""
    settings, folder = place(config, data_dir)
    key, now = _new_key(name, algorithm, public_key), time.time()
    end = now + (seconds_of("--grace", grace) or 0)
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        entry = entry_of(content, name)
        kept = [old for old in entry.keys if old.until is None or old.until > now]
        for old in kept:
            old.until = end if old.until is None else min(old.until, end)
        entry.keys = [*kept, key] if end > now else [key]
    _show_key(name, key)


@app.command()
def remove(name: Name, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Remove a site: its clients are closed and its keys are void. What they wrote stays in the log."""
    settings, folder = place(config, data_dir)
    with expected_faults():
        with site_file.change(folder, settings.auth) as content:
            entry = entry_of(content, name)
            content.sites.remove(entry)
        revocations.forget(folder, name)
        for hook in entry.webhooks:
            TargetFiles(folder, TargetId(name, hook.id)).forget()
    remark(f"Removed site {name!r}.")


@app.command()
def add_api_key(
    name: Name,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    scope: Annotated[list[str] | None, typer.Option(help=f"What it may do: {', '.join(SCOPES)}.")] = None,
) -> None:
    """Make a key of the server API for a site's back end. It is shown this once; only its hash is kept."""
    settings, folder = place(config, data_dir)
    if unknown := set(scope or ()).difference(SCOPES):
        mend = f"Give some of {', '.join(SCOPES)}."
        raise failure(f"--scope {', '.join(sorted(unknown))} does not exist. {mend}", MISUSED)
    if not scope:
        raise failure(f"A key without a scope could do nothing. Give --scope and one of {', '.join(SCOPES)}.", MISUSED)
    key, identity = secrets.token_urlsafe(API_KEY_BYTES), secrets.token_hex(4)
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        entry = content.find(name)
        if entry is None and name == DEFAULT_SITE:
            content.sites.append(entry := SiteEntry(name))
        (entry or entry_of(content, name)).api_keys.append(ApiKeyEntry(identity, digest_of(key), sorted(set(scope))))
    remark(f"API key {identity} of site {name!r}; it is not shown again:")
    typer.echo(key)


@app.command()
def remove_api_key(
    name: Name,
    key: Annotated[str, typer.Argument(help="The key's id, as the list shows it.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Make an API key void."""
    settings, folder = place(config, data_dir)
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        entry = entry_of(content, name)
        kept = [old for old in entry.api_keys if old.id != key]
        if len(kept) == len(entry.api_keys):
            raise failure(f"Site {name!r} has no API key {key!r}; chat-node site list shows their ids.")
        entry.api_keys = kept
    remark(f"Removed API key {key!r} of site {name!r}.")


def place(config: Path | None, data_dir: Path | None) -> tuple[Config, Path]:
    """The configuration, and the data directory that a command is about."""
    settings = read_config(config)
    return settings, data_dir or settings.node.data_dir


def entry_of(content: SiteFile, name: str) -> SiteEntry:
    """The entry of a site; without one, says so and exits."""
    entry = content.find(name)
    if entry is None:
        hint = "it is configured, with auth.secret" if name == DEFAULT_SITE else "chat-node site list shows all"
        raise failure(f"There is no site {name!r} in the file of sites; {hint}.")
    return entry


def _new_key(site: str, algorithm: str, public_key: Path | None) -> KeyEntry:
    identity = f"{site}-{secrets.token_hex(4)}"
    if algorithm in SECRET_BYTES:
        if public_key is not None:
            raise failure(f"--public-key is for {', '.join(jws.PUBLIC)}; give --algorithm too.", MISUSED)
        return KeyEntry(algorithm, identity, secrets.token_urlsafe(SECRET_BYTES[algorithm]))
    if algorithm not in jws.PUBLIC:
        raise failure(f"--algorithm {algorithm!r} is none of {', '.join(jws.ALGORITHMS)}.", MISUSED)
    if public_key is None:
        raise failure(f"{algorithm} needs --public-key FILE; the private key stays with the site's back end.", MISUSED)
    try:
        pem = public_key.read_text()
        jws.read_public_key(algorithm, pem)
    except (OSError, ValueError, jws.BadKey) as error:
        raise failure(f"--public-key {public_key} can't be used: {error}.", MISUSED) from None
    return KeyEntry(algorithm, identity, public=pem)


def _show_key(site: str, key: KeyEntry) -> None:
    remark(f"Site {site!r}, tokens signed with {key.algorithm} and with kid {key.id} in their header.")
    if key.secret:
        remark("The secret, which is not shown again:")
        typer.echo(key.secret)


def _described(key: VerificationKey) -> str:
    end = "" if key.until == float("inf") else f", until {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(key.until))}"
    return f"{key.id or 'of the configuration'} ({key.algorithm}{end})"

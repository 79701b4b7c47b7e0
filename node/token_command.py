"""``chat-node token``: making tokens to try the node with, and looking into those that a site makes."""

import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Annotated, Any, Final

import msgspec
import typer

from node import revocations, site_file
from node.auth import Authenticator, AuthError, Identity, make_token
from node.origins import Arrival
from node.sites import DEFAULT_SITE, Site, Sites, VerificationKey
from node.status_table import duration
from node.terminal import (
    MISUSED,
    NEVER,
    ConfigFile,
    DataDir,
    expected_faults,
    failure,
    read_config,
    remark,
    seconds_of,
)

app = typer.Typer(
    help="Tokens: what a site's back end gives its users, so that they may connect.", no_args_is_help=True
)

UNCONFIGURED: Final = (
    "No secret is configured, and tokens are made and verified with one. Make one by `openssl rand -hex 32`; give it as"
    " auth.secret in the configuration file or as $CHAT_NODE_AUTH__SECRET, to the node and to your site's back end."
)
SiteName = Annotated[str, typer.Option(help="The site; without it, the configured one.")]
STANDARD_INPUT: Final = "-"


@app.command()
def create(  # noqa: PLR0913 (one parameter per flag)
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    site: SiteName = DEFAULT_SITE,
    user: Annotated[str, typer.Option(help="The user's id in your system; empty: a guest.")] = "",
    exp: Annotated[str, typer.Option(help="How long it is valid: 90s, 10m, 1h, 30d, or never.")] = "1h",
    channel: Annotated[
        str | None, typer.Option(help="Make a subscription token for this channel instead of one to connect.")
    ] = None,
    jti: Annotated[str, typer.Option(help="An id of the token, by which it can be revoked.")] = "",
    info: Annotated[str | None, typer.Option(help="JSON that others see beside the user, such as a name.")] = None,
    role: Annotated[
        str, typer.Option(help="What the user is in all rooms: moderator, owner, or a word of your own.")
    ] = "",
    count: Annotated[
        int, typer.Option(min=1, max=100_000, help="So many tokens, a line each, for users USER1, USER2, …")
    ] = 1,
) -> None:
    """Make tokens, signed with a site's secret, and print one a line."""
    settings = read_config(config)
    with expected_faults():
        sites = site_file.load(data_dir or settings.node.data_dir, settings.auth)
    key, tenant = _signing_key(sites, site), sites.get(site) or Site(site)
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now}
    if (seconds := seconds_of("--exp", exp)) is not None:
        claims["exp"] = now + seconds
    if channel is not None:
        claims["channel"] = channel
    if info is not None:
        claims["info"] = _json(info)
    given = (("aud", tenant.audience), ("iss", tenant.issuer), ("jti", jti), ("role", role))
    claims |= {name: value for name, value in given if value}
    secret = key.material.decode() if isinstance(key.material, bytes) else ""
    for number in range(1, count + 1):
        subject = f"{user}{number}" if count > 1 else user
        typer.echo(make_token(secret, claims | ({"sub": subject} if subject else {}), key.algorithm, key.id))


@app.command()
def inspect(
    token: Annotated[
        str, typer.Argument(help="The token; - reads it from standard input, out of your shell's history.")
    ],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show what a token says and whether this node would accept it.

    Exits with 0 if it would, with 1 if not.
    """
    given = sys.stdin.read().strip() if token == STANDARD_INPUT else token.strip()
    settings = read_config(config)
    folder = data_dir or settings.node.data_dir
    with expected_faults():
        sites, revoked = site_file.load(folder, settings.auth), revocations.read(folder)
    header, claims = _decode(given)
    typer.echo(msgspec.json.format(msgspec.json.encode({"header": header, "claims": claims}), indent=2))
    for name in ("exp", "nbf", "iat"):
        if isinstance(moment := claims.get(name), int | float):
            remark(f"{name}: {_told(moment)}")
    if not any(site.verifies for site in sites):
        raise failure(f"Not verified. {UNCONFIGURED}")
    published = _PublishedKeys(settings.auth.jwks_fetch_seconds)
    gate = Authenticator(sites, guest_key=b"inspecting makes no guests", revocations=revoked, key_sets=published)
    site, problem = _verdict(gate, given, claims)
    if problem:
        raise failure(f"Refused: {problem}.")
    purpose = f"subscribe to {claims['channel']}" if "channel" in claims else "connect"
    remark(
        f"Accepted: {claims.get('sub') or 'a guest'} may {purpose}" + (f", to site {site}." if len(sites) > 1 else ".")
    )


@app.command()
def revoke(  # noqa: PLR0913 (one parameter per flag)
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    site: SiteName = DEFAULT_SITE,
    jti: Annotated[str, typer.Option(help="The token with this id.")] = "",
    user: Annotated[str, typer.Option(help="All tokens of this user issued until now.")] = "",
    before: Annotated[
        str, typer.Option(help="All tokens issued before: now, or a time such as 2026-11-24T10:30Z.")
    ] = "",
    lasting: Annotated[
        str, typer.Option("--for", help="Forget it after 30d, when the tokens have expired by themselves; or never.")
    ] = NEVER,
) -> None:
    """Refuse tokens from now on, and close the clients that connected with them."""
    if sum(map(bool, (jti, user, before))) != 1:
        raise failure("Give one of --jti, --user and --before.", MISUSED)
    settings, now = read_config(config), time.time()
    folder = data_dir or settings.node.data_dir
    until = None if (seconds := seconds_of("--for", lasting)) is None else now + seconds
    # Tokens tell whole seconds: one issued in this very second may be older than this command.
    moment = _moment(before) if before not in {"", "now"} else int(now) + 1
    with expected_faults():
        if site_file.load(folder, settings.auth).get(site) is None:
            raise failure(f"There is no site {site!r}; chat-node site list shows all.", MISUSED)
        revocations.revoke(
            folder, site, token_id=jti, user=user, before=moment, until=until, now=now, most=settings.auth.revocations
        )
    what = f"token {jti!r}" if jti else f"tokens of {user!r}" if user else "tokens"
    remark(
        f"Revoked {what}"
        + ("" if jti else f" issued before {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC")
    )


class _PublishedKeys:
    """Public keys that sites publish, fetched when they are asked for.

    Args:
        seconds: For one fetch.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def find(self, url: str, key_id: str, algorithm: str) -> Sequence[VerificationKey]:
        """See `auth.KeySets`; what can't be fetched ends the command."""
        import trio  # noqa: PLC0415 (the other commands need not load it)

        from node import jwks  # noqa: PLC0415

        try:
            keys = jwks.read_set(trio.run(jwks.fetch, url, self._seconds))
        except jwks.KeySetFault as fault:
            raise failure(f"Not verified. The keys at {url} can't be had: {fault}.") from None
        return jwks.matching(keys, key_id, algorithm)


def _verdict(gate: Authenticator, token: str, claims: Mapping[str, Any]) -> tuple[str, str]:
    """The site that accepts the token, and why the node would refuse it; empty if it would not."""
    try:
        site = gate.site_of(token)
        if "channel" in claims:
            user = claims.get("sub") or ""
            who = Identity(site, user, guest=not user)
            gate.subscription(token, who, claims.get("client") or "", claims["channel"])
        else:
            gate.connection(token, "", Arrival(site))
    except AuthError as error:
        return "", str(error).rstrip(".")
    return site, ""


def _signing_key(sites: Sites, name: str) -> VerificationKey:
    """The newest shared secret of a site."""
    site = sites.get(name)
    if site is None:
        known = ", ".join(each.name for each in sites)
        raise failure(f"There is no site {name!r}; there are: {known}.", MISUSED)
    if not site.keys and name == DEFAULT_SITE:
        raise failure(UNCONFIGURED)
    for key in reversed(site.keys):
        if isinstance(key.material, bytes) and key.until == inf:
            return key
    raise failure(f"Site {name!r} has no secret of ours; its back end makes its tokens with the private key.")


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, unverified."""
    parts = [*token.split("."), "", ""]
    try:
        header, claims = (
            msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
            for part in parts[:2]
        )
    except (ValueError, msgspec.DecodeError):
        raise failure(
            "This is no token. A token is three parts in base64 with full stops between: header, claims, signature."
        ) from None
    return header, claims


def _json(text: str) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        mend = 'Give, for example, --info \'{"name": "Ada"}\'.'
        raise failure(f"--info {text!r} is not JSON: {error}. {mend}", MISUSED) from None


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise failure(f"--before {text!r} is no time. Give now, or 2026-11-24T10:30Z.", MISUSED) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _told(moment: float) -> str:
    distance = moment - time.time()
    when = datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="seconds") if abs(moment) < 1e11 else moment
    return f"{when}, " + (f"in {duration(distance)}" if distance > 0 else f"{duration(-distance)} ago")

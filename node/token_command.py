"""``chat-node token``: making tokens to try the node with, and looking into those that a site makes."""

import re
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import typer

from edge_config.schema import Auth
from node.auth import Authenticator, AuthError, Identity, make_token
from node.sites import DEFAULT_SITE, assemble
from node.status_table import duration
from node.terminal import MISUSED, ConfigFile, failure, read_config, remark

app = typer.Typer(
    help="Tokens: what a site's back end gives its users, so that they may connect.", no_args_is_help=True
)

NEVER: Final = "never"
UNCONFIGURED: Final = (
    "No secret is configured, and tokens are made and verified with one. Make one by `openssl rand -hex 32`; give it as"
    " auth.secret in the configuration file or as $CHAT_NODE_AUTH__SECRET, to the node and to your site's back end."
)
STANDARD_INPUT: Final = "-"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


@app.command()
def create(  # noqa: PLR0913 (one parameter per flag)
    config: ConfigFile = None,
    *,
    user: Annotated[str, typer.Option(help="The user's id in your system; empty: a guest.")] = "",
    exp: Annotated[str, typer.Option(help="How long it is valid: 90s, 10m, 1h, 30d, or never.")] = "1h",
    channel: Annotated[
        str | None, typer.Option(help="Make a subscription token for this channel instead of one to connect.")
    ] = None,
    info: Annotated[str | None, typer.Option(help="JSON that others see beside the user, such as a name.")] = None,
    count: Annotated[
        int, typer.Option(min=1, max=100_000, help="So many tokens, a line each, for users USER1, USER2, …")
    ] = 1,
) -> None:
    """Make tokens, signed with the configured secret, and print one a line."""
    auth = read_config(config).auth
    if not auth.secret:
        raise failure(UNCONFIGURED)
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now}
    if (seconds := _seconds(exp)) is not None:
        claims["exp"] = now + seconds
    if channel is not None:
        claims["channel"] = channel
    if info is not None:
        claims["info"] = _json(info)
    claims |= {name: value for name, value in (("aud", auth.audience), ("iss", auth.issuer)) if value}
    for number in range(1, count + 1):
        subject = f"{user}{number}" if count > 1 else user
        typer.echo(make_token(auth.secret.reveal(), claims | ({"sub": subject} if subject else {})))


@app.command()
def inspect(
    token: Annotated[
        str, typer.Argument(help="The token; - reads it from standard input, out of your shell's history.")
    ],
    config: ConfigFile = None,
) -> None:
    """Show what a token says and whether this node would accept it.

    Exits with 0 if it would, with 1 if not.
    """
    given = sys.stdin.read().strip() if token == STANDARD_INPUT else token.strip()
    auth = read_config(config).auth
    header, claims = _decode(given)
    typer.echo(msgspec.json.format(msgspec.json.encode({"header": header, "claims": claims}), indent=2))
    for name in ("exp", "nbf", "iat"):
        if isinstance(moment := claims.get(name), int | float):
            remark(f"{name}: {_told(moment)}")
    if not auth.secret:
        raise failure(f"Not verified. {UNCONFIGURED}")
    if problem := _problem(auth, given, claims):
        raise failure(f"Refused: {problem}.")
    purpose = f"subscribe to {claims['channel']}" if "channel" in claims else "connect"
    remark(f"Accepted: {claims.get('sub') or 'a guest'} may {purpose}.")


def _problem(auth: Auth, token: str, claims: Mapping[str, Any]) -> str:
    """Why the node would refuse the token; empty if it would not."""
    authenticator = Authenticator(assemble(auth), guest_key=b"inspecting makes no guests")
    try:
        if "channel" in claims:
            user = claims.get("sub") or ""
            who = Identity(DEFAULT_SITE, user, guest=not user)
            authenticator.subscription(token, who, claims.get("client") or "", claims["channel"])
        else:
            authenticator.connection(token, "")
    except AuthError as error:
        return str(error).rstrip(".")
    return ""


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


def _seconds(text: str) -> int | None:
    if text == NEVER:
        return None
    found = re.fullmatch(r"(\d{1,9})\s*(s|m|min|h|d|)", text)
    if not found:
        raise failure(f"--exp {text!r} is no time. Give 90s, 10m, 1h, 30d or never.", MISUSED)
    return int(found[1]) * _UNITS[found[2]]


def _json(text: str) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        mend = 'Give, for example, --info \'{"name": "Ada"}\'.'
        raise failure(f"--info {text!r} is not JSON: {error}. {mend}", MISUSED) from None


def _told(moment: float) -> str:
    distance = moment - time.time()
    when = datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="seconds") if abs(moment) < 1e11 else moment
    return f"{when}, " + (f"in {duration(distance)}" if distance > 0 else f"{duration(-distance)} ago")

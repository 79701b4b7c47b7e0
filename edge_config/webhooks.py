"""Webhooks: where a site's back end is told of events, how they are gathered, and how long it is tried."""

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from edge_config.faults import Fault, shown
from edge_config.secret import Secret
from edge_config.setting import Bounds, section, setting

LOGGED: Final = ("message", "edited", "removed", "restored", "reported")
"""Events of what is in the log: none is missed."""

ATTENDANCE: Final = ("occupied", "vacated", "connected", "disconnected")
"""Events of who is there, which nothing keeps."""

EVENTS: Final = (*LOGGED, *ATTENDANCE)
LEAST_SECRET_CHARACTERS: Final = 32  # of 4 bits each, as `openssl rand -hex 16` makes them: 128 bits can't be guessed
MOST_SECRETS: Final = 2  # the one in use, and the one that it takes the place of


@section
class WebhookTarget:
    """A receiver of the default site's events; NAME has letters, digits, _ and -, but no two _ in a row.

    Attributes:
        name: Its name; not a key, but the table's.
    """

    name: str = "default"

    url: str = setting(
        "",
        "Where events are sent (POST): https; with `allow_private` http too. Empty: this webhook is off. See"
        " docs/webhooks.md.",
    )
    secret: Secret | None = setting(
        None,
        "Signs what is sent; at least 32 characters (`openssl rand -hex 32`). While it is replaced: the new one and the"
        " old one, with a space or line end between them; every request then bears a signature of each.",
    )
    events: tuple[str, ...] = setting(
        (), f"The events that it is sent, of {', '.join(f'`{name}`' for name in EVENTS)}; empty: all of them."
    )
    allow_private: bool = setting(
        default=False,
        meaning="The receiver may have a private, loopback or link-local address, and be reached by plain http: for one"
        " in your own network.",
    )
    batch_events: int = setting(100, "Events of one request, at most.", Bounds(1, 1000))
    batch_bytes: int = setting(
        524_288,
        "Bytes of the log of one request's events, at most; one event is sent in any case.",
        Bounds(1024, 16_777_216),
    )
    linger_ms: int = setting(200, "An event waits so long for others to be sent with.", Bounds(0, 60_000))
    timeout_seconds: float = setting(
        10.0, "For one attempt, from the look-up of the host's name to the answer's status.", Bounds(0.1, 300)
    )
    retry_seconds: float = setting(
        1.0, "From a failed attempt to the next; doubled each time, and shortened at random by up to a half.",
        Bounds(0.01, 3600),
    )  # fmt: skip
    retry_most_seconds: float = setting(
        300.0, "The longest wait between two attempts, unless the receiver asks for longer.", Bounds(0.01, 86_400)
    )
    give_up_hours: float = setting(
        24.0,
        "Events of this age become dead letters, if the receiver has failed for as long or for an hour. So long the"
        " log keeps what is not delivered, whatever retention says, unless the disk is full.",
        Bounds(0.0001, 720),
    )
    dead_letters: int = setting(10_000, "Dead letters that are kept; beyond it the oldest are dropped.", Bounds(1))
    settle_seconds: float = setting(
        5.0,
        "Who comes or goes is told after so long; what is undone by then is never told. 0: at once.",
        Bounds(0, 3600),
    )
    waiting_events: int = setting(
        1000,
        "Events of who is there that wait to be sent, at most; what comes beyond is dropped, and the count sent.",
        Bounds(1, 100_000),
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        if unknown := set(self.events).difference(EVENTS):
            yield Fault("events", shown(min(unknown)), "no such event", f"Give some of {', '.join(EVENTS)}")
        if self.retry_seconds > self.retry_most_seconds:
            problem = f"longer than retry_most_seconds = {self.retry_most_seconds}"
            yield Fault(
                "retry_seconds", str(self.retry_seconds), problem, "Lower it, or raise retry_most_seconds",
                also=("retry_most_seconds",),
            )  # fmt: skip
        if not self.url:
            return
        if trouble := url_trouble(self.url, allow_private=self.allow_private):
            mend = "Give https://HOST/PATH, or allow_private = true for http in your own network"
            yield Fault("url", shown(self.url), trouble, mend, also=("allow_private",))
        if trouble := secrets_trouble(read_secrets(self.secret)):
            yield Fault("secret", "", trouble, "Give what `openssl rand -hex 32` prints", also=("url",))


def read_secrets(given: Secret | None) -> tuple[Secret, ...]:
    """The secrets of `secret`, the one in use first."""
    return tuple(map(Secret, given.reveal().split())) if given is not None else ()


def secrets_trouble(secrets: Iterable[Secret]) -> str:
    """What is wrong with secrets, without showing any; empty: nothing."""
    lengths = [len(secret.reveal()) for secret in secrets]
    if not lengths:
        return "nothing to sign with: a receiver could not tell what is ours"
    if len(lengths) > MOST_SECRETS:
        return f"{len(lengths)} secrets, as there are spaces between them; {MOST_SECRETS} are the most"
    if min(lengths) < LEAST_SECRET_CHARACTERS:
        return f"it has {min(lengths)} characters, so it can be guessed; {LEAST_SECRET_CHARACTERS} are the least"
    return ""


def url_trouble(url: str, *, allow_private: bool) -> str:
    """Why events can't be sent to a URL; empty: they can."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"no URL: {error}"
    if not host or not url.isascii() or any(character <= " " for character in url) or "\x7f" in url:
        return "no URL with a host, in ASCII and without spaces"
    if parts.username is not None or parts.password is not None:
        return "a URL with a user or password; receivers verify the signature"
    if parts.fragment:
        return "a URL with a fragment, which is never sent"
    if parts.scheme == "https" or (parts.scheme == "http" and allow_private):
        return ""
    return "anybody on the way could read what is sent by http" if parts.scheme == "http" else "not of https"

"""The server API: who may use it, and how much of the node it may take."""

from collections.abc import Iterator
from typing import NamedTuple

from edge_config.faults import Fault
from edge_config.secret import Secret
from edge_config.setting import Bounds, section, setting

SCOPES = ("publish", "read", "manage", "moderate", "admin")
"""What a key may do: publish; read history, presence, rooms and users; act on connections; moderate; or all of it."""

KEY_CHARACTERS = 32  # of 4 bits each, as `openssl rand -hex 16` makes them: 128 bits can't be guessed


class GivenKey(NamedTuple):
    """An API key as it is configured.

    Attributes:
        key: What requests bear.
        scopes: Of `SCOPES`.
    """

    key: str
    scopes: frozenset[str]


def read_api_keys(keys: Secret | None) -> list[GivenKey]:
    """The keys of `api.keys`: words, each with `SCOPE,SCOPE:` before it, or without, which is `admin`."""
    words = keys.reveal().split() if keys is not None else []
    parts = (word.rpartition(":") for word in words)
    return [
        GivenKey(key, frozenset(scopes.split(",")) if colon else frozenset({"admin"})) for scopes, colon, key in parts
    ]


@section
class Api:
    """The server API, with which a site's back end publishes, reads and acts on its users' connections."""

    keys: Secret | None = setting(
        None,
        "API keys of the default site, with spaces or line ends between them, each of at least 32 characters"
        " (`openssl rand -hex 32`). `SCOPE,SCOPE:` before a key restricts it to some of `publish`, `read`, `manage`,"
        " `moderate`; else it may do everything. Empty: no key of the default site.",
    )
    allow_weak_keys: bool = setting(
        default=False,
        meaning="Take keys of fewer than 32 characters, which can be guessed: for tests, and only while both ports are"
        " on loopback.",
    )
    body_bytes: int = setting(
        262_144, "Body of a request: a batch of a dozen of the longest publications.", Bounds(1024, 16_777_216)
    )
    batch_operations: int = setting(1000, "Commands in one batch, and channels in one broadcast.", Bounds(1, 100_000))
    waiting_operations: int = setting(
        4096, "Operations that wait for the loop; what comes beyond is answered 100, try again.", Bounds(1, 1_000_000)
    )
    site_requests: float = setting(
        1000.0, "Requests per second with the keys of one site; above it they are answered 429. 0: no limit.", Bounds(0)
    )

    def rules(self) -> Iterator[Fault]:
        """Yield what is wrong with the keys; none is shown."""
        for number, given in enumerate(read_api_keys(self.keys), 1):
            if unknown := given.scopes.difference(SCOPES):
                mend = f"Give some of {', '.join(SCOPES)} before the colon"
                yield Fault("keys", "", f"key {number} has {len(unknown)} scopes that do not exist", mend)
            elif len(given.key) < KEY_CHARACTERS and not self.allow_weak_keys:
                problem = f"key {number} has {len(given.key)} characters, so it can be guessed"
                mend = f"Give {KEY_CHARACTERS} or more (openssl rand -hex 32); allow_weak_keys = true is for tests"
                yield Fault("keys", "", problem, mend, also=("allow_weak_keys",))

"""Sets of public keys that sites publish (RFC 7517): fetched in a task of their own, read by the hub without waiting.

A token whose key is not known yet has its set fetched, and its client is told to come again (100, temporary). The last
good set outlives an outage of its server. How often a set is fetched is bounded, whatever tokens come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from node import jws
from node.logs import events
from node.sites import VerificationKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edge_config.schema import Auth

TICK_SECONDS: Final = 0.5
MOST_BYTES: Final = 262_144  # of an answer: a hundred RSA keys with certificates
MOST_KEYS: Final = 100
MOST_UNKNOWN: Final = 256  # key ids remembered that a set did not have

log = events(__name__)


class KeySetFault(Exception):
    """A set can't be had; the text says why."""


@dataclass(slots=True)
class _Set:
    """One URL's keys, and when they were looked for; monotonic seconds."""

    keys: tuple[VerificationKey, ...] = ()
    complete: float = -inf  # when the last fetch began that succeeded
    tried: float = -inf
    busy: bool = False
    wanted: bool = False
    unknown: dict[str, float] = field(default_factory=dict)  # when a key id was first asked for


class KeySets:
    """The sets of all sites.

    Args:
        urls: Gives those of the sites that there are at the moment.
        bounds: How often, how long, and how many at once.
        clock: Monotonic seconds.
    """

    def __init__(self, urls: Callable[[], Iterable[str]], bounds: Auth, clock: Callable[[], float] = monotonic) -> None:
        self._urls, self._bounds, self._clock = urls, bounds, clock
        self._sets: dict[str, _Set] = {}

    def find(self, url: str, key_id: str, algorithm: str) -> Sequence[VerificationKey] | None:
        """Keys of a set that may have signed a token; None: come again, the set is being fetched."""
        known = self._sets.setdefault(url, _Set())
        found = matching(known.keys, key_id, algorithm)
        if found:
            return found
        if key_id not in known.unknown:
            if len(known.unknown) >= MOST_UNKNOWN:
                del known.unknown[next(iter(known.unknown))]
            known.unknown[key_id] = self._clock()
        if known.complete > known.unknown[key_id]:
            return ()
        known.wanted = True
        return None

    async def run(self) -> None:
        """Fetch what is due, until cancelled."""
        limiter = trio.CapacityLimiter(self._bounds.jwks_fetches)
        async with trio.open_nursery() as nursery:
            while True:
                urls = set(self._urls())
                self._sets = {url: self._sets.get(url, _Set()) for url in urls}
                for url, known in self._sets.items():
                    if self._due(known):
                        known.busy = True
                        nursery.start_soon(self._fetch, url, known, limiter)
                await trio.sleep(TICK_SECONDS)

    def _due(self, known: _Set) -> bool:
        since = self._clock() - known.tried
        hurried = known.wanted or known.complete == -inf
        due = self._bounds.jwks_retry_seconds if hurried else self._bounds.jwks_refresh_seconds
        return not known.busy and since >= due

    async def _fetch(self, url: str, known: _Set, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            begun = known.tried = self._clock()
            known.wanted = False
            try:
                keys = read_set(await fetch(url, self._bounds.jwks_fetch_seconds))
            except KeySetFault as fault:
                log.warning("key set not fetched", url=url, reason=str(fault), keys=len(known.keys))
                known.wanted = True  # whoever waits for a key waits on
            except Exception as error:  # noqa: BLE001 - the boundary: one site's server is not to end the node
                log.fault("key set not read", error, url=url)
            else:
                known.keys, known.complete = keys, begun
                for key in keys:
                    known.unknown.pop(key.id, None)
            finally:
                known.busy = False


def matching(keys: Iterable[VerificationKey], key_id: str, algorithm: str) -> list[VerificationKey]:
    """Those of a set's keys that may have signed a token."""
    return [key for key in keys if key.algorithm == algorithm and (not key_id or key.id in {"", key_id})]


def read_set(body: bytes) -> tuple[VerificationKey, ...]:
    """The keys of a set that are of use here; others are passed over (RFC 7517, 5).

    Raises:
        KeySetFault: There is none.
    """
    try:
        given = msgspec.json.decode(body, type=dict[str, Any]).get("keys")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise KeySetFault(f"the answer is no set of keys: {error}") from error
    found = []
    for jwk in given[:MOST_KEYS] if isinstance(given, list) else ():
        try:
            algorithm, material = jws.read_jwk(jwk if isinstance(jwk, dict) else {})
        except jws.BadKey:
            continue
        key_id = jwk.get("kid", "")
        if isinstance(key_id, str) and len(key_id) <= jws.LONGEST_KEY_ID:
            found.append(VerificationKey(key_id, algorithm, material))
    if not found:
        raise KeySetFault(f"the answer has no key for {', '.join(jws.PUBLIC)}")
    return tuple(found)


async def fetch(url: str, seconds: float) -> bytes:
    """The body of an answer to GET, within a time and a size; redirections are not followed.

    Raises:
        KeySetFault: There is none.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        with trio.fail_after(seconds):
            stream: trio.abc.Stream
            if secure:
                stream = await trio.open_ssl_over_tcp_stream(host, parts.port or 443, https_compatible=True)
            else:
                stream = await trio.open_tcp_stream(host, parts.port or 80)
            async with stream:
                target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
                return await _exchange(stream, parts.netloc, target)
    except trio.TooSlowError as error:
        raise KeySetFault(f"no answer within {seconds:g} s") from error
    except (OSError, ValueError, trio.BrokenResourceError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        raise KeySetFault(f"{type(error).__name__}: {error}") from error


async def _exchange(stream: trio.abc.Stream, host: str, target: str) -> bytes:
    exchange = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET", target=target, headers=[("Host", host), ("Accept", "application/json"), ("Connection", "close")]
    )
    await stream.send_all((exchange.send(request) or b"") + (exchange.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        match exchange.next_event():
            case h11.NEED_DATA:
                exchange.receive_data(bytes(await stream.receive_some(65_536)))
            case h11.Response(status_code=status) if status != 200:
                raise KeySetFault(f"the answer's status is {status}")
            case h11.Data(data=data):
                body += data
                if len(body) > MOST_BYTES:
                    raise KeySetFault(f"the answer has more than {MOST_BYTES} bytes")
            case h11.EndOfMessage():
                return bytes(body)
            case h11.ConnectionClosed() | h11.PAUSED:
                raise KeySetFault("the connection was closed before the answer's end")
            case _:
                continue

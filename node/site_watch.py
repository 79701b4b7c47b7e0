"""Taking up changes of the files of sites while the node runs: at SIGHUP, and by looking at them.

Files are read in a thread, each by itself. What can't be used, or is gone, is logged, and what it said last goes on to
hold. Clients and subscriptions that would not be accepted any more end at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from node import revocations, site_file
from node.codes import DisconnectCode, UnsubscribeCode
from node.logs import events
from node.site_file import SitesFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge_config.schema import Auth
    from node.auth import Authenticator
    from node.revocations import Revocations
    from node.seams import User
    from node.sites import ApiKey, Sites

POLL_SECONDS: Final = 1.0  # how soon a revocation takes hold; two calls of stat cost nothing
COHORT: Final = 200  # clients and subscriptions looked at between two checkpoints: 1 ms
FILES: Final = (site_file.FILE, site_file.REVOCATIONS)

Signature = tuple[tuple[int, int, int] | None, ...]
T = TypeVar("T")

log = events(__name__)


class SiteWatch:
    """Keeps an authenticator up to date.

    Args:
        data_dir: Where the files are.
        auth: The configured site.
        authenticator: Told of changes.
        users: All connected clients at this moment.
        ring: Makes the hub send what was queued.
        api_keys: Of the configured site.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, composed in one place
        self, data_dir: Path, auth: Auth, authenticator: Authenticator, users: Callable[[], Sequence[User]],
        ring: Callable[[], None], api_keys: tuple[ApiKey, ...] = (),
    ) -> None:  # fmt: skip
        self._data_dir, self._auth, self._api_keys = data_dir, auth, api_keys
        self._authenticator, self._users, self._ring = authenticator, users, ring
        self._told = trio.Event()
        self._seen: Signature = ()
        self._known: set[str] = set()
        self.changed: list[Callable[[Sites], None]] = []
        """Called with the sites whenever there are others."""

    def poke(self) -> None:
        """Read the files again soon, whether they seem changed or not."""
        self._told.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            again = self._told.is_set()
            if again:  # before the look: what is told while it lasts makes for another one
                self._told = trio.Event()
            await self._look(again=again)
            with trio.move_on_after(POLL_SECONDS):
                await self._told.wait()

    async def _look(self, *, again: bool) -> None:
        signature = await trio.to_thread.run_sync(signature_of, self._data_dir, abandon_on_cancel=True)
        if signature == self._seen and not again:
            return
        is_first, self._seen = not self._seen, signature
        gate = self._authenticator
        load_sites = partial(site_file.load, self._data_dir, self._auth, self._api_keys)
        load_revocations = partial(revocations.read, self._data_dir)
        there = [seen is not None for seen in signature]
        sites = await self._take(site_file.FILE, load_sites, is_there=there[0])
        revoked = await self._take(site_file.REVOCATIONS, load_revocations, is_there=there[1])
        if sites is None and revoked is None:
            return
        gate.replace(gate.sites if sites is None else sites, gate.revocations if revoked is None else revoked)
        if sites is not None:
            for told in self.changed:
                told(sites)
        closed, ended = await self._send_away()
        if again or not is_first:
            log.info("sites reloaded", sites=len(gate.sites), closed=closed, unsubscribed=ended)

    async def _take(self, name: str, load: Callable[[], T], *, is_there: bool) -> T | None:
        """What a file says; None: what it said last goes on to hold."""
        if not is_there and name in self._known:
            log.error("sites not reloaded", reason=f"{self._data_dir / name} is gone; what it said last holds")
            return None
        try:
            found = await trio.to_thread.run_sync(load, abandon_on_cancel=True)
        except SitesFault as fault:
            log.error("sites not reloaded", reason=str(fault))  # noqa: TRY400 - no bug, and the fault names its mend
            return None
        except Exception as error:  # noqa: BLE001 - the boundary: what a file says is not to end the node
            log.fault("sites not reloaded", error, reason=f"{self._data_dir / name} can't be used")
            return None
        if is_there:
            self._known.add(name)
        return found

    async def _send_away(self) -> tuple[int, int]:
        """End clients and subscriptions that would not be accepted any more; gives how many of each."""
        gate, closed, ended, looked = self._authenticator, 0, 0, 0
        for user in self._users():
            why = gate.lapsed(user.identity) if user.site else ""
            if why:
                user.disconnect(DisconnectCode.INVALID_TOKEN, why)
                closed += 1
            else:
                ended += self._end_subscriptions(user)
            looked += 1 + len(user.subscriptions)
            if looked >= COHORT:
                looked = 0
                self._ring()
                await trio.lowlevel.checkpoint()
        self._ring()
        return closed, ended

    def _end_subscriptions(self, user: User) -> int:
        """End those of a client whose token was revoked; gives how many."""
        gate, ended = self._authenticator, 0
        for channel, place in list(user.subscriptions.items()):
            if why := gate.withdrawn(user.identity, place.grant):
                user.unsubscribe(channel, UnsubscribeCode.SERVER, f"{UnsubscribeCode.SERVER.text}: {why}")
                ended += 1
        return ended


def read(data_dir: Path, auth: Auth, api_keys: tuple[ApiKey, ...]) -> tuple[Sites, Revocations]:
    """Both files.

    Raises:
        SitesFault: One can't be used.
    """
    return site_file.load(data_dir, auth, api_keys), revocations.read(data_dir)


def signature_of(data_dir: Path) -> Signature:
    """Changes whenever one of the files is replaced or rewritten."""
    found: list[tuple[int, int, int] | None] = []
    for name in FILES:
        try:
            status = (data_dir / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)

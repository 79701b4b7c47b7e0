"""Taking up changes of the files of sites while the node runs: at SIGHUP, and by looking at them.

Files are read in a thread. What can't be used is logged, and what was in force goes on. Clients that would not be
accepted any more are sent away at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from node import revocations, site_file
from node.codes import DisconnectCode
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
COHORT: Final = 200  # clients looked at between two checkpoints: 1 ms

Signature = tuple[tuple[int, int, int] | None, ...]

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
        self.changed: list[Callable[[Sites], None]] = []
        """Called with the sites whenever there are others."""

    def poke(self) -> None:
        """Read the files again soon, whether they seem changed or not."""
        self._told.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._look(again=self._told.is_set())
            if self._told.is_set():
                self._told = trio.Event()
            with trio.move_on_after(POLL_SECONDS):
                await self._told.wait()

    async def _look(self, *, again: bool) -> None:
        signature = await trio.to_thread.run_sync(signature_of, self._data_dir)
        if signature == self._seen and not again:
            return
        before, self._seen = self._seen, signature
        if before and before[0] is not None and signature[0] is None:
            log.error("sites not reloaded", reason=f"{self._data_dir / site_file.FILE} is gone; the last sites stay")
            return
        try:
            sites, revoked = await trio.to_thread.run_sync(read, self._data_dir, self._auth, self._api_keys)
        except SitesFault as fault:
            log.error("sites not reloaded", reason=str(fault))  # noqa: TRY400 - no bug, and the fault names its mend
            return
        self._authenticator.replace(sites, revoked)
        for told in self.changed:
            told(sites)
        if before or again:
            closed = await self._send_away()
            log.info("sites reloaded", sites=len(sites), closed=closed)

    async def _send_away(self) -> int:
        """Close clients that would not be accepted any more; gives how many."""
        closed = 0
        users = self._users()
        for start in range(0, len(users), COHORT):
            for user in users[start : start + COHORT]:
                why = self._authenticator.lapsed(user.identity) if user.site else ""
                if why:
                    user.disconnect(DisconnectCode.INVALID_TOKEN, why)
                    closed += 1
            self._ring()
            await trio.lowlevel.checkpoint()
        return closed


def read(data_dir: Path, auth: Auth, api_keys: tuple[ApiKey, ...]) -> tuple[Sites, Revocations]:
    """Both files.

    Raises:
        SitesFault: One can't be used.
    """
    return site_file.load(data_dir, auth, api_keys), revocations.read(data_dir)


def signature_of(data_dir: Path) -> Signature:
    """Changes whenever one of the files is replaced or rewritten."""
    found: list[tuple[int, int, int] | None] = []
    for name in (site_file.FILE, revocations.FILE):
        try:
            status = (data_dir / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)

"""The public keys of the nodes that may connect, read again while the process runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from edge_config.keys import KeyFault, read_allowed
from node.logs import events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from router.transport import Transport

KEYS_SECONDS: Final = 2.0  # between two looks at the directory

log = events(__name__)


class AllowedKeys:
    """Whose keys are known here, as they are now.

    Args:
        folder: Where they are read again.
        allowed: By node, as they were read; None: there is no encryption, and every node may connect.
    """

    def __init__(self, folder: Path, allowed: Mapping[str, bytes] | None) -> None:
        self._folder, self._allowed = folder, allowed

    def of(self, node: str) -> bytes | None:
        """A node's public key; empty without encryption; None: it may not connect."""
        return b"" if self._allowed is None else self._allowed.get(node)

    async def watch(self, transport: Transport, changed: Callable[[], None] = lambda: None) -> None:
        """Take up what is changed in the directory, until cancelled; `changed` is called when the transport has it."""
        fault = ""
        while self._allowed is not None:
            await trio.sleep(KEYS_SECONDS)
            try:
                allowed = await trio.to_thread.run_sync(read_allowed, self._folder)
            except KeyFault as error:
                if str(error) != fault:
                    log.error("keys not read again", reason=str(error))  # noqa: TRY400 - the fault names its mend
                fault = str(error)
                continue
            fault = ""
            if allowed != self._allowed:
                self._allowed = allowed
                transport.allow(allowed)
                changed()
                log.info("keys read again", nodes=len(allowed))

"""The central register as a member of the mesh: requests come in over the link, are answered, and go back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from node.central.service import Served, Service
from node.logs import events
from router.channels import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from node.central.store import Store
    from router.link import Link
    from router.register_wire import Row

log = events(__name__)


class Server:
    """Answers nodes until it is cancelled.

    Args:
        store: The register.
        link: To the nodes; this is its only user.
        key_of: The public key of a node; None: it may not connect (any more).
    """

    def __init__(self, store: Store, link: Link, key_of: Callable[[str], bytes | None]) -> None:
        self._service, self._store = Service(store), store
        self._link, self._key_of = link, key_of

    async def run(self, seeds: Mapping[str, str]) -> None:
        """Serve.

        Args:
            seeds: Where nodes are answered that have never asked, by name.

        Raises:
            StorageFault: The disk has failed; nothing was answered that it might not have.
        """
        with self._store.transaction():
            addresses = {**seeds, **self._store.addresses()}
        for node, address in addresses.items():
            self._connect(node, address)
        while True:
            await self._link.wait()
            self._link.received_publications()  # nobody is asked for any
            self._link.subscription_events()  # and none are made
            received = self._link.receive()
            batch = [(message.node, message.body) for message in received if message.channel is Channel.REGISTER]
            if batch:
                served = await trio.to_thread.run_sync(self._service.serve, batch)
                self._tell(served)
                self._answer(served)

    def _connect(self, node: str, address: str) -> None:
        key = self._key_of(node)
        if key is None:
            log.warning("node without a key", node=node, mend="give its public key: chat-node keys allow")
            return
        try:
            self._link.connect(node, address, key)
        except ValueError as error:
            log.warning("node cannot be answered", node=node, address=address, reason=str(error))

    def _answer(self, served: Served) -> None:
        for node, address in served.opened:
            self._connect(node, address)
        for node, body in served.answers:
            if not self._link.send(node, Channel.REGISTER, body):
                log.info("answer not sent, the node asks again", node=node)

    def _tell(self, served: Served) -> None:
        for node, address in served.opened:
            log.info("node asks", node=node, address=address)
        for node, row in served.changes:
            log.info("row changed", shard=row.shard, epoch=row.epoch, members=_named(row), by=node)
        for node, why in served.refused:
            log.error("row refused", node=node, reason=why)
        for node, why in served.unreadable:
            log.warning("unreadable request", node=node, reason=why)
        for node in served.forgotten:
            log.info("request forgotten", node=node)


def _named(row: Row) -> str:
    """The members, the primary first."""
    members = sorted(row.members, key=lambda member: member != row.primary)
    return ", ".join(node for node, _ in members)

"""A process with the central register: opened, served over the mesh until a signal comes, closed."""

from __future__ import annotations

import secrets
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from node.allowed_keys import AllowedKeys
from node.central.server import Server
from node.central.store import Store
from node.logs import events
from router.transport import TransportOptions, open_transport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge_config.address import Address
    from edge_config.keys import KeyPair
    from router.register_wire import Certificate

BOOT_BYTES: Final = 12

log = events(__name__)


@dataclass(slots=True, frozen=True, kw_only=True)
class CentralOptions:
    """What the process is to be.

    Attributes:
        name: Among the nodes.
        data_dir: Where the register is.
        address: Where it listens; port 0: any free one.
        publish_port: Of its publications, of which there are none.
        keys: Its own; None: no encryption.
        keys_folder: Where the keys of those that may connect are read again.
        allowed: Those keys, by node.
        plain: Whether, without keys, others than this machine may connect.
        seeds: Where nodes are answered that have never asked, by name.
    """

    name: str
    data_dir: Path
    address: Address
    publish_port: int
    keys: KeyPair | None
    keys_folder: Path
    allowed: Mapping[str, bytes]
    plain: bool
    seeds: Mapping[str, str]


@dataclass(slots=True, frozen=True)
class Started:
    """A process that serves.

    Attributes:
        port: Where.
        certificate: Of its cluster.
        rows: How many shards are in use.
    """

    port: int
    certificate: Certificate
    rows: int


async def run(options: CentralOptions, *, task_status: trio.TaskStatus[Started]) -> None:
    """Run the register until SIGTERM or SIGINT.

    Raises:
        RouterError: It can't start or go on.
    """
    store = await trio.to_thread.run_sync(Store.open, options.data_dir)
    try:
        transport_options = TransportOptions(
            node=options.name, boot=secrets.token_hex(BOOT_BYTES), host=options.address.host,
            port=options.address.port, publish_port=options.publish_port, keys=options.keys, allowed=options.allowed,
            plain=options.plain,
        )  # fmt: skip
        async with open_transport(transport_options) as transport, trio.open_nursery() as nursery:
            keys = AllowedKeys(options.keys_folder, options.allowed if options.keys is not None else None)
            server = Server(store, transport, keys.of)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                nursery.start_soon(server.run, options.seeds)
                nursery.start_soon(keys.watch, transport)
                task_status.started(Started(transport.port, store.certificate(), len(store.rows())))
                async for signum in signals:
                    log.info("stopping", signal=signal.Signals(signum).name)
                    nursery.cancel_scope.cancel()
                    break
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
    log.info("stopped")

"""How a node comes among the others: it listens, learns from the central what is fixed in its cluster, and takes it up.

The log is opened after that, as a new one begins with the cluster's birth.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from edge_config.cluster import Plain
from edge_config.keys import KeyFault, read_allowed, read_pair
from node.allowed_keys import AllowedKeys
from node.faults import NodeFault
from node.logs import events
from node.version import VERSION
from router.channels import Channel
from router.hello import FEATURES
from router.log_member import adopt, check_alone, known_certificate
from router.membership import MembershipOptions
from router.membership_wire import Identity
from router.mesh import MeshOptions
from router.register import RegisterClient, RegisterOptions
from router.transport import TransportOptions, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge_config.schema import Config
    from router.mesh import MeshRouter
    from router.register_wire import Certificate
    from router.transport import Transport

BOOT_BYTES: Final = 12
TELL_SECONDS: Final = 10.0  # between two words that the central is still waited for
PATIENCE_SECONDS: Final = 3.0  # for the central, when its certificate is known from an earlier life

log = events(__name__)


@dataclass(slots=True, frozen=True)
class Met:
    """A node that has come among the others.

    Attributes:
        transport: The way to them; listening.
        certificate: What is fixed in the cluster.
        keys: Who may connect.
        boot: Of this process.
        address: Where others reach it.
    """

    transport: Transport
    certificate: Certificate
    keys: AllowedKeys
    boot: str
    address: str

    def options(self, config: Config, node: str, disk: str) -> MeshOptions:
        """How this node is one of several."""
        cluster = config.cluster
        central = cluster.register
        if central is None:
            raise NodeFault("cluster.central is not given")
        me = Identity(node, self.boot, disk, config.node.region, cluster.host, self.address, VERSION, FEATURES)
        seeds = [(peer.node, f"tcp://{peer.address}") for peer in cluster.seeds]
        return MeshOptions(me, seeds, central.node, self.keys.of, MembershipOptions.of(cluster))

    async def watch_keys(self, router: MeshRouter) -> None:
        """Take up keys that are added or taken away while the node runs."""
        await self.keys.watch(self.transport, router.allow)


@asynccontextmanager
async def met(config: Config, node: str) -> AsyncIterator[Met | None]:
    """Listen for others, and learn what is fixed in the cluster; None if the node is of none.

    Raises:
        NodeFault, RouterError: It can't.
    """
    cluster = config.cluster
    if cluster.address is None or cluster.register is None:
        await trio.to_thread.run_sync(check_alone, config.node.data_dir)
        yield None
        return
    folder = cluster.keys_in(config.node.data_dir)
    try:
        pair, allowed = (read_pair(folder), read_allowed(folder)) if cluster.plain is Plain.NEVER else (None, None)
    except KeyFault as fault:
        raise NodeFault(str(fault)) from fault
    keys = AllowedKeys(folder, allowed)
    options = TransportOptions(
        node=node, boot=secrets.token_hex(BOOT_BYTES), host=cluster.address.host, port=cluster.address.port,
        publish_port=cluster.publish_at(cluster.address.port), keys=pair, allowed=allowed or {},
        plain=cluster.plain is Plain.ANYWHERE,
    )  # fmt: skip
    async with open_transport(options) as transport:
        host = cluster.reached_at
        address = f"tcp://{f'[{host}]' if ':' in host else host}:{transport.port}"
        central = cluster.register
        key = keys.of(central.node)
        if key is None:
            raise NodeFault(
                f"The key of {central.node}, the central, is not known here. On its machine: chat-node keys show."
                f" Here: chat-node keys allow {central.node} PUBLIC_KEY."
            )
        transport.connect(central.node, f"tcp://{central.address}", key)
        known = await trio.to_thread.run_sync(known_certificate, config.node.data_dir)
        patience = math.inf if known is None else PATIENCE_SECONDS
        certificate = known
        with trio.move_on_after(patience):
            certificate = await _certificate(transport, central.node, options.boot, address)
        if certificate is None:
            raise AssertionError("unreachable: without a certificate the central is waited for")
        await trio.to_thread.run_sync(adopt, config.node.data_dir, certificate)
        yield Met(transport, certificate, keys, options.boot, address)


async def _certificate(transport: Transport, central: str, boot: str, address: str) -> Certificate:
    """Ask the central until it answers."""
    register = RegisterClient(boot, address, "", random.random, RegisterOptions(), _now())
    tell_at = trio.current_time() + TELL_SECONDS
    while True:
        effects = register.tick(_now())
        for body in effects.sends:
            transport.send(central, Channel.REGISTER, body)
        if effects.certificate is not None:
            return effects.certificate
        if trio.current_time() >= tell_at:
            tell_at += TELL_SECONDS
            log.warning("the central does not answer", central=central, mend="start it: chat-node central")
        with trio.move_on_after(0.1):
            await transport.wait()
        for received in transport.receive():
            if received.node == central and received.channel is Channel.REGISTER:
                register.receive(received.body, _now())


def _now() -> int:
    return time.monotonic_ns() // 1_000_000

"""The cluster: where this node meets the others, who they are, and when one that says nothing counts as gone."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from socket import gethostname
from typing import Final

from edge_config.address import HIGHEST_PORT, Address, Peer, is_host, is_loopback, is_wildcard, read_address, read_peer
from edge_config.faults import Fault, shown
from edge_config.setting import Bounds, derived, section, setting, settings_of

KEYS_FOLDER: Final = "keys"  # in the data directory
MISSED_HEARTBEATS: Final = 3  # fewer, and a heartbeat that is late once makes a node suspect
ALONE: Final = ("peers", "central", "advertise", "publish_port", "plain", "keys")  # mean nothing without `listen`


class Plain(StrEnum):
    """Where nodes may speak without encryption, and so without knowing who speaks: nowhere, on loopback, anywhere."""

    NEVER = "never"
    LOOPBACK = "loopback"
    ANYWHERE = "anywhere"


@section
class Cluster:
    """The cluster that the node is part of; without `listen` it is part of none, and needs none of these keys."""

    listen: str = setting(
        "",
        "HOST:PORT where other nodes reach this one, such as `10.0.0.1:7400`; port 0: any free one, which others learn"
        " from the peers. Empty: no cluster, one node by itself.",
    )
    publish_port: int = setting(
        0, "Port of its publications, on the same host; 0: the one after `listen`'s; where that is 0, any free one.",
        Bounds(0, HIGHEST_PORT),
    )  # fmt: skip
    advertise: str = setting(
        "",
        "The host's name or address, without a port, under which other nodes reach this one; empty: that of `listen`."
        " Needed where `listen` is `0.0.0.0` or `[::]`.",
    )
    peers: tuple[str, ...] = setting(
        (),
        "Nodes to begin with, each as `NAME=HOST:PORT`; from them it learns of the others. This node itself may be"
        " among them, so that all nodes can have the same list.",
    )
    central: str = setting(
        "",
        "`NAME=HOST:PORT` of `chat-node central`, which keeps the register: who is primary of what. It belongs on a"
        " machine of its own.",
    )
    keys: Path | None = setting(
        None,
        "Directory of this node's key pair and of the public keys of the nodes that may join; empty: `keys` in"
        " `node.data_dir`.",
    )
    plain: Plain = setting(
        Plain.NEVER,
        "Without keys whoever reaches the port is believed to be the node that it says it is. `never`; `loopback`: do"
        " without them, all nodes are on this machine; `anywhere`: do without them, the network is trusted.",
    )
    host: str = derived(
        gethostname,
        "What fails together: copies of a room are put on different hosts. Empty: this machine's name. Give the name of"
        " the virtual machine's host, rack or zone where that is what fails.",
    )
    heartbeat_ms: int = setting(250, "From one sign of life to the next.", Bounds(10, 60_000))
    suspect_ms: int = setting(
        1500,
        "A node that gave no sign of life for so long is suspect: others take its place where it was primary. This node"
        " waits up to 8 times as long while it is slow itself.",
        Bounds(50, 600_000),
    )
    down_ms: int = setting(
        10_000, "A node that gave no sign of life for so long is down, and copies are made elsewhere.", Bounds(100)
    )
    forget_hours: float = setting(
        24.0,
        "A node that is down or has left for so long is forgotten, unless it is among `peers`.",
        Bounds(0.01, 8760),
    )
    nodes: int = setting(
        256, "Nodes that it knows of at most; every node is connected with every other.", Bounds(2, 1024)
    )

    @property
    def address(self) -> Address | None:
        """Where it listens; None: it is of no cluster."""
        return read_address(self.listen) if self.listen else None

    @property
    def seeds(self) -> tuple[Peer, ...]:
        """What `peers` names."""
        return tuple(peer for text in self.peers if (peer := read_peer(text)) is not None)

    @property
    def register(self) -> Peer | None:
        """The central; None: it is of no cluster."""
        return read_peer(self.central) if self.central else None

    @property
    def reached_at(self) -> str:
        """The host that others connect to; empty: it is of no cluster."""
        return self.advertise or (self.address.host if self.address else "")

    def publish_at(self, inbox: int) -> int:
        """The port of the publications, given the one that the inbox has; 0: any free one."""
        if self.publish_port or self.address is None or not self.address.port:
            return self.publish_port
        return inbox + 1

    def keys_in(self, data_dir: Path) -> Path:
        """The directory of the keys."""
        return self.keys or data_dir / KEYS_FOLDER

    def rules(self) -> Iterator[Fault]:
        """Yield what does not fit together."""
        yield from self._times()
        yield from self._forms()
        if not self.listen:
            for item in settings_of(Cluster):
                if item.name in ALONE and (value := getattr(self, item.name)) != item.default():
                    shows = shown(value.value if isinstance(value, Plain) else value)
                    problem = "the node is of no cluster, as it does not listen for other nodes"
                    mend = "Give cluster.listen too, or leave this out"
                    yield Fault(item.name, shows, problem, mend, also=("listen",))
        elif (address := self.address) is not None:
            yield from self._meeting(address)

    def _times(self) -> Iterator[Fault]:
        least = MISSED_HEARTBEATS * self.heartbeat_ms
        if self.suspect_ms < least:
            problem = f"a heartbeat that is late once would make a node suspect (heartbeat_ms = {self.heartbeat_ms})"
            mend = f"Give at least {least}, or lower heartbeat_ms"
            yield Fault("suspect_ms", str(self.suspect_ms), problem, mend, also=("heartbeat_ms",))
        if self.down_ms < self.suspect_ms:
            problem = f"a node would be down before it is suspect (suspect_ms = {self.suspect_ms})"
            mend = f"Give at least {self.suspect_ms}, or lower suspect_ms"
            yield Fault("down_ms", str(self.down_ms), problem, mend, also=("suspect_ms",))

    def _forms(self) -> Iterator[Fault]:
        """What is not of its form."""
        if self.listen and self.address is None:
            mend = "Give HOST:PORT, such as 10.0.0.1:7400 or [fd00::1]:7400"
            yield Fault("listen", shown(self.listen), "not an address with a port", mend)
        if self.advertise and (not is_host(self.advertise) or is_wildcard(self.advertise)):
            mend = "Give the name or address that other nodes connect to, without a port"
            yield Fault("advertise", shown(self.advertise), "not the name or address of one host", mend)
        for key, texts in (("peers", self.peers), ("central", (self.central,) if self.central else ())):
            for text in texts:
                if read_peer(text) is None:
                    mend = "Give NAME=HOST:PORT, such as eu-1=10.0.0.1:7400"
                    yield Fault(key, shown(text), "not a node's name and where it is reached", mend)

    def _meeting(self, address: Address) -> Iterator[Fault]:
        """What a node that listens lacks."""
        if not is_host(self.host):  # a machine may have any name, and a node by itself needs none
            yield Fault(
                "host", shown(self.host), "not a name of letters, digits, _ . and -", "Give one in cluster.host"
            )
        if not self.central:
            problem = "nobody would keep the register of the cluster"
            yield Fault("listen", shown(self.listen), problem, "Give cluster.central too", also=("central",))
        if is_wildcard(address.host) and not self.advertise:
            problem = "nobody can connect to that address, which is all of this machine"
            yield Fault("listen", shown(self.listen), problem, "Give cluster.advertise too", also=("advertise",))
        if address.port and self.publish_port == address.port:
            problem, mend = "the port of listen has this number already", "Give another, or 0 for the next one"
            yield Fault("publish_port", str(self.publish_port), problem, mend, also=("listen",))
        if address.port == HIGHEST_PORT and not self.publish_port:
            problem, mend = "there is no port after it for the publications", "Give publish_port, or another port"
            yield Fault("listen", shown(self.listen), problem, mend, also=("publish_port",))
        yield from self._names()
        if self.plain is Plain.LOOPBACK:
            yield from self._beyond_loopback(address)

    def _names(self) -> Iterator[Fault]:
        named: dict[str, Address] = {}
        for node, where in self.seeds:
            if named.setdefault(node, where) != where:
                problem = f"{node} is at {named[node]} too"
                yield Fault("peers", shown(f"{node}={where}"), problem, "Keep one, or give nodes names of their own")
        register = self.register
        if register is not None and register.node in named:
            problem, mend = "the central is no peer, and has a name of its own", "Take it out of peers, or rename one"
            yield Fault("central", shown(self.central), problem, mend, also=("peers",))

    def _beyond_loopback(self, address: Address) -> Iterator[Fault]:
        register = self.register
        hosts = [("listen", address.host), ("advertise", self.advertise or address.host)]
        hosts += [("peers", peer.address.host) for peer in self.seeds]
        hosts += [("central", register.address.host)] if register is not None else []
        for key, host in hosts:
            if not is_loopback(host):
                problem = f"strangers could speak for nodes: without keys only loopback is safe, and {host} is not"
                mend = "Make keys (chat-node keys new) and give plain = never; anywhere is for networks that you trust"
                yield Fault("plain", shown(self.plain.value), problem, mend, also=(key,))
                return

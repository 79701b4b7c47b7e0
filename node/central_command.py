"""``chat-node central``: the register of a cluster, a process of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from edge_config.address import Address, is_wildcard, read_address
from edge_config.cluster import Plain
from edge_config.keys import KeyFault, KeyPair, read_allowed, read_pair
from edge_config.schema import Config
from node.terminal import MISUSED, ConfigFile, expected_faults, failure, output, read_config
from node.version import VERSION

if TYPE_CHECKING:
    from node.central.process import CentralOptions, Started

DEFAULT_NAME: Final = "central"
LOOPBACK: Final = "127.0.0.1"


def central(
    data_dir: Annotated[Path, typer.Option(help="Where the register is: made by `chat-node cluster init`.")],
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT where nodes reach it. Without it: that of cluster.central.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name among the nodes. Without it: that of cluster.central, or central.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the register of a cluster until it is told to stop: which node is primary of what.

    While it does not run, nodes go on with what they have; what failed meanwhile waits for it. One process per cluster,
    on a machine whose failure takes no node with it. Of the configuration it uses cluster.central, cluster.keys,
    cluster.plain, cluster.peers and [logging].
    """
    settings, own = _settings(config, data_dir, listen, name)
    keys, allowed = _keys(settings, data_dir)
    with expected_faults():
        _launch(settings, data_dir, own, keys, allowed)


def _settings(config: Path | None, data_dir: Path, listen: str | None, name: str | None) -> tuple[Config, str]:
    """The configuration, where the cluster listens as this process does, and this process's name."""
    flags: dict[str, object] = {"node.data_dir": str(data_dir)}
    if listen is None:
        register = read_config(config, flags).cluster.register
        if register is None:
            raise failure("It is not said where to listen. Give --listen HOST:PORT, or set cluster.central.", MISUSED)
        name, listen = name or register.node, str(register.address)
    own = name or DEFAULT_NAME
    flags["cluster.listen"] = listen
    if (address := read_address(listen)) is not None:
        reached = LOOPBACK if is_wildcard(address.host) else address.host
        flags["cluster.central"] = f"{own}={Address(reached, address.port or 1)}"  # as a node would have it
        flags["cluster.advertise"] = reached
    return read_config(config, flags), own


def _keys(settings: Config, data_dir: Path) -> tuple[KeyPair | None, Mapping[str, bytes]]:
    if settings.cluster.plain is not Plain.NEVER:
        return None, {}
    folder = settings.cluster.keys_in(data_dir)
    try:
        return read_pair(folder), read_allowed(folder)
    except KeyFault as fault:
        raise failure(str(fault)) from None


def _launch(settings: Config, data_dir: Path, name: str, keys: KeyPair | None, allowed: Mapping[str, bytes]) -> None:
    import trio  # noqa: PLC0415 (the other commands need not load it)

    from node import logs  # noqa: PLC0415
    from node.central.process import CentralOptions, Started, run  # noqa: PLC0415

    cluster = settings.cluster
    address = cluster.address
    if address is None:
        raise TypeError("cluster.listen was given, and is not there")
    options = CentralOptions(
        name=name, data_dir=data_dir, address=address, publish_port=cluster.publish_port if address.port else 0,
        keys=keys, keys_folder=cluster.keys_in(data_dir), allowed=allowed, plain=cluster.plain is Plain.ANYWHERE,
        seeds={seed.node: f"tcp://{seed.address}" for seed in cluster.seeds},
    )  # fmt: skip

    async def supervise() -> None:
        async with trio.open_nursery() as nursery:
            started: Started = await nursery.start(run, options)
            output().print(summary(options, started))

    logs.configure(settings.logging)
    trio.run(supervise)


def summary(options: "CentralOptions", started: "Started") -> Text:
    """What an operator wants to know of a register that has just started."""
    certificate = started.certificate
    where = Address(options.address.host, started.port)
    lines = [
        ("nodes", f"cluster.central = {options.name}={where}"),
        ("data", str(options.data_dir)),
        ("cluster", f"{certificate.birth}, {certificate.shards} shards, of which {started.rows} are in use"),
        ("copies", f"{certificate.copies}, acknowledged when {certificate.min_sync} have it"),
    ]
    if options.keys is None:
        lines.append(("note", "without keys, whoever reaches the port is believed to be the node that it says it is"))
    title = (f"chat-node {VERSION}: central register {options.name}\n", "bold")
    parts = (part for label, value in lines for part in ((f"{label:9}", "bold"), f"{value}\n"))
    return Text.assemble(title, *parts, end="")

"""``chat-node cluster``: how the nodes are."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

import trio
import typer
from rich.live import Live

from edge_config.schema import Config
from node import endpoints
from node.status import ClusterStatus
from node.status_client import Target, ask_cluster
from node.status_table import as_json, rendered
from node.terminal import MISUSED, ConfigFile, DataDir, failure, output, read_config

WATCH_SECONDS: Final = 2.0

app = typer.Typer(help="How the nodes are, and the founding of a cluster.", no_args_is_help=True)


@app.callback()
def cluster() -> None:
    """How the nodes are, and the founding of a cluster."""


@app.command()
def status(  # noqa: PLR0913 (one parameter per flag)
    config: ConfigFile = None,
    data_dir: DataDir = None,
    internal: Annotated[
        list[str] | None,
        typer.Option(
            help="A node's internal port: a number, host:port or URL; may be given several times."
            " Without it: the node of the configured data directory."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to wait for an answer.")] = 2.0,
    *,
    structured: Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> None:
    """Show whether all is well: the verdict, what is wrong, and the figures of each node.

    Exits with 0 if all is well (OK), 1 if somebody should look at it (WARN), 2 if it fails its users or a node does not
    answer (CRIT).
    """
    configuration = read_config(config, {"node.data_dir": None if data_dir is None else str(data_dir)})
    targets = _targets(configuration, internal or [])

    def ask() -> ClusterStatus:
        return trio.run(ask_cluster, targets, timeout)

    found = ask()
    show = _show_json if structured else _show_table
    if not watch:
        show(found)
    elif structured or not sys.stdout.isatty():
        found = _watch(found, ask, show)
    else:
        console = output()
        with Live(console=console, auto_refresh=False) as live:
            found = _watch(found, ask, lambda now: live.update(rendered(now, console.width), refresh=True))
    raise typer.Exit(found.verdict)


def _watch(
    found: ClusterStatus, ask: Callable[[], ClusterStatus], show: Callable[[ClusterStatus], None]
) -> ClusterStatus:
    """Show what is found until Ctrl-C; gives the last."""
    try:
        while True:
            show(found)
            time.sleep(WATCH_SECONDS)
            found = ask()
    except* KeyboardInterrupt:
        pass
    return found


def _show_table(found: ClusterStatus) -> None:
    console = output()
    console.print(rendered(found, console.width))


def _show_json(found: ClusterStatus) -> None:
    typer.echo(as_json(found))


def _targets(config: Config, given: Sequence[str]) -> list[Target]:
    """The nodes to ask: those given, or the one of the data directory, or the one of the configuration."""
    token = config.listen.internal_token
    if given:
        return [Target(_url(address), token) for address in given]
    if known := endpoints.read(config.node.data_dir):
        return [Target(known.internal, token)]
    if port := config.listen.internal_port:
        return [Target(endpoints.url("http", config.listen.internal_host, port), token)]
    raise failure(
        f"No node has run with the data directory {config.node.data_dir}, and no internal port is configured."
        " Start one by `chat-node run`, or give --internal or --data-dir.",
        MISUSED,
    )


def _url(address: str) -> str:
    """A URL from a port, host:port or URL."""
    if address.isdecimal():
        address = f"127.0.0.1:{address}"
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise failure(f"--internal {address!r} is no address. Give a port, host:port, or http://host:port.", MISUSED)
    return url

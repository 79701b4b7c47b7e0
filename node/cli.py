"""The command ``chat-node``: starting a node, and the groups of commands around it."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edge_config.notices import notices
from edge_config.schema import Config
from node import (
    central_command,
    client_command,
    cluster_command,
    config_command,
    descriptors,
    keys_command,
    log_command,
    register_command,
    site_command,
    site_webhook_command,
    token_command,
    webhook_command,
)
from node.endpoints import Endpoints
from node.terminal import INTERRUPTED, ConfigFile, expected_faults, output, read_config
from node.version import VERSION

app = typer.Typer(
    name="chat-node",
    help="Real-time chat for web sites and apps, on your own servers.\n\n"
    "Try it: [bold]chat-node run --region local --dev[/bold], then open the address that it prints, in two windows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(cluster_command.app, name="cluster")
app.add_typer(config_command.app, name="config")
app.add_typer(keys_command.app, name="keys")
app.add_typer(log_command.app, name="log")
app.add_typer(register_command.app, name="register")
app.add_typer(site_command.app, name="site")
app.add_typer(token_command.app, name="token")
app.add_typer(webhook_command.app, name="webhook")

cluster_command.app.command()(register_command.init)
site_command.app.command()(site_webhook_command.add_webhook)
site_command.app.command()(site_webhook_command.rotate_webhook_secret)
site_command.app.command()(site_webhook_command.remove_webhook)
app.command()(central_command.central)
app.command()(client_command.chat)
app.command()(client_command.send)
app.command()(client_command.tail)


@app.command()
def run(  # noqa: PLR0913, PLR0917 (one parameter per flag)
    region: Annotated[
        str | None, typer.Option(help="The region that this node serves: a name of your choice, such as eu.")
    ] = None,
    config: ConfigFile = None,
    host: Annotated[
        str | None, typer.Option(help="Address of the public port. 0.0.0.0: reachable from other machines.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The public port, for clients and the page. 0: any free one.")
    ] = None,
    internal_port: Annotated[
        int | None, typer.Option(help="The port for metrics and operators. 0: any free one.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where messages are kept. Each node needs a directory of its own.")
    ] = None,
    *,
    dev: Annotated[
        bool, typer.Option("--dev", help="Try it out: everybody may chat without a token, and nothing is rate-limited.")
    ] = False,
) -> None:
    """Run a node until it is told to stop.

    Ctrl-C or SIGTERM lets its clients go elsewhere first; the same again stops it at once.
    """
    flags = {
        "node.region": region,
        "node.data_dir": None if data_dir is None else str(data_dir),
        "node.dev": dev or None,
        "listen.host": host,
        "listen.port": port,
        "listen.internal_port": internal_port,
    }
    configuration = read_config(config, flags)
    with expected_faults():
        launch(configuration)


def launch(config: Config) -> None:
    """Run a node in this process; returns when it has drained.

    Raises:
        NodeFault, RouterError: In an exception group: it can't start or go on.
    """
    import trio  # noqa: PLC0415 (the other commands need not load a whole node)

    from node import logs  # noqa: PLC0415
    from node.app import run as run_node  # noqa: PLC0415

    async def supervise() -> None:
        async with trio.open_nursery() as nursery:
            endpoints: Endpoints = await nursery.start(run_node, config)
            output().print(summary(config, endpoints))

    logs.configure(config.logging)
    interrupted = False
    try:
        trio.run(supervise)
    except* KeyboardInterrupt:
        interrupted = True  # to raise here would make a group of it, in some releases of Python 3.11
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def summary(config: Config, endpoints: Endpoints) -> Text:
    """What an operator wants to know of a node that has just started."""
    clients = endpoints.public.replace("http", "ws", 1)
    lines = [
        ("chat", f"{endpoints.public}/"),
        ("clients", f"{clients}/connection/websocket"),
        ("metrics", f"{endpoints.internal}/metrics"),
        ("status", f"chat-node cluster status --internal {endpoints.internal}"),
        ("data", str(config.node.data_dir)),
        *(("note", notice) for notice in notices(config)),
        *(("note", notice) for notice in descriptors.notices(config.limits.connections, descriptors.limit())),
    ]
    title = (f"chat-node {VERSION}: node {endpoints.node} in region {config.node.region}\n", "bold")
    parts = (part for label, value in lines for part in ((f"{label:9}", "bold"), f"{value}\n"))
    return Text.assemble(title, *parts, end="")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(VERSION)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(app())

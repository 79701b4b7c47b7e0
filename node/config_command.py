"""``chat-node config``: checking, showing and beginning a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from edge_config.notices import notices
from edge_config.render import render_init, render_show
from node.terminal import ConfigFile, failure, read_config, remark

app = typer.Typer(help="The configuration: file, environment and flags together.", no_args_is_help=True)


@app.command()
def check(config: ConfigFile = None) -> None:
    """Say all that is wrong with the configuration, and what is off or risky in it.

    Exits with 0 if a node can run with it, else with 2.
    """
    for notice in notices(read_config(config)):
        typer.echo(notice)
    remark("The configuration can be used.")


@app.command()
def show(config: ConfigFile = None) -> None:
    """Print the values in force, each with where it came from; secrets are masked."""
    typer.echo(render_show(read_config(config)), nl=False)


@app.command()
def init(
    file: Annotated[Path | None, typer.Argument(help="The file to write; without it, to standard output.")] = None,
) -> None:
    """Write a file with every key, its meaning and its default, to begin with."""
    if file is None:
        typer.echo(render_init(), nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(render_init())
    except FileExistsError:
        raise failure(f"{file} exists, and is left as it is. Give another name, or remove it first.") from None
    except OSError as error:
        raise failure(f"{file} can't be written: {error.strerror}.") from None
    remark(f"Written to {file}. Give it to a node by `chat-node run --config {file}`.")

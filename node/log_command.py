"""``chat-node log``: looking into a node's log, while it runs or not."""

import typer

app = typer.Typer(help="The log: all messages of a node, on its disk.", no_args_is_help=True)


@app.callback()
def log() -> None:
    """The log: all messages of a node, on its disk."""

"""``chat-node keys``: the key of this node, and those of the nodes that it lets in."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge_config.keys import (
    ALLOWED_FILE,
    SECRET_FILE,
    KeyFault,
    decode_key,
    new_pair,
    read_allowed,
    read_pair,
    written_allowed,
    written_pair,
)
from edge_config.setting import NAME
from node import whole_file
from node.terminal import MISUSED, ConfigFile, DataDir, failure, read_config, remark

app = typer.Typer(
    help="Keys of nodes: each has a pair, and a list of the nodes that it lets in. A running node takes changes of the"
    " list up within seconds; a new key of its own when it starts.",
    no_args_is_help=True,
)

Structured = Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")]


@app.command()
def new(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even if there is a key: other nodes must then be given the new one.")
    ] = False,
) -> None:
    """Make this node's key, and print the public one: every other node has to allow it."""
    folder = _folder(config, data_dir)
    path = folder / SECRET_FILE
    if path.exists() and not replace:
        raise failure(f"There is a key at {path} already. See it with chat-node keys show, or give --replace.")
    pair = new_pair()
    _write(path, written_pair(pair))
    typer.echo(pair.public.decode())
    remark(f"The secret is in {path}. On every other node: chat-node keys allow NAME '{pair.public.decode()}'")


@app.command()
def show(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Print this node's public key, and the nodes that it lets in."""
    folder = _folder(config, data_dir)
    try:
        public, allowed = read_pair(folder).public.decode(), read_allowed(folder)
    except KeyFault as fault:
        raise failure(str(fault)) from None
    keys = {node: key.decode() for node, key in sorted(allowed.items())}
    if structured:
        typer.echo(msgspec.json.encode({"public": public, "allowed": keys}))
        return
    typer.echo(public)
    for node, key in keys.items():
        typer.echo(f"  {node:16} {key}")


@app.command()
def allow(
    name: Annotated[str, typer.Argument(help="The node's name (node.name).")],
    key: Annotated[
        str, typer.Argument(help="Its public key, as chat-node keys show prints it there, in single quotes.")
    ] = "",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Let it in no longer.")] = False,
) -> None:
    """Let a node in that has this key, or let it in no longer."""
    if not NAME.accepts(name):
        raise failure(f"{name!r} is no node's name. Give {NAME.described}.", MISUSED)
    if remove == bool(key):
        raise failure("Give the node's public key, or --remove, and not both.", MISUSED)
    folder = _folder(config, data_dir)
    try:
        allowed = read_allowed(folder)
    except KeyFault as fault:
        raise failure(str(fault)) from None
    if remove:
        if allowed.pop(name, None) is None:
            raise failure(f"{name} is not let in. See who is: chat-node keys show.")
    else:
        _check(allowed, name, key)
        allowed[name] = key.encode()
    _write(folder / ALLOWED_FILE, written_allowed(allowed))


def _check(allowed: dict[str, bytes], name: str, key: str) -> None:
    """See that a key is one, and no other node's."""
    try:
        decode_key(key)
    except ValueError as error:
        raise failure(f"The key for {name} is {error}.", MISUSED) from None
    other = next((node for node, known in allowed.items() if known == key.encode() and node != name), None)
    if other is not None:
        raise failure(f"{other} has this key. Make one for each node: chat-node keys new.", MISUSED)


def _folder(config: Path | None, data_dir: Path | None) -> Path:
    """The directory of the keys that a command is about."""
    settings = read_config(config, {"node.data_dir": None if data_dir is None else str(data_dir)})
    return settings.cluster.keys_in(settings.node.data_dir)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole_file.replace(path, content)
    except OSError as error:
        raise failure(f"{path} can't be written: {error.strerror}. Make the directory writable.") from None

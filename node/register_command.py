"""``chat-node cluster init`` and ``chat-node register``: making the central register, and looking after it."""

import re
import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from node.central import birth, store
from node.central.birth import Born
from node.central.store import Store
from node.terminal import MISUSED, expected_faults, failure, output, remark
from router.log_member import MemberLog, read_member
from router.register_wire import KEY_BYTES, MAPPING, MOST_MEMBERS, Certificate

app = typer.Typer(
    help="The central register of a cluster: which node is primary of what, and how many copies there are.",
    no_args_is_help=True,
)

NODE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

RegisterDir = Annotated[Path, typer.Option("--data-dir", help="The data directory of `chat-node central`.")]
Copies = Annotated[
    int, typer.Option(min=1, max=MOST_MEMBERS, help="Nodes that are to have each room's messages on disk.")
]
MinSync = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_MEMBERS, help="Nodes that must have a message on disk before it is acknowledged: so many disks"
        " less one may be lost."
    ),
]  # fmt: skip


def init(  # one parameter per flag
    data_dir: RegisterDir,
    copies: Copies = 3,
    min_sync: MinSync = 2,
    shards: Annotated[
        int | None, typer.Option(min=1, max=1 << 16, help="Parts that rooms are spread over, for ever; else 128.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="The data directory of a node that was alone until now and does not run: it becomes the"
            " cluster's first, with all its rooms."
        ),
    ] = None,
) -> None:  # fmt: skip
    """Found a cluster: make the register that `chat-node central` serves, once."""
    _check(copies, min_sync)
    if source is not None and shards is not None:
        raise failure("--shards and --from: the node's log says how many shards there are. Give one of them.", MISUSED)
    with expected_faults():
        if source is not None:
            born = birth.out_of_one(read_member(source), copies, min_sync)
        else:
            keys = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
            born = Born(Certificate(secrets.token_hex(4), shards or 128, MAPPING, copies, min_sync, 1, *keys), [])
        _make(data_dir, born)
    remark("Start `chat-node central` with it, then the nodes, each with cluster.central set.")


@app.command()
def show(
    data_dir: RegisterDir,
    *,
    structured: Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")] = False,
) -> None:
    """Show the register, whether it runs or not: copies, and each shard's primary and members."""
    with expected_faults():
        certificate, rows = store.look(data_dir)
    if structured:
        for row in rows:
            shown = {
                "shard": row.shard, "version": row.version, "epoch": row.epoch, "primary": row.primary,
                "members": row.members,
            }  # fmt: skip
            typer.echo(msgspec.json.encode(shown))
        return
    console = output()
    console.print(_summary(certificate, len(rows)))
    for row in rows:
        primary = row.primary[0] if row.primary else ""
        others = ", ".join(node for node, disk in row.members if (node, disk) != row.primary)
        console.print(f"shard {row.shard:<5} epoch {row.epoch:<6} primary {primary}, others {others or 'none'}")


@app.command()
def settings(data_dir: RegisterDir, copies: Copies, min_sync: MinSync) -> None:
    """Change how many copies there are to be, while `chat-node central` does not run: nodes go on without it.

    Nodes take the new numbers up when they start again.
    """
    _check(copies, min_sync)
    with expected_faults():
        register = Store.open(data_dir)
        try:
            with register.transaction():
                certificate = register.change_settings(copies, min_sync)
        finally:
            register.close()
    remark(_summary(certificate, None))


@app.command()
def rebuild(
    data_dir: RegisterDir,
    source: Annotated[
        list[str],
        typer.Option(
            "--from", help="The data directory of a node that does not run, or NAME=DIRECTORY where the node's name is"
            " configured. Give all that are left."
        ),
    ],
    copies: Copies = 3,
    min_sync: MinSync = 2,
) -> None:  # fmt: skip
    """Make a register in place of one that is lost, out of the logs of all nodes.

    Give the nodes' data directories, while no node runs. Of each shard at least one log must be of a node that was a
    member in the end: what was acknowledged is in all of those.
    """
    _check(copies, min_sync)
    with expected_faults():
        logs: dict[str, MemberLog] = {}
        for text in source:
            name, log = _named(text)
            if name in logs:
                raise failure(f"--from: two directories are of the node {name!r}. Give NAME=DIRECTORY.", MISUSED)
            logs[name] = log
        _make(data_dir, birth.out_of_all(logs, copies, min_sync))
    remark("Start `chat-node central` with it, then all nodes.")


def _make(data_dir: Path, born: Born) -> None:
    path = store.create(data_dir, born.certificate, born.rows)
    remark(f"{path}: {_summary(born.certificate, len(born.rows))}")


def _check(copies: int, min_sync: int) -> None:
    if min_sync > copies:
        raise failure(
            f"--min-sync {min_sync}: there are only {copies} copies. Give at most --copies, or more copies.", MISUSED
        )


def _named(text: str) -> tuple[str, MemberLog]:
    """A node's name and log."""
    name, equals, folder = text.partition("=")
    if not equals or not NODE_NAME.fullmatch(name):
        name, folder = "", text
    log = read_member(Path(folder))
    name = name or _name_in(log)
    if not name:
        raise failure(f"--from {text!r}: nothing there says the node's name. Give NAME=DIRECTORY.", MISUSED)
    return name, log


def _name_in(log: MemberLog) -> str:
    """The name that a node gave itself, or that rows of its log give it; empty: none."""
    try:
        return (log.folder / "node-name").read_text().strip()
    except FileNotFoundError:
        members = [member for row in (*log.learned.values(), *log.rows.values()) for member in row.members]
        return next((node for node, disk in members if disk == log.meta.disk_id), "")


def _summary(certificate: Certificate, rows: int | None) -> str:
    used = "" if rows is None else f" of which {rows} are in use,"
    return (
        f"cluster {certificate.birth}, {certificate.shards} shards,{used} {certificate.copies} copies, acknowledged"
        f" when {certificate.min_sync} have it"
    )

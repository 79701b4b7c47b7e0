"""``chat-node log``: looking into a node's log, while it runs or not."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from node.status_table import counted, size
from node.terminal import ConfigFile, DataDir, expected_faults, failure, read_config
from router import log_audit

app = typer.Typer(help="The log: all messages of a node, on its disk.", no_args_is_help=True)

Structured = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@app.command()
def verify(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Read every message of the log and compare it with its hashes and chains.

    Exits with 0 if all is as it was written, with 1 if not.
    """
    node = read_config(config, {"node.data_dir": data_dir and str(data_dir)}).node
    with expected_faults():
        report = log_audit.verify(node.data_dir)
    if structured:
        typer.echo(msgspec.json.encode(report))
    else:
        typer.echo(
            f"{counted(report.entries, 'filed entry')} in {counted(report.rooms, 'room')}"
            f" and {counted(report.shards, 'shard')}, {report.unfiled} in the journal,"
            f" {report.forgotten} forgotten by retention"
        )
    if report.faults:
        listed = "\n".join(f"  {fault}" for fault in report.faults)
        mend = "Restore the data directory from a backup."
        raise failure(f"{counted(len(report.faults), 'fault')} in the log of {node.data_dir}:\n{listed}\n{mend}")
    if not structured:
        typer.echo("All is as it was written.")


@app.command()
def stat(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Show how much the log holds, and which rooms are the largest."""
    node = read_config(config, {"node.data_dir": data_dir and str(data_dir)}).node
    with expected_faults():
        found = log_audit.stat(node.data_dir)
    if structured:
        typer.echo(msgspec.json.encode(found))
        return
    for label, value in (
        ("data", str(node.data_dir)),
        ("size", f"{size(found.bytes)}, and {size(found.wal_bytes)} not yet in place"),
        ("rooms", f"{found.rooms:,}"),
        ("entries", f"{found.entries:,}, and {found.unfiled:,} not yet filed"),
        ("from", _moment(found.oldest_ms)),
        ("to", _moment(found.newest_ms)),
    ):
        typer.echo(f"{label:9}{value}")
    for room in found.largest:
        typer.echo(f"{'room':9}{room.channel} of {room.site}: {counted(room.entries, 'entry')}, {size(room.bytes)}")


@app.command()
def export(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    site: Annotated[str | None, typer.Option(help="Only the rooms of this site.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only this room.")] = None,
) -> None:
    """Print what clients see, a JSON object a line: room by room, in each room's order."""
    node = read_config(config, {"node.data_dir": data_dir and str(data_dir)}).node
    with expected_faults():
        for record in log_audit.export(node.data_dir, site, channel):
            typer.echo(msgspec.json.encode(record))


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="seconds")

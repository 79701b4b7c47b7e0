"""``chat-node log``: looking into a node's log, while it runs or not."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from node.status_table import UNKNOWN, size
from node.terminal import ConfigFile, DataDir, expected_faults, failure, read_config, remark
from router import log_tools

app = typer.Typer(help="The log: all messages of a node, on its disk.", no_args_is_help=True)

Structured = Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")]


@app.command()
def verify(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Read every message of the log, compare it with its checksums and chains, and print what is wrong.

    Exits with 0 if all is as it was written, with 1 if not.
    """
    folder = _folder(config, data_dir)
    with expected_faults():
        report = log_tools.verify(folder)
    if structured:
        typer.echo(msgspec.json.encode(report))
    else:
        for finding in report.findings:
            typer.echo(finding)
    remark(
        f"Read {report.entries} entries ({report.erased} of them erased) of {report.rooms} filed rooms and"
        f" {report.shards} shards, and {report.frames} journal frames."
    )
    if report.findings:
        raise failure(f"Findings: {len(report.findings)}. Restore {folder} from a backup.")
    remark("All is well.")


@app.command()
def stat(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Show how much the log holds."""
    with expected_faults():
        found = log_tools.stat(_folder(config, data_dir))
    if structured:
        typer.echo(msgspec.json.encode(found))
        return
    lines = [
        ("rooms", str(found.rooms)),
        ("entries", str(found.entries)),
        ("oldest", _moment(found.oldest_ts)),
        ("newest", _moment(found.newest_ts)),
        ("database", size(found.bytes)),
        ("write-ahead", size(found.wal_bytes)),
        ("journal frames", str(found.frames)),
        ("quarantine", f"{found.quarantined} entries, {size(found.quarantined_bytes)}"),
    ]
    for shard in found.shards:
        in_journal = shard.lsn - shard.filed_lsn
        lines.append(
            (f"shard {shard.shard}", f"epoch {shard.epoch}, lsn {shard.lsn}, {in_journal} in the journal only")
        )
    for label, value in lines:
        typer.echo(f"{label:16}{value}")


@app.command()
def export(  # noqa: PLR0913 - one for each option
    config: ConfigFile = None,
    data_dir: DataDir = None,
    site: Annotated[str | None, typer.Option(help="Only the rooms of this site.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only the rooms of this name.")] = None,
    *,
    with_removed: Annotated[
        bool, typer.Option("--with-removed", help="With the texts of removed messages that are not erased yet.")
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Instead, what was truncated, as another node wrote in its place.")
    ] = False,
) -> None:
    """Print what clients wrote, a JSON object a line: room by room, in each room's order."""
    with expected_faults():
        folder = _folder(config, data_dir)
        records = (
            log_tools.export_quarantine(folder, site=site, channel=channel)
            if quarantine
            else log_tools.export(folder, site=site, channel=channel, with_removed=with_removed)
        )
        for record in records:
            typer.echo(msgspec.json.encode(record))


def _folder(config: Path | None, data_dir: Path | None) -> Path:
    return read_config(config, {"node.data_dir": None if data_dir is None else str(data_dir)}).node.data_dir


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return UNKNOWN
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")

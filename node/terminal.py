"""What all commands share: reading the configuration, and telling a person what went wrong, without a traceback."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from edge_config.faults import ConfigError
from edge_config.load import load
from edge_config.schema import Config
from node.faults import NodeFault
from router.errors import RouterError

FAILED: Final = 1
MISUSED: Final = 2  # also what Typer exits with when a flag is wrong
INTERRUPTED: Final = 130  # what shells report for a process that Ctrl-C ended
WIDE: Final = 200  # columns when nobody looks: a table in a file is not to be folded

NEVER: Final = "never"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The configuration file (TOML). Without it: $CHAT_NODE_CONFIG, if set; else defaults."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The node's data directory, if it is not the configured one."),
]


def read_config(path: Path | None, flags: Mapping[str, object] | None = None) -> Config:
    """The configuration of file, environment and flags; on a fault, says all faults and exits with 2."""
    try:
        return load(path, os.environ, flags or {})
    except ConfigError as error:
        raise failure(str(error), MISUSED) from None


def failure(message: str, status: int = FAILED) -> typer.Exit:
    """Print a message for a person to standard error; raise what is returned, to exit."""
    typer.echo(message, err=True)
    return typer.Exit(status)


def remark(message: str) -> None:
    """Tell a person something that is not the result."""
    typer.echo(message, err=True)


def output() -> Console:
    """Where results for people are printed."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=True)


def seconds_of(flag: str, text: str) -> int | None:
    """A time such as 90s, 10m, 1h or 30d, in seconds; None: never. Else says what is wrong and exits with 2."""
    if text == NEVER:
        return None
    found = re.fullmatch(r"(\d{1,9})\s*(s|m|min|h|d|)", text)
    if not found:
        raise failure(f"{flag} {text!r} is no time. Give 90s, 10m, 1h, 30d or never.", MISUSED)
    return int(found[1]) * _UNITS[found[2]]


@contextmanager
def expected_faults() -> Iterator[None]:
    """Turn what an operator can mend into one message and status 1; anything else is a bug and keeps its traceback."""
    faults: list[Exception] = []
    try:
        yield
    except* (NodeFault, RouterError) as group:
        faults.extend(leaves(group))
    if faults:
        raise failure("\n".join(dict.fromkeys(str(fault) for fault in faults)))


def leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """The exceptions in a group and in the groups within it."""
    for item in group.exceptions:
        if isinstance(item, BaseExceptionGroup):
            yield from leaves(item)
        else:
            yield item

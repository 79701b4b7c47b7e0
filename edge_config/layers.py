"""Where values are given: a TOML file, the environment, flags. What the values mean is the loader's part."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_config.faults import ConfigError, Fault
from edge_config.toml import line_numbers, toml_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX: Final = "CHAT_NODE_"
LEVEL: Final = "__"
FILE_VARIABLE: Final = "CHAT_NODE_CONFIG"  # the path of the configuration file, when no flag gives it

# Kubernetes gives every container variables for a service, and one named chat-node yields names with our prefix.
_KUBERNETES_NAME: Final = re.compile(r"CHAT_NODE_(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)")
_KUBERNETES_VALUE: Final = re.compile(r"(tcp|udp|sctp)://.*")


class Layer(Enum):
    """Where a value was given; later ones win."""

    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"

    def spelled(self, path: tuple[str, ...]) -> str:
        """A key's path as one writes it there."""
        if self is Layer.ENVIRONMENT:
            return PREFIX + LEVEL.join(path).upper().replace("-", "_")
        return dotted(path)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave.

    Attributes:
        path: The names of sections and key; of a table without keys, the table's.
        raw: The value as it was given; not in the repr, for it may be a secret.
        layer: Where.
        source: Where, for people: ``file:line``, a variable or a flag.
        folder: What relative paths start from.
    """

    path: tuple[str, ...]
    raw: object = field(repr=False)
    layer: Layer
    source: str
    folder: Path = Path()


def dotted(path: tuple[str, ...]) -> str:
    """A key's path as it stands in messages and in a TOML file."""
    return ".".join(toml_name(name) for name in path)


def read_file(path: Path) -> list[Given]:
    """What a TOML file gives.

    Raises:
        ConfigError: It can't be read, or is no TOML.
    """
    try:
        text = path.read_bytes().decode()
        document = tomllib.loads(text)
    except OSError as error:
        problem, mend = f"can't be read: {error.strerror}", "Correct the path, or write one by `chat-node config init`"
    except UnicodeDecodeError as error:
        problem, mend = f"not UTF-8 at byte {error.start}", "Save it as UTF-8"
    except ValueError as error:  # TOMLDecodeError, or a number with too many digits
        problem, mend = f"not TOML: {error}", "Correct that line"
    else:
        lines = line_numbers(text)
        return [
            Given(names, raw, Layer.FILE, _source(path, names, lines), path.parent) for names, raw in _leaves(document)
        ]
    raise ConfigError([Fault("", "", problem, mend, source=str(path))])


def read_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    """What variables ``CHAT_NODE_SECTION__KEY`` give; letters of either case name the same key."""
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name != FILE_VARIABLE and not _is_of_kubernetes(name, value):
            yield Given(tuple(name.removeprefix(PREFIX).lower().split(LEVEL)), value, Layer.ENVIRONMENT, name)


def read_flags(flags: Mapping[str, object]) -> Iterator[Given]:
    """What flags give, by dotted path; None: the flag was not given."""
    for name, value in flags.items():
        if value is not None:
            yield Given(tuple(name.split(".")), value, Layer.FLAG, f"flag for {name}")


def _leaves(table: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _source(path: Path, names: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> str:
    for length in range(len(names), 0, -1):
        if line := lines.get(names[:length]):
            return f"{path}:{line}"
    return str(path)


def _is_of_kubernetes(name: str, value: str) -> bool:
    named = _KUBERNETES_NAME.fullmatch(name)
    return LEVEL not in name and bool(named or _KUBERNETES_VALUE.fullmatch(value))

"""What `tomllib` leaves out: writing values, and telling on which line a key stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

_NAME: Final = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_PATH: Final = rf"({_NAME}(?:\s*\.\s*{_NAME})*)"
_HEADER: Final = re.compile(rf"\s*\[\s*{_PATH}\s*\]")
_KEY: Final = re.compile(rf"\s*{_PATH}\s*=")
_GROUPED_FROM: Final = 10_000  # below it, digits are read at a glance


def toml_value(value: object) -> str:
    """A value as TOML; None, which TOML lacks, is the empty text.

    Raises:
        TypeError: No key has values of this type.
    """
    match value:
        case None:
            return '""'
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if abs(value) >= _GROUPED_FROM else str(value)
        case float():
            return repr(value)
        case str() | Path():
            # JSON's escapes are TOML's, except that TOML wants one for DEL too.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
        case tuple():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case _:
            raise TypeError(f"no TOML for a value of type {type(value).__name__}")


def toml_name(name: str) -> str:
    """A key as TOML: bare where it can be, else quoted (which also disarms control characters)."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def line_numbers(text: str) -> dict[tuple[str, ...], int]:
    """The lines, from 1, on which keys and tables of a TOML document are first named.

    Good enough for messages: keys of inline tables are not found, and lines of a multi-line text may look like keys.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _names(header[1])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_names(key[1])), number)
    return found


def _names(path: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in re.findall(_NAME, path))

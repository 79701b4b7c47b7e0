"""Writes the tables of keys into documents, between markers: ``python -m edge_config.document FILE...``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_config.render import render_markdown_table, render_readme_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "keys": render_markdown_table,
    "configuration": render_readme_table,
}


def filled(text: str) -> str:
    """A document with the table of each marker that it has, ``<!-- name -->`` to ``<!-- /name -->``, made anew.

    Raises:
        ValueError: A marker is opened and not closed.
    """
    for name, render in TABLES.items():
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, opened, rest = text.partition(opening)
        if not opened:
            continue
        _, closed, after = rest.partition(closing)
        if not closed:
            raise ValueError(f"{opening} has no {closing}: add it below the place for the table")
        text = f"{before}{opening}\n\n{render()}\n{closing}{after}"
    return text


def main(paths: list[str]) -> None:
    """Fill each document in place."""
    for path in map(Path, paths):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

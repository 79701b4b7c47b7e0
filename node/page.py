"""The page's files, read once at start: a request costs no disk, no thread, and can name nothing that is not here."""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

INDEX: Final = "index.html"
WORTH_PACKING_BYTES: Final = 1024  # below, the saving is less than a packet

_TYPES: Final = {  # not from the machine's tables: a page must not depend on /etc/mime.types
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is served.

    Attributes:
        packed: Gzipped; None if that is not worth it.
        tag: The strong entity tag of `body`, with its quotes (RFC 9110, 8.8.3).
    """

    body: bytes
    packed: bytes | None
    media_type: str
    tag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> PageFile:
        """Prepare a file for serving."""
        packed = gzip.compress(body, mtime=0) if len(body) >= WORTH_PACKING_BYTES else b""
        return cls(
            body,
            packed if packed and len(packed) < len(body) * 0.9 else None,
            media_type(name),
            f'"{blake2b(body, digest_size=12).hexdigest()}"',
        )


def media_type(name: str) -> str:
    """The Content-Type of a file by its name."""
    known = _TYPES.get(name.rpartition(".")[2])
    return known or mimetypes.guess_type(name)[0] or "application/octet-stream"


def load_page(folder: Traversable | None = None) -> Mapping[str, PageFile]:
    """The files below a folder by their URL's path, such as ``/app.js``; ``/`` is the index.

    Args:
        folder: None: the page that comes with the node.

    Returns:
        Empty if the page has not been built.
    """
    root = files("node.web") / "dist" if folder is None else folder
    page = dict(_read(root, "/")) if root.is_dir() else {}
    if index := page.get(f"/{INDEX}"):
        page["/"] = index
    return page


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, PageFile]]:
    for item in folder.iterdir():
        if item.name.startswith("."):
            continue
        if item.is_dir():
            yield from _read(item, f"{prefix}{item.name}/")
        else:
            yield f"{prefix}{item.name}", PageFile.of(item.name, item.read_bytes())

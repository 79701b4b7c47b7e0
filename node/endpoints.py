"""Where a running node listens, written into its data directory so that the command line finds it.

With port 0 the system chooses; what it chose is only known to the node. The file is a hint: it outlives a node that was
killed, and whoever reads it must expect that nobody answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "endpoints.json"


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where one node listens.

    Attributes:
        public: URL of the public port, such as ``http://127.0.0.1:8000``.
        internal: URL of the internal port.
    """

    node: str
    pid: int
    public: str
    internal: str


def url(scheme: str, host: str, port: int) -> str:
    """A URL to an address that somebody listens at; for all addresses, the one of this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def write(data_dir: Path, endpoints: Endpoints) -> None:
    """Say where this node listens; replaces what an earlier one said.

    Raises:
        OSError: The data directory can't be written.
    """
    path = data_dir / FILE_NAME
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(endpoints))
    draft.replace(path)


def read(data_dir: Path) -> Endpoints | None:
    """Where the node with this data directory listens or last listened; None if that is not known."""
    try:
        return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=Endpoints)
    except (OSError, msgspec.DecodeError):
        return None

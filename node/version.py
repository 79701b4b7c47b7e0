"""The version of the installed application."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final


def _installed() -> str:
    try:
        return version("chat-node")
    except PackageNotFoundError:  # run from a checkout without installing
        return "0+unknown"


VERSION: Final = _installed()

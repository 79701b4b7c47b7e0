"""A given value as the type that its key has."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_config.faults import Fault, shown
from edge_config.layers import Given, Layer
from edge_config.secret import Secret
from edge_config.setting import FILE_SUFFIX, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRET_FILE_BYTES: Final = 65_536  # a bigger file is not the one that was meant

_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Unfit(Exception):
    """A value is not what its key takes; `fault` has neither source nor the sections' names yet."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.problem)
        self.fault = fault


def read_value(setting: Setting, given: Given) -> object:
    """A given value as the key's type; the key's bounds are its section's part.

    Variables are texts, and lists in them are separated by commas. An empty text leaves an optional key unset.

    Raises:
        Unfit: The value is of another type, or a file that it names can't be read.
    """
    if setting.is_secret and given.path[-1] != setting.name:
        return _secret_of_file(setting, given)
    if given.raw == "" and (setting.optional or setting.derived):
        return setting.make_default()
    value = _READERS[setting.kind](given) if setting.kind in _READERS else _choice(setting, given)
    if value is None:
        shows = "" if setting.is_secret else _described(given.raw)
        raise Unfit(Fault(setting.name, shows, f"not {setting.expected}", setting.mend))
    return value


def _described(raw: object) -> str:
    return "a table" if isinstance(raw, dict) else shown(raw)


def _bool(given: Given) -> bool | None:
    if given.layer is Layer.ENVIRONMENT:
        return _WORDS.get(str(given.raw).strip().lower())
    return given.raw if isinstance(given.raw, bool) else None


def _int(given: Given) -> int | None:
    if given.layer is Layer.ENVIRONMENT:
        try:
            return int(str(given.raw))
        except ValueError:
            return None
    return given.raw if isinstance(given.raw, int) and not isinstance(given.raw, bool) else None


def _float(given: Given) -> float | None:
    if isinstance(given.raw, bool) or (isinstance(given.raw, str) and given.layer is not Layer.ENVIRONMENT):
        return None
    try:
        value = float(given.raw)  # type: ignore[arg-type]  # what it can't take, it says
    except (TypeError, ValueError, OverflowError):
        return None
    return value if isfinite(value) else None


def _str(given: Given) -> str | None:
    return given.raw if isinstance(given.raw, str) else None


def _path(given: Given) -> Path | None:
    name = str(given.raw) if isinstance(given.raw, str | Path) else ""
    return given.folder / name if name and "\0" not in name else None


def _strings(given: Given) -> tuple[str, ...] | None:
    if given.layer is Layer.ENVIRONMENT:
        return tuple(part for item in str(given.raw).split(",") if (part := item.strip()))
    if isinstance(given.raw, list | tuple) and all(isinstance(item, str) for item in given.raw):
        return tuple(given.raw)
    return None


def _secret(given: Given) -> Secret | None:
    return Secret(given.raw) if isinstance(given.raw, str) else None


_READERS: Final[Mapping[type, Callable[[Given], object]]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    tuple: _strings,
    Secret: _secret,
}


def _choice(setting: Setting, given: Given) -> object:
    if not issubclass(setting.kind, StrEnum):
        raise TypeError(f"no reader for {setting.name}, of type {setting.kind.__name__}")
    return next((member for member in setting.kind if member.value == given.raw), None)


def _secret_of_file(setting: Setting, given: Given) -> Secret:
    key = setting.name + FILE_SUFFIX
    path = _path(given)
    if path is None:
        raise Unfit(
            Fault(key, _described(given.raw), "not a path", f"Give the path of a file that holds {setting.name}")
        )
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_BYTES + 1)
        if len(content) > SECRET_FILE_BYTES:
            raise Unfit(
                Fault(key, shown(str(path)), f"bigger than {SECRET_FILE_BYTES} bytes", "Name the secret's file")
            )
        text = content.decode().rstrip("\r\n")
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
        raise Unfit(Fault(key, shown(str(path)), problem, "Correct the path or the file's permissions")) from None
    except UnicodeDecodeError:
        raise Unfit(Fault(key, shown(str(path)), "not UTF-8", "Write the secret as text, e.g. in hex")) from None
    if not text:
        raise Unfit(Fault(key, shown(str(path)), "the file is empty", "Write the secret into it"))
    return Secret(text)

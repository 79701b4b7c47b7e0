"""What is wrong with JSON that was given, in the words of who gave it.  Pure.

msgspec says what it met; this adds what to give instead, read off the type that was asked for.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import inspect

_MISSING: Final = re.compile(r"Object missing required field `(\w+)`(?: - at `(.+)`)?$")
_VALUE: Final = re.compile(r"Invalid enum value .* - at `(.+)`$", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[.*?\]")


def mend(error: Exception, kind: type, fields: tuple[str, ...] = ()) -> str:
    """What the decoder said, and the mend.

    Args:
        error: Of decoding.
        kind: The type that was asked for.
        fields: Names that may be given at the top, where they differ from those of `kind`.
    """
    told = str(error)
    if missing := _MISSING.match(told):
        name, path = missing.groups()
        known = fields if fields and path is None else _fields(_at(inspect.type_info(kind), path or "$"))
        return f"{name} is missing{f' at {path}' if path else ''}; give {', '.join(known)}"
    if (value := _VALUE.match(told)) and (allowed := _values(_at(inspect.type_info(kind), value[1]))):
        return f"{told}; give one of {', '.join(allowed)}"
    return told


def _at(kind: inspect.Type, path: str) -> list[inspect.Type]:
    """The types that may stand at a path such as `$.commands[0].role`."""
    found = _alternatives(kind)
    for step in _STEP.finditer(path):
        found = [inner for one in found for inner in _alternatives(_inside(one, step[1]))]
    return found


def _inside(kind: inspect.Type, name: str | None) -> inspect.Type:
    if name is None:
        return getattr(kind, "item_type", None) or getattr(kind, "value_type", None) or inspect.AnyType()
    if isinstance(kind, inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == name), inspect.AnyType())
    return inspect.AnyType()


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return _alternatives(kind.type)
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def _fields(kinds: list[inspect.Type]) -> tuple[str, ...]:
    return tuple(field.encode_name for kind in kinds if isinstance(kind, inspect.StructType) for field in kind.fields)


def _values(kinds: list[inspect.Type]) -> list[str]:
    values: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.LiteralType):
            values += [str(value) for value in kind.values]
        elif isinstance(kind, inspect.EnumType):
            values += [str(member.value) for member in kind.cls]
    return values

"""A value that is never printed."""

from __future__ import annotations

from hmac import compare_digest
from typing import Final, final

from typing_extensions import override

MASK: Final = "***"


@final
class Secret:
    """A secret string. It is no `str`, so that joining, formatting or serialising it can't give it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one place that uses it."""
        return self._value

    @override
    def __repr__(self) -> str:
        return MASK

    @override
    def __str__(self) -> str:
        return MASK

    @override
    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(self._value.encode(), other.reveal().encode())

    @override
    def __hash__(self) -> int:
        return hash((Secret, self._value))

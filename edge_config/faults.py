"""What is wrong with a configuration, told so that a person can mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable

VALUE_CHARS = 60  # enough to recognise a value; a pasted document must not fill the terminal


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to mend.

    Attributes:
        key: The key's path, such as ``listen.port``; empty when a whole file is at fault.
        value: What was given, ready to print; empty where it must not be printed (secrets, unknown keys).
        problem: What is wrong with it, a phrase.
        mend: What to do about it, a sentence without its full stop.
        also: Further keys that the broken rule reads.
        source: Where the value came from: ``file:line``, a variable's name, or a flag.
    """

    key: str
    value: str
    problem: str
    mend: str
    also: tuple[str, ...] = ()
    source: str = ""

    @override
    def __str__(self) -> str:
        """All of it on one line."""
        named = f"{self.key} = {self.value}" if self.value else self.key
        where = ": ".join(part for part in (self.source, named, self.problem) if part)
        return f"{where}. {self.mend}" + ("" if self.mend.endswith("?") else ".")


class ConfigError(Exception):
    """The configuration can't be used; `faults` holds all that is wrong with it, not only the first."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = (f"  {fault}" for fault in self.faults)
        super().__init__("\n".join((f"{count} in the configuration:", *lines)))


def shown(value: object) -> str:
    """A value on one line, shortened, with control characters escaped."""
    text = repr(value)
    return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…"

"""How a key of the configuration is declared: its default, meaning and bounds stand once, beside its type.

Loader, documentation and commented file are all driven by these declarations, so that they can't drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    Protocol,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    runtime_checkable,
)

from typing_extensions import override

from edge_config.faults import ConfigError, Fault, shown
from edge_config.secret import Secret
from edge_config.toml import toml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
MOST: Final = 2**63 - 1  # the integers of TOML, and of SQLite, end here
FILE_SUFFIX: Final = "_file"  # a secret `x` may be given as `x_file`: the path of a file that holds it
_DECLARATION: Final = "edge_config.setting"
_NOUNS: Final[dict[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of texts",
    Path: "a path",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Numbers from `low` to `high`, both included; `high` None: `MOST`, as good as unbounded."""

    low: float
    high: float | None = None

    def accepts(self, value: object) -> bool:
        """Whether a number lies within."""
        return isinstance(value, int | float) and self.low <= value <= (MOST if self.high is None else self.high)

    @override
    def __str__(self) -> str:
        """As it reads after "a number"."""
        return f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Form:
    """Texts that a pattern matches as a whole; `described` is what a person is told, after "text of"."""

    pattern: str
    described: str

    def accepts(self, value: object) -> bool:
        """Whether a text has the form."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None

    @override
    def __str__(self) -> str:
        """As it reads after "text"."""
        return f"of {self.described}"


NAME = Form(r"[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, _ and -")
KIND_NAME = Form(r"(?!.*__)[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, _ and -, without a double _")


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of a section.

    Attributes:
        name: As written in the file.
        kind: Its type without ``| None``: bool, int, float, str, Path, Secret, a StrEnum, or tuple (of str).
        optional: Whether it may be None (written as an empty text).
        meaning: For people: what it does, its unit, why its default is what it is.
        accept: What values it takes beyond its type; None: all.
        dev: Its default with ``--dev``; None: the same.
        flag: The flag of ``chat-node run`` that sets it; empty: none.
        make_default: Makes its default.
        derived: Whether the default depends on the machine, and so is not written into documents.
    """

    name: str
    kind: type
    optional: bool
    meaning: str
    accept: Bounds | Form | None
    dev: object
    flag: str
    make_default: Callable[[], object]
    derived: bool

    @property
    def is_secret(self) -> bool:
        """Whether its value must never be shown."""
        return self.kind is Secret

    def default(self, *, dev: bool = False) -> object:
        """Its value when nobody gives one."""
        return self.dev if dev and self.dev is not None else self.make_default()

    @property
    def expected(self) -> str:
        """What may be written, as it reads after "Give"."""
        if issubclass(self.kind, StrEnum):
            return "one of " + ", ".join(member.value for member in self.kind)
        noun = _NOUNS.get(self.kind, "a text")
        return f"{noun} {self.accept}" if self.accept else noun

    @property
    def mend(self) -> str:
        """What to do about a value that is not what is expected."""
        if self.derived or self.is_secret:
            return "Give such a value, or leave the key out"
        return f"Give such a value, or leave the key out for its default, {toml_value(self.default())}"


@runtime_checkable
class _Ruled(Protocol):
    """A section with rules that join several of its keys."""

    def rules(self) -> Iterator[Fault]:
        """Yield a fault, with keys relative to the section, for every rule that does not hold."""


@dataclass(frozen=True, slots=True)
class _Declaration:
    meaning: str
    accept: Bounds | Form | None
    dev: object
    flag: str


def setting(
    default: T, meaning: str, accept: Bounds | Form | None = None, *, dev: T | None = None, flag: str = ""
) -> T:
    """Declare a key; the arguments are the attributes of `Setting`."""
    return field(default=default, metadata={_DECLARATION: _Declaration(meaning, accept, dev, flag)})


def derived(make_default: Callable[[], T], meaning: str, *, flag: str = "") -> T:
    """Declare a key whose default depends on the machine; an empty text in a file stands for that default."""
    return field(default_factory=make_default, metadata={_DECLARATION: _Declaration(meaning, None, None, flag)})


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Make a frozen, slotted dataclass of keys; an instance with a fault raises `ConfigError` instead of existing."""

    def check(self: object) -> None:
        if faults := [*_out_of_bounds(self), *(self.rules() if isinstance(self, _Ruled) else ())]:
            raise ConfigError(faults)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """The keys of a section, in the order of their declaration."""
    return tuple(_setting(item) for item in fields(cls) if _DECLARATION in item.metadata)


class SectionField(NamedTuple):
    """A section of a configuration.

    Attributes:
        name: As written in the file.
        cls: Its class.
        is_named: Whether it is a table of such sections, each under a name of the operator's choice.
    """

    name: str
    cls: type[Any]
    is_named: bool

    @property
    def noun(self) -> str:
        """What one of such sections describes; of a named one only."""
        return self.name.removesuffix("s")


def sections_of(cls: type[Any]) -> Mapping[str, SectionField]:
    """The sections of a configuration's class by name, in the order of their declaration."""
    found: dict[str, SectionField] = {}
    for item in fields(cls):
        is_named = get_origin(item.type) is Mapping
        inner = get_args(item.type)[1] if is_named else item.type
        if is_dataclass(inner) and isinstance(inner, type):
            found[item.name] = SectionField(item.name, inner, is_named)
    return found


def _setting(item: Field[Any]) -> Setting:
    told: _Declaration = item.metadata[_DECLARATION]
    choices = get_args(item.type) if isinstance(item.type, UnionType) else (item.type,)
    kind = next(choice for choice in choices if choice is not type(None))
    make_default = (lambda: item.default) if item.default_factory is MISSING else item.default_factory
    return Setting(
        name=item.name,
        kind=get_origin(kind) or kind,
        optional=type(None) in choices,
        meaning=told.meaning,
        accept=told.accept,
        dev=told.dev,
        flag=told.flag,
        make_default=make_default,
        derived=item.default_factory is not MISSING,
    )


def _out_of_bounds(instance: object) -> Iterator[Fault]:
    cls: type[Any] = type(instance)
    for item in settings_of(cls):
        value = getattr(instance, item.name)
        if item.accept and not item.accept.accepts(value):
            yield Fault(item.name, shown(value), f"not {item.expected}", item.mend)

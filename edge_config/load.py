"""Loading: flags win over the environment, the environment over the file, the file over defaults.

All faults are found before any is reported. The sections' declarations drive the loader; it knows no key by name
but ``node.dev``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edge_config.faults import ConfigError, Fault
from edge_config.layers import FILE_VARIABLE, Given, Layer, dotted, read_environment, read_file, read_flags
from edge_config.names import Place, Unknown, find_place
from edge_config.schema import Config
from edge_config.setting import SectionField, Setting, sections_of, settings_of
from edge_config.values import Unfit, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT: Final = "default"
DEV_DEFAULT: Final = "default with --dev"

KeyPath: TypeAlias = tuple[str, ...]


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Load the configuration.

    Args:
        path: The TOML file; None: the one that the variable ``CHAT_NODE_CONFIG`` names, if any.
        environ: The environment's variables, of which ``CHAT_NODE_SECTION__KEY`` count.
        flags: Values by their key's path, such as ``listen.port``; None: not given.

    Raises:
        ConfigError: With all faults of all of them.
    """
    loading = _Loading()
    if path is None and (named := environ.get(FILE_VARIABLE)):
        path = Path(named)
    try:
        given = read_file(path) if path else []
    except ConfigError as error:
        loading.faults.extend(error.faults)
        given = []
    for item in (*given, *read_environment(environ), *read_flags(flags)):
        loading.place(item)
    return loading.config()


class _Loading:
    """One run of the loader: what is given, sorted by section and key; what it made of it; what was wrong."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._given: dict[KeyPath, dict[str, Given]] = {}
        self._sources: dict[str, str] = {}
        self._bad: set[str] = set()

    def place(self, given: Given) -> None:
        """Put a value where it belongs, over a value of an earlier layer."""
        match find_place(given, self._given):
            case Unknown(fault, subject):
                if subject not in self._bad:  # a misspelled section is one fault, however many keys it has
                    self._bad.add(subject)
                    self.faults.append(fault)
            case Place(section, setting):
                self._given.setdefault(section, {})
                if setting is not None:
                    self._put(section, setting, given)

    def _put(self, section: KeyPath, setting: Setting, given: Given) -> None:
        if setting.is_secret and given.raw == "":  # unset, and so are both ways of giving it
            return
        if given.layer is Layer.FLAG and setting.flag:
            given = replace(given, source=setting.flag)
        keys = self._given[section]
        other = keys.get(setting.name)
        if other and other.layer is given.layer:
            path = dotted((*section, setting.name))
            problem = f"given twice: {other.source} gives {dotted(other.path)}"
            self._report(Fault(path, "", problem, "Keep one of them", source=given.source))
        keys[setting.name] = given

    def config(self) -> Config:
        """Make the configuration of what was placed.

        Raises:
            ConfigError: With all faults.
        """
        dev = self._dev()
        values: dict[str, Any] = {field.name: self._part(field, dev=dev) for field in sections_of(Config).values()}
        try:
            config = Config(**values, sources=MappingProxyType(self._sources))
        except ConfigError as error:
            self._blame((), error)
        else:
            if not self.faults:
                return config
        raise ConfigError(self.faults)

    def _dev(self) -> bool:
        setting = next(item for item in settings_of(sections_of(Config)["node"].cls) if item.name == "dev")
        given = self._given.get(("node",), {}).get("dev")
        try:
            return given is not None and read_value(setting, given) is True
        except Unfit:
            return False  # reported with its section

    def _part(self, field: SectionField, *, dev: bool) -> object:
        if not field.is_named:
            return self._section(field.cls, (field.name,), {}, dev=dev)
        names = [path[1] for path in self._given if path[0] == field.name and len(path) > 1] or [DEFAULT]
        return MappingProxyType(
            {name: self._section(field.cls, (field.name, name), {"name": name}, dev=dev) for name in names}
        )

    def _section(self, cls: type[Any], path: KeyPath, values: dict[str, object], *, dev: bool) -> object:
        """One section; with defaults in place of what is at fault, so that the rest can be checked."""
        defaults = dict(values)
        for setting in settings_of(cls):
            defaults[setting.name] = values[setting.name] = setting.default(dev=dev)
            key = dotted((*path, setting.name))
            if given := self._given.get(path, {}).get(setting.name):
                self._sources[key] = _source(setting, given)
                try:
                    values[setting.name] = read_value(setting, given)
                except Unfit as error:
                    full = dotted((*path, error.fault.key))
                    self._report(replace(error.fault, key=full, source=given.source), key)
            else:
                self._sources[key] = DEV_DEFAULT if dev and setting.dev is not None else DEFAULT
        try:
            return cls(**values)
        except ConfigError as error:
            self._blame(path, error)
            return cls(**defaults)

    def _blame(self, path: KeyPath, error: ConfigError) -> None:
        """Report broken rules, but none that reads a key already reported: it was judged by a default."""
        prefix = f"{dotted(path)}." if path else ""
        bad = frozenset(self._bad)
        for fault in error.faults:
            keys = [prefix + key for key in (fault.key, *fault.also)]
            if bad.isdisjoint(keys):
                self._report(replace(fault, key=keys[0], also=tuple(keys[1:]), source=self._sources.get(keys[0], "")))

    def _report(self, fault: Fault, key: str = "") -> None:
        self._bad.add(key or fault.key)
        self.faults.append(fault)


def _source(setting: Setting, given: Given) -> str:
    return given.source if given.path[-1] == setting.name else f"{given.source} ({given.path[-1]})"

"""Which key a given path means; for a path that means none, what was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from edge_config.faults import Fault
from edge_config.layers import Given, Layer, dotted
from edge_config.schema import Config
from edge_config.setting import FILE_SUFFIX, KIND_NAME, SectionField, Setting, sections_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KeyPath: TypeAlias = tuple[str, ...]


class Place(NamedTuple):
    """A section's path, and a key of it; None: only the section was named."""

    section: KeyPath
    setting: Setting | None


class Unknown(NamedTuple):
    """There is no such key; `subject` is the part of its path that is wrong, the same for all keys beneath it."""

    fault: Fault
    subject: str


def find_place(given: Given, known: Iterable[KeyPath]) -> Place | Unknown:
    """Find what a path means.

    Args:
        given: The value and its path.
        known: Paths of sections found so far; a variable, which has no case, may mean one of their names.
    """
    field = sections_of(Config).get(given.path[0])
    if field is None:
        return _unknown(given, given.path[:1], "no such section" if given.path[1:] else "no such key", _advice(given))
    depth = 2 if field.is_named else 1
    if len(given.path) <= depth:
        return _bare_section(field, given, depth)
    section = (field.name, _as_known(given, known)) if field.is_named else given.path[:1]
    if field.is_named and not KIND_NAME.accepts(section[1]):
        return _unknown(given, section, f"not the name of a {field.noun}", f"Give a name of {KIND_NAME.described}")
    return _key(field, section, given)


def _key(field: SectionField, section: KeyPath, given: Given) -> Place | Unknown:
    name, *rest = given.path[len(section) :]
    setting = _settings_by_name(field).get(name)
    if setting is None:
        return _unknown(given, (*section, name), "no such key", _advice(given, field, section))
    if rest:
        return _unknown(given, (*section, name), "a key, not a section", f"Give it a value: {setting.expected}")
    return Place(section, setting)


def _bare_section(field: SectionField, given: Given, depth: int) -> Place | Unknown:
    """A section without keys, which is as good as absent, unless it names a kind; or a value in a section's place."""
    named = given.path if field.is_named else given.path[:1]
    if given.raw != {}:
        example = settings_of(field.cls)[0].name
        path = (*given.path, "NAME", example) if len(given.path) < depth else (*given.path, example)
        return _unknown(
            given, given.path, "a section, not a key", f"Give its keys, such as {given.layer.spelled(path)}"
        )
    if len(given.path) == depth and field.is_named and not KIND_NAME.accepts(given.path[1]):
        return _unknown(given, given.path, f"not the name of a {field.noun}", f"Give a name of {KIND_NAME.described}")
    return Place(named, None)


def _settings_by_name(field: SectionField) -> Mapping[str, Setting]:
    settings = settings_of(field.cls)
    files = {setting.name + FILE_SUFFIX: setting for setting in settings if setting.is_secret}
    return {setting.name: setting for setting in settings} | files


def _as_known(given: Given, known: Iterable[KeyPath]) -> str:
    name = given.path[1]
    if given.layer is not Layer.ENVIRONMENT:
        return name
    same = (path[1] for path in known if len(path) > 1 and path[1].lower().replace("-", "_") == name)
    return next(same, name)


def _unknown(given: Given, path: KeyPath, problem: str, mend: str) -> Unknown:
    key = dotted(path)
    return Unknown(Fault(key, "", problem, mend, source=given.source), key)


def _advice(given: Given, field: SectionField | None = None, section: KeyPath = ()) -> str:
    """What to do about an unknown name: a key of nearly that name, else a key of that name in another section."""
    spelled = given.layer.spelled
    name = given.path[len(section)]
    names = [*_settings_by_name(field)] if field else [*sections_of(Config)]
    if close := get_close_matches(name, names, n=1):
        beneath = () if given.layer is Layer.FILE else given.path[len(section) + 1 :]
        return f"Did you mean {spelled((*section, close[0], *beneath))}?"
    for other in sections_of(Config).values():
        if not other.is_named and given.path[-1] in _settings_by_name(other):
            return f"Did you mean {spelled((other.name, given.path[-1]))}?"
    return f"Remove it, or give one of {', '.join(names)}"

"""The configuration as text: what is in force, a file to begin with, and the tables of the documentation."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from edge_config.layers import dotted
from edge_config.schema import Config
from edge_config.secret import MASK
from edge_config.setting import FILE_SUFFIX, Bounds, SectionField, Setting, sections_of, settings_of
from edge_config.toml import toml_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WIDTH: Final = 110  # columns of comments in a file

INTRODUCTION: Final = (
    "Configuration of chat-node. Every key stands here with its default; remove the # before a key to change it."
    " Units are in the names or in the comments. A variable CHAT_NODE_SECTION__KEY wins over this file, a flag wins"
    " over both. Relative paths start from this file's directory. Check it with `chat-node config check --config FILE`."
)
KINDS_NOTE: Final = (
    "Repeat this section under other names for other kinds of rooms. Once a kind is configured, only configured kinds"
    " exist; so keep the line below, or rooms without a kind in their name are refused."
)
WEBHOOKS_NOTE: Final = (
    "Repeat this section under other names for other receivers. Webhooks of further sites are made by `chat-node site"
    " add-webhook`."
)
_NOTES: Final = {"kinds": KINDS_NOTE, "webhooks": WEBHOOKS_NOTE}
README_KEYS: Final = (
    "node.region",
    "node.data_dir",
    "node.dev",
    "listen.host",
    "listen.port",
    "listen.internal_port",
    "listen.tls_certificate",
    "auth.secret",
    "auth.insecure",
    "auth.allowed_origins",
    "rooms.default_kind",
    "kinds.NAME.schema",
    "kinds.NAME.subscribe",
    "kinds.NAME.publish",
    "kinds.NAME.presence",
    "kinds.NAME.history_entries",
    "limits.connections_per_ip",
    "limits.message_bytes",
    "limits.output_bytes",
    "rates.connection_publishes",
    "keepalive.ping_seconds",
    "log.commit_window_ms",
    "log.retention_days",
)


def render_show(config: Config) -> str:
    """The values in force as TOML, each with where it came from.

    Secrets are comments, so that nobody takes the mask for a secret by loading the text.
    """
    return "\n".join(_show(config)).lstrip("\n") + "\n"


def render_init() -> str:
    """A TOML file with every key and its default as comments; it loads as it is, and with any keys uncommented."""
    return "\n".join(_init()) + "\n"


def render_markdown_table() -> str:
    """All keys, a table for each section."""
    parts = []
    for field in sections_of(Config).values():
        path = _path(field)
        rows = (_row(setting.name, setting) for setting in settings_of(field.cls))
        parts.append(f"### `[{dotted(path)}]`\n\n{_summary(field.cls)}\n\n{_table(rows)}")
    return "\n\n".join(parts) + "\n"


def render_readme_table() -> str:
    """The keys that most operators want to know of."""
    known = {
        dotted((*_path(field), setting.name)): setting
        for field in sections_of(Config).values()
        for setting in settings_of(field.cls)
    }
    return _table(_row(key, known[key]) for key in README_KEYS) + "\n"


def _show(config: Config) -> Iterator[str]:
    for field in sections_of(Config).values():
        value: Any = getattr(config, field.name)
        named = {(field.name, name): item for name, item in value.items()} if field.is_named else {(field.name,): value}
        for path, section in named.items():
            yield f"\n[{dotted(path)}]"
            for setting in settings_of(field.cls):
                source = config.sources.get(dotted((*path, setting.name)), "default")
                yield _shown_line(setting, getattr(section, setting.name), source)


def _shown_line(setting: Setting, value: object, source: str) -> str:
    if setting.is_secret and value is not None:
        return f"# {setting.name} = {MASK}  # {_one_line(source)}"
    return f"{setting.name} = {toml_value(value)}  # {_one_line(source)}"


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _init() -> Iterator[str]:
    yield from _comment(INTRODUCTION)
    for field in sections_of(Config).values():
        yield ""
        yield from _comment(_summary(field.cls))
        if field.is_named:
            yield from _comment(_NOTES[field.name])
        yield f"[{dotted((field.name, 'default') if field.is_named else (field.name,))}]"
        for setting in settings_of(field.cls):
            yield ""
            yield from _comment(" ".join((setting.meaning, *_remarks(setting))))
            yield f"#{setting.name} = {_default(setting)}"
            if setting.is_secret:
                yield f'#{setting.name}{FILE_SUFFIX} = ""'


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False, break_long_words=False
    )


def _remarks(setting: Setting) -> Iterator[str]:
    """What is to be said of a key beside its meaning."""
    if isinstance(setting.accept, Bounds) and str(setting.accept) != "of at least 0":
        yield f"Values {setting.accept}."
    if setting.dev is not None:
        yield f"With `--dev`: `{toml_value(setting.dev)}`."
    if setting.flag:
        yield f"Flag: `{setting.flag}`."
    if setting.is_secret:
        yield f"Or the path of a file that holds it, as `{setting.name}{FILE_SUFFIX}`."


def _default(setting: Setting) -> str:
    return '""' if setting.derived else toml_value(setting.default())


def _path(field: SectionField) -> tuple[str, ...]:
    return (field.name, "NAME") if field.is_named else (field.name,)


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").partition("\n")[0]


def _table(rows: Iterable[str]) -> str:
    return "\n".join(("| key | default | meaning |", "|---|---|---|", *rows))


def _row(key: str, setting: Setting) -> str:
    cells = (f"`{key}`", f"`{_default(setting)}`", " ".join((setting.meaning, *_remarks(setting))))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

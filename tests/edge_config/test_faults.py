"""All faults are told at once, each with the key, its origin, what is wrong and what to do; never a secret."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_config.faults import ConfigError, Fault
from edge_config.layers import PREFIX
from edge_config.load import load
from edge_config.render import render_show
from edge_config.schema import Config, Listen
from edge_config.setting import FILE_SUFFIX, sections_of, settings_of

HUSH = "hunter2"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("c.toml")


def faults_of(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ, flags)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # names
        ("[listen]\nprot = 1", "c.toml:2: listen.prot: no such key. Did you mean listen.port?"),
        ("[lisen]\nport = 1\nhost = ''", "c.toml:2: lisen: no such section. Did you mean listen?"),
        ("region = 'eu'", "c.toml:1: region: no such key. Did you mean node.region?"),
        ("[node]\nport = 1", "c.toml:2: node.port: no such key. Did you mean listen.port?"),
        ("[node]\nx = 1", "c.toml:2: node.x: no such key. Remove it, or give one of region, name, data_dir, dev."),
        ("[kinds.a]\nschem = 1", "c.toml:2: kinds.a.schem: no such key. Did you mean kinds.a.schema?"),
        ("listen = 1", "c.toml:1: listen: a section, not a key. Give its keys, such as listen.host."),
        ("kinds = 1", "c.toml:1: kinds: a section, not a key. Give its keys, such as kinds.NAME.schema."),
        ("[kinds]\na = 1", "c.toml:2: kinds.a: a section, not a key. Give its keys, such as kinds.a.schema."),
        ("[[listen]]\nport = 1", "c.toml: listen: a section, not a key. Give its keys, such as listen.host."),
        (
            "[listen.port]\nx = 1",
            "c.toml:2: listen.port: a key, not a section. Give it a value: a whole number from 0 to 65535.",
        ),
        (
            "[kinds.'a:b']",
            'c.toml:1: kinds."a:b": not the name of a kind. Give a name of 1 to 64 letters, digits, _ and -, without a'
            " double _.",
        ),
        (
            "[kinds.a__b]\nschema = 'any'",
            "c.toml:2: kinds.a__b: not the name of a kind. Give a name of 1 to 64 letters, digits, _ and -, without a"
            " double _.",
        ),
        # types
        (
            "[listen]\nport = 'eighty'",
            "c.toml:2: listen.port = 'eighty': not a whole number from 0 to 65535. Give such a value, or leave the key"
            " out for its default, 8000.",
        ),
        (
            "[listen]\nport = true",
            "c.toml:2: listen.port = True: not a whole number from 0 to 65535. Give such a value, or leave the key out"
            " for its default, 8000.",
        ),
        (
            "[listen.port]",
            "c.toml:1: listen.port = a table: not a whole number from 0 to 65535. Give such a value, or leave the key"
            " out for its default, 8000.",
        ),
        (
            "[hub]\nflush_window_ms = nan",
            "c.toml:2: hub.flush_window_ms = nan: not a number from 0 to 1000. Give such a value, or leave the key out"
            " for its default, 20.0.",
        ),
        (
            "[hub]\nflush_window_ms = '1'",
            "c.toml:2: hub.flush_window_ms = '1': not a number from 0 to 1000. Give such a value, or leave the key out"
            " for its default, 20.0.",
        ),
        (
            "[node]\ndev = 1",
            "c.toml:2: node.dev = 1: not true or false. Give such a value, or leave the key out for its default,"
            " false.",
        ),
        (
            "[node]\ndata_dir = 1",
            "c.toml:2: node.data_dir = 1: not a path. Give such a value, or leave the key out.",
        ),
        (
            "[auth]\nallowed_origins = 'https://a.example'",
            "c.toml:2: auth.allowed_origins = 'https://a.example': not a list of texts. Give such a value, or leave the"
            " key out for its default, [].",
        ),
        (
            "[kinds.a]\nschema = 'chatt'",
            "c.toml:2: kinds.a.schema = 'chatt': not one of chat, any. Give such a value, or leave the key out for its"
            ' default, "chat".',
        ),
        # bounds
        (
            "[listen]\nport = 65536",
            "c.toml:2: listen.port = 65536: not a whole number from 0 to 65535. Give such a value, or leave the key out"
            " for its default, 8000.",
        ),
        (
            "[node]\nregion = 'e u'",
            "c.toml:2: node.region = 'e u': not a text of 1 to 64 letters, digits, _ and -. Give such a value, or leave"
            ' the key out for its default, "local".',
        ),
        # rules
        (
            "[listen]\ntls_key = '/k.pem'",
            "c.toml:2: listen.tls_key = '/k.pem': tls_certificate is not set. Give tls_certificate too, or neither.",
        ),
        (
            "[listen]\ntls_certificate = '/c.pem'",
            "c.toml:2: listen.tls_certificate = '/c.pem': tls_key is not set. Give tls_key too, or neither.",
        ),
        (
            "[listen]\ninternal_host = '::'",
            "c.toml:2: listen.internal_host = '::': the internal port would be open to others without authentication."
            " Give internal_token (or internal_token_file) too, or 127.0.0.1.",
        ),
        (
            "[listen]\ninternal_port = 8000",
            "c.toml:2: listen.internal_port = 8000: the public port has this number already. Give another, or 0 for any"
            " free one.",
        ),
        (
            "[limits]\nbody_bytes = 65536",
            "c.toml:2: limits.body_bytes = 65536: not below message_bytes = 65536, but a publication carries its"
            " command around it. Lower it, or raise message_bytes.",
        ),
        (
            "[limits]\noutput_bytes = 4194304\nrecovery_bytes = 1048576",
            "c.toml:3: limits.recovery_bytes = 1048576: clients refuse a frame of 1048576 bytes and more. Give less"
            " than 1048576.",
        ),
        (
            "[keepalive]\npong_seconds = 25",
            "c.toml:2: keepalive.pong_seconds = 25.0: not below ping_seconds = 25, so that a ping would go out"
            " unanswered. Lower it, or raise ping_seconds.",
        ),
        (
            "[auth]\nallowed_origins = ['*', 'https://a.example/']",
            "c.toml:2: auth.allowed_origins = 'https://a.example/': not an origin as browsers send it. Give"
            " scheme://host[:port] in lower case, without a path, or *.",
        ),
        (
            "[log]\nquota_bytes = 1\nretention_bytes = 2",
            "c.toml:2: log.quota_bytes = 1: messages would be refused before retention_bytes = 2 makes room. Raise it,"
            " or lower retention_bytes.",
        ),
        (
            "[rooms]\ndefault_kind = 'nix'",
            "c.toml:2: rooms.default_kind = 'nix': there is no [kinds.nix]. Give one of default, or an empty text.",
        ),
        (
            "[kinds.a]\nsubscribe = 'subscriber'",
            "c.toml:2: kinds.a.subscribe = 'subscriber': only subscribers could subscribe. Give one of nobody, token,"
            " user, anyone.",
        ),
        (
            "[kinds.a]\nmoderation = 'strict'",
            "c.toml:2: kinds.a.moderation = 'strict': there is no such policy: this version does not moderate. Leave it"
            " empty.",
        ),
        (
            "[kinds.a]\nhistory_seconds = 86401\nretention_days = 1",
            "c.toml:2: kinds.a.history_seconds = 86401: clients are promised more than the disk keeps (retention_days ="
            " 1). Give at most 86400, or raise retention_days.",
        ),
        # files
        (
            "[listen",
            "c.toml: not TOML: Expected ']' at the end of a table declaration (at end of document). Correct that"
            " line.",
        ),
        (f"[listen]\nport = {'9' * 5000}", None),
    ],
)  # fmt: skip
def test_a_fault_in_a_file_is_told(file: Path, text: str, told: str | None) -> None:
    file.write_text(text)
    faults = faults_of(file, {}, {})
    assert faults == [told] if told else len(faults) == 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "8000", "CHAT_NODE_PORT: port: no such key. Did you mean CHAT_NODE_LISTEN__PORT?"),
        ("LISEN__PORT", "1", "CHAT_NODE_LISEN__PORT: lisen: no such section. Did you mean CHAT_NODE_LISTEN__PORT?"),
        ("LISTEN__PROT", "1", "CHAT_NODE_LISTEN__PROT: listen.prot: no such key. Did you mean CHAT_NODE_LISTEN__PORT?"),
        (
            "LISTEN",
            "1",
            "CHAT_NODE_LISTEN: listen: a section, not a key. Give its keys, such as CHAT_NODE_LISTEN__HOST.",
        ),
        (
            "KINDS__A",
            "",
            "CHAT_NODE_KINDS__A: kinds.a: a section, not a key. Give its keys, such as CHAT_NODE_KINDS__A__SCHEMA.",
        ),
        (
            "NODE__DEV",
            "maybe",
            "CHAT_NODE_NODE__DEV: node.dev = 'maybe': not true or false. Give such a value, or leave the key out for"
            " its default, false.",
        ),
        (
            "AUTH__SECRET_FILE",
            "/nowhere/key",
            "CHAT_NODE_AUTH__SECRET_FILE: auth.secret_file = '/nowhere/key': can't be read: No such file or directory."
            " Correct the path or the file's permissions.",
        ),
    ],
)
def test_a_fault_in_the_environment_is_told(name: str, value: str, told: str) -> None:
    assert faults_of(None, {f"CHAT_NODE_{name}": value}, {}) == [told]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "listen.port",
            -1,
            "--port: listen.port = -1: not a whole number from 0 to 65535. Give such a value, or leave the key out for"
            " its default, 8000.",
        ),
        ("listen.prot", 1, "flag for listen.prot: listen.prot: no such key. Did you mean listen.port?"),
    ],
)
def test_a_fault_in_a_flag_is_told(name: str, value: object, told: str) -> None:
    assert faults_of(None, {}, {name: value}) == [told]


def test_all_faults_of_all_layers_are_told_at_once(file: Path) -> None:
    file.write_text("[listen]\nprot = 1\n[hub]\ndrain_cohort = 0\n[kinds.a]\nschema = 1")
    with pytest.raises(ConfigError) as caught:
        load(file, {"CHAT_NODE_NODE__DEV": "maybe"}, {"listen.port": -1})
    keys = [fault.key for fault in caught.value.faults]
    assert keys == ["listen.prot", "node.dev", "listen.port", "kinds.a.schema", "hub.drain_cohort"]
    assert str(caught.value).startswith("5 faults in the configuration:\n  c.toml:2: listen.prot")


def test_a_file_that_can_not_be_read_hides_no_other_fault(tmp_path: Path) -> None:
    faults = faults_of(tmp_path / "none.toml", {"CHAT_NODE_X": ""}, {"listen.port": -1})
    assert len(faults) == 3
    assert faults[0] == (
        f"{tmp_path}/none.toml: can't be read: No such file or directory. Correct the path, or write one by"
        " `chat-node config init`."
    )


def test_a_file_in_another_encoding_is_told(file: Path) -> None:
    file.write_bytes("[node]\nregion = 'Köln'".encode("latin-1"))
    assert faults_of(file, {}, {}) == ["c.toml: not UTF-8 at byte 18. Save it as UTF-8."]


def test_a_rule_is_not_judged_by_the_default_of_a_key_at_fault() -> None:
    environ = {"CHAT_NODE_LISTEN__INTERNAL_HOST": "::", "CHAT_NODE_LISTEN__INTERNAL_TOKEN_FILE": "/nowhere"}
    with pytest.raises(ConfigError) as caught:
        load(None, environ, {})
    assert [fault.key for fault in caught.value.faults] == ["listen.internal_token_file"]


def test_every_wrong_origin_is_told() -> None:
    faults = faults_of(None, {"CHAT_NODE_AUTH__ALLOWED_ORIGINS": "a.example,https://b.example,HTTPS://c.example"}, {})
    assert len(faults) == 2


@pytest.mark.parametrize("origin", ["*", "https://a.example", "http://[::1]:8000", "capacitor://localhost"])
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    assert load(None, {"CHAT_NODE_AUTH__ALLOWED_ORIGINS": origin}, {}).auth.allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    ["a.example", "https://", "https://a.example?x", "https://u@a.example", "https://a:b", "https://[::1", "null"],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    assert len(faults_of(None, {"CHAT_NODE_AUTH__ALLOWED_ORIGINS": origin}, {})) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\n", "the file is empty"), (b"\xff", "not UTF-8"), (b"x" * 65_537, "bigger than 65536 bytes")],
)
def test_a_file_that_holds_no_secret_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "key").write_bytes(content)
    assert told in faults_of(None, {"CHAT_NODE_AUTH__SECRET_FILE": str(tmp_path / "key")}, {})[0]


@pytest.mark.parametrize(
    "text",
    [
        f"[auth]\nsecret = ['{HUSH}']",
        f"[auth.secret]\n{HUSH} = 1",
        f"[auth]\nsecrt = '{HUSH}'",
        f"auth = '{HUSH}'",
        f"secret = '{HUSH}'",
        f"[auth]\nsecret = '{HUSH}'\nsecret_file = 'x'",
        f"[auth]\nsecret = '{HUSH}'\n[listen]\nport = -1",
    ],
)
def test_no_fault_shows_a_secret(file: Path, text: str) -> None:
    file.write_text(text)
    values = [fault for fault in faults_of(file, {}, {}) if HUSH in fault]
    assert not values


def test_a_long_value_is_shortened() -> None:
    fault = faults_of(None, {"CHAT_NODE_LISTEN__PORT": "9" * 1000}, {})[0]
    assert "…" in fault
    assert len(fault) < 250


def test_a_value_can_not_steer_the_terminal() -> None:
    assert faults_of(None, {"CHAT_NODE_LISTEN__PORT": "\x1b[2J"}, {})[0].isprintable()


def test_a_name_can_not_steer_the_terminal(file: Path) -> None:
    file.write_text('"\\u001b[2J" = 1')
    assert faults_of(file, {}, {})[0].isprintable()


def test_a_section_with_a_fault_does_not_come_into_being() -> None:
    with pytest.raises(ConfigError) as caught:
        Listen(port=-1, tls_key=Path("k"))
    assert [fault.key for fault in caught.value.faults] == ["port", "tls_key"]


def test_a_fault_without_source_and_value_reads_well() -> None:
    assert str(Fault("a.b", "", "wrong", "Mend it")) == "a.b: wrong. Mend it."


# Whatever is written, the loader answers with a configuration or with faults.

known = [
    (field.name, *(["default"] if field.is_named else []), name)
    for field in sections_of(Config).values()
    for setting in settings_of(field.cls)
    for name in ([setting.name, setting.name + FILE_SUFFIX] if setting.is_secret else [setting.name])
]
names = st.sampled_from(known).map("__".join) | st.text(st.characters(exclude_characters="=\0", codec="utf-8"))
values = st.sampled_from(["", "0", "1", "-1", "1e999", "nan", "true", "any", "::", "x,y"]) | st.text(
    st.characters(exclude_characters="\0", codec="utf-8")
)


def answer(path: Path | None, environ: Mapping[str, str]) -> str:
    """The configuration in force, or its faults."""
    try:
        return render_show(load(path, environ, {}))
    except ConfigError as error:
        return "\n".join(f"{fault.source}{fault.problem}" for fault in error.faults)


@given(st.dictionaries(names.map(lambda name: PREFIX + name.upper()), values, max_size=6))
@example({PREFIX + "KINDS____SCHEMA": "any"})
@example({PREFIX + "LISTEN__INTERNAL_HOST": "::1%lo"})
@example({PREFIX + "LIMITS__CONNECTIONS": "9" * 400})
def test_any_environment_gives_a_configuration_or_faults(environ: dict[str, str]) -> None:
    assert answer(None, environ)


@given(data=st.data())
def test_any_value_from_a_file_gives_a_configuration_or_faults(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.toml"
    scalar = st.sampled_from(
        [
            "0",
            "1",
            "-1",
            "2.5",
            "inf",
            "true",
            '""',
            '"x"',
            '"\\u0000"',
            "[]",
            '["x", 1]',
            "{}",
            "{x = 1}",
            "1979-05-27",
        ]
    )
    chosen = data.draw(st.dictionaries(st.sampled_from(known), scalar, max_size=6))
    path.write_text("".join(f"{'.'.join(key)} = {value}\n" for key, value in chosen.items()))
    assert answer(path, {})

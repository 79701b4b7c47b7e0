"""What is written about the configuration agrees with what is loaded."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.document import filled, main
from edge_config.load import load
from edge_config.render import README_KEYS, render_init, render_markdown_table, render_readme_table, render_show
from edge_config.schema import Auth, Config
from edge_config.secret import Secret
from edge_config.setting import sections_of, settings_of

HUSH = "correct horse battery staple"
REPOSITORY = Path(__file__).parents[2]
KEY_LINE = re.compile(r"#(\w+ = .*)")


def test_the_first_file_loads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "chat-node.toml"
    path.write_text(render_init())
    config = load(path, {}, {})
    assert config == Config()
    assert set(config.sources.values()) == {"default"}


@given(data=st.data())
def test_the_first_file_loads_with_any_of_its_keys_uncommented(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = render_init().splitlines()
    places = [number for number, line in enumerate(lines) if KEY_LINE.fullmatch(line)]
    chosen = data.draw(st.sets(st.sampled_from(places)) | st.just(set(places)))
    text = "\n".join(line[1:] if number in chosen else line for number, line in enumerate(lines))
    path = tmp_path_factory.getbasetemp() / "uncommented.toml"
    path.write_text(text)
    assert load(path, {}, {}) == Config()


def test_the_first_file_has_every_key() -> None:
    text = re.sub(KEY_LINE, r"\1", render_init())
    document = tomllib.loads(text)
    for field in sections_of(Config).values():
        section = document[field.name]["default"] if field.is_named else document[field.name]
        assert {setting.name for setting in settings_of(field.cls)} <= set(section)


def test_the_first_file_fits_on_a_screen_in_width() -> None:
    assert max(map(len, render_init().splitlines())) <= 110


def test_what_is_in_force_is_shown_with_its_origin() -> None:
    shown = render_show(load(None, {"CHAT_NODE_LOG__SHARDS": "1024"}, {"node.dev": True, "listen.port": 0}))
    assert "[listen]\n" in shown
    assert "\nport = 0  # --port\n" in shown
    assert "\nshards = 1024  # CHAT_NODE_LOG__SHARDS\n" in shown
    assert "\ninsecure = true  # default with --dev\n" in shown
    assert '\nhost = "127.0.0.1"  # default\n' in shown


@given(
    st.builds(
        lambda region, origins, seconds: {
            "node.region": region,
            "auth.allowed_origins": origins,
            "hub.drain_seconds": seconds,
        },
        st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"),
        st.lists(st.sampled_from(["*", "https://a.example", "http://[::1]:8000"])).map(tuple),
        st.floats(0, 3600),
    )
)
def test_what_is_in_force_can_be_loaded_again(
    tmp_path_factory: pytest.TempPathFactory, flags: dict[str, object]
) -> None:
    config = load(None, {}, flags)
    path = tmp_path_factory.getbasetemp() / "shown.toml"
    path.write_text(render_show(config))
    assert load(path, {}, {}) == config


def test_every_kind_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "chat-node.toml"
    path.write_text("[kinds.support]\n[kinds.Lobby]")
    shown = render_show(load(path, {}, {}))
    assert "\n[kinds.support]\n" in shown
    assert "\n[kinds.Lobby]\n" in shown


def test_a_secret_in_force_is_masked_and_can_not_be_taken_for_one(tmp_path: Path) -> None:
    shown = render_show(load(None, {"CHAT_NODE_AUTH__SECRET": HUSH}, {}))
    assert "\n# secret = ***  # CHAT_NODE_AUTH__SECRET\n" in shown
    assert HUSH not in shown
    path = tmp_path / "shown.toml"
    path.write_text(shown)
    assert load(path, {}, {}).auth.secret is None


def test_a_configuration_that_was_not_loaded_is_shown_too() -> None:
    assert "# secret = ***  # default\n" in render_show(replace(Config(), auth=Auth(secret=Secret(HUSH))))


def test_the_full_table_has_every_key_with_its_meaning() -> None:
    table = render_markdown_table()
    for field in sections_of(Config).values():
        for setting in settings_of(field.cls):
            assert f"| `{setting.name}` | `" in table
            assert setting.meaning.replace("|", "\\|") in table


def test_the_short_table_has_the_chosen_keys() -> None:
    rows = render_readme_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(README_KEYS)


def test_the_tables_hold_nothing_of_this_machine() -> None:
    assert str(Path.home()) not in render_markdown_table() + render_readme_table() + render_init()


def test_every_key_says_what_it_means_in_sentences() -> None:
    for field in sections_of(Config).values():
        for setting in settings_of(field.cls):
            assert setting.meaning.endswith("."), setting.name


@pytest.mark.parametrize("name", ["docs/configuration.md", "README.md"])
def test_documents_agree_with_the_schema(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert text == filled(text), f"run: python -m edge_config.document {name}"


def test_the_document_of_all_keys_has_a_place_for_them() -> None:
    assert "<!-- keys -->" in (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")


def test_a_table_is_written_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before <!-- configuration -->\nold\n<!-- /configuration --> after")
    main([str(path)])
    text = path.read_text()
    assert text == f"before <!-- configuration -->\n\n{render_readme_table()}\n<!-- /configuration --> after"
    assert filled(text) == text


def test_a_document_without_markers_stays_as_it_is() -> None:
    assert filled("text") == "text"


def test_a_marker_without_its_end_is_told() -> None:
    with pytest.raises(ValueError, match="<!-- keys --> has no <!-- /keys -->"):
        filled("<!-- keys -->\nmuch text")

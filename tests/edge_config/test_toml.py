"""What is written as TOML is read back the same, and keys are found on their lines."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.toml import line_numbers, toml_name, toml_value

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts


@given(scalars)
def test_a_value_is_read_back_as_it_was(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


@given(st.lists(texts).map(tuple))
def test_a_list_is_read_back_as_it_was(value: tuple[str, ...]) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": list(value)}


@given(texts)
def test_a_name_is_read_back_as_it_was(name: str) -> None:
    assert tomllib.loads(f"[{toml_name(name)}]") == {name: {}}


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, '""'), (1_048_576, "1_048_576"), (8000, "8000"), (2.0, "2.0"), (Path("/srv/chat"), '"/srv/chat"')],
)
def test_values_are_written_for_people(value: object, written: str) -> None:
    assert toml_value(value) == written


def test_a_value_that_toml_lacks_is_refused() -> None:
    with pytest.raises(TypeError, match="type object"):
        toml_value(object())


def test_keys_and_tables_are_found_on_their_lines() -> None:
    text = "\n".join(("a = 1", "", "[b]", "c.d = 2  # [e]", '  [ f . "g.h" ] # table', "'i' = 3", "i = 4"))
    assert line_numbers(text) == {
        ("a",): 1,
        ("b",): 3,
        ("b", "c", "d"): 4,
        ("f", "g.h"): 5,
        ("f", "g.h", "i"): 6,
    }

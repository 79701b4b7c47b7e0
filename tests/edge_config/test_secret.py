"""A secret is shown by nothing but `reveal`."""

import json
from pprint import pformat

import pytest

from edge_config.schema import Auth, Config, Listen
from edge_config.secret import Secret

HUSH = "correct horse battery staple"


@pytest.mark.parametrize("show", [repr, str, format, ascii, "{}".format, "{:>40}".format, "{0!r}".format, "%s".__mod__])
def test_a_secret_shows_only_its_mask(show: object) -> None:
    assert callable(show)
    assert show(Secret(HUSH)).strip() == "***"


def test_a_secret_inside_a_configuration_is_masked() -> None:
    config = Config(auth=Auth(secret=Secret(HUSH)), listen=Listen(internal_token=Secret(HUSH)))
    assert HUSH not in repr(config)
    assert HUSH not in pformat(config)


def test_a_secret_can_not_be_serialised_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret(HUSH))


def test_a_secret_can_not_be_joined_with_text() -> None:
    with pytest.raises(TypeError):
        "Bearer " + Secret(HUSH)  # type: ignore[operator]


def test_a_secret_is_revealed_when_asked() -> None:
    assert Secret(HUSH).reveal() == HUSH


def test_secrets_are_equal_when_their_values_are() -> None:
    assert Secret(HUSH) == Secret("".join(HUSH))
    assert hash(Secret(HUSH)) == hash(Secret(HUSH))
    assert Secret(HUSH) != Secret("another")
    assert Secret(HUSH) != HUSH


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret(HUSH)

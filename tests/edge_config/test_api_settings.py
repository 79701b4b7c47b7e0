"""API keys in the configuration."""

from __future__ import annotations

import pytest

from edge_config.api import KEY_CHARACTERS, Api
from edge_config.faults import ConfigError
from edge_config.notices import notices
from edge_config.schema import Config, Listen
from edge_config.secret import Secret

KEY = "k" * KEY_CHARACTERS


def test_keys_of_full_length_are_taken_with_and_without_scopes() -> None:
    Api(keys=Secret(f"{KEY} publish,read:{KEY}\nmanage:{KEY}"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (f"{KEY} {KEY[1:]}", f"key 2 has {KEY_CHARACTERS - 1} characters, so it can be guessed"),
        (f"read:{KEY[1:]}", "key 1 has"),
        (f"write:{KEY}", "key 1 has 1 scopes that do not exist"),
    ],
)
def test_a_key_that_can_be_guessed_or_has_no_such_scope_is_refused_and_not_shown(keys: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        Api(keys=Secret(keys))
    assert told in str(error.value)
    assert KEY[1:] not in str(error.value)


@pytest.mark.parametrize(
    ("host", "internal", "fits"),
    [("127.0.0.1", "::1", True), ("0.0.0.0", "127.0.0.1", False), ("127.0.0.1", "10.0.0.1", False)],
)
def test_weak_keys_are_taken_on_loopback_only(host: str, internal: str, fits: bool) -> None:
    api = Api(keys=Secret("weak"), allow_weak_keys=True)
    listen = Listen(host=host, internal_host=internal, internal_token=Secret("t"))
    if fits:
        assert any("allow_weak_keys" in notice for notice in notices(Config(api=api, listen=listen)))
        return
    with pytest.raises(ConfigError, match=r"api\.allow_weak_keys"):
        Config(api=api, listen=listen)

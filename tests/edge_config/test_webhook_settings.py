"""Webhooks in the configuration: what is refused, and what becomes of secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_config.faults import ConfigError
from edge_config.load import load
from edge_config.webhooks import EVENTS, read_secrets

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef0123456789abcdef"
GOOD = f"url = 'https://a.example/x?y=1'\nsecret = '{KEY}'\n"


def test_a_webhook_is_read_with_its_defaults_and_off_without_a_url(tmp_path: Path) -> None:
    assert [hook.url for hook in load(None, {}, {}).webhooks.values()] == [""]
    path = tmp_path / "c.toml"
    path.write_text(f"[webhooks.crm]\n{GOOD}[webhooks.off]\nevents = ['message']\n")
    hooks = load(path, {"CHAT_NODE_WEBHOOKS__CRM__LINGER_MS": "5"}, {}).webhooks
    assert list(hooks) == ["crm", "off"]
    assert (hooks["crm"].name, hooks["crm"].linger_ms, hooks["crm"].events) == ("crm", 5, ())


def test_two_secrets_are_read_the_new_one_first(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text(f"{KEY}\n{KEY[::-1]}\n")
    config = load(
        None, {"CHAT_NODE_WEBHOOKS__A__URL": "https://a.example", "CHAT_NODE_WEBHOOKS__A__SECRET_FILE": str(path)}, {}
    )
    secrets = read_secrets(config.webhooks["a"].secret)
    assert [secret.reveal() for secret in secrets] == [KEY, KEY[::-1]]
    assert read_secrets(None) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("url = 'https://a.example'", "secret: nothing to sign with"),
        (f"url = 'https://a.example'\nsecret = '{KEY[1:]}'", "it has 31 characters, so it can be guessed"),
        (f"url = 'https://a.example'\nsecret = '{KEY} {KEY} {KEY}'", "3 secrets, as there are spaces"),
        (GOOD + "events = ['massage']", "events = 'massage': no such event. Give some of message,"),
        (GOOD + "retry_seconds = 9\nretry_most_seconds = 8", "longer than retry_most_seconds = 8"),
        (f"url = 'http://a.example'\nsecret = '{KEY}'", "anybody on the way could read what is sent by http"),
        (f"url = 'https://a.example:x/'\nsecret = '{KEY}'", "no URL: Port could not be cast"),
        (f"url = 'https://a.example/ b'\nsecret = '{KEY}'", "without spaces"),
    ],
)
def test_what_can_not_work_is_refused_with_a_mend(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[webhooks.crm]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {})
    assert complaint in str(caught.value)
    assert "webhooks.crm." in str(caught.value)
    assert KEY[1:] not in str(caught.value)


def test_a_webhook_of_a_name_that_is_none_is_called_by_its_noun(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[webhooks.'a:b']\nurl = ''")
    with pytest.raises(ConfigError, match="not the name of a webhook"):
        load(path, {}, {})


def test_plain_http_is_for_ones_own_network(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[webhooks.crm]\nurl = 'http://10.0.0.1:8080/'\nsecret = '{KEY}'\nallow_private = true")
    assert load(path, {}, {}).webhooks["crm"].allow_private


def test_no_event_has_two_names() -> None:
    assert len(set(EVENTS)) == len(EVENTS)

"""A node says what it does not do, and how to change it."""

import pytest

from edge_config.address import is_loopback
from edge_config.kinds import RoomKind
from edge_config.load import load
from edge_config.notices import notices
from edge_config.schema import Auth, Config, Rooms
from edge_config.secret import Secret

GOOD_SECRET = "a secret that nobody guesses, of at least 32 bytes"


def said(environ: dict[str, str], *, dev: bool = False) -> str:
    variables = {f"CHAT_NODE_{name}": value for name, value in environ.items()}
    return "\n".join(notices(load(None, variables, {"node.dev": dev})))


def test_without_a_secret_tokens_are_refused_and_the_notice_says_so_first() -> None:
    first = notices(Config())[0]
    assert first.startswith("Client tokens are refused")
    assert "CHAT_NODE_AUTH__SECRET" in first


def test_a_short_secret_is_told_without_showing_it() -> None:
    text = said({"AUTH__SECRET": "hunter2"})
    assert "auth.secret has 7 bytes" in text
    assert "hunter2" not in text


def test_a_good_secret_needs_no_words() -> None:
    assert "secret" not in said({"AUTH__SECRET": GOOD_SECRET})


@pytest.mark.parametrize(
    ("environ", "dev", "told"),
    [
        ({}, False, "Guests are off"),
        ({}, True, "Guests may connect without a token"),
        ({"AUTH__INSECURE": "true"}, False, "Guests may connect without a token"),
        ({"AUTH__ALLOWED_ORIGINS": "*"}, False, "Any web page may connect"),
        ({}, False, "Only this machine can connect"),
        ({"LISTEN__HOST": "0.0.0.0"}, False, "TLS is off"),
        ({"LISTEN__HOST": "0.0.0.0"}, True, "anybody there may do everything"),
        ({"LOG__DURABILITY": "os"}, False, "do not survive a power cut"),
        ({"KINDS__SUPPORT__SCHEMA": "any"}, False, "add [kinds.default]"),
        ({}, False, "Moderation is off"),
    ],
)
def test_what_is_off_or_at_risk_is_told(environ: dict[str, str], dev: bool, told: str) -> None:
    assert told in said(environ, dev=dev)


@pytest.mark.parametrize(
    ("environ", "untold"),
    [
        ({"LISTEN__HOST": "0.0.0.0"}, "Only this machine"),
        ({"LISTEN__HOST": "::", "LISTEN__TLS_CERTIFICATE": "c", "LISTEN__TLS_KEY": "k"}, "TLS is off"),
        ({}, "power cut"),
        ({}, "without a kind"),
    ],
)
def test_what_is_as_it_should_be_is_not_told(environ: dict[str, str], untold: str) -> None:
    assert untold not in said(environ)


def test_a_node_without_a_default_kind_by_choice_says_how_to_have_one() -> None:
    config = Config(
        auth=Auth(secret=Secret(GOOD_SECRET)), rooms=Rooms(default_kind=""), kinds={"a": RoomKind(name="a")}
    )
    assert any("rooms.default_kind" in notice for notice in notices(config))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_other_hosts_are_not_taken_for_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "is_told"),
    [("http://10.0.0.1/", True), ("https://10.0.0.1/", False), ("http://127.0.0.1:80/", False), ("", False)],
)
def test_a_webhook_that_others_can_read_on_the_way_is_told(url: str, is_told: bool) -> None:
    environ = {"WEBHOOKS__CRM__URL": url, "WEBHOOKS__CRM__SECRET": "k" * 32, "WEBHOOKS__CRM__ALLOW_PRIVATE": "true"}
    assert ("Webhook crm is sent without TLS" in said(environ)) is is_told

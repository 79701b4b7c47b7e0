"""Channels are taken apart so that nobody gets in through the way a user id is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.channel import Channel, parse_channel
from edge_config.kinds import RoomKind
from edge_config.schema import Config, Rooms


@pytest.mark.parametrize(
    ("channel", "parsed"),
    [
        ("lobby", Channel("", private=False, users=None)),
        ("support:42", Channel("support", private=False, users=None)),
        ("support:42:a", Channel("support", private=False, users=None)),
        (":42", Channel("", private=False, users=None)),
        ("$lobby", Channel("", private=True, users=None)),
        ("$support:42", Channel("support", private=True, users=None)),
        ("support:$42", Channel("support", private=False, users=None)),
        ("lobby#u1", Channel("", private=False, users=("u1",))),
        ("support:42#u1,u2", Channel("support", private=False, users=("u1", "u2"))),
        ("#u1", Channel("", private=False, users=("u1",))),
        ("support:#u1", Channel("support", private=False, users=("u1",))),
        ("#auth0:7", Channel("", private=False, users=("auth0:7",))),
        ("#a,b", Channel("", private=False, users=("a,b",))),
        ("lobby#", Channel("", private=False, users=())),
        ("lobby#u1,,", Channel("", private=False, users=("u1",))),
        ("#", Channel("", private=False, users=())),
        ("", Channel("", private=False, users=None)),
    ],
)
def test_a_channel_is_taken_apart(channel: str, parsed: Channel) -> None:
    assert parse_channel(channel) == parsed


@given(st.text(min_size=1))
def test_a_personal_channel_admits_exactly_its_user(user: str) -> None:
    assert parse_channel(f"#{user}") == Channel("", private=False, users=(user,))


@given(st.text(min_size=1).filter(lambda user: "," not in user))
def test_a_room_for_one_user_admits_exactly_that_user(user: str) -> None:
    assert parse_channel(f"support:42#{user}").users == (user,)


@given(st.text())
def test_nobody_without_an_id_is_admitted(channel: str) -> None:
    assert "" not in (parse_channel(channel).users or ())


def test_a_channel_without_a_kind_has_the_default_kind() -> None:
    config = Config()
    assert config.kind_of("lobby") is config.kinds["default"]
    assert config.kind_of("$lobby#u1") is config.kinds["default"]


def test_a_channel_has_the_kind_that_it_names() -> None:
    support = RoomKind(name="support")
    assert Config(kinds={"support": support}).kind_of("$support:42#u1") is support


def test_a_channel_of_an_unknown_kind_has_none() -> None:
    assert Config().kind_of("support:42") is None


@pytest.mark.parametrize("default", ["default", ""])
def test_a_channel_without_a_kind_has_none_when_there_is_no_default_kind(default: str) -> None:
    config = Config(rooms=Rooms(default_kind=default), kinds={"support": RoomKind(name="support")})
    assert config.kind_of("lobby") is None

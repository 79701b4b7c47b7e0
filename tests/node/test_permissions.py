"""Kinds of rooms by their channels' names, and what a developer is told whose channel has none."""

from __future__ import annotations

import pytest

from edge_config.kinds import RoomKind
from node.codes import CommandError, ErrorCode
from node.permissions import RoomKinds

HELP = RoomKind(name="help")


@pytest.mark.parametrize(
    ("kinds", "default", "channel", "told"),
    [
        (
            {"default": RoomKind()},
            "default",
            "support:42",
            "kind 'support' is not configured; add [kinds.support], or leave 'support:' out of the name",
        ),
        ({"help": HELP}, "default", "42", "names here are KIND:NAME; for names without a kind, add [kinds.default]"),
        ({"help": HELP}, "", "42", "names here are KIND:NAME; for names without a kind, set rooms.default_kind"),
    ],
)
def test_a_channel_of_no_kind_is_refused_with_the_mend(
    kinds: dict[str, RoomKind], default: str, channel: str, told: str
) -> None:
    with pytest.raises(CommandError) as refused:
        RoomKinds(kinds, default, 255).find(channel)
    assert (refused.value.code, refused.value.message) == (ErrorCode.UNKNOWN_CHANNEL, f"unknown channel: {told}")


def test_what_the_mend_names_is_found() -> None:
    kinds = {"help": HELP, "default": RoomKind()}
    assert RoomKinds(kinds, "default", 255).find("help:42")[1] is HELP
    assert RoomKinds(kinds, "default", 255).find("42")[1] is kinds["default"]
    assert RoomKinds(kinds, "help", 255).find("42")[1] is HELP

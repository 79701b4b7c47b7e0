"""A channel's name, taken apart."""

from __future__ import annotations

from typing import Final, NamedTuple

PRIVATE_PREFIX: Final = "$"
KIND_BOUNDARY: Final = ":"
USERS_BOUNDARY: Final = "#"
USERS_SEPARATOR: Final = ","


class Channel(NamedTuple):
    """What the parts of a channel's name say.

    Attributes:
        kind: The room kind that it names; empty: the default kind.
        private: It starts with ``$``: subscribing needs a subscription token.
        users: None: open to all whom the kind admits; otherwise only to these user ids.
    """

    kind: str
    private: bool
    users: tuple[str, ...] | None


def parse_channel(channel: str) -> Channel:
    """Take apart ``[$][kind:]name[#user[,user...]]``.

    Users begin at the *first* ``#`` and the kind ends at the first ``:`` before it, so that no user id, whatever is
    in it, can name a kind or admit anybody else. Without a name (``#user``, ``kind:#user``) the rest is one user's
    id as a whole, commas included: a personal channel. An empty id admits nobody, as guests could claim it.
    """
    private = channel.startswith(PRIVATE_PREFIX)
    name, boundary, listed = channel[private:].partition(USERS_BOUNDARY)
    kind, colon, rest = name.partition(KIND_BOUNDARY)
    if not colon:
        kind, rest = "", name
    if not boundary:
        return Channel(kind, private, None)
    users = listed.split(USERS_SEPARATOR) if rest else [listed]
    return Channel(kind, private, tuple(user for user in users if user))

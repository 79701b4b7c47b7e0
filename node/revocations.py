"""Tokens that are refused although they are genuine: by their id, by their user, by when they were issued.

Kept in `revocations.json` in the data directory. An entry may have an end, when the tokens that it refuses have expired
by themselves; ended entries are dropped at each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from node.site_file import REVOCATIONS, SitesFault, locked, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Revoked(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A user's tokens issued before a moment; both in seconds since 1970, `until` None: for ever."""

    before: float
    until: float | None = None


class SiteRevocations(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What one site has revoked.

    Attributes:
        tokens: When the refusal of a token id ends (None: never).
        users: By user id.
        before: All tokens issued before this moment; 0: none.
    """

    tokens: dict[str, float | None] = {}
    users: dict[str, Revoked] = {}
    before: float = 0.0

    def prune(self, now: float) -> None:
        """Forget what has ended."""
        self.tokens = {name: until for name, until in self.tokens.items() if until is None or until > now}
        self.users = {name: it for name, it in self.users.items() if it.until is None or it.until > now}


class _File(Struct, forbid_unknown_fields=True):
    version: int = 1
    sites: dict[str, SiteRevocations] = {}


class Revocations:
    """What all sites of a node have revoked.

    Args:
        sites: By name.
    """

    __slots__ = ("_sites",)

    def __init__(self, sites: Mapping[str, SiteRevocations] | None = None) -> None:
        self._sites = dict(sites or {})

    def __bool__(self) -> bool:
        """Whether anything is revoked."""
        return bool(self._sites)

    def names(self, site: str, user: str) -> bool:
        """Whether a user of a site was revoked at any time."""
        revoked = self._sites.get(site)
        return revoked is not None and user in revoked.users

    def refusal(self, site: str, user: str, token_id: str, issued: float | None, now: float) -> str:
        """Why a token is refused; empty: it is not.

        Args:
            site: Whose.
            user: `sub`, or empty.
            token_id: `jti`, or empty.
            issued: `iat`; None: a token that does not tell counts as issued long ago.
            now: Seconds since 1970.
        """
        revoked = self._sites.get(site)
        if revoked is None:
            return ""
        until = revoked.tokens.get(token_id, 0.0) if token_id else 0.0
        if until is None or until > now:
            return "it was revoked"
        since = issued if issued is not None else 0.0
        if since < revoked.before:
            return "tokens issued so long ago were revoked"
        of_user = revoked.users.get(user) if user else None
        if of_user is not None and since < of_user.before and (of_user.until is None or of_user.until > now):
            return "the user's tokens of that time were revoked"
        return ""


def read(data_dir: Path) -> Revocations:
    """What is revoked; nothing if there is no file.

    Raises:
        SitesFault: The file can't be used.
    """
    return Revocations(_read(data_dir).sites)


def revoke(  # noqa: PLR0913
    data_dir: Path, site: str, *, token_id: str = "", user: str = "", before: float, until: float | None, now: float,
    most: int,
) -> None:  # fmt: skip
    """Revoke a token by its id, or a user's tokens issued before a moment, or else all issued before it.

    Args:
        data_dir: The node's.
        site: Whose.
        token_id: `jti`.
        user: `sub`.
        before: Seconds since 1970; without meaning for a token id.
        until: When the refusal ends; without meaning for all tokens.
        now: Seconds since 1970.
        most: Entries of one site, by id and by user each.

    Raises:
        SitesFault: It can't be written, or there is too much of it.
    """
    with locked(data_dir):
        content = _read(data_dir)
        revoked = content.sites.setdefault(site, SiteRevocations())
        if token_id:
            revoked.tokens[token_id] = until
        elif user:
            old = revoked.users.get(user)
            revoked.users[user] = Revoked(max(before, old.before if old is not None else 0.0), until)
        else:
            revoked.before = max(before, revoked.before)
        for each in content.sites.values():
            each.prune(now)
        if max(len(revoked.tokens), len(revoked.users)) > most:
            raise SitesFault(
                f"Site {site!r} has revoked {most} tokens or users, which is the most (auth.revocations)."
                " Revoke all issued before a moment (--before), and let users sign in again."
            )
        write_json(data_dir / REVOCATIONS, content)


def forget(data_dir: Path, site: str) -> None:
    """Drop what a removed site has revoked.

    Raises:
        SitesFault: It can't be written.
    """
    with locked(data_dir):
        content = _read(data_dir)
        if content.sites.pop(site, None) is not None:
            write_json(data_dir / REVOCATIONS, content)


def _read(data_dir: Path) -> _File:
    path = data_dir / REVOCATIONS
    content = read_json(path, _File) or _File()
    if content.version != 1:
        raise SitesFault(f"{path} is of version {content.version}; this program reads version 1.")
    return content

"""Receivers of webhooks: those of the configuration, for the default site, and those of `sites.json`.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from typing_extensions import override

from edge_config.webhooks import ATTENDANCE, EVENTS, LOGGED, WebhookTarget, read_secrets
from node.sites import DEFAULT_SITE
from node.webhook_delivery import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_config.secret import Secret
    from node.sites import Site, Sites, Webhook

HOUR_MS: Final = 3_600_000
_DEFAULTS: Final = WebhookTarget()


class TargetId(NamedTuple):
    """A receiver's full name."""

    site: str
    name: str

    @override
    def __str__(self) -> str:
        """As people write it."""
        return f"{self.site}/{self.name}"


@dataclass(slots=True, frozen=True)
class Target:
    """A receiver.

    Attributes:
        id: Its name.
        url: Where it is.
        secrets: What signs, each with the second since 1970 when it ends.
        events: Names of those that it wants.
        allow_private: Whether it may have an address that is not public.
        pace: How it is sent to.
        timeout_seconds: For one attempt.
        settle_seconds: After which comings and goings are told.
        dead_letters: So many are kept.
    """

    id: TargetId
    url: str
    secrets: tuple[tuple[Secret, float], ...] = field(repr=False)
    events: frozenset[str]
    allow_private: bool
    pace: Pace
    timeout_seconds: float
    settle_seconds: float
    dead_letters: int

    def secrets_at(self, now: float) -> list[Secret]:
        """Those that sign at a moment, in seconds since 1970."""
        return [secret for secret, until in self.secrets if until > now]

    @property
    def wants_log(self) -> bool:
        """Whether anything of the log is for it."""
        return not self.events.isdisjoint(LOGGED)

    @property
    def wants_attendance(self) -> bool:
        """Whether it is told who comes and goes."""
        return not self.events.isdisjoint(ATTENDANCE)


def targets_of(configured: Mapping[str, WebhookTarget], sites: Sites) -> dict[TargetId, Target]:
    """All receivers. Of a configured one and one of the file by the same name, the configured one counts.

    Args:
        configured: `Config.webhooks`.
        sites: All sites.
    """
    found = {}
    for site in sites:
        for hook in site.webhooks:
            target = _of_site(site, hook)
            found[target.id] = target
    for name, settings in configured.items():
        if settings.url:
            target_id = TargetId(DEFAULT_SITE, name)
            secrets = tuple((secret, inf) for secret in read_secrets(settings.secret))
            found[target_id] = _target(
                target_id,
                settings,
                settings.url,
                secrets,
                frozenset(settings.events),
                allow_private=settings.allow_private,
            )
    return found


def _of_site(site: Site, hook: Webhook) -> Target:
    secrets = ((hook.secret, inf), *((old.secret, old.until) for old in hook.old_secrets))
    return _target(
        TargetId(site.name, hook.id), _DEFAULTS, hook.url, secrets, hook.events, allow_private=hook.allow_private
    )


def _target(  # noqa: PLR0913 - what a receiver of the file has of its own
    name: TargetId, settings: WebhookTarget, url: str, secrets: tuple[tuple[Secret, float], ...],
    events: frozenset[str], *, allow_private: bool,
) -> Target:  # fmt: skip
    pace = Pace(
        settings.batch_events, settings.batch_bytes, settings.linger_ms / 1000, settings.retry_seconds,
        settings.retry_most_seconds, round(settings.give_up_hours * HOUR_MS), settings.waiting_events,
    )  # fmt: skip
    return Target(
        name, url, secrets, events or frozenset(EVENTS), allow_private, pace, settings.timeout_seconds,
        settings.settle_seconds, settings.dead_letters,
    )  # fmt: skip

"""``chat-node site add-webhook`` and its like: where a site's back end is told of events."""

import secrets
import time
from typing import Annotated, Final

import typer

from edge_config.webhooks import EVENTS
from node import site_file
from node.site_command import Name, entry_of, place
from node.site_file import OldSecretEntry, SiteEntry, SiteFile, WebhookEntry
from node.sites import DEFAULT_SITE
from node.terminal import MISUSED, ConfigFile, DataDir, expected_faults, failure, remark, seconds_of
from node.webhook_files import TargetFiles
from node.webhook_target import TargetId

SECRET_BYTES: Final = 32

WebhookName = Annotated[str, typer.Argument(help="The webhook's name, as the list shows it.")]


def add_webhook(  # noqa: PLR0913 (one parameter per flag)
    name: Name,
    url: Annotated[str, typer.Argument(help="Where events are sent: https; with --allow-private http too.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    webhook: Annotated[str, typer.Option("--name", help="Its name within the site; else one is made.")] = "",
    event: Annotated[
        list[str] | None, typer.Option(help=f"An event that it is sent, of {', '.join(EVENTS)}; else all.")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="The receiver may have an address that is not of the internet.")
    ] = False,
) -> None:
    """Have a site's back end told of events. The secret that signs them is shown this once."""
    settings, folder = place(config, data_dir)
    if unknown := set(event or ()).difference(EVENTS):
        raise failure(f"--event {', '.join(sorted(unknown))} does not exist. Give {', '.join(EVENTS)}.", MISUSED)
    made = WebhookEntry(
        webhook or secrets.token_hex(4), url, secrets.token_hex(SECRET_BYTES), event or [],
        allow_private=allow_private,
    )  # fmt: skip
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        entry = content.find(name)
        if entry is None and name == DEFAULT_SITE:
            content.sites.append(entry := SiteEntry(name))
        hooks = (entry or entry_of(content, name)).webhooks
        if any(hook.id == made.id for hook in hooks):
            raise failure(f"Site {name!r} has a webhook {made.id!r} already. Give another --name.")
        hooks.append(made)
    remark(f"Webhook {name}/{made.id}; try it: chat-node webhook test {name}/{made.id}. Its secret, not shown again:")
    typer.echo(made.secret)


def rotate_webhook_secret(
    name: Name,
    webhook: WebhookName,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    *,
    grace: Annotated[str, typer.Option(help="How long the old secret still signs, too: 0, 10m, 1h, 30d.")] = "1d",
) -> None:
    """Give a webhook a new secret. For a while the old one signs beside it, so that no event is refused."""
    settings, folder = place(config, data_dir)
    now = time.time()
    end = now + (seconds_of("--grace", grace) or 0)
    with expected_faults(), site_file.change(folder, settings.auth) as content:
        hook = _hook(content, name, webhook)
        hook.old_secrets = [OldSecretEntry(hook.secret, end)] if end > now else []
        hook.secret = secrets.token_hex(SECRET_BYTES)
    remark(f"Webhook {name}/{webhook} signs with a new secret; it is not shown again:")
    typer.echo(hook.secret)


def remove_webhook(name: Name, webhook: WebhookName, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Send a webhook's receiver nothing more, and forget its dead letters."""
    settings, folder = place(config, data_dir)
    with expected_faults():
        with site_file.change(folder, settings.auth) as content:
            entry_of(content, name).webhooks.remove(_hook(content, name, webhook))
        TargetFiles(folder, TargetId(name, webhook)).forget()
    remark(f"Removed webhook {name}/{webhook}.")


def _hook(content: SiteFile, site: str, webhook: str) -> WebhookEntry:
    found = next((hook for hook in entry_of(content, site).webhooks if hook.id == webhook), None)
    if found is None:
        raise failure(f"Site {site!r} has no webhook {webhook!r}; chat-node webhook list shows them.")
    return found

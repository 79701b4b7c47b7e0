"""``chat-node webhook``: trying receivers out, looking at how they do, and sending again what they did not take."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import trio
import typer

from node import endpoints, site_file
from node.chat import timestamp
from node.sites import DEFAULT_SITE
from node.status_table import counted, duration
from node.terminal import MISUSED, ConfigFile, DataDir, expected_faults, failure, read_config, remark
from node.version import VERSION
from node.webhook_delivery import Outcome
from node.webhook_events import Origin, request_body, test_event
from node.webhook_files import TargetFiles
from node.webhook_post import Answer, Unanswered, post
from node.webhook_signature import HEADER, sign
from node.webhook_target import Target, TargetId, targets_of
from router.log_lock import is_held

POLL_SECONDS: Final = 0.2

app = typer.Typer(
    help="Webhooks: where sites' back ends are told of events. docs/webhooks.md says what they get.",
    no_args_is_help=True,
)

Named = Annotated[str, typer.Argument(metavar="WEBHOOK", help="SITE/NAME, or NAME for one of the default site.")]
Structured = Annotated[bool, typer.Option("--json", help="JSON, an object on a line, for programs.")]


@app.command("test")
def try_out(webhook: Named, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Send a signed event of type `test` from here, and print what comes back. Needs no running node."""
    targets, folder = _targets(config, data_dir)
    target = _find(targets, webhook)
    node = endpoints.read(folder)
    origin = Origin(target.id.site, target.id.name, node.node if node else "none", secrets.token_hex(4))
    now_ms = time.time_ns() // 1_000_000
    body = request_body(origin, [test_event(f"{origin.boot}-test", now_ms)])
    headers = {"User-Agent": f"chat-node/{VERSION}", "X-ChatNode-Attempt": "1"}
    headers[HEADER] = sign(body, target.secrets_at(now_ms / 1000), now_ms // 1000)

    async def send() -> Answer:
        return await post(target.url, body, headers, target.timeout_seconds, allow_private=target.allow_private)

    remark(f"POST {target.url} with {len(body)} bytes, signed with {counted(headers[HEADER].count('v1='), 'secret')}.")
    try:
        answer = trio.run(send)
    except Unanswered as trouble:
        raise failure(f"No answer ({trouble.trouble.value}): {trouble}.") from None
    typer.echo(f"{answer.status} from {answer.address} after {answer.seconds * 1000:.0f} ms")
    if answer.text:
        typer.echo(answer.text)
    match answer.outcome:
        case Outcome.DELIVERED:
            remark("It takes events.")
        case Outcome.REFUSED:
            raise failure("Events that are answered so become dead letters at once. Answer 200 to what was taken.")
        case Outcome.FAILED:
            raise failure("Events that are answered so are sent again. Answer 200 to what was taken.")


@app.command("list")
def list_(config: ConfigFile = None, data_dir: DataDir = None, *, structured: Structured = False) -> None:
    """Show all webhooks: how far each receiver has got, what went wrong last, and its dead letters."""
    targets, folder = _targets(config, data_dir)
    with expected_faults():
        described = [_described(target, folder) for target in targets.values()]
    if not described and not structured:
        remark("There are no webhooks. Configure [webhooks.NAME], or use `chat-node site add-webhook`.")
    for told in described:
        if structured:
            typer.echo(msgspec.json.encode(told).decode())
            continue
        typer.echo(told["webhook"])
        for label, value in told.items():
            if label != "webhook" and value not in (None, "", 0):
                shown = ", ".join(value) if isinstance(value, list) else value
                typer.echo(f"  {label.replace('_', ' '):14} {shown}")


@app.command()
def replay(
    webhook: Named,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to wait for what becomes of it.")] = 60.0,
) -> None:
    """Have the running node send a webhook's dead letters again, under their ids, until one is not taken."""
    targets, folder = _targets(config, data_dir)
    target = _find(targets, webhook)
    files = TargetFiles(folder, target.id)
    with expected_faults():
        waiting = len(files.dead())
        if not waiting:
            remark(f"Webhook {target.id} has no dead letters.")
            return
        if not is_held(folder):
            raise failure(f"No node runs with {folder}. Start it: it sends dead letters, with texts of its log.")
        files.wish()
        until = time.monotonic() + timeout
        while (answer := files.answer()) is None:
            if time.monotonic() > until:
                raise failure(f"Nothing was heard of it within {timeout:g} s; the node will try it when it can.")
            time.sleep(POLL_SECONDS)
    remark(f"Sent {answer.sent} of {counted(answer.sent + answer.left, 'dead letter')}.")
    if answer.error:
        raise failure(f"{answer.left} are left: {answer.error}. Mend the receiver, and try again.")


def _targets(config: Path | None, data_dir: Path | None) -> tuple[Mapping[TargetId, Target], Path]:
    settings = read_config(config)
    folder = data_dir or settings.node.data_dir
    with expected_faults():
        return targets_of(settings.webhooks, site_file.load(folder, settings.auth)), folder


def _find(targets: Mapping[TargetId, Target], named: str) -> Target:
    site, slash, name = named.rpartition("/")
    target = targets.get(TargetId(site if slash else DEFAULT_SITE, name))
    if target is None:
        known = ", ".join(map(str, targets)) or "none; configure [webhooks.NAME], or use `chat-node site add-webhook`"
        raise failure(f"There is no webhook {named!r}. There are: {known}.", MISUSED)
    return target


def _described(target: Target, folder: Path) -> dict[str, Any]:
    files = TargetFiles(folder, target.id)
    progress, dead = files.progress(), files.dead()
    told: dict[str, Any] = {
        "webhook": str(target.id),
        "url": target.url,
        "events": sorted(target.events),
        "state": "not begun",
        "delivered": 0,
        "last_delivered": None,
        "waiting": 0,
        "oldest_waiting": None,
        "last_error": "",
        "last_error_at": None,
        "dead_letters": len(dead),
        "oldest_dead": _moment(dead[0].ts) if dead else None,
        "dead_because": dead[-1].why if dead else "",
        "dropped_dead": 0,
    }
    if progress is not None:
        since = progress.failing_since
        told |= {
            "state": "ok" if since is None else f"failing for {duration(time.time() - since / 1000)}",
            "delivered": progress.delivered,
            "last_delivered": _moment(progress.delivered_at),
            "waiting": progress.waiting,
            "oldest_waiting": _moment(progress.oldest),
            "last_error": progress.error,
            "last_error_at": _moment(progress.error_at),
            "dropped_dead": progress.lost_letters,
        }
    return told


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds).decode()

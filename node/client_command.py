"""``chat-node chat``, ``send`` and ``tail``: a room from a terminal, or from a script."""

import os
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
import trio
import typer

from node.client import (
    Client,
    ClientFault,
    ConnectionEnded,
    Event,
    Gap,
    OutcomeUnknown,
    Publication,
    Refused,
    Subscription,
    SubscriptionEnded,
    Unreachable,
    open_client,
)
from node.codes import ErrorCode
from node.terminal import FAILED, INTERRUPTED, MISUSED, failure, leaves, remark

URL: Final = "http://127.0.0.1:8000"
CONNECT_SECONDS: Final = 10.0  # somebody waits at the terminal
READ_BYTES: Final = 65_536
STANDARD_INPUT: Final = 0
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")  # of others: must not steer the terminal
_MENDS: Final = {
    3500: "Make one by `chat-node token create --user NAME` for this node, and give it as --token.",
    109: "Make a new one by `chat-node token create --user NAME`.",
    103: "Ask who runs the node, or give a --token that may.",
}

Room = Annotated[str, typer.Argument(metavar="ROOM", help="The room, such as lobby or support:42.")]
Url = Annotated[
    str, typer.Option("--url", envvar="CHAT_CLIENT_URL", help="Public port of the node: http(s):// or ws(s)://.")
]
UserToken = Annotated[
    str | None,
    typer.Option("--token", envvar="CHAT_CLIENT_TOKEN", help="Says who you are; without it you are a guest."),
]
Structured = Annotated[bool, typer.Option("--json", help="Messages as JSON, an object on a line, for programs.")]


def chat(room: Room, url: Url = URL, token: UserToken = None, *, structured: Structured = False) -> None:
    """Chat in a room: each line of standard input is a message; what is said in the room is printed in order.

    At the end of the input it waits until all is sent, and ends. Exits with 0, or with 1 if something was not sent.
    """

    async def converse(client: Client) -> None:
        printed = _Printed(0, structured=structured)
        async with client.subscribe(room) as events, trio.open_nursery() as nursery:
            nursery.start_soon(printed.follow, events)
            last = 0

            async def say(line: str) -> None:
                nonlocal last
                if line.strip():
                    last = (await client.send(room, line))["sequence"]

            await _each_line(say)
            await printed.wait(last)
            nursery.cancel_scope.cancel()

    _run(url, token, converse)


def send(  # noqa: PLR0913 (one parameter per flag)
    room: Room,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message; - takes standard input.")],
    url: Url = URL,
    token: UserToken = None,
    message_id: Annotated[
        str | None, typer.Option("--id", help="Its id, to repeat a message whose outcome is unknown: it is sent once.")
    ] = None,
    *,
    structured: Structured = False,
) -> None:
    """Send one message, and print its sequence when it is on the node's disk.

    Exits with 0; with 1 if it was not sent, or if the outcome is unknown: then the error names the id for a repetition.
    """
    content = sys.stdin.read().rstrip("\n") if text == "-" else text

    async def say(client: Client) -> None:
        try:
            message = await client.send(room, content, id=message_id)
        except Refused as refused:
            if refused.code != ErrorCode.PERMISSION_DENIED:
                raise
            async with client.subscribe(room):  # most rooms let only those speak who are in them
                message = await client.send(room, content, id=message_id)
        _put(msgspec.json.encode(message).decode() if structured else str(message["sequence"]))

    _run(url, token, say)


def tail(  # noqa: PLR0913 (one parameter per flag)
    room: Room,
    since: Annotated[
        int | None, typer.Option(min=0, help="Begin after this sequence; 0: with the first. Without it: from now on.")
    ] = None,
    url: Url = URL,
    token: UserToken = None,
    *,
    follow: Annotated[bool, typer.Option(help="Go on with what is said from now on; or end at the newest.")] = True,
    structured: Structured = False,
) -> None:
    """Print what is said in a room, in order and without a hole; what can't be had any more is said on standard error.

    Exits with 0 at the newest message (--no-follow), with 130 at Ctrl-C.
    """

    async def watch(client: Client) -> None:
        async with client.subscribe(room) as now:  # most rooms show their history only to those who are in them
            top = now.position.offset if now.position is not None else 0
        if since is not None and since > top:
            raise failure(f"--since is {since}, but the newest in {room!r} is {top}. Give {top} or less.", MISUSED)
        start = since if since is not None else top
        printed = _Printed(start, structured=structured)
        async with client.subscribe(room, since=start) as events, trio.open_nursery() as nursery:
            nursery.start_soon(printed.follow, events)
            if not follow:
                await printed.wait(top)
                nursery.cancel_scope.cancel()

    _run(url, token, watch)


class _Printed:
    """Prints events, and knows how far it is.

    Args:
        offset: Where it begins.
        structured: As JSON.
    """

    def __init__(self, offset: int, *, structured: bool) -> None:
        self._offset, self._structured = offset, structured
        self._moved = trio.Event()

    async def follow(self, events: Subscription) -> None:
        """Print all events."""
        async for event in events:
            self._print(event)
            if isinstance(event, Gap):
                remark(f"Lost: {event.after.offset + 1} to {event.until.offset}, for {event.reason}.")
                self._reach(event.until.offset)
            elif isinstance(event, Publication) and event.offset:
                self._reach(event.offset)

    async def wait(self, offset: int) -> None:
        """Return when everything up to an offset is printed."""
        while self._offset < offset:
            await self._moved.wait()

    def _reach(self, offset: int) -> None:
        self._offset = offset
        self._moved.set()
        self._moved = trio.Event()

    def _print(self, event: Event) -> None:
        if isinstance(event, Publication) and (event.offset or self._structured):
            _put(msgspec.json.encode(event.data).decode() if self._structured else told(event))


def told(event: Publication) -> str:
    """A message as a line for people; further lines of a text are indented, so that none passes for a message."""
    data: Any = event.data
    if not isinstance(data, dict) or "type" not in data:
        return f"{event.offset} {_plain(msgspec.json.encode(data).decode())}"
    said = {
        "placeholder": "(removed)",
        "edit": f"(of {data.get('target')}) {data.get('content')}",
        "removed": f"(removed {data.get('target') or 'all of ' + str(data.get('user'))})",
        "system": f"({data.get('event')}{_details(data.get('data'))})",
        "reaction": f"{data.get('emoji')} (to {data.get('target')})",
        "unreaction": f"(took back {data.get('emoji')} to {data.get('target')})",
    }.get(data["type"], data.get("content") or f"({data['type']})")
    moment = str(data.get("timestamp", ""))[11:19]
    return f"{moment} {_plain(str(data.get('userId', '')))}: {_plain(said)}"


def _details(given: object) -> str:
    """Names and values of a system message, such as `: by ada, user bob`."""
    return ": " + ", ".join(f"{name} {value}" for name, value in given.items()) if isinstance(given, dict) else ""


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("\n", "\n    ")


def _put(line: str) -> None:
    """Print a line at once: who reads a pipe waits for it."""
    typer.echo(line)
    sys.stdout.flush()


async def _each_line(use: Callable[[str], Awaitable[None]]) -> None:
    """Read standard input to its end, a line at a time.

    It is read by its descriptor, in a thread that may be left behind: one that waits in `sys.stdin` would hold a lock
    that the interpreter needs to end.
    """
    rest = b""
    while data := await trio.to_thread.run_sync(os.read, STANDARD_INPUT, READ_BYTES, abandon_on_cancel=True):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            await use(line.decode(errors="replace").rstrip("\r"))
    await use(rest.decode(errors="replace"))


def _run(url: str, token: str | None, use: Callable[[Client], Awaitable[None]]) -> None:
    """Connect, use the connection, and tell faults to a person.

    Raises:
        typer.Exit: With 1 or 2, or 130 after Ctrl-C.
    """
    ends: list[typer.Exit] = []

    async def connect_and_use() -> None:
        async with open_client(url, token=token or None, name="chat-node", connect_seconds=CONNECT_SECONDS) as client:
            await use(client)

    try:
        trio.run(connect_and_use)
    except* KeyboardInterrupt:
        ends.append(typer.Exit(INTERRUPTED))
    except* BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ends.append(typer.Exit(0))
    except* (ClientFault, ValueError, typer.Exit) as group:
        ends.extend(_told_fault(fault) for fault in leaves(group))
    if ends:
        raise ends[0]


def _told_fault(fault: Exception) -> typer.Exit:
    """Tell a fault and its mend."""
    if isinstance(fault, typer.Exit):
        return fault
    mend = ""
    if isinstance(fault, ConnectionEnded | Refused | SubscriptionEnded):
        mend = _MENDS.get(fault.code, "")
    elif isinstance(fault, OutcomeUnknown):
        mend = f"Send it again with --id {fault.id}: it is sent once."
    elif isinstance(fault, Unreachable):
        mend = "Is the node running there? Give its public port as --url or $CHAT_CLIENT_URL."
    text = str(fault).rstrip(".")
    return failure(
        f"{text[:1].upper()}{text[1:]}. {mend}".rstrip(), MISUSED if isinstance(fault, ValueError) else FAILED
    )

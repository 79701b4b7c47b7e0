"""The server API over HTTP: ``POST /api/METHOD`` with a key, compatible with Centrifugo's HTTP API.

An answer is `{"result": ...}` or `{"error": {"code", "message"}}`. As there, a method's error has status 200, unless
the header ``X-Centrifugo-Error-Mode: transport`` asks for a status of its own; what is wrong with the request itself
has one always. Requests are read and answers awaited here; methods are carried out on the hub's task
(node/api_desk.py).
"""

from __future__ import annotations

import time
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio
from msgspec import Raw, Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from node import api_calls as calls
from node.api_desk import Pending
from node.api_table import BATCH, EVERY, METHODS, BatchRequest
from node.codes import CommandError, ErrorCode, too_many
from node.mends import mend
from node.ratelimit import Bucket
from node.session import COMMAND_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from edge_config.api import Api as Settings
    from node.api_desk import Desk, Steps
    from node.api_keys import Caller, Keys
    from node.api_methods import Methods
    from node.metrics import Metrics

PREFIX: Final = "/api/"
BODY_SECONDS: Final = 10.0  # for a request's body
BATCH_SECONDS: Final = 8.0  # for all of a batch or broadcast: libraries give up after 10
AT_ONCE: Final = 256  # operations of one request that are on the desk together
BURST_SECONDS: Final = 5.0  # a site that was quiet may send so many seconds' worth of requests at once
STATUS: Final[Mapping[int, HTTPStatus]] = {
    ErrorCode.INTERNAL: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.UNKNOWN_CHANNEL: HTTPStatus.NOT_FOUND,
    ErrorCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    ErrorCode.METHOD_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.TOO_MANY_REQUESTS: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.UNRECOVERABLE_POSITION: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
}
"""Statuses of errors in transport mode; those of others are 400."""

_JSON: Final = "application/json"
NO_SITE: Final = ""  # of requests without a key of ours, in metrics

T = TypeVar("T", bound=Struct)


class Refused(Exception):
    """The request itself is not to be had; `fields` are header fields of the answer."""

    def __init__(self, status: HTTPStatus, error: CommandError | ErrorCode, detail: str = "", **fields: str) -> None:
        super().__init__(detail)
        self.status, self.error = status, error if isinstance(error, CommandError) else CommandError(error, detail)
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}


class Api:
    """An ASGI application.

    Args:
        methods: Carried out on the hub's task.
        desk: The way there.
        keys: Who may ask.
        settings: Bounds.
        metrics: Where requests are counted.
    """

    def __init__(self, methods: Methods, desk: Desk, keys: Keys, settings: Settings, metrics: Metrics) -> None:
        self._methods, self._desk, self._keys, self._settings = methods, desk, keys, settings
        self._metrics = metrics
        self._rates: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        name = request.url.path.removeprefix(PREFIX)
        caller: Caller | None = None
        try:
            caller = self._admit(request, name)
            body = await self._read(request)
            answer = await self._perform(caller, name, body)
            response = _answered(request, answer)
        except Refused as refused:
            answer = refused.error
            response = _error(refused.error, refused.status, refused.fields)
        except ClientDisconnect:
            return
        site, method = caller.site if caller is not None else NO_SITE, name if name in EVERY else "unknown"
        self._metrics.api_requests[site, method, _outcome(answer)] += 1
        await response(scope, receive, send)

    # -- requests ------------------------------------------------------------------------------------------------

    def _admit(self, request: Request, name: str) -> Caller:
        """Whose request it is, if it may be made at all."""
        caller = self._keys.find(_key(request))
        if caller is None:
            mend = "send the header X-API-Key: KEY, or Authorization: apikey KEY, with a key of the site"
            raise Refused(HTTPStatus.UNAUTHORIZED, ErrorCode.UNAUTHORIZED, mend, www_authenticate="apikey")
        if name not in EVERY:
            mend = f"there is no method {name[:60]!r}; POST to {PREFIX} with one of {', '.join(EVERY)}"
            raise Refused(HTTPStatus.NOT_FOUND, ErrorCode.METHOD_NOT_FOUND, mend)
        if request.method != "POST":
            mend = f"{request.method} is not taken here; POST the request as JSON"
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, ErrorCode.BAD_REQUEST, mend, allow="POST")
        if name != BATCH and not caller.may(METHODS[name].scope):
            raise Refused(HTTPStatus.FORBIDDEN, ErrorCode.PERMISSION_DENIED, _scopeless(name))
        self._limit(caller.site)
        return caller

    def _limit(self, site: str) -> None:
        rate, now = self._settings.site_requests, time.monotonic()
        if not rate:
            return
        if site not in self._rates:
            self._rates[site] = Bucket(rate, rate * BURST_SECONDS, now)
        wait = self._rates[site].take(now)
        if wait:
            error = too_many(wait, "api.site_requests")
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, error, retry_after=str(ceil(wait)))

    async def _read(self, request: Request) -> bytes:
        """The body.

        Raises:
            Refused: It is none of ours.
        """
        media = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
        if media != _JSON:
            mend = f"Content-Type is {media[:60]!r}; send {_JSON} (curl: -H 'Content-Type: {_JSON}')"
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ErrorCode.BAD_REQUEST, mend)
        most = self._settings.body_bytes
        too_big = Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorCode.BAD_REQUEST, f"a body has at most {most} bytes; send less"
        )
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 16 or int(length) > most:
            raise too_big
        body = bytearray()
        with trio.move_on_after(BODY_SECONDS) as time_out:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > most:
                        raise too_big
        if time_out.cancelled_caught:
            mend = f"the body did not come within {BODY_SECONDS:.0f} s"
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, ErrorCode.BAD_REQUEST, mend)
        return bytes(body)

    # -- methods -------------------------------------------------------------------------------------------------

    async def _perform(self, caller: Caller, name: str, body: bytes) -> bytes | CommandError:
        """The whole answer, or the error of a method."""
        until = trio.current_time() + BATCH_SECONDS
        if name == BATCH:
            return await self._batch(caller, _decoded(body, BatchRequest), until)
        answer = await self._call(caller, name, _decoded(body, METHODS[name].request), until)
        return b'{"result":%b}' % answer if isinstance(answer, bytes) else answer

    async def _call(self, caller: Caller, name: str, request: Struct, until: float) -> bytes | CommandError:
        """The encoded result of one method."""
        if isinstance(request, calls.BroadcastRequest):
            return await self._broadcast(caller, request, until)
        return await self._ask(caller, name, request, until)

    async def _ask(self, caller: Caller, name: str, request: Struct, until: float) -> bytes | CommandError:
        """Have the hub's task carry out a method, and wait for its answer."""
        pending: Pending[bytes | CommandError] = Pending()
        perform = METHODS[name].perform

        def start() -> Steps:
            if perform is None or not pending.begin():
                return None
            try:
                steps = perform(self._methods, caller.site, request, pending)
            except CommandError as error:
                pending(error)
                return None
            return None if steps is None else _while_awaited(steps, pending)

        if not self._desk.put(start):
            return CommandError(ErrorCode.INTERNAL, "too many requests are waiting; try again later")
        answer = await pending.wait(min(COMMAND_SECONDS, max(0.0, until - trio.current_time())))
        if answer is not None:
            return answer
        if not pending.begun:
            return CommandError(ErrorCode.INTERNAL, "it was not begun in time, and won't be; try again")
        return CommandError(ErrorCode.INTERNAL, "no answer in time; try again, with the same idempotency_key")

    async def _broadcast(self, caller: Caller, request: calls.BroadcastRequest, until: float) -> bytes | CommandError:
        shared = {name: getattr(request, name) for name in calls.Content.__struct_fields__}
        wanted = [calls.PublishRequest(channel=channel, **shared) for channel in request.channels]
        if not 0 < len(wanted) <= self._settings.batch_operations:
            most = self._settings.batch_operations
            return CommandError(ErrorCode.BAD_REQUEST, f"{len(wanted)} channels; give 1 to {most}")
        answers = await _all([partial(self._ask, caller, "publish", one, until) for one in wanted])
        replies = [
            b'{"result":%b}' % answer if isinstance(answer, bytes) else _error_json(answer) for answer in answers
        ]
        return b'{"responses":[%b]}' % b",".join(replies)

    async def _batch(self, caller: Caller, request: BatchRequest, until: float) -> bytes:
        commands = [_command(given) for given in request.commands]
        size = sum(len(one.channels) if isinstance(one, calls.BroadcastRequest) else 1 for _, one in commands)
        most = self._settings.batch_operations
        if size > most:
            raise _malformed(f"the batch has {size} commands and channels to broadcast to; at most {most} are taken")

        async def reply(name: str, one: Struct) -> bytes:
            if caller.may(METHODS[name].scope):
                answer = await self._call(caller, name, one, until)
            else:
                answer = CommandError(ErrorCode.PERMISSION_DENIED, _scopeless(name))
            self._metrics.api_requests[caller.site, name, _outcome(answer)] += 1
            return b'{"%b":%b}' % (name.encode(), answer) if isinstance(answer, bytes) else _error_json(answer)

        steps = [partial(reply, *command) for command in commands]
        replies = await _all(steps) if request.parallel else [await step() for step in steps]
        return b'{"replies":[%b]}' % b",".join(replies)


def _key(request: Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return request.headers.get("x-api-key") or (credential.strip() if scheme.lower() == "apikey" else "")


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        body.decode()  # raw values are not looked into further, but go out to others
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise _malformed("the body is nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise _malformed(f"the body is no request: {mend(error, kind)}") from error


def _command(given: dict[str, Raw]) -> tuple[str, Struct]:
    """Method and request of one command of a batch."""
    names = list(given)
    if len(names) != 1 or names[0] not in METHODS:
        found = ", ".join(repr(name[:60]) for name in names[:5]) or "no field"
        raise _malformed(f"a command has one field, named as a method; this has {found}")
    return names[0], _decoded(bytes(given[names[0]]), METHODS[names[0]].request)


def _malformed(detail: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, ErrorCode.BAD_REQUEST, detail)


def _scopeless(name: str) -> str:
    return f"{name} needs a key with the scope {METHODS[name].scope!r}"


def _while_awaited(steps: Iterator[None], pending: Pending[bytes | CommandError]) -> Iterator[None]:
    """The slices of a long operation, as long as somebody waits for its answer."""
    for _ in steps:
        if pending.given_up:
            return
        yield


async def _all(steps: Sequence[Callable[[], Awaitable[bytes | CommandError]]]) -> list[Any]:
    """What all steps give, in their order; they are started in it, `AT_ONCE` under way at a time."""
    results: list[Any] = [None] * len(steps)

    async def run(index: int) -> None:
        results[index] = await steps[index]()

    for start in range(0, len(steps), AT_ONCE):
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            for index in range(start, min(start + AT_ONCE, len(steps))):
                nursery.start_soon(run, index)
    return results


def _outcome(answer: bytes | CommandError) -> str:
    return str(int(answer.code)) if isinstance(answer, CommandError) else "ok"


def _answered(request: Request, answer: bytes | CommandError) -> Response:
    if isinstance(answer, bytes):
        return Response(answer, media_type=_JSON, headers={"cache-control": "no-store"})
    transport = request.headers.get("x-centrifugo-error-mode", "").lower() == "transport"
    return _error(answer, STATUS.get(answer.code, HTTPStatus.BAD_REQUEST) if transport else HTTPStatus.OK, {})


def _error(error: CommandError, status: HTTPStatus, fields: Mapping[str, str]) -> Response:
    headers = {"cache-control": "no-store", **fields}
    return Response(_error_json(error), status, headers, _JSON)


def _error_json(error: CommandError) -> bytes:
    return msgspec.json.encode({"error": calls.ErrorBody.of(error)})

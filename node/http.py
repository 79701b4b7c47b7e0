"""What is answered over plain HTTP: two Starlette applications, and beside them the server API (node/api.py).

The public one has the page and the health of the node; it is given every request that is not the hub's. The internal
one has metrics and status for operators, behind a bearer token if one is configured; without one it answers only under
the names of loopback, or a web page whose name was made to point there could read it. Neither reads a request's body or
touches the disk. The server API has keys of its own, whichever port it is asked on.
"""

from __future__ import annotations

from hmac import compare_digest
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge_config.address import is_loopback
from node.page import load_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edge_config.secret import Secret
    from node.metrics import Metrics, Scrape
    from node.page import PageFile
    from node.status import NodeStatus, Readiness

NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>chat-node</title>
<h1>This chat-node is running</h1>
<p>Its page has not been built. Run <code>scripts/build_web</code> in the checkout and start the node again.</p>
</html>
"""

_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; manifest-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PUBLIC_FIELDS: Final = {
    b"content-security-policy": _PAGE_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_INTERNAL_FIELDS: Final = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
API_PREFIX: Final = "/api/"
DOCUMENT_PATH: Final = "/api/openapi.json"
_METHODS: Final = ("GET", "HEAD")
_NEVER_STORED: Final = {"cache-control": "no-store"}
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Endpoint: TypeAlias = "Callable[[Request], Awaitable[Response]]"
Check: TypeAlias = "Callable[[Mapping[bytes, bytes]], Response | None]"


class Watched(Protocol):
    """What HTTP tells of the node; `node.vitals.Vitals` is one."""

    @property
    def readiness(self) -> Readiness:
        """Whether clients should be sent here."""

    def status(self) -> NodeStatus:
        """How the node is."""


def public_app(
    watched: Watched, metrics: Metrics, page: Mapping[str, PageFile] | None = None, api: ASGIApp | None = None
) -> ASGIApp:
    """The application on the public port.

    Args:
        watched: The node.
        metrics: Where responses are counted.
        page: Its files; None: those that come with the node, read now.
        api: The server API; None: it is not here.
    """
    served = load_page() if page is None else page
    routes = [*_health(watched), Route("/{path:path}", _page_endpoint(served), methods=list(_METHODS))]
    guarded = Guard(Starlette(routes=routes, exception_handlers=_HANDLERS), metrics, _PUBLIC_FIELDS, lambda _: None)
    return guarded if api is None else Fork(api, metrics, guarded)


def internal_app(  # noqa: PLR0913, PLR0917 - what it tells, composed in one place
    watched: Watched, metrics: Metrics, scrape: Scrape, token: Secret | None, api: ASGIApp | None = None,
    document: bytes = b"",
) -> ASGIApp:  # fmt: skip
    """The application on the internal port.

    Args:
        watched: The node.
        metrics: What is told, and where responses are counted.
        scrape: Renders `metrics`, in a thread.
        token: What requests must bear; None or empty: nothing.
        api: The server API; None: it is not here.
        document: Describes the server API (OpenAPI, JSON).
    """

    async def answer_metrics(_: Request) -> Response:
        metrics.refresh()
        return Response(await trio.to_thread.run_sync(scrape), media_type=_METRICS_TYPE)

    async def answer_status(_: Request) -> Response:
        return _json(watched.status())

    async def answer_document(_: Request) -> Response:
        return Response(document, headers=_NEVER_STORED, media_type="application/json")

    routes = [
        *_health(watched),
        Route("/metrics", answer_metrics, methods=list(_METHODS)),
        Route("/status", answer_status, methods=list(_METHODS)),
        Route(DOCUMENT_PATH, answer_document, methods=list(_METHODS)),
    ]
    check = bearing(token) if token else _refuse_foreign_host
    guarded = Guard(Starlette(routes=routes, exception_handlers=_HANDLERS), metrics, _INTERNAL_FIELDS, check)
    return guarded if api is None else Fork(api, metrics, guarded)


class Fork:
    """Gives requests of the server API to it, with header fields like those of the internal port, and others on."""

    __slots__ = ("_api", "_otherwise")

    def __init__(self, api: ASGIApp, metrics: Metrics, otherwise: ASGIApp) -> None:
        self._api = Guard(api, metrics, _INTERNAL_FIELDS, None)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        ours = scope["type"] == "http" and path.startswith(API_PREFIX) and path != DOCUMENT_PATH
        await (self._api if ours else self._otherwise)(scope, receive, send)


class Guard:
    """Refuses what no endpoint should see, adds the header fields of all responses, and counts them.

    Args:
        fields: Header fields that a response gets, unless it has them.
        check: Says by the header fields of a request, with names in lower case, why it is refused, or None. Without
            a check, methods and bodies are the application's matter too.
    """

    __slots__ = ("_app", "_check", "_fields", "_metrics")

    def __init__(self, app: ASGIApp, metrics: Metrics, fields: Mapping[bytes, bytes], check: Check | None) -> None:
        self._app = app
        self._metrics = metrics
        self._fields = fields
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # a WebSocket on a path that is not the hub's
            await receive()
            await send({"type": "websocket.close"})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.http_responses[message["status"]] += 1
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name, value) for name, value in self._fields.items() if name not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        app = self._refusal(scope) or self._app
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._check is None:
            return None
        headers = dict(scope["headers"])
        if scope["method"] not in _METHODS:
            return _told(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.", {"allow": "GET, HEAD"})
        if b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0"):
            return _told(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "No request with a body is answered here.")
        return self._check(headers)


def bearing(token: Secret) -> Check:
    """A check that requires a bearer token (RFC 6750)."""
    expected = f"bearer {token.reveal()}".encode()

    def refuse_stranger(headers: Mapping[bytes, bytes]) -> Response | None:
        scheme, _, credential = headers.get(b"authorization", b"").partition(b" ")
        if compare_digest(scheme.lower() + b" " + credential.strip(), expected):
            return None
        mend = "Send the header Authorization: Bearer TOKEN, with the configured listen.internal_token."
        return _told(HTTPStatus.UNAUTHORIZED, mend, {"www-authenticate": "Bearer"})

    return refuse_stranger


def _refuse_foreign_host(headers: Mapping[bytes, bytes]) -> Response | None:
    """Requires a Host of loopback, if there is one: browsers always send it (RFC 9110, 7.2), simple probes may not."""
    host = headers.get(b"host")
    if host is None or is_loopback(_name(host.decode("latin-1"))):
        return None
    mend = "Ask for 127.0.0.1, [::1] or localhost; other names are answered only if listen.internal_token is set."
    return _told(HTTPStatus.MISDIRECTED_REQUEST, mend)


def _name(host: str) -> str:
    """A Host field's name or address, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0] if "]" in host else ""
    return host.partition(":")[0].removesuffix(".").lower()


def _health(watched: Watched) -> list[Route]:
    async def answer_live(_: Request) -> Response:
        return _json({"status": "live"})  # that this runs is the check

    async def answer_ready(_: Request) -> Response:
        found = watched.readiness
        return _json(found, found.health.value)

    return [
        Route("/health/live", answer_live, methods=list(_METHODS)),
        Route("/health/ready", answer_ready, methods=list(_METHODS)),
    ]


def _page_endpoint(page: Mapping[str, PageFile]) -> Endpoint:
    async def answer(request: Request) -> Response:
        if not page and request.url.path == "/":
            return Response(NOT_BUILT, HTTPStatus.SERVICE_UNAVAILABLE, _NEVER_STORED, "text/html")
        file = page.get(request.url.path)
        if file is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return _file(file, request.headers)

    return answer


def _file(file: PageFile, asked: Headers) -> Response:
    """A file, unless the client has it; always asked for again, as its name does not change with its content."""
    fields = {"etag": file.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if _matches(asked.get("if-none-match", ""), file.tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=fields)
    body = file.body
    if file.packed is not None and _accepts_gzip(asked.get("accept-encoding", "")):
        body = file.packed
        fields["content-encoding"] = "gzip"
    return Response(body, headers=fields | {"content-type": file.media_type})


def _matches(condition: str, tag: str) -> bool:
    """Whether If-None-Match names a tag, compared weakly (RFC 9110, 13.1.2)."""
    given = [item.strip().removeprefix("W/") for item in condition.split(",")]
    return given == ["*"] or tag in given


def _accepts_gzip(accepted: str) -> bool:
    for item in accepted.lower().split(","):
        coding, _, parameter = item.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return parameter.strip().removeprefix("q=").strip("0.") != "" or not parameter.strip()
    return False


def _json(value: object, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), status, _NEVER_STORED, "application/json")


def _told(status: HTTPStatus, text: str, fields: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, {**_NEVER_STORED, **(fields or {})})


async def _answer_refusal(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if "application/json" in request.headers.get("accept", ""):
        return _json({"error": status.phrase, "status": status.value}, status)
    return _told(status, f"{status.value} {status.phrase}")


_HANDLERS: Final = {HTTPException: _answer_refusal}

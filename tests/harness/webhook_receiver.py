"""A receiver of webhooks as a site would write it, which also answers as badly as a test wants."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from edge_config.secret import Secret
from node.webhook_signature import HEADER, verify
from tests.harness.node_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY: Final = "a-secret-of-the-webhook-of-enough-characters"


class WebhookReceiver:
    """Keeps what it is sent.

    Attributes:
        requests: Every request that was verified: its header fields and decoded body, taken or not.
        taken: Events that it has answered 200, in their order, with repetitions.
        statuses: What the next requests are answered; then `status`.
        status: What requests are answered.
        before_answer: Called with each request's body before it is answered.
        forged: Requests whose signature does not fit.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.taken: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.status = 200
        self.before_answer: Callable[[dict[str, Any]], None] = lambda _: None
        self.forged = 0
        self.secret = Secret(KEY)
        self.port = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The ids of all that it has taken."""
        return [event["id"] for event in self.taken]

    def of(self, *events: str) -> list[dict[str, Any]]:
        """Those of these types that it has taken, each once."""
        return [event for event in {event["id"]: event for event in self.taken}.values() if event["type"] in events]

    def wait(self, what: str, found: Callable[[], bool]) -> None:
        """Wait until something holds."""
        wait_for(f"{what}; it has {len(self.taken)} events in {len(self.requests)} requests", found)

    def take(self, headers: dict[str, str], content: bytes) -> int:
        """Take a request, or not; gives the status of the answer."""
        with self._lock:
            if not verify(headers.get(HEADER.lower(), ""), content, self.secret, time.time()):
                self.forged += 1
                return 401
            body = json.loads(content)
            self.requests.append((headers, body))
            self.before_answer(body)
            status = self.statuses.pop(0) if self.statuses else self.status
            if status == 200:
                self.taken += body["events"]
            return status

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Listen, at the same port each time."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take({name.lower(): value for name, value in self.headers.items()}, content)
                self.send_response(status)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"told")

            @override
            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def settings(receiver: WebhookReceiver, name: str = "CRM", **more: object) -> dict[str, object]:
    """What configures it, for `NodeProcess`: hurried, and allowed to be on this machine."""
    given = {
        "url": receiver.url, "secret": KEY, "allow_private": True, "linger_ms": 0, "retry_seconds": 0.05,
        "retry_most_seconds": 0.2, "settle_seconds": 0.3, **more,
    }  # fmt: skip
    return {f"WEBHOOKS__{name}__{key.upper()}": value for key, value in given.items()}

"""Requests of the server API over plain HTTP, for what libraries do not do: bad requests."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY: Final = "0123456789abcdef0123456789abcdef"
READING: Final = "a-key-that-only-reads-0123456789abcdef"


class Answer(NamedTuple):
    """An answer: status, header fields in lower case, decoded body."""

    status: int
    headers: dict[str, str]
    body: Any


def post(
    url: str,
    method: str,
    body: object = None,
    *,
    key: str = KEY,
    verb: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a node; `body` is sent as JSON, bytes as they are."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    fields = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {}), **(headers or {})}
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(verb, f"/api/{method}", data, fields)
        response = connection.getresponse()
        content = response.read()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            json.loads(content) if content else None,
        )
    finally:
        connection.close()

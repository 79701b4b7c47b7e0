"""The OpenAPI document of the server API, made from the types that requests are decoded into.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from node import api_calls as calls
from node.api_table import BATCH, METHODS, BatchRequest, BatchResult

if TYPE_CHECKING:
    from msgspec import Struct

_REF: Final = "#/components/schemas/{name}"
_ERRORS: Final = {
    "400": "The body is no request (107)",
    "401": "No key, or one of nobody (101)",
    "403": "The key has not the scope (103)",
    "404": "There is no such method (104)",
    "408": "The body did not come in time (107)",
    "413": "The body is too long (107)",
    "415": "The body is not declared as JSON (107)",
    "429": "More requests than the site's rate (111)",
    "503": "In transport mode: it can't be done now (100)",
}
"""Statuses of what is wrong with a request, all with the same body; `ErrorCode` tells more."""


def document(version: str) -> bytes:
    """The document as JSON.

    Args:
        version: Of the application.
    """
    types = [calls.ErrorBody, BatchRequest, BatchResult]
    types += [kind for method in METHODS.values() for kind in (method.request, method.result)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    found = dict(zip(types, schemas, strict=True))
    paths = {
        f"/api/{name}": _path(name, method.request, found[method.request], _wrapped(found[method.result]), method.scope)
        for name, method in METHODS.items()
    }
    command = _object(**{name: found[method.request] for name, method in METHODS.items()})
    command |= {"required": [], "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    components["BatchRequest"]["properties"]["commands"]["items"] = command
    paths[f"/api/{BATCH}"] = _path(BATCH, BatchRequest, found[BatchRequest], found[BatchResult], "that of each command")
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "chat-node server API",
            "version": version,
            "description": "For a site's back end. A method's error has status 200, or one of its own with the header"
            " X-Centrifugo-Error-Mode: transport.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _object(error=found[calls.ErrorBody])},
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
        "security": [{"key": []}],
    }
    return msgspec.json.encode(whole)


def _path(name: str, kind: type[Struct], request: object, answer: object, scope: str) -> dict[str, object]:
    error = {"$ref": _REF.format(name="Error")}
    responses = {"200": _response("The result, or why there is none", {"anyOf": [answer, error]})}
    responses |= {status: _response(meaning, error) for status, meaning in _ERRORS.items()}
    summary = (kind.__doc__ or "").split("\n", 1)[0]
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "description": f"Scope: {scope}.",
            "requestBody": body,
            "responses": responses,
        }
    }


def _response(meaning: str, schema: object) -> dict[str, object]:
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _wrapped(result: object) -> dict[str, object]:
    return _object(result=result)


def _object(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}

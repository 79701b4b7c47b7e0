"""The OpenAPI document of the server API, and whether a real node does what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from node.api_document import document
from node.api_table import EVERY, METHODS
from tests.harness.api import KEY, post
from tests.harness.node_process import NodeProcess, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case

EXAMPLES: Final = 12  # of each method, and of each sort: some seconds in all
DOCUMENT: Final[dict[str, Any]] = json.loads(document("1"))
SCHEMA: Final = schemathesis.openapi.from_dict(DOCUMENT)
MODERATING: Final = [name for name, method in METHODS.items() if method.scope == "moderate"]
BOUNDED: Final = settings(
    max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    settings = {
        "API__KEYS": KEY,
        "API__SITE_REQUESTS": 0,
        "KINDS__DEFAULT__SCHEMA": "any",
        "KINDS__CHAT__SCHEMA": "chat",
    }
    with NodeProcess(tmp_path_factory.mktemp("document"), settings=settings) as node:
        yield node


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def as_integers(body: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON Schema takes 1.0 for an integer; this API does not, as Centrifugo does not."""
    if isinstance(body, dict):
        return {name: as_integers(part) for name, part in body.items()}
    if isinstance(body, list):
        return [as_integers(part) for part in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


def test_the_document_is_served_and_has_every_method(node: NodeProcess) -> None:
    status, body = fetch(f"{node.internal}/api/openapi.json")
    served = json.loads(body)
    assert status == 200
    assert served["openapi"] == "3.1.0"
    assert set(served["paths"]) == {f"/api/{name}" for name in EVERY}
    assert served["paths"] == DOCUMENT["paths"]


def test_every_reference_of_the_document_leads_somewhere() -> None:
    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from references(inner)

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= known
    SCHEMA.validate()


@pytest.mark.slow
@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", EVERY)
def test_the_node_answers_as_the_document_says(
    node: NodeProcess, http: requests.Session, name: str, mode: GenerationMode
) -> None:
    """Good and bad requests: documented statuses, bodies that fit, no 500, bad ones refused and good ones taken."""
    operation = SCHEMA[f"/api/{name}"]["POST"]

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        case.body = as_integers(case.body)
        if mode is GenerationMode.POSITIVE and name in MODERATING:
            assert isinstance(case.body, dict)
            case.body["channel"] = "chat:room"
        case.call_and_validate(base_url=node.internal, session=http, headers={"X-API-Key": KEY})

    if name in MODERATING:
        post(node.internal, "publish", {"channel": "chat:room", "data": {"content": "Hi"}})
    ask()
    assert node.ready().code == 200


def test_an_answer_that_the_document_does_not_have_is_found(node: NodeProcess, http: requests.Session) -> None:
    """The check above can fail."""
    wrong = json.loads(document("1"))
    wrong["components"]["schemas"]["InfoResult"]["required"] = ["nothing"]
    operation = schemathesis.openapi.from_dict(wrong)["/api/info"]["POST"]

    @BOUNDED
    @given(body=st.just({}))
    def ask(body: dict[str, Any]) -> None:
        case = operation.Case(body=body, media_type="application/json")
        case.call_and_validate(base_url=node.internal, session=http, headers={"X-API-Key": KEY})

    with pytest.raises((Failure, FailureGroup)):
        ask()
    assert post(node.internal, "info", {}).status == 200

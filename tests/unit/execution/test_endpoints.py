"""What `@endpoint` refuses, with file, line and cure; and what HTTPProblem says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import circuit_script
from circuit_script import problems
from circuit_script.errors import AppError
from circuit_script.execution.authoring import endpoints
from circuit_script.execution.authoring.endpoints import HTTPProblem, endpoint
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.web import endpoint_app
from circuit_script.governor import Limits


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of this test only."""
    own = Registry()
    monkeypatch.setattr(endpoints, "registry", own)
    monkeypatch.setattr(endpoints, "routes", routes := dict[str, Any]())
    monkeypatch.setattr(endpoint_app, "routes", routes)
    return own


def handler(**_: Any) -> None: ...


def refusal(call: Callable[[], Any]) -> AppError:
    with pytest.raises(AppError) as caught:
        call()
    assert re.match(r".+/test_endpoints\.py:\d+: ", caught.value.detail), caught.value.detail
    assert caught.value.cure
    return caught.value


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("chat", "/api/chat"),
        ("/chat", "/api/chat"),
        ("leads/{lead_id}/notes", "/api/leads/[^/]+/notes"),
        ("files/{name:path}", "/api/files/.+"),
        ("v1.0/{a}.json", r"/api/v1\.0/[^/]+\.json"),
    ],
)
def test_a_path_becomes_a_pattern_below_api(registry: Registry, path: str, pattern: str) -> None:
    endpoint(path)(handler)
    [spec] = registry.specs()

    assert spec.endpoint is not None
    assert spec.endpoint.paths == (pattern,)
    assert spec.endpoint.shown == (f"/api/{path.removeprefix('/')}",)
    assert spec.endpoint.methods == ("GET",)
    assert (spec.endpoint.deadline, spec.endpoint.auth, spec.endpoint.kind) == (30.0, "key", "endpoint")


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("", "Write what follows /api/"),
        ("/", "Write what follows /api/"),
        (None, "Write what follows /api/"),
        ("api/chat", 'write "chat"'),
        ("chat/", "between single slashes"),
        ("a//b", "between single slashes"),
        ("../secret", "between single slashes"),
        ("a b", "between single slashes"),
        ("a?b", "between single slashes"),
        ("leads/{id:int}", "like id: int"),
        ("leads/{}", "between single slashes"),
        ("a{name:path}", "stands alone"),
        ("{a}-{b}", "Put a slash between them"),
        ("{a:path}/x/{b:path}", "One {parameter:path} is enough"),
        ("{a}/{a}", "another name"),
        ("status", "another path"),
    ],
)
def test_a_wrong_path_is_refused_with_its_cure(path: Any, cure: str) -> None:
    assert cure in refusal(lambda: endpoint(path)(handler)).cure


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"methods": ["FETCH"]}, "no method 'FETCH'"),
        ({"methods": []}, "methods is []"),
        ({"methods": 5}, "methods is 5"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": 301}, "deadline is 301"),
        ({"deadline": True}, "deadline is True"),
        ({"deadline": float("nan")}, "deadline is nan"),
        ({"auth": "oauth"}, "auth is 'oauth'"),
        ({"examples": {"a": 1}}, "examples is not a list"),
        ({"limits": {"wal_time": 1}}, "no limit 'wal_time'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], wrong: str) -> None:
    assert wrong in refusal(lambda: endpoint("x", **options)(handler)).detail


def test_two_endpoints_for_one_method_and_path_are_refused() -> None:
    def first(lead: str) -> None: ...

    def second(lead_id: str) -> None: ...

    endpoint("leads/{lead}", methods=["GET", "POST"])(first)
    endpoint("leads/{lead_id}", methods="DELETE")(second)

    def third(x: str) -> None: ...

    error = refusal(lambda: endpoint("leads/{x}", methods=["post", "PUT"])(third))
    assert "POST of this path is taken by first, at " in error.detail


def test_an_endpoint_stands_on_a_function() -> None:
    assert "stands on a lambda" in refusal(lambda: endpoint("x")(lambda: None)).detail
    assert "stands on a type" in refusal(lambda: endpoint("x")(Registry)).detail


def test_a_deadline_that_is_said_is_the_wall_time_unless_that_is_said_too(registry: Registry) -> None:
    def plain() -> None: ...

    def patient() -> None: ...

    def strict() -> None: ...

    endpoint("a")(plain)
    endpoint("b", deadline=120)(patient)
    endpoint("c", deadline=120, limits={"wall_time": 5, "callouts": 1})(strict)
    registry.limits = Limits(wall_time=9)
    limits = {spec.name: spec.limits for spec in registry.specs()}

    assert limits["plain"].wall_time == Limits().wall_time
    assert limits["patient"].wall_time == 120
    assert (limits["strict"].wall_time, limits["strict"].callouts) == (5, 1)


def built(registry: Registry) -> Any:
    return endpoint_app.EndpointApp("app", registry)


class Unknown: ...


def test_a_parameter_of_the_path_stands_in_the_signature(registry: Registry) -> None:
    def lead(name: str) -> None: ...

    endpoint("leads/{lead_id}")(lead)
    error = refusal(lambda: built(registry))
    assert "names {lead_id}" in error.detail
    assert error.cure == "Add the parameter lead_id: str."


def test_a_type_that_fastapi_does_not_take_is_refused_where_it_stands(registry: Registry) -> None:
    def odd(what: Unknown) -> None: ...

    endpoint("odd")(odd)
    assert "FastAPI does not take its signature" in refusal(lambda: built(registry)).detail


def test_an_answer_that_fastapi_does_not_take_is_refused(registry: Registry) -> None:
    def odd() -> Unknown: ...

    endpoint("odd")(odd)
    assert "FastAPI does not take its signature" in refusal(lambda: built(registry)).detail


def test_an_annotation_that_cannot_be_found_is_refused(registry: Registry) -> None:
    def odd(what): ...  # type: ignore[no-untyped-def]  # its annotation follows

    odd.__annotations__["what"] = "Nowhere"
    endpoint("odd")(odd)
    error = refusal(lambda: built(registry))
    assert "the parameter 'what' is 'Nowhere', which cannot be found" in error.detail


def test_parameters_without_a_name_are_refused(registry: Registry) -> None:
    def odd(*args: str) -> None: ...

    endpoint("odd")(odd)
    assert "*args" in refusal(lambda: built(registry)).detail


def test_an_example_that_the_endpoint_would_refuse_is_refused(registry: Registry) -> None:
    def chat(numbers: list[int]) -> None: ...

    endpoint("chat", methods="POST", examples=[[1, 2], ["x"]])(chat)
    error = refusal(lambda: built(registry))
    assert "example 2 is not what it takes: body.0: Input should be a valid integer" in error.detail


def test_examples_need_a_body(registry: Registry) -> None:
    def get(q: str = "") -> None: ...

    endpoint("get", examples=["x"])(get)
    assert "takes no JSON body" in refusal(lambda: built(registry)).detail


def test_methods_share_a_route_and_each_has_an_operation_of_its_own(registry: Registry) -> None:
    def both(q: str = "") -> str: ...  # type: ignore[empty-body]

    endpoint("both", methods=["GET", "DELETE"], auth="none")(both)
    document = json.loads(built(registry).document())

    operations = document["paths"]["/api/both"]
    assert {method: each["operationId"] for method, each in operations.items()} == {
        "get": "both_get",
        "delete": "both_delete",
    }
    assert operations["get"]["responses"]["default"]["content"].keys() == {"application/problem+json"}


def test_a_problem_is_a_document_whose_own_members_cannot_be_replaced() -> None:
    problem = HTTPProblem(409, "taken", seats=0, title="Full", headers={"retry-after": "5"})

    assert json.loads(problem.body()) == {
        "seats": 0,
        "type": "about:blank",
        "title": "Full",
        "status": 409,
        "detail": "taken",
    }
    assert str(problem) == "409 Full: taken"
    assert json.loads(HTTPProblem(404).body())["title"] == "Not Found"


def test_a_problem_is_no_success() -> None:
    with pytest.raises(ValueError, match="from 400 to 599"):
        HTTPProblem(200, "fine")


async def test_run_outside_of_an_execution_says_what_to_do() -> None:
    async def nothing() -> None: ...

    with pytest.raises(RuntimeError, match=r"asyncio\.run"):
        circuit_script.run(nothing())


def test_the_document_has_the_problem_that_the_gateway_sends(registry: Registry) -> None:
    endpoint("chat")(handler_without_parameters)
    _, raw = endpoint_app.build(registry, "test")
    components = json.loads(raw)["components"]

    assert components["schemas"]["Problem"] == problems.SCHEMA
    assert components["securitySchemes"] == {"key": problems.KEY}


async def handler_without_parameters() -> None: ...

"""The gateway and the children mean the same handler by a request, whatever overlaps; and no path keeps them busy."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Match, Mount, Route
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from circuit_script.endpoints.protocol import Offer
from circuit_script.endpoints.routes import Routes
from circuit_script.errors import AppError
from circuit_script.execution.authoring import endpoints
from circuit_script.execution.authoring.endpoints import endpoint
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.authoring.patterns import ANYTHING, Hole, Part, pattern_of
from circuit_script.execution.outcome import EndpointSpec, Way
from circuit_script.execution.web import endpoint_app
from circuit_script.execution.web.endpoint_app import EndpointApp
from circuit_script.execution.web.routes import GOVERNED, WebRoute, flask_routes, starlette_routes

METHODS = st.lists(st.sampled_from(["GET", "POST", "DELETE"]), min_size=1, max_size=2, unique=True)
METHOD = st.sampled_from(["GET", "POST", "DELETE", "HEAD"])
SEGMENTS = st.sampled_from(["a", "b", "ab", "a.j", "x.j", "7", "-7", "a-b", "7-8", "a-b-c", "a\n", "\n", "é"])
PATHS = st.tuples(st.lists(SEGMENTS, min_size=1, max_size=4), st.sampled_from(["", "/"]))


def chosen(routes: Routes, method: str, path: str) -> tuple[str | None, str]:
    """The gateway's handler, and the method that it passes on."""
    found = routes.find(method, path)
    return (None, method) if found is None or found.offer is None else (found.offer.name, found.method)


@pytest.fixture
def declaring(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Registry]:
    """Begins with an app without endpoints."""

    def begin() -> Registry:
        own, routes = Registry(), dict[str, Any]()
        monkeypatch.setattr(endpoints, "registry", own)
        monkeypatch.setattr(endpoints, "routes", routes)
        monkeypatch.setattr(endpoint_app, "routes", routes)
        return own

    return begin


def declare(name: str, path: str, methods: Iterable[str]) -> None:
    async def handler(**_: str) -> str:
        return name

    parameters = re.findall(r"{(\w+)", path)
    keyword = inspect.Parameter.KEYWORD_ONLY
    handler.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # any function may have one
        [inspect.Parameter(each, keyword, annotation=str) for each in parameters]
    )
    handler.__name__ = handler.__qualname__ = name
    endpoint(path, methods=list(methods))(handler)


def run(app: Any, method: str, path: str) -> Any:
    """What the children's app answers, None for a problem."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "root_path": ""}
    asyncio.run(app(scope, receive, send))
    return json.loads(said[1]["body"]) if said[0]["status"] == 200 else None


@given(
    written=st.lists(
        st.tuples(st.lists(st.sampled_from(["a", "b", "{}", "a{}", "{}.j", "{}*"]), min_size=1, max_size=4), METHODS),
        min_size=1,
        max_size=6,
    ),
    asked=st.lists(st.tuples(METHOD, PATHS), min_size=1, max_size=8),
)
def test_the_apps_own_route_is_the_gateways_choice(written: Any, asked: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        registry, routes = Registry(), dict[str, Any]()
        patch.setattr(endpoints, "registry", registry)
        patch.setattr(endpoints, "routes", routes)
        patch.setattr(endpoint_app, "routes", routes)
        for number, (segments, methods) in enumerate(written):
            names = (each.replace("{}*", f"{{p{place}:path}}") for place, each in enumerate(segments))
            path = "/".join(each.replace("{}", f"{{p{place}}}") for place, each in enumerate(names))
            with suppress(AppError):  # the same as another, or two that span slashes
                declare(f"h{len(written) - number}", path, methods)  # later ones sort first
        app = EndpointApp("test", registry)
        gateway = Routes([Offer(each.name, each.endpoint) for each in registry.specs() if each.endpoint is not None])
        for method, (pieces, slash) in asked:
            path = "/api/" + "/".join(pieces) + slash
            name, passed = chosen(gateway, method, path)
            assert run(app, passed, path) == name, (method, path)


def test_a_literal_comes_before_a_parameter_whatever_was_declared_first(declaring: Callable[[], Registry]) -> None:
    registry = declaring()
    for name, path in (("all", "{rest:path}"), ("one", "leads/{lead}"), ("pdf", "leads/{lead}.pdf"), ("z", "leads/me")):
        declare(name, path, ["GET"])
    gateway = Routes([Offer(each.name, each.endpoint) for each in registry.specs() if each.endpoint is not None])

    asked = ("/api/leads/me", "/api/leads/7.pdf", "/api/leads/7", "/api/leads/7/x", "/api/leads/me\n")
    assert [chosen(gateway, "GET", path)[0] for path in asked] == ["z", "pdf", "one", "all", "one"]


def gateway_of(routes: list[WebRoute]) -> Routes:
    """Each route with an offer of its own, in the order of the handlers' names."""
    grouped: dict[str, list[Way]] = {}
    for place, route in enumerate(routes):
        grouped.setdefault(route.handler, []).append(Way(route.methods, route.path, route.shown, (place,)))
    return Routes([Offer(name, EndpointSpec(tuple(grouped[name]), kind="web")) for name in sorted(grouped)])


def governed_view(name: str) -> Callable[..., str]:
    def view(**_: Any) -> str:
        return name

    setattr(view, GOVERNED, {"name": None})
    return view


class Own(BaseConverter):
    """A converter that the platform does not know, by an expression that takes for ever."""

    regex = "(?:[a-z]+)+"


FLASK_SEGMENTS = st.sampled_from(["a", "b", "<x>", "<int:x>", "<x>.j", "<x>-<y>", "a-<x>", "<any(a,b):x>", "<path:x>"])


@given(
    written=st.lists(
        st.tuples(st.lists(FLASK_SEGMENTS, min_size=1, max_size=3), st.sampled_from(["", "/"]), METHODS, st.booleans()),
        min_size=1,
        max_size=7,
    ),
    asked=st.lists(st.tuples(METHOD, PATHS), min_size=1, max_size=12),
)
def test_flasks_own_route_is_the_gateways_choice(written: Any, asked: Any) -> None:
    app = Flask("test", static_folder=None)
    for number, (segments, slash, methods, strict) in enumerate(written):
        numbered = (
            re.sub(r"([xy])>", rf"\g<1>{place}>", each) for place, each in enumerate(segments)
        )  # a parameter has one name
        name = f"h{len(written) - number}"
        rule = "/" + "/".join(numbered) + slash
        if rule.count("<path:") > 1:
            continue  # told roughly
        app.add_url_rule(rule, name, governed_view(name), methods=methods, strict_slashes=strict)
    gateway = gateway_of(flask_routes(app))
    adapter = app.url_map.bind("localhost")
    for method, (pieces, slash) in asked:
        path = "/" + "/".join(pieces) + slash
        name, passed = chosen(gateway, method, path)
        try:
            own = adapter.match(path, passed)[0]
        except HTTPException:  # not there, or elsewhere: no view runs
            continue
        assert own == name, (method, path)


STARLETTE_SEGMENTS = st.sampled_from(["a", "b", "{x}", "{x:int}", "{x:float}", "{x}.j", "{x}-{y}", "{x:path}"])


@given(
    written=st.lists(
        st.tuples(st.lists(STARLETTE_SEGMENTS, min_size=1, max_size=3), METHODS, st.booleans()), min_size=1, max_size=7
    ),
    asked=st.lists(st.tuples(METHOD, PATHS), min_size=1, max_size=12),
)
@example([(["a"], ["GET"], True), (["{x}", "a"], ["GET"], False)], [("GET", (["a\n", "a"], ""))])
def test_starlettes_own_route_is_the_gateways_choice(written: Any, asked: Any) -> None:
    made: list[Any] = []
    for number, (segments, methods, mounted) in enumerate(written):
        path = "/" + "/".join(
            re.sub(r"\b([xy])(?=[:}])", rf"\g<1>{place}", each) for place, each in enumerate(segments)
        )
        if path.count(":path}") > 1:
            continue  # told roughly
        name = f"h{len(written) - number}"
        made.append(
            Mount("/a", Starlette(), name=name)
            if mounted
            else Route(path, governed_view(name), methods=methods, name=name)
        )
    app = Starlette(routes=made)
    gateway = gateway_of(starlette_routes(app.routes))
    for method, (pieces, slash) in asked:
        path = "/" + "/".join(pieces) + slash
        name, passed = chosen(gateway, method, path)
        scope = {"type": "http", "method": passed, "path": path, "root_path": ""}
        own = next((each for each in app.routes if each.matches(scope)[0] is Match.FULL), None)
        if own is not None:
            assert ("web" if isinstance(own, Mount) else own.name) == name, (method, path)


def test_what_is_not_known_exactly_is_claimed_more_widely_never_less() -> None:
    app = Flask("test", static_folder=None)
    app.url_map.converters["own"] = Own
    app.add_url_rule("/<own:x>", "own", governed_view("own"))
    app.add_url_rule("/<path:x>/to/<path:y>", "two", governed_view("two"))
    gateway = gateway_of(flask_routes(app))

    assert chosen(gateway, "GET", "/" + "a" * 2000 + "!") == ("own", "GET")
    assert chosen(gateway, "GET", "/a/b/to/c") == ("two", "GET")
    assert chosen(gateway, "GET", "/a/b/too/c") == (None, "GET")
    assert "(?:[a-z]+)+" not in "".join(each.path for each in flask_routes(app))


def test_the_shared_handler_claims_only_the_methods_that_each_path_has() -> None:
    app = Flask("test", static_folder=None)
    app.add_url_rule("/items", "items", lambda: "", methods=["GET"])
    app.add_url_rule("/items", "write", governed_view("write"), methods=["POST"])
    app.add_url_rule("/other", "other", lambda: "", methods=["POST"])
    gateway = gateway_of(flask_routes(app))

    assert [chosen(gateway, method, "/items")[0] for method in ("GET", "POST")] == ["web", "write"]
    found = gateway.find("GET", "/other")
    assert found is not None
    assert (found.offer, found.allowed) == (None, ("OPTIONS", "POST"))


HOLES = st.sampled_from([Hole(), Hole(r"\d+"), Hole("[^/]*"), Hole(".+", spans=True), Hole(ANYTHING, spans=True)])
LITERALS = st.text("/-a.", min_size=1, max_size=3)
REPEATS = re.compile(r"(?<!\\)[+*]|\{\d+,\d*\}")


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(st.one_of(HOLES, LITERALS), max_size=8))
def test_a_pattern_has_nothing_to_go_back_over_twice(parts: list[Part]) -> None:
    pattern = re.sub(
        r"\(\?>(?:[^()]|\([^()]*\))*\)", "", pattern_of(["/", *parts])
    )  # what is atomic is not tried again

    segments = pattern.replace("[^/]", "x").split("/")
    spans = [each for each in segments if "(?s:.)" in each or re.search(r"(?<!\\)\.", each)]
    assert len(spans) <= 1, pattern
    assert all(len(REPEATS.findall(each)) <= 1 for each in segments), pattern


def test_a_path_beyond_the_bound_is_not_matched_at_all() -> None:
    routes = Routes([Offer("all", EndpointSpec((Way(("GET",), "/.*"),), kind="web"))])
    assert routes.find("GET", "/" + "a" * 2047) is not None
    assert routes.find("GET", "/" + "a" * 2048) is None

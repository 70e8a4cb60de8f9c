"""The author's own web app, ``[web] app = "app.web:flask_app"``: WSGI or ASGI, its routes as endpoints.

A view that says so (`__circuit_governed__`) is a handler of its own; all others share the handler "web".
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

from circuit_script.errors import AppError
from circuit_script.execution.authoring import importing
from circuit_script.execution.authoring.endpoints import HTTPProblem, checked_auth, checked_deadline, with_deadline
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.authoring.place import Options, Place
from circuit_script.execution.child.answering import ASGIApp
from circuit_script.execution.nursery import WebApp
from circuit_script.execution.outcome import EndpointSpec, Way
from circuit_script.execution.web.lifespan import WithLifespan
from circuit_script.execution.web.routes import (
    GOVERNED,
    SHARED,
    WebRoute,
    anywhere,
    flask_routes,
    guard_flask,
    starlette_routes,
)
from circuit_script.execution.web.wsgi import Wsgi, faults_of_flask

Placed = tuple[int, WebRoute]  # with its place among all routes


def load_web(folder: Path, web: WebApp, registry: Registry) -> dict[str, ASGIApp]:
    """Import the app, declare its routes, and give the ASGI app under each handler's name. Raises AppError."""
    app, file = _found(folder, web.app)
    answers, routes = _taken(app, web.app)
    guard_flask()
    grouped: dict[str, list[Placed]] = {}
    for placed in enumerate(routes):
        grouped.setdefault(placed[1].handler, []).append(placed)
    for name, group in grouped.items():
        _declare(registry, web, name, group, file)
    return dict.fromkeys(grouped, answers)


def _found(folder: Path, where: str) -> tuple[Any, str]:
    """The app at "module:attr", or what the factory at "module:attr()" makes; and the module's file."""
    name, _, path = where.partition(":")
    if not importing.has_app(folder, name):
        raise AppError(
            f"[web] app names {where!r}, but there is no module {name} in {folder}.",
            cure='Write the module and the name of the app in it, like "app.web:flask_app".',
        )
    module = importing.import_app(folder, name)
    found: Any = module
    for part in path.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise AppError(
                f"[web] app names {where!r}, but {module.__file__} has no {part}.",
                cure="Mend the name after the colon.",
            )
        found = getattr(found, part)
    return (found() if path.endswith("()") else found), str(module.__file__)


def _taken(app: Any, where: str) -> tuple[ASGIApp, list[WebRoute]]:
    """The app as ASGI, and its routes."""
    if (flask := sys.modules.get("flask")) is not None and isinstance(app, flask.Flask):
        _check_governed(app)
        app.register_error_handler(HTTPProblem, _flask_problem)
        return Wsgi(app, faults_of_flask(app)), flask_routes(app)
    starlette = sys.modules.get("starlette.applications")
    if starlette is not None and isinstance(app, starlette.Starlette):
        app.add_exception_handler(HTTPProblem, _starlette_problem)
        return (WithLifespan(app) if _has_lifespan(app) else app), starlette_routes(app.routes)
    match _kind(app):
        case "asgi":
            return WithLifespan(app), [anywhere()]
        case "wsgi":
            return Wsgi(app), [anywhere()]
    raise AppError(
        f"[web] app names {where!r}, which is a {type(app).__name__}: neither a WSGI nor an ASGI app.",
        cure='Name the app itself, like "app.web:flask_app", or its factory, like "app.web:create_app()".',
    )


def _kind(app: Any) -> str:
    if not callable(app) or inspect.isclass(app):
        return ""
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004  # the method is looked at
        return "asgi"
    try:
        kinds = [each.kind for each in inspect.signature(app).parameters.values() if each.default is each.empty]
    except (TypeError, ValueError):
        return ""
    places = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    return {2: "wsgi", 3: "asgi"}.get(places, "")


def _declare(registry: Registry, web: WebApp, name: str, group: list[Placed], file: str) -> None:
    """One handler for these routes."""
    governed = group[0][1].view if name != SHARED else None
    said: Mapping[str, Any] = getattr(governed, GOVERNED, None) or {}
    stub = _stub(name, *_place_of(governed, file), inspect.getdoc(governed))
    place, deadline = Place.of(stub), said.get("deadline")
    if governed is not None and any(route.view is not governed for _, route in group):
        place.refuse("another governed view has this name.", "Give one of them another name.", page="duplicate-handler")
    spec = EndpointSpec(
        ways=tuple(Way(route.methods, route.path, route.shown, (place,)) for place, route in group),
        deadline=web.deadline if deadline is None else checked_deadline(place, deadline),
        auth=checked_auth(place, said.get("auth") or web.auth),
        kind="web",
    )
    options = Options(limits=with_deadline(said.get("limits"), deadline), share_child=said.get("share_child"))
    registry.add_endpoint(stub, spec, options, said="[web] app")


def _place_of(view: Any, otherwise: str) -> tuple[str, int]:
    """File and line of a view; of a class-based one, those of its class."""
    if (owner := getattr(view, "view_class", None)) is not None:
        with suppress(OSError, TypeError):
            return str(inspect.getsourcefile(owner)), inspect.getsourcelines(owner)[1]
    code = getattr(inspect.unwrap(view), "__code__", None) if view is not None else None
    return (code.co_filename, code.co_firstlineno) if code is not None else (otherwise, 1)


def _stub(name: str, file: str, line: int, doc: str | None) -> FunctionType:
    """What stands in the registry for a group of routes: never called, it has a name and a place."""

    def stub() -> None: ...

    made = FunctionType(stub.__code__.replace(co_filename=file, co_firstlineno=line), globals(), name)
    made.__qualname__, made.__doc__ = name, doc if name != SHARED else f"The routes of {Path(file).name}."
    return made


def _check_governed(app: Any) -> None:
    """See that every ``@governed`` has reached a route of this app. Raises AppError with file and line."""
    integration = sys.modules.get("circuit_script.integrations.flask")
    views = list(app.view_functions.values())
    carried = {id(getattr(view, GOVERNED, None)) for view in views}
    for each in getattr(integration, "declared", ()):
        if id(each.said) in carried:
            continue
        place = Place(each.name, each.file, each.line)
        if any(inspect.unwrap(view) is inspect.unwrap(each.written) for view in views):
            place.refuse(
                "@governed stands above @app.route, where Flask does not see it.",
                "Put it below @app.route, directly above the function.",
                page="handler-signature",
            )
        place.refuse(
            "it is @governed, but no route of the app has it.",
            "Put @app.route above it. For the methods of a MethodView write `decorators = [governed]` in the class.",
            page="handler-signature",
        )


def _has_lifespan(app: Any) -> bool:
    router = app.router
    own = type(router.lifespan_context).__name__ != "_DefaultLifespan"
    return own or bool(getattr(router, "on_startup", None) or getattr(router, "on_shutdown", None))


def _flask_problem(problem: HTTPProblem) -> Any:
    import flask

    return flask.Response(problem.body(), problem.status, problem.headers, content_type=problem.media_type)


async def _starlette_problem(_: Any, problem: HTTPProblem) -> Any:
    from starlette.responses import Response

    return Response(problem.body(), problem.status, problem.headers, problem.media_type)

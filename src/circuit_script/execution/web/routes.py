"""The routes of a Flask or Starlette app, in the order in which its framework tries them.

The gateway chooses by this list, the framework by its own: they must agree, or a request would run with another
route's key and limits. Where a pattern can only be told roughly (converters of the author's own, several parameters
between two slashes, hosts), it matches more than the framework's; what then goes astray is refused in the child.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from circuit_script.execution.authoring.endpoints import METHODS
from circuit_script.execution.authoring.patterns import ANYTHING, Hole, Part, pattern_of
from circuit_script.execution.child.answering import ASGIApp, must_be

SHARED = "web"  # the handler of all routes that are not governed one by one
GOVERNED = "__circuit_governed__"
ANYWHERE = "/" + ANYTHING

_STARLETTE_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_][a-zA-Z0-9_]*))?\}")
_LINE_BREAK = r"\n?"  # Starlette's patterns end with $, which lets one follow


@dataclass(frozen=True, slots=True)
class WebRoute:
    """One route: a regular expression for its path, what a person reads, the view behind it and its name, if known."""

    path: str
    shown: str
    methods: tuple[str, ...] = METHODS
    view: Any = None
    name: str = ""

    @property
    def handler(self) -> str:
        """The handler that runs it."""
        return handler_of(self.view, self.name)


def handler_of(view: Any, name: str) -> str:
    """The handler that a view is run by. ``name`` is its route's."""
    governed = getattr(view, GOVERNED, None)
    return SHARED if governed is None else governed.get("name") or name


def anywhere() -> WebRoute:
    """All paths: the app knows more."""
    return WebRoute(ANYWHERE, "/…")


def flask_routes(app: Any) -> list[WebRoute]:
    """The routes of a Flask app."""
    from werkzeug.routing import converters

    exact = {converters.UnicodeConverter, converters.AnyConverter, converters.PathConverter}
    exact |= {converters.IntegerConverter, converters.FloatConverter, converters.UUIDConverter}
    app.url_map.update()  # sorts them
    ordered = [each for each in _flask_order(app.url_map._matcher._root) if not each[0].websocket]
    routes = [_flask_route(app, rule, slash, exact) for rule, slash in ordered]
    # What a converter refuses is not found, and the app's own page says so: no view runs.
    nearly = [_flask_route(app, rule, slash, None) for rule, slash in ordered]
    known = {route.path for route in routes}
    return routes + [route for route in nearly if route.path not in known]


def _flask_route(app: Any, rule: Any, slash: str, exact: set[Any] | None) -> WebRoute:
    methods, view = tuple(sorted(rule.methods or METHODS)), app.view_functions.get(rule.endpoint)
    return WebRoute(_flask_pattern(rule, slash, exact), rule.rule, methods, view, rule.endpoint)


def _flask_order(state: Any, *, rest: bool = False) -> Iterator[tuple[Any, str]]:
    """Rules as Werkzeug's `StateMachineMatcher.match` comes to them, with what becomes of the slash at their end: "as
    it is", "left out" (Werkzeug answers where the path is, or takes it), "added".

    Its states have no public way in, and its sorted list of rules is not the order in which it takes them.
    """
    for rule in state.rules:
        yield rule, "as it is"
    for rule in state.static[""].rules if "" in state.static else ():
        yield rule, "left out"
    for following in state.static.values():
        yield from _flask_order(following)
    for part, following in state.dynamic:
        yield from _flask_order(following, rest=part.final)
    for rule in () if rest else state.rules:  # what took all of the path has left no slash
        if not rule.strict_slashes and not rule.rule.endswith("/"):
            yield rule, "added"


def _flask_pattern(rule: Any, slash: str, exact: set[Any] | None) -> str:
    traced = list(rule._trace)
    parts: list[Part] = [
        _flask_hole(rule._converters[said], exact) if is_parameter else said
        for is_parameter, said in traced[traced.index((False, "|")) + 1 :]
    ]
    ends = len(parts) > 1 and parts[-1] == "/" and isinstance(parts[-2], Hole) and parts[-2].spans
    if slash == "left out" or ends:
        parts = parts[:-1]
    pattern = pattern_of(parts) + ("(?<!/)" if ends else "")  # what spans slashes ends with none before the last
    return pattern + ("/" if slash == "added" or (ends and slash == "as it is") else "")


def _flask_hole(converter: Any, exact: set[Any] | None) -> Hole:
    """What a parameter takes; with ``exact`` what its converter does, where it is one of Werkzeug's own."""
    spans = not converter.part_isolating
    if exact is None or converter.regex in ("[^/]+", "[^/]{1,}"):
        return Hole(".+" if spans else "[^/]+", spans)
    if type(converter) in exact:
        return Hole(converter.regex, spans)
    return Hole(ANYTHING if spans else "[^/]*", spans)


def guard_flask() -> None:
    """Have each Flask app of this process, also one inside another app, refuse to run a view for another handler than
    its own: after the routing, before any hook."""
    if (flask := sys.modules.get("flask")) is not None:
        flask.request_started.connect(_check_view)


def _check_view(app: Any, **_: Any) -> None:
    name = sys.modules["flask"].request.endpoint
    if name is not None:
        must_be(handler_of(app.view_functions.get(name), name))


def starlette_routes(routes: Iterable[Any]) -> list[WebRoute]:
    """The routes of a Starlette or FastAPI app. Each refuses from now on to run for another handler than its own."""
    from starlette.routing import Mount, Route, WebSocketRoute

    found: list[WebRoute] = []
    redirects: list[WebRoute] = []
    for route in routes:
        match route:
            case WebSocketRoute():
                continue  # there are none here
            case Route():
                path = _starlette_pattern(route.path, route.param_convertors)
                methods = tuple(sorted(route.methods or METHODS))
                made = WebRoute(path, route.path, methods, route.endpoint, route.name)
            case Mount():
                path = _starlette_pattern(route.path, route.param_convertors)
                made = WebRoute(path.removesuffix(_LINE_BREAK) + "/.*" + _LINE_BREAK, route.path + "/…")
                if route.path:
                    redirects.append(WebRoute(path, route.path))  # Starlette answers that it is at /path/
            case _:
                made = anywhere()  # a kind of its own
        route.handle = _guarded(route.handle, made.handler)
        found.append(made)
    return found + redirects


def _guarded(handle: ASGIApp, handler: str) -> ASGIApp:
    async def handle_for_own(scope: Any, receive: Any, send: Any) -> None:
        must_be(handler)
        await handle(scope, receive, send)

    return handle_for_own


def _starlette_pattern(path: str, convertors: Any) -> str:
    parts: list[Part] = []
    end = 0
    for found in _STARLETTE_PARAMETER.finditer(path):
        parts += [path[end : found.start()], _starlette_hole(convertors[found.group(1)])]
        end = found.end()
    return pattern_of([*parts, path[end:]]) + _LINE_BREAK


def _starlette_hole(convertor: Any) -> Hole:
    from starlette import convertors as own

    match convertor:
        case own.PathConvertor():
            return Hole(".*", spans=True)
        case own.StringConvertor() | own.IntegerConvertor() | own.FloatConvertor() | own.UUIDConvertor():
            return Hole(convertor.regex)
    return Hole(ANYTHING, spans=True)

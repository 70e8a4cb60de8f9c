"""The app that answers for every ``@endpoint``: one FastAPI app, built after the import, before the first child.

FastAPI does what its users know it for: parameters, models, validation, server-sent events, the OpenAPI document. It is
imported here only, for apps that have endpoints.
"""

from __future__ import annotations

import json
import linecache
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, cast

import anyio
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.sse import EventSourceResponse
from starlette.exceptions import HTTPException

from circuit_script import problems
from circuit_script.execution.authoring.endpoints import PROBLEM_TYPE, HTTPProblem, routes
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.child.answering import ASGIApp, Message, Receive, Send, leaf_of
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.web import endpoint_route
from circuit_script.execution.web.endpoint_route import Declaration, EndpointRoute, Held, listed, now


def build(registry: Registry, title: str) -> tuple[dict[str, ASGIApp], bytes]:
    """The app under each endpoint's name, and its OpenAPI document in JSON.

    Raises AppError with file and line for a function that cannot be an endpoint.
    """
    app = EndpointApp(title, registry)
    document = app.document()
    anyio.run(app.warm_up)
    return dict.fromkeys(app.names, app), document


class EndpointApp:
    """An ASGI app: FastAPI, and around it what turns exceptions into problems."""

    def __init__(self, title: str, registry: Registry) -> None:
        self._registry = registry
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._app = FastAPI(
            title=title,
            version="1",
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
            exception_handlers={
                HTTPException: _raise_again,
                RequestValidationError: _raise_again,
                Exception: cast(Any, _say_nothing),
            },
        )
        self._app.router.route_class = EndpointRoute
        specs = {spec.name: spec for spec in registry.specs() if spec.endpoint is not None}
        # Starlette takes the first route that fits: the order must be that of the gateway.
        self.names = tuple(sorted((name for name in routes if name in specs), key=lambda name: _rank(specs[name])))
        for name in self.names:
            Declaration(specs[name], routes[name]).add_to(self._app, self._handler)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        held = Held(send)
        token = now.set(held)
        try:
            await self._app(scope, receive, held)
            if held.error is not None:
                raise held.error
        except BaseException as error:
            found = leaf_of(error)
            problem = _problem_of(found)
            if problem is None or held.begun:
                raise found.with_traceback(_of_the_author(found.__traceback__)) from found.__cause__
            await _tell(problem, send)
        finally:
            now.reset(token)

    def document(self) -> bytes:
        """The OpenAPI document, in JSON."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the document leaves out
            document = self._app.openapi()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).setdefault("Problem", problems.SCHEMA)
        components.setdefault("securitySchemes", {})["key"] = problems.KEY
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    async def warm_up(self) -> None:
        """Import and build now, once for all children, what would otherwise come with the first request of each.

        The author's functions are not called: requests go to a path that there is not, and to a spare app.
        """
        spare = FastAPI(openapi_url=None)
        spare.add_api_route("/", _echo, methods=["POST"])
        spare.add_api_route("/", _tick, methods=["GET"], response_class=EventSourceResponse)
        for app, method in ((self, "GET"), (spare, "POST"), (spare, "GET")):
            await _request(app, method)
        linecache.getlines(endpoint_route.__file__)  # FastAPI looks up the line of each function that it calls

    def _handler(self, name: str) -> Callable[..., Any]:
        """The function to call; a method's instance is made once in each child."""
        if name not in self._handlers:
            self._handlers[name] = self._registry.callable(name)
        return self._handlers[name]


def _rank(spec: HandlerSpec) -> tuple[int, ...]:
    assert spec.endpoint is not None
    return spec.endpoint.ways[0].rank


async def _echo(body: dict[str, str]) -> dict[str, str]:
    return body


async def _tick() -> AsyncIterator[int]:
    yield 1


async def _request(app: Any, method: str) -> None:
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "method": method, "path": "/"}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_: Message) -> None: ...

    await app({**scope, "headers": headers, "query_string": b"", "root_path": ""}, receive, send)


async def _raise_again(_: Any, error: Exception) -> Any:
    raise error


async def _say_nothing(*_: Any) -> ASGIApp:
    """Starlette answers 500 to what nobody handles; that is the platform's word."""

    async def nothing(*_: Any) -> None: ...

    return nothing


def _of_the_author(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback below our call of the author's function; all of it when it did not get there."""
    own, each = None, trace
    while each is not None:
        if each.tb_frame.f_code.co_filename == endpoint_route.__file__ and each.tb_next is not None:
            own = each.tb_next
        each = each.tb_next
    return own if own is not None and "site-packages" not in own.tb_frame.f_code.co_filename else trace


def _problem_of(error: BaseException) -> HTTPProblem | None:
    """The author's or FastAPI's way to say no; None for a fault."""
    match error:
        case HTTPProblem():
            return error
        case RequestValidationError():
            errors = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
            return HTTPProblem(422, listed(errors), errors=errors)
        case HTTPException(status_code=status, headers=headers) if status >= 400:
            detail: Any = error.detail  # FastAPI's own takes anything that JSON holds
            if isinstance(detail, str):
                return HTTPProblem(status, detail, headers=headers)
            return HTTPProblem(status, headers=headers, data=jsonable_encoder(detail))
        case _:
            return None


async def _tell(problem: HTTPProblem, send: Send) -> None:
    body = problem.body()
    headers: Mapping[str, str] = {"cache-control": "no-store", **problem.headers, "content-type": PROBLEM_TYPE}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})

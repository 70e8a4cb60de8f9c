"""The HTTP door: webhooks by one raw route, everything else by FastAPI."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from circuit_script import problems
from circuit_script.endpoints.client import Link
from circuit_script.events.intake import Intake
from circuit_script.events.status import StatusReader
from circuit_script.gateway.api import Api, api_routers
from circuit_script.gateway.calls import Endpoints
from circuit_script.gateway.metrics import MetricsReader, metrics_routes
from circuit_script.gateway.openapi import document
from circuit_script.gateway.status import status_routes
from circuit_script.gateway.webhooks import PREFIX, Receive, Scope, Send, Webhooks
from circuit_script.pages import page_text

log = logging.getLogger(__name__)


class Gateway:
    """The ASGI application. An app's own web routes come before sources that are not ``configured``."""

    def __init__(
        self,
        *,
        intake: Intake,
        configured: Collection[str],
        status: StatusReader,
        metrics: MetricsReader,
        webhooks: Webhooks,
        endpoints: Endpoints,
        link: Link,
        api: Api,
    ) -> None:
        self._sources = frozenset(configured)
        self._webhooks = webhooks
        self._endpoints = endpoints
        parts = [status_routes(status), metrics_routes(metrics), *api_routers()]
        self._others = _others(intake, parts, link)
        self._others.state.api = api
        # To ask the router for each call took a third of the gateway's time.
        found = [*self._others.routes, *(route for part in parts for route in part.routes)]
        routes = [route for route in found if isinstance(route, Route)]
        self._own = {route.path for route in routes if not route.param_convertors} - {"/"}
        self._own_patterns = [route.path_regex for route in routes if route.param_convertors]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(PREFIX) and path[len(PREFIX) :].partition("/")[0] in self._sources:
                return await self._webhooks(scope, receive, send)
            if not self._is_own(path) and self._endpoints.find(scope):
                return await self._endpoints(scope, receive, send)
            if path.startswith(PREFIX):
                return await self._webhooks(scope, receive, send)  # which refuses and counts it
        await self._others(scope, receive, send)

    def _is_own(self, path: str) -> bool:
        """Whether the path is the gateway's own. An app's web routes may have the page at ``/``."""
        return path in self._own or any(pattern.match(path) for pattern in self._own_patterns)


def _others(intake: Intake, parts: Sequence[APIRouter], link: Link) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with intake:
            yield

    # The documentation pages load scripts from elsewhere; the schema itself is served.
    app = FastAPI(
        title="Circuit Script", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    for part in parts:
        app.include_router(part)
    sources = [(name, source.has_accounts) for name, source in intake.sources.items()]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        body = msgspec.json.encode(document(app.openapi(), sources, link.news))
        return Response(body, media_type="application/json", headers={"cache-control": "no-cache"})

    @app.get(problems.PREFIX + "{page}", include_in_schema=False)
    async def problem_page(page: str) -> Response:
        text = page_text(page)
        if text is None:
            raise HTTPException(404, "There is no such page.")
        return Response(text, media_type="text/markdown; charset=utf-8")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return _problem(422, faults)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return _problem(500, "Something is wrong here; the log knows what.")

    return app


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    headers = problems.headers_of(status) | (headers or {})
    return Response(problems.render(status, detail), status_code=status, headers=headers)

"""The HTTP door: webhooks by one raw route, everything else by FastAPI."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from circuit_script.events.intake import Intake
from circuit_script.events.status import StatusReader
from circuit_script.gateway import problems
from circuit_script.gateway.status import status_routes
from circuit_script.gateway.webhooks import PREFIX, Receive, Scope, Send, Webhooks

log = logging.getLogger(__name__)


class Gateway:
    """The ASGI application."""

    def __init__(self, *, intake: Intake, status: StatusReader, max_body: int) -> None:
        self._webhooks = Webhooks(intake, max_body)
        self._others = _others(intake, status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self._webhooks(scope, receive, send)
        else:
            await self._others(scope, receive, send)


def _others(intake: Intake, status: StatusReader) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with intake:
            yield

    # The documentation pages load scripts from elsewhere; the schema itself is served.
    app = FastAPI(title="Circuit Script", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(status_routes(status))

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

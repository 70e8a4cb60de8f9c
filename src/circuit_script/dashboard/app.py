"""The dashboard's application: the door, the looks, and the pages in their frame."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Request
from nicegui import app as pages_app
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from circuit_script.config import Settings
from circuit_script.dashboard import open_pages, shell, sign_in, theme
from circuit_script.dashboard.frame import cookie_of, use_settings
from circuit_script.dashboard.guard import Guard
from circuit_script.dashboard.pages import load_pages
from circuit_script.dashboard.reading import use_pool
from circuit_script.db.pool import Pool

LONG = "public, max-age=31536000, immutable"
PACKED = ("/_nicegui/", theme.PREFIX)  # what is the same for everybody; what holds a secret is not compressed

log = logging.getLogger(__name__)


def make_app(settings: Settings, pool: Pool) -> ASGIApp:
    """The application. One in a process: NiceGUI keeps its pages in a global."""
    use_settings(settings)
    use_pool(pool)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    sign_in.add_routes(outer, settings)
    _looks(outer)
    load_pages()
    _faults()
    ui.run_with(
        outer,
        title="Circuit Script",
        favicon=Path(theme.STATIC / "mark.svg"),
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=10,
        gzip_middleware_factory=None,
        show_welcome_message=False,
        language="en-US",
    )
    pages_app.config.socket_io_js_transports = ["websocket"]
    open_pages.hear_only_their_own()

    def page_of(query: bytes, cookie: str | None) -> str | None:
        return open_pages.page_of_socket(query, cookie, cookie_of)

    return Guard(_Packed(outer), page_of, settings.dashboard.url)


@asynccontextmanager
async def watching() -> AsyncIterator[None]:
    """Within the block, pages end with their sessions."""
    task = asyncio.create_task(open_pages.end_with_their_sessions(cookie_of))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _looks(app: FastAPI) -> None:
    @app.get(theme.PREFIX + "{name}", include_in_schema=False)
    async def look(name: str) -> Response:
        if name not in theme.NAMES:
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(theme.STATIC / theme.NAMES[name], headers={"cache-control": LONG})

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("ok")


def _faults() -> None:
    """What is not there, and what went wrong, in our own words: an exception's may be anybody's data."""

    @pages_app.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return shell.plain_page(
            "Not found", "<h1>There is no such page.</h1><p><a href='/'>To the overview</a></p>", 404
        )

    @pages_app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("a page failed", exc_info=error)
        return shell.plain_page("Error", "<h1>This page failed.</h1><p class='muted'>The log knows why.</p>", 500)


class _Packed:
    """Compresses files only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._packed = GZipMiddleware(app, minimum_size=1000, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        packed = scope["type"] == "http" and scope["path"].startswith(PACKED)
        await (self._packed if packed else self._app)(scope, receive, send)

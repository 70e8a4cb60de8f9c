"""How a page is written: a function with ``@page`` that gets a `View` and builds what stands in the frame.

    @page("/limits", title="Limits")
    async def limits(view: View) -> None:
        async with reading(view.tenant) as connection:
            rows = await list_limits(connection)
        pieces.head("Limits", "What one execution may use.")
        pieces.table([Column("Limit"), Column("Value", right=True)], [Row([r.name, number(r.value)]) for r in rows])

Before it is called: the person is signed in (else: sign-in, and back), has a role for the tenant and may do the page's
``act`` (else the page says so). What is in the URL is ``view.query`` and ``view.path``: links made by ``view.link``
keep the tenant, so that every state of a page can be sent to somebody. Read everything first, then build: nothing moves
while it is read. ``view.may(act)`` says which buttons to show; what they do goes through ``acting(view, act)``, which
asks again. Text goes through `pieces.el`, which shows what cannot be seen; never ``ui.html`` or ``ui.markdown``.
What changes by itself is built by ``await view.live(seconds, build)``: read and build in it. What is much and only
shows something is built ``with still():``, which is ten times as fast; nothing in it can be clicked but links.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import psycopg
import structlog
from fastapi import Request
from nicegui import Client, ui
from psycopg_pool import PoolTimeout
from starlette.responses import RedirectResponse, Response

from circuit_script.access import Act, Person, read_cookie, session_of
from circuit_script.config import Settings
from circuit_script.dashboard import pieces, shell
from circuit_script.dashboard.answer import answer
from circuit_script.dashboard.open_pages import room_for
from circuit_script.dashboard.reading import borrowed
from circuit_script.dashboard.still import StillPart
from circuit_script.dashboard.words import zone_of
from circuit_script.errors import CircuitError

TENANT_COOKIE = "circuit_tenant"
ZONE_COOKIE = "circuit_zone"
THEME_COOKIE = "circuit_theme"

log = structlog.get_logger()
Build = Callable[["View"], Awaitable[None]]

_settings: list[Settings] = []


def use_settings(settings: Settings) -> None:
    """The settings of this process."""
    _settings[:] = [settings]


def session_cookie(request: Request) -> str | None:
    """The cookie of the session that the request says it has."""
    return read_cookie(
        "; ".join(request.headers.getlist("cookie")), secure=_settings[0].dashboard.url.startswith("https:")
    )


def cookie_of(page: Client) -> str | None:
    """The cookie of the session for which a page was made."""
    return session_cookie(page.request)


@dataclass(frozen=True, slots=True)
class View:
    """One look of one person at one page, for one tenant."""

    person: Person
    tenant: str
    tenants: tuple[str, ...]
    csrf: str = field(repr=False)
    cookie: str = field(repr=False)
    zone: ZoneInfo
    theme: str
    at: str  # the page's own path, as it is in the browser
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return _settings[0]

    def may(self, act: Act) -> bool:
        """Whether to show what does that. Doing it asks again: see ``acting``."""
        return self.person.may(act, self.tenant)

    def link(self, path: str, **query: object) -> str:
        """An address within the dashboard that keeps the tenant; what is None or empty is left out."""
        said = {key: str(value) for key, value in query.items() if value not in (None, "")}
        if len(self.tenants) > 1:
            said.setdefault("tenant", self.tenant)
        return path + (f"?{urlencode(said)}" if said else "")

    def here(self, **query: object) -> str:
        """This page with other state: ``query`` over what is in the URL now."""
        return self.link(self.at, **{**self.query, **query})

    def record(self, object_: str, record: str) -> str:
        """The address of everything that ever happened to a record."""
        return self.link(f"/records/{quote(object_, safe='')}/{quote(record, safe='')}")

    def execution(self, id_: object) -> str:
        """The address of an execution."""
        return self.link(f"/executions/{id_}")

    async def live(self, seconds: float, build: Callable[[], Awaitable[None]], *, still: bool = False) -> None:
        """Build now, and again every so often while the page is open and its person signed in. ``still`` says that
        nobody acts on what it builds: see `dashboard.still`."""
        with pieces.el("div", "live") as place:
            part = StillPart() if still else None

        async def make() -> None:
            with part.made() if part else pieces.afresh(place):
                await build()

        async def again() -> None:
            if not await self.signed_in():
                ui.navigate.to("/sign-in?" + urlencode({"next": self.here()}))
                return
            await make()

        await make()
        ui.timer(seconds, lambda: _quietly(again), immediate=False)

    async def signed_in(self) -> bool:
        """Whether the person is still signed in, and may still see this tenant."""
        async with borrowed() as connection:
            session = await session_of(connection, self.cookie, touch=False)
        return session is not None and session.person.may(Act.see, self.tenant)


def page(path: str, *, title: str, act: Act = Act.see) -> Callable[[Build], Build]:
    """The page at ``path``, for whoever may do ``act``."""

    def of(build: Build) -> Build:
        @ui.page(path, title=f"{title} · Circuit Script", response_timeout=15)
        async def shown(request: Request) -> Response:
            try:
                view = await _view_of(request)
            except (psycopg.Error, PoolTimeout, OSError) as error:
                log.warning("dashboard.database_away", error=str(error))
                view = shell.away()
            if isinstance(view, View) and not room_for(ui.context.client, cookie_of):
                view = shell.too_many()
            if isinstance(view, Response):
                ui.context.client.delete()  # nothing of it is shown: who asks without end must leave nothing here
                return view
            ui.context.client.on_exception(_unexpected)
            with shell.frame(view, title):
                if view.may(act):
                    await _built(build, view)
                else:
                    pieces.empty("This is not for your role.", "An owner of the tenant can change it under People.")
            return answer(ui.context.client, request, f"{title} · Circuit Script", view.theme)

        return build

    return of


async def _view_of(request: Request) -> View | Response:
    cookie = session_cookie(request) or ""
    async with borrowed() as connection:
        session = await session_of(connection, cookie) if cookie else None
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if session is None:
        return RedirectResponse("/sign-in?" + urlencode({"next": here}), 303)
    person = session.person
    query = dict(request.query_params)
    tenants = _tenants_of(person)
    wanted = query.pop("tenant", None)
    if wanted is None:
        remembered = request.cookies.get(TENANT_COOKIE, "")
        wanted = remembered if remembered in tenants else next(iter(tenants), "")
    if wanted not in tenants:  # another's, or nobody's: which of them is nobody's business
        return shell.no_tenant(404)
    return View(
        person=person,
        tenant=wanted,
        tenants=tenants,
        csrf=session.csrf,
        cookie=cookie,
        zone=zone_of(request.cookies.get(ZONE_COOKIE, "UTC").replace("%2F", "/")),
        theme=request.cookies.get(THEME_COOKIE, ""),
        at=request.url.path,
        path=request.path_params,
        query=query,
    )


def _tenants_of(person: Person) -> tuple[str, ...]:
    own = set(person.tenants)
    return tuple(sorted(own | set(_settings[0].tenant_names) if person.everywhere else own))


async def _built(build: Build, view: View) -> None:
    """Build the page; what goes wrong is said in its place."""
    place = pieces.el("div", "page")
    try:
        with place:
            await build(view)
    except (psycopg.errors.QueryCanceled, TimeoutError):
        with pieces.afresh(place):
            pieces.empty("This took too long.", "Ask for less: a shorter time, or one handler or record.")
    except (psycopg.Error, PoolTimeout, OSError) as error:
        log.warning("dashboard.database_away", error=str(error))
        with pieces.afresh(place):
            pieces.empty("The database is away.", "The road keeps what was accepted. Look again in a moment.")
    except CircuitError as error:
        with pieces.afresh(place):
            pieces.empty(error.detail or str(error), error.cure)


async def _quietly(again: Callable[[], Awaitable[None]]) -> None:
    """A look that fails leaves what is shown; the next one comes."""
    try:
        await again()
    except (psycopg.Error, PoolTimeout, OSError, TimeoutError) as error:
        log.warning("dashboard.look_failed", error=str(error))


def _unexpected(error: Exception) -> None:
    log.error("dashboard.failed", exc_info=error)


def state_of(**said: Any) -> dict[str, str]:
    """What of a page's state goes into its URL: whatever is not empty."""
    return {key: str(value) for key, value in said.items() if value not in (None, "", False)}

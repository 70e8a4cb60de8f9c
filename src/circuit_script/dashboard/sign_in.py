"""The door: name and password, or a one-time link. Plain pages: nobody gets more before they are known."""

from __future__ import annotations

import asyncio
import math
from html import escape
from urllib.parse import parse_qs, urlsplit

import psycopg
import structlog
from fastapi import FastAPI, Request
from psycopg_pool import PoolTimeout
from starlette.responses import RedirectResponse, Response

from circuit_script.access import (
    Refused,
    SignedIn,
    client_address,
    redeem,
    same_csrf,
    session_of,
    set_cookie,
    sign_in,
    sign_out,
)
from circuit_script.config import Settings
from circuit_script.dashboard import shell
from circuit_script.dashboard.frame import THEME_COOKIE, session_cookie
from circuit_script.dashboard.patient import PATIENCE
from circuit_script.dashboard.reading import borrowed
from circuit_script.dashboard.words import span
from circuit_script.settings_spans import seconds_of

MAX_FORM = 8192  # bytes
SIGNING_IN = 2  # of the three connections: whoever guesses leaves one to those who are in
MAX_SIGNING_IN = 16  # that wait while passwords are compared

log = structlog.get_logger()


def add_routes(app: FastAPI, settings: Settings) -> None:
    """The routes of signing in and out. That a request comes from our own page is seen to before it gets here."""
    secure = settings.dashboard.url.startswith("https:")
    lasts = seconds_of(settings.dashboard.session)
    signing, waiting = asyncio.Semaphore(SIGNING_IN), asyncio.Semaphore(MAX_SIGNING_IN)

    def let_in(signed_in: SignedIn, place: str) -> Response:
        answer = RedirectResponse(place, 303)
        answer.headers.append("set-cookie", set_cookie(signed_in.cookie, lasts, secure=secure))
        return answer

    @app.get("/sign-in", include_in_schema=False)
    async def door(request: Request) -> Response:
        link = request.query_params.get("link")
        if link is not None:
            return _page(request, _link_form(link, request.query_params.get("next", "")))
        return _page(request, _form("", request.query_params.get("next", "")))

    @app.post("/sign-in", include_in_schema=False)
    async def enter(request: Request) -> Response:
        form = await _form_of(request)
        place = safe_place(form.get("next", ""))
        before, address = session_cookie(request) or "", _address_of(request)
        if waiting.locked():
            return _busy(request)
        try:
            async with waiting, signing, borrowed() as connection:
                if "link" in form:
                    entered = await redeem(connection, form["link"], address, lasts=lasts, replaces=before)
                else:
                    name, password = form.get("name", ""), form.get("password", "")
                    entered = await sign_in(connection, name, password, address, lasts=lasts, replaces=before)
        except (psycopg.Error, PoolTimeout, OSError) as error:
            log.warning("dashboard.database_away", error=str(error))
            return shell.away()
        match entered:
            case SignedIn():
                return let_in(entered, place)
            case Refused(wait) if "link" in form:
                words = (
                    "This link was used, or is older than ten minutes. Ask for a new one: circuit-script people link"
                )
                return _page(request, _form("", place, words), 403)
            case Refused(wait):
                words = "Name or password are not right."
                if wait > 0.5:
                    words += f" Wait {span(math.ceil(wait))} before the next attempt."
                page = _page(request, _form(form.get("name", ""), place, words), 429 if wait > 0.5 else 403)
                if wait > 0.5:
                    page.headers["retry-after"] = str(math.ceil(wait))
                return page

    @app.post("/sign-out", include_in_schema=False)
    async def leave(request: Request) -> Response:
        form = await _form_of(request)
        cookie = session_cookie(request)
        try:
            async with borrowed() as connection:
                session = await session_of(connection, cookie)
                if session is not None and not same_csrf(session.csrf, form.get("csrf")):
                    return shell.plain_page("Refused", "<h1>That did not come from our page.</h1>", 403)
                await sign_out(connection, cookie)
        except (psycopg.Error, PoolTimeout, OSError):
            return shell.away()  # and still signed in, which must not look otherwise
        answer = RedirectResponse("/sign-in", 303)
        answer.headers.append("set-cookie", set_cookie("", 0, secure=secure))
        return answer


def safe_place(place: str) -> str:
    """A path of ours to go on to; the overview for what is none, or leads elsewhere."""
    try:
        parts = urlsplit(place)
    except ValueError:
        return "/"
    ours = place.startswith("/") and not place.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    printable = place.isascii() and place.isprintable() and "\\" not in place
    return place if ours and printable and len(place) < 2000 and not place.startswith("/sign-") else "/"


def _address_of(request: Request) -> str:
    """Where the request comes from. A proxy may add a header of its own to the one that it was sent."""
    forwarded = ", ".join(request.headers.getlist("x-forwarded-for"))
    return client_address(request.client.host if request.client else "", forwarded or None)


def _busy(request: Request) -> Response:
    page = _page(request, _form("", "", "Too many people sign in at this moment. Try again in a second."), 503)
    page.headers["retry-after"] = "1"
    return page


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a posted form; nothing where it is too long, or not one of ours."""
    body = b""
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM:
                    return {}
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    except (TimeoutError, ValueError):  # it does not come, or has more fields
        return {}
    return {name: values[0] for name, values in fields.items()}


def _page(request: Request, body: str, status: int = 200) -> Response:
    return shell.plain_page("Sign in", body, status, theme_name=request.cookies.get(THEME_COOKIE, ""))


def _form(name: str, place: str, refused: str = "") -> str:
    said = f'<p class="note bad" role="alert">{escape(refused)}</p>' if refused else ""
    focus_name, focus_password = ("", " autofocus") if name else (" autofocus", "")
    return (
        f'<h1>Sign in</h1>{said}<form method="post" action="/sign-in">'
        f'<input type="hidden" name="next" value="{escape(safe_place(place))}">'
        f'<label class="field"><span class="field-name">Name</span><input class="input" name="name" required '
        f'autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="254" value="{escape(name)}"'
        f"{focus_name}>"
        f'</label><label class="field"><span class="field-name">Password</span><input class="input" type="password" '
        f'name="password" required autocomplete="current-password" maxlength="1000"{focus_password}></label>'
        '<button class="button main" type="submit">Sign in</button></form>'
        '<p class="muted">No password yet? On the host: <code>circuit-script people link</code> prints an address '
        "that signs you in once.</p>"
    )


def _link_form(link: str, place: str) -> str:
    return (
        '<h1>You have a link</h1><p class="muted">It signs you in once, and is used up by that.</p>'
        f'<form method="post" action="/sign-in"><input type="hidden" name="link" value="{escape(link)}">'
        f'<input type="hidden" name="next" value="{escape(safe_place(place))}">'
        '<button class="button main" type="submit" autofocus>Sign in</button></form>'
    )

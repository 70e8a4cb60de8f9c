"""Pages that stand open in browsers: whose each is, how many there may be, and when they end.

NiceGUI keeps what a page is made of while a browser may still speak for it, and hears whoever knows the page's id. That
id is in the address of a socket, where proxies write it down: so here a socket speaks for one page, and only with the
session that the page was made for. A session that has ended takes its pages along.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import psycopg
from nicegui import Client, core
from psycopg_pool import PoolTimeout

from circuit_script.access import open_among
from circuit_script.dashboard.reading import borrowed

MOST = 400  # pages at once; each takes some 0.4 MB
MOST_OF_ONE = 40  # of one session
EVERY = 5.0  # seconds between two looks whether sessions have ended
MISSHAPEN = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
LEAVING = 2.0  # seconds in which a browser may still be told to look again

Cookies = Callable[[Client], str | None]
Heard = Callable[[str, Any], None]


def room_for(page: Client, cookie_of: Cookies) -> bool:
    """Whether a page that was just begun may stand. The oldest to which no browser is connected make room for it,
    first those of the same session."""
    cookie = cookie_of(page)
    for whose, most in ((cookie, MOST_OF_ONE), (None, MOST)):
        others = [each for each in Client.instances.values() if whose is None or cookie_of(each) == whose]
        surplus = max(len(others) - most, 0)
        alone = [each for each in others if each is not page and not each.has_socket_connection][:surplus]
        for each in alone:
            _forget(each)
        if len(alone) < surplus:
            return False
    return True


def _forget(page: Client) -> None:
    for document in list(page._delete_tasks):
        page._cancel_delete_task(document)  # else it would be deleted twice, which is an error
    page.delete()


def page_of_socket(query: bytes, cookie: str | None, cookie_of: Cookies) -> str | None:
    """The page for which a socket with this query may speak; None where there is none, or it is another session's."""
    try:
        said = parse_qs(query.decode()).get("client_id", [])
    except (UnicodeDecodeError, ValueError):
        return None
    page = Client.instances.get(said[0]) if len(said) == 1 else None
    if page is None or cookie is None:
        return None
    whose = cookie_of(page) or ""
    return page.id if hmac.compare_digest(whose.encode(), cookie.encode()) else None


def hear_only_their_own() -> None:
    """Have what a socket says of another page than its own, or in another form than a page does, be nothing."""
    server = core.sio
    handlers = server.handlers["/"]
    shake = handlers["handshake"]

    def checked(hear: Heard) -> Heard:
        def heard(socket: str, said: Any = None, *_: Any) -> None:
            if isinstance(said, dict) and said.get("client_id") in server.rooms(socket):
                with suppress(*MISSHAPEN):  # what a page's own function raises does not come here
                    hear(socket, said)

        return heard

    async def shaken(socket: str, said: Any = None, *_: Any) -> bool:
        with suppress(*MISSHAPEN):
            return bool(await shake(socket, said))
        return False

    for name in ("event", "javascript_response", "ack"):
        server.on(name, checked(handlers[name]))
    server.on("handshake", shaken)
    server.on("log", lambda *_: None)  # anybody's words, as many as they like


async def end_with_their_sessions(cookie_of: Cookies) -> None:
    """Until cancelled: have the browser look again at each page whose session has ended, and forget the page."""
    leaving: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(EVERY)
        pages = [(cookie_of(each) or "", each) for each in Client.instances.values()]
        try:
            over = await _over({cookie for cookie, _ in pages if cookie})
        except (psycopg.Error, PoolTimeout, OSError):
            continue  # which sessions are over is not known
        for cookie, page in pages:
            if cookie in over:
                task = asyncio.create_task(_leave(page))
                leaving.add(task)
                task.add_done_callback(leaving.discard)


async def _over(cookies: set[str]) -> set[str]:
    if not cookies:
        return set()
    async with borrowed() as connection:
        return cookies - await open_among(connection, cookies)


async def _leave(page: Client) -> None:
    if page.has_socket_connection:
        url = page.request.url
        page.open(url.path + (f"?{url.query}" if url.query else ""))
        await asyncio.sleep(LEAVING)
        if not page.is_deleted and page.has_socket_connection:  # else it goes by itself
            page.delete()

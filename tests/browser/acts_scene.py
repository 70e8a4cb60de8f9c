"""The dashboard as a process of its own, before a platform in trouble, and a browser before both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from playwright.sync_api import Browser, BrowserContext, Page

from circuit_script.access import one_time_link
from circuit_script.db.pool import open_connection
from tests.browser import acts_stage
from tests.browser.studio import DESKTOP, PATIENCE, settle
from tests.servers import Server

T = TypeVar("T")


@dataclass
class Scene:
    """``address`` is the dashboard's, ``url`` the database's."""

    address: str
    url: str
    browser: Browser

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows; of single columns, the values."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(query.encode(), values).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    def page(self, name: str, path: str, **options: Any) -> Page:
        """A page as ``name`` sees it."""
        page = self.visitor(name, **options).new_page()
        self.go(page, path)
        return page

    def visitor(self, name: str, **options: Any) -> BrowserContext:
        """The browser of somebody who came by a one-time link."""
        wanted = {"viewport": DESKTOP, "timezone_id": "Europe/Berlin", "locale": "en-GB", **options}
        context = self.browser.new_context(base_url=self.address, **wanted)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(self.link(name))
        page.locator("button[type=submit]").click()
        page.wait_for_url(lambda url: "/sign-in" not in url)
        page.close()
        return context

    def link(self, name: str) -> str:
        async def make() -> str:
            async with await open_connection(self.url) as connection:
                return await one_time_link(connection, self.address, name)

        return apart(make())

    def go(self, page: Page, path: str) -> None:
        """Open it, until it can be used."""
        page.goto(path)
        settle(page)

    def letters(self, tenant: str = "acme") -> dict[str, int]:
        """The open letters of a tenant by their records."""
        found = self.rows(
            "SELECT coalesce(record, kind), id FROM circuit.dead_letters d WHERE tenant = %s AND status = 'open' "
            "AND kind = 'event'",
            tenant,
        )
        return dict(found)


@contextlib.contextmanager
def open_scene(server: Server, browser: Browser) -> Iterator[Scene]:
    """A filled database, and the dashboard's own process before it."""
    with acts_stage.dashboard(server) as (address, url):
        yield Scene(address, url, browser)


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: in this one the browser's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()

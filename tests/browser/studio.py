"""A platform with its dashboard, as people meet it: the real command, real webhooks, a real browser before it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from circuit_script import access
from circuit_script.cli.demo.vendor import Payload, Vendor
from circuit_script.db.pool import open_connection
from tests.acceptance.platform import Platform, answers, free_port, running, write_app
from tests.acceptance.vendor import Sent, make_vendor, receiving, send_all
from tests.servers import TEMPLATE, Server, until

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PASSWORD = "a horse that counts its staples"
TELEPHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
PATIENCE = 15_000  # milliseconds

RTL = "\u202egnp.exe"
HOSTILE = f"<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>{RTL} {{{{7*7}}}} `${{1}}`"

TRIGGERS = '''
from circuit_script import CircuitDB, CircuitTrigger, http, log, send_webhook, trigger


class Leads(CircuitTrigger):
    @trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=20)
    async def score(self, context):
        """Score each lead, write it back, tell the front desk."""
        for each in context.new_records:
            async with context.record(each):
                name = each.get("firstName", "")
                log.info("scoring a lead", lead=each["id"], name=name)
                if name == "Fail":
                    log.error("the answer had no score", lead=each["id"], attempt=1)
                    raise ValueError(f"no score for {each.get('lastName')}")
                await CircuitDB.get("Contact", each["id"])
                await CircuitDB.update("Contact", [{"id": each["id"], "score": len(name) * 9, "note": name}])
                if name == "Desk":
                    await send_webhook("desk", {"lead": each["id"], "event": 1})
                log.info("scored", lead=each["id"], score=len(name) * 9)
'''
TENANTS = '[tenants]\nacme = { gohighlevel = ["loc-acme"] }\nbolt = { gohighlevel = ["loc-bolt"] }\n'


T = TypeVar("T")


def apart(doing: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: in this one, Playwright keeps a loop running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, doing).result()


@dataclass
class Studio:
    """The platform, its vendor, and people who may sign in."""

    platform: Platform
    address: str
    vendor: Vendor
    receiver: str

    def people(self, **roles: dict[str, str]) -> None:
        """Accounts by name, with their roles by tenant; each has the password `PASSWORD`."""

        async def make() -> None:
            connection = await open_connection(self.platform.url)
            async with connection:
                for name, memberships in roles.items():
                    await access.add_person(connection, name, "test", password=PASSWORD)
                    for tenant, role in memberships.items():
                        await access.grant(connection, name, tenant, access.Role(role), "test")

        apart(make())

    def link(self, name: str | None = None) -> str:
        """A one-time link, as `people link` prints it."""

        async def make() -> str:
            async with await open_connection(self.platform.url) as connection:
                return await access.one_time_link(connection, self.address, name)

        return apart(make())

    def contact(self, location: str = "loc-acme", **fields: Any) -> Payload:
        """A contact of the vendor's."""
        return self.vendor.contact(**{"locationId": location, **fields})

    def send(self, *contacts: Payload, kind: str = "ContactCreate") -> None:
        """Deliver these over HTTP, signed; until each is acknowledged."""
        sent = [Sent(str(each["id"]), 0, self.vendor.webhook({"type": kind, **each})) for each in contacts]
        send_all(self.platform.port, sent)

    def run(self, *contacts: Payload, kind: str = "ContactCreate") -> None:
        """Deliver them, and wait until all that follows is done."""
        self.send(*contacts, kind=kind)
        self.platform.wait_settled()


@contextlib.contextmanager
def open_studio(server: Server | None, *, triggers: str = TRIGGERS, more: str = "") -> Iterator[Studio]:
    """A platform with a dashboard, two tenants (acme, bolt), and nothing in it yet."""
    database = None if server is None else server.create_database(TEMPLATE)
    vendor = make_vendor(location="loc-acme")
    with receiving() as receiver, tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)
        folder, port = Path(parent) / "app", free_port()
        desk = f'[addresses.desk]\nurl = "{receiver.address}/desk"\n[callouts]\nprivate = ["127.0.0.1"]\n'
        config = f"[dashboard]\nport = {port}\n[judgment]\nrecords = true\n{TENANTS}{desk}{more}"
        worker = "lease = 1\nattempts = 2\nbackoff = 0.05"
        gateway = write_app(folder, triggers, public_key=vendor.public_key, worker=worker, more=config)
        url = server.url(database) if server is not None and database is not None else None
        platform = Platform(folder, gateway, url, more={"CIRCUIT_DASHBOARD__ENABLED": "true"})
        with running(platform):
            until(lambda: answers(port, "/healthz") == 200, "the dashboard is ready", 60)
            yield Studio(platform, f"http://127.0.0.1:{port}", vendor, receiver.address)
    if server is not None and database is not None:
        server.drop_database(database)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Headless Chromium, with a profile of its own that nothing stays of."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def visitor(browser: Browser, studio: Studio, **options: Any) -> BrowserContext:
    """Somebody's browser, not signed in; ``options`` are Playwright's."""
    wanted = {"viewport": DESKTOP, "timezone_id": "Europe/Berlin", "locale": "en-GB", **options}
    context = browser.new_context(base_url=studio.address, **wanted)
    context.set_default_timeout(PATIENCE)
    return context


def signed_in(browser: Browser, studio: Studio, name: str, **options: Any) -> Page:
    """A page of somebody who has signed in with their password, at the overview."""
    page = visitor(browser, studio, **options).new_page()
    page.goto("/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)
    return page


def settle(page: Page) -> None:
    """Until the page stands and, where somebody can act on it, its socket is connected."""
    acted_on = "document.getElementById('app')"
    page.wait_for_function(f"document.readyState === 'complete' && (!{acted_on} || window.did_handshake === true)")

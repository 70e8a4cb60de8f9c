"""One studio and one Chromium for all tests of a run that look at pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.studio import HOSTILE, RTL, Studio, open_browser, open_studio
from tests.servers import Server


@pytest.fixture(scope="module")
def browser(embedded_server: Server) -> Iterator[Browser]:
    """After the server: Playwright keeps a loop running, in which nothing can start one. So it ends with its module."""
    with open_browser() as started:
        yield started


@pytest.fixture(scope="session")
def studio(embedded_server: Server) -> Iterator[Studio]:
    """Two tenants with history; ann owns everything, olga works for acme, vera may look at acme, bob is bolt's."""
    with open_studio(embedded_server) as opened:
        opened.people(
            ann={"*": "owner"}, olga={"acme": "operator"}, vera={"acme": "viewer"}, bob={"bolt": "owner"}, nobody={}
        )
        opened.run(
            *(opened.contact() for _ in range(30)),
            opened.contact(id="fails", firstName="Fail", lastName="Nobody"),
            opened.contact(id="hostile/../<b>", firstName=HOSTILE, lastName=RTL),
            opened.contact(id="long", firstName="Long", notes="x" * 1_000_000),
            opened.contact(id="of-bolt", location="loc-bolt", firstName="Secretbolt"),
        )
        yield opened

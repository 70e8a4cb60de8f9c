"""The door of the dashboard, before a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.studio import PASSWORD, Studio, settle, signed_in, visitor

pytestmark = pytest.mark.story
PAGES = ("/", "/executions", "/records", "/logs", "/records/Contact/long", "/dead-letters", "/limits", "/people")


@contextmanager
def client(studio: Studio, name: str = "") -> Iterator[httpx.Client]:
    """A program that speaks HTTP, signed in as ``name``."""
    with httpx.Client(base_url=studio.address) as found:
        if name:
            assert found.post("/sign-in", data={"name": name, "password": PASSWORD}).status_code == 303
        yield found


def test_a_stranger_is_led_to_the_door_and_then_where_they_wanted_to_go(browser: Browser, studio: Studio) -> None:
    page = visitor(browser, studio).new_page()
    page.goto("/executions?status=trouble")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill("not this")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not right")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Executions")).to_be_visible()
    assert page.url.endswith("/executions?status=trouble")
    page.context.close()


def test_a_link_signs_in_once_when_its_button_is_pressed(browser: Browser, studio: Studio) -> None:
    link = studio.link("olga")
    assert httpx.get(link).status_code == httpx.get(link).status_code == 200  # as a program that reads mail does
    for works in (True, False):
        page = visitor(browser, studio).new_page()
        page.goto(link)
        page.get_by_role("button", name="Sign in").click()
        if works:
            expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        else:
            expect(page.get_by_role("alert")).to_contain_text("was used")
        page.context.close()


def test_signing_out_ends_the_session_and_the_pages_that_stand_open(browser: Browser, studio: Studio) -> None:
    page = signed_in(browser, studio, "vera")
    other = page.context.new_page()
    other.goto("/")
    settle(other)
    settle(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    other.wait_for_url("**/sign-in**")
    page.context.close()


def test_nothing_is_shown_to_strangers_and_nothing_of_other_tenants(studio: Studio) -> None:
    with client(studio) as stranger:
        for path in PAGES:
            answer = stranger.get(path)
            assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in"), path
    execution = studio.platform.value("SELECT id FROM circuit.executions WHERE tenant = 'bolt' LIMIT 1")
    with client(studio, "olga") as olga:
        for path in (*PAGES, f"/executions/{execution}", "/records/Contact/of-bolt", "/logs?q=record:of-bolt"):
            assert "Secretbolt" not in olga.get(path).text, path
            assert "There is no such tenant" in olga.get(path, params={"tenant": "bolt"}).text
        assert "There is no such execution" in olga.get(f"/executions/{execution}").text
    with client(studio, "bob") as bob:
        assert "Secretbolt" in bob.get("/logs").text
    with client(studio, "nobody") as nobody:
        assert nobody.get("/").status_code == 404


def test_requests_from_elsewhere_are_refused_and_no_page_may_be_framed(studio: Studio) -> None:
    with client(studio, "olga") as olga:
        socket = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
        for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            assert olga.post("/sign-out", headers=headers).status_code == 403
            assert olga.post("/sign-in", headers=headers).status_code == 403
            assert olga.get(socket, headers=headers).status_code == 403
        assert olga.post("/sign-out", data={"csrf": "guessed"}).status_code == 403
        page = olga.get("/")
        assert page.status_code == 200  # and still signed in
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self' 'nonce-" in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert page.headers["cache-control"] == "no-store"
        assert "evil" not in olga.get("/", headers={"x-forwarded-prefix": "//evil.example"}).text


@pytest.mark.parametrize(
    "place", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/\t/e"]
)
def test_signing_in_leads_nowhere_else(studio: Studio, place: str) -> None:
    with client(studio) as stranger:
        answer = stranger.post("/sign-in", data={"name": "olga", "password": PASSWORD, "next": place})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")

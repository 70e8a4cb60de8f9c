"""The pages of the road, before a real browser: what they show, and what they make of hostile data."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.studio import TELEPHONE, Studio, settle, signed_in

pytestmark = pytest.mark.story
PAGES = ("/", "/executions", "/records", "/logs")
FAILED = "SELECT execution FROM circuit.outcomes WHERE status = 'dead' AND tenant = 'acme' ORDER BY at DESC LIMIT 1"
NONSENSE = (
    "/executions?q=%00",
    "/executions?q=%ED%A0%80&before=x&status=zz&handler=%00x",
    "/records/Contact/a%00b",
    "/executions/%00",
    "/records/Contact/..%2f..%2fx?before=99999999999999999999",
    "/logs?q=level:%22&before=zz",
)
# What a page came with, beside what stands after NiceGUI has taken its place: tags, classes and names of attributes.
DRAWN = """async (path) => {
  const text = await (await fetch(path)).text();
  const came = new DOMParser().parseFromString(text, 'text/html').querySelector('.frame');
  const names = (at) => at.getAttributeNames().filter((name) => !/^(id|data-part)$/.test(name)).sort();
  const told = (at) => [at.tagName, at.className, names(at),
    [...at.children].filter((each) => each.style.display !== 'none').map(told)];
  return [came, document.querySelector('.frame')].map((each) => JSON.stringify(told(each)));
}"""
HOSTILE_ID = quote("hostile/../<b>", safe="")


@pytest.fixture
def olga(browser: Browser, studio: Studio) -> Page:
    """An operator of acme, at the overview."""
    return signed_in(browser, studio, "olga")


def unharmed(page: Page) -> None:
    """Nothing that data brought has run, and nothing of ours was stopped."""
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main img, main b:has-text('hostile')").count() == 0


def test_from_a_failed_execution_to_its_line_payload_and_record(olga: Page, studio: Studio) -> None:
    expect(olga.get_by_text("Trouble", exact=True)).to_be_visible()
    olga.get_by_role("link", name="Errors").click()
    olga.locator("tbody tr", has_text="no score for Nobody").first.get_by_role("link").first.click()
    expect(olga.get_by_role("heading", name="score")).to_be_visible()
    expect(olga.locator(".lines")).to_contain_text("the answer had no score")
    expect(olga.locator(".payload").first).to_contain_text('"firstName": "Fail"')
    expect(olga.locator(".waterfall")).to_contain_text("queue")
    expect(olga.locator(".bar").first).to_contain_text("of")
    olga.get_by_role("link", name="fails").first.click()
    expect(olga.locator(".story")).to_contain_text("afterInsert came in")
    expect(olga.locator(".story")).to_contain_text("Dead letter")
    olga.context.close()


def test_a_failed_execution_is_replayed_by_its_button(olga: Page, studio: Studio) -> None:
    olga.goto(f"/executions/{studio.platform.value(FAILED)}")
    settle(olga)
    olga.get_by_role("button", name="Replay").click()
    dialog = olga.get_by_role("dialog", name="Replay for real?")
    expect(dialog).to_contain_text(re.compile(r"(1 event goes|\d+ events go) through the live release again"))
    dialog.get_by_role("button", name="Replay").click()
    expect(olga.get_by_role("status")).to_contain_text(
        re.compile(r"Replay done: (\d+) of \1 are settled"), timeout=30_000
    )
    who = studio.platform.rows("SELECT by_whom, filter ->> 'tenant' FROM circuit.replays")
    assert who == [("olga", "acme")]
    olga.context.close()


def test_who_may_only_look_gets_no_payload_and_no_button(browser: Browser, studio: Studio) -> None:
    vera = signed_in(browser, studio, "vera")
    for path in (f"/executions/{studio.platform.value(FAILED)}", "/records/Contact/fails"):
        vera.goto(path)
        settle(vera)
        expect(vera.get_by_text("not for your role").first).to_be_visible()
        assert "postalCode" not in vera.content()
        assert vera.get_by_role("button", name="Replay").count() == 0
    vera.goto("/records/Contact/fails?payload=31")
    assert "postalCode" not in vera.content()
    assert vera.get_by_role("link", name="People").count() == 0
    vera.context.close()


def test_hostile_data_is_text(olga: Page, studio: Studio) -> None:
    complaints: list[str] = []
    olga.on("pageerror", lambda error: complaints.append(str(error)))
    for path in (
        *PAGES,
        f"/records/Contact/{HOSTILE_ID}",
        "/logs?q=%3Cscript%3E",
        "/records?q=%22%3E%3Cscript%3Ealert(1)",
    ):
        olga.goto(path)
        settle(olga)
        unharmed(olga)
    olga.goto(f"/records/Contact/{HOSTILE_ID}")
    expect(olga.locator("h1")).to_have_text("hostile/../<b>")
    expect(olga.locator(".payload").first).to_contain_text("<script>window.pwned = 1</script>")
    expect(olga.locator(".payload").first).to_contain_text("⟨U+202E⟩gnp.exe {{7*7}} `${1}`")
    assert "\u202e" not in olga.content()
    for path in NONSENSE:
        olga.goto(path)
        settle(olga)
        expect(olga.locator("main h1")).to_be_visible()
        assert olga.get_by_text("This page failed").count() == 0
    assert complaints == []
    olga.context.close()


def test_what_a_page_came_with_is_what_stands(olga: Page, studio: Studio) -> None:
    acted_on = ("/", "/alerts", "/vendors", f"/executions/{studio.platform.value(FAILED)}")
    for path in (*acted_on, "/executions", f"/records/Contact/{HOSTILE_ID}"):
        olga.goto(path)
        settle(olga)
        assert bool(olga.evaluate("window.did_handshake")) == (path in acted_on), path
        came, stands = olga.evaluate(DRAWN, path)
        assert came == stands, path
    olga.context.close()


def test_what_is_typed_and_pressed_before_nicegui_is_there_is_kept(olga: Page, studio: Studio) -> None:
    held: list[Route] = []
    olga.route("**/nicegui.js", lambda route: held.append(route))  # Playwright looks at its signature
    studio.run(studio.contact(firstName="Fail", lastName="Typist"))
    letter = studio.platform.value("SELECT id FROM circuit.dead_letters WHERE right(reason, 6) = 'Typist'")
    olga.goto("/dead-letters", wait_until="commit")
    olga.get_by_label("Why it died").fill("no score")
    olga.locator(f".tick[value='{letter}']").check()
    olga.get_by_role("button", name="Retry ticked").click()
    assert olga.evaluate("window.did_handshake") is None
    for each in held:
        each.continue_()
    expect(olga.get_by_role("dialog", name="Retry 1 letter?")).to_be_visible()
    expect(olga.get_by_label("Why it died")).to_have_value("no score")
    olga.context.close()


def test_a_megabyte_is_cut_and_shown_when_asked_for(olga: Page, studio: Studio) -> None:
    olga.goto("/records/Contact/long")
    settle(olga)
    expect(olga.locator(".text-more")).to_contain_text("20,000 of 1,00")
    assert len(olga.locator(".payload").first.inner_text()) <= 20_000
    with olga.expect_download() as downloading:
        olga.get_by_role("button", name="Download").click()
    assert downloading.value.path().stat().st_size > 1_000_000
    olga.get_by_role("button", name="Show all").click()
    expect(olga.locator(".text-more")).to_have_count(0)
    assert len(olga.locator(".payload").first.inner_text()) > 1_000_000
    olga.context.close()


def test_what_comes_is_seen_without_reloading(olga: Page, studio: Studio) -> None:
    olga.goto("/logs?q=newcomer&live=1")
    settle(olga)
    expect(olga.locator(".empty")).to_be_visible()
    studio.run(studio.contact(firstName="newcomer"))
    expect(olga.locator(".lines")).to_contain_text("newcomer")
    olga.context.close()


def test_keys_links_zone_and_theme(olga: Page, studio: Studio) -> None:
    olga.keyboard.press("g")
    olga.keyboard.press("e")
    expect(olga.get_by_role("heading", name="Executions")).to_be_visible()
    settle(olga)
    at = olga.locator("time").first
    assert "Europe/Berlin" in str(at.get_attribute("title"))
    assert str(at.get_attribute("title")).endswith("Z")
    olga.keyboard.press("j")
    olga.keyboard.press("Enter")
    expect(olga).to_have_url(re.compile("/executions/[0-9a-f-]{36}"))
    settle(olga)
    before = olga.evaluate("getComputedStyle(document.body).backgroundColor")
    olga.keyboard.press("t")
    after = olga.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    olga.reload()
    assert olga.evaluate("getComputedStyle(document.body).backgroundColor") == after
    olga.keyboard.press("?")
    expect(olga.locator("#keys")).to_be_visible()
    olga.keyboard.press("Escape")
    olga.keyboard.press("/")
    olga.context.close()


def test_on_a_telephone_nothing_is_wider_than_it(browser: Browser, studio: Studio) -> None:
    page = signed_in(browser, studio, "olga", viewport=TELEPHONE, is_mobile=True, has_touch=True)
    failed = studio.platform.value(FAILED)
    for path in (*PAGES, f"/executions/{failed}", "/records/Contact/long", f"/records/Contact/{HOSTILE_ID}"):
        page.goto(path)
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.get_by_role("button", name="All pages").tap()
    page.get_by_role("link", name="Dead letters").tap()
    expect(page).to_have_url(re.compile("/dead-letters"))
    page.context.close()


def test_an_owner_of_everything_chooses_the_tenant(browser: Browser, studio: Studio) -> None:
    ann = signed_in(browser, studio, "ann")
    ann.goto("/records?tenant=acme")
    settle(ann)
    ann.get_by_label("Tenant").select_option("bolt")
    expect(ann).to_have_url(re.compile("tenant=bolt"))
    expect(ann.locator("tbody")).to_contain_text("of-bolt")
    assert "fails" not in ann.locator("tbody").inner_text()
    ann.context.close()

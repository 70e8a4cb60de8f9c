"""What people do about trouble, in a real browser: letters, doubts, alerts, pauses, people; and what they may not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.acts_scene import Scene, open_scene
from tests.browser.acts_stage import HOSTILE, REASONS
from tests.browser.studio import TELEPHONE, settle
from tests.servers import Server

pytestmark = pytest.mark.story

PAGES = (
    "/dead-letters", "/in-doubt", "/leads", "/leads/lead0", "/leads/strange", "/tenants", "/tenants/usage", "/vendors",
    "/limits?all=1", "/alerts", "/people",
)  # fmt: skip
LETTER = "SELECT status, by, why FROM circuit.dead_letters WHERE id = %s"


@pytest.fixture(scope="module")
def scene(embedded_server: Server, browser: Browser) -> Iterator[Scene]:
    with open_scene(embedded_server, browser) as scene:
        yield scene


def button(page: Page, name: str, within: str = "#page") -> None:
    """Press it."""
    page.locator(within).get_by_role("button", name=name, exact=True).click()


def answer(page: Page, name: str, reason: str | None = None) -> None:
    """Answer the dialog that asks."""
    asked = page.get_by_role("dialog").locator(".dialog")
    if reason is not None:
        asked.locator("textarea").fill(reason)
    asked.get_by_role("button", name=name, exact=True).click()


def test_a_letter_is_retried_once_by_whom_it_says(scene: Scene) -> None:
    number = scene.letters()["c0"]
    page = scene.page("operator@acme.example", f"/dead-letters/{number}")
    expect(page.locator("#page")).to_contain_text("KeyError: no field 'c0'")
    expect(page.locator("#page")).to_contain_text("41 of 50")
    button(page, "Retry")
    answer(page, "Retry")
    expect(page.locator(".chip.good").first).to_have_text("retried")
    assert scene.rows(LETTER, number) == [("retried", "operator@acme.example", None)]
    assert scene.rows("SELECT count(*) FROM circuit.queue WHERE record = 'c0'") == [1]
    expect(page.get_by_role("button", name="Retry", exact=True)).to_have_count(0)


def test_letters_that_are_ticked_are_discarded_with_a_reason(scene: Scene) -> None:
    numbers = scene.letters()
    page = scene.page("operator@acme.example", "/dead-letters")
    for record in ("c1", "c2"):
        page.get_by_role("row").filter(has_text=f"#{numbers[record]}").get_by_role("checkbox").check()
    button(page, "Discard ticked")
    asked = page.get_by_role("dialog").locator(".dialog")
    asked.get_by_role("button", name="Discard", exact=True).click()
    expect(page.get_by_text("Type a reason first.")).to_be_visible()
    answer(page, "Discard", f"test contacts {HOSTILE}")
    expect(page.get_by_text("2 discarded")).to_be_visible()
    for record in ("c1", "c2"):
        why = f"test contacts {HOSTILE}"
        assert scene.rows(LETTER, numbers[record]) == [("discarded", "operator@acme.example", why)]
    scene.go(page, "/dead-letters?status=discarded")
    expect(page.get_by_role("table", name="Dead letters").locator("[data-row]")).to_have_count(2)


def test_a_payload_is_edited_exactly_and_only_by_a_developer(scene: Scene) -> None:
    number = scene.letters()["c-hostile"]
    page = scene.page("operator@acme.example", f"/dead-letters/{number}?edit=1")
    expect(page.locator("[data-editor]")).to_have_count(0)
    page = scene.page("developer@acme.example", f"/dead-letters/{number}?edit=1")
    editor = page.locator("[data-editor]")
    text = editor.input_value()
    before = json.loads(text)
    assert "\\u202e" in text
    assert (before["name"], before["n"]) == ("abc\u202etxt.exe", 2**60)
    for wrong, told in (
        ("{", "not JSON"),
        ("[1]", "list"),
        ('{"id": "another"}', "Leave its id"),
        (text, "Nothing was changed"),
    ):
        editor.fill(wrong)
        button(page, "Send it")
        if told == "Leave its id":
            answer(page, "Send it")
        expect(page.get_by_text(told).last).to_be_visible()
    editor.fill(json.dumps({**before, "ends": "well", "new": "\u202e\u0001"}))
    button(page, "Send it")
    expect(page.locator(".dialog-words")).to_contain_text("new is new")
    answer(page, "Send it")
    expect(page.locator(".chip.good").first).to_have_text("retried")
    ((body, by),) = scene.rows(
        "SELECT body, headers ->> 'circuit-by' FROM circuit.deliveries d "
        "JOIN circuit.dead_letters l ON l.edited = d.id WHERE l.id = %s",
        number,
    )
    sent = json.loads(bytes(body))["data"]
    assert by == "developer@acme.example"
    assert sent == {**before, "ends": "well", "new": "\u202e\u0001"}


def test_effects_in_doubt_are_settled_together_and_say_how_one_knows(scene: Scene) -> None:
    page = scene.page("operator@acme.example", "/in-doubt")
    expect(page.locator("[data-row]")).to_have_count(2)
    for box in page.get_by_role("checkbox").all():
        box.check()
    button(page, "Send it again")
    expect(page.get_by_text("it will be done twice")).to_be_visible()
    answer(page, "Send it again")
    expect(page.get_by_text("Say how you know.")).to_be_visible()
    answer(page, "Send it again", "their log has no such call")
    expect(page.get_by_text("2 are on the way again.")).to_be_visible()
    assert scene.rows(
        "SELECT status, settled_by, note FROM circuit.effects WHERE payload ->> 'n' = 'doubt' ORDER BY tenant, id"
    ) == [("pending", "operator@acme.example", "their log has no such call")] * 2 + [("in_doubt", None, None)]
    expect(page.get_by_text("No effect is in doubt.")).to_be_visible()


def test_a_role_that_was_taken_away_counts_at_once(scene: Scene) -> None:
    number = scene.letters()["c3"]
    page = scene.page("operator@acme.example", f"/dead-letters/{number}")
    scene.rows("UPDATE circuit.memberships SET role = 'viewer' WHERE role = 'operator' RETURNING role")
    try:
        button(page, "Retry")
        answer(page, "Retry")
        expect(page.get_by_text("Your role does not allow it")).to_be_visible()
        assert scene.rows(LETTER, number) == [("open", None, None)]
    finally:
        scene.rows(
            "UPDATE circuit.memberships m SET role = 'operator' FROM circuit.people p "
            "WHERE p.id = m.person AND p.name LIKE 'operator@%%' RETURNING role"
        )


def test_a_viewer_sees_no_payload_and_no_button_that_acts(scene: Scene) -> None:
    number = scene.letters()["c3"]
    page = scene.page("viewer@acme.example", f"/dead-letters/{number}")
    expect(page.get_by_text("Payloads are not for your role.")).to_be_visible()
    assert "ada3@example.com" not in page.content()
    for path in (f"/dead-letters/{number}?edit=1", *PAGES):
        scene.go(page, path)
        assert "example.com" not in page.locator("#page").inner_text().replace("alerts.example.com", "")
        for name in (
            "Retry",
            "Discard",
            "Send it",
            "Pause",
            "I look after it",
            "Silence",
            "Give a role",
            "Send it again",
        ):
            expect(page.locator("#page").get_by_role("button", name=name)).to_have_count(0)
        expect(page.locator("[data-editor], .tick")).to_have_count(0)


def test_nothing_of_another_tenant_is_told(scene: Scene) -> None:
    foreign = scene.letters("globex")["secret-of-globex"]
    (effect,) = scene.rows("SELECT id FROM circuit.effects WHERE tenant = 'globex' AND status = 'in_doubt'")
    page = scene.page("owner@acme.example", "/dead-letters")
    theirs = (f"/dead-letters/{foreign}", f"/in-doubt/{effect}", "/dead-letters?status=all&record=secret-of-globex")
    nothing = ("/leads?text=globex", "/dead-letters/99999999999999999999", "/in-doubt/%00", "/leads/%00")
    for path in (*PAGES, *theirs, *nothing):
        scene.go(page, path)
        text = page.locator("#page").inner_text()
        assert "secret-of" not in text, path
        assert "globex" not in text, path
    for path in PAGES:
        answered = page.request.get(f"{path.partition('?')[0]}?tenant=globex")
        assert answered.status == 404, path
    other = scene.page("owner@globex.example", "/people")
    assert "acme" not in other.locator("#page").inner_text()


def test_hostile_text_stays_text_and_no_page_breaks(scene: Scene) -> None:
    wrong: list[str] = []
    context = scene.visitor("boss@example.com", viewport=TELEPHONE, color_scheme="dark")
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    for path in PAGES:
        scene.go(page, path)
        assert page.evaluate("document.body.dataset.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        expect(page.get_by_text("The database is away")).to_have_count(0)
        expect(page.get_by_text("took too long")).to_have_count(0)
    assert not wrong
    scene.go(page, "/leads/lead0")
    for reason in REASONS:
        expect(page.locator(".reasons")).to_contain_text(reason)
    page.goto("/dead-letters?before=abc&since=%00&reason=%ff&kind='&status=--")
    settle(page)
    expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()


def test_an_alert_is_taken_and_silenced_by_who_may(scene: Scene) -> None:
    page = scene.page("operator@acme.example", "/alerts")
    expect(page.locator(".alert")).to_have_count(1)
    button(page, "I look after it")
    expect(page.get_by_text("operator@acme.example looks after it")).to_be_visible()
    button(page, "Silence")
    answer(page, "Silence")
    expect(page.get_by_text("Silenced by operator@acme.example")).to_be_visible()
    stands = (
        "SELECT key, acknowledged_by, silenced_until > now() FROM circuit.alerts WHERE resolved IS NULL ORDER BY key"
    )
    assert scene.rows(stands)[1] == ("dead letters acme", "operator@acme.example", True)
    assert [row[1:] for row in scene.rows(stands) if row[0] != "dead letters acme"] == [(None, None)] * 2
    boss = scene.page("boss@example.com", "/alerts")
    expect(boss.locator(".alert")).to_have_count(3)
    boss.locator(".alert").filter(has_text="for all tenants").get_by_role("button", name="I look after it").click()
    expect(boss.get_by_text("boss@example.com looks after it")).to_be_visible()


def test_a_tenant_and_a_vendor_are_paused_and_go_on(scene: Scene) -> None:
    page = scene.page("operator@acme.example", "/tenants/usage")
    expect(page.locator("#page")).to_contain_text("8,400 of 10,000")
    expect(page.locator("#page")).to_contain_text("$4.30 of $5.00")
    button(page, "Pause")
    answer(page, "Pause", "they asked")
    expect(page.locator(".head .chip")).to_have_text("paused")
    paused = "SELECT kind, value, tenant, reason, by_whom FROM circuit.pauses"
    assert scene.rows(paused) == [("tenant", "acme", None, "they asked", "operator@acme.example")]
    button(page, "Resume")
    answer(page, "Resume")
    expect(page.locator(".head .chip")).to_have_count(0)
    scene.go(page, "/vendors")
    expect(page.locator("#page")).to_contain_text("8 of 10 in 60 min")
    expect(page.locator("#page")).to_contain_text("circuit open")
    card = page.locator(".card").filter(has_text="webhook")
    card.get_by_role("button", name="Pause").click()
    answer(page, "Pause", "their sale")
    expect(page.locator(".card").filter(has_text="webhook").locator(".chip")).to_have_text("paused")
    assert scene.rows(paused) == [("connector", "webhook", "acme", "their sale", "operator@acme.example")]


def test_an_owner_of_everything_adds_somebody_whose_link_works_once(scene: Scene) -> None:
    page = scene.page("boss@example.com", "/people")
    button(page, "Add somebody")
    asked = page.get_by_role("dialog").locator(".dialog")
    asked.locator("input").fill("new@acme.example")
    asked.locator("select").first.select_option("acme")
    asked.locator("select").last.select_option("operator")
    asked.get_by_role("button", name="Add", exact=True).click()
    link = page.locator("[data-link]").inner_text()
    guest = scene.browser.new_context().new_page()
    guest.goto(link)
    guest.locator("button[type=submit]").click()
    guest.wait_for_url(lambda url: "/sign-in" not in url)
    guest.goto(f"{scene.address}/people")
    expect(guest.get_by_text("This is not for your role.")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.get_by_role("link", name="new@acme.example").click()
    settle(page)
    button(page, "Sign out everywhere")
    expect(page.get_by_text("1 session ended.")).to_be_visible()
    guest.goto(f"{scene.address}/alerts")
    assert "/sign-in" in guest.url
    button(page, "Remove")
    answer(page, "Remove")
    expect(page.get_by_text("new@acme.example is removed.")).to_be_visible()


def test_an_owner_of_one_tenant_gives_roles_there_and_nowhere_else(scene: Scene) -> None:
    page = scene.page("owner@globex.example", "/people")
    expect(page.locator("[data-row]")).to_have_count(1)
    expect(page.get_by_role("button", name="Add somebody")).to_have_count(0)
    button(page, "Give a role")
    asked = page.get_by_role("dialog").locator(".dialog")
    expect(asked.locator("select").first.locator("option")).to_have_text(["globex"])
    asked.locator("input").fill("viewer@acme.example")
    asked.get_by_role("button", name="Give", exact=True).click()
    expect(page.get_by_text("viewer@acme.example is viewer of globex.")).to_be_visible()
    expect(page.locator("[data-row]")).to_have_count(2)
    assert "acme" not in page.locator("[data-row]").last.inner_text().replace("viewer@acme.example", "")
    page.get_by_role("link", name="viewer@acme.example").click()
    settle(page)
    button(page, "Take away")
    answer(page, "Take away")
    expect(page.get_by_text("viewer@acme.example has no role for globex any more.")).to_be_visible()
    expect(page.locator("[data-row]")).to_have_count(1)
    assert scene.rows("SELECT count(*) FROM circuit.memberships WHERE scope = 'globex'") == [1]

"""What the pages on which people act read: leads, vendors, limits, budgets; of one tenant, and within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors import leads
from circuit_script.connectors.connector import Effect, InDoubt, Rate, Refused, Unknown
from circuit_script.connectors.leads import LeadQuery, grades_of, list_leads, scores_of
from circuit_script.db.pool import tenant_reading
from circuit_script.effects.vendors import headroom, held_up, vendors
from circuit_script.events.letters import Wanted, doubts, letters
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import PER_RECORD, Limits
from circuit_script.governor.money import nanos
from circuit_script.governor.spending import accounts, providers_of
from circuit_script.llm.budgets import held
from circuit_script.releases import live_handlers
from circuit_script.telemetry.usage import Ceiling, breaches_of, near_misses, usage_of, users_of
from tests.integration.courier_vendor import Office, Vendor
from tests.road import Road, open_road


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        yield road


async def record(road: Road, object_: str, id_: str, data: dict[str, Any], tenant: str = "acme") -> None:
    statement = "INSERT INTO circuit.records (tenant, object, id, data) VALUES (%s, %s, %s, %s)"
    await road.run(statement, tenant, object_, id_, Jsonb(data))


async def score(road: Road, lead: str, total: Any, tenant: str = "acme", **more: Any) -> None:
    await record(road, "LeadScore", str(uuid7()), {"contactId": lead, "total": total, **more}, tenant)


async def test_leads_are_told_once_by_their_latest_score_the_hottest_first(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(road, "Contact", "a", {"firstName": "Ada", "lastName": "Lovelace", "companyName": "Engines % Sons"})
    for lead, total, grade in (("a", 90, "A"), ("b", 60, "B"), ("a", 40, "C"), ("c", 50, "B")):
        await score(
            road, lead, total, grade=grade, reasons=[f"was {total}"], parts={"fit": total, "no": "x", "nan": None}
        )
    await score(road, "a", 99, tenant="globex", grade="A")
    hostile = {"at": "\u202enever", "parts": [1], "reasons": {"x": 1}, "grade": [], "fit": True, "next_change_at": 5}
    await score(road, "strange", "1e400", **hostile)
    await score(road, "huge", 10**300)
    await record(road, "LeadScore", str(uuid7()), {"total": 100})  # of nobody

    async with road.pool.connection() as connection, tenant_reading(connection, "acme"):
        found = await list_leads(connection, LeadQuery("acme"))
        assert [(each.score.lead, each.score.total) for each in found.found] == [
            ("huge", None), ("b", 60), ("c", 50), ("a", 40), ("strange", None),
        ]  # fmt: skip
        assert (found.of, found.bounded, found.found[3].name) == (5, False, "Ada Lovelace")
        assert found.found[3].score.parts == {"fit": 40}
        assert (await list_leads(connection, LeadQuery("acme", grade="B", by_score=False))).found[0].score.lead == "c"
        for text, expected in (("engines %", ["a"]), ("%", ["a"]), ("B", ["b"]), ("nobody", [])):
            told = (await list_leads(connection, LeadQuery("acme", text=text))).found
            assert [each.score.lead for each in told if each.score.lead != "huge"] == expected, text
        page = await list_leads(connection, LeadQuery("acme", limit=2, offset=2))
        assert ([each.score.lead for each in page.found], page.of) == (["c", "a"], 5)
        history, person = await scores_of(connection, "acme", "a")
        assert ([each.total for each in history], person and person["lastName"]) == ([40, 90], "Lovelace")
        assert dict(await grades_of(connection, "acme")) == {"B": 2, "C": 1, "[]": 1, "": 1}
        foreign = await list_leads(connection, LeadQuery("globex"))  # row security, whatever is asked
        assert (foreign.found, await scores_of(connection, "globex", "a")) == ([], ([], None))

    monkeypatch.setattr(leads, "_LIST", leads._LIST.replace(f"LIMIT {leads.DEEPEST}", "LIMIT 3"))
    monkeypatch.setattr(leads, "DEEPEST", 3)
    async with road.pool.connection() as connection, tenant_reading(connection, "acme"):
        found = await list_leads(connection, LeadQuery("acme"))
        assert ([each.score.lead for each in found.found], found.bounded) == (["huge", "c", "strange"], True)


async def test_vendors_are_told_with_what_holds_them_up_and_how_much_of_a_rate_is_used(road: Road) -> None:
    office = Office(road)
    await office.hold()
    answers = {"ok": None, "no": Refused("422 no such channel \u202e"), "doubt": Unknown("read timeout")}

    def answer(effects: Any) -> Any:
        first: Effect = effects[0]
        return answers[str(first.payload["n"])]

    plain, picky = Vendor(), Vendor(answer, in_doubt=InDoubt.ASK_A_PERSON)
    plain.name = "plain"
    for n in range(3):
        await office.effect(n, key=n, connector="plain", tenant="acme" if n else "globex")
    for key, n in enumerate(("no", "doubt", "doubt"), 10):
        await office.effect(n, key=key, tenant="acme" if key < 12 else "globex")
    async with office.delivering(plain, picky):
        await road.until("SELECT count(*) FROM circuit.effects WHERE status = 'pending'", [0])
    await office.effect(1, key=40, connector="waits")
    await road.run(
        "INSERT INTO circuit.courier_waits (tenant, connector, target, kind, worker, until, reason) VALUES "
        "('acme', 'vendor', 'alerts', 'open', %s, now() + interval '1 hour', 'refused'), "
        "('globex', 'vendor', 'alerts', 'rate', %s, now() + interval '1 hour', 'used up'), "
        "('acme', 'old', 'alerts', 'open', %s, now() - interval '1 hour', 'over')",
        *[office.worker] * 3,
    )
    rates = {
        ("plain", "post"): Rate(10, 60),
        ("vendor", "post"): Rate(2, 60, of="connector"),
        ("day", "x"): Rate(9, 86_400),
    }

    async with road.pool.connection() as connection, tenant_reading(connection, "acme"):
        found = {each.connector: each for each in await vendors(connection, ["idle"], tenant="acme")}
        told = await held_up(connection, tenant="acme")
        used = {(each.connector, each.used, each.tenant) for each in await headroom(connection, rates, tenant="acme")}
        assert await headroom(connection, {}, tenant="acme") == []
        (doubt,) = await road_doubts(road)
    figures = {
        name: (each.delivered, each.failed, each.in_doubt, each.waiting, each.dead) for name, each in found.items()
    }
    assert figures == {
        "plain": (2, 0, 0, 0, 0), "vendor": (0, 2, 1, 0, 1), "waits": (0, 0, 0, 1, 0), "idle": (0, 0, 0, 0, 0),
    }  # fmt: skip
    assert found["vendor"].last_said in ("read timeout", "422 no such channel \u202e")
    assert [(each.connector, each.kind, each.workers) for each in told] == [("vendor", "open", 1)]
    assert used == {("plain", 2, "acme"), ("vendor", 2, "acme")}
    assert doubt.connector == "vendor"
    async with road.pool.connection() as connection:
        everybodys = {each.connector: each for each in await vendors(connection, [])}
        assert (everybodys["plain"].delivered, everybodys["vendor"].in_doubt) == (3, 2)
        assert len(await held_up(connection)) == 2


async def road_doubts(road: Road) -> Any:
    """Of acme, a page after the other."""
    async with road.pool.connection() as connection:
        first = await doubts(connection, 1, tenant="acme")
        assert await doubts(connection, 1, tenant="acme", before=first[0].id) == []
        assert await letters(connection, Wanted(tenant="acme"), 5, before=1) == []
        return first


async def test_use_of_limits_is_told_of_the_newest_executions_of_a_tenant(road: Road) -> None:
    limits = Limits(callouts=10)
    await road.live(
        HandlerSpec("calls", (("Contact", "afterInsert"),), limits=limits, budget=2.5), HandlerSpec("other", ())
    )
    ran = (("acme", 2, ""), ("acme", 9, ""), ("acme", 11, "breached"), ("globex", 10, ""), ("acme", 3, "echo"))
    for tenant, callouts, status in (*ran, ("acme", 4, "")):
        await road.run(
            "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason, "
            "started_at, usage) VALUES (%s, %s, %s, %s, 'Contact', 'afterInsert', 1, %s, %s, now(), %s)",
            uuid7(), tenant, road.release.id, road.handler("calls"), status or "succeeded",
            "limit callouts exceeded: 11 of 10" if status == "breached" else None, Jsonb({"callouts": callouts}),
        )  # fmt: skip
    async with road.pool.connection() as connection, tenant_reading(connection, "acme"):
        handlers = await live_handlers(connection)
        assert [(each.name, each.limits, each.budget) for each in handlers] == [
            ("calls", limits, 2.5), ("other", Limits(), None),
        ]  # fmt: skip
        key = ("calls", "callouts")
        assert (await usage_of(connection, 1, newest=1))[key].most == 4
        assert (await usage_of(connection, 1, newest=100))[key].executions == 4
        assert (await usage_of(connection, 1))[key].most == 11
        assert [each.executions for each in await users_of(connection, 1, 5, newest=2)] == [2]
        (over,) = await breaches_of(connection, 1, 5, newest=1)
        assert (over.limit, over.times) == ("callouts", 1)
        ceilings = [Ceiling("calls", "callouts", None, 10)]
        (near,) = await near_misses(connection, 1, ceilings, PER_RECORD, 5, newest=100)
        assert (near.times, near.share) == (1, 0.9)
        assert await near_misses(connection, 1, ceilings, PER_RECORD, 5, newest=1) == []


async def test_budgets_and_providers_are_those_of_the_tenant_that_looks(road: Road) -> None:
    settings = Settings(tenants={"acme": {"tier": "small"}}, tiers={"small": {"llm_cost": {"day": 2, "month": 9}}})
    for scope, tenant, spent in (("day", "", 4), ("tenant day", "acme", 1), ("tenant day", "globex", 3)):
        await road.run(
            "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent, reserved) "
            "VALUES (%s, %s, '', circuit.budget_day(), %s, 5)",
            scope, tenant, nanos(spent),
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.llm_calls (id, execution, tenant, handler, provider, model, requested, tokens_worst, "
            "worst, status, cost, settled_at, day) "
            "VALUES (%s, %s, %s, 'score', 'openai', 'small', 'small', 1, 7, 'unknown', 7, now(), circuit.budget_day())",
            uuid7(), uuid7(), tenant or "acme",
        )  # fmt: skip
    async with road.pool.connection() as connection, tenant_reading(connection, "acme"):
        (budget,) = held(await accounts(connection), settings, {})
        (provider,) = await providers_of(connection)
    assert (budget.scope, budget.whose, budget.ceiling, budget.left) == ("tenant day", "acme", nanos(2), nanos(1) - 5)
    assert (provider.calls, provider.unknown, provider.cost) == (2, 2, 14)

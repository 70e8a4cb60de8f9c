"""batch_enrich as a handler calls it: a child process of an app like the demo's, its score, and its writes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import load_settings
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import QuotaExceeded
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import Failed, Outcome, Succeeded, Work
from circuit_script.governor import MB, Limits
from circuit_script.wiring import Trial, open_bench
from circuit_script.wiring.callouts import Callouts
from tests.enrichment.ground import Ground, Journal, lead
from tests.enrichment.sources import Sources, income_of, tract_of

APP = """
from circuit_script import CircuitDB, CircuitTrigger, QuotaExceeded, RequestRefused, log, trigger
from circuit_script.agents import VirtualLPR


class ContactTrigger(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], batch_size=200)
    async def score_new_leads(self, context):
        enriched = await CircuitDB.batch_enrich(context.new_records, ["census", "maps"])
        assert len(enriched) == len(context.new_records)
        await CircuitDB.update("Contact", VirtualLPR.score(context.new_records, enriched))
        log.info("enriched", found=sum(row["census"] is not None for row in enriched))
        for record, row in zip(context.new_records, enriched, strict=True):
            if row["reasons"]:
                log.info(record.id, **row["reasons"])


@trigger("Contact", ["afterInsert"])
async def other_fields(context):
    rows = await CircuitDB.batch_enrich(context.new_records, "census", fields={"street": "site", "state": "region"})
    log.info(rows[0]["census"]["tract"])
    try:
        await CircuitDB.batch_enrich(context.new_records, fields={"planet": "site"})
    except ValueError as error:
        log.info(str(error)[:40])
    try:
        await CircuitDB.batch_enrich(context.new_records, ["crystal ball"])
    except RequestRefused as error:
        log.info(str(error)[-33:])
    one = await CircuitDB.batch_enrich({"address1": "1 Main St", "postalCode": 76701})
    log.info(str(len(one)))


@trigger("Contact", ["afterInsert"])
async def odd(context):
    broken = [{"address1": "\\ud800 Main St", "postalCode": 10**400}, 7, {"zip": 10**30, "lat": object()}, None]
    rows = await CircuitDB.batch_enrich([*broken, *context.new_records], ["census", "maps"])
    log.info(str([row["census"] is not None for row in rows]))


@trigger("Contact", ["afterInsert"])
async def without_quota(context):
    try:
        await CircuitDB.batch_enrich(context.new_records)
    except QuotaExceeded as error:
        log.info(f"{type(error).__name__} {error.retry_after}")
"""


class App:
    def __init__(self, ground: Ground, children: Children) -> None:
        self.ground = ground
        self.children = children
        self.lines: list[tuple[str, Any]] = []
        self.unit = UnitOfWork("Contact", [])
        self.broker: ExecutionBroker

    async def run(self, handler: str, records: list[dict[str, Any]], **more: Any) -> Outcome:
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant="acme",
            object="Contact",
            event="afterInsert",
            records=records,
            old=[None] * len(records),
            events=[{} for _ in records],
            limits=Limits(memory=512 * MB),
            started_at=time.time(),
        )
        ends = time.monotonic() + 30
        self.unit = UnitOfWork("Contact", [str(each["id"]) for each in records])
        self.lines.clear()
        parts = BrokerParts(
            crm=LocalCRM(self.ground.pool),
            client=self.ground.client,
            knows=lambda *_: False,
            callouts=self.ground.parts,
            enrichment=self.ground.enrichment,
        )
        self.broker = ExecutionBroker(
            work,
            replace(parts, **more),
            held=self.unit,
            journal=Journal(),
            log=lambda line: self.lines.append((line["message"], line.get("context"))),
            remaining=lambda: ends - time.monotonic(),
        )
        outcome = await self.children.run(work, self.broker)
        assert outcome is not None
        return outcome


@asynccontextmanager
async def running(ground: Ground, folder: Path) -> AsyncIterator[App]:
    (folder / "app.py").write_text(APP)
    children = Children(app_folder=folder, app="app", size=1, on_change=lambda: None)
    await children.start()
    try:
        yield App(ground, children)
    finally:
        await children.stop()


@pytest.fixture
async def app(ground: Ground, tmp_path: Path) -> AsyncIterator[App]:
    async with running(ground, tmp_path) as made:
        yield made


async def test_new_leads_are_scored_with_what_is_known_of_them(app: App, sources: Sources) -> None:
    leads = [lead(n) for n in range(98)] + [{"id": "c98", "email": "x@example.com"}, lead(99, address1="9 Nowhere Rd")]
    outcome = await app.run("ContactTrigger.score_new_leads", leads)

    assert isinstance(outcome, Succeeded), outcome
    assert outcome.usage.callouts == sources.calls == 2
    assert app.lines[0] == ("enriched", {"found": 98})
    assert [message for message, _ in app.lines[1:]] == ["c98", "c99"]
    written = app.unit.overlay_rows("Contact", [each["id"] for each in leads], leads)
    rows = {str(row["id"]): row for row in written if row}
    near, unknown = rows["c1"], rows["c98"]
    assert near["lpr_fit"] > unknown["lpr_fit"]

    assert isinstance(await app.run("ContactTrigger.score_new_leads", leads), Succeeded)
    assert sources.calls == 2


async def test_fields_may_have_other_names_and_what_is_wrong_is_told(app: App) -> None:
    outcome = await app.run("other_fields", [{"id": "1", "site": "5 Main St", "region": "TX", "city": "Waco"}])
    assert isinstance(outcome, Succeeded), outcome
    assert [message for message, _ in app.lines] == [
        f"48001{tract_of('5 MAIN ST'):06}",
        "batch_enrich knows no field 'planet'; th",
        "There are census, maps, linkedin.",
        "1",
    ]
    assert income_of(tract_of("5 MAIN ST")) > 0


async def test_a_quota_that_is_used_up_is_raised_as_for_any_callout(app: App, ground: Ground) -> None:
    async def spend(tenant: str) -> None:
        raise QuotaExceeded(f"{tenant} has used up its api_calls.", retry_after=60.0)

    outcome = await app.run("without_quota", [lead(1)], callouts=replace(ground.parts, spend=spend))
    assert isinstance(outcome, Succeeded), outcome
    assert app.lines == [("QuotaExceeded 60.0", {})]


async def test_what_cannot_even_be_sent_fails_nobody_else(app: App) -> None:
    outcome = await app.run("odd", [lead(1)])
    assert isinstance(outcome, Succeeded), outcome
    assert app.lines == [("[False, False, False, False, True]", {})]


async def test_in_a_trial_the_sources_are_what_was_mocked(database: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "circuit.toml").write_text('app = "app"\n')
    settings, callouts = load_settings(tmp_path), Callouts("it is not mocked")
    async with open_bench(settings) as bench, Trial(settings, database, bench=bench, callouts=callouts) as trial:
        result = await trial.run("ContactTrigger.score_new_leads", lead(1))
        assert not result.succeeded
        assert "addressbatch is refused: it is not mocked" in result.reason + str(result.detail)
        geocoded = '"1","x","Match","Exact","x","-97.1,31.5","1","L","48","309","000400","1"\n'
        callouts.mock("POST", "https://geocoding.geo.census.gov/*", body=geocoded)
        figures = [["B19013_001E", "state", "county", "tract"], ["61234", "48", "309", "000400"]]
        mock = callouts.mock("GET", "https://api.census.gov/data/*", json=figures)
        result = await trial.run("ContactTrigger.score_new_leads", lead(1))
        assert result.succeeded, result.detail
        assert [line.message for line in result.log] == ["enriched", "c1"]
        assert [call.url for call in mock.calls] == [
            "https://api.census.gov/data/2023/acs/acs5?get=B19013_001E&for=tract%3A%2A&in=state%3A48&in=county%3A%2A"
        ]


async def test_where_nobody_enriches_the_handler_is_told(app: App) -> None:
    outcome = await app.run("without_quota", [lead(1)], enrichment=None)
    assert isinstance(outcome, Failed)
    assert "leads are not enriched here" in str(outcome)

"""Queries as handlers ask them: real children, a real database, and a vendor that goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from circuit_script.config import Settings, load_settings
from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Fields, Later, Page, Plan, Query
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed as FailedRun
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from circuit_script.wiring import Trial, open_bench
from tests.road import SCORE, contact, open_road

APP = """
import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from circuit_script import CircuitDB, Q, QueryRefused, log, run, trigger

async def ids(query):
    return [each.id for each in await query]

@trigger("Contact", ["afterInsert"])
async def builds(context):
    query = CircuitDB.query("Lead")
    found = {
        "all": await ids(query),
        "old form": await ids(CircuitDB.query("Lead", {"city": ["Waco", "Reno"]}, order_by="-score", limit=2)),
        "where": await ids(query.where(city="Waco", score__gt=80)),
        "twice": await ids(query.where(city="Waco").where({"score": 91})),
        "or": await ids(query.where(Q(city="Reno") | Q(city__starts_with="san"))),
        "not": await ids(query.where(~Q(city="Waco"), score__is_null=False)),
        "q first": await ids(CircuitDB.query("Lead", Q(score__in={91, 12}))),
        "order": await ids(query.order_by("-score", "id").limit(3)),
        "moment": await ids(query.where(since__ge=datetime(2026, 3, 1, tzinfo=UTC))),
        "day": await ids(query.where(since__lt=date(2026, 3, 1))),
        "decimal": await ids(query.where(score=Decimal("91.0"))),
        "tag": await ids(query.where(tags__contains="HOT")),
        "custom": await ids(query.where(Tier__c="gold")),
        "verbatim": await ids(query.where({"score__gt": None})),
        "soql": await ids(CircuitDB.query(
            "SELECT Id, City FROM Lead WHERE Score > 80 AND City IN :cities ORDER BY Score DESC LIMIT 5 OFFSET 1",
            binds={"cities": ("Waco", "Reno")})),
        "task": await ids(asyncio.create_task(query.where(city="Reno"))),
        "together": [len(each) for each in await asyncio.gather(query, query.where(city="Reno"))],
        "only": dict((await query.where(id="a").only("city"))[0]),
        "selected": dict((await CircuitDB.query("SELECT City FROM Lead WHERE Id = 'a'"))[0]),
        "first": (await query.order_by("score").first()).id,
        "none": await query.where(city="Nowhere").first(),
        "first of soql": (await CircuitDB.query("SELECT Id FROM Lead ORDER BY Score LIMIT 3 OFFSET 1").first()).id,
        "count": [await query.count(), await query.where(city="Waco").count(), await query.limit(2).count()],
    }
    plan = await query.where(city="Waco").explain()
    assert plan.connector == "local" and "FROM circuit.records" in plan.requests[0] and plan.here == ()
    assert "local is asked:" in str(plan)
    found["versions"] = all(each.version for each in await query)
    await CircuitDB.insert("Report", {"found": found})

@trigger("Contact", ["afterUpdate"])
async def refused(context):
    said = []
    for asked in (
        lambda: CircuitDB.query("Lead").where(score__gte=1),
        lambda: CircuitDB.query("Lead").where(score__startwith="x"),
        lambda: CircuitDB.query("Lead").where(score__in="x"),
        lambda: CircuitDB.query("Lead").where("score"),
        lambda: CircuitDB.query("Lead").where(score__gt=None),
        lambda: CircuitDB.query("Lead").where(score=float("nan")),
        lambda: CircuitDB.query("Lead").limit(0),
        lambda: CircuitDB.query("SELECT Id FROM Lead WHERE City = 'Wa"),
        lambda: CircuitDB.query("SELECT Id FROM Lead").where(a=1),
        lambda: CircuitDB.query("Lead", binds={"a": 1}),
    ):
        for use in (lambda query: query, lambda query: query.count(), lambda query: query.explain(), first_page):
            try:
                await use(asked())
            except QueryRefused as error:
                word = (str(error), error.page, error.position)
            else:
                word = "not refused"
        said.append(word)
    await CircuitDB.insert("Report", {"said": said})

async def first_page(query):
    async for each in query:
        break

@trigger("Contact", ["afterDelete"])
async def pages(context):
    seen, queries = [], []
    await CircuitDB.update("Many", [{"id": "m00001", "n": -1}, {"id": "m00002", "kind": "other"}])
    await CircuitDB.insert("Many", [{"id": "new", "kind": "it", "n": 5}])
    async for row in CircuitDB.query("Many").where(kind="it").order_by("-n"):
        if len(seen) % 500 == 0:
            queries.append(context.limits.db_queries.used)
        if row.id == "m01500":
            await CircuitDB.update("Many", [{"id": "m00003", "n": 9999}, {"id": "m00100", "kind": "gone"}])
            await CircuitDB.insert("Many", {"id": "newer", "kind": "it"})
        seen.append((row.id, row["n"]))
    some = [each.id async for each in CircuitDB.query("Many").limit(1200)]
    log.info("read", rows=len(seen))
    await CircuitDB.insert("Report", {"first": seen[:2], "last": seen[-5:], "rows": len(seen), "queries": queries,
        "different": len({key for key, _ in seen}), "some": len(some), "used": context.limits.db_rows.used})

@trigger("Task", ["afterInsert"])
def plain(context):
    found = run(CircuitDB.query("Lead").where(city="Reno"))
    run(CircuitDB.insert("Report", {"found": [each.id for each in found]}))

@trigger("Task", ["afterUpdate"])
async def too_many(context):
    async for row in CircuitDB.query("Many"):
        pass

@trigger("Task", ["afterDelete"])
async def forgets(context):
    asking = {"rows": CircuitDB.query("Lead")}
    asking["rows"].where(city="Waco")
"""

LEADS: list[Fields] = [
    {"id": "a", "city": "Waco", "score": 91, "tags": ["Hot", "new"], "since": "2026-03-01T00:00:00Z"},
    {"id": "b", "city": "Waco", "score": 12, "since": "2026-02-28T23:59:59+00:00"},
    {"id": "c", "city": "Reno", "score": 85.5, "Tier__c": "gold"},
    {"id": "d", "city": "San Jose", "score": None, "tags": []},
    {"id": "e", "score": "91"},
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    (folder / "circuit.toml").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        yield load_settings(folder)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(settings: Settings) -> AsyncIterator[Any]:
    async with open_bench(settings) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def trial(settings: Settings, bench: Any, database: str) -> AsyncIterator[Trial]:
    async with Trial(settings, database, bench=bench) as found:
        await found.seed("Lead", LEADS)
        yield found


async def report(trial: Trial) -> Fields:
    (found,) = await trial.query("Report")
    return found


async def test_what_a_handler_builds_is_answered(trial: Trial) -> None:
    result = await trial.run("builds", {"id": "x"})
    assert result.status == "succeeded", result
    assert (await report(trial))["found"] == {
        "all": ["a", "b", "c", "d", "e"],
        "old form": ["a", "c"],
        "where": ["a"],
        "twice": ["a"],
        "or": ["c", "d"],
        "not": ["c", "e"],
        "q first": ["a", "b"],
        "order": ["a", "c", "b"],
        "moment": ["a"],
        "day": ["b"],
        "decimal": ["a"],
        "tag": ["a"],
        "custom": ["c"],
        "verbatim": ["a", "b", "c", "d", "e"],
        "soql": ["c"],
        "task": ["c"],
        "together": [5, 1],
        "only": {"id": "a", "city": "Waco"},
        "selected": {"id": "a", "city": "Waco"},
        "first": "e",
        "none": None,
        "first of soql": "b",
        "count": [5, 2, 2],
        "versions": True,
    }


async def test_what_cannot_be_asked_is_refused_wherever_it_shows_with_what_to_do(trial: Trial) -> None:
    result = await trial.run("refused", {"id": "x"}, object="Contact", event="afterUpdate")
    assert result.status == "succeeded", result
    said = (await report(trial))["said"]
    words = ["Write score__ge", "Write score__starts_with", "a list of values", "takes conditions and Q", "is_null",
        "cannot be looked for", "limit must be", "This text is not closed", "its text says everything",
        "begins with SELECT"]  # fmt: skip
    assert [part in each[0] for part, each in zip(words, said, strict=True)] == [True] * len(words), said
    assert {each[1] for each in said} == {"query-refused"}
    assert [each[2] for each in said if each[2] >= 0] == [33]


async def test_many_rows_come_page_by_page_with_what_was_written_before(trial: Trial) -> None:
    await trial.seed("Many", [{"id": f"m{n:05}", "kind": "it", "n": n} for n in range(2500)])
    result = await trial.run("pages", {"id": "x"}, object="Contact", event="afterDelete")
    assert result.status == "succeeded", result
    found = await report(trial)
    assert found["first"] == [["m02499", 2499], ["m02498", 2498]]
    # m00001 stands where it is stored, m00002 dropped out, m00100 too (on its way); m00003 shows what came meanwhile;
    # "new" comes at the end, "newer" not at all.
    assert found["last"] == [["m00004", 4], ["m00003", 9999], ["m00001", -1], ["m00000", 0], ["new", 5]]
    assert (found["rows"], found["different"]) == (2499, 2499)
    assert found["queries"] == [1, 1, 2, 2, 3]
    assert (found["some"], found["used"]) == (1200, 2499 + 1200)
    assert result.usage["db_queries"] == 3 + 2


async def test_plain_code_and_limits(trial: Trial) -> None:
    assert (await trial.run("plain", {"id": "x"})).status == "succeeded"
    assert (await report(trial))["found"] == ["c"]
    await trial.seed("Many", [{"id": f"m{n:05}"} for n in range(50_001)])
    result = await trial.run("too_many", {"id": "x"}, object="Task", event="afterUpdate")
    assert result.status == "failed"
    assert "more than 50,000 records match" in result.reason
    assert result.usage["db_rows"] == 50_000


async def test_a_query_that_nobody_awaits_fails_its_execution(trial: Trial) -> None:
    result = await trial.run("forgets", {"id": "x"}, object="Task", event="afterDelete")
    line = next(number for number, text in enumerate(APP.splitlines(), 1) if 'asking = {"rows"' in text)
    assert result.status == "failed"
    assert f"app.py:{line}: CircuitDB.query(…) was never awaited" in result.reason


class Away:
    """A CRM outside that says what is to be said, so often; then it has one contact."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        self.error, self.times = error, times

    def _say(self) -> None:
        self.times -= 1
        if self.times >= 0:
            raise self.error

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self._say()
        return Page([{"id": "v1", "name": "Ann"}], None)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        self._say()
        return [{"id": each} for each in ids]

    def explain(self, query: Query) -> Plan:
        return Plan("away", ("GET /contacts",))


async def test_while_the_vendor_is_away_an_execution_waits_and_runs_again(database: str) -> None:
    seen: list[Any] = []

    async def reads(work: Work, broker: ExecutionBroker) -> Outcome:
        try:
            seen.append(await broker.request("query", {"object": "Contact", "where": {"name": "Ann"}}))
        except RequestRefused as refused:
            seen.append(str(refused))
            return FailedRun(broker.usage, str(refused))
        return Succeeded(broker.usage)

    async with open_road(database) as road:
        await road.live(SCORE)
        await road.start(reads, crm=Away(Failed(Later("away: ConnectError", down=True)), 2))
        await road.take_in(contact("1"))
        await road.done()
        assert seen == [
            "The CRM could not be asked. away: ConnectError",
            "The CRM could not be asked. away: ConnectError",
            [{"id": "v1", "name": "Ann"}],
        ]
        outcomes = await road.rows("SELECT status FROM circuit.outcomes")
        assert outcomes == ["succeeded"], "what the vendor could not say is no failure"

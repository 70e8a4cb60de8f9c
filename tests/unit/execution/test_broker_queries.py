"""Reads of the CRM as the broker answers them: bounded, filtered again, with what is pending laid over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Fields, Later, Page, Plan, Query, Refused, SlowDown, Unknown
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import DatabaseUnavailable, NotConnected, QueryRefused, RequestRefused, VendorUnavailable
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.queries import MOST_OPEN, where_of
from circuit_script.execution.outcome import Work
from circuit_script.governor import LimitExceeded, Limits


class Loose:
    """A vendor that filters nothing: whatever is asked, it hands over all of its rows, in its own order."""

    def __init__(self, *rows: Fields, error: Exception | None = None, ordered: bool = False) -> None:
        self.rows = list(rows)
        self.error = error
        self.ordered = ordered
        self.asked: list[tuple[Query, str | None, int]] = []

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self.asked.append((query, after, size))
        if self.error is not None:
            raise self.error
        begin = int((after or "page-0").removeprefix("page-"))
        more = begin + size < len(self.rows)
        return Page(self.rows[begin : begin + size], f"page-{begin + size}" if more else None)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        if self.error is not None:
            raise self.error
        return [next((row for row in self.rows if row["id"] == each), None) for each in ids]

    def explain(self, query: Query) -> Plan:
        return Plan("loose", ("GET /contacts",), ("a = 1, as it cannot be asked",), ordered=self.ordered)


class NoJournal:
    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return None

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        """Nothing is tried again."""


Ask = Any


class Bench:
    def __init__(self, client: httpx.AsyncClient, crm: Loose, **limits: float) -> None:
        self.crm = crm
        self.unit = UnitOfWork("Contact", ["b1"])
        work = Work(
            execution=uuid7(), handler="h", tenant="acme", object="Contact", event="afterInsert",
            records=[{"id": "b1"}], old=[None], events=[{}], limits=Limits().lowered(**limits),
        )  # fmt: skip
        self.broker = ExecutionBroker(
            work,
            BrokerParts(crm=crm, client=client, knows=lambda *_: False),
            held=self.unit,
            journal=NoJournal(),
            log=lambda line: None,
            remaining=lambda: 30.0,
        )

    async def ask(self, verb: str, **asked: Any) -> Any:
        return await self.broker.request(verb, asked)

    async def ids(self, **asked: Any) -> list[str]:
        return [row["id"] for row in await self.ask("query", object="Contact", **asked)]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as made:
        yield made


def numbers(count: int) -> list[Fields]:
    return [{"id": f"{n:05}", "n": n, "name": f"Contact {n}"} for n in range(count)]


async def test_rows_of_a_vendor_are_filtered_ordered_and_limited_again(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(50)))
    assert await bench.ids(where=["gt", "n", 40], order_by=["-n"], limit=3) == ["00049", "00048", "00047"]
    assert await bench.ids(where=["any", [["eq", "n", 3], ["eq", "n", 5]]], limit=1) == ["00003"]
    assert await bench.ids(where={"n": [1, 2]}, order_by="-n") == ["00002", "00001"]
    assert await bench.ids(where=["not", ["gt", "n", 1]]) == ["00000", "00001"]


async def test_what_drops_out_by_what_is_pending_makes_room_for_others(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(20), ordered=True))
    for key in ("00000", "00001"):
        await bench.ask("dml", op="delete", object="Contact", rows=[{"id": key}])
    assert await bench.ids(limit=3) == ["00002", "00003", "00004"]
    await bench.ask("dml", op="update", object="Contact", rows=[{"id": "00015", "n": -1}])
    await bench.ask("dml", op="insert", object="Contact", rows=[{"id": "new", "n": 2.5}])
    assert await bench.ids(order_by="n", limit=4) == ["00015", "00002", "new", "00003"]
    assert await bench.ids(where=["lt", "n", 0]) == ["00015"]


async def test_of_soql_rows_are_skipped_after_that(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(20)))
    await bench.ask("dml", op="delete", object="Contact", rows=[{"id": "00000"}])
    asked = {"soql": "SELECT N FROM Contact ORDER BY N LIMIT 2 OFFSET :skip", "binds": {"skip": 3}}
    assert await bench.broker.request("query", asked) == [{"id": "00004", "n": 4}, {"id": "00005", "n": 5}]
    asked["first"] = True
    assert await bench.broker.request("query", asked) == [{"id": "00004", "n": 4}]
    pages = await bench.broker.request("page", asked | {"first": False})
    assert [row["id"] for row in pages["rows"]] == ["00004", "00005"]
    assert pages["after"] is None


async def test_the_vendor_is_asked_for_the_fields_that_rows_are_held_against(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(5)))
    found = await bench.ask("query", object="Contact", where=["gt", "n", 3], fields=["name"])
    assert found == [{"id": "00004", "name": "Contact 4"}]
    assert bench.crm.asked[0][0].fields == ("id", "n", "name")
    await bench.ask("count", object="Contact", where=["gt", "n", 3])
    assert bench.crm.asked[-1][0].fields == ("id", "n")


async def test_pages_are_numbers_and_the_vendors_own_places_stay_here(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(2100)))
    first = await bench.ask("page", object="Contact")
    other = await bench.ask("page", object="Contact", where=["lt", "n", 2])
    second = await bench.ask("page", after=first["after"])
    third = await bench.ask("page", after=first["after"])
    assert [len(each["rows"]) for each in (first, other, second, third)] == [1000, 2, 1000, 100]
    assert (first["after"], other["after"], third["after"]) == (1, None, None)
    assert bench.broker.usage.db_queries == 4
    assert bench.broker.usage.db_rows == 2102
    for forged in (1, 7, "page-0"):
        with pytest.raises(RequestRefused):
            await bench.ask("page", after=forged)


async def test_so_many_queries_are_read_page_by_page_at_once(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(1001)))
    opened = [(await bench.ask("page", object="Contact"))["after"] for _ in range(MOST_OPEN + 1)]
    with pytest.raises(QueryRefused, match="not being read any more"):
        await bench.ask("page", after=opened[0])
    assert len((await bench.ask("page", after=opened[-1]))["rows"]) == 1


async def test_what_was_pending_when_reading_began_is_met_once(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(1500)))
    await bench.ask("dml", op="update", object="Contact", rows=[{"id": "00001", "n": -5}, {"id": "01499", "n": 10_000}])
    await bench.ask("dml", op="insert", object="Contact", rows=[{"id": "new", "n": 7}])
    first = await bench.ask("page", object="Contact", where=["lt", "n", 1400])
    await bench.ask("dml", op="update", object="Contact", rows=[{"id": "00002", "n": 1}, {"id": "01450", "n": 1}])
    await bench.ask("dml", op="insert", object="Contact", rows=[{"id": "later", "n": 1}])
    second = await bench.ask("page", after=first["after"])
    seen = [row["id"] for row in first["rows"] + second["rows"]]
    assert second["after"] is None
    assert len(seen) == len(set(seen)) == 1401
    assert seen[-1] == "new"
    assert {"00001", "00002"} < set(seen)
    assert not {"later", "01499", "01450"} & set(seen)


async def test_counting_is_bounded_and_paid_for(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(*numbers(2500)), db_rows=4000)
    await bench.ask("dml", op="insert", object="Contact", rows=[{"id": "new", "n": 0}])
    assert await bench.ask("count", object="Contact") == {"count": 2501}
    assert bench.broker.usage.db_queries == 3
    assert await bench.ask("count", object="Contact", limit=10) == {"count": 10}
    assert await bench.ask("count", object="Contact", where=["eq", "n", "x"]) == {"count": 0}
    with pytest.raises(LimitExceeded):
        await bench.ask("count", object="Contact")


async def test_explain_asks_nobody(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose(error=AssertionError("asked")))
    told = await bench.ask("explain", soql="SELECT Id FROM Contact WHERE A = 1")
    assert told == {"connector": "loose", "requests": ["GET /contacts"], "here": ["a = 1, as it cannot be asked"]}
    assert bench.crm.asked == []
    assert bench.broker.usage.db_queries == 0


@pytest.mark.parametrize(
    ("error", "kind", "away"),
    [
        (Failed(Later("503", down=True)), VendorUnavailable, "vendor"),
        (Failed(SlowDown("429", 3.0)), VendorUnavailable, "vendor"),
        (Failed(Unknown("no answer")), VendorUnavailable, "vendor"),
        (VendorUnavailable("gone"), VendorUnavailable, "vendor"),
        (Failed(Refused("HTTP 400 MALFORMED_QUERY")), QueryRefused, None),
        (NotConnected("acme", "loose"), NotConnected, None),
        (DatabaseUnavailable("gone"), RequestRefused, "database"),
    ],
)
async def test_what_a_vendor_says_decides_whether_the_execution_runs_again(
    client: httpx.AsyncClient, error: Exception, kind: type[Exception], away: str | None
) -> None:
    for verb, asked in (
        ("query", {"object": "Contact"}),
        ("page", {"object": "Contact"}),
        ("count", {"object": "Contact"}),
        ("get", {"object": "Contact", "ids": ["1"]}),
        ("dml", {"op": "update", "object": "Contact", "rows": [{"id": "x"}]}),
    ):
        bench = Bench(client, Loose(error=error))
        with pytest.raises(kind) as refused:
            await bench.broker.request(verb, asked)
        assert isinstance(refused.value, RequestRefused)
        assert bench.broker.away == away
        if kind is NotConnected:
            assert "circuit-script connect loose --tenant acme" in str(refused.value)


async def test_a_refusal_travels_whole_to_who_asks_for_that(client: httpx.AsyncClient) -> None:
    bench = Bench(client, Loose())
    told = await bench.ask("query", soql="SELECT Id FROM Contact WHERE", told=True)
    detail, cure, page, position = told["refused"]
    assert "ends too early" in detail
    assert (page, position) == ("query-refused", 28)
    assert "a name" in cure


@pytest.mark.parametrize(
    "said",
    [
        ["eq", "a"], ["eq", 1, 1], "x", 5, ["all", 5], ["any", [["eq"]]], ["not", 1], [["eq", "a", 1]],
        ["drop", "a", 1], ["eq", "a", b"x"], ["in", "a", 1],
    ],
)  # fmt: skip
async def test_conditions_that_no_child_of_ours_sends_are_refused(client: httpx.AsyncClient, said: Any) -> None:
    with pytest.raises(RequestRefused):
        await Bench(client, Loose()).ask("query", object="Contact", where=said)


def test_conditions_that_are_nested_without_end_are_refused() -> None:
    said: Any = ["eq", "a", 1]
    for _ in range(10_000):
        said = ["not", said]
    with pytest.raises(QueryRefused, match="nested"):
        where_of(said)

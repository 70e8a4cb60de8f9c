"""Queries as authors build them, and what of them travels."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

import pytest

from circuit_script import CircuitDB, Q, QueryRefused, Selection
from circuit_script.connectors.query import OPS
from circuit_script.execution.authoring import queries
from circuit_script.execution.broker.queries import where_of
from circuit_script.execution.child import running


@pytest.fixture
def dropped() -> Iterator[list[tuple[str, int, str]]]:
    before, heard = queries._on_dropped, []
    queries.on_dropped(lambda *place: heard.append(place))
    yield heard
    queries._on_dropped = before


def where(query: Selection) -> Any:
    return query._asked.arguments()["where"]


class Colour(Enum):
    RED = "red"


def test_conditions_travel_as_lists() -> None:
    query = CircuitDB.query("Contact", {"a__gt": 1}).where(
        Q(b=1) | Q(b__in={2}), ~Q(c__contains="x"), {"d e": [1, 2]}, f__not_in=(3,), g=None, My__c=1, My__c__ge=2
    )
    assert where(query) == [
        "all",
        [
            ["eq", "a__gt", 1],
            ["any", [["eq", "b", 1], ["in", "b", [2]]]],
            ["not", ["contains", "c", "x"]],
            ["in", "d e", [1, 2]],
            ["all", [["not_in", "f", [3]], ["eq", "g", None], ["eq", "My__c", 1], ["ge", "My__c", 2]]],
        ],
    ]
    assert where_of(where(query))


def test_every_ending_is_a_comparison_of_the_broker() -> None:
    assert set(queries.SUFFIXES) == OPS


def test_long_chains_are_flat() -> None:
    many = reduce(or_, (Q(a=n) for n in range(300)))
    assert many._wire == ["any", [["eq", "a", n] for n in range(300)]]
    assert where_of((many & Q(b=1) & Q(c=1))._wire)
    both = Q(a=1, b=2) & Q(c=3)
    assert both._wire == ["all", [["eq", "a", 1], ["eq", "b", 2], ["eq", "c", 3]]]


def test_values_become_those_of_json() -> None:
    found = [
        datetime(2026, 11, 22, 10, tzinfo=UTC), date(2026, 11, 22), UUID(int=1), Decimal("1.50"), Decimal("2"),
        Colour.RED, (1, [Decimal("0.5")]), True,
    ]  # fmt: skip
    assert [queries.plain(each) for each in found] == [
        "2026-11-22T10:00:00+00:00", "2026-11-22", "00000000-0000-0000-0000-000000000001", 1.5, 2, "red", [1, [0.5]],
        True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "meant"),
    [("gte", "__ge"), ("lte", "__le"), ("icontains", "__contains"), ("isnull", "__is_null"),
     ("startwith", "__starts_with"),
     ("notin", "__not_in"), ("contain", "__contains")],
)  # fmt: skip
def test_an_ending_from_elsewhere_is_refused_with_ours(ending: str, meant: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        Q(**{f"score__{ending}": 1})
    assert f"Write score{meant}" in refused.value.cure
    assert Q({f"score__{ending}": 1})._wire == ["eq", f"score__{ending}", 1]


def test_what_makes_no_query_is_refused() -> None:
    for made in (
        lambda: CircuitDB.query("Contact", ["a"]),  # type: ignore[arg-type]
        lambda: CircuitDB.query("Contact").where("a"),  # type: ignore[arg-type]
        lambda: CircuitDB.query("Contact").order_by(1),  # type: ignore[arg-type]
        lambda: CircuitDB.query("Contact").where(a__in="text"),
        lambda: CircuitDB.query("SELECT Id FROM Contact", {"a": 1}),
        lambda: CircuitDB.query("SELECT Id FROM Contact").limit(1),
        lambda: CircuitDB.query("Contact", binds={}),
    ):
        with pytest.raises(QueryRefused):
            made()
    with pytest.raises(TypeError, match=re.escape("& | ~")):
        bool(Q(a=1))
    with pytest.raises(TypeError):
        Q(a=1) | 5  # type: ignore[operator]


def test_a_query_is_never_changed() -> None:
    query = CircuitDB.query("Contact", order_by="-a", limit=5)
    others = [query.where(a=1), query.order_by("b", "-c"), query.limit(7), query.only("x")]
    asked = [each._asked.arguments() for each in (query, *others)]
    assert [each["order_by"] for each in asked] == [["-a"], ["-a"], ["b", "-c"], ["-a"], ["-a"]]
    assert [each["limit"] for each in asked] == [5, 5, 5, 7, 5]
    assert [each["fields"] for each in asked] == [[], [], [], [], ["x"]]
    assert "not awaited yet" in repr(query)


def test_text_that_begins_with_select_is_soql_and_objects_are_not() -> None:
    for text in ("SELECT Id FROM Contact", "  select\nId from Contact"):
        assert CircuitDB.query(text, binds={"a": UUID(int=1)})._asked.arguments() == {
            "soql": text, "binds": {"a": "00000000-0000-0000-0000-000000000001"}, "versions": True, "told": True,
        }  # fmt: skip
    for name in ("Selection", "Select", "selected"):
        assert CircuitDB.query(name)._asked.object == name


def test_outside_of_an_execution_it_says_so() -> None:
    async def asks() -> None:
        await CircuitDB.query("Contact")

    async def reads() -> None:
        async for _ in CircuitDB.query("Contact"):
            pass

    for each in (asks(), reads(), CircuitDB.query("Contact"), CircuitDB.query("Contact").count()):
        with pytest.raises(RuntimeError, match="inside a handler only"):
            asyncio.run(each)
    with pytest.raises(RuntimeError, match="inside a handler only"):
        running.run(CircuitDB.query("Contact"))


def test_a_query_that_nobody_uses_is_told_with_its_place(dropped: list[tuple[str, int, str]]) -> None:
    line = test_a_query_that_nobody_uses_is_told_with_its_place.__code__.co_firstlineno
    CircuitDB.query("Contact").where(a=1).limit(3)
    gc.collect()
    assert dropped == [(__file__, line + 2, "CircuitDB.query")]


def test_one_that_is_used_in_any_way_is_not(dropped: list[tuple[str, int, str]]) -> None:
    query = CircuitDB.query("Contact")
    query.where(a=1).close()
    with pytest.raises(QueryRefused):
        CircuitDB.query("Contact").where(a__gte=1)
    with pytest.raises(RuntimeError):
        asyncio.run(CircuitDB.query("Contact"))
    with pytest.raises(RuntimeError):
        asyncio.run(CircuitDB.query("Contact").first())
    del query
    gc.collect()
    assert dropped == []

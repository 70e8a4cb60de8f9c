"""The built-in CRM's SQL gives exactly what `matches` and `in_order` give, whatever is stored and asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.query import (
    OPS,
    ORDERED,
    SEVERAL,
    TEXTUAL,
    All,
    AnyOf,
    Condition,
    Not,
    Order,
    Query,
    Where,
    in_order,
    matches,
)
from circuit_script.connectors.reading import rows_of
from circuit_script.connectors.values import moment
from circuit_script.db.pool import open_pool

OF_TEXT = ["", "a", "A", "ab", "aB", "Waco", "WACO", "San Jose", "é", "É", "ß", "ẞ", "Straße",
    "K", "K", "ſ", "İ", "ı", "Σ", "ς",
    "σ", "91", "7", "-7", "%", "_", "a%b", "\\", "'", '"', "; DROP TABLE x; --", "\u4f60\u597d", "\U0001f600",
    "\U00010400", "\U00010428", " ", "\n", "true", "null", "1e3"]  # fmt: skip
MOMENTS = ["2026-11-22", "2026-11-22T00:00:00Z", "2026-11-22T01:00:00+01:00", "2026-11-21T23:00:00.000-0100",
    "2026-11-22 00:00", "2026-11-22T00:00:00.1234567Z", "2026-11-22T00:00:00.123456", "2024-02-29", "2023-02-29",
    "2026-04-31", "0001-01-01", "0000-01-01", "9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00:00+14:59",
    "2026-11-22T24:00", "2026-11-22T10:00:60Z", "2026-1-2", "2026-11-22T10", "2026-11-22T10:00z", "2026-11-22\n",
    "1900-02-29", "2000-02-29", "2026-11-22T10:00:00.+01:00", "2026-12-31T23:59:59.9999999Z"]  # fmt: skip
NUMBERS: list[Any] = [0, 1, -1, 7, 91, 7.0, 0.1, -0.0, 1e23, 10**23, 2**53, 2**53 + 1, float(2**53), 2**63,
    float(2**63), -(2**63), 1e-7, 123456789.125, 1e300, 5e-324]  # fmt: skip
NAMES = ["a", "b", "it's", "id", "contactId", "%s"]

texts = st.one_of(st.sampled_from(OF_TEXT), st.sampled_from(MOMENTS), st.text(alphabet="aAbBéÉσς \u212a", max_size=4))
numbers = st.one_of(
    st.sampled_from(NUMBERS), st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(st.sampled_from(["x", "y"]), scalars, max_size=2)
)
rows = st.lists(st.dictionaries(st.sampled_from([*NAMES[:3], "contactId"]), values, max_size=4), max_size=8)
ids = st.lists(st.text(alphabet="aAbBzZ09é\U0001f600-", min_size=1, max_size=3), min_size=8, max_size=8, unique=True)


@st.composite
def conditions(draw: Any) -> Condition:
    name, op = draw(st.sampled_from(NAMES)), draw(st.sampled_from(sorted(OPS)))
    wanted = scalars if name in ("id", "contactId") else values
    if op == "is_null":
        return Condition(name, op, draw(st.booleans()))
    if op in SEVERAL:
        return Condition(name, op, draw(st.lists(wanted, max_size=4)))
    if op in TEXTUAL:
        return Condition(name, op, draw(texts))
    if op in ORDERED:
        return Condition(name, op, draw(st.one_of(numbers, texts)))
    return Condition(name, op, draw(wanted))


wheres: st.SearchStrategy[Where] = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: All(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)
order = st.builds(Order, st.sampled_from(NAMES), st.booleans())


@pytest.mark.every_server
def test_sql_gives_the_rows_that_python_gives_in_its_order(database: str, pooler: bool) -> None:
    with asyncio.Runner() as runner:
        pool = runner.run(open_pool(database, min_size=1, max_size=2, name="test", pooler=pooler))
        crm = LocalCRM(pool)

        async def compare(
            stored: list[dict[str, Any]], names: list[str], where: Where, by: list[Order], most: int
        ) -> None:
            async with pool.connection() as connection:
                await connection.execute("DELETE FROM circuit.records")
                for name, data in zip(names, stored, strict=False):
                    await connection.execute(
                        "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('t', 'O', %s, %s)",
                        (name, Jsonb(data)),
                    )
            everything = (await crm.page("t", Query("O"))).rows
            assert len(everything) == min(len(names), len(stored))
            expected = in_order([row for row in everything if matches(row, where)], by)
            asked = Query("O", where, tuple(by), most)
            # Page by page, as the SQL says it: nothing filters or sorts its rows again.
            found, after, first = [], None, True
            while first or after is not None:
                page = await crm.page("t", asked, after, 2)
                found, after, first = found + page.rows, page.after, False
            if by:
                assert found == expected
                assert await rows_of(crm, "t", asked) == expected[:most]
            else:
                assert sorted(row["id"] for row in found) == sorted(row["id"] for row in expected)
                assert found == [row for row in everything if matches(row, where)]
                assert await rows_of(crm, "t", asked) == found[:most]

        @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        @given(rows, ids, wheres, st.lists(order, max_size=2), st.integers(1, 5))
        def agree(stored: Any, names: Any, where: Where, by: Any, most: int) -> None:
            runner.run(compare(stored, names, where, by, most))

        try:
            agree()
        finally:
            runner.run(pool.close())


async def test_the_database_reads_moments_as_python_does_in_any_time_zone(database: str) -> None:
    pool = await open_pool(f"{database}&options=-c%20timezone%3DAsia%2FKolkata", min_size=1, max_size=1, name="test")
    crm, since = LocalCRM(pool), moment("2026-11-22")
    assert since is not None
    try:
        async with pool.connection() as connection:
            zone = await (await connection.execute("SHOW timezone")).fetchone()
            for text in MOMENTS:
                await connection.execute(
                    "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('t', 'O', %s, %s)",
                    (text, Jsonb({"at": text})),
                )
        assert zone == ("Asia/Kolkata",)
        later = await rows_of(crm, "t", Query("O", Condition("at", "ge", "2026-11-22")))
        assert {row["id"] for row in later} == {each for each in MOMENTS if (moment(each) or 0) >= since}
        for text in MOMENTS:
            same = await crm.page("t", Query("O", Condition("at", "eq", text)))
            alike = {each for each in MOMENTS if each == text or (moment(text) and moment(each) == moment(text))}
            assert {row["id"] for row in same.rows} == alike
    finally:
        await pool.close()

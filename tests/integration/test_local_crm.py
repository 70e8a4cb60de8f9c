from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.query import Query, equal, orders
from circuit_script.connectors.reading import rows_of
from circuit_script.db.pool import tenant_reading
from circuit_script.errors import RequestRefused
from tests.road import Road, open_road

ANN = {"name": "Ann", "city": "Rome", "score": 91, "tags": ["hot"], "vip": True, "owner": None}
BOB = {"name": "Bob", "city": "Oslo", "score": 7, "vip": False, "nested": {"a": [1, 2]}}
CAT = {"name": "O'Cat; DROP TABLE records; --", "city": "Rome", "score": "91", "it's": 1}


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await store(made, "acme", "Contact", a=ANN, b=BOB, c=CAT)
        await store(made, "acme", "Note", n1={"contactId": "a"}, n2={"contactId": "b"}, n3={})
        await store(made, "bolt", "Contact", a={"name": "Not yours"}, z={"city": "Rome"})
        await made.run("UPDATE circuit.records SET deleted = true WHERE id = 'gone'")
        yield made


async def store(road: Road, tenant: str, object_: str, **records: dict[str, Any]) -> None:
    for id_, data in records.items():
        await road.run(
            "INSERT INTO circuit.records (tenant, object, id, data) VALUES (%s, %s, %s, %s)",
            tenant, object_, id_, Jsonb(data),
        )  # fmt: skip


async def ids(
    road: Road,
    tenant: str = "acme",
    object_: str = "Contact",
    where: Mapping[str, Any] | None = None,
    order_by: str | None = None,
    limit: int = 1000,
) -> list[str]:
    query = Query(object_, equal(where or {}), orders(order_by) if order_by else (), limit)
    return [row["id"] for row in await rows_of(LocalCRM(road.pool), tenant, query)]


WHERE: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["a", "b", "c"]),
    ({"city": "Rome"}, ["a", "c"]),
    ({"score": 91}, ["a"]),
    ({"score": 91.0}, ["a"]),
    ({"score": "91"}, ["c"]),
    ({"vip": True}, ["a"]),
    ({"vip": 1}, []),
    ({"tags": [["hot"]]}, ["a"]),
    ({"nested": {"a": [1, 2]}}, ["b"]),
    ({"city": ["Oslo", "Bonn"]}, ["b"]),
    ({"city": []}, []),
    ({"owner": None}, ["a", "b", "c"]),
    ({"vip": None}, ["c"]),
    ({"id": "b"}, ["b"]),
    ({"id": ["c", "a", "none"]}, ["a", "c"]),
    ({"id": []}, []),
    ({"city": "Rome", "score": 91}, ["a"]),
    ({"city": "rome"}, []),
    ({"name": "O'Cat; DROP TABLE records; --"}, ["c"]),
    ({"nothing": "x"}, []),
]


@pytest.mark.every_server
async def test_a_query_finds_the_records_with_each_wanted_value(road: Road) -> None:
    for where, found in WHERE:
        assert await ids(road, where=where) == found, where


async def test_records_are_found_by_their_contact(road: Road) -> None:
    assert await ids(road, object_="Note", where={"contactId": "a"}) == ["n1"]
    assert await ids(road, object_="Note", where={"contactId": ["a", "b"]}) == ["n1", "n2"]
    assert await ids(road, object_="Note", where={"contactId": None}) == ["n3"]


ORDERS = [
    (None, 2, ["a", "b"]),
    ("name", 10, ["a", "b", "c"]),
    ("-name", 10, ["c", "b", "a"]),
    ("-name", 1, ["c"]),
    ("score", 10, ["c", "b", "a"]),
    ("id", 10, ["a", "b", "c"]),
    ("-id", 10, ["c", "b", "a"]),
    ("owner", 10, ["a", "b", "c"]),
    ("nested", 10, ["b", "a", "c"]),
    ("-nested", 10, ["b", "a", "c"]),
    ("it's", 10, ["c", "a", "b"]),
]


@pytest.mark.every_server
async def test_results_have_their_order_and_limit_and_records_without_the_field_come_last(road: Road) -> None:
    for order_by, limit, found in ORDERS:
        assert await ids(road, order_by=order_by, limit=limit) == found, (order_by, limit)


INJECTIONS = [
    "'; DROP TABLE circuit.records; --",
    "x' OR '1'='1",
    "%s",
    "%(a)s",
    "{}",
    "a') OR true OR (r.data ->> 'a",
    '"',
    "\\",
    "$1",
    "-- ",
    "/*",
]


async def test_no_text_of_a_handler_becomes_sql(road: Road) -> None:
    for text in INJECTIONS:
        assert await ids(road, where={text: "x"}) == []
        assert await ids(road, where={"name": text}) == []
        assert await ids(road, where={"id": text}) == []
        assert await ids(road, object_=text) == []
        assert await ids(road, order_by=text) == ["a", "b", "c"]
        assert await ids(road, order_by=f"-{text}") == ["a", "b", "c"]
        assert await LocalCRM(road.pool).get("acme", text, [text]) == [None]
        assert await ids(road, tenant=text) == []
        assert await ids(road) == ["a", "b", "c"]


async def test_a_value_that_cannot_be_stored_cannot_be_looked_for(road: Road) -> None:
    for value in ("\0", float("nan"), float("inf")):
        with pytest.raises(RequestRefused, match="cannot be looked for"):
            await ids(road, where={"name": value})
    assert await ids(road, where={"name": "Ann"}) == ["a"], "and the connection is whole"


async def test_a_limit_has_its_bounds(road: Road) -> None:
    for limit in (0, -1, 50_001):
        with pytest.raises(RequestRefused, match="limit"):
            await ids(road, limit=limit)


async def test_get_answers_in_the_order_asked_with_none_for_what_is_not_there(road: Road) -> None:
    await road.run("UPDATE circuit.records SET deleted = true WHERE id = 'b'")

    found = await LocalCRM(road.pool).get("acme", "Contact", ["c", "none", "a", "b", "a"])

    assert found == [{**CAT, "id": "c"}, None, {**ANN, "id": "a"}, None, {**ANN, "id": "a"}]
    assert await ids(road) == ["a", "c"]
    assert await LocalCRM(road.pool).get("acme", "Contact", []) == []


@pytest.mark.every_server
async def test_no_tenant_sees_a_record_of_another(road: Road) -> None:
    crm = LocalCRM(road.pool)

    assert await ids(road, tenant="bolt") == ["a", "z"]
    assert await ids(road, tenant="bolt", where={"name": "Ann"}) == []
    assert await ids(road, tenant="bolt", where={"id": ["b", "c"]}) == []
    assert await crm.get("bolt", "Contact", ["a", "b", "z"]) == [
        {"id": "a", "name": "Not yours"},
        None,
        {"id": "z", "city": "Rome"},
    ]
    for nobody in ("", "ACME", "acme ", "*", "%"):
        assert await ids(road, tenant=nobody) == []


@pytest.mark.every_server
async def test_row_security_holds_the_tenant_even_where_a_statement_forgets_it(road: Road) -> None:
    async with road.pool.connection() as connection, tenant_reading(connection, "bolt"):
        seen = await (await connection.execute("SELECT DISTINCT tenant FROM circuit.records")).fetchall()
        forged = await (await connection.execute("SELECT id FROM circuit.records WHERE tenant = 'acme'")).fetchall()
    assert seen == [("bolt",)]
    assert forged == []
    assert len(await road.rows("SELECT DISTINCT tenant FROM circuit.records")) == 2, "the road sees both afterwards"

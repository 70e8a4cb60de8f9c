"""Two tenants, each as the other: row security holds on every table that knows a tenant, whatever is added later."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import errors, sql

from circuit_script.db.pool import Connection, open_connection, open_pool, tenant_reading

pytestmark = pytest.mark.every_server

TENANTS = ("north", "south")

# Tables and views whose rows belong to a tenant; partitions are reached through their parents.
OWNED = """
    SELECT c.relname::text, c.relkind::text, c.relrowsecurity, c.relforcerowsecurity
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'circuit'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
       AND a.attname = 'tenant' AND NOT a.attisdropped
     ORDER BY c.relname
"""
REQUIRED = """
    SELECT column_name::text, data_type::text FROM information_schema.columns
     WHERE table_schema = 'circuit' AND table_name = %s AND column_default IS NULL
       AND is_identity = 'NO' AND is_generated = 'NEVER' AND (is_nullable = 'NO' OR column_name = 'tenant')
"""
SAMPLES: dict[str, Any] = {
    "uuid": lambda: uuid.uuid4(),
    "text": lambda: "x",
    "jsonb": lambda: "{}",
    "bytea": lambda: uuid.uuid4().bytes,
    "smallint": lambda: 1,
    "integer": lambda: 1,
    "bigint": lambda: uuid.uuid4().int >> 80,
    "timestamp with time zone": lambda: "2026-01-01",
    "date": lambda: "2026-01-01",
    "double precision": lambda: 1.0,
    "real": lambda: 1.0,
    "boolean": lambda: True,
    "ARRAY": list,
}
CHECKED = {"status": "succeeded", "kind": "event", "scope": "day"}
OF_TABLE: dict[str, dict[str, Any]] = {
    "records": {"object": "LeadScore"},  # seen by the view lead_scores too
    "effects": {"status": "pending"},
    "quota_use": {"period": "day"},
    "pauses": {"kind": "trigger"},
    "courier_waits": {"kind": "rate"},
    "connections": {"kind": "private"},
    "alerts": {"severity": "warning", "resolved": "2026-01-02"},  # of one key only one is open
}

# From tenants, too: what is theirs there is for the trusted side alone.
HIDDEN = {"secrets", "secret_hosts", "recordings", "comparisons", "mirrored"}


@pytest.fixture
async def road(database: str) -> AsyncIterator[Connection]:
    connection = await open_connection(database)
    yield connection
    await connection.close()


@pytest.fixture
async def filled(road: Connection) -> Connection:
    """The road's connection to a database where each tenant has one row in every table of its own."""
    for table in await owned_tables(road):
        for tenant in TENANTS:
            await insert(road, table, tenant)
    return road


async def owned_tables(connection: Connection) -> list[str]:
    found = await (await connection.execute(OWNED)).fetchall()
    return [name for name, kind, *_ in found if kind != "v" and name not in HIDDEN]


async def insert(connection: Connection, table: str, tenant: str) -> None:
    columns = await (await connection.execute(REQUIRED, (table,))).fetchall()
    row = {name: CHECKED.get(name) or SAMPLES[kind]() for name, kind in columns} | {"tenant": tenant}
    row |= OF_TABLE.get(table, {})
    statement = sql.SQL("INSERT INTO circuit.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
    )
    await connection.execute(statement, list(row.values()))


async def tenants_seen(connection: Connection, table: str) -> list[str]:
    query = sql.SQL("SELECT tenant FROM circuit.{} ORDER BY tenant").format(sql.Identifier(table))
    return [tenant for (tenant,) in await (await connection.execute(query)).fetchall()]


async def as_tenant(connection: Connection, statement: sql.Composed) -> None:
    """Run it with the role alone, without the read-only transaction that comes with a reading."""
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE circuit_tenant")
        await connection.execute(statement)


async def test_every_table_with_a_tenant_enables_and_forces_row_security(road: Connection) -> None:
    found = await (await road.execute(OWNED)).fetchall()

    assert {"deliveries", "events", "queue", "records", "effects", "circuit_logs"} <= {name for name, *_ in found}
    assert [name for name, kind, enabled, forced in found if kind != "v" and not (enabled and forced)] == []


async def test_each_tenant_sees_its_own_row_in_every_table_and_view_and_no_other(filled: Connection) -> None:
    found = await (await filled.execute(OWNED)).fetchall()
    for name in {name for name, *_ in found} - HIDDEN:
        for tenant in TENANTS:
            async with tenant_reading(filled, tenant):
                assert await tenants_seen(filled, name) == [tenant], name


@pytest.mark.parametrize("table", sorted(HIDDEN))
async def test_what_is_hidden_cannot_even_be_asked_for(road: Connection, table: str) -> None:
    await insert(road, table, "north")
    assert await tenants_seen(road, table) == ["north"]
    with pytest.raises(errors.InsufficientPrivilege):
        async with tenant_reading(road, "north"):
            await tenants_seen(road, table)


async def test_the_road_sees_every_tenant_before_and_after_a_tenants_reading(filled: Connection) -> None:
    for table in await owned_tables(filled):
        assert await tenants_seen(filled, table) == ["north", "south"], table
        async with tenant_reading(filled, "north"):
            pass
        assert await tenants_seen(filled, table) == ["north", "south"], table


@pytest.mark.parametrize("tenant", ["", "nobody", "north' OR 'a' = 'a", "%"])
async def test_a_tenant_that_does_not_exist_sees_nothing(filled: Connection, tenant: str) -> None:
    for table in await owned_tables(filled):
        async with tenant_reading(filled, tenant):
            assert await tenants_seen(filled, table) == [], table


async def test_the_tenant_role_without_a_tenant_sees_nothing(filled: Connection) -> None:
    for table in await owned_tables(filled):
        async with filled.transaction():
            await filled.execute("SET LOCAL ROLE circuit_tenant")
            assert await tenants_seen(filled, table) == [], table


async def test_unassigned_deliveries_belong_to_nobody(filled: Connection) -> None:
    await filled.execute("UPDATE circuit.deliveries SET tenant = NULL WHERE tenant = 'south'")
    for tenant in ("south", ""):
        async with tenant_reading(filled, tenant):
            assert await tenants_seen(filled, "deliveries") == []


async def test_a_tenant_can_write_nowhere(filled: Connection) -> None:
    for table in await owned_tables(filled):
        for verb in ("DELETE FROM circuit.{}", "UPDATE circuit.{} SET tenant = 'north'", "TRUNCATE circuit.{}"):
            statement = sql.SQL(verb).format(sql.Identifier(table))
            with pytest.raises((errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)):
                async with tenant_reading(filled, "north"):
                    await filled.execute(statement)
            with pytest.raises(errors.InsufficientPrivilege):
                await as_tenant(filled, statement)


async def test_a_tenant_cannot_reach_what_has_no_row_security(filled: Connection) -> None:
    query = """
        SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'circuit'::regnamespace
           AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
           AND has_table_privilege('circuit_tenant', c.oid, 'SELECT')
    """
    readable = {name for (name,) in await (await filled.execute(query)).fetchall()}
    assert readable <= {"handlers", "releases"}  # the same for every tenant; partitions must not be among them


async def test_only_who_migrates_gives_a_table_its_row_security(road: Connection) -> None:
    query = """
        SELECT p.proname::text, has_function_privilege('circuit_road', p.oid, 'EXECUTE')
               OR has_function_privilege('circuit_tenant', p.oid, 'EXECUTE'),
               has_function_privilege(p.proowner, p.oid, 'EXECUTE')
          FROM pg_proc p WHERE p.pronamespace = 'circuit'::regnamespace AND p.proname IN ('of_road', 'of_tenant')
         ORDER BY 1
    """

    found = await (await road.execute(query)).fetchall()

    assert found == [("of_road", False, True), ("of_tenant", False, True)]


async def test_a_failed_reading_leaves_the_connection_to_the_road(filled: Connection) -> None:
    with pytest.raises(errors.DivisionByZero):
        async with tenant_reading(filled, "north"):
            await filled.execute("SELECT 1 / 0")

    assert await tenants_seen(filled, "records") == ["north", "south"]


async def test_a_reading_inside_a_transaction_is_refused(road: Connection) -> None:
    async with road.transaction():
        with pytest.raises(RuntimeError, match="must not be used inside a transaction"):
            async with tenant_reading(road, "north"):
                pass


async def test_connections_of_a_pool_carry_no_tenant_from_one_use_to_the_next(
    filled: Connection, database: str, pooler: bool
) -> None:
    pool = await open_pool(database, min_size=1, max_size=1, name="test", pooler=pooler)
    async with pool:
        for tenant in TENANTS * 3:
            async with pool.connection() as connection, tenant_reading(connection, tenant):
                assert await tenants_seen(connection, "records") == [tenant]
            async with pool.connection() as connection:
                assert await tenants_seen(connection, "records") == ["north", "south"]

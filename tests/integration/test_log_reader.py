from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from circuit_script.clock import now, uuid7
from circuit_script.db.pool import open_connection
from circuit_script.telemetry import LogQuery, LogReader
from tests.road import Road, open_road

WRITE = """
    INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record)
    VALUES (%s, %s, %s, '{"city": "Plano"}', %s, %s, %s, %s)
"""
FAILED = """
    INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason, detail,
                                    started_at, usage)
    VALUES (%s, 'acme', 1, 1, 'Contact', 'afterInsert', 3, %s, 'limit wall_time exceeded', 'a trace', now(), '{}')
"""


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def write(to: Any, message: str, **said: Any) -> UUID:
    execution: UUID = said.get("execution") or uuid7()
    await to.execute(
        WRITE,
        (
            said.get("at") or now(),
            said.get("level", "info"),
            message,
            execution,
            said.get("handler", "Leads.score"),
            said.get("tenant", "acme"),
            said.get("record"),
        ),
    )
    return execution


async def messages(road: Road, **query: Any) -> list[str]:
    connection = await open_connection(road.url)
    async with connection:
        return [line.message for line in await LogReader(connection, LogQuery(**query)).latest()]


async def test_the_latest_lines_come_in_the_order_of_their_time(road: Road) -> None:
    async with road.pool.connection() as connection:
        for number in range(5):
            await write(connection, str(number))
    assert await messages(road, limit=3) == ["2", "3", "4"]
    assert await messages(road) == ["0", "1", "2", "3", "4"]


async def test_each_question_leaves_out_what_does_not_fit_it(road: Road) -> None:
    async with road.pool.connection() as connection:
        mine = await write(connection, "mine", record="c1", level="warning")
        await write(connection, "other", handler="greet", tenant="beta", at=now() - timedelta(hours=3))
    assert await messages(road, execution=mine) == ["mine"]
    assert await messages(road, record="c1") == ["mine"]
    assert await messages(road, handler="score") == ["mine"]
    assert await messages(road, handler="Leads.score") == ["mine"]
    assert await messages(road, handler="core") == []
    assert await messages(road, level="warning") == ["mine"]
    assert await messages(road, level="error") == []
    assert sorted(await messages(road, level="debug")) == ["mine", "other"]
    assert await messages(road, since=now() - timedelta(hours=1)) == ["mine"]
    assert await messages(road, text="MIN") == ["mine"]
    assert sorted(await messages(road, text="plano")) == ["mine", "other"]
    assert await messages(road, tenant="beta") == ["other"]
    assert await messages(road, tenant="nobody") == []


async def test_what_a_delivery_started_is_found_by_its_id(road: Road) -> None:
    delivery = uuid7()
    async with road.pool.connection() as connection:
        execution = await write(connection, "of this delivery")
        await write(connection, "of another")
        await connection.execute(
            "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
            "VALUES (%s, 0, 1, %s, 'acme', 'succeeded')",
            (delivery, execution),
        )
    assert await messages(road, delivery=delivery) == ["of this delivery"]
    assert await messages(road, delivery=delivery, tenant="acme") == ["of this delivery"]


async def test_a_failed_execution_is_a_line_and_a_good_one_is_none(road: Road) -> None:
    failed = uuid7()
    async with road.pool.connection() as connection:
        await connection.execute(FAILED, (failed, "breached"))
        await connection.execute(FAILED, (uuid7(), "succeeded"))
        opened = await open_connection(road.url)
        async with opened:
            (line,) = await LogReader(opened, LogQuery(level="error", tenant="acme")).latest()
    assert line.message == "breached: limit wall_time exceeded"
    assert line.context == {"records": 3, "detail": "a trace"}
    assert (line.level, line.execution) == ("error", failed)


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_following_shows_every_line_once_though_commits_come_in_another_order(
    road: Road, tenant: str | None
) -> None:
    connection = await open_connection(road.url)
    async with connection, road.pool.connection() as slow, road.pool.connection() as quick:
        reader = LogReader(connection, LogQuery(tenant=tenant))
        await write(quick, "before")
        assert [line.message for line in await reader.latest()] == ["before"]
        async with slow.transaction():
            await write(slow, "written first, committed last")
            await write(quick, "written last, committed first")
            assert [line.message for line in await reader.newer()] == ["written last, committed first"]
            assert await reader.newer() == []
        assert [line.message for line in await reader.newer()] == ["written first, committed last"]
        assert await reader.newer() == []


async def test_following_sees_a_line_whose_execution_began_as_long_ago_as_a_handler_may_run(road: Road) -> None:
    connection = await open_connection(road.url)
    async with connection, road.pool.connection() as writer:
        reader = LogReader(connection, LogQuery())
        assert await reader.latest() == []
        began = UUID(int=(int((now() - timedelta(minutes=50)).timestamp() * 1000) << 80) | 7 << 76 | 1 << 63)
        await write(writer, "at last", execution=began)
        assert [line.message for line in await reader.newer()] == ["at last"]


async def test_what_its_author_cancelled_is_no_error(road: Road) -> None:
    async with road.pool.connection() as connection:
        for status in ("failed", "cancelled"):
            await connection.execute(FAILED, (uuid7(), status))
    assert await messages(road, level="error") == ["failed: limit wall_time exceeded"]
    assert "cancelled: limit wall_time exceeded" in await messages(road, level="info")

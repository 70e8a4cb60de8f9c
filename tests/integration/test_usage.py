"""Who uses most, who came near to a limit, and who crossed one: as `circuit-script limits` tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import PER_RECORD, Usage
from circuit_script.telemetry.usage import Ceiling, breaches_of, near_misses, usage_of, users_of
from tests.road import Incoming, Road, open_road

ROUTES = (("Contact", "afterInsert"),)


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        yield road


async def as_told(work: Work, broker: ExecutionBroker) -> Outcome:
    """End as the record says: with this usage, and whether over a limit."""
    told: dict[str, Any] = dict(work.records[0])
    usage = Usage(**{name: value for name, value in told.items() if name in Usage().as_dict()})
    match told.get("ends"):
        case "breached":
            return Breached("callouts", 51, 50, usage, detail="the stack", where="app.py:7")
        case "loop":
            return Breached("loop", 6, 5, usage, said="GET a came round again")
        case "failed":
            return Failed("boom", usage)
    return Succeeded(usage)


async def run(road: Road, *told: dict[str, Any]) -> None:
    """Each as an execution of its own: one record of one tenant after the other."""
    for n, each in enumerate(told):
        tenant = each.pop("tenant", "acme")
        await road.take_in(Incoming(f"c{n}", tenant=tenant, fields=each))
        await road.done()


async def test_near_misses_are_those_that_did_not_cross_the_limit(road: Road) -> None:
    await road.live(HandlerSpec("calls", ROUTES))
    await road.start(as_told, attempts=1)
    await run(
        road,
        {"callouts": 39},
        {"callouts": 40},
        {"callouts": 45, "tenant": "other"},
        {"callouts": 50, "ends": "failed"},
        {"callouts": 51, "ends": "breached"},
        {"callouts": 9, "tenant": "small"},
        {"messages": 7},
        {"messages": 8},
    )
    ceilings = [
        Ceiling("calls", "callouts", None, 50),
        Ceiling("calls", "callouts", "small", 10),
        Ceiling("calls", "messages", None, 10),
        Ceiling("another", "callouts", None, 1),
    ]

    async with road.pool.connection() as connection:
        found = await near_misses(connection, 1, ceilings, PER_RECORD, 10)
        first = await near_misses(connection, 1, ceilings, PER_RECORD, 1)
        before = await near_misses(connection, 1e-9, ceilings, PER_RECORD, 10)

    assert [(each.handler, each.limit, each.tenant, each.times, round(each.share, 2)) for each in found] == [
        ("calls", "callouts", "acme", 2, 1.0),
        ("calls", "callouts", "other", 1, 0.9),
        ("calls", "callouts", "small", 1, 0.9),
        ("calls", "messages", "acme", 1, 0.8),
    ]
    assert first == found[:1]
    assert before == []
    assert await road.rows("SELECT status FROM circuit.executions WHERE id = %s", found[0].execution) == ["failed"]


async def test_breaches_are_told_by_their_limit_with_the_last_reason(road: Road) -> None:
    await road.live(HandlerSpec("calls", ROUTES))
    await road.start(as_told, attempts=1)
    await run(road, {"ends": "breached"}, {"ends": "loop"}, {"ends": "breached"}, {"ends": "failed"}, {"callouts": 3})

    async with road.pool.connection() as connection:
        found = await breaches_of(connection, 1, 10)

    detail = "SELECT detail FROM circuit.executions WHERE id = %s"
    assert await road.rows(detail, found[0].execution) == ["the stack"]
    assert [(each.handler, each.limit, each.tenant, each.times, each.reason) for each in found] == [
        ("calls", "callouts", "acme", 2, "limit callouts exceeded: 51 of 50, at app.py:7"),
        ("calls", "loop", "acme", 1, "loop found: GET a came round again"),
    ]


async def test_a_loop_is_a_dead_letter_at_once_and_another_breach_is_tried_again(road: Road) -> None:
    await road.live(HandlerSpec("calls", ROUTES))
    await road.start(as_told, attempts=3)
    await run(road, {"ends": "loop"}, {"ends": "breached"})

    assert await road.rows("SELECT record, attempts, reason FROM circuit.dead_letters ORDER BY id") == [
        ("c0", 1, "loop found: GET a came round again"),
        ("c1", 3, "limit callouts exceeded: 51 of 50, at app.py:7"),
    ]


async def test_who_uses_most_is_who_spends_most_then_who_computes_most(road: Road) -> None:
    await road.live(HandlerSpec("calls", ROUTES))
    await road.start(as_told, attempts=1)
    await run(
        road,
        {"cpu_time": 2.0, "callouts": 3},
        {"cpu_time": 1.5, "callouts": 4},
        {"llm_cost": 0.5, "llm_tokens": 900, "tenant": "spender"},
        {"cpu_time": 1.0, "tenant": "quiet"},
    )

    async with road.pool.connection() as connection:
        found = await users_of(connection, 1, 2)
        used = await usage_of(connection, 1)

    assert [(each.tenant, each.handler, each.executions) for each in found] == [
        ("spender", "calls", 1),
        ("acme", "calls", 2),
    ]
    assert (found[0].llm_cost, found[0].llm_tokens) == (0.5, 900)
    assert (found[1].cpu_time, found[1].callouts) == (3.5, 7)
    assert (used["calls", "cpu_time"].executions, used["calls", "cpu_time"].most) == (4, 2.0)
    assert 1.5 < used["calls", "cpu_time"].p95 < 2.0

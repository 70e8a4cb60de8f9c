"""Whoever reserves and settles, and wherever he dies: never over, never stuck, and each call is settled once.

The database's own tables are written by its own functions. Triggers of the test end a connection at its n-th write, and
remember the highest that each scope ever was; the day is a row that the test moves, backwards, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_script.clock import uuid7
from circuit_script.db.pool import Pool, open_pool
from circuit_script.governor.budget import Budget, Ceilings, Reservation, Settled
from circuit_script.llm.settling import Settling
from tests import servers

CEILINGS = Ceilings(handler_day=900, tenant_day=700, tenant_month=1500, day=1600)
OF_SCOPE = {"trigger": 900, "tenant day": 700, "tenant month": 1500, "day": 1600}
EXECUTION = uuid7()

HARNESS = """
CREATE TABLE test_day (day date);
INSERT INTO test_day VALUES ('2026-01-30');
CREATE OR REPLACE FUNCTION circuit.budget_day() RETURNS date LANGUAGE sql VOLATILE
BEGIN ATOMIC SELECT day FROM test_day; END;
CREATE TABLE test_peak (scope text, tenant text, handler text, period date, most bigint);
CREATE FUNCTION test_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    left_ int := nullif(current_setting('test.writes', true), '')::int;
BEGIN
    IF left_ IS NOT NULL THEN
        IF left_ = 0 THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(10);
        END IF;
        PERFORM set_config('test.writes', (left_ - 1)::text, false);
    END IF;
    IF TG_TABLE_NAME = 'budgets' THEN
        INSERT INTO test_peak VALUES (NEW.scope, NEW.tenant, NEW.handler, NEW.period, NEW.spent + NEW.reserved);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER test_write BEFORE INSERT OR UPDATE ON circuit.budgets FOR EACH ROW EXECUTE FUNCTION test_write();
CREATE TRIGGER test_write BEFORE INSERT OR UPDATE ON circuit.llm_calls FOR EACH ROW EXECUTE FUNCTION test_write();
"""
CLEAN = "TRUNCATE circuit.llm_calls, circuit.budgets, test_peak; UPDATE test_day SET day = '2026-01-30'"


@dataclass(frozen=True)
class Life:
    """One call: what it reserves, where its connection dies, what becomes of it, and how often the day changes."""

    tenant: str
    handler: str
    worst: int
    cost: int
    fate: str
    dies_reserving: int | None
    dies_settling: int | None
    days: int


lives = st.builds(
    lambda worst, share, **more: Life(worst=worst, cost=worst * share // 100, **more),
    tenant=st.sampled_from(["a", "b"]),
    handler=st.sampled_from(["h", "g"]),
    worst=st.integers(1, 400),
    share=st.integers(0, 100),
    fate=st.sampled_from(["settled", "settled", "unknown", "crashed", "twice", "killed"]),
    dies_reserving=st.none() | st.integers(0, 9),
    dies_settling=st.none() | st.integers(0, 5),
    days=st.sampled_from([0, 0, 0, 1, 1, 2, -1]),
)


class Dying:
    """A pool whose next connection dies at its n-th write."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.writes: int | None = None

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        writes, self.writes = self.writes, None  # it dies once: who tries again may succeed
        async with self._pool.connection() as connection:
            await connection.execute(
                "SELECT set_config('test.writes', %s, false)", ["" if writes is None else str(writes)]
            )
            try:
                yield connection
            finally:
                with contextlib.suppress(psycopg.Error):  # it may be dead
                    await connection.execute("SELECT set_config('test.writes', '', false)")


async def live(pool: Pool, life: Life, settled: dict[Any, tuple[int, ...]]) -> Reservation | None:
    """One call from its beginning to its end. Returns what it left behind unsettled."""
    dying = Dying(pool)
    budget = Budget(dying)  # type: ignore[arg-type]  # a pool of the same shape
    settling = Settling(budget)
    call = Reservation(
        uuid7(), EXECUTION, life.tenant, life.handler, None, "p", "m", "m", tokens=1, worst=life.worst
    )  # fmt: skip
    dying.writes = life.dies_reserving
    reserving = asyncio.ensure_future(budget.reserve(call, CEILINGS))
    try:
        if life.fate == "killed":  # as an execution is, at any moment of it
            await asyncio.wait({reserving}, timeout=0.0 if life.worst % 2 else 0.002)
            settling.void_later(call, reserving)
            await settling.close(10.0)
            reserving.done() and not reserving.cancelled() and reserving.exception()
            settled[call.id] = (0,)
            return None
        full = await reserving
    except psycopg.OperationalError as error:
        assert not isinstance(error, psycopg.errors.DeadlockDetected)  # noqa: PT017  # what it is not
        settling.void_later(call)
        await settling.close(10.0)
        settled[call.id] = (0,)
        return None
    if full:
        assert all(each.spent + each.reserved + life.worst > each.ceiling for each in full)
        return None
    if life.days:
        async with pool.connection() as connection:
            await connection.execute("UPDATE test_day SET day = day + %s", [life.days])
    if life.fate == "crashed":
        return call
    dying.writes = life.dies_settling
    how = Settled(None if life.fate == "unknown" else life.cost)
    await settling.settle(call.id, how)
    if life.fate == "twice":
        await asyncio.gather(*(settling.settle(call.id, Settled(life.worst)) for _ in range(2)))
    await settling.close(10.0)
    costs = (life.worst if how.cost is None else life.cost,)
    settled[call.id] = (*costs, life.worst) if life.fate == "twice" else costs  # whoever was first
    return None


async def check(pool: Pool, crashed: list[Reservation], settled: dict[Any, tuple[int, ...]]) -> None:
    async with pool.connection() as connection:
        calls = await (
            await connection.execute("SELECT id, tenant, handler, day, worst, cost, status FROM circuit.llm_calls")
        ).fetchall()
        scopes = await (
            await connection.execute("SELECT scope, tenant, handler, period, spent, reserved FROM circuit.budgets")
        ).fetchall()
        peaks = await (
            await connection.execute("SELECT scope, max(most) FROM test_peak GROUP BY scope, tenant, handler, period")
        ).fetchall()
    assert {row[0] for row in calls if row[6] == "reserved"} == {each.id for each in crashed}
    for id_, *_, cost, status in calls:
        assert status == "reserved" or cost in settled[id_]
    assert all(most <= OF_SCOPE[scope] for scope, most in peaks)
    spent: dict[Any, int] = defaultdict(int)
    reserved: dict[Any, int] = defaultdict(int)
    for _, tenant, handler, day, worst, cost, status in calls:
        for key in (
            ("trigger", "", handler, day),
            ("tenant day", tenant, "", day),
            ("tenant month", tenant, "", day.replace(day=1)),
            ("day", "", "", day),
        ):
            (reserved if status == "reserved" else spent)[key] += worst if status == "reserved" else cost
    for *key, is_spent, is_reserved in scopes:
        assert (is_spent, is_reserved) == (spent[tuple(key)], reserved[tuple(key)]), key


async def reconcile(pool: Pool, crashed: list[Reservation]) -> None:
    """What a person does with those that crashed."""
    async with pool.connection() as connection:
        for number, call in enumerate(crashed):
            cost = None if number % 2 else 0
            await connection.execute(
                "SELECT circuit.settle_money(%s, %s, 'settled', NULL, NULL, NULL, NULL, NULL, 'ada')", [call.id, cost]
            )


@pytest.fixture(scope="module")
def accounts(embedded_server: Any) -> Iterator[str]:
    name = embedded_server.create_database(servers.TEMPLATE)
    with psycopg.connect(embedded_server.url(name), autocommit=True) as connection:
        connection.execute(HARNESS)
    yield embedded_server.url(name)
    embedded_server.drop_database(name)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lives, min_size=1, max_size=24))
def test_never_over_never_stuck_and_settled_once(accounts: str, given_lives: list[Life]) -> None:
    async def run() -> None:
        pool = await open_pool(accounts, min_size=4, max_size=8, name="test")
        try:
            async with pool.connection() as connection:
                await connection.execute(CLEAN)
            settled: dict[Any, tuple[int, ...]] = {}  # what a call may have cost
            async with asyncio.timeout(30):  # who is stuck waits for ever
                left = await asyncio.gather(*(live(pool, life, settled) for life in given_lives))
            crashed = [each for each in left if each is not None]
            await check(pool, crashed, settled)
            await reconcile(pool, crashed)
            async with pool.connection() as connection:
                row = await (await connection.execute("SELECT sum(reserved) FROM circuit.budgets")).fetchone()
            assert row is None or not row[0]
        finally:
            await pool.close()

    asyncio.run(run())

"""What was spent, as people see it, and their word about what nobody knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from circuit_script.cli.spend import app
from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection, Pool, open_pool, tenant_reading
from circuit_script.errors import SettleRefused
from circuit_script.governor.budget import Budget, Ceilings, Reservation, Settled
from circuit_script.governor.money import NANO
from circuit_script.governor.spending import reconcile, spent, unsettled

CENT = NANO // 100


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    made = await open_pool(database, min_size=1, max_size=4, name="test")
    yield made
    await made.close()


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.connection() as made:
        yield made


async def call(pool: Pool, how: Settled | None, tenant: str = "acme", handler: str = "h") -> Reservation:
    budget = Budget(pool)
    asked = Reservation(
        uuid7(), uuid7(), tenant, handler, "r1", "openai", "small", "big", tokens=1000, worst=3 * CENT
    )  # fmt: skip
    assert await budget.reserve(asked, Ceilings()) == []
    if how is not None:
        assert await budget.settle(asked.id, how) == "settled"
    return asked


async def test_what_was_spent_is_told_by_day_tenant_handler_and_model(pool: Pool, connection: Connection) -> None:
    await call(pool, Settled(CENT, 10, 5))
    await call(pool, Settled(2 * CENT, 20, 5))
    await call(pool, Settled(None, reason="cut off"))
    await call(pool, None, tenant="globex")
    lines = [
        (each.tenant, each.handler, each.model, each.calls, each.tokens_in, each.settled, each.unknown, each.reserved)
        for each in await spent(connection, 1)
    ]
    assert lines == [
        ("acme", "h", "small", 3, 30, 3 * CENT, 3 * CENT, 0),
        ("globex", "h", "small", 1, 0, 0, 0, 3 * CENT),
    ]
    assert [(each.tenant, each.status, each.reason) for each in await unsettled(connection, 10)] == [
        ("globex", "reserved", ""),
        ("acme", "unknown", "cut off"),
    ]


async def test_a_person_settles_what_nobody_knows_once(pool: Pool, connection: Connection) -> None:
    lost = await call(pool, Settled(None, reason="cut off"))
    done = await reconcile(connection, str(lost.id)[:30], CENT, "ada")
    assert (done.cost, done.worst, done.by) == (CENT, 3 * CENT, "ada")
    row = await (await connection.execute("SELECT DISTINCT spent, reserved FROM circuit.budgets")).fetchall()
    assert row == [(CENT, 0)]
    row = await (await connection.execute("SELECT reason, settled_by FROM circuit.llm_calls")).fetchall()
    assert row == [("cut off; reconciled by ada", "ada")]
    for which in (str(lost.id), "nothing", "%", "_", "", str(lost.id).replace("-", "_")):
        with pytest.raises(SettleRefused):
            await reconcile(connection, which, CENT, "ada")
    assert await Budget(pool).settle(lost.id, Settled(2 * CENT)) == "before"


async def test_a_later_correction_is_made_by_force_and_leaves_a_trail(pool: Pool, connection: Connection) -> None:
    lost = await call(pool, Settled(None, reason="cut off"))
    await reconcile(connection, str(lost.id), CENT, "ada")
    with pytest.raises(SettleRefused, match="settled already"):
        await reconcile(connection, str(lost.id), 2 * CENT, "bob")
    done = await reconcile(connection, str(lost.id), 2 * CENT, "bob", force=True)
    assert (done.cost, done.by, done.was, done.was_cost, done.was_by) == (2 * CENT, "bob", "settled", CENT, "ada")
    trail = "SELECT by, was, was_cost, was_by FROM circuit.llm_corrections ORDER BY at"
    assert await (await connection.execute(trail.encode())).fetchall() == [
        ("ada", "unknown", 3 * CENT, None),
        ("bob", "settled", CENT, "ada"),
    ]
    sums = await (await connection.execute("SELECT DISTINCT spent, reserved FROM circuit.budgets")).fetchall()
    assert sums == [(2 * CENT, 0)]


async def test_a_cost_over_the_worst_case_takes_force(pool: Pool, connection: Connection) -> None:
    lost = await call(pool, Settled(None, reason="cut off"))
    with pytest.raises(SettleRefused, match=r"could cost \$0.03 at worst, and \$100.00 is more"):
        await reconcile(connection, str(lost.id), 10_000 * CENT, "ada")
    assert (await reconcile(connection, str(lost.id), 4 * CENT, "ada", force=True)).cost == 4 * CENT


async def test_a_call_that_may_be_under_way_is_left_alone_unless_it_is_forced(
    pool: Pool, connection: Connection
) -> None:
    crashed = await call(pool, None)
    with pytest.raises(SettleRefused, match="may still be under way"):
        await reconcile(connection, str(crashed.id), None, "ada")
    await connection.execute("UPDATE circuit.llm_calls SET at = at - interval '1 hour'")
    assert (await reconcile(connection, str(crashed.id), None, "ada")).cost == 3 * CENT
    again = await call(pool, None)
    assert (await reconcile(connection, str(again.id), 0, "ada", force=True)).cost == 0


async def test_a_tenant_sees_its_own_calls_and_budgets_and_changes_none(pool: Pool, connection: Connection) -> None:
    await call(pool, Settled(CENT))
    await call(pool, Settled(CENT), tenant="globex")
    async with tenant_reading(connection, "acme"):
        for query, rows in (
            ("SELECT DISTINCT tenant FROM circuit.llm_calls", [("acme",)]),
            ("SELECT DISTINCT tenant FROM circuit.budgets", [("acme",)]),
        ):
            assert await (await connection.execute(query.encode())).fetchall() == rows
    with pytest.raises(psycopg.Error):
        async with tenant_reading(connection, "acme"):
            await connection.execute("UPDATE circuit.budgets SET spent = 0")


async def test_a_call_belongs_to_the_day_on_which_it_was_reserved(pool: Pool, connection: Connection) -> None:
    await connection.execute("CREATE TABLE today AS SELECT date '2026-01-31' AS day")
    await connection.execute(
        "CREATE OR REPLACE FUNCTION circuit.budget_day() RETURNS date LANGUAGE sql VOLATILE "
        "BEGIN ATOMIC SELECT day FROM today; END"
    )
    late = await call(pool, None)
    await connection.execute("UPDATE today SET day = day + 1")
    await call(pool, Settled(2 * CENT))
    await Budget(pool).settle(late.id, Settled(CENT))
    asked = Reservation(uuid7(), uuid7(), "acme", "h", None, "p", "m", "m", tokens=1, worst=3 * CENT)
    full = await Budget(pool).reserve(asked, Ceilings(tenant_day=4 * CENT, tenant_month=4 * CENT))
    assert [(each.scope, each.spent, f"{each.resets_at:%Y-%m-%d %H:%M}") for each in full] == [
        ("tenant day", 2 * CENT, "2026-02-02 00:00"),
        ("tenant month", 2 * CENT, "2026-03-01 00:00"),
    ]
    rows = await (
        await connection.execute("SELECT period::text, spent FROM circuit.budgets WHERE scope = 'day' ORDER BY 1")
    ).fetchall()
    assert rows == [("2026-01-31", CENT), ("2026-02-01", 2 * CENT)]


async def test_the_command_line_shows_and_settles(
    pool: Pool, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await call(pool, Settled(CENT, 10, 5))
    lost = await call(pool, Settled(None, reason="cut off"))
    (tmp_path / "circuit.toml").write_text("[budget]\nday = 20.0\ntenant_day = 0.05\n")
    (tmp_path / "app.py").write_text(
        "from circuit_script import trigger\n\n\n"
        '@trigger("Contact", ["afterInsert"], budget=0.5)\ndef h(context):\n    pass\n'
    )
    monkeypatch.setenv("DATABASE_URL", database)

    async def spend(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--folder", str(tmp_path)])

    shown = await spend("--by", "tenant")
    assert shown.exit_code == 0, shown.output
    assert "$0.01 in 7 days, and at most $0.03 that is not settled" in shown.output
    assert str(lost.id) in shown.output
    found = json.loads((await spend("--json")).output)
    assert [(each["settled"], each["unknown"]) for each in found["spent"]] == [("0.01", "0.03")]
    assert [each["worst"] for each in found["unsettled"]] == ["0.03"]
    assert found["more_unsettled"] is False
    assert [(each["scope"], each["whose"], each["ceiling"], each["left"]) for each in found["budgets"]] == [
        ("day", "", "20", "19.96"),
        ("tenant day", "acme", "0.05", "0.01"),
        ("trigger", "h", "0.5", "0.46"),
    ]
    assert all(each["resets_at"] for each in found["budgets"])
    done = await spend()
    assert "acme" in done.output
    settled = await spend("settle", str(lost.id), "--cost", "0.004", "--by", "ada")
    assert "at $0.004, of at most $0.03, by ada" in settled.output, settled.output
    wrong = await spend("settle", str(lost.id), "--cost", "much")
    assert wrong.exit_code == 2
    both = await spend("settle", str(lost.id), "--cost", "1", "--worst")
    assert both.exit_code == 2

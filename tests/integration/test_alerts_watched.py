"""What the monitor looks at: each figure is read from the rows that the platform writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import psycopg
import pytest
from psycopg.types.json import Jsonb

from circuit_script.erasure import Person, forget
from circuit_script.settings_see import SloSettings
from circuit_script.telemetry import Alert, alerts_of
from circuit_script.telemetry.alerts import monitor as monitor_module
from circuit_script.telemetry.keeping import build_indexes
from tests.alerts_stage import Stage, channel, heard, id_at, said, staged


@pytest.fixture
async def stage(database: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(database, tmp_path) as stage:
        yield stage


async def opened(stage: Stage) -> dict[str, Alert]:
    async with stage.pool.connection() as connection:
        return {each.key: each for each in await alerts_of(connection, None, open_only=True)}


async def recorded(stage: Stage, object_: str, id_: str, ago: float, **data: Any) -> None:
    await stage.run(
        "INSERT INTO circuit.records (tenant, object, id, data, created_at) VALUES ('acme', %s, %s, %s, %s)",
        object_,
        id_,
        Jsonb(data),
        stage.now - timedelta(minutes=ago),
    )


async def queued(stage: Stage, nth: int, record: str, ago: float, **more: Any) -> None:
    handler = await stage.handler("score")
    values = {
        "lane": 1, "id": nth, "handler": handler, "ordinal": 0, "order_hash": crc32(record.encode()), "tenant": "acme",
        "delivery": id_at(stage.now - timedelta(seconds=ago)), "object": "Contact", "event": "afterInsert",
        "record": record, **more,
    }  # fmt: skip
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    await stage.run(f"INSERT INTO circuit.queue ({names}) VALUES ({places})", *values.values())


async def test_a_budget_of_errors_burns_over_both_windows_and_each_execution_is_counted_once(stage: Stage) -> None:
    slos = {
        "errors": SloSettings(errors=0.01),
        "scoring": SloSettings(handlers=("*score*",), p95=2.0),
        "availability": SloSettings(availability=0.999),
    }
    monitor = stage.monitor(slos=slos, error_rate=1.0)
    await stage.executed("score", "acme", 95, ago=3000)
    await stage.executed("score", "acme", 5, "failed", ago=3000)
    await stage.executed("sync", "acme", 100, "cancelled", ago=3000)
    await stage.look(monitor)
    await stage.looks(monitor, seconds=120)
    # 5 % of an hour failed, five times as many as may; but nothing of the last minutes, nor of a long time.
    assert {key: each.severity for key, each in (await opened(stage)).items()} == {"slo:errors@score": "notice"}
    await stage.executed("score", "acme", 20, "failed", seconds=3)
    await stage.executed("quick", "acme", 20, seconds=1.9)
    await stage.look(monitor, after=10)
    found = await opened(stage)
    assert {key: each.severity for key, each in found.items()} == {
        "slo:errors@score": "critical", "slo:scoring@score": "notice",
    }  # fmt: skip
    assert "burns 20.8 times too fast: 25 of 120 in the last 1 h" in found["slo:errors@score"].what

    await stage.executed("score", "acme", 5, "failed", ago=200)  # it took long, and its row came late
    await monitor._leave()
    another = stage.monitor(slos=slos, error_rate=1.0)
    await stage.looks(another, seconds=3600, every=60)
    ((total, bad),) = await stage.run(
        "SELECT sum(total)::int, sum(bad)::int FROM circuit.slo_counts "
        "WHERE grain = 'hour' AND slo = 'errors' AND handler = 'score'"
    )
    assert (total, bad) == (125, 30)
    rows = "SELECT sum(total)::int, sum(bad)::int FROM circuit.slo_counts WHERE grain = 'minute' AND slo = 'errors'"
    assert await stage.run(f"{rows} AND handler = 'score'") == [(125, 30)]

    await stage.run("INSERT INTO circuit.refusals (source, reason, n) VALUES ('circuit', 'overloaded', 7)")
    await stage.run("INSERT INTO circuit.refusals (source, reason, n) VALUES ('circuit', 'bad-signature', 900)")
    await stage.look(another, after=10)
    assert (await opened(stage))["slo:availability"].severity == "critical"
    await stage.look(another, after=10)
    assert await stage.run("SELECT bad FROM circuit.slo_counts WHERE slo = 'availability' AND grain = 'hour'") == [(7,)]


async def test_a_clock_that_was_ahead_does_not_keep_objectives_from_being_counted(stage: Stage) -> None:
    monitor = stage.monitor(slos={"errors": SloSettings(errors=0.01)}, error_rate=1.0)
    stage.now += timedelta(days=1)
    await stage.looks(monitor, seconds=60)
    stage.now -= timedelta(days=1)
    await stage.executed("score", "acme", 30, "failed")
    await stage.looks(monitor, seconds=30, every=10)
    assert (await opened(stage))["slo:errors@score"].severity == "critical"
    await stage.looks(monitor, seconds=900, every=60)
    ((bad,),) = await stage.run("SELECT sum(bad)::int FROM circuit.slo_counts WHERE grain = 'minute'")
    assert bad == 30


async def test_of_what_waits_only_what_could_run_is_late(stage: Stage) -> None:
    monitor = stage.monitor(queue_age=60)
    later = stage.now + timedelta(hours=1)
    await queued(stage, 1, "fresh", 30)
    await queued(stage, 2, "put off", 300, not_before=later)
    await queued(stage, 3, "put off", 290)  # behind it
    await queued(stage, 4, "paused", 300)
    await queued(stage, 5, "retried", 300, not_before=stage.now - timedelta(seconds=5))
    await stage.run("INSERT INTO circuit.pauses (kind, value, by_whom) VALUES ('record', 'paused', 'ann')")
    await stage.look(monitor)
    assert await opened(stage) == {}
    await queued(stage, 6, "late", 90)
    await stage.look(monitor, after=5)
    (alert,) = (await opened(stage)).values()
    assert (alert.key, alert.severity) == ("queue:score", "warning")
    assert "oldest of 3 events that could run has waited for 95 s" in alert.what
    await stage.look(monitor, after=600)
    assert (await opened(stage))["queue:score"].severity == "critical"


async def test_a_hot_lead_is_told_until_somebody_takes_it(stage: Stage) -> None:
    await stage.run("DROP INDEX circuit.records_graded")  # as an upgrade of a large database leaves it
    assert (await build_indexes(stage.pool), await build_indexes(stage.pool)) == (1, 0)
    monitor = stage.monitor(hot_lead="15m")
    taken = {
        "untaken": [],
        "answered": [("Message", 10, {"direction": "outbound"})],
        "asking": [("Message", 10, {"direction": "inbound"})],
        "cooled": [("LeadScore", 5, {"grade": "B"})],
        "scored again": [("LeadScore", 2, {"grade": "A"})],
        "too new": [],
        "cold": [],
        "\u202e$(reboot) 'x": [],
    }
    for lead, touches in taken.items():
        await recorded(stage, "Contact", lead, 40)
        grade = "B" if lead == "cold" else "A"
        await recorded(stage, "LeadScore", f"s {lead}", 10 if lead == "too new" else 20, contactId=lead, grade=grade)
        for object_, ago, data in touches:
            await recorded(stage, object_, f"t {lead}", ago, contactId=lead, **data)
    await recorded(stage, "Contact", "assigned", 40, assignedTo="ann")
    await recorded(stage, "LeadScore", "s assigned", 20, contactId="assigned", grade="A")
    await stage.look(monitor)
    found = await opened(stage)
    assert {key for key in found if "%" not in key and ":" in key and len(key) < 30} >= {
        "lead:untaken@acme", "lead:asking@acme",
    }  # fmt: skip
    assert len(found) == 4
    assert any("--record '" in each.next and "\u202e" not in each.what + each.next for each in found.values())
    async with stage.pool.connection() as connection:
        await forget(connection, Person("asking", "acme"), "eva")
    (shown,) = await stage.run("SELECT string_agg(a::text, ' ') FROM circuit.alerts a")
    assert "asking" not in shown[0]
    assert "untaken" in shown[0]
    await stage.run("UPDATE circuit.records SET data = data || '{\"assignedTo\": \"ann\"}' WHERE object = 'Contact'")
    await stage.looks(monitor, seconds=100)
    assert await opened(stage) == {}


async def test_vendors_doubts_budgets_and_findings_are_told(stage: Stage) -> None:
    monitor = stage.monitor()
    await stage.run(
        "INSERT INTO circuit.courier_waits (tenant, connector, target, kind, worker, until, reason) "
        "VALUES ('acme', 'webhook', 'crm', 'open', gen_random_uuid(), now() + interval '1 min', 'it answers 503'), "
        "('globex', 'webhook', 'crm', 'open', gen_random_uuid(), now() + interval '1 min', 'it answers 503'), "
        "('globex', 'webhook', 'sms', 'rate', gen_random_uuid(), now() + interval '1 min', 'used up')"
    )
    await stage.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload, status) SELECT gen_random_uuid(), 'acme', gen_random_uuid(), 1, 0, 0, 'webhook', 'post', 'crm', "
        "'{}', s FROM unnest(ARRAY['in_doubt', 'pending', 'pending']) AS s"
    )
    await stage.run(
        "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent, reserved) VALUES "
        "('tenant day', 'acme', '', circuit.budget_day(), 4100000000, 0), "
        "('tenant day', 'globex', '', circuit.budget_day(), 4900000000, 90000000), "
        "('tenant day', 'small', '', circuit.budget_day(), 1000000000, 0)"
    )
    findings = [{"name": "disk@h", "severity": "critical", "what": "h: 2 % of the disk are free",
                 "since": stage.now.isoformat(), "next": "Make room."}]  # fmt: skip
    await stage.run(
        "INSERT INTO circuit.upkeep (chore, succeeded_at, detail) VALUES ('guardian', now(), %s)",
        Jsonb({"findings": findings}),
    )
    await stage.look(monitor)
    found = await opened(stage)
    assert {key: each.severity for key, each in found.items()} == {
        "vendor:webhook/crm": "warning", "doubt:webhook/post": "warning", "budget:tenant-day@acme": "warning",
        "budget:tenant-day@globex": "critical", "guardian:disk@h": "critical",
    }  # fmt: skip
    assert found["vendor:webhook/crm"].what == "webhook/crm is down: it answers 503; 2 effects wait"
    assert found["budget:tenant-day@acme"].what == "acme: 82% of the day's budget for model calls is used"

    await stage.run("ALTER TABLE circuit.courier_waits RENAME TO away")  # it cannot be read: nothing of it is over
    await stage.run("DELETE FROM circuit.effects")
    await stage.looks(monitor, seconds=120)
    assert {"vendor:webhook/crm", "guardian:disk@h"} <= set(await opened(stage))
    assert "doubt:webhook/post" not in await opened(stage)


async def test_when_the_database_goes_away_who_looked_last_tells_of_it_and_of_its_end(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "BLIND", 0.0)
    monkeypatch.setattr(monitor_module, "PATIENCE", 0.2)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    admin = await psycopg.AsyncConnection.connect(database, dbname="postgres", autocommit=True)
    async with heard() as ops, heard() as theirs:
        channels = {"ops": channel(ops), "theirs": channel(theirs, tenants=["acme"])}
        looks, idles = stage.monitor(channels=channels), stage.monitor(channels=channels)
        await stage.look(looks, idles)
        try:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            async with asyncio.timeout(20):
                while not ops.got:
                    await stage.look(looks, idles, after=5)
            await stage.look(looks, idles, after=5)
        finally:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await admin.close()
        async with asyncio.timeout(20):
            while len(ops.got) < 2:
                await stage.look(looks, after=5)
        assert [each["title"].split(":")[0] for each in said(ops)] == ["CRITICAL", "OVER"]
        assert "The database does not answer" in said(ops)[0]["message"]
        assert theirs.got == []
        assert await stage.run("SELECT key, resolved > since FROM circuit.alerts") == [("database", True)]

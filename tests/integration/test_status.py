from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from circuit_script import clock
from circuit_script.db.pool import open_pool
from circuit_script.events import status as status_module
from circuit_script.events.status import StatusReader


@pytest.fixture
async def reader(database):
    async with await open_pool(database, min_size=1, max_size=1, name="test") as pool:
        yield StatusReader(pool)


@pytest.fixture
async def road(database):
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


def id_at(seconds_ago):
    return UUID(int=(clock.uuid7().int >> 80) - seconds_ago * 1000 << 80 | clock.uuid7().int & (1 << 80) - 1)


async def delivery(road, seconds_ago=0, tenant="acme", handled=1):
    id_ = id_at(seconds_ago)
    await road.execute(
        "INSERT INTO circuit.deliveries (id, source, account, tenant, headers, body)"
        " VALUES (%s, 'gohighlevel', 'L1', %s, '{}', '')",
        (id_, tenant),
    )
    await road.execute(
        "INSERT INTO circuit.events SELECT %s, 0, nextval('circuit.event_ids'), %s, 'Contact', 'afterInsert',"
        " 'C1', 'C1', %s",
        (id_, tenant, handled),
    )
    return id_


async def execution(road, status, reason=None, seconds_ago=0):
    await road.execute(
        "INSERT INTO circuit.handlers (name) VALUES ('T.h') ON CONFLICT DO NOTHING",
    )
    await road.execute(
        "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason,"
        " started_at, usage) SELECT %s, 'acme', 1, id, 'Contact', 'afterInsert', 3, %s, %s,"
        " now() - interval '1 second', '{}' FROM circuit.handlers",
        (id_at(seconds_ago), status, reason),
    )


async def test_an_empty_road_has_an_empty_status(reader):
    status = await reader.read()
    assert (status.received, status.events, status.queue_depth, status.executions) == (0, 0, 0, {})
    assert (status.delay_p50_ms, status.delay_of) == (None, 0)
    assert (status.live, status.workers, status.latest, status.dead) == (None, [], [], [])


async def test_deliveries_and_events_are_counted_once_however_often_one_looks(reader, road, monkeypatch):
    monkeypatch.setattr(status_module, "FRESH", 0)
    monkeypatch.setattr(status_module, "SHARE", 0)
    await delivery(road, 3600)
    await delivery(road, 5, tenant=None, handled=0)
    first = await reader.read()
    await delivery(road, 10)
    await delivery(road, handled=0)
    second, third = await reader.read(), await reader.read()
    assert (first.received, first.unassigned, first.events, first.unrouted) == (2, 1, 2, 1)
    assert (second.received, second.unassigned, second.events, second.unrouted) == (4, 1, 4, 2)
    assert (third.received, third.events) == (4, 4)


async def test_executions_are_counted_by_status_and_trouble_is_listed(reader, road):
    await execution(road, "succeeded", seconds_ago=1000)
    await execution(road, "succeeded", seconds_ago=2)
    await execution(road, "failed", "ValueError: <script>alert(1)</script>", seconds_ago=1)
    await execution(road, "breached", "limit wall_time exceeded")
    status = await reader.read()
    assert status.executions == {"succeeded": 2, "failed": 1, "breached": 1}
    assert [row["status"] for row in status.latest] == ["breached", "failed", "succeeded", "succeeded"]
    assert [row["status"] for row in status.errors] == ["breached", "failed"]
    assert status.errors[1]["handler"] == "T.h"
    assert status.errors[1]["reason"] == "ValueError: <script>alert(1)</script>"
    assert 900 < status.latest[0]["ms"] < 5000


async def test_the_queue_has_a_depth_and_an_age(reader, road):
    old = await delivery(road, 90)
    await road.execute("INSERT INTO circuit.handlers (name) VALUES ('T.h')")
    for id_, delivery_id in ((1, old), (2, await delivery(road))):
        await road.execute(
            "INSERT INTO circuit.queue (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event,"
            " record) VALUES (1, %s, 1, 0, 1, %s, 'acme', 'Contact', 'afterInsert', 'C1')",
            (id_, delivery_id),
        )
    status = await reader.read()
    assert status.queue_depth == 2
    assert 89 < status.queue_age_s < 100


async def test_the_delay_runs_from_delivery_to_final_outcome(reader, road):
    for seconds, state in ((2, "succeeded"), (4, "succeeded"), (6, "dead"), (200, "retry"), (3000, "dead")):
        await road.execute(
            "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status)"
            " VALUES (%s, 0, 1, gen_random_uuid(), 'acme', %s)",
            (id_at(seconds), state),
        )
    status = await reader.read()
    assert status.delay_of == 3
    assert status.delay_p50_ms == pytest.approx(4000, abs=500)
    assert 5000 < status.delay_p95_ms < 6500


async def test_workers_release_refusals_and_dead_letters_are_shown(reader, road):
    await road.execute(
        "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES"
        " (gen_random_uuid(), 'here', 1, now() + interval '1 minute'),"
        " (gen_random_uuid(), 'gone', 2, now() - interval '1 minute')"
    )
    await road.execute(
        "WITH r AS (INSERT INTO circuit.releases (content_hash, platform, manifest) VALUES ('abc', '0', '{}')"
        " RETURNING id) INSERT INTO circuit.live (release) SELECT id FROM r"
    )
    await road.execute(
        "INSERT INTO circuit.refusals (day, source, reason, n) VALUES (current_date, 'a', 'x', 3),"
        " (current_date - 1, 'a', 'x', 4), (current_date, 'b', 'y', 1)"
    )
    await road.execute(
        "INSERT INTO circuit.dead_letters (kind, tenant, record, attempts, reason)"
        " VALUES ('event', 'acme', 'C1', 5, 'ValueError')"
    )
    status = await reader.read()
    assert [row["host"] for row in status.workers] == ["here"]
    assert status.live["content_hash"] == "abc"
    assert (status.refused, status.refusals[0]) == (8, {"source": "a", "reason": "x", "n": 7})
    assert status.dead_letters == 1
    assert (status.dead[0]["record"], status.dead[0]["reason"]) == ("C1", "ValueError")


async def test_open_dead_letters_are_counted_by_cause_and_those_in_doubt_apart(reader, road):
    for number, state in enumerate(["open", "open", "retried", "discarded"]):
        closed = (None, None) if state == "open" else ("ada", "now")
        await road.execute(
            "INSERT INTO circuit.dead_letters (kind, tenant, attempts, reason, status, by, closed_at)"
            " VALUES ('event', 'acme', 5, %s, %s, %s, %s)",
            (f"ValueError: no 'c{number}' in {number}", state, *closed),
        )
    await road.execute(
        "WITH e AS (INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector,"
        " operation, target, payload, status) VALUES (gen_random_uuid(), 'acme', gen_random_uuid(), 1, 1, 1, 'v',"
        " 'post', 't', '{}', 'in_doubt') RETURNING id)"
        " INSERT INTO circuit.dead_letters (kind, tenant, effect, attempts, reason)"
        " SELECT 'effect', 'acme', id, 1, 'no answer' FROM e"
    )
    status = await reader.read()
    assert (status.dead_letters, status.in_doubt) == (2, 1)
    assert status.dead_reasons == [{"reason": "ValueError: no '…' in N", "n": 2}]
    assert [row["reason"] for row in status.dead] == ["ValueError: no 'c1' in 1", "ValueError: no 'c0' in 0"]


async def test_an_answer_is_given_again_for_a_while(reader, road):
    first = await reader.read()
    await delivery(road)
    assert await reader.read() is first
    assert clock.now() - first.at < timedelta(seconds=5)


async def test_ready_means_that_the_ledger_can_be_reached(reader, road):
    await reader.ready()
    await road.execute("ALTER TABLE circuit.lanes RENAME TO elsewhere")
    with pytest.raises(psycopg.Error):
        await reader.ready()

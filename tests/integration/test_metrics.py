"""What /metrics tells, held against rows that are really there, and against a database that goes away."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from circuit_script import clock
from circuit_script.access import ALL, Role, add_person, grant, make_token
from circuit_script.db.pool import open_pool
from circuit_script.events import figures as figures_module
from circuit_script.events.dropped import tell
from circuit_script.events.figures import RoadFigures
from circuit_script.gateway import metrics as metrics_module
from circuit_script.gateway.metrics import MetricsReader
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.judgment.verdict import Action
from circuit_script.telemetry import tally as tally_module
from circuit_script.telemetry.metrics import FAMILIES
from circuit_script.telemetry.tally import Tally
from tests.faults.proxy import Proxy
from tests.gateways import running, send


def id_at(seconds_ago=0.0):
    fresh = clock.uuid7().int
    return UUID(int=((fresh >> 80) - int(seconds_ago * 1000) << 80) | fresh & (1 << 80) - 1)


def values(text, name):
    """The samples of that name: sorted values of labels → value."""
    return {
        tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
async def pool(database):
    async with await open_pool(database, min_size=1, max_size=2, name="test") as pool:
        yield pool


@pytest.fixture
def reader(pool, monkeypatch):
    monkeypatch.setattr(metrics_module, "EVERY", 0)
    monkeypatch.setattr(metrics_module, "SHARE", 0)
    monkeypatch.setattr(metrics_module, "AGAIN", 0)
    return MetricsReader(pool, 20.0)


@pytest.fixture
async def road(database):
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute("INSERT INTO circuit.handlers (name) VALUES ('T.score'), ('T.mail')")
        yield connection


async def execution(road, status, *, reason=None, ago=0.0, seconds=0.3, records=3, handler="T.score"):
    await road.execute(
        "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason,"
        " started_at, ended_at, usage) SELECT %s, 'acme', 1, id, 'Contact', 'afterInsert', %s, %s, %s,"
        " now() - make_interval(secs => %s), now(), '{}' FROM circuit.handlers WHERE name = %s",
        (id_at(ago), records, status, reason, seconds, handler),
    )


async def test_executions_are_counted_once_by_handler_and_status_with_duration_batch_and_limit(reader, road):
    await execution(road, "succeeded", ago=1)
    before = values(await reader.read(), "agent_invocations_total")
    assert before["T.score", "failed"] == 0, "the first failure is seen to come"
    assert before["T.score", "succeeded"] == 0, "a gateway that starts again counts nothing a second time"
    await execution(road, "succeeded", seconds=0.05, records=1)
    await execution(road, "succeeded", seconds=0.3, records=200)
    await execution(road, "failed", reason="ValueError: 'x\"\\\n'", seconds=61)
    await execution(road, "breached", reason="limit wall_time exceeded: used 30.00 s", handler="T.mail")
    await execution(road, "breached", reason="loop found: a, b", handler="T.mail")
    await execution(road, "echo")
    await execution(road, "held", reason="quarantined: …", seconds=0, records=1)
    await execution(road, "succeeded", ago=7200)  # it was there before anybody looked
    first = await reader.read()
    await execution(road, "succeeded", ago=70)  # it ran for long, and its row came last
    for _ in range(3):
        text = await reader.read()
    invocations = values(text, "agent_invocations_total")
    assert invocations["T.score", "succeeded"] == values(first, "agent_invocations_total")["T.score", "succeeded"] + 1
    assert (invocations["T.score", "succeeded"], invocations["T.score", "failed"]) == (3, 1)
    assert invocations["T.mail", "breached"] == 2
    assert invocations["T.score", "held"] == 1, "which has no duration and no batch: nothing ran"
    assert not any("echo" in key for key in invocations)
    buckets = values(text, "agent_duration_seconds_bucket")
    assert [buckets["T.score", bound] for bound in ("0.1", "0.5", "60.0", "+Inf")] == [1, 3, 3, 4]
    assert values(text, "agent_duration_seconds_count")["T.score",] == 4
    batches = values(text, "circuit_batch_records_bucket")
    assert [batches["T.score", bound] for bound in ("1.0", "2.0", "5.0", "100.0", "200.0")] == [1, 1, 3, 3, 4]
    breaches = values(text, "circuit_limit_breaches_total")
    assert (breaches["wall_time",], breaches["loop",], breaches["memory",]) == (1, 1, 0)


async def test_after_a_long_time_without_a_look_counting_begins_anew_upon_what_was_told(database, road):
    count = "SELECT x.id >= circuit.uuid_floor(%(settled)s), x.status, count(*) FROM circuit.executions x" \
            " WHERE x.id >= circuit.uuid_floor(%(counted)s) GROUP BY 1, 2"  # fmt: skip
    tally = Tally(count, values=1, slack=60)
    at = clock.now() - timedelta(hours=2)
    assert not await tally.read(road, at)
    await execution(road, "succeeded", ago=7190)
    assert await tally.read(road, at + timedelta(seconds=20)) == {("succeeded",): [1]}
    for ago in (3600, 3500, 30):
        await execution(road, "succeeded", ago=ago)
    now = clock.now()
    assert await tally.read(road, now) == {("succeeded",): [1]}, "what came while nobody looked is left out"
    await execution(road, "succeeded", ago=20)
    await execution(road, "failed")
    for later in (1, 100, 200):
        found = await tally.read(road, now + timedelta(seconds=later))
        assert found == {("succeeded",): [2], ("failed",): [1]}


async def test_the_road_the_queue_effects_and_letters_are_told(reader, road):
    await reader.read()
    delivery, orphan = id_at(90), id_at()
    for id_, tenant in ((delivery, "acme"), (orphan, None), (id_at(), "acme")):
        await road.execute(
            "INSERT INTO circuit.deliveries (id, source, account, tenant, headers, body)"
            " VALUES (%s, 'standard', 'a', %s, '{}', '')",
            (id_, tenant),
        )
    await road.execute(
        "INSERT INTO circuit.events SELECT %s, 0, nextval('circuit.event_ids'), NULL, 'Contact', 'x', 'C1', 'C1', 0",
        (orphan,),
    )
    for number, (waits, past) in enumerate([(None, None), ("1 hour", None), (None, 7)], 1):
        await road.execute(
            "INSERT INTO circuit.queue (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event,"
            " record, not_before, past) VALUES (1, %s, 1, 0, 1, %s, 'acme', 'Job', 'x', 'C1', now() + %s::interval,"
            " %s)",
            (number, id_at(1e6) if past else delivery, waits, past),
        )
    outcomes = ((0.2, "succeeded"), (400, "dead"), (0, "retry"), (4000, "deferred"))
    for ago, status in outcomes:
        await road.execute(
            "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status)"
            " VALUES (%s, 0, 2, %s, 'acme', %s)",
            (id_at(ago), id_at(), status),
        )
    for status, answers in (("delivered", ["pending"]), ("in_doubt", ["pending", "in_doubt"]), ("pending", [])):
        effect = id_at()
        await road.execute(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation,"
            " target, payload, status, settled_at) VALUES (%s, 'acme', %s, 1, 1, 1, 'webhook', 'post', 't', '{}', %s,"
            " now())",
            (effect, id_at(), status),
        )
        for number, each in enumerate(answers):
            await road.execute(
                "INSERT INTO circuit.effect_answers (effect, tenant, attempt, status, said)"
                " VALUES (%s, 'acme', %s, %s, 'no')",
                (effect, number, each),
            )
    await road.execute(
        "INSERT INTO circuit.dead_letters (kind, tenant, record, attempts, reason)"
        " VALUES ('event', 'acme', 'C', 5, 'x')"
    )
    await road.execute(
        "INSERT INTO circuit.courier_waits (tenant, connector, target, kind, worker, until, reason)"
        " VALUES ('acme', 'webhook', 't', 'open', gen_random_uuid(), now() + interval '1 minute', 'down')"
    )
    text = await reader.read()
    assert values(text, "circuit_deliveries_total") == {("standard", "accepted"): 1, ("standard", "unassigned"): 1}
    assert values(text, "circuit_events_total") == {("Contact", "unrouted"): 1}
    assert values(text, "circuit_queue_depth") == {(): 3}
    assert 89 < values(text, "circuit_queue_age_seconds")[()] < 120, "what is put off or replayed has no age"
    assert values(text, "active_workflows") == {(): 2}
    assert values(text, "circuit_outcomes_total") == {
        ("succeeded",): 1, ("dead",): 1, ("retry",): 1, ("deferred",): 1,
    }  # fmt: skip
    assert values(text, "circuit_retries_total")["T.mail",] == 1
    delays = values(text, "circuit_event_delay_seconds_bucket")
    assert [delays[bound,] for bound in ("0.1", "1.0", "300.0", "3600.0", "+Inf")] == [0, 1, 1, 2, 2]
    effects = values(text, "circuit_effects_total")
    assert effects["webhook", "delivered"] == effects["webhook", "in_doubt"] == 1
    assert effects["webhook", "retry"] == 2
    assert values(text, "circuit_vendor_errors_total")["webhook",] == 3
    assert values(text, "circuit_effects_pending")["webhook",] == 1
    assert values(text, "circuit_effects_in_doubt") == values(text, "circuit_dead_letters_open") == {(): 1}
    assert values(text, "circuit_dead_letters_total") == {("event",): 1, ("effect",): 0}
    assert values(text, "circuit_open_circuits")["webhook",] == 1
    assert values(text, "circuit_up") == {(): 1}


async def call(road, status, cost, *, model="gpt-4o-mini", handler="T.score", id_=None):
    id_ = id_ or id_at()
    await road.execute(
        "INSERT INTO circuit.llm_calls (id, execution, tenant, handler, provider, model, requested, tokens_in,"
        " tokens_out, tokens_cached, tokens_worst, worst, cost, status, day, settled_at)"
        " VALUES (%s, %s, 'acme', %s, 'openai', %s,"
        " 'x', 100, 20, 40, 1, 1, %s, %s, circuit.budget_day(), CASE WHEN %s <> 'reserved' THEN now() END)"
        " ON CONFLICT (id) DO UPDATE SET cost = excluded.cost, status = excluded.status,"
        " settled_at = now()",
        (id_, id_at(), handler, model, cost, status, status),
    )
    return id_


async def test_what_models_cost_is_counted_when_it_is_known_and_never_falls(reader, road):
    await reader.read()
    reserved = await call(road, "reserved", None)
    unknown = await call(road, "unknown", 3_000_000_000, model="o3")
    text = await reader.read()
    assert values(text, "llm_cost_dollars") == {("o3", "openai"): 3.0}
    await call(road, "settled", 250_000_000, id_=reserved)
    await call(road, "settled", 0, model="o3", id_=unknown)  # somebody said that it cost nothing
    text = await reader.read()
    assert values(text, "llm_cost_dollars") == {("o3", "openai"): 3.0, ("gpt-4o-mini", "openai"): 0.25}
    assert values(text, "llm_tokens_total")["gpt-4o-mini", "openai", "input"] == 100
    assert values(text, "llm_tokens_total")["gpt-4o-mini", "openai", "cached"] == 40
    assert values(text, "circuit_agent_cost_dollars_total") == {("T.score",): 3.0}
    assert values(text, "circuit_tenant_cost_dollars_total") == {("acme",): 3.0}
    assert values(text, "circuit_budget_dollars") == {(): 20}


async def test_refusals_are_counted_from_the_first_look_on_also_past_midnight(reader, road):
    refuse = (
        "INSERT INTO circuit.refusals AS r (day, source, reason, n) VALUES (current_date - %s, 'standard', 'signature',"
        " %s) ON CONFLICT (day, source, reason) DO UPDATE SET n = r.n + excluded.n"
    )
    await road.execute(refuse, (1, 1000))
    assert values(await reader.read(), "circuit_refusals_total") == {("signature", "standard"): 0}
    await road.execute(refuse, (1, 2))
    await road.execute(refuse, (0, 3))
    assert values(await reader.read(), "circuit_refusals_total") == {("signature", "standard"): 5}
    assert values(await reader.read(), "circuit_refusals_total") == {("signature", "standard"): 5}


async def test_verdicts_are_counted_by_place_and_action_from_zero_on_also_while_the_database_is_away(
    reader, pool, road
):
    counts = VerdictCounts()
    counts.add("record", Action.QUARANTINE)
    await counts.flush(pool)
    first = values(await reader.read(), "judgment_verdicts_total")
    assert first["quarantine", "record"] == 0, "what was before the first look is not counted"
    assert {source for _, source in first} == {"record", "prompt", "tool", "answer", "api"}
    assert {action for action, _ in first} == {"allow", "neutralize", "quarantine", "block"}
    for _ in range(3):
        counts.add("record", Action.QUARANTINE)
    counts.add("prompt", Action.ALLOW)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE circuit.verdicts RENAME TO gone")
        await connection.commit()
    await counts.flush(pool)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE circuit.gone RENAME TO verdicts")
        await connection.commit()
    await counts.flush(pool)
    for _ in range(2):
        found = values(await reader.read(), "judgment_verdicts_total")
    assert (found["quarantine", "record"], found["allow", "prompt"], found["block", "api"]) == (3, 1, 0)


async def test_what_is_counted_at_the_end_is_written(pool, road):
    counts = VerdictCounts()
    async with counts.told(pool):
        counts.add("tool", Action.BLOCK)
    rows = await (await road.execute("SELECT source, action, n FROM circuit.verdicts")).fetchall()
    assert rows == [("tool", "block", 1)]


async def test_what_workers_could_not_store_is_counted_of_each_of_them(reader, pool, road):
    first, second = id_at(), id_at()
    await tell(pool, first, {"logs": 1000, "traces": 0})
    assert values(await reader.read(), "circuit_dropped_total") == {("logs",): 0, ("traces",): 0}
    await tell(pool, first, {"logs": 1005, "traces": 1})
    await tell(pool, second, {"logs": 7, "traces": 0})
    assert values(await reader.read(), "circuit_dropped_total") == {("logs",): 12, ("traces",): 1}
    await road.execute("UPDATE circuit.upkeep SET detail = jsonb_set(detail, ARRAY[%s, 'at'], '1')", (str(first),))
    await tell(pool, second, {"logs": 8, "traces": 0})
    assert (await (await road.execute("SELECT count(*) FROM jsonb_object_keys((SELECT detail FROM circuit.upkeep))")
                   ).fetchone()) == (1,), "who ended long ago is forgotten"  # fmt: skip
    assert values(await reader.read(), "circuit_dropped_total") == {("logs",): 13, ("traces",): 1}


async def test_whatever_sources_and_models_there_are_a_label_has_at_most_200_values(reader, road):
    await reader.read()
    nasty = 'evil\n# TYPE fake counter\nfake{a="b"} 1 \u202e\\' + "x" * 1_000_000
    for number in range(300):
        await call(road, "settled", 1_000_000_000, model=f"model-{number}")
    await call(road, "settled", 1_000_000_000, model=nasty)
    text = await reader.read()
    found = values(text, "llm_cost_dollars")
    assert len(found) <= 201
    assert sum(found.values()) == 301, "nothing is lost in other"
    assert ("other", "openai") in found
    assert len(text) < 500_000
    assert "fake" not in {family.name for family in text_string_to_metric_families(text.decode())}
    again = values(await reader.read(), "llm_cost_dollars")
    assert again == found, "who is in other stays there"


async def test_while_the_database_is_away_or_locked_the_last_values_are_told_with_up_0(
    reader, road, database, monkeypatch
):
    await reader.read()
    await execution(road, "succeeded")
    before = await reader.read()
    monkeypatch.setattr(metrics_module, "PATIENCE", 0.5)
    async with road.transaction():
        await road.execute("LOCK TABLE circuit.executions IN ACCESS EXCLUSIVE MODE")
        locked = await reader.read()
    assert values(locked, "circuit_up") == {(): 0}
    assert values(locked, "agent_invocations_total") == values(before, "agent_invocations_total")
    await execution(road, "succeeded")
    after = await reader.read()
    assert values(after, "circuit_up") == {(): 1}
    assert values(after, "agent_invocations_total")["T.score", "succeeded"] == 2


async def test_a_database_that_stands_still_without_a_word_is_not_waited_for(database, road, monkeypatch):
    monkeypatch.setattr(metrics_module, "EVERY", 0)
    monkeypatch.setattr(metrics_module, "SHARE", 1_000_000)
    monkeypatch.setattr(metrics_module, "AGAIN", 0)
    monkeypatch.setattr(metrics_module, "PATIENCE", 0.5)
    there = road.info
    async with Proxy(f"{there.host}/.s.PGSQL.{there.port}").listening() as wire:
        through = make_conninfo(database, host="127.0.0.1", port=wire.port)
        async with await open_pool(through, min_size=1, max_size=2, name="test") as pool:
            reader = MetricsReader(pool)
            wire.stall()
            began = time.monotonic()
            texts = [await reader.read() for _ in range(2)]
            took = time.monotonic() - began
            with pytest.raises((psycopg.Error, OSError)):
                await reader.may_look("csp_" + "a" * 43)
            wire.heal()
            async with asyncio.timeout(30):
                while not values(await reader.read(), "circuit_up")[()]:
                    await asyncio.sleep(0.1)
    assert [values(text, "circuit_up") for text in texts] == [{(): 0}, {(): 0}]
    assert took < 5, "to give its connection up takes ten seconds"


SEEN = "FROM seen s WHERE s.id >= circuit.uuid_floor(%(counted)s) GROUP BY"


async def test_however_many_names_there_are_so_many_are_counted_apart_and_nothing_is_lost(road, monkeypatch):
    monkeypatch.setattr(tally_module, "MOST", 10)
    await road.execute("CREATE TEMP TABLE seen (id uuid, name text)")
    said = f"SELECT s.id >= circuit.uuid_floor(%(settled)s), s.name, 7, count(*) {SEEN} 1, 2, 3"
    tally = Tally(said, values=1, slack=0.0)
    moment = clock.now()
    assert await tally.read(road, moment) == {}
    for number in range(30):
        await road.execute("INSERT INTO seen VALUES (%s, %s)", (id_at(-1), f"s{number}"))
    for _ in range(2):
        moment += timedelta(seconds=5)
        found = await tally.read(road, moment)
        assert len(found) == 11
        assert sum(n for (n,) in found.values()) == 30
        assert found["other", 7] == [20]


async def test_a_clock_that_was_set_back_costs_no_more_than_what_came_meanwhile(road):
    await road.execute("CREATE TEMP TABLE seen (id uuid)")
    tally = Tally(f"SELECT s.id >= circuit.uuid_floor(%(settled)s), count(*) {SEEN} 1", values=1, slack=5.0)
    wrong = clock.now() + timedelta(hours=5)
    await tally.read(road, wrong)
    await tally.read(road, wrong + timedelta(seconds=5))
    moment = clock.now()
    await tally.read(road, moment)
    await road.execute("INSERT INTO seen VALUES (%s)", (id_at(),))
    assert await tally.read(road, moment + timedelta(seconds=1)) == {(): [1]}


async def test_executions_that_last_long_are_counted_again_once_looks_are_fast_again(road, monkeypatch):
    monkeypatch.setattr(figures_module, "SLACK", 1.0)
    monkeypatch.setattr(figures_module, "LEAST", 1.0)
    found = []
    for recovers in (False, True):
        figures = RoadFigures()
        for _ in range(12):
            figures.look_less_far()
        for _ in range(12 if recovers else 0):
            figures.look_farther()
        await figures.read(road)
        await execution(road, "succeeded", ago=1800.0)
        told, _ = await figures.read(road)
        found.append(told["agent_invocations_total"]["T.score", "succeeded"])
    assert found == [0, 1]


async def test_every_metric_that_is_declared_is_told_by_a_new_platform_unless_nothing_of_it_came(reader, road):
    text = (await reader.read()).decode()
    told = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
    later = {
        name for name, family in FAMILIES.items()
        if family.labels and family.labels[0] in ("source", "object", "provider", "tenant", "chore")
    }  # fmt: skip
    assert set(FAMILIES) - later <= told | {"circuit_agent_cost_dollars_total", "circuit_batch_records",
                                            "agent_duration_seconds"}  # fmt: skip
    assert told <= set(FAMILIES)


async def test_metrics_are_for_this_host_or_for_a_token_of_somebody_who_sees_all_tenants(road, database, app_folder):
    tokens = {}
    for name, tenant in (("all@x.example", ALL), ("one@x.example", "acme")):
        await add_person(road, name, "test")
        await grant(road, name, tenant, Role.viewer, "test")
        tokens[tenant], _ = await make_token(road, name, "prometheus")

    wrong = tokens[ALL][:4] + ("b" if tokens[ALL][4] == "a" else "a") + tokens[ALL][5:]

    def asked(host="localhost", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return send(port, "GET", "/metrics", headers, host=host)

    with running(database, app_folder) as port:
        answer = await asyncio.to_thread(asked)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert values(answer.body, "circuit_up") == {(): 1}
        foreign = {"host": "metrics.example", "x_forwarded_for": "203.0.113.7"}
        for status, headers in (
            (403, foreign),
            (403, {"host": "evil.example"}),
            (403, {"x_forwarded_for": "127.0.0.1"}),
            (200, {**foreign, "authorization": f"Bearer {tokens[ALL]}"}),
            (403, {**foreign, "authorization": f"Bearer {tokens['acme']}"}),
            (403, {**foreign, "authorization": f"Bearer {wrong}"}),
            (403, {**foreign, "authorization": "Bearer csp_' OR true --"}),
            (403, {**foreign, "authorization": tokens[ALL]}),
        ):
            answer = await asyncio.to_thread(asked, **headers)
            assert answer.status == status, headers
            assert status == 200 or b"circuit_" not in answer.body
        assert (await asyncio.to_thread(send, port, "POST", "/metrics")).status == 405

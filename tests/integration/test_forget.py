from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.erasure import Person, forget, hashes_match, owners, remembered
from circuit_script.erasure.blank import STEPS
from circuit_script.erasure.find import Traces
from circuit_script.events.requeue import Past, requeue
from tests.road import SCORE, Incoming, Road, contact, open_road, score, succeed

ANNA = {"email": "anna@example.com"}
BEN = {"email": "ben@example.com"}


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


async def run_forget(road: Road, record: str, tenant: str | None = "acme", **how: Any) -> dict[str, int]:
    async with road.pool.connection() as connection:
        return (await forget(connection, Person(record, tenant, how.pop("object", None)), "eva", **how)).blanked


async def everywhere(road: Road, text: str) -> set[str]:
    """The tables that still hold this text, whatever their columns are."""
    names = await road.rows(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'circuit'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition"
    )
    found = set()
    for name in names:
        (n,) = await road.rows(
            f"SELECT count(*) FROM circuit.{name} AS t WHERE strpos(to_jsonb(t)::text, %s) > 0 "
            "OR strpos(to_jsonb(t)::text, encode(convert_to(%s, 'UTF8'), 'hex')) > 0",
            text, text,
        )  # fmt: skip
        if n:
            found.add(name)
    return found


async def leave_traces(road: Road, record: str, address: str, tenant: str = "acme") -> None:
    """What an execution about this record leaves in each table."""
    ((delivery, execution),) = await road.rows(
        "SELECT o.delivery, o.execution FROM circuit.outcomes o JOIN circuit.events e USING (delivery, ordinal) "
        "WHERE e.record = %s AND e.tenant = %s ORDER BY o.delivery LIMIT 1", record, tenant,
    )  # fmt: skip
    (event,) = await road.rows("SELECT id FROM circuit.events WHERE delivery = %s", delivery)
    told = json.dumps({"to": address})
    for owner, note in ((record, "named"), (None, "unnamed")):
        await road.run(
            "INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record) "
            "VALUES (now(), 'info', %s, %s, %s, 'score', %s, %s)",
            f"{note} {address}", told, execution, tenant, owner,
        )  # fmt: skip
    span = [[1, "callout", "client", 0, 5, "ok", {"url": f"https://vendor.example/{address}"}]]
    await road.run(
        "INSERT INTO circuit.traces (execution, tenant, trace, spans) VALUES (%s, %s, %s, %s)",
        execution, tenant, execution, json.dumps(span),
    )  # fmt: skip
    for status in ("pending", "delivered", "in_doubt"):
        await road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, record, payload, status) VALUES (gen_random_uuid(), %s, %s, 1, 1, 1, 'nowhere', 'send', 'x', %s, "
            "%s, %s)", tenant, execution, record, told, status,
        )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.dead_letters (kind, tenant, execution, record, attempts, reason) "
        "VALUES ('event', %s, %s, %s, 1, %s)", tenant, execution, record, f"no {address}",
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.journal (event, handler, key, tenant, reply) "
        "VALUES (%s, 1, '', %s, convert_to(%s, 'UTF8'))",
        event, tenant, address,
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.idempotency (tenant, endpoint, key, caller, request, execution, until, status, headers, "
        "body) VALUES (%s, 'chat', %s, '', '', %s, now(), 200, '[]', convert_to(%s, 'UTF8'))",
        tenant, f"k {record}", execution, address,
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.replays (id, status, filter, by_whom, rate) "
        "SELECT gen_random_uuid(), 'done', f, 'ann', 1 FROM unnest(ARRAY[%s, %s]::jsonb[]) AS f",
        json.dumps({"record": record, "limit": 3}), json.dumps({"text": address, "tenant": tenant}),
    )  # fmt: skip
    job = uuid7()
    body = json.dumps({"type": "Job.remind", "data": {"id": str(job), "arguments": {"who": record, "to": address}}})
    await road.run(
        "INSERT INTO circuit.delayed_jobs (id, tenant, name, body, depth, due_at, unique_key, vendor_id) "
        "VALUES (%s, %s, 'remind', convert_to(%s, 'UTF8'), 1, now() + interval '1 day', %s, %s)",
        job, tenant, body, f"{record} {address}", str(job),
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.job_keys (tenant, name, key, job) VALUES (%s, 'remind', %s, %s)",
        tenant, f"{record} {address}", job,
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.pauses (kind, value, tenant, reason, by_whom) VALUES ('record', %s, %s, %s, 'ann')",
        record, tenant, f"{address} wrote",
    )  # fmt: skip
    await road.run("UPDATE circuit.outcomes SET reason = %s WHERE delivery = %s", f"about {address}", delivery)
    await road.run("UPDATE circuit.executions SET detail = %s WHERE id = %s", f"about {address}", execution)


async def test_nothing_of_a_person_is_left_in_any_table_and_all_of_others_is(road: Road) -> None:
    await road.start(score, size=1)
    await road.take_in(contact("anna", **ANNA))
    await road.done()
    await road.take_in(contact("ben", **BEN))
    await road.done()
    for record, each in (("anna", ANNA), ("ben", BEN)):
        await leave_traces(road, record, each["email"])
    before = await everywhere(road, "ben@example.com")
    assert await everywhere(road, "anna@example.com") == before >= {"deliveries", "records", "circuit_logs", "effects"}

    blanked = await run_forget(road, "anna")

    assert await everywhere(road, "anna@example.com") == set()
    assert await everywhere(road, "ben@example.com") == before
    assert blanked.pop("effects") >= 3
    assert blanked == {
        "circuit_logs": 2, "dead_letters": 1, "delayed_jobs": 1, "deliveries": 1, "executions": 1, "idempotency": 1,
        "job_keys": 1, "journal": 1, "outcomes": 1, "pauses": 1, "records": 1, "replays": 2,
        "traces": 1,
    }  # fmt: skip
    assert await road.rows("SELECT count(*) FROM circuit.events") == [2], "rows stay, so that counts stay true"
    sent = "SELECT status FROM circuit.effects WHERE record = 'anna' AND connector = 'nowhere' ORDER BY 1"
    assert await road.rows(sent) == [
        "delivered", "discarded", "discarded",
    ]  # fmt: skip
    assert await run_forget(road, "anna") == {}, "and again there is nothing left"


async def test_messages_and_scores_of_a_contact_are_the_contacts(road: Road) -> None:
    await road.start(succeed)
    message = {"contactId": "anna", "body": "my number is 0800 123"}
    await road.live(SCORE)
    await road.take_in(
        contact("anna", **ANNA),
        Incoming("m1", object="Message", key="anna", fields=message),
        Incoming("m2", object="Message", key="ben", fields={"contactId": "ben", "body": "my number is 0800 456"}),
    )
    await road.run(
        "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('acme', 'LeadScore', 's1', %s)",
        json.dumps({"contactId": "anna", "reasons": ["0800 123"]}),
    )
    await road.done()

    async with road.pool.connection() as connection:
        done = await forget(connection, Person("anna", "acme"), "eva")

    assert {"Contact anna", "LeadScore s1", "Message m1"} <= set(done.records)
    assert await everywhere(road, "0800 123") == set()
    assert "deliveries" in await everywhere(road, "0800 456")


async def test_only_that_tenants_person_is_forgotten(road: Road) -> None:
    await road.start(score)
    await road.take_in(contact("anna", **ANNA), Incoming("anna", tenant="other", fields=ANNA))
    await road.done()
    async with road.pool.connection() as connection:
        assert await owners(connection, "anna") == ["acme", "other"]

    await run_forget(road, "anna", "other")

    assert (await road.record("anna"))["email"] == "anna@example.com"  # type: ignore[index]  # it is there
    left = "SELECT tenant FROM circuit.deliveries WHERE octet_length(body) > 0"
    assert await road.rows(left) == ["acme"]
    assert await road.rows("SELECT tenant FROM circuit.records WHERE data <> '{}'") == ["acme"]


async def test_a_dry_run_counts_the_same_and_changes_nothing(road: Road) -> None:
    await road.start(score)
    await road.take_in(contact("anna", **ANNA))
    await road.done()
    await leave_traces(road, "anna", "anna@example.com")
    before = await everywhere(road, "anna@example.com")

    would = await run_forget(road, "anna", dry_run=True)

    assert await everywhere(road, "anna@example.com") == before
    assert await road.rows("SELECT count(*) FROM circuit.forgets") == [0]
    assert await run_forget(road, "anna") == would


async def test_what_waits_is_cancelled_and_its_handler_never_sees_it(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben", **BEN))

    blanked = await run_forget(road, "anna")

    assert blanked["queue"] == 1
    assert await road.rows("SELECT status, reason FROM circuit.outcomes") == [("cancelled", "forgotten")]
    worker = await road.start(score)
    await road.done()
    assert worker.children.handled == ["ben"]


async def test_who_comes_back_is_kept_again_until_forgotten_again(road: Road) -> None:
    await road.start(score)
    await road.take_in(contact("anna", **ANNA))
    await road.done()
    await run_forget(road, "anna")

    await road.take_in(contact("anna", "afterUpdate", email="new@example.com"))
    await road.done()

    assert (await road.record("anna"))["email"] == "new@example.com"  # type: ignore[index]  # it is there
    await run_forget(road, "anna")
    assert await everywhere(road, "new@example.com") == set()


async def test_an_object_narrows_it_where_several_share_an_id(road: Road) -> None:
    await road.start(succeed)
    await road.take_in(Incoming("7", fields=ANNA), Incoming("7", object="Invoice", fields={"sum": "12 dollars"}))
    await road.done()

    await run_forget(road, "7", object="Contact")

    assert "deliveries" not in await everywhere(road, "anna@example.com")
    assert "deliveries" in await everywhere(road, "12 dollars")


async def test_what_belongs_to_no_tenant_is_forgotten_too(road: Road) -> None:
    await road.take_in(Incoming("anna", fields=ANNA))
    for table in ("deliveries", "events"):
        await road.run(f"UPDATE circuit.{table} SET tenant = NULL")
    await road.run("DELETE FROM circuit.queue")
    async with road.pool.connection() as connection:
        assert await owners(connection, "anna") == [None]

    await run_forget(road, "anna", None)

    assert await everywhere(road, "anna@example.com") == set()


async def test_the_list_knows_who_was_forgotten_and_names_nobody(road: Road) -> None:
    await run_forget(road, "anna")

    async with road.pool.connection() as connection:
        (entry,) = await remembered(connection)
    assert hashes_match(entry, "acme", "anna")
    assert not hashes_match(entry, "acme", "ben")
    assert not hashes_match(entry, "other", "anna")
    assert (entry.by, entry.done) == ("eva", True)
    assert await everywhere(road, "anna") == set()


async def test_an_execution_that_handled_others_too_keeps_what_does_not_name_the_person(road: Road) -> None:
    execution = uuid7()
    await road.take_in(contact("anna", **ANNA), contact("ben", **BEN))
    await road.run(
        "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
        "SELECT delivery, ordinal, 1, %s, tenant, 'succeeded' FROM circuit.events", execution,
    )  # fmt: skip
    for message in ("two of them", "anna is the first", "ben is the second"):
        await road.run(
            "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant) "
            "VALUES (now(), 'info', %s, %s, 'score', 'acme')", message, execution,
        )  # fmt: skip

    for payload, status in (("anna", "delivered"), ("anna", "pending"), ("ben", "delivered")):
        await road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, payload, status) VALUES (gen_random_uuid(), 'acme', %s, 1, 1, 1, 'nowhere', 'send', 'x', %s, %s)",
            execution, json.dumps({"of": payload}), status,
        )  # fmt: skip

    await run_forget(road, "anna")

    effects = "SELECT status, payload ->> 'of' FROM circuit.effects ORDER BY 1, 2"
    assert await road.rows(effects) == [("delivered", "ben"), ("delivered", None), ("pending", "anna")]
    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == [
        "ben is the second", "forgotten", "two of them",
    ]  # fmt: skip


async def test_replies_of_what_was_put_back_are_forgotten_under_its_new_ids(road: Road) -> None:
    deliveries = await road.take_in(contact("anna", **ANNA), contact("ben", **BEN))
    handler = road.handler("score")
    async with road.pool.connection() as connection:
        made = await requeue(connection, [Past(each, 0, handler) for each in deliveries], by="ann")
    keep = "INSERT INTO circuit.journal (event, handler, key, tenant, reply) VALUES (%s, %s, %s, 'acme', %s)"
    for event, each in zip(made, (ANNA, BEN), strict=True):
        await road.run(keep, event, handler, b"", each["email"].encode())
    await road.run("DELETE FROM circuit.queue")

    assert (await run_forget(road, "anna"))["journal"] == 1

    assert await everywhere(road, "anna@example.com") == set()
    assert "journal" in await everywhere(road, "ben@example.com")


async def test_another_tenants_replays_and_keys_that_are_held_stay(road: Road) -> None:
    job = uuid7()
    await road.take_in(contact("anna", **ANNA))
    for tenant, name in (("other", "a"), ("acme", "b")):
        await road.run(
            "INSERT INTO circuit.delayed_jobs (id, tenant, name, body, depth, due_at, vendor_id) "
            "VALUES (%s, %s, 'x', '{}', 1, now() + interval '1 day', '')", (held := uuid7()), tenant,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.job_keys (tenant, name, key, job) VALUES (%s, %s, 'of annabel', %s)",
            tenant, name, held if tenant == "acme" else job,
        )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.replays (id, status, filter, by_whom, rate) "
        """VALUES (gen_random_uuid(), 'done', '{"record": "anna", "tenant": "other"}', 'ann', 1)"""
    )

    await run_forget(road, "anna")

    assert await road.rows("SELECT count(*) FROM circuit.job_keys") == [2]
    assert await road.rows("SELECT filter ->> 'record' FROM circuit.replays") == ["anna"]


async def test_what_names_a_persons_address_in_a_batch_with_others_is_blanked_and_nothing_else(road: Road) -> None:
    """Log lines, outcomes, letters and jobs of an execution that handled others too, and that say no record."""
    await road.start(score)
    await road.take_in(contact("anna", **ANNA, phone="+49 170 1234567"), contact("ben", **BEN))
    await road.done()
    (shared,) = await road.rows("SELECT DISTINCT execution FROM circuit.outcomes")
    for said in ("mailed anna@example.com", "called +49 170 1234567", "mailed ben@example.com"):
        await road.run(
            "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant) "
            "VALUES (now(), 'info', %s, %s, 'score', 'acme')", said, shared,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.dead_letters (kind, tenant, execution, attempts, reason) "
            "VALUES ('effect', 'acme', %s, 1, %s)", shared, said,
        )  # fmt: skip
    await road.run("UPDATE circuit.outcomes SET reason = 'no anna@example.com'")
    await road.run("UPDATE circuit.executions SET detail = 'after anna@example.com' WHERE id = %s", shared)
    job = uuid7()
    await road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload, status) VALUES (%s, 'acme', %s, 1, 1, 1, 'jobs', 'enqueue', 'remind', %s, 'delivered')",
        job, shared, json.dumps({"who": "anna", "words": "a secret of hers"}),
    )  # fmt: skip
    await road.take_in(Incoming(str(job), object="Job", event="remind", fields={"words": "a secret of hers"}))
    await road.run(
        "UPDATE circuit.deliveries SET source = 'circuit', vendor_id = %s WHERE id = "
        "(SELECT delivery FROM circuit.events WHERE object = 'Job')", str(job),
    )  # fmt: skip

    await run_forget(road, "anna")

    for word in ("anna@example.com", "1234567", "a secret of hers"):
        assert await everywhere(road, word) == set(), word
    left = await road.rows("SELECT message FROM circuit.circuit_logs WHERE message LIKE 'mailed%%'")
    assert left == ["mailed ben@example.com"]


async def test_forgetting_that_was_cut_short_still_knows_the_addresses(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    await road.start(score)
    await road.take_in(contact("anna", **ANNA), contact("ben", **BEN))
    await road.done()
    (shared,) = await road.rows("SELECT DISTINCT execution FROM circuit.outcomes")
    await road.run(
        "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant) "
        "VALUES (now(), 'info', 'mailed anna@example.com', %s, 'score', 'acme')", shared,
    )  # fmt: skip
    with monkeypatch.context() as cut:
        module = sys.modules[forget.__module__]
        cut.setattr(module, "STEPS", [replace(each, where="broken") for each in STEPS[:1]])
        with pytest.raises(psycopg.Error):
            await run_forget(road, "anna")

    await run_forget(road, "anna")

    assert await everywhere(road, "anna@example.com") == set()


async def test_what_vendors_and_models_said_of_a_person_in_a_batch_with_others_is_blanked(road: Road) -> None:
    await road.start(score)
    await road.take_in(contact("anna", **ANNA), contact("ben", **BEN))
    await road.done()
    (shared,) = await road.rows("SELECT DISTINCT execution FROM circuit.outcomes")
    for said in ("no box anna@example.com", "no box ben@example.com"):
        effect = uuid7()
        await road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, payload, status) VALUES (%s, 'acme', %s, 1, 1, 1, 'nowhere', 'send', 'x', '{}', 'dead')",
            effect, shared,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.effect_answers (effect, tenant, attempt, status, said) "
            "VALUES (%s, 'acme', 1, 'dead', %s)", effect, said,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.dead_letters (kind, tenant, effect, execution, attempts, reason, was) "
            "VALUES ('effect', 'acme', %s, %s, 1, 'no', %s)", effect, shared, json.dumps({"to": said}),
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.llm_calls (id, execution, tenant, handler, provider, model, requested, tokens_worst, "
            "worst, reason, day) VALUES (%s, %s, 'acme', 'score', 'p', 'm', 'm', 1, 1, %s, now())",
            uuid7(), shared, said,
        )  # fmt: skip

    await run_forget(road, "anna")

    assert await everywhere(road, "anna@example.com") == set()
    assert await everywhere(road, "ben@example.com") >= {"effect_answers", "llm_calls", "dead_letters"}


async def test_forgetting_goes_on_where_it_lost_a_deadlock_with_a_worker(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA))
    await road.run("CREATE SEQUENCE public.tries")
    await road.run(
        "CREATE FUNCTION public.lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('public.tries') = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF; "
        "RETURN NEW; END $$"
    )
    await road.run(
        "CREATE TRIGGER lose BEFORE UPDATE ON circuit.deliveries FOR EACH ROW EXECUTE FUNCTION public.lose()"
    )

    assert (await run_forget(road, "anna"))["deliveries"] == 1
    assert await everywhere(road, "anna@example.com") == set()


def test_a_record_without_an_id_is_not_looked_for_in_texts() -> None:
    assert Traces(records=[("Note", ""), ("Contact", "anna")]).names == ["anna"]

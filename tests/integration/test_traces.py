from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.db.pool import tenant_reading
from circuit_script.endpoints.client import Link
from circuit_script.endpoints.protocol import Call
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, HttpRequest, Outcome, Succeeded, Work
from circuit_script.telemetry import trace_writer
from circuit_script.telemetry.spans import Ended, Recorder
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.telemetry.traces import PENDING, Span, Trace, find_executions, read_trace, waterfall
from circuit_script.telemetry.w3c import read_traceparent, span_id
from tests.doors import answer, endpoint, open_post
from tests.receiver import receiving, response
from tests.road import SCORE, Incoming, Road, open_road

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = UUID(hex="4bf92f3577b34da6a3ce929d0e0e4736")
HOSTILE = "\0\ud800\u202e<script>" + "x" * 1_000_000


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


class Running:
    """A writer that runs beside a test's worker."""

    def __init__(self, road: Road, **options: Any) -> None:
        self.writer = TraceWriter(road.pool, **options)
        self.task = asyncio.create_task(self.writer.run())

    async def end(self) -> TraceWriter:
        self.writer.stop()
        await asyncio.wait_for(self.task, 20)
        return self.writer


def incoming(record: str, header: str | None = THEIRS, tenant: str = "acme") -> Incoming:
    return Incoming(record, tenant=tenant, headers={} if header is None else {"traceparent": header})


def of(trace: Trace, name: str) -> Span:
    (found,) = [each for each in trace.spans if each.name == name]
    return found


async def traces(road: Road, identifier: UUID, tenant: str | None = None) -> list[Trace]:
    async with road.pool.connection() as connection:
        executions = await find_executions(connection, identifier, tenant)
        found = [await read_trace(connection, each, tenant) for each in executions]
    assert None not in found
    return [each for each in found if each is not None]


async def test_a_trace_goes_from_the_delivery_to_what_its_vendor_gets(road: Road) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.handler == "later":
            return Succeeded(broker.usage)
        await broker.request("query", {"object": "Contact", "where": {"email": "a@example.com"}})
        url = f"{shop.url}/price?token=secret#top".replace("http://", "http://user:password@")
        await broker.request("http", {"method": "GET", "url": url, "headers": []})
        await broker.request("http", {"method": "GET", "url": f"{shop.url}/own", "headers": [["TraceParent", "mine"]]})
        leave = await broker.request("request", {"method": "GET", "url": f"{shop.url}/direct", "headers": []})
        assert leave["traceparent"].startswith(f"00-{TRACE.hex}-")
        with pytest.raises(RequestRefused):
            await broker.request("query", {"object": "Contact", "where": "nonsense"})
        broker.log({"message": "here", "trace": "a lie"})
        await broker.request(
            "send",
            {"connector": "webhook", "operation": "post", "to": "sales", "payload": {"text": "hot"}, "record": 0},
        )
        await broker.request(
            "enqueue", {"job": "later", "arguments": {"x": 1}, "due": None, "unique": None, "record": 0}
        )
        return Succeeded(broker.usage)

    async with receiving(lambda got: response(404 if "own" in got.line else 200, b"body")) as shop:
        await road.live(SCORE, HandlerSpec("later", (("Job", "later"),)))
        running = Running(road)
        addresses = {"sales": Address(url=f"{shop.url}/sales")}
        worker = await road.start(handle, traces=running.writer, addresses=addresses)
        courier = asyncio.create_task(worker.courier.run())
        (delivery,) = await road.take_in(incoming("c1"))
        await road.until("SELECT count(*) FROM circuit.executions", [2])
        await road.until("SELECT status FROM circuit.effects WHERE connector = 'webhook'", ["delivered"])
        worker.courier.stop()
        await courier
        await road.close_workers()
        await running.end()

        first, later = await traces(road, TRACE)

    assert [first.trace_id, later.trace_id] == [TRACE.hex] * 2
    assert (first.status, first.tenant, first.complete) == ("succeeded", "acme", True)
    own = of(first, "score")
    intake, queue, sent = of(first, "intake Contact.afterInsert"), of(first, "queue"), of(first, "webhook.post")
    assert (intake.parent, own.parent, queue.parent) == ("00f067aa0ba902b7", intake.id, intake.id)
    assert (own.id, sent.parent) == (span_id(first.execution), own.id)
    assert intake.start <= queue.start <= of(first, "dispatch").start <= own.start <= sent.start
    assert intake.attributes["delivery"] == str(delivery)
    assert of(first, "commit").parent == own.id
    good, bad = [each for each in first.spans if each.name == "query"]
    assert (good.attributes, good.status) == ({"object": "Contact", "by": "email", "rows": 0}, "ok")
    assert bad.status == "error"
    assert "TypeError" in bad.attributes["error"]
    priced, mine = [each for each in first.spans if each.name == "callout"]
    assert priced.attributes["url"] == f"{shop.url}/price"
    assert priced.attributes["status"] == 200
    assert (mine.status, mine.attributes["status"]) == ("error", 404)
    assert all("secret" not in str(each) and "hot" not in str(each) for each in first.spans)
    # What others got goes on with the trace, from the span that sent it; an author's own header stays.
    heard = {got.line.split()[1].partition("?")[0]: got.headers["traceparent"] for got in shop.got}
    assert heard["/own"] == "mine"
    assert heard["/price"] == f"00-{TRACE.hex}-{priced.id}-01"
    assert heard["/sales"] == f"00-{TRACE.hex}-{sent.id}-01"
    # The job that it enqueued goes on with it, too.
    assert of(later, "intake Job.later").parent == of(first, "jobs.enqueue").id
    assert {line["trace"] for line in road.lines} == {TRACE.hex}
    # Every id leads there.
    for identifier in (first.execution, delivery, UUID(str(sent.attributes["effect"]))):
        assert (await traces(road, identifier))[0] == first
    lines = waterfall(first, 100)
    assert lines[0].startswith("intake Contact.afterInsert")
    assert any("  webhook.post" in line for line in lines)
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("header", [THEIRS, None])
async def test_a_call_of_an_endpoint_goes_on_with_its_callers_trace(
    database: str, app_folder: Path, header: str | None
) -> None:
    async def handle(work: Work, broker: Any) -> None:
        broker.log({"message": "here"})
        await broker.request("query", {"object": "Contact", "where": {}})
        await broker.request("send", {"connector": "webhook", "operation": "post", "to": "hooks", "payload": {}})
        answer(broker, 200, {})

    said = () if header is None else (("traceparent", header),)
    async with open_post(database, app_folder, handle) as post:
        await post.live(endpoint("chat"))
        async with Link(app_folder / ".circuit" / "worker.sock") as link:
            assert await link.wait(5)
            request = HttpRequest("POST", "/api/chat", "", said, b"{}")
            assert (await link.call(Call("chat", "acme", request))).status == 200
        post.traces.stop()
        await post.traces.run()
        ((execution, _, tenant, line),) = post.lines
        async with post.pool.connection() as connection:
            trace = await read_trace(connection, execution, tenant)
        assert trace is not None
        assert await post.rows("SELECT trace FROM circuit.effects") == [TRACE if header else None]
    own = execution.hex
    assert (trace.trace_id, line["trace"]) == ((TRACE.hex, TRACE.hex) if header else (own, None))
    assert of(trace, "request").parent == ("00f067aa0ba902b7" if header else None)
    assert {each.name for each in trace.spans} >= {"request", "admission", "chat", "query", "commit", "webhook.post"}
    assert of(trace, "webhook.post").status == PENDING


async def test_an_execution_has_a_trace_of_its_own_also_where_nothing_of_it_was_kept(road: Road) -> None:
    await road.live(SCORE)
    running = Running(road, per_second=0.0)
    await road.start(traces=running.writer)
    (delivery,) = await road.take_in(incoming("c1", "00-nonsense"))
    await road.done()
    writer = await running.end()

    (trace,) = await traces(road, delivery)
    assert (writer.written, writer.sampled_out) == (0, 1)
    assert (trace.trace_id, trace.complete) == (trace.execution.hex, False)
    assert [each.name for each in trace.spans] == ["intake Contact.afterInsert", "queue", "score"]
    assert set(await road.rows("SELECT trace FROM circuit.effects")) <= {None}


async def test_a_batch_of_several_traces_has_its_own_and_is_found_by_each(road: Road) -> None:
    others = [f"00-{uuid7().hex}-00f067aa0ba902b7-01" for _ in range(2)]
    await road.live(SCORE)
    running = Running(road)
    await road.take_in(*(incoming(f"c{n}", header) for n, header in enumerate(others)), incoming("c9", None))
    await road.start(traces=running.writer, size=1)
    await road.done()
    await running.end()

    (execution,) = await road.rows("SELECT id FROM circuit.executions")
    for header in others:
        read = read_traceparent(header)
        assert read is not None
        (trace,) = await traces(road, read.trace)
        assert (trace.execution, trace.trace_id) == (execution, execution.hex)
        assert read.trace.hex in trace.links


async def test_no_tenant_finds_anothers_trace(road: Road) -> None:
    await road.live(SCORE)
    running = Running(road)
    await road.start(traces=running.writer)
    await road.take_in(incoming("c1", THEIRS), incoming("c2", THEIRS, tenant="rival"))
    await road.done()
    await running.end()

    assert len(await traces(road, TRACE)) == 2
    for tenant in ("acme", "rival"):
        (mine,) = await traces(road, TRACE, tenant)
        assert mine.tenant == tenant
        other = "rival" if tenant == "acme" else "acme"
        async with road.pool.connection() as connection:
            assert await read_trace(connection, mine.execution, other) is None
            assert await find_executions(connection, mine.execution, other) == []
            async with tenant_reading(connection, other):  # who reads as a tenant already stays one
                assert await read_trace(connection, mine.execution, other) is None
                assert await read_trace(connection, mine.execution) is None
                rows = await (await connection.execute("SELECT tenant FROM circuit.traces")).fetchall()
                assert rows == [(other,)]


async def test_the_traces_of_failures_are_all_kept_and_say_why(road: Road) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("dml", {"op": "insert", "object": HOSTILE, "rows": [{"name": HOSTILE}]})
        raise ValueError("it broke")

    await road.live(SCORE)
    running = Running(road, per_second=0.0, redact=lambda text: text.replace("script", "[gone]"))
    await road.start(handle, traces=running.writer, attempts=1)
    await road.take_in(*(incoming(f"c{n}") for n in range(3)))
    await road.done()
    writer = await running.end()

    assert (writer.dropped, writer.sampled_out) == (0, 0)
    stored = await road.rows("SELECT octet_length(spans::text), spans FROM circuit.traces")
    assert len(stored) == await count_of(road)
    assert all(size < 4096 for size, _ in stored)
    for trace in await traces(road, TRACE):
        assert trace.status == "failed"
        assert of(trace, "score").status == "failed"
        assert "[gone]" in of(trace, "write").attributes["object"]
        assert all(line.isprintable() for line in waterfall(trace, 80))


async def count_of(road: Road) -> int:
    (found,) = await road.rows("SELECT count(*) FROM circuit.executions")
    return int(found)


def ended(tenant: str = "acme", status: str = "ok", spans: int = 1) -> Ended:
    recorder = Recorder(uuid7())
    for n in range(spans):
        recorder.begin("query", "client", {"object": "Contact", "n": n}).end()
    return Ended(recorder, tenant, "score", status)


async def written(road: Road, *given: Ended, **options: Any) -> TraceWriter:
    running = Running(road, **options)
    for each in given:
        if running.writer.wants(each.status):
            running.writer.add(each)
    return await running.end()


async def test_so_many_a_second_are_kept_and_no_more_than_there_is_room_for(road: Road) -> None:
    ticks: Iterator[float] = iter([0.0, *[1.0] * 30, *[2.0] * 30])
    given = [ended() for _ in range(60)]
    some = await written(road, *given, per_second=5.0, clock=lambda: next(ticks))
    full = await written(road, *(ended(status="error") for _ in range(25)), bound=10)

    assert (some.written, some.sampled_out) == (10, 50)
    assert (full.written, full.dropped) == (10, 15)
    assert some.keeps(given[0].execution)
    assert not some.keeps(given[-1].execution)


async def test_too_many_spans_of_one_execution_are_counted_not_kept(road: Road) -> None:
    await written(road, ended(spans=600))

    assert await road.rows("SELECT jsonb_array_length(spans), spans -> -1 -> -1 -> 'left_out' FROM circuit.traces") == [
        (500, 100)
    ]


async def test_a_locked_table_costs_traces_and_never_waits_long(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_writer, "PATIENCE", trace_writer.PATIENCE.replace("2s", "50ms"))
    async with await psycopg.AsyncConnection.connect(road.url) as other:
        await other.execute("LOCK TABLE circuit.traces IN ACCESS EXCLUSIVE MODE")
        writer = await written(road, ended(), ended())
    again = await written(road, ended())

    assert (writer.dropped, writer.written, again.written) == (2, 0, 1)


async def test_what_is_committed_twice_is_stored_once(road: Road) -> None:
    one = ended()
    await written(road, one)
    writer = await written(road, one, ended())

    assert writer.dropped == 0
    assert await road.rows("SELECT count(*) FROM circuit.traces") == [2]


def test_a_picture_of_nothing_but_waiting_is_a_picture() -> None:
    from datetime import UTC, datetime, timedelta

    start, execution = datetime(2026, 5, 1, tzinfo=UTC), uuid7()
    root = span_id(execution)
    spans = [
        Span("1" * 16, None, "intake", "server", start, 0),
        Span(root, "1" * 16, "score", "consumer", start + timedelta(days=1), 3000),
        Span("2" * 16, root, "webhook.post", "producer", start + timedelta(days=2), 10, PENDING),
        Span("3" * 16, "3" * 16, "its own parent", "client", start + timedelta(days=1), 5),
    ]
    lines = waterfall(Trace(execution, execution.hex, spans), 20)

    assert len(lines) == 4
    assert "◂" in lines[0]
    assert lines[2].endswith(PENDING)


async def test_a_trace_that_cannot_be_stored_costs_none_of_the_others(road: Road) -> None:
    def redact(text: str) -> str:
        if text == "poison":
            raise RecursionError
        return text

    recorder = Recorder(uuid7())
    recorder.begin("query", "client", {"object": "poison"}).end()
    poison = Ended(recorder, "acme", "score", "ok")
    writer = await written(road, ended(), poison, ended(), redact=redact)
    alone = await written(road, poison, redact=redact)

    assert (writer.written, writer.dropped, alone.dropped) == (2, 1, 1)


async def test_spans_that_wait_are_bounded_and_the_road_goes_on_while_they_are_looked_through(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_writer, "BOUND_SPANS", 1000)
    monkeypatch.setattr(trace_writer, "GROUP_SPANS", 600)
    looked, others = 0, 0

    def redact(text: str) -> str:
        nonlocal looked
        looked += 1
        return text

    async def beside() -> None:
        nonlocal others
        while True:
            others += 0 < looked < 1000
            await asyncio.sleep(0)

    road_goes_on = asyncio.create_task(beside())
    writer = await written(road, *(ended(spans=400) for _ in range(5)), redact=redact)
    road_goes_on.cancel()

    assert (writer.written, writer.dropped) == (3, 2)
    assert others >= 2
    again = await written(road, ended(spans=400), redact=redact)
    assert again.written == 1

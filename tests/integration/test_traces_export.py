from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from circuit_script.telemetry import otlp
from circuit_script.telemetry.otlp import OtlpExport
from circuit_script.telemetry.spans import Ended, Recorder
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.telemetry.traces import find_executions, read_trace
from tests.otlp_collector import Collector
from tests.receiver import Got, receiving, response
from tests.road import SCORE, Incoming, Road, happens, open_road

TRACE = UUID(hex="4bf92f3577b34da6a3ce929d0e0e4736")


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def test_a_collector_gets_the_whole_trace_and_the_deliveries_of_its_effects(
    road: Road, collector: Collector
) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("http", {"method": "GET", "url": f"{shop.url}/price?token=secret", "headers": []})
        asked = {"connector": "webhook", "operation": "post", "to": "sales", "payload": {"text": "hot"}, "record": 0}
        await broker.request("send", asked)
        return Succeeded(broker.usage)

    export = OtlpExport(collector.url, {"authorization": "Bearer xaat"}, "shop")
    writer = TraceWriter(road.pool, export=export)
    writing = asyncio.create_task(writer.run())

    def reply(got: Got) -> bytes:
        tried = sum("sales" in each.line for each in shop.got)
        return response(200 if "price" in got.line else 503 if tried < 2 else 422, b"secret: no")

    async with receiving(reply) as shop:
        await road.live(SCORE)
        worker = await road.start(handle, traces=writer, addresses={"sales": Address(url=f"{shop.url}/sales")})
        courier = asyncio.create_task(worker.courier.run())
        await road.take_in(Incoming("c1", headers={"traceparent": f"00-{TRACE.hex}-00f067aa0ba902b7-01"}))
        await road.until("SELECT status FROM circuit.effects", ["dead"])
        await road.close_workers()
        worker.courier.stop()
        await courier
        writer.stop()
        await writing

    assert {each.trace_id.hex() for each in collector.spans} == {TRACE.hex}
    assert {each["service.name"] for each in collector.resources} == {"shop"}
    assert collector.headers[0]["authorization"] == "Bearer xaat"
    # The spans are those that are read here, with the same ids, but for the effect that has an end only now.
    async with road.pool.connection() as connection:
        (execution,) = await find_executions(connection, TRACE)
        trace = await read_trace(connection, execution)
    assert trace is not None
    again, sent = [each for each in collector.spans if each.name == "webhook.post"]
    spans = [each for each in collector.spans if each is not again]
    assert {(each.span_id.hex(), each.parent_span_id.hex() or None, each.name) for each in spans} == {
        (each.id, each.parent, each.name) for each in trace.spans
    }
    told = [got.headers["traceparent"].split("-")[2] for got in shop.got if "sales" in got.line]
    assert told == [again.span_id.hex(), sent.span_id.hex()], "each attempt is a span of its own, also to who gets it"
    assert again.status.message == "later"
    own, call = collector.named("score"), collector.named("callout")
    assert own.start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano <= own.end_time_unix_nano
    about = {pair.key: pair.value for pair in call.attributes}
    assert about["url.full"].string_value == f"{shop.url}/price"
    assert about["http.response.status_code"].int_value == 200
    assert (sent.status.message, sent.kind) == ("refused", Sent.SpanKind.SPAN_KIND_PRODUCER)
    assert {pair.key: pair.value.string_value for pair in sent.attributes}["error.type"] == "HTTP 422"
    assert "secret" not in str(collector.spans)


def ended() -> Ended:
    return Ended(Recorder(uuid7()), "acme", "score", "ok")


async def test_a_collector_that_hangs_or_refuses_costs_its_own_traces_only(
    road: Road, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "LINGER", 0.0)
    collector.hangs.clear()
    export = OtlpExport(collector.url, {}, "shop", bound=5)
    writer = TraceWriter(road.pool, export=export, per_second=100.0)
    for _ in range(50):
        writer.add(ended())
    writing = asyncio.create_task(writer.run())
    await road.until("SELECT count(*) FROM circuit.traces", [50])  # none of them has left yet
    assert export.dropped >= 50 - 2 * 5  # five may be on their way, and five wait

    collector.hangs.set()
    await happens(lambda: len(collector.spans) + export.dropped >= 50, "nothing leaves")
    collector.status = 400
    before = export.dropped
    export.ended(ended())
    await happens(lambda: export.dropped > before, "it is not counted")
    writer.stop()
    await writing

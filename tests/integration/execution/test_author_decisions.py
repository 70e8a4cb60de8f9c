"""Retry, Cancel and checkpoints as a handler says them, and what is said to it when it forgets an await."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import Failed, Outcome, Succeeded
from tests.integration.execution.conftest import HEADER, PoolOf, Recorder

APP = """
@trigger("Contact", "afterInsert")
async def returns_retry(context):
    return Retry(after=60, reason="the model is busy")

@trigger("Contact", "afterInsert")
def raises_cancel(context):
    context.add_error(context.new_records[0], "no phone")
    raise Cancel("the campaign is closed")

@trigger("Contact", "afterInsert")
async def decides(context):
    for record in context.new_records:
        async with context.record(record):
            match record["do"]:
                case "retry": raise Retry(after=5)
                case "cancel": raise Cancel("unsubscribed")
                case "error": raise ValueError("odd")
                case "both":
                    context.add_error(record, Retry(after=30))
                    raise Cancel("too late: the first one counts")

class BadRow(ValueError):
    pass

class Busy(Exception):
    class response:
        status_code, headers = 429, {"retry-after": "7"}

@trigger("Contact", "afterInsert")
async def raises_for_good(context):
    raise BadRow("no")

@trigger("Contact", "afterInsert")
async def tells_of_exceptions(context):
    for record in context.new_records:
        async with context.record(record):
            raise Busy("later") if record["do"] == "busy" else BadRow("no")

@trigger("Contact", "afterInsert")
async def bad_retry(context):
    return Retry(after=-1)

@trigger("Contact", "afterInsert")
async def checkpoints(context):
    for record in context.new_records:
        async with context.record(record):
            if record.id == "1":
                raise Retry(after=5, reason="busy")
    await context.checkpoint(upto=context.new_records[1])

@trigger("Contact", "afterInsert")
def checkpoints_from_plain_code(context):
    run(context.checkpoint(upto=context.new_records[0]))

@trigger("Contact", "afterInsert")
async def forgets(context):
    unknown = {"update": CircuitDB.update}
    for _ in range(2):
        unknown["update"]("Contact", {"id": "1"})

@trigger("Contact", "afterInsert")
async def keeps(context):
    work = [unknown("Contact", {"id": "1"}) for unknown in [CircuitDB.update]]
    del work[:]

@trigger("Contact", "afterInsert")
def forgets_in_plain_code(context):
    list(map(lambda record: http.get("http://x/"), context.new_records))

@trigger("Contact", "afterInsert")
async def forgets_its_own(context):
    unknown = {"sleep": asyncio.sleep}
    unused = unknown["sleep"](0)
    str(unused)

@trigger("Contact", "afterInsert")
async def fails_before_it_awaits(context):
    for record in context.new_records:
        async with context.record(record):
            await asyncio.gather(CircuitDB.get("Contact", "1"), {}[record.id])

@trigger("Contact", "afterInsert")
async def returns_the_class(context):
    return {"cancel": Cancel, "retry": Retry, "list": [Retry(3)]}[context.new_records[0]["do"]]

@trigger("Contact", "afterInsert")
async def adds_the_class(context):
    context.add_error(context.new_records[0], Cancel)

class Shy:
    def __str__(self):
        raise ValueError("no")

@trigger("Contact", "afterInsert")
async def logs_what_cannot_be_shown(context):
    log.info(Shy(), who=Shy())

@trigger("Contact", "afterInsert")
async def looks(context):
    meters = context.limits
    log.info("limits", callouts=meters.callouts.ceiling, queries=meters.db_queries.left, messages=meters.messages.left)
    log.info("here", request=context.request, tenant=context.tenant, id=str(context.execution_id))
"""


async def outcome_of(pool_of: PoolOf, handler: str, *records: dict[str, object]) -> tuple[Outcome, Recorder]:
    bench, broker = await pool_of(APP), Recorder()
    given = records or ({"id": "1"}, {"id": "2"})
    return await bench.run(handler, records=given, broker=broker), broker


async def test_a_retry_that_a_handler_returns_is_for_its_whole_batch(pool_of: PoolOf) -> None:
    outcome, broker = await outcome_of(pool_of, "returns_retry")
    said = "the model is busy"
    assert outcome == Succeeded(broker.usage, {0: said, 1: said}, {0: 60.0, 1: 60.0})


async def test_a_cancel_that_a_handler_raises_is_for_every_record_that_has_no_end_yet(pool_of: PoolOf) -> None:
    outcome, broker = await outcome_of(pool_of, "raises_cancel")
    assert outcome == Succeeded(broker.usage, {0: "no phone", 1: "the campaign is closed"}, {1: None})


async def test_decisions_in_the_block_of_a_record_are_that_records_own(pool_of: PoolOf) -> None:
    done = ("retry", "cancel", "error", "nothing", "both")
    records = [{"id": str(place), "do": each} for place, each in enumerate(done)]
    outcome, broker = await outcome_of(pool_of, "decides", *records)
    assert isinstance(outcome, Succeeded)
    assert outcome.errors == {
        0: "the handler asked to be called again after 5 s",
        1: "unsubscribed",
        2: "ValueError: odd",
        4: "the handler asked to be called again after 30 s",
    }
    assert outcome.decided == {0: 5.0, 1: None, 4: 30.0}
    assert broker.messages == ["ValueError: odd"], "a decision is no error in the log"


async def test_a_retry_that_cannot_be_is_the_handlers_failure(pool_of: PoolOf) -> None:
    outcome, _ = await outcome_of(pool_of, "bad_retry")
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("ValueError: Retry(after=-1)")


class Committing(Recorder):
    """A broker that takes checkpoints."""

    async def request(self, verb: str, arguments: dict[str, object]) -> object:
        if verb == "checkpoint":
            self.asked.append((verb, arguments))
            return None
        return await super().request(verb, arguments)


@pytest.mark.parametrize("handler", ["checkpoints", "checkpoints_from_plain_code"])
async def test_a_checkpoint_asks_with_what_became_of_the_records_so_far(pool_of: PoolOf, handler: str) -> None:
    bench, broker = await pool_of(APP), Committing()
    outcome = await bench.run(handler, records=[{"id": "1"}, {"id": "2"}, {"id": "3"}], broker=broker)
    assert isinstance(outcome, Succeeded)
    ((verb, asked),) = broker.asked
    assert verb == "checkpoint"
    if handler == "checkpoints":
        assert asked == {"upto": 1, "errors": [[0, "busy"]], "decided": [[0, 5.0]]}
    else:
        assert asked == {"upto": 0, "errors": [], "decided": []}


def line_of(code: str) -> int:
    return next(number for number, line in enumerate((HEADER + APP).splitlines(), 1) if code in line)


@pytest.mark.parametrize(
    ("handler", "code", "call"),
    [
        ("forgets", 'unknown["update"]', "CircuitDB.update"),
        ("keeps", "work = [", "CircuitDB.update"),
        ("forgets_in_plain_code", "list(map(", "http.get"),
    ],
)
async def test_a_call_of_the_platform_that_was_never_awaited_fails_its_execution_each_time(
    pool_of: PoolOf, tmp_path: Path, handler: str, code: str, call: str
) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for _ in range(2):
        outcome = await bench.run(handler, broker=broker)
        assert isinstance(outcome, Failed)
        assert outcome.reason.startswith(f"{tmp_path}/app.py:{line_of(code)}: {call}(…) was never awaited")
    assert broker.asked == []
    assert isinstance(await bench.run("looks", broker=broker), Succeeded), "the next run has nothing to do with it"


async def test_another_coroutine_that_was_never_awaited_is_an_error_in_the_log_each_time(
    pool_of: PoolOf, tmp_path: Path
) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for _ in range(2):
        assert isinstance(await bench.run("forgets_its_own", broker=broker), Succeeded)
    told = [line["message"] for line in broker.lines if line["level"] == "error"]
    place = f"{tmp_path}/app.py:{line_of('unused = ')}"
    said = f"{place}: sleep(…) was never awaited: it did nothing. Write `await` before it."
    assert told == [f"{said} More: circuit-script explain not-awaited"] * 2


async def test_what_a_failed_record_left_behind_is_not_held_against_the_others(pool_of: PoolOf) -> None:
    outcome, _ = await outcome_of(pool_of, "fails_before_it_awaits", {"id": "1"}, {"id": "2"}, {"id": "3"})
    assert isinstance(outcome, Succeeded)
    assert set(outcome.errors) == {0, 1, 2}


async def test_decisions_that_would_be_lost_fail_and_the_class_cancel_cancels(pool_of: PoolOf) -> None:
    outcome, broker = await outcome_of(pool_of, "returns_the_class", {"id": "1", "do": "cancel"})
    assert outcome == Succeeded(broker.usage, {0: "the handler cancelled it"}, {0: None})
    for do in ("retry", "list"):
        outcome, _ = await outcome_of(pool_of, "returns_the_class", {"id": "1", "do": do})
        assert isinstance(outcome, Failed)
        assert "was returned" in outcome.reason
    outcome, broker = await outcome_of(pool_of, "adds_the_class", {"id": "1"})
    assert outcome == Succeeded(broker.usage, {0: "the handler cancelled it"}, {0: None})


async def test_a_log_line_that_cannot_be_shown_never_fails_its_handler(pool_of: PoolOf) -> None:
    outcome, broker = await outcome_of(pool_of, "logs_what_cannot_be_shown")
    assert isinstance(outcome, Succeeded)
    assert broker.messages == ["Shy (it cannot be shown: its __str__ raised ValueError)"]


async def test_an_app_that_drops_a_coroutine_does_not_load(pool_of: PoolOf, tmp_path: Path) -> None:
    with pytest.raises(AppError) as refused:
        await pool_of('@trigger("Contact", "afterInsert")\nasync def f(context):\n    CircuitDB.delete("Contact", "1")')
    assert refused.value.page == "not-awaited"
    assert f"{tmp_path}/app.py:5: CircuitDB.delete(…) is not awaited" in refused.value.detail
    assert refused.value.cure == "Write `await CircuitDB.delete(…)`."


async def test_an_app_may_handle_objects_that_it_declares(pool_of: PoolOf, tmp_path: Path) -> None:
    source = '@trigger("Shipment", "afterInsert")\ndef f(context): ...'
    with pytest.raises(AppError, match="no object 'Shipment'") as refused:
        await pool_of(source)
    assert refused.value.page == "unknown-object"
    pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None, objects=("Shipment",))
    manifest = await pool.start()
    await pool.stop()
    assert manifest.handlers[0].routes == (("Shipment", "afterInsert"),)


async def test_a_handler_sees_its_limits_its_tenant_and_no_request(pool_of: PoolOf) -> None:
    _, broker = await outcome_of(pool_of, "looks")
    limits, here = (line["context"] for line in broker.lines)
    assert (limits["callouts"], limits["queries"], limits["messages"]) == (50, 100, 2 * 10)
    assert (here["request"], here["tenant"]) == (None, "acme")


async def test_an_exception_tells_its_classes_and_what_a_vendor_asked_for(pool_of: PoolOf) -> None:
    raised, _ = await outcome_of(pool_of, "raises_for_good", {"id": "1"})
    told, _ = await outcome_of(pool_of, "tells_of_exceptions", {"id": "1", "do": "busy"}, {"id": "2", "do": ""})

    assert isinstance(raised, Failed)
    assert [kind.rpartition(".")[2] for kind in raised.hint.kinds] == ["BadRow", "ValueError", "Exception"]
    assert isinstance(told, Succeeded)
    assert told.hints[0].after == 7.0
    assert told.hints[1].kinds == raised.hint.kinds
    assert told.hints[1].after == 0.0

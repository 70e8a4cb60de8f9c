"""Endpoints that do what they must not, and loops and threads of all kinds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from circuit_script.execution.outcome import Breached, Failed, Succeeded
from tests.integration.execution.calls import APP, Caller, Door
from tests.integration.execution.conftest import PoolOf, Recorder, until


@pytest.fixture
async def door(pool_of: PoolOf) -> Door:
    return Door(await pool_of(APP, size=1))


@pytest.mark.parametrize("handler", ["sleeps", "spins", "plain_sleep", "waits_plainly", "waits_plainly_inside"])
async def test_no_endpoint_outlives_its_wall_time(door: Door, handler: str) -> None:
    outcome, caller = await door.call(handler, wall_time=0.2)

    assert isinstance(outcome, Breached)
    assert outcome.limit == "wall_time"
    assert caller.head is None


@pytest.mark.usefixtures("time_to_speak")
@pytest.mark.parametrize("handler", ["plain_sleep", "waits_plainly", "waits_plainly_inside"])
async def test_plain_code_is_ended_by_an_alarm_so_that_its_finally_runs(pool_of: PoolOf, handler: str) -> None:
    source = (
        APP
        + """
for each in ("plain_sleep", "waits_plainly", "waits_plainly_inside"):
    pass

@endpoint("tidies")
def tidies(how: str):
    try:
        time.sleep(60) if how == "plain_sleep" else run(asyncio.sleep(60))
    except BaseException as error:
        log.info(type(error).__name__)
        raise
"""
    )
    door = Door(await pool_of(source))
    outcome, caller = await door.call("tidies", query=f"how={handler}", wall_time=0.2)

    assert isinstance(outcome, Breached)
    assert caller.messages == ["LimitExceeded"]


async def test_the_platforms_limits_hold_in_an_endpoint(door: Door) -> None:
    class Strict(Caller):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            return await super().request("connect", arguments)

    outcome, caller = await door.call("calls_out", caller=Strict())

    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"
    assert caller.head is None


@pytest.mark.parametrize("handler", ["gathers", "gathers_plainly"])
async def test_requests_to_the_broker_run_side_by_side_in_whatever_loop(door: Door, handler: str) -> None:
    outcome, caller = await door.call(handler)

    assert isinstance(outcome, Succeeded), outcome
    assert caller.json == ["0", "1", "2", "3", "4"]


async def test_run_works_in_a_thread(door: Door) -> None:
    outcome, caller = await door.call("from_thread")

    assert isinstance(outcome, Succeeded), outcome
    assert caller.json == "Ada"


@pytest.mark.parametrize(("handler", "answer"), [("nests", 3), ("fails_inside", "caught"), ("depends", 5)])
async def test_loops_within_loops_and_threads_leave_a_child_that_can_be_used_again(
    door: Door, handler: str, answer: Any
) -> None:
    pids = set()
    for _ in range(5):
        outcome, caller = await door.call(handler)
        assert isinstance(outcome, Succeeded), outcome
        assert caller.json == answer
        pids.update(child.pid for child in door.pool.children if child.tenant == "acme")

    assert len(pids) == 1


async def test_a_header_with_a_line_break_fails_the_execution(door: Door) -> None:
    outcome, caller = await door.call("injects")

    assert isinstance(outcome, Failed)
    assert "line break" in outcome.reason
    assert caller.head is None


@pytest.mark.parametrize("handler", ["garbage_head", "evil_head"])
async def test_a_child_that_forges_an_answer_is_killed(door: Door, handler: str) -> None:
    outcome, caller = await door.call(handler)

    assert isinstance(outcome, Failed)
    assert "garbage" in outcome.reason
    assert caller.head is None
    outcome, _ = await door.call("gathers")
    assert isinstance(outcome, Succeeded)


async def test_a_trigger_that_answers_is_killed(door: Door) -> None:
    outcome = await door.bench.run("answers_nobody")

    assert isinstance(outcome, Failed)
    assert "garbage" in outcome.reason


async def test_a_child_that_dies_midway_fails_its_request(door: Door) -> None:
    outcome, caller = await door.call("leaves")

    assert isinstance(outcome, Failed)
    assert outcome.reason in (
        "the handler left its process with exit code 3",
        "the handler closed its connection to the platform",  # where that is seen long before its end
    )
    assert caller.head is None


async def test_a_cancelled_call_kills_its_child(door: Door) -> None:
    call = asyncio.create_task(door.call("sleeps"))
    await until(lambda: any(child.busy for child in door.pool.children))
    [pid] = [child.pid for child in door.pool.children if child.busy]
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    await until(lambda: pid not in [child.pid for child in door.pool.children])


async def test_endpoints_do_not_wait_for_busy_places_nor_take_them(door: Door) -> None:
    go_on = Path(door.pool._folder or "", "go-on")
    batches = [asyncio.create_task(door.bench.run("slow", records=[{"id": "slow"}])) for _ in range(2)]
    await until(lambda: not door.pool.idle("acme", False))

    answers = await asyncio.gather(*[door.call("chat", "POST", body={"message": "x"}) for _ in range(4)])

    assert not any(batch.done() for batch in batches)
    go_on.touch()
    assert all(isinstance(outcome, Succeeded) for outcome, _ in answers)
    assert all(isinstance(outcome, Succeeded) for outcome in await asyncio.gather(*batches))

    calls = [asyncio.create_task(door.call("sleeps")) for _ in range(8)]
    await until(lambda: door.pool.busy == 8)
    assert door.pool.idle("acme", False)
    assert isinstance(await door.bench.run("slow"), Succeeded)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_child_serves_one_tenant_only_and_again_after_an_express_run(door: Door) -> None:
    _, first = await door.call("remembers", tenant="a")
    _, second = await door.call("remembers", tenant="a")
    _, other = await door.call("remembers", tenant="b")

    assert (first.json, second.json, other.json) == (["a"], ["a", "a"], ["b"])


async def test_what_is_written_after_the_answer_belongs_to_the_execution(door: Door) -> None:
    outcome, caller = await door.call("background")

    assert isinstance(outcome, Succeeded)
    assert caller.body == b"now"
    assert [verb for verb, _ in caller.asked] == ["dml"]


async def test_a_head_request_gets_no_body(pool_of: PoolOf) -> None:
    door = Door(await pool_of('@endpoint("x", methods=["HEAD", "GET"])\nasync def x(): return {"a": 1}'))
    _, headed = await door.call("x", "HEAD")
    _, got = await door.call("x")

    assert (headed.status, headed.body) == (200, b"")
    assert got.json == {"a": 1}


async def test_fastapi_is_imported_for_endpoints_only(pool_of: PoolOf) -> None:
    source = """
    @trigger("Contact", ["afterInsert"])
    async def looks(context): print("fastapi" in sys.modules, "pydantic" in sys.modules)
    """
    bench, broker = await pool_of(source), Recorder()
    await bench.run("looks", broker=broker)

    assert broker.messages == ["False False"]


async def test_a_child_finds_the_whole_api_imported_and_imports_nothing_of_it_again(pool_of: PoolOf) -> None:
    source = """
    import circuit_script
    @trigger("Contact", ["afterInsert"])
    async def looks(context):
        known = set(sys.modules)
        for name in set(circuit_script.__all__) - {"http"}:
            getattr(circuit_script, name)
        print(sorted(set(sys.modules) - known))
    """
    bench, broker = await pool_of(source), Recorder()
    await bench.run("looks", broker=broker)

    assert broker.messages == ["[]"]


async def test_the_manifest_has_the_endpoints_and_their_document(tmp_path: Path, pool_of: PoolOf) -> None:
    door = Door(await pool_of(APP))
    manifest = door.pool._manifest
    assert manifest is not None
    specs = {spec.name: spec for spec in manifest.handlers}
    document = json.loads(manifest.openapi)

    assert specs["chat"].endpoint is not None
    assert specs["chat"].endpoint.methods == ("POST",)
    assert specs["chat"].endpoint.deadline == 10
    assert specs["chat"].limits.wall_time == 10
    assert specs["file"].endpoint is not None
    assert specs["file"].endpoint.paths == ("/api/files/.+",)
    operation = document["paths"]["/api/chat"]["post"]
    assert operation["operationId"] == "chat"
    assert operation["description"] == "Answer a question."
    assert operation["security"] == [{"key": []}]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Question"}
    assert body["examples"] == {"example 1": {"value": {"message": "Hi"}}}
    assert "security" not in document["paths"]["/api/files/{path}"]["get"]
    stream = document["paths"]["/api/stream"]["post"]["responses"]["200"]["content"]
    assert "text/event-stream" in stream
    assert "context" not in json.dumps(document["paths"]["/api/leads/{lead_id}"])


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b'{"a": "\\ud800"}', 400, "half of a surrogate pair"),
        (b'{"\\uDFFF": 1}', 400, "half of a surrogate pair"),
        (b'{"a": NaN}', 400, "NaN, which is no number"),
        (b'{"a": -Infinity}', 400, "-Infinity, which is no number"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "more than 100 arrays and objects"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400, "more than 100 arrays and objects"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "error parsing the body"),
        (b'{"a": ', 422, "JSON decode error"),
        (b'{"a": "\\ud83d\\ude00 ' + b"[" * 200 + b'"}', 200, ""),
        (b'{"a": [' + b"[]," * 200 + b"[]]}", 200, ""),
    ],
)
async def test_json_that_cannot_be_said_again_is_the_callers_fault(
    pool_of: PoolOf, body: bytes, status: int, detail: str
) -> None:
    outcome, caller = await Door(await pool_of(APP)).call("says", "POST", "/api/says", body)

    assert isinstance(outcome, Succeeded), outcome
    assert caller.status == status
    assert caller.json == json.loads(body) if status == 200 else detail in caller.json["detail"]

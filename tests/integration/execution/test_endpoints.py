"""An endpoint in a real child: what it is given, what it answers, and what becomes of its effects."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.execution.outcome import Breached, Failed, HttpRequest, Outcome, Succeeded, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor import Limits
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, until

APP = """
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from fastapi import Depends, Header, HTTPException, Query, Response
from pydantic import BaseModel, Field

class Question(BaseModel):
    message: str = Field(min_length=1)
    lead: str | None = None

class Answer(BaseModel):
    reply: str
    secret: str = Field(default="hidden", exclude=True)

@endpoint("chat", methods=["POST"], deadline=10, examples=[{"message": "Hi"}])
async def chat(question: Question, context: Context) -> Answer:
    '''Answer a question.'''
    assert context.new_records == [] and context.request.method == "POST" and context.tenant == "acme"
    await CircuitDB.update("Contact", {"id": "7", "asked": question.message})
    log.info("asked")
    return Answer(reply=f"You said {question.message}.")

@endpoint("leads/{lead_id}")
def lead(context, lead_id: int, fields: Annotated[list[str], Query()], x_trace: Annotated[str, Header()] = ""):
    assert threading.current_thread() is threading.main_thread()
    found = run(CircuitDB.query("Contact", {"id": str(lead_id)}))
    return {"id": lead_id, "name": found[0]["name"], "fields": fields, "trace": x_trace, "tenant": context.tenant}

@endpoint("files/{path:path}", auth="none")
async def file(path: str): return {"path": path}

@endpoint("says", methods=["POST"])
async def says(body: dict): return body

@endpoint("missing")
async def missing():
    await CircuitDB.update("Contact", {"id": "7"})
    raise HTTPProblem(404, "no such lead", lead=4711, headers={"x-why": "gone"})

@endpoint("forbidden")
async def forbidden(): raise HTTPException(403, "not yours")

@endpoint("teapot")
async def teapot(): return Response("short and stout", status_code=418, media_type="text/plain")

@endpoint("raises")
async def raises(): raise ValueError("the password is hunter2")

@endpoint("wrong-answer")
async def wrong_answer() -> Answer: return {"nonsense": 1}

class Contacts(CircuitTrigger):
    count = 0
    @endpoint("counted", methods="POST")
    async def counted(self, question: Question) -> Answer:
        self.count += 1
        return Answer(reply=str(self.count))
    @staticmethod
    @endpoint("static/{name}")
    def static(name: str) -> str: return name

@endpoint("sleeps")
async def sleeps(): await asyncio.sleep(60)

@endpoint("spins")
async def spins():
    while True: pass

@endpoint("plain-sleep")
def plain_sleep(): time.sleep(60)

@endpoint("waits-plainly")
def waits_plainly(): run(asyncio.sleep(60))

@endpoint("waits-plainly-inside")
async def waits_plainly_inside(): run(asyncio.sleep(60))

@endpoint("calls-out")
async def calls_out():
    for _ in range(3):
        try:
            await http.get("http://x/")
        except Exception:
            pass

class Token(BaseModel):
    text: str

@endpoint("stream", methods=["POST"])
async def stream(question: Question) -> AsyncIterator[Token]:
    yield Token(text="one")
    await CircuitDB.query("Contact")
    yield Token(text="two")

@endpoint("plain-stream")
def plain_stream() -> Iterator[Token]:
    for each in run(CircuitDB.query("Contact")):
        yield Token(text=each["name"])

@endpoint("stream-refused")
async def stream_refused():
    raise HTTPProblem(409, "busy")
    yield

@endpoint("stream-breaks")
async def stream_breaks():
    yield 1
    raise KeyError("lost")

@endpoint("stream-limit")
async def stream_limit():
    yield 1
    await http.get("http://limit/")

@endpoint("long")
async def long(): return Response(b"x" * (3 * 1024 * 1024 + 5), media_type="application/octet-stream")

@endpoint("too-long")
async def too_long(): return Response(b"x" * (20 * 1024 * 1024))

@endpoint("gathers")
async def gathers():
    found = await asyncio.gather(*[CircuitDB.get("Contact", str(n)) for n in range(5)])
    return [each["id"] for each in found]

@endpoint("gathers-plainly")
def gathers_plainly():
    async def all():
        return await asyncio.gather(*[CircuitDB.get("Contact", str(n)) for n in range(5)])
    async def outer():
        return [each["id"] for each in run(all())]
    return run(outer())

@endpoint("from-thread")
async def from_thread():
    return await asyncio.to_thread(lambda: run(CircuitDB.query("Contact"))[0]["name"])

@endpoint("injects")
async def injects():
    response = Response("x")
    response.raw_headers.append((b"x-evil", b"a\\r\\nset-cookie: b"))
    return response

@endpoint("leaves")
async def leaves(): os._exit(3)

@endpoint("remembers")
async def remembers(context):
    globals().setdefault("seen", []).append(context.tenant)
    return globals()["seen"]

@endpoint("background")
async def background():
    from starlette.background import BackgroundTask
    return Response("now", background=BackgroundTask(CircuitDB.update, "Contact", {"id": "9"}))

@endpoint("retries")
async def retries():
    from circuit_script.execution.decisions import Retry
    return Retry(after=5)

@endpoint("depends")
async def depends(number: Annotated[int, Depends(lambda: 5)], context: "Context"): return number

@endpoint("nests")
def nests():
    async def inner(depth):
        await CircuitDB.get("Contact", str(depth))
        return depth if depth == 3 else run(inner(depth + 1))
    return run(inner(0))

@endpoint("fails-inside")
async def fails_inside():
    async def inner():
        await asyncio.sleep(0)
        raise ValueError("inside")
    try:
        run(inner())
    except ValueError:
        await CircuitDB.get("Contact", "1")
        return "caught"

@endpoint("garbage-head")
async def garbage_head():
    from circuit_script.execution.protocol import Head, Chunk, pack
    from circuit_script.execution.session import session
    session()._wire.send(pack(Chunk(b"first")))
    return "late"

@endpoint("evil-head")
async def evil_head():
    from circuit_script.execution.protocol import Head, Chunk, pack
    from circuit_script.execution.session import session
    session()._wire.send(pack(Head(200, [("x", "a\\r\\nb: c")])))
    return "late"

@trigger("Contact", ["afterInsert"])
async def slow(context): await asyncio.sleep(0.5 if context.new_records[0].id == "slow" else 0)

@trigger("Contact", ["afterInsert"])
async def answers_nobody(context):
    from circuit_script.execution.protocol import Head, pack
    from circuit_script.execution.session import session
    session()._wire.send(pack(Head(200, [])))
    await asyncio.sleep(5)
"""


class Caller(Recorder):
    """A broker that remembers an answer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.head: Head | None = None
        self.chunks: list[bytes] = []
        self.queries_when: list[int] = []

    def on_head(self, head: Head) -> None:
        assert self.head is None
        self.head = head

    def on_chunk(self, body: bytes) -> None:
        assert self.head is not None
        self.chunks.append(body)
        self.queries_when.append(sum(verb == "query" for verb, _ in self.asked))

    @property
    def status(self) -> int:
        assert self.head is not None
        return self.head.status

    @property
    def header(self) -> dict[str, str]:
        assert self.head is not None
        return dict(self.head.headers)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Door:
    """Calls endpoints of a pool."""

    def __init__(self, bench: Bench) -> None:
        self.pool = bench.pool
        self.bench = bench

    async def call(
        self,
        handler: str,
        method: str = "GET",
        path: str = "",
        body: Any = None,
        *,
        query: str = "",
        headers: Sequence[tuple[str, str]] = (("content-type", "application/json"), ("host", "here:8000")),
        tenant: str = "acme",
        caller: Caller | None = None,
        **limits: Any,
    ) -> tuple[Outcome, Caller]:
        caller = caller or Caller()
        sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = HttpRequest(method, path or f"/api/{handler.replace('_', '-')}", query, tuple(headers), sent)
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant=tenant,
            object="",
            event=f"{method} {path}",
            records=(),
            old=(),
            events=(),
            limits=Limits(**limits),
            started_at=time.time(),
            request=request,
        )
        return await asyncio.wait_for(self.pool.run(work, caller, express=True), 20), caller


@pytest.fixture
async def door(pool_of: PoolOf) -> Door:
    return Door(await pool_of(APP, size=1))


async def test_an_endpoint_takes_a_model_and_answers_with_one(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body={"message": "Hi"})

    assert isinstance(outcome, Succeeded)
    assert not outcome.discard
    assert caller.status == 200
    assert caller.head is not None
    assert not caller.head.streamed
    assert caller.header["content-type"] == "application/json"
    assert caller.json == {"reply": "You said Hi."}
    assert [verb for verb, _ in caller.asked] == ["dml"]
    assert caller.messages == ["asked"]


async def test_a_request_that_does_not_validate_names_each_fault_and_discards(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body={"message": ""})

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 422
    assert caller.header["content-type"] == "application/problem+json"
    assert caller.json["title"] == "Unprocessable Content" or caller.json["title"] == "Unprocessable Entity"
    assert caller.json["detail"] == "body.message: String should have at least 1 character."
    assert caller.json["errors"] == [
        {"loc": ["body", "message"], "msg": "String should have at least 1 character", "type": "string_too_short"}
    ]
    assert caller.asked == []


async def test_a_body_that_is_not_json_is_refused(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body=b"{nonsense")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 422


async def test_a_plain_function_runs_in_the_main_thread_with_path_query_header_and_context(door: Door) -> None:
    headers = [("x-trace", "t1"), ("host", "x")]
    outcome, caller = await door.call("lead", path="/api/leads/42", query="fields=a&fields=b", headers=headers)

    assert isinstance(outcome, Succeeded), outcome
    assert caller.json == {"id": 42, "name": "Ada", "fields": ["a", "b"], "trace": "t1", "tenant": "acme"}


async def test_a_path_parameter_may_span_slashes_and_percent_signs(door: Door) -> None:
    _, caller = await door.call("file", path="/api/files/a/b%20c%C3%A9.txt")

    assert caller.json == {"path": "a/b cé.txt"}


async def test_a_problem_is_told_and_discards_what_was_written(door: Door) -> None:
    outcome, caller = await door.call("missing")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 404
    assert caller.header["content-type"] == "application/problem+json"
    assert caller.header["x-why"] == "gone"
    assert caller.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such lead",
        "lead": 4711,
    }


async def test_fastapis_own_exception_works_alike(door: Door) -> None:
    outcome, caller = await door.call("forbidden")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert (caller.status, caller.json["detail"]) == (403, "not yours")


async def test_any_answer_of_400_or_more_discards(door: Door) -> None:
    outcome, caller = await door.call("teapot")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert (caller.status, caller.body) == (418, b"short and stout")


async def test_an_exception_fails_the_execution_and_says_nothing_to_the_caller(door: Door) -> None:
    outcome, caller = await door.call("raises")

    assert isinstance(outcome, Failed)
    assert outcome.reason == "ValueError: the password is hunter2"
    assert "in raises" in outcome.detail
    assert "site-packages" not in outcome.detail
    assert caller.head is None
    assert caller.chunks == []


async def test_a_retry_is_no_answer(door: Door) -> None:
    outcome, caller = await door.call("retries")

    assert isinstance(outcome, Failed)
    assert "Retry is for records" in outcome.reason
    assert caller.head is None


async def test_an_answer_that_is_not_the_declared_model_fails(door: Door) -> None:
    outcome, caller = await door.call("wrong_answer")

    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("ResponseValidationError")
    assert caller.head is None


async def test_methods_of_a_class_are_endpoints_with_one_instance_in_each_child(door: Door) -> None:
    for count in ("1", "2"):
        _, caller = await door.call("Contacts.counted", "POST", "/api/counted", {"message": "x"})
        assert caller.json == {"reply": count}
    _, caller = await door.call("Contacts.static", path="/api/static/me")
    assert caller.json == "me"


@pytest.mark.parametrize("handler", ["sleeps", "spins", "plain_sleep", "waits_plainly", "waits_plainly_inside"])
async def test_no_endpoint_outlives_its_wall_time(door: Door, handler: str) -> None:
    outcome, caller = await door.call(handler, wall_time=0.2)

    assert isinstance(outcome, Breached)
    assert outcome.limit == "wall_time"
    assert caller.head is None


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


async def test_events_leave_one_by_one_while_the_handler_goes_on(door: Door) -> None:
    outcome, caller = await door.call("stream", "POST", body={"message": "x"})

    assert isinstance(outcome, Succeeded)
    assert caller.head is not None
    assert caller.head.streamed
    assert caller.header["content-type"].startswith("text/event-stream")
    assert caller.chunks == [b'data: {"text":"one"}\n\n', b'data: {"text":"two"}\n\n']


async def test_the_first_event_arrives_before_the_handler_ends(door: Door) -> None:
    class Holding(Caller):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            await until(lambda: self.chunks)  # the handler goes on only once its first event is here
            return await super().request(verb, arguments)

    outcome, caller = await door.call("stream", "POST", body={"message": "x"}, caller=Holding())

    assert isinstance(outcome, Succeeded)
    assert len(caller.chunks) == 2


async def test_a_plain_generator_streams_too(door: Door) -> None:
    outcome, caller = await door.call("plain_stream")

    assert isinstance(outcome, Succeeded)
    assert caller.body == b'data: {"text":"Ada"}\n\n'


async def test_a_stream_that_says_no_before_its_first_event_is_an_ordinary_problem(door: Door) -> None:
    outcome, caller = await door.call("stream_refused")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert (caller.status, caller.json["detail"]) == (409, "busy")
    assert caller.head is not None
    assert not caller.head.streamed


async def test_a_stream_that_breaks_fails_with_its_own_exception(door: Door) -> None:
    outcome, caller = await door.call("stream_breaks")

    assert isinstance(outcome, Failed)
    assert outcome.reason == "KeyError: 'lost'"
    assert caller.body == b"data: 1\n\n"


async def test_a_limit_inside_a_stream_is_a_limit(door: Door) -> None:
    class Strict(Caller):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            self.usage.callouts = 2
            return await super().request("connect", arguments)

    outcome, _ = await door.call("stream_limit", caller=Strict())

    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"


async def test_a_long_answer_arrives_whole_in_pieces(door: Door) -> None:
    outcome, caller = await door.call("long")

    assert isinstance(outcome, Succeeded)
    assert len(caller.body) == 3 * 1024 * 1024 + 5
    assert len(caller.chunks) == 4
    assert "content-length" not in caller.header


async def test_an_answer_of_20_mb_is_a_breach(door: Door) -> None:
    outcome, _ = await door.call("too_long")

    assert isinstance(outcome, Breached)
    assert outcome.limit == "answer_bytes"
    assert "MB" in outcome.reason


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
    batches = [asyncio.create_task(door.bench.run("slow", records=[{"id": "slow"}])) for _ in range(2)]
    await until(lambda: not door.pool.idle("acme", False))

    answers = await asyncio.gather(*[door.call("chat", "POST", body={"message": "x"}) for _ in range(4)])

    assert not any(batch.done() for batch in batches)
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

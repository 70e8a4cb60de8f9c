"""Calls of endpoints in a real child: the app, a broker that hears the answer, a door."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from circuit_script.clock import uuid7
from circuit_script.execution.outcome import HttpRequest, Outcome, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor import Limits
from tests.integration.execution.conftest import Bench, Recorder

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
async def slow(context):
    while context.new_records[0].id == "slow" and not os.path.exists("go-on"):
        await asyncio.sleep(0.01)

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

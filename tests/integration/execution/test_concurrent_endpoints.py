"""Endpoints whose calls share a child: answers, streams and connections are each caller's own."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import Breached, HttpRequest, Outcome, Succeeded, Work
from circuit_script.governor import Limits
from tests.integration.execution.calls import Caller
from tests.integration.execution.conftest import PoolOf, until

pytestmark = pytest.mark.evasion

APP = """
import _thread, socket, threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from fastapi import Depends
from pydantic import BaseModel

inside = 0
pool = ThreadPoolExecutor(2)

async def meet(come):
    '''Goes on once so many calls are here.'''
    global inside
    inside += 1
    while inside < come:
        await asyncio.sleep(0.001)

class Said(BaseModel):
    who: str
    come: int
    connects: int = 0

def name(said: Said) -> str:
    print("name of", said.who)
    return said.who.upper()

@endpoint("chat", methods=["POST"], concurrency=4)
async def chat(said: Said, context: Context, upper: str = Depends(name)) -> dict:
    await meet(said.come)
    await CircuitDB.update("Contact", {"id": said.who})
    log.info(f"{said.who} asked")
    return {"who": upper, "pid": os.getpid(), "execution": str(context.execution_id)}

@endpoint("stream", methods=["POST"], concurrency=4)
async def stream(said: Said) -> AsyncIterator[dict]:
    for n in range(5):
        await meet(said.come)
        yield {"who": said.who, "n": n}

def connect():
    try:
        socket.create_connection(("127.0.0.1", 1), 1)
    except PermissionError as error:
        log.warning(f"refused: {error}")
    except OSError:
        pass

@endpoint("connects", methods=["POST"], concurrency=4)
async def connects(said: Said) -> dict:
    await meet(said.come)
    loop = asyncio.get_running_loop()
    ways = [connect, lambda: threading.Thread(target=connect).start(), lambda: pool.submit(connect).result()]
    for n in range(said.connects):
        await loop.run_in_executor(None, ways[n % 3])
    return {"pid": os.getpid()}

@endpoint("bare", methods=["POST"], concurrency=4)
async def bare(said: Said) -> dict:
    await meet(said.come)
    ended = threading.Event()
    def refused():
        try:
            socket.create_connection(("127.0.0.1", 1), 1)
        except BaseException as error:
            kept.append(repr(error))
        ended.set()
    kept = []
    _thread.start_new_thread(refused, ())
    while not ended.is_set():
        await asyncio.sleep(0.001)
    return {"pid": os.getpid(), "error": kept[0]}
"""


async def ask(
    pool: Pool, handler: str, body: dict[str, Any], caller: Caller | None = None, **limits: Any
) -> tuple[Outcome, Caller]:
    caller = caller or Caller()
    headers = (("content-type", "application/json"), ("host", "here:8000"))
    work = Work(
        execution=uuid7(),
        handler=handler,
        tenant="acme",
        object="",
        event="POST",
        records=(),
        old=(),
        events=(),
        limits=Limits(**limits),
        started_at=time.time(),
        request=HttpRequest("POST", f"/api/{handler}", "", headers, json.dumps(body).encode()),
        concurrency=4,
    )
    outcome = await asyncio.wait_for(pool.run(work, caller, express=True), 20)
    return outcome, caller


async def test_calls_that_wait_together_get_their_own_answers(pool_of: PoolOf) -> None:
    pool = (await pool_of(APP, size=1)).pool
    told = await asyncio.gather(*(ask(pool, "chat", {"who": f"w{n}", "come": 4}) for n in range(4)))
    for n, (outcome, caller) in enumerate(told):
        assert isinstance(outcome, Succeeded)
        assert caller.json["who"] == f"W{n}"
        assert caller.asked == [("dml", {**caller.asked[0][1], "rows": [{"id": f"w{n}"}]})]
        assert caller.messages == [f"name of w{n}", f"w{n} asked"]
    assert len({caller.json["pid"] for _, caller in told}) == 1
    assert len({caller.json["execution"] for _, caller in told}) == 4


async def test_streams_that_run_together_are_not_mixed(pool_of: PoolOf) -> None:
    pool = (await pool_of(APP, size=1)).pool
    told = await asyncio.gather(*(ask(pool, "stream", {"who": f"w{n}", "come": 4}) for n in range(4)))
    for n, (outcome, caller) in enumerate(told):
        assert isinstance(outcome, Succeeded)
        events = [json.loads(line[6:]) for line in caller.body.decode().split("\n") if line.startswith("data: ")]
        assert events == [{"who": f"w{n}", "n": k} for k in range(5)]


async def test_connections_count_for_who_makes_them_whatever_thread_does(pool_of: PoolOf) -> None:
    """The tests' broker lets each have two."""
    pool = (await pool_of(APP, size=1)).pool
    told = await asyncio.gather(
        *(ask(pool, "connects", {"who": f"w{n}", "come": 4, "connects": n}) for n in range(3)),
        ask(pool, "connects", {"who": "w3", "come": 4, "connects": 6}),
    )
    for n, (outcome, caller) in enumerate(told[:3]):
        assert isinstance(outcome, Succeeded), outcome
        assert [verb for verb, _ in caller.asked] == ["connect"] * n
    outcome, caller = told[3]
    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"
    assert [verb for verb, _ in caller.asked] == ["connect"] * 3


async def test_a_connection_of_nobody_is_refused_and_its_child_not_used_again(pool_of: PoolOf) -> None:
    pool = (await pool_of(APP, size=1)).pool
    outcome, caller = await ask(pool, "bare", {"who": "w", "come": 1})
    assert isinstance(outcome, Succeeded)
    assert "belongs to no execution" in caller.json["error"]
    assert caller.asked == []
    _, after = await ask(pool, "bare", {"who": "w", "come": 1})
    assert after.json["pid"] != caller.json["pid"]


async def test_a_caller_that_hangs_up_ends_only_its_own_call(pool_of: PoolOf) -> None:
    pool = (await pool_of(APP, size=1)).pool
    callers = [Caller(), Caller()]
    gone = asyncio.create_task(ask(pool, "chat", {"who": "gone", "come": 3}, callers[0]))
    stays = asyncio.create_task(ask(pool, "chat", {"who": "stays", "come": 3}, callers[1]))
    await until(lambda: all(caller.messages for caller in callers))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    late = await ask(pool, "chat", {"who": "late", "come": 1})
    assert isinstance(late[0], Succeeded)
    outcome, caller = await stays
    assert isinstance(outcome, Succeeded), outcome
    assert caller.json["who"] == "STAYS"

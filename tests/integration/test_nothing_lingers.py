"""What a worker held for an execution goes with it: at once, not when the garbage collector looks at last."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from circuit_script.config import Settings, WorkerSettings
from circuit_script.db.pool import Pool
from circuit_script.effects.unit import UnitOfWork
from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.attempt import EndpointBroker
from circuit_script.endpoints.client import Link, Stream
from circuit_script.endpoints.protocol import Answer, Call
from circuit_script.endpoints.reply import Reply
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.host.run import Execution
from circuit_script.execution.host.watch import Watch
from circuit_script.execution.outcome import HttpRequest, Work
from tests.road import PATIENCE, Road, contact, eventually, happens, open_road
from tests.workers import working

pytestmark = pytest.mark.story  # not under coverage: its tracer holds frames

T = TypeVar("T")
KINDS = (Execution, Watch, ExecutionBroker, Work, UnitOfWork, Reply, HttpRequest, Call)
APP = """
import asyncio, os, time
from circuit_script import CircuitDB, Retry, endpoint, http, log, trigger

# Enough for all but those that never end.
LIMITS = {"wall_time": 3}

async def behave(how):
    await CircuitDB.insert("Seen", {"how": how})
    await CircuitDB.query("Contact")
    match how:
        case "raises":
            raise ValueError("wrong")
        case "sleeps":
            await asyncio.sleep(60)
        case "spins":
            while True:
                pass
        case "leaves":
            os._exit(3)
        case "asks-too-much":
            for _ in range(1000):
                await CircuitDB.query("Contact")
        case "says-too-much":
            for _ in range(1000):
                log.info("x" * 100_000)
        case "asks-nonsense":
            await CircuitDB.update("Contact", {"id": "nobody"})
        case "large":
            return "x" * 10_000_000


@trigger("Contact", ["afterInsert"], batch_size=1, limits=LIMITS)
async def first(context):
    await context.checkpoint(upto=context.new_records[0])
    await behave(context.new_records[0].id)


@endpoint("behave/{how}", auth="none", limits=LIMITS)
async def call(how: str):
    return await behave(how)


@endpoint("streams/{how}", auth="none", limits=LIMITS)
async def streams(how: str):
    yield {"one": 1}
    await behave(how)
    yield {"two": 2}
"""
WAYS = ("well", "raises", "sleeps", "spins", "leaves", "asks-too-much", "says-too-much", "asks-nonsense", "large")
MOMENTS = (0.0, 0.002, 0.01, 0.05, 0.2)  # seconds after the call


def held() -> list[object]:
    """Every object of an execution that is still in memory."""
    return [each for each in gc.get_objects() if isinstance(each, KINDS)]


def held_of(kind: type[T]) -> list[T]:
    return [each for each in held() if isinstance(each, kind)]


async def all_gone(worker: SimpleNamespace) -> None:
    """Nothing but references counts here; what other tests of this process hold was there before."""
    assert not gc.isenabled()
    before = {id(each) for each in worker.before}

    def left() -> list[str]:
        return [type(each).__name__ for each in held() if id(each) not in before]

    async def gone() -> bool:
        return not left()

    await eventually(gone, lambda: f"still held: {left()}")


@pytest.fixture
async def worker(app_folder: Path, database: str) -> AsyncIterator[SimpleNamespace]:
    (app_folder / "app.py").write_text(APP)
    options = {"children": 2, "lease": 2.0, "attempts": 1, "backoff": 0.01, "drain": 5.0}
    settings = Settings(folder=app_folder, database_url=database, worker=WorkerSettings.model_validate(options))
    async with AsyncExitStack() as stack:
        road = await stack.enter_async_context(open_road(database))
        made = await stack.enter_async_context(working(settings, database))
        made.door._refuse = lambda pid: False  # this process is the worker, and its child
        link = await stack.enter_async_context(Link(socket_path(app_folder)))
        assert await link.wait(PATIENCE)
        gc.collect()
        gc.disable()
        try:
            yield SimpleNamespace(road=road, link=link, database=made.courier._database, before=held())
        finally:
            gc.enable()


def call(endpoint: str, how: str) -> Call:
    return Call(endpoint, "acme", HttpRequest("GET", f"/api/{endpoint}/{how}", "", (), b"x" * 100_000))


async def test_of_a_batch_nothing_is_held_when_it_has_ended_in_whatever_way(worker: SimpleNamespace) -> None:
    road: Road = worker.road
    await road.take_in(*map(contact, WAYS))
    await road.until("SELECT count(*) FROM circuit.queue", [0])
    await all_gone(worker)


@pytest.mark.parametrize("endpoint", ["call", "streams"])
async def test_of_a_call_nothing_is_held_when_it_has_ended_in_whatever_way(
    worker: SimpleNamespace, endpoint: str
) -> None:
    link: Link = worker.link

    async def ask(how: str) -> None:
        answer = await link.call(call(endpoint, how))
        if isinstance(answer, Stream):
            while await answer.next() is not None:
                pass
            answer.close()

    await asyncio.gather(*map(ask, WAYS))
    await all_gone(worker)


async def test_of_a_call_whose_caller_hangs_up_nothing_is_held(worker: SimpleNamespace) -> None:
    link: Link = worker.link
    stream = await link.call(call("streams", "sleeps"))
    assert isinstance(stream, Stream)
    stream.close()
    plain = asyncio.create_task(link.call(call("call", "sleeps")))
    await asyncio.sleep(0)
    plain.cancel()
    await asyncio.gather(plain, return_exceptions=True)
    del plain, stream
    await all_gone(worker)


@pytest.mark.parametrize("endpoint", ["call", "streams"])
async def test_of_calls_whose_callers_hang_up_at_whatever_moment_nothing_is_held(
    worker: SimpleNamespace, endpoint: str
) -> None:
    link: Link = worker.link

    async def hang_up(how: str, moment: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(moment):
                answer = await link.call(call(endpoint, how))
                if isinstance(answer, Stream):
                    with closing(answer):
                        while await answer.next() is not None:
                            pass

    await asyncio.gather(*(hang_up(how, moment) for how in WAYS for moment in MOMENTS))
    await all_gone(worker)


async def test_of_a_call_whose_caller_hangs_up_while_it_waits_for_a_connection_nothing_is_held(
    worker: SimpleNamespace,
) -> None:
    database: Pool = worker.database
    async with AsyncExitStack() as taken:
        for _ in range(database.max_size):
            await taken.enter_async_context(database.connection())
        stream = await worker.link.call(call("streams", "well"))
        assert isinstance(stream, Stream)
        await happens(
            lambda: any(each.usage.db_queries for each in held_of(EndpointBroker)), "it asks for a connection"
        )
        assert held_of(Execution)
        stream.close()
        await happens(lambda: not held_of(Execution), "its execution is held, and still there is no connection")
    del stream
    await all_gone(worker)


async def test_of_calls_that_were_refused_a_place_nothing_is_held(worker: SimpleNamespace) -> None:
    link: Link = worker.link

    async def ask() -> int:
        answer = await link.call(call("call", "sleeps"))
        assert isinstance(answer, Answer)
        return answer.status

    statuses = await asyncio.gather(*(ask() for _ in range(230)))
    assert 503 in statuses
    await all_gone(worker)

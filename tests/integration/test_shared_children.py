"""Executions that share a child, on the whole road: from the queue and from the door to their commits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuit_script.endpoints.client import Link, Stream
from circuit_script.endpoints.protocol import Answer
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Work
from tests.doors import answer, begin_events, endpoint, insert, open_post
from tests.integration.test_endpoints import ENDS, SAID, call
from tests.receiver import Receiver, response
from tests.road import Incoming, Road, open_road

pytestmark = pytest.mark.evasion

APP = """
import asyncio, os, time
from pathlib import Path
from circuit_script import CircuitDB, http, log, trigger

@trigger("Contact", ["afterInsert"], batch_size=1, concurrency=4)
async def meets(context):
    '''Goes on once so many have come as are to; each says so once, and pays for it.'''
    record = context.new_records[0]
    here = Path("here")
    await http.post(record["url"] + record.id)
    await CircuitDB.upsert("Score", {"id": record.id, "process": os.getpid(), "run": str(context.execution_id)})
    (here / record.id).touch()
    while len(list(here.iterdir())) < record["come"]:
        await asyncio.sleep(0.001)
    if "does" in record:
        (here / "did").touch()
    match record.get("does"):
        case "leave":
            os._exit(3)
        case "block":
            time.sleep(60)
        case "hog":
            kept = [bytearray(1024 * 1024) for _ in range(300)]
"""

MEETS = HandlerSpec("meets", (("Contact", "afterInsert"),), batch_size=1, concurrency=4)


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(MEETS)
        yield made


Shared = Callable[..., Awaitable[tuple[Receiver, Pool]]]


@pytest.fixture
async def shared(road: Road, tmp_path: Path) -> AsyncIterator[Shared]:
    """Starts a worker with real children, and somebody who takes its calls."""
    async with AsyncExitStack() as stack:

        async def start(size: int = 1, **changes: Any) -> tuple[Receiver, Pool]:
            (tmp_path / "app.py").write_text(APP)
            (tmp_path / "here").mkdir()
            receiver = Receiver(lambda _: response(200, b"{}"))
            server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
            receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            pool = Pool(app_folder=tmp_path, app="app", size=size, on_change=lambda: None, longest_turn=0.3)
            await pool.start()
            stack.push_async_callback(pool.stop)
            stack.push_async_callback(receiver.close)
            stack.callback(server.close)
            stack.push_async_callback(road.close_workers)
            worker = await road.start(children=pool, **changes)
            pool.on_change = worker.dispatcher.wake
            return receiver, pool

        yield start


def coming(receiver: Receiver, size: int, tenant: str = "acme", **does: str) -> list[Incoming]:
    """Who is to do something does it once all have come; the others wait until it is being done."""
    doing = {name: {"come": size, "does": what} for name, what in does.items()}
    waiting = {"come": size + len(does)}
    return [
        Incoming(f"{tenant}{n}", tenant=tenant, fields={"url": receiver.url} | doing.get(f"r{n}", waiting))
        for n in range(size)
    ]


async def test_batches_of_one_tenant_wait_in_one_child(road: Road, shared: Shared) -> None:
    receiver, _ = await shared()
    await road.take_in(*coming(receiver, 4))
    await road.done()
    scores = [await road.record(f"acme{n}", "Score") for n in range(4)]
    assert len({score["process"] for score in scores if score}) == 1
    assert len({score["run"] for score in scores if score}) == 4
    assert await road.rows("SELECT status, count(*) FROM circuit.outcomes GROUP BY 1") == [("succeeded", 4)]


async def test_tenants_do_not_share_and_none_takes_all_children(road: Road, shared: Shared) -> None:
    receiver, _pool = await shared(size=3)
    await road.take_in(*coming(receiver, 4, "acme"), *coming(receiver, 4, "bolt"))
    await road.done()
    by_tenant = {
        tenant: {(await road.record(f"{tenant}{n}", "Score", tenant) or {})["process"] for n in range(4)}
        for tenant in ("acme", "bolt")
    }
    assert not by_tenant["acme"] & by_tenant["bolt"]
    assert await road.rows("SELECT status, count(*) FROM circuit.outcomes GROUP BY 1") == [("succeeded", 8)]


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("leave", "left its process with exit code 3"),
        ("block", "blocked_loop"),
        ("hog", "limit memory exceeded"),
    ],
)
async def test_one_that_ends_the_process_is_a_dead_letter_and_the_others_never_know(
    road: Road, shared: Shared, does: str, reason: str
) -> None:
    """With one attempt for each: what was disturbed has not had it."""
    receiver, _ = await shared(attempts=1)
    await road.take_in(*coming(receiver, 4, r2=does))
    await road.done()
    found = await road.rows(
        "SELECT e.record, o.status, o.reason FROM circuit.outcomes o "
        "JOIN circuit.events e ON e.delivery = o.delivery AND e.ordinal = o.ordinal ORDER BY 1"
    )
    assert [(record, status) for record, status, _ in found] == [
        ("acme0", "succeeded"), ("acme1", "succeeded"), ("acme2", "dead"), ("acme3", "succeeded"),
    ]  # fmt: skip
    assert reason in found[2][2]
    assert [await road.record(f"acme{n}", "Score") is not None for n in range(4)] == [True, True, False, True]
    paid = Counter(got.line.split()[1] for got in receiver.got)
    assert paid == {f"/acme{n}": 1 for n in range(4)}, "nothing is paid twice"


Open = Callable[..., Awaitable[tuple[Any, Link]]]


@pytest.fixture
async def post(database: str, app_folder: Path, pooler: bool) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opened(handler: Any, concurrency: int, places: int = 1) -> tuple[Any, Link]:
            made = await stack.enter_async_context(
                open_post(database, app_folder, handler, places=places, pooler=pooler)
            )
            await made.live(replace(endpoint("chat"), concurrency=concurrency))
            link = await stack.enter_async_context(Link(app_folder / ".circuit" / "worker.sock"))
            assert await link.wait(5)
            return made, link

        yield opened


async def test_calls_that_share_a_child_take_one_place_together(post: Open) -> None:
    inside = 0
    meeting = asyncio.Event()

    async def meet(work: Work, broker: Any) -> None:
        nonlocal inside
        assert work.concurrency == 3
        inside += 1
        if inside >= 3:
            meeting.set()
        await meeting.wait()
        answer(broker, 200, inside)

    _, link = await post(meet, 3)
    told = await asyncio.gather(*(link.call(call()) for _ in range(3)))
    assert [each.status for each in told if isinstance(each, Answer)] == [200, 200, 200]


async def test_a_call_that_was_disturbed_runs_again_alone_and_its_caller_never_knows(post: Open) -> None:
    async def handler(work: Work, broker: ExecutionBroker) -> Outcome | None:
        await insert(broker, word=f"concurrency {work.concurrency}")  # type: ignore[arg-type]
        answer(broker, 200, work.concurrency)  # type: ignore[arg-type]
        return Failed("together", broker.usage, disturbed=True) if work.concurrency > 1 else None

    made, link = await post(handler, 4)
    told = await link.call(call())
    assert isinstance(told, Answer)
    assert (told.status, told.body) == (200, b"1")
    assert await made.rows(SAID) == ["concurrency 1"]
    assert await made.rows(ENDS) == [("succeeded", "succeeded", None)]


async def test_a_call_that_went_outside_by_itself_is_not_run_again(post: Open) -> None:
    async def handler(work: Work, broker: Any) -> Outcome | None:
        await broker.request("connect", {"host": "127.0.0.1", "port": 1})
        await insert(broker, word="never")
        return Failed("together", broker.usage, disturbed=True)

    made, link = await post(handler, 4)
    told = await link.call(call())
    assert isinstance(told, Answer)
    assert told.status == 503
    assert len(made.children.works) == 1
    assert await made.rows(SAID) == []


async def test_a_stream_that_was_disturbed_ends_with_an_error(post: Open) -> None:
    async def handler(work: Work, broker: Any) -> Outcome | None:
        begin_events(broker)
        broker.on_chunk(b"data: 1\n\n")
        await insert(broker, word="never")
        return Failed("together", broker.usage, disturbed=True)

    made, link = await post(handler, 4)
    told = await link.call(call())
    assert isinstance(told, Stream)
    body = b""
    while (piece := await told.next()) is not None:
        body += piece
    assert b"event: error" in body
    assert len(made.children.works) == 1
    assert await made.rows(SAID) == []

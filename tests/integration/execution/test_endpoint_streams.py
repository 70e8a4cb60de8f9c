"""Answers of endpoints that leave piece by piece."""

from __future__ import annotations

from typing import Any

import pytest

from circuit_script.execution.outcome import Breached, Failed, Succeeded
from tests.integration.execution.calls import APP, Caller, Door
from tests.integration.execution.conftest import PoolOf, until


@pytest.fixture
async def door(pool_of: PoolOf) -> Door:
    return Door(await pool_of(APP, size=1))


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

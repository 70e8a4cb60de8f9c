"""Tasks end, also those that lose their cancellation."""

from __future__ import annotations

import asyncio

import pytest

from circuit_script import tasks


async def test_a_task_that_loses_its_cancellation_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ASK_AGAIN", 0.01)
    lost = 0

    async def deaf_at_first() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async def fail() -> None:
        raise RuntimeError("it failed by itself")

    deaf, failed = asyncio.create_task(deaf_at_first()), asyncio.create_task(fail())
    await asyncio.wait({failed})
    await asyncio.sleep(0)
    await tasks.end([deaf, failed])

    assert deaf.cancelled()
    assert lost == 3
    assert isinstance(failed.exception(), RuntimeError)
    await tasks.end([])


async def test_a_part_that_fails_begins_again_until_who_runs_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_REST", 0.001)
    stopping, began = asyncio.Event(), 0

    async def part() -> None:
        nonlocal began
        began += 1
        if began == 4:
            stopping.set()
        if began < 5:
            raise RuntimeError("nobody thought of that")

    await tasks.keep("logs", part, stopping)
    assert began == 4, "what fails while all stops does not begin again"
    await tasks.keep("logs", part, stopping)
    assert began == 5, "what returns is done"


async def test_a_part_that_rests_begins_at_once_when_all_stops_to_leave_nothing_behind() -> None:
    stopping, failed, began = asyncio.Event(), asyncio.Event(), 0

    async def part() -> None:
        nonlocal began
        began += 1
        if began == 1:
            failed.set()
            raise RuntimeError("nobody thought of that")

    kept = asyncio.create_task(tasks.keep("traces", part, stopping))
    await failed.wait()
    stopping.set()
    await asyncio.wait_for(kept, 0.9)  # its rest is a second
    assert began == 2

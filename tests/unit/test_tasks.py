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

"""A worker that cannot start ends, with all that it had begun: who watches it starts another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from circuit_script import tasks
from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.errors import DatabaseUnavailable
from circuit_script.telemetry import LogWriter
from circuit_script.telemetry.alerts.monitor import CircuitMonitor
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.wiring import Worker, run_worker, running
from circuit_script.wiring.guardian import Guardian
from tests.workers import working


async def test_a_worker_whose_database_goes_away_while_it_starts_leaves_no_task_behind(
    app_folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app_folder / "app.py").write_text("")
    began: list[str] = []

    async def gone(_: Pool) -> None:
        await asyncio.sleep(0)
        began.extend(task.get_name() for task in asyncio.all_tasks())
        raise DatabaseUnavailable("it was shut down")

    monkeypatch.setattr(running, "prepare", gone)
    before = asyncio.all_tasks()
    with pytest.raises(DatabaseUnavailable):
        await run_worker(Settings(folder=app_folder, database_url=database), database, lambda _: None)
    assert {"replays", "schedules", "courier", "logs"} <= set(began)
    assert sorted(task.get_name() for task in asyncio.all_tasks() - before) == []


async def test_what_only_tells_of_the_road_begins_again_where_it_fails_and_the_worker_goes_on(
    app_folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app_folder / "app.py").write_text("")
    monkeypatch.setattr(tasks, "FIRST_REST", 0.01)
    began: Counter[str] = Counter()

    def failing_once(name: str, part: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def run(*given: Any, **named: Any) -> None:
            began[name] += 1
            if began[name] == 1:
                raise AssertionError("nobody thought of that")
            await part(*given, **named)

        return run

    parts = {"guardian": Guardian, "alerts": CircuitMonitor, "logs": LogWriter, "traces": TraceWriter}
    for name, owner in parts.items():
        monkeypatch.setattr(owner, "run", failing_once(name, owner.run))
    monkeypatch.setattr(running, "tell_dropped", failing_once("dropped", running.tell_dropped))
    stopped: list[Worker] = []
    stop = Worker.stop
    monkeypatch.setattr(Worker, "stop", lambda worker: (stopped.append(worker), stop(worker)))
    async with working(Settings(folder=app_folder, database_url=database), database):
        async with asyncio.timeout(30):
            while not all(began[name] == 2 for name in (*parts, "dropped")):
                await asyncio.sleep(0.01)
        assert not stopped
    assert len(stopped) == 1, "and then it was told to"

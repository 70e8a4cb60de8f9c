"""A worker that cannot start ends, with all that it had begun: who watches it starts another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.errors import DatabaseUnavailable
from circuit_script.wiring import run_worker, running


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

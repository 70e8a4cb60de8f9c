"""``circuit-script quotas`` reads what workers have said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from circuit_script.cli import quotas
from circuit_script.config import FILE, load_settings
from circuit_script.db.pool import open_pool
from circuit_script.wiring.quotas import make_quotas

TOML = """
[tenants]
ada = { tier = "free" }
ben = { tier = "own" }
cleo = {}
[tiers.own]
executions = { month = 50 }
"""


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILE).write_text(TOML)
    monkeypatch.setenv("DATABASE_URL", database)
    return tmp_path


def test_it_shows_use_ceiling_share_and_reset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_use(folder))
    capsys.readouterr()  # the worker's log
    quotas.run(folder=folder, as_json=True)
    lines = json.loads(capsys.readouterr().out)

    assert [(each["tenant"], each["quota"], each["period"], each["used"], each["ceiling"]) for each in lines] == [
        ("ada", "executions", "day", 85, 100),
        ("ada", "api_calls", "day", 0, 1000),
        ("ben", "executions", "month", 0, 50),
    ]
    assert (lines[0]["percent"], lines[0]["tier"]) == (85, "free")
    assert lines[0]["resets_at"].endswith("T00:00:00+00:00")

    quotas.run(folder=folder, tenant="ada")
    said = capsys.readouterr().out
    assert "85 %" in said
    assert "ben" not in said
    quotas.run(folder=folder, tenant="cleo")
    assert "cleo has no tier with quotas" in capsys.readouterr().out


async def _use(folder: Path) -> None:
    settings = load_settings(folder)
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, min_size=1, max_size=2, name="test")
    governor = make_quotas(settings, settings.database_url, pool)
    task = asyncio.create_task(governor.run())
    await governor.spend("ada", "executions", 85)
    governor.stop()
    await task
    await pool.close()

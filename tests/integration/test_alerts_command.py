"""`circuit-script alerts`, as a person types it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuit_script.cli import app
from tests.alerts_stage import Stage, channel, heard, said, staged


@pytest.fixture
async def stage(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.chdir(tmp_path)
    async with staged(database, tmp_path) as stage:
        yield stage


async def alerts(*words: str) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["alerts", *words])
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


async def test_a_person_lists_acknowledges_silences_and_tries(stage: Stage, tmp_path: Path) -> None:
    async with heard() as ops:
        url = channel(ops)["url"]
        (tmp_path / "circuit.toml").write_text(
            f'[alerts.channels.ops]\nurl = "{url}"\n[alerts.channels.none]\nurl_env = "CIRCUIT_NO_SUCH"\n'
        )
        assert await alerts() == (0, "✓ Nothing is wrong.\n")
        await stage.died("score", "acme", 2, reason="[red]\x1b[31m")
        await stage.look(stage.monitor())
        code, text = await alerts("list")
        assert code == 0
        assert "warning  score: 2 dead letters wait for somebody" in text
        assert "next: circuit-script dead list --trigger score" in text
        assert "\x1b" not in text
        code, text = await alerts("--json", "--tenant", "acme")
        assert [each["key"] for each in json.loads(text)] == ["dead:score@acme"]
        assert json.loads((await alerts("--json", "--tenant", "globex"))[1]) == []

        assert (await alerts("ack", "dead:score", "--by", "ann"))[0] == 0
        assert (await alerts("silence", "dead:score", "--for", "2h", "--by", "bob"))[0] == 0
        _, text = await alerts()
        assert "ann looks after it" in text
        assert "by bob" in text
        assert (await alerts("silence", "dead:score", "--for", "0"))[0] == 0
        assert "silent until" not in (await alerts())[1]
        for words in (("ack", "dead:none"), ("silence", "dead:none"), ("test", "nobody")):
            code, text = await alerts(*words)
            assert code != 0
            assert "cannot be done with alerts" in text
        assert (await alerts("silence", "dead:score", "--for", "soon"))[0] == 2

        assert await alerts("test", "ops") == (0, "✓ ops was told.\n")
        assert said(ops)[0]["title"] == "Circuit Script: this is a test"
        code, text = await alerts("test", "none")
        assert (code, "CIRCUIT_NO_SUCH is not set" in text) == (1, True)

"""``circuit-script pause``, ``resume``, ``cancel`` and ``why``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from circuit_script.cli import cancel, pause, resume, why
from circuit_script.config import FILE
from circuit_script.errors import ControlRefused
from tests.road import SCORE, contact, open_road


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILE).write_text('[tenants]\nacme = { tier = "free" }\n')
    monkeypatch.setenv("DATABASE_URL", database)

    async def fill() -> None:
        async with open_road(database) as road:
            await road.live(SCORE)
            await road.take_in(contact("c1"), contact("c2"))

    asyncio.run(fill())
    return tmp_path


def test_what_is_paused_is_told_and_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pause.run(folder=folder, trigger="score", reason="the CRM is down", by="ada")
    assert "paused trigger score: 2 wait" in capsys.readouterr().out
    pause.run(folder=folder, listed=True, as_json=True)
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["kind"], listed["value"], listed["by"], listed["reason"]) == (
        "trigger",
        "score",
        "ada",
        "the CRM is down",
    )

    why.run("c1", folder=folder)
    said = capsys.readouterr().out
    assert "paused: ada paused trigger score" in said
    assert "place 1 of 2" in said

    resume.run(folder=folder, trigger="score")
    assert "resumed trigger score" in capsys.readouterr().out
    pause.run(folder=folder, listed=True)
    assert "Nothing is paused." in capsys.readouterr().out
    with pytest.raises(ControlRefused, match="was not paused"):
        resume.run(folder=folder, everything=True)
    with pytest.raises(ControlRefused, match="Did you mean"):
        pause.run(folder=folder, trigger="scor")
    assert not json.loads(_json(why.run, capsys, "nobody", folder=folder))["waiting"]


def test_cancel_asks_and_says_how_many(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: False)
    with pytest.raises(typer.Exit):
        cancel.run(folder=folder, record="c1")
    cancel.run(folder=folder, record="c1", tenant="acme", reason="a test", by="ada", yes=True)
    assert "cancelled 1 events (record c1 of tenant acme)" in capsys.readouterr().out
    why.run("c1", folder=folder)
    said = capsys.readouterr().out
    assert "Nothing of c1 waits." in said
    assert "cancelled by ada: a test" in said
    cancel.run(folder=folder, everything=True, yes=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["cancelled"] == 1


@pytest.mark.parametrize("said", [{}, {"trigger": "a", "record": "b"}, {"everything": True, "tenant": "acme"}])
def test_what_is_meant_must_be_one_thing(said: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter, match="say "):
        pause.selected(
            **{"trigger": None, "tenant": None, "connector": None, "record": None, "everything": False, **said}
        )


def _json(verb: Any, capsys: pytest.CaptureFixture[str], *given: Any, **named: Any) -> str:
    capsys.readouterr()
    verb(*given, **named, as_json=True)
    return capsys.readouterr().out

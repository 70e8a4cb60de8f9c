"""``circuit-script pause``, ``resume``, ``cancel`` and ``why``."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from circuit_script.cli import cancel, pause, resume, why
from circuit_script.config import FILE
from circuit_script.errors import ControlRefused, DatabaseUnavailable
from tests.road import SCORE, contact, open_road


class Asked(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


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
    with pytest.raises(typer.BadParameter, match=r"Cancel 1 event \(record c1\).* say --yes"):
        cancel.run(folder=folder, record="c1")
    monkeypatch.setattr("sys.stdin", Asked())
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda *_: "n")
    with pytest.raises(typer.Abort):
        cancel.run(folder=folder, record="c1")
    cancel.run(folder=folder, record="c1", tenant="acme", reason="a test", by="ada", yes=True)
    assert "cancelled 1 event (record c1 of tenant acme)" in capsys.readouterr().out
    why.run("c1", folder=folder)
    said = capsys.readouterr().out
    assert "Nothing of c1 waits." in said
    assert "cancelled by ada: a test" in said
    pause.run(folder=folder, everything=True, reason="lunch", by="ben")
    capsys.readouterr()
    cancel.run(folder=folder, everything=True, yes=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["cancelled"], said["still_paused"]) == (1, True)
    cancel.run(folder=folder, everything=True)
    assert "still paused by ben: lunch; to end it: circuit-script resume --all" in capsys.readouterr().out


def test_a_cancel_that_is_broken_off_says_what_stays_paused(
    folder: Path, database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt  # not a signal: Python 3.11 may lose the one that comes just as a query ends

    monkeypatch.setattr("rich.progress.Progress.update", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        cancel.run(folder=folder, trigger="score", tenant="acme", yes=True)
    said = capsys.readouterr()
    assert "broken off after 2 events; the rest stays paused: cancel it again, or circuit-script resume" in said.err
    assert "resume --trigger score --tenant acme" in said.err
    pause.run(folder=folder, listed=True, as_json=True)
    (left,) = json.loads(capsys.readouterr().out)
    assert (left["value"], left["tenant"]) == ("score", "acme")


def test_a_cancel_that_ends_before_it_has_paused_anything_does_not_say_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise psycopg.OperationalError("the server closed the connection")

    monkeypatch.setattr("circuit_script.jobs.cancel.take_in_meant", refuse)
    with pytest.raises(DatabaseUnavailable):
        cancel.run(folder=folder, trigger="score", yes=True)
    said = capsys.readouterr().err
    assert "broken off after 0 events; what is paused now: circuit-script pause --list" in said
    assert "stays paused" not in said


@pytest.mark.parametrize("kind", ["trigger", "connector", "record", "tenant"])
def test_a_name_that_is_empty_means_nothing(kind: str) -> None:
    others = {"trigger": None, "tenant": None, "connector": None, "record": None, "everything": False}
    with pytest.raises(typer.BadParameter, match="it names nothing"):
        pause.selected(**{**others, kind: " "})
    with pytest.raises(typer.BadParameter, match="it names nothing"):
        pause.selected(**{**others, "trigger": "score", "tenant": ""})


def test_what_is_mistyped_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (pause, cancel):
        with pytest.raises(ControlRefused, match=r"no connector 'webhok'.*Known: jobs, webhook"):
            verb.run(folder=folder, connector="webhok")
    pause.run(folder=folder, listed=True)
    assert "Nothing is paused." in capsys.readouterr().out
    pause.run(folder=folder, tenant="acmee")
    assert "no tenant 'acmee': did you mean 'acme'?" in capsys.readouterr().err
    pause.run(folder=folder, tenant="acme")
    assert not capsys.readouterr().err
    with pytest.raises(typer.BadParameter, match="shows all"):
        pause.run(folder=folder, record="c1", listed=True)


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
